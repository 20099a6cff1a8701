"""What a rule about a share, or about a difference of two, could have decided: the probability of
each word at a truth, and the smallest distance from a bound that is seen with 80 % probability.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from support import intervals
from support.sampling import Difference, Share

POWER = 0.8
_DRAWS = 1000  # of pairs; the detectable distance is then known to about 2 % of itself


class Words(NamedTuple):
    """Probabilities that a rule passes, stays undecided and fails."""

    passes: float
    undecided: float
    fails: float


def of_run(truth: float, bound: float, images: int) -> Words:
    """Probabilities for one run of a rule "at least ``bound``" about a share of ``images``, exact.

    Args:
        truth: probability that an image counts.
    """
    from scipy.special import bdtr, bdtrc

    least, most = _edges(bound, images)
    passes = float(bdtrc(least - 1, images, truth)) if least > 0 else 1.0
    fails = float(bdtr(most, images, truth)) if most >= 0 else 0.0
    return Words(passes, 1 - passes - fails, fails)


@lru_cache(maxsize=256)
def _edges(bound: float, images: int) -> tuple[int, int]:
    """The fewest hits with which a share passes (one too many if none do), and the most with which
    it fails (-1 if none do)."""
    low, high = intervals.clopper_pearson(np.arange(images + 1), images)
    return int(np.searchsorted(low, bound)), int(np.searchsorted(high, bound)) - 1


def of_any_run(truth: float, bound: float, images: int, scatter: float) -> Words:
    """:func:`of_run` for a run whose own truth is drawn: normal around ``truth``, cut to [0, 1],
    with this standard deviation."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(21)
    truths = np.clip(truth + scatter * nodes, 0, 1)
    found = np.array([of_run(float(one), bound, images) for one in truths])
    return Words(*(weights / weights.sum() @ found).tolist())


def of_runs(runs: Sequence[Words]) -> Words:
    """Probabilities for several independent runs together, by the agreement of
    :func:`support.book.rules.agreed`."""

    def most(number: str) -> float:
        chances = np.ones(1)  # of 0, 1, ... runs that say so, and of none that contradicts
        for run in runs:
            chances = np.convolve(chances, [run.undecided, getattr(run, number)])
        return float(chances[len(runs) // 2 + 1 :].sum())

    passes, fails = most("passes"), most("fails")
    return Words(passes, 1 - passes - fails, fails)


def of_pairs(
    truth: float, bound: float, differ: float, images: Sequence[int], draws: int = _DRAWS
) -> Words:
    """Probabilities for several runs together of a rule "at least ``bound``" about the difference
    of two shares over the same images, simulated; the same draws for each truth.

    Args:
        truth: the difference.
        differ: probability that just one of the two counts an image, at least ``abs(truth)``.
        images: of each run.
        draws: number of simulated experiments.
    """
    chances = [(differ + truth) / 2, (differ - truth) / 2, 1 - differ]
    stream = np.random.default_rng(0)
    told = [
        intervals.paired_difference_is(
            bound, *stream.multinomial(count, chances, size=draws)[:, :2].T, count
        )
        for count in images
    ]
    above, below = (np.stack(side) for side in zip(*told, strict=True))
    passes, fails = (
        float((~against.any(0) & (2 * says.sum(0) > len(images))).mean())
        for says, against in ((above, below), (below, above))
    )
    return Words(passes, 1 - passes - fails, fails)


def detectable(bound: float, values: Sequence[float]) -> tuple[float, float] | None:
    """Which truths runs of this size tell from a bound with 80 % probability: from the second up,
    and from the first down; NaN where not even the end of the range is told. None for what is no
    share and no paired difference.

    Args:
        values: of the runs. A difference takes from them how many entries differ; its answer is
            simulated, that of a share exact.
    """
    if all(isinstance(value, Share) for value in values):
        return _of_shares(bound, tuple(value.of for value in values))
    if all(isinstance(value, Difference) for value in values):
        differ = sum(value.n10 + value.n01 for value in values) / sum(value.of for value in values)
        return _of_differences(bound, differ, tuple(value.of for value in values))
    return None


@lru_cache(maxsize=512)
def _of_shares(bound: float, images: tuple[int, ...]) -> tuple[float, float]:
    def words(truth: float) -> Words:
        return of_runs([of_run(truth, bound, count) for count in images])

    below = _edge(lambda truth: words(truth).fails, bound, 0.0)
    return below, _edge(lambda truth: words(truth).passes, bound, 1.0)


@lru_cache(maxsize=512)
def _of_differences(bound: float, differ: float, images: tuple[int, ...]) -> tuple[float, float]:
    def words(truth: float) -> Words:
        return of_pairs(truth, bound, max(differ, abs(truth)), images)

    below = _edge(lambda truth: words(truth).fails, bound, -1.0)
    return below, _edge(lambda truth: words(truth).passes, bound, 1.0)


def _edge(power: Callable[[float], float], bound: float, end: float) -> float:
    """The truth nearest to a bound, on the way to the end of the range, that is told apart."""
    if not min(-1.0, end) < bound < max(1.0, end) or power(end) < POWER:
        return math.nan
    near, far = bound, end
    while abs(far - near) > 1e-3 * max(abs(end - bound), 1e-3):
        middle = (near + far) / 2
        near, far = (near, middle) if power(middle) >= POWER else (middle, far)
    return far
