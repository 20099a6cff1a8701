"""Does one number order models as another does? Rank correlations of few models, with what chance
alone would give (chapter 8).

The unit of all questions is the *model*: training runs of one model differ by their seeds alone and
count as one, so values come as (models, seeds), intervals draw models first and seeds within them,
and p-values exchange models. Values that are not defined are NaN; a model without a value is left
out, and the caller says how many remain.
"""

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


def bootstrap(
    x: ArrayLike,
    y: ArrayLike,
    control: ArrayLike | None = None,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> np.ndarray:
    """Rank correlations of redrawn models: models with replacement, and within each its seeds with
    replacement, then means over seeds.

    Args:
        x, y, control: (M, S), one row a model.
        draws, seed: of the redrawing.

    Returns:
        (draws,) sorted; draws in which a column does not vary are left out.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    count, seeds = x.shape
    stream = np.random.default_rng(seed)
    model = stream.integers(count, size=(draws, count))
    # one set of seeds a model and draw: a model drawn twice is a tie, not two
    run = stream.integers(seeds, size=(draws, count, seeds))

    def redrawn(values: ArrayLike) -> np.ndarray:
        means = np.asarray(values, dtype=float)[np.arange(count)[:, None], run].mean(2)
        return np.take_along_axis(means, model, 1)

    columns = [redrawn(values) for values in (x, y, *([] if control is None else [control]))]
    ranks = [rankdata(values, axis=1) for values in columns]
    held = ranks[2] if control is not None else None
    found = _correlation(_residual(ranks[0], held), _residual(ranks[1], held))
    return np.sort(found[~np.isnan(found)])


def interval(draws: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of bootstrap draws; NaN where there are none."""
    if not len(draws):
        return math.nan, math.nan
    low, high = np.quantile(draws, [(1 - 0.95) / 2, (1 + 0.95) / 2])
    return float(low), float(high)


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
