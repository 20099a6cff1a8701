"""Runs that were made: their manifests, where they lie, and whether they still say what a run made
now would say.

A chapter is a folder ``book/NN_name`` with three parts, each a notebook that is run and recorded by
itself: the *evidence* computes and states every claim, the *lesson* reads what the evidence found,
the *exercises* use nothing of either. A run made here lies in the ignored folder
``_build/runs/<profile>/<chapter>/`` (or in ``BOOK_OUTPUT``), its manifest beside its notebook. A
recorded run is tracked: the quick profile's notebook is ``book/<chapter>/<part>.ipynb``, the
others' ``data/runs/<profile>/<chapter>/<part>.ipynb``; every manifest is
``data/runs/<profile>/<chapter>/<part>.json``. :mod:`support.book.execute` makes both kinds.
"""

import ast
import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from support.book import claims, profiles
from support.book.rules import Strict
from support.common import fingerprint, paths

PARTS = ("evidence", "lesson", "exercises")  # in the order in which they run
Part = Literal["evidence", "lesson", "exercises"]
DEFAULTS: dict[str, Any] = {  # of every part's parameters cell
    "profile": "quick",
    "seed": 0,
    "device": "cpu",
    "overrides": {},
}


class RecordError(RuntimeError):
    """No such chapter or record, or one that cannot be read or made as asked. The message is one
    line that says what to do."""


class ClaimRecord(Strict):
    """What a chapter measured for a claim: one list of numbers per name, as
    :func:`support.book.rules.plain` gives them (None: not measured), and the cell that stated
    it."""

    measured: dict[str, list[float | dict[str, int | float] | None]]
    modern: dict[str, list[float | dict[str, int | float] | None]]
    cell: int


class Carried(Strict):
    """That a record was found to hold for newer code, and how many units of its work were computed
    again at its own profile: see :mod:`support.book.carry`."""

    code: str
    commit: str | None
    units: int = 0


class Manifest(Strict):
    """Everything that is needed to repeat a run and to know how old it is; the JSON file beside an
    executed notebook.

    ``outputs`` is the hash of what the notebook shows, ``kept`` the numbers that the evidence left
    for its lesson, ``evidence`` the hash of the evidence that a lesson read.
    """

    chapter: str
    part: Part
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
    units: int | None = None  # not known of records of the first edition
    units_from_cache: int
    computing_seconds: float
    wall_seconds: float
    peak_memory_mb: int | None
    peak_gpu_memory_mb: int | None
    finished: str
    outputs: str
    evidence: str | None = None
    claims: dict[str, ClaimRecord] = Field({})
    kept: dict[str, Any] = Field({})
    carried: list[Carried] = Field([])

    def content(self) -> str:
        """Hash of what the run found: what a lesson depends on."""
        told = {"claims", "kept", "outputs", "parameters", "seeds", "profile"}
        text = json.dumps(self.model_dump(mode="json", include=told), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def chapters() -> list[str]:
    """Names of the chapters: the folders ``book/NN_name`` that have their evidence, in order."""
    sources = (paths.root() / "book").glob("[0-9][0-9]_*/evidence.py")
    return sorted(file.parent.name for file in sources)


def parts(chapter: str) -> list[str]:
    """The parts of a chapter that there are, in the order in which they run."""
    return [part for part in PARTS if source_file(chapter, part).is_file()]


def title(chapter: str) -> str:
    """A chapter's title; its name where it has none."""
    sources = [source_file(chapter, part) for part in ("lesson", "evidence")]
    texts = [file.read_text(encoding="utf-8") for file in sources if file.is_file()]
    found = re.search(r"^# # (.*)$", "\n".join(texts), re.MULTILINE)
    return found[1].strip() if found else chapter


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
        f"unknown chapter {name!r}: {profiles.near(name, known)}chapters: "
        f"{', '.join(known) or 'none'}"
    )


def source_file(chapter: str, part: str = "evidence") -> Path:
    """The file of a part that is edited by hand."""
    return paths.root() / "book" / chapter / f"{part}.py"


def local_run(chapter: str, profile: str, part: str = "evidence") -> Path:
    """Where a run made here leaves its notebook; the manifest lies beside it."""
    return paths.local_runs() / profile / chapter / f"{part}.ipynb"


def recorded_run(chapter: str, profile: str, part: str = "evidence") -> Path:
    """Where the recorded notebook of a part lies."""
    quick = paths.root() / "book" / chapter / f"{part}.ipynb"
    return quick if profile == "quick" else paths.recorded_runs() / profile / chapter / quick.name


def manifest_path(notebook: Path) -> Path:
    """The manifest of an executed notebook: beside it, except for the quick pairs, whose manifests
    lie in ``data/runs/quick``."""
    if notebook.resolve().parents[1] == (paths.root() / "book").resolve():
        return paths.recorded_runs() / "quick" / notebook.parent.name / f"{notebook.stem}.json"
    return notebook.with_suffix(".json")


def there(notebook: Path) -> Manifest | None:
    """The manifest of a run that is whole: its notebook is there, and the manifest can be read."""
    with contextlib.suppress(RecordError):
        if notebook.is_file():
            return manifest_of(notebook)
    return None


def unreadable(file: Path) -> str:
    """What is wrong with a manifest, in one line; nothing where it can be read."""
    try:
        manifest_of(file)
    except RecordError as error:
        return str(error)
    return ""


def manifest_of(path: Path) -> Manifest:
    """The manifest of a run, given the manifest's own file or the executed notebook.

    Raises:
        RecordError: no such file, or none that is a manifest.
    """
    file = manifest_path(path) if path.suffix == ".ipynb" else path
    try:
        return Manifest.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecordError(f"no manifest {shown(file)}: run or record the chapter first") from error
    except (ValidationError, OSError, UnicodeDecodeError) as error:
        valid = isinstance(error, ValidationError)
        problem = profiles.first_problem(error) if valid else str(error)
        raise RecordError(f"{shown(file)} is not a manifest: {problem}") from error


def collect(profile: str, part: str = "evidence") -> dict[str, Manifest]:
    """The recorded manifests of a profile by chapter; one counts when its notebook is there too."""
    found = {chapter: there(recorded_run(chapter, profile, part)) for chapter in chapters()}
    return {chapter: manifest for chapter, manifest in found.items() if manifest}


def check_source(chapter: str) -> None:
    """Refuse sources that no run could finish, before one begins.

    Raises:
        RecordError: a part that is no Python, or a registered claim of which the evidence says
            nothing: neither its id nor an f-string that could give it.
    """
    for part in reversed(parts(chapter)):  # the evidence last
        try:
            tree = ast.parse(source_file(chapter, part).read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError) as error:
            reason = f"line {error.lineno}: {error.msg}" if hasattr(error, "lineno") else error
            raise RecordError(f"{chapter}/{part}.py is no Python: {reason}") from error
    named = []
    for node in ast.walk(tree):
        pieces = node.values if isinstance(node, ast.JoinedStr) else [node]
        texts = [re.escape(str(p.value)) if isinstance(p, ast.Constant) else ".+" for p in pieces]
        if texts[:1] != [".+"]:
            named.append("".join(texts))
    stated = re.compile("|".join(named))
    if missing := [c.id for c in claims.of_chapter(chapter) if not stated.fullmatch(c.id)]:
        raise RecordError(
            f"{chapter} never states {', '.join(missing)}: each registered claim of a chapter "
            "needs its run.claim(...) in the evidence"
        )


def code_of(chapter: str, part: str = "evidence") -> str:
    """Hash of a part's code and of what it uses of the package; empty where there is no source, or
    none that Python can read."""
    file = source_file(chapter, part)
    try:
        return _digest(file, file.read_text(encoding="utf-8"))
    except (FileNotFoundError, SyntaxError, UnicodeDecodeError):
        return ""


@lru_cache(maxsize=64)  # each record and each page asks, and the package stays while it runs
def _digest(file: Path, _: str) -> str:
    return fingerprint.digest([file])


def is_stale(manifest: Manifest) -> bool:
    """Whether the part's code, or a kernel that it reaches, changed after the run."""
    codes = {manifest.code, *(stamp.code for stamp in manifest.carried)}
    return code_of(manifest.chapter, manifest.part) not in codes


def is_current(manifest: Manifest) -> bool:
    """Whether a run made now would compute the same: same code, parameters and versions of the
    libraries, every claim that is registered now, and for a lesson the same evidence.

    The data need no second look: :func:`support.data.load` refuses files that are not the official
    ones.
    """
    from support.common import identity  # torch takes seconds to import

    chapter, registered, evidence = manifest.chapter, set(), None
    try:
        parameters = profiles.load(chapter, manifest.profile, manifest.overrides)
        if manifest.part == "evidence":
            registered = {claim.id for claim in claims.of_chapter(chapter)}
        elif manifest.evidence is not None:
            evidence = evidence_of(manifest).content()
    except (profiles.ProfileError, RecordError):
        return False
    now = parameters.model_dump(mode="json"), identity.versions(), registered, evidence
    then = manifest.parameters, manifest.versions, set(manifest.claims), manifest.evidence
    return now == then and not is_stale(manifest)


def evidence_of(lesson: Manifest) -> Manifest:
    """The manifest of the evidence that a lesson run now would read: see :func:`evidence_run`."""
    parameters, seed = lesson.parameters, lesson.seed
    return manifest_of(evidence_run(lesson.chapter, lesson.profile, parameters, seed))


def evidence_run(chapter: str, profile: str, parameters: Mapping[str, Any], seed: int) -> Path:
    """The evidence of a chapter at these parameters: made here, and up to date, else the record.

    Raises:
        RecordError: there is none.
    """
    places = (local_run(chapter, profile), recorded_run(chapter, profile))
    made = {notebook: found for notebook in places if (found := there(notebook))}
    asked = dict(parameters), seed
    fitting = [file for file, found in made.items() if (found.parameters, found.seed) == asked]
    if not fitting:
        raise RecordError(
            f"the lesson of {chapter} reads its evidence at {profile}, which was not run with "
            f"these parameters: python -m support run {chapter[:2]} --profile {profile}"
        )
    return min(fitting, key=lambda notebook: is_stale(made[notebook]))


def judged(manifest: Manifest) -> list[tuple[claims.Claim, claims.Judgement]]:
    """The claims of a recorded evidence with the verdicts that today's rules give its numbers;
    without those that its numbers do not fit any more."""
    found = []
    for claim in claims.of_chapter(manifest.chapter):
        if record := manifest.claims.get(claim.id):
            with contextlib.suppress(claims.ClaimError):
                verdict = claims.judge(claim, record.measured, manifest.profile, record.modern)
                found.append((claim, verdict))
    return found


def estimate(chapter: str, profile: str) -> profiles.Estimate:
    """Time, memory and disk of a run without overrides: measured by the record of that profile
    where there is one, else declared."""
    found = dict(profiles.sheet(chapter).estimate[profile])
    if manifest := collect(profile).get(chapter):
        threads = f"{manifest.threads} thread{'s' * (manifest.threads != 1)}"
        found["source"] = f"recorded on {manifest.device_name}, {threads}"
        if manifest.peak_memory_mb:
            found["memory_gb"] = manifest.peak_memory_mb / 1024
        if manifest.units_from_cache:
            found["source"] = "time declared in the profile (the record used a cache)"
        else:
            found["minutes"] = manifest.wall_seconds / 60
    return profiles.Estimate(**found)


def check_request(
    chapter: str, profile: str, seed: int, overrides: Mapping[str, Any], *, record: bool = False
) -> None:
    """Refuse a request that no machine could carry out.

    Raises:
        ProfileError, ClaimError: an unknown or impossible parameter; a registry that breaks its
            schema.
        RecordError: no such chapter, or a record that would not be of a profile as it stands.
    """
    resolve_chapter(chapter)
    profiles.load(chapter, profile, overrides)
    profiles.check_seed(seed)
    claims.of_chapter(chapter)
    if record and (overrides or seed != DEFAULTS["seed"]):
        raise RecordError(
            "a record is made with the profile as it stands: leave out --set and --seed, or leave "
            "out --record"
        )


def current_run(
    chapter: str, part: str, profile: str, seed: int, device: str, overrides: Mapping[str, Any]
) -> Path | None:
    """The finished run made here that this request would only repeat, if there is one."""
    notebook = local_run(chapter, profile, part)
    if not (manifest := there(notebook)):
        return None
    if device == "auto":
        from support.book import chapter_run  # torch takes seconds to import

        device = chapter_run.resolve_device(device).type
    parameters = profiles.load(chapter, profile, overrides).model_dump(mode="json")
    same = (manifest.device, manifest.seed, manifest.parameters) == (device, seed, parameters)
    return notebook if same and is_current(manifest) else None


def duration(seconds: float) -> str:
    """A time in its largest fitting unit: ``90 s``, ``5 min``, ``2.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def shown(path: Path) -> str:
    """A path relative to the root where it lies there."""
    root = paths.root()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
