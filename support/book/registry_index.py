"""What the papers have and no claim stands for: ``data/claims/index/exclusions.yml``, by ranges,
with the reasons. Beside it ``<key>.yml`` lists, in the paper's order, everything that is numbered
and every passage that asserts something, each with the claims that stand for it; the tests hold
both and the claims against each other.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from support.book import claims
from support.book.rules import Strict


class Group(Strict):
    """Places that no claim stands for, as names or ranges (``Equations 20 to 29``), and the
    reason."""

    items: Annotated[tuple[str, ...], Field(min_length=1)]
    reason: Annotated[str, Field(min_length=1)]


class _Exclusions(Strict):
    papers: dict[str, tuple[Group, ...]]


def folder() -> Path:
    """Where the index lies."""
    return claims.folder() / "index"


def exclusions() -> list[tuple[str, Group]]:
    """What is left out, by paper; empty where there is no such list.

    Raises:
        ClaimError: a list that breaks the schema.
    """
    file = folder() / "exclusions.yml"
    if not file.is_file():
        return []
    found = claims.parsed("index/exclusions.yml", file.read_text(encoding="utf-8"), _Exclusions)
    return [(key, group) for key, groups in found.papers.items() for group in groups]
