"""The book as one PDF: every page once, and links that lead to where they led."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from support.book import printed, publish

pypdf = pytest.importorskip("pypdf")

FIRST = """<title>First — A book</title><h1 id="first">First</h1>
<p><a href="#below">below</a> <a href="second.html#there">there</a> <a href="second.html">second</a> <a href="https://example.org/a#b">out</a></p>
<div style="break-before: page"><h2 id="below">Below</h2></div>"""
SECOND = """<title>Second — A book</title><h1>Second</h1><p>One sheet.</p>
<div style="break-before: page"><h2 id="there">There</h2><a href="#there">here</a></div>"""


def places(reader, sheet) -> list:
    """Where the links of a sheet lead: to the sheet of a number, or to an address."""
    found = [annotation.get_object() for annotation in sheet.get("/Annots", ())]
    numbers = {sheet.indirect_reference.idnum: number for number, sheet in enumerate(reader.pages)}
    return [numbers[link["/Dest"][0].idnum] if "/Dest" in link else link["/A"]["/URI"] for link in found]


@pytest.mark.usefixtures("browser")
def test_pages_become_one_file_whose_links_lead_within_it(tmp_path):
    for name, text in {"first": FIRST, "second": SECOND}.items():
        (tmp_path / f"{name}.html").write_text(f"<!doctype html><meta charset=utf-8>{text}", encoding="utf-8")
    out = tmp_path / "made" / "book.pdf"
    with ThreadPoolExecutor(1) as pool:  # a second Chromium, which its driver allows in another thread only
        assert pool.submit(printed.write, tmp_path, ["first", "second"], out).result() == 4
    reader = pypdf.PdfReader(out)
    assert [sheet.extract_text().split()[0] for sheet in reader.pages] == ["First", "Below", "Second", "There"]
    assert [(mark.title, reader.get_destination_page_number(mark)) for mark in reader.outline] == [("First", 0), ("Second", 2)]
    assert [places(reader, sheet) for sheet in reader.pages] == [[1, 3, 2, "https://example.org/a#b"], [], [], [3]]


def test_without_a_browser_nothing_is_printed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(publish.PublishError, match="no browser to print with: none of chromium, "):
        printed.write(tmp_path, ["first"], tmp_path / "book.pdf")
    assert not list(tmp_path.iterdir())
