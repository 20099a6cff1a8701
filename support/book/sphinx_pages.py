"""A small Sphinx extension, named in ``_config.yml``: pages that are computed, an anchor at each
claim of a chapter, and a line that says why one goes to the next page.

The placeholders of :mod:`support.book.computed_pages` are filled when a page is read, and the files
that can be downloaded are put beside the pages. ``python -m support build`` fills them when it
stages the book, so that here nothing is left to do but the anchors.
"""

import functools
import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from support.book import computed_pages, downloads, execute, front, publish

Today = Callable[[], computed_pages.Board]


def _fill(today: Today, app: Sphinx, _: str, source: list[str]) -> None:
    if computed_pages.PLACEHOLDER.search(source[0]):
        app.env.note_reread()  # such a page changes with the records, not with its source
    try:
        source[0] = computed_pages.filled(source[0], today)
    except computed_pages.BoardError as error:
        raise ExtensionError(str(error)) from error


def _write_beside(today: Today, app: Sphinx, error: Exception | None) -> None:
    if error is None:
        downloads.write_beside(Path(app.outdir) / "_static", today)


def _anchor(app: Sphinx, doctree: nodes.document) -> None:
    """Give the cell that states a claim the claim's name, so that an address can end in it:
    ``01_softmax_kmeans/evidence.html#hess2020.thm1``."""
    file = Path(app.env.doc2path(app.env.docname))
    if file.suffix != ".ipynb":
        return
    cells = {
        node["cell_index"]: node
        for node in doctree.findall(nodes.container)
        if node.get("nb_element") == "cell_code"
    }
    for cell, record in execute.records_in(nbformat.read(file, as_version=4), "claim"):
        cells[cell]["ids"].append(record["id"])


def _formulas(app: Sphinx, doctree: nodes.document) -> None:
    """Sphinx loads MathJax where a page has formulas; those in our own HTML it does not see."""
    if any('class="math' in node.astext() for node in doctree.findall(nodes.raw)):
        app.env.get_domain("math").data["has_equations"][app.env.docname] = True


def _reasons(app: Sphinx, page: str, _: str, context: dict[str, Any], *__: Any) -> None:
    """What the theme shows of the pages before and after this one, with why one goes there."""
    _, *neighbours = app.builder.relations.get(page, (None, None, None))
    for place, other in zip(("prev", "next"), neighbours, strict=True):
        if other and (why := front.why(other, page)):
            title = context[place]["title"]
            context[f"{place}_title"] = f'{title}<span class="why">{html.escape(why)}</span>'


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    # Computed once a build, and not at all where no page asks for it.
    today = functools.cache(lambda: computed_pages.board(publish.pages()))
    app.connect("source-read", functools.partial(_fill, today))
    app.connect("build-finished", functools.partial(_write_beside, today))
    app.connect("doctree-read", _anchor)
    app.connect("html-page-context", _reasons)
    app.connect("doctree-read", _formulas)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
