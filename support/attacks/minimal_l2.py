"""Minimal-distortion attack: box-constrained L-BFGS with a bisected trade-off constant, batched
over images."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

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
from support.common.arguments import choice, flag, number, whole_number

_ROUNDS_UP = 8  # enlargements of the trade-off constant before an image is given up
_ARMIJO = 1e-4  # share of the predicted decrease that a step must bring
_SHORTEST = 2.0**-16  # a step halved so often ends the search: rounding has the say
_CLOSE = 1e-2  # projected gradient over distortion at which a minimiser is good enough
_STALLED = 1e-5  # relative decrease of the objective by a whole step at which it is, too
_HISTORY = 5  # pairs of steps and gradient changes that are remembered
_CHECK_EVERY = 5  # passes between two looks whether all are done: the only waits for the device


@dataclass(frozen=True)
class _Aim:
    """The label of each image, whether it is wanted (sign 1) or to be left (sign -1), and which
    loss says so."""

    y: Tensor
    sign: int
    kind: str

    def loss(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The loss (n,) and its gradient in the scores (n, K).

        In float64: the last bits of an exponential depend on its place in a vector, and a row's
            result must not.
        """
        own, exact = self.y[:, None], scores.double()
        others = exact.scatter(1, own, -torch.inf)
        if self.kind == "ce":
            rival, share = others.logsumexp(1), others.softmax(1)
        else:
            rival, best = others.max(1)
            share = torch.zeros_like(others).scatter_(1, best[:, None], 1)
        odds = self.sign * (rival - exact.gather(1, own)[:, 0])
        slope = self.sign * share.scatter_(1, own, -1) * odds.sigmoid()[:, None]
        return functional.softplus(odds).to(scores.dtype), slope.to(scores.dtype)

    def margin(self, scores: Tensor) -> Tensor:
        return -self.sign * margin(scores, self.y)


class _Point(NamedTuple):
    """Where the minimisation stands, image by image: pixels, objective, its gradient, scores."""

    z: Tensor
    value: Tensor
    slope: Tensor
    scores: Tensor


@attack
def lbfgs(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    targeted: bool = False,
    search: int = 8,
    loss: str = "ce",
    growth: float = 4.0,
    steps: int = 25,
    batch_size: int | None = None,
) -> AttackResult:
    """The least distortion that changes the class: L-BFGS in the box, with bisection on the
    trade-off (Szegedy et al. 2014, section 4.1).

    For a constant c it minimises ``|z - x|^2 / 2 + c * loss(z)`` over ``z`` in ``[0,1]``, and looks
    for the smallest c whose minimiser has the wanted class. The loss is the cross-entropy of the
    target or, untargeted, of "any other class" (``-log(1 - p_y)``, which unlike ``-CE`` is bounded
    below). Each image has its own c, its own history of steps and its own line search; all take
    their passes together. The box is kept by projection, and coordinates pressed against it are
    left out of the step. On a linear model with two classes the result is the exact optimum. Used
    in the chapter "Persistence" (``fig2-3``, ``table1``).

    Args:
        model: maps (n, ...) images in [0,1] to (n, K) log-scores.
        x: (N, ...) images in [0,1], float32 or float64.
        y: (N,) int64 true labels, or the wanted ones if ``targeted``.
        targeted: find the label ``y`` instead of leaving it.
        search: bisections of c after the first success. 0 keeps the first success: a point beyond
            the boundary, as a coarse search for c leaves it, where 8 end on the boundary.
        loss: "ce", or "margin", in which of all rivals only the best counts: nearer to the least
            distance where many rivals are close.
        growth: factor by which c changes until a success and a failure bracket it. The first c is
            what a linear model would need.
        steps: passes of one minimisation, at most.
        batch_size: at most so many images in one pass; ``None`` picks what is fast on the device.

    Returns:
        The result; of all minimisers that succeed ``x_adv`` is the least distorted, else the one of
        least margin. The distortion of bell2023 (Definition 1.8) is ``|x_adv - x|_2 / sqrt(n)`` for
        n pixels.

    Raises:
        ValueError: a wrong input, or a model whose scores do not depend differentiably on the
            image.
    """
    check(model, x, y, batch_size=batch_size)
    sign = 1 if flag("targeted", targeted) else -1
    choice("loss", loss, ("ce", "margin"))
    whole_number("search", search, 0)
    whole_number("steps", steps, 1)
    number("growth", growth, above=1)
    call = prepare(model, x, y, batch_size, backward=True)
    flat, clean = call.x.flatten(1), -sign * margin(call.scores, call.y)
    best, shortest = flat.clone(), torch.full_like(clean, torch.inf).masked_fill_(clean < 0, 0)
    least = torch.where(clean.isnan(), torch.inf, clean)
    at, queries = flat.clone(), torch.ones_like(call.y)
    low, high = torch.zeros_like(shortest), torch.full_like(shortest, torch.inf)
    constant, rounds = torch.zeros_like(shortest), torch.zeros_like(call.y)
    left = (clean >= 0).nonzero()[:, 0]
    for index, real in packed(left, call.rows):
        found = _first_constant(call, _Aim(call.y[index], sign, loss), index)
        constant[index[:real]] = found[:real]
    queries[left] += 1
    while len(left):
        for index, real in packed(left, call.rows):
            aim = _Aim(call.y[index], sign, loss)
            point, passes = _minimise(call, aim, flat[index], at[index], constant[index], steps)
            index, z, margins = index[:real], point.z[:real], aim.margin(point.scores)[:real]
            won, length = margins < 0, (z - flat[index]).norm(dim=1)
            nearer = shortest[index].isinf() & (margins < least[index])
            better = torch.where(won, length < shortest[index], nearer)
            best[index] = torch.where(better[:, None], z, best[index])
            least[index] = torch.where(better, margins, least[index])
            shortest[index] = torch.where(better & won, length, shortest[index])
            at[index], queries[index] = z, queries[index] + passes[:real]
            high[index] = torch.where(won, constant[index], high[index])
            low[index] = torch.where(won, low[index], constant[index])
        met = high[left].isfinite()
        # above 0 since the first success, below before it
        rounds[left] = torch.where(met, rounds[left].clamp_min(0) + 1, rounds[left] - 1)
        below, above = low[left], high[left]
        middle = torch.where(below > 0, (below * above).sqrt(), above / growth)
        constant[left] = torch.where(met, middle, below * growth)
        left = left[(rounds[left] > -_ROUNDS_UP) & (rounds[left] <= search)]
    return judged(call, best.view_as(call.x), queries, -sign)


def _seen(call: Call, aim: _Aim, x: Tensor, z: Tensor, constant: Tensor) -> _Point:
    """Objective and gradient at ``z`` (n, D), by one pass."""
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        scores = call.model(leaf.clone().view(-1, *call.x.shape[1:]))
    loss, slope = aim.loss(scores.detach())
    back = gradient(scores, leaf, slope)
    distortion = z - x
    value = distortion.square().sum(1) / 2 + constant * loss
    return _Point(z, value, distortion + constant[:, None] * back, scores.detach().clone())


def _first_constant(call: Call, aim: _Aim, index: Tensor) -> Tensor:
    """The constant at which a linear model of these scores and gradients would just give way: ``2 u
    / |grad u|^2`` for log-odds u."""
    x = call.x.flatten(1)[index]
    # sigmoid(u) grad u, as the loss is softplus(u)
    back = _seen(call, aim, x, x, torch.ones_like(x[:, 0])).slope
    odds = aim.margin(call.scores[index]).clamp_min(1e-3).double()
    found = 2 * odds * odds.sigmoid().square() / back.square().sum(1)
    return torch.where(found.isfinite() & (found > 0), found, 1.0).to(x.dtype)


def _minimise(
    call: Call, aim: _Aim, x: Tensor, start: Tensor, constant: Tensor, steps: int
) -> tuple[_Point, Tensor]:
    """Minimise ``|z - x|^2 / 2 + constant * loss(z)`` over [0,1] from ``start`` (n, D); the
    minimisers, and the passes each of them took.

    An image that is done stays as it is, so that the result does not depend on how long others
    take. A refused step leaves a pair of weight zero in the memory, which has no effect.
    """
    point = _seen(call, aim, x, start, constant)
    passes, length = torch.ones_like(aim.y), torch.ones_like(point.value)
    done = stalled = torch.zeros_like(aim.y, dtype=torch.bool)
    moves, bends = (start.new_zeros(_HISTORY, *start.shape) for _ in range(2))
    weights = start.new_zeros(_HISTORY, len(start))
    for step in range(steps - 1):
        projected = (point.z - point.slope).clamp_(0, 1).sub_(point.z).norm(dim=1)
        close = projected <= _CLOSE * (point.z - x).norm(dim=1)
        done = done | stalled | close | (length < _SHORTEST)
        if step % _CHECK_EVERY == 0 and bool(done.all()):
            break
        free = ~(((point.z <= 0) & (point.slope > 0)) | ((point.z >= 1) & (point.slope < 0)))
        direction = -_inverse_hessian(point.slope * free, moves, bends, weights, step) * free
        trial = torch.addcmul(point.z, direction, length[:, None]).clamp_(0, 1)
        next_point = _seen(call, aim, x, trial, constant)
        move = trial - point.z
        wanted = point.value + _ARMIJO * (point.slope * move).sum(1) + 1e-7 * point.value.abs()
        taken = (next_point.value <= wanted) & ~done
        passes += ~done
        bend, slot = next_point.slope - point.slope, step % _HISTORY
        curvature = (move * bend).sum(1)
        kept = taken & (curvature > 1e-6 * move.square().sum(1))
        moves[slot], bends[slot] = move, bend
        weights[slot] = torch.where(kept, 1 / curvature, 0)
        stalled = taken & (length == 1) & (point.value - next_point.value <= _STALLED * point.value)
        both = zip(next_point, point, strict=True)
        point = _Point(*(torch.where(per_image(taken, new), new, old) for new, old in both))
        length = torch.where(taken, (4 * length).clamp_max(1), length / 2)
    return point, passes


def _inverse_hessian(
    slope: Tensor, moves: Tensor, bends: Tensor, weights: Tensor, step: int
) -> Tensor:
    """The two-loop recursion (Nocedal 1980) for each row of ``slope`` (n, D), from the identity:
    the Hessian of the distortion."""
    slots = [number % len(moves) for number in range(max(0, step - len(moves)), step)]
    parts = {}
    for slot in reversed(slots):
        parts[slot] = weights[slot] * (moves[slot] * slope).sum(1)
        slope = slope - parts[slot][:, None] * bends[slot]
    for slot in slots:
        back = weights[slot] * (bends[slot] * slope).sum(1)
        slope = slope + (parts[slot] - back)[:, None] * moves[slot]
    return slope
