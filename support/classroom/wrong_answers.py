"""Plausible wrong answers to the exercises of a chapter, ``tests/wrong_answers/NN_name.py``: what
the grader is known to catch."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.classroom import cells
from support.classroom.exercises import Assignment, Exercise, functions
from support.common import paths

MOST = 3  # for one exercise


@dataclass(frozen=True)
class WrongAnswer:
    """A wrong answer to an exercise, what is wrong with it, and the score that it must get."""

    exercise: str
    mistake: str
    points: int
    source: str


def file(chapter: str) -> Path:
    """Where the wrong answers to a chapter's exercises stand."""
    return paths.root() / "tests" / "wrong_answers" / f"{chapter}.py"


def read(assignment: Assignment) -> tuple[list[WrongAnswer], list[str]]:
    """The wrong answers to an assignment, in the order of their file, and what is wrong with that
    file."""
    source = file(assignment.chapter)
    if not source.is_file():
        missing = f"tests/wrong_answers/{source.name} is missing"
        return [], [f"{source.name}: there are no wrong answers: {missing}"]
    answers, problems = [], []
    exercises = {exercise.name: exercise for exercise in assignment.exercises}
    for cell in cells.of_file(source):
        given = cell.metadata
        if cell.cell_type == "code" and "exercise" in given:
            name, mistake = str(given["exercise"]), str(given.get("mistake", ""))
            answers.append(WrongAnswer(name, mistake, cells.points(cell), cell.source))
            found = _problems(given, cell.source, exercises.get(name))
            problems += [f"wrong answer to {name!r}: {problem}" for problem in found]
    for name in exercises:
        count = sum(answer.exercise == name for answer in answers)
        if not 1 <= count <= MOST:
            problems.append(f"exercise {name!r}: it has {count} wrong answers, 1 to {MOST} wanted")
    return answers, problems


def _problems(given: dict[str, Any], source: str, exercise: Exercise | None) -> Iterator[str]:
    points = given.get("points")
    if exercise is None:
        yield "there is no such exercise"
    elif type(points) is not int or not 0 <= points < exercise.points:
        yield f"its points must be a whole number from 0 to {exercise.points - 1}, not {points!r}"
    if not str(given.get("mistake") or "").strip():
        yield 'it does not say its mistake="..."'
    try:
        found, wanted = functions(source), functions(exercise.solution) if exercise else {}
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
