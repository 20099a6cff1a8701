"""Tables of a page: what a reader sees of a frame, and what a screen reader hears."""

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from support.book import plots


@pytest.fixture
def shown(monkeypatch):
    """``shown(frame, caption, ...)`` is the table as a page gets it, and as plain text."""
    outputs = []
    monkeypatch.setattr(plots, "display", lambda output, raw: outputs.append(output))

    def table(*arguments, **settings):
        plots.table(*arguments, **settings)
        return BeautifulSoup(outputs[-1]["text/html"], "html.parser"), outputs[-1]["text/plain"]

    return table


def cells(soup: BeautifulSoup) -> list[list[str]]:
    return [[cell.get_text() for cell in row.select("th, td")] for row in soup.select("tr")]


def test_numbers_have_their_digits_and_words_stay(shown):
    frame = pd.DataFrame({"a": [1.23456, np.nan], "n": [1, 20], "w": ["<x>", None], "b": [True, False]}, index=["one", "two"])
    soup, text = shown(frame, "Some & more", digits=2)
    assert soup.caption.get_text() == "Some & more"
    assert cells(soup) == [["", "a", "n", "w", "b"], ["one", "1.23", "1", "<x>", "True"], ["two", "–", "20", "–", "False"]]
    assert text.startswith("Some & more\n")
    assert "1.23" in text


def test_a_column_can_have_a_format_of_its_own(shown):
    frame = pd.DataFrame({"share": [0.5], "p": [0.000123]}, index=["x"])
    assert cells(shown(frame, "", digits=0, kind="%", columns={"p": ".2g"})[0])[1] == ["x", "50%", "0.00012"]
    assert cells(shown(pd.DataFrame({"v": [np.float32(1234.5), None]}), "", kind="g", missing="not run")[0])[1:] == [
        ["0", "1.23e+03"], ["1", "not run"],
    ]  # fmt: skip


def test_labels_of_several_levels_stand_once_and_no_heading_is_empty(shown):
    columns = pd.MultiIndex.from_tuples([("clean", "mean"), ("clean", "min"), ("attacked", "mean")])
    index = pd.MultiIndex.from_tuples([("mnist", 0), ("mnist", 0), ("digits", 0)], names=["data", "run"])
    soup, _ = shown(pd.DataFrame(np.zeros((3, 3)), index, columns), "Levels", digits=0)
    assert cells(soup)[:2] == [["", "", "clean", "attacked"], ["data", "run", "mean", "min", "mean"]]
    assert [row[:-3] for row in cells(soup)[2:]] == [["mnist", "0"], ["0"], ["digits", "0"]]
    assert [head["rowspan"] for head in soup.select("[rowspan]")] == ["2"]
    assert all(head.get_text() for head in soup.select("th"))


def test_the_name_of_the_columns_fills_the_corner(shown):
    assert cells(shown(pd.DataFrame({0.1: [1]}).rename_axis("epsilon", axis=1), "")[0])[0] == ["epsilon", "0.1"]
