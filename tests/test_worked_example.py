"""How a verdict is reached: the example and the rates of the page are what the rules say of drawn measurements."""

import numpy as np
import pytest
from bs4 import BeautifulSoup
from scipy import stats

from support.book import computed_pages, power, rules, worked_example
from support.sampling import Share

DRAWS = 2000


def test_the_example_is_judged_by_the_rules():
    assert [step.says for step in worked_example.steps()] == ["pass", "pass", "undecided"]
    assert worked_example.together().status == "pass"
    text = computed_pages.part("worked-example", None)
    for step in worked_example.steps():
        assert f"| {step.hits} | {step.measured} | {step.says} |" in text
    assert worked_example.together().line in text


def test_a_pair_tells_more_than_two_networks_apart():
    found = worked_example.pair()
    (low, high), (lowest, highest) = (map(float, found[name].split("[")[1][:-1].split(", ")) for name in ("paired", "apart"))
    assert lowest < 0 < low < high < highest


@pytest.fixture(scope="module")
def tables() -> list[worked_example.Rates]:
    return worked_example.rates((100, 400), draws=500)


def test_the_words_of_a_row_are_all_there_is(tables):
    assert [truth for table in tables for truth in table.truths] == [*(0.93, 0.9, 0.87) * 2, 0.03, 0.0, -0.03]
    for table in tables:
        assert [images for images, _ in table.rows] == [100, 400]
        for _, groups in table.rows:
            assert np.array(groups).shape == (3, len(worked_example.RUNS), 3)
            assert np.allclose(np.sum(groups, axis=2), 1)


def test_wrong_words_are_as_rare_as_the_page_says(tables):
    """On the bound: 2.5 % in one run, 0.2 % in three; the pairs are simulated, so that chance adds to it."""
    same, _, paired = ([groups[1] for _, groups in table.rows] for table in tables)
    assert max(found[0][place] for found in same for place in (0, 2)) <= 0.025
    assert max(found[1][place] for found in same for place in (0, 2)) <= 0.002
    rare = stats.binom(500, 0.025).ppf(0.9999) / 500
    assert max(found[0][place] for found in paired for place in (0, 2)) <= rare


@pytest.mark.parametrize("scatter", [0.0, 0.03])
@pytest.mark.parametrize("runs", [1, 3])
def test_the_rates_are_how_often_the_rules_say_so(scatter, runs):
    """With the rules themselves, on drawn runs whose own truths scatter."""
    stream = np.random.default_rng(1)
    hits = stream.binomial(400, np.clip(stream.normal(0.92, scatter, (DRAWS, runs)), 0, 1))
    rule = rules.IntervalRule(type="interval", value="a", low=worked_example.BOUND)
    rows, counts = np.unique(np.sort(hits, axis=1), axis=0, return_counts=True)
    said = [rules.apply("", rule, {"a": tuple(Share(int(hit), 400) for hit in row)}).status for row in rows]
    found = power.of_runs([power.of_any_run(0.92, worked_example.BOUND, 400, scatter)] * runs)
    for word, chance in zip(("pass", "undecided", "fail"), found, strict=True):
        seen = sum(count for count, status in zip(counts, said, strict=True) if status == word)
        low, high = stats.binom(DRAWS, np.clip(chance, 0, 1)).interval(0.9999)
        assert low <= seen <= high, word


def test_the_page_shows_the_rates(monkeypatch, tables):
    monkeypatch.setattr(worked_example, "rates", lambda: tables)
    soup = BeautifulSoup(computed_pages.part("rates", None), "html.parser")
    shown = soup.select("table")
    assert len(shown) == len(tables)
    for table, known in zip(shown, tables, strict=True):
        for row, (images, groups) in zip(table.select("tbody tr"), known.rows, strict=True):
            assert row.th.get_text() == str(images)
            wanted = [", ".join(f"{abs(100 * chance):.0f}" for chance in found) for group in groups for found in group]
            assert [cell.get_text() for cell in row.select("td")] == wanted
