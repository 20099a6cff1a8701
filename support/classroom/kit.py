"""One archive with everything that a student without a network needs: notebook, package, pages of
the chapter, environment files."""

import re
import shutil
import subprocess
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from support.book import environment, publish
from support.classroom import course, notebook
from support.classroom.exercises import HIDDEN, SOLUTION, TEXT, AssignmentError, tags
from support.common import fingerprint, paths

KITS = "kits"
FOLDER = "kit"
_PAGES = ("how_to_read", "notation", "bibliography")
_GATE = re.compile(
    r"^`{3,}\{solution-(start|end)\}[^\n]*\n(?:[^\n`][^\n]*\n)*`{3,}[ \t]*$\n?", re.M
)
_DATE = (2026, 1, 1, 0, 0, 0)  # the same kit is the same file
_README = """# {title}: the kit

| file | what it is |
|---|---|
| `{chapter}.ipynb` | the exercises: this is the only file that you work in, and the one that you
hand in | | `chapter/index.html` | the chapter to read; opens in any browser, without a network |
| `support/` | the package that the exercises import; it lies beside the notebook and needs no
installation | | `environment.yml`, `requirements.txt` | the Python packages that it needs, with the
versions that were tested |

## Once, while you have a network

With conda: `conda env create -f environment.yml`, then `conda activate {name}`.

Without: Python 3.11 or newer, then in this folder

    python -m venv .venv
    .venv/bin/python -m pip install -r requirements.txt        (Windows: .venv\\Scripts\\python -m
    pip install -r requirements.txt)

Linux computers without an NVIDIA GPU add `--extra-index-url https://download.pytorch.org/whl/cpu`,
which spares gigabytes.
A class without any network gets the packages on a stick: `pip download -r requirements.txt -d
    packages` at the teacher's,
`pip install --no-index --find-links packages -r requirements.txt` at yours.
From here on nothing needs a network, a GPU or a download: the digits that some exercises use lie
    inside scikit-learn.

## Then

    .venv/bin/python -m jupyter lab {chapter}.ipynb

Read the chapter, write your functions where the notebook says `YOUR CODE HERE`, and run the tests
below each.
Do not change the tests: they are restored before the work is graded. You may add cells.
At the end choose *Restart Kernel and Run All Cells*, save, and hand in `{chapter}.ipynb`, named as
your teacher says.

Exercises: {exercises}; {points} points in all. No exercise depends on another.
"""


def pack(chapter: str, folder: Path, students: Iterable[str] | None = None) -> list[Path]:
    """Make the kit of an assignment, or one kit for each student.

    Args:
        chapter: an assignment that was made in the course folder.
        folder: the course folder.
        students: names; each gets a kit with another SEED. By default one kit for all.

    Returns:
        The archives, ``kits/<chapter>.zip`` or ``kits/<student>/<chapter>.zip``.

    Raises:
        AssignmentError: the assignment was not made, or the list of students cannot be used.
        PublishError: the chapter was never run, or its page cannot be built.
    """
    release = course.release_file(folder, chapter)
    if not release.is_file():
        raise AssignmentError(
            f"{folder} has no assignment {chapter}: python -m support assign build {chapter}"
        )
    notebooks = (
        {"": release}
        if students is None
        else {file.parts[-3]: file for file in course.release_to(students, folder, chapter)}
    )
    with tempfile.TemporaryDirectory(prefix="assign-kit-") as temporary:
        common = Path(temporary) / FOLDER
        common.mkdir()
        _texts(common, nbformat.read(release, as_version=4), chapter)
        shutil.copytree(
            fingerprint.PACKAGE,
            common / "support",
            ignore=shutil.ignore_patterns("assign", "__pycache__", ".*"),
        )
        page(chapter, common / "chapter")
        return [
            _zip(common, own, folder / KITS / student / f"{chapter}.zip")
            for student, own in notebooks.items()
        ]


def _zip(common: Path, own: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    files = {
        file.relative_to(common.parent).as_posix(): file
        for file in common.rglob("*")
        if file.is_file()
    }
    files[f"{FOLDER}/{own.name}"] = own
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name].read_bytes(), zipfile.ZIP_DEFLATED)
    return target


def _texts(folder: Path, release: NotebookNode, chapter: str) -> None:
    project = tomllib.loads((paths.root() / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    classroom = project["optional-dependencies"]["classroom"]
    wanted = {_plain(line) for line in [*project["dependencies"], *classroom]}
    pins = [
        line
        for line in (paths.root() / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    lines = [line for line in pins if _plain(line) in wanted]
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    conda = (
        environment.text().split("  - pip:\n")[0].partition("\n")[2]
        + "  - pip:\n      - -r requirements.txt\n"
    )
    (folder / "environment.yml").write_text(conda, encoding="utf-8")
    prompts = [cell for cell in release.cells if notebook.grade_id(cell).endswith("-prompt")]
    points = sum(cell.metadata.nbgrader.get("points", 0) for cell in release.cells)
    title = (
        release.cells[0].source.splitlines()[0].removeprefix("# ").partition(": the exercises")[0]
    )
    text = _README.format(
        title=title, chapter=chapter, name=project["name"], exercises=len(prompts), points=points
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _plain(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[=<>! \[;]", requirement)[0]).lower()


# --- the page ---------------------------------------------------------------------------------------------------------------------


def page(chapter: str, folder: Path) -> Path:
    """The chapter as HTML pages that need no network, without its solutions; the first page.

    Raises:
        PublishError: the chapter was never run, or a program is missing.
    """
    root = paths.root()
    with tempfile.TemporaryDirectory(prefix="assign-page-") as temporary:
        staged = Path(temporary)
        (staged / "book").mkdir()
        shutil.copytree(root / "book" / "_static", staged / "book" / "_static")
        for name in ("book/references.bib", "_config.yml", *(f"book/{name}.md" for name in _PAGES)):
            shutil.copy(root / name, staged / name)
        shown = without_solutions(publish.page(publish.chosen_run(chapter)))
        (staged / "book" / f"{chapter}.ipynb").write_text(nbformat.writes(shown), encoding="utf-8")
        chapters = "".join(f"- file: book/{name}\n" for name in _PAGES)
        (staged / paths.MARKER).write_text(
            f"format: jb-book\nroot: book/{chapter}\nchapters:\n{chapters}", encoding="utf-8"
        )
        # Not strictly: what points to the other chapters has no target here, and is shown as text.
        command = [word for word in publish.JUPYTER_BOOK if word not in ("-W", "-n")]
        done = subprocess.run(
            [*command, str(staged)],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        made = staged / "_build" / "html"
        if done.returncode or not (made / "book" / f"{chapter}.html").is_file():
            raise publish.PublishError(
                f"the page of {chapter} cannot be built: {' '.join(done.stderr.split())[-300:]}"
            )
        shutil.copytree(
            made,
            folder,
            ignore=shutil.ignore_patterns(
                "_sources", ".*", "objects.inv", "genindex.html", "search.html"
            ),
        )
    return folder / "index.html"


def without_solutions(page: NotebookNode) -> NotebookNode:
    """An executed chapter without what answers its exercises: tagged cells, and everything from a
    folded solution's gate to its end."""
    kept, inside = [], False
    for cell in page.cells:
        text, stays = cell.source, not inside
        if cell.cell_type == "markdown":
            pieces = _GATE.split(text)  # text, "start" or "end", text, ...
            shown = [] if inside else [pieces[0]]
            for gate, piece in zip(pieces[1::2], pieces[2::2], strict=True):
                inside = gate == "start"
                shown += [] if inside else [piece]
            cell["source"] = "".join(shown).strip()
            stays = bool(cell.source)
        if stays and not set(tags(cell)) & {SOLUTION, TEXT, HIDDEN}:
            kept.append(cell)
    page["cells"] = kept
    return page
