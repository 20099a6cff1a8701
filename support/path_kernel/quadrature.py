"""Integrals along one training step, w + t dw for t from 0 to 1.

The one number that every rule can be judged by costs nothing: the derivative of an output along the
step integrates to its difference.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from support.common.arguments import choice, number, whole_number
from support.path_kernel import layers
from support.path_kernel.layers import Chain, Factors, Gradients, Line

FIXED = ("gauss", "midpoint", "left")
RULES = ("auto", "closed", "adaptive", *FIXED)
Ends = tuple[Tensor, Tensor]

_LEVELS = 60  # cuts of [0, 1] after which an interval is taken as it is
_CROWD = 256  # open intervals of one query at which all are: no cut makes rounding smaller


@dataclass(frozen=True)
class Rule:
    """A rule of integration, its nodes, and the tolerance of an adaptive one."""

    name: str
    nodes: int | None
    tolerance: float


@dataclass(frozen=True)
class Nodes:
    """Where a step is looked at: query ``row``, place ``t`` and ``weight`` of every node (I,), and
    the outputs' ``change`` (N, K). The closed form has no places, only the change and its
    ``factors``, the integrated gradients."""

    row: Tensor
    t: Tensor
    weight: Tensor
    change: Tensor
    factors: Gradients | None = None


def rule_for(
    stages: Chain, dtype: torch.dtype, name: str, nodes: int | None, tolerance: float | None
) -> Rule:
    """The rule that is asked for, once it fits the chain; the arguments are those of
    :meth:`support.path_kernel.Path.predict`.

    Raises:
        ValueError: a rule that does not fit the chain, nodes or a tolerance that do not fit it.
    """
    exact = layers.one_hidden_relu(stages)
    if choice("rule", name, RULES) == "auto":
        name = "closed" if exact else "adaptive"
    if name == "closed" and not exact:
        raise ValueError("'closed' is for one hidden ReLU layer between two linear ones only")
    if nodes is not None or name in FIXED:
        whole_number(f"nodes of rule {name!r}", nodes, 1)
    if (nodes and name == "closed") or (tolerance is not None and name != "adaptive"):
        raise ValueError(
            "'closed' has no nodes, and only 'adaptive' has a tolerance; "
            f"{nodes} and {tolerance} were given for {name!r}"
        )
    usual = 2e-14 if dtype == torch.float64 else 1e-5
    tolerance = usual if tolerance is None else number("tolerance", tolerance, above=0)
    return Rule(name, nodes, tolerance)


def integrate(rule: Rule, line: Line, x: Tensor, ends: Ends | None = None) -> Nodes:
    """The nodes of a rule for queries ``x``; ``ends`` as in :func:`adaptive`, if they are known."""
    if rule.name == "closed":
        return closed(line, x)
    if rule.name in FIXED:
        return fixed(line, x, rule.name, rule.nodes)
    ends = ends or tuple(layers.output(line.stages, w, x) for w in (line.w, line.w + line.dw))
    return adaptive(line, x, ends, rule.tolerance, rule.nodes)


def fixed_rule(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in [0, 1] and weights of ``gauss`` (Gauss-Legendre), ``midpoint`` (composite) or
    ``left`` (composite, the paper's)."""
    if name == "gauss":
        points, weights = np.polynomial.legendre.leggauss(count)
        return (points + 1) / 2, weights / 2
    shift = 0.5 if name == "midpoint" else 0.0
    return (np.arange(count) + shift) / count, np.full(count, 1 / count)


def fixed(line: Line, x: Tensor, name: str, count: int) -> Nodes:
    """The nodes of a :func:`fixed_rule`, the same for all queries."""
    points, weights = fixed_rule(name, count)
    n, first, change = len(x), line.begin(x), 0
    t, weight = (x.new_tensor(v).repeat_interleave(n) for v in (points, weights))
    row = torch.arange(n, device=x.device).repeat(len(points))
    for place, share in zip(points, weights, strict=True):
        slope = line.derivative(first, x.new_full((n,), float(place)))[1]
        change = change + float(share) * slope
    return Nodes(row, t, weight, change)


def adaptive(
    line: Line, x: Tensor, ends: Ends, tolerance: float, count: int | None = None
) -> Nodes:
    """Gauss-Legendre nodes on pieces of the step, cut where the free residual f(b) - f(a) -
    integral says so.

    Between its kinks the output of a ReLU network with L layers is a polynomial of degree L in t,
    whose derivative ceil(L / 2) nodes integrate exactly. A kink is cut out at the zero of a
    pre-activation that changes its sign, found by the secant; every third cut, and each one of a
    network without ReLU, is in the middle.

    Args:
        ends: outputs (N, K) at t = 0 and t = 1.
        tolerance: of an interval's residual, relative to the query's largest output, or to 1 where
            that is smaller.
        count: nodes of a piece; None for as many as are exact between kinks, and 4 for smooth
            activations.
    """
    points, weights = fixed_rule("gauss", count or layers.pieces_exact(line.stages) or 4)
    n, first, change = len(x), line.begin(x), torch.zeros_like(ends[0])
    allowed = tolerance * torch.maximum(*ends).abs().amax(1).clamp_min(1)
    row, low, high = torch.arange(n, device=x.device), x.new_zeros(n), x.new_ones(n)
    f_low, f_high = ends
    u_low = u_high = x.new_empty(n, 0)
    if layers.kinks(line.stages):
        u_low, u_high = (line.derivative(first, at)[2] for at in (low, high))
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    for level in range(_LEVELS + 1):
        here, width = (first[0][row], first[1][row]), high - low
        places = [low + float(p) * width for p in points]
        slopes = torch.stack([line.derivative(here, at)[1] for at in places])
        part = width[:, None] * torch.einsum("j,jrk->rk", x.new_tensor(weights), slopes)
        done = (part - (f_high - f_low)).abs().amax(1) <= allowed[row]
        done |= (row.bincount(minlength=n)[row] > _CROWD) | (level == _LEVELS)
        change.index_add_(0, row[done], part[done])
        for at, share in zip(places, weights, strict=True):
            kept.append((row[done], at[done], float(share) * width[done]))
        if bool(done.all()):
            break
        row, low, high, f_low, f_high, u_low, u_high = (
            v[~done] for v in (row, low, high, f_low, f_high, u_low, u_high)
        )
        cut = (low + high) / 2
        if u_low.shape[1] and level % 3 < 2:
            cut = _crossing(low, high, u_low, u_high)
        f_cut, _, u_cut = line.derivative((first[0][row], first[1][row]), cut)
        row, low, high = row.repeat(2), torch.cat([low, cut]), torch.cat([cut, high])
        f_low, f_high = torch.cat([f_low, f_cut]), torch.cat([f_cut, f_high])
        u_low, u_high = torch.cat([u_low, u_cut]), torch.cat([u_cut, u_high])
    return Nodes(*(torch.cat(parts) for parts in zip(*kept, strict=True)), change)


def closed(line: Line, x: Tensor) -> Nodes:
    """The integrals of a network with one hidden ReLU layer, exactly.

    Its pre-activations z + t dz are linear in t, so that the integrals of 1[z + t dz > 0] t^k are
    powers of the crossing's place. The kernel's two layers need one integrated factor each, the
    derivative along the step is their product with dw.
    """
    z, dz = line.begin(x)
    (first, inputs), last = layers.entrance(line.stages, x), line.stages[-1]
    before, after = z > 0, z + dz > 0
    crossing = torch.where(before != after, z / torch.where(dz == 0, 1, -dz), 0).clamp(0, 1)
    start = torch.where(before, 0, torch.where(after, crossing, 0))
    stop = torch.where(after, 1.0, torch.where(before, crossing, 0))
    active, moment = stop - start, (stop.square() - start.square()) / 2
    mean = z * active + dz * moment
    v, dv = last.parameters(line.w)[0], last.parameters(line.dw)
    flow = v[:, None, :] * active + dv[0][:, None, :] * moment
    change = mean @ dv[0].T + (flow * dz).sum(2).T + (0 if dv[1] is None else dv[1])
    outputs = layers.every_output(change)
    factors = Factors(first, inputs, flow), Factors(last, mean, outputs)
    row, none = torch.arange(len(x), device=x.device), x.new_empty(0)
    return Nodes(row, none, x.new_ones(len(x)), change, factors)


def _crossing(low: Tensor, high: Tensor, u_low: Tensor, u_high: Tensor) -> Tensor:
    """The zero, by the secant, of the unit whose crossing lies nearest to the middle of the
    interval; the middle where there is none."""
    changes = (u_low > 0) != (u_high > 0)
    share = torch.where(changes, u_low / torch.where(changes, u_low - u_high, 1), torch.inf)
    nearest = (share - 0.5).abs().argmin(1, keepdim=True)
    found = share.gather(1, nearest)[:, 0]
    inside = (found > 0) & (found < 1)
    return low + (high - low) * torch.where(inside, found, 0.5)
