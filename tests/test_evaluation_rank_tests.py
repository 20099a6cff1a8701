"""Rank correlations of few models: against scipy, against closed forms, and against orders counted one by one."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from support.evaluation import rank_tests

COLUMN = arrays(float, 7, elements=st.integers(-3, 3).map(float))


@given(COLUMN, COLUMN)
def test_the_rank_correlation_is_spearmans(x, y):
    found = rank_tests.rank_correlation(x, y)
    if len(set(x)) < 2 or len(set(y)) < 2:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


@given(COLUMN, COLUMN, COLUMN)
def test_the_partial_one_has_the_closed_form_of_three_correlations(x, y, control):
    pairs = [rank_tests.rank_correlation(*pair) for pair in ((x, y), (x, control), (y, control))]
    found = rank_tests.rank_correlation(x, y, control)
    if np.isnan(pairs).any() or max(abs(pairs[1]), abs(pairs[2])) > 1 - 1e-9:
        return
    xy, xc, yc = pairs
    assert found == pytest.approx((xy - xc * yc) / np.sqrt((1 - xc**2) * (1 - yc**2)), abs=1e-9)


def test_what_the_control_explains_entirely_leaves_nothing_to_correlate():
    control = [1.0, 2.0, 3.0, 5.0]
    assert np.isnan(rank_tests.rank_correlation(control, [4.0, 1.0, 3.0, 2.0], control))


def test_a_control_that_does_not_vary_changes_nothing():
    x, y = [1.0, 4.0, 2.0, 3.0, 0.0], [2.0, 5.0, 1.0, 3.0, 4.0]
    assert rank_tests.rank_correlation(x, y, [7.0] * 5) == pytest.approx(rank_tests.rank_correlation(x, y))


@given(COLUMN, COLUMN)
def test_ordered_pairs_are_those_counted_one_by_one(x, y):
    asked = [(i, j) for i, j in itertools.combinations(range(7), 2) if y[i] != y[j]]
    hits = [0.5 if x[i] == x[j] else float((x[i] < x[j]) == (y[i] < y[j])) for i, j in asked]
    found = rank_tests.ordered_pairs(x, y)
    assert np.isnan(found) if not asked else found == pytest.approx(np.mean(hits))


def test_without_ties_ordered_pairs_are_kendalls_tau():
    stream = np.random.default_rng(0)
    x, y = stream.permutation(9), stream.permutation(9)
    assert rank_tests.ordered_pairs(x, y) == pytest.approx((stats.kendalltau(x, y).statistic + 1) / 2)


def test_all_orders_are_counted_and_the_first_is_the_one_as_it_is():
    found = rank_tests.orders(5)
    assert len(found) == len({tuple(row) for row in found}) == 120 and list(found[0]) == list(range(5))
    assert len(rank_tests.orders(8)) == len(rank_tests.orders(9)) == 40320 and list(rank_tests.orders(9)[0]) == list(range(9))
    assert all(sorted(row) == list(range(9)) for row in rank_tests.orders(9)[:50])


def test_the_permutation_p_value_is_scipys_exact_one():
    x, y = np.array([1.0, 3.0, 2.0, 5.0, 4.0, 7.0]), np.array([2.0, 3.0, 1.0, 6.0, 4.0, 5.0])
    found = rank_tests.permuted(x, y)
    assert found[0] == pytest.approx(rank_tests.rank_correlation(x, y))
    exact = stats.permutation_test((x,), lambda part: stats.spearmanr(part, y).statistic, permutation_type="pairings", n_resamples=np.inf)
    assert rank_tests.p_value(found) == pytest.approx(exact.pvalue)


def test_under_no_relation_the_p_value_is_uniform_also_with_a_control():
    stream = np.random.default_rng(1)
    plain, given_control = [], []
    for _ in range(300):
        x, y, control = stream.standard_normal((3, 6))
        plain.append(rank_tests.p_value(rank_tests.permuted(x, y)))
        given_control.append(rank_tests.p_value(rank_tests.permuted(x, y, control)))
    assert np.mean(np.array(plain) <= 0.1) == pytest.approx(0.1, abs=0.055)  # three standard errors
    assert np.mean(np.array(given_control) <= 0.1) == pytest.approx(0.1, abs=0.055)


def test_with_a_control_every_order_is_fitted_again():
    """Freedman and Lane (1983) by least squares, one order after the other."""
    x, y, control = np.random.default_rng(2).standard_normal((3, 5)).argsort(1) + 1.0
    design = np.stack([np.ones(5), control], axis=1)

    def left(ranks):
        return ranks - design @ np.linalg.lstsq(design, ranks, rcond=None)[0]

    fitted = y - left(y)
    wanted = [np.corrcoef(left(x), left(fitted + left(y)[list(order)]))[0, 1] for order in itertools.permutations(range(5))]
    assert rank_tests.permuted(x, y, control) == pytest.approx(wanted)


def test_a_column_that_does_not_vary_has_no_p_value():
    assert np.isnan(rank_tests.p_value(rank_tests.permuted([1.0] * 4, [1.0, 2.0, 3.0, 4.0])))


def test_holm_by_hand_and_without_the_questions_that_were_not_asked():
    assert rank_tests.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    adjusted = rank_tests.holm([0.04, np.nan, 0.01, 0.9])
    assert np.isnan(adjusted[1]) and adjusted[[0, 2, 3]] == pytest.approx([0.08, 0.03, 0.9])
    assert rank_tests.holm([0.5, 0.6]).tolist() == [1.0, 1.0]


@given(arrays(float, 6, elements=st.floats(0, 1)))
def test_holm_never_lowers_a_p_value_and_lies_below_bonferroni(p):
    adjusted = rank_tests.holm(p)
    assert (adjusted >= p).all() and (adjusted <= np.minimum(6 * p, 1) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_holm_keeps_the_family_error_where_no_question_has_an_answer():
    drawn = np.random.default_rng(2).random((4000, 10))
    assert np.mean([rank_tests.holm(row).min() <= 0.05 for row in drawn]) == pytest.approx(0.05, abs=0.011)


def test_an_interval_is_the_exact_test_turned_round():
    """It excludes 0 exactly where so high a correlation is rare enough among all orders."""
    for models, tail in ((5, 0.025), (7, 0.0013)):
        orders = rank_tests.permuted(range(models), range(models))
        for found in np.unique(orders.round(9)):
            rare = (orders >= found - 1e-9).mean()
            if abs(rare - tail) > 5 * np.sqrt(tail / 20_000) + 0.05 * tail:  # its own sampling error, and that 0.01 is no 0
                assert (rank_tests.correlation_interval(found, models, tail)[0] > 0) == (rare < tail), (models, found)


def test_intervals_hold_the_populations_correlation_as_often_as_they_say():
    stream, pearson, models, draws = np.random.default_rng(3), 0.7, 8, 600
    x, noise = stream.standard_normal((2, draws, models))
    y = pearson * x + np.sqrt(1 - pearson**2) * noise
    truth = 6 / np.pi * np.arcsin(pearson / 2)
    found = np.round([rank_tests.rank_correlation(a, b) for a, b in zip(x, y, strict=True)], 9)
    ends = {level: rank_tests.correlation_interval(level, models) for level in set(found)}
    held = np.mean([ends[level][0] <= truth <= ends[level][1] for level in found])
    assert held >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / draws)
    assert np.mean([ends[level][0] > 0 for level in found]) == pytest.approx(rank_tests.power(truth, models), abs=3 * np.sqrt(0.25 / draws))


def test_power_is_that_of_the_exact_test_at_the_correlation_asked_for():
    tail, truth, models = 0.025, 0.8, 8
    orders = rank_tests.permuted(range(models), range(models)).round(9)
    least = min(level for level in np.unique(orders) if (orders >= level).mean() <= tail)
    x, noise = np.random.default_rng(4).standard_normal((2, 20_000, models))
    pearson = 2 * np.sin(np.pi * truth / 6)
    y = pearson * x + np.sqrt(1 - pearson**2) * noise
    found = [np.corrcoef(*pair)[0, 1] for pair in zip(x.argsort(1).argsort(1), y.argsort(1).argsort(1), strict=True)]
    assert rank_tests.power(truth, models, tail) == pytest.approx(np.mean(np.round(found, 9) >= least), abs=0.012)
    assert rank_tests.power(0, models, tail) <= tail


def test_an_interval_turns_with_its_sign_and_three_models_tell_nothing():
    for found in (0.2, 0.8, 1.0):
        low, high = rank_tests.correlation_interval(found, 8)
        assert low < found <= high and rank_tests.correlation_interval(-found, 8) == pytest.approx((-high, -low), abs=0.05)
    low, high = rank_tests.correlation_interval(1.0, 3)
    assert low < -0.5 and high == 1 and rank_tests.power(0.99, 3) == 0


@pytest.mark.parametrize("wrong", [[1.0, np.nan, 2.0], [[1.0, 2.0]]])
def test_ranks_of_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="one number a model"):
        rank_tests.rank_correlation(wrong, [1.0, 2.0, 3.0])
