"""The heads against closed forms, float64 brute force and finite differences, at small and at extreme distances."""

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from support.models import heads

finite = st.floats(-1e3, 1e3, allow_nan=False)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def direct(features, centers):
    """Squared distances by subtraction, in float64."""
    return (features.double()[:, None] - centers.double()).square().sum(2)


# --- squared distances ------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 6), st.integers(1, 5), st.integers(1, 8))
def test_squared_distances_are_those_by_subtraction(data, n, k, d):
    features = torch.from_numpy(data.draw(arrays.arrays("float64", (n, d), elements=finite)))
    centers = torch.from_numpy(data.draw(arrays.arrays("float64", (k, d), elements=finite)))
    found = heads.squared_distances(features, centers)
    assert (found >= 0).all()
    spread = features.square().sum() + centers.square().sum() + 1
    assert torch.allclose(found, direct(features, centers), rtol=1e-12, atol=1e-13 * float(spread))
    own = heads.squared_distances(centers, centers)
    assert torch.allclose(own, own.T, atol=1e-13 * float(spread))


@pytest.mark.parametrize("offset", [0.0, 10.0, 1e4])
@pytest.mark.parametrize("gap", [1e-3, 1.0, 1e3])
def test_float32_distances_keep_their_digits_far_below_the_norms(offset, gap):
    centers = normal(10, 64, dtype=torch.float32) + offset
    features = centers[torch.arange(40) % 10] + gap * normal(40, 64, seed=1, dtype=torch.float32)
    found = heads.squared_distances(features, centers)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), direct(features, centers), rtol=1e-6)


def test_distance_and_gradient_at_a_centre():
    centers = normal(4, 7, dtype=torch.float32)
    features = centers.clone().requires_grad_()
    d2 = heads.squared_distances(features, centers)
    assert (d2.diagonal() <= 1e-12).all()
    gradient = torch.autograd.grad(d2.diagonal().sum(), features)[0]
    assert gradient.abs().max() <= 1e-6  # the distance has its minimum there


def test_gradients_of_the_distances():
    features, centers = normal(3, 4).requires_grad_(), normal(5, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(heads.squared_distances, (features, centers))
    assert torch.autograd.gradgradcheck(heads.squared_distances, (features, centers))
    upstream = normal(3, 5, seed=2)
    got = torch.autograd.grad(heads.squared_distances(features, centers), (features, centers), upstream)
    difference = 2 * (features[:, None] - centers) * upstream[:, :, None]
    assert torch.allclose(got[0], difference.sum(1))
    assert torch.allclose(got[1], -difference.sum(0))


def test_low_precision_features_get_float32_distances():
    features = normal(6, 16).bfloat16()
    centers = normal(3, 16, seed=1, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = heads.squared_distances(features, centers)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), direct(features, centers), rtol=1e-6)


def test_a_row_does_not_depend_on_its_neighbours():
    features, centers = normal(64, 20, dtype=torch.float32), normal(10, 20, seed=1, dtype=torch.float32)
    whole = heads.squared_distances(features, centers)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(heads.squared_distances(features[order], centers), whole[order])


# --- Gauss ------------------------------------------------------------------------------------------------------------


def test_gauss_log_confidence_is_the_logarithm_of_the_kernel():
    features, centers = normal(20, 5), normal(4, 5, seed=1)
    expected = (-0.3 * direct(features, centers)).exp()
    head = heads.GaussHead(centers, gamma=0.3)
    assert torch.allclose(head.confidence(head(features)), expected, rtol=1e-12)
    assert torch.equal(head(features), heads.gauss_log_confidence(features, centers, 0.3))


def test_the_logarithm_and_its_gradient_survive_where_the_kernel_vanishes():
    point = torch.tensor([[1e3, 0.0]], requires_grad=True)
    head = heads.GaussHead(torch.zeros(1, 2))
    score = head(point)
    assert score.item() == pytest.approx(-1e6)
    assert torch.autograd.grad(score.sum(), point)[0].tolist() == [[-2000.0, 0.0]]
    confidence = head.confidence(head(point))
    assert confidence.item() == 0
    assert torch.autograd.grad(confidence.sum(), point)[0].abs().max() == 0  # the trap that chapter 1 shows


def test_gauss_centres_are_a_buffer_and_gamma_a_number():
    given_centers = normal(3, 2)
    head = heads.GaussHead(given_centers, gamma=torch.tensor(0.25))
    given_centers.zero_()
    assert head.centers.abs().sum() > 0
    assert not list(head.parameters())
    assert head.gamma == 0.25
    assert "gamma=0.25" in repr(head)


# --- softRmax ---------------------------------------------------------------------------------------------------------


def exact_log_softrmax(z, digits=60):
    """log p in arbitrary precision, from the definition."""
    with mpmath.workdps(digits):
        z = [mpmath.mpf(v) for v in z]
        d2 = [sum((zj - (1 if i == j else 0)) ** 2 for j, zj in enumerate(z)) for i in range(len(z))]
        total = sum(1 / d for d in d2)
        return [float(mpmath.log(1 / d / total)) for d in d2]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(finite, st.floats(-1e12, 1e12), st.floats(-1e-6, 1e-6)), min_size=2, max_size=6))
def test_log_softrmax_is_its_definition(values):
    z = torch.tensor([values], dtype=torch.float64)
    one_hot = torch.nn.functional.one_hot(z.argmax(1), len(values)).double()
    if (z - one_hot).abs().max() < 1e-150:  # its square underflows: the next test
        return
    expected = torch.tensor([exact_log_softrmax(values)], dtype=torch.float64)
    assert torch.allclose(heads.log_softrmax(z), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("dtype", "offset"), [(torch.float32, 1e-30), (torch.float64, 1e-200)])
def test_a_distance_whose_square_underflows_is_none(dtype, offset):
    leaf = torch.tensor([[1.0, offset, 0.0]], dtype=dtype, requires_grad=True)
    log_p = heads.log_softrmax(leaf)
    assert leaf[0, 1] > 0 and log_p.tolist() == [[0, -math.inf, -math.inf]]
    assert torch.equal(torch.autograd.grad(log_p[0, 1], leaf)[0], torch.zeros(1, 3, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softrmax_is_the_softmax_of_minus_log_distances(dtype):
    z = 3 * normal(200, 10, dtype=dtype)
    d2 = direct(z, torch.eye(10))
    assert torch.allclose(heads.softrmax(z).double(), (-d2.log()).softmax(1), rtol=1e-5 if dtype == torch.float32 else 1e-12)


def test_softrmax_at_its_centres():
    z = torch.eye(4, dtype=torch.float64).requires_grad_()
    log_p = heads.log_softrmax(z)
    assert torch.equal(log_p.exp(), torch.eye(4, dtype=torch.float64))
    assert (log_p.diagonal() == 0).all()
    assert (log_p.detach().fill_diagonal_(-torch.inf) == -torch.inf).all()
    for loss in (log_p.diagonal().sum(), torch.nn.functional.cross_entropy(heads.log_softrmax(z), torch.arange(4))):
        assert (torch.autograd.grad(loss, z, retain_graph=True)[0] == 0).all()
    scores = -heads.squared_distances(z.detach(), torch.eye(4, dtype=torch.float64)).log()
    assert (scores.diagonal() > 60).all()  # the score -log d^2 has its pole here: a head must not return it


@pytest.mark.parametrize("offset", [1e-30, 1e-8, 1e-3])
def test_softrmax_beside_a_centre(offset):
    z = [offset, 1.0, 0.0]
    assert heads.log_softrmax(torch.tensor([z], dtype=torch.float64))[0].tolist() == pytest.approx(exact_log_softrmax(z, 120), rel=1e-9)


@pytest.mark.parametrize("size", [1e3, 1e8, 1e18, 1e37])
def test_the_tail_tends_to_one_over_k_and_keeps_the_order_of_the_logits(size):
    z = size * torch.tensor([[0.3, -0.7, 0.2999, 0.1]])
    assert z.dtype == torch.float32
    log_p = heads.log_softrmax(z)
    assert torch.allclose(log_p.exp(), torch.full((1, 4), 0.25), atol=4 / size)
    if size <= 1e3:
        assert log_p.argsort().tolist() == z.argsort().tolist()
    leaf = z.clone().requires_grad_()
    assert torch.autograd.grad(heads.log_softrmax(leaf)[0, 1], leaf)[0].isfinite().all()


@settings(max_examples=40, deadline=None)
@given(arrays.arrays("float64", (3, 4), elements=st.floats(-50, 50)))
def test_softrmax_ranks_like_the_logits(values):
    z = torch.from_numpy(values)
    log_p = heads.log_softrmax(z)
    assert torch.allclose(log_p.logsumexp(1), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    order = z.argsort(1)
    assert (log_p.gather(1, order).diff(dim=1).nan_to_num(0) >= 0).all()


def test_gradients_of_log_softrmax():
    z = (2 * normal(6, 5)).requires_grad_()
    assert torch.autograd.gradcheck(heads.log_softrmax, (z,))
    assert torch.autograd.gradgradcheck(heads.log_softrmax, (z,))


def test_softrmax_head():
    head = heads.SoftRmaxHead(normal(4, 6), normal(4, seed=1))
    features = normal(8, 6, seed=2)
    assert torch.equal(head(features), heads.log_softrmax(head.logits(features)))
    assert torch.equal(head(features).argmax(1), head.logits(features).argmax(1))
    assert torch.allclose(head.confidence(head(features)).sum(1), torch.ones(8, dtype=torch.float64))


@settings(max_examples=60, deadline=None)
@given(arrays.arrays("float64", st.tuples(st.just(3), st.integers(2, 6)), elements=st.floats(-20, 20)))
def test_log_softrmax_is_the_log_softmax_of_minus_log_squared_distances(values):
    """The identity that puts softRmax among the heads: in logarithms, both sides in float64."""
    z = torch.from_numpy(values)
    d2 = direct(z, torch.eye(z.shape[1]))
    if bool((d2 < 1e-6).any()):  # there the distance itself, by subtraction, has lost its digits
        return
    assert torch.allclose(heads.log_softrmax(z), (-d2.log()).log_softmax(1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4])
def test_the_gradient_is_that_of_central_differences(scale):
    """Every entry of the Jacobian in float64, from beside the centres to far out, against the closed form as well."""
    z, h = scale * normal(5, 4), 1e-6 * max(scale, 1e-3)
    steps = h * torch.eye(4, dtype=torch.float64)
    numeric = torch.stack([(heads.log_softrmax(z + step) - heads.log_softrmax(z - step)) / (2 * h) for step in steps], dim=2)
    found = torch.stack([torch.autograd.functional.jacobian(lambda row: heads.log_softrmax(row[None])[0], row) for row in z])
    size = float(found.abs().max())
    assert torch.allclose(found, numeric, rtol=1e-5, atol=1e-6 * size + 1e-15 / h)
    away = z[:, None] - torch.eye(4, dtype=torch.float64)  # (n, K, d), and d log p_i = -2 away_i / d_i^2 + mean over p of the same
    slopes = -2 * away / away.square().sum(2, keepdim=True)
    closed = slopes - (heads.softrmax(z)[:, :, None] * slopes).sum(1, keepdim=True)
    assert torch.allclose(found, closed, rtol=1e-8, atol=1e-9 * size)


def test_probabilities_are_smooth_through_a_centre():
    """p_j = h^2 / 2 to second order at e_i, for every other class and direction: value, slope and curvature of a smooth function."""
    centre, direction = torch.eye(3, dtype=torch.float64)[1], normal(6, 3)
    direction = direction / direction.norm(dim=1, keepdim=True)
    for h in (1e-2, 1e-3, 1e-5):
        p = heads.softrmax(torch.cat([centre + h * direction, centre - h * direction, centre[None]]))
        others = p[:, [0, 2]]
        assert torch.equal(others[-1], torch.zeros(2, dtype=torch.float64)) and p[-1, 1] == 1
        assert torch.allclose(others[:12] / h**2, torch.full((), 0.5, dtype=torch.float64), atol=2 * h)
        assert torch.allclose(1 - p[:12, 1], others[:12].sum(1), rtol=1e-4)
        leaf = (centre + h * direction).requires_grad_()
        slope = torch.autograd.grad(heads.softrmax(leaf)[:, 0].sum(), leaf)[0]
        assert torch.allclose(slope, h * direction, atol=4 * h**2)  # the gradient of |z - e_i|^2 / 2
    leaf = centre[None].clone().requires_grad_()
    for k in range(3):
        assert torch.equal(torch.autograd.grad(heads.softrmax(leaf)[0, k], leaf)[0], torch.zeros(1, 3, dtype=torch.float64))


def test_log_probabilities_beside_a_centre_are_finite_for_it_and_fall_without_end_for_the_others():
    """At e_i itself log p_i is 0 with slope 0, and log p_j minus infinity, of which a step of gradient ascent sees no NaN."""
    for h in (1e-2, 1e-5, 1e-8):
        leaf = torch.tensor([[1.0, h, 0.0]], dtype=torch.float64, requires_grad=True)
        log_p = heads.log_softrmax(leaf)[0]
        own, other = (torch.autograd.grad(log_p[k], leaf, retain_graph=True)[0] for k in (0, 1))
        assert float(log_p[0].detach()) == pytest.approx(-(h**2), rel=2 * h, abs=1e-15)
        assert float(log_p[1].detach()) == pytest.approx(2 * math.log(h) - math.log(2), abs=3 * h)
        assert own.norm() < 3 * h and other.norm() == pytest.approx(2 / h, rel=3 * h)
    z = torch.eye(3)
    assert heads.log_softrmax(z).tolist() == [[0 if i == j else -math.inf for j in range(3)] for i in range(3)]
    leaf = z.clone().requires_grad_()
    for target in ([0, 1, 2], [1, 2, 0]):  # the own class, and another
        loss = torch.nn.functional.nll_loss(heads.log_softrmax(leaf), torch.tensor(target))
        assert torch.autograd.grad(loss, leaf)[0].isfinite().all()


def test_one_class_is_certain_everywhere():
    z = torch.tensor([[-3.0], [0.0], [1.0], [1e30]], requires_grad=True)
    log_p = heads.log_softrmax(z)
    assert log_p.tolist() == [[0.0]] * 4 and heads.softrmax(z).tolist() == [[1.0]] * 4
    assert torch.equal(torch.autograd.grad(log_p.sum(), z)[0], torch.zeros(4, 1))
    assert heads.SoftRmaxHead(torch.ones(1, 2))(torch.ones(3, 2)).tolist() == [[0.0]] * 3


@pytest.mark.parametrize("k", [2, 3, 10, 100])
def test_every_direction_of_the_tail_ends_at_one_over_k(k):
    """|p_i - 1/K| falls as 1/|z|: at most by 4 / (K |z|), for the ratio of two squared distances is 1 + 2 (z_j - z_i) / D."""
    direction = normal(20, k, seed=k)
    direction = direction / direction.norm(dim=1, keepdim=True)
    for size in (1e2, 1e4, 1e8):
        away = (heads.softrmax(size * direction) - 1 / k).abs().max()
        assert away <= 4 / (k * size)
    assert away > 0 or k == 1


def test_moving_all_logits_alike_changes_softrmax_and_not_softmax():
    z = torch.tensor([[0.9, 0.1, 0.0]], dtype=torch.float64)
    assert torch.allclose((z + 5).softmax(1), z.softmax(1))
    assert (heads.softrmax(z + 5) - 1 / 3).abs().max() < 0.05 < 0.5 < heads.softrmax(z).max() - 1 / 3


@pytest.mark.parametrize("k", [2, 5, 10])
def test_the_loss_of_a_correct_point_falls_inside_the_unit_sphere_and_rises_outside_it(k):
    """Along a ray r u, |z - e_y|^2 / |z - e_k|^2 changes with the sign of (u_y - u_k)(r^2 - 1); for the least entry the other way."""
    rays = torch.nn.functional.normalize(torch.randn(100, k, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=1)
    for label, sign in ((rays.argmax(1), 1), (rays.argmin(1), -1)):
        for radii, rising in ((torch.linspace(0.02, 1, 50), -sign), (torch.linspace(1, 8, 200), sign)):
            z = radii.double()[:, None, None] * rays
            loss = -heads.log_softrmax(z.flatten(0, 1)).unflatten(0, (len(radii), -1)).gather(2, label.expand(len(radii), -1)[..., None])
            assert (rising * loss.diff(dim=0) > 0).all()


# --- clusters ---------------------------------------------------------------------------------------------------------


def brute_force_clusters(features, centers, variance, nearest):
    """Equation 4 of alfarra2021 cluster by cluster, in arbitrary precision."""
    rows = []
    for f in features.tolist():
        with mpmath.workdps(60):
            d2 = {(k, m): sum((mpmath.mpf(a) - mpmath.mpf(b)) ** 2 for a, b in zip(f, c, strict=True))
                  for k, group in enumerate(centers.tolist()) for m, c in enumerate(group)}  # fmt: skip
            counted = sorted(d2, key=d2.get)[: nearest or len(d2)]
            kernel = {key: mpmath.exp(-d2[key] / (2 * mpmath.mpf(variance))) for key in counted}
            total = sum(kernel.values())
            per_class = [sum(v for (k, _), v in kernel.items() if k == j) for j in range(len(centers))]
            rows.append([float(mpmath.log(p / total)) if p else -math.inf for p in per_class])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("nearest", [None, 1, 2, 5])
@pytest.mark.parametrize("distance", [1.0, 1e3])
def test_cluster_log_prob_is_equation_4(nearest, distance):
    centers, features = distance * normal(4, 3, 5), distance * normal(12, 5, seed=1)
    found = heads.cluster_log_prob(features, centers, 0.7, nearest)
    assert torch.allclose(found, brute_force_clusters(features, centers, 0.7, nearest), rtol=1e-10, atol=1e-12)
    head = heads.ClusterHead(centers, 0.7, nearest)
    assert torch.equal(head(features), found)
    assert torch.allclose(head.confidence(found).sum(1), torch.ones(12, dtype=torch.float64))


def test_one_cluster_per_class_is_a_softmax_of_gauss_scores():
    centers, features = normal(5, 6), normal(9, 6, seed=1)
    expected = heads.gauss_log_confidence(features, centers, gamma=0.25).log_softmax(1)
    assert torch.allclose(heads.cluster_log_prob(features, centers[:, None], 2.0), expected)


def test_the_nearest_cluster_alone_is_certain_and_flat():
    """At D = 1 the probability is 1 for every image, and its gradient zero (alfarra2021, d1-exact)."""
    centers, features = normal(3, 2, 4), normal(10, 4, seed=1).requires_grad_()
    log_p = heads.cluster_log_prob(features, centers, 1.0, nearest=1)
    assert ((log_p == 0) | (log_p == -torch.inf)).all()
    assert ((log_p == 0).sum(1) == 1).all()
    gradient = torch.autograd.grad(log_p.amax(1).sum(), features)[0]
    assert (gradient == 0).all()


@pytest.mark.parametrize("nearest", [None, 2])
def test_gradients_of_the_clusters(nearest):
    centers, features = normal(3, 2, 4), normal(5, 4, seed=1).requires_grad_()

    def counted(f):
        log_p = heads.cluster_log_prob(f, centers, 1.5, nearest)
        return torch.where(log_p == -torch.inf, 0.0, log_p)

    assert torch.autograd.gradcheck(counted, (features,))
    loss = torch.nn.functional.nll_loss(heads.cluster_log_prob(features, centers, 1.5, nearest), features.argmax(1).clamp(max=2))
    assert torch.autograd.grad(loss, features)[0].isfinite().all()


# --- the linear head, and what heads refuse ---------------------------------------------------------------------------


def test_linear_head():
    weight, bias, features = normal(3, 4), normal(3, seed=1), normal(5, 4, seed=2)
    head = heads.LinearHead(weight, bias)
    assert torch.allclose(head(features), features @ weight.T + bias)
    assert torch.allclose(head.confidence(head(features)), (features @ weight.T + bias).softmax(1))
    assert {name for name, _ in head.named_parameters()} == {"weight", "bias"}
    assert heads.LinearHead(weight).bias is None
    weight.zero_()
    assert head.weight.abs().sum() > 0


def test_gauss_scores_are_linear_scores_up_to_a_common_term():
    """-gamma |f - c|^2 = 2 gamma f.c - gamma |c|^2 - gamma |f|^2: the algebra that the heads share."""
    centers, features = normal(6, 3), normal(7, 3, seed=1)
    linear = heads.LinearHead(2 * 0.4 * centers, -0.4 * centers.square().sum(1))
    difference = heads.GaussHead(centers, 0.4)(features) - linear(features)
    assert torch.allclose(difference, difference[:, :1].expand(-1, 6))


@pytest.mark.parametrize("gamma", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_width_is_refused(gamma):
    for make in (
        lambda: heads.GaussHead(normal(2, 2), gamma),
        lambda: heads.gauss_log_confidence(normal(2, 2), normal(2, 2), gamma),
        lambda: heads.ClusterHead(normal(2, 1, 2), gamma),
    ):
        with pytest.raises(ValueError, match="must be a positive number"):
            make()


def test_what_does_not_fit_is_refused():
    table = [
        (lambda: heads.squared_distances(torch.zeros(3), torch.zeros(2, 2)), r"features must be .* 2 dimensions; torch.float32 \(3,\)"),
        (lambda: heads.squared_distances(torch.zeros(3, 2).long(), torch.zeros(2, 2)), "torch.int64"),
        (lambda: heads.squared_distances(torch.zeros(3, 2), torch.zeros(2, 5)), "features have 2 columns and centers 5"),
        (lambda: heads.squared_distances(torch.full((1, 2), torch.nan), torch.zeros(2, 2)), "must not contain NaN; 2 of 2"),
        (lambda: heads.log_softrmax(torch.zeros(3)), "z must be"),
        (lambda: heads.cluster_log_prob(torch.zeros(3, 2), torch.zeros(4, 2), 1.0), "centers must be .* 3 dimensions"),
        (lambda: heads.cluster_log_prob(torch.zeros(3, 2), torch.zeros(4, 2, 2), 1.0, 0), "nearest must be a whole number from 1 to 8; 0"),
        (lambda: heads.cluster_log_prob(torch.zeros(3, 2), torch.zeros(4, 2, 2), 1.0, 9), "from 1 to 8; 9"),
        (lambda: heads.LinearHead(torch.zeros(3, 2), torch.zeros(2)), "one entry per row of the weight, 3; 2"),
        (lambda: heads.GaussHead([[0.0]]), "list was given"),
    ]
    for call, message in table:
        with pytest.raises(ValueError, match=message):
            call()
