"""Softmax as k-means, and k-means itself.

The centroids of hess2020's Theorem 1, assignments to them, and the distances its Theorem 2 is
about: chapter 1. These computations are in float64 whatever the inputs' type: norms that are equal
to seven digits decide nothing. The clusters of each class that alfarra2021 trains towards:
chapter 4.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from support.common.arguments import class_vector, matrix, number, random_stream, whole_number
from support.models.heads import last_layer, squared_distances

_RANK = 1e-10  # a direction shorter than this share of the longest counts as none
_EQUAL = 1e-9  # squared norms that differ by less than this share of their mean count as equal


class NoEquidistantCentroids(ValueError):
    """The class weights lie on no common sphere, so no shift gives them equal norms."""


@dataclass(frozen=True)
class Clusters:
    """What k-means found; every cluster has a member, and every centre is the mean of its members.

    Attributes:
        centers: (C, k, d), k clusters for each of C classes, or (k, d) where there are no classes;
            in the features' dtype.
        index: (N,) int64, each image's row in ``centers.flatten(0, -2)``.
        inertia: (C,) or () float64, squared distances of the members to their centre, summed.
    """

    centers: Tensor
    index: Tensor
    inertia: Tensor


@dataclass(frozen=True)
class Centroids:
    """Centroids at equal distance from the origin, whose nearest one is the network's prediction
    (hess2020, Theorem 1).

    Attributes:
        centers: (K, d) float64, or (K, d + 1) where the layer has a bias.
        shift: v, (d,) or (d + 1,): centers = weights + v.
        radius: common norm of the centers.
        bias: whether features are augmented by a constant 1.
    """

    centers: Tensor
    shift: Tensor
    radius: float
    bias: bool

    def assign(self, features: Tensor) -> Tensor:
        """Index of the nearest centroid, (N,), for features (N, d) as the layer sees them (the
        constant 1 is added here)."""
        matrix("features", features, rows=0)
        if self.bias:
            features = torch.cat([features, features.new_ones(len(features), 1)], 1)
        return assign(features, self.centers)


def equidistant_centroids(weight: Tensor, bias: Tensor | None = None) -> Centroids:
    """The centroids of hess2020's Theorem 1: Z_k = W_k + v with one v for all classes, and all Z_k
    of equal norm.

    v solves 2 (W_1 - W_l)^T v = |W_l|^2 - |W_1|^2 for all l. It exists if and only if the weights
    lie on a common sphere (affine independence is enough; d >= K - 1 is neither enough nor
    necessary), and is unique up to directions orthogonal to all W_k - W_l. This returns the v of
    least norm, which lies in the span of those differences: v is zero where the weights have equal
    norms already, and Z and W have the same component outside the span. Without that component, Z_k
    is W_k minus the circumcentre of the weights' simplex.

    With a bias the theorem is applied to the weights (W_k, b_k) and the features (f, 1). The cells
    in the space of (f, 1) are cones; those in the space of f are slices of cones, which is to say a
    power diagram.

    Weights within 1e-10 (relative to their spread) of a lower-dimensional flat are taken to lie in
    it, and squared norms that agree to 1e-9 are taken to be equal.

    Args:
        weight: (K, d), one row per class.
        bias: (K,) or None.

    Raises:
        NoEquidistantCentroids: the weights lie on no common sphere.
        ValueError: shapes that do not fit, NaN or infinity.
    """
    w, offset = last_layer(weight, bias)
    if bias is not None:
        w = torch.cat([w, offset[:, None]], 1)
    mean = w.mean(0)
    centred = w - mean
    u, sigma, vt = torch.linalg.svd(centred, full_matrices=False)
    rank = int((sigma > _RANK * sigma.max()).sum())
    u, sigma, vt = u[:, :rank], sigma[:rank], vt[:rank]
    # With Z = centred + s, |Z_k|^2 is the same for all k iff 2 centred_k . s + |centred_k|^2 is.
    squares = centred.square().sum(1)
    s = -vt.T @ ((u.T @ (squares - squares.mean())) / (2 * sigma))
    shift = s - vt.T @ (vt @ mean)
    centers = w + shift
    norms = centers.square().sum(1)
    if (norms.max() - norms.min()) > _EQUAL * norms.mean():
        raise NoEquidistantCentroids(
            f"the {len(w)} class weights lie on no common sphere (their differences span {rank} "
            f"dimensions): no shift gives them equal norms, the best leaves them between "
            f"{float(norms.min().sqrt()):.6g} and {float(norms.max().sqrt()):.6g}"
        )
    return Centroids(centers, shift, float(norms.mean().sqrt()), bias is not None)


def assign(features: Tensor, centers: Tensor) -> Tensor:
    """Index of the nearest centre, (N,) int64: the assignment step of k-means (hess2020, Eq. 1).

    Args:
        features: (N, d).
        centers: (K, d).
    """
    matrix("features", features, rows=0)
    matrix("centers", centers)
    return squared_distances(features.to(torch.float64), centers.to(torch.float64)).argmin(1)


def class_centroids(features: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Mean of the features of each class: C = f(X) Y (Y^T Y)^-1 (hess2020, Algorithm 1).

    Args:
        features: (N, d).
        labels: (N,) int64 in 0 .. n_classes - 1, on any device.

    Returns:
        (K, d) in the features' dtype, summed in float64.

    Raises:
        ValueError: a class without images, labels out of range, shapes that do not fit.
    """
    matrix("features", features, rows=0)
    labels = class_vector("labels", labels, len(features), n_classes).to(features.device)
    counts = labels.bincount(minlength=n_classes)
    if empty := torch.nonzero(counts == 0)[:, 0].tolist():
        raise ValueError(f"every class needs at least one image; classes {empty} have none")
    sums = torch.zeros(n_classes, features.shape[1], dtype=torch.float64, device=features.device)
    return (sums.index_add_(0, labels, features.to(torch.float64)) / counts[:, None]).to(
        features.dtype
    )


def kmeans_plus_plus(x: Tensor, k: int, **settings) -> Clusters:
    """k-means of points without classes: :func:`class_clusters` of one class, ``centers`` (k, d)
    and ``inertia`` ().

    Args:
        x: (N, d), at least k rows.
        settings: ``restarts``, ``max_iter``, ``tol``, ``generator`` of :func:`class_clusters`.
    """
    matrix("x", x)
    one = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    found = class_clusters(x, one, 1, k, **settings)
    return Clusters(found.centers[0], found.index, found.inertia[0])


def class_clusters(
    features: Tensor,
    labels: Tensor,
    n_classes: int,
    k: int,
    *,
    restarts: int = 1,
    max_iter: int = 100,
    tol: float = 1e-4,
    generator: torch.Generator | None = None,
) -> Clusters:
    """k-means of each class by itself, all classes as one batched problem (C, k, d).

    Greedy k-means++ (Arthur and Vassilvitskii 2007): a new centre is drawn with probability
    proportional to the squared distance to the nearest centre so far, and of 2 + log k draws the
    one that lowers the inertia most is taken. Then Lloyd's steps, until the centres of a class move
    no farther than ``tol`` allows; classes that are done leave the batch when half of it is. A
    cluster that loses all members takes over the image that is farthest from its centre. ClusTR
    clusters the training features of each class so after every epoch (alfarra2021, 4.2; Rippel et
    al. 2016, 3.3). Chapter 4.

    Args:
        features: (N, d). Distances are computed in their dtype, about the class means.
        labels: (N,) int64 in 0 .. n_classes - 1, on the features' device, each at least k times.
        n_classes: C.
        k: clusters per class.
        restarts: runs from fresh seeds; the best one counts, class by class.
        max_iter: Lloyd steps at most.
        tol: a class is done when its centres' squared moves sum up to at most ``tol`` times its
            features' mean variance.
        generator: a CPU generator; default: a fresh one of fixed seed.

    Raises:
        ValueError: a class with fewer than k images, named with their number; labels out of range;
            NaN; impossible numbers.
    """
    matrix("features", features)
    for name, value in zip(
        ("n_classes", "k", "restarts", "max_iter"), (n_classes, k, restarts, max_iter), strict=True
    ):
        whole_number(name, value, 1)
    number("tol", tol, least=0)
    labels = class_vector("labels", labels, len(features), n_classes).to(features.device)
    counts = labels.bincount(minlength=n_classes)
    if short := {c: n for c, n in enumerate(counts.tolist()) if n < k}:
        raise ValueError(
            f"{k} clusters per class need {k} images of each class; too few have (class: images) "
            f"{short}"
        )
    generator = random_stream(generator)
    # One row of places a class, padded to the largest: x holds the features about their class
    # means, for digits that decide.
    order = labels.argsort(stable=True)
    first = (counts.cumsum(0) - counts)[labels[order]]
    rank = torch.arange(len(labels), device=labels.device) - first
    place = torch.empty_like(labels)
    place[order] = labels[order] * counts.max() + rank
    points = features.detach().to(torch.promote_types(features.dtype, torch.float32))
    x = points.new_zeros(n_classes, int(counts.max()), points.shape[1])
    x.flatten(0, 1).index_copy_(0, place, points)
    means = x.sum(1) / counts[:, None]
    real = torch.arange(x.shape[1], device=x.device) < counts[:, None]
    x.sub_(means[:, None])
    x[~real] = 0
    starts = (_greedy_seeds(x, real, k, generator) for _ in range(restarts))
    found = [_lloyd(x, real, start, max_iter, tol) for start in starts]
    centers, member, inertia = (torch.stack(part) for part in zip(*found, strict=True))
    best, each = inertia.argmin(0), torch.arange(n_classes, device=x.device)
    index = labels * k + member[best, each].flatten()[place]
    centers = (centers[best, each] + means[:, None]).to(features.dtype)
    return Clusters(centers, index, inertia[best, each])


def distortion_bound(
    features: Tensor,
    features_adv: Tensor,
    centers: Tensor,
    label: Tensor,
    label_adv: Tensor,
    lipschitz: float,
    *,
    best: bool = False,
) -> Tensor:
    """Lower bound on |x~ - x| for a pair predicted as k and l (hess2020, Theorem 2).

    (|Z_l - Z_k| - |f~ - Z_l| - |f - Z_k|) / L. It needs the features f~ of the attacked image, so
    it is no certificate, and it depends on two freedoms that no prediction depends on: Z may be
    shifted by any u orthogonal to all Z_k - Z_l, and the network with features f / s, Lipschitz
    constant L / s and centroids s Z is the same one. With t = s^2, P the projector on those u and
    Q = 1 - P, the best u is found by reflection, and leaves

        g(t) = t |Z_l - Z_k| - sqrt((|Q f - t Q Z_k| + |Q f~ - t Q Z_l|)^2 + |P (f~ - f)|^2),

    which is concave in t. ``best`` returns sup g / L over t >= 0, which is never more than |f~ - f|
    / L.

    Args:
        features, features_adv: (N, d), augmented by a 1 if the centroids are (``Centroids.bias``).
        centers: (K, d), ``Centroids.centers``.
        label, label_adv: (N,) int64, the two predictions k and l.
        lipschitz: L, positive: a Lipschitz constant of the feature map in l2.
        best: take the supremum over both freedoms.

    Returns:
        (N,) float64, often negative.

    Raises:
        ValueError: shapes that do not fit, labels out of range, NaN, or L that is not positive.
    """
    z = matrix("centers", centers).to(torch.float64)
    f = matrix("features", features, rows=0, columns=z.shape[1]).to(torch.float64)
    f_adv = matrix("features_adv", features_adv, rows=0, columns=z.shape[1]).to(torch.float64)
    if len(f) != len(f_adv):
        raise ValueError(f"features_adv must have {len(f)} rows; {len(f_adv)} were given")
    k = class_vector("label", label, len(f), len(z)).to(z.device)
    other = class_vector("label_adv", label_adv, len(f), len(z)).to(z.device)
    lipschitz = number("lipschitz", float(lipschitz), above=0)
    separation = (z[other] - z[k]).norm(dim=1)
    if not best:
        return (separation - (f_adv - z[other]).norm(dim=1) - (f - z[k]).norm(dim=1)) / lipschitz
    _, sigma, vt = torch.linalg.svd(z - z.mean(0), full_matrices=False)
    vt = vt[sigma > _RANK * sigma.max()]  # an orthonormal basis of the image of Q
    move = f_adv - f
    free = (move - move @ vt.T @ vt).square().sum(1)
    seen = (part @ vt.T for part in (f, f_adv, z[k], z[other]))
    return _best_scale(*seen, separation, free) / lipschitz


def bisector_bound(
    features: Tensor, weight: Tensor, bias: Tensor | None, lipschitz: float
) -> Tensor:
    """Certified radius: no x~ with |x~ - x| below it has another prediction.

    min over l != k of (score_k - score_l) / (L |W_k - W_l|): the distance of f to the nearest
    bisector of two centroids, over L (what Theorem 2 of hess2020 leaves out; Proposition 1 of
    alfarra2021; chapters 1 and 4). Exact for a linear network.

    Args:
        features: (N, d), not augmented.
        weight, bias: (K, d) with K >= 2, and (K,) or None.
        lipschitz: L, positive: a Lipschitz constant of the feature map in l2.

    Returns:
        (N,) float64, at least 0; infinite where no other class can ever win.

    Raises:
        ValueError: shapes that do not fit, fewer than two classes, NaN, or L that is not positive.
    """
    w, b = last_layer(weight, bias)
    if len(w) < 2:
        raise ValueError(f"a decision needs at least two classes; {len(w)} was given")
    f = matrix("features", features, rows=0, columns=w.shape[1]).to(torch.float64)
    scores = f @ w.T + b
    k = scores.argmax(1)
    margin = scores.gather(1, k[:, None]) - scores
    apart = torch.cdist(w, w, compute_mode="donot_use_mm_for_euclid_dist")[k]
    # Equal weights: their margin never changes. It is a tie from the start, or infinitely far from
    # one.
    radius = torch.where(apart > 0, margin / apart, torch.where(margin > 0, torch.inf, 0.0))
    radius = radius.scatter(1, k[:, None], torch.inf).amin(1)
    return radius / number("lipschitz", float(lipschitz), above=0)


def equal_norm_projection(weight: Tensor) -> Tensor:
    """The nearest matrix (in the Frobenius norm) whose rows have equal norms: directions kept,
    lengths set to the mean length.

    For a fixed common length r the nearest rows are r W_k / |W_k|, at squared distance sum (|W_k| -
    r)^2, which is least at the mean. A reconstruction of the "proximal minimization update" that
    hess2020 announces and never states (chapter 1): afterwards the weights themselves are the
    centroids of Theorem 1, with v = 0.

    Args:
        weight: (K, d) without zero rows.

    Returns:
        (K, d) in the weight's dtype, differentiable.

    Raises:
        ValueError: a zero row, which has no direction to keep, NaN, or no matrix.
    """
    matrix("weight", weight)
    norms = weight.to(torch.float64).norm(dim=1, keepdim=True)
    if zero := torch.nonzero(norms[:, 0] == 0)[:, 0].tolist():
        raise ValueError(f"a zero row has no direction to keep; rows {zero} are zero")
    return (weight * (norms.mean() / norms)).to(weight.dtype)


def _greedy_seeds(x: Tensor, real: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Centres (C, k, d) among the points of x (C, n, d) that are ``real`` (C, n)."""
    squares = torch.linalg.vector_norm(x, dim=2).square_()
    counts = real.sum(1, keepdim=True)
    draws = 2 + int(math.log(k))

    def uniform(columns: int) -> Tensor:
        drawn = {"dtype": torch.float64, "generator": generator, "device": generator.device}
        return torch.rand(len(x), columns, **drawn).to(x.device)

    def distances(chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The points (C, t, d) at ``chosen`` (C, t), and all squared distances to them (C, n, t),
        zero where no point is."""
        points = x.gather(1, chosen[:, :, None].expand(-1, -1, x.shape[2]))
        d2 = squares[:, :, None] + points.square().sum(2)[:, None] - x @ (2 * points).mT
        return points, d2.clamp_min_(0).mul_(real[:, :, None])

    points, nearest = distances((uniform(1) * counts).long())
    centers = [points[:, 0]]
    for _ in range(k - 1):
        reached = nearest[:, :, 0].cumsum(1, dtype=torch.float64)
        chosen = torch.searchsorted(reached, uniform(draws) * reached[:, -1:], right=True)
        points, d2 = distances(torch.minimum(chosen, counts - 1))
        d2 = torch.minimum(d2, nearest)
        winner = d2.sum(1, dtype=torch.float64).argmin(1)[:, None, None]
        nearest = d2.gather(2, winner.expand(-1, x.shape[1], 1))
        centers.append(points.gather(1, winner.expand(-1, 1, x.shape[2]))[:, 0])
    return torch.stack(centers, 1)


def _lloyd(
    x: Tensor, real: Tensor, centers: Tensor, max_iter: int, tol: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Lloyd's steps from ``centers`` (C, k, d): the centres, the members (C, n) whose means they
    are, the inertia (C,)."""
    result = centers.clone(), torch.zeros_like(real, dtype=torch.int64)
    squares = torch.linalg.vector_norm(x, dim=2).square_()
    # x is centred: its mean square is the variance
    enough = tol * squares.sum(1) / (real.sum(1) * x.shape[2])
    rows, at, squares_at, real_at = torch.arange(len(x), device=x.device), x, squares, real
    for _ in range(max_iter):
        # up to half the point's own square
        half_d2 = torch.baddbmm(centers.square().sum(2)[:, None] / 2, at, centers.mT, alpha=-1)
        member = half_d2.argmin(2)
        weight = _weights_of(member, real_at, centers)
        if not bool(weight.any(1).all()):
            _fill(member, weight.sum(1), 2 * half_d2.amin(2) + squares_at, real_at)
            weight = _weights_of(member, real_at, centers)
        moved = weight.mT @ at / weight.sum(1)[:, :, None]
        going = (moved - centers).square().sum((1, 2)) > enough[rows]
        centers = moved
        result[0][rows], result[1][rows] = centers, member
        if not bool(going.any()):
            break
        if 2 * int(going.sum()) <= len(rows):  # classes that are done leave
            rows, at, squares_at, real_at, centers = (
                part[going] for part in (rows, at, squares_at, real_at, centers)
            )
    centers, member = result
    # By subtraction, class by class: a tight cluster's inertia is no difference of large squares.
    away = (
        torch.linalg.vector_norm(points - own[index], dim=1)
        for points, own, index in zip(x, centers, member, strict=True)
    )
    inertia = [each[kept].double().square_().sum() for each, kept in zip(away, real, strict=True)]
    return centers, member, torch.stack(inertia)


def _weights_of(member: Tensor, real: Tensor, centers: Tensor) -> Tensor:
    """1 where a real point (C, n) belongs to a cluster, else 0: (C, n, k)."""
    one_hot = torch.nn.functional.one_hot(member, centers.shape[1])
    return one_hot.to(centers.dtype).mul_(real[:, :, None])


def _fill(member: Tensor, size: Tensor, d2: Tensor, real: Tensor) -> None:
    """Give each empty cluster the point that lies farthest from its centre, taken from a cluster
    that keeps others; in place."""
    for row, empty in torch.nonzero(size == 0).tolist():
        spare = real[row] & (size[row] > 1)[member[row]]
        point = d2[row].masked_fill(~spare, -torch.inf).argmax()
        size[row, member[row, point]] -= 1
        size[row, empty] += 1
        member[row, point] = empty


def _best_scale(
    a: Tensor, b: Tensor, za: Tensor, zb: Tensor, separation: Tensor, free: Tensor
) -> Tensor:
    """sup over t >= 0 of t * separation - sqrt((|a - t za| + |b - t zb|)^2 + free), for each
    row."""
    tiny = torch.finfo(a.dtype).tiny
    na, nb = za.norm(dim=1), zb.norm(dim=1)
    excess = separation - na - nb
    # Opposite centroids (always so for K = 2): the terms linear in t cancel, and the supremum is a
    # limit at infinity.
    excess = torch.where(excess.abs() <= 1e-12 * separation, 0.0, excess)

    def distance_gain_slope(
        p: Tensor, z: Tensor, norm: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """|p - t z|; t |z| - |p - t z| without cancellation; and the derivative of the first."""
        distance = (p - t[:, None] * z).norm(dim=1)
        inner = (p * z).sum(1)
        gain = (2 * t * inner - p.square().sum(1)) / (t * norm + distance).clamp_min(tiny)
        return distance, gain, (t * norm.square() - inner) / distance.clamp_min(tiny)

    def value_and_slope(t: Tensor) -> tuple[Tensor, Tensor]:
        da, gain_a, slope_a = distance_gain_slope(a, za, na, t)
        db, gain_b, slope_b = distance_gain_slope(b, zb, nb, t)
        h = da + db
        root = (h.square() + free).sqrt()
        value = t * excess + gain_a + gain_b - free / (root + h).clamp_min(tiny)
        return value, separation - h * (slope_a + slope_b) / root.clamp_min(tiny)

    scale = (a.norm(dim=1) + b.norm(dim=1)) / (na + nb).clamp_min(tiny)
    scale = torch.where(scale > 0, scale, 1.0)
    low, high = (scale.log() + edge for edge in (-30.0, 30.0))
    for _ in range(100):  # bisection on log t for the zero of the slope, which falls
        middle = (low + high) / 2
        rising = value_and_slope(middle.exp())[1] > 0
        low, high = torch.where(rising, middle, low), torch.where(rising, high, middle)
    at_zero = -((a.norm(dim=1) + b.norm(dim=1)).square() + free).sqrt()
    ends = [value_and_slope(end.exp())[0] for end in (low, high)]
    return torch.stack([*ends, at_zero]).amax(0)
