"""A run of a chapter's evidence in which every unit of its work is seen: a script, which
:mod:`support.book.carry` starts in the checkout of a commit, with the package of that commit.

A unit is a result that the cache keeps; they are numbered as they come. The run under the record's
commit notes them. The run under today's gets from it what today's code would compute anew, so that
it comes to the end soon, and computes again only the units that it is told to, which must be the
same to the last bit. What a result calls ``seconds`` is a time, and not compared.
"""

import functools
import json
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jupytext
import safetensors
import safetensors.torch
import torch

from support.book import chapter_run
from support.book.profiles import NOTHING
from support.common import cache

END = "what is kept"  # the last that is noted
_NO_NUMBERS = {"seconds", "dataclass", "named"}  # times, and where classes are defined


class SeenCache(cache.Cache):
    """A cache whose units are seen.

    Args:
        note: takes what is to be known of a unit.
        earlier: the units of the run under the record's commit, by number; None in that run.
        chosen: numbers of those to compute again.
    """

    def __init__(
        self,
        note: Callable[..., None],
        earlier: Mapping[int, dict[str, Any]] | None,
        chosen: set[int],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._note, self._earlier, self._chosen = note, earlier, chosen
        self._units: dict[Path, dict[str, Any]] = {}  # the number of each, and its function

    def place(self, function: Callable, args: tuple, settings: Mapping[str, Any]) -> cache.Place:
        """Where a unit lies, which has a number from now on."""
        place = super().place(function, args, settings)
        if place.path not in self._units:
            unit = {"unit": len(self._units), "function": function.__name__}
            self._units[place.path] = unit
            if self._earlier is not None:
                was = self._earlier.get(unit["unit"])
                if was and was["function"] != unit["function"]:
                    self._note(**unit, same=False)
                    was = None
                if not was:  # the earlier run came no further
                    raise SystemExit
        return place

    def _before(self, place: cache.Place) -> tuple | None:
        """What the earlier run kept of a unit to which today's code gives another key."""
        was = (self._earlier or {}).get(self._units.get(place.path, {}).get("unit"))
        if was is None or was["file"] == place.path.name:
            return None
        return super()._read(cache.Place(self, place.path.with_name(was["file"]), was["key"]))

    def _read(self, place: cache.Place) -> tuple | None:
        unit = self._units.get(place.path, {})
        if before := self._before(place):
            self._note(**unit, touched=True)
            return None if unit["unit"] in self._chosen else before
        found = super()._read(place)
        if found:
            self._note_kept(place)
        return found

    def _write(self, place: cache.Place, tensors: dict, meta: dict, **options: Any) -> None:
        if before := self._before(place):
            unit, same = self._units[place.path], _content(tensors, meta) == _content(*before)
            self._note(**unit, same=same)
            self._chosen.discard(unit["unit"])
            if not same:
                raise SystemExit
            return
        super()._write(place, tensors, meta, **options)
        self._note_kept(place)

    def _note_kept(self, place: cache.Place) -> None:
        if unit := self._units.get(place.path):
            with safetensors.safe_open(place.path, "pt") as file:
                seconds = float(file.metadata().get("seconds", "inf"))
            self._note(**unit, file=place.path.name, key=place.key, seconds=seconds)


def _content(tensors: Mapping[str, Any], meta: Any) -> tuple[bytes, str]:
    """The bits of a result."""
    kept = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
        if name not in _NO_NUMBERS
    }
    return safetensors.torch.save(kept), json.dumps(_numbers(meta), sort_keys=True)


def _numbers(value: Any) -> Any:
    """A result as the cache writes it, without what is no number of it."""
    if isinstance(value, dict):
        return {name: _numbers(each) for name, each in value.items() if name not in _NO_NUMBERS}
    if isinstance(value, list):  # pairs of a mapping among them
        return None if value[:1] == ["seconds"] else [_numbers(each) for each in value]
    return value


def main(source: str, parameters: str, log: str, earlier: str = "", chosen: str = "[]") -> None:
    """Run the source of an evidence, and note its units, its claims and, at the end, what it keeps.

    Args:
        source: the file.
        parameters: values of its parameters cell, as JSON.
        log: the file to note them in, one line of JSON each.
        earlier: that file of the run under the record's commit.
        chosen: numbers of the units to compute again, as JSON.
    """
    lines = Path(earlier).read_text(encoding="utf-8").splitlines() if earlier else []
    known = {line["unit"]: line for line in map(json.loads, lines) if "unit" in line}
    notebook = sys.modules["__main__"] = types.ModuleType("__main__")
    with open(log, "w", encoding="utf-8", buffering=1) as file:

        def note(**what: Any) -> None:
            print(json.dumps(what), file=file)

        def shown(*_: Any, metadata: Mapping[str, Any] = NOTHING, **options: Any) -> None:
            record = metadata.get("support", {})
            if "claim" in record:
                note(of=record["claim"]["id"], numbers=record["claim"])
            elif "run" in record:
                note(of=END, numbers=record["run"]["kept"])

        told = (note, known if earlier else None, set(json.loads(chosen)))
        chapter_run.Cache = functools.partial(SeenCache, *told)
        chapter_run.get_ipython, chapter_run.display = lambda: True, shown
        for cell in jupytext.read(source).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, source, "exec", dont_inherit=True), vars(notebook))
                if "parameters" in cell.metadata.get("tags", []):
                    vars(notebook).update(json.loads(parameters))


if __name__ == "__main__":
    main(*sys.argv[1:])
