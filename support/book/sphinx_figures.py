"""A small Sphinx extension, named in ``_config.yml``: what a cell draws is a figure with a caption,
which Sphinx numbers through the chapter; a drawing also has a name for the dark page to turn.

The caption is the description that the cell's source gives the picture; what it means stands in the
sentences that follow. ``book/_static/book.js`` enlarges a figure.
"""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx

_SHADES = re.compile(r"\b(black|white|dark|light|pale)\b(?!-)")  # that it exchanges
_MOVABLE = re.compile(r'<figure class="movable">\s*<img [^>]*?alt="([^"]*)')


def _drawn(doctree: nodes.document) -> Iterator[tuple[nodes.Element, str]]:
    """What cells draw, still or movable, with its description."""
    for output in doctree.findall(nodes.container):
        if output.get("nb_element") != "cell_code_output":
            continue
        for node in output.findall(nodes.Element):
            if isinstance(node, nodes.image) and "alt" in node:
                yield node, node["alt"]
            elif isinstance(node, nodes.raw) and (still := _MOVABLE.search(node.astext())):
                yield node, html.unescape(still[1])


def may_turn(picture: Path, says: str) -> bool:
    """Whether a dark page may turn a picture: it is lines and colours on white, with no image among
    them, and its description names no shade. Images are dark over a larger part (in this book 3 %
    where photographs stand below curves, 7 to 59 % where there are digits; drawings 1 to 2 %, their
    letters and axes)."""
    if _SHADES.search(says):
        return False
    with Image.open(picture) as opened:
        colours = np.asarray(opened.convert("RGB")).astype(int)
    highest, lowest = colours.max(2), colours.min(2)
    return bool(((highest < 60) & (highest - lowest < 12)).mean() < 0.027)


def _caption(app: Sphinx, doctree: nodes.document) -> None:
    for place, (node, says) in enumerate(list(_drawn(doctree)), 1):
        figure = nodes.figure("", ids=[f"figure-{place}"])
        node.replace_self(figure)
        figure += [node, nodes.caption("", says)]
        if isinstance(node, nodes.image):  # else whoever hears the page would hear it twice
            node["alt"] = "Figure, described in its caption"
            if may_turn(Path(app.srcdir, node["uri"]), says):
                node["classes"].append("drawing")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("doctree-read", _caption)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
