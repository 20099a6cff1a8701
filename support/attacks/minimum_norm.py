"""The nearest image of another class, in the Euclidean norm, the maximum norm, or by the number of
pixels that differ.

:func:`fmn` and :func:`sigma_zero` have no budget: they search the least distance at which the class
changes. :func:`fmn` follows one path to the boundary, and stays at the part of it that it meets;
:func:`support.attacks.lbfgs` minimises a trade-off, at about twice the passes. A few images are
nearer by :func:`lbfgs`: who needs the least distance takes the nearer of the two.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from support.attacks.base import (
    AttackResult,
    Call,
    Model,
    attack,
    check,
    gradient,
    judged,
    margin,
    packed,
    per_image,
    prepare,
)
from support.attacks.gradient import Goal, difference_slope
from support.common.arguments import choice, number, whole_number

SPACES = ("box", "free")
"""Where the nearest image is sought: among images in [0,1], or among all real vectors, as geometry
has it."""

_SHRINK = 0.05, 0.001  # share by which the radius of the search moves, at the beginning and the end
_BEYOND = 0.05  # how much farther the first radii reach than a linear model would need
_STRIDE = 1.0, 0.01  # of a step, in radii of the search
_WARMTH = 0.25  # temperature of the log-odds, in standard deviations of the scores
_HALVINGS = 10  # of the way to the nearest image found, at the end
_SOFT = 1e-3  # squared change of a pixel at which it counts half
_PRUNE = 0.01  # move of the threshold below which a pixel is left alone, times the rate
_RATE = 1.0, 0.1  # Adam's, at the beginning and the end
_MOMENTS = 0.9, 0.999


@attack
def fmn(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    norm: float = 2,
    space: str = "box",
    steps: int = 100,
    batch_size: int | None = None,
) -> AttackResult:
    """Fast minimum-norm attack: gradient steps on a ball whose radius shrinks where the class has
    changed and grows where it has not (Pintor et al. 2021, Algorithm 1).

    The first radius is the distance at which a linear model would give way. Unlike in the paper the
    log-odds are climbed, of which all rivals near the best are a part, for along the margin the
    first rival is often kept where another is nearer; the scores are in units of their spread, and
    the step is a share of the radius, so that no unit is preferred; it goes along the sign of the
    gradient in the maximum norm; and at the end the way from the image to the nearest one found is
    halved some times. On a linear model with two classes and room in the box the Euclidean result
    is the exact distance to the plane.

    Args:
        model: maps (n, ...) images in [0,1] to (n, K) log-scores.
        x: (N, ...) images in [0,1], float32 or float64.
        y: (N,) int64 true labels.
        norm: 2, or ``math.inf``.
        space: "box": ``x_adv`` lies in [0,1]; "free": anywhere.
        steps: gradient steps.
        batch_size: at most so many images in one pass; ``None`` picks what is fast on the device.

    Returns:
        The result; ``x_adv`` is the nearest image of another class that was met, where none was the
        one of least margin. An image that is right at first costs ``steps + 13`` queries.

    Raises:
        ValueError: a wrong input, or a model whose scores do not depend differentiably on the
            image.
    """
    check(model, x, y, batch_size=batch_size)
    if norm not in (2, math.inf):
        raise ValueError(f"norm must be 2 or math.inf; {norm!r} was given")
    choice("space", space, SPACES)
    whole_number("steps", steps, 1)

    def search(call: Call, index: Tensor) -> Tensor:
        return _shrunk(call, index, norm, space == "box", steps)

    return _nearest(model, x, y, batch_size, search, steps + 1 + _HALVINGS)


@attack
def sigma_zero(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    steps: int = 300,
    threshold: float = 0.3,
    batch_size: int | None = None,
) -> AttackResult:
    """sigma-zero: the fewest pixels whose change changes the class (Cina et al. 2025, Algorithm 1).

    Adam lowers the positive part of the margin plus a smooth count of the changed pixels, ``d^2 /
    (d^2 + sigma)`` each; after every step, changes below a threshold are undone, and the threshold
    rises where the class has changed and falls where it has not. Of a picture (C, H, W) a pixel is
    a position with all its channels, as in :func:`support.attacks.one_pixel`; of anything else it
    is one number. There is only the box: in free space one pixel of a linear model is enough.

    Args:
        model, x, y, batch_size: as in :func:`fmn`.
        steps: steps of Adam; the paper takes 1000.
        threshold: the first one, in units of [0,1].

    Returns:
        The result; of all images of another class that were met ``x_adv`` differs from ``x`` in the
        fewest pixels, where there was none it is the one of least margin. An image that is right at
        first costs ``steps + 3`` queries.

    Raises:
        ValueError: as :func:`fmn`.
    """
    check(model, x, y, batch_size=batch_size)
    whole_number("steps", steps, 1)
    number("threshold", threshold, above=0, most=1)

    def search(call: Call, index: Tensor) -> Tensor:
        return _sparse(call, index, steps, threshold)

    return _nearest(model, x, y, batch_size, search, steps + 1)


def _nearest(
    model: Model,
    x: Tensor,
    y: Tensor,
    batch_size: int | None,
    search: Callable[[Call, Tensor], Tensor],
    passes: int,
) -> AttackResult:
    """A search (call, index) -> images for all that are right, and the verdict on what it found."""
    call = prepare(model, x, y, batch_size, backward=True)
    found, queries = call.x.clone(), torch.ones_like(call.y)
    left = (~(margin(call.scores, call.y) < 0)).nonzero()[:, 0]
    for index, real in packed(left, call.rows):
        found[index[:real]] = search(call, index)[:real]
    queries[left] += passes
    return judged(call, found, queries)


def _slope(call: Call, at: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The margin (n,) at images (n, ...), and its gradient, zero where it is no number."""
    with torch.enable_grad():
        leaf = at.detach().requires_grad_()
        outputs = call.model(leaf.clone())  # the model may write where it reads
    scores = outputs.detach()
    rival = scores.scatter(1, y[:, None], -torch.inf).argmax(1)
    slope = gradient(outputs, leaf, difference_slope(scores, y, rival))
    found = margin(scores, y)
    return torch.where(found.isnan(), torch.inf, found), slope.nan_to_num(0, 0, 0)


def _odds_slope(call: Call, at: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The margin (n,) at images (n, ...), and the gradient of minus the log-odds of the scores in
    units of their own spread."""
    unit = call.scores.new_ones(())

    def scaled(x: Tensor) -> Tensor:
        nonlocal unit
        scores = call.model(x)
        unit = _WARMTH * scores.detach().std(1, correction=0, keepdim=True)
        unit = unit.where(unit.isfinite() & (unit > 0), 1)
        return scores / unit

    slope, scores = Goal("ce").slope(scaled, at, y, y)
    slope, found = -per_image(unit[:, 0], slope) * slope, margin(scores * unit, y)
    return torch.where(found.isnan(), torch.inf, found), slope.nan_to_num(0, 0, 0)


def _falling(ends: tuple[float, float], step: int, steps: int) -> float:
    """From the first end to the second along half a cosine."""
    first, last = ends
    return last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2


def _shrunk(call: Call, index: Tensor, norm: float, boxed: bool, steps: int) -> Tensor:
    x, y = call.x[index], call.y[index]
    flat = x.flatten(1)

    def length(of: Tensor) -> Tensor:
        return of.abs().amax(1) if norm == math.inf else of.norm(dim=1)

    def inside(change: Tensor) -> Tensor:
        return (flat + change).clamp_(0, 1).sub_(flat) if boxed else change

    def column(values: Tensor) -> Tensor:
        return values[:, None]

    tiny, far = torch.finfo(x.dtype).tiny, flat[0].numel() ** 0.5
    change, best = torch.zeros_like(flat), torch.zeros_like(flat)
    radius = torch.full_like(flat[:, 0], torch.inf)
    nearest, least = radius.clone(), radius.clone()
    for step in range(steps + 1):
        margins, slope = _odds_slope(call, (flat + change).view_as(x), y)
        slope, here, won = slope.flatten(1), length(change), margins < 0
        better = torch.where(won, here < nearest, nearest.isinf() & (margins < least))
        best = torch.where(column(better), change, best)
        nearest = torch.where(better & won, here, nearest)
        least = torch.where(better, margins, least)
        if step == steps:
            break
        dual = slope.abs().sum(1) if norm == math.inf else slope.norm(dim=1)
        shrink, stride = _falling(_SHRINK, step, steps), _falling(_STRIDE, step, steps)
        reach = here + margins / dual.clamp_min(tiny)
        out = torch.where(nearest.isinf(), reach * (1 + _BEYOND), radius * (1 + shrink))
        radius = torch.where(won, torch.minimum(radius * (1 - shrink), nearest), out)
        radius = torch.where(radius.isfinite(), radius, far)
        way = slope.sign() if norm == math.inf else slope / column(dual.clamp_min(tiny))
        change = change - column(stride * radius) * way
        if norm == math.inf:
            change = change.clamp(-column(radius), column(radius))
        else:
            change = change * column((radius / length(change).clamp_min(tiny)).clamp_max(1))
        change = inside(change)
    share, half = torch.ones_like(radius), 0.5
    for _ in range(_HALVINGS):
        trial = (flat + column(share - half) * best).view_as(x)
        with torch.no_grad():
            crossed = margin(call.model(trial.clone()), y) < 0
        share, half = torch.where(crossed, share - half, share), half / 2
    share = torch.where(nearest.isinf(), 1, share)
    found = flat + column(share) * best
    return (found.clamp_(0, 1) if boxed else found).view_as(x)


def _sparse(call: Call, index: Tensor, steps: int, threshold: float) -> Tensor:
    x, y = call.x[index], call.y[index]
    channels = x.shape[1] if x.ndim == 4 else 1
    flat = x.reshape(len(x), channels, -1)  # (n, C, P)
    pixels, tiny = flat.shape[2], torch.finfo(x.dtype).tiny
    change, best = torch.zeros_like(flat), torch.zeros_like(flat)
    first, second = torch.zeros_like(flat), torch.zeros_like(flat)
    bound = torch.full_like(flat[:, 0, 0], threshold)
    fewest = torch.full_like(bound, torch.inf)
    least = fewest.clone()
    for step in range(steps + 1):
        margins, slope = _slope(call, (flat + change).view_as(x), y)
        count, won = (change != 0).any(1).sum(1).to(x.dtype), margins < 0
        better = torch.where(won, count < fewest, fewest.isinf() & (margins < least))
        best = torch.where(better[:, None, None], change, best)
        fewest = torch.where(better & won, count, fewest)
        least = torch.where(better, margins, least)
        if step == steps:
            break
        rate = _falling(_RATE, step, steps)
        size = change.square().sum(1, keepdim=True)
        counting = 2 * _SOFT * change / (size + _SOFT).square() / pixels
        slope = slope.view_as(flat) * (~won)[:, None, None] + counting
        slope = slope / slope.abs().amax((1, 2), keepdim=True).clamp_min(tiny)
        first = _MOMENTS[0] * first + (1 - _MOMENTS[0]) * slope
        second = _MOMENTS[1] * second + (1 - _MOMENTS[1]) * slope.square()
        mean = first / (1 - _MOMENTS[0] ** (step + 1))
        spread = (second / (1 - _MOMENTS[1] ** (step + 1))).sqrt()
        change = change - rate * mean / (spread + 1e-8)
        change = (flat + change).clamp_(0, 1).sub_(flat)
        bound = (bound + torch.where(won, 1, -1) * _PRUNE * rate).clamp(0, 1)
        kept = change.abs().amax(1, keepdim=True) >= bound[:, None, None]
        change = torch.where(kept, change, 0)
    return torch.where(best != 0, (flat + best).clamp(0, 1), flat).view_as(x)
