"""How each exercise did in a class: what a teacher looks at before the next lecture."""

import collections
import csv
import io
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
from matplotlib.figure import Figure

from support.classroom import (
    course,
    fair_execute,
    grade_table,
    judge,
    notebook,
    roster,
    similarity,
    submissions,
    texts,
)
from support.classroom.course import Points
from support.classroom.roster import Person
from support.common import files

ITEMS, PAGE, POINTS = "items.csv", "report.html", "points.csv"


@dataclass(frozen=True)
class Item:
    """One exercise in a class.

    Attributes:
        right: the share of students with all points of its tests.
        mean: the mean share of its points.
        discrimination: the correlation of its points with those of all others; None where either
            does not vary.
        seconds: the median time of its cells.
        mistakes: known mistakes with how often they were made, the most frequent first.
        lost: how many ran out of time or ended their process.
    """

    assignment: str
    exercise: str
    students: int
    most: float
    right: float
    mean: float
    discrimination: float | None
    seconds: float
    mistakes: tuple[tuple[str, int], ...]
    lost: int


@dataclass(frozen=True)
class Work:
    """What one student handed in."""

    points: Points
    seconds: Mapping[str, float]
    mistakes: Mapping[str, str]
    lost: Mapping[str, str]
    answers: Mapping[str, str]


def report(folder: Path, people: Sequence[Person] = ()) -> list[Path]:
    """Bring ``grades.csv`` up to date with the gradebook, and write ``items.csv``, ``report.html``
    and, for a class list, ``points.csv``.

    Args:
        folder: a course folder with graded work.
        people: the class.

    Returns:
        The files.
    """
    grade_table.refresh(folder)
    works = {chapter: _works(folder, chapter) for chapter in course.made(folder)}
    works = {chapter: of for chapter, of in works.items() if of}
    found = {chapter: items(chapter, list(of.values())) for chapter, of in works.items()}
    totals = {
        chapter: {name: sum(work.points.scores.values()) for name, work in of.items()}
        for chapter, of in works.items()
    }
    shown = {
        chapter: (
            found[chapter],
            _picture(found[chapter], list(totals[chapter].values())),
            similarity.pairs(_answers(of)),
        )
        for chapter, of in works.items()
    }
    page = texts.fill("report.html.j2", chapters=shown, totals=totals)
    table = _table([item for of in found.values() for item in of])
    files.write_all({folder / ITEMS: f"\ufeff{table}", folder / PAGE: f"{page}\n"})
    written = [folder / submissions.CSV, folder / ITEMS, folder / PAGE]
    if people:
        most = {name: next(iter(of.values())).points.most for name, of in works.items()}
        written.append(roster.write_points(list(people), totals, most, folder / POINTS))
    return written


def _works(folder: Path, chapter: str) -> dict[str, Work]:
    """The newest work of each student."""
    points = course.points(folder, chapter)
    return {
        row["student"]: _work(folder, row, points[row["id"]])
        for row in grade_table.rows(folder)
        # Of several submissions by one student the newest has an id without a number.
        if row["assignment"] == chapter and row["total"]
        if row["id"] in points and not re.search(r" \(\d+\)$", row["id"])
    }


def _work(folder: Path, row: Mapping[str, str], points: Points) -> Work:
    file = course.file_of(folder / "autograded", row["id"], row["assignment"])
    made = nbformat.read(file, as_version=4)
    about = made.metadata.get(fair_execute.JUDGED, {})
    answers = {
        notebook.exercise_of(name): cell.source
        for cell in made.cells
        if judge.is_solution(name := notebook.grade_id(cell))
    }
    told = (about.get(name, {}) for name in ("seconds", "mistakes", "lost"))
    return Work(points, *told, answers)


def items(chapter: str, works: Sequence[Work]) -> list[Item]:
    """How the exercises of an assignment did in a class, in their order."""
    highest = works[0].points.highest
    table = np.array([[work.points.tested[name] for name in highest] for work in works])
    found = []
    for place, (name, most) in enumerate(highest.items()):
        own = table[:, place]
        others = table.sum(1) - own
        varied = len(own) > 2 and own.std() > 0 and others.std() > 0
        mistakes = collections.Counter(
            work.mistakes[name] for work in works if name in work.mistakes
        )
        seconds = [work.seconds[name] for work in works if name in work.seconds]
        discrimination = float(np.corrcoef(own, others)[0, 1]) if varied else None
        shares = float((own >= most).mean()), float(own.mean() / most)
        middle = statistics.median(seconds) if seconds else 0.0
        lost = sum(name in work.lost for work in works)
        known = tuple(mistakes.most_common())
        item = Item(chapter, name, len(own), most, *shares, discrimination, middle, known, lost)
        found.append(item)
    return found


def _table(items: Sequence[Item]) -> str:
    stream = io.StringIO(newline="")
    table = csv.writer(stream)
    titles = ("assignment", "exercise", "students", "max", "right", "mean", "discrimination")
    table.writerow((*titles, "seconds", "lost", "mistakes"))
    for item in items:
        mistakes = "; ".join(f"{mistake} ({count})" for mistake, count in item.mistakes)
        discrimination = "" if item.discrimination is None else f"{item.discrimination:.2f}"
        numbers = [f"{item.students}", f"{item.most:g}", f"{item.right:.2f}", f"{item.mean:.2f}"]
        numbers += [discrimination, f"{item.seconds:.2f}", f"{item.lost}"]
        table.writerow([item.assignment, item.exercise, *numbers, roster.safe(mistakes)])
    return stream.getvalue()


def _answers(works: Mapping[str, Work]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for student, work in works.items():
        for exercise, code in work.answers.items():
            found.setdefault(exercise, {})[student] = code
    return found


def _picture(items: Sequence[Item], totals: Sequence[float]) -> str:
    """The shares and the totals as a drawing, SVG."""
    with matplotlib.rc_context({"svg.hashsalt": "report", "font.size": 9}):
        figure = Figure((9, 0.32 * len(items) + 1.4), layout="constrained")
        shares, spread = figure.subplots(1, 2, width_ratios=(3, 2))
        names = [item.exercise for item in items]
        shares.barh(names, [item.mean for item in items], color="#b8cde0", label="mean of points")
        shares.barh(names, [item.right for item in items], 0.4, color="#2f5d8a", label="all right")
        shares.set(xlim=(0, 1), xlabel="share of students")
        shares.invert_yaxis()
        shares.legend(loc="lower right")
        spread.hist(totals, bins=min(20, max(5, len(set(totals)))), color="#2f5d8a")
        spread.set(xlabel="points", ylabel="students")
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
