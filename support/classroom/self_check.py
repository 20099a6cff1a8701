"""Does the grading work? The solution, the untouched notebook and wrong answers are handed in, and
must get what they deserve."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from support.classroom import course, grade, notebook
from support.classroom.exercises import MOST_WRONG, Assignment, WrongAnswer

SOLUTION, UNTOUCHED = "the solution", "nothing"


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


def submissions(
    assignment: Assignment, release: NotebookNode, wrong: list[WrongAnswer]
) -> dict[str, tuple[NotebookNode, Mapping[str, tuple[str, float]]]]:
    """The notebooks that put an assignment to the test: its solution, nothing, and the k-th wrong
    answers of all exercises together.

    Returns:
        By a student's name: the notebook, and for each exercise what was answered and the points
        that it must get.
    """
    full = {each.name: (SOLUTION, float(each.points)) for each in assignment.exercises}
    right = {each.name: each.answer for each in assignment.exercises}
    found = {
        "solution": (notebook.answered(release, right), full),
        "untouched": (release, {name: (UNTOUCHED, 0.0) for name in full}),
    }
    for place in range(MOST_WRONG):
        of_exercise = {name: [each for each in wrong if each.exercise == name] for name in full}
        chosen = {
            name: answers[place] for name, answers in of_exercise.items() if len(answers) > place
        }
        if chosen:
            answers = right | {name: each.source for name, each in chosen.items()}
            wanted = full | {
                name: (f"{each.mistake!r}", float(each.points)) for name, each in chosen.items()
            }
            found[f"wrong {place + 1}"] = (notebook.answered(release, answers), wanted)
    return found


def outcomes(assignment: Assignment, wrong: list[WrongAnswer], folder: Path) -> list[Outcome]:
    """Make an assignment in a course folder, hand in :func:`submissions`, grade them, and say what
    each exercise got."""
    chapter = assignment.chapter
    course.build(assignment, folder)
    handed_in = folder / "handed-in" / chapter
    expected = submissions(assignment, course.released(folder, chapter), wrong)
    for name, (made, _) in expected.items():
        notebook.write(made, handed_in / f"{name}.ipynb")
    graded = {
        each.student: each.scores
        for each in grade.grade(handed_in, folder, chapter=chapter, feedback=False)
    }
    return [
        Outcome(chapter, exercise, answer, wanted, graded.get(name, {}).get(exercise))
        for name, (_, answers) in expected.items()
        for exercise, (answer, wanted) in answers.items()
    ]
