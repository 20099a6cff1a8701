"""Null spaces, decision regions, parallel boundaries and rays in the orthant against scipy, brute force and closed forms."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.spatial import ConvexHull, Delaunay

from support.geometry import nullspace
from support.models import heads

F64 = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def centred(weight):
    return weight - weight.mean(0)


def layer(kind, m, width, seed):
    """A weight matrix of some special kind."""
    w = normal(m, width, seed=seed)
    if kind == "rank-deficient":
        rank = max(min(m, width) // 2, 1)
        w = normal(m, rank, seed=seed) @ normal(rank, width, seed=seed + 1)
    if kind == "duplicated rows":
        w = w[torch.arange(m) // 2]
    if kind == "equal rows":
        w = w[:1].expand(m, width).contiguous()
    if kind == "zero":
        w = torch.zeros(m, width, dtype=F64)
    if kind == "common shift":
        w = w + 1e3 * normal(width, seed=seed + 1)
    return w


KINDS = ("random", "rank-deficient", "duplicated rows", "equal rows", "zero", "common shift")


def as_projector(rows):
    return rows.T @ rows


# --- Definition 1, Theorem 1 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "width"), [(1, 1), (1, 6), (2, 1), (2, 9), (10, 64), (10, 10), (10, 9), (10, 4), (30, 5), (7, 200)])
def test_the_basis_spans_scipys_null_space(m, width):
    for kind, shift_invariant in itertools.product(KINDS, (True, False)):
        weight = layer(kind, m, width, seed=m * width)
        found = nullspace.adversarial_directions(weight, shift_invariant=shift_invariant)
        seen = (centred(weight) if shift_invariant else weight).numpy()
        # scipy's tolerance is relative to the largest singular value, which for equal rows is itself rounding: the weights' scale instead
        noise = np.linalg.norm(seen, 2) <= 1e-12 * np.linalg.norm(weight.numpy())
        expected = torch.eye(width, dtype=F64) if noise else torch.from_numpy(scipy.linalg.null_space(seen, rcond=1e-12)).T
        assert found.shape == expected.shape, (kind, shift_invariant)
        assert torch.allclose(found @ found.T, torch.eye(len(found), dtype=F64), atol=1e-12)
        assert torch.allclose(as_projector(found), as_projector(expected), atol=1e-8)
        assert len(found) >= width - m + shift_invariant


def test_a_generic_layer_has_one_direction_more_than_theorem_1_counts():
    weight = normal(10, 64)
    assert len(nullspace.adversarial_directions(weight)) == 64 - 10 + 1
    assert len(nullspace.adversarial_directions(weight, shift_invariant=False)) == 64 - 10
    assert len(nullspace.adversarial_directions(normal(10, 10))) == 1, "l = m is enough"
    assert len(nullspace.adversarial_directions(normal(10, 9))) == 0


def test_float32_weights_have_the_null_space_of_the_same_numbers_in_float64():
    weight = normal(10, 64).float()[torch.arange(10) // 2]
    found = nullspace.adversarial_directions(weight)
    assert found.dtype == F64 and len(found) == 64 - 4
    assert torch.equal(found, nullspace.adversarial_directions(weight.double()))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(1, 20), st.sampled_from(KINDS), st.integers(0, 10**6))
def test_outputs_do_not_change_along_the_basis_and_do_change_off_it(m, width, kind, seed):
    weight, bias, h = layer(kind, m, width, seed), normal(m, seed=seed + 2), normal(5, width, seed=seed + 3)
    p = (h @ weight.T + bias).softmax(1)
    basis = nullspace.adversarial_directions(weight)
    for theta in (1.0, -1e3):
        moved = h[:, None] + theta * basis
        assert torch.allclose((moved @ weight.T + bias).softmax(2), p[:, None].expand(-1, len(basis), -1), atol=1e-9)
    seen = centred(weight) @ (torch.eye(width, dtype=F64) - as_projector(basis))
    assert torch.allclose(seen, centred(weight), atol=1e-10 * (1 + float(weight.norm())))


def test_softrmax_sees_the_direction_that_the_softmax_does_not():
    weight, h = normal(5, 12), normal(8, 12, seed=1)
    extra = nullspace.adversarial_directions(weight)
    common = extra @ weight.T
    assert torch.allclose(common, common[:, :1].expand(-1, 5), atol=1e-12) and float(common.abs().max()) > 0.1
    d = extra[common[:, 0].abs().argmax()]
    assert torch.allclose(((h + 3 * d) @ weight.T).softmax(1), (h @ weight.T).softmax(1), atol=1e-12)
    assert float((heads.softrmax((h + 3 * d) @ weight.T) - heads.softrmax(h @ weight.T)).abs().max()) > 1e-3
    kept = nullspace.adversarial_directions(weight, shift_invariant=False)
    for d in kept:
        assert torch.allclose(heads.softrmax((h + 1e3 * d) @ weight.T), heads.softrmax(h @ weight.T), atol=1e-9)


# --- shares -----------------------------------------------------------------------------------------------------------------------


def test_the_share_is_one_inside_the_null_space_and_zero_in_the_rows():
    weight = normal(4, 11)
    basis = nullspace.adversarial_directions(weight)
    inside, across = normal(3, len(basis), seed=1) @ basis, normal(3, 4, seed=2) @ centred(weight)
    assert torch.allclose(nullspace.null_share(weight, inside), torch.ones(3, dtype=F64))
    assert torch.allclose(nullspace.null_share(weight, across), torch.zeros(3, dtype=F64), atol=1e-24)
    half = inside / inside.norm(dim=1, keepdim=True) + across / across.norm(dim=1, keepdim=True)
    assert torch.allclose(nullspace.null_share(weight, half), torch.full((3,), 0.5, dtype=F64))
    assert nullspace.null_share(weight, torch.zeros(1, 11)).isnan().all()


def test_a_random_direction_has_the_share_of_the_dimensions():
    weight = normal(10, 40)
    share = nullspace.null_share(weight, normal(4000, 40, seed=3))
    assert float(share.mean()) == pytest.approx(31 / 40, abs=0.005)


# --- rounding ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("m", "width", "scale"), [(3, 5, 1.0), (10, 64, 1.0), (10, 84, 30.0), (100, 400, 0.1), (2, 3, 1e4)])
def test_invariance_holds_within_the_bound_up_to_a_billion(dtype, m, width, scale):
    weight, bias, h = (scale * normal(m, width, seed=m)).to(dtype), normal(m, seed=1).to(dtype), 5 * normal(20, width, seed=2).to(dtype)
    basis = nullspace.adversarial_directions(weight)
    theta = 10.0 ** torch.arange(0, 10, dtype=F64)
    bound = nullspace.rounding_bound(weight, bias, h, theta)
    assert bound.shape == (20, len(theta)) and bound.dtype == F64
    p = (h @ weight.T + bias).softmax(1)
    d = basis[-1].to(dtype)
    change = torch.stack([(((h + t * d) @ weight.T + bias).softmax(1) - p).double().abs().amax(1) for t in theta.to(dtype)], 1)
    assert (change <= bound).all()
    assert torch.equal(bound[:, 3], nullspace.rounding_bound(weight, bias, h, 1e3))


def test_the_bound_grows_with_theta_and_is_not_vacuous():
    weight, h = normal(10, 64), normal(20, 64, seed=1)
    theta = torch.tensor([1e6, 1e7], dtype=F64)
    bound = nullspace.rounding_bound(weight, None, h, theta)
    assert torch.allclose(bound[:, 1] / bound[:, 0], torch.tensor(10.0, dtype=F64), rtol=1e-3)
    # a plain theta * u * |W| lies below it by no more than the number of terms of the sums
    plain = theta * 2.0**-53 * weight.norm(dim=1).max()
    assert (bound > plain).all() and (bound < 20 * (64 + 10) * plain).all()


def test_a_direction_that_misses_the_null_space_by_a_millionth_leaves_the_bound():
    weight, h = normal(10, 64), normal(20, 64, seed=1)
    d = nullspace.adversarial_directions(weight)[0] + 1e-6 * centred(weight)[0] / centred(weight)[0].norm()
    p = (h @ weight.T).softmax(1)
    change = (((h + 1e5 * d) @ weight.T).softmax(1) - p).abs().amax(1)
    assert (change > 10 * nullspace.rounding_bound(weight, None, h, 1e5)).all()


# --- regions and their escape directions ------------------------------------------------------------------------------------------------


def wins(weight, bias, h, k):
    scores = h @ weight.T + bias
    others = scores.clone()
    others[..., k] = -math.inf
    return scores[..., k] > others.amax(-1)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 9), st.integers(1, 6), st.booleans(), st.integers(0, 10**6))
def test_regions_agree_with_the_hull_of_the_weights(m, width, with_bias, seed):
    weight, bias = normal(m, width, seed=seed), 2 * normal(m, seed=seed + 1) if with_bias else torch.zeros(m, dtype=F64)
    seen = (10.0 ** torch.arange(-1, 4, dtype=F64))[:, None, None] * normal(4000, width, seed=seed + 2)
    for k in range(m):
        found = nullspace.region(weight, bias if with_bias else None, k)
        if found.kind == "empty":
            assert not wins(weight, bias, seen.reshape(-1, width), k).any()
            continue
        assert wins(weight, bias, found.point, k)
        # bounded iff w_k is in the interior of the hull of the others: 0 = sum a_j (w_k - w_j), all a_j > 0, the differences spanning R^l
        lead = (weight[k] - weight[torch.arange(m) != k]).numpy()
        inside = linprog(
            [*[0.0] * (m - 1), -1.0], A_eq=np.vstack([np.c_[lead.T, np.zeros(width)], [*[1.0] * (m - 1), 0.0]]), b_eq=[*[0.0] * width, 1.0],
            A_ub=np.c_[-np.eye(m - 1), np.ones(m - 1)], b_ub=np.zeros(m - 1), bounds=[(0, None)] * (m - 1) + [(None, None)],
        )  # fmt: skip
        interior = inside.status == 0 and -inside.fun > 1e-7 and np.linalg.matrix_rank(lead) == width
        assert (found.kind == "bounded") == interior
        if found.kind == "unbounded":
            d = found.direction
            assert float(d.norm()) == pytest.approx(1) and (torch.from_numpy(lead) @ d >= -1e-9).all()
            path = found.point + (10.0 ** torch.arange(0, 7, dtype=F64))[:, None] * d
            assert wins(weight, bias, path, k).all()
        else:
            assert found.direction is None


def test_the_class_inside_a_polygon_is_bounded_with_a_bias_and_empty_without():
    angle = torch.arange(5, dtype=F64) * 2 * math.pi / 5
    weight = torch.cat([torch.stack([angle.cos(), angle.sin()], 1), torch.tensor([[0.1, 0.05]], dtype=F64)])
    bias = torch.tensor([0.0, 0, 0, 0, 0, 1], dtype=F64)
    assert Delaunay(weight[:5].numpy()).find_simplex(weight[5].numpy()) >= 0 and 5 not in ConvexHull(weight.numpy()).vertices
    assert nullspace.region(weight, bias, 5).kind == "bounded"
    assert nullspace.region(weight, None, 5).kind == "empty"
    assert nullspace.region(weight, -bias, 5).kind == "empty"
    assert {nullspace.region(weight, bias, k).kind for k in range(5)} == {"unbounded"}
    flat = torch.cat([weight, torch.zeros(6, 1, dtype=F64)], 1)  # a dimension that no class looks at: the cell becomes a cylinder
    found = nullspace.region(flat, bias, 5)
    assert found.kind == "unbounded" and torch.allclose(found.direction.abs(), torch.tensor([0.0, 0, 1], dtype=F64), atol=1e-12)


def test_a_class_on_an_edge_of_the_hull_escapes_along_the_edges_normal_only():
    weight = torch.tensor([[0.0, 0], [2, 0], [1, 1.5], [1, 0]], dtype=F64)
    found = nullspace.region(weight, torch.tensor([0.0, 0, 0, 1], dtype=F64), 3)
    assert found.kind == "unbounded" and found.growth == 0
    assert torch.allclose(found.direction, torch.tensor([0.0, -1], dtype=F64), atol=1e-12)


def test_the_growth_is_what_the_least_lead_gains():
    weight = torch.tensor([[1.0, 0], [0, 1], [-1, -1]], dtype=F64)
    found = nullspace.region(weight, None, 0)
    assert found.growth == pytest.approx(float(((weight[0] - weight[1:]) @ found.direction).min())) and found.growth > 0.5


def test_three_classes_in_the_plane_are_all_unbounded_although_nothing_is_hidden():
    weight, bias = normal(3, 2), normal(3, seed=1)
    assert len(nullspace.adversarial_directions(weight)) == 0
    assert [nullspace.region(weight, bias, k).kind for k in range(3)] == ["unbounded"] * 3


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_regions_do_not_depend_on_units(scale):
    weight, bias = normal(8, 3), normal(8, seed=1)
    for k in range(8):
        found, expected = nullspace.region(scale * weight, scale**0.5 * bias, k), nullspace.region(weight, bias, k)
        assert found.kind == expected.kind
        if found.direction is not None:
            assert torch.allclose(found.direction, expected.direction, atol=1e-6)


def test_regions_of_degenerate_layers():
    assert nullspace.region(torch.zeros(1, 3), None, 0).kind == "unbounded"
    assert nullspace.region(torch.zeros(2, 3), torch.tensor([1.0, 0]), 0).kind == "unbounded"
    assert nullspace.region(torch.zeros(2, 3), torch.tensor([1.0, 0]), 1).kind == "empty"
    twins = normal(2, 3)[[0, 0, 1]]
    assert nullspace.region(twins, None, 0).kind == "empty", "a tie is no win"
    assert nullspace.region(twins, torch.tensor([0.1, 0, 0]), 0).kind == "unbounded"


# --- Definition 2 -----------------------------------------------------------------------------------------------------------------


def every_parallel_pair(weight, tolerance):
    """All pairs of pairs, one by one."""
    pairs = [(i, j) for i in range(len(weight)) for j in range(i + 1, len(weight)) if not torch.equal(weight[i], weight[j])]
    found = set()
    for a in range(len(pairs)):
        for b in range(a + 1, len(pairs)):
            u, v = (weight[i] - weight[j] for i, j in (pairs[a], pairs[b]))
            u, v = u / u.norm(), v / v.norm()
            if min(float((u - v).norm()), float((u + v).norm())) <= tolerance:
                found.add((pairs[a], pairs[b]))
    return found


def unfolded(families):
    return {(a, b) for family in families for a in family for b in family if a < b}


@pytest.mark.parametrize("width", [2, 3, 4, 5, 30])
def test_planted_parallel_boundaries_are_found_and_near_ones_are_not(width):
    weight = normal(12, width, seed=width)
    assert nullspace.parallel_pairs(weight) == ()
    weight[3] = weight[1] - 2.5 * (weight[7] - weight[5])  # 1|3 along 5|7
    weight[9] = weight[0] + 0.3 * (weight[2] - weight[0])  # 0, 2, 9 on a line
    assert unfolded(nullspace.parallel_pairs(weight)) == every_parallel_pair(weight, 1e-9)
    assert nullspace.parallel_pairs(weight) == (((0, 2), (0, 9), (2, 9)), ((1, 3), (5, 7)))
    weight[3] += 1e-6 * normal(width, seed=1)
    assert nullspace.parallel_pairs(weight) == (((0, 2), (0, 9), (2, 9)),)
    assert len(nullspace.parallel_pairs(weight, tolerance=1e-4)) >= 2


def test_a_square_has_two_families_and_a_line_has_one():
    square = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    assert nullspace.parallel_pairs(square) == (((0, 1), (2, 3)), ((0, 3), (1, 2)))
    line = torch.arange(40, dtype=F64)[:, None] * normal(6)
    (family,) = nullspace.parallel_pairs(line)
    assert len(family) == 40 * 39 // 2


def test_families_of_few_classes_and_of_equal_weights():
    for weight in (normal(1, 4), normal(2, 4), torch.zeros(5, 4)):
        assert nullspace.parallel_pairs(weight) == ()
    assert nullspace.parallel_pairs(normal(3, 4)[[0, 0, 1, 2]]) == (((0, 2), (1, 2)), ((0, 3), (1, 3)))


# --- the orthant ------------------------------------------------------------------------------------------------------------------


def certificate(weight) -> bool:
    """Whether some combination of the centred weights is positive in every entry: by Stiemke's theorem, exactly if there is no ray."""
    columns = centred(weight).numpy()
    rows, width = columns.shape
    answer = linprog(
        [*[0.0] * rows, -1.0], A_ub=np.c_[-columns.T, np.ones(width)], b_ub=np.zeros(width), bounds=[(-1, 1)] * rows + [(None, 1)]
    )
    return -answer.fun > 1e-9


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 24), st.integers(0, 10**6))
def test_a_ray_is_found_exactly_where_no_combination_of_the_weights_is_positive(m, width, seed):
    weight = normal(m, width, seed=seed)
    ray = nullspace.cone_ray(weight)
    assert (ray is None) == certificate(weight)
    if ray is not None:
        assert float(ray.norm()) == pytest.approx(1) and (ray >= 0).all()
        assert float((centred(weight) @ ray).abs().max()) < 1e-12 * (1 + float(weight.norm()))


def test_rays_of_special_layers():
    positive = torch.cat([torch.rand(1, 9, dtype=F64, generator=torch.Generator().manual_seed(0)) + 0.1, torch.zeros(1, 9, dtype=F64)])
    assert nullspace.cone_ray(positive) is None
    dead = normal(10, 6)
    dead[:, 4] = 0.7  # a feature that no class tells apart
    assert torch.equal(nullspace.cone_ray(dead), torch.eye(6, dtype=F64)[4])
    assert nullspace.cone_ray(torch.zeros(3, 4)) is not None
    assert nullspace.cone_ray(normal(1, 4)) is not None


@pytest.mark.parametrize(("width", "classes"), [(1, 1), (1, 2), (5, 2), (6, 4), (18, 10), (40, 10), (64, 10), (10, 30)])
def test_wendels_probability_in_exact_fractions(width, classes):
    exact = 1 - Fraction(2) ** (1 - width) * sum(math.comb(width - 1, i) for i in range(classes - 1))
    assert nullspace.cone_probability(width, classes) == pytest.approx(float(exact), rel=1e-12, abs=1e-300)


def test_wendels_probability_is_one_half_at_the_transition_and_does_not_underflow():
    for m in (2, 10, 100, 1000):
        assert nullspace.cone_probability(2 * (m - 1), m) == pytest.approx(0.5)
    assert 0 < nullspace.cone_probability(1400, 1000) < 1e-50
    assert nullspace.cone_probability(4096, 1000) == 1.0


def test_wendels_probability_against_linear_programs():
    for width, classes in ((6, 4), (8, 6), (12, 5)):
        found = [nullspace.cone_ray(normal(classes, width, seed=1000 * width + s)) is not None for s in range(400)]
        expected = nullspace.cone_probability(width, classes)
        assert abs(np.mean(found) - expected) < 4 * math.sqrt(expected * (1 - expected) / 400)


# --- bad input --------------------------------------------------------------------------------------------------------------------

BAD = {
    "NaN": torch.tensor([[1.0, math.nan], [0, 0]]),
    "infinity": torch.tensor([[1.0, math.inf], [0, 0]]),
    "a vector": torch.ones(3),
    "integers": torch.ones(3, 2, dtype=torch.int64),
    "no class": torch.ones(0, 3),
    "no feature": torch.ones(3, 0),
    "a list": [[1.0, 2.0]],
}


def test_weights_that_are_none_are_refused():
    calls = [
        nullspace.adversarial_directions,
        nullspace.parallel_pairs,
        nullspace.cone_ray,
        lambda w: nullspace.region(w, None, 0),
        lambda w: nullspace.null_share(w, torch.ones(1, 2)),
        lambda w: nullspace.rounding_bound(w, None, torch.ones(1, 2), 1.0),
    ]
    for call, weight in itertools.product(calls, BAD.values()):
        with pytest.raises(ValueError, match="weight must be"):
            call(weight)


def test_other_bad_input_is_refused():
    w = normal(3, 4)
    for k in (-1, 3, 1.0, True):
        with pytest.raises(ValueError, match="k must be a whole number from 0 to 2"):
            nullspace.region(w, None, k)
    for bias in (torch.ones(2), torch.full((3,), math.nan), 1.0):
        with pytest.raises(ValueError, match="bias must be 3 finite numbers"):
            nullspace.region(w, bias, 0)
    with pytest.raises(ValueError, match="must have 4 columns; 5"):
        nullspace.null_share(w, torch.ones(2, 5))
    with pytest.raises(ValueError, match="must have 4 columns; 5"):
        nullspace.rounding_bound(w, None, torch.ones(2, 5), 1.0)
    for tolerance in (0.0, 0.5, math.nan):
        with pytest.raises(ValueError, match=r"tolerance must be in \(0, 0.1\)"):
            nullspace.parallel_pairs(w, tolerance=tolerance)
    for width, classes in ((0, 3), (3, 0), (2.0, 3)):
        with pytest.raises(ValueError, match="whole number of at least 1"):
            nullspace.cone_probability(width, classes)
