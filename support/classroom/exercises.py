"""The exercises of a chapter, read from its tagged cells, and everything that can be wrong with
them.

============================================
===================================================================================== cell
                              what it holds ============================================
                              =====================================================================================
``tags=["assignment"]``                      the imports and small givens that every exercise may
use; runs alone in a fresh kernel ``tags=["assignment-parameters"]``           ``SEED = 0``, which a
course may set for each student ``exercise="name"`` (markdown)               the prompt, between
``{exercise-start}`` and ``{exercise-end}`` ``tags=["solution"] exercise="name"``        functions
whose bodies stand between ``### BEGIN SOLUTION`` and ``### END SOLUTION`` ``tags=["tests"]
exercise="name" points=1``  tests that the student sees ``tags=["hidden-tests"] ...``
tests that only the grader runs ``tags=["solution-text"] ...`` (markdown)    why the solution is
right; shown on the page, not in an assignment ============================================
=====================================================================================
"""

import ast
import builtins
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
from nbformat import NotebookNode

from support.book import manifests
from support.common import paths

GIVENS, PARAMETERS = "assignment", "assignment-parameters"
SOLUTION, TESTS, HIDDEN, TEXT = "solution", "tests", "hidden-tests", "solution-text"
ROLES = (SOLUTION, TESTS, HIDDEN, TEXT)
DISPLAY = re.compile(
    r"(hide|remove)-(input|output|cell)|output_scroll|nbval-[\w-]+|raises-exception"
)
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
MOST_WRONG = 3
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_START = re.compile(
    r"^(`{3,}|:{3,})\{exercise-start\}(?P<title>[^\n]*)\n(?P<options>(?::[\w-]+:[^\n]*\n)*)\s*\1[ \t]*$",
    re.M,
)
_STOP = re.compile(r"^(`{3,}|:{3,})\{exercise-end\}\s*\n\1[ \t]*$", re.M)
_SEED = re.compile(r"^SEED\s*=\s*-?\d+", re.M)


class AssignmentError(ValueError):
    """An assignment cannot be made, or a request about one cannot be carried out; the message says
    why."""


@dataclass(frozen=True)
class TestCell:
    """One graded cell: its code, its points, and whether the student sees it."""

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
    def answer(self) -> str:
        """The solution as a student would hand it in: without the markers."""
        return "\n".join(
            line for line in self.solution.splitlines() if line.strip() not in (BEGIN, END)
        )


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


@dataclass(frozen=True)
class WrongAnswer:
    """A plausible wrong answer to an exercise, what is wrong with it, and the score that it must
    get."""

    exercise: str
    mistake: str
    points: int
    source: str


def read(chapter: str, private: Path | None = None) -> Assignment:
    """The assignment of a chapter, with a teacher's own folder laid over it where one is given.

    Raises:
        AssignmentError: its cells have problems; the message lists them.
    """
    from support.classroom.private import overlaid

    cells = cells_of(manifests.source_file(chapter))
    assignment, problems = examine(chapter, overlaid(chapter, cells, private) if private else cells)
    if problems:
        raise AssignmentError(
            f"{chapter}{f' with {private}' if private else ''}: " + "; ".join(problems)
        )
    return assignment


def cells_of(file: Path) -> list[NotebookNode]:
    """The cells of a source file."""
    return jupytext.read(file).cells


def examine(chapter: str, cells: list[NotebookNode]) -> tuple[Assignment, list[str]]:
    """The assignment in some cells as far as it can be read, and what is wrong with it, one line
    for each problem."""
    headings = (
        line[2:].strip()
        for cell in cells
        for line in cell.source.splitlines()
        if line.startswith("# ")
    )
    title = next(headings, chapter)
    problems = [*_misplaced(cells)]
    givens = tuple(cell.source for cell in cells if GIVENS in tags(cell))
    parameters = [cell.source for cell in cells if PARAMETERS in tags(cell)]
    groups: dict[str, list[NotebookNode]] = {}
    for cell in cells:
        if "exercise" in cell.metadata:
            groups.setdefault(str(cell.metadata["exercise"]), []).append(cell)
    exercises = []
    for name, group in groups.items():
        exercise, found = _exercise(name, group)
        exercises.append(exercise)
        problems += [f"exercise {name!r}: {problem}" for problem in found]
    if not groups:
        problems.append("no cell has exercise=...: the chapter has no graded exercise")
    elif not givens:
        problems.append(f'no cell is tagged "{GIVENS}": the imports of the exercises')
    if groups and (len(parameters) != 1 or not _SEED.search(parameters[0])):
        problems.append(
            f'exactly one cell tagged "{PARAMETERS}" must set SEED = 0; there are {len(parameters)}'
        )
    shared = _bound([*givens, *parameters])
    problems += _unknown("the givens", [*givens, *parameters], shared)
    for exercise in exercises:
        own = [exercise.solution, *(test.source for test in exercise.tests)]
        problems += _unknown(f"exercise {exercise.name!r}", own, shared | _bound(own))
    return Assignment(chapter, title, givens, "\n".join(parameters), tuple(exercises)), problems


def with_seed(parameters: str, seed: int) -> str:
    """The parameters cell with another number after ``SEED =``."""
    return _SEED.sub(f"SEED = {seed}", parameters, count=1)


# --- one exercise -----------------------------------------------------------------------------------------------------------------


def tags(cell: NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


def role(cell: NotebookNode) -> str:
    """What a cell of an exercise is: one of :data:`ROLES`, ``"prompt"``, or nothing known."""
    roles = [tag for tag in tags(cell) if tag in ROLES]
    return roles[0] if roles else ("prompt" if cell.cell_type == "markdown" else "")


def _misplaced(cells: Iterable[NotebookNode]) -> Iterator[str]:
    """Role tags and points on cells of no exercise, and exercises whose cells do not stand
    together."""
    closed, last = set(), None
    for number, cell in enumerate(cells, 1):
        name = cell.metadata.get("exercise")
        if name is None:
            for tag in tags(cell):
                if tag in ROLES:
                    yield f'cell {number} is tagged "{tag}" and has no exercise="..."'
            if "points" in cell.metadata:
                yield f'cell {number} has points and no exercise="..."'
            continue
        if name in closed:
            yield f"exercise {name!r}: the name is used twice, or other cells stand between its cells (cell {number})"
        if name != last and last is not None:
            closed.add(last)
        last = name


def _exercise(name: str, cells: list[NotebookNode]) -> tuple[Exercise, list[str]]:
    problems = [] if _NAME.fullmatch(name) else ["its name must be lower-case words with hyphens"]
    for cell in cells:
        problems += _cell_problems(cell)
    by_role = {kind: [cell for cell in cells if role(cell) == kind] for kind in ("prompt", *ROLES)}
    for kind, least, most in (
        ("prompt", 1, 1),
        (SOLUTION, 1, 1),
        (TESTS, 1, None),
        (HIDDEN, 1, None),
    ):
        count = len(by_role[kind])
        if count < least or (most and count > most):
            problems.append(
                f"it has {count} cells of the kind {kind!r}, {'exactly' if most else 'at least'} {least} wanted"
            )
    found = _START.search(by_role["prompt"][0].source) if by_role["prompt"] else None
    label = re.search(r"^:label:\s*(\S+)", found["options"], re.M) if found else None
    if by_role["prompt"] and (
        not found or not found["title"].strip() or not _STOP.search(by_role["prompt"][0].source)
    ):
        problems.append(
            "its prompt must be one gated {exercise-start} with a title and one {exercise-end}"
        )
    elif found and not (label and label[1].startswith("ex-") and label[1].endswith(f"-{name}")):
        problems.append(
            f"its label must be ex-<chapter>-{name}, not {label[1] if label else 'none'}"
        )
    prompt = _prompt(by_role["prompt"][0].source) if found else ""
    solution = by_role[SOLUTION][0].source if by_role[SOLUTION] else ""
    tests = tuple(
        TestCell(
            cell.source,
            points if isinstance(points := cell.metadata.get("points"), int) else 0,
            role(cell) == HIDDEN,
        )
        for cell in cells
        if role(cell) in (TESTS, HIDDEN)
    )
    problems += _code_problems(solution, tests)
    return Exercise(
        name, found["title"].strip() if found else name, prompt, solution, tests
    ), problems


def _prompt(source: str) -> str:
    """The text of a gated exercise without its gates."""
    return _STOP.sub("", _START.sub("", source, count=1)).strip()


def _cell_problems(cell: NotebookNode) -> Iterator[str]:
    unknown = [tag for tag in tags(cell) if tag not in ROLES and not DISPLAY.fullmatch(tag)]
    if unknown:
        yield f"unknown tag {unknown[0]!r}: {', '.join(ROLES)} are known"
    roles = [tag for tag in tags(cell) if tag in ROLES]
    if len(roles) > 1:
        yield f"a cell is tagged {' and '.join(roles)}: one of them"
    if not roles and cell.cell_type == "code" and not unknown:
        yield f"a code cell has none of the tags {', '.join(ROLES[:-1])}"
    if roles and (cell.cell_type == "markdown") != (roles[0] == TEXT):
        yield f"a {cell.cell_type} cell is tagged {roles[0]!r}"
    points = cell.metadata.get("points")
    if roles and roles[0] in (TESTS, HIDDEN):
        if not isinstance(points, int) or isinstance(points, bool) or points < 1:
            yield f"the points of its {roles[0]} must be a positive whole number, not {points!r}"
    elif points is not None:
        yield f"points={points!r} stands on a cell that is no test"


def _code_problems(solution: str, tests: Iterable[TestCell]) -> Iterator[str]:
    try:
        defined = functions(solution)
        trees = [(test, ast.parse(test.source)) for test in tests]
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
    calls, asserts = (
        set(defined),
        {"assert_allclose", "assert_array_equal", "assert_close", "assert_equal"},
    )
    for test, body in trees:
        kind = HIDDEN if test.hidden else TESTS
        for helper in (
            node for node in body.body if isinstance(node, ast.FunctionDef)
        ):  # later cells may use what earlier ones define
            calls |= {helper.name} if _names(helper) & calls else set()
            asserts |= {helper.name} if _asserts(helper, asserts) else set()
        if defined and not _names(body) & calls:
            yield f"a cell of its {kind} calls none of {', '.join(defined)}: an empty answer would pass it"
        if not _asserts(body, asserts):
            yield f"a cell of its {kind} asserts nothing"
        last = body.body[-1] if body.body else None
        if isinstance(last, ast.Expr) and not isinstance(last.value, ast.Call):
            yield f"a cell of its {kind} ends in a value, which nbgrader would take for the points"


def _names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _asserts(tree: ast.AST, known: set[str]) -> bool:
    called = {
        getattr(node.func, "attr", getattr(node.func, "id", ""))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    }
    return bool(called & known) or any(isinstance(node, ast.Assert) for node in ast.walk(tree))


# --- names ------------------------------------------------------------------------------------------------------------------------


def _bound(sources: Iterable[str]) -> set[str]:
    """Every name that some code gives a value anywhere in it."""
    names: set[str] = set()
    for node in (node for tree in _trees(sources) for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names


def _trees(sources: Iterable[str]) -> Iterator[ast.Module]:
    for source in sources:
        try:
            yield ast.parse(source)
        except SyntaxError:  # reported where the cell is read
            continue


def _unknown(who: str, sources: list[str], known: set[str]) -> list[str]:
    used = {name for tree in _trees(sources) for name in _names(tree)}
    missing = sorted(used - known - set(dir(builtins)))
    return (
        [
            f"{who} uses {', '.join(missing)}, which neither it nor the cells tagged {GIVENS!r} define"
        ]
        if missing
        else []
    )


def functions(source: str) -> dict[str, ast.FunctionDef]:
    """The functions that a cell defines at its top."""
    return {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}


def arguments(function: ast.FunctionDef) -> list[str]:
    """The names of a function's arguments, in order."""
    return [node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)]


# --- wrong answers ----------------------------------------------------------------------------------------------------------------


def wrong_answers_file(chapter: str) -> Path:
    """Where the wrong answers to a chapter's exercises stand."""
    return paths.root() / "tests" / "wrong_answers" / f"{chapter}.py"


def wrong_answers(assignment: Assignment) -> tuple[list[WrongAnswer], list[str]]:
    """The wrong answers to an assignment, in the order of their file, and what is wrong with that
    file."""
    file = wrong_answers_file(assignment.chapter)
    if not file.is_file():
        return [], [
            f"{file.name}: there are no wrong answers: tests/wrong_answers/{file.name} is missing"
        ]
    answers, problems = [], []
    exercises = {exercise.name: exercise for exercise in assignment.exercises}
    for cell in cells_of(file):
        if cell.cell_type == "code" and "exercise" in cell.metadata:
            answer, found = _wrong_answer(cell.metadata, cell.source, exercises)
            answers.append(answer)
            problems += [f"wrong answer to {answer.exercise!r}: {problem}" for problem in found]
    for name in exercises:
        count = sum(answer.exercise == name for answer in answers)
        if not 1 <= count <= MOST_WRONG:
            problems.append(
                f"exercise {name!r}: it has {count} wrong answers, 1 to {MOST_WRONG} wanted"
            )
    return answers, problems


def _wrong_answer(
    given: dict[str, Any], source: str, exercises: dict[str, Exercise]
) -> tuple[WrongAnswer, list[str]]:
    problems, points = [], given.get("points")
    exercise = exercises.get(given["exercise"])
    if exercise is None:
        problems.append("there is no such exercise")
    elif (
        not isinstance(points, int) or isinstance(points, bool) or not 0 <= points < exercise.points
    ):
        problems.append(
            f"its points must be a whole number from 0 to {exercise.points - 1}, not {points!r}"
        )
    if not str(given.get("mistake") or "").strip():
        problems.append('it does not say its mistake="..."')
    try:
        found, wanted = functions(source), functions(exercise.solution) if exercise else {}
    except SyntaxError as error:
        problems.append(f"it is not Python: {error.msg}")
    else:
        if wanted and not set(found) & set(wanted):
            problems.append(f"it defines none of {', '.join(wanted)}")
        for name in set(found) & set(wanted):
            if arguments(found[name]) != arguments(wanted[name]):
                problems.append(
                    f"{name}({', '.join(arguments(found[name]))}) must have the arguments {', '.join(arguments(wanted[name]))}"
                )
    return WrongAnswer(
        str(given["exercise"]),
        str(given.get("mistake", "")),
        points if isinstance(points, int) else 0,
        source,
    ), problems
