"""The built book: strict, complete, the same after nothing changed, and read in a real browser without a network."""

import dataclasses
import functools
import http.server
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import threading
import unicodedata
import urllib.parse
from pathlib import Path

import nbformat
import pytest
import tiny_book
import tiny_runs
from bs4 import BeautifulSoup
from in_browser import opened

from support.book import claims, computed_pages, downloads, manifests, printed, publish, sphinx_offline
from support.common import paths

ASKS = (("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("object", "data"))
LIGHTNESS = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
CHAPTER = tiny_book.CHAPTER
ELEMENTS = 6000  # of a page whose formulas are set and whose code has its colours, but where solutions are closed
FIRST_VIEW, WHOLE = 1.5e6, 3e6  # bytes that a lesson asks for at first, and to its end
MISSING_PICTURES = """async () => {
    const pictures = [...document.querySelectorAll('article img')];
    pictures.forEach(picture => { picture.loading = 'eager'; });
    await Promise.all(pictures.map(picture => picture.decode().catch(() => null)));
    return pictures.filter(picture => !picture.naturalWidth).length;
}"""
OPEN_CODE = """async () => {
    for (const block of document.querySelectorAll('pre[data-kept]')) {
        if (!block.checkVisibility()) continue;
        block.scrollIntoView();
        for (let frames = 0; frames < 600 && !block.children.length; frames++) await new Promise(requestAnimationFrame);
    }
}"""
COLOURED = "[...document.querySelectorAll('pre[data-kept]')].every(block => !block.checkVisibility() || block.children.length)"
COUNT = "document.querySelectorAll('*').length - document.querySelectorAll('.toggle-hidden mjx-container *').length"
# What ends beyond the text, on paper.
CUT = """() => {
    const edge = document.querySelector('article').getBoundingClientRect().right + 1;
    return [...document.querySelectorAll('article *')]
        .filter(part => !part.closest('svg, mjx-container') && part.getBoundingClientRect().right > edge && part.offsetWidth)
        .map(part => `${part.tagName} ${part.className}: ${part.textContent.slice(0, 60)}`);
}"""
PAPER = {"width": 718, "height": 1000}  # of A4 within Chromium's margins
# Formulas that end beyond the page, and do not scroll with what they stand in.
CLIPPED = """() => [...document.querySelectorAll('article mjx-container')].filter(formula => {
    const box = formula.getBoundingClientRect();
    if (!box.width || box.right <= innerWidth + 1) return false;
    for (let around = formula; around && around.tagName !== 'ARTICLE'; around = around.parentElement)
        if (['auto', 'scroll'].includes(getComputedStyle(around).overflowX)) return false;
    return true;
}).map(formula => formula.parentElement.textContent.slice(0, 80))"""
# A table of a thousand rows says nothing that forty do not, and takes the checker half a minute.
SHORTER = "document.querySelectorAll('tbody').forEach(body => [...body.rows].slice(40).forEach(row => row.remove()))"


# --- the built pages --------------------------------------------------------------------------------------------------------------


def test_every_page_of_the_contents_is_built_and_no_other(site):
    built = {file.relative_to(site).with_suffix("").as_posix() for file in (site / "book").rglob("*.html")}
    assert built == set(publish.pages())
    assert len(built) == len(publish.pages()) >= 7


def test_every_part_of_every_chapter_is_in_the_contents(site):
    listed = [page for page in publish.pages() if re.match(r"book/\d\d_", page)]
    assert listed == [f"book/{chapter}/{part}" for chapter in manifests.chapters() for part in ("lesson", "evidence", "exercises")] != []


def test_the_contents_of_this_book_are_eight_chapters_of_three_parts_in_a_numbered_part():
    text = (paths.root() / paths.MARKER).read_text(encoding="utf-8")
    assert re.search(r"- caption: Chapters\n  numbered: 1\b", text), "theorems are numbered 2.1, not through the book"
    chapters = re.findall(r"^  - file: book/(\d\d_\w+)/lesson\n    sections:\n", text, re.MULTILINE)
    assert [chapter[:2] for chapter in chapters] == [f"{number:02}" for number in range(1, 9)]
    assert all(f"    - file: book/{chapter}/{part}\n" in text for chapter in chapters for part in ("evidence", "exercises"))


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


def test_every_page_says_what_it_is_under_which_licence_and_of_which_day(site, soups):
    for page, soup in soups.items():
        assert len(soup.select_one("meta[name=description]")["content"]) > 100, page
        footer = soup.select_one("footer.bd-footer-content").get_text(" ")
        assert "BSD-3-Clause" in footer, page
        assert re.search(r"Last updated on \d{1,2} \w+ 20\d\d", footer), page
        icon = soup.select_one("link[rel*=icon]")["href"]
        assert (site / f"{page}.html").parent.joinpath(icon).resolve().read_bytes().startswith(b"<svg"), page


def test_mathjax_comes_with_its_fonts(site):
    folder = site / "_static" / "mathjax"
    assert all((folder / part).is_file() for part in sphinx_offline.PARTS)
    assert len(list((folder / "output/chtml/fonts").rglob("*.woff"))) >= 20
    assert sum(file.stat().st_size for file in folder.rglob("*")) < 4e6, "what no page loads stays behind"


def test_no_output_shows_a_raw_value_or_an_unresolved_role(soups):
    for page, soup in soups.items():
        text = BeautifulSoup(str(soup), "html.parser")
        for output in text.select(".cell_output"):
            assert not re.search(r"np\.(float|int|bool)\w*\(|\b(tensor|array)\(|\{'\w+': | at 0x[0-9a-f]+>", output.get_text()), page
        for source in text.select("pre, code"):
            source.decompose()
        assert not re.search(r"\{(cite|doc|ref|eq|numref|prf|glue)[:}\w]*\}|\{(exercise|solution)-(start|end)\}", text.get_text()), page


def test_no_page_shows_a_number_that_is_none(soups):
    for page, soup in soups.items():
        if page.startswith("book/package/"):
            continue  # docstrings speak of None
        text = BeautifulSoup(str(soup.select_one("article")), "html.parser")
        for source in text.select("pre, code"):
            source.decompose()
        assert re.findall(r"(?:^|[=\s(\[])(?:nan|NaN|undefined)(?=$|[\s,;)\]])|[=(\[] ?None\b|\btensor\(", text.get_text(" ")) == [], page
        assert [cell for cell in text.select("td, th") if cell.get_text().strip() == "None"] == [], page


def test_every_link_leads_to_a_page_and_a_place_that_there_are(site, soups):
    pages = {(site / f"{page}.html").resolve(): {found["id"] for found in soup.find_all(id=True)} for page, soup in soups.items()}
    followed, broken = 0, []
    for page, soup in soups.items():
        here = (site / f"{page}.html").resolve()
        for link in soup.select("a[href]"):
            if re.match(r"[a-z]+:", link["href"]):
                continue  # another site, or data
            file, _, place = urllib.parse.unquote(link["href"]).partition("#")
            target = (here.parent / file.partition("?")[0]).resolve() if file else here
            followed += 1
            if not target.is_file() or (place and target in pages and place not in pages[target]):
                broken.append((page, link["href"]))
    assert followed > 100
    assert broken == []


def test_every_figure_says_what_it_shows(soups, whole):
    pictures = [(page, picture) for page, soup in soups.items() for picture in soup.select("article img")]
    assert len(pictures) >= 3 * whole
    poor = [(page, picture.get("src")) for page, picture in pictures if len(picture.get("alt", "")) < 15 or "_images/" in picture["alt"]]
    assert poor == []


def test_every_figure_has_a_number_and_a_caption(soups):
    numbers = []
    for chapter in manifests.chapters():
        for part in ("lesson", "evidence", "exercises"):
            soup = soups[f"book/{chapter}/{part}"]
            figures = soup.select("article .cell_output figure:not(.movable)")
            assert len(figures) == len(soup.select("article .cell_output img")), "what a cell draws is a figure"
            assert all(len(figure.select_one("figcaption .caption-text").get_text()) > 30 for figure in figures), (chapter, part)
            numbers += [figure.select_one("figcaption .caption-number").get_text() for figure in figures]
    assert all(re.fullmatch(r"Figure \d+\.\d+\. ", number) for number in numbers)
    assert len(numbers) == len({*numbers}) > 0


def test_no_table_has_a_heading_without_words(soups):
    ours = [head for soup in soups.values() for head in soup.select("table:is(.claims, .score, .score-counts, .frame) th")]
    assert ours
    assert [head for head in ours if not head.get_text().strip()] == []


def test_the_evidence_says_at_its_top_what_it_was_run_with_and_the_lesson_leads_there(site, soups):
    for chapter in manifests.chapters():
        manifest = manifests.manifest_of(publish.chosen_run(chapter))
        for part in ("lesson", "evidence"):
            box = soups[f"book/{chapter}/{part}"].select_one("article .run-box")
            assert (box.name, box.get("open")) == ("details", None), "folded into one line"
            asked = sum(claim.kind == "question" for claim in claims.of_chapter(chapter))
            told = {"claim": len(manifest.claims) - asked, "question": asked}
            words = [f"{count} {word}{'s' * (count > 1)}:" for word, count in told.items() if count]
            words += [manifest.profile, manifest.device_name] * (part == "evidence")
            assert all(word in box.get_text() for word in words), (chapter, part)
            assert part == "evidence" or "evidence.html" in [link["href"] for link in box.select("a")]


def test_the_book_builds_in_place(tmp_path, built, site):
    """``jupyter-book build .`` shows the committed quick pages, whatever else lies in the checkout; computed pages are the same."""
    command = [*publish.JUPYTER_BOOK, ".", "--path-output", str(tmp_path)]
    environment = os.environ | {"PYTHONUTF8": "1"}
    done = subprocess.run(command, cwd=built[0], env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    here = tmp_path / "_build" / "html"
    publish.check_complete(here)
    for page in ("scoreboard", "errata"):
        tables = [BeautifulSoup((root / "book" / f"{page}.html").read_text(encoding="utf-8"), "html.parser") for root in (here, site)]
        assert tables[0].select("tbody tr") == tables[1].select("tbody tr") != []
    for name in downloads.beside(computed_pages.board(publish.pages())):
        assert (here / "_static" / name).read_bytes() == (site / "_static" / name).read_bytes()


# --- when it is built -------------------------------------------------------------------------------------------------------------


def test_a_build_is_only_done_where_something_changed(built, site, monkeypatch):
    def refuse(*_):
        raise AssertionError("done again")

    monkeypatch.setattr(publish, "_jupyter_book", refuse)
    stamp = site / publish.STAMP
    sources, pages = stamp.read_text(encoding="utf-8").split()
    stamp.write_text(f"others {pages}", encoding="utf-8")
    assert publish.build(site) == (site / "index.html").as_uri(), "pages that are staged as before are not built again"
    with monkeypatch.context() as patch:
        patch.setattr(publish, "stage", refuse)
        publish.build(site)
    stamp.write_text("others others", encoding="utf-8")
    with pytest.raises(AssertionError, match="done again"):
        publish.build(site)
    stamp.write_text(f"{sources} {pages}", encoding="utf-8")


def test_a_warning_stops_the_build_and_keeps_the_old_book(tmp_path, monkeypatch):
    tiny_book.add_pages(tiny_book.make(tmp_path))
    shutil.rmtree(tmp_path / "book" / CHAPTER)
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/index\n", encoding="utf-8")
    (tmp_path / "book" / "index.md").write_text("# One page\n\n{doc}`no_such_page`\n", encoding="utf-8")
    monkeypatch.setenv("BOOK_ROOT", str(tmp_path))
    old = tmp_path / "_build" / "book" / "index.html"
    old.parent.mkdir(parents=True)
    old.write_text("old", encoding="utf-8")
    with pytest.raises(publish.PublishError, match="no_such_page"):
        publish.build()
    assert old.read_text(encoding="utf-8") == "old"


def test_a_page_that_was_not_built_is_missed(site, tmp_path):
    built = tmp_path / "html"
    shutil.copytree(site, built, ignore=shutil.ignore_patterns("_static"))
    publish.check_complete(built)
    (built / "book" / "errata.html").rename(built / "book" / "other.html")
    with pytest.raises(publish.PublishError, match=r"missing book/errata, not listed book/other"):
        publish.check_complete(built)


# --- which run a page shows -------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """``runs(place, profile, day, part, ...)`` leaves a run of the tiny chapter; place is "recorded" or "local"."""
    monkeypatch.setenv("BOOK_ROOT", str(tiny_book.make(tmp_path)))
    places = {"recorded": manifests.recorded_run, "local": manifests.local_run}
    usual = {"commit": "0123456789abcdef", "dirty": False, "wall_seconds": 300.0, "seeds": [0, 1]}

    def run(place: str, profile: str, day: int, part: str = "evidence", **changes) -> Path:
        found = tiny_runs.manifest(profile=profile, **(usual | {"finished": f"2026-01-{day:02}T00:00:00+00:00"} | changes))
        if part != "evidence":
            found = found.model_copy(update={"part": part, "code": manifests.code_of(CHAPTER, part), "claims": {}})
        words = nbformat.v4.new_markdown_cell("# Tiny\n\nThe first words.")
        return tiny_runs.leave(places[place](CHAPTER, profile, part), found, words)

    return run


def test_the_largest_profile_is_shown(runs):
    runs("local", "quick", 9)
    standard = runs("recorded", "standard", 1)
    assert publish.chosen_run(CHAPTER) == standard
    paper = runs("local", "paper", 1)
    assert publish.chosen_run(CHAPTER) == paper
    lesson = runs("local", "quick", 1, part="lesson")
    assert publish.chosen_run(CHAPTER, "lesson") == lesson, "each part by itself"


def test_of_two_runs_at_one_profile_the_newer_is_shown(runs):
    recorded = runs("recorded", "quick", 2)
    runs("local", "quick", 1)
    assert publish.chosen_run(CHAPTER) == recorded
    local = runs("local", "quick", 3)
    assert publish.chosen_run(CHAPTER) == local


def test_a_run_of_the_present_code_is_shown_before_a_newer_one_of_older_code(runs):
    recorded = runs("recorded", "standard", 1)
    runs("local", "standard", 5, code="0" * 16)
    assert publish.chosen_run(CHAPTER) == recorded


def test_a_lesson_of_another_text_is_shown_only_where_none_is_of_todays(runs):
    old = runs("recorded", "standard", 1, part="lesson")
    other = manifests.manifest_of(old).model_copy(update={"code": "0" * 16})
    manifests.manifest_path(old).write_text(other.model_dump_json(), encoding="utf-8")
    assert publish.chosen_run(CHAPTER, "lesson") == old
    today = runs("recorded", "quick", 1, part="lesson")
    assert publish.chosen_run(CHAPTER, "lesson") == today


def test_a_part_that_was_never_run_is_refused_with_the_command_to_run(runs):
    with pytest.raises(publish.PublishError, match="01_tiny/lesson was never run: python -m support run 01_tiny"):
        publish.chosen_run(CHAPTER, "lesson")


def test_the_box_says_profile_seeds_date_commit_device_and_verdicts(runs):
    text = publish.box(manifests.manifest_of(runs("recorded", "standard", 7, overrides={"steps": 9}, dirty=True)))
    assert "**standard** with `steps = 9`, seeds 0 to 1; A processor, 1 thread." in text
    assert "Finished on 7 January 2026 in 5 min; commit `0123456789`, with changes not committed." in text
    assert "2 claims: 2 reproduced. Under today's protocol: 1 not run." in text
    assert text.startswith("```{dropdown} Run at standard, 7 January 2026\n")
    assert "changed since" not in text


def test_the_box_of_a_lesson_has_the_verdicts_of_the_evidence_and_leads_there(runs):
    runs("recorded", "standard", 7)
    text = publish.box(manifests.manifest_of(runs("recorded", "quick", 7, part="lesson")))
    assert "2 claims: 2 reproduced. Under today's protocol: 1 not run.\n{doc}`The evidence <evidence>`" in text


def test_a_lesson_is_as_old_as_the_evidence_that_it_shows(runs):
    runs("recorded", "standard", 7, code="0" * 16)
    assert "out of date" in publish.box(manifests.manifest_of(runs("recorded", "standard", 7, part="lesson")))


def test_a_page_older_than_its_code_warns(runs):
    text = publish.box(manifests.manifest_of(runs("recorded", "standard", 7, code="0" * 16)))
    assert text.startswith("```{dropdown} Run at standard, 7 January 2026: its code has changed since\n")
    assert "python -m support run 01_tiny --profile standard" in text


def test_the_box_stands_under_the_title_and_exercises_have_none(runs):
    for part in ("evidence", "exercises"):
        manifests.source_file(CHAPTER, part).unlink()
    first = publish.page(runs("local", "quick", 1)).cells[0].source
    assert re.match(r"# Tiny\n\n```\{dropdown\}.*```\n\nThe first words\.", first, re.DOTALL)
    assert publish.page(runs("local", "quick", 1, part="exercises")).cells[0].source == "# Tiny\n\nThe first words."


# --- in a browser -----------------------------------------------------------------------------------------------------------------


PARTS = (".proof.theorem", ".run-box", ":is(.claim, table.claims)", ".exercise")
HEIGHTS = """parts => parts.map(part => [...document.querySelectorAll(part)].map(found => found.getBoundingClientRect().height))"""
TELEPHONE = {"width": 390, "height": 844}


@dataclasses.dataclass(frozen=True)
class Visit:
    """What a browser meets on a page. To open one takes seconds; each is opened once, for several tests."""

    asked: list[str]
    complaints: list[str]
    places: int
    formulas: int
    wrong: int
    heights: dict[str, list[float]]
    labels: list[str]
    elements: int
    missing: int
    width: int
    clipped: list[str]


@pytest.fixture(scope="module")
def visits(browser, built, soups) -> dict[str, Visit]:
    return {page: visit(browser, built[1] / f"{page}.html") for page in soups}


def visit(browser, file: Path) -> Visit:
    with opened(browser, file) as (tab, asked, complaints):
        places, formulas, wrong = (tab.locator(name).count() for name in (".math", "mjx-container", "mjx-merror, [data-mjx-error]"))
        heights = dict(zip(PARTS, tab.evaluate(HEIGHTS, PARTS), strict=True))
        labels = tab.locator(".proof.theorem, .exercise").all_inner_texts()
        tab.evaluate(OPEN_CODE)
        tab.wait_for_function(COLOURED)
        elements, missing = tab.evaluate(COUNT), tab.evaluate(MISSING_PICTURES)
        tab.set_viewport_size(TELEPHONE)
        width, clipped = tab.evaluate("document.documentElement.scrollWidth"), tab.evaluate(CLIPPED)
        return Visit(asked, complaints, places, formulas, wrong, heights, labels, elements, missing, width, clipped)


def test_every_page_opens_without_a_complaint_and_without_the_network(visits, soups, whole):
    for page, seen in visits.items():
        assert [url for url in seen.asked if not url.startswith(("file:", "data:", "blob:"))] == [], page
        assert seen.complaints == [], page
        assert seen.formulas == seen.places, page
        assert seen.places == len(soups[page].select(".math")) or page == "book/scoreboard", page
        assert seen.wrong == seen.missing == 0, page
        assert 0 < seen.elements <= ELEMENTS, page
    assert sum(seen.formulas for seen in visits.values()) > 50 * whole


def test_a_chapter_shows_theorems_exercises_and_verdicts(visits, site):
    for number, chapter in enumerate(manifests.chapters(), 1):
        proves = any(claim.kind == "identity" for claim in claims.of_chapter(chapter))
        states = min(5, len(claims.of_chapter(chapter)))
        wanted = {
            "lesson": {".proof.theorem": int(proves), ".run-box": 1},
            "evidence": {":is(.claim, table.claims)": states, ".run-box": 1},
            "exercises": {".exercise": 1},
        }
        for part, selectors in wanted.items():
            seen = visits[f"book/{chapter}/{part}"]
            for selector, least in selectors.items():
                assert len(seen.heights[selector]) >= least, (chapter, part, selector)
                assert all(height > 10 for height in seen.heights[selector][:least]), (chapter, selector)
            assert all(re.match(rf"(Theorem|Exercise) {number}\.\d+ ", label) for label in seen.labels), (chapter, part)


def test_a_wide_table_does_not_widen_a_telephone_page(visits):
    for page, seen in visits.items():
        assert 0 < seen.width <= TELEPHONE["width"] + 2, page
        assert seen.clipped == [], page


def test_dark_mode_follows_the_reader(look):
    assert look("book/index", color_scheme="dark")[0].evaluate(LIGHTNESS) < 150
    assert look("book/index", color_scheme="light")[0].evaluate(LIGHTNESS) > 600


def kinds(whole: bool) -> list[str]:
    """One page of each kind."""
    chapter = manifests.chapters()[0]
    pages = ["index", "scoreboard", "errata", "how_to_read", *(["teach"] if whole else [])]
    return [f"book/{page}" for page in pages] + [f"book/{chapter}/{part}" for part in ("lesson", "evidence", "exercises")]


def test_whoever_cannot_see_a_page_or_its_colours_can_use_it(look, whole):
    """axe-core's serious and critical findings; in the dark only contrast is another."""
    axe = importlib.util.find_spec("axe_playwright_python")
    if axe is None:
        pytest.skip("axe-playwright-python is not installed")
    script = Path(axe.origin).with_name("axe.min.js").read_text(encoding="utf-8")
    for page in kinds(whole):
        for scheme, only in (("light", None), ("dark", ["color-contrast"])):
            tab, _, _ = look(page, color_scheme=scheme)
            tab.evaluate(SHORTER)
            tab.evaluate("() => Promise.all(document.getAnimations().map(({finished}) => finished))")  # of colours, as a page opens
            tab.evaluate(script)
            options = {"resultTypes": ["violations"], "preload": False} | ({"runOnly": only} if only else {})
            found = tab.evaluate("options => axe.run(document, options)", options)
            assert len(found["passes"]) >= (1 if only else 20), "the checker ran"
            grave = [(one["id"], one["nodes"][0]["html"]) for one in found["violations"] if one["impact"] in ("serious", "critical")]
            assert grave == [], (page, scheme)
            tab.close()


def words_of(text: str) -> str:
    return re.sub(r"\W+", "", unicodedata.normalize("NFKC", text))  # a PDF has "fi" as one letter


def test_a_page_is_printed_whole_with_its_figures_and_without_its_solutions(look, soups, whole):
    pypdf = pytest.importorskip("pypdf")
    for part in ("lesson", "evidence", "exercises"):
        page = f"book/{manifests.chapters()[0]}/{part}"
        tab, _, _ = look(page)
        assert tab.evaluate(MISSING_PICTURES) == 0
        figures = tab.evaluate("new Set([...document.querySelectorAll('article img')].map(picture => picture.src)).size")
        tab.set_viewport_size(PAPER)
        tab.emulate_media(media="print")
        assert tab.evaluate(CUT) == [], page
        sheets = pypdf.PdfReader(io.BytesIO(tab.pdf(format="A4"))).pages
        pictures = {found.get_object().get("/Subtype") == "/Image" and found.idnum for sheet in sheets for found in drawn(sheet)}
        assert len(pictures - {False}) >= figures >= (whole and part != "exercises"), page
        text = "".join(sheet.extract_text() for sheet in sheets)
        assert not re.search(r"\\[(\[]|\$\$", text), page
        told = words_of(text)
        assert all(words_of(head.get_text().rstrip("#")) in told for head in soups[page].select("article h2")), page
        closed = [words_of(found.get_text())[:60] for found in soups[page].select(".solution .highlight pre, details.hide pre")]
        assert [code for code in closed if len(code) > 40 and code in told] == [], page
        tab.close()


def drawn(sheet) -> list:
    """References to what a sheet of a PDF draws besides letters and lines, forms within forms as well."""
    from pypdf.generic import DictionaryObject

    waiting, found, none = [sheet], [], DictionaryObject()
    while waiting:
        resources = waiting.pop().get("/Resources", none).get_object()
        for name in (objects := resources.get("/XObject", none).get_object()):
            found.append(objects.raw_get(name))
            waiting.append(objects[name])
    return found


def test_a_page_that_is_not_there_leads_back_from_any_depth(site, browser):
    class Server(http.server.SimpleHTTPRequestHandler):
        def send_error(self, code, message=None, explain=None):
            content = (site / "404.html").read_bytes()
            self.send_response(code)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content * (self.command != "HEAD"))

        def log_message(self, *_):
            pass

    handler = functools.partial(Server, directory=site.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_port}/{site.name}/"
        for place in ("gone.html", "book/01_old.html", "book/chapters/old/gone.html"):
            tab = browser.new_page()
            assert tab.goto(home + place).status == 404
            tab.locator("#ways").wait_for(timeout=printed.PATIENCE)
            links = [link.get_attribute("href") for link in tab.locator("#ways a").all()]
            assert links == [f"/{site.name}/{page}.html" for page in ("book/index", "book/scoreboard", "search")], place
            tab.locator("#ways a").first.click()
            assert tab.url == f"{home}book/index.html"
            tab.close()
        server.shutdown()


def test_a_lesson_weighs_little(site, browser, whole):
    for chapter in manifests.chapters():
        tab, asked = browser.new_page(viewport={"width": 1360, "height": 900}), set()
        tab.on("request", lambda request, asked=asked: asked.add(urllib.parse.urlsplit(request.url).path))
        tab.goto((site / "book" / chapter / "lesson.html").as_uri(), wait_until="networkidle")
        first = sum(Path(file).stat().st_size for file in asked if Path(file).is_file())
        tab.evaluate(MISSING_PICTURES)
        all_of_it = sum(Path(file).stat().st_size for file in asked if Path(file).is_file())
        tab.close()
        assert 2e5 < first <= FIRST_VIEW, (chapter, first)
        assert first <= all_of_it <= WHOLE, (chapter, all_of_it)


def test_a_search_finds_words_and_not_code_or_tables(site, whole):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    found = json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))
    terms = {
        term: {found["docnames"][at] for at in ([places] if isinstance(places, int) else places)} for term, places in found["terms"].items()
    }
    assert "reproduc" in terms or "reproduct" in terms
    assert not {"nbval", "torch_geometric", "linspac", "arang"} & {*terms}
    assert all(page.startswith("book/package/") for page in terms.get("dtype", ())), "docstrings may speak of it, chapters do in code only"
    assert len(index) < 200_000


def test_a_page_is_worked_with_the_keyboard(look):
    tab, _, _ = look(f"book/{manifests.chapters()[0]}/evidence")
    tab.keyboard.press("Tab")
    assert "Skip to main content" in tab.evaluate("document.activeElement.textContent")
    for selector in (".run-box summary", ".claim summary"):
        fold = tab.locator(selector).first
        fold.focus()
        tab.keyboard.press("Enter")
        assert fold.evaluate("summary => summary.parentElement.open"), selector


def test_a_figure_is_enlarged_by_the_keyboard_and_a_drawing_is_turned_on_a_dark_page(look):
    tab, _, _ = look(f"book/{manifests.chapters()[0]}/evidence", color_scheme="dark")
    button = tab.locator("button.enlarge").last
    button.focus()
    tab.keyboard.press("Enter")
    large = tab.locator("dialog.enlarged")
    assert large.evaluate("dialog => dialog.open")
    assert large.locator("img").evaluate("picture => picture.decode().then(() => picture.width)") >= 600
    tab.keyboard.press("Escape")
    tab.wait_for_function("!document.querySelector('dialog.enlarged').open")
    drawings = tab.locator(".cell_output img.drawing")
    assert drawings.count() > 0
    assert "invert" in drawings.last.evaluate("picture => getComputedStyle(picture).filter")


def test_only_icons_that_are_used_are_there_and_all_of_them(site, look):
    script = site / "_static" / "scripts" / "fontawesome.js"
    assert 20_000 < script.stat().st_size < 200_000
    tab, _, _ = look("book/index")
    drawn = tab.locator("svg.svg-inline--fa").all()
    assert len(drawn) >= 5
    assert all(icon.locator("path").count() and icon.locator("path").first.get_attribute("d") for icon in drawn)
    assert tab.locator("[data-icon=question], .fa-layers").count() == 0, "what stands for an icon that is missing"
