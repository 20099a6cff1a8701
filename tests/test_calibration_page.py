"""The page "Do our attacks work?": its numbers are those that are kept, and what is kept says what the page tells of it."""

import json

import pytest
from bs4 import BeautifulSoup
from scipy.stats import binomtest

from support.book import calibration_page, computed_pages
from support.common import paths
from support.evaluation import calibration, verified_properties


@pytest.fixture(scope="module")
def kept():
    return json.loads((paths.root() / "data" / "calibration.json").read_text(encoding="utf-8"))


def shown(name: str) -> BeautifulSoup:
    return BeautifulSoup(computed_pages.part(name, None), "html.parser")


def rows(kept, attack: str) -> dict[str, dict]:
    """The rows of an attack, by benchmark."""
    return {row["benchmark"]: row for row in kept["rows"] if row["attack"] == attack}


def test_every_row_is_shown_with_its_numbers(kept):
    tables = shown("calibration-properties").select("table")
    assert len(tables) == len(verified_properties.SETS)
    lines = [[cell.get_text() for cell in row.select("th, td")] for table in tables for row in table.select("tbody tr")]
    assert len(lines) == len(kept["rows"]) == len({(row["benchmark"], row["attack"], row["library"]) for row in kept["rows"]})
    for line, row in zip(lines, kept["rows"], strict=True):
        assert line[:4] == [row["attack"], row["library"], f"{row['found']} of {row['violated']}", f"{row['faults']} of {row['holds']}"]
        assert line[6] == f"{row['passes_held']:.0f}"
    assert f"multi_targeted finds {rows(kept, 'multi_targeted')['mnistfc']['found']} after" in shown("calibration-properties").get_text()


def test_the_controls_and_the_closed_forms_are_shown(kept):
    lines, protocol = (
        [[cell.get_text() for cell in row.select("th, td")] for row in table.select("tbody tr")]
        for table in shown("calibration-controls").select("table")
    )
    assert [line[0] for line in lines] == [known.network for known in calibration.CONTROLS]
    for line, row in zip(lines, kept["controls"], strict=True):
        assert line[2:5] == [str(row["of"]), f"{100 * row['wrong'] / row['of']:.1f} %", f"{100 * row['attacked'] / row['of']:.1f} %"]
    judged = [(row, one, one is row["protocol"][0]) for row in kept["controls"] for one in row["protocol"]]
    for line, (row, one, control) in zip(protocol, judged, strict=True):
        numbers = [f"{100 * right / of:.0f}" for right, of in map(one["rows"].__getitem__, calibration_page.SHOWN)]
        assert line[0] == f"{one['network']} at {row['eps']:.3g}" and line[1:-1] == numbers
        assert (calibration_page.survival(row) in line[-1]) is control and line[-1].endswith(", ".join(one["flags"]))
    flagged = [row["network"] for row in kept["controls"] if row["protocol"][0]["flags"]]
    assert all(name in shown("calibration-controls").get_text().partition("A flag is no verdict")[2] for name in flagged)
    text = computed_pages.part("calibration-linear", None)
    assert all(f"| `{name}` | {right} of {total} |" in text for name, (right, total) in kept["linear"].items())


def test_what_the_page_says_is_so(kept):
    """Prose that no number is typed in: each of its sentences about the tables."""
    ours = rows(kept, "multi_targeted")
    assert all(row["found"] == row["violated"] and not row["missed"] for row in ours.values())
    assert sum(row["faults"] for row in kept["rows"]) == 0
    difference = rows(kept, "pgd_targets, 80 steps a target")
    (alone,) = {row["attack"] for row in kept["rows"] if row["attack"].startswith("the rival's score alone")}
    score = rows(kept, alone)
    assert difference["mnistfc"]["missed"] and not score["mnistfc"]["missed"]
    assert score["oval21"]["missed"] and not difference["oval21"]["missed"]
    words = {row["network"]: calibration_page.survival(row) for row in kept["controls"] if not calibration_page.beyond(row)}
    assert "survives" in words.values() and "broken" not in words.values(), words
    beyond = [row["network"] for row in kept["controls"] if calibration_page.beyond(row)]
    assert beyond == ["cifar10/provable-8"]  # the number in its file is no bound, and the page says so
    for row in kept["controls"]:
        if row["published"]:  # as many as the published attack, but for chance
            assert row["attacked"] / row["of"] >= row["published"] - 3 * calibration_page.error(row["published"], row["of"])
    assert kept["linear"]["multi_targeted"][0] == kept["linear"]["multi_targeted"][1] > kept["linear"]["fgsm"][0]
    made = kept["made"]
    assert made["commit"] and not made["dirty"] and made["finished"] and made["torch"]


def test_a_share_scatters_by_the_binomial_and_is_beyond_a_bound_where_its_interval_is():
    assert calibration_page.error(0.5, 100) == 0.05
    for count in range(50, 70):
        low = binomtest(count, 100).proportion_ci(0.95).low
        assert calibration_page.beyond({"unproven": 0.5, "of": 100, "attacked": count}) is bool(low > 0.5)


def test_the_page_asks_for_every_part():
    text = (paths.root() / "book" / "attackers.md").read_text(encoding="utf-8")
    assert computed_pages.PLACEHOLDER.findall(text) == list(calibration_page.PARTS)


@pytest.mark.parametrize(("control", "plain", "word"), [(80, 0, "survives"), (3, 0, "broken"), (80, 100, "broken"), (20, 0, "undecided")])
def test_a_control_is_judged_by_the_rule_of_the_papers_defences(control, plain, word):
    row = {"protocol": [{"rows": {"worst case": [right, 150]}} for right in (control, plain)]}
    assert calibration_page.survival(row) == word
