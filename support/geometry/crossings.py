"""Points of a decision boundary, samples of it, and its normals, angles and curvatures (bell2023,
sections 30.1 and 31).

The model maps points ``(N, ...)`` to log-scores ``(N, K)``, as for the attacks. Images lie in
[0,1]; samples around a boundary point may leave that box, as the paper's do. The chapter "Decision
boundaries" shows each function at work.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import beta
from torch import Tensor

from support.attacks import base
from support.attacks.base import LEAST_ROWS, fast_rows, packed, per_image
from support.common.arguments import (
    class_vector,
    described,
    number,
    points,
    random_stream,
    scoring_model,
    whole_number,
)

Model = Callable[[Tensor], Tensor]
STEPS = {torch.float32: 24, torch.float64: 52}
"""Halvings after which the two sides of a bracket are neighbours on the segment's own grid of
floats."""
BATCH = 512
"""At most so many points in one pass."""


@dataclass(frozen=True)
class Crossing:
    """Where segments leave the class of their first end.

    Attributes:
        near: (N, ...) the last point of the first end's class; at it and at ``far`` the class has
            been read from the model.
        far: (N, ...) the first point of another class.
        t: (N,) float64 place of ``near`` on the segment, 0 to 1; ``far`` is at ``t + 2 ** -steps``.
        width: (N,) distance between the two, in the units of the points.
        classes: (N, 2) int64 classes at ``near`` and ``far``.
        residual: (N,) larger of the two gaps between the first end's class and its best rival, at
            ``near`` and at ``far``: 0 on the boundary of a continuous model.
        queries: model passes per segment, the two ends included.
    """

    near: Tensor
    far: Tensor
    t: Tensor
    width: Tensor
    classes: Tensor
    residual: Tensor
    queries: int

    @property
    def point(self) -> Tensor:
        """(N, ...) the middle of the bracket."""
        return torch.lerp(self.near, self.far, 0.5)


@dataclass(frozen=True)
class BoundarySample:
    """Noise around boundary points, brought back to the boundary.

    Attributes:
        points: (N, S, ...) on the boundary of the class of ``a``.
        moved: (N, S) distance from the noisy point to its place on the boundary.
        inside: (N, S) bool, the noisy point had the class of ``a``.
        classes: (N, S) int64 class on the far side: where it is not that of ``b``, the sample has
            met another piece of the boundary.
    """

    points: Tensor
    moved: Tensor
    inside: Tensor
    classes: Tensor


def bisect(
    model: Model, a: Tensor, b: Tensor, *, steps: int | None = None, batch_size: int = BATCH
) -> Crossing:
    """Bisect segments between points of different predicted classes, all at once, to where the
    class of ``a`` ends.

    A segment may leave the class more than once; one such place is found. Every bracket is halved
    ``steps`` times, so that no result depends on the others; the price is ``steps + 2`` model
    evaluations a segment.

    Args:
        model: a module or callable from points to log-scores (N, K).
        a, b: (N, ...) the ends, float32 or float64, finite.
        steps: halvings, at most :data:`STEPS`, which is also the default.
        batch_size: at most so many points in one pass; the model and the device choose a smaller
            number where that is faster.

    Raises:
        ValueError: ends of the same class, or that do not fit together; NaN; probabilities instead
            of log-scores; a model in training mode.
    """
    _check_pair(model, a, b)
    steps = whole_number("steps", STEPS[a.dtype] if steps is None else steps, 1, STEPS[a.dtype])
    rows = fast_rows(a, whole_number("batch_size", batch_size, 1), model=model)
    base.first_scores(model, a[:LEAST_ROWS])
    ends = [base.score(model, part, rows) for part in (a, b)]
    base.check_log_scores(torch.cat(ends))
    own = ends[0].argmax(1)
    if same := int((own == ends[1].argmax(1)).sum()):
        raise ValueError(
            "the two ends of a segment must have different predicted classes; "
            f"{same} of {len(a)} have equal ones"
        )
    found = []
    for index, real in packed(torch.arange(len(a), device=a.device), rows):
        piece = (part.index_select(0, index) for part in (a, b, *ends))
        found.append([part[:real] for part in _bisected(model, *piece, steps)])
    near, far, t, scores, beyond = map(torch.cat, zip(*found, strict=True))
    residual = torch.maximum(base.margin(scores, own).abs(), base.margin(beyond, own).abs())
    width = (far - near).flatten(1).norm(dim=1)
    classes = torch.stack([own, beyond.argmax(1)], 1)
    return Crossing(near, far, t, width, classes, residual, steps + 2)


def boundary_sample(
    model: Model, a: Tensor, b: Tensor, center: Tensor, offsets: Tensor
) -> BoundarySample:
    """Sample the boundary around points of it (bell2023, section 31): add noise, then interpolate
    towards the parent of the other side.

    A noisy point of the class of ``a`` moves towards ``b``, any other one towards ``a``, until the
    class of ``a`` ends.

    Args:
        model: as for :func:`bisect`.
        a, b: (N, ...) the parents of each centre, of different classes.
        center: (N, ...) points on the boundary, for example ``bisect(model, a, b).point``.
        offsets: (S, ...) noise to add, the same for all centres: Gaussian, or
            :func:`flat_spectrum`.

    Raises:
        ValueError: as :func:`bisect`, or shapes that do not fit.
    """
    _check_pair(model, a, b)
    _fit("center", center, a, len(a))
    _fit("offsets", offsets, a, None)
    n, count = len(a), len(offsets)
    noisy = (center[:, None] + offsets).flatten(0, 1)
    classes = _classes(model, torch.cat([a, noisy]))
    inside = classes[n:] == classes[:n].repeat_interleave(count)
    first, second = (part.repeat_interleave(count, 0) for part in (a, b))
    choose = per_image(inside, noisy)
    ends = torch.where(choose, noisy, first), torch.where(choose, second, noisy)
    crossing = bisect(model, *ends)
    at = crossing.point
    moved = (at - noisy).flatten(1).norm(dim=1)
    found = (at, moved, inside, crossing.classes[:, 1])
    return BoundarySample(*(part.unflatten(0, (n, count)) for part in found))


def heights(
    model: Model, x: Tensor, own: Tensor, normals: Tensor, offsets: Tensor, reach: float
) -> Tensor:
    """The boundary as a graph over its tangent plane: how far along the normal it lies from ``x +
    offset``.

    Args:
        model: as for :func:`bisect`.
        x: (N, ...) boundary points.
        own: (N,) int64 the class whose boundary it is, into which the normals point.
        normals: (N, ...) unit normals.
        offsets: (M, ...) for all, or (N, M, ...) for each point.
        reach: heights from -reach to reach are looked for.

    Returns:
        (N, M) heights, positive into the own class; NaN where the class is the same at both ends of
        the search: there the boundary is no graph within reach.
    """
    points("x", x)
    points("normals", normals)
    _fit("normals", normals, x, len(x))
    class_vector("own", own, len(x))
    number("reach", reach, above=0)
    wide = offsets if offsets.ndim == x.ndim + 1 else offsets.expand(len(x), *offsets.shape)
    _fit("offsets", wide, x, len(x), None)
    count = wide.shape[1]
    plane = (x[:, None] + wide).flatten(0, 1)
    up, classes = normals.repeat_interleave(count, 0), own.repeat_interleave(count)
    top, bottom = plane + reach * up, plane - reach * up
    found = torch.full((len(plane),), torch.nan, dtype=x.dtype, device=x.device)
    crosses = (_classes(model, top) == classes) & (_classes(model, bottom) != classes)
    if bool(crosses.any()):
        t = bisect(model, top[crosses], bottom[crosses]).t
        middle = (t + 0.5 * 2.0 ** -STEPS[x.dtype]).to(x.dtype)
        found[crosses] = reach * (1 - 2 * middle)
    return found.reshape(len(x), count)


@torch.inference_mode(False)
def gradient_normals(
    model: Model, x: Tensor, own: Tensor, other: Tensor, *, batch_size: int = BATCH
) -> Tensor:
    """Unit normals of the boundary between two classes, from the gradient of the gap of their
    scores.

    Args:
        model: as for :func:`bisect`, differentiable.
        x: (N, ...) points on or near the boundary.
        own, other: (N,) int64 classes; the normal points into ``own``.

    Raises:
        ValueError: a gradient that is zero or not finite.
    """
    points("x", x)
    scoring_model(model)
    base.first_scores(model, x[:LEAST_ROWS])
    parts = []
    for at, *pair in zip(
        *(part.clone().split(batch_size) for part in (x, own, other)), strict=True
    ):
        at = at.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        with torch.enable_grad():
            scores = model(at.clone())
            first, second = (scores.gather(1, kind[:, None]) for kind in pair)
            parts.append(torch.autograd.grad((first - second).sum(), at)[0])
    slope = torch.cat(parts)
    length = slope.flatten(1).norm(dim=1)
    if flat := int((~(length.isfinite() & (length > 0))).sum()):
        raise ValueError(f"the gap of the two scores has no gradient at {flat} of {len(x)} points")
    return slope / per_image(length, slope)


def fitted_normals(sample: Tensor) -> tuple[Tensor, Tensor]:
    """Unit normals of boundary samples by least squares: the direction in which a sample has the
    least spread.

    Args:
        sample: (N, S, d) points around each of N places, S >= d + 1.

    Returns:
        The normals (N, d), of either sign, and (N,) the spread along them over the median spread: 0
        for a sample of a plane.

    Raises:
        ValueError: fewer than d + 1 points, which leave some direction unseen.
    """
    points("sample", sample)
    if sample.ndim != 3 or sample.shape[1] <= sample.shape[2]:
        raise ValueError(
            "sample must be (N, S, d) with S of at least d + 1 points each; "
            f"{described(sample)} was given"
        )
    centred = sample.detach().double() - sample.detach().double().mean(1, keepdim=True)
    # Singular values, not eigenvalues of the Gram matrix, whose rounding would hide a spread below
    # 1e-8.
    values, directions = torch.linalg.svd(torch.linalg.qr(centred, mode="r").R)[1:]
    spread = values[:, -1] / values.median(1).values
    return directions[:, -1].to(sample.dtype), spread.to(sample.dtype)


def tangent_frames(
    normals: Tensor, count: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Random orthonormal directions in the tangent planes.

    Args:
        normals: (N, ...) unit normals in d dimensions.
        count: m directions, at most d - 1.
        generator: draws them; all points share the draw.

    Returns:
        (N, m, ...) directions, orthogonal to each other and to the normal.
    """
    points("normals", normals)
    flat = normals.detach().flatten(1).double()
    whole_number("count", count, 1, flat.shape[1] - 1)
    stream = random_stream(generator)
    drawn = base.normal((count, flat.shape[1]), stream, flat)
    columns = torch.cat([flat[:, None], drawn.expand(len(flat), -1, -1)], 1).mT
    frames = torch.linalg.qr(columns).Q.mT[:, 1:]
    return frames.to(normals.dtype).reshape(len(flat), count, *normals.shape[1:])


def curvatures(
    model: Model, x: Tensor, own: Tensor, normals: Tensor, frames: Tensor, radius: float
) -> Tensor:
    """Principal curvatures of the boundary at a finite scale, within given tangent directions.

    The second fundamental form is read off the boundary itself: ``II(v, v) = (h(r v) + h(-r v)) /
    r^2`` for the height h over the tangent plane, and mixed terms by polarisation. So it sees the
    kinks of a ReLU network, whose second derivatives are zero almost everywhere.

    Args:
        model: as for :func:`bisect`.
        x, own, normals: as for :func:`heights`.
        frames: (N, m, ...) orthonormal tangent directions (:func:`tangent_frames`).
        radius: r, the scale, in the units of the points; heights up to r are looked for.

    Returns:
        (N, m) curvatures, descending, positive where the own class is convex; NaN where the
        boundary is no graph at that scale. Over all d - 1 directions these are the principal
        curvatures, exact for r to 0.
    """
    points("x", x)
    points("frames", frames)
    _fit("frames", frames, x, len(x), None)
    m = frames.shape[1]
    i, j = torch.triu_indices(m, m, 1, device=x.device)
    mixed = torch.cat([frames[:, i] + frames[:, j], frames[:, i] - frames[:, j]], 1) / math.sqrt(2)
    offsets = radius * torch.cat([frames, mixed], 1)
    both = torch.cat([offsets, -offsets], 1)
    there, back = heights(model, x, own, normals, both, radius).double().chunk(2, 1)
    own_bend, plus, minus = ((there + back) / radius**2).split([m, len(i), len(i)], 1)
    form = torch.diag_embed(own_bend)
    form[:, i, j] = form[:, j, i] = (plus - minus) / 2
    whole = ~form.isnan().flatten(1).any(1)
    found = torch.full((len(x), m), torch.nan, dtype=torch.float64, device=x.device)
    found[whole] = torch.linalg.eigvalsh(form[whole]).flip(1)
    return found.to(x.dtype)


def incidence(direction: Tensor, normals: Tensor) -> Tensor:
    """Angles between lines and the normals of the planes that they cross: (N,) degrees, 0 for an
    orthogonal crossing, 90 for a grazing one.

    bell2023's Definition 30.1 describes two complementary angles, first the one between the line
    and its projection onto the plane, then pi/2 minus that; this is the second.

    Args:
        direction, normals: (N, ...) vectors of any length but zero.
    """
    points("direction", direction)
    points("normals", normals)
    if direction.shape != normals.shape:
        raise ValueError(
            "direction and normals must have one shape; "
            f"{tuple(direction.shape)} and {tuple(normals.shape)} were given"
        )
    u, n = (part.detach().flatten(1).double() for part in (direction, normals))
    lengths = u.norm(dim=1), n.norm(dim=1)
    if not all(bool((length > 0).all()) for length in lengths):
        raise ValueError("direction and normals must not be zero; one of them is")
    u, n = u / lengths[0][:, None], n / lengths[1][:, None]
    along = (u * n).sum(1, keepdim=True)
    # atan2 of both parts, since acos loses half the digits near 0.
    angle = torch.atan2((u - along * n).norm(dim=1), along.abs()[:, 0])
    return torch.rad2deg(angle).to(direction.dtype)


def incidence_null(dimensions: int, share: float) -> float:
    """Quantile of the angle of incidence of a uniformly random direction, in degrees: the cosine's
    square has the law Beta(1/2, (d - 1)/2).

    Args:
        dimensions: d >= 2.
        share: 0 to 1, for example 0.5 for the median.
    """
    whole_number("dimensions", dimensions, 2)
    number("share", share, least=0, most=1)
    return float(np.rad2deg(np.arccos(np.sqrt(beta.ppf(1 - share, 0.5, (dimensions - 1) / 2)))))


def _bisected(
    model: Model, a: Tensor, b: Tensor, inner: Tensor, outer: Tensor, steps: int
) -> tuple[Tensor, ...]:
    """Sides, place, and scores at the sides, of one packed piece whose ends have the scores
    ``inner`` and ``outer``."""
    with torch.no_grad():
        own = inner.argmax(1)
        near = torch.zeros(len(a), dtype=torch.float64, device=a.device)
        at = torch.empty_like(a)
        width = 1.0
        for _ in range(steps):
            width /= 2
            middle = near + width
            scores = model(torch.lerp(a, b, per_image(middle.to(a.dtype), a), out=at))
            stays = (scores.argmax(1) == own)[:, None]
            inner, outer = torch.where(stays, scores, inner), torch.where(stays, outer, scores)
            near = torch.where(stays[:, 0], middle, near)
        sides = (torch.lerp(a, b, per_image(t.to(a.dtype), a)) for t in (near, near + width))
        return (*sides, near, inner, outer)


def _classes(model: Model, x: Tensor) -> Tensor:
    return base.score(model, x, fast_rows(x, BATCH, model=model)).argmax(1)


def _check_pair(model: Model, a: Tensor, b: Tensor) -> None:
    points("a", a)
    points("b", b)
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        given = (f"{described(part)} on {part.device}" for part in (a, b))
        raise ValueError(f"a and b must match; {' and '.join(given)} were given")
    scoring_model(model)


def _fit(name: str, value: Tensor, like: Tensor, *shape: int | None) -> None:
    """Refuse what is not of the dtype of ``like`` (N, ...), and of the shape of its points behind
    some dimensions ``shape``, in which None is any number but 0."""
    wanted = (*shape, *like.shape[1:])
    alike = isinstance(value, Tensor) and value.ndim == len(wanted) and value.dtype == like.dtype
    if not alike or any(
        n == 0 if m is None else n != m for n, m in zip(value.shape, wanted, strict=True)
    ):
        sides = ", ".join("any" if side is None else str(side) for side in wanted)
        raise ValueError(f"{name} must be {like.dtype} ({sides}); {described(value)} was given")
