"""A small Sphinx extension, named in ``_config.yml``: pages that weigh little, and that whoever
cannot see them can work.

The theme brings every icon and every rule of style there is, an element for each word of the code,
and the table of contents with switches that have no name; the search would find variables of the
code and cells of tables. What is done here changes nothing that is seen: ``book/_static/book.js``
gives code its colours when it comes near the view, and fills what a reader unfolds.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tinycss2
from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx

from support.common import files

# What is written otherwise on every page, one after the other.
_LIGHTER = {
    # Of one colour with the text around them, in both of the styles that the theme has.
    r'<span class="(?:n|p|w|nn)">([^<]*)</span>|<span></span>': r"\1",
    r'<span class="pre">([^<]*)</span>': r"\1",
    r"(?s)(<details><summary>.*?</summary>)(.*?)(</details>)": r"\1<noscript>\2</noscript>\3",
    r'<summary aria-label="Toggle hidden content">\s*<p class="collapsed admonition-title">'
    r"Show code cell source</p>\s*<p [^>]*>Hide code cell source</p>": (
        '<summary><p class="admonition-title">Code</p>'
    ),
    r'<th scope="(?:col|row)"( (?:col|row)span="\d+")?></th>': r"<td\1></td>",
    r'(?s)<figcaption>\s*<p>(.*?)<a class="headerlink".*?</a></p>\s*</figcaption>': (
        r"<figcaption>\1</figcaption>"
    ),
    # The search has a page of its own.
    r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"></script>': "",
    r'<summary>(?=<span class="toctree-toggle")': '<summary aria-label="Pages of this chapter">',
    r'<img (?=[^>]*src="[^"]*_images/)': '<img loading="lazy" ',
}
_CODE = re.compile(r'(<div class="highlight"><pre)>((?:(?!</pre>).)*?</span>.*?)</pre>', re.S)
_COLOUR = re.compile(r"</?span[^>]*>")
_PICTURE = re.compile(r'<img (?![^>]*\bwidth=)[^>]*src="([^"]*_images/[^"]+\.png)"')
_MOVABLE = re.compile(
    r'(<figure class="movable">\s*<img [^>]*src=")data:image/png;base64,([^"]+)'
    r'(".*?<script type="application/json")>(.+?)</script>',
    re.S,
)
_FONT = re.compile(r'(?:\.fa-[\w-]+:before,?)+\{content:"[^"]*"\}')
_WORD = re.compile(r"[A-Za-z_][\w-]*")
_CLASS = re.compile(r"\.([A-Za-z_][\w-]*)")
_INNER, _COMMA = re.compile(r"\([^()]*\)"), re.compile(r",(?![^(]*\))")
_BARE = {"skip_comments": True, "skip_whitespace": True}
_USED = re.compile(r"\bfa-([a-z0-9-]+)")
_ICON = re.compile(
    r'(?:"([\w-]+)"|([\w$]+)):\[\d+,\d+,\[[^\]]*\],"[0-9a-f]+",(?:"[^"]*"|\[(?:"[^"]*",?)+\])\],?'
)


def slim(page: str) -> str:
    """A page of fewer elements, which loads a figure when it comes into view, whose switches say
    what they do, and whose tables have no heading without words. What is folded away in a row of a
    claim is text to a browser with scripts until it is unfolded."""
    for found, lighter in _LIGHTER.items():
        page = re.sub(found, lighter, page)
    return page


def sized(page: str, folder: Path) -> str:
    """A page whose pictures say how large they are, so that nothing moves when one is loaded.

    Args:
        page: HTML.
        folder: where the page lies.
    """

    def with_size(picture: re.Match) -> str:
        with Image.open(folder / picture[1]) as opened:
            width, height = opened.size
        return f'<img width="{width}" height="{height}" {picture[0].removeprefix("<img ")}'

    return _PICTURE.sub(with_size, page)


def apart(page: str, up: str) -> tuple[str, dict[str, str | bytes]]:
    """A page whose movable figures have their picture and their states in files of their own, which
    are read when a figure comes near the view; and those files, by their place in the site.

    Args:
        page: HTML.
        up: how the page names the site's root, such as ``"../../"``.
    """
    kept: dict[str, str | bytes] = {}

    def outside(figure: re.Match) -> str:
        before, picture, between, states = figure.groups()
        name = hashlib.sha256((picture + states).encode()).hexdigest()[:16]
        image, script = f"_images/movable-{name}.png", f"_static/movable-{name}.js"
        kept[image] = base64.b64decode(picture)
        kept[script] = f'(window.movables ??= {{}})["{up}{script}"] = {states};\n'
        return f'{before}{up}{image}{between} data-kept="{up}{script}"></script>'

    return _MOVABLE.sub(outside, page), kept


def uncoloured(page: str, up: str) -> tuple[str, dict[str, str | bytes]]:
    """A page whose code is plain, and the file of its coloured code, by its place in the site; no
    file for a page without code.

    Args:
        page: HTML.
        up: how the page names the site's root, such as ``"../../"``.
    """
    coloured = [code for _, code in _CODE.findall(page)]
    text = json.dumps(coloured, ensure_ascii=False)
    script = f"_static/code-{hashlib.sha256(text.encode()).hexdigest()[:16]}.js"
    places = iter(range(len(coloured)))

    def plain(found: re.Match) -> str:
        kept = f'data-kept="{up}{script}" data-place="{next(places)}"'
        return f"{found[1]} {kept}>{_COLOUR.sub('', found[2])}</pre>"

    content = f'(window.coloured ??= {{}})["{up}{script}"] = {text};\n'
    return _CODE.sub(plain, page), {script: content} if coloured else {}


def icons(script: str, used: set[str]) -> str:
    """Font Awesome's script with the icons of these names only."""
    return _ICON.sub(lambda icon: icon[0] if (icon[1] or icon[2]) in used else "", script)


def rules(style: str, words: set[str]) -> str:
    """A style sheet without the rules that need a class that nothing on the pages is called by.

    Args:
        style: CSS.
        words: of the pages and of their scripts; one that ends in a hyphen begins names that a
            script puts together.
    """
    begun = tuple(word for word in words if word.endswith("-"))

    def used(selector: str) -> bool:
        names = _CLASS.findall(_INNER.sub("", selector))
        every = all(name in words or name.startswith(begun) for name in names)
        return every or "\\" in selector  # a name with an escape is not read here

    def kept(parsed: Iterable) -> Iterable[str]:
        for rule in parsed:
            if rule.type == "qualified-rule":
                selectors = _COMMA.split(tinycss2.serialize(rule.prelude))
                if left := ",".join(filter(used, selectors)):
                    yield f"{left}{{{tinycss2.serialize(rule.content)}}}"
            elif rule.type == "at-rule" and rule.lower_at_keyword in ("media", "supports"):
                if inner := "".join(kept(tinycss2.parse_rule_list(rule.content, **_BARE))):
                    yield f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}{{{inner}}}"
            else:
                yield rule.serialize()

    return "".join(kept(tinycss2.parse_stylesheet(style, **_BARE)))


def _finish(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.format != "html":
        return
    out, used, words = Path(app.outdir), set(), set()
    drawing = out / "_static" / "scripts" / "fontawesome.js"
    for script in (out / "_static").rglob("*.js"):
        text = script.read_text(encoding="utf-8")
        words |= set(_WORD.findall(text))
        if script.parent == drawing.parent and script != drawing:
            used |= set(_USED.findall(text))
    for page in out.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        used |= set(_USED.findall(text))
        words |= set(_WORD.findall(text))
        if page.name != "search.html":
            up = "../" * (len(page.relative_to(out).parts) - 1)
            text, kept = apart(sized(text, page.parent), up)
            text, colours = uncoloured(slim(text), up)
            beside = {out / name: part for name, part in (kept | colours).items()}
            files.write_all({page: text, **beside})
    light = {drawing: icons(drawing.read_text(encoding="utf-8"), used)}
    for style in (out / "_static").rglob("*.css"):
        # Icons are drawn by the script; of each there is a rule for a font as well.
        light[style] = rules(_FONT.sub("", style.read_text(encoding="utf-8")), words)
    files.write_all(light)


def readable(doctree: nodes.document) -> nodes.document:
    """What a search should find of a page: its words, without code, outputs and tables."""
    words = doctree.deepcopy()
    for kind in (nodes.literal_block, nodes.table, nodes.raw, nodes.math, nodes.math_block):
        for node in list(words.findall(kind)):
            node.parent.remove(node)
    return words


def _index_words(app: Sphinx) -> None:
    if app.builder.format == "html":
        index = app.builder.index_page
        app.builder.index_page = lambda name, doctree, title: index(name, readable(doctree), title)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("builder-inited", _index_words)
    app.connect("build-finished", _finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
