"""The computed part of the teacher's page, made from the exercises and their wrong answers:
``python -m support.classroom.teacher_page``."""

import re
from pathlib import Path

from support.book import manifests
from support.classroom import exercises
from support.classroom.exercises import Assignment, WrongAnswer
from support.common import paths

_BLOCK = re.compile(r"(<!-- computed: (\w+) -->\n).*?(<!-- end -->)", re.S)


def page() -> Path:
    """The teacher's page."""
    return paths.root() / "book" / "teach.md"


def text(old: str) -> str:
    """The page's text with its computed parts as the sources have them now."""
    read = [
        exercises.examine(chapter, exercises.cells_of(manifests.source_file(chapter)))[0]
        for chapter in manifests.chapters()
    ]
    chapters = [
        (assignment, exercises.wrong_answers(assignment)[0])
        for assignment in read
        if assignment.exercises
    ]
    made = {
        "overview": overview([assignment for assignment, _ in chapters]),
        "mistakes": "\n\n".join(mistakes(*each) for each in chapters),
    }
    return _BLOCK.sub(lambda found: f"{found[1]}\n{made[found[2]]}\n\n{found[3]}", old)


def overview(assignments: list[Assignment]) -> str:
    """A table: each assignment with its exercises and points."""
    lines = ["| assignment | exercises | points | points of hidden tests |", "|---|---|---|---|"]
    for each in assignments:
        titles = "; ".join(exercise.title for exercise in each.exercises)
        hidden = sum(
            test.points for exercise in each.exercises for test in exercise.tests if test.hidden
        )
        lines.append(f"| {{doc}}`{each.chapter}` | {titles} | {each.points} | {hidden} |")
    return "\n".join(lines)


def mistakes(assignment: Assignment, wrong: list[WrongAnswer]) -> str:
    """A table of one assignment: each exercise with its points and the mistakes that are known to
    lose some."""
    lines = [
        f"**{{doc}}`{assignment.chapter}`**",
        "",
        "| exercise | points | mistake (points that it still gets) |",
        "|---|---|---|",
    ]
    for each in assignment.exercises:
        said = "; ".join(
            f"{answer.mistake} ({answer.points})"
            for answer in wrong
            if answer.exercise == each.name
        )
        lines.append(f"| {each.title} | {each.points} | {_cell(said)} |")
    return "\n".join(lines)


def _cell(words: str) -> str:
    """Text for a table cell of Markdown."""
    return re.sub(r"([|*_<>\\\[\]$])", r"\\\1", words)


if __name__ == "__main__":
    page().write_text(text(page().read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
