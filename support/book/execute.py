"""The launching side of a run: a notebook's source goes in, an executed notebook and its manifest
come out, whole or not at all.

``book/<chapter>/<part>.py`` is executed by papermill in a kernel of this very Python and lands
where :mod:`support.book.manifests` says. Recording copies a finished run to the tracked files;
:func:`page` reads one, with today's prose and verdicts around its numbers.
"""

import ast
import contextlib
import datetime
import hashlib
import json
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from support.book import claims, kernels, manifests, profiles
from support.book.manifests import DEFAULTS, ClaimRecord, Manifest, RecordError
from support.book.profiles import NOTHING
from support.common import files, paths

LARGEST_RECORD_MB = 5.0
_ANSWER_SECONDS = 900  # of a kernel on a busy machine; a dead one is seen at once
CONTINUES = "a rerun continues with what the cache has"
_MACHINE_PATH = r"(?:/home/|/Users/|/root/|/tmp/|/var/folders/|[A-Za-z]:\\\\?Users\\)[^\s\"'<>]*"


class ChapterFailed(RuntimeError):
    """A chapter raised, or its kernel died. The message names the cell, the exception and the
    notebook that shows it."""


def read_source(chapter: str, part: str = "evidence") -> NotebookNode:
    """A part's source as a notebook that is not executed: cell ids that follow from the cells, a
    kernel, no header of its own."""
    notebook = jupytext.read(manifests.source_file(chapter, part))
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata["jupytext"]["formats"] = "ipynb,py:percent"
    # Ids drawn at random would change every line of a recorded notebook's diff.
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        name = hashlib.sha256(cell.source.encode()).hexdigest()[:8]
        seen[name] = seen.get(name, 0) + 1
        cell["id"] = f"{name}-{seen[name]}"
    return notebook


def check_machine(
    chapter: str, profile: str, device: str, overrides: Mapping[str, Any] = NOTHING
) -> dict[str, str]:
    """Refuse what cannot run here, before hours of work: sources that no run could finish, a
    missing device, a folder that cannot be written, a data set, pictures or published weights of
    the profile that are missing or damaged.

    Returns:
        The checksums of the published weights and of the pictures that they are shown.

    Raises:
        RecordError, RunError, CacheError, DataError: one line each.
        OSError: the output cannot be written.
    """
    manifests.check_source(chapter)
    for part in manifests.parts(chapter):
        declared = papermill.inspect_notebook(read_source(chapter, part))
        if missing := [name for name in DEFAULTS if name not in declared]:
            raise RecordError(
                f"{chapter}/{part}.py: its cell tagged `parameters` does not declare "
                f"{', '.join(missing)}"
            )
    from support import data, networks  # torch takes seconds to import
    from support.book import chapter_run
    from support.models import pretrained, published

    chapter_run.resolve_device(device)
    chapter_run.Cache().writable()
    files.check_writable(manifests.local_run(chapter, profile).parent)
    pictured = {name.removeprefix("imagenet/") for name in networks.PUBLISHED}
    rows, sums = profiles.sheet(chapter).fields, {}
    for field, value in profiles.load(chapter, profile, overrides).model_dump().items():
        # Beside mlp and lenet, vgg16 is a body that is trained here.
        others = {"none", *pictured, *published.NETWORKS}.issuperset(rows[field].choices or [""])
        for name in value if isinstance(value, tuple) else (value,):
            if name in data.NAMES and name != "digits":
                data.get(name)
            elif name in published.NETWORKS:
                published.get(name)
                sums[name] = published.NETWORKS[name].file.sha256
            elif others and name in pictured:
                sums |= pretrained.check(name)
    return sums


def wanted_parts(chapter: str, profile: str, only: str = "") -> list[str]:
    """The parts that a run of a chapter executes, or one of them: the exercises use nothing of the
    profile, so that they run at quick only.

    Raises:
        RecordError: the one that is asked for is none of them.
    """
    there = [p for p in manifests.parts(chapter) if profile == "quick" or p != "exercises"]
    if only and only not in there:
        raise RecordError(f"{chapter} has no part {only!r} at {profile}: it has {', '.join(there)}")
    return [only] if only else there


def execute(
    chapter: str,
    profile: str = "quick",
    seed: int = 0,
    device: str = "cpu",
    overrides: Mapping[str, Any] = NOTHING,
    *,
    record: bool = False,
    force: bool = False,
    only: str = "",
    bars: bool = True,
    limit: float = 0,
    sums: Mapping[str, str] | None = None,
) -> list[Path]:
    """Run the parts of a chapter, evidence first, or find that they have been run.

    Args:
        chapter: whole name of the chapter.
        profile: ``"quick"``, ``"standard"`` or ``"paper"``.
        seed: first seed.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        overrides: fields of the profile to change.
        record: copy the results to the tracked files as well.
        force: run even where a finished run is current.
        only: run only this part; a lesson then reads the evidence that there is.
        bars: show progress bars where there is a terminal; chapters side by side show none.
        limit: minutes that the chapter may take; 0: as long as it takes.
        sums: what :func:`check_machine` said; None: it is asked.

    Returns:
        The executed notebooks; the manifest of each lies at
        :func:`support.book.manifests.manifest_path`.

    Raises:
        ProfileError, RunError, CacheError, ClaimError, RecordError, DataError, OSError: the request
            cannot run; nothing was started.
        ChapterFailed: a cell raised, the kernel died, the time was over or the disk full;
            ``<part>.failed.ipynb`` shows how far it came.
    """
    manifests.check_request(chapter, profile, seed, overrides, record=record)
    request = (profile, seed, device, overrides)
    plain = json.loads(json.dumps(dict(overrides)))  # lists for tuples
    given = dict(zip(DEFAULTS, (*request[:3], plain), strict=True))
    finished = []
    end = time.monotonic() + 60 * limit if limit else None
    for part in wanted_parts(chapter, profile, only):
        notebook = None if force else finished_run(chapter, part, *request)
        if notebook is None:
            if sums is None:
                sums = check_machine(chapter, profile, device, overrides)
            try:
                notebook = _execute(chapter, part, given, sums, bars, end)
            except OSError as error:
                error.filename = error.filename or tempfile.gettempdir()  # of the unfinished one
                told = f"{chapter}/{part}: {files.trouble(error)}; {CONTINUES}"
                raise ChapterFailed(told) from error
        finished.append(record_run(notebook) if record else notebook)
    return finished


def finished_run(chapter: str, part: str, *request: Any) -> Path | None:
    """:func:`~support.book.manifests.current_run`, if it has the source's cells: one that was split
    since is the same code, but not what a reader should be shown."""
    found = manifests.current_run(chapter, part, *request)
    if found and _with_outputs(read_source(chapter, part), nbformat.read(found, as_version=4)):
        return found
    return None


def _execute(
    chapter: str,
    part: str,
    given: Mapping[str, Any],
    sums: Mapping[str, str],
    bars: bool,
    end: float | None,
) -> Path:
    target = manifests.local_run(chapter, given["profile"], part)
    failed = target.with_name(f"{part}.failed.ipynb")
    parameters = {name: value for name, value in given.items() if value != DEFAULTS[name]}
    _silence_papermill()
    terminal = _terminal() if bars else ""
    progress = os.environ.get("BOOK_PROGRESS") or terminal or "off"
    started = time.perf_counter()
    with files.scratch("book-run-") as folder:
        unfinished = folder / "unfinished.ipynb"
        kernel = kernels.manager(folder, progress)
        try:
            with kernels.stopped_at(end, kernel):
                papermill.execute_notebook(
                    read_source(chapter, part),
                    unfinished,
                    parameters=parameters,
                    progress_bar=bool(terminal) and {"desc": f"{chapter}/{part}", "leave": False},
                    kernel_manager_class=kernel,
                    autosave_cell_every=0,
                    start_timeout=_ANSWER_SECONDS,
                    iopub_timeout=_ANSWER_SECONDS,
                )
            executed = _cleaned(nbformat.read(unfinished, as_version=4))
            told = sums if part == "evidence" else NOTHING  # which alone computes
            manifest = _manifest(executed, time.perf_counter() - started, told)
        except (PapermillExecutionError, RuntimeError) as error:
            reason = _reason(error, folder / kernels.LOG, kernel.stopped)
            if unfinished.is_file() and kernel.stopped != kernels.INTERRUPTED:
                left = text_of(_cleaned(nbformat.read(unfinished, as_version=4)))
                files.write_all({failed: left})
                reason += f"; {manifests.shown(failed)} shows how far it came"
            raise ChapterFailed(f"{chapter}/{part} failed {reason}") from error
    # Both are on the disk before either takes its place. The notebook goes first: until its
    # manifest is there, the older one must not speak for it, which the hash of the outputs shows.
    texts = {target: text_of(executed), manifests.manifest_path(target): text_of_manifest(manifest)}
    files.write_all(texts)
    failed.unlink(missing_ok=True)
    return target


def text_of_manifest(manifest: Manifest) -> str:
    """A manifest as the text of its file."""
    return manifest.model_dump_json(indent=1) + "\n"


def _terminal() -> str:
    """The terminal behind stderr, or nothing."""
    try:
        return os.ttyname(2)
    except (AttributeError, OSError):  # Windows; no terminal, or one that a container hides
        return ""


def _silence_papermill() -> None:
    # It repeats each path, its one warning (an unknown parameter) cannot occur since the names are
    # checked before, and what failed is said by ChapterFailed.
    for name in ("papermill", "traitlets"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _reason(error: Exception, log: Path, stopped: str) -> str:
    """Why a part failed; what is no failure of a part is raised again."""
    if isinstance(error, PapermillExecutionError):
        said = " ".join(str(error.evalue).split())
        return f"in cell {error.cell_index + 1} (In [{error.exec_count}]): {error.ename}: {said}"
    if isinstance(error, RecordError):
        return f"to leave its record: {error}"
    if not isinstance(error, DeadKernelError) and "Kernel died" not in str(error):
        raise error
    if stopped:
        return f"because {stopped}; {CONTINUES}"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line for line in lines if line.strip() and "without encryption" not in line]
    cause = f"it last said: {said[-1]:.200}" if said else "too little memory is the usual cause"
    return f"because its kernel died; {cause}; {CONTINUES}"


def _cleaned(notebook: NotebookNode) -> NotebookNode:
    """Without what papermill adds, times and paths; the injected parameters hidden from the
    page."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("jupytext", None)
    notebook.metadata.get("language_info", {}).pop("version", None)  # the run's record says it
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata["tags"] = ["injected-parameters", "remove-input"]
            cell["id"] = "parameters-1"
    return notebook


def _outputs(notebook: NotebookNode) -> Iterator[tuple[int, NotebookNode, dict[str, Any]]]:
    """Every output with the number of its cell, and what ``run`` left in its metadata."""
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            yield index, output, output.get("metadata", {}).get("support", {})


def records_in(notebook: NotebookNode, kind: str) -> list[tuple[int, Any]]:
    """What ``run`` left in the outputs' metadata: (cell number, record) for kind ``"claim"``,
    ``"table"`` or ``"run"``."""
    return [(index, record[kind]) for index, _, record in _outputs(notebook) if kind in record]


def outputs_digest(notebook: NotebookNode) -> str:
    """Hash of what a notebook shows besides what is made anew from its manifest: by it a number
    that somebody edited is noticed."""
    shown = [
        [output.get("text"), output.get("data")]
        for _, output, record in _outputs(notebook)
        if not record
    ]
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:16]


def _manifest(notebook: NotebookNode, wall_seconds: float, sums: Mapping[str, str]) -> Manifest:
    """The manifest of a finished run, whose numbers leave the notebook: they stand in one place.
    The checksums are added to those of its data sets."""
    runs = records_in(notebook, "run")
    if len(runs) != 1:
        raise RecordError(
            f"its last cell must call run.finish() once; it was called {len(runs)} times"
        )
    stated = {}
    for index, output, record in _outputs(notebook):
        if "claim" in record:
            claim = record["claim"]
            numbers = {"measured": claim["measured"], "modern": claim["modern"]}
            stated[claim["id"]] = ClaimRecord(**numbers, cell=index)
            output["metadata"]["support"] = {"claim": {"id": claim["id"]}}
        elif "run" in record and sums:
            record["run"]["data"].update(sums)
            found = claims.render_record(record["run"])
            output["data"] = NotebookNode({"text/html": found.html, "text/plain": found.text})
    return Manifest(
        **runs[0][1],
        wall_seconds=round(wall_seconds, 1),
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        outputs=outputs_digest(notebook),
        claims=stated,
    )


def page(path: Path) -> NotebookNode:
    """An executed notebook as it should be read today: its outputs, with the prose of the source
    and the verdicts of the registry as they are now. Where its code cells are no longer those that
    were executed, the notebook as it was.

    Args:
        path: an executed notebook, made here or recorded.
    """
    executed = nbformat.read(path, as_version=4)
    manifest = manifests.manifest_of(path)
    if manifests.source_file(manifest.chapter, manifest.part).is_file():
        source = read_source(manifest.chapter, manifest.part)
        executed = _with_outputs(source, executed) or executed
    return rendered_again(executed, manifest)


def _with_outputs(source: NotebookNode, executed: NotebookNode) -> NotebookNode | None:
    """The source with what was executed in it, changed in place; None where the code is another."""
    done = [cell for cell in executed.cells if cell.cell_type == "code"]
    injected = [cell for cell in done if "injected-parameters" in cell.metadata.get("tags", [])]
    done = [cell for cell in done if cell not in injected]
    wanted = [cell for cell in source.cells if cell.cell_type == "code"]
    if len(done) != len(wanted):
        return None
    for old, cell in zip(done, wanted, strict=True):
        if _meaning(old.source) != _meaning(cell.source):
            if not str(cell.metadata.get("name", "")).startswith("fig-"):
                return None
            cell["source"] = old.source  # a figure is shown with the code that drew it
        cell["outputs"], cell["execution_count"] = old.outputs, old.execution_count
    source.metadata = executed.metadata
    for cell in injected:
        tagged = ("parameters" in cell.metadata.get("tags", []) for cell in source.cells)
        source.cells.insert(list(tagged).index(True) + 1, cell)
    return source


def _meaning(text: str) -> str:
    try:
        return ast.dump(ast.parse(text))
    except SyntaxError:
        return text


def rendered_again(notebook: NotebookNode, manifest: Manifest) -> NotebookNode:
    """The notebook with every row of a claim made anew from the recorded numbers and the registry.
    Changes it in place."""
    judged = _judged(manifest)
    for _, output, record in _outputs(notebook):
        found = None
        # A row whose rules ask for other numbers now stays as it was, and the run is stale.
        if "claim" in record and record["claim"]["id"] in judged:
            found = claims.render(*judged[record["claim"]["id"]])
        elif record.get("table") == "verdicts":
            rows = judged
            if manifest.part == "lesson":
                with contextlib.suppress(RecordError):
                    rows = _judged(manifests.evidence_of(manifest))
            found = claims.render_verdicts(list(rows.values())) if rows else None
        if found:
            output["data"] = NotebookNode({"text/html": found.html, "text/plain": found.text})
    return notebook


def _judged(evidence: Manifest) -> dict[str, tuple[claims.Claim, claims.Judgement]]:
    return {claim.id: (claim, found) for claim, found in manifests.judged(evidence)}


def record_run(notebook: Path) -> Path:
    """Copy a finished run to the tracked files.

    Args:
        notebook: an executed notebook under :func:`support.common.paths.local_runs`.

    Returns:
        The recorded notebook.

    Raises:
        RecordError: it ran with overrides, another seed or older code; its outputs hold a path of
            this machine or something else than PNG pictures; or it is too large.
    """
    manifest = manifests.manifest_of(notebook)
    chapter, part, profile = manifest.chapter, manifest.part, manifest.profile
    if manifest.overrides or manifest.seed != DEFAULTS["seed"]:
        raise RecordError(
            f"{manifests.shown(notebook)} ran with changed parameters: only a profile as it stands "
            "is recorded"
        )
    if not manifests.is_current(manifest):
        raise RecordError(
            f"{manifests.shown(notebook)} is older than its source, profile, claims or evidence: "
            f"run {chapter} again before recording it"
        )
    found = page(notebook)
    if problem := _unfit(found):
        raise RecordError(f"{chapter}/{part} at {profile} is not recorded: {problem}")
    target = manifests.recorded_run(chapter, profile, part)
    if profile == "quick":
        found.metadata["jupytext"] = read_source(chapter, part).metadata["jupytext"]
    texts = {target: text_of(found), manifests.manifest_path(target): text_of_manifest(manifest)}
    files.write_all(texts)
    return target


def _unfit(notebook: NotebookNode) -> str:
    """Why a notebook must not be committed, or nothing."""
    own = (paths.root(), sys.prefix, Path.home(), tempfile.gettempdir())
    places = "|".join(re.escape(str(place)) for place in own)
    here = re.compile(rf"(?<![\w.])(?:{_MACHINE_PATH}|(?:{places})(?![\w-]))")
    for index, output, _ in _outputs(notebook):
        contents = output.get("data") or {"text": output.get("text", "")}
        for kind, content in contents.items():
            if kind in ("image/svg+xml", "image/jpeg", "application/pdf"):
                return f"cell {index + 1} shows {kind}; pictures must be PNG"
            text = content if isinstance(content, str) else json.dumps(content)
            if not kind.startswith("image/") and (found := here.search(text)):
                place = found.group()
                return f"the output of cell {index + 1} holds a path of this machine: {place}"
    size = len(text_of(notebook).encode()) / 1e6
    if size > LARGEST_RECORD_MB:
        sizes = [len(json.dumps(cell)) for cell in notebook.cells]
        largest, most = sizes.index(max(sizes)) + 1, f"more than {LARGEST_RECORD_MB:g}"
        return f"it has {size:.1f} MB, {most}; cell {largest} is the largest"
    return ""


def text_of(notebook: NotebookNode) -> str:
    """A valid notebook as the text of its file."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"
