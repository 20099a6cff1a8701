"""Rules and the intervals behind them, against scipy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from scipy import stats

from support.book import rules

RULE = TypeAdapter(rules.Rule)
INTERVAL = {"type": "interval", "value": "a", "low": 0.4, "high": 0.6}
ORDERING = {"type": "ordering", "values": ["a", "b"], "gap": 0.1}
RATIO = {"type": "ratio", "numerator": "a", "denominator": "b", "low": 2.0}
MAX_ABS = {"type": "max_abs", "value": "a", "tolerance": 1e-9}


def status(rule: dict, **measured) -> str:
    return rules.apply("tiny2020.one", RULE.validate_python(rule), rules.numbers("tiny2020.one", measured)).status


# --- intervals --------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8))
def test_the_interval_over_runs_is_students(values):
    found = rules.interval(values)
    if np.ptp(values) > 1e-6:
        low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        assert found.low == pytest.approx(low, abs=1e-9)
        assert found.high == pytest.approx(high, abs=1e-9)
    assert found.mean == pytest.approx(sum(values) / len(values), abs=1e-9)


def test_a_single_run_has_no_interval():
    assert rules.interval([0.3]) == (0.3, None, None, 1)
    assert rules.ratio_interval([3.0], [2.0]) == (1.5, None, None, 1)


def test_fiellers_bounds_are_where_the_paired_test_turns():
    rng = np.random.default_rng(0)
    for _ in range(20):
        bottom = rng.normal(1.0, 0.05, 5)
        top = 2 * bottom + rng.normal(0, 0.1, 5)
        found = rules.ratio_interval(top, bottom)
        assert found.low < found.mean < found.high
        for bound in (found.low, found.high):
            assert stats.ttest_1samp(top - bound * bottom, 0.0).pvalue == pytest.approx(0.05, abs=1e-9)


def test_a_denominator_that_may_be_zero_leaves_the_ratio_unbounded():
    assert rules.ratio_interval([1.0, 1.1], [0.3, -0.2])[1:3] == (-math.inf, math.inf)
    assert rules.ratio_interval([1.0], [0.0]).mean == math.inf


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
        (INTERVAL, {"a": [0.3, 0.39, 0.41]}, "undecided"),
        (INTERVAL, {"a": [0.4, 0.4, 0.4]}, "pass"),
        ({"type": "interval", "value": "a", "low": 0.1}, {"a": [0.1] * 7}, "pass"),
        ({"type": "interval", "value": "a", "high": 0.0}, {"a": -5}, "pass"),
        (ORDERING, {"a": 0.6, "b": 0.5}, "fail"),  # 0.6 - 0.5 is below 0.1 in floating point
        (ORDERING, {"a": 0.75, "b": 0.5}, "pass"),
        (ORDERING, {"a": 0.55, "b": 0.5}, "fail"),
        (ORDERING, {"a": [0.9, 0.5, 0.7], "b": [0.7, 0.3, 0.5]}, "pass"),  # the runs differ, their differences do not
        (ORDERING, {"a": [0.9, 0.5, 0.7], "b": [0.3, 0.7, 0.5]}, "undecided"),
        ({"type": "ordering", "values": ["a", "b", "c"]}, {"a": 3, "b": 2, "c": 2}, "pass"),
        ({"type": "ordering", "values": ["a", "b", "c"]}, {"a": 3, "b": 2, "c": 4}, "fail"),
        (RATIO, {"a": 0.4, "b": 0.2}, "pass"),
        (RATIO, {"a": 0.39, "b": 0.2}, "fail"),
        (RATIO, {"a": 0.4, "b": 0.0}, "pass"),
        (RATIO, {"a": 0.0, "b": 0.0}, "undecided"),
        (RATIO, {"a": [0.4, 0.45, 0.5], "b": [0.0, 0.0, 0.0]}, "pass"),
        (RATIO | {"high": 3.0}, {"a": 0.4, "b": 0.0}, "fail"),
        (RATIO, {"a": [0.9, 0.4], "b": [0.2, 0.3]}, "undecided"),
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


def test_plain_measurements_are_json():
    assert rules.plain({"a": 1, "b": [1.5, None], "c": float("nan"), "d": np.array([2.0]), "e": None}) == {
        "a": [1.0], "b": [1.5, None], "c": [None], "d": [2.0], "e": [None],
    }  # fmt: skip
    assert rules.plain(None) == {}
