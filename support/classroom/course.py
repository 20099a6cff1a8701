"""A course folder in nbgrader's layout: ``source/`` with the solutions, ``release/`` for the
students, the gradebook, the settings."""

import hashlib
import os
import secrets
import sysconfig
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.converters import GenerateAssignment
from nbgrader.converters.base import NbGraderException
from nbgrader.coursedir import CourseDirectory
from traitlets.config import Config

from support.classroom import notebook
from support.classroom.exercises import Assignment, AssignmentError
from support.classroom.fair_execute import FairExecute
from support.common import paths

SECONDS = 6
SECRET = "secret.txt"
PERSONAL = "release-by-student"
LARGEST_SEED = 10**6
_CONFIG = '''"""nbgrader's settings for this course; `python -m support assign` grades with the same ones."""

from support.assign import course

c = get_config()
c.merge(course.settings("."))
'''


def default_folder() -> Path:
    """Where assignments are made unless another folder is named: ignored by git."""
    return paths.root() / "_build" / "course"


def settings(folder: str | Path, seconds: int = SECONDS) -> Config:
    """nbgrader's configuration for a course folder.

    Args:
        folder: the course folder.
        seconds: time for one cell of a student.
    """
    _reach_scripts()
    root = Path(folder).resolve()
    config = Config()
    config.CourseDirectory.root = str(root)
    config.Execute.timeout = seconds
    config.Execute.interrupt_on_timeout = True
    config.FairExecute.course_seed = read_secret(root)
    config.Autograde.autograde_preprocessors = [
        FairExecute,
        "nbconvert.preprocessors.ClearMetadataPreprocessor",
        *(
            f"nbgrader.preprocessors.{name}"
            for name in (
                "LimitOutput",
                "SaveAutoGrades",
                "AssignLatePenalties",
                "CheckCellMetadata",
            )
        ),
    ]
    return config


def _reach_scripts() -> None:
    """Put this environment's programs on the path: nbgrader calls alembic by its bare name, also
    where Python was called by its path."""
    scripts, path = sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)
    if scripts not in path.split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([scripts, path])


def directory(folder: Path, config: Config, **names: str) -> CourseDirectory:
    """nbgrader's view of a course folder, for one assignment and perhaps one student."""
    return CourseDirectory(config=config, root=str(folder.resolve()), **names)


def release_file(folder: Path, chapter: str) -> Path:
    """The student's version of an assignment."""
    return folder / "release" / chapter / f"{chapter}.ipynb"


def made(folder: Path) -> list[str]:
    """The chapters of which a course folder has assignments."""
    return sorted(
        file.stem for file in folder.glob("release/*/*.ipynb") if file.stem == file.parent.name
    )


def released(folder: Path, chapter: str) -> NotebookNode:
    """The student's version of an assignment, as it was made."""
    return nbformat.read(release_file(folder, chapter), as_version=4)


def build(assignment: Assignment, folder: Path) -> Path:
    """Make the two versions of an assignment, by nbgrader's own converter, and enter it into the
    gradebook.

    Args:
        assignment: what to set; a teacher's private tests are in it already.
        folder: the course folder.

    Returns:
        The student's version.

    Raises:
        AssignmentError: the gradebook has graded work of an older version with other cells.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config_file = folder / "nbgrader_config.py"
    if not config_file.is_file():
        config_file.write_text(_CONFIG, encoding="utf-8")
    chapter = assignment.chapter
    made = notebook.instructor(assignment, notebook.pictures(chapter))
    notebook.write(made, folder / "source" / chapter / f"{chapter}.ipynb")
    config = settings(folder)
    try:
        GenerateAssignment(
            coursedir=directory(folder, config, assignment_id=chapter), config=config, force=True
        ).start()
    except NbGraderException as error:
        if submissions(folder, chapter):
            raise AssignmentError(
                f"{folder} has graded work on another version of {chapter}: its cells cannot change now. "
                "Make the new version in another folder: --course FOLDER"
            ) from error
        raise
    return release_file(folder, chapter)


def submissions(folder: Path, chapter: str) -> int:
    """How many submissions of an assignment the gradebook knows."""
    with gradebook(folder) as book:
        return len(book.assignment_submissions(chapter))


def gradebook(folder: Path) -> Gradebook:
    """The gradebook of a course folder; a context manager."""
    _reach_scripts()
    return Gradebook(f"sqlite:///{(folder / 'gradebook.db').resolve()}")


# --- a number for each student
# ----------------------------------------------------------------------------------------------------


def read_secret(folder: Path) -> str:
    """The secret of a course from which each student's number follows; empty where every student
    has the same number."""
    file = folder / SECRET
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""


def seed_of(secret: str, student: str) -> int:
    """A student's own SEED: the same on every machine for the same secret and name, and of no use
    to whoever lacks the secret."""
    name = unicodedata.normalize("NFC", student).strip()
    return int.from_bytes(hashlib.sha256(f"{secret}\n{name}".encode()).digest()[:8]) % LARGEST_SEED


def release_to(students: Iterable[str], folder: Path, chapter: str) -> list[Path]:
    """The student's version once for each student, each with another SEED.

    Args:
        students: names as they will stand on what is handed in.
        folder: the course folder; the secret is made there where it is missing.
        chapter: an assignment that was made in the folder.

    Returns:
        The notebooks, ``release-by-student/<student>/<chapter>/<chapter>.ipynb``.

    Raises:
        AssignmentError: the list is empty or names somebody twice or in a way that no folder can be
            called.
    """
    names = [unicodedata.normalize("NFC", name).strip() for name in students]
    names = [name for name in names if name]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice or any(character in name for name in names for character in '/\\:*?"<>|'):
        raise AssignmentError(
            "the list of students is empty" if not names
            else f"the list of students has {', '.join(twice)} twice" if twice
            else "a student's name has one of the characters / \\ : * ? \" < > |, which no folder can be called"
        )  # fmt: skip
    if not (secret := read_secret(folder)):
        secret = secrets.token_hex(16)
        (folder / SECRET).write_text(secret + "\n", encoding="utf-8")
    common = released(folder, chapter)
    return [
        notebook.write(
            notebook.personal(common, name, seed_of(secret, name)), folder / PERSONAL / name / chapter / f"{chapter}.ipynb"
        )
        for name in names
    ]  # fmt: skip
