"""Runs that were made: their manifests, where they lie, and whether they still say what a run made
now would say.

A run made here lies in the ignored folder ``_build/runs/<profile>/``, its manifest beside its
notebook. A recorded run is tracked: the quick profile's notebook is ``book/<chapter>.ipynb``, the
others' ``data/runs/<profile>/<chapter>.ipynb``; every manifest is
``data/runs/<profile>/<chapter>.json``. :mod:`support.book.execute` makes both kinds.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from support.book import claims, profiles
from support.common import fingerprint, paths

DEFAULTS: dict[str, Any] = {
    "profile": "quick",
    "seed": 0,
    "device": "cpu",
    "overrides": {},
}  # of every chapter's parameters cell


class RecordError(RuntimeError):
    """No such chapter or record, or one that cannot be read or made as asked. The message is one
    line that says what to do."""


class ClaimRecord(BaseModel):
    """What a chapter measured for a claim: one list of numbers per name (None: not measured), and
    the cell that stated it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    measured: dict[str, list[float | None]]
    modern: dict[str, list[float | None]]
    cell: int


class Manifest(BaseModel):
    """Everything that is needed to repeat a run and to know how old it is; the JSON file beside an
    executed notebook."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chapter: str
    profile: profiles.Size
    parameters: dict[str, Any]
    overrides: dict[str, Any]
    seed: int
    seeds: list[int]
    device: str
    device_name: str
    threads: int
    versions: dict[str, str]
    platform: str
    commit: str | None
    dirty: bool | None
    data: dict[str, str]
    code: str
    units_from_cache: int
    computing_seconds: float
    wall_seconds: float
    peak_memory_mb: int | None
    peak_gpu_memory_mb: int | None
    finished: str
    claims: dict[str, ClaimRecord]


class Estimate(NamedTuple):
    """What a run is expected to need, and where the numbers come from."""

    minutes: float
    memory_gb: float
    disk_mb: float
    source: str


def chapters() -> list[str]:
    """Names of the chapters: the sources ``book/NN_name.py``, in order."""
    return sorted(file.stem for file in (paths.root() / "book").glob("[0-9][0-9]_*.py"))


def resolve_chapter(name: str) -> str:
    """A chapter by its whole name or by a beginning that only it has, such as ``01`` or ``1``.

    Raises:
        RecordError: none or several.
    """
    known = chapters()
    if name in known:
        return name
    beginning = name.zfill(2) if name.isdigit() else name
    found = [chapter for chapter in known if name and chapter.startswith(beginning)]
    if len(found) == 1:
        return found[0]
    if found:
        raise RecordError(f"{name!r} is the beginning of several chapters: {', '.join(found)}")
    raise RecordError(
        f"unknown chapter {name!r}: {profiles.near(name, known)}chapters: {', '.join(known) or 'none'}"
    )


def source_file(chapter: str) -> Path:
    """The only file of a chapter that is edited by hand."""
    return paths.root() / "book" / f"{chapter}.py"


def local_run(chapter: str, profile: str) -> Path:
    """Where a run made here leaves its notebook; the manifest lies beside it."""
    return paths.local_runs() / profile / f"{chapter}.ipynb"


def recorded_run(chapter: str, profile: str) -> Path:
    """Where the recorded notebook of a chapter lies."""
    return (
        paths.root() / "book" / f"{chapter}.ipynb"
        if profile == "quick"
        else paths.recorded_runs() / profile / f"{chapter}.ipynb"
    )


def manifest_path(notebook: Path) -> Path:
    """The manifest of an executed notebook: beside it, except for the quick pair, whose manifest
    lies in ``data/runs/quick``."""
    if notebook.resolve().parent == (paths.root() / "book").resolve():
        return paths.recorded_runs() / "quick" / f"{notebook.stem}.json"
    return notebook.with_suffix(".json")


def manifest_of(path: Path | str) -> Manifest:
    """The manifest of a run, given the manifest's own file or the executed notebook.

    Raises:
        RecordError: no such file, or none that is a manifest.
    """
    path = Path(path)
    file = manifest_path(path) if path.suffix == ".ipynb" else path
    try:
        return Manifest.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecordError(f"no manifest {shown(file)}: run or record the chapter first") from error
    except (ValidationError, OSError, UnicodeDecodeError) as error:
        problem = (
            profiles.first_problem(error) if isinstance(error, ValidationError) else str(error)
        )
        raise RecordError(f"{shown(file)} is not a manifest: {problem}") from error


def collect(profile: str) -> dict[str, Manifest]:
    """The recorded manifests of a profile by chapter; a chapter counts when its notebook is there
    as well."""
    found = {}
    for chapter in chapters():
        notebook = recorded_run(chapter, profile)
        if notebook.is_file() and manifest_path(notebook).is_file():
            found[chapter] = manifest_of(notebook)
    return found


def is_stale(manifest: Manifest) -> bool:
    """Whether the chapter's code, or a kernel that it reaches, changed after the run."""
    file = source_file(manifest.chapter)
    return not file.is_file() or fingerprint.digest([file]) != manifest.code


def is_current(manifest: Manifest) -> bool:
    """Whether a run made now would compute the same: same code, same parameters, and every claim
    that is registered now.

    The data need no second look: :func:`support.data.load` refuses files that are not the official
        ones.
    """
    try:
        parameters = profiles.load(
            manifest.chapter, manifest.profile, manifest.overrides
        ).model_dump(mode="json")
    except profiles.ProfileError:
        return False
    registered = {claim.id for claim in claims.of_chapter(manifest.chapter)}
    return (
        parameters == manifest.parameters
        and registered == set(manifest.claims)
        and not is_stale(manifest)
    )


def estimate(chapter: str, profile: str) -> Estimate:
    """Time, memory and disk of a run without overrides: measured by the record of that profile
    where there is one, else declared."""
    declared = profiles.sheet(chapter).estimate[profile]
    manifest = collect(profile).get(chapter)
    if manifest is None:
        return Estimate(
            declared.minutes, declared.memory_gb, declared.disk_mb, "declared in the profile"
        )
    memory = manifest.peak_memory_mb / 1024 if manifest.peak_memory_mb else declared.memory_gb
    if manifest.units_from_cache:
        return Estimate(
            declared.minutes,
            memory,
            declared.disk_mb,
            "time declared in the profile (the record took results from the cache), memory recorded",
        )
    return Estimate(
        manifest.wall_seconds / 60,
        memory,
        declared.disk_mb,
        f"recorded on {manifest.device_name}, {manifest.threads} thread{'s' * (manifest.threads != 1)}",
    )


def check_request(
    chapter: str, profile: str, seed: int, overrides: Mapping[str, Any], *, record: bool = False
) -> None:
    """Refuse a request that no machine could carry out.

    Raises:
        ProfileError, ClaimError: an unknown or impossible parameter; a registry that breaks its
            schema.
        RecordError: no such chapter, or a record that would not be of a profile as it stands.
    """
    if chapter not in (known := chapters()):
        raise RecordError(
            f"unknown chapter {chapter!r}: {profiles.near(chapter, known)}chapters: {', '.join(known) or 'none'}"
        )
    profiles.load(chapter, profile, overrides)
    profiles.check_seed(seed)
    claims.of_chapter(chapter)
    if record and (overrides or seed != DEFAULTS["seed"]):
        raise RecordError(
            "a record is made with the profile as it stands: leave out --set and --seed, or leave out --record"
        )


def current_run(
    chapter: str,
    profile: str = "quick",
    seed: int = 0,
    device: str = "cpu",
    overrides: Mapping[str, Any] = profiles.NOTHING,
) -> Path | None:
    """The finished run made here that this request would only repeat, if there is one."""
    notebook = local_run(chapter, profile)
    if not notebook.is_file() or not manifest_path(notebook).is_file():
        return None
    try:
        manifest = manifest_of(notebook)
    except RecordError:
        return None
    if device == "auto":
        from support.book import chapter_run  # torch takes seconds to import

        device = chapter_run.resolve_device(device).type
    same = (manifest.device, manifest.seed, manifest.parameters) == (
        device,
        seed,
        profiles.load(chapter, profile, overrides).model_dump(mode="json"),
    )
    return (
        notebook
        if same and is_current(manifest) and (profile != "quick" or _exercises_ran(notebook))
        else None
    )


def _exercises_ran(notebook: Path) -> bool:
    """Whether the graded exercises of a chapter stand in an executed notebook as they are now; its
    code's hash leaves them out."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    ran = {"".join(cell["source"]).strip() for cell in cells}
    return ran.issuperset(
        fingerprint.exercise_code(source_file(notebook.stem).read_text(encoding="utf-8"))
    )


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its place and move it there, so that nobody ever reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def shown(path: Path) -> str:
    """A path relative to the root where it lies there."""
    return str(path.relative_to(paths.root())) if path.is_relative_to(paths.root()) else str(path)
