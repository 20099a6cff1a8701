"""An attack in the maximum norm that sees nothing but whether the model's answer is right."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from support.attacks.base import (
    AttackResult,
    Model,
    Rows,
    attack,
    check,
    interval,
    judged,
    margin,
    per_image,
    prepare,
    score,
    uniform,
)
from support.attacks.gradient import REPACK_EVERY
from support.common.arguments import radii, random_stream, whole_number

START = 1.0
"""First radius, in units of [0,1]: along signs it reaches a corner of the box."""

PRECISION = 1e-3
"""Width at which a bisection of a radius ends, in units of [0,1]."""


@dataclass(frozen=True)
class _Search(Rows):
    """Where every image's search stands. The tensors are updated in place."""

    signs: Tensor
    """(N, D) the best direction so far."""
    reach: Tensor
    """(N,) the radius at which the model errs along it."""
    low: Tensor
    high: Tensor
    bisecting: Tensor
    """(N,) bool, whether the radius of the flipped direction is being bisected, between low and
    high."""
    block: Tensor
    """(N,) which block of pixels is flipped."""
    queries: Tensor


@attack
def rays(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    *,
    queries: int = 1000,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """RayS: look for the signs along which the nearest error lies, by the model's decisions alone
    (Chen and Gu 2020, Algorithms 1 to 3).

    From all signs equal, blocks of pixels are flipped, halved after each round until they are
    single pixels. One query asks whether the flipped direction errs at the radius reached so far;
    only if it does, its own radius is bisected. Until an image has met its first error, every
    second query asks about random signs instead: flips of one block may never leave the class. No
    gradient and no score is used, so that masked gradients do not stop it. Used by the protocol of
    the chapter "softRmax".

    Args:
        model: maps (n, ...) images in [0,1] to (n, K) log-scores; only the sign of the margin is
            looked at.
        x: (N, ...) images in [0,1], float32 or float64.
        y: (N,) int64 true labels.
        eps: radius in the maximum norm, in units of [0,1]; one number or (N,).
        queries: decisions that an image may ask for.
        generator: source of the random signs: a draw of an image's shape for every second query.
            ``None``: a fresh one of fixed seed.
        batch_size: at most so many images in one forward pass; ``None`` picks what is fast on the
            device.

    Returns:
        The result. An image that holds out is returned at ``eps`` along its best direction, and
        costs ``queries + 2``.

    Raises:
        ValueError: a wrong input.
    """
    check(model, x, y, batch_size=batch_size, generator=generator)
    whole_number("queries", queries, 1)
    radius, stream = radii("eps", eps, x), random_stream(generator)
    call = prepare(model, x, y, batch_size)
    low, high = interval(call.x, radius)
    blocks = _blocks(call.x[0].numel(), call.x.device)
    wrong, limit = margin(call.scores, call.y) < 0, radius.to(call.x.dtype)
    search = _begin(call.x)
    search.reach[wrong | (radius == 0)] = 0
    for done in range(0, queries, REPACK_EVERY):
        alive = (search.reach > limit).nonzero()[:, 0]
        if not len(alive):
            break
        part, image, label, goal = search.take(alive), call.x[alive], call.y[alive], limit[alive]
        for step in range(min(REPACK_EVERY, queries - done)):
            signs, length = _next(part, blocks)
            lost = (part.reach == START) & ~part.bisecting & bool(step % 2)
            if step % 2:
                drawn = uniform(signs.shape[1:], stream, signs)
                signs = torch.where(lost[:, None], torch.where(drawn < 0.5, -1, 1).to(signs), signs)
            at = (image + per_image(length, image) * signs.view_as(image)).clamp_(0, 1)
            part.queries.add_(part.reach > goal)
            _learn(part, signs, length, margin(score(call.model, at, call.rows), label) < 0, lost)
        search.put(alive, part)
    end = call.x + per_image(search.reach.minimum(limit), call.x) * search.signs.view_as(call.x)
    x_adv = torch.where(per_image(wrong, call.x), call.x, end.clamp(low, high))
    return judged(call, x_adv, search.queries)


def _begin(x: Tensor) -> _Search:
    count, flat = len(x), torch.ones_like(x).flatten(1)
    numbers, whole = x.new_zeros(count), torch.zeros(count, dtype=torch.int64, device=x.device)
    reach = torch.full_like(numbers, START)
    return _Search(flat, reach, numbers, reach.clone(), numbers > 0, whole, whole + 1)


def _blocks(dimensions: int, device: torch.device) -> Tensor:
    """(B, 2) first pixel and end of every block: none, all, halves, quarters, ... single pixels."""
    found = [(0, 0)]
    for level in range(math.ceil(math.log2(dimensions)) + 1 if dimensions > 1 else 1):
        size = math.ceil(dimensions / 2**level)
        found += [(start, min(start + size, dimensions)) for start in range(0, dimensions, size)]
    return torch.tensor(found, device=device)


def _next(search: _Search, blocks: Tensor) -> tuple[Tensor, Tensor]:
    """The direction (n, D) and the radius (n,) that each image asks about."""
    first, end = blocks[search.block % len(blocks)].T
    place = torch.arange(search.signs.shape[1], device=blocks.device)
    signs = torch.where(
        (place >= first[:, None]) & (place < end[:, None]), -search.signs, search.signs
    )
    return signs, torch.where(search.bisecting, (search.low + search.high) / 2, search.reach)


def _learn(search: _Search, signs: Tensor, length: Tensor, hit: Tensor, lost: Tensor) -> None:
    """Move every search on by the answer to its question; ``lost`` ones asked about random signs,
    which they keep if these err."""
    asked, better = search.bisecting.clone(), hit & ~search.bisecting
    search.high.copy_(torch.where(hit, length, search.high))
    search.low.copy_(torch.where(better, 0, torch.where(asked & ~hit, length, search.low)))
    known, taken = asked & (search.high - search.low <= PRECISION), better & lost
    search.signs.copy_(torch.where((known | taken)[:, None], signs, search.signs))
    search.reach.copy_(torch.where(known, search.high, search.reach))
    search.bisecting.copy_((asked | better) & ~known)
    search.block.add_(known | ~(asked | hit)).masked_fill_(
        taken, 0
    )  # block 0 is empty: the radius of the random signs themselves
