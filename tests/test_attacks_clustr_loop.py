"""The published evaluation loop of ClusTR: step by step as it was written, and what it drops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from support import attacks, data, models, training
from support.attacks import clustr_loop
from support.models import heads
from support.training import clustr


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train"), data.load("digits", "test")


@pytest.fixture(scope="module")
def nominal(digits):
    return training.fit(models.mlp((1, 8, 8), (32, 16), 10, seed=0), digits[0].x, digits[0].y).model


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

    def kernels(model, at, nearest):
        if scores == "kernel":
            return clustr_loop.kernel_scores(model, at, nearest)
        return heads.cluster_log_prob(model.features(at), model.head.centers, model.head.variance, nearest)

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
        ({"scores": "probability"}, "unknown scores 'probability': choose one of kernel, log"),
        ({"merge": "margin"}, "unknown merge 'margin': choose one of loss, success"),
        ({"nearest": 21}, "nearest must be a whole number from 1 to 20; 21"),
        ({"nearest": 0}, "nearest must be a whole number from 1 to 20; 0"),
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
