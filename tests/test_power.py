"""How often each word falls, and what a rule could have seen: exact sums against the rules themselves on drawn images."""

import math

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy import stats

from support import intervals
from support.book import power, rules
from support.sampling import Difference, Estimate, Share

RULE = TypeAdapter(rules.Rule).validate_python({"type": "interval", "value": "a", "low": 0.6})
DRAWS = 3000


def drawn(truth: float, images: int, runs: int) -> list[str]:
    """What the rule says of drawn measurements."""
    hits = np.random.default_rng(0).binomial(images, truth, size=(DRAWS, runs))
    known: dict[tuple, str] = {}
    for row in map(tuple, hits.tolist()):
        if row not in known:
            known[row] = rules.apply("", RULE, {"a": tuple(Share(count, images) for count in row)}).status
    return [known[row] for row in map(tuple, hits.tolist())]


@pytest.mark.parametrize(("truth", "images"), [(0.6, 50), (0.7, 100), (0.52, 200), (0.99, 9)])
@pytest.mark.parametrize("runs", [1, 2, 3])
def test_the_probability_of_each_word_is_how_often_it_falls(truth, images, runs):
    found = power.of_runs([power.of_run(truth, 0.6, images)] * runs)
    assert sum(found) == pytest.approx(1)
    said = drawn(truth, images, runs)
    for word, chance in zip(("pass", "undecided", "fail"), found, strict=True):
        band = stats.binom(DRAWS, min(max(chance, 0), 1)).interval(0.9999)
        assert band[0] <= said.count(word) <= band[1], word


def test_on_the_bound_a_run_is_wrong_as_seldom_as_promised():
    for images in (20, 300, 10_000):
        for bound in (0.02, 0.5, 0.9):
            found = power.of_run(bound, bound, images)
            assert max(found.passes, found.fails) <= 0.025
            assert max(power.of_runs([found] * 3)[::2]) <= 0.002


@pytest.mark.parametrize("images", [(300,), (100, 100, 100), (1000, 500, 1000)])
def test_a_share_is_told_from_a_bound_just_where_it_is_said(images):
    below, above = power.detectable(0.6, [Share(1, count) for count in images])

    def words(truth: float) -> power.Words:
        return power.of_runs([power.of_run(truth, 0.6, count) for count in images])

    assert below < 0.6 < above
    assert words(above).passes >= 0.8 > words(above - 0.002).passes
    assert words(below).fails >= 0.8 > words(below + 0.002).fails


def test_what_no_share_can_show_is_said():
    below, above = power.detectable(0.95, [Share(19, 20)])
    assert math.isnan(above)
    assert power.of_run(below, 0.95, 20).fails >= 0.8
    assert power.detectable(0.5, [0.4, Share(1, 2)]) is None
    assert power.detectable(0.5, [Estimate(0.4, 0.3, 0.6, 9)]) is None


@pytest.mark.parametrize("bound", [0.0, 0.05])
def test_a_difference_is_told_from_a_gap_about_where_it_is_said(bound):
    """With other draws, and with the intervals themselves; 400 draws know a probability of 0.8 to 0.02."""
    below, above = power.detectable(bound, [Difference(20, 10, 200)] * 2)
    assert below < bound < above
    for truth, says in ((above, "pass"), (below, "fail")):
        parts = max(0.15, abs(truth))
        chances = [(parts + truth) / 2, (parts - truth) / 2, 1 - parts]
        pairs = np.random.default_rng(1).multinomial(200, chances, size=(400, 2))
        low, high = intervals.paired_difference(pairs[..., 0], pairs[..., 1], 200)
        words = np.where(low >= bound, "pass", np.where(high < bound, "fail", "undecided"))
        assert np.mean([rules.agreed(list(row)) == says for row in words]) == pytest.approx(0.8, abs=0.08)


def test_whether_a_difference_is_beyond_a_gap_is_what_its_interval_says():
    n10, n01 = (grid.ravel() for grid in np.meshgrid(np.arange(41), np.arange(41)))
    n10, n01 = n10[n10 + n01 <= 40], n01[n10 + n01 <= 40]
    low, high = intervals.paired_difference(n10, n01, 40)
    for gap in (-0.13, 0.0, 0.071, 0.5):
        above, below = intervals.paired_difference_is(gap, n10, n01, 40)
        assert (above == (low > gap)).all()
        assert (below == (high < gap)).all()


def test_an_undecided_row_says_what_it_could_have_seen():
    line = rules.apply("", RULE, {"a": (Share(60, 100),)}).line
    below, above = power.detectable(0.6, [Share(60, 100)])
    assert line.endswith(f"; of so many images only below {below:.2g} or above {above:.2g} would be decided")
    assert "so many images" not in rules.apply("", RULE, {"a": (Share(90, 100),)}).line
    assert "so many images" not in rules.apply("", RULE, {"a": (0.5, 0.7)}).line
    pair = TypeAdapter(rules.Rule).validate_python({"type": "ordering", "values": ["a", "b"]})
    masks = [np.arange(100) < 60, np.arange(100) % 10 < 6]
    found = {name: (Share(60, 100, mask),) for name, mask in zip("ab", masks, strict=True)}
    assert "of so many images only below -0." in rules.apply("", pair, found | rules.paired([pair], found)).line
