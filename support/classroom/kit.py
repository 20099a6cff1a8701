"""One archive with everything that a student without a network needs: notebook, package, pages of
the chapter, environment files."""

import re
import shutil
import subprocess
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import yaml
from nbformat import NotebookNode

from support.book import execute, manifests, publish
from support.classroom import cells as tagged
from support.classroom import course, notebook, texts
from support.classroom.cells import HIDDEN, PROMPT, SOLUTION, TEXT, tags
from support.classroom.roster import Person
from support.common import files, fingerprint, paths

KITS = "kits"
FOLDER = "kit"
_PAGES = ("book/how_to_read", "book/notation", "book/bibliography")
_GATE = re.compile(
    r"^`{3,}\{solution-(start|end)\}[^\n]*\n(?:[^\n`][^\n]*\n)*`{3,}[ \t]*$\n?", re.M
)
_LEFT_OUT = ("_sources", ".*", "objects.inv", "genindex.html", "search.html")
_DATE = (2026, 1, 1, 0, 0, 0)  # the same kit is the same file


def pack(chapter: str, folder: Path, students: Sequence[Person] = ()) -> list[Path]:
    """Make the kit of an assignment, or one kit for each student.

    Args:
        chapter: an assignment that was made in the course folder.
        folder: the course folder.
        students: the class; each gets a kit with another SEED. By default one kit for all.

    Returns:
        The archives, ``kits/<chapter>.zip`` or ``kits/<student>/<chapter>.zip``.

    Raises:
        AssignmentError: the list of students cannot be used.
        PublishError: the chapter was never run, or its page cannot be built.
    """
    notebooks = {"": course.file_of(folder, course.RELEASE, chapter)}
    if students:
        own = course.release_to(students, folder, chapter)
        notebooks = {file.parts[-3]: file for file in own}
    with tempfile.TemporaryDirectory(prefix="assign-kit-") as temporary:
        common = Path(temporary) / FOLDER
        contents = _texts(course.released(folder, chapter), chapter)
        files.write_all({common / name: text for name, text in contents.items()})
        hidden = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(fingerprint.PACKAGE, common / "support", ignore=hidden)
        html(pages(chapter), chapter, common / "chapter")
        made = []
        for student, file in notebooks.items():
            shutil.copy(file, common)
            made.append(_zip(common, folder / KITS / student / f"{chapter}.zip"))
    return made


def _zip(common: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(file for file in common.rglob("*") if file.is_file()):
            entry = zipfile.ZipInfo(file.relative_to(common.parent).as_posix(), _DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)
    return target


def _texts(release: NotebookNode, chapter: str) -> dict[str, str]:
    """The README and the files of the environment, by name."""
    root, first_line = paths.root(), release.cells[0].source.splitlines()[0]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = project["optional-dependencies"]["classroom"]
    wanted = {_plain(line) for line in [*project["dependencies"], *extra]}
    pins = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    conda = yaml.safe_load((root / "environment.yml").read_text(encoding="utf-8"))
    conda["dependencies"][-1] = {"pip": ["-r requirements.txt"]}
    about = {
        "title": first_line.strip("# ").partition(": the exercises")[0],
        "exercises": sum(notebook.grade_id(cell).endswith(f"-{PROMPT}") for cell in release.cells),
        "points": sum(notebook.marks(cell).get("points", 0) for cell in release.cells),
    }
    return {
        "requirements.txt": "".join(f"{line}\n" for line in pins if _plain(line) in wanted),
        "environment.yml": yaml.safe_dump(conda, sort_keys=False),
        "README.md": texts.fill("kit.md.j2", chapter=chapter, name=project["name"], **about) + "\n",
    }


def _plain(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[=<>! \[;#]", requirement)[0]).lower()


# --- the pages ------------------------------------------------------------------------------------


def pages(chapter: str) -> dict[str, NotebookNode]:
    """The pages of a chapter without what answers its exercises: lesson and evidence as the book
    shows them, and the exercises.

    Raises:
        PublishError: the chapter was never run.
    """
    parts = [part for part in ("lesson", "evidence") if part in manifests.parts(chapter)]
    runs = {part: publish.page(publish.chosen_run(chapter, part)) for part in parts}
    source = execute.read_source(chapter, tagged.PART)
    return {part: without_solutions(page) for part, page in {**runs, tagged.PART: source}.items()}


def html(shown: dict[str, NotebookNode], chapter: str, folder: Path) -> None:
    """Write pages of a chapter, and those of the book that explain it, as HTML that needs no
    network.

    Raises:
        PublishError: a page cannot be built, or a program is missing.
    """
    root, names = paths.root(), [f"book/{chapter}/{part}" for part in shown]
    with tempfile.TemporaryDirectory(prefix="assign-pages-") as temporary:
        staged = Path(temporary)
        shutil.copytree(root / "book" / "_static", staged / "book" / "_static")
        for name in ("book/references.bib", "_config.yml", *(f"{name}.md" for name in _PAGES)):
            shutil.copy(root / name, staged / name)
        for name, page in zip(names, shown.values(), strict=True):
            notebook.write(page, staged / f"{name}.ipynb")
        chapters = [{"file": name} for name in (*names[1:], *_PAGES)]
        contents = {"format": "jb-book", "root": names[0], "chapters": chapters}
        (staged / paths.MARKER).write_text(yaml.safe_dump(contents), encoding="utf-8")
        # Not strictly: what points to the other chapters has no target here, and is shown as text.
        command = [word for word in publish.JUPYTER_BOOK if word not in ("-W", "-n")]
        told = {"capture_output": True, "text": True, "encoding": "utf-8", "errors": "replace"}
        done = subprocess.run([*command, str(staged)], **told)
        made = staged / "_build" / "html"
        if done.returncode or not all((made / f"{name}.html").is_file() for name in names):
            said = " ".join(done.stderr.split())[-300:]
            raise publish.PublishError(f"the pages of {chapter} cannot be built: {said}")
        shutil.copytree(made, folder, ignore=shutil.ignore_patterns(*_LEFT_OUT))


def without_solutions(page: NotebookNode) -> NotebookNode:
    """A page without what answers its exercises: tagged cells, and everything from a folded
    solution's gate to its end."""
    kept, inside = [], False
    for cell in page.cells:
        stays = not inside
        if cell.cell_type == "markdown":
            text, *pieces = _GATE.split(cell.source)  # text, "start" or "end", text, ...
            shown = "" if inside else text
            for gate, piece in zip(pieces[::2], pieces[1::2], strict=True):
                inside = gate == "start"
                shown += "" if inside else piece
            stays = cell["source"] = shown.strip()
        if stays and not set(tags(cell)) & {SOLUTION, TEXT, HIDDEN}:
            kept.append(cell)
    page["cells"] = kept
    return page
