"""The whole book as one PDF: its pages printed one after the other by a Chromium, with bookmarks,
and with links that lead within the file."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urldefrag

from support.book import publish
from support.common import files

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from pypdf import PageObject

BROWSERS = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge",
)  # fmt: skip
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
)  # fmt: skip
PATIENCE = 180_000
"""Milliseconds for a page to load."""
SET_ALL = """() => MathJax.startup.promise.then(() => MathJax.startup.document.lazyTypesetAll())
    .then(() => document.fonts.ready).then(() => null)"""
MARGIN = dict.fromkeys(("top", "right", "bottom", "left"), "14mm")
SHEET = {"format": "A4", "scale": 0.8, "margin": MARGIN}


def write(site: Path, pages: list[str], out: Path) -> int:
    """Print pages of a built book into one file.

    A link to one of the pages leads to its place in the file; any other link stays as it is.

    Args:
        site: folder of the built pages.
        pages: which, in their order, as paths without an ending.
        out: the PDF.

    Returns:
        The number of its sheets.

    Raises:
        PublishError: no Chromium is there, or what drives it is not installed.
        OSError: the file cannot be written.
    """
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        said = f"no browser to print with: none of {', '.join(BROWSERS)} is on the PATH"
        raise publish.PublishError(said)
    try:
        from playwright.sync_api import sync_playwright
        from pypdf import PdfReader, PdfWriter
        from pypdf.annotations import Link
        from pypdf.generic import Fit
    except ImportError as error:
        raise publish.PublishError(
            f'{error.name} is not installed: python -m pip install -c constraints.txt -e ".[tests]"'
        ) from error

    writer, places, links = PdfWriter(), {}, []
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=program, args=QUIET) as browser,
    ):
        for page in pages:
            address, start = (site / f"{page}.html").as_uri(), len(writer.pages)
            title, content = _printed(browser, address)
            reader = PdfReader(io.BytesIO(content))
            places[address, ""] = start, None
            for name, found in reader.named_destinations.items():
                at = start + reader.get_destination_page_number(found), found.top
                places[address, name.removeprefix("/")] = at
            for number, sheet in enumerate(reader.pages, start):
                links += [(number, *link) for link in _links(sheet, address)]
                sheet.pop("/Annots", None)
            writer.append(reader, title, import_outline=False)
    for number, area, address, name in links:
        place = places.get((address, name)) or places.get((address, ""))
        if place:
            target = {"target_page_index": place[0], "fit": Fit.xyz(top=place[1])}
        else:
            target = {"url": f"{address}#{name}" if name else address}
        writer.add_annotation(number, Link(rect=area, **target))
    written = io.BytesIO()
    writer.compress_identical_objects()
    writer.write(written)
    files.write_all({out: written.getvalue()})
    return len(writer.pages)


def set_formulas(tab: "Page") -> None:
    """Have the formulas of a page set, which otherwise happens when they come into view."""
    if tab.locator(".math").count():
        tab.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
        tab.evaluate(SET_ALL)


def _printed(browser: "Browser", address: str) -> tuple[str, bytes]:
    """The title of a page, and its sheets as a PDF."""
    with browser.new_page() as tab:
        tab.set_default_timeout(PATIENCE)
        tab.goto(address)
        set_formulas(tab)
        return tab.title().partition(" — ")[0], tab.pdf(**SHEET)


def _links(sheet: "PageObject", address: str) -> Iterator[tuple[tuple[float, ...], str, str]]:
    """The links of a sheet of a page: area, address and the name of a place there."""
    for annotation in sheet.get("/Annots", ()):
        found = annotation.get_object()
        if found.get("/Subtype") == "/Link":
            area = tuple(map(float, found["/Rect"]))
            if "/Dest" in found:
                yield area, address, str(found["/Dest"]).removeprefix("/")
            elif "/URI" in found.get("/A", ()):
                target, name = urldefrag(found["/A"]["/URI"])
                yield area, target, unquote(name)
