"""Does one number order models as another does? Rank correlations of few models, with what chance
alone would give (chapter 8).

The unit of all questions is the *model*: training runs of one model differ by their seeds alone and
count as one, so their mean is taken first, and p-values exchange models. A model without a value is
left out, and the caller says how many remain.
"""

import functools
import itertools
import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

EXACT = 8
"""Models up to which all orders are counted, 8! = 40,320; above, as many are drawn."""


def rank_correlation(x: ArrayLike, y: ArrayLike, control: ArrayLike | None = None) -> float:
    """Spearman's rank correlation, and with ``control`` the partial one.

    Ranks are averaged at ties. With a control, the ranks of x and y are replaced by what a straight
    line in the control's ranks leaves.

    Args:
        x, y, control: (M,) one number a model.

    Returns:
        -1 to 1; NaN where one of the two does not vary, or has nothing left.
    """
    ranks = [_ranks(values)[None] for values in (x, y)]
    held = None if control is None else _ranks(control)[None]
    return float(_correlation(_residual(ranks[0], held), _residual(ranks[1], held))[0])


def ordered_pairs(x: ArrayLike, y: ArrayLike) -> float:
    """Share of the pairs of models that x orders as y does; a tie of x counts one half. Pairs that
    y ties are no question, and left out.

    Args:
        x, y: (M,).

    Returns:
        0 to 1; NaN where y orders no pair.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    i, j = np.triu_indices(len(x), 1)
    first, second = np.sign(x[i] - x[j]), np.sign(y[i] - y[j])
    asked = second != 0
    return float((first * second)[asked].mean() / 2 + 0.5) if asked.any() else math.nan


def correlation_interval(found: float, models: int, tail: float = 0.025) -> tuple[float, float]:
    """Rank correlations of a population of models that a sample's does not rule out.

    A value is ruled out where a sample of so many models has a correlation as high as the one
    found, or as low, with a probability of ``tail`` at most (Neyman 1937), for ranks of bivariate
    normal draws, 20,000 of them. So three models rule out next to nothing, whatever their order.

    Args:
        found: the sample's, see :func:`rank_correlation`.
        models: M of the sample, 3 or more.
        tail: on each side; divided by the number of questions, the intervals of all of them hold
            together.

    Returns:
        The two ends, -1 and 1 where nothing is ruled out.
    """
    grid, drawn = _samples(models)
    too_low = grid[(drawn >= found - 1e-9).mean(1) <= tail]
    too_high = grid[(drawn <= found + 1e-9).mean(1) <= tail]
    return float(too_low.max(initial=-1)), float(too_high.min(initial=1))


def power(correlation: float, models: int, tail: float = 0.025) -> float:
    """Probability that :func:`correlation_interval` tells a population's rank correlation from 0,
    with its sign.

    Args:
        correlation: the population's, above 0.
        models, tail: as there.
    """
    null, asked = _sampled(0, models), _sampled(correlation, models)
    levels = np.unique(null.round(9))
    decided = levels[[(null >= level - 1e-9).mean() <= tail for level in levels]]
    return float((asked >= decided[0] - 1e-9).mean()) if len(decided) else 0.0


@functools.cache
def _draws(models: int, draws: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Normal draws and noise that share no information, each (draws, models)."""
    return tuple(np.random.default_rng(0).standard_normal((2, draws, models)))


def _sampled(correlation: float, models: int) -> np.ndarray:
    """Rank correlations of samples from a population with that one, (draws,)."""
    x, noise = _draws(models)
    pearson = 2 * math.sin(math.pi * correlation / 6)  # of a bivariate normal (Pearson 1907)
    y = pearson * x + math.sqrt(1 - pearson**2) * noise
    return _correlation(*(_residual(rankdata(part, axis=1), None) for part in (x, y)))


@functools.cache
def _samples(models: int) -> tuple[np.ndarray, np.ndarray]:
    """Rank correlations of populations, (grid,), and of samples from each, (grid, draws)."""
    grid = np.linspace(-0.99, 0.99, 100)  # without 0, so that no end lies on it
    return grid, np.array([_sampled(correlation, models) for correlation in grid])


def orders(count: int) -> np.ndarray:
    """Orders of so many models, (n, count): all of them up to :data:`EXACT`, the first the
    identity, else that and 8! - 1 random ones."""
    if count <= EXACT:
        return np.array(list(itertools.permutations(range(count))))
    alike = np.tile(np.arange(count), (math.factorial(EXACT) - 1, 1))
    drawn = np.random.default_rng(0).permuted(alike, axis=1)
    return np.concatenate([np.arange(count)[None], drawn])


def permuted(x: ArrayLike, y: ArrayLike, control: ArrayLike | None = None) -> np.ndarray:
    """Rank correlations if the models' values of y were dealt out in another order, (n,), the order
    as it is first.

    With a control, what it leaves of the ranks of y is dealt out (Freedman and Lane 1983).

    Args:
        x, y, control: (M,).
    """
    held = None if control is None else _ranks(control)[None]
    left, right = (_residual(_ranks(values)[None], held)[0] for values in (x, y))
    dealt = right[orders(len(right))]
    return _correlation(left, dealt if held is None else _residual(dealt, held))


def p_value(found: np.ndarray) -> float:
    """Two-sided: the share of the orders whose correlation is as far from 0 as that of the first,
    the order as it is."""
    if np.isnan(found[0]):
        return math.nan
    return float((np.abs(found) >= abs(found[0]) - 1e-12).mean())


def holm(p: ArrayLike) -> np.ndarray:
    """p-values adjusted for having asked several questions (Holm 1979): the chance of any false
    answer stays below the level.

    Sorted upwards, the i-th of n (from 0) counts n - i fold, at least as much as the one before,
    and at most 1. NaN stay, and do not count.

    Args:
        p: (n,).
    """
    p = np.asarray(p, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    asked = np.flatnonzero(~np.isnan(p))
    order = asked[np.argsort(p[asked], kind="stable")]
    counted = p[order] * (len(order) - np.arange(len(order)))
    adjusted[order] = np.minimum(np.maximum.accumulate(counted), 1)
    return adjusted


def _ranks(values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or np.isnan(values).any():
        raise ValueError(f"ranks are of one number a model, none of them NaN; given is {values}")
    return rankdata(values)


def _residual(ranks: np.ndarray, control: np.ndarray | None) -> np.ndarray:
    """Rows (n, M) about their means, less their straight line in the rows of the control."""
    centred = ranks - ranks.mean(-1, keepdims=True)
    if control is None:
        return centred
    axis = control - control.mean(-1, keepdims=True)
    length = np.square(axis).sum(-1, keepdims=True)
    slope = (centred * axis).sum(-1, keepdims=True) / np.where(length > 0, length, 1)
    left = centred - slope * axis
    return np.where(np.abs(left) < 1e-9, 0.0, left)  # ranks are halves: what is smaller is rounding


def _correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    scale, product = np.sqrt(np.square(x).sum(-1) * np.square(y).sum(-1)), (x * y).sum(-1)
    nowhere = np.full(np.broadcast(scale, product).shape, np.nan)
    return np.divide(product, scale, out=nowhere, where=scale > 0)
