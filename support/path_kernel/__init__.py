"""The path kernel: a network trained by gradient steps, written exactly as a kernel machine over
its training points.

Along one step from w to w + dw, the output of a query x changes by the integral of <grad f(x) at w
+ t dw, dw> over t in [0, 1], and dw is a sum of gradients at training points. So (bell2023, Theorem
14.5 and Remark 1; chapter 6)

    f_S(x) = f_0(x) + sum_i sum_s a_is k_s(x, x_i),
    k_s(x, x') = < integral of grad f(x) over the step, grad f(x') at its start >,

with one K x K matrix k_s for every pair of points, for K outputs, and a_is = -lr_s / B_s dL/df at
x_i. The first argument is averaged over the step and the second taken at its start: k_s is not
symmetric, and the sum is exact for every x, on the training set and off it.

Nothing here forms the gradient of an output, but :func:`ntk_by_jacobian`, by which the rest is
tested: see :mod:`support.path_kernel.layers` for the inner products of two of them and
:mod:`support.path_kernel.quadrature` for the integrals. Every prediction comes with its residual
against the network itself.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from support.common.arguments import choice, described, points, whole_number
from support.path_kernel import layers, quadrature
from support.path_kernel.layers import ROWS, Factors, Gradients, Line
from support.path_kernel.quadrature import Rule
from support.path_kernel.steps import Loss, Recipe, recipe_for

__all__ = ["Path", "Prediction", "Recipe", "ntk", "ntk_by_jacobian", "train_path"]


@dataclass(frozen=True)
class Prediction:
    """What the kernel machine says, beside what the network says.

    Attributes:
        scores: (N, K), the start plus the sum over training points and steps.
        residual: (N, K), ``scores`` minus the network's own scores.
        start: (N, K), the network's scores before training: kept, so that a start that is not
            constant costs no exactness.
        network: (N, K), the network's scores after training.
        step_residual: (S,), the largest absolute residual of each step's change; empty where only
            contributions were asked for.
        nodes: at how many places of the steps a query was looked at, summed over queries and steps;
            0 for the closed form.
        contributions: (N, M, K), what every training point adds to the scores, signed; None unless
            asked for.
    """

    scores: Tensor
    residual: Tensor
    start: Tensor
    network: Tensor
    step_residual: Tensor
    nodes: int
    contributions: Tensor | None = None


@dataclass(frozen=True)
class Path:
    """A training run as its weights before every step and after the last. Made by
    :func:`train_path`.

    Attributes:
        model: the untrained classifier in the path's dtype; :meth:`model_at` has the others.
        recipe: data and steps.
        states: (S + 1, buffers, P), the state before each step and after the last, weights first.
        memory: bytes that contributions and kernels may take at a time.
    """

    model: nn.Module
    recipe: Recipe
    states: Tensor
    memory: int

    @property
    def steps(self) -> int:
        return len(self.recipe.lr)

    def weights(self, step: int) -> Tensor:
        """The weights before step ``step`` (after the last for ``steps``), as one flat vector
        (P,)."""
        return self.states[whole_number("step", step, 0, self.steps), 0]

    def model_at(self, step: int) -> nn.Module:
        """The classifier before step ``step``, a copy."""
        model = copy.deepcopy(self.model)
        own = layers.parameters(layers.chain(model))
        parts = self.weights(step).split([p.numel() for p in own])
        with torch.no_grad():
            for parameter, part in zip(own, parts, strict=True):
                parameter.copy_(part.view_as(parameter))
        return model

    @torch.inference_mode(False)
    def predict(
        self,
        xq: Tensor,
        *,
        rule: str = "auto",
        nodes: int | None = None,
        tolerance: float | None = None,
    ) -> Prediction:
        """The kernel machine's scores, with the sums over training points taken first.

        The order of summation is free: a step's points are summed once for all queries, and a query
        then needs forward passes only. The sums are computed anew from the training points, and a
        step that does not lead to the recorded next state is refused.

        Args:
            xq: (N, ...) queries, shaped as the training points.
            rule: ``auto`` takes ``closed`` for one hidden ReLU layer, else ``adaptive`` (see
                :mod:`support.path_kernel.quadrature`); ``gauss``, ``midpoint`` and ``left`` have
                ``nodes`` places per step. ``left`` with one node takes both arguments at the step's
                start: bell2023's symmetric kernel (Eq. 11 and 14) for queries that are training
                points.
            nodes: per step, or per piece of a step for ``adaptive``.
            tolerance: of ``adaptive``, relative, per piece; default 2e-14 in float64 and 1e-5 in
                float32.

        Raises:
            ValueError: queries of another shape or dtype, an unknown rule, or states that the
                recorded steps do not lead to.
        """
        xq, plan = self._queries(xq), self._rule(rule, nodes, tolerance)
        recipe, rows = self.recipe, self._rows(self.recipe.outputs)
        start = now = scores = self._scores(0, xq)
        looked, largest = 0, []
        for step, state in enumerate(self.states[:-1]):
            line = self._checked(step, recipe.gradient(state[0], step))
            after, change = self._scores(step + 1, xq), []
            for piece in layers.pieces(len(xq), rows):
                ends = now[piece], after[piece]
                found = quadrature.integrate(plan, line, xq[piece], ends)
                change.append(found.change)
                looked += len(found.t)
            change = torch.cat(change)
            scores = scores + change
            largest.append((change - (after - now)).abs().max())
            now = after
        return Prediction(scores, scores - now, start, now, torch.stack(largest), looked)

    def residual(self, xq: Tensor, **options) -> Tensor:
        """Prediction minus network, (N, K): :meth:`predict` with the same options."""
        return self.predict(xq, **options).residual

    @torch.inference_mode(False)
    def contributions(
        self,
        xq: Tensor,
        *,
        steps: Sequence[int] | None = None,
        rule: str = "auto",
        nodes: int | None = None,
        tolerance: float | None = None,
    ) -> Prediction:
        """What every training point adds to the scores of every query, summed over the steps:
        signed sample importance.

        The residual judges the sum over the points; with smooth activations and long steps a single
        contribution may be off by more (4 Gauss-Legendre nodes for all), and ``rule="gauss"`` with
        more nodes tells by how much.

        Costs N x M x K for each step. With momentum or Adam a point's gradient at one step moves
        the weights at all later ones, scaled entry by entry; the sums then run backwards over the
        steps and hold one vector of P numbers for each query and output.

        Args:
            xq, rule, nodes, tolerance: as in :meth:`predict`.
            steps: count only the gradients of these steps, such as ``range(10)``; ``scores`` and
                ``residual`` are then NaN.

        Raises:
            ValueError: as :meth:`predict`, and where the path's memory does not hold the result.
        """
        xq, chosen = self._queries(xq), self._chosen(steps)
        plan = self._rule(rule, nodes, tolerance)
        total = _room((self.recipe.outputs, len(xq), len(self.recipe.x)), xq, self.memory)
        add = self._add_across if self.recipe.buffers > 1 else self._add_steps
        looked = add(total, xq, plan, chosen)
        start, network = self._scores(0, xq), self._scores(self.steps, xq)
        found = total.permute(1, 2, 0)
        whole = len(chosen) == self.steps
        scores = start + found.sum(1) if whole else torch.full_like(start, torch.nan)
        none = start.new_empty(0)
        return Prediction(scores, scores - network, start, network, none, looked, found)

    @torch.inference_mode(False)
    def kernel(
        self,
        xq: Tensor,
        x2: Tensor | None = None,
        *,
        steps: Sequence[int] | None = None,
        both: bool = False,
        trace: bool = False,
        rule: str = "auto",
        nodes: int | None = None,
    ) -> Tensor:
        """The path kernel, summed over the steps (bell2023, Eq. 16; with ``both``, Eq. 11 for two
        points off the training set).

        Args:
            xq: (N, ...), the first argument, averaged along each step.
            x2: (M, ...), the second argument, at each step's start; default the training points.
            steps: only these, such as ``range(0, 300, 10)``.
            both: average the product along the step, both arguments at the same place: symmetric
                and positive semi-definite. It has no free residual, so that ``auto`` means 4
                Gauss-Legendre nodes, or 16 midpoints where there are kinks.
            trace: sum over pairs of equal outputs.
            rule, nodes: as in :meth:`predict`.

        Returns:
            (N, M, K, K), entry [n, m, j, k] from output j of query n and output k of point m; or
            (N, M) with ``trace``. Not weighted by the loss or the learning rate. With momentum or
            Adam it is the kernel of the states, and no prediction is a sum of it alone.

        Raises:
            ValueError: as :meth:`predict`, and where the path's memory does not hold the result.
        """
        xq, stages, chosen = self._queries(xq), self.recipe.stages, self._chosen(steps)
        x2 = self.recipe.x if x2 is None else self._queries(x2)
        if both and rule == "auto":
            rule, nodes = ("midpoint", 16) if layers.kinks(stages) else ("gauss", 4)
        if both:
            choice("rule of two averages along a step", rule, quadrature.FIXED)
        plan, outputs = self._rule(rule, nodes), 1 if trace else self.recipe.outputs
        total = _room((outputs, len(xq), outputs, len(x2)), xq, self.memory)
        inner = None if both else layers.first_gram(stages, xq, x2)
        for step in chosen:
            line = self._line(step)
            if both:
                for place, share in zip(*quadrature.fixed_rule(rule, nodes), strict=True):
                    here = line.w + float(place) * line.dw
                    total += float(share) * layers.tangent(stages, here, xq, x2, trace, self.memory)
                continue
            for piece in layers.pieces(len(x2), self._rows(outputs)):
                right = Line(stages, line.w).factors(x2[piece])
                for row, weight, left in self._left(plan, line, xq, outputs**2 * len(x2[piece])):
                    first = None if inner is None else inner[row, piece]
                    block = layers.gram(left, right, trace, first)
                    total[..., piece].index_add_(1, row, block * weight[None, :, None, None])
        return total[0, :, 0] if trace else total.permute(1, 3, 0, 2)

    def _add_steps(self, total: Tensor, xq: Tensor, plan: Rule, chosen: Sequence[int]) -> int:
        """Contributions of plain gradient steps: total (K, N, M), step by step. Returns the number
        of places looked at."""
        recipe, looked = self.recipe, 0
        inner = layers.first_gram(recipe.stages, xq, recipe.x)
        for step in chosen:
            line, index, gradient = self._line(step), recipe.batches[step], 0
            for piece in index.split(self._rows(1)):
                right = recipe.points(line.w, piece)
                part, seen = total.new_zeros(*total.shape[:2], len(piece)), 0
                for row, weight, left in self._left(plan, line, xq, len(total) * len(piece)):
                    first = None if inner is None else inner[row][:, piece]
                    block = layers.gram(left, right, first=first)[:, :, 0]
                    part.index_add_(1, row, block * weight[None, :, None])
                    seen += len(row) * (plan.name != "closed")
                total.index_add_(2, piece, part, alpha=-recipe.lr[step] / len(index))
                gradient = gradient + layers.gradient(right)
            looked += seen  # the same for every piece
            self._checked(step, gradient / len(index))
        return looked

    def _add_across(self, total: Tensor, xq: Tensor, plan: Rule, chosen: Sequence[int]) -> int:
        """Contributions of steps with memory: how the scores answer to each step's gradient,
        accumulated from the last step back. Returns the number of places looked at."""
        recipe, looked, keep = self.recipe, 0, self.recipe.momentum
        classes, size = len(total), self.states.shape[2]
        one = 4 * classes * size * xq.element_size()
        if one > self.memory:
            raise ValueError(
                f"contributions of this path need {math.ceil(one / 2**20)} MiB for one query; the "
                f"path's memory is {self.memory / 2**20:.0f} MiB"
            )
        for piece in layers.pieces(len(xq), self.memory // one):
            x = xq[piece]
            answer = x.new_zeros(classes, len(x), size)
            for step in reversed(range(chosen[0], self.steps)):
                line, gradient = self._line(step), 0
                index, mean = recipe.batches[step], torch.zeros_like(answer)
                for row, weight, left in self._left(plan, line, x, 2 * classes * size):
                    mean.index_add_(1, row, layers.jacobian(left) * weight[None, :, None])
                    looked += len(row) * (plan.name != "closed")
                if recipe.optimizer == "adam":
                    second = self.states[step + 1][2]
                    mean *= (1 - keep) / (1 - keep ** (step + 1)) / recipe.scale(second, step)
                answer.mul_(keep).add_(mean, alpha=recipe.lr[step])
                for some in index.split(self._rows(1)):
                    right = recipe.points(line.w, some)
                    gradient = gradient + layers.gradient(right)
                    if step in chosen:
                        part = layers.per_point(answer.flatten(0, 1), right) / len(index)
                        total[:, piece, :][:, :, some] -= part.view(classes, len(x), -1)
                self._checked(step, gradient / len(index))
        return looked

    def _left(
        self, plan: Rule, line: Line, xq: Tensor, width: int
    ) -> Iterator[tuple[Tensor, Tensor, Gradients]]:
        """The first arguments of a step's kernel: pieces of (query index, weight, factors),
        ``width`` numbers to each of their rows."""
        limit = max(1, min(ROWS, self.memory // (4 * width * xq.element_size())))
        for piece in layers.pieces(len(xq), self._rows(self.recipe.outputs)):
            x = xq[piece]
            nodes = quadrature.integrate(plan, line, x)
            for some in layers.pieces(len(nodes.row), limit):
                row, found = nodes.row[some], nodes.factors
                if found is None:
                    left = line.factors(x[row], t=nodes.t[some])
                else:
                    left = tuple(Factors(f.stage, f.inputs[some], f.deltas[:, some]) for f in found)
                yield row + piece.start, nodes.weight[some], left

    def _line(self, step: int) -> Line:
        """The weights between two recorded states."""
        w = self.weights(step)
        return Line(self.recipe.stages, w, self.weights(step + 1) - w)

    def _rule(self, name: str, nodes: int | None, tolerance: float | None = None) -> Rule:
        return quadrature.rule_for(self.recipe.stages, self.recipe.x.dtype, name, nodes, tolerance)

    def _rows(self, outputs: int) -> int:
        return layers.rows_within(self.recipe.stages, self.recipe.x, outputs, self.memory)

    def _chosen(self, steps: Sequence[int] | None) -> list[int]:
        chosen = sorted(range(self.steps) if steps is None else steps)
        if not chosen or sorted(set(chosen) & set(range(self.steps))) != chosen:
            raise ValueError(
                f"steps must be different numbers from 0 to {self.steps - 1}, at least one; "
                f"{steps!r:.80} was given"
            )
        return chosen

    def _queries(self, xq: Tensor) -> Tensor:
        own = self.recipe.x
        if points("queries", xq).shape[1:] != own.shape[1:]:
            raise ValueError(
                f"queries must have the shape (N, {', '.join(map(str, own.shape[1:]))}); "
                f"{described(xq)} was given"
            )
        return xq.detach().clone().to(own)

    def _scores(self, step: int, xq: Tensor) -> Tensor:
        w = self.weights(step)
        return torch.cat([layers.output(self.recipe.stages, w, part) for part in xq.split(ROWS)])

    def _checked(self, step: int, gradient: Tensor) -> Line:
        """Where a step leads from the recorded weights, by its points' gradients.

        Raises:
            ValueError: the next recorded state is another one.
        """
        w, recorded = self.weights(step), self.weights(step + 1)
        moved = self.recipe.advance(self.states[step], gradient, step)[0]
        dw, rounding = moved - w, torch.finfo(w.dtype).eps
        allowed = 1e3 * rounding * (w.norm() + dw.norm()) + rounding**0.5 * dw.norm()
        if not (moved - recorded).norm() <= allowed:
            raise ValueError(
                f"the path's states do not match its steps: step {step} from the recorded weights "
                f"leads {float((moved - recorded).norm()):.3g} away from the recorded next ones, "
                f"for a step of length {float(dw.norm()):.3g}"
            )
        return Line(self.recipe.stages, w, dw)


@torch.inference_mode(False)
def train_path(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    lr: float | Sequence[float],
    steps: int,
    loss: str | Loss = "cross_entropy",
    optimizer: str = "sgd",
    momentum: float = 0.0,
    batch_size: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    memory_mb: float = 1024,
) -> Path:
    """Train a copy of ``model`` by gradient steps and keep its weights before each of them.

    Args:
        model: a :class:`support.models.architectures.Classifier` or ``nn.Sequential`` of supported
            layers, ending in a linear one; left as it is.
        x: (M, ...) training points.
        y: (M,) int64 labels, or (M, K) floating-point targets, whatever the loss takes.
        lr: step size on the *mean* of the batch's losses, one for all or one per step. bell2023's
            epsilon, on a sum, is lr / M.
        steps: S, at least 1.
        loss: ``cross_entropy``, ``squared`` (summed over the outputs), ``binary_cross_entropy``
            (one output, labels 0 and 1, on its sigmoid), or a function (scores (n, K), y (n, ...))
            -> (n,).
        optimizer: ``sgd``, or ``adam`` with its authors' constants.
        momentum: of sgd, in [0, 1).
        batch_size: points per step; None takes all of them, forward Euler. An epoch is a
            permutation drawn from ``seed``, cut up.
        seed: of the batches.
        dtype: float64 or float32, of everything.
        memory_mb: budget for the states, and again for contributions and kernels.

    Raises:
        ValueError: inputs that do not fit together or are out of range, an unsupported layer, a
            parameter that two layers share, hooks, parameters of which only some are frozen, or a
            budget that does not hold the states.
        FloatingPointError: the weights became infinite or NaN.
    """
    if dtype not in (torch.float64, torch.float32):
        raise ValueError(f"dtype must be torch.float64 or torch.float32; {dtype} was given")
    free = {p.requires_grad for p in layers.parameters(layers.chain(model))}
    if len(free) > 1:
        raise ValueError(
            "some parameters are frozen, and a path trains all: thaw or freeze them all"
        )
    x = points("x", x).detach().clone().to(dtype)
    own = copy.deepcopy(model).to(device=x.device, dtype=dtype).requires_grad_(False).eval()
    stages = layers.chain(own)
    recipe = recipe_for(stages, x, y, lr, steps, loss, optimizer, momentum, batch_size, seed)
    memory, w = int(memory_mb * 2**20), layers.flat(recipe.stages)
    states = _room((steps + 1, recipe.buffers, len(w)), w, memory)
    states[0, 0] = w
    for step in range(steps):
        gradient = recipe.gradient(states[step, 0], step)
        states[step + 1] = recipe.advance(states[step], gradient, step)
        if not states[step + 1].isfinite().all():
            raise FloatingPointError(
                f"the weights are no longer finite after step {step}: take a smaller lr than "
                f"{recipe.lr[step]:g}"
            )
    return Path(own, recipe, states, memory)


@torch.inference_mode(False)
def ntk(
    model: nn.Module,
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    trace: bool = False,
    memory_mb: float = 1024,
) -> Tensor:
    """The tangent kernel <grad f_j(x), grad f_k(x')> of a model as it is, all its parameters
    counted, without its gradients: :func:`ntk_by_jacobian` is the definition.

    Args:
        model: a classifier of supported layers (see :func:`train_path`); floating-point type and
            device as ``x1``.
        x1: (N, ...); ``x2`` (M, ...), default ``x1``.
        trace: sum over equal outputs.
        memory_mb: budget for the result and for the work.

    Returns:
        (N, M, K, K), or (N, M) with ``trace``.

    Raises:
        ValueError: an unsupported layer, a parameter that two layers share, hooks, inputs of two
            shapes, NaN, or a result that exceeds the budget.
    """
    stages, memory = layers.chain(model), int(memory_mb * 2**20)
    w = layers.flat(stages)
    x2 = x1 if x2 is None else x2
    for name, x in (("x1", x1), ("x2", x2)):
        if points(name, x).dtype != w.dtype or x.shape[1:] != x1.shape[1:]:
            raise ValueError(
                f"x1 and x2 must be of the weights' dtype, {w.dtype}, and of one shape; {name} is "
                f"{described(x)}"
            )
    layers.check_points(stages, x1)
    outputs = 1 if trace else stages[-1].weight[0]
    _room((outputs, len(x1), outputs, len(x2)), w, memory)
    x1, x2 = x1.detach().clone(), x2.detach().clone()
    block = layers.tangent(stages, w, x1, x2, trace, memory)
    return block[0, :, 0] if trace else block.permute(1, 3, 0, 2)


def ntk_by_jacobian(model: nn.Module, x1: Tensor, x2: Tensor | None = None) -> Tensor:
    """The tangent kernel as it is defined: all gradients, and then their inner products.

    It is what :func:`ntk` is tested against, for any model, at the price of N x K x P numbers.

    Args:
        model: any module from points to scores that ``torch.func`` can follow.
        x1: (N, ...); ``x2`` (M, ...), default ``x1``.

    Returns:
        (N, M, K, K), entry [n, m, j, k] from output j of point n and output k of point m.
    """
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def score(weights: dict[str, Tensor], point: Tensor) -> Tensor:
        return functional_call(model, weights, (point[None],))[0]

    def gradients(x: Tensor) -> Tensor:
        found = vmap(jacrev(score), (None, 0))(weights, x)
        return torch.cat([part.flatten(2) for part in found.values()], 2)

    left, right = gradients(x1), gradients(x1 if x2 is None else x2)
    return torch.einsum("njp,mkp->nmjk", left, right)


def _room(shape: tuple[int, ...], like: Tensor, memory: int) -> Tensor:
    """Zeros of this shape.

    Raises:
        ValueError: they exceed the memory.
    """
    needed = math.prod(shape) * like.element_size()
    if needed > memory:
        raise ValueError(
            f"{' x '.join(map(str, shape))} numbers need {math.ceil(needed / 2**20)} MiB; the "
            f"path's memory is {memory / 2**20:.3g} MiB: raise it, or ask for less (fewer points "
            "or steps, a trace)"
        )
    return like.new_zeros(shape)
