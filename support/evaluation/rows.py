"""What the rows of the protocol compute: noise, our own attacks, transfer, and AutoAttack's four
attacks as torchattacks has them.

Every row maps a model, images (n, C, H, W), labels and a radius to the margins (n,) at the images
that it found, read by our own pass; below zero is a success. All that decides them are its
arguments.

torchattacks draws from the global generators, switches a model's mode and adds to the ``.grad`` of
its parameters. Here it sees a stand-in that holds none of these, inside copies of the generators'
states.
"""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from support import attacks
from support.attacks.base import (
    Model,
    even,
    fast_rows,
    normal,
    per_image,
    score,
    streams_kept,
    uniform,
)
from support.models.architectures import float32_on

STEPS = 100
"""Steps of APGD and FAB in AutoAttack's standard version; torchattacks takes 10 unless told."""

TARGETS = 9
"""Rivals that APGD-T and FAB-T try, at most, in AutoAttack's standard version; torchattacks takes
all unless told."""

LEAST_CLASSES = {"APGD-T": 4}
"""Classes that an attack needs: the targeted DLR loss divides by a difference that reaches down to
the fourth score."""

OwnLoss = Callable[[Model, Tensor, Tensor], Tensor]


def margins(model: Model, x: Tensor, y: Tensor) -> Tensor:
    """(n,) margins of a model's scores, without gradients."""
    return attacks.margin(score(model, x, fast_rows(x, model=model)), y)


def attacked(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    attack: Callable[..., attacks.AttackResult],
    seed: int | None = None,
    **settings: Any,
) -> Tensor:
    """At what one of our own attacks returns; ``seed`` is of its draws, if it makes any."""
    if seed is not None:
        settings["generator"] = torch.Generator().manual_seed(seed)
    return attack(model, x, y, eps, **settings).margin


def noise(
    model: Model, x: Tensor, y: Tensor, eps: float, *, draws: int, gaussian: bool, seed: int
) -> Tensor:
    """The least margin over some draws of noise, cut to the ball: uniform on it, or normal with
    standard deviation eps."""
    low, high = attacks.interval(x, eps)
    stream, least = (
        torch.Generator().manual_seed(seed),
        torch.full(y.shape, torch.inf, device=x.device),
    )
    for _ in range(draws):
        drawn = (
            normal(x.shape[1:], stream, x) if gaussian else 2 * uniform(x.shape[1:], stream, x) - 1
        )
        noisy = (x + eps * drawn).clamp(low, high)
        least = torch.fmin(least, margins(model, noisy, y))
    return least


def transfer(
    model: Model, x: Tensor, y: Tensor, eps: float, *, peer: Model, to_peer: bool, steps: int
) -> Tensor:
    """Images made on one network, judged on the other: the corner of the first step and the end of
    an attack with momentum.

    ``to_peer`` makes them on the model and returns the peer's margins.
    """
    source, judge = (model, peer) if to_peer else (peer, model)
    corner = attacks.fgsm(source, x, y, eps).x_adv
    end = _far(source, x, y, eps, steps)
    return torch.fmin(margins(judge, corner, y), margins(judge, end, y))


def _far(source: Model, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    """MI-FGSM (Dong et al. 2018, Algorithm 1) to its last step, past the first success: what just
    crosses one boundary rarely transfers."""
    low, high = attacks.interval(x, eps)
    at, rows = x.clone(), fast_rows(x, model=source, backward=True)
    for index in torch.arange(len(at), device=at.device).split(rows):
        here, velocity = at[index], torch.zeros_like(at[index])
        for _ in range(steps):
            slope = _slope(_log_odds, source, here, y[index]).nan_to_num(0, 0, 0)
            size = slope.abs().flatten(1).mean(1).clamp_min(torch.finfo(slope.dtype).tiny)
            velocity += slope / per_image(size, slope)
            here = (here + eps / steps * velocity.sign()).clamp(low[index], high[index])
        at[index] = here
    return at


def _log_odds(model: Model, x: Tensor, y: Tensor) -> Tensor:
    own, scores = y[:, None], model(x)
    return scores.scatter(1, own, -torch.inf).logsumexp(1) - scores.gather(1, own)[:, 0]


def cross_entropy(model: Model, x: Tensor, y: Tensor) -> Tensor:
    """(n,) the textbook's loss, with a gradient that vanishes where the model is sure."""
    return functional.cross_entropy(model(x), y, reduction="none")


def _slope(loss: OwnLoss, model: Model, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of a loss at each image; zero where it does not depend on the image."""
    with torch.enable_grad():
        leaf = x.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        values = loss(model, leaf.clone(), y)
        if values.requires_grad:
            found = torch.autograd.grad(values.sum(), leaf, allow_unused=True)[0]
            if found is not None:
                return found
    return torch.zeros_like(x)


def slope(model: Model, x: Tensor, y: Tensor, *, loss: OwnLoss) -> Tensor:
    """The largest derivative (n,) of a loss by a pixel, absolute, at the clean images.

    Zero where no pixel has any, or where it is no number: there an attack that climbs this loss
    stands still.
    """
    rows = fast_rows(x, model=model, backward=True)
    pieces = zip(x.split(rows), y.split(rows), strict=True)
    steep = [_slope(loss, model, image, label) for image, label in pieces]
    return torch.cat([part.nan_to_num(0).abs().flatten(1).amax(1) for part in steep])


def autoattack(
    model: Model, x: Tensor, y: Tensor, eps: float, *, name: str, seed: int, queries: int = 0
) -> Tensor:
    """At what one attack of AutoAttack's standard version found (Croce and Hein 2020, sections 3 to
    5), among the images that are right; the others stay as they are.

    What the library returns is cut to the ball and the box; what is no number becomes the clean
    pixel.

    Args:
        model: of at least :data:`LEAST_CLASSES` classes.
        x, y, eps: as everywhere.
        name: "APGD-CE", "APGD-T", "FAB-T" or "Square".
        seed: of the library's draws.
        queries: of "Square", for each image.
    """
    x = x.contiguous()
    found, right = x.clone(), (~(margins(model, x, y) < 0)).nonzero()[:, 0]
    if len(right):
        classes = min(score(model, x[:1], 1).shape[1], TARGETS + 1)
        with streams_kept(range(torch.cuda.device_count())), float32_on(x.device):
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)  # which reaches every GPU
            attack = _library_attack(name, _Sealed(model, x).eval(), classes, eps, seed, queries)
            found[right] = attack(x[right], y[right]).detach().to(found.dtype)
    low, high = attacks.interval(x, eps)
    return margins(model, torch.where(found.isnan(), x, found).clamp(low, high), y)


def _library_attack(
    name: str, model: nn.Module, classes: int, eps: float, seed: int, queries: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """torchattacks imports torchvision: through our one door to it."""
    from support.common.vision import import_torchvision

    import_torchvision()
    import torchattacks

    common = {"norm": "Linf", "eps": eps, "seed": seed, "n_restarts": 1}
    if name == "Square":
        return torchattacks.Square(model, n_queries=queries, **common)
    common["steps"] = STEPS
    if name == "APGD-CE":
        return torchattacks.APGD(model, loss="ce", **common)
    if name == "APGD-T":
        return torchattacks.APGDT(model, n_classes=classes, **common)
    return torchattacks.FAB(model, multi_targeted=True, n_classes=classes, **common)


class _Sealed(nn.Module):
    """A model as the library may have it: in pieces that are fast, with gradients for images alone,
    and every score finite."""

    def __init__(self, model: Model, x: Tensor):
        super().__init__()
        # in a tuple it is no part of this module: a change of mode does not reach it
        self._call = (model,)
        self._pieces = [fast_rows(x, model=model, backward=back) for back in (False, True)]
        # where the library looks for the device
        self.register_parameter("place", nn.Parameter(x.new_zeros(()), requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        back = torch.is_grad_enabled() and x.requires_grad
        pieces = x.split(even(len(x), self._pieces[back]))
        if back:
            return torch.cat([_ByImages.apply(piece, self._call[0]) for piece in pieces])
        with torch.no_grad():
            return torch.cat([_finite(self._call[0](piece.clone())) for piece in pieces])


class _ByImages(torch.autograd.Function):
    """Scores whose backward pass goes to the images and nowhere else."""

    @staticmethod
    def forward(ctx, x: Tensor, model: Model) -> Tensor:
        with torch.enable_grad():
            ctx.leaf = x.detach().requires_grad_()
            ctx.scores = _finite(model(ctx.leaf.clone()))
        return ctx.scores.detach()

    @staticmethod
    def backward(ctx, weights: Tensor) -> tuple[Tensor, None]:
        return torch.autograd.grad(ctx.scores, ctx.leaf, weights)[0], None


def _finite(scores: Tensor) -> Tensor:
    """Minus infinity as one less than the least finite score: the losses divide by differences of
    scores, and order is all they need."""
    lost = scores == -torch.inf
    least = scores.detach().masked_fill(lost, torch.inf).amin(1, keepdim=True)
    return torch.where(lost, least - 1, scores)
