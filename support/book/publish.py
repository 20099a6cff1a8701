"""The published book: every chapter with its best runs, under one address, built as HTML with
warnings as errors.

The book is staged first: a copy of the pages in which each part of a chapter is replaced by its
executed notebook, with a box at the top that says what it was run with. So the table of contents
and the addresses never depend on which runs there are.
"""

import functools
import hashlib
import importlib.metadata
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from support.book import claims, manifests, markup
from support.book.profiles import SIZES
from support.common import files, fingerprint, paths

if TYPE_CHECKING:
    from nbformat import NotebookNode  # notebooks take seconds to import: not before one is staged

BUILDERS = (
    "jupyter-book", "sphinx", "myst-nb", "sphinx-book-theme", "sphinx-proof", "sphinx-exercise",
    "sphinx-mathjax-offline",
)  # fmt: skip
SOURCES = (
    "book", "data/claims", "data/runs", "data/calibration.json", "_config.yml", "CITATION.cff",
    paths.MARKER,
)  # fmt: skip
_MARKERS = re.compile(r"^[ \t]*### (?:BEGIN|END) SOLUTION[ \t]*\n?", re.M)
STAMP = "inputs.sha256"  # in the built book: the hashes of the sources and of the staged pages
# The command of this interpreter, wherever its script lies; a warning makes it fail, after all of
# them were shown.
JUPYTER_BOOK = (
    sys.executable, "-c", "from jupyter_book.cli.main import main; main()",
    "build", "-W", "-n", "--keep-going",
)  # fmt: skip


class PublishError(RuntimeError):
    """The book cannot be built. The message is one line that says what to do."""


def pages() -> list[str]:
    """The pages of ``_toc.yml``, root first, as paths without an ending, such as
    ``"book/index"``."""

    written = (paths.root() / paths.MARKER).read_text(encoding="utf-8")
    words = [event.value for event in yaml.parse(written) if isinstance(event, yaml.ScalarEvent)]
    # A value comes right after its key.
    return [page for key, page in itertools.pairwise(words) if key in ("root", "file")]


def chosen_run(chapter: str, part: str = "evidence") -> Path:
    """The executed notebook that a part's page shows.

    The largest profile that was recorded or run here; evidence only where it states every claim of
    today's registry, to which links lead, and a lesson only where its text is today's. Of two runs
    at one profile, the one whose code is current, then the newer one.

    Raises:
        PublishError: the part was never run.
    """
    places = (manifests.recorded_run, manifests.local_run)
    runs = [at(chapter, profile, part) for profile in SIZES for at in places]
    found = list(filter(manifests.there, runs))
    if not found:
        raise PublishError(f"{chapter}/{part} was never run: python -m support run {chapter}")
    return max(found, key=_rank)


def _rank(notebook: Path) -> tuple[bool, int, bool, datetime]:
    """The higher, the rather is a run shown."""
    manifest = manifests.manifest_of(notebook)
    current = not manifests.is_stale(manifest)
    registered = {claim.id for claim in claims.of_chapter(manifest.chapter)}
    whole = {"evidence": registered <= {*manifest.claims}, "lesson": current}
    finished = datetime.fromisoformat(manifest.finished)
    return whole.get(manifest.part, True), SIZES.index(manifest.profile), current, finished


def box(manifest: manifests.Manifest) -> str:
    """What a page was run with, folded into one line, and a warning where its code has changed
    since, as MyST Markdown."""
    # A lesson is as old as what it reads.
    evidence = _read_by(manifest) if manifest.part == "lesson" else manifest
    return markup.fill(
        "box.md.j2",
        run=manifest,
        finished=datetime.fromisoformat(evidence.finished),
        duration=manifests.duration(manifest.wall_seconds),
        verdicts=_verdicts(evidence),
        order=(*claims.VERDICTS, *claims.SURVIVALS),
        stale=manifests.is_stale(manifest) or manifests.is_stale(evidence),
    )


def _read_by(lesson: manifests.Manifest) -> manifests.Manifest:
    """The evidence that a lesson shows, or the chapter's best where that is gone."""
    try:
        return manifests.evidence_of(lesson)
    except manifests.RecordError:
        return manifests.manifest_of(chosen_run(lesson.chapter))


def _verdicts(evidence: manifests.Manifest) -> dict[str, list[str]]:
    """The verdicts on the claims, those under today's protocol, the answers to the questions."""
    judged = {claim.id: found for claim, found in manifests.judged(evidence)}
    second = [found.survives for found in judged.values() if found.survives]
    said: dict[str, list[str]] = {"claim": [], "survival": second, "question": []}
    for claim in claims.of_chapter(evidence.chapter):
        # A record that is older than its rules is not judged.
        word = judged[claim.id].verdict if claim.id in judged else "not judged"
        said["question" if claim.kind == "question" else "claim"].append(word)
    return said


def page(notebook: Path) -> "NotebookNode":
    """An executed notebook as its page shows it: :func:`support.book.execute.page` with the box
    under the title (the exercises have none), without nbgrader's markers and the parameters, which
    the box lists; a lesson begins and ends as :mod:`support.book.front` says.

    Raises:
        PublishError: its first cell does not begin with a title.
    """
    from nbformat.v4 import new_markdown_cell

    from support.book import execute, front

    shown, manifest = execute.page(notebook), manifests.manifest_of(notebook)
    for cell in shown.cells:
        tags = cell.metadata.get("tags", [])
        if "solution" in tags:
            cell["source"] = _MARKERS.sub("", cell.source)
        if "parameters" in tags:
            cell.metadata["tags"] = [*tags, "remove-cell"]
    title, _, rest = shown.cells[0].source.partition("\n") if shown.cells else ("", "", "")
    if not title.startswith("# ") or shown.cells[0].cell_type != "markdown":
        raise PublishError(
            f"{manifest.chapter}/{manifest.part}: the first cell must begin with a title, a line "
            "'# ...'"
        )
    head = ""
    if manifest.part == "lesson":
        own = any(front.OWN_FINDINGS in cell.source.splitlines() for cell in shown.cells)
        head = front.head(_read_by(manifest), findings=not own) + "\n\n"
        if foot := front.foot(manifest.chapter):
            shown.cells.append(new_markdown_cell(foot, id="where-this-leads"))
    if manifest.part != "exercises":
        shown.cells[0]["source"] = f"{title}\n\n{head}{box(manifest)}\n{rest}"
    return shown


def stage(folder: Path) -> None:
    """Put the book as it is to be built into ``folder``, which is emptied first.

    Raises:
        PublishError: a chapter of the table of contents was never run.
        BoardError: a page asks for a computed part that there is not.
    """
    import nbformat

    from support.book import computed_pages, downloads

    root, written = paths.root(), pages()
    shutil.rmtree(folder, ignore_errors=True)
    ignored = shutil.ignore_patterns("*.py", "*.ipynb", "assignments", ".*", "__pycache__")
    shutil.copytree(root / "book", folder / "book", ignore=ignored)
    for name in ("_config.yml", paths.MARKER):
        shutil.copy(root / name, folder / name)
    for chapter in manifests.chapters():
        for part in manifests.parts(chapter):
            if (name := f"book/{chapter}/{part}") in written:
                text = nbformat.writes(page(chosen_run(chapter, part)))
                files.write_all({folder / f"{name}.ipynb": text})
    # Computed here and not only in the build, so that they count in the fingerprint.
    today = functools.cache(lambda: computed_pages.board(written))
    for file in (folder / "book").glob("*.md"):
        text = file.read_text(encoding="utf-8")
        if (filled := computed_pages.filled(text, today)) != text:
            file.write_text(filled, encoding="utf-8")
    downloads.write_beside(folder / "book" / "_static", today)


def digest(places: Iterable[Path]) -> str:
    """Hash of every file in some folders, and of the versions of the programs that build them."""
    total = hashlib.sha256()
    for place in places:
        for file in [place, *sorted(place.rglob("*"))]:
            if file.is_file() and "__pycache__" not in file.parts:
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                total.update(f"{file.relative_to(place).as_posix()} {content}\n".encode())
    for name in BUILDERS:
        total.update(f"{name} {importlib.metadata.version(name)}\n".encode())
    return total.hexdigest()


def build(out: Path | None = None) -> str:
    """Build the book, unless it was built from the same pages, and return the address of its first
    page.

    Args:
        out: folder of the HTML pages, by default ``book`` in the output; the book is staged beside
            it.

    Returns:
        A ``file://`` address.

    Raises:
        PublishError: a program is missing, a chapter was never run, the build gave a warning, or a
            page is missing. What stood in ``out`` before is kept.
        OSError: the folder of ``out`` cannot be written.
    """
    out = (out or paths.output() / "book").resolve()
    files.check_writable(out.parent)
    staged, log, stamp = out.parent / "stage", out.parent / "build.log", out / STAMP
    built = stamp.read_text(encoding="utf-8").split() if stamp.is_file() else ["", ""]
    try:
        # Staging takes long, so the sources are asked first; pages that are the same stay.
        places = [fingerprint.PACKAGE, paths.local_runs()]
        sources = digest([*places, *(paths.root() / name for name in SOURCES)])
        if sources == built[0]:
            return (out / "index.html").as_uri()
        stage(staged)
        staged_pages = digest([staged, fingerprint.PACKAGE])  # whose docstrings are pages
    except importlib.metadata.PackageNotFoundError as error:
        raise PublishError(
            f'{error.name} is not installed: python -m pip install -c constraints.txt -e ".[book]"'
        ) from error
    if staged_pages != built[1]:
        _jupyter_book(staged, log)
        made = staged / "_build" / "html"
        check_complete(made)
        old = out.with_name(f"{out.name}.old")  # removed when the new one stands in its place
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            out.rename(old)
        made.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    files.write_all({stamp: f"{sources}\n{staged_pages}\n"})
    return (out / "index.html").as_uri()


def _jupyter_book(folder: Path, log: Path) -> None:
    # Always from nothing: a second, incremental build would not repeat the warnings that made the
    # first one fail.
    environment = os.environ | {"PYTHONUTF8": "1", "NO_COLOR": "1"}
    with log.open("w", encoding="utf-8") as stream:
        streams = {"stdin": subprocess.DEVNULL, "stdout": stream, "stderr": subprocess.STDOUT}
        status = subprocess.run([*JUPYTER_BOOK, str(folder)], env=environment, **streams).returncode
    if status:
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()
        problems = [line.strip() for line in said if "WARNING" in line or "ERROR" in line]
        problems = problems or said[-3:]
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise PublishError(
            f"the pages have problems, listed in {log}: {' | '.join(problems[:3])}{more}"
        )


def check_complete(built: Path) -> None:
    """Compare built pages with the table of contents.

    Raises:
        PublishError: a page is missing, or one was built that the table does not list.
    """
    wanted = {*pages(), "index"}
    files = [*(built / "book").rglob("*.html"), *built.glob("index.html")]
    found = {file.relative_to(built).with_suffix("").as_posix() for file in files}
    if found != wanted:
        missing, other = sorted(wanted - found), sorted(found - wanted)
        lists = f"missing {', '.join(missing) or 'none'}, not listed {', '.join(other) or 'none'}"
        raise PublishError(f"the built pages are not those of {paths.MARKER}: {lists}")
