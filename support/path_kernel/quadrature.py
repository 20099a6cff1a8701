"""Integrals along one training step, w + t dw for t from 0 to 1.

The one number that every rule can be judged by costs nothing: the derivative of an output along the
    step integrates to its difference.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from support.path_kernel.layers import (
    Factors,
    Stage,
    begin,
    derivative,
    kinks,
    output,
    pieces_exact,
)

_LEVELS = 60  # cuts of [0, 1] after which an interval is taken as it is
_CROWD = 256  # open intervals of one query at which all are: what is left is rounding, which no cut makes smaller


@dataclass(frozen=True)
class Nodes:
    """Where a step is looked at: query ``row``, place ``t`` and ``weight`` of every node (I,), and
    the outputs' ``change`` (N, K)."""

    row: Tensor
    t: Tensor
    weight: Tensor
    change: Tensor


def fixed_rule(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in [0, 1] and weights of ``gauss`` (Gauss-Legendre), ``midpoint`` (composite) or
    ``left`` (composite, the paper's)."""
    if name == "gauss":
        points, weights = np.polynomial.legendre.leggauss(count)
        return (points + 1) / 2, weights / 2
    return (np.arange(count) + (0.5 if name == "midpoint" else 0.0)) / count, np.full(
        count, 1 / count
    )


def fixed(
    stages: tuple[Stage, ...],
    w: Tensor,
    dw: Tensor,
    x: Tensor,
    points: np.ndarray,
    weights: np.ndarray,
) -> Nodes:
    """The same nodes for all queries."""
    n, first = len(x), begin(stages, w, dw, x)
    t, weight = (
        torch.as_tensor(v, dtype=x.dtype, device=x.device).repeat_interleave(n)
        for v in (points, weights)
    )
    row = torch.arange(n, device=x.device).repeat(len(points))
    change = 0
    for place, share in zip(points, weights, strict=True):
        change = (
            change
            + float(share)
            * derivative(stages, w, dw, first, first[0].new_full((n,), float(place)))[1]
        )
    return Nodes(row, t, weight, change)


def adaptive(
    stages: tuple[Stage, ...],
    w: Tensor,
    dw: Tensor,
    x: Tensor,
    ends: tuple[Tensor, Tensor],
    tolerance: float,
    count: int | None,
) -> Nodes:
    """Gauss-Legendre nodes on pieces of the step, cut where the free residual f(b) - f(a) -
    integral says so.

    Between its kinks the output of a ReLU network with L layers is a polynomial of degree L in t,
    whose derivative ceil(L / 2) nodes integrate exactly. A kink is cut out at the zero of a
    pre-activation that changes its sign, found by the secant; every third cut, and each one of a
    smooth network, is in the middle.

    Args:
        ends: outputs (N, K) at t = 0 and t = 1.
        tolerance: of an interval's residual, relative to the query's largest output, or to 1 where
            that is smaller.
        count: nodes of a piece; None for as many as are exact between kinks, and 4 for smooth
            activations.
    """
    bent = kinks(stages)
    points, weights = fixed_rule("gauss", count or pieces_exact(stages) or 4)
    n, first = len(x), begin(stages, w, dw, x)
    allowed = tolerance * torch.maximum(*ends).abs().amax(1).clamp_min(1)
    change = torch.zeros_like(ends[0])
    row = torch.arange(n, device=x.device)
    low, high = (
        torch.zeros(n, dtype=x.dtype, device=x.device),
        torch.ones(n, dtype=x.dtype, device=x.device),
    )
    f_low, f_high = ends
    u_low, u_high = (
        (derivative(stages, w, dw, first, at)[2] for at in (low, high)) if bent else (None, None)
    )
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    for level in range(_LEVELS + 1):
        here, width = (first[0][row], first[1][row]), high - low
        places = [low + float(p) * width for p in points]
        slopes = torch.stack([derivative(stages, w, dw, here, at)[1] for at in places])
        part = width[:, None] * torch.einsum(
            "j,jrk->rk", torch.as_tensor(weights, dtype=x.dtype, device=x.device), slopes
        )
        done = (part - (f_high - f_low)).abs().amax(1) <= allowed[row]
        done |= (row.bincount(minlength=n)[row] > _CROWD) | (level == _LEVELS)
        change.index_add_(0, row[done], part[done])
        kept += [
            (row[done], at[done], float(share) * width[done])
            for at, share in zip(places, weights, strict=True)
        ]
        if bool(done.all()):
            break
        more = ~done
        row, low, high, f_low, f_high = (v[more] for v in (row, low, high, f_low, f_high))
        cut = (low + high) / 2
        if bent:
            u_low, u_high = u_low[more], u_high[more]
            cut = _crossing(low, high, u_low, u_high) if level % 3 < 2 else cut
        f_cut, _, u_cut = derivative(stages, w, dw, (first[0][row], first[1][row]), cut)
        row, low, high = row.repeat(2), torch.cat([low, cut]), torch.cat([cut, high])
        f_low, f_high = torch.cat([f_low, f_cut]), torch.cat([f_cut, f_high])
        if bent:
            u_low, u_high = torch.cat([u_low, u_cut]), torch.cat([u_cut, u_high])
    return Nodes(*(torch.cat(parts) for parts in zip(*kept, strict=True)), change)


def closed(
    stages: tuple[Stage, ...], w: Tensor, dw: Tensor, x: Tensor
) -> tuple[tuple[Factors, Factors], Tensor]:
    """The integrals of a network with one hidden ReLU layer, exactly.

    Its pre-activations z + t dz are linear in t, so that the integrals of 1[z + t dz > 0] t^k are
    powers of the crossing's place. The kernel's two layers need one integrated factor each, the
    derivative along the step is their product with dw.

    Returns:
        Factors of the integrated gradients (one row per query), and the outputs' change (N, K).
    """
    hidden, last = (stage for stage in stages if stage.weight)
    z, dz = begin(stages, w, dw, x)
    inputs = x
    for stage in stages:
        if stage is hidden:
            break
        inputs = stage.apply(inputs)
    end = z + dz
    before, after = z > 0, end > 0
    crossing = torch.where(before != after, z / torch.where(dz == 0, 1, -dz), 0).clamp(0, 1)
    start, stop = (
        torch.where(before, 0, torch.where(after, crossing, 0)),
        torch.where(after, 1.0, torch.where(before, crossing, 0)),
    )
    active, moment = stop - start, (stop.square() - start.square()) / 2
    mean = z * active + dz * moment
    v, dv = last.parameters(w)[0], last.parameters(dw)
    flow = v[:, None, :] * active + dv[0][:, None, :] * moment
    change = mean @ dv[0].T + (flow * dz).sum(2).T + (0 if dv[1] is None else dv[1])
    eye = torch.eye(len(v), dtype=x.dtype, device=x.device)[:, None, :].expand(-1, len(x), -1)
    return (Factors(inputs, flow), Factors(mean, eye)), change


def outputs(stages: tuple[Stage, ...], w: Tensor, x: Tensor, rows: int) -> Tensor:
    """Scores (N, K) in pieces of at most so many rows."""
    return torch.cat([output(stages, w, part) for part in x.split(rows)])


def _crossing(low: Tensor, high: Tensor, u_low: Tensor, u_high: Tensor) -> Tensor:
    """The zero, by the secant, of the unit whose crossing lies nearest to the middle of the
    interval; the middle where there is none."""
    changes = (u_low > 0) != (u_high > 0)
    share = torch.where(changes, u_low / torch.where(changes, u_low - u_high, 1), torch.inf)
    nearest = (share - 0.5).abs().argmin(1, keepdim=True)
    found = share.gather(1, nearest)[:, 0]
    inside = (found > 0) & (found < 1)
    return low + (high - low) * torch.where(inside, found, 0.5)
