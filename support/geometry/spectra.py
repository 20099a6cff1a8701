"""Singular values of boundary samples, and what noise alone would show (bell2023, section 31; the
chapter "Decision boundaries")."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from support.common.arguments import choice, number, points, random_stream, whole_number

WAYS = ("centred", "raw", "differences")
_GRID = 4000  # points of the numerical distribution function
# Tracy and Widom's law of the extreme eigenvalue (real case) exceeds it once in a thousand.
_RARE = 3.27
_ROUNDS = 20


@dataclass(frozen=True)
class Spectrum:
    """Singular values of a sample beside those of pure noise of the same shape.

    Attributes:
        values: (r,) singular values, at most N or d, divided by the square root of the degrees of
            freedom, descending: the standard deviations along the sample's principal directions, in
            the units of the points.
        directions: (r, d) the principal directions, one a row.
        low, high: the range in which values of pure noise lie, each end exceeded in one of a
            thousand samples. ``low`` is 0 where the sample has no more rows than columns, and then
            says nothing.
        scale: the noise's standard deviation, known or estimated from the middle of the spectrum.
    """

    values: Tensor
    directions: Tensor
    low: float
    high: float
    scale: float

    @property
    def dropped(self) -> int:
        """How many values lie below what noise explains: dimensions in which the sample is
        squeezed."""
        return int((self.values < self.low).sum())


def boundary_spectrum(
    x: Tensor,
    *,
    way: str = "centred",
    scale: float | None = None,
    generator: torch.Generator | None = None,
) -> Spectrum:
    """Singular values of a sample of boundary points, judged against Marchenko and Pastur's law at
    the same shape.

    Args:
        x: (N, d) points, N >= 4; computed in float64.
        way: ``"centred"`` subtracts the mean. ``"raw"`` leaves it, as bell2023 first does: a mean
            far from zero is then one large value, and hides what is squeezed along it.
            ``"differences"`` takes those of N/2 disjoint random pairs, over sqrt(2), as bell2023
            does later.
        scale: standard deviation of the noise where it is known; estimated if None, from the middle
            of those values that look like noise.
        generator: draws the pairs.

    Raises:
        ValueError: too few points, an unknown way, a scale that is not positive, NaN.
    """
    points("x", x, matrix=True)
    choice("way", way, WAYS)
    if len(x) < 4:
        raise ValueError(f"a spectrum needs at least 4 points; {len(x)} were given")
    if scale is not None:
        number("scale", scale, above=0)
    exact, freedom = x.detach().double(), len(x)
    if way == "centred":
        exact, freedom = exact - exact.mean(0), len(x) - 1
    elif way == "differences":
        stream = random_stream(generator)
        order = torch.randperm(len(x), generator=stream, device=stream.device).to(x.device)
        freedom = len(x) // 2
        first, second = exact[order[: 2 * freedom]].chunk(2)
        exact = (first - second) / math.sqrt(2)
    # half the time of a singular value decomposition; values below 1e-8 of the largest are rounding
    if len(exact) > x.shape[1]:
        squares, vectors = torch.linalg.eigh(exact.T @ exact)
        values, directions = squares.clamp_min(0).sqrt().flip(0), vectors.T.flip(0)
    else:
        _, values, directions = torch.linalg.svd(exact, full_matrices=False)
    rank = min(freedom, x.shape[1])  # subtracting the mean costs one
    values, directions = values[:rank] / math.sqrt(freedom), directions[:rank]
    known = scale if scale is not None else _noise_scale(values, freedom, x.shape[1])
    low, high = noise_range(freedom, x.shape[1], known)
    return Spectrum(values, directions, low, high, known)


def noise_range(samples: int, dimensions: int, scale: float = 1.0) -> tuple[float, float]:
    """Smallest and largest of the ``values`` that :class:`Spectrum` would have for pure noise, each
    passed in one sample of a thousand.

    Marchenko and Pastur's edges ``scale * |1 -+ sqrt(dimensions / samples)|``, moved outward by the
    fluctuations of the extreme eigenvalues (Tracy and Widom; constants of Johnstone 2001). The
    lower end is 0 if ``samples <= dimensions``.
    """
    whole_number("samples", samples, 2)
    whole_number("dimensions", dimensions, 1)
    a, b = math.sqrt(samples), math.sqrt(dimensions)
    high = (a + b) ** 2 + _RARE * (a + b) * (1 / a + 1 / b) ** (1 / 3)
    low = 0.0
    if samples > dimensions:
        low = (a - b) ** 2 - _RARE * (a - b) * (1 / b - 1 / a) ** (1 / 3)
    return scale * math.sqrt(max(low, 0.0) / samples), scale * math.sqrt(high / samples)


def noise_spectrum(samples: int, dimensions: int, scale: float = 1.0) -> Tensor:
    """The ``values`` of pure noise: (min(samples, dimensions),) float64, quantiles of Marchenko and
    Pastur's law, descending.

    Args:
        samples: N, at least 2 (for centred data, N - 1).
        dimensions: d.
        scale: standard deviation of the noise.
    """
    whole_number("samples", samples, 2)
    whole_number("dimensions", dimensions, 1)
    ratio = dimensions / samples
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    # Steps that grow with the distance from the edges, where the density has square-root ends (and,
    # for d = N, a pole).
    angle = np.linspace(0, math.pi, _GRID)
    at = low + (high - low) * (1 - np.cos(angle)) / 2
    middle = (at[1:] + at[:-1]) / 2
    density = np.sqrt(np.clip((high - middle) * (middle - low), 0, None)) / middle
    share = np.concatenate([[0.0], np.cumsum(density * np.diff(at))])
    count = min(samples, dimensions)
    wanted = (np.arange(count)[::-1] + 0.5) / count
    return torch.from_numpy(scale * np.sqrt(np.interp(wanted, share / share[-1], at)))


def flat_spectrum(
    samples: int,
    dimensions: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """A noise sample whose singular values are all equal: bell2023's "Flat SVD" distribution
    (section 31).

    A standard Gaussian sample X = U S V is centred and S replaced by ``|X|_F / sqrt(r)``, r the
    rank, which keeps the Frobenius norm; the norm itself, which is how the paper's formula reads,
    would make the sample sqrt(r) times too long.

    Args:
        samples: N >= 2.
        dimensions: d >= 1.
        generator: of the Gaussian sample.

    Returns:
        (N, d), mean 0, with r = min(N - 1, d) equal singular values and no others; entries of about
        unit variance.
    """
    whole_number("samples", samples, 2)
    whole_number("dimensions", dimensions, 1)
    stream = random_stream(generator)
    drawn = {"dtype": torch.float64, "generator": stream, "device": stream.device}
    gauss = torch.randn(samples, dimensions, **drawn)
    gauss = gauss - gauss.mean(0)
    u, values, v = torch.linalg.svd(gauss, full_matrices=False)
    rank = min(samples - 1, dimensions)
    return (values.norm() / math.sqrt(rank) * (u[:, :rank] @ v[:rank])).to(dtype)


def _noise_scale(values: Tensor, samples: int, dimensions: int) -> float:
    """Noise scale that the middle of the spectrum suggests, after setting aside what lies out of
    its range, until that settles."""
    law = noise_spectrum(samples, dimensions)
    kept = torch.ones(len(values), dtype=torch.bool, device=values.device)
    scale = float(values.median())
    for _ in range(_ROUNDS):
        held = values[kept]
        middle = slice(len(held) // 4, max(3 * len(held) // 4, len(held) // 4 + 1))
        tall = samples > dimensions
        expected = noise_spectrum(samples, len(held)) if tall else law[kept.cpu()]
        scale = float((held[middle] / expected[middle].to(held.device)).median())
        low, high = noise_range(samples, dimensions, scale)
        again = (values >= low) & (values <= high)
        if not bool(again.any()) or torch.equal(again, kept):
            break
        kept = again
    return scale
