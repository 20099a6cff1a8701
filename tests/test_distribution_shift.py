"""Densities, posteriors and weights against arbitrary precision, scipy, scikit-learn and fine grids; tails far out; bad input."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from support import distribution_shift
from support.distribution_shift import Density

INF = math.inf
places = st.floats(-5, 5).map(lambda v: round(v, 6))
scales = st.floats(0.05, 20).map(lambda v: round(v, 6))
freedoms = st.one_of(st.sampled_from([1.0, 3.0, 1e3, 1e6, 1e12, INF]), st.floats(0.3, 50))
points = st.one_of(st.floats(-50, 50), st.floats(-1e300, 1e300), st.floats(-1e20, 1e20))


def exact(x, density):
    """log density in arbitrary precision, from the textbook formula."""
    with mpmath.workdps(700):  # squares of 1e300 beside 1
        u = (mpmath.mpf(x) - mpmath.mpf(density.loc)) / mpmath.mpf(density.scale)
        if density.nu == INF:
            return -u * u / 2 - mpmath.log(density.scale) - mpmath.log(2 * mpmath.pi) / 2
        nu = mpmath.mpf(density.nu)
        with mpmath.workdps(60):
            constant = mpmath.loggamma((nu + 1) / 2) - mpmath.loggamma(nu / 2) - mpmath.log(nu * mpmath.pi) / 2
            return constant - mpmath.log(density.scale) - (nu + 1) / 2 * mpmath.log(1 + u * u / nu)


def likelihood(x, density):
    """Mean log-likelihood by scipy."""
    if density.nu == INF:
        return stats.norm.logpdf(x, density.loc, density.scale).mean()
    return stats.t.logpdf(x, density.nu, density.loc, density.scale).mean()


# --- densities --------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(points, places, scales, freedoms)
def test_the_density_is_its_formula_near_and_far(x, loc, scale, nu):
    density = Density(loc, scale, nu)
    expected = exact(x, density)
    found = density.logpdf([x])[0]
    if expected < -1e308:
        assert found == -INF and nu == INF
    else:
        # the constant of a large nu is a difference of numbers of size nu log nu
        assert found == pytest.approx(float(expected), rel=1e-11, abs=1e-9)


def test_the_density_is_scipys():
    x = np.linspace(-30, 30, 601)
    for nu in (0.5, 1, 2.5, 30):
        assert np.allclose(Density(0.3, 1.7, nu).logpdf(x), stats.t.logpdf(x, nu, 0.3, 1.7), rtol=1e-12, atol=1e-12)
    assert np.allclose(Density(0.3, 1.7).logpdf(x), stats.norm.logpdf(x, 0.3, 1.7), rtol=1e-13)
    assert Density(0, 1, 1).logpdf([0.0])[0] == pytest.approx(-math.log(math.pi), rel=1e-14)  # Cauchy


@settings(max_examples=100, deadline=None)
@given(points, places, places, scales, scales, freedoms)
def test_the_ratio_of_two_densities_is_exact(x, first, second, above, below, nu):
    one, other = Density(first, above, nu), Density(second, below, nu)
    found = distribution_shift.log_ratio([x], one, other)[0]
    expected = exact(x, one) - exact(x, other)
    if abs(expected) > 1e308:
        assert found == math.copysign(INF, expected)
        return
    size = (abs(x) + 5) / min(above, below)
    if nu < INF:  # a difference of two logarithms, each right to a few units of its own last place
        rounding = 2e-15 * float(abs(exact(x, one)) + abs(exact(x, other)))
    else:
        rounding = 1e-14 * (size * abs(float(expected)) ** 0.5 + size * 5 / min(above, below)) if size < 1e100 else 0
    assert found == pytest.approx(float(expected), rel=1e-9, abs=1e-9 + rounding)


def test_gaussians_of_one_scale_are_compared_where_their_logarithms_no_longer_differ():
    left, right = Density(-1.5, 0.3), Density(1.5, 0.3)
    x = np.array([-1e200, -1e20, 1e20, 1e200])
    assert np.array_equal(left.logpdf(x[1:3]) - right.logpdf(x[1:3]), [0, 0])  # all digits agree: plain subtraction sees no class
    assert np.allclose(distribution_shift.log_ratio(x, left, right), -2 * 1.5 * x / 0.3**2, rtol=1e-13)
    assert np.array_equal(distribution_shift.log_ratio(x, left, left), np.zeros(4))
    assert np.array_equal(distribution_shift.log_ratio([-1e300, 1e300], Density(0, 2), Density(0, 1)), [INF, INF])


# --- posteriors -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(places, scales, freedoms), min_size=1, max_size=4), st.floats(-30, 30))
def test_posteriors_are_bayes_rule(parts, x):
    densities = [Density(*part) for part in parts]
    logs = [exact(x, density) for density in densities]
    with mpmath.workdps(60):
        total = mpmath.log(sum(mpmath.exp(value - max(logs)) for value in logs)) + max(logs)
        expected = [float(value - total) for value in logs]
    found = distribution_shift.log_posterior([x], densities)
    assert found.shape == (1, len(parts))
    assert found[0] == pytest.approx(expected, rel=1e-9, abs=1e-8)
    assert np.logaddexp.reduce(found, axis=1) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("nu", [0.7, 1, 3, 30])
def test_t_posteriors_tend_to_one_over_k_with_a_common_scale(nu):
    densities = [Density(loc, 0.4, nu) for loc in (-2.0, 0.0, 1.0)]
    far = np.array([1e3, 1e6, 1e12, 1e200, 1e308])
    for x in (far, -far):
        away = np.abs(np.exp(distribution_shift.log_posterior(x, densities)) - 1 / 3).max(1)
        assert (away <= 3 * (nu + 1) / np.abs(x) + 1e-12).all()  # (nu + 1) times a difference of locations over x


def test_t_posteriors_of_different_scales_tend_to_the_share_of_scale_to_the_nu():
    spread = np.array([0.5, 1.0, 2.0])
    for nu in (1.0, 3.0, 5.5):
        densities = [Density(loc, scale, nu) for loc, scale in zip((-1, 0, 3), spread, strict=True)]
        expected = spread**nu / (spread**nu).sum()
        assert np.exp(distribution_shift.log_posterior([-1e9, 1e9, 1e300], densities)) == pytest.approx(np.tile(expected, (3, 1)), rel=1e-6)
        assert np.abs(expected - 1 / 3).max() > 0.2  # which is what the paper's sentence leaves out


def test_the_heaviest_tail_takes_all_where_nu_differs():
    posterior = np.exp(distribution_shift.log_posterior([-1e200, 1e200], [Density(0, 1, 1.0), Density(0, 100, 1.5), Density(5, 1)]))
    assert np.allclose(posterior, [[1, 0, 0]] * 2)


def test_gaussian_posteriors_saturate_on_both_sides():
    densities = [Density(loc, 0.5) for loc in (-1.0, 0.0, 1.0)]
    for x in (1e1, 1e3, 1e20, 1e200, 1e308):
        assert np.allclose(np.exp(distribution_shift.log_posterior([-x, x], densities)), [[1, 0, 0], [0, 0, 1]], atol=1e-8)
    wide = [Density(0, 1), Density(0, 1.001)]  # of different scales the widest wins, on both sides
    assert np.allclose(np.exp(distribution_shift.log_posterior([-1e3, 1e3], wide)), [[0, 1]] * 2)


def test_two_gaussians_of_one_scale_are_equation_7():
    x, sigma, first, second = np.linspace(-40, 40, 81), 0.7, -1.5, 1.25
    expected = -np.logaddexp(0, -(2 * x * (first - second) - first**2 + second**2) / (2 * sigma**2))
    assert np.allclose(
        distribution_shift.log_posterior(x, [Density(first, sigma), Density(second, sigma)])[:, 0], expected, rtol=1e-11, atol=1e-13
    )


def test_gaussian_classes_are_scikit_learns_discriminant_analysis():
    rng = np.random.default_rng(0)
    x, y = np.concatenate([rng.uniform(-2, -1, 50), rng.uniform(0, 2, 50), rng.normal(3, 1, 50)]), np.repeat([0, 1, 2], 50)
    peer = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3).fit(x[:, None], y)
    grid = np.linspace(-4, 5, 200)
    ours = distribution_shift.log_posterior(grid, distribution_shift.class_densities(x, y, nu=INF))
    assert np.allclose(ours, peer.predict_log_proba(grid[:, None]), rtol=1e-9, atol=1e-10)


# --- fits -------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("nu", [1, 1.3, 4, 1e5, INF])
@pytest.mark.parametrize("kind", ["wild points", "very heavy tails", "a tiny unit far from the origin"])
def test_a_fit_of_hostile_data_is_a_maximum(kind, nu):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x = {
            "wild points": np.append(rng.normal(size=30), 1e8 * rng.normal(size=2)),
            "very heavy tails": rng.standard_t(0.3, 25),
            "a tiny unit far from the origin": 1 + 1e-7 * rng.normal(size=20),
        }[kind]
        found = distribution_shift.fit_density(x, nu=nu)
        best = likelihood(x, found)
        for h in (1e-2, 1e-3):
            for place, factor in ((h, 1), (-h, 1), (0, 1 + h), (0, 1 - h)):
                assert likelihood(x, Density(found.loc + place * found.scale, factor * found.scale, nu)) < best + 1e-9


def heavy(seed, n=60, nu=2.0):
    return 3 + 0.5 * np.random.default_rng(seed).standard_t(nu, n)


def test_a_gaussian_fit_is_mean_and_biased_deviation():
    x = heavy(0)
    found = distribution_shift.fit_density(x, nu=INF)
    assert (found.loc, found.scale, found.nu) == (pytest.approx(x.mean()), pytest.approx(x.std()), INF)


@pytest.mark.parametrize("nu", [1, 1.5, 3, 40, 1e7])
@pytest.mark.parametrize("seed", range(3))
def test_a_fit_is_no_worse_than_scipys_and_than_a_fine_grid(nu, seed):
    x = heavy(seed)
    found = distribution_shift.fit_density(x, nu=nu)
    best = likelihood(x, found)
    _, loc, scale = stats.t.fit(x, f0=nu, loc=np.median(x), scale=x.std())
    assert best >= likelihood(x, Density(loc, scale, nu)) - 1e-10
    loc, scale = np.linspace(1, 5, 161)[:, None, None], np.geomspace(0.02, 20, 161)[:, None]
    grid = stats.t.logpdf(x, nu, loc, scale).mean(2)
    assert grid.max() <= best + 1e-12 and grid.max() >= best - 0.02
    for change in (1e-4, -1e-4):  # stationary: a step of h loses at most of order h^2, and loses
        for near in (Density(found.loc + change, found.scale, nu), Density(found.loc, found.scale * (1 + change), nu)):
            assert -1e-5 < likelihood(x, near) - best < 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("draw", [lambda rng: rng.standard_t(2, 80), lambda rng: rng.normal(size=100), lambda rng: rng.uniform(size=12)])
def test_the_fitted_nu_is_the_best_of_a_fine_grid_and_no_worse_than_scipys(draw, seed):
    x = draw(np.random.default_rng(seed))
    found = distribution_shift.fit_density(x, nu=None)
    grid = [distribution_shift.fit_density(x, nu=1 / inverse if inverse else INF) for inverse in np.linspace(0, 1, 101)]
    assert likelihood(x, found) >= max(likelihood(x, other) for other in grid) - 1e-12
    theirs = Density(*np.array(stats.t.fit(x))[[1, 2, 0]])
    if theirs.nu >= 1:
        assert likelihood(x, found) >= likelihood(x, theirs) - 1e-9


def test_the_fitted_nu_of_light_tails_is_the_boundary_itself():
    uniform = np.random.default_rng(0).uniform(size=200)
    assert distribution_shift.fit_density(uniform, nu=None) == distribution_shift.fit_density(uniform, nu=INF)
    normal = [distribution_shift.fit_density(np.random.default_rng(seed).normal(size=100), nu=None).nu for seed in range(20)]
    assert 5 <= normal.count(INF) < 20  # even for the true Gaussian a finite nu may win: which one is luck
    assert distribution_shift.fit_density(heavy(1, 500, nu=0.5), nu=None).nu == 1.0


def test_the_fitted_nu_of_a_large_sample_is_the_true_one():
    found = distribution_shift.fit_density(heavy(0, 20_000, 3.0), nu=None)
    assert found.nu == pytest.approx(3, rel=0.1) and found.loc == pytest.approx(3, abs=0.02) and found.scale == pytest.approx(0.5, rel=0.05)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-(10**4), 10**4), min_size=4, max_size=30, unique=True),
    st.sampled_from([1.0, 2.0, 9.0, INF]),
    st.floats(1e-6, 1e6),
    st.floats(-100, 100),
)
def test_a_fit_moves_with_the_unit_and_the_origin(values, nu, unit, origin):
    x = np.array(values) / 100
    assume(np.ptp(x) > 1)
    plain, moved = distribution_shift.fit_density(x, nu=nu), distribution_shift.fit_density(unit * (x + origin), nu=nu)
    assert moved.scale == pytest.approx(unit * plain.scale, rel=1e-4)
    assert moved.loc == pytest.approx(unit * (plain.loc + origin), abs=1e-4 * unit * plain.scale, rel=1e-9)
    mirrored = distribution_shift.fit_density(-x[::-1], nu=nu)
    assert mirrored.loc == pytest.approx(-plain.loc, abs=1e-4 * plain.scale)


@pytest.mark.parametrize("nu", [1, 4, INF])
def test_classes_share_the_scale_of_greatest_likelihood(nu):
    rng = np.random.default_rng(3)
    y = rng.permutation(np.repeat([0, 1, 2], [30, 50, 20]))
    x = np.array([-2.0, 0.0, 5.0])[y] + np.array([0.3, 1.0, 0.5])[y] * rng.standard_t(3, len(y))
    found = distribution_shift.class_densities(x, y, nu=nu)
    assert len({density.scale for density in found}) == 1 and {density.nu for density in found} == {nu}

    def joint(densities):
        return np.mean(np.concatenate([density.logpdf(x[y == k]) for k, density in enumerate(densities)]))

    best, scale = joint(found), found[0].scale
    for factor in (0.5, 0.99, 1.01, 2):
        assert joint([Density(d.loc, factor * scale, nu) for d in found]) < best
    for k in range(3):
        for change in (-0.5, -0.01, 0.01, 0.5):
            assert joint([Density(d.loc + change * (j == k), scale, nu) for j, d in enumerate(found)]) < best
    apart = distribution_shift.class_densities(x, y, nu=nu, shared_scale=False)
    assert apart == tuple(distribution_shift.fit_density(x[y == k], nu=nu) for k in range(3))
    assert joint(apart) >= best - 1e-12


def test_classes_share_a_fitted_nu():
    y = np.repeat([0, 1], 200)
    x = np.where(y, 1.5, -1.5) + np.random.default_rng(0).standard_t(2, 400)
    found = distribution_shift.class_densities(x, y, nu=None)
    assert found[0].nu == found[1].nu == pytest.approx(2, rel=0.3)
    best = sum(likelihood(x[y == k], found[k]) for k in (0, 1))
    for nu in np.linspace(1, 6, 30):
        other = distribution_shift.class_densities(x, y, nu=nu)
        assert sum(likelihood(x[y == k], other[k]) for k in (0, 1)) <= best + 1e-9


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lam", [0, 0.5, 1, 2.0])
def test_weights_are_the_ratio_to_the_power_lambda(lam):
    x, target, source = np.linspace(-3, 4, 50), Density(2.1, 10 / 17), Density(1.1, 0.5)
    expected = (stats.norm.pdf(x, 2.1, 10 / 17) / stats.norm.pdf(x, 1.1, 0.5)) ** lam
    assert np.allclose(distribution_shift.importance_weights(x, target, source, lam), expected, rtol=1e-9)
    expected = (stats.t.pdf(x, 3, 2.1, 10 / 17) / stats.t.pdf(x, 3, 1.1, 0.5)) ** lam
    assert np.allclose(distribution_shift.importance_weights(x, Density(2.1, 10 / 17, 3), Density(1.1, 0.5, 3), lam), expected, rtol=1e-12)


@pytest.mark.parametrize("lam", [0.25, 1, 2])
@pytest.mark.parametrize("nu", [1, 3, 8])
def test_the_weight_in_the_tail_is_a_power_of_the_scales_and_not_one(nu, lam):
    target, source = Density(2.1, 10 / 17, nu), Density(1.1, 0.5, nu)
    found = distribution_shift.importance_weights([-1e9, 1e9, 1e300], target, source, lam)
    assert found == pytest.approx(np.full(3, ((10 / 17) / 0.5) ** (nu * lam)), rel=1e-6)
    assert (found > 1.03).all()
    equal = distribution_shift.importance_weights([-1e9, 1e9], Density(2.1, 0.5, nu), source, lam)
    assert equal == pytest.approx(np.ones(2), rel=1e-6)  # the paper's 1 needs one scale


def test_weights_far_out_are_zero_one_or_infinite_but_never_nan():
    x = np.array([-1e308, -1e20, 0.0, 1e20, 1e308])
    wide, narrow, heavy_tail = Density(2.1, 0.6), Density(1.1, 0.5), Density(0, 1, 1)
    with np.errstate(all="raise", under="ignore"):
        assert distribution_shift.importance_weights(x, wide, narrow, 1)[[0, 1, 3, 4]].tolist() == [INF] * 4
        assert distribution_shift.importance_weights(x, narrow, wide, 1)[[0, 1, 3, 4]].tolist() == [0] * 4
        assert distribution_shift.importance_weights(x, wide, narrow, 0).tolist() == [1] * 5
        assert distribution_shift.importance_weights(x, heavy_tail, wide, 1)[[0, 1, 3, 4]].tolist() == [INF] * 4
        assert distribution_shift.importance_weights(x, wide, heavy_tail, 0.5)[[0, 1, 3, 4]].tolist() == [0] * 4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=20), st.floats(1e-3, 1e3))
def test_the_effective_sample_size_lies_between_one_and_the_number(weights, unit):
    assume(max(weights) > 1e-200)
    found = distribution_shift.effective_sample_size(weights)
    assert 1 - 1e-12 <= found <= len(weights) * (1 + 1e-12)
    assert distribution_shift.effective_sample_size(np.array(weights) * unit) == pytest.approx(found, rel=1e-9)


def test_the_effective_sample_size_of_known_weights():
    assert distribution_shift.effective_sample_size(np.full(7, 1e308)) == pytest.approx(7)
    assert distribution_shift.effective_sample_size([0, 3, 0]) == 1
    assert distribution_shift.effective_sample_size([1, 2, 3]) == pytest.approx(36 / 14)


# --- regression -------------------------------------------------------------------------------------------------------


def sinc_draw(seed):
    rng = np.random.default_rng(seed)
    source, target, outliers = rng.normal(1.1, 0.5, 150), rng.normal(2.1, 10 / 17, 100), rng.uniform(-5, -4, 5)
    x = np.concatenate([source, outliers])
    return source, target, x, np.sinc(x) + rng.normal(0, 0.25, len(x))


@pytest.mark.parametrize("degree", [0, 1, 3, 6])
def test_the_weighted_polynomial_is_numpys(degree):
    _, _, x, y = sinc_draw(0)
    weights = np.random.default_rng(1).gamma(0.5, size=len(x))
    grid = np.linspace(-5, 4, 50)
    expected = np.polyval(np.polyfit(x, y, degree, w=np.sqrt(weights)), grid)
    assert np.allclose(distribution_shift.weighted_fit(x, y, weights, degree).predict(grid[:, None]), expected, rtol=1e-6, atol=1e-8)
    huge = 1e300 * weights / weights.max()
    assert np.allclose(distribution_shift.weighted_fit(x, y, huge, degree).predict(grid[:, None]), expected, rtol=1e-6, atol=1e-8)


def test_weights_count_points():
    _, _, x, y = sinc_draw(2)
    weights = np.random.default_rng(0).integers(0, 4, len(x))
    repeated = distribution_shift.weighted_fit(np.repeat(x, weights), np.repeat(y, weights), np.ones(weights.sum()), 3)
    assert np.allclose(distribution_shift.weighted_fit(x, y, weights, 3).predict(x[:, None]), repeated.predict(x[:, None]), atol=1e-9)


def tight(function, start, args, disp):
    """scipy's own simplex search, to more digits than its default of four."""
    return optimize.fmin(function, start, args=args, disp=disp, xtol=1e-10, ftol=1e-14)


@pytest.mark.parametrize("nu", [INF, 1, 3])
@pytest.mark.parametrize("lam", [0, 0.5, 1])
def test_the_sinc_experiment_is_the_same_computed_plainly(nu, lam):
    """Fit both densities, weigh the source with its outliers, fit a line, measure on the target: numpy and scipy alone."""
    grid = np.linspace(0.5, 4, 100)
    for seed in range(5):
        source, target, x, y = sinc_draw(seed)
        densities = [distribution_shift.fit_density(sample, nu=nu) for sample in (target, source)]
        weights = distribution_shift.importance_weights(x, *densities, lam)
        found = np.mean((distribution_shift.weighted_fit(x, y, weights, 1).predict(grid[:, None]) - np.sinc(grid)) ** 2)
        if nu == INF:
            p, q = (stats.norm.pdf(x, sample.mean(), sample.std()) for sample in (target, source))
        else:
            fits = (stats.t.fit(sample, f0=nu, loc=np.median(sample), scale=0.5, optimizer=tight) for sample in (target, source))
            p, q = (stats.t.pdf(x, *fit) for fit in fits)
        line = np.polyfit(x, y, 1, w=np.sqrt((p / q) ** lam))
        assert found == pytest.approx(np.mean((np.polyval(line, grid) - np.sinc(grid)) ** 2), rel=1e-6)


# --- bad input --------------------------------------------------------------------------------------------------------

BAD_SAMPLES = [
    ([], "at least 2 finite numbers; shape \\(0,\\)"), ([1.0], "at least 2 finite numbers; shape \\(1,\\)"),
    ([[1.0, 2.0]], "shape \\(1, 2\\)"),
    ([1.0, math.nan, 2.0], "1 of them NaN or infinite"), ([1.0, INF], "1 of them NaN or infinite"), (["one", "two"], "list was given"),
    ([2.0] * 5, "the likelihood has no maximum: 5 of the 5 points lie on 1 value"),
]  # fmt: skip
BAD = {
    Density: [
        ({"scale": 0}, "scale must be a positive number; 0 was given"), ({"scale": -1}, "scale must be"), ({"scale": INF}, "scale must be"),
        ({"scale": True}, "True was given"),
        ({"loc": math.nan}, "loc must be"), ({"nu": 0}, "nu must be"), ({"nu": math.nan}, "nu must be"),
    ],
    Density(0, 1).logpdf: [({"x": [math.nan]}, "x must be a vector.*1 of them NaN"), ({"x": 0.0}, r"shape \(\)")],
    distribution_shift.fit_density: [
        *[({"x": x, "nu": nu}, message) for x, message in BAD_SAMPLES for nu in (1, INF, None)],
        *[({"nu": nu}, "nu must be") for nu in (0.5, -1, math.nan)],
    ],
    distribution_shift.class_densities: [
        ({"y": [0, 0, 2, 2]}, r"\[2, 0, 2\]"), ({"y": [0, 0, 0, 1]}, r"\[3, 1\]"), ({"y": [0, 0, 1]}, r"4 integer labels.*\(3,\)"),
        ({"y": [0.0] * 4}, "float64"), ({"y": [-1, 0, 0, 0]}, "labels from 0"),
    ],
    distribution_shift.log_posterior: [({"densities": []}, "at least one density")],
    distribution_shift.importance_weights: [
        ({"lam": -0.1}, "lam must be a number of at least 0; -0.1"), ({"lam": math.nan}, "lam must be"), ({"x": [INF]}, "NaN or infinite"),
    ],
    distribution_shift.effective_sample_size: [
        ({"weights": [0.0, 0.0]}, "not all 0"), ({"weights": [1.0, -1.0]}, "at least 0"), ({"weights": [1.0, INF]}, "NaN or infinite"),
        ({"weights": []}, "weights must be a vector"),
    ],
    distribution_shift.weighted_fit: [
        ({"y": [1, 2]}, r"one length; theirs are \(3, 2, 3\)"), ({"y": [1, 2, math.nan]}, "y must be a vector"),
        ({"x": [1, 2, 2], "degree": 2}, "more than 2 places"), ({"weights": [1, 1, 0], "degree": 2}, "more than 2 places"),
        ({"degree": -1}, "degree must be a whole number"), ({"degree": 1.0}, "degree must be a whole number"),
    ],
}  # fmt: skip
GOOD = {
    Density: {"loc": 0, "scale": 1},
    distribution_shift.fit_density: {"x": [1, 2, 3]},
    distribution_shift.class_densities: {"x": [1, 2, 3, 4.0], "nu": 1},
    distribution_shift.log_posterior: {"x": [0.0]},
    distribution_shift.importance_weights: {"x": [0.0], "target": Density(0, 1), "source": Density(0, 1), "lam": 1},
    distribution_shift.weighted_fit: {"x": [1, 2, 3], "y": [1, 2, 3], "weights": [1, 1, 1], "degree": 1},
}


@pytest.mark.parametrize("function", BAD, ids=lambda function: function.__name__)
def test_what_does_not_fit_is_refused(function):
    for changed, message in BAD[function]:
        with pytest.raises(ValueError, match=message):
            function(**GOOD.get(function, {}) | changed)


def test_equal_points_are_refused_exactly_where_the_likelihood_has_no_maximum():
    x = [0.0] * 5 + [1.0, 2.0, 3.0, 4.5, 7.0]
    with pytest.raises(ValueError, match=r"5 of the 10 points lie on 1 value.*fewer than 5 may"):
        distribution_shift.fit_density(x, nu=1)
    assert 0 < distribution_shift.fit_density(x, nu=1.2).scale < distribution_shift.fit_density(x, nu=3).scale
    with pytest.raises(ValueError, match="no maximum"):
        distribution_shift.fit_density(x, nu=None)  # nu = 1 is among those that it tries
    with pytest.raises(ValueError, match="2 of the 2"):
        distribution_shift.fit_density([3.0, 3.0], nu=INF)
    with pytest.raises(ValueError, match="4 of the 4 points lie on 2 value"):
        distribution_shift.class_densities([0, 0, 1, 1.0], [0, 0, 1, 1], nu=3)


def test_tensors_are_welcome():
    x = torch.linspace(0, 1, 9)
    assert np.array_equal(Density(0, 1).logpdf(x), Density(0, 1).logpdf(x.double().numpy()))
