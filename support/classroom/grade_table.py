"""``grades.csv`` in a course folder: a line for each submission, kept when others are graded."""

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from support.classroom import course, roster
from support.classroom.submissions import CSV, Submission
from support.common import files

_FIRST = ("student", "assignment", "total", "max")
_LAST = ("notes", "file", "feedback", "id")


def rows(folder: Path) -> list[dict[str, str]]:
    """The lines of the table; none where there is no table yet."""
    file = folder / CSV
    text = file.read_text(encoding="utf-8-sig") if file.is_file() else ""
    return list(csv.DictReader(io.StringIO(text)))


def enter(found: Iterable[Submission], folder: Path, handed_in: Path) -> None:
    """Put submissions into the table, each in the place of what it was before; all other lines
    stay.

    A line without a total could not be graded, and its notes say why. Columns of exercises are
    named ``NN/exercise``. The table is whole whenever the program is stopped.

    Args:
        found: what was graded.
        folder: the course folder.
        handed_in: where the submissions lie; files are named from there, feedback from the course
            folder.
    """
    table = {(row["student"], row["assignment"], row["file"]): row for row in rows(folder)}
    for each in found:
        row = _row(each, folder, handed_in)
        # Whoever hands in has no line any more that nothing was handed in.
        table.pop((row["student"], row["assignment"], ""), None)
        table.pop((row["student"], "", ""), None)
        table[row["student"], row["assignment"], row["file"]] = row
    _write(table.values(), folder)


def _write(table: Iterable[dict[str, str]], folder: Path) -> None:
    ordered = sorted(table, key=lambda row: (row["assignment"], row["student"].casefold()))
    known = (*_FIRST, *_LAST)
    exercises = dict.fromkeys(name for row in ordered for name in row if name not in known)
    text = files.csv_text([*_FIRST, *exercises, *_LAST], ordered)
    # With a mark, without which spreadsheets garble umlauts.
    files.write_all({folder / CSV: f"\ufeff{text}"})


def refresh(folder: Path) -> None:
    """Bring the points of all lines up to date with the gradebook, after work by hand."""
    table = rows(folder)
    for chapter in {row["assignment"] for row in table if row["total"]}:
        points = course.points(folder, chapter)
        for row in table:
            if row["assignment"] == chapter and row["id"] in points:
                found = points[row["id"]]
                row |= _points(chapter, found.scores, found.most)
                old = (course.BY_HAND, course.LATE)
                notes = [n for n in row["notes"].split("; ") if n and not n.endswith(old)]
                row["notes"] = "; ".join([*notes, *found.notes])
    _write(table, folder)


def _row(each: Submission, folder: Path, handed_in: Path) -> dict[str, str]:
    told = {
        "student": each.student, "assignment": each.chapter, "notes": "; ".join(each.notes),
        "file": _from(each.file, handed_in), "feedback": _from(each.feedback, folder),
        "id": each.identity,
    }  # fmt: skip
    shown = _points(each.chapter, each.scores, each.most)
    return {name: roster.safe(words) for name, words in told.items()} | shown


def _points(chapter: str, scores: Mapping[str, float], most: float | None) -> dict[str, str]:
    number = chapter.partition("_")[0]
    points = {"total": sum(scores.values()) if scores else None, "max": most}
    points |= {f"{number}/{name}": score for name, score in scores.items()}
    return {name: "" if score is None else f"{score:g}" for name, score in points.items()}


def _from(file: Path | None, folder: Path) -> str:
    return Path(os.path.relpath(file, folder)).as_posix() if file else ""
