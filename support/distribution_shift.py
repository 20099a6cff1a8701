"""Densities with light and with heavy tails: discriminant analysis and importance weighting
(wang2022, 3.1.1 and 4.1.1; chapter 2).

Everything is one-dimensional, as in the paper, and in float64 numpy. Densities are compared by the
logarithm of their ratio, in a form that stays exact far out: the two logarithms themselves overflow
there, or lose their difference.

A t density has polynomial tails, ``p(x) ~ |x|^-(nu + 1)`` with a factor ``scale^nu``. So posteriors
tend to ``scale_i^nu / sum_j scale_j^nu``: to 1/K only for a common nu and a common scale.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures

from support.common.arguments import number, whole_number

_LEAST_NU = 1.0
"""From one degree of freedom on, the likelihood of location and scale has one maximum (Kent and
Tyler 1991); below, it may have several."""

_GRID = np.linspace(0, 1 / _LEAST_NU, 21)
"""Values of 1/nu from which the search for nu starts: the Gaussian, then 20, 10, ... down to the
Cauchy density."""


@dataclass(frozen=True)
class Density:
    """Student's t density with a location and a scale; nu of infinity is the Gaussian.

    Attributes:
        loc: the centre, in the unit of the data.
        scale: positive; the standard deviation of a Gaussian, not of a t density.
        nu: degrees of freedom, positive. 1 is the Cauchy density.
    """

    loc: float
    scale: float
    nu: float = math.inf

    def __post_init__(self) -> None:
        number("loc", self.loc)
        number("scale", self.scale, above=0)
        if self.nu != math.inf:
            number("nu", self.nu, above=0)

    def logpdf(self, x: ArrayLike) -> np.ndarray:
        """Logarithm of the density at ``x`` (N,); minus infinity where a Gaussian's overflows.

        Raises:
            ValueError: ``x`` is no vector of finite numbers.
        """
        x = _vector("x", x)
        with np.errstate(over="ignore"):
            constant = -math.log(self.scale) - _log_normaliser(self.nu)
            if self.nu == math.inf:
                return constant - 0.5 * ((x - self.loc) / self.scale) ** 2
            return constant - 0.5 * (self.nu + 1) * self._log1p_square(x)

    def _log1p_square(self, x: np.ndarray) -> np.ndarray:
        """log(1 + u^2 / nu) for the standardised u, by log |u| where the square would overflow."""
        distance = np.abs(x - self.loc)
        ratio = distance / self.scale / math.sqrt(self.nu)
        far = ratio > 1e100
        log = np.log(np.where(far, distance, 1.0)) - math.log(self.scale) - 0.5 * math.log(self.nu)
        return np.where(far, 2 * log, np.log1p(np.where(far, 0.0, ratio) ** 2))


def log_ratio(x: ArrayLike, above: Density, below: Density) -> np.ndarray:
    """log p_above(x) - log p_below(x), (N,): right far out, where it is ±infinity if it exceeds the
    range of float64, and never NaN.

    Two Gaussians are compared by the factored difference of their exponents, as in wang2022, Eq. 7:
    their squares agree to all digits long before the posterior is decided. Other pairs are
    subtracted: right to a few units in the last place of the larger logarithm, which shows for nu
    beyond some 1e8 only.

    Raises:
        ValueError: ``x`` is no vector of finite numbers.
    """
    x = _vector("x", x)
    if not above.nu == below.nu == math.inf:
        return above.logpdf(x) - below.logpdf(x)
    with np.errstate(over="ignore", invalid="ignore"):
        (a, s), (b, t) = ((one.loc / one.scale, 1 / one.scale) for one in (above, below))
        difference, total = x * (s - t) - (a - b), x * (s + t) - (a + b)
        exponent = np.where(difference == 0, 0.0, -0.5 * difference * total)
    return exponent + (math.log(below.scale) - math.log(above.scale))


def fit_density(x: ArrayLike, *, nu: float | None) -> Density:
    """The density of greatest likelihood, by scipy's optimiser.

    With ``nu=None``, nu is fitted too, among [1, infinity]. On small samples of light tails that
    likelihood often grows all the way: then the boundary itself is returned, ``nu = inf``, a
    Gaussian. The other boundary, ``nu = 1``, is returned for tails heavier than Cauchy's.

    Args:
        x: (N,) with N >= 2.
        nu: degrees of freedom, at least 1, for location and scale only; infinity: the mean and the
            (biased) standard deviation.

    Raises:
        ValueError: fewer than two points, NaN or infinite ones; nu below 1; so many equal points
            that the likelihood has no maximum, a share of nu / (nu + 1) or more (all equal, for a
            Gaussian).
    """
    x = _vector("x", x, least=2)
    return _fitted(x, np.zeros(len(x), dtype=np.int64), 1, nu)[0]


def class_densities(
    x: ArrayLike, y: ArrayLike, *, nu: float | None, shared_scale: bool = True
) -> tuple[Density, ...]:
    """One density a class, by maximum likelihood: linear discriminant analysis in one dimension
    (wang2022, section 3.1.1).

    Args:
        x: (N,).
        y: (N,) integer labels 0 .. K-1, each at least twice.
        nu: as in :func:`fit_density`.
        shared_scale: one scale, and with ``nu=None`` one nu, for all classes, as LDA has it (the
            search starts at the classes' medians); else each class is fitted alone, and the
            posteriors of its t densities do not tend to 1/K.

    Returns:
        K densities.

    Raises:
        ValueError: a class without two points, or as :func:`fit_density`.
    """
    x = _vector("x", x, least=2)
    y = np.asarray(y)
    if y.shape != x.shape or not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
        raise ValueError(f"y must be {len(x)} integer labels from 0; {y.dtype} {y.shape} was given")
    counts = np.bincount(y)
    if counts.min() < 2:
        raise ValueError(f"each class needs at least 2 points; they have {counts.tolist()}")
    if shared_scale:
        return _fitted(x, y, len(counts), nu)
    return tuple(fit_density(x[y == k], nu=nu) for k in range(len(counts)))


def log_posterior(x: ArrayLike, densities: Sequence[Density]) -> np.ndarray:
    """Logarithm of the posterior under equal priors (wang2022, Eq. 6), (N, K).

    ``log p_i = -log sum_j p_j(x) / p_i(x)``, from :func:`log_ratio`: exact however far out ``x``
    lies.

    Raises:
        ValueError: no density, or ``x`` is no vector of finite numbers.
    """
    if not len(densities):
        raise ValueError("densities must hold at least one density; none was given")
    ratios = [[log_ratio(x, other, own) for other in densities] for own in densities]
    return -np.stack([special.logsumexp(column, axis=0) for column in ratios], axis=1)


def importance_weights(x: ArrayLike, target: Density, source: Density, lam: float) -> np.ndarray:
    """(p_target(x) / p_source(x))^lam (wang2022, Eq. 15), (N,).

    In the tail, the weight of t densities of a common nu tends to ``(scale_target /
    scale_source)^(nu lam)``, not to the paper's 1. That of Gaussians tends to infinity where the
    target is wider, and is returned as ``inf`` if it exceeds float64: :func:`log_ratio` does not.

    Args:
        x: (N,) the source's points.
        target, source: densities of the two domains.
        lam: at least 0: no weighting at 0 (every weight is 1), full importance weighting at 1.

    Raises:
        ValueError: lam negative or not finite, or ``x`` no vector of finite numbers.
    """
    number("lam", lam, least=0)
    ratio = log_ratio(x, target, source)
    with np.errstate(over="ignore"):
        return np.exp(lam * ratio) if lam else np.ones_like(ratio)


def effective_sample_size(weights: ArrayLike) -> float:
    """(sum w)^2 / sum w^2: N for equal weights, 1 where one point has all.

    Raises:
        ValueError: weights that are negative, not finite, or all zero.
    """
    weights = _weights(weights)
    return float(weights.sum() ** 2 / np.square(weights).sum())


def weighted_fit(x: ArrayLike, y: ArrayLike, weights: ArrayLike, degree: int) -> Pipeline:
    """Weighted least squares of a polynomial, by scikit-learn (wang2022, section 4.1.1).

    Args:
        x, y: (N,).
        weights: (N,) at least 0; only their ratios matter.
        degree: of the polynomial, at least 0.

    Returns:
        A fitted pipeline: ``weighted_fit(...).predict(grid[:, None])``.

    Raises:
        ValueError: lengths that differ, numbers that are not finite, or fewer than ``degree + 1``
            different points of positive weight.
    """
    whole_number("degree", degree, 0)
    x, y, weights = _vector("x", x), _vector("y", y), _weights(weights)
    lengths = len(x), len(y), len(weights)
    if len(set(lengths)) > 1:
        raise ValueError(f"x, y and weights must have one length; theirs are {lengths}")
    if (distinct := len(np.unique(x[weights > 0]))) <= degree:
        raise ValueError(f"degree {degree} needs more than {distinct} places of positive weight")
    powers = PolynomialFeatures(degree, include_bias=degree == 0)  # power 0 is the intercept
    model = make_pipeline(powers, LinearRegression(fit_intercept=degree > 0))
    return model.fit(x[:, None], y, linearregression__sample_weight=weights)


def _fitted(x: np.ndarray, y: np.ndarray, classes: int, nu: float | None) -> tuple[Density, ...]:
    """One location a class and a common scale, by maximum likelihood."""
    if nu is not None and nu != math.inf:
        number("nu", nu, least=_LEAST_NU)  # below, the likelihood may have several maxima
    repeated = sum(int(np.unique(x[y == k], return_counts=True)[1].max()) for k in range(classes))
    limit = 1.0 if nu == math.inf else (nu or _LEAST_NU) / ((nu or _LEAST_NU) + 1)
    if repeated >= limit * len(x):
        raise ValueError(
            f"the likelihood has no maximum: {repeated} of the {len(x)} points lie on {classes} "
            f"value(s), so the scale shrinks to zero; fewer than {limit * len(x):g} may"
        )
    medians = np.array([np.median(x[y == k]) for k in range(classes)])
    distances = np.abs(x - medians[y])
    width = float(np.median(distances) or np.sqrt(np.mean(np.square(distances))))
    u = (x - medians[y]) / width  # the optimiser sees data of size 1 about 0, whatever their unit
    fit, start = partial(_maximise, u, y, classes), np.zeros(classes + 1)
    nu, found = _profile(fit, start) if nu is None else (nu, fit(nu, start)[1])
    scale = width * math.exp(found[-1])
    places = medians + scale * found[:-1]
    return tuple(Density(float(place), scale, float(nu)) for place in places)


def _maximise(
    u: np.ndarray, y: np.ndarray, classes: int, nu: float, start: np.ndarray
) -> tuple[float, np.ndarray]:
    """Least mean negative log-likelihood over K locations, in units of the scale, and a log-scale,
    and where it is taken.

    Slopes along locations in units of the data would be tiny where one wild point makes the scale
    large, and the search would stop early.
    """
    counts = np.bincount(y, minlength=classes)
    if nu == math.inf:
        means = np.bincount(y, u, classes) / counts
        scale = math.sqrt(np.mean(np.square(u - means[y])))
        least = math.log(scale) + 0.5 + _log_normaliser(nu)
        return least, np.append(means / scale, math.log(scale))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = u / math.exp(parameters[-1])
        z = scaled - parameters[:-1][y]
        value = parameters[-1] + 0.5 * (nu + 1) * np.mean(np.log1p(z**2 / nu))
        pull = (nu + 1) * z / (nu + z**2)
        slopes = -np.bincount(y, pull, classes) / len(u)
        return value, np.append(slopes, 1 - np.mean(pull * scaled))

    found = optimize.minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    return float(found.fun) + _log_normaliser(nu), found.x


def _profile(
    fit: Callable[[float, np.ndarray], tuple[float, np.ndarray]], start: np.ndarray
) -> tuple[float, np.ndarray]:
    """The nu of greatest likelihood in [1, infinity], by 1 / nu: a grid, then Brent's search about
    its best point."""

    def at(inverse: float, start: np.ndarray) -> tuple[float, np.ndarray]:
        return fit(1 / inverse if inverse > 0 else math.inf, start)

    runs = []
    for inverse in _GRID:
        runs.append(at(inverse, start))
        start = runs[-1][1]
    best = int(np.argmin([value for value, _ in runs]))
    least, found = runs[best]
    bounds = _GRID[max(best - 1, 0)], _GRID[min(best + 1, len(_GRID) - 1)]
    search = optimize.minimize_scalar(
        lambda inverse: at(inverse, found)[0], bounds=bounds, options={"xatol": 1e-7}
    )
    if search.fun < least:
        return 1 / search.x, at(search.x, found)[1]
    return (1 / _GRID[best] if best else math.inf), found


def _log_normaliser(nu: float) -> float:
    """Logarithm of the integral of ``(1 + u^2 / nu)^(-(nu + 1) / 2)``: of sqrt(2 pi), in the
    limit."""
    if nu == math.inf:
        return 0.5 * math.log(2 * math.pi)
    return float(special.betaln(nu / 2, 0.5)) + 0.5 * math.log(nu)


def _vector(name: str, value: ArrayLike, least: int = 1) -> np.ndarray:
    try:
        found = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers; {type(value).__name__} was given") from error
    bad = int((~np.isfinite(found)).sum())
    if found.ndim != 1 or len(found) < least or bad:
        raise ValueError(
            f"{name} must be a vector of at least {least} finite numbers; shape {found.shape} was "
            f"given, {bad} of them NaN or infinite"
        )
    return found


def _weights(value: ArrayLike) -> np.ndarray:
    """Checked weights, divided by the largest: only their ratios matter, and no sum overflows."""
    found = _vector("weights", value)
    low, high = found.min(), found.max()
    if low < 0 or high == 0:
        raise ValueError(f"weights must be at least 0 and not all 0; {low:g} .. {high:g} was given")
    return found / high
