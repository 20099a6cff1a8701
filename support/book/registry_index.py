"""Completeness of the registry: an index of all that the papers assert, held against the claims,
and whether there is what shows each erratum.

``data/claims/index/<key>.yml`` lists, in the paper's order, everything that is numbered and every
passage that asserts something, each with the claims that stand for it; ``exclusions.yml`` lists by
range what stands for none, with the reason; a test compares.
"""

import ast
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from support.book import claims, manifests
from support.book.rules import ClaimError, Strict
from support.common import paths

EXCLUSIONS = "exclusions"
_KIND = (
    "(Theorem|Lemma|Proposition|Corollary|Definition|Remark|Conjecture|Algorithm|Table|Figure"
    "|Equation)s?"
)
_RANGE = re.compile(rf"{_KIND} (\d+\.)?(\d+) to (?:\2)?(\d+)")
_NUMBER = r"\d+(?:\.\d+)*[a-z]?"
# "After Theorem 2", "on Table 1" and "at Figure 24" name what stands near the thing, not the thing.
_NAMED = re.compile(
    rf"(?<!after )(?<!on )(?<!at ){_KIND} ({_NUMBER}(?:(?:, | and | to ){_NUMBER})*)", re.IGNORECASE
)


class Passage(Strict):
    """A place in a paper and the ids of the claims that stand for it; none for one that is
    excluded."""

    at: Annotated[str, Field(min_length=1)]
    claims: tuple[str, ...] = ()


class Group(Strict):
    """Places that no claim stands for, as names or ranges (``Equations 20 to 29``), and the
    reason."""

    items: Annotated[tuple[str, ...], Field(min_length=1)]
    reason: Annotated[str, Field(min_length=1)]


class _Index(Strict):
    passages: Annotated[tuple[Passage, ...], Field(min_length=1)]


class _Exclusions(Strict):
    papers: dict[str, tuple[Group, ...]]


def folder() -> Path:
    """Where the index lies."""
    return claims.folder() / "index"


def _read(name: str, schema: type[BaseModel]) -> Any:
    file = folder() / f"{name}.yml"
    if not file.is_file():
        raise ClaimError(f"no file {file.name} in data/claims/index")
    return claims.parsed(f"index/{file.name}", file.read_text(encoding="utf-8"), schema)


def papers() -> list[str]:
    """Keys of the papers that have an index."""
    return sorted(file.stem for file in folder().glob("*.yml") if file.stem != EXCLUSIONS)


def index(key: str) -> list[Passage]:
    """The index of a paper.

    Raises:
        ClaimError: no such file, or one that breaks the schema.
    """
    return list(_read(key, _Index).passages)


def exclusions() -> list[tuple[str, Group]]:
    """What is left out, by paper; empty where there is no such list.

    Raises:
        ClaimError: a list that breaks the schema.
    """
    if not (folder() / f"{EXCLUSIONS}.yml").is_file():
        return []
    return [
        (key, group)
        for key, groups in _read(EXCLUSIONS, _Exclusions).papers.items()
        for group in groups
    ]


def expanded(name: str) -> list[str]:
    """The single names that a range stands for: ``Definitions 1.2 to 1.3`` is ``Definition 1.2``
    and ``Definition 1.3``."""
    found = _RANGE.fullmatch(name)
    return (
        [f"{found[1]} {found[2] or ''}{last}" for last in range(int(found[3]), int(found[4]) + 1)]
        if found
        else [name]
    )


def named(where: str) -> list[str]:
    """The numbered things that a place in a paper names: ``Figure 4; Definitions 3.1 and 3.2``
    names three."""
    return [
        name
        for kind, numbers in _NAMED.findall(where)
        for part in re.split(r", | and ", numbers)
        for name in expanded(f"{kind.capitalize()} {part}")
    ]


def shown(erratum: claims.Erratum) -> bool:
    """Whether there is the test that shows an erratum, or the cell that states this claim."""
    place, _, claim = erratum.shown_by.partition("#")
    if claim:
        source = manifests.source_file(*place.split("/"))
        text = source.read_text(encoding="utf-8") if source.is_file() else ""
        return re.search(rf"run\.claim\(\s*[\"']{re.escape(claim)}[\"']", text) is not None
    name, _, test = place.partition("::")
    file = paths.root() / name
    defined = ast.parse(file.read_text(encoding="utf-8")).body if file.is_file() else []
    wanted = test.partition("[")[0]
    return any(isinstance(one, ast.FunctionDef) and one.name == wanted for one in defined)
