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
from torch.func import vjp, vmap
from torch.nn import functional

from support.models.architectures import Classifier, Normalise
from support.models.heads import LinearHead

# Layers without parameters, by what they do to smoothness along a step; a function stands in for a
# module that may work in place.
_SMOOTH = {nn.Tanh: torch.tanh, nn.GELU: None, nn.AvgPool2d: None, nn.AdaptiveAvgPool2d: None}
_KINKED = {nn.ReLU: functional.relu, nn.MaxPool2d: None}
_SHAPE = (Normalise, nn.Flatten, nn.Identity)
SUPPORTED = (
    "Linear, LinearHead, Conv2d (one group, zero padding), ReLU, Tanh, GELU, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, Flatten, Identity, "
    "Normalise"
)


@dataclass(frozen=True)
class Stage:
    """One layer. A layer without parameters has ``weight=()``; ``where`` is its parameters' place
    in the flat vector."""

    name: str
    module: nn.Module
    apply: Callable[[Tensor], Tensor] | None = None
    weight: tuple[int, ...] = ()
    bias: bool = False
    where: tuple[int, int] = (0, 0)

    @property
    def convolution(self) -> bool:
        return len(self.weight) == 4

    def parameters(self, w: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight and bias as views into the flat vector."""
        first, last = self.where
        middle = first + prod(self.weight)
        return w[first:middle].view(self.weight), w[middle:last] if self.bias else None

    def affine(self, w: Tensor, a: Tensor, *, bias: bool = True) -> Tensor:
        """The layer with the parameters ``w`` on its input ``a``."""
        weight, shift = self.parameters(w)
        if self.convolution:
            m = self.module
            return functional.conv2d(
                a, weight, shift if bias else None, m.stride, m.padding, m.dilation
            )
        return functional.linear(a, weight, shift if bias else None)

    def back(self, w: Tensor, delta: Tensor, shape: torch.Size) -> Tensor:
        """Pull (R, ...) gradients of the output back to the input, whose shape without rows is
        ``shape``."""
        weight, _ = self.parameters(w)
        if self.convolution:
            m = self.module
            return nn.grad.conv2d_input(
                (len(delta), *shape), weight, delta, m.stride, m.padding, m.dilation
            )
        return delta @ weight

    def columns(self, a: Tensor) -> Tensor:
        """A convolution's input as (R, q, positions) patches."""
        m = self.module
        return functional.unfold(a, m.kernel_size, m.dilation, m.padding, m.stride)


@dataclass(frozen=True)
class Factors:
    """What a layer's gradients are made of: inputs (R, ...) and, for each of K outputs, gradients
    of the layer's output (K, R, ...)."""

    inputs: Tensor
    deltas: Tensor


def chain(model: nn.Module) -> tuple[Stage, ...]:
    """The stages of a classifier, or of a plain ``nn.Sequential``, in order.

    Raises:
        ValueError: a layer that the kernel does not support, by its name and type; one with
            parameters that occurs twice; no linear layer at the end.
    """
    stages: list[Stage] = []
    _collect(model, "", stages)
    place, seen, placed = 0, set(), []
    for stage in stages:
        if stage.weight:
            if id(stage.module) in seen:
                raise ValueError(
                    f"layer {stage.name} ({type(stage.module).__name__}) occurs twice: shared weights are not supported"
                )
            seen.add(id(stage.module))
            size = prod(stage.weight) + stage.bias * stage.weight[0]
            stage = Stage(
                stage.name, stage.module, None, stage.weight, stage.bias, (place, place + size)
            )
            place += size
        placed.append(stage)
    if not place:
        raise ValueError("the model has no parameters in a supported layer, so no path to speak of")
    if not placed[-1].weight or placed[-1].convolution:
        raise ValueError(
            f"the model must end in a linear layer that gives the scores; it ends in {type(placed[-1].module).__name__}"
        )
    return tuple(placed)


def flat(stages: tuple[Stage, ...], dtype: torch.dtype | None = None) -> Tensor:
    """The parameters as one vector, in the order of the stages."""
    found = [
        p.detach().reshape(-1)
        for s in stages
        if s.weight
        for p in (s.module.weight, s.module.bias)
        if p is not None
    ]
    return torch.cat(found).to(dtype or found[0].dtype)


def kinks(stages: tuple[Stage, ...]) -> bool:
    """Whether the output has kinks in the weights (ReLU, max pooling)."""
    return any(type(s.module) in _KINKED for s in stages)


def one_hidden_relu(stages: tuple[Stage, ...]) -> bool:
    """Whether the chain is linear, ReLU, linear, but for changes of shape and scale before: then a
    step's integrals have a closed form."""
    kinds = [type(s.module) for s in stages if type(s.module) not in _SHAPE]
    linear = (nn.Linear, LinearHead)
    return len(kinds) == 3 and kinds[0] in linear and kinds[1] is nn.ReLU and kinds[2] in linear


def pieces_exact(stages: tuple[Stage, ...]) -> int | None:
    """Gauss-Legendre nodes that integrate a step exactly between kinks; None where no number does.

    Without smooth activations the output of L layers with parameters is, between kinks, a
    polynomial of degree L along the step.
    """
    if any(type(stage.module) in (nn.Tanh, nn.GELU) for stage in stages):
        return None
    return -(-sum(bool(stage.weight) for stage in stages) // 2)


def first_gram(stages: tuple[Stage, ...], x1: Tensor, x2: Tensor) -> Tensor | None:
    """Inner products (N, M) of the inputs of the first layer with parameters, which are the same at
    every step; None for a convolution."""
    for stage in stages:
        if stage.weight:
            return None if stage.convolution else x1 @ x2.T
        x1, x2 = stage.apply(x1), stage.apply(x2)
    raise AssertionError("a chain has a layer with parameters")


def output(stages: tuple[Stage, ...], w: Tensor, x: Tensor) -> Tensor:
    """Scores (N, K)."""
    a = x
    for stage in stages:
        a = stage.affine(w, a) if stage.weight else stage.apply(a)
    return a


def factors(
    stages: tuple[Stage, ...],
    w: Tensor,
    x: Tensor,
    seed: Tensor | None = None,
    *,
    dw: Tensor | None = None,
    t: Tensor | None = None,
):
    """Scores, and the factors of the gradients of every layer with parameters, at the weights w + t
    dw.

    Args:
        x: (R, ...).
        seed: (C, R, K) combinations of outputs whose gradient is wanted; None for each output on
            its own.
        dw: direction of the step, with ``t`` (R,): each row has its own place on it.

    Returns:
        scores (R, K), and a tuple of :class:`Factors`, one for each layer with parameters, in
        order.
    """
    a, inputs, pulls = x, [], []
    for stage in stages:
        if stage.weight:
            inputs.append(a)
            pulls.append(None)
            a = moved(stage, w, dw, t, a)
        else:
            a, pull = vjp(stage.apply, a)
            pulls.append(pull)
    if seed is None:
        eye = torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
        seed = eye[:, None, :].expand(-1, len(a), -1)
    delta, found, left = seed, [], len(inputs)
    for stage, pull in zip(reversed(stages), reversed(pulls), strict=True):
        if pull is not None:
            delta = vmap(pull)(delta)[0]
            continue
        left -= 1
        found.append(Factors(inputs[left], delta))
        if not left:
            break
        shape, rows = inputs[left].shape[1:], delta.reshape(-1, *delta.shape[2:])
        pulled = stage.back(w, rows, shape).reshape(*delta.shape[:2], *shape)
        if dw is not None:
            pulled = pulled + along(t, shape) * stage.back(dw, rows, shape).reshape(
                *delta.shape[:2], *shape
            )
        delta = pulled
    return a, tuple(reversed(found))


def begin(stages: tuple[Stage, ...], w: Tensor, dw: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The first layer's output at w, and its change along dw: its input does not depend on the
    weights."""
    a = x
    for stage in stages:
        if stage.weight:
            return stage.affine(w, a), stage.affine(dw, a)
        a = stage.apply(a)
    raise AssertionError("a chain has a layer with parameters")


def derivative(
    stages: tuple[Stage, ...], w: Tensor, dw: Tensor, first: tuple[Tensor, Tensor], t: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores at w + t dw, their derivative in t, and the inputs of every ReLU, by one pass forward.

    Args:
        first: rows of :func:`begin`.
        t: (R,).

    Returns:
        (R, K), (R, K), (R, units).
    """
    start = next(i for i, stage in enumerate(stages) if stage.weight)
    a, da = first[0] + along(t, first[0].shape[1:]) * first[1], first[1]
    units = []
    for stage in stages[start + 1 :]:
        if stage.weight:
            straight = stage.affine(dw, a)
            da = moved(stage, w, dw, t, da, bias=False) + straight
            a = stage.affine(w, a) + along(t, straight.shape[1:]) * straight
        else:
            if isinstance(stage.module, nn.ReLU):
                units.append(a.reshape(len(a), -1))
            a, da = torch.func.jvp(stage.apply, (a,), (da,))
    return a, da, torch.cat(units, 1) if units else a.new_empty(len(a), 0)


def moved(
    stage: Stage, w: Tensor, dw: Tensor | None, t: Tensor | None, a: Tensor, *, bias: bool = True
) -> Tensor:
    """The layer at the weights w + t dw, where each row has its own t."""
    out = stage.affine(w, a, bias=bias)
    return out if dw is None else out + along(t, out.shape[1:]) * stage.affine(dw, a, bias=bias)


def along(t: Tensor, shape: torch.Size) -> Tensor:
    """(R,) values, shaped to be broadcast over rows of this shape."""
    return t.reshape(-1, *[1] * len(shape))


def gram(
    stages: tuple[Stage, ...],
    left: tuple[Factors, ...],
    right: tuple[Factors, ...],
    *,
    trace: bool = False,
    first: Tensor | None = None,
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
    for i, (stage, a, b) in enumerate(
        zip((s for s in stages if s.weight), left, right, strict=True)
    ):
        da, db = (_joined(f.deltas) if trace else f.deltas for f in (a, b))
        if stage.convolution:
            part = _convolution(stage, a.inputs, da, b.inputs, db)
        else:
            inner = first if i == 0 and first is not None else a.inputs @ b.inputs.T
            part = _outer(da, db).mul_((inner + stage.bias)[None, :, None, :])
        total = part if total is None else total.add_(part)
    return total


def per_point(stages: tuple[Stage, ...], direction: Tensor, points: tuple[Factors, ...]) -> Tensor:
    """Inner products (Q, M) of Q flat vectors with the gradients of M points (factors with one
    combination each)."""
    total = 0
    for stage, f in zip((s for s in stages if s.weight), points, strict=True):
        first, last = stage.where
        middle = first + prod(stage.weight)
        matrix, delta = (
            direction[:, first:middle].reshape(len(direction), stage.weight[0], -1),
            f.deltas[0],
        )
        if stage.convolution:
            flattened = (delta.flatten(2) @ stage.columns(f.inputs).transpose(1, 2)).flatten(1)
            part, sums = direction[:, first:middle] @ flattened.T, delta.flatten(2).sum(2)
        else:
            part, sums = torch.stack([((f.inputs @ one.T) * delta).sum(1) for one in matrix]), delta
        total = total + part
        if stage.bias:
            total = total + direction[:, middle:last] @ sums.T
    return total


def jacobian(stages: tuple[Stage, ...], found: tuple[Factors, ...]) -> Tensor:
    """The gradients themselves, (K, R, P): for few rows only."""
    parts = []
    for stage, f in zip((s for s in stages if s.weight), found, strict=True):
        if stage.convolution:
            parts.append(_weighted(f.deltas.flatten(3), stage.columns(f.inputs)))
        else:
            parts.append((f.deltas[..., :, None] * f.inputs[:, None, :]).flatten(2))
        if stage.bias:
            parts.append(f.deltas.flatten(3).sum(3) if stage.convolution else f.deltas)
    return torch.cat(parts, 2)


def gradient(stages: tuple[Stage, ...], points: tuple[Factors, ...]) -> Tensor:
    """The sum of the points' gradients as one flat vector, from factors with one combination
    each."""
    parts = []
    for stage, f in zip((s for s in stages if s.weight), points, strict=True):
        delta = f.deltas[0]
        if stage.convolution:
            parts.append(
                torch.einsum("rop,rqp->oq", delta.flatten(2), stage.columns(f.inputs)).reshape(-1)
            )
        else:
            parts.append((delta.T @ f.inputs).reshape(-1))
        if stage.bias:
            parts.append(delta.flatten(2).sum((0, 2)) if stage.convolution else delta.sum(0))
    return torch.cat(parts)


def _outer(da: Tensor, db: Tensor) -> Tensor:
    """(K, R, h) and (C, M, h) to (K, R, C, M)."""
    k, r, _ = da.shape
    c, m, _ = db.shape
    return (da.reshape(k * r, -1) @ db.reshape(c * m, -1).T).view(k, r, c, m)


def _joined(delta: Tensor) -> Tensor:
    """(K, R, h, ...) to (1, R, K h, ...): an inner product of these sums over equal outputs."""
    return delta.transpose(0, 1).flatten(1, 2)[None]


def _convolution(stage: Stage, a: Tensor, da: Tensor, b: Tensor, db: Tensor) -> Tensor:
    a, b, da, db = stage.columns(a), stage.columns(b), da.flatten(3), db.flatten(3)
    k, r, out, positions = da.shape
    c, m, q = len(db), len(b), a.shape[1]
    # Multiplications for a pair of points: over the shared weights, or over pairs of positions.
    if k * c * out * q <= positions**2 * (q + k * c * out):
        found = _outer(_weighted(da, a), _weighted(db, b))
        return found.add_(_outer(da.sum(3), db.sum(3))) if stage.bias else found
    inner = (a.transpose(1, 2).reshape(-1, q) @ b.transpose(1, 2).reshape(-1, q).T).view(
        r, positions, m, positions
    ) + stage.bias
    flow = (da.transpose(2, 3).reshape(-1, out) @ db.transpose(2, 3).reshape(-1, out).T).view(
        k, r, positions, c, m, positions
    )
    return torch.einsum("rpmn,krpcmn->krcm", inner, flow)


def _weighted(delta: Tensor, columns: Tensor) -> Tensor:
    """(K, R, out, positions) and (R, q, positions) to (K, R, out q): a convolution's gradients, one
    product for each point."""
    k, r, out, positions = delta.shape
    joined = delta.transpose(0, 1).reshape(r, k * out, positions)
    return torch.bmm(joined, columns.transpose(1, 2)).view(r, k, -1).transpose(0, 1)


def _collect(module: nn.Module, name: str, into: list[Stage]) -> None:
    kind = type(module)
    label = name or "the model"
    if kind is Classifier:
        _collect(module.body, "body", into)
        _collect(module.head, "head", into)
    elif kind is nn.Sequential:
        for child, part in enumerate(
            module
        ):  # named_children would pass over a layer that occurs again
            _collect(part, f"{name}.{child}" if name else child, into)
    elif kind in (nn.Linear, LinearHead):
        into.append(Stage(label, module, None, tuple(module.weight.shape), module.bias is not None))
    elif kind is nn.Conv2d:
        if module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str):
            raise ValueError(
                f"layer {label} (Conv2d) has groups, a padding mode or a named padding that the path kernel does not support"
            )
        into.append(Stage(label, module, None, tuple(module.weight.shape), module.bias is not None))
    elif kind in _SMOOTH or kind in _KINKED or kind in _SHAPE:
        into.append(Stage(label, module, {**_SMOOTH, **_KINKED}.get(kind) or module))
    else:
        raise ValueError(
            f"layer {label} ({kind.__name__}) is not supported by the path kernel; supported: {SUPPORTED}"
        )


def pieces(n: int, rows: int) -> Iterator[slice]:
    """Slices of at most so many rows that cover n."""
    for first in range(0, n, rows):
        yield slice(first, min(first + rows, n))
