"""Wedges of controlled dimension and acuteness, and projections onto them (bell2023, section 30.4;
the chapter "Decision boundaries").

Two families of cones go by one name in the paper. The *upper* wedge (Definition 30.8) is ``{x_1 >=
0, x_i >= x_1 tan(angle_{i-1})}``, with a dihedral angle of 90 degrees minus the angle between its
faces 1 and i; the *lower* wedge, which the other sections use, is ``{0 <= x_i <= x_1
tan(angle_{i-1})}``. Both are taken closed here: an open set has no nearest point.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from support.common.arguments import matrix, points, whole_number

# Of the quadrature: smooth to 1e-12 for angles up to 85 degrees (tested against the bivariate
# normal).
_PANELS, _NODES = 64, 16
_ROWS = 2048  # points whose sorted corners stay in the cache: three times faster than all at once
_TAIL = 9.0  # standard deviations beyond which a normal variable is neglected


@dataclass(frozen=True)
class Faces:
    """Which faces of a wedge matter to a point.

    Attributes:
        violated: (N, k) bool, the point lies outside the half-space of the face.
        active: (N, k) bool, the face pulls at the nearest point: its multiplier in the conditions
            of Karush, Kuhn and Tucker is positive.
    """

    violated: Tensor
    active: Tensor


def project_wedge(x: Tensor, angles: Tensor | Sequence[float]) -> Tensor:
    """Nearest points of the closed upper wedge ``{x_1 >= 0, x_i >= x_1 tan(angle_{i-1}), 1 < i <=
    k}`` (bell2023, Definition 30.8).

    Once x_1 = t is fixed, every other coordinate is best at ``max(x_i, t tan)`` by itself. What is
    left is a convex function of t with a piecewise linear slope, whose root is found from its
    sorted corners: exact, in O(k log k) a point, without iteration.

    Args:
        x: (N, n) float32 or float64 points.
        angles: (k - 1,) radians, each strictly between -pi/2 and pi/2; zeros make the k-orthant,
            none at all a half-space; k <= n.

    Returns:
        (N, n), of the dtype and device of ``x``, computed in float64. A point of the wedge is
        returned as it is.

    Raises:
        ValueError: shapes that do not fit, more faces than dimensions, values that are not finite,
            an angle at or beyond the limits.
    """
    exact, tangents = _checked(x, angles)
    nearest = x.detach().double().clone()
    moved = nearest[:, : len(tangents) + 1]
    for part, found in zip(exact.split(_ROWS), moved.split(_ROWS), strict=True):
        t = _first_coordinate(part, tangents).clamp_min(0)[:, None]
        pulled = torch.cat([t, torch.maximum(part[:, 1:], t * tangents)], 1)
        found.copy_(torch.where(_violated(part, tangents).any(1, keepdim=True), pulled, part))
    return nearest.to(x.dtype)


def inside_wedge(x: Tensor, angles: Tensor | Sequence[float]) -> Tensor:
    """(N,) bool: which points (N, n) the closed upper wedge holds. Arguments and errors as
    :func:`project_wedge`."""
    return ~_violated(*_checked(x, angles)).any(1)


def inside_lower_wedge(x: Tensor, angles: Tensor | Sequence[float]) -> Tensor:
    """(N,) bool: which points (N, n) the closed lower wedge ``{x_1 >= 0, 0 <= x_i <= x_1
    tan(angle_{i-1}), 1 < i <= k}`` holds (bell2023, section 30.4).

    Arguments and errors as :func:`project_wedge`, but no angle may be negative.
    """
    exact, tangents = _checked(x, angles, least=0.0)
    return (exact >= 0).all(1) & (exact[:, 1:] <= exact[:, :1] * tangents).all(1)


def wedge_faces(x: Tensor, angles: Tensor | Sequence[float]) -> Faces:
    """Faces of the upper wedge that a point violates, and faces that are active at its projection:
    two different sets.

    Arguments and errors as :func:`project_wedge`.
    """
    exact, tangents = _checked(x, angles)
    violated = _violated(exact, tangents)
    t = _first_coordinate(exact, tangents)[:, None]
    pulls = torch.cat([t < 0, t.clamp_min(0) * tangents > exact[:, 1:]], 1)
    return Faces(violated, pulls & violated.any(1, keepdim=True))


def wedge_normals(dimensions: int, angles: Tensor | Sequence[float]) -> Tensor:
    """Inward unit normals (k, dimensions) of the upper wedge's faces, float64: e_1, and ``e_i cos -
    e_1 sin`` (bell2023, after eq. 107).

    Raises:
        ValueError: as :func:`project_wedge`.
    """
    whole_number("dimensions", dimensions, 1)
    origin = torch.zeros(1, dimensions, dtype=torch.float64, device="cpu")
    theta = _checked(origin, angles)[1].atan()
    normals = torch.eye(len(theta) + 1, dimensions, dtype=torch.float64, device="cpu")
    normals[1:, 0] = -theta.sin()
    normals.diagonal()[1:] = theta.cos()
    return normals


def wedge_classifier(angles: Tensor | Sequence[float]) -> Callable[[Tensor], Tensor]:
    """The wedge as a classifier of points: scores (N, 2), class 0 inside, half the score gap is the
    least signed distance to a face.

    Args:
        angles: (k - 1,) as for :func:`project_wedge`; the points need k dimensions or more.
    """

    def scores(x: Tensor) -> Tensor:
        slack = (x @ wedge_normals(x.shape[1], angles).to(x).T).amin(1)
        return torch.stack([slack, -slack], 1)

    return scores


def wedge_probability(x: Tensor, angles: Tensor | Sequence[float], sigma: float | Tensor) -> Tensor:
    """Probability that Gaussian noise around ``x`` lands in the upper wedge: bell2023's equation 7,
    for any angles.

    Given the noise of the first coordinate the faces 2 .. k are independent, which leaves one
    integral over that coordinate; with all angles 0 the result is the product of Proposition 4.3.

    Args:
        x: (N, n) centres.
        angles: (k - 1,) radians as for :func:`project_wedge`; accurate to 1e-9 up to 85 degrees.
        sigma: standard deviation of the noise, positive, a number or (N,).

    Returns:
        (N,) float64 probabilities.
    """
    exact, tangents = _checked(x, angles)
    spread = torch.as_tensor(sigma, dtype=torch.float64, device=x.device).expand(len(x))
    if not bool((spread > 0).all() & spread.isfinite().all()):
        raise ValueError(
            f"sigma must be positive and finite, a number or ({len(x)},); {sigma} was given"
        )
    exact = exact / spread[:, None]
    low = (-exact[:, 0]).clamp(-_TAIL, _TAIL)
    rule = np.polynomial.legendre.leggauss(_NODES)
    node, weight = (torch.as_tensor(part, device=x.device) for part in rule)
    edges = torch.arange(_PANELS, dtype=torch.float64, device=x.device)
    place = ((edges[:, None] + (node + 1) / 2) / _PANELS).flatten()  # (nodes,) in (0, 1)
    z = low[:, None] + (_TAIL - low)[:, None] * place
    each = (weight / (2 * _PANELS)).repeat(_PANELS) * (_TAIL - low)[:, None]
    log_share = -0.5 * z.square() - 0.5 * math.log(2 * math.pi)
    for other, tangent in zip(exact[:, 1:].T, tangents, strict=True):
        level = other[:, None] - (exact[:, :1] + z) * tangent
        log_share = log_share + torch.special.log_ndtr(level)
    return (log_share.exp() * each).sum(1).clamp(0, 1)


def alternating_projections(x: Tensor, normals: Tensor, *, sweeps: int) -> Tensor:
    """Von Neumann's method as bell2023, Definition 30.10, applies it: project onto each violated
    half-space in turn, again and again.

    It converges to *a* point of the intersection, which is the nearest one only where the normals
    are orthogonal (Lemma 30.11).

    Args:
        x: (N, n) points.
        normals: (k, n) inward normals of the half-spaces ``{x: x . normal >= 0}``, of any length
            but zero.
        sweeps: rounds over all half-spaces, at least 1.
    """
    at, units = _units(x, normals, sweeps)
    for _ in range(sweeps):
        for unit in units:
            at = at - (at @ unit).clamp_max(0)[:, None] * unit
    return at.to(x.dtype)


def dykstra(x: Tensor, normals: Tensor, *, sweeps: int) -> Tensor:
    """Dykstra's alternating projections: each half-space first takes back its last correction.
    Converges to the *nearest* point.

    Arguments as :func:`alternating_projections`.
    """
    at, units = _units(x, normals, sweeps)
    pull = at.new_zeros(len(at), len(units))  # correction of each half-space along its normal
    for _ in range(sweeps):
        for i, unit in enumerate(units):
            height = at @ unit - pull[:, i]  # of the point without this half-space's correction
            correction = (-height).clamp_min(0)
            at = at + (correction - pull[:, i])[:, None] * unit
            pull[:, i] = correction
    return at.to(x.dtype)


def project_violated(x: Tensor, normals: Tensor) -> Tensor:
    """Projection onto the intersection of the planes of all violated half-spaces, as equalities
    (bell2023, after equation 139).

    This is what the paper's sequence of Gram and Schmidt directions computes. It is the nearest
    point of the half-spaces' intersection only where exactly the violated faces are active.

    Arguments as :func:`alternating_projections`.
    """
    at, units = _units(x, normals)
    heights = at @ units.T
    violated = (heights < 0).double()
    gram = violated[:, :, None] * (units @ units.T) * violated[:, None, :]
    gram = gram + torch.diag_embed(1 - violated)
    weights = torch.linalg.solve(gram, heights * violated)
    return (at - weights @ units).to(x.dtype)


def _first_coordinate(x: Tensor, tangents: Tensor) -> Tensor:
    """Root t of ``(t - x_1) + sum_i tan_{i-1} max(0, t tan_{i-1} - x_i)``, which grows with t:
    (N,)."""
    first, others = x[:, 0], x[:, 1:]
    positive, used = tangents > 0, tangents != 0
    corners = torch.where(used, others / torch.where(used, tangents, 1), torch.inf)
    corners, order = corners.sort(1)
    squares = tangents.square().expand_as(others).gather(1, order)
    products = (tangents * others).gather(1, order)
    # terms that set in at their corner; the others end there
    rising = positive.expand_as(others).gather(1, order)

    def running(values: Tensor) -> Tensor:
        """Sum over the terms that hold just right of each corner; added up from both ends, so that
        nothing large cancels."""
        begun = torch.where(rising, values, 0).cumsum(1)
        ending = torch.where(rising, 0, values)
        return begun + ending.flip(1).cumsum(1).flip(1) - ending

    slope = (1 + running(squares)) * corners - (first[:, None] + running(products))
    passed = (slope < 0).sum(1, keepdim=True)  # corners left of the root
    place = torch.arange(len(tangents), device=first.device)
    holds = torch.where(rising, place < passed, place >= passed)
    weight = 1 + torch.where(holds, squares, 0).sum(1)
    return (first + torch.where(holds, products, 0).sum(1)) / weight


def _violated(x: Tensor, tangents: Tensor) -> Tensor:
    """Which half-spaces of the upper wedge the points (N, k) lie outside of: (N, k) bool."""
    return torch.cat([x[:, :1] < 0, x[:, 1:] < x[:, :1] * tangents], 1)


def _checked(
    x: Tensor, angles: Tensor | Sequence[float], least: float = -math.pi / 2
) -> tuple[Tensor, Tensor]:
    """The first k coordinates of ``x``, (N, k), and the tangents (k - 1,) on its device, both
    checked and in float64."""
    points("x", x, matrix=True)
    theta = torch.as_tensor(angles, dtype=torch.float64, device=x.device).detach()
    allowed = "from 0 to below pi/2" if least == 0 else "strictly between -pi/2 and pi/2"
    wanted = f"angles must be (k - 1,) radians {allowed}, for at most {x.shape[1]} faces"
    if theta.ndim != 1 or len(theta) + 1 > x.shape[1]:
        raise ValueError(
            f"{wanted}; shape {tuple(theta.shape)}, which makes k = {theta.numel() + 1}, was given"
        )
    fits = (theta >= 0 if least == 0 else theta > least) & (theta < math.pi / 2)
    if not bool(fits.all()):
        raise ValueError(f"{wanted}; {theta[~fits][0].item()} was given")
    return x[:, : len(theta) + 1].detach().double(), theta.tan()


def _units(x: Tensor, normals: Tensor, sweeps: int = 1) -> tuple[Tensor, Tensor]:
    """``x`` and unit normals (k, n) in float64, both checked."""
    points("x", x, matrix=True)
    matrix("normals", normals, columns=x.shape[1])
    whole_number("sweeps", sweeps, 1)
    exact = normals.detach().double()
    lengths = exact.norm(dim=1, keepdim=True)
    if not bool((lengths > 0).all()):
        raise ValueError("normals must not be zero; one of them is")
    return x.detach().double(), (exact / lengths).to(x.device)
