"""The steps of a training run: the loss gradients at the scores, and the optimisers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from support.common.arguments import choice, class_vector, matrix, number, whole_number
from support.path_kernel import layers
from support.path_kernel.layers import Chain, Gradients, Line

Loss = Callable[[Tensor, Tensor], Tensor]
BETAS, EPS = (0.9, 0.999), 1e-8  # of Adam, as its authors have them


@dataclass(frozen=True)
class Recipe:
    """All that decides a path but its first weights: the chain, the data and the steps.

    Attributes:
        stages: the layers.
        x, y: training points (M, ...) and targets.
        loss: (scores (n, K), targets (n, ...)) -> (n,).
        lr: one per step.
        optimizer: ``sgd`` or ``adam``.
        momentum: what is kept of earlier gradients, of Adam its first beta.
        batches: indices of each step's points.
    """

    stages: Chain
    x: Tensor
    y: Tensor
    loss: Loss
    lr: tuple[float, ...]
    optimizer: str
    momentum: float
    batches: tuple[Tensor, ...]

    @property
    def buffers(self) -> int:
        """Vectors of a state: the weights, and what the optimiser remembers."""
        return 3 if self.optimizer == "adam" else 2 if self.momentum else 1

    @property
    def outputs(self) -> int:
        """K."""
        return self.stages[-1].weight[0]

    def points(self, w: Tensor, index: Tensor) -> Gradients:
        """The factors of the points' gradients, weighted by the loss gradients at the scores."""
        x = self.x[index]
        scores = layers.output(self.stages, w, x).requires_grad_()
        with torch.enable_grad():
            each = self.loss(scores, self.y[index])
            if each.shape != (len(x),):
                raise ValueError(
                    f"loss must give one number per point, shape ({len(x)},); this one gave "
                    f"{tuple(each.shape)}"
                )
            (slope,) = torch.autograd.grad(each.sum(), scores)
        return Line(self.stages, w).factors(x, slope[None])

    def gradient(self, w: Tensor, step: int) -> Tensor:
        """The gradient of the batch's mean loss as a flat vector."""
        pieces = self.batches[step].split(layers.ROWS)
        total = sum(layers.gradient(self.points(w, piece)) for piece in pieces)
        return total / len(self.batches[step])

    def advance(self, state: Tensor, gradient: Tensor, step: int) -> Tensor:
        """The next state: weights and the optimiser's memory (buffers, P)."""
        lr, b1 = self.lr[step], self.momentum
        if self.optimizer == "adam":
            w, m, v = state
            m = b1 * m + (1 - b1) * gradient
            v = BETAS[1] * v + (1 - BETAS[1]) * gradient.square()
            return torch.stack([w - lr / (1 - b1 ** (step + 1)) * m / self.scale(v, step), m, v])
        if b1:
            m = b1 * state[1] + gradient
            return torch.stack([state[0] - lr * m, m])
        return (state[0] - lr * gradient)[None]

    def scale(self, v: Tensor, step: int) -> Tensor:
        """What Adam divides by at a step, from its second moments after it."""
        return (v / (1 - BETAS[1] ** (step + 1))).sqrt() + EPS


def recipe_for(
    stages: Chain,
    x: Tensor,
    y: Tensor,
    lr: float | Sequence[float],
    steps: int,
    loss: str | Loss,
    optimizer: str,
    momentum: float,
    batch_size: int | None,
    seed: int,
) -> Recipe:
    """The recipe of a path, once its arguments, which are those of
    :func:`support.path_kernel.train_path`, fit together.

    Raises:
        ValueError: one does not, or is out of range.
    """
    layers.check_points(stages, x)
    if isinstance(y, Tensor) and y.is_floating_point() and y.shape[:1] == x.shape[:1]:
        y = matrix("y", y).to(x)
    else:
        y = class_vector("y", y, len(x)).to(x.device)
    whole_number("steps", steps, 1)
    rates = lr if isinstance(lr, Sequence) else [lr] * steps
    if len(rates) != steps:
        raise ValueError(f"lr must be a number, or {steps} of them; {len(rates)} were given")
    rates = tuple(number("lr", rate, above=0) for rate in rates)
    momentum = number("momentum", momentum, least=0, below=1)
    if choice("optimizer", optimizer, ("sgd", "adam")) == "adam":
        if momentum:
            raise ValueError(f"momentum is for sgd; {momentum} was given with adam")
        momentum = BETAS[0]
    index = torch.arange(len(x), device=x.device)
    batches = [index] * steps
    if batch_size is not None and whole_number("batch_size", batch_size, 1) < len(x):
        generator, batches = torch.Generator().manual_seed(seed), []
        while len(batches) < steps:
            order = torch.randperm(len(x), generator=generator, device=generator.device)
            batches += order.to(x.device).split(batch_size)
    loss = named_loss(loss, y, stages[-1].weight[0])
    return Recipe(stages, x, y.clone(), loss, rates, optimizer, momentum, tuple(batches[:steps]))


def named_loss(loss: str | Loss, y: Tensor, classes: int) -> Loss:
    """A loss by its name, with the targets judged."""
    if callable(loss):
        return loss
    choice("loss", loss, _LOSSES)
    binary = loss == "binary_cross_entropy"
    if binary and classes != 1:
        raise ValueError(f"{loss} wants a model with one output; this one has {classes}")
    if not y.is_floating_point():
        class_vector("y", y, len(y), 2 if binary else classes)
    elif loss != "squared" or y.shape[1] != classes:
        wanted = f", or targets (M, {classes})" if loss == "squared" else ""
        raise ValueError(f"{loss} wants int64 labels{wanted}; {y.dtype} {tuple(y.shape)} was given")
    return _LOSSES[loss]


def _squared(scores: Tensor, y: Tensor) -> Tensor:
    target = y if y.is_floating_point() else functional.one_hot(y, scores.shape[1]).to(scores)
    return (scores - target).square().sum(1)


def _binary(scores: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(scores[:, 0], y.to(scores), reduction="none")


_LOSSES = {
    "cross_entropy": partial(functional.cross_entropy, reduction="none"),
    "squared": _squared,
    "binary_cross_entropy": _binary,
}
