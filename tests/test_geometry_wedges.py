"""Wedges: projections against a quadratic program, the conditions of Karush, Kuhn and Tucker, and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, nnls
from scipy.stats import multivariate_normal

from support import geometry

DOUBLE = torch.float64


def draw(seed, count, n, k, largest):
    stream = torch.Generator().manual_seed(seed)
    angles = (2 * torch.rand(k - 1, generator=stream, dtype=DOUBLE) - 1) * largest
    return 3 * torch.randn(count, n, generator=stream, dtype=DOUBLE), angles


def dual(point, normals):
    """Nearest point of an intersection of half-spaces, from the dual problem by non-negative least squares; and its multipliers."""
    multipliers = nnls(normals.numpy().T, -point.numpy())[0]
    return point + normals.T @ torch.from_numpy(multipliers), torch.from_numpy(multipliers)


@pytest.mark.parametrize(("n", "k", "largest"), [(1, 1, 1.0), (2, 2, 1.5), (3, 2, 0.5), (7, 4, 1.2), (20, 10, 1.55), (50, 50, 1.4)])
def test_the_projection_is_the_quadratic_program_s(n, k, largest):
    x, angles = draw(k, 60, n, k, largest)
    normals = geometry.wedge_normals(n, angles)
    found, faces = geometry.project_wedge(x, angles), geometry.wedge_faces(x, angles)
    for point, nearest, active in zip(x, found, faces.active, strict=True):
        expected, multipliers = dual(point, normals)
        assert torch.allclose(nearest, expected, atol=1e-10)
        assert torch.equal(active, multipliers > 1e-9)
    assert torch.equal(faces.violated, x @ normals.T < 0)
    assert not geometry.wedge_faces(found, angles).active.any(), "no face pulls at a point of the wedge, on its faces or not"


def test_the_lower_wedge_holds_what_its_half_spaces_hold():
    x, angles = draw(3, 4000, 4, 3, 1.4)
    inside = (x[:, 0] >= 0) & (x[:, 1:3] >= 0).all(1) & (x[:, 1:3] * angles.abs().cos() <= x[:, :1] * angles.abs().sin()).all(1)
    assert torch.equal(geometry.inside_lower_wedge(x, angles.abs()), inside) and 100 < int(inside.sum()) < 3000
    edge = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 5.0], [0.0, 0.0, -1.0], [1.0, -1e-9, 0.0], [-1e-9, 0.0, 0.0]], dtype=DOUBLE)
    assert geometry.inside_lower_wedge(edge, [0.7853981633974484]).tolist() == [True, True, True, False, False], "it is closed"


def test_the_projection_is_a_general_solver_s():
    x, angles = draw(3, 8, 5, 4, 1.0)
    normals = geometry.wedge_normals(5, angles).numpy()
    for point, nearest in zip(x.numpy(), geometry.project_wedge(x, angles).numpy(), strict=True):
        constraint = {"type": "ineq", "fun": lambda z: normals @ z, "jac": lambda z: normals}
        peer = minimize(
            lambda z, point=point: ((z - point) ** 2).sum(), np.ones(5), jac=lambda z, point=point: 2 * (z - point),
            method="SLSQP", constraints=[constraint], options={"ftol": 1e-14, "maxiter": 200},
        )  # fmt: skip
        assert np.allclose(nearest, peer.x, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 50), st.integers(1, 50), st.floats(0, 1.5))
def test_the_conditions_of_optimality_hold(seed, a, b, largest):
    n, k = max(a, b), min(a, b)
    x, angles = draw(seed, 20, n, k, largest)
    nearest, normals = geometry.project_wedge(x, angles), geometry.wedge_normals(n, angles)
    slack, pull = nearest @ normals.T, nearest - x
    # pull is a non-negative combination of the normals of tight faces: recovered by least squares on those faces.
    for s, p in zip(slack, pull, strict=True):
        tight = s < 1e-9 * max(1.0, float(p.norm()))
        multipliers = torch.linalg.lstsq(normals[tight].T, p[:, None]).solution[:, 0] if bool(tight.any()) else p[:0]
        assert bool((s > -1e-9).all()) and bool((multipliers > -1e-7).all())
        assert torch.allclose(normals[tight].T @ multipliers, p, atol=1e-7)
    assert bool(geometry.inside_wedge(nearest, angles).all())
    assert torch.equal(geometry.project_wedge(nearest, angles), nearest), "a second projection changes nothing"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-6, 1e6))
def test_projections_onto_a_cone_scale_and_contract(seed, factor):
    x, angles = draw(seed, 20, 8, 5, 1.3)
    y = geometry.project_wedge(x, angles)
    assert torch.allclose(geometry.project_wedge(factor * x, angles), factor * y, rtol=1e-9, atol=1e-9 * factor)
    assert bool(((y[:10] - y[10:]).norm(dim=1) <= (x[:10] - x[10:]).norm(dim=1) * (1 + 1e-12)).all())


def test_zero_angles_make_the_orthant():
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    expected = x.clone()
    expected[:, :3] = expected[:, :3].clamp_min(0)
    assert torch.equal(geometry.project_wedge(x, [0.0, 0.0]), expected)
    assert torch.equal(geometry.project_wedge(x, [])[:, 0], x[:, 0].clamp_min(0))


def test_angles_just_inside_the_limits():
    """There the normals lose their small parts to rounding, so brute force over the one free coordinate is the judge."""
    steep = float(np.nextafter(math.pi / 2, 0))
    x = torch.tensor([[1.0, 1.0, 1.0], [-1.0, 2.0, -3.0], [5.0, -1.0, 0.0]], dtype=DOUBLE)
    first = torch.cat([torch.linspace(0, 10, 4001, dtype=DOUBLE), torch.logspace(-18, 1, 4000, dtype=DOUBLE)])
    for angles in ([steep, -steep], [steep, steep], [-steep, 0.3]):
        found = geometry.project_wedge(x, angles)
        assert bool(found.isfinite().all()) and bool(geometry.inside_wedge(found, angles).all())
        tangents = torch.tensor(angles, dtype=DOUBLE).tan()
        for point, nearest in zip(x, found, strict=True):
            others = (first[:, None] * tangents - point[1:]).clamp_min(0)
            best = float(((first - point[0]).square() + others.square().sum(1)).min().sqrt())
            assert float((nearest - point).norm()) <= best + 1e-9


def test_a_row_does_not_depend_on_the_others():
    x, angles = draw(5, 5000, 6, 4, 1.2)
    whole = geometry.project_wedge(x, angles)
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(geometry.project_wedge(x[order], angles), whole[order])
    assert torch.equal(geometry.project_wedge(x[4321:4322], angles), whole[4321:4322])
    single = geometry.project_wedge(x.float(), angles)
    assert single.dtype == torch.float32 and torch.allclose(single.double(), whole, atol=1e-5)


def test_normals_have_the_products_of_the_paper():
    angles = torch.tensor([0.3, -0.7, 1.1], dtype=DOUBLE)
    normals = geometry.wedge_normals(6, angles)
    assert torch.allclose(normals.norm(dim=1), torch.ones(4, dtype=DOUBLE))
    assert torch.allclose(normals[1:] @ normals[0], -angles.sin())
    assert float(normals[1] @ normals[2]) == pytest.approx(math.sin(0.3) * math.sin(-0.7))


def test_dykstra_reaches_the_nearest_point_and_alternating_projections_only_a_feasible_one():
    x, angles = draw(7, 50, 6, 5, 1.0)
    angles = angles.abs()
    normals = geometry.wedge_normals(6, angles)
    nearest = geometry.project_wedge(x, angles)
    assert torch.allclose(geometry.dykstra(x, 2.5 * normals, sweeps=3000), nearest, atol=1e-6)
    feasible = geometry.alternating_projections(x, normals, sweeps=3000)
    assert bool((feasible @ normals.T > -1e-6).all())
    farther = (feasible - x).norm(dim=1) - (nearest - x).norm(dim=1)
    assert float(farther.min()) > -1e-6 and float((farther > 1e-3).double().mean()) > 0.2


def test_orthogonal_faces_need_one_sweep():
    x = draw(1, 40, 5, 1, 1.0)[0]
    normals = geometry.wedge_normals(5, torch.zeros(3))
    for method in (geometry.alternating_projections, geometry.dykstra):
        assert torch.allclose(method(x, normals, sweeps=1), geometry.project_wedge(x, torch.zeros(3)), atol=1e-12)


def test_violated_planes_as_equalities():
    x, angles = draw(9, 60, 6, 4, 1.2)
    normals = geometry.wedge_normals(6, angles)
    found = geometry.project_violated(x, normals)
    for point, at in zip(x, found, strict=True):
        rows = normals[point @ normals.T < 0]
        expected = point - torch.linalg.pinv(rows) @ rows @ point if len(rows) else point
        assert torch.allclose(at, expected, atol=1e-9)
    faces = geometry.wedge_faces(x, angles)
    same = (faces.violated == faces.active).all(1)
    assert 0 < int(same.sum()) < 60
    assert torch.allclose(found[same], geometry.project_wedge(x, angles)[same], atol=1e-9)


def test_the_probability_of_the_orthant_is_the_product_of_proposition_4_3():
    x = torch.tensor([[1.0, 2.0, 0.5, 7.0], [-0.3, 0.0, 4.0, 0.0]], dtype=DOUBLE)
    expected = torch.special.ndtr(x[:, :3] / 1.5).prod(1)
    assert torch.allclose(geometry.wedge_probability(x, [0.0, 0.0], 1.5), expected, atol=1e-12)
    assert torch.allclose(
        geometry.wedge_probability(x, [], torch.tensor([1.5, 0.1])), torch.special.ndtr(x[:, 0] / torch.tensor([1.5, 0.1])), atol=1e-12
    )


@pytest.mark.parametrize("theta", [-1.2, 0.4, 1.3, 1.48])
def test_the_probability_of_two_angled_faces_is_the_bivariate_normal_s(theta):
    for point in ([0.5, 2.0], [-1.0, 0.3], [0.2, -0.4], [3.0, 0.1]):
        x = torch.tensor([point], dtype=DOUBLE)
        levels = (x @ geometry.wedge_normals(2, [theta]).T)[0] / 0.8
        peer = multivariate_normal([0, 0], [[1, -math.sin(theta)], [-math.sin(theta), 1]]).cdf(levels.numpy())
        assert float(geometry.wedge_probability(x, [theta], 0.8)) == pytest.approx(peer, abs=1e-8)


def test_the_probability_counts_samples():
    x, angles = torch.tensor([[0.5, 0.8, 0.2, 1.0]], dtype=DOUBLE), [0.5, -0.3, 0.9]
    noise = torch.randn(400_000, 4, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    share = float(geometry.inside_wedge(x + 0.7 * noise, angles).double().mean())
    assert float(geometry.wedge_probability(x, angles, 0.7)) == pytest.approx(share, abs=4 * math.sqrt(0.25 / 400_000))


def test_the_classifier_says_what_is_inside():
    x, angles = draw(2, 500, 5, 4, 0.9)
    scores = geometry.wedge_classifier(angles)(x)
    assert torch.equal(scores.argmax(1) == 0, geometry.inside_wedge(x, angles))
    slack = (x @ geometry.wedge_normals(5, angles).T).amin(1)
    assert torch.allclose(scores[:, 0] - scores[:, 1], 2 * slack)


GOOD = torch.zeros(2, 3)


@pytest.mark.parametrize("call", [geometry.project_wedge, geometry.inside_wedge, geometry.inside_lower_wedge, geometry.wedge_faces])
def test_bad_points_and_angles_are_refused(call):
    table = [
        (GOOD, [0.1, 0.2, 0.3], "k = 4"),
        (GOOD, [[0.1]], "shape"),
        (GOOD, [math.pi / 2], "1.57"),
        (GOOD, [-math.pi / 2], "-1.57"),
        (GOOD, [2.0], "2.0"),
        (GOOD, [math.nan], "nan"),
        (GOOD, [math.inf], "inf"),
        (GOOD[0], [0.1], r"\(N, d\)|not empty"),
        (GOOD[:0], [0.1], "not empty"),
        (GOOD.long(), [0.1], "int64"),
        (torch.full((2, 3), torch.nan), [0.1], "NaN"),
        (torch.full((2, 3), torch.inf), [0.1], "infinite"),
        ([[1.0]], [0.1], "list"),
    ]
    for x, angles, message in table:
        with pytest.raises(ValueError, match=message):
            call(x, angles)


def test_other_bad_input_is_refused():
    with pytest.raises(ValueError, match="from 0 to below pi/2"):
        geometry.inside_lower_wedge(GOOD, [-0.1])
    for sigma in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="sigma"):
            geometry.wedge_probability(GOOD, [0.1], sigma)
    normals = torch.eye(3)
    for method in (geometry.alternating_projections, geometry.dykstra):
        with pytest.raises(ValueError, match="sweeps"):
            method(GOOD, normals, sweeps=0)
        with pytest.raises(ValueError, match="zero"):
            method(GOOD, torch.zeros(1, 3), sweeps=1)
        with pytest.raises(ValueError, match="normals must have 3 columns; 2"):
            method(GOOD, torch.eye(2), sweeps=1)
    with pytest.raises(ValueError, match="dimensions"):
        geometry.wedge_normals(0, [])
