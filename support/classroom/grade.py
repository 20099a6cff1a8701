"""A folder of submissions goes in; grades.csv, nbgrader's gradebook and its feedback pages come
out, with a line for everybody."""

import copy
import csv
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.converters import Autograde, GenerateFeedback
from nbgrader.utils import parse_utc
from traitlets.config import Config

from support.classroom import course, fair_execute, notebook, seeds, submissions
from support.classroom.cells import AssignmentError
from support.classroom.submissions import Submission

TIMESTAMP = "timestamp.txt"
MENDED = "mended"


def grade(
    folder: Path,
    course_folder: Path,
    *,
    chapter: str = "",
    due: str = "",
    seconds: int = course.SECONDS,
    feedback: bool = True,
) -> list[Submission]:
    """Grade everything in a folder.

    Args:
        folder: a notebook for each student, or a folder for each student, or a course folder with
            ``submitted/``.
        course_folder: where the assignments were made; the gradebook and the feedback are there
            too.
        chapter: grade this assignment only; by default each notebook is graded as what it is.
        due: when it was due, such as ``"2026-03-01 12:00 UTC"``; compared with the
            ``timestamp.txt`` that nbgrader's exchange leaves.
        seconds: time for one cell.
        feedback: also make the feedback pages.

    Returns:
        One entry for each notebook, and one for each student and file of which nothing could be
        graded.

    Raises:
        AssignmentError: no such folder, nothing in it, no assignment was made, or a date that
            cannot be read.
    """
    handed_in = folder / "submitted" if (folder / "submitted").is_dir() else folder
    if not handed_in.is_dir():
        raise AssignmentError(f"{folder} is not a folder")
    released = {name: course.released(course_folder, name) for name in course.made(course_folder)}
    known = [chapter] if chapter else list(released)
    if not known or not released.keys() >= set(known):
        command = f"python -m support assign build {chapter}".rstrip()
        raise AssignmentError(f"{course_folder} has no assignment {chapter or 'at all'}: {command}")
    config = course.settings(course_folder, seconds)
    for name in known if due else ():
        _set_due(course_folder, name, due)
    if not (found := submissions.found(handed_in)):
        raise AssignmentError(
            f"{folder} is empty: it should hold a notebook or a folder for each student"
        )
    return [_graded(each, released, known, course_folder, config, feedback) for each in found]


def _graded(
    submission: Submission,
    released: Mapping[str, NotebookNode],
    known: list[str],
    folder: Path,
    config: Config,
    feedback: bool,
) -> Submission:
    if not submission.identity:
        return submission
    chapter = next((name for name in released if name.partition("_")[0] == submission.chapter), "")
    submission = replace(submission, chapter=chapter)
    if not chapter:
        return submission.noted("not graded: it has no cell of an assignment that was made here")
    expected = submission.file.parent.name
    if chapter not in known or (expected in released and expected != chapter):
        other = f"{chapter}, not of {known[0] if chapter not in known else expected}"
        return submission.noted(f"not graded: a notebook of another assignment, {other}")
    try:
        mended, notes = submissions.mend(submissions.read(submission.file), released[chapter])
        submission = submission.noted(*notes)
        _submit(mended, submission, folder)
        _autograde(submission, folder, config, feedback)
        return _scored(submission, folder)
    except Exception as error:  # whatever one submission does, the others are graded
        why = f"{type(error).__name__}: {submissions.line(error)}"
        return submission.noted(f"not graded: {why}")


def _submit(mended: NotebookNode, submission: Submission, folder: Path) -> None:
    """Put a notebook where nbgrader is told to look for it; what was handed in stays as it is."""
    place = course.file_of(folder / MENDED, submission.identity, submission.chapter)
    target = notebook.write(mended, place).with_name(TIMESTAMP)
    stamp = submission.file.with_name(TIMESTAMP)
    target.unlink(missing_ok=True)
    if stamp.is_file():
        shutil.copy2(stamp, target)


def _autograde(submission: Submission, folder: Path, config: Config, feedback: bool) -> None:
    config = copy.deepcopy(config)
    config.CourseDirectory.submitted_directory = MENDED
    if secret := seeds.read_secret(folder):
        own = seeds.seed_of(secret, submission.student)
        config.FairExecute.own_seeds = {submission.identity: own}
    names = {"assignment_id": submission.chapter, "student_id": submission.identity}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of SQLAlchemy about nbgrader's own sessions
        for converter in (Autograde, GenerateFeedback) if feedback else (Autograde,):
            here = course.directory(folder, config, **names)
            converter(coursedir=here, config=config, force=True).start()


def _scored(submission: Submission, folder: Path) -> Submission:
    """With the points in the gradebook, which is what counts: nbgrader's exit status says
    nothing."""
    chapter, identity = submission.chapter, submission.identity
    file = course.file_of(folder / "autograded", identity, chapter)
    autograded = nbformat.read(file, as_version=4)
    page = course.file_of(folder / "feedback", identity, chapter).with_suffix(".html")
    names = [notebook.exercise_of(notebook.grade_id(cell)) for cell in autograded.cells]
    scores: dict[str, float] = dict.fromkeys(filter(None, names), 0.0)
    with course.gradebook(folder) as book:
        graded = book.find_submission_notebook(chapter, chapter, identity)
        for one in graded.grades:
            scores[notebook.exercise_of(one.cell.name)] += one.score
        most = graded.max_score
        late = book.find_submission(chapter, identity).total_seconds_late
    notes = list(autograded.metadata[fair_execute.JUDGED]["notes"])
    if late:
        notes.append(f"late by {late / 3600:.1f} hours")
    owner = autograded.metadata.get("assignment", {}).get("student")
    if owner and owner != submission.student:
        notes.append(f"the notebook was made for {owner}")
    shown = page if page.is_file() else None
    return replace(submission, scores=scores, most=most, feedback=shown).noted(*notes)


def _set_due(folder: Path, chapter: str, due: str) -> None:
    try:
        date: datetime = parse_utc(due)
    except (ValueError, OverflowError) as error:
        raise AssignmentError(f"{due!r} is not a date such as 2026-03-01 12:00 UTC") from error
    with course.gradebook(folder) as book:
        book.update_or_create_assignment(chapter, duedate=date)


def write_csv(found: list[Submission], folder: Path) -> Path:
    """Write ``grades.csv`` into a folder, one line for each submission; a line without a total
    could not be graded, and its notes say why."""
    file = folder / submissions.CSV
    columns = list(dict.fromkeys((each.chapter, name) for each in found for name in each.scores))
    several = len({chapter for chapter, _ in columns}) > 1
    names = ["/".join(column) if several else column[1] for column in columns]
    folder.mkdir(parents=True, exist_ok=True)
    # With a mark, without which spreadsheets garble umlauts.
    with file.open("w", newline="", encoding="utf-8-sig") as stream:
        table = csv.writer(stream)
        titles = ("student", "assignment", "total", "max", *names, "notes", "file", "feedback")
        table.writerow(titles)
        for each in found:
            own = {(each.chapter, name): score for name, score in each.scores.items()}
            numbers = [each.total, each.most, *map(own.get, columns)]
            points = ["" if value is None else f"{value:g}" for value in numbers]
            told = ["; ".join(each.notes), each.file or "", each.feedback or ""]
            table.writerow([_text(each.student), each.chapter, *points, *map(_text, told)])
    return file


def _text(words: object) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{words}" if str(words).startswith(("=", "+", "-", "@")) else str(words)
