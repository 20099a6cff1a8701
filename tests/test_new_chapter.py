"""A chapter from the template: it runs, it is judged, it builds, and nothing that is there is written over."""

import pytest
import tiny_book
from bs4 import BeautifulSoup

from support.book import execute, front, manifests, new_chapter, publish
from support.common import paths

NAME, KEY, TITLE = "02_margins", "author2024", "Margins"


def test_a_new_chapter_runs_and_builds_as_it_is(book, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.delenv("BOOK_ROOT")
        tiny_book.add_pages(book)
    made = new_chapter.make(NAME, KEY, TITLE)
    parts = {"evidence.py", "lesson.py", "exercises.py"}
    assert {file.name for file in made} == parts | {f"{NAME}.yml", f"{KEY}.yml", "chapters.yml", "_toc.yml"}
    assert publish.pages()[4:7] == [f"book/{NAME}/{part}" for part in ("lesson", "evidence", "exercises")]
    execute.execute(NAME, record=True)
    manifest = manifests.manifest_of(publish.chosen_run(NAME))
    assert [(claim.id, found.verdict) for claim, found in manifests.judged(manifest)] == [(f"{KEY}.first", "reproduced")]
    out = tmp_path / "pages" / "book"
    publish.build(out)
    lesson = BeautifulSoup((out / "book" / NAME / "lesson.html").read_text(encoding="utf-8"), "html.parser")
    assert "2. Margins" in lesson.select_one("article h1").get_text()
    assert lesson.select_one(".found-box a")["href"] == f"evidence.html#{KEY}.first"
    assert front.of(NAME).picture == "fig-first"


@pytest.mark.parametrize(
    ("name", "key", "title", "said"),
    [
        ("margins", KEY, TITLE, "named like 09_margins"),
        (NAME, "author", TITLE, "named like author2024"),
        ("01_other", KEY, TITLE, "01_tiny is there already"),
        (NAME, "tiny2020", TITLE, "tiny2020 is there already"),
        (NAME, KEY, 'A "title"', "without quotes"),
    ],
)
def test_what_cannot_be_begun_is_refused_and_nothing_is_written(book, name, key, title, said):
    before = {file: file.read_bytes() for file in paths.root().rglob("*.[py]*") if file.is_file()}
    with pytest.raises(new_chapter.NewChapterError, match=said):
        new_chapter.make(name, key, title)
    assert {file: file.read_bytes() for file in paths.root().rglob("*.[py]*") if file.is_file()} == before
