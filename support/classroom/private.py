"""A teacher's own folder laid over an assignment: more hidden tests, other constants, other points,
further exercises.

The folder holds ``NN_name.py``, with cells as in the book's exercises, and ``points.yml``; either
may be missing. A test cell for an exercise of the book is added to those that it has; any other
cell takes the place of the book's; an exercise that the book does not have must be whole.
``points.yml`` gives the book's own test cells other points, one number for each cell; 0 leaves the
cell out::

    01_softmax_kmeans:
      sign: {tests: 1, hidden-tests: [2, 4]}
"""

import copy
from pathlib import Path
from typing import Any

import yaml
from nbformat import NotebookNode

from support.classroom import cells
from support.classroom.cells import GIVENS, HIDDEN, PARAMETERS, TESTS, AssignmentError, role, tags

POINTS = "points.yml"


def overlaid(chapter: str, given: list[NotebookNode], folder: Path) -> list[NotebookNode]:
    """The cells of a chapter with a teacher's folder laid over them; whether they make an
    assignment is not checked here.

    Raises:
        AssignmentError: no such folder, nothing in it for this chapter, or points that fit no cell.
    """
    file, points = folder / f"{chapter}.py", _points(folder, chapter)
    if not file.is_file() and not points:
        neither = f"neither {file.name} nor points for {chapter} in {POINTS}"
        raise AssignmentError(f"{folder} has {neither}")
    merged = _with_points(copy.deepcopy(given), points)
    mine = cells.of_file(file) if file.is_file() else []
    for tag in (GIVENS, PARAMETERS):
        if own := [cell for cell in mine if tag in tags(cell)]:
            place = next((number for number, cell in enumerate(merged) if tag in tags(cell)), 0)
            merged = [cell for cell in merged if tag not in tags(cell)]
            merged[place:place] = own
    for cell in mine:
        if "exercise" in cell.metadata:
            _lay(cell, merged)
        elif cells.roles(cell):
            merged.append(cell)  # without its exercise; the check of the whole says so
    return merged


def _lay(cell: NotebookNode, merged: list[NotebookNode]) -> None:
    """Put one cell of an exercise where it belongs. Changes the list in place."""
    name = cell.metadata["exercise"]
    places = [n for n, other in enumerate(merged) if other.metadata.get("exercise") == name]
    same = [number for number in places if role(merged[number]) == role(cell)]
    if role(cell) in (TESTS, HIDDEN) or not same:
        merged.insert(places[-1] + 1 if places else len(merged), cell)
    else:
        merged[same[0]] = cell


def _points(folder: Path, chapter: str) -> dict[str, Any]:
    if not folder.is_dir():
        raise AssignmentError(f"there is no folder {folder}")
    file = folder / POINTS
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
        of_chapter = (found or {}).get(chapter) or {}
        return {name: dict(worth) for name, worth in of_chapter.items()}
    except yaml.YAMLError as error:
        raise AssignmentError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    except (AttributeError, TypeError, ValueError) as error:
        wanted = "by chapter and exercise, points of tests and of hidden-tests"
        raise AssignmentError(f"{file} must give, {wanted}") from error


def _with_points(given: list[NotebookNode], points: dict[str, Any]) -> list[NotebookNode]:
    for name, worth in points.items():
        for kind, wanted in worth.items():
            numbers = wanted if isinstance(wanted, list) else [wanted]
            what = (name, kind) if kind in (TESTS, HIDDEN) else None
            chosen = [cell for cell in given if (cell.metadata.get("exercise"), role(cell)) == what]
            if len(numbers) != len(chosen) or not all(type(n) is int and n >= 0 for n in numbers):
                has = f"the exercise has {len(chosen)} such cells, and each wants a whole number"
                raise AssignmentError(f"{POINTS}: {name}: {kind}: {wanted!r}: {has}")
            for cell, number in zip(chosen, numbers, strict=True):
                cell.metadata["points"] = number
            given = [cell for cell in given if cell not in chosen or cell.metadata["points"]]
    return given
