"""A classifier as a chain of stages on one flat weight vector: its passes, and inner products of
its gradients layer by layer.

The gradient of an output with respect to a linear layer's weight is an outer product Delta a^T of
what flows back and what came in, so that the inner product of two of them is (a . a') (Delta .
Delta'): two Gram matrices and an entrywise product, and no gradient is formed. A convolution sums
over pairs of positions, or, where that costs less, over its few shared weights.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.func import jvp, vjp, vmap
from torch.nn import functional

from support.attacks.base import per_image
from support.models.architectures import Normalise, plain_layers
from support.models.heads import LinearHead

ROWS = 1024
"""Points in one pass where memory does not say less."""

_LINEAR = (nn.Linear, LinearHead)
# Layers without parameters.
_KINKED, _CURVED = (nn.ReLU, nn.MaxPool2d), (nn.Tanh, nn.GELU)
_SHAPE = (Normalise, nn.Flatten, nn.Identity)
_PLAIN = (*_KINKED, *_SHAPE, *_CURVED, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


@dataclass(frozen=True)
class Stage:
    """One layer. A layer without parameters has ``weight=()`` and is ``apply``; ``where`` is the
    place of a layer's parameters in the flat vector."""

    module: nn.Module
    apply: Callable[[Tensor], Tensor] | None = None
    weight: tuple[int, ...] = ()
    bias: bool = False
    where: tuple[int, int] = (0, 0)

    @property
    def convolution(self) -> bool:
        return len(self.weight) == 4

    def parameters(self, w: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight and bias as views into flat vectors (..., P)."""
        first, last = self.where
        middle = first + prod(self.weight)
        weight = w[..., first:middle].unflatten(-1, self.weight)
        return weight, w[..., middle:last] if self.bias else None

    def affine(self, w: Tensor, a: Tensor, *, bias: bool = True) -> Tensor:
        """The layer with the parameters ``w`` on its input ``a``."""
        weight, shift = self.parameters(w)
        shift, m = shift if bias else None, self.module
        if a.ndim != len(self.weight):
            raise ValueError(f"{m} wants inputs of {len(self.weight)} axes, not {tuple(a.shape)}")
        if self.convolution:
            return functional.conv2d(a, weight, shift, m.stride, m.padding, m.dilation)
        return functional.linear(a, weight, shift)

    def back(self, w: Tensor, delta: Tensor, shape: torch.Size) -> Tensor:
        """Pull gradients (K, R, ...) of the output back to the input, whose shape without rows is
        ``shape``."""
        weight, rows = self.parameters(w)[0], delta.flatten(0, 1)
        if self.convolution:
            m, whole = self.module, (len(rows), *shape)
            found = nn.grad.conv2d_input(whole, weight, rows, m.stride, m.padding, m.dilation)
        else:
            found = rows @ weight
        return found.reshape(*delta.shape[:2], *shape)

    def columns(self, a: Tensor) -> Tensor:
        """A convolution's input as (R, q, positions) patches."""
        m = self.module
        return functional.unfold(a, m.kernel_size, m.dilation, m.padding, m.stride)


Chain = tuple[Stage, ...]


@dataclass(frozen=True)
class Factors:
    """What a layer's gradients are made of: inputs (R, ...) and, for each of K outputs, gradients
    of the layer's output (K, R, ...)."""

    stage: Stage
    inputs: Tensor
    deltas: Tensor


Gradients = tuple[Factors, ...]
"""The factors of every layer with parameters, in order: gradients that are not formed."""


def chain(model: nn.Module) -> Chain:
    """The stages of a classifier, or of a plain ``nn.Sequential``, in order.

    Raises:
        ValueError: a layer that the kernel does not support, by its name and type; weights that
            several layers share; no linear layer at the end; what
            :func:`support.models.architectures.refuse_altered` refuses.
    """
    stages, place = [], 0
    for name, module in plain_layers(model):
        kind = type(module)
        if kind in _PLAIN and not getattr(module, "return_indices", False):
            # not a ReLU itself, which may work in place
            stages.append(Stage(module, functional.relu if kind is nn.ReLU else module))
        elif kind in _LINEAR or (kind is nn.Conv2d and _plain(module)):
            weight, bias = tuple(module.weight.shape), module.bias is not None
            size = prod(weight) + bias * weight[0]
            stages.append(Stage(module, None, weight, bias, (place, place + size)))
            place += size
        else:
            others = ", ".join(kind.__name__ for kind in (*_LINEAR, *_PLAIN))
            raise ValueError(
                f"layer {name} ({kind.__name__}) is not supported by the path kernel; supported: "
                f"Conv2d (one group, padded with a number of zeros), {others}"
            )
    if not stages or type(stages[-1].module) not in _LINEAR:
        end = type(stages[-1].module).__name__ if stages else "nothing"
        raise ValueError(
            f"the model must end in a linear layer that gives the scores; it ends in {end}"
        )
    own = [p.data_ptr() for p in parameters(stages)]  # also of two Parameters on one storage
    if len(set(own)) < len(own):
        raise ValueError("two layers share a parameter, which the path kernel would train apart")
    return tuple(stages)


def parameters(stages: Chain) -> list[Tensor]:
    """Weights and biases of the stages' modules, in order."""
    pairs = [(s.module.weight, s.module.bias) for s in stages if s.weight]
    return [p for pair in pairs for p in pair if p is not None]


def flat(stages: Chain) -> Tensor:
    """The parameters as one vector, in the order of the stages."""
    return torch.cat([p.detach().reshape(-1) for p in parameters(stages)])


def kinks(stages: Chain) -> bool:
    """Whether the output has kinks in the weights (ReLU, max pooling)."""
    return any(type(s.module) in _KINKED for s in stages)


def one_hidden_relu(stages: Chain) -> bool:
    """Whether the chain is linear, ReLU, linear, but for changes of shape and scale before: then a
    step's integrals have a closed form."""
    kinds = [type(s.module) for s in stages if type(s.module) not in _SHAPE]
    return len(kinds) == 3 and kinds[0] in _LINEAR and kinds[1] is nn.ReLU and kinds[2] in _LINEAR


def pieces_exact(stages: Chain) -> int | None:
    """Gauss-Legendre nodes that integrate a step exactly between kinks; None where no number does.

    Without smooth activations the output of L layers with parameters is, between kinks, a
    polynomial of degree L along the step.
    """
    if any(type(stage.module) in _CURVED for stage in stages):
        return None
    return -(-sum(bool(stage.weight) for stage in stages) // 2)


def entrance(stages: Chain, x: Tensor) -> tuple[Stage, Tensor]:
    """The first stage with parameters, and its input: the same for all weights."""
    first = next(i for i, stage in enumerate(stages) if stage.weight)
    for stage in stages[:first]:
        x = stage.apply(x)
    return stages[first], x


def first_gram(stages: Chain, x1: Tensor, x2: Tensor) -> Tensor | None:
    """Inner products (N, M) of the inputs of the first layer with parameters, which are the same at
    every step; None for a convolution."""
    (first, a1), (_, a2) = entrance(stages, x1), entrance(stages, x2)
    return None if first.convolution else a1 @ a2.T


def output(stages: Chain, w: Tensor, x: Tensor) -> Tensor:
    """Scores (N, K)."""
    for stage in stages:
        x = stage.affine(w, x) if stage.weight else stage.apply(x)
    return x


def check_points(stages: Chain, x: Tensor) -> None:
    """Raise a ValueError where the layers do not take points like ``x`` (N, ...)."""
    try:
        if len(output(stages, flat(stages), x[:1])) > 1:
            raise ValueError("it makes several rows of one point")
    except (RuntimeError, ValueError) as error:  # how torch says that shapes do not fit
        shape = tuple(x.shape[1:])
        raise ValueError(f"the model does not take points of shape {shape}: {error}") from error


def every_output(scores: Tensor) -> Tensor:
    """(K, N, K) from (N, K): the combinations that are one output each."""
    eye = torch.eye(scores.shape[1], dtype=scores.dtype, device=scores.device)
    return eye[:, None, :].expand(-1, len(scores), -1)


@dataclass(frozen=True)
class Line:
    """A chain at the weights w + t dw, where every row has its own place t (R,); without ``dw`` at
    the weights w."""

    stages: Chain
    w: Tensor
    dw: Tensor | None = None

    def factors(self, x: Tensor, seed: Tensor | None = None, t: Tensor | None = None) -> Gradients:
        """The factors of the gradients of every layer with parameters, in order.

        Args:
            x: (R, ...).
            seed: (C, R, K) combinations of outputs whose gradient is wanted; None for each output
                on its own.
            t: (R,), where there is a ``dw``.
        """
        a, passed = x, []
        for stage in self.stages:
            if stage.weight:
                passed.append((stage, a, None))
                a = self._moved(stage, t, a)
            else:
                a, pull = vjp(stage.apply, a)
                passed.append((stage, None, pull))
        delta, found = every_output(a) if seed is None else seed, []
        for stage, inputs, pull in reversed(passed):
            if pull is not None:
                delta = vmap(pull)(delta)[0]
                continue
            found.append(Factors(stage, inputs, delta))
            if stage.where[0] == 0:  # nothing before it has parameters
                break
            pulled = stage.back(self.w, delta, inputs.shape[1:])
            if self.dw is not None:
                along = stage.back(self.dw, delta, inputs.shape[1:])
                pulled = pulled + per_image(t, inputs) * along
            delta = pulled
        return tuple(reversed(found))

    def begin(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The first layer's output at w, and its change along dw."""
        first, a = entrance(self.stages, x)
        return first.affine(self.w, a), first.affine(self.dw, a)

    def derivative(self, first: tuple[Tensor, Tensor], t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores at w + t dw, their derivative in t, and the inputs of every ReLU, by one pass
        forward.

        Args:
            first: rows of :meth:`begin`.
            t: (R,).

        Returns:
            (R, K), (R, K), (R, units).
        """
        start = next(i for i, stage in enumerate(self.stages) if stage.weight)
        a, da = first[0] + per_image(t, first[0]) * first[1], first[1]
        units = [a.new_empty(len(a), 0)]
        for stage in self.stages[start + 1 :]:
            if stage.weight:
                straight = stage.affine(self.dw, a)
                da = self._moved(stage, t, da, bias=False) + straight
                a = stage.affine(self.w, a) + per_image(t, straight) * straight
            else:
                if isinstance(stage.module, nn.ReLU):
                    units.append(a.reshape(len(a), -1))
                a, da = jvp(stage.apply, (a,), (da,))
        return a, da, torch.cat(units, 1)

    def _moved(self, stage: Stage, t: Tensor | None, a: Tensor, *, bias: bool = True) -> Tensor:
        """The layer on its input, each row at its own weights."""
        out = stage.affine(self.w, a, bias=bias)
        if self.dw is None:
            return out
        return out + per_image(t, out) * stage.affine(self.dw, a, bias=bias)


def gram(
    left: Gradients, right: Gradients, trace: bool = False, first: Tensor | None = None
) -> Tensor:
    """Inner products of the gradients of R x K outputs with those of M x C outputs, summed over the
    layers.

    Args:
        left, right: factors of the same chain.
        trace: sum over pairs of equal outputs (K = C).
        first: (R, M) inner products of the first layer's inputs, where the caller has them.

    Returns:
        (K, R, C, M), or (1, R, 1, M) with ``trace``.
    """
    total = None
    for a, b in zip(left, right, strict=True):
        da, db = (_joined(f.deltas) if trace else f.deltas for f in (a, b))
        if a.stage.convolution:
            part = _convolution(a.stage, a.inputs, da, b.inputs, db)
        else:
            inner = a.inputs @ b.inputs.T if first is None or total is not None else first
            part = _outer(da, db).mul_((inner + a.stage.bias)[None, :, None, :])
        total = part if total is None else total.add_(part)
    return total


def tangent(stages: Chain, w: Tensor, x1: Tensor, x2: Tensor, trace: bool, memory: int) -> Tensor:
    """The tangent kernel at fixed weights, as :func:`gram` has it, in pieces that fit."""
    rows = rows_within(stages, x1, 1 if trace else stages[-1].weight[0], memory)
    line, parts = Line(stages, w), []
    right = [line.factors(part) for part in x2.split(rows)]
    for part in x1.split(rows):
        left = line.factors(part)
        parts.append(torch.cat([gram(left, one, trace) for one in right], 3))
    return torch.cat(parts, 1)


def per_point(direction: Tensor, points: Gradients) -> Tensor:
    """Inner products (Q, M) of Q flat vectors with the gradients of M points (factors with one
    combination each)."""
    total = 0
    for f in points:
        (weight, bias), delta = f.stage.parameters(direction), f.deltas[0]
        if f.stage.convolution:
            flattened = (delta.flatten(2) @ f.stage.columns(f.inputs).transpose(1, 2)).flatten(1)
            part, sums = weight.flatten(1) @ flattened.T, delta.flatten(2).sum(2)
        else:
            part = torch.stack([((f.inputs @ one.T) * delta).sum(1) for one in weight])
            sums = delta
        total = total + part
        if bias is not None:
            total = total + bias @ sums.T
    return total


def jacobian(found: Gradients) -> Tensor:
    """The gradients themselves, (K, R, P): for few rows only."""
    parts = []
    for f in found:
        if f.stage.convolution:
            parts.append(_patched(f.deltas.flatten(3), f.stage.columns(f.inputs)))
        else:
            parts.append((f.deltas[..., :, None] * f.inputs[:, None, :]).flatten(2))
        if f.stage.bias:
            parts.append(f.deltas.flatten(3).sum(3) if f.stage.convolution else f.deltas)
    return torch.cat(parts, 2)


def gradient(points: Gradients) -> Tensor:
    """The sum of the points' gradients as one flat vector, from factors with one combination
    each."""
    parts = []
    for f in points:
        delta = f.deltas[0]
        if f.stage.convolution:
            weight = torch.einsum("rop,rqp->oq", delta.flatten(2), f.stage.columns(f.inputs))
        else:
            weight = delta.T @ f.inputs
        parts.append(weight.reshape(-1))
        if f.stage.bias:
            parts.append(delta.flatten(2).sum((0, 2)) if f.stage.convolution else delta.sum(0))
    return torch.cat(parts)


def pieces(n: int, rows: int) -> Iterator[slice]:
    """Slices of at most so many rows that cover n."""
    for first in range(0, n, rows):
        yield slice(first, min(first + rows, n))


def rows_within(stages: Chain, x: Tensor, outputs: int, memory: int) -> int:
    """Points like ``x`` (N, ...) in one pass that keeps every layer's input and, for so many
    outputs, what flows back, within so many bytes."""
    size = x[0].numel()
    positions = size if any(stage.convolution for stage in stages) else 1
    widest = max(size, *(stage.weight[0] * positions for stage in stages if stage.weight))
    return max(1, min(ROWS, memory // (8 * (outputs + 1) * widest * x.element_size())))


def _outer(da: Tensor, db: Tensor) -> Tensor:
    """(K, R, h) and (C, M, h) to (K, R, C, M)."""
    found = da.reshape(-1, da.shape[2]) @ db.reshape(-1, db.shape[2]).T
    return found.view(*da.shape[:2], *db.shape[:2])


def _joined(delta: Tensor) -> Tensor:
    """(K, R, h, ...) to (1, R, K h, ...): an inner product of these sums over equal outputs."""
    return delta.transpose(0, 1).flatten(1, 2)[None]


def _convolution(stage: Stage, a: Tensor, da: Tensor, b: Tensor, db: Tensor) -> Tensor:
    a, b, da, db = stage.columns(a), stage.columns(b), da.flatten(3), db.flatten(3)
    k, _, out, positions = da.shape
    c, q = len(db), a.shape[1]
    # Multiplications for a pair of points: over the shared weights, or over pairs of positions.
    if k * c * out * q <= positions**2 * (q + k * c * out):
        found = _outer(_patched(da, a), _patched(db, b))
        return found.add_(_outer(da.sum(3), db.sum(3))) if stage.bias else found
    inner = _outer(a.transpose(1, 2), b.transpose(1, 2)) + stage.bias
    flow = _outer(da.transpose(2, 3).flatten(1, 2), db.transpose(2, 3).flatten(1, 2))
    flow = flow.view(k, len(a), positions, c, len(b), positions)
    return torch.einsum("rpmn,krpcmn->krcm", inner, flow)


def _patched(delta: Tensor, columns: Tensor) -> Tensor:
    """(K, R, out, positions) and (R, q, positions) to (K, R, out q): a convolution's gradients, one
    product for each point."""
    joined = delta.transpose(0, 1).flatten(1, 2)
    found = torch.bmm(joined, columns.transpose(1, 2))
    return found.view(len(columns), len(delta), -1).transpose(0, 1)


def _plain(m: nn.Conv2d) -> bool:
    return m.groups == 1 and m.padding_mode == "zeros" and not isinstance(m.padding, str)
