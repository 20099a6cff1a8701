"""QTRADES against its formula, Magnet fine-tuning, and the published evaluation loop with what it drops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from support import attacks, data, models, training
from support.attacks import clustr_loop
from support.models import heads
from support.training import clustr, magnet


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
    found = clustr.quick_adversary(scores, x, eps, step, generator=generator(5))
    noise = torch.rand(x.shape, generator=generator(5), dtype=x.dtype)
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
    found = clustr.quick_adversary(lambda x: x.flatten(1)[:, :4], x, eps, step, generator=generator(seed))
    assert ((found.double() - x.double()).abs() <= eps).all() and found.min() >= 0 and found.max() <= 1
    if eps == 0:
        assert torch.equal(found, x)


def test_the_training_loss_is_cross_entropy_plus_the_weighted_term(nominal, digits):
    x, y = digits[0].x[:8], digits[0].y[:8]
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(3)
        found = clustr.qtrades_loss(nominal, x, y, eps=0.1, step_size=0.125, weight=2.0)
        torch.random.default_generator.manual_seed(3)
        adversary = clustr.quick_adversary(nominal, x, 0.1, 0.125)
    expected = torch.nn.functional.cross_entropy(nominal(x), y, reduction="none") + 2 * clustr.soft_cross_entropy(
        nominal(adversary), nominal(x)
    )
    assert torch.allclose(found, expected, rtol=1e-5)


def test_modes_are_put_back():
    model = models.small_cnn((1, 8, 8), 3, width=2)
    model.train()
    model.body[2].eval()
    before = {name: part.training for name, part in model.named_modules()}
    clustr._evaluating(model, clustr._scores)(torch.rand(4, 1, 8, 8))
    assert before == {name: part.training for name, part in model.named_modules()}


@pytest.mark.parametrize(("eps", "step"), [(-0.1, 0.1), (0.1, math.nan), (math.inf, 0.1)])
def test_impossible_steps_are_refused(eps, step):
    with pytest.raises(ValueError, match="must be a number of at least 0"):
        clustr.quick_adversary(lambda x: x, torch.zeros(1, 2), eps, step)


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


def test_fine_tuning_refuses_what_its_kernels_refuse(nominal, digits):
    train, _ = digits
    few = train.take(40, seed=0)
    with pytest.raises(ValueError, match="5 clusters per class need 5 images"):
        clustr.fine_tune(nominal, few.x, few.y, 10, clusters=5, epochs=1)
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        clustr.fine_tune(nominal, few.x, few.y, 10, epochs=0)
    with pytest.raises(ValueError, match="impostors"):
        clustr.fine_tune(models.with_head(nominal, nominal.head, copy=True), few.x, few.y, 10, sampled=40, epochs=1)


# --- the published loop -----------------------------------------------------------------------------------------------


def published(losses, success, merge):
    """The merge written out restart by restart."""
    kept, best = 0, -math.inf
    for r, (loss, won) in enumerate(zip(losses, success, strict=True)):
        rank = (bool(won) if merge == "success" else False, float(loss))
        if r == 0 or rank >= best:
            kept, best = r, rank
    return kept


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.booleans()), min_size=1, max_size=6), st.sampled_from(["loss", "success"])
)
def test_the_merge_is_the_one_written_out(restarts, merge):
    losses, success = (torch.tensor(column)[:, None] for column in zip(*restarts, strict=True))
    assert clustr_loop.kept_restart(losses, success, merge).tolist() == [published(losses[:, 0], success[:, 0], merge)]


def test_merging_by_loss_can_drop_a_success():
    """Ten classes. A restart that wins near two centres (0.5 against 0.4) has less loss than one that fails far out (0.05 against 0)."""
    scores = torch.zeros(2, 10)
    scores[0, :2], scores[1, :2] = torch.tensor([0.4, 0.5]), torch.tensor([0.05, 0.0])
    y = torch.tensor([0, 0])
    losses = torch.nn.functional.cross_entropy(scores, y, reduction="none")
    success = scores.argmax(1) != y
    assert success.tolist() == [True, False] and losses[1] > losses[0]
    assert clustr_loop.kept_restart(losses[:, None], success[:, None], "loss").tolist() == [1]
    assert clustr_loop.kept_restart(losses[:, None], success[:, None], "success").tolist() == [0]


class Plane(nn.Module):
    """The pixels themselves as features: two classes in the plane, where the loop's whole path can be followed."""

    def features(self, x):
        return 4 * x.flatten(1)

    def __init__(self, centers, variance):
        super().__init__()
        self.head = heads.ClusterHead(centers, variance)

    def forward(self, x):
        return self.head(self.features(x))


def test_the_whole_loop_drops_a_success_that_its_own_restarts_found():
    model = Plane(4 * torch.tensor([[[0.2, 0.5]], [[0.6, 0.5]]]), 0.05)
    x = torch.rand(300, 1, 1, 2, generator=generator())
    x = x[model(x).argmax(1) == 0]
    y = torch.zeros(len(x), dtype=torch.int64)
    by_loss, by_success = (
        attacks.clustr_pgd(model, x, y, 0.3, steps=5, step_size=0.1, restarts=8, merge=merge) for merge in ("loss", "success")
    )
    assert not (by_loss.success & ~by_success.success).any()
    assert (by_success.success & ~by_loss.success).any()


@pytest.mark.parametrize("scores", ["kernel", "log"])
@pytest.mark.parametrize("nearest", [None, 3])
def test_the_loop_is_the_published_one_step_by_step(nominal, digits, scores, nearest):
    """Against the loop written out: whole batch, broken images frozen, each restart judged at its end, the larger loss kept."""
    train, test = digits
    model = clustr.cluster_classifier(nominal, train.x, train.y, 10).double()
    x, y, eps, step, stream = test.x[:20].double(), test.y[:20], 0.15, 0.04, generator(7)
    kept, largest = x.clone(), torch.full((20,), -math.inf, dtype=torch.float64)
    kernels = {"kernel": clustr_loop.kernel_scores, "log": clustr_loop._log_scores}[scores]
    for _ in range(3):
        at = (x + eps * (2 * torch.rand(x.shape[1:], generator=stream, dtype=x.dtype) - 1)).clamp(0, 1)
        for _ in range(6):
            at.requires_grad_()
            seen = kernels(model, at, nearest)
            slope = torch.autograd.grad(torch.nn.functional.cross_entropy(seen, y), at)[0]
            moved = torch.maximum(torch.minimum(at.detach() + step * slope.sign(), x + eps), x - eps).clamp(0, 1)
            at = torch.where((seen.argmax(1) == y)[:, None, None, None], moved, at.detach())
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(kernels(model, at, nearest), y, reduction="none")
        better = loss >= largest
        kept[better], largest[better] = at[better], loss[better]
    found = attacks.clustr_pgd(
        model, x, y, eps, steps=6, step_size=step, restarts=3, scores=scores, nearest=nearest, generator=generator(7)
    )
    assert torch.allclose(found.x_adv, kept, rtol=0, atol=1e-9)
    assert torch.equal(found.success, model(kept).argmax(1) != y)
    assert ((found.x_adv - x).abs() <= eps).all()


def test_the_kernel_scores_are_the_numerator_of_equation_4(nominal, digits):
    model = clustr.cluster_classifier(nominal, digits[0].x, digits[0].y, 10)
    x = digits[1].x[:30]
    kernel = clustr_loop.kernel_scores(model, x)
    assert torch.allclose((kernel / kernel.sum(1, keepdim=True)).double(), model(x).exp().double(), atol=1e-5)
    assert torch.equal(
        clustr_loop.kernel_scores(model, x, 1).argmax(1),
        heads.squared_distances(model.features(x), model.head.centers.flatten(0, 1)).argmin(1) // 2,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": "probability"}, "scores must be one of kernel, log; 'probability'"),
        ({"merge": "margin"}, "merge must be one of loss, success"),
        ({"nearest": 21}, "between 1 and the number of clusters, 20; 21"),
        ({"nearest": 0}, "between 1 and the number of clusters, 20; 0"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"restarts": 0}, "restarts must be a whole number"),
        ({"step_size": 0.0}, "step_size must be finite and positive"),
        ({"eps": -1.0}, "eps must be finite"),
    ],
)
def test_what_the_loop_cannot_run_is_refused(nominal, digits, change, message):
    model = clustr.cluster_classifier(nominal, digits[0].x, digits[0].y, 10)
    with pytest.raises(ValueError, match=message):
        attacks.clustr_pgd(model, digits[1].x[:2], digits[1].y[:2], **{"eps": 0.1, **change})
    with pytest.raises(ValueError, match="needs a model with a ClusterHead; the head given is LinearHead"):
        attacks.clustr_pgd(nominal, digits[1].x[:2], digits[1].y[:2], 0.1)


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
