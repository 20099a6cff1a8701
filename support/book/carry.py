"""Records that a refactoring keeps: ``python -m support carry``.

A change of the code makes a record of an hour stale, also where it changes no number. Carrying
tries it: the chapter's evidence runs at quick under the record's own commit and under the commit of
today, each in a checkout and with an empty cache of its own. The record is stamped with today's
code when every number is the same to the last bit and the quick run went through every line that
changed; where either fails, it stays stale, and the reason is said.

What only the networks and images of a larger profile meet, no quick run can tell. So a record of
one is also run at its own profile under both commits, as far as that goes in some minutes
(:mod:`support.book.units`): what a warm cache has of the record's units is taken from there; of
those that today's code would compute anew, the cheapest of each function are computed again, and
more as time is left. Each, and each claim, must be the same to the last bit.

Never carried are a change of the profile, of the registered claims or of a library, a record that
was made with changes that no commit has, and a line that only a larger profile reaches. The
comparison is always with the commit that computed the record, not with an earlier carrying.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext

from support.book import chapter_run, execute, kernels, manifests, units
from support.book.manifests import Carried
from support.common import files, fingerprint, paths

MINUTES = 10.0


class NotCarried(RuntimeError):
    """A record that stays stale, and why, in one line."""


def carry(chapter: str, profile: str, minutes: float = MINUTES) -> Carried:
    """Find out whether the recorded evidence of a chapter holds for today's code, and say so in
    its manifest.

    Args:
        chapter: its whole name.
        profile: of the record.
        minutes: for each of the three runs at a profile above quick.

    Raises:
        NotCarried: it does not, or nobody can tell.
    """
    notebook = manifests.recorded_run(chapter, profile)
    if not (manifest := manifests.there(notebook)):
        raise NotCarried(f"{chapter} has no record at {profile}")
    code = manifests.code_of(chapter)
    if not manifests.is_stale(manifest):
        raise NotCarried(f"{chapter} at {profile} is not older than its code")
    if manifest.commit is None or manifest.dirty:
        raise NotCarried(f"{chapter} at {profile} was not computed from a clean commit")
    if chapter_run.commit()["dirty"] is not False:
        raise NotCarried("the working tree has changes that are not committed")
    now = manifest.model_copy(update={"code": code})
    if not manifests.is_current(now):
        raise NotCarried(f"{chapter} at {profile}: parameters, claims or versions have changed too")
    with (
        files.scratch("book-carry-") as scratch,
        checkout(manifest.commit, scratch / "then") as then,
        checkout("HEAD", scratch / "now") as today,
    ):
        commit = chapter_run.git(today, "rev-parse", "HEAD")
        before = numbers(quick(chapter, then, scratch / "cache-then"))
        after = numbers(quick(chapter, today, scratch / "cache-now", scratch / "lines"))
        if different := sorted(n for n in {*before, *after} if before.get(n) != after.get(n)):
            raise NotCarried(f"{chapter}: other numbers at quick: {', '.join(different[:5])}")
        source = manifests.source_file(chapter).relative_to(paths.root())
        changed = changed_lines(chapter, then, today / source)
        if missed := unreached(changed, scratch / "lines", today):
            raise NotCarried(f"{chapter}: quick does not reach changed lines: {missed[0]}")
        compared = 0
        if profile != "quick":
            compared = Sample(manifest, scratch, minutes).compare(then, today)
    stamp = Carried(code=code, commit=commit, units=compared)
    kept = manifest.model_copy(update={"carried": [*manifest.carried, stamp]})
    text = execute.text_of_manifest(kept)
    files.write_all({manifests.manifest_path(notebook): text})
    return stamp


@contextmanager
def checkout(commit: str, folder: Path) -> Iterator[Path]:
    """A commit's files in a folder, while they are needed.

    Raises:
        NotCarried: the repository has no such commit.
    """
    root = paths.root()
    try:
        chapter_run.git(root, "worktree", "add", "--detach", str(folder), commit)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotCarried(f"commit {commit[:12]} cannot be checked out here") from error
    try:
        yield folder
    finally:
        chapter_run.git(root, "worktree", "remove", "--force", str(folder))


def quick(chapter: str, root: Path, cache: Path, lines: Path | None = None) -> dict[str, Any]:
    """Run a chapter's evidence at quick in a checkout, and read its manifest.

    Args:
        chapter: its whole name.
        root: the checkout, of this edition.
        cache: an empty folder.
        lines: where to note the lines that the run goes through.

    Raises:
        NotCarried: the run failed.
    """
    settings = {"BOOK_ROOT": root, "BOOK_CACHE": cache, "BOOK_PROGRESS": "off"}
    settings |= {"OMP_NUM_THREADS": 1} | ({kernels.LINES: lines} if lines else {})
    command = ("-m", "support", "run", chapter, "--part", "evidence", "--force")
    _python(f"{chapter} at quick", root, *command, **settings)
    made = root / "_build" / "runs" / "quick" / chapter / "evidence.json"
    return json.loads(made.read_text(encoding="utf-8"))


def _python(
    what: str, root: Path, *words: object, seconds: float | None = None, **variables: object
) -> str:
    """What Python says in a checkout, to which its package belongs.

    Raises:
        NotCarried: it failed; ``what`` was to be done.
        TimeoutExpired: it took longer than so many seconds.
    """
    variables = {"PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": 1, **variables}
    environment = os.environ | {name: str(value) for name, value in variables.items()}
    told = {"capture_output": True, "encoding": "utf-8", "check": True, "timeout": seconds}
    command = [sys.executable, *map(str, words)]
    try:
        return subprocess.run(command, cwd=root, env=environment, **told).stdout
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()[-1:]
        raise NotCarried(f"{what} fails in a checkout: {' '.join(said)}") from error


def numbers(manifest: dict[str, Any]) -> dict[str, Any]:
    """Every number of an evidence's manifest by name."""
    found = {f"kept {name}": value for name, value in manifest["kept"].items()}
    for claim, record in manifest["claims"].items():
        for group in ("measured", "modern"):
            found |= {f"{claim} {name}": value for name, value in record[group].items()}
    return found


@dataclass(frozen=True)
class Sample:
    """Units of a record's own size under two commits.

    Attributes:
        record: what was recorded.
        scratch: an empty folder.
        minutes: for each run.
    """

    record: manifests.Manifest
    scratch: Path
    minutes: float

    def compare(self, then: Path, today: Path) -> int:
        """Run both, and say how many units that the change touches are the same.

        Raises:
            NotCarried: one is not, another number is not, or of some function that the change
                touches no unit could be computed in time.
        """
        cache = self.scratch / "units"
        cache.mkdir()
        with suppress(OSError):  # Windows may have no links; then all is computed
            for file in paths.cache().glob("*.safetensors"):  # what the record left, if it is there
                (cache / file.name).symlink_to(file)
        before, plan = self._run("before", then), self._run("plan", today, before="before")
        seconds = {line["unit"]: line["seconds"] for line in before if "seconds" in line}
        touched = {line["unit"]: line["function"] for line in plan if "touched" in line}
        chosen = cheapest(touched, seconds, 60 * self.minutes)
        after = plan
        if chosen:
            after = self._run("after", today, before="before", chosen=json.dumps(chosen))
        where = f"{self.record.chapter} at {self.record.profile}"
        if other := [line["function"] for line in after if line.get("same") is False]:
            raise NotCarried(f"{where}: {other[0]} gives something else than for the record")
        stated = {line["of"]: line["numbers"] for line in before if "numbers" in line}
        for line in after:
            if "numbers" in line and line["numbers"] != stated.get(line["of"], line["numbers"]):
                raise NotCarried(f"{where}: other numbers: {line['of']}")
        same = [line["unit"] for line in after if line.get("same")]
        whole = all(lines[-1:] and lines[-1].get("of") == units.END for lines in (before, after))
        missed = {*touched.values()} - {touched[unit] for unit in same}
        if missed or not (same or whole):
            what = ", ".join(sorted(missed)) or "what changed"
            raise NotCarried(
                f"{where}: no unit of {what} could be tried in {self.minutes:g} minutes: give more "
                "by --minutes, or the cache of the record by BOOK_CACHE"
            )
        return len(same)

    def _run(self, name: str, root: Path, before: str = "", chosen: str = "[]") -> list[dict]:
        """What a run noted, as far as it came in time."""
        log, record = self.scratch / name, self.record
        log.touch()
        earlier = str(self.scratch / before) if before else ""
        given = {"profile": record.profile, "seed": record.seed, "device": record.device}
        source = root / "book" / record.chapter / "evidence.py"
        settings = {"BOOK_ROOT": root, "BOOK_CACHE": self.scratch / "units", "MPLBACKEND": "agg"}
        settings |= {"BOOK_DATA": paths.data_sets(), "OMP_NUM_THREADS": record.threads}
        command = ("-P", units.__file__, source, json.dumps(given), log, earlier, chosen)
        with suppress(subprocess.TimeoutExpired):
            what, seconds = f"{record.chapter} at {record.profile}", 60 * self.minutes
            _python(what, root, *command, seconds=seconds, BOOK_PROGRESS="off", **settings)
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]


def cheapest(touched: Mapping[int, str], seconds: Mapping[int, float], budget: float) -> list[int]:
    """Units to compute again: the cheapest of each function, and further ones as long as all of
    them together take no longer than the budget.

    Args:
        touched: number and function of each unit that there is to choose from.
        seconds: what each took, infinite where nobody knows.
        budget: seconds.
    """
    chosen: dict[int, str] = {}
    spent = 0.0
    for unit in sorted(touched, key=seconds.__getitem__):
        if touched[unit] not in chosen.values() or spent + seconds[unit] <= budget:
            chosen[unit] = touched[unit]
            spent += seconds[unit]
    return list(chosen)


Lines = dict[Path, list[range]]  # of each file, the lines of the statements that count


def changed_lines(chapter: str, then: Path, source: Path) -> Lines:
    """Lines of today's checkout that a run must have gone through to have tried what changed.

    A definition that has only moved is no change: what counts is its name and its meaning.

    Args:
        chapter: its whole name.
        then: the checkout of the record's commit.
        source: the evidence's source in today's checkout.
    """
    old, here = _definitions(then / "book" / chapter / "evidence.py", then), source.parents[2]
    known = {(name, total) for (_, name), total in old.items()}
    changed: Lines = {}
    for (place, name), total in _definitions(source, here).items():
        if name not in ("the file", "on import") and (name, total) not in known:
            file = here / "support" / place
            for statement in ast.parse(file.read_text(encoding="utf-8")).body:
                if getattr(statement, "name", "") == name:
                    changed.setdefault(file, []).extend(_statements(statement))
    earlier = fingerprint.notebook_code(then / source.relative_to(here))
    before = {fingerprint.meaning(statement) for statement in earlier}
    for statement in fingerprint.notebook_code(source):
        if fingerprint.meaning(statement) not in before:
            changed.setdefault(source, []).extend(_statements(statement))
    return changed


def _definitions(source: Path, root: Path) -> dict[tuple[str, str], str]:
    """:func:`support.common.fingerprint.definitions` of a checkout, which has a package of its
    own: asked of a process that runs there."""
    script = (
        "import json, sys; from pathlib import Path; from support.common import fingerprint; "
        "found = fingerprint.definitions([Path(sys.argv[1])]); "
        "print(json.dumps([[*where, total] for where, total in found.items()]))"
    )
    try:
        found = json.loads(_python("comparing", root, "-c", script, source))
    except NotCarried as error:
        raise NotCarried("the record's commit is of an edition that cannot be compared") from error
    return {(place, name): total for place, name, total in found}


def _statements(code: ast.stmt) -> Iterator[range]:
    """Lines of each statement in a definition, of one with a body its head alone; without
    docstrings and refusals."""
    defines = ast.FunctionDef | ast.ClassDef
    for node in ast.walk(code):
        silent = isinstance(node, ast.Raise | ast.Nonlocal | ast.Global | defines)
        if not isinstance(node, ast.stmt) or silent:
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        body = getattr(node, "body", None)
        end = max(node.lineno + 1, body[0].lineno) if body else node.end_lineno + 1
        yield range(node.lineno, end)


def unreached(changed: Lines, lines: Path, root: Path) -> list[str]:
    """Which statements a run did not go through, as ``file:line``."""
    from coverage import CoverageData  # only here: the tests bring it

    data = CoverageData(str(lines))
    data.read()
    reached = {Path(file).resolve(): set(data.lines(file) or ()) for file in data.measured_files()}
    missed = []
    for file, statements in sorted(changed.items()):
        own = file.is_relative_to(root / "support")
        seen = reached.get(file.resolve(), set()) if own else _reached_in_cells(file, reached)
        first = [span.start for span in statements if seen.isdisjoint(span)]
        missed += [f"{file.relative_to(root)}:{line}" for line in sorted(first)]
    return missed


def _reached_in_cells(source: Path, reached: dict[Path, set[int]]) -> set[int]:
    """Lines of a notebook's source whose code ran in a kernel, which names a cell by its hash."""
    from ipykernel.compiler import get_tmp_hash_seed, murmur2_x86

    by_name = {file.name: found for file, found in reached.items()}
    text, position, found = source.read_text(encoding="utf-8").splitlines(), 0, set()
    for cell in jupytext.read(source).cells:
        code = cell.source.splitlines()
        if cell.cell_type == "code" and code:
            starts = range(position, len(text))
            position = next(i for i in starts if text[i : i + len(code)] == code)
            name = f"{murmur2_x86(cell.source, get_tmp_hash_seed())}.py"
            found |= {position + line for line in by_name.get(name, set())}
            position += len(code)
    return found
