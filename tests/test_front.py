"""What stands before a chapter: on its card of the first page, and at the head and the foot of its lesson."""

import base64
import io
import json
import re
import urllib.parse

import pytest
import tiny_book
from bs4 import BeautifulSoup
from PIL import Image

from support.book import claims, computed_pages, front, manifests, publish, verdict_table
from support.common import paths

CHAPTERS = manifests.chapters()
TOLD = """
01_tiny:
  question: "Is two times two four?"
  picture: fig-steps
  found: [tiny2020.table1]
  leads: {01_tiny: "begins again"}
"""


def figure(name: str, colour: str, alt: str = "") -> dict:
    png = io.BytesIO()
    Image.new("RGB", (1300, 650), colour).save(png, "PNG")
    encoded = base64.b64encode(png.getvalue()).decode()
    metadata = {"name": name, "mystnb": {"image": {"alt": alt}}}
    return {"metadata": metadata, "outputs": [{"data": {"image/png": encoded}}]}


# --- this book --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_chapter_has_its_question_its_picture_and_what_was_found(chapter):
    told, source = front.of(chapter), manifests.source_file(chapter).read_text(encoding="utf-8")
    assert re.search(r"\?( .*\?)?$", told.question)
    assert f'name="{told.picture}"' in source
    assert 4 <= len(told.found) <= 6
    assert {*told.found} <= {claim.id for claim in claims.of_chapter(chapter)}
    assert {*told.leads} <= {*CHAPTERS} - {chapter}
    assert told.leads


def test_every_paper_of_the_book_is_in_the_bibliography_and_most_can_be_read():
    papers = [paper for paper in claims.registry().values() if not paper.authors.islower()]
    assert all(front.cited(paper) for paper in papers)
    found = {paper.key: front.address(paper) for paper in papers}
    assert all(re.match(r"https://(doi\.org/10\.|arxiv\.org/abs/\d{4}\.\d+$)", url) for url in found.values() if url)
    assert [key for key, url in found.items() if not url] == ["zou2018"], "an extended abstract without an address of its own"


def test_the_first_page_has_three_numbers_a_picture_and_a_card_for_each_chapter(site, soups, whole):
    if not whole:
        pytest.skip("the tiny book has a first page of its own")
    page, lines = soups["book/index"], verdict_table.lines()
    rows = [line.best.row for line in lines]
    claimed = [row for line, row in zip(lines, rows, strict=True) if line.claim.kind != "question"]
    judged = [row["verdict"] for row in claimed if row["verdict"] not in ("scaled-down", "not run")]
    robust = [row["survives"] for row in rows if row["survives"] not in ("", "not run")]
    wanted = [f"{judged.count('reproduced')} of {len(judged)}", f"{robust.count('survives')} of {len(robust)}"]
    wanted += [str(sum(line.claim.erratum is not None for line in lines))]
    assert [number.get_text() for number in page.select(".numbers strong")] == wanted
    cards = page.select(".chapter-card")
    assert len(cards) == len(CHAPTERS) == len(page.select(".chapter-card img[alt]"))
    for chapter, card in zip(CHAPTERS, cards, strict=True):
        assert card.a["href"] == f"{chapter}/lesson.html"
        assert front.of(chapter).question in card.get_text()
        shown = [int(part["title"].split()[0]) for part in card.select(".verdict-bar span")]
        assert sum(shown) == len(claims.of_chapter(chapter))
    for picture in page.select("article img"):
        assert (site / "book" / picture["src"]).resolve().stat().st_size < 60_000
    assert page.select_one(".first-picture img")


def test_a_lesson_begins_with_its_paper_its_question_and_what_was_found(soups, whole):
    if not whole:
        pytest.skip("the tiny book says nothing before its chapter")
    for chapter in CHAPTERS:
        page = soups[f"book/{chapter}/lesson"]
        found = page.select(".found-box li a")
        lesson = manifests.manifest_of(publish.chosen_run(chapter, "lesson"))
        stated = manifests.judged(manifests.evidence_of(lesson))  # what today's rules can judge of the record
        names = [name for name in front.of(chapter).found if name in {claim.id for claim, _ in stated}]
        links = [f"evidence.html#{name}" for name in names]
        if front.OWN_FINDINGS.removeprefix("## ") in {head.get_text().rstrip("#¶") for head in page.select("h2")}:
            assert found == [], "said once"
            assert {*links} <= {link["href"] for link in page.select("article a")}
        else:
            assert [link["href"] for link in found] == links
        assert front.of(chapter).question.split()[0] in page.select_one(".question-box").get_text()
        foot = page.find(id="where-this-leads")
        assert len(foot.select("li a")) == len(front.of(chapter).leads)


# --- a tiny book ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def told(book):
    (book / "book" / "chapters.yml").write_text(TOLD, encoding="utf-8")
    return manifests.manifest_of(publish.chosen_run(tiny_book.CHAPTER))


def test_a_lesson_says_what_was_found_with_the_verdicts_of_the_record(told):
    text = front.head(told)
    assert "Is two times two four?" in text
    (row,) = BeautifulSoup(text, "html.parser").select(".found-box li")
    assert row.a["href"] == "evidence.html#tiny2020.table1"
    assert "scaled-down" in row.get_text()
    assert "broken" in row.get_text()
    assert "- {doc}`Tiny <../01_tiny/lesson>` begins again." in front.foot(tiny_book.CHAPTER)
    alone = front.head(told, findings=False)
    assert "Is two times two four?" in alone
    assert "found-box" not in alone


def test_a_chapter_that_is_not_named_has_nothing_before_it(book):
    assert front.of(tiny_book.CHAPTER) == front.Front()
    assert front.foot(tiny_book.CHAPTER) == ""
    assert "question" not in front.head(manifests.manifest_of(publish.chosen_run(tiny_book.CHAPTER)))


def test_a_file_that_breaks_the_schema_is_refused(book):
    (book / "book" / "chapters.yml").write_text("01_tiny: {questoin: Why?}", encoding="utf-8")
    with pytest.raises(claims.ClaimError, match=r"chapters\.yml: .*questoin"):
        front.of(tiny_book.CHAPTER)


def test_a_card_shows_the_figure_of_that_name_made_small_or_else_the_first(tmp_path):
    file = tmp_path / "evidence.ipynb"
    file.write_text(json.dumps({"cells": [{"metadata": {}}, figure("fig-a", "red"), figure("fig-b", "blue", "A blue plane.")]}))
    shown = front.picture(file, "fig-b", width=320)
    image = Image.open(io.BytesIO(shown.png)).convert("RGB")
    assert (image.size, image.getpixel((9, 9)), shown.alt) == ((320, 160), (0, 0, 255), "A blue plane.")
    other = Image.open(io.BytesIO(front.picture(file, "fig-none").png)).convert("RGB")
    assert other.getpixel((9, 9)) == (255, 0, 0)
    file.write_text(json.dumps({"cells": [{"metadata": {}, "outputs": []}]}))
    assert front.picture(file, "fig-a") is None


def test_the_pictures_of_the_readme_and_of_the_first_page_are_of_the_record(tmp_path, monkeypatch):
    cover = front.cover()
    assert front.new_cover() == b"", "python -m support score --write"
    assert front.made_of(cover.png) != ""
    assert len(front.cover_file().read_bytes()) < 100_000
    readme = (paths.root() / "README.md").read_text(encoding="utf-8")
    assert f"![{cover.alt}](book/_static/first.png)" in "\n".join(readme.splitlines()[:20]), "in its first screen"
    monkeypatch.setattr(front, "cover_file", lambda: tmp_path / "first.png")
    assert front.new_cover() == cover.png, "not there"
    (tmp_path / "first.png").write_bytes(front.picture(manifests.recorded_run(front.FIRST[0], "quick"), "fig-other").png)
    assert front.new_cover() == cover.png, "of another figure"
    (tmp_path / "first.png").write_bytes(cover.png)
    assert front.new_cover() == b""


def test_a_neighbour_says_why_one_goes_there(soups, whole):
    lesson, evidence = (f"book/{CHAPTERS[0]}/{part}" for part in ("lesson", "evidence"))
    assert front.why(evidence, lesson) == front.PARTS["evidence"]
    assert front.why("book/scoreboard", lesson) == ""
    for chapter in CHAPTERS:
        for other, lead in front.of(chapter).leads.items():
            assert front.why(f"book/{other}/lesson", f"book/{chapter}/exercises") == lead
    for page, soup in soups.items():
        for neighbour in soup.select(".prev-next-area a"):
            other = urllib.parse.urljoin(page, neighbour["href"]).removesuffix(".html")
            assert neighbour.select_one(".prev-next-title").get_text().endswith(front.why(other, page)), page
    if whole:
        assert len([reason for soup in soups.values() for reason in soup.select(".prev-next-title .why")]) > 3 * len(CHAPTERS)


def test_the_finding_counts_what_could_be_judged(book):
    lines = verdict_table.lines()
    assert computed_pages.finding(lines) == "1 of 1 judged claims reproduces; none of 1 claims about robustness survive."
    assert computed_pages.shares(lines) == [(1, 1), (0, 1), (0, 0)]
    assert computed_pages.finding([]) == "Nothing could be judged yet."


def test_the_book_is_cited_as_its_file_says(book):
    shown = computed_pages.board(["book/index"])
    (book / "CITATION.cff").write_text("authors: [{name: A. One}, {name: B. Two}]\ntitle: Tiny\nversion: 0.2\nlicense: MIT\n")
    text = computed_pages.part("cite", shown)
    assert all(line in text for line in ("author  = {A. One and B. Two},", "title   = {Tiny},", "license = {MIT},"))
    assert paths.root() == book
