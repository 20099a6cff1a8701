"""The hash of the code a record was computed with: what makes it stale.

Only what can change a number counts. Comments, docstrings, blank lines and formatting do not; nor
do the modules that only draw, file, judge or talk to a person (:data:`PRESENTATION`): verdicts are
computed afresh from the recorded numbers. Of a module that is reached, only the definitions that
are used count, and what these use in their turn: a kernel that a later chapter adds leaves the
records of the earlier ones as they are. Nor do functions count that only refuse bad input
(:func:`_refuses`), nor a chapter's figures: the cells that are named ``fig-...``, as long as no
other cell uses a name that they give a value.

This reads sources, because a record's age must be known without running anything. What decides a
result while it runs is :mod:`support.common.identity`.
"""

import ast
import dis
import hashlib
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from types import CodeType

PACKAGE = Path(__file__).resolve().parents[1]
PRESENTATION = (
    "support.book.carry", "support.book.claims", "support.book.computed_pages",
    "support.book.execute", "support.book.manifests", "support.book.movable",
    "support.book.parallel", "support.book.plots", "support.book.publish",
    "support.book.registry_index", "support.book.sphinx_offline", "support.book.sphinx_pages",
    "support.book.units", "support.book.verdict_table", "support.classroom", "support.cli",
    "support.__main__",
    "support.common.cache", "support.common.files", "support.common.fingerprint",
    "support.common.identity", "support.common.paths", "support.common.progress",
)  # fmt: skip
_CELL = re.compile(r"^(?=# %%)", re.M)
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_FIGURE = re.compile(r'^# %%[^\n]*\bname="fig-')


@dataclass(frozen=True)
class _Source:
    """A parsed Python file: what each top-level name is bound by, and the statements that run
    whenever it is imported."""

    tree: ast.Module
    imports: tuple[tuple[str, str, bool], ...]
    """Name that an import binds, dotted name of what is imported, whether the name stands for that
    (else for its first part)."""
    bound: dict[str, list[ast.stmt]] = field(default_factory=dict)
    always: list[ast.stmt] = field(default_factory=list)


def _canonical(value: object) -> object:
    # ast.dump differs between Python versions (empty fields, type_params); the fields that are set
    # do not.
    if isinstance(value, ast.AST):
        fields = ((name, _canonical(child)) for name, child in ast.iter_fields(value))
        return type(value).__name__, [
            (name, child) for name, child in fields if child not in (None, [])
        ]
    if isinstance(value, list):
        return [_canonical(child) for child in value]
    return repr(value) if value is not None else None


@lru_cache(maxsize=256)
def _parse(text: str, package: str) -> _Source:
    tree = ast.parse(text)
    imports = []
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
        if isinstance(node, ast.Import | ast.ImportFrom):
            origin = f"{_origin(node, package)}." if isinstance(node, ast.ImportFrom) else ""
            imports += [
                (_bound(name), origin + name.name, bool(origin or name.asname))
                for name in node.names
            ]
    source = _Source(tree, tuple(imports))
    for statement in (single for given in tree.body for single in _singly(given)):
        names = list(_binds(statement))
        for name in names:
            source.bound.setdefault(name, []).append(statement)
        if not names and not (
            isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        ):
            source.always.append(statement)
    return source


def _source(file: Path) -> _Source:
    package, text = _package_of(file), file.read_text(encoding="utf-8")
    return _parse(text if package else _without_figures(text), package)


@lru_cache(maxsize=64)
def _without_figures(text: str) -> str:
    """The source of a notebook without the cells that only draw."""
    cells = _CELL.split(text)
    trees = [ast.parse(cell) for cell in cells]
    needed = [_needed(tree) for tree in trees]
    kept = []
    for index, (cell, tree) in enumerate(zip(cells, trees, strict=True)):
        used = set().union(*needed[:index], *needed[index + 1 :])
        if not _FIGURE.match(cell) or _given(tree) & used or _does_more_than_draw(tree):
            kept.append(cell)
    return "".join(kept)


def _needed(tree: ast.Module) -> set[str]:
    """The global names that a cell may read before it gives them a value."""
    needed: set[str] = set()
    given: dict[str, float] = {}  # up to which place a name surely has a value of the cell
    ends = [math.inf]
    steps = dis.get_instructions(compile(tree, "", "exec"))
    waiting = [(step, step.offset, True) for step in steps]
    while waiting:
        step, place, own = waiting.pop(0)
        if isinstance(step.argval, CodeType):  # a function of the cell, as if called at once
            waiting[:0] = [(inner, place, False) for inner in dis.get_instructions(step.argval)]
        elif step.opname in ("LOAD_NAME", "LOAD_GLOBAL"):
            if given.get(step.argval, -1) <= place:
                needed.add(step.argval)
        elif own and step.opcode in dis.hasjrel:
            ends.append(step.argval)  # what is jumped over may not have been done there
        elif own and step.opname == "STORE_NAME":
            until = min(end for end in ends if end > place)
            given[step.argval] = max(until, given.get(step.argval, -1))
    return needed


def _given(tree: ast.AST) -> set[str]:
    """The names to which a cell gives a value, or whose items or attributes it sets."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(getattr(node, "ctx", None), ast.Store | ast.Del):
            while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
                node = node.value
            names |= {node.id} if isinstance(node, ast.Name) else set()
    return names


def _does_more_than_draw(tree: ast.Module) -> bool:
    """Whether a cell defines something, or states or keeps numbers."""
    binding = ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom
    return any(
        isinstance(node, binding)
        or (isinstance(node, ast.Attribute) and node.attr in ("claim", "keep"))
        for node in ast.walk(tree)
    )


def _singly(statement: ast.stmt) -> Iterator[ast.stmt]:
    """An import of several names as one import of each: another name beside it changes nothing for
    the first."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        for name in statement.names:
            yield type(statement)(**dict(ast.iter_fields(statement)) | {"names": [name]})
    else:
        yield statement


def _binds(statement: ast.stmt) -> Iterator[str]:
    """The names that a top-level definition, assignment or import gives a value; none for a
    statement that does more than that."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (_bound(name) for name in statement.names if name.name != "*")
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = [
            node
            for target in targets
            for node in (target.elts if isinstance(target, ast.Tuple | ast.List) else [target])
        ]
        if all(isinstance(node, ast.Name) for node in names):
            yield from (node.id for node in names)


def _bound(name: ast.alias) -> str:
    """The name that an import gives a value: of ``import a.b``, which has no other, ``a``."""
    return name.asname or name.name.split(".")[0]


def _refuses(statement: ast.stmt) -> bool:
    """A function called check, check_..., refuse_... (or with an underscore before), which returns
    nothing: it raises or does nothing."""
    match statement:
        case ast.FunctionDef(name=name, returns=ast.Constant(value=None)):
            return name.removeprefix("_").split("_")[0] in ("check", "refuse")
    return False


def _package_of(file: Path) -> str:
    """Dotted name of the package that a file lies in; empty for a file outside ``support``."""
    if not file.is_relative_to(PACKAGE):
        return ""
    return ".".join(file.relative_to(PACKAGE.parent).parent.parts)


def _origin(node: ast.ImportFrom, folder: str) -> str:
    """Dotted name of what ``from ... import`` imports from; ``folder`` is the package that the
    statement stands in."""
    above = folder.split(".")[: len(folder.split(".")) - node.level + 1] if node.level else []
    return ".".join([*above, *filter(None, [node.module])])


def _file(dotted: str) -> Path | None:
    return _file_in(PACKAGE, dotted)


@lru_cache(maxsize=4096)
def _file_in(package: Path, dotted: str) -> Path | None:
    """The file of a module of the package, unless it only presents; None of all others."""
    head, *tail = dotted.split(".")
    silent = any(dotted == name or dotted.startswith(f"{name}.") for name in PRESENTATION)
    if head != package.name or not tail or silent:
        return None
    path = package.joinpath(*tail)
    places = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in places if file.is_file()), None)


def _reached(entries: Iterable[Path]) -> dict[Path, _Source]:
    """The files that ``entries`` import inside the package, the packages on the way included,
    themselves first."""
    queue, sources = list(entries), {}
    while queue:
        file = queue.pop()
        if file in sources:
            continue
        sources[file] = _source(file)
        for _, dotted, _ in sources[file].imports:
            parts = dotted.split(".")
            lengths = range(2, len(parts) + 1) if parts[0] == PACKAGE.name else ()
            queue += [target for length in lengths if (target := _file(".".join(parts[:length])))]
    return sources


class _Used:
    """The definitions that some statements use, found by following names, imports and attributes of
    modules."""

    def __init__(self, sources: dict[Path, _Source]) -> None:
        self.sources = sources
        self.found: dict[tuple[Path, str], None] = {}
        self._queue: list[tuple[Path, str]] = []

    def need(self, file: Path, name: str) -> None:
        """One definition of a file, if it has it."""
        bound = self.sources[file].bound
        if name in bound and (file, name) not in self.found and not all(map(_refuses, bound[name])):
            self.found[file, name] = None
            self._queue.append((file, name))

    def definitions(self) -> list[tuple[Path, str]]:
        """All that were needed so far, with what they use in their turn."""
        while self._queue:
            file, name = self._queue.pop()
            self.refer(file, self.sources[file].bound[name])
        return list(self.found)

    def refer(self, file: Path, nodes: Iterable[ast.AST]) -> None:
        """What some statements of a file refer to."""
        for node in nodes:
            if isinstance(node, ast.ImportFrom):
                self._import_from(file, node)
            elif isinstance(node, ast.Attribute | ast.Name):
                self._chain(file, node)
            else:
                self.refer(file, ast.iter_child_nodes(node))

    def _import_from(self, file: Path, node: ast.ImportFrom) -> None:
        """What ``from module import name`` takes; of a module that is imported so, what is used
        shows where its attributes are."""
        origin = _origin(node, _package_of(file))
        home = _file(origin)
        for part in node.names:
            if part.name == "*" and home:
                self._whole(home)
            elif home and not _file(f"{origin}.{part.name}"):
                self.need(home, part.name)

    def _chain(self, file: Path, node: ast.expr) -> None:
        """A name or a chain of attributes: as far as it leads through modules of the package, only
        what is taken from the last counts."""
        attributes: list[str] = []
        while isinstance(node, ast.Attribute):
            attributes.insert(0, node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            self.refer(file, [node])
            return
        self.need(file, node.id)
        for bound, dotted, itself in self.sources[file].imports:
            if bound != node.id:
                continue
            module, rest = dotted if itself else bound, list(attributes)
            while rest and _file(f"{module}.{rest[0]}"):
                module = f"{module}.{rest.pop(0)}"
            home = _file(module)
            if home and rest:
                self.need(home, rest[0])
            elif home:
                self._whole(home)  # handed on as it is: anything in it may be used

    def _whole(self, file: Path) -> None:
        for name in self.sources[file].bound:
            self.need(file, name)


def digest(entries: Iterable[Path]) -> str:
    """Hash of the syntax trees of ``entries`` and of every definition in ``support`` that they use.

    Names are followed through imports and through attributes of modules; a module that is handed on
    as a value counts whole, and of every module that is imported the statements that are no
    definitions. What is looked up by a computed name is not seen.

    Args:
        entries: Python files, which count whole: chapter sources or modules
            (``Path(module.__file__)``).

    Returns:
        The first 16 hexadecimal digits of a SHA-256 sum; equal for sources that differ in comments,
        docstrings or layout.
    """
    sums = sorted((*where, total) for where, total in definitions(entries).items())
    return hashlib.sha256(repr(sums).encode()).hexdigest()[:16]


def definitions(entries: Iterable[Path]) -> dict[tuple[str, str], str]:
    """What :func:`digest` is made of: (file, name) -> the hash of each definition that is used;
    ``"the file"`` stands for an entry as a whole, ``"on import"`` for a module's other statements.
    """
    wanted = [Path(entry).resolve() for entry in entries]
    sources = _reached(wanted)
    used, found = _Used(sources), {}
    for file in wanted:
        whole = sources[file].tree.body
        found[file.name, "the file"] = meaning(*whole)
        used.refer(file, whole)
    for file, source in sources.items():
        if source.always:
            used.refer(file, source.always)
            found[_place(file), "on import"] = meaning(*source.always)
    for file, name in used.definitions():
        if file not in wanted:
            found[_place(file), name] = meaning(*sources[file].bound[name])
    return found


@cache  # a book asks for most of them many times
def meaning(*code: ast.stmt) -> str:
    """Hash of statements without what only a person reads."""
    return hashlib.sha256(repr(_canonical(list(code))).encode()).hexdigest()


def notebook_code(file: Path) -> list[ast.stmt]:
    """The statements of a notebook's source that count: without docstrings and figures."""
    return _source(file).tree.body


def _place(file: Path) -> str:
    """Where a file lies in the package: two of them may share a name. Of a file outside it, the
    name."""
    return str(file.relative_to(PACKAGE) if file.is_relative_to(PACKAGE) else file.name)
