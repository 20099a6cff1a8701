"""The house keeps its plan: which room may know which, one name for each module, and cells that a reader can read."""

import ast
import functools
import graphlib
import re
import sys
from pathlib import Path

import jupytext
import pytest
from torch.utils._device import _device_constructors

from support.common import paths

ROOT = paths.root()
PRESS, CLASSROOM = "support.book", "support.classroom"
COLUMNS, OPEN_LINES = 88, 15
# Tags of cells that a page folds: by themselves, or within the solution of an exercise.
CLOSED = {"hide-input", "hide-cell", "remove-input", "remove-cell", "solution", "tests", "hidden-tests"}


def _name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {_name(file): file for file in sorted((ROOT / "support").rglob("*.py"))}
CHAPTERS = sorted((ROOT / "book").glob("[0-9][0-9]_*/*.py"))


@functools.cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imported(module: str, nodes: list[ast.AST]) -> set[str]:
    """The modules of the package that some statements of a module import."""
    found = set()
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            # A package that is asked for one of its modules has no say in it; else it is what is imported.
            inside = {name.name: f"{origin}.{name.name}" for name in node.names}
            found |= {inside[name] if inside[name] in FILES else origin for name in inside}
    return found & set(FILES)


def room(module: str) -> str:
    """``press``, ``classroom``, ``door`` (the command line) or ``science``."""
    rooms = {PRESS: "press", CLASSROOM: "classroom", "support.cli": "door", "support.__main__": "door"}
    return next((name for place, name in rooms.items() if f"{module}.".startswith(f"{place}.")), "science")


@pytest.mark.parametrize(
    ("which", "never"),
    [("science", {"press", "classroom", "door"}), ("press", {"classroom", "door"}), ("classroom", {"door"})],
)
def test_a_room_does_not_know_the_rooms_above_it(which, never):
    here = [module for module in FILES if room(module) == which]
    assert len(here) > 5
    known = {(module, other) for module in here for other in imported(module, list(ast.walk(tree(FILES[module]))))}
    assert [f"{module} imports {other}" for module, other in sorted(known) if room(other) in never] == []


def test_the_ground_floor_stands_on_nothing():
    here = [module for module in FILES if module.startswith("support.common.")]
    known = {(module, other) for module in here for other in imported(module, list(ast.walk(tree(FILES[module]))))}
    assert [f"{module} imports {other}" for module, other in sorted(known) if not other.startswith("support.common")] == []


def test_modules_do_not_import_each_other_in_a_circle():
    graph = {module: imported(module, tree(file).body) for module, file in FILES.items()}
    assert sum(map(len, graph.values())) > 100
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_no_module_uses_an_underscore_name_of_another():
    found = []
    for module, file in FILES.items():
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("support")):
                found += [f"{module} imports {name.name}" for name in node.names if re.match(r"_[a-z]", name.name)]
        bound = {
            name.asname or name.name
            for node in ast.walk(tree(file))
            if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("support"))
            for name in node.names
            if f"{node.module}.{name.name}" in FILES or node.level
        }
        found += [
            f"{module} uses {node.value.id}.{node.attr}"
            for node in ast.walk(tree(file))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            if node.value.id in bound and re.match(r"_[A-Za-z]", node.attr)
        ]
    assert found == []


def test_each_module_has_a_name_of_its_own():
    names = [module.rpartition(".")[2] for module, file in FILES.items() if file.name not in ("__init__.py", "__main__.py")]
    assert len(names) > 40
    assert sorted({name for name in names if names.count(name) > 1}) == []
    assert sorted(set(names) & sys.stdlib_module_names) == []


def test_what_makes_a_tensor_says_on_which_device():
    """Else it follows ``torch.set_default_device``, and meets tensors of another device."""
    makers, calls = {function.__name__ for function in _device_constructors()}, []
    for module, file in FILES.items():
        for node in ast.walk(tree(file)):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
            if named and node.func.value.id == "torch" and node.func.attr in makers:
                said = any(keyword.arg in ("device", None) for keyword in node.keywords)  # None: of **settings
                calls.append((said, f"{module}, line {node.lineno}: torch.{node.func.attr}"))
    assert len(calls) > 50
    assert [call for said, call in calls if not said] == []


# --- the chapters -----------------------------------------------------------------------------------------------------------------


def place(file: Path) -> str:
    return file.relative_to(ROOT / "book").as_posix()


@pytest.mark.parametrize("file", CHAPTERS, ids=place)
def test_a_reader_can_read_the_cells(file):
    problems = []
    for number, cell in enumerate(jupytext.read(file).cells, 1):
        lines = cell.source.splitlines() if cell.cell_type == "code" else []
        if wide := [line for line in lines if len(line) > COLUMNS]:
            problems.append(f"cell {number}: {max(map(len, wide))} columns, {wide[0].strip()[:50]}")
        code = [line for line in lines if line.strip()]
        if len(code) > OPEN_LINES and not CLOSED & set(cell.metadata.get("tags", [])):
            problems.append(f"cell {number}: {len(code)} lines in the open, {code[0][:50]}")
    assert problems == []


@pytest.mark.parametrize("file", CHAPTERS, ids=place)
def test_a_chapter_has_no_plumbing_in_sight(file):
    problems = []
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Lambda) and (node.args.defaults or any(node.args.kw_defaults)):
            problems.append(f"line {node.lineno}: a lambda with a default")
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr == "unit":
                problems.append(f"line {node.lineno}: a key for the cache; run.once makes its own")
            if any(keyword.arg == "code" for keyword in node.keywords):
                problems.append(f"line {node.lineno}: code= for the cache")
    assert problems == []
