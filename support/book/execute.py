"""The launching side of a run: a chapter's source goes in, an executed notebook and its manifest
come out, whole or not at all.

``book/<chapter>.py`` is executed by papermill in a kernel of this very Python and lands where
:mod:`support.book.manifests` says. Recording copies a finished run to the tracked files;
:func:`page` reads one, with today's prose and verdicts around its numbers.
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
from typing import Any

import jupytext
import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from support.book import claims, manifests
from support.book.manifests import DEFAULTS, ClaimRecord, Manifest, RecordError
from support.book.profiles import NOTHING
from support.common import fingerprint, paths

LARGEST_RECORD_MB = 5.0
KERNEL_LOG = "kernel.log"
_MACHINE_PATH = r"(?:/home/|/Users/|/root/|/tmp/|/var/folders/|[A-Za-z]:\\\\?Users\\)[^\s\"'<>]*"


class ChapterFailed(RuntimeError):
    """A chapter raised, or its kernel died. The message names the cell, the exception and the
    notebook that shows it."""


# --- executing --------------------------------------------------------------------------------------------------------------------


def read_source(chapter: str) -> NotebookNode:
    """A chapter's source as a notebook that is not executed: cell ids that follow from the cells, a
    kernel, no header of its own.

    Raises:
        RecordError: the parameters cell is missing, or does not declare ``profile``, ``seed``,
            ``device`` and ``overrides``.
    """
    notebook = jupytext.read(manifests.source_file(chapter))
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
    declared = set(papermill.inspect_notebook(notebook))
    if missing := [name for name in DEFAULTS if name not in declared]:
        raise RecordError(
            f"{chapter}.py: its cell tagged `parameters` does not declare {', '.join(missing)}"
        )
    return notebook


def check_machine(chapter: str, device: str) -> None:
    """Refuse what cannot run here: a chapter without its parameters cell, a missing device, a cache
    that cannot be written.

    Raises:
        RecordError, RunError, CacheError: one line each.
    """
    read_source(chapter)
    from support.book import chapter_run  # torch takes seconds to import

    chapter_run.resolve_device(device)
    chapter_run.Cache().writable()


def execute(
    chapter: str,
    profile: str = "quick",
    seed: int = 0,
    device: str = "cpu",
    overrides: Mapping[str, Any] = NOTHING,
    *,
    record: bool = False,
    force: bool = False,
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
        ProfileError, RunError, CacheError, ClaimError, RecordError: the request cannot run; nothing
            was started.
        ChapterFailed: a cell raised or the kernel died; ``<chapter>.failed.ipynb`` shows how far it
            came.
    """
    manifests.check_request(chapter, profile, seed, overrides, record=record)
    notebook = None if force else manifests.current_run(chapter, profile, seed, device, overrides)
    if notebook is None:
        check_machine(chapter, device)
        notebook = _execute(chapter, profile, seed, device, overrides)
    return record_run(notebook) if record else notebook


def _execute(
    chapter: str, profile: str, seed: int, device: str, overrides: Mapping[str, Any]
) -> Path:
    target = manifests.local_run(chapter, profile)
    failed = target.with_name(f"{chapter}.failed.ipynb")
    given = {"profile": profile, "seed": seed, "device": device, "overrides": _jsonable(overrides)}
    parameters = {name: value for name, value in given.items() if value != DEFAULTS[name]}
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
                progress_bar={"desc": chapter, "leave": False} if _terminal() else False,
                kernel_manager_class=_kernel(Path(folder)),
                autosave_cell_every=0,
            )
            executed = _cleaned(nbformat.read(unfinished, as_version=4))
            manifest = _manifest(executed, time.perf_counter() - started)
        except (PapermillExecutionError, DeadKernelError, RecordError) as error:
            if unfinished.is_file():
                manifests.write_whole(
                    failed, text_of(_cleaned(nbformat.read(unfinished, as_version=4)))
                )
            reason = _reason(error, Path(folder) / KERNEL_LOG)
            raise ChapterFailed(
                f"{chapter} failed {reason}; {manifests.shown(failed)} shows how far it came"
            ) from error
    # The manifest goes last and makes the run count; until then an older one must not speak for the
    # new notebook.
    manifests.manifest_path(target).unlink(missing_ok=True)
    manifests.write_whole(target, text_of(executed))
    manifests.write_whole(
        manifests.manifest_path(target), manifest.model_dump_json(indent=1) + "\n"
    )
    failed.unlink(missing_ok=True)
    return target


def _kernel(scratch: Path) -> type[AsyncKernelManager]:
    """A kernel of this interpreter and this package, whatever kernels and start-up files the
    machine has."""
    package = str(fingerprint.PACKAGE.parent)
    environment = {
        "BOOK_ROOT": str(paths.root()),
        "BOOK_PROGRESS": os.environ.get("BOOK_PROGRESS") or _terminal() or "off",
        "IPYTHONDIR": str(scratch / "ipython"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")])),
    }
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = KernelSpec(
        argv=argv,
        display_name="Python 3",
        language="python",
        env=environment,
        resource_dir=str(scratch),
    )

    class BookKernel(AsyncKernelManager):
        kernel_spec = spec

        async def start_kernel(self, **options: Any) -> None:
            # What the process itself says (about its channels, about being interrupted) is not for
            # the reader's terminal.
            with (scratch / KERNEL_LOG).open("w") as log:
                await super().start_kernel(stderr=log, **options)

    return BookKernel


def _terminal() -> str:
    """The terminal behind stderr, or nothing."""
    try:
        return os.ttyname(2)
    except (
        AttributeError,
        OSError,
    ):  # Windows; not a terminal, or one that a container does not show
        return ""


def _silence_papermill() -> None:
    # Its log repeats each path, and its one warning (an unknown parameter) cannot occur: the names
    # are checked before.
    logging.getLogger("papermill").setLevel(logging.ERROR)


def _reason(error: Exception, log: Path) -> str:
    if isinstance(error, PapermillExecutionError):
        return f"in cell {error.cell_index + 1} (In [{error.exec_count}]): {error.ename}: {' '.join(str(error.evalue).split())}"
    if isinstance(error, DeadKernelError):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = [line for line in lines if line.strip() and "without encryption" not in line]
        return f"because its kernel died; {f'it last said: {said[-1]:.200}' if said else 'too little memory is the usual cause'}"
    return f"to leave its record: {error}"


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


def records_in(notebook: NotebookNode, kind: str) -> list[tuple[int, dict[str, Any]]]:
    """What ``run`` left in the outputs' metadata: (cell number, record) for kind ``"claim"``,
    ``"table"`` or ``"run"``."""
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
        raise RecordError(
            f"its last cell must call run.finish() once; it was called {len(runs)} times"
        )
    stated = {
        record["id"]: ClaimRecord(measured=record["measured"], modern=record["modern"], cell=index)
        for index, record in records_in(notebook, "claim")
    }
    finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Manifest(
        **runs[0][1], wall_seconds=round(wall_seconds, 1), finished=finished, claims=stated
    )


# --- recording and reading
# --------------------------------------------------------------------------------------------------------


def page(path: Path) -> NotebookNode:
    """An executed notebook as it should be read today: its outputs, with the prose of the source
    and the verdicts of the registry as they are now, and with the graded exercises of the source.
    Where its other code cells are no longer those that were executed, the notebook as it was.

    Args:
        path: an executed notebook, made here or recorded.
    """
    executed = nbformat.read(path, as_version=4)
    if not manifests.source_file(path.stem).is_file():
        return executed
    merged = _with_outputs(read_source(path.stem), executed)
    return rendered_again(merged or executed, path.stem)


def _with_outputs(source: NotebookNode, executed: NotebookNode) -> NotebookNode | None:
    done = [cell for cell in executed.cells if cell.cell_type == "code"]
    injected = [cell for cell in done if "injected-parameters" in cell.metadata.get("tags", [])]
    done = [cell for cell in done if cell not in injected]
    merged = copy.deepcopy(source)
    wanted = [cell for cell in merged.cells if cell.cell_type == "code"]
    of_run = [[cell for cell in cells if not _graded(cell)] for cells in (done, wanted)]
    if [_meaning(cell.source) for cell in of_run[0]] != [
        _meaning(cell.source) for cell in of_run[1]
    ]:
        return None
    answered = {
        cell.source: cell for cell in done if _graded(cell)
    }  # an exercise that is newer than the run has no output
    pairs = [
        *zip(*of_run, strict=True),
        *(
            (answered[cell.source], cell)
            for cell in wanted
            if _graded(cell) and cell.source in answered
        ),
    ]
    for old, cell in pairs:
        cell["outputs"], cell["execution_count"] = old.outputs, old.execution_count
    merged.metadata = executed.metadata
    for cell in injected:
        position = next(
            index
            for index, cell in enumerate(merged.cells)
            if "parameters" in cell.metadata.get("tags", [])
        )
        merged.cells.insert(position + 1, cell)
    return merged


def _graded(cell: NotebookNode) -> bool:
    """Whether a cell belongs to a graded exercise; see
    :data:`support.common.fingerprint.EXERCISE`."""
    return "exercise" in cell.metadata or any(
        tag.startswith("assignment") for tag in cell.metadata.get("tags", [])
    )


def _meaning(text: str) -> str:
    try:
        return ast.dump(ast.parse(text))
    except SyntaxError:
        return text


def rendered_again(notebook: NotebookNode, chapter: str) -> NotebookNode:
    """The notebook with every row of a claim made anew from its recorded numbers and the registry.
    Changes it in place."""
    registered = {claim.id: claim for claim in claims.of_chapter(chapter)}
    judged: list[tuple[claims.Claim, claims.Judgement]] = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            record = output.get("metadata", {}).get("support", {})
            found = None
            if "claim" in record and record["claim"]["id"] in registered:
                claim = registered[record["claim"]["id"]]
                try:
                    judgement = claims.judge(
                        claim,
                        record["claim"]["measured"],
                        record["claim"]["profile"],
                        record["claim"]["modern"],
                    )
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
        notebook: an executed notebook under :func:`support.common.paths.local_runs`.

    Returns:
        The recorded notebook.

    Raises:
        RecordError: it ran with overrides, another seed or older code; its outputs hold a path of
            this machine or something else than PNG pictures; or it is too large.
    """
    manifest = manifests.manifest_of(notebook)
    chapter, profile = manifest.chapter, manifest.profile
    if manifest.overrides or manifest.seed != DEFAULTS["seed"]:
        raise RecordError(
            f"{manifests.shown(notebook)} ran with changed parameters: only a profile as it stands is recorded"
        )
    if not manifests.is_current(manifest):
        raise RecordError(
            f"{manifests.shown(notebook)} is older than its chapter, profile or claims: run {chapter} again before recording it"
        )
    found = page(notebook)
    if problem := _unfit(found):
        raise RecordError(f"{chapter} at {profile} is not recorded: {problem}")
    target = manifests.recorded_run(chapter, profile)
    if profile == "quick":
        found.metadata["jupytext"] = read_source(chapter).metadata["jupytext"]
    manifests.manifest_path(target).unlink(missing_ok=True)
    manifests.write_whole(target, text_of(found))
    manifests.write_whole(
        manifests.manifest_path(target), manifest.model_dump_json(indent=1) + "\n"
    )
    return target


def _unfit(notebook: NotebookNode) -> str:
    """Why a notebook must not be committed, or nothing."""
    places = "|".join(
        re.escape(str(place))
        for place in (paths.root(), sys.prefix, Path.home(), tempfile.gettempdir())
    )
    here = re.compile(rf"(?<![\w.])(?:{_MACHINE_PATH}|(?:{places})(?![\w-]))")
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            contents = (
                {"text": output["text"]}
                if output.output_type == "stream"
                else output.get("data", {})
            )
            for kind, content in contents.items():
                if kind in ("image/svg+xml", "image/jpeg", "application/pdf"):
                    return f"cell {index + 1} shows {kind}; pictures must be PNG"
                text = content if isinstance(content, str) else json.dumps(content)
                if not kind.startswith("image/") and (found := here.search(text)):
                    return f"the output of cell {index + 1} holds a path of this machine: {found.group()}"
    size = len(text_of(notebook).encode()) / 1e6
    if size > LARGEST_RECORD_MB:
        largest = max(
            range(len(notebook.cells)), key=lambda index: len(json.dumps(notebook.cells[index]))
        )
        return f"it has {size:.1f} MB, more than {LARGEST_RECORD_MB:g}; cell {largest + 1} is the largest"
    return ""


def text_of(notebook: NotebookNode) -> str:
    """A valid notebook as the text of its file."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def _jsonable(overrides: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(overrides)))
