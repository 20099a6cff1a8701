"""The steps of a training run: the loss gradients at the scores, the optimisers, and the states
that they pass through."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath

import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from support.path_kernel import layers
from support.path_kernel.layers import Factors, Stage

Loss = Callable[[Tensor, Tensor], Tensor]
OPTIMIZERS = ("sgd", "adam")
ROWS = 1024  # points in one pass where memory does not say less


@dataclass(frozen=True)
class Recipe:
    """All that decides a path but its first weights: the chain, the data and the steps.

    Attributes:
        stages: the layers.
        x, y: training points (M, ...) and targets.
        loss: (scores (n, K), targets (n, ...)) -> (n,).
        lr: one per step.
        optimizer: ``sgd`` or ``adam``.
        momentum: of sgd.
        betas, eps: of adam.
        batches: indices of each step's points, or None for all points at every step.
    """

    stages: tuple[Stage, ...]
    x: Tensor
    y: Tensor
    loss: Loss
    lr: tuple[float, ...]
    optimizer: str
    momentum: float
    betas: tuple[float, float]
    eps: float
    batches: tuple[Tensor, ...] | None

    @property
    def buffers(self) -> int:
        """Vectors of a state: the weights, and what the optimiser remembers."""
        return 3 if self.optimizer == "adam" else 2 if self.momentum else 1

    def batch(self, step: int) -> Tensor:
        """Indices of the points of a step."""
        return (
            torch.arange(len(self.x), device=self.x.device)
            if self.batches is None
            else self.batches[step]
        )

    def points(self, w: Tensor, index: Tensor) -> tuple[Tensor, tuple[Factors, ...]]:
        """Loss gradients (n, K) at the scores, for the mean over a batch, and the factors of the
        points' weighted gradients."""
        x, y = self.x[index], self.y[index]
        scores = layers.output(self.stages, w, x).requires_grad_()
        with torch.enable_grad():
            each = self.loss(scores, y)
            if each.shape != (len(x),):
                raise ValueError(
                    f"loss must give one number per point, shape ({len(x)},); this one gave {tuple(each.shape)}"
                )
            (slope,) = torch.autograd.grad(each.sum(), scores)
        return slope, layers.factors(self.stages, w, x, slope[None])[1]

    def gradient(self, w: Tensor, step: int) -> Tensor:
        """The gradient of the batch's mean loss as a flat vector."""
        index = self.batch(step)
        total = sum(
            layers.gradient(self.stages, self.points(w, piece)[1]) for piece in index.split(ROWS)
        )
        return total / len(index)

    def advance(self, state: Tensor, gradient: Tensor, step: int) -> Tensor:
        """The next state: weights and the optimiser's memory (buffers, P)."""
        lr = self.lr[step]
        if self.optimizer == "adam":
            (w, m, v), (b1, b2) = state, self.betas
            m, v = b1 * m + (1 - b1) * gradient, b2 * v + (1 - b2) * gradient.square()
            return torch.stack([w - lr / (1 - b1 ** (step + 1)) * m / self.scale(v, step), m, v])
        if self.momentum:
            m = self.momentum * state[1] + gradient
            return torch.stack([state[0] - lr * m, m])
        return (state[0] - lr * gradient)[None]

    def scale(self, v: Tensor, step: int) -> Tensor:
        """What Adam divides by at a step, from its second moments after it."""
        return (v / (1 - self.betas[1] ** (step + 1))).sqrt() + self.eps


class Folder:
    """States on disk, one safetensors file each."""

    def __init__(self, folder: FilePath, count: int):
        self.folder, self.count = folder, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, step: int) -> Tensor:
        return safetensors.torch.load_file(self.folder / f"state-{step:06d}.safetensors")["state"]

    def __setitem__(self, step: int, state: Tensor) -> None:
        safetensors.torch.save_file(
            {"state": state.contiguous().cpu()}, self.folder / f"state-{step:06d}.safetensors"
        )


class Checkpoints:
    """Every so many states; those between are computed again, a segment at a time."""

    def __init__(self, recipe: Recipe, count: int, every: int):
        self.recipe, self.count, self.every = recipe, count, every
        self._kept: dict[int, Tensor] = {}
        self._segment: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return self.count

    def __setitem__(self, step: int, state: Tensor) -> None:
        if step % self.every == 0:
            self._kept[step] = state

    def __getitem__(self, step: int) -> Tensor:
        if step in self._kept:
            return self._kept[step]
        if step not in self._segment:
            base = step - step % self.every
            state, self._segment = self._kept[base], {}
            for s in range(base, min(base + self.every, self.count) - 1):
                state = self.recipe.advance(state, self.recipe.gradient(state[0], s), s)
                self._segment[s + 1] = state
        return self._segment[step]


def named_loss(loss: str | Loss, y: Tensor, classes: int) -> Loss:
    """A loss by its name, with the targets judged."""
    if callable(loss):
        return loss
    if loss not in _LOSSES:
        raise ValueError(
            f"unknown loss {loss!r}: choose one of {', '.join(_LOSSES)}, or give a function (scores, y) -> (n,)"
        )
    if loss == "binary_cross_entropy":
        if classes != 1 or int(y.max()) > 1 or y.is_floating_point():
            raise ValueError(
                f"binary_cross_entropy wants one output and int64 labels 0 and 1; the model has {classes} outputs"
            )
    elif y.is_floating_point():
        if loss == "cross_entropy" or y.shape[1:] != (classes,):
            wanted = (
                "int64 labels"
                if loss == "cross_entropy"
                else f"int64 labels, or targets (M, {classes})"
            )
            raise ValueError(f"{loss} wants {wanted}; {y.dtype} {tuple(y.shape)} was given")
    elif int(y.max()) >= classes:
        raise ValueError(f"y holds label {int(y.max())}, but the model has {classes} outputs")
    return _LOSSES[loss]


def _squared(scores: Tensor, y: Tensor) -> Tensor:
    target = y if y.is_floating_point() else functional.one_hot(y, scores.shape[1]).to(scores)
    return (scores - target).square().sum(1)


_LOSSES: dict[str, Loss] = {
    "cross_entropy": lambda scores, y: functional.cross_entropy(scores, y, reduction="none"),
    "squared": _squared,
    "binary_cross_entropy": lambda scores, y: functional.binary_cross_entropy_with_logits(
        scores[:, 0], y.to(scores), reduction="none"
    ),
}


def store(recipe: Recipe, w: Tensor, steps: int, memory: float, folder: FilePath | str | None):
    """A place for the states, the cheapest that fits."""
    one = recipe.buffers * w.numel() * w.element_size()
    if folder is not None:
        folder = FilePath(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.glob("state-*.safetensors")):
            raise ValueError(f"{folder} holds the states of another path: give an empty folder")
        return Folder(folder, steps + 1)
    if (steps + 1) * one <= memory:
        return w.new_empty(steps + 1, recipe.buffers, w.numel())
    every = math.isqrt(steps) + 1
    least = (steps // every + 1 + every) * one
    if least > memory:
        raise ValueError(
            f"{steps} steps need {math.ceil((steps + 1) * one / 2**20)} MiB for all states, or {math.ceil(least / 2**20)} MiB with "
            f"checkpoints; memory_mb is {memory / 2**20:g}: raise it, or give a folder"
        )
    return Checkpoints(recipe, steps + 1, every)


def checked(x, y, lr, steps, optimizer, momentum, betas, batch_size, seed, dtype):
    """Judge what can be judged without the model; the points in their dtype, a rate per step, the
    batches."""
    if dtype not in (torch.float64, torch.float32):
        raise ValueError(f"dtype must be torch.float64 or torch.float32; {dtype} was given")
    if (
        not isinstance(x, Tensor)
        or not x.is_floating_point()
        or x.ndim < 2
        or not x.numel()
        or not x.isfinite().all()
    ):
        given = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"x must be a finite floating-point tensor (M, ...) of at least one point; {given} was given"
        )
    labels = isinstance(y, Tensor) and y.dtype == torch.int64 and y.ndim == 1
    if not (labels or (isinstance(y, Tensor) and y.is_floating_point() and y.ndim == 2)) or len(
        y
    ) != len(x):
        given = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(
            f"y must be int64 labels ({len(x)},) or floating-point targets ({len(x)}, K); {given} was given"
        )
    if not (y.isfinite().all() and (y.is_floating_point() or int(y.min()) >= 0)):
        raise ValueError("y must be finite, and labels not negative")
    for name, value in (
        ("steps", steps),
        *([("batch_size", batch_size)] if batch_size is not None else []),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1; {value!r} was given")
    rates = tuple(map(float, lr)) if isinstance(lr, Sequence) else (float(lr),) * steps
    if len(rates) != steps or not all(math.isfinite(rate) and rate > 0 for rate in rates):
        raise ValueError(f"lr must be a positive number, or {steps} of them; {lr!r:.80} was given")
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {optimizer!r}: choose one of {', '.join(OPTIMIZERS)}")
    if not 0 <= momentum < 1 or (momentum and optimizer == "adam"):
        raise ValueError(
            f"momentum must be in [0, 1), and is for sgd; {momentum!r} was given with {optimizer}"
        )
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas must be in [0, 1); {betas!r} was given")
    batches = None
    if batch_size is not None and batch_size < len(x):
        generator, drawn = torch.Generator().manual_seed(seed), []
        while len(drawn) < steps:
            drawn += torch.randperm(len(x), generator=generator).split(batch_size)
        batches = tuple(batch.to(x.device) for batch in drawn[:steps])
    x = x.detach().to(dtype)
    return x, (y.to(dtype) if y.is_floating_point() else y).detach().to(x.device), rates, batches
