"""What stands before a chapter: its question, its picture, what was found, and where it leads.

``book/chapters.yml`` names them; every word on what was found is a claim's own statement with the
verdicts of the record. The first page has a card for each chapter, a lesson begins and ends with
them, and the links to the previous and the next page say why one goes there.
"""

import base64
import hashlib
import io
import json
import re
from pathlib import Path
from typing import NamedTuple

from PIL import Image, PngImagePlugin
from pydantic import Field

from support.book import claims, manifests, markup
from support.book.profiles import SIZES
from support.book.rules import Strict
from support.common import paths

WIDTH = 640  # pixels of a card's picture: twice what it takes on the page
FIRST = ("01_softmax_kmeans", "lesson", "fig-one-pixel")
"""Part and figure of the first page's picture."""
PARTS = {
    "evidence": "every claim, with the code that measures it",
    "exercises": "on paper and in code, with tests",
}


class Front(Strict):
    """What ``book/chapters.yml`` says of a chapter.

    Attributes:
        question: what the chapter asks.
        picture: name of the cell of its evidence whose figure its card shows.
        found: ids of the claims that say most of what was found.
        leads: for another chapter, what it makes of this one.
    """

    question: str = ""
    picture: str = ""
    found: tuple[str, ...] = ()
    leads: dict[str, str] = Field({})


class Picture(NamedTuple):
    """A figure as a PNG, with the words for those who cannot see it."""

    png: bytes
    alt: str


def of(chapter: str) -> Front:
    """What stands before a chapter; nothing where the file does not name it.

    Raises:
        ClaimError: the file breaks its schema.
    """
    file = paths.root() / "book" / "chapters.yml"
    text = file.read_text(encoding="utf-8") if file.is_file() else "{}"
    return claims.parsed(file.name, text, dict[str, Front]).get(chapter, Front())


def picture(notebook: Path, name: str, width: int = WIDTH) -> Picture | None:
    """A figure of an executed notebook, no wider than ``width`` pixels: the one of the cell of that
    name, or the first one where no such cell drew any; None without figures. It says which figure
    it was made of (:func:`made_of`)."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]  # nbformat is slow
    drawn = [
        (cell["metadata"], "".join(output["data"]["image/png"]))
        for cell in cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    if not drawn:
        return None
    # Of several that are alike, min takes the first.
    metadata, encoded = min(drawn, key=lambda one: one[0].get("name") != name)
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        image.thumbnail((width, width))
        small, source = io.BytesIO(), PngImagePlugin.PngInfo()
        source.add_text("figure", hashlib.sha256(encoded.encode()).hexdigest())
        # 64 colours are enough for a drawing of this size, and a third of its bytes.
        image.convert("RGB").quantize(64).save(small, "PNG", optimize=True, pnginfo=source)
    return Picture(small.getvalue(), metadata.get("mystnb", {}).get("image", {}).get("alt", ""))


def made_of(png: bytes) -> str:
    """Hash of the figure that a picture was made of; empty for another picture."""
    with Image.open(io.BytesIO(png)) as image:
        return image.info.get("figure", "")


def cover() -> Picture | None:
    """The picture of the README: the first page's, of the largest record that is committed; None
    for a book without that chapter."""
    chapter, part, figure = FIRST
    recorded = (manifests.recorded_run(chapter, size, part) for size in reversed(SIZES))
    found = (picture(run, figure, 2 * WIDTH) for run in recorded if run.is_file())
    return next(found, None)


def cover_file() -> Path:
    """Where the README finds its picture."""
    return paths.root() / "book" / "_static" / "first.png"


def new_cover() -> bytes:
    """What the README's picture should be, where it is of another figure than the record's or not
    there; empty where it is as it should be."""
    made, file = cover(), cover_file()
    same = made and file.is_file() and made_of(file.read_bytes()) == made_of(made.png)
    return b"" if same or not made else made.png


OWN_FINDINGS = "## What we found"
"""A lesson with this section says itself what was found, with its numbers."""


def head(evidence: manifests.Manifest, *, findings: bool = True) -> str:
    """What a lesson begins with, as MyST Markdown: its papers, its question and, unless it says so
    itself, what was found."""
    told = of(evidence.chapter)
    judged = {claim.id: found for claim, found in manifests.judged(evidence)}
    keys = {claim.id.partition(".")[0] for claim in claims.of_chapter(evidence.chapter)}
    return markup.fill(
        "head.md.j2",
        front=told,
        found=[judged[name] for name in told.found if findings and name in judged],
        papers=[one for key, one in claims.registry().items() if key in keys and cited(one)],
        address=address,
    )


def foot(chapter: str) -> str:
    """What a lesson ends with, as MyST Markdown: the chapters that it leads to; may be empty."""
    known = manifests.chapters()
    leads = {name: words for name, words in of(chapter).leads.items() if name in known}
    return markup.fill("foot.md.j2", leads=leads, title=manifests.title) if leads else ""


def why(page: str, seen_from: str = "") -> str:
    """Why one goes to a page of a chapter, such as ``"book/01_softmax_kmeans/lesson"``: what it
    makes of the chapter that one comes from, where that is said, or else its question. Empty for a
    page of no chapter."""
    chapter, _, part = page.removeprefix("book/").partition("/")
    leads = of(seen_from.removeprefix("book/").partition("/")[0]).leads
    return PARTS.get(part, "") or leads.get(chapter, of(chapter).question)


# --- the papers -----------------------------------------------------------------------------------


def _entry(key: str) -> str:
    file = paths.root() / "book" / "references.bib"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    found = re.search(rf"^@\w+\{{{re.escape(key)},\n(.*?)^\}}", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def cited(paper: claims.Paper) -> bool:
    """Whether the bibliography has a paper."""
    return bool(_entry(paper.key))


def address(paper: claims.Paper) -> str:
    """Where a paper can be read, as the bibliography has it: its own page before a preprint; empty
    where that is not known."""
    entry = _entry(paper.key)
    if found := re.search(r"^\s*(doi|url)\s*=\s*\{(.+)\}", entry, re.MULTILINE):
        return f"https://doi.org/{found[2]}" if found[1] == "doi" else found[2]
    found = re.search(r"arXiv:(\d{4}\.\d{4,5})", entry)
    return f"https://arxiv.org/abs/{found[1]}" if found else ""
