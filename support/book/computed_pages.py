"""The scoreboard and the errata as pages: parts that are computed from the records and the
registry, as MyST Markdown.

A page of ours holds its prose and, where a part belongs, a placeholder that names it, three
backticks and ``{computed} table``; :func:`filled` puts the part there, made by the template of that
name. So nothing on these pages that could be wrong is typed. :mod:`support.book.sphinx_pages` does
it in a build.
"""

import contextlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jupytext

from support.book import (
    calibration_page,
    claims,
    front,
    manifests,
    markup,
    publish,
    registry_index,
    verdict_table,
    worked_example,
)
from support.book.profiles import parse_yaml
from support.book.verdict_table import Line
from support.common import paths

PLACEHOLDER = re.compile(r"^```\{computed\} *(\S*)\n```$", re.MULTILINE)
_TEMPLATES = (
    "summary.md.j2", "counts.html.j2", "table.html.j2", "explanations.md.j2", "errata.md.j2",
    "left_out.html.j2", "worked_example.md.j2", "rates.html.j2", "first_picture.html.j2",
    "numbers.html.j2", "cards.html.j2", "cite.md.j2", "calibration_linear.md.j2",
    "calibration_properties.html.j2", "calibration_controls.html.j2",
)  # fmt: skip
PARTS = {name.partition(".")[0].replace("_", "-"): name for name in _TEMPLATES}
SECTION = "What did not reproduce, and why"


class BoardError(ValueError):
    """A page with a placeholder that names no part, or one whose numbers are not there. The message
    is one line."""


@dataclass(frozen=True)
class Board:
    """What the parts are made of: every claim with its entries, and the pages that a link can lead
    to."""

    lines: tuple[Line, ...]
    pages: frozenset[str]

    def address(self, chapter: str, claim_id: str = "") -> str:
        """Where a chapter begins, or the cell of its evidence that states a claim, seen from a page
        beside the chapters; empty if the chapter is no page of the book."""
        part = "evidence" if claim_id else "lesson"
        found = f"book/{chapter}/{part}" in self.pages
        return f"{chapter}/{part}.html{'#' * bool(claim_id)}{claim_id}" if found else ""

    def shown_at(self, erratum: claims.Erratum) -> str:
        """Where the cell stands that shows an erratum; empty where a test shows it."""
        place, _, claim = erratum.shown_by.partition("#")
        return self.address(place.partition("/")[0], claim) if claim else ""

    @cached_property
    def pictures(self) -> dict[str, front.Picture]:
        """The pictures of the first page by chapter, the one at the top as ``"first"``."""
        known = manifests.chapters()
        wanted = {name: (name, "evidence", front.of(name).picture, front.WIDTH) for name in known}
        wanted["first"] = (*front.FIRST, 2 * front.WIDTH)
        found = {}
        for name, (chapter, part, figure, width) in wanted.items():
            with contextlib.suppress(publish.PublishError):  # a chapter that was never run has none
                found[name] = front.picture(publish.chosen_run(chapter, part), figure, width)
        return {name: picture for name, picture in found.items() if picture}

    @property
    def files(self) -> dict[str, bytes]:
        """The pictures, for the folder of static files."""
        return {f"cards/{name}.png": picture.png for name, picture in self.pictures.items()}

    @property
    def chapters(self) -> dict[str, list[Line]]:
        """The lines of each chapter, in order; none for a chapter that states no claim."""
        names = {*manifests.chapters(), *(line.chapter for line in self.lines)}
        return {
            name: [line for line in self.lines if line.chapter == name] for name in sorted(names)
        }

    @property
    def papers(self) -> dict[str, list[Line]]:
        """The lines of each paper, in the order of the lines."""
        names = dict.fromkeys(line.paper.key for line in self.lines)
        return {name: [line for line in self.lines if line.paper.key == name] for name in names}


def board(pages: Iterable[str]) -> Board:
    """The board of today, of a book with these pages, such as ``"book/index"``."""
    return Board(tuple(verdict_table.lines()), frozenset(pages))


# --- words ----------------------------------------------------------------------------------------


def explanation(chapter: str) -> str:
    """A chapter's own words on what did not reproduce, as Markdown: its section of that name,
    without the sentences about its table.

    Headings become bold, so that the words can be quoted, and labels are dropped, so that they stay
    unique. Empty without the section.
    """
    sources = [manifests.source_file(chapter, part) for part in ("evidence", "lesson")]
    cells = [cell for file in sources if file.is_file() for cell in jupytext.read(file).cells]
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    section = rf"^## {re.escape(SECTION)}\n(.*?)(?=^##? |\Z)"
    found = re.search(section, text, re.MULTILINE | re.DOTALL)
    words = re.sub(r"^#+ (.*)$", r"**\1**", found[1] if found else "", flags=re.MULTILINE)
    words = re.sub(r"^\([\w-]+\)=\n", "", words, flags=re.MULTILINE)
    return "\n\n".join(
        paragraph
        for paragraph in map(str.strip, words.split("\n\n"))
        if paragraph and not paragraph.startswith("The table collects")
    )


def authors(paper: claims.Paper) -> str:
    """A paper as it is cited in a sentence: ``Wang and Loog 2022``, ``Alfarra et al. 2021``, ``this
    book``."""
    if paper.authors.islower():  # no person: this book itself
        return paper.authors
    names = [name.split()[-1] for name in paper.authors.split(", ")]
    return f"{f'{names[0]} et al.' if len(names) > 2 else ' and '.join(names)} {paper.year}"


def shares(lines: Iterable[Line]) -> list[tuple[int, int]]:
    """Of some claims at their best, how many reproduce of those that could be judged, how many
    survive of those that were tried, and how many of the questions are answered."""
    judged, tried, asked = verdict_table.count(line.best for line in lines).values()
    return [
        (judged["reproduced"], judged.total() - judged["scaled-down"] - judged["not run"]),
        (tried["survives"], tried.total()),
        (asked["yes"] + asked["no"], asked.total()),
    ]


def finding(lines: Iterable[Line]) -> str:
    """:func:`shares` in a sentence."""
    said = (
        ("judged claims", "reproduces", "reproduce"),
        ("claims about robustness", "survives", "survive"),
        ("questions", "is answered", "are answered"),
    )
    told = [
        f"{part or 'none'} of {of} {what} {one if part == 1 else several}"
        for (part, of), (what, one, several) in zip(shares(lines), said, strict=True)
        if of
    ]
    sentence = "; ".join(told) or "nothing could be judged yet"
    return f"{sentence[0].upper()}{sentence[1:]}."


# --- the parts ------------------------------------------------------------------------------------


def part(name: str, found: Board) -> str:
    """One part, as MyST Markdown.

    Raises:
        BoardError: there is no part of that name.
    """
    if name not in PARTS:
        raise BoardError(f"no computed part {name!r}: there are {', '.join(PARTS)}")
    if name in calibration_page.PARTS and not calibration_page.path().is_file():
        raise BoardError(f"there is no {calibration_page.path()}: python -m support calibrate")
    return markup.fill(PARTS[name], board=found, **_ASKED)


def citation() -> dict[str, Any]:
    """How the book is to be cited; empty where no file says it."""
    file = paths.root() / "CITATION.cff"
    return parse_yaml(file.read_text(encoding="utf-8")) if file.is_file() else {}


# What the templates ask.
_ASKED = {
    "calibration_page": calibration_page, "claims": claims, "front": front, "manifests": manifests,
    "registry_index": registry_index, "verdict_table": verdict_table,
    "worked_example": worked_example,
    "authors": authors, "citation": citation, "explanation": explanation, "finding": finding,
    "shares": shares,
}  # fmt: skip


def filled(text: str, today: Callable[[], Board]) -> str:
    """A page with each placeholder replaced by its part; the board is computed only for a page that
    has one.

    Raises:
        BoardError: a placeholder names no part.
    """
    return PLACEHOLDER.sub(lambda match: part(match[1], today()), text)
