"""The tagged cells of an exercises notebook, ``book/NN_name/exercises.py``:

=================================== ================================================================
cell                                what it holds
=================================== ================================================================
``assignment``                      imports and small givens that every exercise may use; they run
                                    alone in a fresh kernel
``assignment-parameters``           ``SEED = 0``, which a course may set for each student
``exercise="name"`` (Markdown)      the prompt, between ``{exercise-start}`` and ``{exercise-end}``
``solution``                        functions whose bodies stand between ``### BEGIN SOLUTION`` and
                                    ``### END SOLUTION``
``tests``, ``points=1``             tests that the student sees
``hidden-tests``, ``points=1``      tests that only the grader runs; they begin with a comment,
                                    ``# Criterion: what they ask for``, which gives nothing away
``solution-text`` (Markdown)        why the solution is right; shown on the page, not in an
                                    assignment
=================================== ================================================================

The first two are tags of cells of their own; a cell with one of the last four tags also names its
exercise, as in ``# %% tags=["tests"] exercise="name" points=1``.
"""

import re
from pathlib import Path

import jupytext
from nbformat import NotebookNode

from support.book import manifests
from support.common import paths

PART = "exercises"
GIVENS, PARAMETERS = "assignment", "assignment-parameters"
SOLUTION, TESTS, HIDDEN, TEXT = ROLES = ("solution", "tests", "hidden-tests", "solution-text")
PROMPT, DERIVATION = "prompt", "derivation"
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
DISPLAY = re.compile(
    r"(hide|remove)-(input|output|cell)|output_scroll|nbval-[\w-]+|raises-exception"
)


_CRITERION = re.compile(r"# Criterion: (.*(?:\n# .*)*)")


class AssignmentError(ValueError):
    """An assignment cannot be made, or a request about one cannot be carried out; the message says
    why."""


def chapters() -> list[str]:
    """The chapters that have exercises."""
    found = (paths.root() / "book").glob(f"[0-9][0-9]_*/{PART}.py")
    return sorted(file.parent.name for file in found)


def source_file(chapter: str) -> Path:
    """The exercises of a chapter, as they are edited."""
    return manifests.source_file(chapter, PART)


def of_file(file: Path) -> list[NotebookNode]:
    """The cells of a source file."""
    return jupytext.read(file).cells


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return list(cell.metadata.get("tags", []))


def points(cell: NotebookNode) -> int:
    """The points of a cell; 0 where they are no whole number."""
    found = cell.metadata.get("points")
    return found if type(found) is int else 0


def roles(cell: NotebookNode) -> list[str]:
    """Those tags of a cell that say what it is in its exercise; one at most, in a good notebook."""
    return [tag for tag in tags(cell) if tag in ROLES]


def role(cell: NotebookNode) -> str:
    """What a cell of an exercise is: one of :data:`ROLES`, :data:`PROMPT`, or nothing known."""
    return next(iter(roles(cell)), PROMPT if cell.cell_type == "markdown" else "")


def criterion(source: str) -> str:
    """What a hidden test asks for, in words: the comment at its beginning; empty without one."""
    found = _CRITERION.search(source)
    return found[1].replace("\n# ", " ").strip() if found else ""
