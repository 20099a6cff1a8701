"""A course folder in nbgrader's layout: ``source/`` with the solutions, ``release/`` for the
students, the gradebook, the settings."""

import collections
import os
import secrets
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.converters import GenerateAssignment
from nbgrader.converters.base import BaseConverter, NbGraderException
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    LimitOutput,
    SaveAutoGrades,
)
from traitlets.config import Config

from support.classroom import exercises, feedback, judge, notebook, seeds, texts
from support.classroom.cells import AssignmentError
from support.classroom.exercises import Assignment
from support.classroom.roster import Person
from support.common import paths

BY_HAND, LATE = "to grade by hand", "hours late"
RELEASE, PERSONAL = "release", "release-by-student"


def default_folder() -> Path:
    """Where assignments are made unless another folder is named: ignored by git."""
    return paths.output() / "course"


def settings(folder: str | Path, seconds: float = judge.SECONDS) -> Config:
    """nbgrader's configuration for a course folder.

    Args:
        folder: the course folder.
        seconds: time for one cell of a student.
    """
    _reach_scripts()
    root, config = Path(folder).resolve(), Config()
    config.CourseDirectory.root = str(root)
    config.FairExecute.source = str(root / "source")
    config.FairExecute.seconds = seconds
    config.FairExecute.course_seed = seeds.read_secret(root)
    steps = (LimitOutput, SaveAutoGrades, AssignLatePenalties, CheckCellMetadata)
    config.Autograde.autograde_preprocessors = [judge.FairExecute, *steps]
    feedback.configure(config)
    return config


def _reach_scripts() -> None:
    """Put this environment's programs on the path: nbgrader calls alembic by its bare name, also
    where Python was called by its path."""
    scripts, path = sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)
    if scripts not in path.split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([scripts, path])


def convert(converter: type[BaseConverter], folder: Path, config: Config, **names: str) -> None:
    """Run one of nbgrader's converters on one assignment, perhaps of one student, whatever
    characters its path has: by itself nbgrader takes paths for file patterns."""

    class Exactly(converter):
        def init_notebooks(self) -> None:
            names = self.coursedir.assignment_id, self.coursedir.student_id
            folder = self._format_source(*names)
            self.notebooks, self.assignments = [], {folder: [f"{folder}/{names[0]}.ipynb"]}

    here = CourseDirectory(config=config, root=str(folder.resolve()), **names)
    Exactly(coursedir=here, config=config, force=True).start()


def file_of(folder: Path, step: str, chapter: str) -> Path:
    """Where nbgrader keeps an assignment at a step such as :data:`RELEASE`."""
    return folder / step / chapter / f"{chapter}.ipynb"


def made(folder: Path) -> list[str]:
    """The chapters of which a course folder has assignments."""
    files = folder.glob(f"{RELEASE}/*/*.ipynb")
    return sorted(file.stem for file in files if file.stem == file.parent.name)


def make_missing(chapters: Iterable[str], folder: Path) -> None:
    """Make those assignments from the book that a course folder lacks."""
    for chapter in chapters:
        if chapter not in made(folder):
            build(exercises.read(chapter), folder)


def released(folder: Path, chapter: str) -> NotebookNode:
    """The student's version of an assignment, as it was made."""
    return nbformat.read(file_of(folder, RELEASE, chapter), as_version=4)


def build(assignment: Assignment, folder: Path, derivation: int = 0) -> Path:
    """Make the two versions of an assignment, by nbgrader's own converter, and enter it into the
    gradebook.

    Args:
        assignment: what to set; a teacher's private tests are in it already.
        folder: the course folder.
        derivation: points of the derivation of each exercise, which you give by hand.

    Returns:
        The student's version.

    Raises:
        AssignmentError: the gradebook has graded work of an older version with other cells.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config_file, chapter = folder / "nbgrader_config.py", assignment.chapter
    if not config_file.is_file():
        config_file.write_text(texts.fill("nbgrader_config.py.j2") + "\n", encoding="utf-8")
    instructor = notebook.instructor(assignment, derivation)
    notebook.write(instructor, file_of(folder, "source", chapter))
    try:
        convert(GenerateAssignment, folder, settings(folder), assignment_id=chapter)
    except NbGraderException as error:
        with gradebook(folder) as book:
            if not book.assignment_submissions(chapter):
                raise
        raise AssignmentError(
            f"{folder} has graded work on another version of {chapter}: its cells cannot change "
            "now. Make the new version in another folder: --course FOLDER"
        ) from error
    return file_of(folder, RELEASE, chapter)


def gradebook(folder: Path) -> Gradebook:
    """The gradebook of a course folder; a context manager."""
    _reach_scripts()
    return Gradebook(f"sqlite:///{(folder / 'gradebook.db').resolve()}")


@dataclass(frozen=True)
class Points:
    """What a student has in the gradebook: points by exercise, those of its tests and the highest
    that these give, the highest score, and notes."""

    scores: Mapping[str, float]
    tested: Mapping[str, float]
    highest: Mapping[str, float]
    most: float
    notes: tuple[str, ...]


def points(folder: Path, chapter: str, identity: str = "") -> dict[str, Points]:
    """The points of an assignment by nbgrader's ids of students; of one, or of all."""
    found = {}
    with gradebook(folder) as book:
        if identity:
            graded = [book.find_submission_notebook(chapter, chapter, identity)]
        else:
            graded = book.notebook_submissions(chapter, chapter)
        for one in graded:
            scores, tested, highest = (collections.defaultdict(float) for _ in range(3))
            for part in one.grades:
                name = notebook.exercise_of(part.cell.name)
                scores[name] += part.score
                if part.cell.cell_type == "code":
                    tested[name] += part.score
                    highest[name] += part.max_score
            waiting = sum(part.needs_manual_grade and part.max_score > 0 for part in one.grades)
            late = one.assignment.total_seconds_late
            notes = [f"{late / 3600:.1f} {LATE}"] * bool(late)
            notes += [f"{waiting} {BY_HAND}"] * bool(waiting)
            found[one.student.id] = Points(scores, tested, highest, one.max_score, tuple(notes))
    return found


def release_to(people: Iterable[Person], folder: Path, chapter: str) -> list[Path]:
    """The student's version once for each student, each with another SEED.

    Args:
        people: the class; the secret is made in the course folder where it is missing.
        folder: the course folder.
        chapter: an assignment that was made in the folder.

    Returns:
        The notebooks, ``release-by-student/<student>/<chapter>/<chapter>.ipynb``.

    Raises:
        AssignmentError: somebody has a name that no folder can be called.
    """
    names = [each.name for each in people]
    if any(character in name for name in names for character in '/\\:*?"<>|'):
        raise AssignmentError(
            "a student's name has one of the characters / \\ : * ? \" < > |, which no folder can "
            "be called"
        )
    if not (secret := seeds.read_secret(folder)):
        secret = secrets.token_hex(16)
        (folder / seeds.SECRET).write_text(secret + "\n", encoding="utf-8")
    common = released(folder, chapter)
    return [
        notebook.write(
            notebook.personal(common, name, seeds.seed_of(secret, name)),
            file_of(folder / PERSONAL, name, chapter),
        )
        for name in names
    ]
