"""Does the grading work? The solution, the untouched notebook, functions that return nothing and
wrong answers are handed in, and must get what they deserve."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from nbformat.v4 import new_code_cell
from nbgrader.preprocessors import ClearSolutions

from support.classroom import judge, notebook
from support.classroom.exercises import Assignment, Exercise, functions
from support.classroom.wrong_answers import WrongAnswer

SOLUTION, UNTOUCHED, EMPTY = "the solution", "nothing", "a function that returns nothing"
SECONDS = 120  # for a cell: the question is what is right, not how fast a busy machine is


@dataclass
class Outcome:
    """The points of one answer to one exercise: what was handed in, what it should get, what it
    got."""

    chapter: str
    exercise: str
    answer: str
    wanted: float
    got: float = 0.0

    def __str__(self) -> str:
        got = f"{self.answer} gets {self.got:g}, wanted {self.wanted:g}"
        return f"{self.chapter}, {self.exercise}: {got}"


def answers(exercise: Exercise, wrong: list[WrongAnswer]) -> Iterator[tuple[str, float, str]]:
    """What puts an exercise to the test: a name, the points that it must get, and the code."""
    yield UNTOUCHED, 0.0, stub(exercise)
    names = functions(exercise.solution)
    yield EMPTY, 0.0, "\n".join(f"def {name}(*given, **named): return None" for name in names)
    for each in wrong:
        if each.exercise == exercise.name:
            yield repr(each.mistake), float(each.points), each.source
    yield SOLUTION, float(exercise.points), exercise.answer


def outcomes(assignment: Assignment, wrong: list[WrongAnswer]) -> list[Outcome]:
    """Hand in all :func:`answers` to an assignment, judge them, and say what each got.

    Exercises do not depend on one another, so one notebook holds them all: each exercise stands in
    it once for each of its answers, and one process runs them.
    """
    copies, handed_in, found = [], {}, {}
    for exercise in assignment.exercises:
        for number, (answer, points, code) in enumerate(answers(exercise, wrong)):
            name = f"{exercise.name}-{number}"
            copies.append(replace(exercise, name=name))
            found[name] = Outcome(assignment.chapter, exercise.name, answer, points)
            handed_in[name] = code
    instructor = notebook.instructor(replace(assignment, exercises=tuple(copies)))
    made = notebook.answered(instructor, handed_in)
    judge.judge(made, instructor, seconds=SECONDS)
    for cell in made.cells:
        if cell.metadata.get(judge.VERDICT, {}).get("error") == "":
            name = notebook.exercise_of(notebook.grade_id(cell))
            found[name].got += notebook.marks(cell)["points"]
    return list(found.values())


def stub(exercise: Exercise) -> str:
    """What a student is given: the solution as nbgrader's own preprocessor clears it."""
    cell = new_code_cell(exercise.solution, metadata={"nbgrader": {"solution": True}})
    return ClearSolutions().preprocess_cell(cell, {"language": "python"}, 0)[0].source
