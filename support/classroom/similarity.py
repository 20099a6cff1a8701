"""Which students' functions are alike: the same code but for names, comments and layout."""

import ast
import io
import itertools
import tokenize
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_LENGTH = 5  # tokens of a piece that two answers are compared by
_LEAST = 60  # pieces: shorter answers are alike by themselves
_ALIKE = 0.8  # of the pieces of both that both have
_COMMON = 0.2  # of the class: what that many write is the natural answer


class Pair(NamedTuple):
    """Two students, and the exercises in which their answers are alike."""

    one: str
    other: str
    exercises: tuple[str, ...]


class _Plain(ast.NodeTransformer):
    """Names in the order in which they occur, and no documentation."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def _name(self, name: str) -> str:
        return self.known.setdefault(name, f"v{len(self.known)}")

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.copy_location(ast.Name(self._name(node.id), node.ctx), node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.copy_location(ast.arg(self._name(node.arg)), node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        node.name = self._name(node.name)
        return self.generic_visit(node)


def pieces(source: str) -> frozenset[tuple[str, ...]]:
    """What answers are compared by: runs of tokens; none of code that is no Python."""
    try:
        plain = ast.unparse(_Plain().visit(ast.parse(source)))
        tokens = tokenize.generate_tokens(io.StringIO(plain).readline)
        words = [token.string for token in tokens if token.string.strip()]
    except (SyntaxError, tokenize.TokenError, RecursionError, ValueError):
        return frozenset()
    return frozenset(zip(*(words[start:] for start in range(_LENGTH)), strict=False))


def pairs(answers: Mapping[str, Mapping[str, str]]) -> list[Pair]:
    """Pairs of students to look at, the most alike first. It is no verdict.

    Args:
        answers: by exercise and student, the code.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for exercise, of in answers.items():
        known = {student: pieces(source) for student, source in of.items()}
        long = {student: mine for student, mine in known.items() if len(mine) >= _LEAST}
        alike = [each for each in itertools.combinations(long, 2) if _alike(*map(long.get, each))]
        for pair in _rare(alike, len(of)):
            found.setdefault(pair, []).append(exercise)
    made = [Pair(*pair, tuple(exercises)) for pair, exercises in found.items()]
    return sorted(made, key=lambda pair: (-len(pair.exercises), pair))


def _alike(one: frozenset, other: frozenset) -> bool:
    return len(one & other) >= _ALIKE * len(one | other)


def _rare(alike: list[tuple[str, str]], size: int) -> Iterable[tuple[str, str]]:
    """Those pairs whose students are not like a large part of the class."""
    count: dict[str, int] = {}
    for student in itertools.chain.from_iterable(alike):
        count[student] = count.get(student, 0) + 1
    most = max(3, _COMMON * size)
    return [pair for pair in alike if max(map(count.get, pair)) <= most]
