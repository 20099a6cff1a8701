"""Persistence against closed forms of wedges and half-spaces, a planted case where stability comes back, and its own promises."""

import math

import numpy as np
import pytest
import torch
from attack_nets import Counted, convolutional, held_out, looked, pictures, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from torch import nn

from support import models, smoothing
from support.smoothing import (
    along_path,
    bracketing,
    class_frequencies,
    crossings,
    linear_beginning,
    looks,
    stability,
    stability_by_counting,
    stability_curve,
    wedge_persistence,
    wedge_stability,
)


def wedge(planes):
    """Class 1 inside ``{x_1 >= 0, ..., x_planes >= 0}``, class 0 outside."""

    def scores(x):
        inside = 3 * x.flatten(1)[:, :planes].amin(1)
        return torch.stack([-inside, inside], 1)

    return scores


def inside(dimension, planes, distance, *, dtype=torch.float32):
    """A point at that distance from each sheet, its other coordinates arbitrary."""
    x = torch.linspace(-2, 2, dimension, dtype=dtype)[None]
    x[:, :planes] = distance
    return x


def regained():
    """Outside a wedge of two planes, close to one and far behind the other: ``1 - Phi(-0.05 / s) Phi(0.3 / s)`` falls and rises again."""
    return wedge(2), torch.tensor([[-0.05, 0.3]], dtype=torch.float64)


def regained_stability(sigma):
    return 1 - stats.norm.cdf(-0.05 / sigma) * stats.norm.cdf(0.3 / sigma)


def dense(seed=0):
    return models.mlp((1, 8, 8), (24, 16), 10, seed=seed, mean=0.3, std=0.5)


def opaque(model):
    """The same function without a linear beginning that could be seen."""
    return lambda x: model(x)


def equal(first, second, index=slice(None)):
    return all(torch.equal(getattr(first, name), getattr(second, name)[index]) for name in ("sigma", "lower", "upper", "queries"))


# --- closed forms -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("planes", [1, 2, 3, 7])
@pytest.mark.parametrize("dimension", [7, 50, 784])
def test_stability_in_a_wedge_lies_in_the_clopper_pearson_band(planes, dimension):
    n, sigma = 4000, 1.3
    share = float(stability(wedge(planes), inside(dimension, planes, 1.0), sigma, samples=n))
    band = stats.binomtest(round(share * n), n).proportion_ci(0.9999)
    assert band.low <= wedge_stability(1.0, planes, sigma) <= band.high


@pytest.mark.parametrize("planes", [1, 2, 3, 10])
@pytest.mark.parametrize("dimension", [10, 300])
def test_persistence_in_a_wedge_is_the_closed_form(planes, dimension):
    exact = wedge_persistence(0.8, planes, 0.7)
    found = smoothing.persistence(wedge(planes), inside(dimension, planes, 0.8), 0.7, samples=8000, precision=0.05)
    assert float(found.lower) <= exact <= float(found.upper)
    at = wedge_stability(0.8, planes, found.sigma.numpy())
    assert at == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / 8000))


@pytest.mark.parametrize("model", [dense(), convolutional(1, 8, 10, sharp=3.0)], ids=["dense", "convolutional"])
def test_the_fast_estimate_and_the_count_are_of_one_share(model):
    """Fisher's exact test for each image and sigma, at a level that one of all of them misses once in a million."""
    x, n = pictures(12, (1, 8, 8)), 600
    for sigma in (0.05, 0.3, 1.0):
        fast, plain = (torch.round(n * one(model, x, sigma, samples=n)).int().tolist() for one in (stability, stability_by_counting))
        assert any(0 < count < n for count in fast)
        for a, b in zip(fast, plain, strict=True):
            assert stats.fisher_exact([[a, n - a], [b, n - b]]).pvalue > 1e-6 / 36


def test_the_count_is_a_binomial_share():
    x = torch.cat([inside(5, 2, 0.5), inside(5, 2, 2.0)])
    for sigma in (0.4, 1.3):
        counts = 3000 * stability_by_counting(wedge(2), x, sigma, samples=3000, generator=torch.Generator().manual_seed(1))
        for count, distance in zip(counts.tolist(), (0.5, 2.0), strict=True):
            assert stats.binomtest(round(count), 3000, wedge_stability(distance, 2, sigma)).pvalue > 1e-6


def test_a_wide_bracket_is_interpolated_as_a_flat_boundary_has_it():
    """Stabilities of a half-space are linear in 1 / sigma on the normal scale; in sigma the answers would be 8 % off."""
    x = torch.linspace(0.55, 0.95, 40)[:, None]
    found = smoothing.persistence(wedge(1), x, 0.7, samples=20_000, precision=0.6, error=1e-9)
    exact = x[:, 0].numpy() / stats.norm.ppf(0.7)
    assert np.abs(found.sigma.numpy() / exact - 1).mean() < 0.035


@given(st.floats(0.01, 10), st.integers(1, 60), st.floats(0.02, 0.98))
def test_wedge_persistence_inverts_wedge_stability(distance, planes, gamma):
    sigma = wedge_persistence(distance, planes, gamma)
    if gamma <= 2.0**-planes:
        assert sigma == math.inf
    elif sigma < 1e6:
        assert wedge_stability(distance, planes, sigma) == pytest.approx(gamma, abs=1e-9)


def test_the_numbers_of_the_paper_for_the_wedge():
    assert wedge_persistence(1, 1) == pytest.approx(1.91, abs=0.005)  # "approximately 1.91"
    below = wedge_persistence(1, np.arange(1, 6)) < 1
    assert below.tolist() == [False, False, True, True, True]  # less than the distance from k = 3 on
    assert wedge_persistence(2.0, 1, 0.5) == math.inf and wedge_persistence(0.0, 3, 0.7) == 0
    assert wedge_stability(-1, 2, 0.5) == pytest.approx(stats.norm.cdf(-2) ** 2)


def test_a_half_space_in_float64():
    normal = nn.Linear(5, 2, dtype=torch.float64)
    with torch.no_grad():
        normal.weight.copy_(torch.tensor([[0.6, 0.8, 0, 0, 0], [0, 0, 0, 0, 0]]))
        normal.bias.zero_()
    x = torch.tensor([[0.6, 0.8, 5, 5, 5], [-1.2, -1.6, 0, 0, 3]], dtype=torch.float64)  # at distance 1 and 2, on the two sides
    found = smoothing.persistence(normal, x, 0.9, samples=20_000, precision=0.02)
    exact = torch.tensor([1.0, 2.0], dtype=torch.float64) / stats.norm.ppf(0.9)
    assert found.sigma.dtype == torch.float64
    assert torch.allclose(found.sigma, exact, rtol=0.02)
    assert bool((found.lower <= exact).all() and (exact <= found.upper).all())


# --- lost and regained ------------------------------------------------------------------------------------------------------------


def test_definition_bisection_and_the_published_search_differ_where_stability_comes_back():
    model, x = regained()
    grid = np.geomspace(0.02, 60, 80)
    curve = stability_curve(model, x, grid, samples=20_000)
    assert np.abs(curve[:, 0].numpy() - regained_stability(grid)).max() < 0.02
    audit = crossings(grid, curve, 0.7, slack=0.02)
    first = 0.05 / stats.norm.ppf(0.7)  # the second plane is out of reach
    assert bool(audit.regained) and float(audit.first) == pytest.approx(first, rel=0.15) and float(audit.last) == pytest.approx(60)
    found = smoothing.persistence(model, x, 0.7, samples=8000, start=0.05, max_sigma=60)
    assert float(found.sigma) == pytest.approx(first, rel=0.05)  # started below the hole
    beyond = smoothing.persistence(model, x, 0.7, samples=8000, start=40.0, max_sigma=60)
    assert float(beyond.sigma) == math.inf  # started beyond it
    published = bracketing(model, x, 0.7, samples=20_000)
    assert not published.ended and published.sigma == math.inf  # RANGEFINDER looks for an unstable sigma above 1.5 without end


def test_crossings_of_known_curves():
    grid = [0.1, 0.2, 0.3, 0.4]
    curve = torch.tensor([[1, 1, 0.2, 1], [0.8, 0.6, 0.2, 0.9], [0.5, 0.9, 0.2, 0.8], [0.4, 0.3, 0.1, 0.71]], dtype=torch.float64)
    found = crossings(grid, curve, 0.7)
    assert found.first.tolist() == [0.2, 0.1, 0.0, 0.4]
    assert found.last.tolist() == [0.2, 0.3, 0.0, 0.4]
    assert found.regained.tolist() == [False, True, False, False]
    assert not bool(crossings(grid, curve, 0.7, slack=0.11).regained.any())


# --- the sequential test ----------------------------------------------------------------------------------------------------------


def test_the_interval_is_wrong_no_more_often_than_stated():
    """200 runs with an error of 0.2 each: a half-space, all of whose answers are known."""
    model, x, exact = wedge(1), inside(1, 1, 1.0), 1 / stats.norm.ppf(0.7)
    misses = 0
    for seed in range(200):
        found = smoothing.persistence(model, x, 0.7, error=0.2, samples=600, generator=torch.Generator().manual_seed(seed))
        misses += not float(found.lower) <= exact <= float(found.upper)
    assert misses <= stats.binom.ppf(0.999, 200, 0.2)


def test_the_error_is_shared_out_among_the_sigmas():
    """Stability gamma itself at every sigma, and answers at two sigmas that tell nothing of each other: a dozen chances to be sure of a
    side, which all together may be taken with the stated error only."""

    def hashed(x):
        inside = 0.7 - (1e6 * x.prod(1)).frac().abs()
        return 5 * torch.stack([-inside, inside], 1)

    x = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    x = x[hashed(x).argmax(1) == 1]
    found = smoothing.persistence(hashed, x, 0.7, error=0.2, samples=300, precision=1e-4)
    assert int(((found.lower > 0) | found.upper.isfinite()).sum()) <= stats.binom.ppf(1 - 1e-6, len(x), 0.2)


def test_a_look_decides_wrongly_with_at_most_its_error_rate_and_agrees_with_all_samples():
    """The exact chance, by dynamic programming over all sample paths, that the looks ever decide against a share just beyond gamma."""
    gamma, alpha = 0.7, 0.05
    tests = looks(gamma, 2000, alpha)
    assert tests[-1][0] == 2000 and len(tests) <= 14
    for which in (1, 2):
        reach, wrong, last = np.array([1.0]), 0.0, 0
        for at in tests:
            reach = np.convolve(reach, stats.binom.pmf(np.arange(at[0] - last + 1), at[0] - last, gamma))
            count = np.arange(len(reach))
            stopped = (count <= at[1]) | (count >= at[2])
            wrong += reach[(count <= at[1]) if which == 1 else (count >= at[2])].sum()
            reach, last = np.where(stopped, 0, reach), at[0]
        assert 0 < wrong <= alpha
    # What is far from gamma costs little; what is decided early is what all samples say.
    model, x = wedge(1), torch.linspace(0.2, 3.0, 60)[:, None]
    seed = torch.Generator().manual_seed
    found = smoothing.persistence(model, x, gamma, samples=2000, start=1.0, max_sigma=1.0, generator=seed(3))
    whole = stability(model, x, 1.0, samples=2000, generator=seed(3))
    assert torch.equal(found.sigma.isinf(), whole >= gamma)
    assert int(found.queries.min()) <= 33


def test_the_looks_are_those_of_the_mixture_martingale():
    """The wealth of a uniform mixture of bets against gamma, ``B(S + 1, n - S + 1) / (gamma^S (1 - gamma)^(n - S))``, by scipy's betaln:
    a look decides exactly where it has reached 1 / alpha, on the side where the share lies."""
    for gamma, alpha in ((0.7, 0.05), (0.7, 0.003), (0.5, 0.01), (0.95, 0.05)):
        for n, unstable, stable in looks(gamma, 500, alpha):
            count = np.arange(n + 1)
            wealth = special.betaln(count + 1, n - count + 1) - count * math.log(gamma) - (n - count) * math.log1p(-gamma)
            rich = wealth >= -math.log(alpha) - 1e-12
            assert np.array_equal(count <= unstable, rich & (count < gamma * n))
            assert np.array_equal(count >= stable, rich & (count > gamma * n))


def test_peeking_at_every_look_errs_seldom_and_saves_most_samples():
    """20,000 runs a share, all looks taken: at gamma a decision falls at most as often as stated, and away from gamma it falls early."""
    gamma, alpha, cap, runs = 0.7, 0.05, 2000, 20_000
    tests, numbers = looks(gamma, cap, alpha), np.random.default_rng(0)

    def simulated(share):
        same, spent, open_ = np.zeros(runs, int), np.zeros(runs, int), np.ones(runs, bool)
        last = 0
        for n, unstable, stable in tests:
            same += numbers.binomial(n - last, share, runs) * open_
            spent[open_], last = n, n
            open_ &= (same > unstable) & (same < stable)
        return open_, same >= gamma * spent, spent.mean()

    undecided, _, spent = simulated(gamma)
    assert (~undecided).sum() <= stats.binom.ppf(0.9999, runs, alpha) and spent > 0.9 * cap
    for share in (0.0, 0.3, 0.5, 0.9, 1.0):
        undecided, above, spent = simulated(share)
        assert not undecided.any() and (above == (share > gamma)).mean() >= 1 - alpha
        assert spent < cap / 20


def test_sampling_stops_early_away_from_the_crossing():
    model = Counted(wedge(1))
    found = smoothing.persistence(model, inside(3, 1, 1.0), samples=100_000, start=0.25, max_sigma=0.25)
    assert model.images - looked(1) == int(found.queries) <= 65 and float(found.lower) == 0.25


# --- the contract -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("kind", ["dense", "convolutional"])
def test_an_image_does_not_see_its_neighbours(kind, clip):
    model = dense() if kind == "dense" else convolutional(1, 8, 10, sharp=3.0)
    x = pictures(24, (1, 8, 8))
    whole = smoothing.persistence(model, x, samples=200, clip=clip)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    assert equal(smoothing.persistence(model, x[order], samples=200, clip=clip), whole, order)
    for i in (0, 7):
        assert equal(smoothing.persistence(model, x[i : i + 1], samples=200, clip=clip), whole, slice(i, i + 1))


def test_the_linear_beginning_changes_nothing_but_rounding():
    model, x, seed = dense(), pictures(40, (1, 8, 8)), torch.Generator().manual_seed
    assert linear_beginning(model, x) is not None and linear_beginning(opaque(model), x) is None
    assert linear_beginning(convolutional(1, 8, 10), x) is None
    for sigma in (0.01, 0.3, 2.0):
        fast, plain = (class_frequencies(judge, x, [sigma], samples=500, generator=seed(5)) for judge in (model, opaque(model)))
        assert float((fast - plain).abs().max()) <= 1 / 500
    double = dense().double()
    fast, plain = (smoothing.persistence(judge, x.double(), samples=500, generator=seed(5)) for judge in (double, opaque(double)))
    assert equal(fast, plain)


def test_a_model_that_is_linear_from_end_to_end_and_hooks():
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval(), pictures(8, (1, 8, 8))
    assert torch.equal(stability(model, x, 0.5, samples=64), stability(opaque(model), x, 0.5, samples=64))
    seen = []
    model[1].register_forward_hook(lambda module, given, scores: seen.append(len(scores)))
    stability(model, x, 0.5, samples=64)
    assert sum(seen) == 8 + looked(8) + 8 * 64  # a hook wants to see every pass: no short cut


def test_noise_that_does_not_fit_is_drawn_again_and_is_the_same(monkeypatch):
    model, x = convolutional(1, 8, 10, sharp=3.0), pictures(6, (1, 8, 8))
    kept = smoothing.persistence(model, x, samples=300)
    monkeypatch.setattr(smoothing, "_BANK", 0)
    assert equal(smoothing.persistence(model, x, samples=300), kept)


def test_frequencies_sum_to_one_and_hold_the_stability():
    model, (x, _) = trained(), held_out(5)
    frequencies = class_frequencies(model, x, [0.0, 0.2, 1.0], samples=120)
    assert torch.allclose(frequencies.sum(2), torch.ones(3, 5, dtype=torch.float64))
    curve = stability_curve(model, x, [0.0, 0.2, 1.0], samples=120)
    assert curve[0].tolist() == [1.0] * 5 and torch.equal(curve[1], stability(model, x, 0.2, samples=120))
    per_image = stability(model, x, torch.tensor([0.0, 0.2, 0.2, 1.0, 1.0]), samples=120)
    assert torch.equal(per_image[1:3], curve[1, 1:3]) and torch.equal(per_image[3:], curve[2, 3:])


def test_clipped_noise_stays_in_the_box():
    def judge(x):
        assert float(x.min()) >= 0 and float(x.max()) <= 1
        return torch.stack([x.flatten(1).sum(1), 9 - x.flatten(1).sum(1)], 1) * 2

    stability(judge, pictures(3, (1, 3, 3)), 2.0, samples=50, clip=True)


def test_inputs_and_modes_are_left_alone():
    model, x = dense(), pictures(4, (1, 8, 8))
    kept, state = x.clone(), torch.random.get_rng_state()
    result = smoothing.persistence(model, x, samples=64)
    assert torch.equal(x, kept) and torch.equal(state, torch.random.get_rng_state())
    assert not result.sigma.is_inference() and not result.sigma.requires_grad
    assert equal(smoothing.persistence(model, x, samples=64), result)  # a fresh generator of fixed seed


@settings(max_examples=15, deadline=None)
@given(st.floats(0.55, 0.95), st.integers(1, 4), st.floats(0.05, 3.0))
def test_results_are_ordered_and_reach_the_cap_only_where_stable(gamma, planes, distance):
    found = smoothing.persistence(wedge(planes), inside(6, planes, distance), gamma, samples=400)
    assert float(found.lower) <= float(found.upper) and int(found.queries) >= 17
    exact = float(wedge_persistence(distance, planes, gamma))
    if exact < 20:
        assert 0.5 * exact < float(found.sigma) < 2 * exact


def test_the_path_starts_and_ends_at_its_ends():
    model, x = wedge(1), torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    path = along_path(model, x, -x, points=5, samples=2000)
    assert path.label.tolist() == [[1, 1, 0, 0, 0]] * 2 or path.label.tolist() == [[1, 1, 1, 0, 0]] * 2
    ends = smoothing.persistence(model, torch.cat([x, -x]), samples=2000)
    assert torch.equal(torch.cat([path.sigma[:, 0], path.sigma[:, -1]]), ends.sigma)
    assert path.sigma[:, 2].tolist() == [0.0, 0.0]  # on a flat boundary, too


# --- hostile and degenerate inputs ------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:all scores lie")
def test_a_point_on_the_boundary_and_a_constant_classifier():
    on = smoothing.persistence(wedge(1), inside(3, 1, 0.0), samples=500)
    assert (float(on.sigma), float(on.lower)) == (0.0, 0.0) and float(on.upper) <= smoothing.MIN_SIGMA
    always = smoothing.persistence(lambda x: torch.tensor([[5.0, 1.0]]).expand(len(x), 2), inside(3, 1, 0.5), samples=500)
    assert (float(always.sigma), float(always.lower), float(always.upper)) == (math.inf, 64.0, math.inf)


def test_a_cap_below_the_answer_gives_infinity():
    found = smoothing.persistence(wedge(1), inside(3, 1, 10.0), max_sigma=5.0, samples=500)
    assert (float(found.sigma), float(found.lower), float(found.upper)) == (math.inf, 5.0, math.inf)
    assert float(smoothing.persistence(wedge(1), inside(3, 1, 1.0), max_sigma=0.01, samples=500).sigma) == math.inf


BAD = {
    smoothing.persistence: [
        *[({"gamma": gamma}, "gamma must be in \\(0, 1\\)") for gamma in (0, 1, -0.1, math.nan, True, "0.7", None)],
        *[({"samples": samples}, "samples must be a whole number") for samples in (0, 2.5)],
        *[({"precision": precision}, "precision must be") for precision in (0, 1)],
        ({"error": 0}, "error must be"), ({"max_sigma": math.inf}, "max_sigma must be"), ({"max_sigma": -1}, "max_sigma must be"),
        ({"start": math.nan}, "start must be"), ({"generator": 3}, "generator must be"),
        ({"x": torch.full((1, 3), -0.5), "clip": True}, r"values in \[0,1\]"),
        ({"x": torch.tensor([[math.nan, 1.0]])}, "x must be finite"), ({"x": torch.zeros(0, 3)}, "x must be"),
        ({"x": torch.ones(2, 3).int()}, "int32"), ({"x": 3}, "int was given"), ({"model": 3}, "model must be"),
    ],
    stability: [
        ({"sigma": -1.0}, "sigma must be"), ({"sigma": torch.ones(2)}, "sigma must be"), ({"samples": 0}, "samples must be"),
        ({"x": [1.0]}, "list was given"), ({"model": lambda x: wedge(1)(x).softmax(1)}, "probabilities"),
    ],
    class_frequencies: [({"sigmas": sigmas}, "sigmas must be") for sigmas in ([], [-1.0], [math.nan], [0.1, math.inf])],
    bracketing: [
        ({"image": torch.ones(2, 3)}, "one image"), ({"image": torch.tensor([[math.inf, 1.0]])}, "x must be finite"),
        ({"gamma": 1}, "gamma must be"), ({"samples": 0}, "samples must be"), ({"max_steps": 0}, "max_steps must be"),
    ],
    along_path: [({"last": torch.ones(2, 3)}, "first and last"), ({"points": 1}, "points must be"), ({"first": 3}, "first must be")],
    crossings: [({"curve": torch.ones(3, 1)}, "curve must be"), ({"sigmas": [0.2, 0.1]}, "must increase"), ({"gamma": 0}, "gamma must be")],
    wedge_stability: [
        ({"planes": 0}, "planes must be"), ({"planes": 1.5}, "planes must be"), ({"distance": math.nan}, "distance must be"),
        ({"sigma": 0}, "sigma must be"), ({"sigma": math.inf}, "sigma must be"),
    ],
    wedge_persistence: [
        ({"distance": -1}, "distance must be"), ({"gamma": 1.0}, "gamma must be"), ({"gamma": 0.0}, "gamma must be"),
        ({"planes": 0}, "planes must be"),
    ],
}  # fmt: skip
GOOD = {
    smoothing.persistence: {"model": wedge(1), "x": inside(3, 1, 1.0)},
    stability: {"model": wedge(1), "x": inside(3, 1, 1.0), "sigma": 0.1},
    class_frequencies: {"model": wedge(1), "x": inside(3, 1, 1.0)},
    bracketing: {"model": wedge(1), "image": inside(3, 1, 1.0)},
    along_path: {"model": wedge(1), "first": torch.zeros(1, 3), "last": torch.ones(1, 3)},
    crossings: {"sigmas": [0.1, 0.2], "curve": torch.ones(2, 1)},
    wedge_stability: {"distance": 1, "planes": 1, "sigma": 1},
    wedge_persistence: {"distance": 1, "planes": 1},
}


@pytest.mark.parametrize("function", BAD, ids=lambda function: function.__name__)
def test_what_does_not_fit_is_refused(function):
    for changed, message in BAD[function]:
        with pytest.raises(ValueError, match=message):
            function(**GOOD[function] | changed)


def test_nan_scores():
    def sometimes(x):
        scores = wedge(1)(x)
        return torch.where(x.flatten(1)[:, :1] > 2, torch.nan, scores)

    with pytest.raises(ValueError, match=r"NaN scores for .* noisy images"):
        smoothing.persistence(sometimes, inside(3, 1, 1.0), start=1.0)
    with pytest.raises(ValueError, match="NaN scores for 1 of 1 clean images"):
        stability(sometimes, inside(3, 1, 3.0), 0.1)


# --- the published algorithm ------------------------------------------------------------------------------------------------------


def test_the_published_algorithm_finds_a_half_space_and_does_not_end_at_its_boundary():
    exact = 1 / stats.norm.ppf(0.7)
    found = bracketing(wedge(1), inside(3, 1, 1.0), samples=20_000, precision=1e-4, max_steps=12)
    assert found.ended and found.sigma == pytest.approx(exact, rel=0.05) and found.queries % 20_000 == 1
    on = bracketing(wedge(1), inside(3, 1, 0.0), samples=200)
    assert not on.ended and on.sigma == 0.0
    assert bracketing(wedge(1), inside(3, 1, 0.5), samples=500, max_steps=1).sigma == 1.0  # no step left: the middle of the range
