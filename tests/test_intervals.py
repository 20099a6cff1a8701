"""Intervals of shares, differences and ratios, against scipy, published examples, numerical likelihoods and exact coverage."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from scipy import optimize, stats

from support import intervals
from support.sampling import Difference, Estimate, Share


def shared(text: str) -> np.ndarray:
    return np.array([letter == "1" for letter in text])


def share(text: str) -> Share:
    mask = shared(text)
    return Share(int(mask.sum()), len(mask), mask)


# --- numbers that know their error ------------------------------------------------------------------------------------------------


def test_a_share_is_a_float_that_knows_its_entries():
    found = share("1101")
    assert (found, found.hits, found.of, f"{found:.2f}", hash(found)) == (0.75, 3, 4, "0.75", hash(0.75))
    assert np.isnan(Share(0, 0))
    for again in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert (again, again.hits, again.of, again.mask.tolist()) == (0.75, 3, 4, [True, True, False, True])
    for hits, of in ((-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="0 <= hits <= of"):
            Share(hits, of)
    for wrong in (lambda: Difference(2, 2, 3), lambda: Difference(-1, 2, 3), lambda: Estimate(1, 2, 1, 9)):
        with pytest.raises(ValueError, match="wants"):
            wrong()


def test_the_difference_of_shares_over_the_same_entries_is_paired():
    gap = share("11010") - share("10001")
    assert (gap, gap.n10, gap.n01, gap.of) == (pytest.approx(0.2), 2, 1, 5)
    for other in (0.4, Share(0, 0)):
        assert type(share("11010") - other) is float


def test_the_difference_of_shares_over_other_entries_is_that_of_independent_ones():
    for other in (share("1100"), Share(2, 5)):  # another number of entries; no entries known
        gap = share("11010") - other
        assert (gap, gap.of) == (float(share("11010")) - float(other), min(5, other.of))
        assert (gap.low, gap.high) == intervals.difference(share("11010"), other)
        assert gap.low < gap < gap.high


# --- one number -------------------------------------------------------------------------------------------------------------------


def test_the_interval_of_a_share_is_clopper_and_pearsons():
    for of in (1, 7, 300):
        for hits in {0, 1, of // 3, of}:
            theirs = stats.binomtest(hits, of).proportion_ci(0.95)
            assert intervals.of(Share(hits, of)) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_what_each_number_knows_is_its_interval():
    assert intervals.of(0.3) == (0.3, 0.3)
    assert intervals.of(Estimate(0.3, 0.2, 0.5, 10)) == (0.2, 0.5)
    low, high = intervals.paired_difference(7, 1, 21)
    assert intervals.of(Difference(7, 1, 21)) == (low, high)


# --- pairs ------------------------------------------------------------------------------------------------------------------------


def likelihood(n10: int, n01: int, n11: int, of: int, constraint) -> float:
    """The score of Tango, or of Tang, Tang and Chan, with the restricted maximum found by search over p01."""
    line, drift, spread = constraint

    def loss(p01: float) -> float:
        p10, p11 = line(p01)
        parts = np.array([p10, p01, p11, 1 - p10 - p01 - p11])
        counts = np.array([n10, n01, n11, of - n10 - n01 - n11])
        return -np.sum(counts[counts > 0] * np.log(np.maximum(parts[counts > 0], 1e-300)))

    grid = np.linspace(0, 1, 2001)
    good = [p for p in grid if min(line(p)) >= 0 and sum(line(p)) + p <= 1]
    best = min(good, key=loss)
    found = optimize.minimize_scalar(loss, bounds=(max(best - 1e-3, 0), best + 1e-3), method="bounded", options={"xatol": 1e-12})
    return drift / np.sqrt(spread(found.x))


@pytest.mark.parametrize(("n10", "n01", "of"), [(17, 3, 40), (9, 0, 50), (30, 12, 100)])
def test_the_interval_of_a_difference_ends_where_the_score_does(n10, n01, of):
    """Given the gap, n11 only rescales: it is taken as 0, with the rest of the entries in neither."""
    low, high = intervals.paired_difference(n10, n01, of)
    for gap, level in ((low, intervals.Z), (high, -intervals.Z)):
        gap = float(gap)
        line, spread = (lambda p, gap=gap: (p + gap, 0.0)), (lambda p, gap=gap: of * (2 * p + gap - gap**2))
        assert likelihood(n10, n01, 0, of, (line, n10 - n01 - of * gap, spread)) == pytest.approx(level, abs=1e-3)


@pytest.mark.parametrize(("n11", "n10", "n01", "of"), [(20, 15, 3, 60), (5, 12, 2, 30)])
def test_the_interval_of_a_ratio_ends_where_the_score_does(n11, n10, n01, of):
    first, second = n11 + n10, n11 + n01
    for ratio, level in zip(map(float, intervals.paired_ratio(first, second, n10, of)), (intervals.Z, -intervals.Z), strict=True):
        p01, p11 = (grid.ravel() for grid in np.meshgrid(np.linspace(0.001, 0.6, 600), np.linspace(0.001, 0.8, 800)))
        p10 = ratio * (p11 + p01) - p11
        parts = np.stack([p10, p01, p11, 1 - p10 - p01 - p11])
        likely = np.array([n10, n01, n11, of - n10 - n01 - n11]) @ np.log(np.where(parts > 0, parts, np.nan))
        best = np.nanargmax(likely)
        p01, p11 = p01[best], p11[best]
        spread = of * ratio * ((1 + ratio) * (p11 + p01) - 2 * p11)
        assert (first - ratio * second) / np.sqrt(spread) == pytest.approx(level, abs=0.03)


def test_intervals_of_pairs_stay_in_their_range_and_agree_with_mcnemar():
    n10, n01 = (grid.ravel() for grid in np.meshgrid(np.arange(31), np.arange(31)))
    n10, n01 = n10[n10 + n01 <= 30], n01[n10 + n01 <= 30]
    low, high = intervals.paired_difference(n10, n01, 30)
    value = (n10 - n01) / 30
    assert ((low >= -1) & (low <= value + 1e-12) & (value <= high + 1e-12) & (high <= 1)).all()
    tests = [stats.binomtest(int(a), int(a + b)).pvalue if a + b else 1 for a, b in zip(n10, n01, strict=True)]
    assert ((np.array(tests) <= 0.05) == ((low > 0) | (high < 0))).all()
    backwards = intervals.paired_difference(n01, n10, 30)
    assert np.allclose(low, -backwards[1])
    some, many = intervals.paired_ratio(n10, n01, n10, 30)  # nothing in common
    assert ((some >= 0) & (some <= many)).all()
    assert (((some > 1) | (many < 1)) == ((low > 0) | (high < 0))).all()
    assert np.isinf(many[n01 == 0]).all()


@pytest.mark.parametrize(("p10", "p01", "of"), [(0.15, 0.05, 40), (0.02, 0.02, 60), (0.5, 0.3, 25), (0.1, 0.0, 40)])
def test_the_interval_of_a_difference_seldom_misses(p10, p01, of):
    """Exact coverage, from all outcomes: no side misses with much more than 2.5 %."""
    n10, n01 = (grid.ravel() for grid in np.meshgrid(np.arange(of + 1), np.arange(of + 1)))
    n10, n01 = n10[n10 + n01 <= of], n01[n10 + n01 <= of]
    chance = stats.multinomial.pmf(np.stack([n10, n01, of - n10 - n01], 1), of, [p10, p01, 1 - p10 - p01])
    low, high = intervals.paired_difference(n10, n01, of)
    assert chance[low > p10 - p01].sum() < 0.04
    assert chance[high < p10 - p01].sum() < 0.04


# --- two numbers that know nothing of each other ------------------------------------------------------------------------------------


def test_the_interval_of_an_independent_difference_stays_in_range_and_seldom_misses():
    first, second = stats.binom(30, 0.9), stats.binom(50, 0.6)
    below = above = 0.0
    for a, b in itertools.product(range(31), range(51)):
        low, high = intervals.difference(Share(a, 30), Share(b, 50))
        assert -1 - 1e-12 <= low <= a / 30 - b / 50 <= high <= 1 + 1e-12
        chance = first.pmf(a) * second.pmf(b)
        below += chance * (low > 0.3)
        above += chance * (high < 0.3)
    assert max(below, above) < 0.025
    assert intervals.difference(0.5, 0.2) == (0.3, 0.3)


def test_the_interval_of_an_independent_ratio_ends_where_the_difference_does():
    a, b = Estimate(3.0, 2.0, 5.0, 9), Estimate(2.0, 1.5, 2.2, 9)
    low, high = intervals.ratio(a, b)
    for bound in (low, high):
        scaled = Estimate(bound * 2.0, bound * 1.5, bound * 2.2, 9)
        assert min(map(abs, intervals.difference(a, scaled))) < 1e-9
    assert low < 1.5 < high
    assert intervals.ratio(0.4, 0.2) == (2.0, 2.0)
    assert intervals.ratio(0.4, 0.0) == (np.inf, np.inf)
    assert np.isnan(intervals.ratio(0.0, 0.0)).all()
    assert intervals.ratio(Share(0, 30), Share(0, 30)) == (0.0, np.inf)
    assert intervals.ratio(Share(20, 30), Share(0, 30))[1] == np.inf
