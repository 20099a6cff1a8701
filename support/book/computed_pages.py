"""The scoreboard and the errata as pages: parts that are computed from the records and the
registry, as MyST Markdown.

A page of ours holds its prose and, where a part belongs, a placeholder that names it, three
backticks and ``{computed} table``; :func:`filled` puts the part there, made by the template of that
name. So nothing on these pages that could be wrong is typed. :mod:`support.book.sphinx_pages` does
it in a build.
"""

import collections
import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

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
from support.book.verdict_table import Entry, Line
from support.common import paths

PLACEHOLDER = re.compile(r"^```\{computed\} *(\S*)\n```$", re.MULTILINE)
PARTS = {
    "summary": "summary.md.j2", "counts": "counts.html.j2", "table": "table.html.j2",
    "explanations": "explanations.md.j2", "errata": "errata.md.j2", "left-out": "left_out.html.j2",
    "worked-example": "worked_example.md.j2", "rates": "rates.html.j2",
    "first-picture": "first_picture.html.j2", "numbers": "numbers.html.j2",
    "cards": "cards.html.j2", "cite": "cite.md.j2",
    "calibration-linear": "calibration_linear.md.j2",
    "calibration-properties": "calibration_properties.html.j2",
    "calibration-controls": "calibration_controls.html.j2",
}  # fmt: skip
SECTION = "What did not reproduce, and why"
FIRST = "first"  # name of the first page's picture, beside the chapters'
SMALL = ("scaled-down", "not run")  # words of what could not be judged
# Every word of the first column, from the best to what says nothing.
_FIRST = tuple(dict.fromkeys((*claims.VERDICTS[:-3], *claims.ANSWERS)))


class BoardError(ValueError):
    """A page with a placeholder that names no part, or one whose numbers are not there. The message
    is one line."""


class Shown(NamedTuple):
    """A picture of the first page: its file below ``_static`` and what that holds, the figure's
    words, its chapter."""

    file: str
    png: bytes
    alt: str
    chapter: str


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
    def pictures(self) -> dict[str, Shown]:
        """The pictures of the first page by chapter, the one at the top as ``"first"``."""
        return dict(_pictures())

    @property
    def files(self) -> dict[str, bytes]:
        """The pictures, for the folder of static files."""
        return {one.file: one.png for one in self.pictures.values()}

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


def counted(entries: Iterable[Entry], column: str, nothing: str) -> str:
    """How often each word stands in a column of the table, such as ``3 broken, 1 not run``."""
    found = collections.Counter(entry.row[column] for entry in entries)
    words = _FIRST if column == "verdict" else claims.SURVIVALS
    return ", ".join(f"{found[word]} {word}" for word in words if found[word]) or nothing


def words(lines: Sequence[Line]) -> dict[str, int]:
    """How often each word is the first verdict, or the answer, of some claims at their best."""
    found = collections.Counter(line.best.judgement.verdict for line in lines)
    return {word: found[word] for word in _FIRST if found[word]}


def finding(lines: Sequence[Line]) -> str:
    """What was found of some claims, in a sentence: of those that could be judged, those that
    reproduce, those that survive, and the questions."""
    found = [line.best.judgement for line in lines]
    judged = [one for one in found if one.claim.kind != "question" and one.verdict not in SMALL]
    robust = [one.survives for one in found if one.survives not in ("", "not run")]
    asked = [one.verdict for one in found if one.claim.kind == "question"]
    reproduced = [one for one in judged if one.verdict == "reproduced"]
    told = [
        _share(len(reproduced), len(judged), "judged claims", "reproduce"),
        _share(robust.count("survives"), len(robust), "claims about robustness", "survive"),
        _share(asked.count("yes") + asked.count("no"), len(asked), "questions", "are answered"),
    ]
    sentence = "; ".join(filter(None, told)) or "nothing could be judged yet"
    return f"{sentence[0].upper()}{sentence[1:]}."


def _share(part: int, of: int, what: str, verb: str) -> str:
    if not of:
        return ""
    if part == 1:
        verb = "is answered" if verb == "are answered" else f"{verb}s"
    return f"{part or 'none'} of {of} {what} {verb}"


def choices(found: Board) -> list[tuple[str, str, dict[str, str]]]:
    """What the table can be filtered by: name, label, and the words for each value."""

    def every(words: Iterable[str], first: str = "all") -> dict[str, str]:
        return {"": first} | {word: word for word in words}

    sizes = verdict_table.sizes(found.lines)
    papers = {key: authors(lines[0].paper) for key, lines in found.papers.items()}
    chapters = {name: manifests.title(name) for name, lines in found.chapters.items() if lines}
    order = {
        "": "by chapter", "claim": "by name",
        "verdict": "by first verdict", "survives": "by second verdict",
    }  # fmt: skip
    return [
        ("profile", "Profile", every(sizes, "the best of each claim")),
        ("paper", "Paper", {"": "all"} | papers),
        ("chapter", "Chapter", {"": "all"} | chapters),
        ("kind", "Kind", every(claims.KINDS)),
        ("verdict", "Reproduces, or is so?", every(_FIRST)),
        ("survives", "Survives?", every(claims.SURVIVALS)),
        ("sort", "Order", order | {size: f"by first verdict at {size}" for size in sizes}),
    ]


# --- pictures -------------------------------------------------------------------------------------


def _pictures() -> Iterator[tuple[str, Shown]]:
    wanted = [(name, name, "evidence", front.of(name).picture, 1) for name in manifests.chapters()]
    wanted += [(FIRST, *front.FIRST, 2)] if front.FIRST[0] in manifests.chapters() else []
    for name, chapter, part, figure, wide in wanted:
        with contextlib.suppress(publish.PublishError):  # a chapter that was never run has none
            run = publish.chosen_run(chapter, part)
            if picture := front.picture(run, figure, wide * front.WIDTH):
                yield name, Shown(f"cards/{name}.png", picture.png, picture.alt, chapter)


# --- the parts ------------------------------------------------------------------------------------


def part(name: str, found: Board) -> str:
    """One part, as MyST Markdown.

    Raises:
        BoardError: there is no part of that name.
    """
    if name not in PARTS:
        raise BoardError(f"no computed part {name!r}: there are {', '.join(PARTS)}")
    if name in worked_example.VALUES:
        return markup.fill(PARTS[name], **worked_example.VALUES[name]())
    if name == "cite":
        file = paths.root() / "CITATION.cff"
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        return markup.fill(PARTS[name], cite=parse_yaml(text)) if text else ""
    if name in calibration_page.PARTS:
        if not calibration_page.path().is_file():
            raise BoardError(f"there is no {calibration_page.path()}: python -m support calibrate")
        return markup.fill(PARTS[name], **calibration_page.kept())
    return markup.fill(
        PARTS[name],
        board=found,
        front=front.of,
        first=FIRST,
        small=SMALL,
        counts=verdict_table.counts(found.lines),
        choices=choices(found),
        exclusions=registry_index.exclusions(),
        title=cache(manifests.title),
        sizes=verdict_table.sizes(found.lines),
        questions=verdict_table.QUESTIONS,
        **{one.__name__: one for one in (authors, counted, explanation, finding, words)},
        cited=front.cited,
        count=verdict_table.count,
    )


def filled(text: str, found: Board) -> str:
    """A page with each placeholder replaced by its part.

    Raises:
        BoardError: a placeholder names no part.
    """
    return PLACEHOLDER.sub(lambda match: part(match[1], found), text)
