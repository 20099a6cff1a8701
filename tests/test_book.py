"""The built book: strict, complete, the same after nothing changed, and read in a real browser without a network."""

import datetime
import os
import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
import tiny_book
from bs4 import BeautifulSoup

from support.book import claims, computed_pages, manifests, publish
from support.common import fingerprint, paths

ASKS = (("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("object", "data"))
LIGHTNESS = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"


# --- the built pages --------------------------------------------------------------------------------------------------------------


def test_every_page_of_the_contents_is_built_and_no_other(site):
    built = {file.relative_to(site).with_suffix("").as_posix() for file in (site / "book").rglob("*.html")}
    assert built == set(publish.pages())
    assert len(built) == len(publish.pages()) >= 7


def test_every_chapter_is_in_the_contents():
    assert manifests.chapters()
    assert [page for page in publish.pages() if re.match(r"book/\d\d_", page)] == [f"book/{chapter}" for chapter in manifests.chapters()]


def test_a_page_asks_nothing_of_the_network(site, soups):
    asked = []
    for page, soup in soups.items():
        here = site / f"{page}.html"
        for tag, attribute in ASKS:
            asked += [(here, found[attribute]) for found in soup.find_all(tag) if found.get(attribute)]
    for style in site.rglob("*.css"):
        asked += [(style, url) for url in re.findall(r"""(?:url\(|@import\s)\s*["']?([^"')\s]+)""", style.read_text(encoding="utf-8"))]
    asked = [(here, url) for here, url in asked if not url.startswith(("data:", "#"))]
    assert len(asked) > 100
    missing = [(here.name, url) for here, url in asked if "//" in url or not (here.parent / re.split(r"[?#]", url)[0]).resolve().is_file()]
    assert missing == []


def test_mathjax_comes_with_its_fonts(site):
    folder = site / "_static" / "mathjax"
    assert (folder / "tex-chtml.js").is_file()
    assert len(list((folder / "output/chtml/fonts").rglob("*.woff"))) >= 20
    assert not (folder / "tex-svg.js").exists(), "the bundles that no page loads stay behind"


def test_no_output_shows_a_raw_value_or_an_unresolved_role(soups):
    for page, soup in soups.items():
        for output in soup.select(".cell_output"):
            assert not re.search(r"np\.(float|int|bool)\w*\(|\btensor\(| at 0x[0-9a-f]+>", output.get_text()), page
        for source in soup.select("pre, code"):
            source.decompose()
        assert not re.search(r"\{(cite|doc|ref|eq|numref|prf|glue)[:}\w]*\}|\{(exercise|solution)-(start|end)\}", soup.get_text()), page


def test_every_figure_says_what_it_shows(soups):
    pictures = [(page, picture) for page, soup in soups.items() for picture in soup.select("article img")]
    assert len(pictures) >= 3
    poor = [(page, picture.get("src")) for page, picture in pictures if len(picture.get("alt", "")) < 15 or "_images/" in picture["alt"]]
    assert poor == []


def test_a_chapter_says_at_its_top_what_it_was_run_with(soups):
    for chapter in manifests.chapters():
        manifest = manifests.manifest_of(publish.chosen_run(chapter))
        title = soups[f"book/{chapter}"].select_one("article h1")
        box = title.find_next_sibling("div")
        assert "run-box" in box["class"]
        for word in (manifest.profile, manifest.device_name, f"{len(manifest.claims)} claims"):
            assert word in box.get_text()


def test_the_whole_project_builds_in_place(tmp_path, site):
    """``jupyter-book build .`` shows the committed quick pages, whatever else lies in the checkout; computed pages are the same."""
    command = [*publish.JUPYTER_BOOK, ".", "--path-output", str(tmp_path)]
    environment = os.environ | {"PYTHONUTF8": "1"}
    done = subprocess.run(command, cwd=paths.root(), env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    built = tmp_path / "_build" / "html"
    publish.check_complete(built)
    for page in ("scoreboard", "errata"):
        tables = [BeautifulSoup((root / "book" / f"{page}.html").read_text(encoding="utf-8"), "html.parser") for root in (built, site)]
        assert tables[0].select("tbody tr") == tables[1].select("tbody tr") != []
    for name in computed_pages.downloads(computed_pages.board(publish.pages())):
        assert (built / "_static" / name).read_bytes() == (site / "_static" / name).read_bytes()


# --- when it is built -------------------------------------------------------------------------------------------------------------


def test_a_second_build_with_nothing_changed_does_nothing(site, monkeypatch):
    def refuse(*_):
        raise AssertionError("built again")

    monkeypatch.setattr(publish, "_jupyter_book", refuse)
    assert publish.build(site) == (site / "index.html").as_uri()
    (site / publish.STAMP).write_text("of other pages", encoding="utf-8")
    with pytest.raises(AssertionError, match="built again"):
        publish.build(site)


@pytest.fixture
def small_book(tmp_path, monkeypatch) -> Path:
    """A book of one page, under this project's configuration."""
    root = tmp_path / "small"
    tiny_book.make(root)
    shutil.copy(paths.root() / "_config.yml", root)
    shutil.copytree(paths.root() / "book" / "_static", root / "book" / "_static")
    shutil.copy(paths.root() / "book" / "references.bib", root / "book")
    (root / "_toc.yml").write_text("format: jb-book\nroot: book/index\n", encoding="utf-8")
    monkeypatch.setenv("BOOK_ROOT", str(root))
    return root


def test_a_warning_stops_the_build_and_keeps_the_old_book(small_book):
    (small_book / "book" / "index.md").write_text("# One page\n\n{doc}`no_such_page`\n", encoding="utf-8")
    old = small_book / "_build" / "book" / "index.html"
    old.parent.mkdir(parents=True)
    old.write_text("old", encoding="utf-8")
    with pytest.raises(publish.PublishError, match="no_such_page"):
        publish.build()
    assert old.read_text(encoding="utf-8") == "old"


def test_a_page_that_was_not_built_is_missed(site, tmp_path):
    built = tmp_path / "html"
    shutil.copytree(site, built, ignore=shutil.ignore_patterns("_static"))
    publish.check_complete(built)
    (built / "book" / "notation.html").rename(built / "book" / "other.html")
    with pytest.raises(publish.PublishError, match=r"missing book/notation, not listed book/other"):
        publish.check_complete(built)


# --- which run a page shows -------------------------------------------------------------------------------------------------------


MANIFEST = {
    "chapter": tiny_book.CHAPTER, "parameters": {}, "overrides": {}, "seed": 0, "seeds": [0, 1], "device": "cpu",
    "device_name": "A processor", "threads": 1, "versions": {}, "platform": "Linux", "commit": "0123456789abcdef",
    "dirty": False, "data": {}, "units_from_cache": 0,
    "computing_seconds": 1.0, "wall_seconds": 300.0, "peak_memory_mb": 1, "peak_gpu_memory_mb": None,
    "claims": {"tiny2020.thm1": {"measured": {"error": [0.0]}, "modern": {}, "cell": 1}},
}  # fmt: skip


def leave(notebook: Path, profile: str, day: int, **changes) -> Path:
    """Leave an executed notebook with its manifest, as a run does."""
    source = manifests.source_file(tiny_book.CHAPTER)
    told = {"profile": profile, "code": fingerprint.digest([source]), "finished": datetime.datetime(2026, 1, day, tzinfo=datetime.UTC).isoformat()}
    notebook.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Tiny\n\nThe first words.")]), notebook)
    manifest = manifests.manifest_path(notebook)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(manifests.Manifest(**MANIFEST | told | changes).model_dump_json(), encoding="utf-8")
    return notebook


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """``runs(place, profile, day, ...)`` leaves a run of the tiny chapter; place is "recorded" or "local"."""
    monkeypatch.setenv("BOOK_ROOT", str(tiny_book.make(tmp_path)))
    places = {"recorded": manifests.recorded_run, "local": manifests.local_run}
    return lambda place, profile, day, **changes: leave(places[place](tiny_book.CHAPTER, profile), profile, day, **changes)


def test_the_largest_profile_is_shown(runs):
    runs("local", "quick", 9)
    standard = runs("recorded", "standard", 1)
    assert publish.chosen_run(tiny_book.CHAPTER) == standard
    paper = runs("local", "paper", 1)
    assert publish.chosen_run(tiny_book.CHAPTER) == paper


def test_of_two_runs_at_one_profile_the_newer_is_shown(runs):
    recorded = runs("recorded", "quick", 2)
    local = runs("local", "quick", 1)
    assert publish.chosen_run(tiny_book.CHAPTER) == recorded
    runs("local", "quick", 3)
    assert publish.chosen_run(tiny_book.CHAPTER) == local


def test_a_run_of_the_present_code_is_shown_before_a_newer_one_of_older_code(runs):
    recorded = runs("recorded", "standard", 1)
    runs("local", "standard", 5, code="0" * 16)
    assert publish.chosen_run(tiny_book.CHAPTER) == recorded


def test_a_chapter_that_was_never_run_is_refused_with_the_command_to_run(runs):
    with pytest.raises(publish.PublishError, match="python -m support run 01_tiny"):
        publish.chosen_run(tiny_book.CHAPTER)


def test_the_box_says_profile_seeds_date_commit_device_and_verdicts(runs):
    text = publish.box(manifests.manifest_of(runs("recorded", "standard", 7, overrides={"steps": 9}, dirty=True)))
    assert "**standard** with `steps = 9`, seeds 0 to 1; A processor, 1 thread." in text
    assert "Finished on 7 January 2026 in 5 minutes; commit `0123456789`, with changes not committed." in text
    assert "2 claims: 1 reproduced, 1 not run. Under today's protocol: 1 not run." in text
    assert "{warning}" not in text


def test_a_page_older_than_its_code_warns(runs):
    text = publish.box(manifests.manifest_of(runs("recorded", "standard", 7, code="0" * 16)))
    assert "```{warning}" in text
    assert "python -m support run 01_tiny --profile standard" in text


def test_the_box_stands_under_the_title(runs):
    first = publish.page(runs("local", "quick", 1)).cells[0].source
    assert re.match(r"# Tiny\n\n```\{admonition\}.*```\n\nThe first words\.", first, re.DOTALL)


# --- in a browser -----------------------------------------------------------------------------------------------------------------


def test_every_page_opens_without_a_complaint_and_without_the_network(look, soups):
    formulas = 0
    for page, soup in soups.items():
        tab, asked, complaints = look(page)
        assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == [], page
        assert complaints == [], page
        assert tab.locator("mjx-container").count() == len(soup.select(".math")), page
        assert tab.locator("mjx-merror, [data-mjx-error]").count() == 0, page
        assert tab.evaluate("[...document.querySelectorAll('article img')].filter(picture => !picture.naturalWidth).length") == 0, page
        formulas += tab.locator("mjx-container").count()
        tab.close()
    assert formulas > 50


def test_a_chapter_shows_theorems_exercises_figures_and_verdicts(look):
    for chapter in manifests.chapters():
        tab, _, _ = look(f"book/{chapter}")
        proves = any(claim.kind == "identity" for claim in claims.of_chapter(chapter))
        parts = {".proof.theorem": int(proves), ".exercise": 5, ".cell_output img": 3, "table.claims": 5, ".run-box": 1}
        for selector, least in parts.items():
            found = tab.locator(selector)
            assert found.count() >= least, (chapter, selector)
            assert all(found.nth(index).bounding_box()["height"] > 10 for index in range(least)), (chapter, selector)
        if proves:
            assert re.match(r"Theorem \d+ \(", tab.locator(".proof.theorem").first.inner_text())


def test_a_wide_table_does_not_widen_a_telephone_page(look):
    for chapter in manifests.chapters():
        tab, _, _ = look(f"book/{chapter}")
        tab.set_viewport_size({"width": 390, "height": 844})
        assert tab.evaluate("document.documentElement.scrollWidth") <= 392


def test_dark_mode_follows_the_reader(look):
    assert look("book/index", color_scheme="dark")[0].evaluate(LIGHTNESS) < 150
    assert look("book/index", color_scheme="light")[0].evaluate(LIGHTNESS) > 600
