"""Spectra: the law of pure noise, planted dimensions that must be found, and the flat distribution."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from support import geometry

REPETITIONS = 40


def gauss(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dominant(spectrum):
    """How many values lie above what noise explains."""
    return int((spectrum.values > spectrum.high).sum())


def orthant(seed, samples, n, k):
    """Noise projected onto the k-orthant, somewhere in space and in any orientation."""
    turn = torch.linalg.qr(gauss(seed + 1, n, n)).Q
    return geometry.project_wedge(gauss(seed, samples, n), torch.zeros(k - 1)) @ turn


@pytest.mark.parametrize(("samples", "n", "k"), [(600, 20, 1), (600, 20, 5), (1500, 50, 3), (1500, 50, 12), (1500, 40, 14)])
@pytest.mark.parametrize("way", ["centred", "differences"])
def test_the_dimension_of_a_planted_orthant_is_found(samples, n, k, way):
    factor = 2 if way == "differences" else 1  # a pair makes one difference
    found = [
        geometry.boundary_spectrum(orthant(seed, factor * samples, n, k), way=way, generator=torch.Generator().manual_seed(seed)).dropped
        for seed in range(REPETITIONS)
    ]
    assert np.mean(np.array(found) == k) >= 0.95


@pytest.mark.parametrize(("n", "flat"), [(20, 1), (30, 4)])
def test_flat_directions_of_a_planted_subspace_are_found(n, flat):
    right = 0
    for seed in range(REPETITIONS):
        sample = gauss(seed, 10 * n, n)
        sample[:, :flat] = 0
        right += geometry.boundary_spectrum(sample @ torch.linalg.qr(gauss(seed + 1, n, n)).Q).dropped == flat
    assert right >= 0.95 * REPETITIONS


@pytest.mark.parametrize(("samples", "n"), [(300, 20), (1500, 50), (120, 100), (100, 300)])
def test_noise_shows_nothing(samples, n):
    found = [geometry.boundary_spectrum(3.7 * gauss(seed, samples, n)) for seed in range(2 * REPETITIONS)]
    assert np.mean([spectrum.dropped + dominant(spectrum) == 0 for spectrum in found]) >= 0.95
    assert np.mean([spectrum.scale for spectrum in found]) == pytest.approx(3.7, rel=0.02)


def test_the_raw_mean_is_one_dominant_value_and_hides_a_dropped_one():
    mean = 50 * torch.eye(20, dtype=torch.float64)[0]
    sample = gauss(0, 800, 20)
    sample[:, 0] = 0
    raw, centred = (geometry.boundary_spectrum(sample + mean, way=way) for way in ("raw", "centred"))
    assert (dominant(raw), raw.dropped) == (1, 0) and (dominant(centred), centred.dropped) == (0, 1)
    assert abs(float(raw.directions[0, 0])) > 0.999 and abs(float(centred.directions[-1, 0])) > 0.999


def test_raw_orthants_drop_k_values_only_for_small_k():
    """Second moments: 0.341 k - 1 times, and 0.341 + 0.159 k once, against 1: above it for k = 5 and more."""
    for k in (1, 2, 4, 5, 12):
        values = geometry.boundary_spectrum(geometry.project_wedge(gauss(k, 100_000, 12), torch.zeros(k - 1)), way="raw").values
        squeezed, mean = 0.5 - 0.5 / math.pi, 0.5 / math.pi
        expected = sorted([squeezed + k * mean, *[squeezed] * (k - 1), *[1.0] * (12 - k)], reverse=True)
        assert torch.allclose(values.square(), torch.tensor(expected, dtype=torch.float64), atol=0.03)


@pytest.mark.parametrize("way", ["centred", "raw", "differences"])
def test_values_are_standard_deviations(way):
    spectrum = geometry.boundary_spectrum(2 * gauss(3, 20_000, 4), way=way)
    assert spectrum.values.tolist() == pytest.approx([2] * 4, rel=0.05) and spectrum.scale == pytest.approx(2, rel=0.02)
    assert (spectrum.low, spectrum.high) == geometry.noise_range({"centred": 19_999, "raw": 20_000}.get(way, 10_000), 4, spectrum.scale)


def test_a_known_scale_is_taken():
    spectrum = geometry.boundary_spectrum(gauss(0, 500, 10), scale=2.0)
    assert spectrum.scale == 2.0 and spectrum.dropped == 10 and geometry.noise_range(499, 10, 2.0) == (spectrum.low, spectrum.high)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_spectra_ignore_place_orientation_and_unit(seed, unit):
    sample = orthant(seed, 400, 8, 3)
    one = geometry.boundary_spectrum(sample)
    two = geometry.boundary_spectrum(unit * (sample @ torch.linalg.qr(gauss(seed + 2, 8, 8)).Q + 100))
    assert torch.allclose(two.values, unit * one.values, rtol=1e-7, atol=1e-9 * unit)
    assert (one.dropped, dominant(one)) == (two.dropped, dominant(two))


@pytest.mark.parametrize(("samples", "n"), [(1000, 100), (300, 200), (200, 200), (100, 300)])
def test_the_noise_spectrum_has_the_law_s_quantiles(samples, n):
    ratio = n / samples
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2

    def mass(to):
        return quad(lambda z: math.sqrt(max((high - z) * (z - low), 0)) / z, low + 1e-15, to, limit=400)[0]

    total = mass(high)
    values = geometry.noise_spectrum(samples, n, 2.0) / 2
    count = min(samples, n)
    assert values.shape == (count,) and bool((values.diff() < 0).all())
    for i in (count // 5, count // 2, 4 * count // 5):
        assert mass(float(values[i]) ** 2) / total == pytest.approx(1 - (i + 0.5) / count, abs=2e-3)
    drawn = torch.stack([torch.linalg.svdvals(gauss(seed, samples, n)) for seed in range(5)]).mean(0) / math.sqrt(samples)
    assert torch.allclose(values, drawn, rtol=0.02, atol=0.02)


def test_the_noise_range_is_passed_once_in_a_thousand():
    outside = 0
    for seed in range(400):
        values = torch.linalg.svdvals(gauss(seed, 200, 30)) / math.sqrt(200)
        low, high = geometry.noise_range(200, 30)
        outside += bool((values < low).any()) + bool((values > high).any())
    assert outside <= 5, "800 ends at one in a thousand"
    assert geometry.noise_range(30, 30)[0] == 0 == geometry.noise_range(20, 30)[0]


@pytest.mark.parametrize(("samples", "n"), [(300, 40), (40, 300), (40, 40), (41, 40)])
def test_the_flat_sample_is_flat_and_as_long_as_the_gaussian(samples, n):
    stream, again = (torch.Generator().manual_seed(5) for _ in range(2))
    flat = geometry.flat_spectrum(samples, n, generator=stream)
    gaussian = torch.randn(samples, n, generator=again, dtype=torch.float64)
    gaussian = gaussian - gaussian.mean(0)
    rank = min(samples - 1, n)
    values = torch.linalg.svdvals(flat)
    assert torch.allclose(values[:rank], (gaussian.norm() / math.sqrt(rank)).expand(rank)) and float(values[rank:].sum()) < 1e-9
    assert float(flat.mean(0).abs().max()) < 1e-12 and float(flat.norm()) == pytest.approx(float(gaussian.norm()))
    assert geometry.flat_spectrum(5, 3, dtype=torch.float32).dtype == torch.float32


def test_bad_input_is_refused():
    table = [
        (lambda: geometry.boundary_spectrum(torch.zeros(3, 2)), "at least 4"),
        (lambda: geometry.boundary_spectrum(torch.zeros(9, 2), way="whitened"), "centred, raw, differences"),
        (lambda: geometry.boundary_spectrum(torch.zeros(9, 2), scale=0.0), "scale"),
        (lambda: geometry.boundary_spectrum(torch.zeros(9, 2), scale=math.inf), "scale"),
        (lambda: geometry.boundary_spectrum(torch.full((9, 2), math.nan)), "NaN"),
        (lambda: geometry.boundary_spectrum(torch.zeros(9)), r"\(N, d\)"),
        (lambda: geometry.noise_range(1, 3), "samples"),
        (lambda: geometry.noise_range(4, 0), "dimensions"),
        (lambda: geometry.noise_spectrum(4, 2.5), "dimensions"),
        (lambda: geometry.flat_spectrum(1, 3), "samples"),
        (lambda: geometry.flat_spectrum(5, 0), "dimensions"),
    ]
    for call, message in table:
        with pytest.raises(ValueError, match=message):
            call()
