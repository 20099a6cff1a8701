"""The texts of the classroom, made from the templates in ``templates``."""

import re
from pathlib import Path
from typing import Any

import jinja2

_DIRECTIVE = re.compile(
    r"^(`{3,}|:{3,})\{([\w:-]+)\}([^\n]*)\n((?:[ \t]*:[\w-]+:[^\n]*\n)*)(.*?)^\1[ \t]*$",
    re.M | re.S,
)


def fill(template: str, **values: Any) -> str:
    """A template of the folder, filled, without blank lines around it."""
    return _TEMPLATES.get_template(template).render(values).strip()


def plain(markdown: str) -> str:
    """MyST Markdown as a notebook shows it: roles become text, directives become quotes with a bold
    title."""
    text = re.sub(r"\{math\}`([^`]+)`", r"$\1$", markdown)
    text = re.sub(r"\{[\w:.-]+\}`([^`<]+?)\s*(?:<[^`>]*>)?`", _role_text, text)
    return _DIRECTIVE.sub(_quote, text)


def _role_text(found: re.Match) -> str:
    return found[1] if " " in found[1] or not re.search(r"[-_:]", found[1]) else f"`{found[1]}`"


def _quote(found: re.Match) -> str:
    if found[2] == "math":
        return f"$$\n{found[5]}$$"
    title = found[3].strip() or found[2].partition(":")[2] or found[2]
    body = (f"> {line}".rstrip() for line in found[5].strip().splitlines())
    return "\n".join([f"> **{title[:1].upper()}{title[1:]}.**", ">", *body])


def _points(count: int) -> str:
    return f"{count} point{'s' * (count != 1)}"


def cell(words: str) -> str:
    """Text for a table cell of Markdown."""
    return re.sub(r"([|*_<>\\\[\]$])", r"\\\1", words)


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {"plain": plain, "points": _points, "cell": cell}
