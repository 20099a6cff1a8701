"""What a page is freed of, and what stays."""

import json

import docutils.core
from docutils import nodes
from PIL import Image

from support.book import sphinx_light

SCRIPT = 'a={x:1};b={angle:[10,20,[],"f1","M1"],"chevron-down":[5,5,[9,"down"],"f2",["M2","M3"]],yelp:[1,2,[],"f3","M4"]};c()'


def test_of_the_icons_those_stay_that_are_used():
    assert sphinx_light.icons(SCRIPT, {"chevron-down"}) == 'a={x:1};b={"chevron-down":[5,5,[9,"down"],"f2",["M2","M3"]],};c()'
    assert sphinx_light.icons(SCRIPT, {"angle", "chevron-down", "yelp"}) == SCRIPT


def test_code_keeps_its_words_and_the_colours_that_differ():
    code = '<pre><span></span><span class="k">def</span> <span class="n">a</span><span class="p">(</span><span class="w"> </span></pre>'
    assert sphinx_light.slim(code) == '<pre><span class="k">def</span> a( </pre>'


def test_code_is_plain_until_it_is_seen_and_its_colours_are_kept_in_a_file():
    block = '<div class="highlight"><pre>{}</pre></div>'
    coloured = '<span class="k">def</span> a()\n&lt;'
    text, kept = sphinx_light.uncoloured(block.format("plain") + 2 * block.format(coloured), "../")
    ((script, content),) = kept.items()
    assert text.startswith(block.format("plain"))
    assert [f'<pre data-kept="../{script}" data-place="{place}">def a()\n&lt;</pre>' in text for place in (0, 1, 2)] == [True, True, False]
    name, _, blocks = content.removeprefix("(window.coloured ??= {})").partition(" = ")
    assert (name, json.loads(blocks.rstrip(";\n"))) == (f'["../{script}"]', [coloured, coloured])
    assert sphinx_light.uncoloured(block.format("plain"), "../") == (block.format("plain"), {})


def test_what_is_folded_in_a_row_is_text_until_it_is_unfolded():
    row = "<details><summary>Rules</summary>\n<p>one<br>two</p></details>"
    assert sphinx_light.slim(row) == "<details><summary>Rules</summary><noscript>\n<p>one<br>two</p></noscript></details>"
    other = row.replace("<details>", '<details class="other">')
    assert sphinx_light.slim(other) == other


def test_a_switch_of_the_contents_has_a_name_and_a_figure_waits():
    page = (
        '<summary><span class="toctree-toggle" role="presentation"></span></summary><img alt="A" src="../_images/a.png"><img src="b.png">'
    )
    slim = sphinx_light.slim(page)
    assert '<summary aria-label="Pages of this chapter"><span class="toctree-toggle"' in slim
    assert '<img loading="lazy" alt="A" src="../_images/a.png"><img src="b.png">' in slim


def test_the_search_reads_neither_code_nor_tables():
    text = "Title\n=====\n\nWords here.\n\n::\n\n   code_there = 1\n\n=====  =====\ncell   other\n=====  =====\n"
    doctree = docutils.core.publish_doctree(text)
    words = sphinx_light.readable(doctree)
    assert "Words here." in words.astext()
    assert "code_there" not in words.astext()
    assert "cell" not in words.astext()
    assert doctree.findall(nodes.literal_block)
    assert "code_there" in doctree.astext(), "the page keeps them"


def test_a_page_does_not_load_what_only_the_search_needs():
    page = '<script src="../searchindex.js"></script>\n<script src="../_static/searchtools.js?v=1"></script><script src="a.js"></script>'
    assert sphinx_light.slim(page) == '<script src="a.js"></script>'


def test_a_movable_figure_keeps_its_picture_and_its_states_in_files_of_their_own():
    picture = '<img alt="A &gt; B" src="data:image/png;base64,aGVsbG8=">'
    figure = f'<figure class="movable">\n{picture}\n<p>Now</p>\n<script type="application/json">{{"a":[1]}}</script>\n</figure>'
    other = '<p>between</p><script type="application/json">{"not": "ours"}</script>'
    page, kept = sphinx_light.apart(f"{figure}{other}{figure}", "../../")
    (image, bytes_of), (script, text) = kept.items()
    assert bytes_of == b"hello" and text == f'(window.movables ??= {{}})["../../{script}"] = {{"a":[1]}};\n'
    assert page.count(f'src="../../{image}">\n<p>Now</p>\n<script type="application/json" data-kept="../../{script}"></script>') == 2
    assert other in page and "base64" not in page
    assert sphinx_light.apart(page, "../../") == (page, {})


def test_a_heading_without_words_is_none():
    table = '<tr><th scope="col"></th><th scope="row" rowspan="2"></th><th scope="col">a</th></tr>'
    assert sphinx_light.slim(table) == '<tr><td></td><td rowspan="2"></td><th scope="col">a</th></tr>'


def test_rules_of_style_stay_where_something_is_called_by_their_classes():
    style = "a.on:hover,.off{x:1}.tip-top{x:2}@media print{.off{x:3}.on .on:not(.off){x:4}}@media (x){.off{y:1}}@font-face{z:1}"
    kept = sphinx_light.rules(style + ":is(.off,b) i{w:1}", {"on", "tip-"})
    assert kept == "a.on:hover{x:1}.tip-top{x:2}@media print{.on .on:not(.off){x:4}}@font-face{z:1}:is(.off,b) i{w:1}"


def test_a_picture_says_how_large_it_is(tmp_path):
    (tmp_path / "_images").mkdir()
    (tmp_path / "book").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "_images" / "one.png")
    page = '<img alt="a" src="../_images/one.png" /><img width="9" src="../_images/one.png"><img src="../_static/one.png">'
    sized = sphinx_light.sized(page, tmp_path / "book")
    assert sized == page.replace('<img alt="a"', '<img width="30" height="20" alt="a"')


def test_a_caption_is_one_element_without_a_link():
    link = '<a class="headerlink" href="#figure-1" title="Link">#</a>'
    caption = f'<figcaption>\n<p><span class="caption-text">It falls.</span>{link}</p>\n</figcaption>'
    assert sphinx_light.slim(caption) == '<figcaption><span class="caption-text">It falls.</span></figcaption>'
