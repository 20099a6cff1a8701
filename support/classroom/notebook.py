"""An assignment as a notebook in nbgrader's format: the instructor's version, from which nbgrader
itself makes the student's."""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.utils import compute_checksum

from support.classroom import seeds, texts
from support.classroom.cells import DERIVATION, HIDDEN, PARAMETERS, PROMPT, SOLUTION, TESTS
from support.classroom.exercises import Assignment
from support.common import files

SCHEMA = 3
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def instructor(assignment: Assignment, derivation: int = 0) -> NotebookNode:
    """The instructor's version: prompts, solutions between nbgrader's markers, all tests.

    Args:
        assignment: what to set.
        derivation: points of the derivation of each exercise, which a teacher gives by hand.
    """
    number = assignment.chapter.partition("_")[0]
    about = new_markdown_cell(texts.fill("about.md.j2", assignment=assignment))
    cells = [_marked(f"{number}-about", about)]
    for count, source in enumerate(assignment.givens, 1):
        cells.append(_marked(f"{number}-givens-{count}", new_code_cell(source)))
    cells.append(_marked(f"{number}-{PARAMETERS}", new_code_cell(assignment.parameters)))
    for count, exercise in enumerate(assignment.exercises, 1):
        identity = f"{number}-{exercise.name}"
        text = texts.fill("prompt.md.j2", number=count, exercise=exercise)
        prompt, solution = new_markdown_cell(text), new_code_cell(exercise.solution)
        cells.append(_marked(f"{identity}-{PROMPT}", prompt))
        place = new_markdown_cell("The derivation stands in the solution on the chapter's page.")
        by_hand = {"locked": False, "solution": True, "grade": True, "points": derivation}
        cells.append(_marked(f"{identity}-{DERIVATION}", place, **by_hand))
        cells.append(_marked(f"{identity}-{SOLUTION}", solution, locked=False, solution=True))
        kinds: list[str] = []
        for test in exercise.tests:
            kinds.append(HIDDEN if test.hidden else TESTS)
            name = f"{identity}-{kinds[-1]}-{kinds.count(kinds[-1])}"
            code = new_code_cell(texts.fill("test.py.j2", test=test))
            cells.append(_marked(name, code, grade=True, points=test.points))
    about_it = {"kernelspec": _KERNEL, "assignment": {"chapter": assignment.chapter}}
    return new_notebook(cells=cells, metadata=about_it)


def _marked(identity: str, cell: NotebookNode, **marks: Any) -> NotebookNode:
    """A cell with nbgrader's marks: locked, neither graded nor a solution unless they say so."""
    known = {"grade_id": identity, "schema_version": SCHEMA, "task": False}
    cell["id"] = identity[:64]
    cell.metadata["nbgrader"] = known | {"grade": False, "locked": True, "solution": False} | marks
    return cell


def marks(cell: NotebookNode) -> Mapping[str, Any]:
    """nbgrader's marks of a cell; none for a student's own, and where the metadata is damaged."""
    metadata = cell.get("metadata")
    found = metadata.get("nbgrader") if isinstance(metadata, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def grade_id(cell: NotebookNode) -> str:
    """nbgrader's name of a cell; empty for a student's own, and where the metadata is damaged."""
    name = marks(cell).get("grade_id")
    return name if isinstance(name, str) else ""


def exercise_of(identity: str) -> str:
    """Name of the exercise that a cell belongs to, by nbgrader's name of the cell; empty if to
    none."""
    kinds = rf"{PROMPT}|{DERIVATION}|{SOLUTION}|(?:{TESTS}|{HIDDEN})-\d+"
    found = re.fullmatch(rf"[^-]+-(.+?)-(?:{kinds})", identity)
    return found[1] if found else ""


def is_hidden(identity: str) -> bool:
    """Whether a graded cell is one that students do not see."""
    return f"-{HIDDEN}-" in identity


def is_solution(identity: str) -> bool:
    """Whether a cell holds a student's function."""
    return identity.endswith(f"-{SOLUTION}")


def answered(notebook: NotebookNode, answers: Mapping[str, str]) -> NotebookNode:
    """A copy of a notebook with other code in the solution cells of some exercises: exercise name
    to code."""
    filled = copy.deepcopy(notebook)
    for cell in filled.cells:
        name = exercise_of(grade_id(cell))
        if name in answers and is_solution(grade_id(cell)):
            cell["source"] = answers[name]
    return filled


def personal(notebook: NotebookNode, student: str, seed: int) -> NotebookNode:
    """A copy of a notebook with one student's number in the parameters cell and the student's name
    in the metadata."""
    own = copy.deepcopy(notebook)
    own.metadata.setdefault("assignment", {})["student"] = student
    for cell in own.cells:
        if grade_id(cell).endswith(f"-{PARAMETERS}"):
            cell["source"] = seeds.with_seed(cell.source, seed)
            cell.metadata.nbgrader["checksum"] = compute_checksum(cell)
    return own


def write(notebook: NotebookNode, file: Path) -> Path:
    """Write a valid notebook, in folders that are made where they are missing."""
    nbformat.validate(notebook)
    files.write_all({file: nbformat.writes(notebook) + "\n"})
    return file
