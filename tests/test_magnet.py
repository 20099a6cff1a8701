"""The Magnet loss against brute force in arbitrary precision, its gradients, and the neighbourhoods against their definition."""

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support import clustering
from support.training import magnet


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def brute_force(features, labels, centers, center_labels, alpha, variance=None, *, assigned=None, hinge=True):
    """Equation 3 of alfarra2021, image by image and centre by centre, with sixty digits."""
    with mpmath.workdps(60):

        def squared(a, b):
            return sum((mpmath.mpf(p) - mpmath.mpf(q)) ** 2 for p, q in zip(a, b, strict=True))

        d2 = [[squared(f, c) for c in centers.tolist()] for f in features.tolist()]
        own = [
            row[assigned[i]] if assigned is not None else min(d for d, c in zip(row, center_labels.tolist(), strict=True) if c == labels[i])
            for i, row in enumerate(d2)
        ]
        v = mpmath.mpf(variance) if variance is not None else sum(own) / (len(own) - 1)
        values = []
        for i, row in enumerate(d2):
            rivals = sum(mpmath.exp(-d / (2 * v)) for d, c in zip(row, center_labels.tolist(), strict=True) if c != labels[i])
            value = alpha + own[i] / (2 * v) + mpmath.log(rivals)
            values.append(float(max(value, 0) if hinge else value))
    return torch.tensor(values, dtype=torch.float64)


def problem(distance=1.0, *, n=9, d=5, classes=3, k=2, seed=0):
    centers = distance * normal(classes * k, d, seed=seed)
    center_labels = torch.arange(classes).repeat_interleave(k)
    labels = torch.arange(n) % classes
    return distance * normal(n, d, seed=seed + 1), labels, centers, center_labels


# --- value and gradient -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hinge", [True, False])
@pytest.mark.parametrize("variance", [None, 0.01, 1.0, 40.0])
@pytest.mark.parametrize("distance", [1e-3, 1.0, 30.0, 1e3])
def test_the_loss_is_equation_3_at_any_distance(distance, variance, hinge):
    given_problem = problem(distance)
    found = magnet.magnet_loss(*given_problem, 1.5, variance, hinge=hinge)
    expected = brute_force(*given_problem, 1.5, variance, hinge=hinge)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)
    single = magnet.magnet_loss(given_problem[0].float(), *given_problem[1:], 1.5, variance, hinge=hinge)
    assert single.dtype == torch.float32
    from_single = brute_force(given_problem[0].float(), *given_problem[1:], 1.5, variance, hinge=hinge)
    assert torch.allclose(single.double(), from_single, rtol=1e-6, atol=1e-6), "float32 features lose nothing inside"


def test_assigned_centres_are_the_own_ones():
    features, labels, centers, center_labels = problem()
    assigned = 2 * labels + 1
    found = magnet.magnet_loss(features, labels, centers, center_labels, 1.0, assigned=assigned)
    assert torch.allclose(found, brute_force(features, labels, centers, center_labels, 1.0, assigned=assigned.tolist()))


def test_a_hand_example():
    """Own centre at distance 1, the only rival at 3, variance 1: 2 + 1/2 - 9/2 = -2, and cut off 0."""
    call = torch.zeros(1, 1), torch.tensor([0]), torch.tensor([[1.0], [3.0]]), torch.tensor([0, 1]), 2.0, 1.0
    assert magnet.magnet_loss(*call, hinge=False).tolist() == [-2.0]
    assert magnet.magnet_loss(*call).tolist() == [0.0]


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("distance", [1.0, 1e3])
def test_gradients(distance, detach):
    features, labels, centers, center_labels = problem(distance, n=6)
    leaves = features.requires_grad_(), centers.requires_grad_()
    fixed = None if not detach else float(distance**2)

    def loss(f, c):
        return magnet.magnet_loss(f, labels, c, center_labels, 0.5, fixed, hinge=False)

    assert torch.autograd.gradcheck(loss, leaves, eps=1e-6 * distance, rtol=1e-4)
    gradient = torch.autograd.grad(loss(*leaves).sum(), leaves)
    assert all(g.isfinite().all() for g in gradient)


def test_the_detached_variance_has_no_gradient():
    features, labels, centers, center_labels = problem()
    own = (features[:, None] - centers).square().sum(2).masked_fill(labels[:, None] != center_labels, torch.inf).amin(1)
    variance = float(own.sum() / 8)
    features.requires_grad_()
    detached = torch.autograd.grad(magnet.magnet_loss(features, labels, centers, center_labels, 1.0, detach_variance=True).sum(), features)[
        0
    ]
    fixed = torch.autograd.grad(magnet.magnet_loss(features, labels, centers, center_labels, 1.0, variance).sum(), features)[0]
    through = torch.autograd.grad(magnet.magnet_loss(features, labels, centers, center_labels, 1.0).sum(), features)[0]
    assert torch.allclose(detached, fixed) and not torch.allclose(through, fixed)


def test_far_beyond_the_underflow_of_the_kernel():
    """At distance 1e3 every kernel is exactly zero in float64; the value and the pull towards the centre are not."""
    feature = torch.tensor([[1e3, 0.0]], dtype=torch.float64, requires_grad=True)
    centers, kinds = torch.tensor([[0.0, 0.0], [0.0, 10.0]], dtype=torch.float64), torch.tensor([0, 1])
    value = magnet.magnet_loss(feature, torch.tensor([0]), centers, kinds, 60.0, 1.0)
    assert value.item() == pytest.approx(60 - 50)
    assert torch.autograd.grad(value.sum(), feature)[0].tolist() == [[0.0, 10.0]]


@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 100), st.integers(0, 10**6))
def test_the_loss_with_its_own_variance_does_not_see_the_scale(scale, seed):
    features, labels, centers, center_labels = problem(seed=seed)
    first = magnet.magnet_loss(features, labels, centers, center_labels, 1.0)
    assert torch.allclose(magnet.magnet_loss(scale * features, labels, scale * centers, center_labels, 1.0), first, rtol=1e-9, atol=1e-9)


def test_images_do_not_depend_on_each_other_once_the_variance_is_given():
    features, labels, centers, center_labels = problem()
    whole = magnet.magnet_loss(features, labels, centers, center_labels, 1.0, 2.0)
    order = torch.tensor([4, 0, 7])
    found = magnet.magnet_loss(features[order], labels[order], centers, center_labels, 1.0, 2.0)
    assert torch.allclose(found, whole[order], rtol=1e-14)  # a matrix product of fewer rows may round its last digit otherwise


def test_equation_3_is_a_case_of_equation_2():
    features, labels, centers, center_labels = problem()
    v, alpha = 0.8, 2.0
    general = magnet.clustering_loss(
        features, labels, centers, center_labels,
        own=lambda d2, mask: d2.masked_fill(~mask, torch.inf).amin(1) / (2 * v),
        others=lambda d2, mask: torch.where(mask, (-d2 / (2 * v)).exp(), 0.0).sum(1).log(),
        together=lambda pull, push: (alpha + pull + push).clamp(min=0),
    )  # fmt: skip
    assert torch.allclose(general, magnet.magnet_loss(features, labels, centers, center_labels, alpha, v))


def test_segment_means():
    features = normal(7, 3).requires_grad_()
    index = torch.tensor([2, 0, 1, 2, 2, 0, 1])
    found = magnet.segment_means(features, index, 3)
    assert torch.allclose(found, torch.stack([features[index == i].mean(0) for i in range(3)]))
    assert torch.autograd.gradcheck(lambda f: magnet.segment_means(f, index, 3), (features,))


# --- neighbourhoods ---------------------------------------------------------------------------------------------------


def clustered(classes=4, k=2, n=200, seed=0):
    labels = torch.arange(n) % classes
    return clustering.class_clusters(normal(n, 6, seed=seed) + labels[:, None], labels, classes, k), labels


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), m=st.integers(1, 7), d=st.integers(1, 40), known=st.booleans())
def test_a_neighbourhood_is_what_its_definition_says(seed, m, d, known):
    clusters, labels = clustered()
    around = magnet.neighbourhoods(clusters)
    losses = torch.rand(200, generator=generator(seed)) if known else torch.full((200,), math.nan)
    batch = magnet.sample(around, losses, m=m, d=d, generator=generator(seed))
    flat = clusters.centers.flatten(0, 1)
    seed_cluster, impostors = int(batch.clusters[0]), batch.clusters[1:].tolist()
    ranked = sorted((i for i in range(8) if i // 2 != seed_cluster // 2), key=lambda i: float((flat[i] - flat[seed_cluster]).norm()))
    assert impostors == ranked[: m - 1]
    assert batch.cluster.tolist() == [i for i in range(m) for _ in range(d)]
    assert torch.equal(clusters.index[batch.images], batch.clusters[batch.cluster])
    assert torch.equal(around.labels[batch.clusters[batch.cluster]], labels[batch.images])
    for i in range(m):
        drawn = batch.images[batch.cluster == i]
        size = int((clusters.index == batch.clusters[i]).sum())
        assert len(drawn.unique()) == d if size >= d else len(drawn) == d


def test_members_are_sorted_by_cluster():
    clusters, _ = clustered()
    around = magnet.neighbourhoods(clusters)
    for i in range(8):
        assert set(around.members[around.starts[i] : around.starts[i + 1]].tolist()) == set(
            torch.nonzero(clusters.index == i)[:, 0].tolist()
        )


def test_the_seed_follows_the_mean_loss():
    clusters, _ = clustered(2, 2, 80)
    around = magnet.neighbourhoods(clusters)
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0])[clusters.index]
    draws = generator()
    seeds = torch.stack([magnet.sample(around, losses, m=1, d=1, generator=draws).clusters[0] for _ in range(1500)])
    assert torch.allclose(seeds.bincount(minlength=4) / 1500, torch.tensor([0.1, 0.2, 0.3, 0.4]), atol=0.05)


def test_without_a_generator_the_draws_are_the_same_and_the_global_ones_are_left_alone():
    around = magnet.neighbourhoods(clustered()[0])
    before = torch.random.get_rng_state()
    first, second = (magnet.sample(around, torch.rand(200, generator=generator()), m=5, d=7) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.images, second.images) and torch.equal(first.clusters, second.clusters)


def test_unknown_losses_count_as_the_largest_and_zero_losses_as_alike():
    clusters, _ = clustered(2, 2, 80)
    around = magnet.neighbourhoods(clusters)
    partly = torch.where(clusters.index == 0, 1.0, torch.where(clusters.index == 1, 3.0, math.nan))
    for losses, shares in ((partly, [0.1, 0.3, 0.3, 0.3]), (torch.zeros(80), [0.25] * 4), (torch.full((80,), math.nan), [0.25] * 4)):
        draws = generator()
        seeds = torch.stack([magnet.sample(around, losses, m=1, d=1, generator=draws).clusters[0] for _ in range(1500)])
        assert torch.allclose(seeds.bincount(minlength=4) / 1500, torch.tensor(shares), atol=0.05)


# --- what is refused --------------------------------------------------------------------------------------------------

TWO = torch.zeros(2, 1), torch.tensor([0, 1]), torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: magnet.magnet_loss(*TWO, 1.0, 0.0), "variance must be a positive number; 0.0"),
        (lambda: magnet.magnet_loss(*TWO, 1.0, math.nan), "variance must be a positive number"),
        (lambda: magnet.magnet_loss(torch.tensor([[0.0], [1.0]]), *TWO[1:], 1.0), "variance is zero"),
        (lambda: magnet.magnet_loss(TWO[0][:1], TWO[1][:1], *TWO[2:], 1.0), "at least two images; 1"),
        (lambda: magnet.magnet_loss(*TWO, math.inf), "alpha must be a finite number"),
        (lambda: magnet.magnet_loss(TWO[0], torch.tensor([0, 2]), *TWO[2:], 1.0, 1.0), r"images of \[0, 2\]"),
        (lambda: magnet.magnet_loss(*TWO[:3], torch.tensor([0, 0]), 1.0, 1.0), "a centre of its class and one of another"),
        (lambda: magnet.magnet_loss(*TWO[:3], torch.tensor([0]), 1.0, 1.0), r"center_labels must be int64 of shape \(2,\)"),
        (lambda: magnet.magnet_loss(*TWO, 1.0, 1.0, assigned=torch.tensor([1, 0])), "another class for 2 of 2"),
        (lambda: magnet.magnet_loss(*TWO, 1.0, 1.0, assigned=torch.tensor([0, 2])), r"assigned must be in 0 .. 1; 0 .. 2"),
        (lambda: magnet.magnet_loss(torch.full((2, 1), math.nan), *TWO[1:], 1.0, 1.0), "must not contain NaN"),
        (lambda: magnet.segment_means(torch.zeros(2, 1), torch.tensor([0, 2]), 3), "each of the segments"),
        (lambda: magnet.segment_means(torch.zeros(2, 1), torch.tensor([0, 3]), 3), r"index must be in 0 .. 2; 0 .. 3"),
        (lambda: magnet.sample(magnet.neighbourhoods(clustered()[0]), torch.zeros(200), m=8), "7 impostors, but the other classes have 6"),
        (lambda: magnet.sample(magnet.neighbourhoods(clustered()[0]), torch.zeros(200), m=2, d=0), "d must be a whole number"),
        (lambda: magnet.sample(magnet.neighbourhoods(clustered()[0]), torch.zeros(3)), r"losses must be floating point of shape \(200,\)"),
        (
            lambda: magnet.sample(magnet.neighbourhoods(clustered()[0]), torch.full((200,), -1.0), m=2),
            "must not be negative; the least is -1",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
