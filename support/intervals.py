"""95 % intervals of shares, differences and ratios, none of which leaves the range of its quantity.

Arguments may be arrays; each interval is a pair (low, high) of their shape. An interval that lies
on one side of a bound is wrong about that side with a probability of about 2.5 % at most.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import ArrayLike

from support.sampling import Difference, Estimate, Share

CONFIDENCE = 0.95
Z = 1.959963984540054  # its normal quantile
Pair = tuple[np.ndarray, np.ndarray]


def of(value: float) -> tuple[float, float]:
    """The interval of a measured number: exact for a share, paired for a difference, its own for an
    estimate, and the number itself for a plain float."""
    if isinstance(value, Share):
        low, high = clopper_pearson(value.hits, value.of)
    elif isinstance(value, Difference):
        low, high = paired_difference(value.n10, value.n01, value.of)
    elif isinstance(value, Estimate):
        low, high = value.low, value.high
    else:
        low = high = value
    return float(low), float(high)


def clopper_pearson(hits: ArrayLike, of: ArrayLike) -> Pair:
    """The exact interval of a binomial probability (Clopper and Pearson 1934)."""
    from scipy.special import betaincinv  # half a second to import

    hits, of, tail = np.asarray(hits), np.asarray(of), (1 - CONFIDENCE) / 2
    rest = of - hits
    low = np.where(hits > 0, betaincinv(np.maximum(hits, 1), rest + 1, tail), 0.0)
    high = np.where(rest > 0, betaincinv(hits + 1, np.maximum(rest, 1), 1 - tail), 1.0)
    return low, high


def paired_difference(n10: ArrayLike, n01: ArrayLike, of: ArrayLike) -> Pair:
    """The score interval of a difference of two shares over the same entries (Tango 1998). Where
    McNemar's exact test does not exclude 0, it is widened to the exact interval given how many
    entries differ, so that it does not either.

    Args:
        n10, n01: how many entries only the first, only the second share counts.
        of: how many entries there are, 1 or more.
    """
    n10, n01, of = np.broadcast_arrays(*(np.asarray(n, dtype=float) for n in (n10, n01, of)))
    ends = _between(lambda gap: _tango(n10, n01, of, gap), -1.0, 1.0, of.shape)
    return _widened(ends, _given_discordant(n10, n01, of), 0.0)


def paired_difference_is(gap: float, n10: ArrayLike, n01: ArrayLike, of: ArrayLike) -> Pair:
    """Whether :func:`paired_difference` lies wholly above a gap, and wholly below it: without its
    ends, which take long to find."""
    n10, n01 = np.asarray(n10, dtype=float), np.asarray(n01, dtype=float)
    score, (lowest, highest) = _tango(n10, n01, of, gap), _given_discordant(n10, n01, of)
    return (score >= Z) & (lowest > min(gap, 0)), (score <= -Z) & (highest < max(gap, 0))


def _tango(n10: np.ndarray, n01: np.ndarray, of: ArrayLike, gap: ArrayLike) -> np.ndarray:
    b = (2 * of - n10 + n01) * gap - n10 - n01
    c = -n01 * gap * (1 - gap)
    only_second = (np.sqrt(np.maximum(b**2 - 8 * of * c, 0)) - b) / (4 * of)
    return _score(n10 - n01 - of * gap, of * (2 * only_second + gap * (1 - gap)))


def _given_discordant(n10: np.ndarray, n01: np.ndarray, of: ArrayLike) -> Pair:
    low, high = clopper_pearson(n10, n10 + n01)
    return (2 * low - 1) * (n10 + n01) / of, (2 * high - 1) * (n10 + n01) / of


def paired_ratio(first: ArrayLike, second: ArrayLike, n10: ArrayLike, of: ArrayLike) -> Pair:
    """The score interval of a ratio of two shares over the same entries (Tang, Tang and Chan 2003,
    as Fagerland, Lydersen and Laake 2014 print it), widened as :func:`paired_difference` is where
    McNemar's exact test does not exclude 1.

    Args:
        first, second: how many entries each share counts.
        n10: how many only the first counts.
        of: how many entries there are, 1 or more.
    """
    given = (np.asarray(n, dtype=float) for n in (first, second, n10, of))
    first, second, n10, of = np.broadcast_arrays(*given)
    n01 = second - (first - n10)
    some = second + n10  # counted by either

    def score(place: np.ndarray) -> np.ndarray:
        ratio = place / (1 - place)
        a = of * (1 + ratio)
        b = second * ratio**2 - (first + 2 * n01)
        c = n01 * (1 - ratio) * some / of
        only_second = (np.sqrt(np.maximum(b**2 - 4 * a * c, 0)) - b) / (2 * a)
        return _score(first - ratio * second, a * only_second + some * (ratio - 1))

    low, high = (end / np.maximum(1 - end, 1e-300) for end in _between(score, 0.0, 1.0, of.shape))
    both, differ = first - n10, n10 + n01
    given = (
        (both + end * differ) / np.maximum(both + (1 - end) * differ, 1e-300)
        for end in clopper_pearson(n10, differ)
    )
    low, high = _widened((low, high), given, 1.0)
    return np.where(first > 0, low, 0.0), np.where(second > 0, high, np.inf)


def difference(first: float, second: float) -> tuple[float, float]:
    """The interval of a difference of two independent numbers, from their own (Newcombe 1998, Zou
    and Donner 2008); too wide where the two go up and down together."""
    (low, high), (other_low, other_high) = of(first), of(second)
    gap, a, b = float(first) - float(second), float(first), float(second)
    return gap - np.hypot(a - low, other_high - b), gap + np.hypot(high - a, b - other_low)


def ratio(first: float, second: float) -> tuple[float, float]:
    """The interval of a ratio of two independent numbers that are 0 or more, from their own (Donner
    and Zou 2012); NaN for 0 / 0, infinite where the second may be 0."""
    a, b = float(first), float(second)
    (low, high), (other_low, other_high) = of(first), of(second)
    if low == high and other_low == other_high:
        exact = a / b if b else np.copysign(np.inf, a) if a else np.nan
        return exact, exact
    below, above = low * (2 * a - low), high * (2 * a - high)
    small, large = other_low * (2 * b - other_low), other_high * (2 * b - other_high)
    low_root = np.sqrt(max((a * b) ** 2 - below * large, 0.0))
    high_root = np.sqrt(max((a * b) ** 2 - above * small, 0.0))
    lowest = below / (a * b + low_root) if low > 0 else 0.0 if low == 0 else -np.inf
    return float(lowest), float((a * b + high_root) / small) if other_low > 0 else np.inf


def _score(distance: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return distance / np.sqrt(np.maximum(variance, 1e-300))


def _between(score: Callable, low: float, high: float, shape: tuple[int, ...]) -> Pair:
    """Where a falling function is ``Z`` and where it is ``-Z``, by halving."""
    found = []
    for level in (Z, -Z):
        left, right = np.full(shape, low), np.full(shape, high)
        for _ in range(52):
            middle = (left + right) / 2
            above = score(middle) > level
            left, right = np.where(above, middle, left), np.where(above, right, middle)
        # The end that was never left is the range's own, and exact.
        found.append(np.where(right == high, high, left) if level < 0 else left)
    return found[0], found[1]


def _widened(ends: Iterable[np.ndarray], exact: Iterable[np.ndarray], null: float) -> Pair:
    (low, high), (lowest, highest) = ends, exact
    low = np.where(lowest > null, low, np.minimum(low, lowest))
    return low, np.where(highest < null, high, np.maximum(high, highest))
