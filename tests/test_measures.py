"""Small measurements and their sampling errors."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from support import intervals, measures
from support.common.cache import Cache
from support.sampling import Difference, Estimate, Share


def halves(count: int) -> Share:
    return measures.share(torch.arange(count) % 2 == 0)


def drawn(count: int) -> list:
    return [halves(count), halves(count) - measures.share(torch.ones(count, dtype=torch.bool)), Estimate(2.0, 1.0, 3.0, count)]


def test_a_share_knows_its_entries():
    found = measures.share(torch.tensor([[True, False], [True, True]]))
    assert (found, found.hits, found.of, found.mask.tolist()) == (0.75, 3, 4, [True, False, True, True])
    assert np.isnan(measures.share(torch.zeros(0, dtype=torch.bool)))
    with pytest.raises(ValueError, match="wants a mask"):
        measures.share(torch.ones(3))


def test_the_cache_keeps_what_a_number_knows(tmp_path):
    for cache in (Cache(tmp_path), Cache(tmp_path)):
        share, gap, estimate = cache.once(drawn, 6)
        assert (share, share.hits, share.of, share.mask.tolist()) == (0.5, 3, 6, [True, False] * 3)
        assert (gap, gap.n10, gap.n01, gap.of) == (-0.5, 0, 3, 6)
        assert (type(share), type(gap), type(estimate)) == (Share, Difference, Estimate)
        assert intervals.of(estimate) == (1.0, 3.0)


def test_the_bootstrap_of_a_mean_is_near_the_normal_interval_where_that_is_right():
    values = torch.randn(400, generator=measures.draws(0))
    found = measures.mean_over(values)
    half = 1.96 * float(values.double().std()) / 20
    assert found == pytest.approx(float(values.double().mean()))
    assert found.of == 400
    # The ends of a 95 % interval from 2000 draws are themselves known to about 4 % of its half width.
    assert (found.low, found.high) == pytest.approx((found - half, found + half), abs=0.15 * half)


def test_the_bootstrap_stays_in_range_and_pairs_its_samples():
    rare = torch.zeros(50)
    rare[0] = 1
    found = measures.mean_over(rare)
    assert 0 <= found.low <= 0.02 <= found.high <= 1
    first = torch.randn(60, generator=measures.draws(1))
    gap = measures.paired_bootstrap(lambda a, b: float(np.median(a - b)), first, first - 2)
    assert (gap, gap.low, gap.high) == pytest.approx((2, 2, 2), abs=1e-6)
    again = measures.paired_bootstrap(lambda a, b: float(np.median(a - b)), first, first - 2)
    assert again == gap
    for wrong in ((first, first[:9]), (first[:1],)):
        with pytest.raises(ValueError, match="one length"):
            measures.paired_bootstrap(lambda *samples: 0.0, *wrong)


def test_the_bootstrap_of_a_median_seldom_misses():
    """200 samples of 60: the interval misses the true median in 5 % of them, give or take what chance allows."""
    stream = np.random.default_rng(0)
    misses = 0
    for seed in range(200):
        found = measures.paired_bootstrap(np.median, torch.from_numpy(stream.exponential(size=60)), draws=400, seed=seed)
        misses += not found.low <= np.log(2) <= found.high
    assert misses <= stats.binom(200, 0.07).ppf(0.999)


def test_the_area_is_the_one_of_scikit_learn():
    stream = np.random.default_rng(0)
    inside, outside = stream.integers(0, 6, 30) + 1.0, stream.integers(0, 6, 20).astype(float)
    expected = roc_auc_score(np.r_[np.ones(30), np.zeros(20)], np.r_[inside, outside])
    assert float(measures.area(inside, outside)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("inside", "outside", "shift"), [(20, 20, 0.0), (40, 15, 1.5), (100, 100, 0.5)])
def test_the_interval_of_an_area_misses_as_often_as_it_says(inside, outside, shift):
    truth, stream = stats.norm.cdf(shift / math.sqrt(2)), np.random.default_rng(1)
    found = [measures.area(stream.normal(shift, 1, inside), stream.normal(0, 1, outside)) for _ in range(1000)]
    misses = sum(not one.low <= truth <= one.high for one in found)
    assert misses <= stats.binom(1000, 0.07).ppf(0.999)  # 5 % is meant, of an approximation
    assert all(0 <= one.low <= one <= one.high <= 1 for one in found)


def test_an_area_without_an_error_is_not_certain():
    found = measures.area(torch.arange(10.0) + 100, torch.arange(10.0))
    assert (found, found.high) == (1, 1) and 0.6 < found.low < 0.9
    assert measures.area(torch.tensor([math.inf]), torch.tensor([0.0])) == 1


@pytest.mark.parametrize("outside", [torch.empty(0), torch.tensor([math.nan])])
def test_what_has_no_area_is_refused(outside):
    with pytest.raises(ValueError, match="area wants a score or more on each side"):
        measures.area(torch.zeros(3), outside)
