"""Softmax as k-means: Theorem 1, Theorem 2 and the bisector bound of hess2020 against independent constructions.

k-means of each class against scikit-learn, by its own invariants, and on what spoils it: ties, duplicates, tiny classes.
"""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score

from support import clustering


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def circumcentre(points: torch.Tensor) -> torch.Tensor:
    """Circumcentre of affinely independent points (K, d), from the bordered matrix of their inner products (barycentric coordinates).

    c = sum_i l_i p_i with sum l_i = 1 and 2 p_j . c - |p_j|^2 the same for all j: one linear system of K + 1 unknowns.
    """
    p = points.numpy()
    k = len(p)
    system = np.ones((k + 1, k + 1))
    system[:k, :k] = 2 * p @ p.T
    system[k, k] = 0
    right = np.append(np.einsum("ij,ij->i", p, p), 1)
    return torch.from_numpy(np.linalg.solve(system, right)[:k] @ p)


def across(weight: torch.Tensor) -> torch.Tensor:
    """Orthonormal columns that span the directions orthogonal to all differences of rows."""
    return torch.from_numpy(scipy.linalg.null_space((weight[1:] - weight[0]).numpy(), rcond=1e-9))


# --- Theorem 1 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "d"), [(2, 1), (2, 7), (3, 2), (3, 5), (10, 9), (10, 64), (10, 512)])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_centroids_are_the_weights_about_the_circumcentre_of_their_simplex(classes, d, offset):
    weight = normal(classes, d, seed=classes * d) + offset
    found = clustering.equidistant_centroids(weight)
    centre = circumcentre(weight)
    free = across(weight)
    # the centre is unique within the weights' flat; outside it, the least shift leaves the weights' component alone
    kept = free @ (free.T @ weight[0])
    expected = weight - centre + kept
    assert torch.allclose(found.centers, expected, rtol=0, atol=1e-10 * float(expected.abs().max()))
    norms = found.centers.norm(dim=1)
    assert float(norms.max() - norms.min()) <= 1e-10 * found.radius
    assert found.radius == pytest.approx(math.hypot(float((weight[0] - centre).norm()), float(kept.norm())), rel=1e-10)


def test_the_shift_is_the_least_one():
    weight = normal(4, 9)
    shift = clustering.equidistant_centroids(weight).shift
    offsets = weight[1:].square().sum(1) - weight[0].square().sum()
    expected = np.linalg.pinv((2 * (weight[0] - weight[1:])).numpy()) @ offsets.numpy()
    assert np.allclose(shift.numpy(), expected, rtol=0, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), st.integers(0, 12), st.booleans(), st.integers(0, 10**6))
def test_nearest_centroid_is_the_prediction(classes, extra, with_bias, seed):
    d = classes - 1 + extra
    weight, bias = normal(classes, d, seed=seed), normal(classes, seed=seed + 1) if with_bias else None
    features = 3 * normal(500, d, seed=seed + 2)
    scores = features @ weight.T + (0 if bias is None else bias)
    found = clustering.equidistant_centroids(weight, bias)
    assert found.centers.shape == (classes, d + with_bias)
    top = scores.topk(2, dim=1).values
    clear = top[:, 0] - top[:, 1] > 1e-9 * (found.radius + 1) * features.norm(dim=1)
    assert clear.double().mean() > 0.9
    assert torch.equal(found.assign(features)[clear], scores.argmax(1)[clear])
    shifted = (torch.cat([features, torch.ones(500, 1)], 1) if with_bias else features) @ found.centers.T
    assert torch.allclose(shifted.softmax(1), scores.softmax(1), atol=1e-9)


@pytest.mark.parametrize("d", [2, 3, 20])
def test_a_square_has_centroids_in_any_dimension(d):
    plane = torch.linalg.qr(normal(d, 2))[0].T
    corners = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]], dtype=torch.float64) @ plane + normal(d, seed=3)
    norms = clustering.equidistant_centroids(corners).centers.norm(dim=1)
    assert torch.allclose(norms, norms[0].expand(4), rtol=1e-12)


@pytest.mark.parametrize("d", [2, 10, 300])
@pytest.mark.parametrize("position", [0.5, 0.1, -2.0])
def test_collinear_weights_have_none_in_any_dimension(d, position):
    ends = normal(2, d, seed=d) + 5
    weight = torch.stack([ends[0], ends[1], ends[0] + position * (ends[1] - ends[0])])
    with pytest.raises(clustering.NoEquidistantCentroids, match="on no common sphere"):
        clustering.equidistant_centroids(weight)


def test_more_classes_than_dimensions_have_none_in_general():
    with pytest.raises(clustering.NoEquidistantCentroids, match="5 class weights"):
        clustering.equidistant_centroids(normal(5, 3))


def test_points_of_a_sphere_have_them_however_few_the_dimensions():
    points = torch.nn.functional.normalize(normal(40, 3), dim=1) * 2.5
    found = clustering.equidistant_centroids(points + torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64))
    assert torch.allclose(found.centers, points, atol=1e-12)
    assert found.radius == pytest.approx(2.5, rel=1e-12)


def test_a_bias_can_save_or_spoil_the_sphere():
    line = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    found = clustering.equidistant_centroids(line, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))  # a triangle in (w, b)
    assert torch.allclose(found.shift, torch.tensor([-1.0, 0.0], dtype=torch.float64), atol=1e-12)
    with pytest.raises(clustering.NoEquidistantCentroids):
        clustering.equidistant_centroids(line, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))


def test_equal_norms_need_no_shift():
    weight = torch.nn.functional.normalize(normal(10, 64), dim=1) * 1.7
    assert float(clustering.equidistant_centroids(weight).shift.norm()) < 1e-13


def test_duplicates_one_class_and_two_classes():
    weight = normal(3, 5)
    twice = clustering.equidistant_centroids(weight[[0, 1, 1, 2, 0]])
    once = clustering.equidistant_centroids(weight)
    assert torch.allclose(twice.centers, once.centers[[0, 1, 1, 2, 0]], atol=1e-12)
    alone = clustering.equidistant_centroids(weight[:1])
    assert torch.equal(alone.centers, weight[:1])
    assert torch.equal(clustering.equidistant_centroids(weight[[0, 0]]).centers, weight[[0, 0]])
    pair = clustering.equidistant_centroids(weight[:2])
    along = weight[1] - weight[0]
    assert float(pair.centers.sum(0) @ along) == pytest.approx(0, abs=1e-12)


def test_float32_weights_are_solved_in_float64():
    weight = normal(10, 30).float()
    found = clustering.equidistant_centroids(weight)
    assert found.centers.dtype == torch.float64
    norms = found.centers.norm(dim=1)
    assert float(norms.max() - norms.min()) < 1e-12 * found.radius


def test_centroids_of_a_layer_that_another_library_trained():
    x, y = np.random.default_rng(0).normal(size=(300, 8)), np.arange(300) % 4
    x[np.arange(300), y] += 2
    layer = LogisticRegression().fit(x, y)
    found = clustering.equidistant_centroids(torch.from_numpy(layer.coef_), torch.from_numpy(layer.intercept_))
    assert np.array_equal(found.assign(torch.from_numpy(x)).numpy(), layer.predict(x))


def test_unusable_weights_are_refused():
    table = [
        (torch.zeros(3), None, "weight must be a floating-point matrix"),
        (torch.zeros(3, 4, dtype=torch.int64), None, "weight must be a floating-point matrix"),
        (torch.zeros(0, 4), None, "not empty"),
        (torch.full((3, 4), torch.nan), None, "12 of 12 are NaN"),
        (torch.zeros(3, 4), torch.zeros(4), "bias must be 3 finite numbers"),
        (torch.zeros(3, 4), torch.full((3,), torch.inf), "bias must be 3 finite numbers"),
        (None, None, "NoneType was given"),
    ]
    for weight, bias, message in table:
        with pytest.raises(ValueError, match=message):
            clustering.equidistant_centroids(weight, bias)


# --- class means and assignments --------------------------------------------------------------------------------------


def test_class_centroids_are_the_least_squares_solution():
    features, labels = normal(200, 7), torch.arange(200) % 5
    one_hot = torch.nn.functional.one_hot(labels, 5).double()
    assert torch.allclose(clustering.class_centroids(features, labels, 5), torch.linalg.lstsq(one_hot, features).solution, atol=1e-12)
    assert clustering.class_centroids(features.float(), labels, 5).dtype == torch.float32


def test_class_centroids_of_float32_features_are_summed_in_float64():
    features = torch.full((10_000, 1), 0.1) + 1000
    assert float(clustering.class_centroids(features, torch.zeros(10_000, dtype=torch.int64), 1)) == float(features[0, 0])


def test_unusable_labels_are_refused():
    table = [
        (torch.zeros(6, dtype=torch.int64), r"classes \[1, 2\] have none"),
        (torch.tensor([0, 1, 2, 3, 0, 1]), r"0 .. 2; 0 .. 3"),
        (torch.tensor([0, 1, 2, -1, 0, 1]), r"-1 .. 2"),
        (torch.zeros(5, dtype=torch.int64), r"int64 of shape \(6,\)"),
        (torch.zeros(6), "float32"),
    ]
    for labels, message in table:
        with pytest.raises(ValueError, match=message):
            clustering.class_centroids(normal(6, 2), labels, 3)


def test_assign_takes_the_nearest():
    centers = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    assert clustering.assign(torch.tensor([[4.9, 3.0], [5.1, -3.0]]), centers).tolist() == [0, 1]


# --- Theorem 2 --------------------------------------------------------------------------------------------------------


def pairs(classes, d, n, seed, with_bias=False):
    """Centroids of random weights and n pairs of features with different predictions."""
    weight, bias = normal(classes, d, seed=seed), normal(classes, seed=seed + 9) if with_bias else None
    z = clustering.equidistant_centroids(weight, bias)
    features, other = 2 * normal(4 * n, d, seed=seed + 1), 2 * normal(4 * n, d, seed=seed + 2)
    k, l = z.assign(features), z.assign(other)  # noqa: E741 (the paper's letter)
    keep = torch.nonzero(k != l)[:n, 0]
    features, other, k, l = features[keep], other[keep], k[keep], l[keep]  # noqa: E741
    if with_bias:
        features, other = (torch.cat([f, torch.ones(len(f), 1)], 1) for f in (features, other))
    return z.centers, features, other, k, l


def test_the_printed_bound_is_the_formula():
    z, f, g, k, l = pairs(4, 6, 20, 0)  # noqa: E741
    bound = clustering.distortion_bound(f, g, z, k, l, 2.5)
    for i in range(len(f)):
        a, b = z[l[i]], z[k[i]]
        assert float(bound[i]) == pytest.approx(float((a - b).norm() - (g[i] - a).norm() - (f[i] - b).norm()) / 2.5, rel=1e-12)


@pytest.mark.parametrize(
    ("classes", "d", "with_bias"), [(3, 2, False), (3, 6, False), (5, 4, False), (5, 12, True), (2, 1, False), (2, 2, False)]
)
def test_the_best_bound_is_what_a_general_optimiser_finds(classes, d, with_bias):
    z, f, g, k, l = pairs(classes, d, 6, 3 * d + classes, with_bias)  # noqa: E741
    best = clustering.distortion_bound(f, g, z, k, l, 1.0, best=True)
    free = across(z)
    for i in range(len(f)):

        def negative_bound(parameters, i=i):
            """Over the scale (its logarithm) and the shift, as the paper states the theorem."""
            s = math.exp(np.clip(parameters[0], -5, 5))  # beyond, this plain formula cancels
            centers = s * z + free @ torch.from_numpy(parameters[1:])
            a, b = centers[l[i]], centers[k[i]]
            return -s * float((a - b).norm() - (g[i] / s - a).norm() - (f[i] / s - b).norm())

        found = max(
            -scipy.optimize.minimize(negative_bound, np.append(scale, np.zeros(free.shape[1])), method=method).fun
            for scale in (-1.0, 0.0, 2.0)
            for method in ("Powell", "BFGS")
        )
        assert found <= float(best[i]) + 1e-9 * (1 + abs(found))
        if classes > 2:  # with two centroids the supremum is only approached as the scale grows
            assert found == pytest.approx(float(best[i]), rel=1e-4, abs=1e-4)


def test_two_classes_reach_their_limit():
    z, f, g, k, l = pairs(2, 4, 50, 8)  # noqa: E741
    assert float((z[0] + z[1]).norm()) > 0.1  # the least shift leaves a common component, which the best one takes away
    direction = torch.nn.functional.normalize(z[k] - z[l], dim=1)
    limit = ((f - g) * direction).sum(1)
    best = clustering.distortion_bound(f, g, z, k, l, 1.0, best=True)
    assert torch.allclose(best, limit, rtol=1e-7, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 8), st.integers(0, 8), st.booleans(), st.integers(0, 10**6))
def test_bounds_are_ordered_and_true(classes, extra, with_bias, seed):
    z, f, g, k, l = pairs(classes, classes - 1 + extra, 40, seed, with_bias)  # noqa: E741
    assume(len(f))
    printed = clustering.distortion_bound(f, g, z, k, l, 1.0)
    best = clustering.distortion_bound(f, g, z, k, l, 1.0, best=True)
    moved = (g - f).norm(dim=1)
    scale = 1 + moved
    assert (printed <= best + 1e-9 * scale).all()
    assert (best <= moved * (1 + 1e-9)).all()
    # the freedoms do not move the best bound, while they move the printed one
    free = across(z)
    u = free @ normal(free.shape[1], seed=seed)
    again = clustering.distortion_bound(f / 3, g / 3, 3 * z + u, k, l, 1 / 3, best=True)
    assert torch.allclose(again, best, rtol=1e-6, atol=1e-6 * float(scale.max()))


def test_features_at_their_centroids_give_the_distance_between_them():
    z = clustering.equidistant_centroids(normal(4, 6)).centers
    k, l = torch.tensor([0, 1]), torch.tensor([2, 3])  # noqa: E741
    for best in (False, True):
        bound = clustering.distortion_bound(z[k], z[l], z, k, l, 0.5, best=best)
        assert torch.allclose(bound, 2 * (z[k] - z[l]).norm(dim=1), rtol=1e-9)


def test_features_at_the_origin_or_equal_features_are_no_trap():
    z = clustering.equidistant_centroids(normal(3, 4)).centers
    zero = torch.zeros(1, 4, dtype=torch.float64)
    k, l = torch.tensor([0]), torch.tensor([1])  # noqa: E741
    assert float(clustering.distortion_bound(zero, zero, z, k, l, 1.0, best=True)) == pytest.approx(0, abs=1e-9)
    same = normal(1, 4, seed=4)
    assert float(clustering.distortion_bound(same, same, z, k, l, 1.0, best=True)) <= 1e-9  # no move, no distortion


def test_no_pair_gives_no_bound():
    z = clustering.equidistant_centroids(normal(3, 4)).centers
    none, index = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    for best in (False, True):
        assert clustering.distortion_bound(none, none, z, index, index, 1.0, best=best).shape == (0,)


def test_unusable_pairs_are_refused():
    z, f, g, k, l = pairs(3, 4, 5, 0)  # noqa: E741
    with pytest.raises(ValueError, match=r"lipschitz must be a positive number; 0\.0"):
        clustering.distortion_bound(f, g, z, k, l, 0)
    with pytest.raises(ValueError, match="features must have 3 columns; 4"):
        clustering.distortion_bound(f, g, z[:, :3], k, l, 1.0)
    with pytest.raises(ValueError, match="features_adv must have 5 rows; 4"):
        clustering.distortion_bound(f, g[:4], z, k, l, 1.0)
    with pytest.raises(ValueError, match=r"label_adv must be in 0 .. 2"):
        clustering.distortion_bound(f, g, z, k, l + 3, 1.0)


# --- the bisector bound -----------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(1, 6), st.booleans(), st.integers(0, 10**6))
def test_the_bisector_bound_is_exact_for_a_linear_model(classes, d, with_bias, seed):
    weight, bias = normal(classes, d, seed=seed), normal(classes, seed=seed + 1) if with_bias else None
    x = normal(30, d, seed=seed + 2)
    radius = clustering.bisector_bound(x, weight, bias, 1.0)

    def scores(points):
        return points @ weight.T + (0 if bias is None else bias)

    k = scores(x).argmax(1)
    # from each point straight to each rival's bisector: at the bound the rival draws level, and no other rival did before
    reached = torch.full((30,), torch.inf, dtype=torch.float64)
    for rival in range(classes):
        normal_vector = weight[rival] - weight[k]
        gap = (scores(x).gather(1, k[:, None])[:, 0] - scores(x)[:, rival]).clamp_min(0)
        step = normal_vector * (gap / normal_vector.square().sum(1).clamp_min(1e-300))[:, None]
        level = scores(x + step)
        reached = torch.where(k == rival, reached, torch.minimum(reached, step.norm(dim=1)))
        assert torch.allclose(level[:, rival], level.gather(1, k[:, None])[:, 0], atol=1e-9)
    assert torch.allclose(radius, reached, rtol=1e-9, atol=1e-12)
    direction = torch.nn.functional.normalize(normal(30, d, seed=seed + 3), dim=1)
    inside = x + direction * (radius * (1 - 1e-9)).clamp(max=1e6)[:, None]
    assert (clustering.bisector_bound(inside, weight, bias, 1.0) >= 0).all()
    top = scores(inside).gather(1, k[:, None])[:, 0]
    assert (top >= scores(inside).amax(1) - 1e-9).all()


def test_the_bisector_bound_agrees_with_the_centroids():
    """hess2020 meets Proposition 1 of alfarra2021: (|f - z_l|^2 - |f - z_k|^2) / (2 |z_k - z_l|) at the nearest rival."""
    weight, f = normal(5, 9), normal(40, 9, seed=1)
    z = clustering.equidistant_centroids(weight).centers
    d2 = (f[:, None] - z).square().sum(2)
    k = d2.argmin(1)
    ratio = (d2 - d2.gather(1, k[:, None])) / (2 * (z[None] - z[k][:, None]).norm(dim=2))
    ratio[torch.arange(40), k] = torch.inf
    assert torch.allclose(clustering.bisector_bound(f, weight, None, 4.0), ratio.amin(1) / 4, rtol=1e-10)


def test_equal_weights_are_a_tie_or_never_cross():
    weight = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    x = torch.tensor([[1.0, 2.0]])
    assert float(clustering.bisector_bound(x, weight, None, 1.0)) == 0
    assert float(clustering.bisector_bound(x, weight, torch.tensor([1.0, 0.0]), 1.0)) == math.inf
    with pytest.raises(ValueError, match="at least two classes; 1"):
        clustering.bisector_bound(x, weight[:1], None, 1.0)
    with pytest.raises(ValueError, match="features must have 3 columns; 2"):
        clustering.bisector_bound(x, torch.ones(2, 3), None, 1.0)


# --- equal norms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_projection_is_the_nearest_matrix_of_equal_norms(seed):
    weight = normal(4, 3, seed=seed)
    projected = clustering.equal_norm_projection(weight)
    assert torch.allclose(projected.norm(dim=1), weight.norm(dim=1).mean().expand(4), rtol=1e-12)
    distance = float((projected - weight).square().sum())

    def squared_distance(parameters):
        rows = parameters[1:].reshape(4, 3)
        rows = parameters[0] * rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return float(np.square(rows - weight.numpy()).sum())

    starts = [np.append(r, np.random.default_rng(seed).normal(size=12)) for r in (0.5, 2.0)]
    found = min(scipy.optimize.minimize(squared_distance, start, method="BFGS").fun for start in starts)
    assert found == pytest.approx(distance, rel=1e-6)
    assert distance <= found + 1e-9


def test_the_projection_keeps_what_is_equal_already_and_refuses_zero_rows():
    weight = torch.nn.functional.normalize(normal(5, 8), dim=1)
    assert torch.allclose(clustering.equal_norm_projection(weight), weight, rtol=1e-15)
    assert clustering.equal_norm_projection(weight.float()).dtype == torch.float32
    weight[2] = 0
    with pytest.raises(ValueError, match=r"rows \[2\] are zero"):
        clustering.equal_norm_projection(weight)


# --- k-means ----------------------------------------------------------------------------------------------------------


def digits():
    bunch = load_digits()
    return torch.from_numpy(bunch.data).double(), torch.from_numpy(bunch.target).long()


def check_invariants(found, x, y, k, rtol=1e-9):
    """Every cluster has a member of its class, each centre is its members' mean, the inertia is what is said."""
    classes = len(found.centers)
    assert torch.equal(found.index // k, y)
    assert (found.index.bincount(minlength=classes * k) > 0).all()
    flat = found.centers.flatten(0, 1)
    scale = float(x.double().abs().max()) + 1e-12
    for i in range(classes * k):
        assert torch.allclose(flat[i].double(), x[found.index == i].double().mean(0), rtol=0, atol=rtol * scale)
    away = (x.double() - flat[found.index].double()).square().sum(1)
    expected = torch.zeros(classes, dtype=torch.float64).index_add_(0, y, away)
    assert torch.allclose(found.inertia, expected, rtol=10 * rtol, atol=(rtol * scale) ** 2 * len(x) * x.shape[1])


@pytest.mark.parametrize("k", [1, 2, 3, 8])
def test_the_inertia_is_at_most_scikit_learns_plus_one_percent(k):
    x, y = digits()
    found = clustering.class_clusters(x, y, 10, k, restarts=10)
    check_invariants(found, x, y, k)
    peer = sum(KMeans(k, n_init=10, random_state=1).fit(x[y == c].numpy()).inertia_ for c in range(10))
    assert float(found.inertia.sum()) <= 1.01 * peer


def test_the_best_of_some_restarts_counts_class_by_class():
    x, y = digits()
    stream = torch.Generator().manual_seed(0)
    runs = [clustering.class_clusters(x, y, 10, 4, generator=stream) for _ in range(4)]
    inertia = torch.stack([run.inertia for run in runs])
    found = clustering.class_clusters(x, y, 10, 4, restarts=4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.inertia, inertia.amin(0)) and len(inertia.argmin(0).unique()) > 1
    centers = torch.stack([run.centers for run in runs])[inertia.argmin(0), torch.arange(10)]
    assert torch.equal(found.centers, centers)


def test_one_run_is_as_good_as_one_run_of_scikit_learn_on_average():
    x, y = digits()
    ours = [float(clustering.class_clusters(x, y, 10, 4, generator=torch.Generator().manual_seed(s)).inertia.sum()) for s in range(8)]
    peer = [sum(KMeans(4, n_init=1, random_state=s).fit(x[y == c].numpy()).inertia_ for c in range(10)) for s in range(8)]
    assert np.mean(ours) <= 1.01 * np.mean(peer)


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(3, 30), min_size=1, max_size=5), k=st.integers(1, 3), d=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_invariants_and_local_optimality(sizes, k, d, seed):
    y = torch.cat([torch.full((n,), c) for c, n in enumerate(sizes)])
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
    x = normal(len(y), d, seed=seed) + 5.0 * y[:, None]
    found = clustering.class_clusters(x, y, len(sizes), k, tol=0.0, generator=torch.Generator().manual_seed(seed))
    check_invariants(found, x, y, k)
    own = (x[:, None] - found.centers[y]).square().sum(2)
    assert torch.equal(own.argmin(1), found.index % k), "at the end no image is nearer to another cluster of its class"


def test_far_groups_are_found_and_the_rows_order_is_no_matter():
    centers = 100 * normal(3, 4, 7)
    y = torch.arange(600) % 3
    group = torch.arange(600) // 3 % 4
    x = centers[y, group] + normal(600, 7, seed=1)
    found = clustering.class_clusters(x, y, 3, 4)
    assert adjusted_rand_score((4 * y + group).numpy(), found.index.numpy()) == 1
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    again = clustering.class_clusters(x[order], y[order], 3, 4)
    assert adjusted_rand_score(found.index[order].numpy(), again.index.numpy()) == 1


def test_the_same_generator_gives_the_same_clusters_and_another_class_changes_none():
    x, y = digits()
    x, y = x[y < 3], y[y < 3]
    first, second = (clustering.class_clusters(x, y, 3, 2, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("centers", "index", "inertia"))


def test_float32_features_far_from_the_origin_keep_their_clusters():
    y = torch.arange(400) % 2
    group = torch.arange(400) // 2 % 2
    x = (1e4 + 10.0 * group[:, None] + normal(400, 16) + 1e3 * y[:, None]).float()
    found = clustering.class_clusters(x, y, 2, 2)
    assert found.centers.dtype == torch.float32 and found.inertia.dtype == torch.float64
    assert adjusted_rand_score((2 * y + group).numpy(), found.index.numpy()) == 1
    check_invariants(found, x, y, 2, rtol=1e-6)


def test_duplicates_leave_no_cluster_empty():
    x, y = torch.zeros(8, 3, dtype=torch.float64), torch.tensor([0] * 4 + [1] * 4)
    x[0] += 1
    found = clustering.class_clusters(x, y, 2, 3)
    check_invariants(found, x, y, 3)
    assert float(found.inertia.sum()) == 0


def test_an_emptied_cluster_takes_the_farthest_image():
    member = torch.tensor([[0, 0, 0, 1, 1, 9]])
    size = torch.tensor([[3.0, 2.0, 0.0]])
    real = torch.tensor([[True] * 5 + [False]])
    member[0, 5] = 0
    clustering._fill(member, size, torch.tensor([[1.0, 9.0, 2.0, 4.0, 3.0, 99.0]]), real)
    assert member.tolist() == [[0, 2, 0, 1, 1, 0]] and size.tolist() == [[2, 2, 1]]


def test_as_many_clusters_as_images():
    x, y = normal(6, 2), torch.tensor([0, 0, 0, 1, 1, 1])
    found = clustering.class_clusters(x, y, 2, 3)
    assert float(found.inertia.max()) == 0
    check_invariants(found, x, y, 3)


def test_without_classes():
    x, _ = digits()
    found = clustering.kmeans_plus_plus(x, 10, restarts=10)
    assert found.centers.shape == (10, 64) and found.inertia.shape == ()
    assert float(found.inertia) <= 1.01 * KMeans(10, n_init=10, random_state=1).fit(x.numpy()).inertia_
    mean = clustering.kmeans_plus_plus(x, 1)
    assert torch.allclose(mean.centers[0], x.mean(0))


def test_seeds_are_drawn_by_squared_distance():
    """Three points: once the first centre is the left one, the others are taken as 1 to 9, and never the centre itself."""
    x = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)[None]
    real = torch.ones(1, 3, dtype=torch.bool)
    counts = {}
    generator = torch.Generator().manual_seed(0)
    for _ in range(3000):
        a, b = clustering._greedy_seeds(x, real, 2, generator)[0, :, 0].tolist()
        counts[a, b] = counts.get((a, b), 0) + 1
    from_left = counts.get((0, 1), 0) + counts.get((0, 3), 0)
    # Of two draws the better one is kept: the point at 3 leaves less inertia, so 1 wins only when drawn twice.
    assert counts.get((0, 1), 0) / from_left == pytest.approx(0.1**2, abs=0.02)
    assert not any(a == b for a, b in counts)


def test_what_cannot_be_clustered_is_refused():
    table = [
        (lambda: clustering.class_clusters(normal(6, 2), torch.tensor([0, 0, 0, 0, 1, 1]), 2, 3), r"too few have .* \{1: 2\}"),
        (lambda: clustering.class_clusters(normal(4, 2), torch.tensor([0, 0, 2, 2]), 3, 1), r"\{1: 0\}"),
        (lambda: clustering.class_clusters(normal(2, 2), torch.tensor([0, 5]), 2, 1), "labels must be in 0 .. 1"),
        (lambda: clustering.class_clusters(normal(2, 2), torch.tensor([0.0, 1.0]), 2, 1), "labels must be int64"),
        (lambda: clustering.class_clusters(torch.full((2, 2), math.nan), torch.tensor([0, 1]), 2, 1), "must be finite; 4 of 4"),
        (lambda: clustering.class_clusters(normal(2, 2), torch.tensor([0, 1]), 2, 0), "k must be a whole number of at least 1; 0"),
        (lambda: clustering.class_clusters(normal(2, 2), torch.tensor([0, 1]), 2, 1, restarts=0), "restarts must be"),
        (lambda: clustering.class_clusters(normal(2, 2), torch.tensor([0, 1]), 2, 1, tol=-1), "tol must be"),
        (lambda: clustering.class_clusters(normal(0, 2), torch.zeros(0, dtype=torch.int64), 1, 1), r"\{0: 0\}|not empty"),
        (lambda: clustering.kmeans_plus_plus(normal(3, 2), 4), r"\{0: 3\}"),
        (lambda: clustering.kmeans_plus_plus(torch.zeros(0, 2), 1), "not empty"),
        (lambda: clustering.kmeans_plus_plus([[0.0]], 1), "list was given"),
    ]
    for call, message in table:
        with pytest.raises(ValueError, match=message):
            call()
