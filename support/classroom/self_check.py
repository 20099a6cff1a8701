"""Does the grading work? The solution, the untouched notebook and wrong answers are handed in, and
must get what they deserve."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from support.classroom import course, grade, notebook
from support.classroom.exercises import Assignment, Exercise
from support.classroom.wrong_answers import WrongAnswer

SOLUTION, UNTOUCHED = "the solution", "nothing"
STUDENT = "everything"
SECONDS = 120  # for a cell: the question is what is right, not how fast a busy machine is


@dataclass(frozen=True)
class Outcome:
    """The points of one answer to one exercise: what was handed in, what it should get, what it got
    (None: not graded)."""

    chapter: str
    exercise: str
    answer: str
    wanted: float
    got: float | None

    def __str__(self) -> str:
        got = "is not graded" if self.got is None else f"gets {self.got:g}"
        return f"{self.chapter}, {self.exercise}: {self.answer} {got}, wanted {self.wanted:g}"


def answers(
    exercise: Exercise, wrong: list[WrongAnswer]
) -> Iterator[tuple[str, float, str | None]]:
    """What puts an exercise to the test: a name, the points that it must get, and the code (None:
    the stub stays)."""
    yield UNTOUCHED, 0.0, None
    for each in wrong:
        if each.exercise == exercise.name:
            yield repr(each.mistake), float(each.points), each.source
    yield SOLUTION, float(exercise.points), exercise.answer


def outcomes(assignment: Assignment, wrong: list[WrongAnswer], folder: Path) -> list[Outcome]:
    """Make an assignment in a course folder, hand in all :func:`answers`, grade them, and say what
    each got.

    Exercises do not depend on one another, so one notebook holds them all: each exercise stands in
    it once for each of its answers, and one kernel grades it.
    """
    chapter, copies, handed_in, wanted = assignment.chapter, [], {}, {}
    for exercise in assignment.exercises:
        for number, (answer, points, code) in enumerate(answers(exercise, wrong)):
            name = f"{exercise.name}-{number}"
            copies.append(replace(exercise, name=name))
            wanted[name] = (exercise.name, answer, points)
            handed_in |= {name: code} if code is not None else {}
    course.build(replace(assignment, exercises=tuple(copies)), folder)
    made = notebook.answered(course.released(folder, chapter), handed_in)
    place = notebook.write(made, folder / "handed-in" / chapter / f"{STUDENT}.ipynb").parent
    (graded,) = grade.grade(place, folder, chapter=chapter, seconds=SECONDS, feedback=False)
    return [
        Outcome(chapter, exercise, answer, points, graded.scores.get(name))
        for name, (exercise, answer, points) in wanted.items()
    ]
