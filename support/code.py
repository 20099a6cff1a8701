"""The hash of the code a result was computed with: what makes a record stale and a cache entry a miss.

Only what can change a number counts. Comments, docstrings, blank lines and formatting do not; nor do the modules that
only draw, file, judge or talk to a person (:data:`PRESENTATION`): verdicts are computed afresh from the recorded numbers.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
PRESENTATION = frozenset(
    {"__main__", "assignments", "claims", "cli", "environment", "paths", "plots", "progress", "publish", "records", "runner", "scoreboard"}
)


def _without_docstring(node: ast.AST) -> ast.AST:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
        node.body = node.body[1:]
    return node


def _canonical(value: object) -> object:
    # ast.dump differs between Python versions (empty fields, type_params); the fields that are set do not.
    if isinstance(value, ast.AST):
        fields = ((name, _canonical(child)) for name, child in ast.iter_fields(_without_docstring(value)))
        return type(value).__name__, [(name, child) for name, child in fields if child not in (None, [])]
    if isinstance(value, list):
        return [_canonical(child) for child in value]
    return repr(value) if value is not None else None


@lru_cache(maxsize=512)  # a pure function of the text, and a report asks for the same few files dozens of times
def _sum(text: str) -> str:
    """Checksum of what a source does."""
    return hashlib.sha256(repr(_canonical(ast.parse(text))).encode()).hexdigest()


@lru_cache(maxsize=512)
def _imports(text: str, folder: str) -> tuple[str, ...]:
    """Dotted names of the modules that a source imports, the packages on the way included; ``folder`` is the package it lies in."""
    return tuple(_names(ast.parse(text), folder))


def _names(tree: ast.AST, folder: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = folder.split(".")[: len(folder.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names = [f"{base}.{name.name}" for name in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def _file(dotted: str) -> Path | None:
    head, *tail = dotted.split(".")
    if head != PACKAGE.name or not tail or tail[0] in PRESENTATION:
        return None
    path = PACKAGE.joinpath(*tail)
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def reached(entry: Path) -> list[Path]:
    """The Python files that ``entry`` (a chapter or a module of ``support``) reaches inside the package, itself first."""
    found: dict[Path, None] = {}
    queue = [entry.resolve()]
    while queue:
        file = queue.pop()
        if file in found:
            continue
        found[file] = None
        folder = ".".join([PACKAGE.name, *file.parent.relative_to(PACKAGE).parts]) if file.is_relative_to(PACKAGE) else ""
        queue += [target for name in _imports(file.read_text(encoding="utf-8"), folder) if (target := _file(name))]
    return list(found)


def digest(entries: Iterable[Path]) -> str:
    """Hash of the syntax trees of ``entries`` and of every ``support`` module that they reach.

    Args:
        entries: Python files: chapter sources or modules (``Path(module.__file__)``).

    Returns:
        The first 16 hexadecimal digits of a SHA-256 sum; equal for sources that differ in comments, docstrings or layout.
    """
    files = {file for entry in entries for file in reached(Path(entry))}
    sums = sorted((file.name, _sum(file.read_text(encoding="utf-8"))) for file in files)
    return hashlib.sha256(repr(sums).encode()).hexdigest()[:16]
