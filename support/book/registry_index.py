"""Completeness of the registry: an index of all that the papers assert, held against the claims.

``data/claims/index/<key>.yml`` lists, in the paper's order, everything that is numbered and every
passage that asserts something, each with the claims that stand for it; ``exclusions.yml`` lists by
range what stands for none, with the reason. :func:`gaps` compares.
"""

import collections
import re
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from support.book import claims
from support.book.claims import ClaimError
from support.book.profiles import first_problem, parse_yaml

EXCLUSIONS = "exclusions"
_KIND = "(Theorem|Lemma|Proposition|Corollary|Definition|Remark|Conjecture|Algorithm|Table|Figure|Equation)s?"
_RANGE = re.compile(rf"{_KIND} (\d+\.)?(\d+) to (?:\2)?(\d+)")
_NUMBER = r"\d+(?:\.\d+)*[a-z]?"
# "After Theorem 2", "on Table 1" and "at Figure 24" name what stands near the thing, not the thing.
_NAMED = re.compile(
    rf"(?<!after )(?<!on )(?<!at ){_KIND} ({_NUMBER}(?:(?:, | and | to ){_NUMBER})*)", re.IGNORECASE
)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Passage(_Strict):
    """A place in a paper and the ids of the claims that stand for it; none for one that is
    excluded."""

    at: Annotated[str, Field(min_length=1)]
    claims: tuple[str, ...] = ()


class Group(_Strict):
    """Places that no claim stands for, as names or ranges (``Equations 20 to 29``), and the
    reason."""

    items: Annotated[tuple[str, ...], Field(min_length=1)]
    reason: Annotated[str, Field(min_length=1)]


class _Index(_Strict):
    passages: Annotated[tuple[Passage, ...], Field(min_length=1)]


class _Exclusions(_Strict):
    papers: dict[str, tuple[Group, ...]]


def folder() -> Path:
    """Where the index lies."""
    return claims.folder() / "index"


def _read(name: str, model: type[BaseModel]) -> BaseModel:
    file = folder() / f"{name}.yml"
    try:
        return model.model_validate(parse_yaml(file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ClaimError(f"no file {file.name} in data/claims/index") from error
    except yaml.YAMLError as error:
        raise ClaimError(
            f"index/{file.name} is not YAML: {' '.join(str(error).split())}"
        ) from error
    except ValidationError as error:
        raise ClaimError(f"index/{file.name}: {first_problem(error)}") from error


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


def gaps(key: str) -> list[str]:
    """Everything in which a paper, its index and the exclusions disagree; an empty list is a pass.

    Found: a place that is covered and excluded, or neither, or listed twice; a claim that is not
        registered, or not in the index; an
    exclusion of what is not in the index; a claim whose ``where`` names a numbered thing that the
    index does not give it.
    """
    registered = claims.load(key).by_id
    places: dict[str, tuple[str, ...]] = {}
    problems = []
    for passage in index(key):
        for name in expanded(passage.at):
            if name in places:
                problems.append(f"{key}: {name} is in the index twice")
            places[name] = passage.claims
    left_out = [
        name
        for paper, group in exclusions()
        if paper == key
        for item in group.items
        for name in expanded(item)
    ]
    problems += [
        f"{key}: {name} is excluded {count} times"
        for name, count in collections.Counter(left_out).items()
        if count > 1
    ]
    problems += [
        f"{key}: {name} is excluded, but is not in the index"
        for name in left_out
        if name not in places
    ]
    for name, covering in places.items():
        problems += [
            f"{key}: {name}: no claim {claim} is registered"
            for claim in covering
            if claim not in registered
        ]
        if bool(covering) == (name in left_out):
            problems.append(
                f"{key}: {name} is {'both covered by a claim and excluded' if covering else 'neither covered nor excluded'}"
            )
    covered = {claim for covering in places.values() for claim in covering}
    problems += [
        f"{key}: the claim {claim} is not in the index"
        for claim in registered
        if claim not in covered
    ]
    problems += [
        f"{key}: {claim.id} names {name}, where the index does not have it"
        for claim in registered.values()
        for name in named(claim.where)
        if claim.id not in places.get(name, ())
    ]
    return problems
