"""The work of a student, judged: the student's cells run in a process of their own
(:mod:`~support.classroom.sandbox`), the tests run here, and call the student's functions there.

So no test, no solution and no grade is ever in reach of a student's code, and what a function
returns has become a plain number or array before a test looks at it.
"""

import contextlib
import copy
import dataclasses
import functools
import io
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Dict, Float, Unicode

from support.classroom import exercises, notebook, seeds, wrong_answers
from support.classroom.cells import PARAMETERS
from support.classroom.sandbox import Student
from support.classroom.wire import Lost

SECONDS = 6.0  # for a cell of a student
GIVENS_SECONDS = 120  # for the cells that the teacher wrote
NOT_RUN = "not run"
JUDGED = "judged"  # where a notebook's metadata say how it was judged
VERDICT = "verdict"  # where those of a graded cell do
_SHOWN = 2000  # characters of what a test says


@dataclass(frozen=True)
class Outcome:
    """What one cell of tests found.

    Attributes:
        error: the name of the error that ended it; empty if it passed.
        said: what the error says.
        line: where in the cell.
        answers: what the student's functions returned, in order.
    """

    error: str = ""
    said: str = ""
    line: int = 0
    answers: tuple = ()


@dataclass
class Report:
    """How an assignment was judged: by exercise, the seconds that it took, why it was lost if it
    was, and the known mistake that it looks like; notes, and what it was judged from."""

    seconds: dict[str, float] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    mistakes: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    digest: str = ""


class Tests:
    """The tests of an assignment.

    Args:
        instructor: the instructor's version.
        seed: a student's own number; None for that of the version.
    """

    def __init__(self, instructor: NotebookNode, seed: int | None = None) -> None:
        self.chapter = instructor.metadata["assignment"]["chapter"]
        self.given: dict[str, str] = {}
        self.graded: dict[str, str] = {}
        for cell in instructor.cells:
            identity, marks = notebook.grade_id(cell), notebook.marks(cell)
            if cell.cell_type != "code" or marks.get("solution"):
                continue
            own = seed is not None and identity.endswith(f"-{PARAMETERS}")
            source = seeds.with_seed(cell.source, seed) if own else cell.source
            (self.graded if marks.get("grade") else self.given)[identity] = source
        self.asked = exercises.undefined([*self.given.values(), *self.graded.values()])
        self._known: dict[str, list[tuple[str, dict[str, Outcome]]]] = {}

    def names(self, call: Callable[..., Any], answers: list) -> dict[str, Any]:
        """What the tests may use: the givens, and the functions that they ask for, which
        ``call(name, *args, **kwargs)`` calls; what they return is added to ``answers``."""
        found: dict[str, Any] = {"__name__": "__main__"}
        for identity, source in self.given.items():
            exec(_compiled(source, identity), found)
        asked = {name: functools.partial(call, name) for name in self.asked}
        return found | {name: _recorded(function, answers) for name, function in asked.items()}

    def outcome(self, identity: str, names: dict[str, Any], answers: list) -> Outcome:
        """Run one cell of tests.

        Raises:
            Lost: the student's process is gone.
        """
        answers.clear()
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(_compiled(self.graded[identity], identity), names)
        except Exception as error:  # whatever a student's function does to a test
            frames = reversed(traceback.extract_tb(error.__traceback__))
            line = next((f.lineno for f in frames if f.filename == f"<{identity}>"), 0)
            said = str(error)[:_SHOWN]
            return Outcome(type(error).__name__, said, line or 0, tuple(answers))
        return Outcome(answers=tuple(answers))

    def outcomes(self, exercise: str, source: str) -> dict[str, Outcome]:
        """Run all tests of an exercise on an answer that can be trusted."""
        answers: list = []
        names = self.names(_missing, answers)
        defined = dict(names)
        with warnings.catch_warnings(action="ignore"):
            exec(_compiled(source, "answer"), defined)
        own = {name: defined[name] for name in self.asked if defined[name] is not names[name]}
        names |= {name: _recorded(function, answers) for name, function in own.items()}
        return {
            identity: self.outcome(identity, names, answers)
            for identity in self.graded
            if notebook.exercise_of(identity) == exercise
        }

    def mistake(self, exercise: str, found: Mapping[str, Outcome]) -> str:
        """The known mistake whose answers are those of a student, to all tests of an exercise;
        empty if there is none."""
        if exercise not in self._known:
            self._known[exercise] = [
                (answer.mistake, self.outcomes(exercise, answer.source))
                for answer in wrong_answers.of_chapter(self.chapter)
                if answer.exercise == exercise
            ]
        alike = (name for name, known in self._known[exercise] if _alike(known, found))
        return next(alike, "")


@functools.lru_cache(maxsize=2)
def _tests(instructor: str, seed: int | None) -> Tests:
    return Tests(nbformat.reads(instructor, as_version=4), seed)


def judge(
    submitted: NotebookNode,
    instructor: NotebookNode,
    seed: int | None = None,
    seconds: float = SECONDS,
) -> Report:
    """Execute a submission, and put what came of it into the outputs of its cells, and the report
    into its metadata.

    A cell that takes too long, or ends its process, costs its own exercise and no other: a new
    process first runs the earlier cells again, without those of the exercises that were lost.

    Args:
        submitted: with the cells of the assignment, each once. It is changed.
        instructor: where the tests and the givens come from, whatever the submission says they are.
        seed: a student's own number; None for that of the assignment.
        seconds: time for one cell.
    """
    report = _Judgement(_tests(nbformat.writes(instructor), seed), seconds).of(submitted)
    submitted.metadata[JUDGED] = dataclasses.asdict(report)
    return report


class FairExecute(NbGraderPreprocessor):
    """:func:`judge` in the place of nbgrader's ``Execute``, so that the command line, the
    Formgrader and ``python -m support assign grade`` grade alike."""

    source = Unicode("", help="The course's folder of instructors' versions.").tag(config=True)
    seconds = Float(SECONDS, help="Time for one cell of a student.").tag(config=True)
    course_seed = Unicode(
        "", help="The secret from which students' numbers follow; empty: SEED as in the source."
    ).tag(config=True)
    judged = Dict({}, help="Notebooks that were judged already, by student id.").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """Judge all cells, with the student's own number in the parameters cell."""
        about = resources["nbgrader"]
        student, chapter = about["student"], about["assignment"]
        if student in self.judged:
            return nbformat.from_dict(self.judged[student]), resources
        file = Path(self.source) / chapter / f"{chapter}.ipynb"
        seed = seeds.seed_of(self.course_seed, student)
        judge(nb, nbformat.read(file, as_version=4), seed, self.seconds)
        return nb, resources


class _Judgement:
    """The way through one submission."""

    def __init__(self, tests: Tests, seconds: float) -> None:
        self.tests, self.limit, self.report = tests, seconds, Report()
        self.student: Student | None = None
        self.went_well: list[tuple[str, str]] = []
        self.outcomes: dict[str, dict[str, Outcome]] = {}
        self.given_up = ""
        self.answers: list = []
        self.names = tests.names(self._called, self.answers)
        self.shared = {id(each): name for name, each in self.names.items() if callable(each)}

    def of(self, submitted: NotebookNode) -> Report:
        teachers = self.tests.given | self.tests.graded
        try:
            for cell in submitted.cells:
                if cell.cell_type == "code":
                    identity = notebook.grade_id(cell)
                    exercise = notebook.exercise_of(identity)
                    cell["source"] = teachers.get(identity, cell.source)
                    started = time.perf_counter()
                    cell["outputs"] = self._executed(cell, identity, exercise)
                    cell["execution_count"] = None
                    spent = self.report.seconds.get(exercise, 0) + time.perf_counter() - started
                    self.report.seconds[exercise] = round(spent, 3)
        finally:
            self._end()
        self.report.seconds.pop("", None)
        self._look_for_mistakes(submitted)
        return self.report

    def _executed(self, cell: NotebookNode, identity: str, exercise: str) -> list[NotebookNode]:
        """The outputs of a cell."""
        kind, reason = NOT_RUN, self.given_up or self.report.lost.get(exercise, "")
        if not reason:
            try:
                return self._run(cell, identity, exercise)
            except Lost as error:
                kind, reason = "Lost", str(error)
            except Exception as error:  # its driver was tampered with
                kind, reason = "Lost", f"the kernel is out of order: {type(error).__name__}"
            if exercise:
                self.report.lost[exercise] = reason
            whose = exercise or "a cell of the student's own"
            self.report.notes.append(f"{whose}: {reason}")
            self._end()
        if identity in self.tests.graded:
            cell.metadata[VERDICT] = {"error": "Lost", "said": reason}
        return [_error(kind, reason)]

    def _run(self, cell: NotebookNode, identity: str, exercise: str) -> list[NotebookNode]:
        if self.student is None:
            self._begin()
        self.student.allow(GIVENS_SECONDS if identity in self.tests.given else self.limit)
        if identity not in self.tests.graded:
            found = self.student.run(cell.source)
            self.went_well.append((exercise, cell.source))
            return _outputs(found)
        found = self.tests.outcome(identity, self.names, self.answers)
        self.outcomes.setdefault(exercise, {})[identity] = found
        cell.metadata[VERDICT] = {"error": found.error, "said": found.said}
        lines = self.tests.graded[identity].splitlines()
        where = f"line {found.line}: {lines[found.line - 1].strip()}" if found.line else ""
        return [_error(found.error, found.said, where)] if found.error else []

    def _called(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self.student.peer.function(name)(*args, **kwargs)

    def _begin(self) -> None:
        """A new process, with the work of the earlier cells that gave no trouble."""
        self.student = Student(self.shared)
        for exercise, source in self.went_well:
            if exercise not in self.report.lost:
                self.student.allow(GIVENS_SECONDS)
                try:
                    self.student.run(source)
                except Lost:
                    # It went well before; without it, what follows cannot be judged.
                    self.given_up = "the kernel died twice"
                    raise

    def _end(self) -> None:
        if self.student is not None:
            self.student.close()
        self.student = None

    def _look_for_mistakes(self, submitted: NotebookNode) -> None:
        for exercise, found in self.outcomes.items():
            failed = exercise not in self.report.lost and any(one.error for one in found.values())
            if failed and (mistake := self.tests.mistake(exercise, found)):
                self.report.mistakes[exercise] = mistake
        for cell in submitted.cells:
            exercise = notebook.exercise_of(notebook.grade_id(cell))
            if exercise in self.report.mistakes and cell.metadata.get(VERDICT, {}).get("error"):
                cell.metadata[VERDICT]["mistake"] = self.report.mistakes[exercise]


def _compiled(source: str, identity: str):
    # Assertions count, whatever the switches of this interpreter.
    return compile(source, f"<{identity}>", "exec", optimize=0)


def _missing(name: str, *args: Any, **kwargs: Any) -> None:
    raise NameError(f"name {name!r} is not defined")


def _recorded(function: Callable, answers: list) -> Callable:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            found = function(*args, **kwargs)
        except Exception as error:
            answers.append(type(error).__name__)
            raise
        answers.append(copy.copy(found))
        return found

    return call


def _alike(known: Mapping[str, Outcome], found: Mapping[str, Outcome]) -> bool:
    """Whether two answers failed in the same places with the same values."""
    return all(
        (one.error, one.line) == (found[identity].error, found[identity].line)
        and _same(one.answers, found[identity].answers)
        for identity, one in known.items()
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple):
        alike = isinstance(other, list | tuple) and len(one) == len(other)
        return alike and all(map(_same, one, other))
    if isinstance(one, str | None) or isinstance(other, str | None):
        return type(one) is type(other) and one == other
    try:
        numbers = [np.asarray(getattr(each, "detach", lambda e=each: e)()) for each in (one, other)]
        same = numbers[0].shape == numbers[1].shape
        return same and np.allclose(*numbers, rtol=1e-5, atol=1e-9, equal_nan=True)
    except (TypeError, ValueError):
        return False


def _outputs(found: Mapping[str, Any]) -> list[NotebookNode]:
    """What a cell showed, as a notebook has it."""
    streams = [(name, found.get(name)) for name in ("stdout", "stderr")]
    made = [new_output("stream", name=name, text=str(text)) for name, text in streams if text]
    made += [
        new_output("display_data", data={str(kind): str(data) for kind, data in each.items()})
        for each in found.get("shown", [])
        if isinstance(each, dict)
    ]
    if found.get("error"):
        name, text = found["error"]
        made.append(_error(str(name), str(text)))
    return made


def _error(name: str, text: str, where: str = "") -> NotebookNode:
    lines = [f"{name}: {text}", *filter(None, [where])]
    return new_output("error", ename=name, evalue=text, traceback=lines)
