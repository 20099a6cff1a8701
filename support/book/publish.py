"""The published book: every chapter with its best run, under one address, built as HTML with
warnings as errors.

The book is staged first: a copy of the pages in which each chapter is replaced by its executed
    notebook, with a box at the top
that says what it was run with. So the table of contents and the addresses never depend on which
runs there are.
"""

import collections
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode

from support.book import claims, computed_pages, execute, manifests
from support.book.profiles import SIZES
from support.common import paths

BUILDERS = (
    "jupyter-book",
    "sphinx",
    "myst-nb",
    "sphinx-book-theme",
    "sphinx-proof",
    "sphinx-exercise",
    "sphinx-mathjax-offline",
)
_MARKERS = re.compile(r"^[ \t]*### (?:BEGIN|END) SOLUTION[ \t]*\n?", re.M)
STAMP = "inputs.sha256"  # in the built book: the hash of what it was built from
# The command of this interpreter, wherever its script lies; a warning makes it fail, after all of
# them were shown.
JUPYTER_BOOK = (
    sys.executable,
    "-c",
    "from jupyter_book.cli.main import main; main()",
    "build",
    "-W",
    "-n",
    "--keep-going",
)


class PublishError(RuntimeError):
    """The book cannot be built. The message is one line that says what to do."""


def pages() -> list[str]:
    """The pages of ``_toc.yml``, root first, as paths without an ending, such as
    ``"book/index"``."""

    def named(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            yield from (node[key] for key in ("root", "file") if key in node)
            node = list(node.values())
        if isinstance(node, list):
            for child in node:
                yield from named(child)

    return list(named(yaml.safe_load((paths.root() / paths.MARKER).read_text(encoding="utf-8"))))


def chosen_run(chapter: str) -> Path:
    """The executed notebook that a chapter's page shows.

    The largest profile that was recorded or run here; of two runs at one profile, the one whose
    code is current, then the newer one.

    Raises:
        PublishError: the chapter was never run.
    """
    for profile in reversed(SIZES):
        found = []
        for notebook in (
            manifests.recorded_run(chapter, profile),
            manifests.local_run(chapter, profile),
        ):
            if notebook.is_file() and manifests.manifest_path(notebook).is_file():
                manifest = manifests.manifest_of(notebook)
                found.append(
                    (
                        not manifests.is_stale(manifest),
                        datetime.fromisoformat(manifest.finished),
                        notebook,
                    )
                )
        if found:
            return max(found)[-1]
    raise PublishError(f"{chapter} was never run: python -m support run {chapter}")


def box(manifest: manifests.Manifest) -> str:
    """What a page was run with, and a warning where its code has changed since, as MyST
    Markdown."""
    seeds = (
        f"seed {manifest.seeds[0]}"
        if len(manifest.seeds) == 1
        else f"seeds {manifest.seeds[0]} to {manifest.seeds[-1]}"
    )
    changed = ", ".join(f"`{name} = {value}`" for name, value in manifest.overrides.items())
    finished = datetime.fromisoformat(manifest.finished)
    commit = f"commit `{manifest.commit[:10]}`" if manifest.commit else "no commit"
    threads = (
        ""
        if manifest.device == "cuda"
        else f", {manifest.threads} thread{'s' * (manifest.threads != 1)}"
    )
    cached = (
        f", {manifest.units_from_cache} results taken from the cache"
        if manifest.units_from_cache
        else ""
    )
    lines = [
        "```{admonition} What this page was run with",
        ":class: note run-box",
        "",
        f"Profile **{manifest.profile}**{f' with {changed}' if changed else ''}, {seeds}; {manifest.device_name}{threads}.",
        f"Finished on {finished.day} {finished:%B %Y} in {_duration(manifest.wall_seconds)}{cached}; "
        f"{commit}{', with changes not committed' if manifest.dirty else ''}.",
        "",
        _verdicts(manifest),
        "{doc}`What the words mean <how_to_read>`; the last table of the page lists every parameter and version.",
    ]
    if manifest.profile != "quick":
        lines.append(
            f'The parameters cell shows the defaults; this run was given `profile = "{manifest.profile}"`.'
        )
    lines.append("```")
    if manifests.is_stale(manifest):
        again = f"python -m support run {manifest.chapter} --profile {manifest.profile}"
        text = (
            "The code of this page has changed since it was run, so its numbers may be out of date."
        )
        lines += ["", "```{warning}", text, f"To run it again: `{again}`", "```"]
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} minutes"
        if seconds < 7200
        else f"{seconds / 3600:.1f} hours"
    )


def _verdicts(manifest: manifests.Manifest) -> str:
    first, second = collections.Counter(), collections.Counter()
    for claim in claims.of_chapter(manifest.chapter):
        record = manifest.claims.get(claim.id)
        try:
            found = claims.judge(
                claim,
                record.measured if record else {},
                manifest.profile,
                record.modern if record else None,
            )
        except (
            claims.ClaimError
        ):  # measured for rules that have changed since; the warning below says so
            first["not judged"] += 1
            continue
        first[found.verdict] += 1
        if found.survives:
            second[found.survives] += 1
    text = f"{first.total()} claims: {_counted(first)}."
    return text + (f" Under today's protocol: {_counted(second)}." if second else "")


def _counted(words: collections.Counter) -> str:
    return ", ".join(
        f"{words[word]} {word}"
        for word in dict.fromkeys((*claims.VERDICTS, *claims.SURVIVALS, *words))
        if words[word]
    )


def page(notebook: Path) -> NotebookNode:
    """An executed notebook as its page shows it: :func:`support.book.execute.page` with the box
    under the title, without nbgrader's markers.

    Raises:
        PublishError: its first cell does not begin with a title.
    """
    shown = execute.page(notebook)
    for cell in shown.cells:
        if "solution" in cell.metadata.get("tags", []):
            cell["source"] = _MARKERS.sub("", cell.source)
    title, _, rest = shown.cells[0].source.partition("\n") if shown.cells else ("", "", "")
    if shown.cells[0].cell_type != "markdown" or not title.startswith("# "):
        raise PublishError(
            f"{notebook.name}: the first cell must begin with the chapter's title, a line '# ...'"
        )
    shown.cells[0]["source"] = f"{title}\n\n{box(manifests.manifest_of(notebook))}\n{rest}"
    return shown


def stage(folder: Path) -> None:
    """Put the book as it is to be built into ``folder``, which is emptied first.

    Raises:
        PublishError: a chapter of the table of contents was never run.
        BoardError: a page asks for a computed part that there is not.
    """
    root = paths.root()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(
        root / "book",
        folder / "book",
        ignore=shutil.ignore_patterns("*.py", "*.ipynb", "assignments", ".*", "__pycache__"),
    )
    for name in ("_config.yml", paths.MARKER):
        shutil.copy(root / name, folder / name)
    written = pages()
    for chapter in manifests.chapters():
        if f"book/{chapter}" in written:
            text = nbformat.writes(page(chosen_run(chapter)))
            (folder / "book" / f"{chapter}.ipynb").write_text(text, encoding="utf-8")
    _compute(folder, written)


def _compute(folder: Path, written: list[str]) -> None:
    """Fill the staged pages that are computed, here and not only in the build, so that they count
    in the book's fingerprint."""
    files = {folder / f"{page}.md" for page in written if (folder / f"{page}.md").is_file()}
    texts = {file: file.read_text(encoding="utf-8") for file in sorted(files)}
    if computed := {
        file: text for file, text in texts.items() if computed_pages.PLACEHOLDER.search(text)
    }:
        today = computed_pages.board(written)
        for file, text in computed.items():
            file.write_text(computed_pages.filled(text, today), encoding="utf-8")
        for name, text in computed_pages.downloads(today).items():
            manifests.write_whole(folder / "book" / "_static" / name, text)


def fingerprint(folder: Path) -> str:
    """Hash of every file under ``folder`` and of the versions of the programs that build it."""
    total = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(
            f"{file.relative_to(folder).as_posix()} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode()
        )
    for name in BUILDERS:
        total.update(f"{name} {importlib.metadata.version(name)}\n".encode())
    return total.hexdigest()


def build(out: Path | None = None, *, check: bool = True) -> str:
    """Build the book, unless it was built from the same pages, and return the address of its first
    page.

    Args:
        out: folder of the HTML pages, by default ``_build/book``; the book is staged beside it.
        check: compare the built pages with the table of contents.

    Returns:
        A ``file://`` address.

    Raises:
        PublishError: a program is missing, a chapter was never run, the build gave a warning, or a
            page is missing. What stood in ``out`` before is kept.
    """
    out = (out or paths.root() / "_build" / "book").resolve()
    staged, log = out.parent / "stage", out.parent / "build.log"
    try:
        stage(staged)
        inputs = fingerprint(staged)
    except importlib.metadata.PackageNotFoundError as error:
        raise PublishError(
            f'{error.name} is not installed: python -m pip install -c constraints.txt -e ".[book]"'
        ) from error
    stamp = out / STAMP
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != inputs:
        _jupyter_book(staged, log)
        made = staged / "_build" / "html"
        if check:
            check_complete(made)
        (made / STAMP).write_text(inputs, encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        shutil.move(made, out)
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
        problems = [line.strip() for line in said if "WARNING" in line or "ERROR" in line] or said[
            -3:
        ]
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise PublishError(
            f"the pages have problems, listed in {log}: {' | '.join(problems[:3])}{more}"
        )


def check_complete(built: Path) -> None:
    """Compare built pages with the table of contents.

    Raises:
        PublishError: a page is missing, or one was built that the table does not list.
    """
    wanted = set(pages())
    found = {
        file.relative_to(built).with_suffix("").as_posix()
        for file in (built / "book").rglob("*.html")
    }
    if found != wanted or not (built / "index.html").is_file():
        missing = sorted(wanted - found) + ["index"] * (not (built / "index.html").is_file())
        lists = f"missing {', '.join(missing) or 'none'}, not listed {', '.join(sorted(found - wanted)) or 'none'}"
        raise PublishError(f"the built pages are not those of {paths.MARKER}: {lists}")
