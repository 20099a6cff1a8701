"""The graded exercises of a chapter, read from its tagged :mod:`~support.classroom.cells`, and
everything that can be wrong with them."""

import ast
import builtins
import itertools
import re
import symtable
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from support.classroom import cells as tagged
from support.classroom import private, seeds
from support.classroom.cells import BEGIN, END, GIVENS, HIDDEN, PARAMETERS, PROMPT, SOLUTION, TESTS

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PROMPT = re.compile(
    r"\s*(?P<gate>`{3,}|:{3,})\{exercise-start\}[ \t]*(?P<title>\S[^\n]*)\n"
    r"(?::label:[ \t]*(?P<label>\S+)[^\n]*\n|:[^\n]*\n)*\s*(?P=gate)[ \t]*\n"
    r"(?P<text>((?!\{exercise-).)*)\n(?P<last>`{3,}|:{3,})\{exercise-end\}\s*(?P=last)\s*",
    re.S,
)
_UNKNOWN = f"uses {{}}, which neither it nor the cells tagged {GIVENS!r} define"


@dataclass(frozen=True)
class TestCell:
    """One graded cell: its code, its points, and whether the student does not see it."""

    source: str
    points: int
    hidden: bool


@dataclass(frozen=True)
class Exercise:
    """One graded exercise; ``prompt`` is Markdown without the directive around it."""

    name: str
    title: str
    prompt: str
    solution: str
    tests: tuple[TestCell, ...]

    @property
    def points(self) -> int:
        """All points, visible and hidden."""
        return sum(test.points for test in self.tests)

    @property
    def hidden_points(self) -> int:
        """The points of the hidden tests."""
        return sum(test.points for test in self.tests if test.hidden)

    @property
    def answer(self) -> str:
        """The solution as a student would hand it in: without the markers."""
        lines = self.solution.splitlines()
        return "\n".join(line for line in lines if line.strip() not in (BEGIN, END))


@dataclass(frozen=True)
class Assignment:
    """The graded exercises of a chapter with what they all need."""

    chapter: str
    title: str
    givens: tuple[str, ...]
    parameters: str
    exercises: tuple[Exercise, ...]

    @property
    def points(self) -> int:
        """The highest score."""
        return sum(exercise.points for exercise in self.exercises)


def read(chapter: str, folder: Path | None = None) -> Assignment:
    """The assignment of a chapter, with a teacher's own folder laid over it where one is given.

    Raises:
        AssignmentError: its cells have problems; the message lists them.
    """
    cells, where = tagged.of_file(tagged.source_file(chapter)), chapter
    if folder:
        cells, where = private.overlaid(chapter, cells, folder), f"{chapter} with {folder}"
    assignment, problems = examine(chapter, cells)
    if problems:
        raise tagged.AssignmentError(f"{where}: {'; '.join(problems)}")
    return assignment


def examine(chapter: str, cells: list[NotebookNode]) -> tuple[Assignment, list[str]]:
    """The assignment in some cells as far as it can be read, and what is wrong with it, one line
    for each problem."""
    texts = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    found = re.search(r"^# (?:Exercises: )?(.+)", texts, re.M)
    title = found[1].strip() if found else chapter
    givens = tuple(cell.source for cell in cells if GIVENS in tagged.tags(cell))
    parameters = [cell.source for cell in cells if PARAMETERS in tagged.tags(cell)]
    groups: dict[str, list[NotebookNode]] = {}
    for cell in cells:
        if "exercise" in cell.metadata:
            groups.setdefault(str(cell.metadata["exercise"]), []).append(cell)
    exercises = tuple(_exercise(name, group) for name, group in groups.items())
    assignment = Assignment(chapter, title, givens, "\n".join(parameters), exercises)

    problems = list(_misplaced(cells))
    shared = [*givens, *parameters]
    if not groups:
        problems.append("no cell has exercise=...: the chapter has no graded exercise")
    elif not givens:
        problems.append(f'no cell is tagged "{GIVENS}": the imports of the exercises')
    if groups and (len(parameters) != 1 or seeds.given(parameters[0]) is None):
        one = f'exactly one cell tagged "{PARAMETERS}"'
        problems.append(f"{one} must set SEED = 0; there are {len(parameters)}")
    if names := undefined(shared):
        problems.append(f"the givens {_UNKNOWN.format(', '.join(names))}")
    for exercise in exercises:
        found = [*_problems(exercise, groups[exercise.name])]
        code = [*shared, exercise.solution, *(test.source for test in exercise.tests)]
        if not undefined(shared) and (names := undefined(code)):
            found.append(_UNKNOWN.format(", ".join(names)))
        problems += [f"exercise {exercise.name!r}: {problem}" for problem in found]
    return assignment, problems


def _exercise(name: str, cells: list[NotebookNode]) -> Exercise:
    def source(kind: str) -> str:
        return next((cell.source for cell in cells if tagged.role(cell) == kind), "")

    found = _PROMPT.fullmatch(source(PROMPT))
    tests = tuple(
        TestCell(cell.source, tagged.points(cell), tagged.role(cell) == HIDDEN)
        for cell in cells
        if tagged.role(cell) in (TESTS, HIDDEN)
    )
    title, text = (found["title"].strip(), found["text"].strip()) if found else (name, "")
    return Exercise(name, title, text, source(SOLUTION), tests)


# --- what can be wrong ----------------------------------------------------------------------------


def _misplaced(cells: list[NotebookNode]) -> Iterator[str]:
    """Role tags and points on cells of no exercise, and exercises whose cells do not stand
    together."""
    for number, cell in enumerate(cells, 1):
        marks = [f'is tagged "{tag}"' for tag in tagged.roles(cell)]
        for mark in [*marks, *["has points"] * ("points" in cell.metadata)]:
            if "exercise" not in cell.metadata:
                yield f'cell {number} {mark} and has no exercise="..."'
    of_cells = [cell.metadata["exercise"] for cell in cells if "exercise" in cell.metadata]
    names = [name for name, _ in itertools.groupby(of_cells)]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield f"exercise {name!r}: the name is used twice, or other cells stand between its cells"


def _problems(exercise: Exercise, cells: list[NotebookNode]) -> Iterator[str]:
    if not _NAME.fullmatch(exercise.name):
        yield "its name must be lower-case words with hyphens"
    for cell in cells:
        yield from _cell_problems(cell)
    kinds = [tagged.role(cell) for cell in cells]
    for kind, most in ((PROMPT, 1), (SOLUTION, 1), (TESTS, len(cells)), (HIDDEN, len(cells))):
        if not 1 <= kinds.count(kind) <= most:
            wanted = "exactly" if most == 1 else "at least"
            yield f"it has {kinds.count(kind)} cells of the kind {kind!r}, {wanted} 1 wanted"
    if PROMPT in kinds:
        found = _PROMPT.fullmatch(cells[kinds.index(PROMPT)].source)
        label = (found and found["label"]) or "none"
        if not found:
            yield "its prompt must be one gated {exercise-start} with a title, and {exercise-end}"
        elif not re.fullmatch(rf"ex-\S*-{re.escape(exercise.name)}", label):
            yield f"its label must be ex-<chapter>-{exercise.name}, not {label}"
    yield from _code_problems(exercise)


def _cell_problems(cell: NotebookNode) -> Iterator[str]:
    own, points = tagged.roles(cell), cell.metadata.get("points")
    others = [tag for tag in tagged.tags(cell) if tag not in own]
    if unknown := [tag for tag in others if not tagged.DISPLAY.fullmatch(tag)]:
        yield f"unknown tag {unknown[0]!r}: {', '.join(tagged.ROLES)} are known"
    elif not own and cell.cell_type == "code":
        yield f"a code cell has none of the tags {', '.join(tagged.ROLES[:-1])}"
    if len(own) > 1:
        yield f"a cell is tagged {' and '.join(own)}: one of them"
    if own and (cell.cell_type == "markdown") != (own[0] == tagged.TEXT):
        yield f"a {cell.cell_type} cell is tagged {own[0]!r}"
    if own and own[0] in (TESTS, HIDDEN):
        if type(points) is not int or points < 1:
            yield f"the points of its {own[0]} must be a positive whole number, not {points!r}"
    elif points is not None:
        yield f"points={points!r} stands on a cell that is no test"


def _code_problems(exercise: Exercise) -> Iterator[str]:
    solution = exercise.solution
    try:
        defined = functions(solution)
        for test in exercise.tests:
            ast.parse(test.source)
    except SyntaxError as error:
        yield f"a cell is not Python: {error.msg} in {(error.text or '').strip()!r}"
        return
    if solution and (solution.count(BEGIN) != solution.count(END) or BEGIN not in solution):
        yield f"its solution needs {BEGIN} and {END}"
    if solution and not defined:
        yield "its solution defines no function"
    for name, node in defined.items():
        if not ast.get_docstring(node):
            yield f"{name} has no docstring"


def undefined(sources: Iterable[str]) -> list[str]:
    """The names that code uses without giving them a value, Python's own aside; none where it is
    no Python."""
    try:
        tables = [symtable.symtable("\n".join(sources), "cells", "exec")]
    except SyntaxError:  # reported where the cell is read
        return []
    for table in tables:
        tables += table.get_children()
    known = set(dir(builtins)) | {
        symbol.get_name() for symbol in tables[0].get_symbols() if symbol.is_local()
    }
    used = {
        symbol.get_name()
        for table in tables
        for symbol in table.get_symbols()
        if symbol.is_referenced() and symbol.is_global()
    }
    return sorted(used - known)


def functions(source: str) -> dict[str, ast.FunctionDef]:
    """The functions that a cell defines at its top."""
    return {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
