"""Submissions go in; nbgrader's gradebook, a feedback page for each student and ``grades.csv`` come
out, with a line for everybody."""

import copy
import functools
import hashlib
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.converters import Autograde, GenerateFeedback
from nbgrader.utils import parse_utc
from traitlets.config import Config

from support.book import kernel_process
from support.classroom import course, grade_table, judge, notebook, seeds, submissions
from support.classroom.cells import AssignmentError
from support.classroom.roster import Person
from support.classroom.submissions import Submission

EXCHANGED = ("timestamp.txt", "submission_secret.txt")  # which nbgrader's exchange leaves
MENDED = "mended"
NOTHING = "handed in nothing"


@dataclass(frozen=True)
class _Course:
    """A course folder as grading needs it: all its assignments, and those that are graded."""

    folder: Path
    config: Config
    released: Mapping[str, NotebookNode]
    known: Sequence[str]


def grade(
    folder: Path,
    course_folder: Path,
    *,
    chapter: str = "",
    due: str = "",
    seconds: float = judge.SECONDS,
    people: Sequence[Person] = (),
    jobs: int = 1,
    tell: Callable[[Submission], None] = lambda _: None,
) -> list[Submission]:
    """Grade everything in a folder, and enter each into ``grades.csv`` as soon as it is graded.

    What is in the gradebook already, as it was handed in and with the same tests, is not executed
    again: a grading that was interrupted goes on.

    Args:
        folder: a notebook or a folder for each student, a platform's zip of either, or a course
            folder with ``submitted/``.
        course_folder: where the assignments were made; the gradebook and the feedback are there
            too.
        chapter: grade this assignment only; by default each notebook is graded as what it is.
        due: when it was due, such as ``"2026-03-01 12:00 UTC"``; compared with the
            ``timestamp.txt`` that nbgrader's exchange leaves.
        seconds: time for one cell.
        people: the class; names on submissions become theirs, and whoever handed in nothing has a
            line.
        jobs: how many submissions are executed at a time.
        tell: called with each when it is done.

    Returns:
        One entry for each notebook, and one for each student and file of which nothing could be
        graded.

    Raises:
        AssignmentError: no such folder, nothing in it, no assignment was made, or a date that
            cannot be read.
    """
    released = {name: course.released(course_folder, name) for name in course.made(course_folder)}
    known = [chapter] if chapter else list(released)
    if not known or not released.keys() >= set(known):
        command = f"python -m support assign build {chapter}".rstrip()
        raise AssignmentError(f"{course_folder} has no assignment {chapter or 'at all'}: {command}")
    config = course.settings(course_folder, seconds)
    here = _Course(course_folder, config, released, known)
    with submissions.opened(folder) as handed_in:
        if due:
            _set_due(course_folder, known, due)
        found = submissions.found(handed_in, people)
        if not found:
            raise AssignmentError(
                f"{folder} is empty: it should hold a notebook or a folder for each student"
            )
        for number, each in _graded(found, here, jobs):
            found[number] = each
            grade_table.enter([each], course_folder, handed_in)
            tell(each)
        there, chapter = {each.student for each in found}, known[0] if len(known) == 1 else ""
        names = [each.name for each in people if each.name not in there]
        absent = [Submission(name, None, chapter, notes=(NOTHING,)) for name in names]
        grade_table.enter(absent, course_folder, handed_in)
    return [*found, *absent]


def _graded(found: list[Submission], here: _Course, jobs: int) -> Iterator[tuple[int, Submission]]:
    """Each submission with its number, as soon as it is graded."""
    waiting = []
    for number, each in enumerate(found):
        each, task = _prepared(each, here)
        if task is None:
            yield number, each
        else:
            waiting.append((number, each, functools.partial(_executed, *task)))
    if jobs <= 1:
        for number, each, execute in waiting:
            yield number, _entered(each, here, execute)
        return
    # The environment of the first process is no concern of the others'.
    with ProcessPoolExecutor(jobs, get_context("spawn"), kernel_process.end_with_parent) as pool:
        futures = {pool.submit(execute): (number, each) for number, each, execute in waiting}
        try:
            for future in as_completed(futures):
                number, each = futures[future]
                yield number, _entered(each, here, future.result)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _prepared(submission: Submission, here: _Course) -> tuple[Submission, tuple | None]:
    """A submission put where nbgrader is told to look for it, and how it is to be executed; nothing
    if it cannot be graded, or was graded before."""
    if not submission.identity:
        return submission, None
    released = here.released
    chapter = next((name for name in released if name.partition("_")[0] == submission.chapter), "")
    submission = replace(submission, chapter=chapter)
    if not chapter:
        why = "not graded: it has no cell of an assignment that was made here"
        return submission.noted(why), None
    expected = submission.file.parent.name
    if chapter not in here.known or (expected in released and expected != chapter):
        other = f"{chapter}, not of {here.known[0] if chapter not in here.known else expected}"
        return submission.noted(f"not graded: a notebook of another assignment, {other}"), None
    try:
        mended, notes = submissions.mend(submissions.read(submission.file), released[chapter])
        if used := submissions.unusual(mended):
            notes.append(f"uses {', '.join(used)}")
        submission = submission.noted(*notes)
        place = course.file_of(here.folder / MENDED, submission.identity, chapter)
        notebook.write(mended, place)
        for name in EXCHANGED:
            place.with_name(name).unlink(missing_ok=True)
            if (left := submission.file.with_name(name)).is_file():
                shutil.copy2(left, place.with_name(name))
        instructor, asked = course.file_of(here.folder, "source", chapter), here.config.FairExecute
        seed = seeds.seed_of(asked.course_seed, submission.student)
        task = (place, instructor, seed, asked.seconds)
        if _digest(*task) != _known_digest(submission, here):
            return submission, task
        return _scored(submission, here.folder), None
    except Exception as error:  # whatever one submission does, the others are graded
        return _failed(submission, error), None


def _digest(place: Path, instructor: Path, seed: int | None, seconds: float) -> str:
    said = f"{place.read_text(encoding='utf-8')}{instructor.read_text(encoding='utf-8')}"
    return hashlib.sha256(f"{said}{seed}{seconds}".encode()).hexdigest()


def _known_digest(submission: Submission, here: _Course) -> str:
    """The digest of what was graded last under this name; empty if nothing was, or if its page of
    feedback is missing."""
    file = course.file_of(here.folder / "autograded", submission.identity, submission.chapter)
    if not file.is_file() or not _page(submission, here.folder).is_file():
        return ""
    metadata = nbformat.read(file, as_version=4).metadata
    return metadata.get(judge.JUDGED, {}).get("digest", "")


def _page(submission: Submission, folder: Path) -> Path:
    made = course.file_of(folder / "feedback", submission.identity, submission.chapter)
    return made.with_suffix(".html")


def _executed(place: Path, instructor: Path, seed: int | None, seconds: float) -> NotebookNode:
    """A submission with the outputs of its cells."""
    made, tests = (nbformat.read(file, as_version=4) for file in (place, instructor))
    judge.judge(made, tests, seed, seconds)
    made.metadata[judge.JUDGED]["digest"] = _digest(place, instructor, seed, seconds)
    return made


def _entered(
    submission: Submission, here: _Course, execute: Callable[[], NotebookNode]
) -> Submission:
    """With its points, which nbgrader has entered into the gradebook."""
    try:
        config = copy.deepcopy(here.config)
        config.CourseDirectory.submitted_directory = MENDED
        config.FairExecute.judged = {submission.identity: execute()}
        names = {"assignment_id": submission.chapter, "student_id": submission.identity}
        # SQLAlchemy warns about nbgrader's own sessions.
        with warnings.catch_warnings(action="ignore"):
            for converter in (Autograde, GenerateFeedback):
                course.convert(converter, here.folder, config, **names)
        return _scored(submission, here.folder)
    except Exception as error:  # whatever one submission does, the others are graded
        return _failed(submission, error)


def _failed(submission: Submission, error: Exception) -> Submission:
    why = f"{type(error).__name__}: {submissions.line(error)}"
    return submission.noted(f"not graded: {why}")


def _scored(submission: Submission, folder: Path) -> Submission:
    """With the points in the gradebook, which is what counts: nbgrader's exit status says
    nothing."""
    chapter, identity = submission.chapter, submission.identity
    file = course.file_of(folder / "autograded", identity, chapter)
    autograded = nbformat.read(file, as_version=4)
    found = course.points(folder, chapter, identity)[identity]
    notes = [*autograded.metadata[judge.JUDGED]["notes"], *found.notes]
    owner = autograded.metadata.get("assignment", {}).get("student")
    if owner and owner != submission.student:
        notes.append(f"the notebook was made for {owner}")
    told = {"scores": found.scores, "most": found.most, "feedback": _page(submission, folder)}
    return replace(submission, **told).noted(*notes)


def _set_due(folder: Path, chapters: Sequence[str], due: str) -> None:
    try:
        date = parse_utc(due)
    except (ValueError, OverflowError) as error:
        raise AssignmentError(f"{due!r} is not a date such as 2026-03-01 12:00 UTC") from error
    with course.gradebook(folder) as book:
        for chapter in chapters:
            book.update_or_create_assignment(chapter, duedate=date)
