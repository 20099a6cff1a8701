"""Voronoi and Delaunay classifiers against scipy and brute force, and the edges of a triangulation."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import Delaunay, Voronoi, cKDTree

from support import geometry

DOUBLE = torch.float64


def cloud(seed, n, d, classes=3):
    stream = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.arange(classes), torch.randint(classes, (n - classes,), generator=stream)])
    return torch.rand(n, d, generator=stream, dtype=DOUBLE), labels


@pytest.mark.parametrize("d", [2, 3])
def test_weights_are_scipy_s_interpolation_of_the_labels(d):
    x, labels = cloud(d, 200, d)
    found = geometry.triangulate(x, labels)
    query = torch.rand(3000, d, generator=torch.Generator().manual_seed(9), dtype=DOUBLE)
    weights = geometry.barycentric_weights(found, query)
    peer = LinearNDInterpolator(Delaunay(x.numpy()), torch.nn.functional.one_hot(labels, 3).double().numpy())(query.numpy())
    inside = ~np.isnan(peer[:, 0])
    assert 1000 < inside.sum() < 3000
    assert np.allclose(weights.numpy()[inside], peer[inside], atol=1e-9)
    nearest = labels[torch.from_numpy(cKDTree(x.numpy()).query(query.numpy()[~inside])[1])]
    assert torch.equal(weights[torch.from_numpy(~inside)].argmax(1), nearest)
    assert torch.equal(geometry.delaunay_classifier(found)(query).argmax(1), weights.argmax(1))
    assert torch.allclose(weights.sum(1), torch.ones(3000, dtype=DOUBLE)) and float(weights.min()) >= 0


@pytest.mark.parametrize("d", [2, 3, 20])
def test_the_voronoi_classifier_is_the_nearest_neighbour(d):
    x, labels = cloud(d, 150, d)
    query = torch.rand(5000, d, generator=torch.Generator().manual_seed(9), dtype=DOUBLE)
    scores = geometry.voronoi_classifier(x, labels)(query)
    distance, index = cKDTree(x.numpy()).query(query.numpy())
    assert torch.equal(scores.argmax(1), labels[torch.from_numpy(index)])
    assert np.allclose(-scores.amax(1).numpy(), distance**2)


@pytest.mark.parametrize("d", [2, 3, 4])
def test_edges_are_those_of_the_simplices_and_gabriel_s_are_found_by_brute_force(d):
    x, _ = cloud(d, 120, d)
    found = geometry.triangulate(x)
    pairs = {pair for simplex in found.simplices.tolist() for pair in itertools.combinations(sorted(simplex), 2)}
    assert {tuple(edge) for edge in found.edges.tolist()} == pairs and len(found.edges) == len(pairs)
    ridges = {tuple(sorted(map(int, pair))) for pair in Voronoi(x.numpy()).ridge_points}
    inner = geometry.bounded_cells(found)
    # scipy leaves out ridges that are unbounded, between two points of the hull.
    assert ridges <= pairs and not any(inner[a] or inner[b] for a, b in pairs - ridges)
    ends = x[found.edges]
    to_middle = torch.cdist(ends.mean(1), x)
    expected = (to_middle >= (ends[:, 0] - ends[:, 1]).norm(dim=1, keepdim=True) / 2 * (1 - 1e-9)).all(1)
    assert torch.equal(geometry.gabriel(found), expected) and 0 < int(expected.sum()) < len(expected)
    assert found.longest_edge == pytest.approx(float((ends[:, 0] - ends[:, 1]).norm(dim=1).max()))


def test_a_midpoint_lies_in_the_face_exactly_for_gabriel_edges():
    """The segment between the ends of an obtuse triangle's longest edge leaves both their cells before the middle."""
    triangle = torch.tensor([[0.0, 0.0], [4.0, 0.0], [2.0, 0.5], [2.0, -3.0]], dtype=DOUBLE)
    found = geometry.triangulate(triangle)
    crosses = {tuple(edge): bool(flag) for edge, flag in zip(found.edges.tolist(), geometry.gabriel(found), strict=True)}
    classify = geometry.voronoi_classifier(triangle, torch.arange(4))
    for (a, b), flag in crosses.items():
        segment = torch.lerp(triangle[a], triangle[b], torch.linspace(0, 1, 1001, dtype=DOUBLE)[:, None])
        assert set(classify(segment).argmax(1).tolist()) == {a, b} or not flag
    assert (0, 1) not in crosses, "the circle through its ends and the fourth point holds the third"


def test_the_share_in_the_plane_is_that_of_a_poisson_process():
    """A Poisson process has 2^d Gabriel neighbours a point, and in the plane 6 Delaunay neighbours."""
    x, _ = cloud(0, 20_000, 2)
    found = geometry.triangulate(x)
    assert float(geometry.gabriel(found).double().mean()) == pytest.approx(4 / 6, abs=0.01)


@pytest.mark.parametrize("d", [2, 3])
def test_bounded_cells_are_voronoi_s_bounded_regions(d):
    x, _ = cloud(d, 100, d)
    voronoi = Voronoi(x.numpy())
    expected = [-1 not in voronoi.regions[region] for region in voronoi.point_region]
    assert geometry.bounded_cells(geometry.triangulate(x)).tolist() == expected


def test_the_cell_of_a_point_on_a_side_of_the_hull_is_unbounded():
    grid = torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0))
    assert geometry.bounded_cells(geometry.triangulate(grid)).nonzero().tolist() == [[4]]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_quality_is_between_flat_and_regular(seed, d):
    x, _ = cloud(seed, 30, d)
    found = geometry.simplex_quality(geometry.triangulate(x))
    assert bool((found > 0).all()) and bool((found <= 1 + 1e-9).all())


def test_quality_of_known_simplices():
    regular = torch.cat([torch.eye(4, dtype=DOUBLE), torch.full((1, 4), (1 + 5**0.5) / 4, dtype=DOUBLE)])
    far = torch.full((1, 4), -9.0, dtype=DOUBLE)
    found = geometry.simplex_quality(geometry.triangulate(torch.cat([regular, far])))
    assert float(found.max()) == pytest.approx(1)
    right = geometry.triangulate(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.01]], dtype=DOUBLE))
    assert geometry.simplex_quality(right).tolist() == pytest.approx([2 * 2**0.5 - 2] * 2, abs=0.02)  # r = 1 - 1/sqrt 2, R = 1/sqrt 2


X, Y = cloud(0, 12, 2)


def test_bad_input_is_refused():
    table = [
        (lambda: geometry.triangulate(torch.cat([X, X[:2]])), "2 of 14 are duplicates"),
        (lambda: geometry.voronoi_classifier(torch.cat([X, X[:1]]), torch.zeros(13).long()), "duplicates"),
        (lambda: geometry.triangulate(X[:3]), "d \\+ 2"),
        (lambda: geometry.triangulate(X[:, :1]), "d >= 2"),
        (lambda: geometry.triangulate(X[:, [0, 0]]), "span all 2"),
        (lambda: geometry.triangulate(X, Y[:5]), "labels"),
        (lambda: geometry.triangulate(X, Y - 1), "labels"),
        (lambda: geometry.triangulate(X, Y.double()), "labels"),
        (lambda: geometry.triangulate(X * torch.nan), "NaN"),
        (lambda: geometry.voronoi_classifier(X, 2 * Y), "every class"),
        (lambda: geometry.voronoi_classifier(X, Y)(X * torch.nan), "NaN"),
        (lambda: geometry.barycentric_weights(geometry.triangulate(X), torch.zeros(2, 3)), "x must have 2 columns; 3"),
        (lambda: geometry.barycentric_weights(geometry.triangulate(X), torch.full((1, 2), torch.nan)), "NaN"),
    ]
    for call, message in table:
        with pytest.raises(ValueError, match=message):
            call()
