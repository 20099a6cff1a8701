"""Plausible wrong answers to the exercises of a chapter, ``tests/wrong_answers/NN_name.py``: what
the grader is known to catch."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.classroom import cells
from support.classroom.exercises import Assignment, Exercise, functions
from support.common import paths

MOST = 3  # for one exercise


@dataclass(frozen=True)
class WrongAnswer:
    """A wrong answer to an exercise, what is wrong with it, and the score that it must get (None
    where that is no whole number)."""

    exercise: str
    mistake: str
    points: int | None
    source: str


def file(chapter: str) -> Path:
    """Where the wrong answers to a chapter's exercises stand."""
    return paths.root() / "tests" / "wrong_answers" / f"{chapter}.py"


def of_chapter(chapter: str) -> list[WrongAnswer]:
    """The wrong answers to a chapter's exercises, in the order of their file; none without it."""
    source = file(chapter)
    return [
        WrongAnswer(
            str(cell.metadata["exercise"]),
            str(cell.metadata.get("mistake", "")),
            found if type(found := cell.metadata.get("points")) is int else None,
            cell.source,
        )
        for cell in (cells.of_file(source) if source.is_file() else [])
        if cell.cell_type == "code" and "exercise" in cell.metadata
    ]


def read(assignment: Assignment) -> tuple[list[WrongAnswer], list[str]]:
    """The wrong answers to an assignment, in the order of their file, and what is wrong with that
    file."""
    source = file(assignment.chapter)
    if not source.is_file():
        missing = f"tests/wrong_answers/{source.name} is missing"
        return [], [f"{source.name}: there are no wrong answers: {missing}"]
    exercises = {exercise.name: exercise for exercise in assignment.exercises}
    answers = of_chapter(assignment.chapter)
    problems = [
        f"wrong answer to {answer.exercise!r}: {problem}"
        for answer in answers
        for problem in _problems(answer, exercises.get(answer.exercise))
    ]
    for name in exercises:
        count = sum(answer.exercise == name for answer in answers)
        if not 1 <= count <= MOST:
            problems.append(f"exercise {name!r}: it has {count} wrong answers, 1 to {MOST} wanted")
    return answers, problems


def _problems(answer: WrongAnswer, exercise: Exercise | None) -> Iterator[str]:
    if exercise is None:
        yield "there is no such exercise"
    elif answer.points is None or not 0 <= answer.points < exercise.points:
        most = exercise.points - 1
        yield f"its points must be a whole number from 0 to {most}, not {answer.points!r}"
    if not answer.mistake.strip():
        yield 'it does not say its mistake="..."'
    try:
        found = functions(answer.source)
        wanted = functions(exercise.solution) if exercise else {}
    except SyntaxError as error:
        yield f"it is not Python: {error.msg}"
        return
    both = found.keys() & wanted.keys()
    if wanted and not both:
        yield f"it defines none of {', '.join(wanted)}"
    for name in sorted(both):
        own, right = (", ".join(_arguments(each[name])) for each in (found, wanted))
        if own != right:
            yield f"{name}({own}) must have the arguments {right}"


def _arguments(function: ast.FunctionDef) -> list[str]:
    return [node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)]
