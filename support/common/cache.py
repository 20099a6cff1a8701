"""Finished work on disk: one file per result, written whole or not at all.

:meth:`Cache.once` runs a function once and keeps what it returns. The file's name holds a hash of
everything that decides the result: the function with all that it refers to, its arguments, and the
versions of the libraries (:mod:`support.common.identity`); so a change of any of them is a miss,
never a wrong hit. Files are safetensors: reading one runs no code.
"""

import hashlib
import json
import pkgutil
import re
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from support.common import files, identity, paths

Tensors = dict[str, Tensor]


class CacheError(RuntimeError):
    """The cache folder cannot be used, a call cannot be kept, or its result cannot. One line that
    says what to do."""


@dataclass(frozen=True)
class Place:
    """Where the result of a call lies.

    Attributes:
        cache: the cache it belongs to.
        path: the file, there or not.
        key: the canonical text of what decides the result, which the file carries as well.
    """

    cache: "Cache"
    path: Path
    key: str

    @property
    def partial(self) -> "Place":
        """A place beside it, for the state of work that is not finished."""
        return replace(self, path=self.path.with_name(f"{self.path.stem}.partial.safetensors"))

    def read(self) -> Tensors | None:
        """What the file holds, or None if there is none."""
        found = self.cache._read(self)
        return None if found is None else found[0]

    def write(self, tensors: Tensors, *, durable: bool = True) -> None:
        """Keep named tensors; ``durable`` waits until the disk has them.

        Raises:
            CacheError: a full disk, a folder that cannot be written; nothing half-written stays.
        """
        self.cache._write(self, tensors, {}, durable=durable)
        self.cache.misses += durable

    def remove(self) -> None:
        """Forget it."""
        self.path.unlink(missing_ok=True)


class Cache:
    """Results under one folder.

    Args:
        folder: default :func:`support.common.paths.cache` (``BOOK_CACHE``, else ``data/cache``). It
            is made when first written to.
        where: what of the machine decides the last digits, such as the number of threads; part of
            every key.

    Attributes:
        hits: how many results were found that had been there before this cache was opened.
        misses: how many were computed.
    """

    def __init__(self, folder: Path | str | None = None, where: str = ""):
        self.folder = paths.cache() if folder is None else Path(folder).expanduser().resolve()
        self.where = where
        self.hits = self.misses = 0
        self._opened = time.time()
        self._missed: dict[Path, float] = {}

    def once(self, function: Callable, *args: Any, **settings: Any) -> Any:
        """``function(*args, **settings)``, computed once.

        Args:
            function: a function of its arguments alone, whose result is made of numbers, strings,
                None, tensors, arrays, lists, tuples, mappings and dataclasses.
            *args, **settings: see :func:`support.common.identity.describe` for what they may be.

        Returns:
            What the function returns, the same on a hit and on a miss: tensors on the CPU.

        Raises:
            CacheError: the folder cannot be written, or the function, an argument or the result
                cannot be kept.
        """
        place = self.place(function, args, settings)
        found = self._read(place)
        if found is not None:
            try:
                return _decoded(found[1]["result"], found[0])
            except (KeyError, AttributeError, TypeError, ImportError, ValueError) as error:
                warnings.warn(f"{place.path} is unreadable ({error}): computed again", stacklevel=2)
        self.writable()
        tensors: Tensors = {}
        result = _encoded(function(*args, **settings), tensors, function.__name__)
        self._write(place, tensors, {"result": result})
        self.misses += 1
        return _decoded(result, tensors)

    def place(self, function: Callable, args: tuple, settings: Mapping[str, Any]) -> Place:
        """Where the result of a call lies. Raises :class:`CacheError` where it can have no key."""
        try:
            call = identity.of_call(function, args, settings)
        except identity.NoIdentity as error:
            raise CacheError(str(error)) from error
        key = json.dumps(call | {"where": self.where}, sort_keys=True)
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", function.__name__).strip("-.")
        total = hashlib.sha256(key.encode()).hexdigest()
        return Place(self, self.folder / f"{name}-{total[:16]}.safetensors", total)

    def writable(self) -> None:
        """See that the folder exists and takes a file, before hours of work depend on it; sweep up
        after killed runs.

        Raises:
            CacheError: it does not.
        """
        try:
            files.check_writable(self.folder)
        except OSError as error:
            raise self._trouble(error) from error

    def origin(self, now: Mapping[str, Any]) -> dict[str, Any] | None:
        """What the first user of the folder said of itself, which is ``now`` if the folder is
        empty; None where nobody said anything."""
        file = self.folder / "origin.json"
        if not any(self.folder.glob("*.safetensors")):
            files.write_all({file: json.dumps(dict(now))})
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _read(self, place: Place) -> tuple[Tensors, dict] | None:
        """A file's tensors and header. An unreadable or foreign one counts as none, with a
        warning."""
        try:
            data = place.path.read_bytes()  # not mapped: another process may replace the file
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
            if header["key"] != place.key:
                raise SafetensorError("it belongs to another key")
            found = safetensors.torch.load(data), json.loads(header["meta"])
            self.hits += place.path.stat().st_mtime < self._opened
        except (FileNotFoundError, NotADirectoryError):
            self._missed[place.path] = time.perf_counter()
            return None
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            warnings.warn(
                f"{place.path} cannot be read ({error}): computing it again", stacklevel=4
            )
            return None
        return found

    def _write(self, place: Place, tensors: Tensors, meta: dict, *, durable: bool = True) -> None:
        metadata = {"key": place.key, "meta": json.dumps(meta)}
        if began := self._missed.pop(place.path, None):  # what carrying a record goes by
            metadata["seconds"] = f"{time.perf_counter() - began:.3f}"
        plain = {name: _plain(tensor) for name, tensor in tensors.items()}
        data = safetensors.torch.save(plain, metadata=metadata)
        try:
            files.write_all({place.path: data}, durable=durable)
        except OSError as error:
            raise self._trouble(error) from error

    def _trouble(self, error: OSError) -> CacheError:
        return CacheError(files.trouble(error, f"the cache folder {self.folder}", "BOOK_CACHE"))


def call(function: Callable, *args: Any, **settings: Any) -> Any:
    """Call the function: what a kernel does that was given no cache."""
    return function(*args, **settings)


def _plain(tensor: Tensor) -> Tensor:
    # clone: tensors that share memory cannot be stored, and the caller's must not change behind it
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _encoded(value: Any, tensors: Tensors, place: str) -> Any:
    """A result as JSON, its tensors beside it."""
    if value is None or isinstance(value, bool | str) or type(value) in (int, float):
        return value
    if isinstance(value, Tensor | np.ndarray):
        name = str(len(tensors))
        tensors[name] = _plain(value if isinstance(value, Tensor) else torch.from_numpy(value))
        return {"array" if isinstance(value, np.ndarray) else "tensor": name}
    if isinstance(value, np.generic):
        return value.item()
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        content = {
            field.name: _encoded(getattr(value, field.name), tensors, f"{place}.{field.name}")
            for field in fields(value)
        }
        return {"dataclass": [kind.__module__, kind.__qualname__], "fields": content}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        kind, parts = type(value), [_encoded(part, tensors, place) for part in value]
        return {"named": [kind.__module__, kind.__qualname__], "parts": parts}
    if isinstance(value, list | tuple):
        parts = [_encoded(part, tensors, f"{place}[{i}]") for i, part in enumerate(value)]
        return parts if isinstance(value, list) else {"tuple": parts}
    if isinstance(value, Mapping):
        pairs = [
            [_encoded(k, tensors, place), _encoded(v, tensors, f"{place}[{k!r}]")]
            for k, v in value.items()
        ]
        return {"mapping": pairs}
    raise CacheError(
        f"the result {place} is a {type(value).__qualname__}, which cannot be kept: return "
        "numbers, strings, tensors, arrays, lists, mappings or dataclasses of them"
    )


def _decoded(value: Any, tensors: Tensors) -> Any:
    if isinstance(value, list):
        return [_decoded(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]].clone()
    if "array" in value:
        return tensors[value["array"]].numpy().copy()
    if "tuple" in value:
        return tuple(_decoded(part, tensors) for part in value["tuple"])
    if "mapping" in value:
        return {_decoded(k, tensors): _decoded(v, tensors) for k, v in value["mapping"]}
    kind = pkgutil.resolve_name(":".join(value.get("dataclass") or value["named"]))
    if "named" in value:
        return kind(*(_decoded(part, tensors) for part in value["parts"]))
    return kind(**{key: _decoded(part, tensors) for key, part in value["fields"].items()})
