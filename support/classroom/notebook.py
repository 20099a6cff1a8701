"""An assignment as a notebook in nbgrader's format: the instructor's version, from which nbgrader
itself makes the student's."""

import base64
import copy
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from support.book import execute, manifests
from support.classroom.exercises import (
    HIDDEN,
    PARAMETERS,
    SOLUTION,
    TESTS,
    Assignment,
    Exercise,
    with_seed,
)

SCHEMA = 3
BEGIN_HIDDEN, END_HIDDEN = "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS"
PICTURE = "expected.png"
_ABOUT = """# {title}: the exercises

Write your functions where it says `YOUR CODE HERE`, and leave everything else as it is.
The cells below an exercise test your function and say what is wrong; more tests, which you do not
see, run when the work is graded. You may add cells of your own. The exercises do not depend on one
another: one that does not work costs no points of another. Before you hand the notebook in, restart
    the kernel and run all cells.

{table}
"""


def instructor(assignment: Assignment, pictures: Mapping[str, bytes] | None = None) -> NotebookNode:
    """The instructor's version: prompts, solutions between nbgrader's markers, all tests.

    Args:
        assignment: what to set.
        pictures: of an exercise's name, the PNG picture that its solution draws; shown below the
            prompt as a hint.
    """
    number = assignment.chapter.partition("_")[0]
    table = "\n".join(
        [
            "| exercise | points |",
            "|---|---|",
            *(f"| {each.title} | {each.points} |" for each in assignment.exercises),
        ]
    )
    cells = [
        _locked(
            f"{number}-about", new_markdown_cell(_ABOUT.format(title=assignment.title, table=table))
        )
    ]
    for count, source in enumerate(assignment.givens, 1):
        cells.append(_locked(f"{number}-givens-{count}", new_code_cell(source)))
    cells.append(_locked(f"{number}-{PARAMETERS}", new_code_cell(assignment.parameters)))
    for count, exercise in enumerate(assignment.exercises, 1):
        cells += _exercise(
            f"{number}-{exercise.name}", count, exercise, (pictures or {}).get(exercise.name)
        )
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(
        cells=cells, metadata={"kernelspec": kernel, "assignment": {"chapter": assignment.chapter}}
    )


def _exercise(
    identity: str, number: int, exercise: Exercise, picture: bytes | None
) -> list[NotebookNode]:
    points = f"{exercise.points} point{'s' * (exercise.points != 1)}"
    prompt = new_markdown_cell(
        f"## Exercise {number}: {exercise.title} ({points})\n\n{plain(exercise.prompt)}"
    )
    if picture:
        prompt["source"] += (
            f"\n\nThe picture that the solution draws:\n\n![The picture that the solution draws](attachment:{PICTURE})"
        )
        prompt["attachments"] = {PICTURE: {"image/png": base64.b64encode(picture).decode()}}
    cells = [
        _locked(f"{identity}-prompt", prompt),
        _graded(f"{identity}-{SOLUTION}", new_code_cell(exercise.solution), solution=True),
    ]
    counts = {True: 0, False: 0}
    for test in exercise.tests:
        counts[test.hidden] += 1
        name = f"{identity}-{HIDDEN if test.hidden else TESTS}-{counts[test.hidden]}"
        worth = f"{test.points} point{'s' * (test.points != 1)}"
        if test.hidden:
            text = f"# Hidden tests ({worth}) run here when the work is graded.\n{BEGIN_HIDDEN}\n{test.source}\n{END_HIDDEN}"
        else:
            text = f"# Tests ({worth})\n{test.source}"
        cells.append(_graded(name, new_code_cell(text), points=test.points))
    return cells


def _locked(identity: str, cell: NotebookNode) -> NotebookNode:
    return _marked(cell, identity, {"grade": False, "locked": True, "solution": False})


def _graded(
    identity: str, cell: NotebookNode, *, solution: bool = False, points: int | None = None
) -> NotebookNode:
    marks: dict[str, Any] = {"grade": not solution, "locked": not solution, "solution": solution}
    return _marked(cell, identity, marks if points is None else marks | {"points": points})


def _marked(cell: NotebookNode, identity: str, marks: dict[str, Any]) -> NotebookNode:
    cell["id"] = identity[:64]
    cell.metadata["nbgrader"] = {
        "grade_id": identity,
        "schema_version": SCHEMA,
        "task": False,
    } | marks
    return cell


def grade_id(cell: NotebookNode) -> str:
    """nbgrader's name of a cell; empty for a student's own cell, and for a cell whose metadata is
    damaged."""
    metadata = cell.get("metadata")
    found = metadata.get("nbgrader") if isinstance(metadata, Mapping) else None
    name = found.get("grade_id") if isinstance(found, Mapping) else None
    return name if isinstance(name, str) else ""


def answered(notebook: NotebookNode, answers: Mapping[str, str]) -> NotebookNode:
    """A copy of a notebook with other code in the solution cells of some exercises: exercise name
    to code."""
    filled = copy.deepcopy(notebook)
    for cell in filled.cells:
        name = exercise_of(grade_id(cell))
        if name in answers and grade_id(cell).endswith(f"-{SOLUTION}"):
            cell["source"] = answers[name]
    return filled


def exercise_of(identity: str) -> str:
    """Name of the exercise that a cell belongs to, by nbgrader's name of the cell; empty if to
    none."""
    found = re.fullmatch(rf"[^-]+-(.+?)-(?:prompt|{SOLUTION}|(?:{TESTS}|{HIDDEN})-\d+)", identity)
    return found[1] if found else ""


def personal(notebook: NotebookNode, student: str, seed: int) -> NotebookNode:
    """A copy of a notebook with one student's number in the parameters cell and the student's name
    in the metadata."""
    from nbgrader.utils import compute_checksum

    own = copy.deepcopy(notebook)
    own.metadata.setdefault("assignment", {})["student"] = student
    for cell in own.cells:
        if grade_id(cell).endswith(f"-{PARAMETERS}"):
            cell["source"] = with_seed(cell.source, seed)
            cell.metadata.nbgrader["checksum"] = compute_checksum(cell)
    return own


# --- from the page ----------------------------------------------------------------------------------------------------------------


def plain(markdown: str) -> str:
    """MyST Markdown as a notebook shows it: roles become text, directives become quotes with a bold
    title."""
    text = re.sub(r"\{(?:math)\}`([^`]+)`", r"$\1$", markdown)
    text = re.sub(r"\{[\w:.-]+\}`([^`<]+?)\s*(?:<[^`>]*>)?`", _role_text, text)
    text = re.sub(
        r"^(`{3,}|:{3,})\{math\}[^\n]*\n(?:[ \t]*:[\w-]+:[^\n]*\n)*(.*?)^\1[ \t]*$",
        r"$$\n\2$$",
        text,
        flags=re.M | re.S,
    )
    return re.sub(
        r"^(`{3,}|:{3,})\{([\w:-]+)\}([^\n]*)\n((?::[\w-]+:[^\n]*\n)*)(.*?)^\1[ \t]*$",
        _quoted,
        text,
        flags=re.M | re.S,
    )


def _role_text(found: re.Match) -> str:
    return found[1] if " " in found[1] or not re.search(r"[-_:]", found[1]) else f"`{found[1]}`"


def _quoted(found: re.Match) -> str:
    title = found[3].strip() or found[2].partition(":")[2] or found[2]
    body = found[5].strip()
    return "\n".join(
        [
            f"> **{title[:1].upper()}{title[1:]}.**",
            ">",
            *(f"> {line}".rstrip() for line in body.splitlines()),
        ]
    )


def pictures(chapter: str) -> dict[str, bytes]:
    """The PNG pictures that the solutions of a chapter draw, by exercise, from its committed
    notebook. None if it has none."""
    file = manifests.recorded_run(chapter, "quick")
    cells: Iterable[NotebookNode] = (
        nbformat.read(file, as_version=4).cells if file.is_file() else []
    )
    found = {}
    for cell in cells:
        drawn = [
            output.data["image/png"]
            for output in cell.get("outputs", [])
            if "image/png" in output.get("data", {})
        ]
        if (
            drawn
            and "exercise" in cell.metadata
            and {SOLUTION, TESTS} & set(cell.metadata.get("tags", []))
        ):
            found[cell.metadata["exercise"]] = base64.b64decode(drawn[-1])
    return found


def write(notebook: NotebookNode, file: Path) -> Path:
    """Write a valid notebook, in folders that are made where they are missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(execute.text_of(notebook), encoding="utf-8")
    return file
