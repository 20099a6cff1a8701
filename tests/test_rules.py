"""Rules: each run is decided by its own sampling error, and the runs together by their agreement."""

import math

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy import stats

from support import intervals
from support.book import rules
from support.sampling import Difference, Estimate, Share

RULE = TypeAdapter(rules.Rule)
INTERVAL = {"type": "interval", "value": "a", "low": 0.4, "high": 0.6}
AT_LEAST = {"type": "interval", "value": "a", "low": 0.5}
ORDERING = {"type": "ordering", "values": ["a", "b"], "gap": 0.1}
RATIO = {"type": "ratio", "numerator": "a", "denominator": "b", "low": 2.0}
MAX_ABS = {"type": "max_abs", "value": "a", "tolerance": 1e-9}


def outcome(rule: dict, **measured) -> rules.Outcome:
    asked, found = RULE.validate_python(rule), rules.numbers("tiny2020.one", measured)
    return rules.apply("tiny2020.one", asked, found | rules.paired([asked], found))


def status(rule: dict, **measured) -> str:
    return outcome(rule, **measured).status


def share(hits: int, of: int, start: int = 0) -> Share:
    """A share whose hits begin at an entry."""
    mask = np.zeros(of, dtype=bool)
    mask[start : start + hits] = True
    return Share(hits, of, mask)


# --- intervals --------------------------------------------------------------------------------------------------------------------


def test_over_runs_the_mean_is_shown_with_the_hull_of_the_runs_intervals():
    runs = [Share(90, 100), Share(100, 100), Share(95, 100)]
    found = rules.interval(runs)
    ends = [stats.binomtest(run.hits, 100).proportion_ci(0.95) for run in runs]
    assert found.mean == pytest.approx(0.95)
    assert (found.low, found.high) == pytest.approx((min(e.low for e in ends), max(e.high for e in ends)))
    assert found.high <= 1
    assert rules.interval([0.3, 0.1, 0.2]) == (pytest.approx(0.2), 0.1, 0.3, 3)


def test_a_single_number_without_sampling_error_has_no_interval():
    assert rules.interval([0.3]) == (0.3, None, None, 1)
    assert rules.quantity(rules.interval([0.3])) == rules.quantity(rules.interval([0.3, 0.3])) == "0.3"


# --- rules ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "measured", "expected"),
    [
        (INTERVAL, {"a": 0.5}, "pass"),
        (INTERVAL, {"a": 0.4}, "pass"),
        (INTERVAL, {"a": 0.6}, "pass"),
        (INTERVAL, {"a": 0.39}, "fail"),
        (INTERVAL, {"a": 0.61}, "fail"),
        (INTERVAL, {"a": [0.49, 0.5, 0.51]}, "pass"),
        (INTERVAL, {"a": [0.39, 0.5, 0.61]}, "undecided"),
        (INTERVAL, {"a": [0.1, 0.11, 0.12]}, "fail"),
        (INTERVAL, {"a": [0.1, 0.2, 0.9]}, "fail"),
        (INTERVAL, {"a": [0.3, 0.39, 0.41]}, "undecided"),
        (INTERVAL, {"a": Share(50, 100)}, "undecided"),
        (INTERVAL, {"a": Share(500, 1000)}, "pass"),
        (INTERVAL, {"a": Share(30, 1000)}, "fail"),
        (AT_LEAST, {"a": Share(100, 100)}, "pass"),
        (AT_LEAST, {"a": Estimate(0.7, 0.5, 0.9, 9)}, "pass"),
        (AT_LEAST, {"a": Estimate(0.7, 0.49, 0.9, 9)}, "undecided"),
        (AT_LEAST, {"a": Estimate(0.3, 0.1, 0.5, 9)}, "undecided"),
        (AT_LEAST, {"a": Estimate(0.3, 0.1, 0.49, 9)}, "fail"),
        ({"type": "interval", "value": "a", "low": 0.01}, {"a": Difference(20, 1, 300)}, "pass"),
        ({"type": "interval", "value": "a", "low": 0.05}, {"a": Difference(20, 1, 300)}, "undecided"),
        ({"type": "interval", "value": "a", "high": 0.0}, {"a": -5}, "pass"),
        (ORDERING, {"a": 0.6, "b": 0.5}, "fail"),  # 0.6 - 0.5 is below 0.1 in floating point
        (ORDERING, {"a": 0.75, "b": 0.5}, "pass"),
        (ORDERING, {"a": 0.55, "b": 0.5}, "fail"),
        (ORDERING, {"a": [0.9, 0.5, 0.7], "b": [0.7, 0.3, 0.5]}, "pass"),  # the runs differ, their differences do not
        (ORDERING, {"a": [0.9, 0.5, 0.7], "b": [0.3, 0.7, 0.5]}, "undecided"),
        (ORDERING, {"a": [0.9, 0.5, 0.7], "b": 0.2}, "pass"),
        (ORDERING, {"a": Share(90, 100), "b": Share(80, 100)}, "undecided"),  # nothing is known of the pairs
        (ORDERING, {"a": share(140, 200), "b": share(80, 200)}, "pass"),
        (ORDERING, {"a": share(104, 200), "b": share(80, 200)}, "undecided"),
        ({"type": "ordering", "values": ["a", "b"]}, {"a": share(87, 100), "b": share(80, 100)}, "pass"),  # 7 to 0
        ({"type": "ordering", "values": ["a", "b"]}, {"a": share(84, 100), "b": share(80, 100)}, "undecided"),  # 4 to 0
        ({"type": "ordering", "values": ["a", "b"]}, {"a": share(80, 100), "b": share(87, 100)}, "fail"),
        ({"type": "ordering", "values": ["a", "b"]}, {"a": share(87, 100), "b": share(80, 100, 20)}, "undecided"),
        ({"type": "ordering", "values": ["a", "b", "c"]}, {"a": 3, "b": 2, "c": 2}, "pass"),
        ({"type": "ordering", "values": ["a", "b", "c"]}, {"a": 3, "b": 2, "c": 4}, "fail"),
        (RATIO, {"a": 0.4, "b": 0.2}, "pass"),
        (RATIO, {"a": 0.39, "b": 0.2}, "fail"),
        (RATIO, {"a": 0.4, "b": 0.0}, "pass"),
        (RATIO, {"a": 0.0, "b": 0.0}, "undecided"),
        (RATIO, {"a": [0.4, 0.45, 0.5], "b": [0.0, 0.0, 0.0]}, "pass"),
        (RATIO | {"high": 3.0}, {"a": 0.4, "b": 0.0}, "fail"),
        (RATIO, {"a": [0.9, 0.4], "b": [0.2, 0.3]}, "undecided"),
        (RATIO, {"a": share(300, 500), "b": share(100, 500)}, "pass"),
        (RATIO, {"a": share(220, 500), "b": share(100, 500)}, "undecided"),
        (RATIO, {"a": share(120, 500), "b": share(100, 500)}, "fail"),
        (RATIO, {"a": Share(0, 9), "b": Share(0, 9)}, "undecided"),
        (RATIO, {"a": Estimate(6, 5, 7, 9), "b": Estimate(2, 1.8, 2.2, 9)}, "pass"),
        (RATIO, {"a": Estimate(6, 3, 7, 9), "b": Estimate(2, 1.8, 2.2, 9)}, "undecided"),
        (RATIO, {"a": [0.8, 0.9], "b": 0.1}, "pass"),
        (MAX_ABS, {"a": 1e-10}, "pass"),
        (MAX_ABS, {"a": -1e-8}, "fail"),
        (MAX_ABS, {"a": [0.0, 0.0, 1e-8]}, "fail"),  # no averaging away
        (MAX_ABS | {"tolerance": 0}, {"a": 0}, "pass"),
        (MAX_ABS | {"tolerance": 0}, {"a": 1}, "fail"),
    ],
)
def test_rules(rule, measured, expected):
    assert status(rule, **measured) == expected


@pytest.mark.parametrize(
    ("runs", "together"),
    [
        ("p", "pass"), ("f", "fail"), ("u", "undecided"), ("ppp", "pass"), ("ppu", "pass"), ("puu", "undecided"), ("pu", "undecided"),
        ("ppf", "undecided"), ("ppppf", "undecided"), ("pppuu", "pass"), ("fff", "fail"), ("ffu", "fail"), ("fuu", "undecided"),
    ],
)  # fmt: skip
def test_runs_speak_together_where_none_contradicts_and_most_agree(runs, together):
    words = {"p": "pass", "f": "fail", "u": "undecided"}
    assert rules.agreed([words[run] for run in runs]) == together
    values = {"p": Share(90, 100), "f": Share(10, 100), "u": Share(50, 100)}
    assert status(AT_LEAST, a=[values[run] for run in runs]) == together


def test_a_run_of_an_ordering_fails_where_one_of_its_steps_does():
    three = {"type": "ordering", "values": ["a", "b", "c"]}
    assert status(three, a=[3, 3, 1], b=[2, 2, 2], c=[1, 1, 1]) == "undecided"
    assert status(three, a=[1, 3, 1], b=[2, 2, 2], c=[1, 3, 1]) == "fail"


def test_the_word_of_a_share_is_wrong_as_seldom_as_its_head_says():
    """Exact, over all outcomes of a share that lies on the bound."""
    chance = stats.binom(200, 0.5).pmf(np.arange(201))
    words = np.array([status(AT_LEAST, a=Share(hits, 200)) for hits in range(201)])
    passes, fails = chance[words == "pass"].sum(), chance[words == "fail"].sum()
    assert max(passes, fails) <= 0.025
    assert 3 * passes**2 * (1 - passes) + passes**3 < 0.002


def test_pairs_are_kept_as_numbers_that_judge_the_same():
    asked = [RULE.validate_python(rule) for rule in (ORDERING, RATIO)]
    found = rules.numbers("", {"a": [share(140, 200)] * 3, "b": share(80, 200)})
    found |= rules.paired(asked, found)
    assert [(gap.n10, gap.n01, gap.of) for gap in found["a - b"]] == [(60, 0, 200)] * 3
    again = rules.numbers("", rules.plain(found))
    assert rules.paired(asked, again) == {}, "the entries are not kept"
    for rule in asked:
        assert rules.apply("", rule, again) == rules.apply("", rule, found)
    assert "a - b = 0.3 [0.24" in rules.apply("", asked[0], again).seen
    assert rules.paired(asked, rules.numbers("", {"a": [share(14, 20), Share(7, 20)], "b": share(8, 20)})) == {}
    assert rules.paired(asked, rules.numbers("", {"a": share(14, 20), "b": None})) == {}


def test_a_pair_knows_more_than_two_shares():
    paired = status(ORDERING | {"gap": 0}, a=share(110, 200), b=share(90, 200))
    alone = status(ORDERING | {"gap": 0}, a=Share(110, 200), b=Share(90, 200))
    assert (paired, alone) == ("pass", "undecided")
    line = outcome(RATIO | {"low": 1.1}, a=share(110, 200), b=share(90, 200)).line
    low, high = intervals.paired_ratio(110, 90, 20, 200)
    assert f"= 1.222 [{low:.4g}, {high:.4g}] (wants" in line
    assert line.startswith("✓")


@pytest.mark.parametrize("absent", [None, [], float("nan"), float("inf"), [0.5, None], [0.5, float("nan")]])
def test_what_was_not_measured_is_missing(absent):
    assert status(INTERVAL, a=absent) == "missing"
    assert status(ORDERING, b=0.5) == "missing"


def test_arrays_and_scalars_of_numpy_are_numbers():
    assert status(INTERVAL, a=np.float32(0.5)) == "pass"
    assert status(INTERVAL, a=np.array([0.5, 0.5])) == "pass"


@pytest.mark.parametrize(
    ("rule", "measured", "complaint"),
    [
        (INTERVAL, {"a": "0.5"}, "a must be a number"),
        (INTERVAL, {"a": [0.5, "x"]}, "a must be a number"),
        (INTERVAL, {"a": [[0.5]]}, "a must be a number"),
        (INTERVAL, {"a": {"hits": 3}}, "a must be a number"),
        (INTERVAL, {"a": {"hits": 4, "of": 3}}, "a must be a number.*hits <= of"),
        (ORDERING, {"a": [1, 2, 3], "b": [1, 2]}, "same number of runs"),
        (RATIO, {"a": 1.0, "b": -1.0}, "below zero"),
    ],
)
def test_measurements_that_do_not_fit_the_rules_are_refused(rule, measured, complaint):
    with pytest.raises(rules.ClaimError, match=complaint):
        status(rule, **measured)


# --- numbers ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.99997, "1 - 3e-05"),
        (0.9999, "0.9999"),
        (1.00001, "1"),
        (0.0, "0"),
        (3.0, "3"),
        (0.12345, "0.1235"),
        (123456.0, "123456"),
        (1e-12, "1e-12"),
        (2.5e8, "2.5e+08"),
        (-0.5, "-0.5"),
    ],
)
def test_numbers_are_short(value, text):
    assert rules.number(value) == text


def test_measurements_are_kept_as_json_and_read_again():
    given = {
        "a": 1, "b": [1.5, 2.5], "c": float("nan"), "d": np.array([2.0]), "e": None, "f": share(3, 4), "g": Difference(2, 1, 9),
        "h": [Estimate(2, 1, 3, 7)],
    }  # fmt: skip
    found = rules.numbers("", given)
    kept = rules.plain(found)
    assert kept == {
        "a": [1.0], "b": [1.5, 2.5], "c": [None], "d": [2.0], "e": [None], "f": [{"value": 0.75, "hits": 3, "of": 4}],
        "g": [{"value": pytest.approx(1 / 9), "n10": 2, "n01": 1, "of": 9}], "h": [{"value": 2.0, "low": 1, "high": 3, "of": 7}],
    }  # fmt: skip
    again = rules.numbers("", kept)
    assert again == found
    assert [type(again[name][0]) for name in "afgh"] == [float, Share, Difference, Estimate]
    assert math.isclose(intervals.of(again["g"][0])[1], intervals.of(found["g"][0])[1])
