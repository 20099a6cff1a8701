"""What was handed in: whose it is, which assignment it answers, and how it becomes a notebook that
nbgrader can grade."""

import contextlib
import copy
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_raw_cell

from support.classroom import notebook, roster, seeds
from support.classroom.cells import PARAMETERS, AssignmentError
from support.classroom.roster import Person

CSV = "grades.csv"
_UNUSUAL = {
    "os", "subprocess", "socket", "ctypes", "inspect", "gc", "builtins", "importlib", "exec",
    "eval", "get_ipython", "ast_transformers", "urllib", "pickle",
}  # fmt: skip
_MOST = 2e9  # bytes that a zip file may hold
# "Anna Example_12345_assignsubmission_file", and "exampleanna_LATE_12345_67890_notebook".
_MOODLE = re.compile(r"(?P<name>.+?)_(?P<number>\d+)_assignsubmission_(file|onlinetext)_?")
_CANVAS = re.compile(r"(?P<name>[^_]+)(_late)?_(?P<number>\d+)_\d+_.*", re.I)
_SKIPPED = re.compile(r"\.|__MACOSX$|Thumbs\.db$|desktop\.ini$")
_MAKERS = {"code": new_code_cell, "markdown": new_markdown_cell}
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
        also: names and numbers that a learning platform put beside the name.
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
    also: tuple[str, ...] = ()

    @property
    def total(self) -> float | None:
        """All points; None if it could not be graded."""
        return sum(self.scores.values()) if self.scores else None

    def noted(self, *notes: str) -> "Submission":
        """With more notes."""
        return replace(self, notes=(*self.notes, *notes))


@contextlib.contextmanager
def opened(place: Path) -> Iterator[Path]:
    """The folder of what was handed in: a course folder's ``submitted``, a folder, or a zip file,
    unpacked. Zip files in it are unpacked where they lie in a copy.

    Raises:
        AssignmentError: it is neither, or the zip cannot be unpacked.
    """
    if place.is_dir():
        folder = place / "submitted" if (place / "submitted").is_dir() else place
        if not any(file.suffix.lower() == ".zip" for file in folder.rglob("*")):
            yield folder
            return
    elif not zipfile.is_zipfile(place):
        raise AssignmentError(f"{place} is not a folder, and no zip file of one")
    with tempfile.TemporaryDirectory(prefix="assign-zip-") as temporary:
        target = Path(temporary) / "handed-in"
        if place.is_dir():
            shutil.copytree(folder, target)
        else:
            _unpack(place, target)
        for inner in sorted(target.rglob("*")):
            if inner.suffix.lower() == ".zip" and zipfile.is_zipfile(inner):
                _unpack(inner, inner.with_suffix(""))
                inner.unlink()
        yield target


def _unpack(file: Path, target: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        if sum(each.file_size for each in archive.infolist()) > _MOST:
            raise AssignmentError(f"{file.name} holds more than {_MOST / 1e9:g} GB")
        archive.extractall(target)  # which keeps names within the folder
        for each in archive.infolist():
            made = target / each.filename
            if made.is_file():
                at = time.mktime((*each.date_time, 0, 0, -1))
                os.utime(made, (at, at))


def found(folder: Path, people: Sequence[Person] = ()) -> list[Submission]:
    """Everything in a folder: each notebook below it with the student it is of, by the name that
    the class list has, the number of the chapter that it answers and an id for nbgrader that nobody
    else has; and an entry for whatever else lies there."""
    return list(_identified([_named(_about(each), people) for each in _entries(folder)]))


def _entries(folder: Path) -> Iterator[Submission]:
    for entry in sorted(folder.iterdir(), key=lambda path: _name(path.name)):
        if _SKIPPED.match(entry.name) or entry.name == CSV:
            continue
        if entry.is_dir():
            student, also = _whose(entry.name)
            below = [file for file in sorted(entry.rglob("*")) if file.is_file()]
            files = [f for f in below if not any(map(_SKIPPED.match, f.relative_to(entry).parts))]
            notebooks = [file for file in files if file.suffix.lower() == ".ipynb"]
            yield from (Submission(student, file, also=also) for file in notebooks)
            if not notebooks:
                holds = f"only {', '.join(file.name for file in files[:5])}" if files else "nothing"
                note = f"no notebook: the folder holds {holds}"
                yield Submission(student, None, notes=(note,), also=also)
        elif entry.suffix.lower() == ".ipynb":
            student, also = _whose(entry.stem)
            without_chapter = re.sub(r"[ _.-]*\b\d\d_[a-z0-9_]+$", "", student)
            yield Submission(_name(without_chapter) or student, entry, also=also)
        else:
            yield Submission(_name(entry.stem), entry, notes=(f"{entry.name} is not a notebook",))


def _whose(name: str) -> tuple[str, tuple[str, ...]]:
    """The student that a folder or file is of, and the platform's number of that student."""
    found = _MOODLE.fullmatch(name) or _CANVAS.fullmatch(name)
    return (_name(found["name"]), (found["number"],)) if found else (_name(name), ())


def _name(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip(" _-")


def _about(submission: Submission) -> Submission:
    """With the number of the chapter that it says it answers, or with why it cannot be read."""
    if submission.notes or submission.file is None:
        return submission
    try:
        cells = read(submission.file).cells
    except Exception as error:  # whatever one file holds, the others are graded
        where = f"{submission.file.name} cannot be read as a notebook"
        return submission.noted(f"not graded: {where}: {line(error)}")
    numbers = [name.partition("-")[0] for cell in cells if (name := notebook.grade_id(cell))]
    if not numbers:
        return submission.noted("not graded: it has no cell of an assignment")
    return replace(submission, chapter=max(numbers, key=numbers.count))


def _named(submission: Submission, people: Sequence[Person]) -> Submission:
    if not people:
        return submission
    person = roster.match(people, *submission.also, submission.student)
    if person is None:
        return submission.noted("not on the class list")
    return replace(submission, student=person.name)


def _identified(submissions: list[Submission]) -> Iterator[Submission]:
    readable = [each for each in submissions if each.chapter]
    newest = sorted(readable, key=lambda each: (-each.file.stat().st_mtime, each.file.as_posix()))
    for each in submissions:
        if not each.chapter:
            yield each
            continue
        what = (each.student, each.chapter)
        same = [other for other in newest if (other.student, other.chapter) == what]
        place, identity = same.index(each), _safe(each.student)
        if len(same) > 1:
            which = f"number {place + 1} from the newest" if place else "the newest"
            each = each.noted(f"one of {len(same)} submissions, all graded: {which}")
        yield replace(each, identity=f"{identity} ({place + 1})" if place else identity)


def _safe(student: str) -> str:
    safe = _UNSAFE.sub("_", student).strip() or "_"
    return safe if safe == student else f"{safe}-{hashlib.sha256(student.encode()).hexdigest()[:6]}"


def read(file: Path) -> NotebookNode:
    """A notebook that somebody handed in, perhaps with damaged cells.

    Raises:
        ValueError and other errors of reading: it is no notebook at all.
    """
    text = file.read_text(encoding="utf-8-sig")
    if not text.strip():
        raise ValueError("the file is empty")
    given = json.loads(text)
    if not isinstance(given, dict) or not isinstance(given.get("nbformat"), int):
        raise ValueError("it is not a notebook")
    # Not nbformat's own reader, which refuses a whole notebook for one damaged cell; older formats
    # it converts.
    newest = given["nbformat"] == 4
    found = nbformat.from_dict(given) if newest else nbformat.reads(text, as_version=4)
    cells = found.get("cells")
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise ValueError("it has no list of cells")
    return found


def line(error: Exception) -> str:
    """What an error says, in one line."""
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | nbformat.reader.NotJSONError):
        return "it is not JSON text"
    return " ".join(str(error).split())[:160] or type(error).__name__


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
    cells, notes, places = [], [], {}
    for position, cell in enumerate(submitted.cells):
        identity, source = notebook.grade_id(cell), _source(cell)
        original = wanted.get(identity) if last[identity] == position else None
        if original is None:
            make = _MAKERS.get(str(cell.get("cell_type")), new_raw_cell)  # the student's own
            cells.append(make(source))
            continue
        kept = places[identity] = copy.deepcopy(original)
        cells.append(kept)
        if not original.metadata.nbgrader["locked"]:
            kept["source"] = source
        elif _unseeded(identity, source) != _unseeded(identity, original.source):
            notes.append(f"{identity} was edited, and restored")
    position = 0
    for identity, original in wanted.items():
        if identity not in places:
            notes.append(f"{identity} was deleted, and put back")
            places[identity] = copy.deepcopy(original)
            cells.insert(position, places[identity])
        position = 1 + next(n for n, cell in enumerate(cells) if cell is places[identity])
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    given, metadata = submitted.get("metadata"), copy.deepcopy(release.metadata)
    whose = given.get("assignment") if isinstance(given, dict) else None
    if isinstance(whose, dict) and isinstance(whose.get("student"), str):
        metadata["assignment"]["student"] = whose["student"]
    return new_notebook(cells=cells, metadata=metadata), notes


def unusual(submitted: NotebookNode) -> list[str]:
    """What the student's own code uses that no answer needs: names of modules and functions by
    which a cheat would have to go."""
    words = set()
    for cell in submitted.cells:
        if cell.get("cell_type") == "code" and not notebook.marks(cell).get("locked"):
            words |= set(re.findall(r"\b[A-Za-z_]+\b", _source(cell)))
    return sorted(words & _UNUSUAL)


def _source(cell: NotebookNode) -> str:
    source = cell.get("source", "")
    return "".join(map(str, source)) if isinstance(source, list) else str(source)


def _unseeded(identity: str, source: str) -> str:
    """A cell's code; of the parameters cell without its number, which may be a student's own."""
    own = identity.endswith(f"-{PARAMETERS}")
    return (seeds.with_seed(source, 0) if own else source).strip()
