"""The path kernel: a network trained by gradient steps, written exactly as a kernel machine over
its training points.

Along one step from w to w + dw, the output of a query x changes by the integral of <grad f(x) at w
+ t dw, dw> over t in [0, 1], and dw is a sum of gradients at training points. So (bell2023, Theorem
14.5 and Remark 1; chapter 6)

    f_S(x) = f_0(x) + sum_i sum_s a_is k_s(x, x_i),    k_s(x, x') = < integral of grad f(x) over the
    step, grad f(x') at its start >,

with one K x K matrix k_s for every pair of points, for K outputs, and a_is = -lr_s / B_s dL/df at
x_i. The first argument is averaged
over the step and the second taken at its start: k_s is not symmetric, and the sum is exact for
    every x, on the training set and off it.

Nothing here forms the gradient of an output: see :mod:`support.path_kernel.layers` for the inner
    products of two of them and
:mod:`support.path_kernel.quadrature` for the integrals. Every prediction comes with its residual
against the network itself.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath

import torch
from torch import Tensor, nn
from torch.nn import functional

from support.path_kernel import layers, quadrature
from support.path_kernel.layers import Factors
from support.path_kernel.quadrature import Nodes
from support.path_kernel.steps import ROWS, Loss, Recipe, checked, named_loss, store

__all__ = ["Path", "Prediction", "Recipe", "ntk", "train_path"]

RULES = ("auto", "closed", "adaptive", "gauss", "midpoint", "left")


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
        states: (buffers, P) for each of 0 .. steps, weights first: a tensor, or something that is
            indexed like one.
        memory: bytes that contributions and kernels may take at a time.
    """

    model: nn.Module
    recipe: Recipe
    states: object
    memory: int

    def __post_init__(self) -> None:
        if len(self.states) != self.steps + 1:
            raise ValueError(
                f"a path of {self.steps} steps has {self.steps + 1} states; {len(self.states)} were given"
            )
        wanted, given = (
            (self.recipe.buffers, self.recipe.stages[-1].where[1]),
            tuple(self.states[0].shape),
        )
        if given != wanted:
            raise ValueError(f"a state of this path has shape {wanted}; {given} was given")

    @property
    def steps(self) -> int:
        return len(self.recipe.lr)

    def weights(self, step: int) -> Tensor:
        """The weights before step ``step`` (after the last for ``steps``), as one flat vector
        (P,)."""
        if not 0 <= step <= self.steps:
            raise ValueError(f"step must be between 0 and {self.steps}; {step} was given")
        return self.states[step][0].to(self.recipe.x.device)

    def model_at(self, step: int) -> nn.Module:
        """The classifier before step ``step``, a copy."""
        model = copy.deepcopy(self.model)
        with torch.no_grad():
            for stage, own in zip(layers.chain(model), self.recipe.stages, strict=True):
                if own.weight:
                    weight, bias = own.parameters(self.weights(step))
                    stage.module.weight.copy_(weight)
                    if bias is not None:
                        stage.module.bias.copy_(bias)
        return model

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
            then needs forward passes only. The
        sums are computed anew from the training points, and a step that does not lead to the
        recorded next state is refused.

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
        xq = self._queries(xq)
        recipe, plan = self.recipe, self._plan(rule, nodes, tolerance)
        start = now = self._scores(0, xq)
        scores, looked, largest = start.clone(), 0, []
        for step in range(self.steps):
            state = self.states[step].to(xq.device)
            dw = self._step(step, state, recipe.gradient(state[0], step))
            after = self._scores(step + 1, xq)
            change, count = [], 0
            for piece in layers.pieces(len(xq), self._rows(self.recipe.stages[-1].weight[0])):
                found = self._integrate(plan, state[0], dw, xq[piece], (now[piece], after[piece]))
                change.append(found.change)
                count += len(found.row)
            change = torch.cat(change)
            scores, looked = scores + change, looked + count
            largest.append((change - (after - now)).abs().max())
            now = after
        return Prediction(scores, scores - now, start, now, torch.stack(largest), looked)

    def residual(self, xq: Tensor, **options) -> Tensor:
        """Prediction minus network, (N, K): :meth:`predict` with the same options."""
        return self.predict(xq, **options).residual

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
        xq = self._queries(xq)
        plan, chosen = self._plan(rule, nodes, tolerance), self._chosen(steps)
        classes = self.recipe.stages[-1].weight[0]
        total = self._room((classes, len(xq), len(self.recipe.x)), "contributions")
        add = self._add_across if self.recipe.buffers > 1 else self._add_steps
        looked = add(total, xq, plan, chosen)
        found, start, network = (
            total.permute(1, 2, 0),
            self._scores(0, xq),
            self._scores(self.steps, xq),
        )
        scores = (
            start + found.sum(1) if len(chosen) == self.steps else torch.full_like(start, torch.nan)
        )
        return Prediction(
            scores, scores - network, start, network, start.new_empty(0), looked, found
        )

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
        tolerance: float | None = None,
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
            rule, nodes, tolerance: as in :meth:`predict`.

        Returns:
            (N, M, K, K), entry [n, m, j, k] from output j of query n and output k of point m; or
            (N, M) with ``trace``. Not weighted by the loss or the learning rate. With momentum or
            Adam it is the kernel of the states, and no prediction is a sum of it alone.

        Raises:
            ValueError: as :meth:`predict`, and where the path's memory does not hold the result.
        """
        xq = self._queries(xq)
        x2, chosen = self.recipe.x if x2 is None else self._queries(x2), self._chosen(steps)
        if both:
            rule, nodes = (
                (("midpoint", 16) if layers.kinks(self.recipe.stages) else ("gauss", 4))
                if rule == "auto"
                else (rule, nodes)
            )
            if rule in ("closed", "adaptive"):
                raise ValueError(
                    f"a product of two averages along a step needs a rule of fixed nodes, not {rule!r}"
                )
        plan, classes = self._plan(rule, nodes, tolerance), self.recipe.stages[-1].weight[0]
        outputs = 1 if trace else classes
        total = self._room((outputs, len(xq), outputs, len(x2)), "a kernel")
        inner = None if both else layers.first_gram(self.recipe.stages, xq, x2)
        for step in chosen:
            w = self.weights(step)
            dw = self.weights(step + 1) - w
            if both:
                for place, share in zip(*quadrature.fixed_rule(plan[0], plan[1]), strict=True):
                    total += float(share) * self._block(w + float(place) * dw, xq, x2, trace)
                continue
            for piece in layers.pieces(len(x2), self._rows(outputs)):
                points = layers.factors(self.recipe.stages, w, x2[piece])[1]
                for row, weight, left in self._left(
                    plan, w, dw, xq, outputs * outputs * len(x2[piece])
                ):
                    known = None if inner is None else inner[row, piece]
                    block = layers.gram(self.recipe.stages, left, points, trace=trace, first=known)
                    total[..., piece].index_add_(1, row, block * weight[None, :, None, None])
        return total[0, :, 0] if trace else total.permute(1, 3, 0, 2)

    def _add_steps(self, total: Tensor, xq: Tensor, plan: tuple, chosen: tuple[int, ...]) -> int:
        """Contributions of plain gradient steps: total (K, N, M), step by step."""
        recipe, looked = self.recipe, 0
        inner = layers.first_gram(recipe.stages, xq, recipe.x)
        for step in chosen:
            state = self.states[step].to(xq.device)
            w, index, gradient = state[0], recipe.batch(step), 0
            dw = self.weights(step + 1) - w
            for piece in index.split(self._rows(1)):
                _, points = recipe.points(w, piece)
                gradient = gradient + layers.gradient(recipe.stages, points)
                part = total.new_zeros(*total.shape[:2], len(piece))
                for row, weight, left in self._left(plan, w, dw, xq, len(total) * len(piece)):
                    block = layers.gram(
                        recipe.stages,
                        left,
                        points,
                        first=None if inner is None else inner[row][:, piece],
                    )[:, :, 0]
                    part.index_add_(1, row, block * weight[None, :, None])
                    looked += len(row) * (plan[0] != "closed") * bool(piece[0] == index[0])
                total.index_add_(2, piece, part, alpha=-recipe.lr[step] / len(index))
            self._step(step, state, gradient / len(index))
        return looked

    def _add_across(self, total: Tensor, xq: Tensor, plan: tuple, chosen: tuple[int, ...]) -> int:
        """Contributions of steps with memory: how the scores answer to each step's gradient,
        accumulated from the last step back."""
        recipe, looked = self.recipe, 0
        classes, size = len(total), recipe.stages[-1].where[1]
        rows = self.memory // (4 * classes * size * xq.element_size())
        if rows < 1:
            raise ValueError(
                f"contributions of this path need {math.ceil(4 * classes * size * xq.element_size() / 2**20)} MiB for one query; "
                f"the path's memory is {self.memory / 2**20:.0f} MiB"
            )
        keep = recipe.betas[0] if recipe.optimizer == "adam" else recipe.momentum
        for piece in layers.pieces(len(xq), rows):
            x = xq[piece]
            answer = x.new_zeros(classes, len(x), size)
            for step in reversed(range(chosen[0], self.steps)):
                state, after = (self.states[s].to(x.device) for s in (step, step + 1))
                w, index = state[0], recipe.batch(step)
                mean = torch.zeros_like(answer)
                for row, weight, left in self._left(plan, w, after[0] - w, x, 2 * classes * size):
                    mean.index_add_(
                        1, row, layers.jacobian(recipe.stages, left) * weight[None, :, None]
                    )
                    looked += len(row) * (plan[0] != "closed")
                size_of_step = recipe.lr[step]
                if recipe.optimizer == "adam":
                    mean *= (1 - keep) / (1 - keep ** (step + 1)) / recipe.scale(after[2], step)
                answer.mul_(keep).add_(mean, alpha=size_of_step)
                gradient = 0
                for some in index.split(self._rows(1)):
                    _, points = recipe.points(w, some)
                    gradient = gradient + layers.gradient(recipe.stages, points)
                    if step in chosen:
                        part = layers.per_point(recipe.stages, answer.flatten(0, 1), points).view(
                            classes, len(x), -1
                        )
                        total[:, piece, :][:, :, some] -= part / len(index)
                self._step(step, state, gradient / len(index))
        return looked

    def _left(self, plan: tuple, w: Tensor, dw: Tensor, xq: Tensor, width: int):
        """The first arguments of a step's kernel: pieces of (query index, weight, factors),
        ``width`` numbers to each of their rows."""
        stages = self.recipe.stages
        limit = max(1, min(ROWS, self.memory // (4 * width * xq.element_size())))
        for piece in layers.pieces(len(xq), self._rows(self.recipe.stages[-1].weight[0])):
            x = xq[piece]
            if plan[0] == "closed":
                found, _ = quadrature.closed(stages, w, dw, x)
                nodes = Nodes(torch.arange(len(x), device=x.device), None, x.new_ones(len(x)), None)
            else:
                found, ends = None, tuple(layers.output(stages, v, x) for v in (w, w + dw))
                nodes = self._integrate(plan, w, dw, x, ends)
            for some in layers.pieces(len(nodes.row), limit):
                row, weight = nodes.row[some], nodes.weight[some]
                if found is None:
                    left = layers.factors(stages, w, x[row], dw=dw, t=nodes.t[some])[1]
                else:
                    left = tuple(Factors(f.inputs[some], f.deltas[:, some]) for f in found)
                yield row + piece.start, weight, left

    def _integrate(
        self, plan: tuple, w: Tensor, dw: Tensor, x: Tensor, ends: tuple[Tensor, Tensor]
    ) -> Nodes:
        rule, nodes, tolerance = plan
        if rule == "closed":
            empty = x.new_empty(0)
            return Nodes(empty, empty, empty, quadrature.closed(self.recipe.stages, w, dw, x)[1])
        if rule == "adaptive":
            return quadrature.adaptive(self.recipe.stages, w, dw, x, ends, tolerance, nodes)
        return quadrature.fixed(self.recipe.stages, w, dw, x, *quadrature.fixed_rule(rule, nodes))

    def _block(self, w: Tensor, x1: Tensor, x2: Tensor, trace: bool) -> Tensor:
        """The tangent kernel at fixed weights, (K, N, C, M)."""
        stages = self.recipe.stages
        outputs = 1 if trace else stages[-1].weight[0]
        rows = self._rows(outputs)
        right = [layers.factors(stages, w, part)[1] for part in x2.split(rows)]
        parts = []
        for part in x1.split(rows):
            left = layers.factors(stages, w, part)[1]
            parts.append(
                torch.cat([layers.gram(stages, left, one, trace=trace) for one in right], 3)
            )
        return torch.cat(parts, 1)

    def _plan(self, rule: str, nodes: int | None, tolerance: float | None) -> tuple:
        """A rule that fits the chain, its nodes and its tolerance."""
        if rule not in RULES:
            raise ValueError(f"unknown rule {rule!r}: choose one of {', '.join(RULES)}")
        exact = layers.one_hidden_relu(self.recipe.stages)
        if rule == "closed" and not exact:
            raise ValueError(
                "the closed form is for one hidden ReLU layer between two linear ones; take rule='adaptive'"
            )
        if rule == "auto":
            rule = "closed" if exact else "adaptive"
        if nodes is not None and (rule == "closed" or not isinstance(nodes, int) or nodes < 1):
            raise ValueError(
                f"nodes must be a whole number of at least 1, and none for the closed form; {nodes!r} was given"
            )
        if rule in ("gauss", "midpoint", "left") and nodes is None:
            raise ValueError(f"rule {rule!r} wants nodes, their number per step")
        if tolerance is not None and (rule != "adaptive" or not tolerance > 0):
            raise ValueError(
                f"tolerance must be positive, and is for rule 'adaptive'; {tolerance!r} was given with {rule!r}"
            )
        usual = 2e-14 if self.recipe.x.dtype == torch.float64 else 1e-5
        return rule, nodes, usual if tolerance is None else tolerance

    def _chosen(self, steps: Sequence[int] | None) -> tuple[int, ...]:
        chosen = tuple(range(self.steps)) if steps is None else tuple(sorted(set(steps)))
        if (
            not chosen
            or chosen[0] < 0
            or chosen[-1] >= self.steps
            or (steps is not None and len(chosen) != len(steps))
        ):
            raise ValueError(
                f"steps must be different numbers from 0 to {self.steps - 1}, at least one; {steps!r:.80} was given"
            )
        return chosen

    def _queries(self, xq: Tensor) -> Tensor:
        own = self.recipe.x
        wanted = f"queries must be a floating-point tensor (N, {', '.join(map(str, own.shape[1:]))}) with N >= 1"
        if (
            not isinstance(xq, Tensor)
            or not xq.is_floating_point()
            or xq.shape[1:] != own.shape[1:]
            or not len(xq)
            or xq.ndim != own.ndim
        ):
            given = f"{xq.dtype} {tuple(xq.shape)}" if isinstance(xq, Tensor) else type(xq).__name__
            raise ValueError(f"{wanted}; {given} was given")
        if not xq.isfinite().all():
            raise ValueError(
                f"{wanted}, all finite; {int((~xq.isfinite()).sum())} numbers are NaN or infinite"
            )
        return xq.detach().to(own)

    def _scores(self, step: int, xq: Tensor) -> Tensor:
        return quadrature.outputs(self.recipe.stages, self.weights(step), xq, ROWS)

    def _step(self, step: int, state: Tensor, gradient: Tensor) -> Tensor:
        """How a step moves the weights, by its points' gradients.

        Raises:
            ValueError: the next recorded state is another one.
        """
        moved, recorded = self.recipe.advance(state, gradient, step)[0], self.weights(step + 1)
        dw = moved - state[0]
        rounding = torch.finfo(dw.dtype).eps
        allowed = 1e3 * rounding * (state[0].norm() + dw.norm()) + rounding**0.5 * dw.norm()
        if not (moved - recorded).norm() <= allowed:
            raise ValueError(
                f"the path's states do not match its steps: step {step} from the recorded weights leads "
                f"{float((moved - recorded).norm()):.3g} away from the recorded next ones, for a step of length {float(dw.norm()):.3g}"
            )
        return dw

    def _rows(self, outputs: int) -> int:
        """Points in one pass that keeps every layer's input and, for so many outputs, what flows
        back."""
        positions = (
            self.recipe.x[0].numel()
            if any(stage.convolution for stage in self.recipe.stages)
            else 1
        )
        widest = max(
            self.recipe.x[0].numel(),
            *(stage.weight[0] * positions for stage in self.recipe.stages if stage.weight),
        )
        return max(
            1, min(ROWS, self.memory // (8 * (outputs + 1) * widest * self.recipe.x.element_size()))
        )

    def _room(self, shape: tuple[int, ...], what: str) -> Tensor:
        needed = math.prod(shape) * self.recipe.x.element_size()
        if needed > self.memory:
            raise ValueError(
                f"{what} of this size needs {needed / 2**20:.0f} MiB; the path's memory is "
                f"{self.memory / 2**20:.0f} MiB: ask for fewer points, or for a trace"
            )
        return self.recipe.x.new_zeros(shape)


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
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    batch_size: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    memory_mb: float = 1024,
    folder: FilePath | str | None = None,
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
        optimizer: ``sgd`` or ``adam`` with ``betas`` and ``eps``.
        momentum: of sgd, in [0, 1).
        batch_size: points per step; None takes all of them, forward Euler. An epoch is a
            permutation drawn from ``seed``, cut up.
        seed: of the batches.
        dtype: float64 or float32, of everything.
        memory_mb: budget for the states, and again for contributions and kernels. States that
            exceed it go to ``folder``, or are kept every so many steps and computed again in
            between, at the price of one more training for each use.
        folder: keep the states there (safetensors), whatever their size; it must hold none yet.

    Raises:
        ValueError: inputs that do not fit together or are out of range, an unsupported layer, a
            budget that not even checkpoints fit.
        FloatingPointError: the weights became infinite or NaN.
    """
    x, y, rates, batches = checked(
        x, y, lr, steps, optimizer, momentum, betas, batch_size, seed, dtype
    )
    own = copy.deepcopy(model).to(device=x.device, dtype=dtype).requires_grad_(False).eval()
    stages = layers.chain(own)
    recipe = Recipe(
        stages,
        x,
        y,
        named_loss(loss, y, stages[-1].weight[0]),
        rates,
        optimizer,
        momentum,
        tuple(betas),
        eps,
        batches,
    )
    w = layers.flat(stages, dtype).to(x.device)
    states = store(recipe, w, steps, memory_mb * 2**20, folder)
    state = torch.stack([w, *[torch.zeros_like(w)] * (recipe.buffers - 1)])
    with torch.no_grad():
        try:
            recipe.points(w, recipe.batch(0)[:2])
        except (RuntimeError, IndexError) as error:  # how torch says that shapes do not fit
            raise ValueError(
                f"the model and loss do not take points of shape {tuple(x.shape[1:])} with these targets: {error}"
            ) from error
        states[0] = state
        for step in range(steps):
            state = recipe.advance(state, recipe.gradient(state[0], step), step)
            if not state.isfinite().all():
                raise FloatingPointError(
                    f"the weights are no longer finite after step {step}: take a smaller lr than {rates[step]:g}"
                )
            states[step + 1] = state
    return Path(own, recipe, states, int(memory_mb * 2**20))


def ntk(
    model: nn.Module,
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    trace: bool = False,
    memory_mb: float = 1024,
) -> Tensor:
    """The tangent kernel <grad f_j(x), grad f_k(x')> of a model as it is, all its parameters
    counted.

    Args:
        model: a classifier of supported layers (see :func:`train_path`); floating-point type and
            device as ``x1``.
        x1: (N, ...); ``x2`` (M, ...), default ``x1``.
        trace: sum over equal outputs.
        memory_mb: budget for the result and for the work.

    Returns:
        (N, M, K, K), or (N, M) with ``trace``.

    Raises:
        ValueError: an unsupported layer, inputs of two shapes, NaN, or a result that exceeds the
            budget.
    """
    stages = layers.chain(model)
    recipe = Recipe(stages, x1, x1, functional.mse_loss, (), "sgd", 0.0, (0.0, 0.0), 0.0, None)
    w = layers.flat(stages)
    for name, x in (("x1", x1), ("x2", x2)):
        if x is None:
            continue
        if (
            not isinstance(x, Tensor)
            or x.dtype != w.dtype
            or not len(x)
            or x.shape[1:] != x1.shape[1:]
            or not x.isfinite().all()
        ):
            given = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"{name} must be finite {w.dtype} points like the model's weights, x1 and x2 of one shape; {given} was given"
            )
    path = Path(model, recipe, w[None, None], int(memory_mb * 2**20))
    x2, outputs = x1 if x2 is None else x2, 1 if trace else stages[-1].weight[0]
    path._room((outputs, len(x1), outputs, len(x2)), "a tangent kernel")
    with torch.no_grad():
        block = path._block(w, x1.detach(), x2.detach(), trace)
    return block[0, :, 0] if trace else block.permute(1, 3, 0, 2)
