"""A page of the book in a real browser."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from support.book import printed

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


class Tab(NamedTuple):
    """A page in a browser, what it asked for, and what it complained about."""

    page: "Page"
    asked: list[str]
    complaints: list[str]


@contextlib.contextmanager
def opened(browser: "Browser", file: Path, to: str = "", **options) -> Iterator[Tab]:
    """A page of the book in a tab, once its mathematics is set."""
    with contextlib.closing(browser.new_page(viewport={"width": 1280, "height": 900}, **options)) as page:
        page.set_default_timeout(printed.PATIENCE)
        tab = Tab(page, [], [])
        page.on("request", lambda request: tab.asked.append(request.url))
        page.on("requestfailed", lambda request: tab.complaints.append(f"failed: {request.url}"))
        page.on("pageerror", lambda error: tab.complaints.append(str(error)))
        page.on("console", lambda message: tab.complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.goto(f"{file.as_uri()}{f'#{to}' if to else ''}")
        if options.get("java_script_enabled", True):
            printed.set_formulas(page)
        yield tab
