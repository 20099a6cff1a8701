"""Pages about the package, from its docstrings, and the links that lead there."""

import importlib
import inspect
import re
import urllib.parse

import pytest

from support.book import sphinx_reference
from support.common import fingerprint

ROOMS = ("attacks", "certificates", "clustering", "data", "distribution_shift", "evaluation", "geometry", "measures", "models",
         "networks", "path_kernel", "smoothing", "training")  # fmt: skip


def test_bars_and_last_underscores_are_no_marks_but_in_literals_and_roles():
    text = "|x_adv - x| <= eps, c_ and ``|x|`` of\n:func:`a_` and ``two\nlines_``"
    assert sphinx_reference.escaped(text) == "\\|x_adv - x\\| <= eps, c\\_ and ``|x|`` of\n:func:`a_` and ``two\nlines_``"


def test_an_object_is_known_by_the_end_of_its_name_where_there_is_one():
    names = ["support.attacks.pgd", "support.a.get", "support.b.get", "support.path_kernel.Path.steps"]
    known = sphinx_reference.known(names)
    assert known["attacks.pgd"] == known["support.attacks.pgd"] == names[0]
    assert known["Path.steps"] == names[3]
    assert known["a.get"] == names[1]
    assert not {"pgd", "get", "steps"} & {*known}


def test_every_room_of_the_science_has_a_page_with_what_it_offers(soups, whole):
    if not whole:
        pytest.skip("the tiny book has no pages about the package")
    pages = {page.rpartition("/")[2]: soup for page, soup in soups.items() if page.startswith(sphinx_reference.PAGES)}
    assert {*pages} == {"index", *ROOMS}
    rooms = {file.stem for file in fingerprint.PACKAGE.iterdir() if not file.name.startswith("__")}
    assert rooms - {*ROOMS} == {"book", "classroom", "common", "cli", "intervals", "sampling"}, "those two are on the page of measures"
    for room in ROOMS:
        module = importlib.import_module(f"support.{room}")
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        offered = {name for name in getattr(module, "__all__", own) if name[0] != "_" and inspect.getdoc(getattr(module, name))}
        offered = {name for name in offered if inspect.isroutine(getattr(module, name)) or inspect.isclass(getattr(module, name))}
        entries = {entry["id"].rpartition(".")[2] for entry in pages[room].select("dt.sig[id]")}
        assert len(offered) >= 3
        assert offered <= entries, room


def test_a_page_links_what_it_first_names_to_its_entry(site, soups, whole):
    if not whole:
        pytest.skip("the tiny book has no pages about the package")
    links = [
        (page, link)
        for page, soup in soups.items()
        for link in soup.select("article a[href*='package/']")
        if link.find("code") and link.get_text() != "" and not page.startswith(sphinx_reference.PAGES)
    ]
    assert len(links) >= 20
    for page, link in links:
        file, _, place = urllib.parse.urljoin(page, link["href"]).partition("#")
        assert soups[file.removesuffix(".html")].find(id=place), (page, link["href"])
        assert place.endswith(re.sub(r"\(\)$", "", link.get_text())), (page, link["href"])
    seen = [(page, link.get_text()) for page, link in links]
    assert len(seen) == len({*seen}), "once a page"
