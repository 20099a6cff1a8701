"""A small Sphinx extension, named in ``_config.yml``: pages about the package, from its docstrings,
and a link to them where a page of the book first names something of the package.

Sphinx reads a docstring as reStructuredText; ours are prose in which ``|x|`` is a norm.
"""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

PAGES = "book/package/"
_MARKS = re.compile(r"(``.+?``|:\w+:`[^`]+`)|[|]|(?<=\w)_(?!\w)", re.S)


def escaped(text: str) -> str:
    """A docstring in which neither a bar nor a last underscore is a mark, but in literals and
    roles."""
    return _MARKS.sub(lambda found: found[1] or f"\\{found[0]}", text)


def _escape(app: Sphinx, kind: str, name: str, what: Any, options: Any, lines: list[str]) -> None:
    lines[:] = escaped("\n".join(lines)).split("\n")


def known(names: list[str]) -> dict[str, str]:
    """What a page may call an object of the package, such as ``attacks.pgd``, by the object's name;
    without what could be two of them."""
    found: dict[str, set[str]] = {}
    for name in names:
        parts = name.split(".")
        for first in range(len(parts) - 1):
            found.setdefault(".".join(parts[first:]), set()).add(name)
    return {short: name for short, (name, *others) in found.items() if not others}


def _link(app: Sphinx, doctree: nodes.document, page: str) -> None:
    if page.startswith(PAGES):
        return
    objects = app.env.get_domain("py").objects
    left = known(list(objects))
    for literal in list(doctree.findall(nodes.literal)):
        name = left.pop(literal.astext().removesuffix("()"), "")
        if name and not isinstance(literal.parent, nodes.reference | nodes.title):
            place = objects[name]
            link = make_refnode(app.builder, page, place.docname, place.node_id, literal.deepcopy())
            literal.replace_self(link)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _escape, priority=400)  # before napoleon
    app.connect("doctree-resolved", _link)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
