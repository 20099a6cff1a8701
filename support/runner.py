"""The launching side of a run: a chapter's source goes in, an executed notebook and its manifest come out, whole or not at all.

``book/<chapter>.py`` is executed by papermill in a kernel of this very Python. A run made here lands in the ignored folder
``_build/runs/<profile>/``; recording copies a finished one to the tracked files: the quick profile to ``book/<chapter>.ipynb``,
the pair of the source, the others to ``data/runs/<profile>/``; each with its manifest ``data/runs/<profile>/<chapter>.json``.
"""

import ast
import copy
import datetime
import hashlib
import json
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jupytext
import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from pydantic import BaseModel, ConfigDict, ValidationError

from support import claims, code, paths, profiles
from support.profiles import NOTHING

PARAMETERS = ("profile", "seed", "device", "overrides")  # what every chapter's parameters cell declares
DEFAULTS: dict[str, Any] = {"profile": "quick", "seed": 0, "device": "cpu", "overrides": {}}
LARGEST_RECORD_MB = 5.0
_NOISE = re.compile(r"[^\n]*Kernel is running over TCP without encryption[^\n]*\n?(?:[ \t]+[^\n]*\n?)*")
_MACHINE_PATH = re.compile(r"(?:/home/|/Users/|/root/|/tmp/|/var/folders/|[A-Za-z]:\\\\?Users\\)[^\s\"'<>]*")


class RunnerError(RuntimeError):
    """A chapter cannot be run or recorded as asked. The message is one line that says what to do."""


class ChapterFailed(RuntimeError):
    """A chapter raised, or its kernel died. The message names the cell, the exception and the notebook that shows it."""


class ClaimRecord(BaseModel):
    """What a chapter measured for a claim: one list of numbers per name (None: not measured), and the cell that stated it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    measured: dict[str, list[float | None]]
    modern: dict[str, list[float | None]]
    cell: int


class Manifest(BaseModel):
    """Everything that is needed to repeat a run and to know how old it is; the JSON file beside an executed notebook."""

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


# --- chapters and their files -----------------------------------------------------------------------------------------------------


def chapters() -> list[str]:
    """Names of the chapters: the sources ``book/NN_name.py``, in order."""
    return sorted(file.stem for file in (paths.root() / "book").glob("[0-9][0-9]_*.py"))


def resolve_chapter(name: str) -> str:
    """A chapter by its whole name or by a beginning that only it has, such as ``01`` or ``1``.

    Raises:
        RunnerError: none or several.
    """
    known = chapters()
    if name in known:
        return name
    beginning = name.zfill(2) if name.isdigit() else name
    found = [chapter for chapter in known if name and chapter.startswith(beginning)]
    if len(found) == 1:
        return found[0]
    if found:
        raise RunnerError(f"{name!r} is the beginning of several chapters: {', '.join(found)}")
    raise RunnerError(f"unknown chapter {name!r}: {profiles.near(name, known)}chapters: {', '.join(known) or 'none'}")


def source_file(chapter: str) -> Path:
    return paths.root() / "book" / f"{chapter}.py"


def local_run(chapter: str, profile: str) -> Path:
    """Where a run made here leaves its notebook; the manifest lies beside it."""
    return paths.local_runs() / profile / f"{chapter}.ipynb"


def recorded_run(chapter: str, profile: str) -> Path:
    """Where the recorded notebook of a chapter lies."""
    return paths.root() / "book" / f"{chapter}.ipynb" if profile == "quick" else paths.recorded_runs() / profile / f"{chapter}.ipynb"


def manifest_path(notebook: Path) -> Path:
    """The manifest of an executed notebook: beside it, except for the quick pair, whose manifest lies in ``data/runs/quick``."""
    if notebook.resolve().parent == (paths.root() / "book").resolve():
        return paths.recorded_runs() / "quick" / f"{notebook.stem}.json"
    return notebook.with_suffix(".json")


def manifest_of(path: Path | str) -> Manifest:
    """The manifest of a run, given the manifest's own file or the executed notebook.

    Raises:
        RunnerError: no such file, or none that is a manifest.
    """
    path = Path(path)
    file = manifest_path(path) if path.suffix == ".ipynb" else path
    try:
        return Manifest.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunnerError(f"no manifest {_shown(file)}: run or record the chapter first") from error
    except (ValidationError, OSError, UnicodeDecodeError) as error:
        problem = profiles.first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise RunnerError(f"{_shown(file)} is not a manifest: {problem}") from error


def collect(profile: str) -> dict[str, Manifest]:
    """The recorded manifests of a profile by chapter; a chapter counts when its notebook is there as well."""
    found = {}
    for chapter in chapters():
        notebook = recorded_run(chapter, profile)
        if notebook.is_file() and manifest_path(notebook).is_file():
            found[chapter] = manifest_of(notebook)
    return found


def is_stale(manifest: Manifest) -> bool:
    """Whether the chapter's code, or a kernel that it reaches, changed after the run."""
    file = source_file(manifest.chapter)
    return not file.is_file() or code.digest([file]) != manifest.code


def is_current(manifest: Manifest) -> bool:
    """Whether a run made now would compute the same: same code, same parameters, and every claim that is registered now.

    The data need no second look: :func:`support.data.load` refuses files that are not the official ones.
    """
    try:
        parameters = profiles.load(manifest.chapter, manifest.profile, manifest.overrides).model_dump(mode="json")
    except profiles.ProfileError:
        return False
    registered = {claim.id for claim in claims.of_chapter(manifest.chapter)}
    return parameters == manifest.parameters and registered == set(manifest.claims) and not is_stale(manifest)


def estimate(chapter: str, profile: str) -> Estimate:
    """Time, memory and disk of a run without overrides: measured by the record of that profile where there is one, else declared."""
    declared = profiles.sheet(chapter).estimate[profile]
    manifest = collect(profile).get(chapter)
    if manifest is None:
        return Estimate(declared.minutes, declared.memory_gb, declared.disk_mb, "declared in the profile")
    memory = manifest.peak_memory_mb / 1024 if manifest.peak_memory_mb else declared.memory_gb
    if manifest.units_from_cache:
        return Estimate(declared.minutes, memory, declared.disk_mb, "time declared in the profile (the record took results from the cache), memory recorded")
    return Estimate(manifest.wall_seconds / 60, memory, declared.disk_mb, f"recorded on {manifest.device_name}, {manifest.threads} threads")


# --- executing --------------------------------------------------------------------------------------------------------------------


def read_source(chapter: str) -> NotebookNode:
    """A chapter's source as a notebook that is not executed: cell ids that follow from the cells, a kernel, no header of its own.

    Raises:
        RunnerError: the parameters cell is missing, or does not declare ``profile``, ``seed``, ``device`` and ``overrides``.
    """
    notebook = jupytext.read(source_file(chapter))
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["jupytext"]["formats"] = "ipynb,py:percent"
    # Ids drawn at random would change every line of a recorded notebook's diff.
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        name = hashlib.sha256(cell.source.encode()).hexdigest()[:8]
        seen[name] = seen.get(name, 0) + 1
        cell["id"] = f"{name}-{seen[name]}"
    declared = set(papermill.inspect_notebook(notebook))
    if missing := [name for name in PARAMETERS if name not in declared]:
        raise RunnerError(f"{chapter}.py: its cell tagged `parameters` does not declare {', '.join(missing)}")
    return notebook


def check_request(chapter: str, profile: str, seed: int, device: str, overrides: Mapping[str, Any], *, record: bool = False) -> None:
    """Refuse what cannot run, before anything does.

    Raises:
        ProfileError, RunError, CacheError, ClaimError, RunnerError: one line each.
    """
    profiles.load(chapter, profile, overrides)
    claims.of_chapter(chapter)
    read_source(chapter)
    if record and (overrides or seed != DEFAULTS["seed"]):
        raise RunnerError("a record is made with the profile as it stands: leave out --set and --seed, or leave out --record")
    # Only now what takes seconds to import.
    from support import runs

    runs.check_seed(seed)
    runs.resolve_device(device)
    runs.Cache().writable()


def current_run(chapter: str, profile: str = "quick", seed: int = 0, device: str = "cpu", overrides: Mapping[str, Any] = NOTHING) -> Path | None:
    """The finished run made here that this request would only repeat, if there is one."""
    notebook = local_run(chapter, profile)
    if not notebook.is_file() or not manifest_path(notebook).is_file():
        return None
    try:
        manifest = manifest_of(notebook)
    except RunnerError:
        return None
    if device == "auto":
        from support import runs  # torch takes seconds to import

        device = runs.resolve_device(device).type
    same = (manifest.device, manifest.seed, manifest.parameters) == (device, seed, profiles.load(chapter, profile, overrides).model_dump(mode="json"))
    return notebook if same and is_current(manifest) else None


def execute(
    chapter: str, profile: str = "quick", seed: int = 0, device: str = "cpu", overrides: Mapping[str, Any] = NOTHING, *, record: bool = False, force: bool = False
) -> Path:
    """Run a chapter, or find that it has been run.

    Args:
        chapter: whole name of the chapter.
        profile: ``"quick"``, ``"standard"`` or ``"paper"``.
        seed: first seed.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        overrides: fields of the profile to change.
        record: copy the result to the tracked files as well.
        force: run even where a finished run is current.

    Returns:
        The executed notebook; its manifest lies at :func:`manifest_path`.

    Raises:
        ProfileError, RunError, CacheError, ClaimError, RunnerError: the request cannot run; nothing was started.
        ChapterFailed: a cell raised or the kernel died; ``<chapter>.failed.ipynb`` shows how far it came.
    """
    check_request(chapter, profile, seed, device, overrides, record=record)
    notebook = None if force else current_run(chapter, profile, seed, device, overrides)
    if notebook is None:
        notebook = _execute(chapter, profile, seed, device, overrides)
    return record_run(notebook) if record else notebook


def _execute(chapter: str, profile: str, seed: int, device: str, overrides: Mapping[str, Any]) -> Path:
    target = local_run(chapter, profile)
    failed = target.with_name(f"{chapter}.failed.ipynb")
    given = {"profile": profile, "seed": seed, "device": device, "overrides": _jsonable(overrides)}
    parameters = {name: value for name, value in given.items() if value != DEFAULTS[name]}
    terminal = sys.stderr.isatty()
    _silence_papermill()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="book-run-", ignore_cleanup_errors=True) as folder:
        unfinished = Path(folder) / "unfinished.ipynb"
        try:
            papermill.execute_notebook(
                read_source(chapter),
                unfinished,
                parameters=parameters,
                cwd=paths.root() / "book",
                progress_bar={"desc": chapter, "leave": False} if terminal else False,
                kernel_manager_class=_kernel(Path(folder)),
                autosave_cell_every=0,
            )
            executed = _cleaned(nbformat.read(unfinished, as_version=4))
            manifest = _manifest(executed, time.perf_counter() - started)
        except (PapermillExecutionError, DeadKernelError, RunnerError) as error:
            if unfinished.is_file():
                write_whole(failed, text_of(_cleaned(nbformat.read(unfinished, as_version=4))))
            raise ChapterFailed(f"{chapter} failed {_reason(error)}; {_shown(failed)} shows how far it came") from error
    # The manifest goes last and makes the run count; until then an older one must not speak for the new notebook.
    manifest_path(target).unlink(missing_ok=True)
    write_whole(target, text_of(executed))
    write_whole(manifest_path(target), manifest.model_dump_json(indent=1) + "\n")
    failed.unlink(missing_ok=True)
    return target


def _kernel(scratch: Path) -> type[AsyncKernelManager]:
    """A kernel of this interpreter and this package, whatever kernels and start-up files the machine has."""
    package = str(code.PACKAGE.parent)
    environment = {
        "BOOK_ROOT": str(paths.root()),
        "BOOK_PROGRESS": os.ttyname(2) if sys.stderr.isatty() and hasattr(os, "ttyname") else "off",
        "IPYTHONDIR": str(scratch / "ipython"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")])),
    }
    # Below ERROR the kernel only warns, at every start, that its channels on this machine are not encrypted.
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--IPKernelApp.log_level=ERROR"]
    spec = KernelSpec(argv=argv, display_name="Python 3", language="python", env=environment, resource_dir=str(scratch))
    return type("BookKernel", (AsyncKernelManager,), {"kernel_spec": spec})


def _silence_papermill() -> None:
    # Its log repeats each path, and its one warning (an unknown parameter) cannot occur: the names are checked before.
    logging.getLogger("papermill").setLevel(logging.ERROR)


def _reason(error: Exception) -> str:
    if isinstance(error, PapermillExecutionError):
        return f"in cell {error.cell_index + 1} (In [{error.exec_count}]): {error.ename}: {' '.join(str(error.evalue).split())}"
    if isinstance(error, DeadKernelError):
        return "because its kernel died; a lack of memory is the usual cause (run --estimate says what a profile needs)"
    return f"to leave its record: {error}"


def _cleaned(notebook: NotebookNode) -> NotebookNode:
    """Without what papermill and the kernel add: times, paths, a needless warning; the injected parameters hidden from the page."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("jupytext", None)
    notebook.metadata.get("language_info", {}).pop("version", None)  # the run's record says it
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata["tags"] = ["injected-parameters", "remove-input"]
            cell["id"] = "parameters-1"
        if cell.cell_type == "code":
            for output in cell.outputs:
                if output.output_type == "stream" and output.name == "stderr":
                    output["text"] = _NOISE.sub("", output.text)
            cell["outputs"] = [output for output in cell.outputs if output.output_type != "stream" or output.text]
    return notebook


def records_in(notebook: NotebookNode, kind: str) -> list[tuple[int, dict[str, Any]]]:
    """What ``run`` left in the outputs' metadata: (cell number, record) for kind ``"claim"``, ``"table"`` or ``"run"``."""
    return [
        (index, output.metadata["support"][kind])
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code"
        for output in cell.outputs
        if kind in output.get("metadata", {}).get("support", {})
    ]


def _manifest(notebook: NotebookNode, wall_seconds: float) -> Manifest:
    runs = records_in(notebook, "run")
    if len(runs) != 1:
        raise RunnerError(f"its last cell must call run.finish() once; it was called {len(runs)} times")
    stated = {record["id"]: ClaimRecord(measured=record["measured"], modern=record["modern"], cell=index) for index, record in records_in(notebook, "claim")}
    finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Manifest(**runs[0][1], wall_seconds=round(wall_seconds, 1), finished=finished, claims=stated)


# --- recording and reading --------------------------------------------------------------------------------------------------------


def page(path: Path) -> NotebookNode:
    """An executed notebook as it should be read today: its outputs, with the prose of the source and the verdicts of the registry as
    they are now. Where the source's code cells are no longer those that were executed, the notebook as it was.

    Args:
        path: an executed notebook, made here or recorded.
    """
    executed = nbformat.read(path, as_version=4)
    if not source_file(path.stem).is_file():
        return executed
    merged = _with_outputs(read_source(path.stem), executed)
    return rendered_again(merged or executed, path.stem)


def _with_outputs(source: NotebookNode, executed: NotebookNode) -> NotebookNode | None:
    done = [cell for cell in executed.cells if cell.cell_type == "code"]
    injected = [cell for cell in done if "injected-parameters" in cell.metadata.get("tags", [])]
    done = [cell for cell in done if cell not in injected]
    wanted = [cell for cell in source.cells if cell.cell_type == "code"]
    if [_meaning(cell.source) for cell in done] != [_meaning(cell.source) for cell in wanted]:
        return None
    merged = copy.deepcopy(source)
    for cell, old in zip((cell for cell in merged.cells if cell.cell_type == "code"), done, strict=True):
        cell["outputs"], cell["execution_count"] = old.outputs, old.execution_count
    merged.metadata = executed.metadata
    for cell in injected:
        position = next(index for index, cell in enumerate(merged.cells) if "parameters" in cell.metadata.get("tags", []))
        merged.cells.insert(position + 1, cell)
    return merged


def _meaning(text: str) -> str:
    try:
        return ast.dump(ast.parse(text))
    except SyntaxError:
        return text


def rendered_again(notebook: NotebookNode, chapter: str) -> NotebookNode:
    """The notebook with every row of a claim made anew from its recorded numbers and the registry. Changes it in place."""
    registered = {claim.id: claim for claim in claims.of_chapter(chapter)}
    judged: list[tuple[claims.Claim, claims.Judgement]] = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            record = output.get("metadata", {}).get("support", {})
            found = None
            if "claim" in record and record["claim"]["id"] in registered:
                claim = registered[record["claim"]["id"]]
                try:
                    judgement = claims.judge(claim, record["claim"]["measured"], record["claim"]["profile"], record["claim"]["modern"])
                except claims.ClaimError:  # its rules ask for other numbers now: the row stays as it was, and the run is stale
                    continue
                judged.append((claim, judgement))
                found = claims.render(claim, judgement)
            elif record.get("table") == "claims":
                found = claims.render_claims(list(registered.values()))
            elif record.get("table") == "verdicts":
                found = claims.render_verdicts(judged)
            if found:
                output["data"] = NotebookNode({"text/html": found.html, "text/plain": found.text})
    return notebook


def record_run(notebook: Path) -> Path:
    """Copy a finished run to the tracked files.

    Args:
        notebook: an executed notebook under :func:`support.paths.local_runs`.

    Returns:
        The recorded notebook.

    Raises:
        RunnerError: it ran with overrides, another seed or older code; its outputs hold a path of this machine or something
            else than PNG pictures; or it is too large.
    """
    manifest = manifest_of(notebook)
    chapter, profile = manifest.chapter, manifest.profile
    if manifest.overrides or manifest.seed != DEFAULTS["seed"]:
        raise RunnerError(f"{_shown(notebook)} ran with changed parameters: only a profile as it stands is recorded")
    if not is_current(manifest):
        raise RunnerError(f"{_shown(notebook)} is older than its chapter, profile or claims: run {chapter} again before recording it")
    found = page(notebook)
    if problem := _unfit(found):
        raise RunnerError(f"{chapter} at {profile} is not recorded: {problem}")
    target = recorded_run(chapter, profile)
    if profile == "quick":
        found.metadata["jupytext"] = read_source(chapter).metadata["jupytext"]
    manifest_path(target).unlink(missing_ok=True)
    write_whole(target, text_of(found))
    write_whole(manifest_path(target), manifest.model_dump_json(indent=1) + "\n")
    return target


def _unfit(notebook: NotebookNode) -> str:
    """Why a notebook must not be committed, or nothing."""
    here = [str(paths.root()), sys.prefix, str(Path.home()), tempfile.gettempdir()]
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            shown = {"text": output["text"]} if output.output_type == "stream" else output.get("data", {})
            for kind, content in shown.items():
                if kind in ("image/svg+xml", "image/jpeg", "application/pdf"):
                    return f"cell {index + 1} shows {kind}; pictures must be PNG"
                text = content if isinstance(content, str) else json.dumps(content)
                found = _MACHINE_PATH.search(text) if not kind.startswith("image/") else None
                known = next((place for place in here if len(place) > 1 and not kind.startswith("image/") and place in text), None)
                if found or known:
                    return f"the output of cell {index + 1} holds a path of this machine: {found.group() if found else known}"
    size = len(text_of(notebook).encode()) / 1e6
    if size > LARGEST_RECORD_MB:
        largest = max(range(len(notebook.cells)), key=lambda index: len(json.dumps(notebook.cells[index])))
        return f"it has {size:.1f} MB, more than {LARGEST_RECORD_MB:g}; cell {largest + 1} is the largest"
    return ""


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


def text_of(notebook: NotebookNode) -> str:
    """A valid notebook as the text of its file."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def _jsonable(overrides: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(overrides)))


def _shown(path: Path) -> str:
    """A path relative to the root where it lies there."""
    return str(path.relative_to(paths.root())) if path.is_relative_to(paths.root()) else str(path)
