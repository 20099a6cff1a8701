"""What the rows of the protocol compute: noise, our own attacks, transfer, and AutoAttack's four
attacks as torchattacks has them.

Every attack maps a :class:`Case` to the margins (n,) at the images that it found, read by our own
pass; below zero is a success.

torchattacks draws from the global generators, switches a model's mode and adds to the ``.grad`` of
its parameters. Here it sees a stand-in that holds none of these, inside copies of the generators'
states.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from support import attacks
from support.attacks.base import Model, even, fast_rows, per_image, score

STEPS = 100
"""Steps of APGD and FAB in AutoAttack's standard version; torchattacks takes 10 unless told."""

TARGETS = 9
"""Rivals that APGD-T and FAB-T try, at most, in AutoAttack's standard version; torchattacks takes
all unless told."""

LEAST_CLASSES = {"APGD-T": 4}
"""Classes that an attack needs: the targeted DLR loss divides by a difference that reaches down to
the fourth score."""

OwnLoss = Callable[[Model, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """One model under attack at one radius.

    Attributes:
        model, peer: from images to log-scores; the peer only where a row needs it.
        x, y: (n, C, H, W) float32 and (n,) int64, the images that the row sees.
        eps: the radius in units of [0,1], above zero.
        seed: of every draw.
        loss_own: the model's training loss ``(model, x, y) -> (n,)``, only where a row needs it.
    """

    model: Model
    x: Tensor
    y: Tensor
    eps: float
    seed: int
    peer: Model | None = None
    loss_own: OwnLoss | None = None

    def generator(self) -> torch.Generator:
        """A fresh CPU generator of the case's seed: all rows and images share its draws."""
        return torch.Generator().manual_seed(self.seed)


def margins(model: Model, x: Tensor, y: Tensor) -> Tensor:
    """(n,) margins of a model's scores, without gradients."""
    return attacks.margin(score(model, x, fast_rows(x, model=model)), y)


def margins_inside(case: Case, found: Tensor) -> Tensor:
    """Margins (n,) at images that someone else returned, cut to the ball and the box first; what is
    no number becomes the clean pixel."""
    low, high = attacks.interval(case.x, case.eps)
    return margins(case.model, torch.where(found.isnan(), case.x, found).clamp(low, high), case.y)


def noise(case: Case, *, draws: int, gaussian: bool) -> Tensor:
    """The least margin over some draws of noise, cut to the ball: uniform on it, or normal with
    standard deviation eps."""
    low, high = attacks.interval(case.x, case.eps)
    stream, least = case.generator(), torch.full(case.y.shape, torch.inf, device=case.x.device)
    for _ in range(draws):
        shape = case.x.shape[1:]
        drawn = (
            torch.randn(shape, generator=stream)
            if gaussian
            else 2 * torch.rand(shape, generator=stream) - 1
        )
        noisy = (case.x + case.eps * drawn.to(case.x.device)).clamp(low, high)
        least = torch.fmin(least, margins(case.model, noisy, case.y))
    return least


def fgsm(case: Case, *, own: bool = False) -> Tensor:
    """One step, along the model's own loss if ``own``."""
    return attacks.fgsm(
        case.model, case.x, case.y, case.eps, loss=case.loss_own if own else "ce"
    ).margin


def bim(case: Case, *, steps: int, own: bool = False) -> Tensor:
    """Steps of length ``eps / steps`` from the image, along the model's own loss if ``own``."""
    return attacks.bim(
        case.model, case.x, case.y, case.eps, steps=steps, loss=case.loss_own if own else "ce"
    ).margin


def pgd(case: Case, *, loss: str, steps: int, restarts: int) -> Tensor:
    """Random starts, cross-entropy (its log-odds, which do not saturate) or margin."""
    settings = {"steps": steps, "restarts": restarts, "generator": case.generator()}
    return attacks.pgd(case.model, case.x, case.y, case.eps, loss=loss, **settings).margin


def pgd_targets(case: Case, *, steps: int, restarts: int, classes: int | None) -> Tensor:
    """The margin towards every other class in turn."""
    settings = {
        "steps": steps,
        "restarts": restarts,
        "classes": classes,
        "generator": case.generator(),
    }
    return attacks.pgd_targets(case.model, case.x, case.y, case.eps, **settings).margin


def hard_label(case: Case, *, queries: int) -> Tensor:
    """RayS, which sees the model's decisions only."""
    return attacks.rays(
        case.model, case.x, case.y, case.eps, queries=queries, generator=case.generator()
    ).margin


def transfer(case: Case, *, steps: int, to_peer: bool) -> Tensor:
    """Images made on one network, judged on the other: the corner of the first step and the end of
    an attack with momentum.

    ``to_peer`` makes them on the model and returns the peer's margins.
    """
    source, judge = (case.model, case.peer) if to_peer else (case.peer, case.model)
    corner = attacks.fgsm(source, case.x, case.y, case.eps).x_adv
    end = _far(source, case, steps)
    return torch.fmin(margins(judge, corner, case.y), margins(judge, end, case.y))


def _far(source: Model, case: Case, steps: int) -> Tensor:
    """MI-FGSM (Dong et al. 2018, Algorithm 1) to its last step, past the first success: what just
    crosses one boundary rarely transfers."""
    low, high = attacks.interval(case.x, case.eps)
    at = case.x.clone()
    for index in torch.arange(len(at), device=at.device).split(
        fast_rows(at, model=source, backward=True)
    ):
        here, velocity = at[index], torch.zeros_like(at[index])
        for _ in range(steps):
            with torch.enable_grad():
                leaf = here.detach().requires_grad_()
                slope = torch.autograd.grad(_log_odds(source(leaf), case.y[index]).sum(), leaf)[
                    0
                ].nan_to_num(0, 0, 0)
            size = slope.abs().flatten(1).mean(1).clamp_min(torch.finfo(slope.dtype).tiny)
            velocity += slope / per_image(size, slope)
            here = (here.detach() + case.eps / steps * velocity.sign()).clamp(
                low[index], high[index]
            )
        at[index] = here
    return at


def _log_odds(scores: Tensor, y: Tensor) -> Tensor:
    own = y[:, None]
    return scores.scatter(1, own, -torch.inf).logsumexp(1) - scores.gather(1, own)[:, 0]


def slope(case: Case, *, own: bool = False) -> Tensor:
    """The largest derivative (n,) by a pixel, absolute, of the textbook's cross-entropy or of the
    model's own loss, at the clean images.

    Zero where no pixel has any, or where it is no number: there an attack that climbs this loss
        stands still.
    """
    loss, found = case.loss_own if own else _cross_entropy, []
    rows = fast_rows(case.x, model=case.model, backward=True)
    for image, label in zip(case.x.split(rows), case.y.split(rows), strict=True):
        with torch.enable_grad():
            leaf = image.detach().clone().requires_grad_()
            values = loss(case.model, leaf, label)
            steep = (
                torch.autograd.grad(values.sum(), leaf, allow_unused=True)[0]
                if values.requires_grad
                else None
            )
        found.append(
            torch.zeros_like(image[:, 0, 0, 0])
            if steep is None
            else steep.nan_to_num(0).abs().flatten(1).amax(1)
        )
    return torch.cat(found)


def _cross_entropy(model: Model, x: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(model(x), y, reduction="none")


def autoattack(case: Case, *, name: str, queries: int = 0) -> Tensor:
    """Margins (n,) at what one attack of AutoAttack's standard version found (Croce and Hein 2020,
    sections 3 to 5).

    Args:
        case: with at least :data:`LEAST_CLASSES` classes.
        name: "APGD-CE", "APGD-T", "FAB-T" or "Square".
        queries: of "Square", for each image.
    """

    def search(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        torchattacks = _torchattacks()
        common = {"norm": "Linf", "eps": case.eps, "seed": case.seed, "n_restarts": 1}
        with torch.no_grad():
            classes = min(model(x[:1]).shape[1], TARGETS + 1)
        if name == "APGD-CE":
            attack = torchattacks.APGD(model, loss="ce", steps=STEPS, **common)
        elif name == "APGD-T":
            attack = torchattacks.APGDT(model, steps=STEPS, n_classes=classes, **common)
        elif name == "FAB-T":
            attack = torchattacks.FAB(
                model, steps=STEPS, multi_targeted=True, n_classes=classes, **common
            )
        else:
            attack = torchattacks.Square(model, n_queries=queries, **common)
        return attack(x, y)

    return _where_right(case, search)


def _torchattacks() -> ModuleType:
    """The library, which imports torchvision: through our one door to it."""
    from support.common.vision import import_torchvision

    import_torchvision()
    import torchattacks

    return torchattacks


def _where_right(case: Case, search: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> Tensor:
    """Margins (n,) after a library's search among the images that are right; the others stay as
    they are."""
    found = case.x.clone()
    right = (~(margins(case.model, case.x, case.y) < 0)).nonzero()[:, 0]
    if len(right):
        with _own_streams(case.seed):
            found[right] = (
                search(_Sealed(case.model, case.x).eval(), case.x[right], case.y[right])
                .detach()
                .to(found.dtype)
            )
    return margins_inside(case, found)


@contextmanager
def _own_streams(seed: int) -> Iterator[None]:
    """Global generators of a given seed; those of before come back, whatever happens."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(
        devices=range(torch.cuda.device_count())
    ):  # torch.manual_seed reaches every GPU
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


class _Sealed(nn.Module):
    """A model as the library may have it: in pieces that are fast, with gradients for images alone,
    and every score finite."""

    def __init__(self, model: Model, x: Tensor):
        super().__init__()
        self._call = (
            model,
        )  # in a tuple it is no part of this module: a change of mode does not reach it
        self._pieces = fast_rows(x, model=model), fast_rows(x, model=model, backward=True)
        self.register_parameter(
            "place", nn.Parameter(x.new_zeros(()), requires_grad=False)
        )  # where the library looks for the device

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return torch.cat(
                [
                    _ByImages.apply(piece, self._call[0])
                    for piece in x.split(even(len(x), self._pieces[1]))
                ]
            )
        with torch.no_grad():
            return torch.cat(
                [_finite(self._call[0](piece)) for piece in x.split(even(len(x), self._pieces[0]))]
            )


class _ByImages(torch.autograd.Function):
    """Scores whose backward pass goes to the images and nowhere else."""

    @staticmethod
    def forward(ctx, x: Tensor, model: Model) -> Tensor:
        with torch.enable_grad():
            ctx.leaf = x.detach().requires_grad_()
            ctx.scores = _finite(model(ctx.leaf))
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
