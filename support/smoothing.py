"""Stability under Gaussian noise and persistence, for a whole batch at once (bell2023, part I).
Chapter 5.

A point is (gamma, sigma)-stable if at least the share gamma of ``N(x, sigma^2 I)`` gets the class
of x; its gamma-persistence is the largest sigma below which it stays so. All images of a call share
the noise (common random numbers), so an image's result depends neither on its neighbours nor on
their order.

Sampling is sequential. After n samples, S of them in the class, the point is called stable or
unstable once ``(n + 1) * P[Bin(n, gamma) = S]`` is at most alpha (Robbins 1970: with probability 1
- alpha this never happens on the wrong side of gamma, however often one looks). Far from the
crossing some dozens of samples are enough; near it the cap on samples decides by the plain share,
and the interval says so. What is estimated so cleverly is :func:`stability_by_counting`.

Where the model begins with a linear layer, ``W (x + sigma e) = W x + sigma W e``: the product ``W
e`` is computed once, for all images and all sigmas. The rest of the model sees the same numbers up
to rounding.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import special, stats
from torch import Tensor, nn

from support.attacks.base import LEAST_ROWS, Model, even, fast_rows, normal, per_image, prepare
from support.common import arguments
from support.common.arguments import number, radii, random_stream, whole_number
from support.models.architectures import Normalise, plain_layers
from support.models.heads import LinearHead

MIN_SIGMA = 1e-5
"""Below it nothing is searched: a point that is not stable there has persistence 0. Pixels have
about seven digits in float32."""

_FIRST_LOOK, _GROWTH = 16, 1.5  # samples before the first look, and how they grow from look to look
_BANK = 2**26  # noise values that are kept; more are drawn anew for each use, equal to the last bit
_DENSE_VALUES = 2**18  # of one pass behind a linear beginning, about what a core's cache holds
_RANGES = 40  # rounds of the published search for a range, which has no end of its own
_AFFINE = (Normalise, nn.Flatten, nn.Identity, nn.Linear, LinearHead)


@dataclass(frozen=True)
class PersistenceResult:
    """gamma-persistence of every image, in units of the pixel range.

    Attributes:
        sigma: (N,) float64, a crossing of gamma by the stability; 0 if the image is unstable at
            :data:`MIN_SIGMA` already, infinite if it is stable at ``max_sigma``.
        lower: (N,) largest sigma at which the image was found stable beyond doubt, 0 if there is
            none.
        upper: (N,) least sigma at which it was found unstable beyond doubt, infinite if there is
            none. With probability at least ``1 - error`` the stability is at least gamma at
            ``lower`` and at most gamma at ``upper``: a crossing lies between them.
        queries: (N,) int64 model evaluations, with the clean one.
    """

    sigma: Tensor
    lower: Tensor
    upper: Tensor
    queries: Tensor


@dataclass(frozen=True)
class PathResult(PersistenceResult):
    """gamma-persistence along straight paths: ``t`` (T,), the rest (N, T); ``label`` is the class
    at each point."""

    t: Tensor
    label: Tensor


@dataclass(frozen=True)
class Crossings:
    """What a grid of stabilities says about "for all smaller sigma", image by image.

    Attributes:
        first: (N,) Definition 4.2 on the grid: the largest sigma up to which every one is stable, 0
            if the first is not.
        last: (N,) the largest stable sigma of all, 0 if there is none.
        regained: (N,) bool, whether stability was lost and found again.
    """

    first: Tensor
    last: Tensor
    regained: Tensor


@dataclass(frozen=True)
class Bracketed:
    """What the published algorithm returns for one image; ``ended`` is False where its search for a
    range does not end."""

    sigma: float
    queries: int
    ended: bool


def stability(
    model: Model,
    x: Tensor,
    sigma: float | Tensor,
    *,
    samples: int = 1000,
    clip: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Share of Gaussian samples about each image that get the image's own class (bell2023,
    Definition 4.1 and Equation 7).

    Args:
        model: maps (n, ...) images to (n, K) log-scores.
        x: (N, ...) points, float32 or float64; in [0,1] if ``clip``.
        sigma: standard deviation in units of the pixel range, one number or (N,).
        samples: drawn once, for all images.
        clip: cut the noisy images to [0,1]. The paper does not.
        generator: source of the noise; ``None``: a fresh one of fixed seed.

    Returns:
        (N,) float64 shares.

    Raises:
        ValueError: a wrong input, or NaN scores.
    """
    _check(model, x, samples, clip)
    sigma = radii("sigma", sigma, x)
    cloud = _Cloud(model, x, samples, clip, generator)
    return cloud.frequencies(sigma, samples).gather(1, cloud.labels[:, None])[:, 0]


@torch.no_grad()
def stability_by_counting(
    model: Model,
    x: Tensor,
    sigma: float,
    *,
    samples: int = 1000,
    generator: torch.Generator | None = None,
) -> Tensor:
    """:func:`stability` as it is defined: draw, classify, count. Each image has noise of its own.

    Args:
        model, x, samples, generator: as in :func:`stability`.
        sigma: one number, in units of the pixel range.

    Returns:
        (N,) float64 shares.
    """
    stream, same = random_stream(generator), 0
    own = model(x.clone()).argmax(1)
    for _ in range(samples):
        noisy = x + sigma * normal(x.shape, stream, x)
        same = same + (model(noisy).argmax(1) == own)
    return same.double() / samples


def class_frequencies(
    model: Model,
    x: Tensor,
    sigmas: Sequence[float] | Tensor,
    *,
    samples: int = 1000,
    clip: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """How often each class is predicted in growing neighbourhoods (bell2023, Figures 9, 11, 13 and
    17).

    Args:
        model, x, samples, clip, generator: as in :func:`stability`; the same noise serves all
            sigmas.
        sigmas: (S,) standard deviations.

    Returns:
        (S, N, K) float64 shares.

    Raises:
        ValueError: a wrong input, or NaN scores.
    """
    _check(model, x, samples, clip)
    grid = [radii("sigma", sigma, x) for sigma in _grid(sigmas)]
    cloud = _Cloud(model, x, samples, clip, generator)
    return torch.stack([cloud.frequencies(sigma, samples) for sigma in grid])


def stability_curve(model: Model, x: Tensor, sigmas: Sequence[float] | Tensor, **options) -> Tensor:
    """Stability (S, N) of every image at every sigma of a grid (S,), with the options of
    :func:`class_frequencies`."""
    frequencies = class_frequencies(model, x, sigmas, **options)
    labels = _scores(model, x).argmax(1).expand(len(frequencies), -1)
    return frequencies.gather(2, labels[:, :, None])[:, :, 0]


def crossings(
    sigmas: Sequence[float] | Tensor, curve: Tensor, gamma: float = 0.7, *, slack: float = 0.0
) -> Crossings:
    """The audit of a bisection: does stability, once lost, stay lost?

    Bisection finds some sigma at which the stability crosses gamma; Definition 4.2 wants the first.
    If the class is star-shaped about x, the stability never grows with sigma and both agree; in
    general it can be lost and regained.

    Args:
        sigmas: (S,) increasing.
        curve: (S, N) stabilities, of :func:`stability_curve`.
        gamma: in (0, 1).
        slack: stability counts as lost below ``gamma - slack`` and as regained above ``gamma +
            slack``: room for sampling error.

    Raises:
        ValueError: shapes or ranges that do not fit.
    """
    number("gamma", gamma, above=0, below=1)
    grid = _grid(sigmas)
    if curve.ndim != 2 or len(curve) != len(grid):
        raise ValueError(f"curve must be ({len(grid)}, N), not {tuple(curve.shape)}")
    if any(b <= a for a, b in pairwise(grid)):
        raise ValueError("sigmas must increase")
    at = torch.tensor([0.0, *grid], dtype=torch.float64, device=curve.device)
    stable = (curve >= gamma).long()
    first = stable.cumprod(0).sum(0)
    last = (stable * torch.arange(1, len(grid) + 1, device=curve.device)[:, None]).amax(0)
    lost = (curve < gamma - slack).long().cumsum(0) > 0
    return Crossings(at[first], at[last], (lost & (curve > gamma + slack)).any(0))


def persistence(
    model: Model,
    x: Tensor,
    gamma: float = 0.7,
    *,
    samples: int = 2000,
    precision: float = 0.2,
    max_sigma: float = 64.0,
    start: float = 0.25,
    error: float = 0.05,
    clip: bool = False,
    generator: torch.Generator | None = None,
) -> PersistenceResult:
    """gamma-persistence by bisection, all images in lockstep (bell2023, Definition 4.2, by the idea
    of Algorithm 1).

    From ``start`` sigma is doubled or halved until it brackets a crossing of gamma, then bisected
    on a logarithmic scale. Inside the last bracket the crossing is interpolated as if the boundary
    were flat, where ``Phi^-1(stability)`` is linear in ``1 / sigma``. What is found is a crossing,
    not necessarily the first: :func:`crossings` audits that on a grid.

    Args:
        model: maps (n, ...) images to (n, K) log-scores.
        x: (N, ...) points, float32 or float64; in [0,1] if ``clip``.
        gamma: in (0, 1).
        samples: cap on the samples at one sigma; where the sequential test has not decided by then,
            the plain share does.
        precision: relative width of the last bracket, in which the crossing is interpolated: the
            result is some ten times as precise. With the default cap the sampling error,
            ``sqrt(gamma (1 - gamma) / samples)`` in stability, is larger; more samples ask for
            less.
        max_sigma: cap on sigma, in units of the pixel range: an image stable there gets infinity.
            Classes that keep more than gamma of the noise however large it is do exist, so some cap
            is needed.
        start: the first sigma tried.
        error: chance, for each image, that the interval is wrong; shared out evenly among the
            sigmas it may visit.
        clip: cut the noisy images to [0,1]. The paper does not.
        generator: source of the noise; ``None``: a fresh one of fixed seed.

    Returns:
        The result, its floats in float64.

    Raises:
        ValueError: a wrong input, or NaN scores.
    """
    _check(model, x, samples, clip)
    number("gamma", gamma, above=0, below=1)
    number("precision", precision, above=0, below=1)
    number("error", error, above=0, below=1)
    number("max_sigma", max_sigma, above=MIN_SIGMA)
    start = min(number("start", start, above=MIN_SIGMA), max_sigma)
    search = max(math.ceil(math.log2(r)) for r in (max_sigma / start, start / MIN_SIGMA)) + 1
    visits = search + math.ceil(math.log2(math.log(2) / -math.log1p(-precision))) + 1
    tests = looks(gamma, samples, error / visits)
    cloud = _Cloud(model, x, samples, clip, generator)
    left = torch.arange(len(x), device=x.device)
    sigma, queries = radii("start", start, x), torch.ones_like(left)
    nothing = torch.zeros_like(sigma)
    low, high = ends = torch.stack([nothing, torch.full_like(sigma, torch.inf)])
    shares, beyond_doubt = torch.stack([torch.ones_like(sigma), nothing]), ends.clone()
    while len(left):
        here = sigma[left]
        same, spent, sure = cloud.test(left, here, tests)
        queries[left] += spent
        side = (same < gamma * spent).long()  # 0: stable, a lower end
        share = (same / spent).clamp(0.5 / spent, 1 - 0.5 / spent)
        ends[side, left], shares[side, left] = here, share.double()
        beyond_doubt[side[sure], left[sure]] = here[sure]
        wide = low[left] < (1 - precision) * high[left]
        left = left[wide & (low[left] < max_sigma) & (high[left] > MIN_SIGMA)]
        below, above = low[left], high[left]
        between = torch.where(below == 0, (above / 2).clamp_min(MIN_SIGMA), (below * above).sqrt())
        sigma[left] = torch.where(above.isinf(), (2 * below).clamp_max(max_sigma), between)
    return PersistenceResult(_crossing(ends, shares, gamma), *beyond_doubt, queries)


def along_path(
    model: Model, first: Tensor, last: Tensor, gamma: float = 0.7, *, points: int = 21, **options
) -> PathResult:
    """gamma-persistence along the straight lines from ``first`` to ``last`` (bell2023, Figures 12
    and 18).

    Args:
        model: maps (n, ...) images to (n, K) log-scores.
        first, last: (N, ...) ends of the paths.
        gamma: in (0, 1).
        points: T, evenly spaced, with both ends.
        options: of :func:`persistence`.

    Raises:
        ValueError: a wrong input, or NaN scores.
    """
    ends = arguments.points("first", first), arguments.points("last", last)
    if first.shape != last.shape or first.dtype != last.dtype:
        given = " and ".join(map(arguments.described, ends))
        raise ValueError(f"first and last must be of one shape and dtype; {given} were given")
    whole_number("points", points, 2)
    t = torch.linspace(0, 1, points, dtype=torch.float64, device=first.device)
    weight = per_image(t, first).to(first.dtype)[None]
    on_path = torch.lerp(first[:, None], last[:, None], weight).flatten(0, 1)  # exact at both ends
    found = persistence(model, on_path, gamma, **options)
    label = _scores(model, on_path).argmax(1)
    parts = found.sigma, found.lower, found.upper, found.queries, label
    *result, label = (part.view(len(first), -1) for part in parts)
    return PathResult(*result, t, label)


@torch.no_grad()
def bracketing(
    model: Model,
    image: Tensor,
    gamma: float = 0.7,
    *,
    samples: int = 1000,
    max_steps: int = 20,
    precision: float = 0.01,
    generator: torch.Generator | None = None,
) -> Bracketed:
    """The Bracketing Algorithm as published (bell2023, Algorithm 1): one image, fresh noise for
    every sigma, a fixed number of samples.

    A historical function, kept to be compared with. Its RANGEFINDER has no end where the class
    keeps more than gamma of the noise however large sigma is, and none on the boundary; here a cap
    ends it, and ``ended`` tells. Its precision is one of the share, so it stops at the first sigma
    where sampling error happens to bring the share near gamma.

    Args:
        model: maps (n, ...) images to (n, K) scores.
        image: (1, ...), one image.
        gamma: in (0, 1).
        samples: numSamples.
        max_steps: maxSteps of the bisection.
        precision: of the share.
        generator: source of the noise; ``None``: a fresh one of fixed seed.

    Raises:
        ValueError: a wrong input.
    """
    _check(model, image, samples)
    number("gamma", gamma, above=0, below=1)
    whole_number("max_steps", max_steps, 1)
    if len(image) != 1:
        raise ValueError(f"image must be one image, (1, ...); {tuple(image.shape)} was given")
    stream, passes = random_stream(generator), 0
    own = model(image.clone()).argmax(1)

    def share(sigma: float) -> float:
        nonlocal passes
        passes += samples
        noise = normal((samples, *image.shape[1:]), stream, image)
        return float((model(image + sigma * noise).argmax(1) == own).double().mean())

    low, high = 0.5, 1.5
    at_low, at_high = share(low), share(high)
    for _ in range(_RANGES):
        if at_low >= gamma >= at_high:
            break
        if at_low < gamma:
            low, at_low = low / 2, share(low / 2)
        if at_high > gamma:
            high, at_high = 2 * high, share(2 * high)
    else:
        return Bracketed(math.inf if at_high > gamma else 0.0, passes + 1, False)
    for _ in range(1, max_steps):
        sigma = (low + high) / 2
        found = share(sigma)
        if abs(found - gamma) < precision:
            break
        low, high = (sigma, high) if found > gamma else (low, sigma)
    return Bracketed((low + high) / 2 if max_steps == 1 else sigma, passes + 1, True)


def wedge_stability(distance: ArrayLike, planes: ArrayLike, sigma: ArrayLike) -> np.ndarray | float:
    """Chance that Gaussian noise about x stays in the wedge W_k (bell2023, Proposition 4.3), in any
    ambient dimension.

    ``Phi(distance / sigma)^planes``. The wedge is ``{x_1 >= 0, ..., x_k >= 0}`` and x lies at the
    same distance from each of its k sheets. A negative distance is a point with all k coordinates
    below zero; its own class, the outside, keeps one minus the result.

    Args:
        distance: to each sheet, finite.
        planes: k, whole and at least 1.
        sigma: positive. All three broadcast.
    """
    distance = _array("distance", distance, "finite", np.isfinite)
    sigma = _array("sigma", sigma, "positive and finite", lambda v: (v > 0) & np.isfinite(v))
    planes = _planes(planes)
    return np.exp(planes * special.log_ndtr(distance / sigma))[()]


def wedge_persistence(
    distance: ArrayLike, planes: ArrayLike, gamma: ArrayLike = 0.7
) -> np.ndarray | float:
    """gamma-persistence inside the wedge W_k (bell2023, Proposition 4.3): ``distance /
    Phi^-1(gamma^(1/planes))``.

    Infinite where ``gamma <= 2^-planes``, the share that the wedge keeps of noise without bound;
    the paper's formula turns negative there.

    Args:
        distance: to each sheet, at least 0.
        planes: k, whole and at least 1.
        gamma: in (0, 1). All three broadcast.
    """
    inside = "finite and at least 0: outside the wedge the class is another one"
    distance = _array("distance", distance, inside, lambda v: (v >= 0) & np.isfinite(v))
    gamma = _array("gamma", gamma, "in (0, 1)", lambda v: (v > 0) & (v < 1))
    planes = _planes(planes)
    # The quantile of 1 - gamma^(1/k), which keeps its digits for many planes.
    quantile = -special.ndtri(-np.expm1(np.log(gamma) / planes))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(quantile > 0, distance / quantile, np.inf)[()]


def linear_beginning(model: Model, x: Tensor) -> tuple[nn.Module, nn.Module] | None:
    """The affine layers that the model begins with and the rest, if those end in a dense layer and
    shrink the images ``x`` (N, ...)."""
    try:
        parts = [layer for _, layer in plain_layers(model)]
    except ValueError:  # a layer that computes something else than it says
        return None
    length = 0
    for count, part in enumerate(parts, 1):
        if type(part) not in _AFFINE or getattr(part, "start_dim", 1) != 1:
            break
        if isinstance(part, nn.Linear | LinearHead):
            length = count
    if not length or parts[length - 1].weight.shape[0] > x[0].numel():
        return None
    return nn.Sequential(*parts[:length]), nn.Sequential(*parts[length:])


def _check(model: Model, x: Tensor, samples: int, clip: bool = False) -> None:
    (arguments.images if clip else arguments.points)("x", x)
    arguments.scoring_model(model)
    whole_number("samples", samples, 1)


def _scores(model: Model, x: Tensor) -> Tensor:
    """(N, K) clean scores, of a model that is seen to score each image by itself."""
    return prepare(model, x, torch.zeros(len(x), dtype=torch.int64, device=x.device)).scores


class _Cloud:
    """Noisy copies of images, and who judges them.

    Attributes:
        labels: (N,) the images' own classes.
        at: (N, ...) the images, or what the model's linear ``beginning`` makes of them: without
            clipping the noise goes through it by itself.
        judge: maps noisy copies of ``at`` to scores, ``rows`` at a time.
        bank: the noise, shaped like ``at``, where all of it fits into memory; else None.
    """

    @torch.no_grad()
    def __init__(
        self, model: Model, x: Tensor, samples: int, clip: bool, generator: torch.Generator | None
    ):
        stream = random_stream(generator)
        scores, split = _scores(model, x), None if clip else linear_beginning(model, x)
        self.labels, self.classes, self.clip = scores.argmax(1), scores.shape[1], clip
        self.seed = int(torch.randint(2**62, (), generator=stream, device=stream.device))
        self.beginning, self.judge = split or (nn.Identity(), model)
        self.image, self.rows = x[:1], fast_rows(x, model=model)
        parts = x.contiguous().split(even(len(x), self.rows))
        self.at = torch.cat([self.beginning(part) for part in parts])
        if split:
            self.rows = max(_DENSE_VALUES // self.at[0].numel(), LEAST_ROWS)
        self.bank = None
        if samples * self.at[0].numel() <= _BANK:
            self.bank = self.noise(0, samples)

    def noise(self, first: int, last: int) -> Tensor:
        """Standard normal noise (last - first, ...) by sample number, through the linear beginning
        without its bias.

        It is drawn in blocks, each from its own seed: any block can be drawn again where not all of
        them fit into memory.
        """
        if self.bank is not None:
            return self.bank[first:last]
        start, end = first // _FIRST_LOOK, -(-last // _FIRST_LOOK)
        drawn = torch.cat([self._block(place) for place in range(start, end)])
        return drawn[first % _FIRST_LOOK :][: last - first]

    def _block(self, place: int) -> Tensor:
        stream = torch.Generator().manual_seed((self.seed + place) % 2**63)
        drawn = normal((_FIRST_LOOK, *self.image.shape[1:]), stream, self.image)
        return self.beginning(drawn) - self.beginning(torch.zeros_like(drawn[:1]))

    @torch.no_grad()
    def answers(
        self, index: Tensor, sigma: Tensor, first: int, last: int
    ) -> Iterator[tuple[slice, Tensor]]:
        """Classes (n, m) of the noisy copies ``first`` to ``last`` of the images ``index``, and
        which of them, a pass at a time."""
        scale = per_image(sigma, self.at).to(self.at.dtype)[:, None]
        count = even(last - first, self.rows)
        for begin in range(first, last, count):
            noise = self.noise(begin, min(begin + count, last))
            together = even(len(index), max(1, self.rows // len(noise)))
            for place in range(0, len(index), together):
                where = slice(place, place + together)
                at = self.at[index[where]][:, None]
                noisy = torch.addcmul(at, noise[None], scale[where]).flatten(0, 1)
                best, classes = self.judge(noisy.clamp_(0, 1) if self.clip else noisy).max(1)
                if bad := int(best.isnan().sum()):
                    raise ValueError(f"the model returned NaN scores for {bad} noisy images")
                yield where, classes.view(-1, len(noise))

    def frequencies(self, sigma: Tensor, samples: int) -> Tensor:
        """Shares (N, K) of the classes about each image."""
        index = torch.arange(len(sigma), device=sigma.device)
        counts = torch.zeros(len(sigma), self.classes, dtype=torch.float64, device=sigma.device)
        for where, classes in self.answers(index, sigma, 0, samples):
            counts[where].scatter_add_(1, classes, torch.ones_like(classes, dtype=counts.dtype))
        return counts / samples

    def test(
        self, index: Tensor, sigma: Tensor, tests: Sequence[tuple[int, int, int]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """For each image of ``index`` at its sigma: samples in its class, samples spent, and
        whether they leave no doubt."""
        same, spent = torch.zeros_like(index), torch.zeros_like(index)
        sure = torch.zeros_like(index, dtype=torch.bool)
        left, first = torch.arange(len(index), device=index.device), 0
        for last, unstable, stable in tests:
            own = self.labels[index[left]][:, None]
            for where, classes in self.answers(index[left], sigma[left], first, last):
                same[left[where]] += (classes == own[where]).sum(1)
            spent[left] = last
            sure[left] = (same[left] <= unstable) | (same[left] >= stable)
            left, first = left[~sure[left]], last
            if not len(left):
                break
        return same, spent, sure


def _crossing(ends: Tensor, shares: Tensor, gamma: float) -> Tensor:
    """Where gamma is crossed between two sigmas (2, N) and their stabilities, if the boundary were
    flat; 0 and infinity stay."""
    (low, high), (above, below) = ends, torch.special.ndtri(shares)
    weight = (torch.special.ndtri(torch.full_like(low, gamma)) - below) / (above - below)
    inside = 1 / (weight / low + (1 - weight) / high)
    return torch.where((low > 0) & high.isfinite(), inside, low * high)


def looks(gamma: float, samples: int, alpha: float) -> list[tuple[int, int, int]]:
    """The sequential test, ``(n, unstable, stable)``: after n samples the point is unstable with at
    most, and stable with at least, so many in its class."""
    found, last = [], 0
    while last < samples:
        last = min(samples, max(_FIRST_LOOK, math.ceil(_GROWTH * last / _FIRST_LOOK) * _FIRST_LOOK))
        count = np.arange(last + 1)
        decided = stats.binom.logpmf(count, last, gamma) + math.log(last + 1) <= math.log(alpha)
        below = count[decided & (count < gamma * last)].max(initial=-1)
        above = count[decided & (count > gamma * last)].min(initial=last + 1)
        found.append((last, int(below), int(above)))
    return found


def _grid(sigmas: Sequence[float] | Tensor) -> list[float]:
    grid = [number("each of sigmas", float(sigma), least=0) for sigma in sigmas]
    if not grid:
        raise ValueError("sigmas must be at least one number; none was given")
    return grid


def _array(
    name: str, value: ArrayLike, wanted: str, good: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    found = np.asarray(value, dtype=float)
    if not np.all(good(found)):
        raise ValueError(f"{name} must be {wanted}; {value!r:.80} was given")
    return found


def _planes(planes: ArrayLike) -> np.ndarray:
    whole = "whole numbers of at least 1"
    return _array("planes", planes, whole, lambda v: (v >= 1) & (v == v.round()) & np.isfinite(v))
