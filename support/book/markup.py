"""Templates of the HTML and the Markdown that the book computes; they lie in ``templates``.

What is put into a template named ``.html.j2`` is escaped, and a name that it is not given is an
error.
"""

import collections
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import markupsafe

# Every verdict from the best to what says nothing. A sign and a word, so that nothing hangs on the
# colour; white on each colour has a contrast of at least 4.5 on any page.
LOOKS = {
    "reproduced": ("✓", "#1a7f37"), "survives": ("✓", "#1a7f37"),
    "partly": ("◐", "#8a5a00"), "weakened": ("◐", "#8a5a00"),
    "not reproduced": ("✗", "#b3261e"), "refuted": ("✗", "#b3261e"), "broken": ("✗", "#b3261e"),
    "yes": ("✓", "#1a7f37"), "no": ("✗", "#b3261e"), "undecided": ("?", "#5b4b8a"),
    "scaled-down": ("△", "#0b5cad"), "not run": ("–", "#5f6368"),
}  # fmt: skip

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=jinja2.select_autoescape(("html.j2",)),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals["looks"] = LOOKS
_FORMULA = re.compile(r"\$([^$]+)\$")


def typeset(text: str) -> markupsafe.Markup:
    """Text with its formulas between dollar signs as HTML that MathJax sets, on a page of the book
    as in a notebook."""
    formula = r'<span class="math notranslate nohighlight">\\(\1\\)</span>'
    return markupsafe.Markup(_FORMULA.sub(formula, str(markupsafe.escape(text))))


def tally(words: Iterable[str], order: Iterable[str] = tuple(LOOKS)) -> collections.Counter[str]:
    """How often each word falls, in an order; what has no place in it comes last."""
    found = collections.Counter(words)
    return collections.Counter({word: found[word] for word in (*order, *found) if found[word]})


_TEMPLATES.filters |= {"typeset": typeset, "tally": tally}


class Rendered(NamedTuple):
    """One thing to show, twice: for a page and for a terminal."""

    html: str
    text: str


def fill(template: str, **values: Any) -> str:
    """A template of the folder, filled, without blank lines around it."""
    return _TEMPLATES.get_template(template).render(values).strip()


def rendered(name: str, **values: Any) -> Rendered:
    """The templates ``name.html.j2`` and ``name.txt.j2``, filled with the same values."""
    return Rendered(fill(f"{name}.html.j2", **values), fill(f"{name}.txt.j2", **values))
