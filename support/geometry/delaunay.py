"""Classifiers from Voronoi cells and Delaunay triangulations, and the geometry of their edges
(bell2023, sections 30.1 to 30.3)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import Delaunay, QhullError, cKDTree
from torch import Tensor, nn

from support.common.arguments import class_vector, matrix, points

_ROWS = 4096  # queries whose distances to all points are held at once
_ROUNDING = 1e-9  # relative: an edge whose ball holds another point by less counts as empty


@dataclass(frozen=True)
class Triangulation:
    """A Delaunay triangulation of labelled points.

    Attributes:
        points: (n, d) float64.
        labels: (n,) int64.
        classes: how many.
        simplices: (m, d + 1) int64 indices of the points.
        edges: (E, 2) int64 indices, each edge once.
        found: scipy's triangulation.
    """

    points: Tensor
    labels: Tensor
    classes: int
    simplices: Tensor
    edges: Tensor
    found: Delaunay

    @property
    def longest_edge(self) -> float:
        """The epsilon of bell2023, Definition 30.5."""
        ends = self.points[self.edges]
        return float((ends[:, 0] - ends[:, 1]).norm(dim=1).max())


def triangulate(x: Tensor, labels: Tensor | None = None) -> Triangulation:
    """Delaunay triangulation by Qhull; meant for few dimensions, for its size grows with their
    factorial.

    Args:
        x: (n, d) distinct points that span all d >= 2 dimensions, n >= d + 2.
        labels: (n,) int64 classes from 0; all 0 if None.

    Raises:
        ValueError: duplicate points, points in a common plane, too few of them, labels that do not
            fit.
    """
    labels = _labelled(x, labels)
    exact = x.detach().double().cpu()
    n, d = exact.shape
    if d < 2 or n < d + 2:
        raise ValueError(
            f"a triangulation needs d >= 2 and at least d + 2 points; {n} in {d} dimensions were "
            "given"
        )
    try:
        found = Delaunay(exact.numpy())
    except QhullError as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"the points must span all {d} dimensions: Qhull says {why}") from error
    if close := len(found.coplanar):
        raise ValueError(
            f"{close} points are too close to others to be told apart; remove near duplicates"
        )
    start, neighbours = found.vertex_neighbor_vertices
    edges = np.stack([np.repeat(np.arange(len(exact)), np.diff(start)), neighbours], 1)
    edges = _indices(edges[edges[:, 0] < edges[:, 1]])
    classes = int(labels.max()) + 1
    return Triangulation(exact, labels.cpu(), classes, _indices(found.simplices), edges, found)


def gabriel(triangulation: Triangulation) -> Tensor:
    """(E,) bool: which edges cross the face between the Voronoi cells of their two ends.

    An edge meets the bisector of its ends only at its midpoint, at a right angle; the midpoint lies
    in the shared face exactly if no other point is nearer to it, that is if the ball over the edge
    is empty: the edges of the Gabriel graph.
    """
    ends = triangulation.points[triangulation.edges]
    radius = (ends[:, 0] - ends[:, 1]).norm(dim=1) / 2
    nearest = torch.from_numpy(cKDTree(triangulation.points.numpy()).query(ends.mean(1).numpy())[0])
    return nearest >= radius * (1 - _ROUNDING)


def bounded_cells(triangulation: Triangulation) -> Tensor:
    """(n,) bool: which points have a bounded Voronoi cell: those in the interior of the convex
    hull."""
    inner = torch.ones_like(triangulation.points[:, 0], dtype=torch.bool)
    inner[_indices(np.unique(triangulation.found.convex_hull))] = False
    return inner


def simplex_quality(triangulation: Triangulation) -> Tensor:
    """(m,) inradius over circumradius times d, for each simplex: 1 for a regular one, 0 for a flat
    one (Euler's inequality)."""
    corners = triangulation.points[triangulation.simplices]  # (m, d + 1, d)
    d = corners.shape[2]
    sides = corners[:, 1:] - corners[:, :1]
    lengths = sides.square().sum(2)
    center = torch.linalg.solve(2 * sides, lengths[..., None])[..., 0]
    circumradius = center.norm(dim=1)
    # Gradients of the barycentric coordinates: their lengths are one over the heights, and the
    # inradius is one over their sum.
    slopes = torch.linalg.inv(sides).mT
    slopes = torch.cat([-slopes.sum(1, keepdim=True), slopes], 1)
    return d / (slopes.norm(dim=2).sum(1) * circumradius)


def barycentric_weights(triangulation: Triangulation, x: Tensor) -> Tensor:
    """Delaunay weights of each class: the barycentric coordinates of ``x`` in its simplex, added up
    by label (bell2023, Definition 30.5).

    Args:
        triangulation: of the labelled points.
        x: (N, d) query points.

    Returns:
        (N, K) float64, each row non-negative with sum 1. Outside the convex hull, where there is no
        simplex, the nearest point's class has weight 1: the extension by the Euclidean metric that
        the paper remarks on.
    """
    exact = matrix("x", x, columns=triangulation.points.shape[1]).detach().double().cpu()
    simplex = _indices(triangulation.found.find_simplex(exact.numpy()))
    inside = simplex >= 0
    weights = exact.new_zeros(len(x), triangulation.classes)
    transform = torch.from_numpy(triangulation.found.transform)[simplex[inside]]
    some = torch.einsum("nij,nj->ni", transform[:, :-1], exact[inside] - transform[:, -1])
    coordinates = torch.cat([some, 1 - some.sum(1, keepdim=True)], 1).clamp_min(0)
    coordinates = coordinates / coordinates.sum(1, keepdim=True)
    labels = triangulation.labels[triangulation.simplices[simplex[inside]]]
    weights[inside] = weights[inside].scatter_add(1, labels, coordinates)
    if not bool(inside.all()):
        nearest = cKDTree(triangulation.points.numpy()).query(exact[~inside].numpy())[1]
        own = triangulation.labels[_indices(nearest)]
        weights[~inside] = nn.functional.one_hot(own, triangulation.classes).double()
    return weights.to(x.device)


def delaunay_classifier(triangulation: Triangulation) -> Callable[[Tensor], Tensor]:
    """The weighted Delaunay classifier of section 30.3: points (N, d) to log-weights (N, K), -inf
    where a class has no weight."""
    return lambda x: barycentric_weights(triangulation, x).log().to(x.dtype)


def voronoi_classifier(x: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    """The Voronoi classifier of section 30.1, which is the nearest neighbour's class: scores (N,
    K), minus the least squared distance.

    Args:
        x: (n, d) distinct points; any number of dimensions, for nothing is triangulated.
        labels: (n,) int64 classes from 0, each of them used.

    Raises:
        ValueError: duplicate points, labels that do not fit or leave a class empty.
    """
    labels = _labelled(x, labels)
    classes = int(labels.max()) + 1
    if bool((labels.bincount() == 0).any()):
        raise ValueError(
            f"labels must use every class from 0 to {classes - 1}; one of them has no point"
        )
    groups = [x.detach()[labels == k] for k in range(classes)]

    def scores(query: Tensor) -> Tensor:
        points("query", query, matrix=True)
        kept = [group.to(query) for group in groups]
        pieces = [
            torch.stack([_distances(part, group).amin(1) for group in kept], 1)
            for part in query.split(_ROWS)
        ]
        return -torch.cat(pieces).square()

    return scores


def _distances(x: Tensor, others: Tensor) -> Tensor:
    """By differences, not the expanded square: at a bisector two distances are nearly equal."""
    return torch.cdist(x, others, compute_mode="donot_use_mm_for_euclid_dist")


def _indices(found: np.ndarray) -> Tensor:
    return torch.from_numpy(found.astype(np.int64))


def _labelled(x: Tensor, labels: Tensor | None) -> Tensor:
    """The labels, zeros for None, of distinct points."""
    points("x", x, matrix=True)
    if labels is None:
        labels = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    if int(class_vector("labels", labels, len(x)).min()) < 0:
        raise ValueError(f"labels must be from 0; {int(labels.min())} was given")
    if twice := len(x) - len(torch.unique(x.detach(), dim=0)):
        raise ValueError(f"points must be distinct; {twice} of {len(x)} are duplicates")
    return labels
