"""A folder of submissions goes in; grades.csv, nbgrader's gradebook and its feedback pages come
out, with a line for everybody."""

import copy
import csv
import hashlib
import json
import re
import shutil
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_raw_cell
from nbgrader.api import MissingEntry
from nbgrader.converters import Autograde, GenerateFeedback
from nbgrader.utils import parse_utc
from traitlets.config import Config

from support.classroom import course, fair_execute, notebook
from support.classroom.exercises import PARAMETERS, AssignmentError, with_seed

CSV = "grades.csv"
TIMESTAMP = "timestamp.txt"
MENDED = "mended"
_SKIPPED = re.compile(r"\.|__MACOSX$|Thumbs\.db$|desktop\.ini$")
_UNSAFE = re.compile(r"[^\w .,@()'-]")  # nbgrader reads students' names as file patterns


@dataclass(frozen=True)
class Submission:
    """One thing that was handed in, and what became of it.

    Attributes:
        student: name as on the folder or file.
        file: what was handed in; None where there is nothing.
        chapter: the assignment that it answers; empty where that is not known.
        identity: nbgrader's id of the student; differs from the name where that has special
            characters, or was used before.
        notes: what the teacher should know.
        scores: points by exercise, empty if it could not be graded.
        most: the highest score.
        feedback: the page for the student.
    """

    student: str
    file: Path | None
    chapter: str = ""
    identity: str = ""
    notes: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    most: float | None = None
    feedback: Path | None = None

    @property
    def total(self) -> float | None:
        """All points; None if it could not be graded."""
        return sum(self.scores.values()) if self.scores else None

    def noted(self, *notes: str) -> "Submission":
        """With more notes."""
        return replace(self, notes=(*self.notes, *notes))


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
    known = [chapter] if chapter else course.made(course_folder)
    if not known or not all(course.release_file(course_folder, name).is_file() for name in known):
        raise AssignmentError(
            f"{course_folder} has no assignment {chapter or 'at all'}: python -m support assign build {chapter}".rstrip()
        )
    released = {name: course.released(course_folder, name) for name in course.made(course_folder)}
    config = course.settings(course_folder, seconds)
    for name in known if due else ():
        _set_due(course_folder, name, due)
    found = list(_identified(_found(handed_in)))
    if not found:
        raise AssignmentError(
            f"{folder} is empty: it should hold a notebook or a folder for each student"
        )
    return [_graded(each, released, known, course_folder, config, feedback) for each in found]


# --- what was handed in
# -----------------------------------------------------------------------------------------------------------


def _found(folder: Path) -> Iterator[Submission]:
    """Every notebook below a folder with the student it is of, and an entry for whatever else lies
    there."""
    for entry in sorted(folder.iterdir(), key=lambda path: unicodedata.normalize("NFC", path.name)):
        if _SKIPPED.match(entry.name):
            continue
        if entry.is_dir():
            student = _name(entry.name)
            files = [
                file
                for file in sorted(entry.rglob("*"))
                if file.is_file() and not _hidden(file.relative_to(entry))
            ]
            notebooks = [file for file in files if file.suffix == ".ipynb"]
            yield from (Submission(student, file) for file in notebooks)
            if not notebooks:
                holds = f"only {', '.join(file.name for file in files[:5])}" if files else "nothing"
                yield Submission(student, None, notes=(f"no notebook: the folder holds {holds}",))
        elif entry.suffix == ".ipynb":
            student = _name(re.sub(r"[ _.-]*\b\d\d_[a-z0-9_]+$", "", entry.stem)) or _name(
                entry.stem
            )
            yield Submission(student, entry)
        elif entry.name != CSV:
            yield Submission(_name(entry.stem), entry, notes=(f"{entry.name} is not a notebook",))


def _hidden(place: Path) -> bool:
    return any(_SKIPPED.match(part) for part in place.parts)


def _name(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip(" _-")


def _identified(found: Iterable[Submission]) -> Iterator[Submission]:
    """With the assignment that each notebook says it answers, and an id for nbgrader that nobody
    else has."""
    submissions = [_about(each) for each in found]
    for each in submissions:
        if each.notes or not each.file:
            yield each
            continue
        what = (each.student, each.chapter)
        same = [
            other
            for other in submissions
            if (other.student, other.chapter) == what and other.file and not other.notes
        ]
        newest_first = sorted(
            same, key=lambda other: (-other.file.stat().st_mtime, other.file.as_posix())
        )
        place = newest_first.index(each)
        notes = (
            f"one of {len(same)} submissions, all graded: {'the newest' if not place else f'number {place + 1} from the newest'}",
        )
        identity = _safe(each.student) + (f" ({place + 1})" if place else "")
        yield replace(each, identity=identity, notes=notes if len(same) > 1 else ())


def _safe(student: str) -> str:
    safe = _UNSAFE.sub("_", student).strip() or "_"
    return safe if safe == student else f"{safe}-{hashlib.sha256(student.encode()).hexdigest()[:6]}"


def _about(submission: Submission) -> Submission:
    """With the assignment that it says it answers, or with why it cannot be read."""
    if submission.notes or submission.file is None:
        return submission
    try:
        cells = _read(submission.file).cells
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        nbformat.ValidationError,
        nbformat.reader.NotJSONError,
    ) as error:
        return submission.noted(
            f"not graded: {submission.file.name} cannot be read as a notebook: {_line(error)}"
        )
    numbers = [
        notebook.grade_id(cell).partition("-")[0] for cell in cells if notebook.grade_id(cell)
    ]
    return replace(submission, chapter=max(set(numbers), key=numbers.count) if numbers else "")


def _read(file: Path) -> NotebookNode:
    raw = file.read_bytes()
    if not raw.strip():
        raise ValueError("the file is empty")
    text = raw.decode("utf-8-sig")
    given = json.loads(text)
    if not isinstance(given, dict) or not isinstance(given.get("nbformat"), int):
        raise ValueError("it is not a notebook")
    # Not nbformat's own reader, which refuses a whole notebook for one damaged cell; older formats
    # it converts.
    found = (
        nbformat.from_dict(given) if given["nbformat"] == 4 else nbformat.reads(text, as_version=4)
    )
    if not isinstance(found.get("cells"), list) or not all(
        isinstance(cell, dict) for cell in found["cells"]
    ):
        raise ValueError("it has no list of cells")
    return found


def _line(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | nbformat.reader.NotJSONError):
        return "it is not JSON text"
    return " ".join(str(error).split())[:160] or type(error).__name__


# --- one submission ---------------------------------------------------------------------------------------------------------------


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
        other = known[0] if chapter not in known else expected
        return submission.noted(
            f"not graded: a notebook of another assignment, {chapter}, not of {other}"
        )
    try:
        mended, notes = mend(_read(submission.file), released[chapter])
        submission = submission.noted(*notes)
        _submit(mended, submission, folder)
        _autograde(submission, folder, config, feedback)
        return _scored(submission, folder)
    except Exception as error:  # whatever one submission does, the others are graded
        return submission.noted(f"not graded: {type(error).__name__}: {_line(error)}")


def mend(submitted: NotebookNode, release: NotebookNode) -> tuple[NotebookNode, list[str]]:
    """A submission as nbgrader needs it: each cell of the assignment once, with the assignment's
    metadata, and the student's own cells.

    Code of the student stays as it is. Cells that were deleted come back, as they were handed out;
    tags, which could keep a test from being executed, go; a test that was edited is restored by
    nbgrader afterwards.

    Returns:
        The notebook, and notes on what was done.
    """
    wanted = {notebook.grade_id(cell): cell for cell in release.cells}
    last = {notebook.grade_id(cell): position for position, cell in enumerate(submitted.cells)}
    cells, notes = [], []
    for position, cell in enumerate(submitted.cells):
        identity = notebook.grade_id(cell)
        original = wanted.get(identity) if last.get(identity) == position else None
        source = cell.get("source", "")
        source = "".join(map(str, source)) if isinstance(source, list) else str(source)
        if original is None:
            cells.append(_own(cell.get("cell_type"), source))
        else:
            kept = copy.deepcopy(original)
            if not original.metadata.nbgrader["locked"]:
                kept["source"] = source
            elif source.strip() != original.source.strip() and not _is_personal(
                identity, source, original
            ):
                notes.append(f"{identity} was edited, and restored")
            cells.append(kept)
    places = {notebook.grade_id(cell): cell for cell in cells}
    before = None
    for identity, original in wanted.items():
        if identity not in places:
            notes.append(f"{identity} was deleted, and put back")
            places[identity] = copy.deepcopy(original)
            position = next((number for number, cell in enumerate(cells, 1) if cell is before), 0)
            cells.insert(position, places[identity])
        before = places[identity]
    given, metadata = submitted.get("metadata"), copy.deepcopy(release.metadata)
    whose = given.get("assignment") if isinstance(given, dict) else None
    if isinstance(whose, dict) and isinstance(whose.get("student"), str):
        metadata["assignment"]["student"] = whose["student"]
    return _numbered(new_notebook(cells=cells, metadata=metadata)), notes


def _is_personal(identity: str, source: str, original: NotebookNode) -> bool:
    """Whether a cell is the parameters cell with another number, as a student's own version has
    it."""
    number = re.search(r"^SEED\s*=\s*(\d+)", source, re.M)
    if not number or not identity.endswith(f"-{PARAMETERS}"):
        return False
    return with_seed(original.source, int(number[1])).strip() == source.strip()


def _own(kind: object, source: str) -> NotebookNode:
    return {"code": new_code_cell, "markdown": new_markdown_cell}.get(str(kind), new_raw_cell)(
        source
    )


def _numbered(found: NotebookNode) -> NotebookNode:
    for number, cell in enumerate(found.cells):
        cell["id"] = f"cell-{number}"
    return found


def _submit(mended: NotebookNode, submission: Submission, folder: Path) -> None:
    """Put a notebook where nbgrader is told to look for it; what was handed in stays as it is."""
    target = notebook.write(
        mended,
        folder / MENDED / submission.identity / submission.chapter / f"{submission.chapter}.ipynb",
    )
    stamp = submission.file.parent / TIMESTAMP
    (target.parent / TIMESTAMP).unlink(missing_ok=True)
    if stamp.is_file():
        shutil.copy2(stamp, target.parent / TIMESTAMP)


def _autograde(submission: Submission, folder: Path, config: Config, feedback: bool) -> None:
    config = copy.deepcopy(config)
    config.CourseDirectory.submitted_directory = MENDED
    if secret := course.read_secret(folder):
        config.FairExecute.seeds = {submission.identity: course.seed_of(secret, submission.student)}
    names = {"assignment_id": submission.chapter, "student_id": submission.identity}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of SQLAlchemy about nbgrader's own sessions
        for converter in (Autograde, GenerateFeedback) if feedback else (Autograde,):
            converter(
                coursedir=course.directory(folder, config, **names), config=config, force=True
            ).start()


def _scored(submission: Submission, folder: Path) -> Submission:
    """With the points in the gradebook, which is what counts: nbgrader's exit status says
    nothing."""
    chapter, scores = submission.chapter, {}
    with course.gradebook(folder) as book:
        graded = book.find_submission_notebook(chapter, chapter, submission.identity)
        for one in graded.grades:
            name = notebook.exercise_of(one.cell.name)
            scores[name] = scores.get(name, 0.0) + one.score
        most = graded.max_score
        late = book.find_submission(chapter, submission.identity).total_seconds_late
    page = folder / "feedback" / submission.identity / chapter / f"{chapter}.html"
    autograded = nbformat.read(
        folder / "autograded" / submission.identity / chapter / f"{chapter}.ipynb", as_version=4
    )
    notes = list(_trouble(autograded))
    if late:
        notes.append(f"late by {late / 3600:.1f} hours")
    owner = autograded.metadata.get("assignment", {}).get("student")
    if owner and owner != submission.student:
        notes.append(f"the notebook was made for {owner}")
    order = [notebook.exercise_of(notebook.grade_id(cell)) for cell in autograded.cells]
    scores = {name: scores[name] for name in dict.fromkeys(order) if name in scores}
    return replace(
        submission, scores=scores, most=most, feedback=page if page.is_file() else None
    ).noted(*notes)


def _trouble(autograded: NotebookNode) -> Iterator[str]:
    """What kept cells of a submission from being judged."""
    for cell in autograded.cells:
        for output in cell.get("outputs", []):
            name = notebook.exercise_of(notebook.grade_id(cell)) or "a cell of the student's own"
            if output.get("ename") == fair_execute.TIMED_OUT:
                yield f"{name}: took too long"
            elif output.get("ename") == fair_execute.DIED:
                yield f"{name}: the kernel died"


def _set_due(folder: Path, chapter: str, due: str) -> None:
    try:
        date: datetime = parse_utc(due)
    except (ValueError, OverflowError) as error:
        raise AssignmentError(f"{due!r} is not a date such as 2026-03-01 12:00 UTC") from error
    with course.gradebook(folder) as book:
        try:
            book.update_or_create_assignment(chapter, duedate=date)
        except MissingEntry as error:
            raise AssignmentError(f"the gradebook has no assignment {chapter}") from error


# --- the table --------------------------------------------------------------------------------------------------------------------


def write_csv(found: list[Submission], file: Path) -> Path:
    """Write the grades, one line for each submission; a line without a total could not be graded,
    and its notes say why."""
    columns = list(dict.fromkeys((each.chapter, name) for each in found for name in each.scores))
    several = len({chapter for chapter, _ in columns}) > 1
    exercises = [f"{chapter}/{name}" if several else name for chapter, name in columns]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open(
        "w", newline="", encoding="utf-8-sig"
    ) as stream:  # with a mark, without which spreadsheets garble umlauts
        table = csv.writer(stream)
        table.writerow(
            ["student", "assignment", "total", "max", *exercises, "notes", "file", "feedback"]
        )
        for each in found:
            points = [
                _number(each.scores.get(name)) if each.chapter == chapter else ""
                for chapter, name in columns
            ]
            where = [str(path) if path else "" for path in (each.file, each.feedback)]
            table.writerow(
                [
                    each.student,
                    each.chapter,
                    _number(each.total),
                    _number(each.most),
                    *points,
                    "; ".join(each.notes),
                    *where,
                ]
            )
    return file


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
