"""QTRADES against its formula, and Magnet fine-tuning."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support import attacks, data, models, training
from support.clustering import class_clusters
from support.models import heads
from support.training import clustr, fitting, magnet


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=generator(seed))


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train"), data.load("digits", "test")


@pytest.fixture(scope="module")
def nominal(digits):
    return training.fit(models.mlp((1, 8, 8), (32, 16), 10, seed=0), digits[0].x, digits[0].y, epochs=20, lr=0.1).model


# --- QTRADES ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.floats(0.1, 50), st.integers(0, 10**6))
def test_the_soft_cross_entropy_is_the_divergence_plus_the_entropy(classes, scale, seed):
    scores, target = scale * normal(5, classes, seed=seed), scale * normal(5, classes, seed=seed + 1)
    p, t = scores.log_softmax(1), target.log_softmax(1)
    divergence = torch.nn.functional.kl_div(p, t, log_target=True, reduction="none").sum(1)
    entropy = torch.special.entr(t.exp()).sum(1)
    assert torch.allclose(clustr.soft_cross_entropy(scores, target), divergence + entropy, rtol=1e-9, atol=1e-9)
    own = clustr.soft_cross_entropy(target, target)
    assert torch.allclose(own, entropy, rtol=1e-9, atol=1e-9), "a prediction's cross-entropy with itself is its entropy"


def test_a_class_that_cannot_win_counts_as_zero():
    impossible = torch.tensor([[0.0, -math.inf, -1.0]], requires_grad=True)
    value = clustr.soft_cross_entropy(impossible, impossible.detach())
    assert value.isfinite().all() and torch.autograd.grad(value.sum(), impossible)[0].isfinite().all()


def test_the_adversary_is_the_papers_formula():
    """Noise, one signed step up the cross-entropy of p(x') with p(x), projection: with derivatives by finite differences."""
    weight = normal(3, 4)

    def scores(x):
        return (x @ weight.T).sin() * 3

    x, eps, step = torch.rand(6, 4, dtype=torch.float64, generator=generator()), 0.1, 0.125
    noise = torch.rand(x.shape, generator=generator(5), dtype=x.dtype)
    found = clustr.quick_adversary(scores, x, scores(x), noise, eps, step)
    start = (x + eps * (2 * noise - 1)).clamp(0, 1)
    p = scores(x).softmax(1)

    def loss(point):
        return -(p * scores(point).log_softmax(1)).sum(1)

    slope = torch.stack([(loss(start + 1e-6 * e) - loss(start - 1e-6 * e)) for e in torch.eye(4, dtype=x.dtype)], 1)
    expected = torch.maximum(torch.minimum(start + step * slope.sign(), x + eps), x - eps).clamp(0, 1)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    assert ((found - x).abs() <= eps).all() and found.min() >= 0 and found.max() <= 1


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.floats(0, 2), st.integers(0, 10**6))
def test_the_adversary_stays_in_the_ball_in_float64(eps, step, seed):
    x = torch.rand(4, 1, 3, 3, generator=generator(seed))
    noise = torch.rand(x.shape, generator=generator(seed + 1))
    found = clustr.quick_adversary(lambda x: x.flatten(1)[:, :4], x, x.flatten(1)[:, 4:8], noise, eps, step)
    assert ((found.double() - x.double()).abs() <= eps).all() and found.min() >= 0 and found.max() <= 1
    if eps == 0:
        assert torch.equal(found, x)


def test_the_training_loss_is_cross_entropy_plus_the_weighted_term(nominal, digits):
    x, y = digits[0].x[:8], digits[0].y[:8]
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(3)
        found = clustr.qtrades_loss(nominal, x, y, eps=0.1, step_size=0.125, weight=2.0)
        torch.random.default_generator.manual_seed(3)
        adversary = clustr.quick_adversary(nominal, x, nominal(x), torch.rand_like(x), 0.1, 0.125)
    expected = torch.nn.functional.cross_entropy(nominal(x), y, reduction="none") + 2 * clustr.soft_cross_entropy(
        nominal(adversary), nominal(x)
    )
    assert torch.allclose(found, expected, rtol=1e-5)


def test_modes_are_put_back():
    model = models.small_cnn((1, 8, 8), 3, width=2)
    model.train()
    model.body[2].eval()
    before = {name: part.training for name, part in model.named_modules()}
    fitting.evaluating(model)(torch.rand(4, 1, 8, 8))
    assert before == {name: part.training for name, part in model.named_modules()}


@pytest.mark.parametrize(("eps", "step"), [(-0.1, 0.1), (0.1, math.nan), (math.inf, 0.1)])
def test_impossible_steps_are_refused(eps, step):
    with pytest.raises(ValueError, match="must be a number of at least 0"):
        clustr.quick_adversary(lambda x: x, *[torch.zeros(1, 2)] * 3, eps, step)


# --- fine-tuning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"weight": 4.0, "eps": 0.1, "step_size": 0.125}, {"weight": 4.0, "eps": 0.1, "step_size": 0.1, "as_published": True}]
)
def test_fine_tuning_lowers_the_loss_and_keeps_the_accuracy(nominal, digits, settings):
    train, test = digits
    start = models.with_head(nominal, nominal.head, copy=True)
    seen = []
    tuned = clustr.fine_tune(
        start, train.x, train.y, 10, epochs=6, lr=2e-3, on_epoch=lambda m, e: seen.append((e, type(m.head))), **settings
    )
    assert tuned.history["loss"][-1] < tuned.history["loss"][0]
    assert seen == [(e, heads.ClusterHead) for e in range(-1, 6)]
    assert float((training.predict(tuned.model, test.x).argmax(1) == test.y).double().mean()) > 0.85
    assert tuned.model.head.centers.shape == (10, 2, 16) and not any(part.training for part in tuned.model.modules())


def test_the_same_seed_gives_the_same_network(digits):
    train, _ = digits
    nets = [
        clustr.fine_tune(models.mlp((1, 8, 8), (12,), 10, seed=1), train.x, train.y, 10, epochs=1, lr=1e-3, seed=4).model for _ in range(2)
    ]
    assert models.fingerprint(nets[0]) == models.fingerprint(nets[1])


def test_the_clusters_variance_is_equation_3s(nominal, digits):
    train, _ = digits
    model = clustr.cluster_classifier(nominal, train.x, train.y, 10, clusters=3)
    f, centers = training.extract(nominal, train.x), model.head.centers
    own = (f[:, None] - centers[train.y]).double().square().sum(2).amin(1)
    assert model.head.variance == pytest.approx(float(own.sum()) / (len(f) - 1), rel=1e-3)  # k-means may stop just short of the nearest


@pytest.mark.parametrize("as_published", [False, True])
def test_a_step_is_the_published_one(digits, as_published):
    """One epoch of one step, written out: each image keeps the centre of the cluster that it was sampled for, and with ``as_published``
    the kernel sums pass for the adversary's logits."""
    train = digits[0].take(200)
    start = models.mlp((1, 8, 8), (12,), 10, seed=3)
    reference = models.with_head(start, start.head, copy=True)
    quick = {"weight": 3.0, "eps": 0.1, "step_size": 0.125, "as_published": as_published}
    tuned = clustr.fine_tune(start, train.x, train.y, 10, epochs=1, lr=1e-2, sampled=10, images=20, seed=5, **quick)
    stream = generator(5)
    found = class_clusters(training.extract(reference, train.x), train.y, 10, 2, generator=stream)
    head = heads.ClusterHead(found.centers, float(found.inertia.sum()) / 199)
    around = magnet.neighbourhoods(found)
    batch = magnet.sample(around, torch.full((200,), math.nan), m=10, d=20, generator=stream)
    x, y = train.x[batch.images], train.y[batch.images]
    f = reference.features(x)
    centers, kinds = magnet.segment_means(f, batch.cluster, 10), around.labels[batch.clusters]
    each = magnet.magnet_loss(f, y, centers, kinds, 12.5, assigned=batch.cluster)
    nearest = magnet.magnet_loss(f, y, centers, kinds, 12.5)
    assert not torch.allclose(each, nearest), "with the nearest centre for the own one the step would be another"
    clean, noise = head(f), torch.rand(x.shape, generator=stream)
    whole = models.with_head(reference, head)
    reading = partial(attacks.kernel_scores, whole) if as_published else whole
    adversary = clustr.quick_adversary(reading, x, clean, noise, 0.1, 0.125)
    loss = each.mean() + 3.0 * clustr.soft_cross_entropy(reading(adversary), clean).mean()
    optimizer = torch.optim.Adam(reference.body.parameters(), lr=1e-2)
    loss.backward()
    optimizer.step()
    assert tuned.history["loss"] == [pytest.approx(float(loss.detach()), rel=1e-5)] and tuned.seconds > 0
    for ours, theirs in zip(tuned.model.body.parameters(), reference.body.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_the_next_seeds_follow_the_losses(digits, monkeypatch):
    """What a step found of its images, the next step's draw is told; of the others nothing."""
    told, sample = [], magnet.sample
    monkeypatch.setattr(magnet, "sample", lambda around, losses, **more: told.append(losses.clone()) or sample(around, losses, **more))
    train = digits[0].take(300)
    clustr.fine_tune(models.mlp((1, 8, 8), (12,), 10, seed=1), train.x, train.y, 10, epochs=2, sampled=4, images=10)
    assert len(told) == 2 * -(-300 // 40), "an epoch passes one data set's worth of images"
    assert bool(told[0].isnan().all()) and 0 < int(told[1].isfinite().sum()) <= 40
    assert int(told[-1].isfinite().sum()) > int(told[1].isfinite().sum()), "they are remembered from epoch to epoch"


def test_crops_and_flips_are_shown_where_they_are_asked_for(digits):
    train = digits[0].take(200)
    nets = [
        clustr.fine_tune(models.mlp((1, 8, 8), (12,), 10, seed=1), train.x, train.y, 10, epochs=1, augment=augment).model
        for augment in (False, True)
    ]
    assert models.fingerprint(nets[0]) != models.fingerprint(nets[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clusters": 5}, "5 clusters per class need 5 images"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1; 0"),
        ({"lr": 0.0}, "lr must be a positive number; 0.0"),
        ({"sampled": 40}, "impostors"),
    ],
)
def test_fine_tuning_refuses_what_its_kernels_refuse(nominal, digits, change, message):
    few = digits[0].take(40, seed=0)
    start = models.with_head(nominal, nominal.head, copy=True)
    with pytest.raises(ValueError, match=message):
        clustr.fine_tune(start, few.x, few.y, 10, **{"epochs": 1} | change)


def test_divergence_is_said(digits, monkeypatch):
    monkeypatch.setattr(magnet, "magnet_loss", lambda features, *rest, **more: math.nan * features.sum(1))
    few = digits[0].take(100)
    with pytest.raises(FloatingPointError, match=r"the loss of epoch 1 is nan at lr=0\.5; lower it"):
        clustr.fine_tune(models.mlp((1, 8, 8), (12,), 10), few.x, few.y, 10, epochs=5, lr=0.5)


# --- what the loss says of the radius ---------------------------------------------------------------------------------


def test_a_magnet_step_separates_the_toy(digits):
    """Two overlapping classes in the plane: gradient steps on the features alone bring every loss to zero."""
    features, labels = normal(40, 2), torch.arange(40) % 2
    features.requires_grad_()
    optimizer = torch.optim.Adam([features], lr=0.1)
    for _ in range(300):
        centers = magnet.segment_means(features, labels, 2)
        loss = magnet.magnet_loss(features, labels, centers, torch.arange(2), 4.0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) == 0
