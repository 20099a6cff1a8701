"""How each exercise did in a class: what a teacher looks at before the next lecture."""

import collections
import io
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import nbformat
import numpy as np
from matplotlib.figure import Figure

from support.classroom import course, grade_table, judge, notebook, roster, similarity, texts
from support.classroom.course import Points
from support.classroom.roster import Person
from support.common import files

ITEMS, PAGE, POINTS = "items.csv", "report.html", "points.csv"
COLUMNS = (
    "assignment", "exercise", "students", "max", "right", "mean", "discrimination", "seconds",
    "lost", "mistakes",
)  # fmt: skip


class Work(NamedTuple):
    """What one student handed in: the points, how it was judged, and the code by exercise."""

    points: Points
    judged: judge.Report
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
    works = {chapter: of for chapter in course.made(folder) if (of := _works(folder, chapter))}
    totals = {
        chapter: {name: sum(work.points.scores.values()) for name, work in of.items()}
        for chapter, of in works.items()
    }
    shown, rows = {}, []
    for chapter, of in works.items():
        items = [{"assignment": chapter, **item} for item in analysed(list(of.values()))]
        rows += [{key: roster.safe(words) for key, words in item.items()} for item in items]
        pairs = similarity.pairs({name: work.answers for name, work in of.items()})
        shown[chapter] = items, _picture(items, list(totals[chapter].values())), pairs
    page = texts.fill("report.html.j2", chapters=shown, totals=totals, columns=COLUMNS[4:])
    table = files.csv_text(COLUMNS, rows)
    contents = {folder / ITEMS: f"\ufeff{table}", folder / PAGE: f"{page}\n"}
    files.write_all(contents)
    written = [folder / grade_table.CSV, *contents]
    if people:
        most = {name: next(iter(of.values())).points.most for name, of in works.items()}
        written.append(roster.write_points(list(people), totals, most, folder / POINTS))
    return written


def _works(folder: Path, chapter: str) -> dict[str, Work]:
    """The newest work of each student."""
    points, found = course.points(folder, chapter), {}
    for row in grade_table.rows(folder):
        identity = row["id"]
        # Of several submissions by one student the newest has an id without a number.
        newest = identity in points and not re.search(r" \(\d+\)$", identity)
        if newest and row["assignment"] == chapter and row["total"]:
            file = course.file_of(folder / "autograded", identity, chapter)
            made = nbformat.read(file, as_version=4)
            about = made.metadata.get(judge.JUDGED, {})
            answers = {
                notebook.exercise_of(name): cell.source
                for cell in made.cells
                if notebook.is_solution(name := notebook.grade_id(cell))
            }
            found[row["student"]] = Work(points[identity], judge.Report(**about), answers)
    return found


def analysed(works: Sequence[Work]) -> list[dict[str, str]]:
    """How the exercises of an assignment did in a class, in their order, by :data:`COLUMNS`.

    ``right`` is the share of students with all points of its tests, ``mean`` the mean share of
    these points, ``discrimination`` their correlation with those of all other exercises (empty
    where either does not vary), ``seconds`` the median time of its cells, ``lost`` how many ran out
    of time or ended their process, ``mistakes`` the known ones, the most frequent first.
    """
    highest = works[0].points.highest
    table = np.array([[work.points.tested[name] for name in highest] for work in works])
    found = []
    for place, (name, most) in enumerate(highest.items()):
        own, judged = table[:, place], [work.judged for work in works]
        others = table.sum(1) - own
        varied = len(own) > 2 and own.std() > 0 and others.std() > 0
        seconds = [each.seconds[name] for each in judged if name in each.seconds] or [0.0]
        made = [each.mistakes[name] for each in judged if name in each.mistakes]
        counted = collections.Counter(made).most_common()
        found.append(
            {
                "exercise": name,
                "students": f"{len(own)}",
                "max": f"{most:g}",
                "right": f"{(own >= most).mean():.2f}",
                "mean": f"{own.mean() / most:.2f}",
                "discrimination": f"{np.corrcoef(own, others)[0, 1]:.2f}" if varied else "",
                "seconds": f"{statistics.median(seconds):.2f}",
                "lost": f"{sum(name in each.lost for each in judged)}",
                "mistakes": "; ".join(f"{mistake} ({count})" for mistake, count in counted),
            }
        )
    return found


def _picture(items: Sequence[Mapping[str, str]], totals: Sequence[float]) -> str:
    """The shares and the totals as a drawing, SVG."""
    with matplotlib.rc_context({"svg.hashsalt": "report", "font.size": 9}):
        figure = Figure((9, 0.32 * len(items) + 1.4), layout="constrained")
        shares, spread = figure.subplots(1, 2, width_ratios=(3, 2))
        names = [item["exercise"] for item in items]
        mean, right = ([float(item[key]) for item in items] for key in ("mean", "right"))
        shares.barh(names, mean, color="#b8cde0", label="mean of points")
        shares.barh(names, right, 0.4, color="#2f5d8a", label="all right")
        shares.set(xlim=(0, 1), xlabel="share of students")
        shares.invert_yaxis()
        shares.legend(loc="lower right")
        spread.hist(totals, bins=min(20, max(5, len(set(totals)))), color="#2f5d8a")
        spread.set(xlabel="points", ylabel="students")
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
