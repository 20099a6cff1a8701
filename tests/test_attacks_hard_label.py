"""The attack by decisions alone: closed forms, bounds, counts, and HopSkipJump beside it."""

import itertools

import foolbox
import pytest
import torch
from attack_nets import Counted, classes_of, convolutional, digits, held_out, linear, looked, margin_now, pictures, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from support.attacks import interval, margin, rays


def nearest_error(model, x, y):
    """The least radius at which a linear two-class model can err inside the box: by bisection over its own worst corner."""
    weight = model[1].weight.detach().double()
    down = (weight[1 - y] - weight[y]).sign().view_as(x)
    low, high = torch.zeros(len(x)), torch.ones(len(x))
    for _ in range(40):
        mid = (low + high) / 2
        corner = (x.double() + mid.view(-1, 1, 1, 1) * down).clamp(0, 1)
        errs = margin(model.double()(corner).detach(), y) < 0
        low, high = torch.where(errs, low, mid), torch.where(errs, mid, high)
    model.float()
    return high


def test_it_finds_the_nearest_error_of_a_linear_model():
    model, x = linear((1, 6, 6), 2, seed=3), 0.3 + 0.4 * pictures(12, (1, 6, 6), seed=1)
    y = classes_of(model, x)
    radius = nearest_error(model, x, y).float()
    assert radius.max() < 0.9
    assert bool(rays(model, x, y, (1.05 * radius + 2e-3).clamp_max(1), queries=3000).success.all())
    assert not bool(rays(model, x, y, 0.99 * radius, queries=3000).success.any())


@pytest.mark.filterwarnings("ignore:all scores lie")
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(1, 60), st.sampled_from([torch.float32, torch.float64]))
def test_bounds_verdicts_and_counts_hold_for_any_input(seed, eps, queries, dtype):
    model, x = convolutional(1, 4, 3, seed=seed % 5).to(dtype), pictures(5, (1, 4, 4), seed=seed, dtype=dtype)
    y = torch.randint(3, (5,), generator=torch.Generator().manual_seed(seed))
    found = rays(model, x, y, eps, queries=queries)
    low, high = interval(x, eps)
    assert bool(((found.x_adv >= low) & (found.x_adv <= high)).all())
    assert found.x_adv.dtype == dtype
    assert torch.equal(found.success, found.margin < 0)
    assert torch.allclose(found.margin, margin_now(model, found.x_adv, y), atol=1e-5)
    assert bool((found.queries <= queries + 2).all()) and bool((found.queries >= 2).all())
    wrong = margin_now(model, x, y) < 0
    assert torch.equal(found.x_adv[wrong], x[wrong])


def test_more_queries_and_larger_balls_lose_no_success():
    x, y = held_out(40)
    broken = [rays(trained(), x, y, 0.15, queries=queries).success for queries in (50, 200, 800)]
    assert all(bool((more | ~fewer).all()) for fewer, more in itertools.pairwise(broken))
    wider = rays(trained(), x, y, 0.25, queries=200).success
    assert bool((wider | ~broken[1]).all())
    assert broken[0].sum() < broken[2].sum()


def test_queries_are_the_rows_that_the_model_sees():
    counted = Counted(linear((1, 6, 6), 2))
    x, y = pictures(16, (1, 6, 6)), torch.zeros(16, dtype=torch.int64)
    counted.model[1].bias.data[0] += 100
    found = rays(counted, x, y, 0.1, queries=70)
    assert not bool(found.success.any())
    assert int(found.queries.sum()) == counted.images - looked(16) == 16 * 72


def test_decided_images_leave_the_batch():
    counted = Counted(trained())
    x, y = held_out(64)
    found = rays(counted, x, y, 0.4, queries=400)
    assert bool(found.success.all())
    assert counted.images < 64 * 200


class Quantised(nn.Module):
    """The trained network behind eight grey levels: no gradient anywhere."""

    def forward(self, x):
        return trained()((8 * x).round() / 8 + 0 * x)


def test_missing_gradients_do_not_stop_it():
    x, y = held_out(40)
    assert rays(Quantised().eval(), x, y, 0.2, queries=300).success.double().mean() > 0.5


def test_it_goes_further_than_hopskipjump_with_as_many_decisions():
    x, y = digits()
    model, x, y = trained(), x[1300:1330], y[1300:1330]
    right = margin_now(model, x, y) > 0
    x, y = x[right], y[right]
    counted = Counted(model).eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attack = foolbox.attacks.HopSkipJumpAttack(steps=13, initial_gradient_eval_steps=25, constraint="linf")
        found = attack.run(foolbox.PyTorchModel(counted, bounds=(0, 1)), x, foolbox.criteria.Misclassification(y))
    queries = counted.images // len(x)
    distance = (found - x).abs().flatten(1).amax(1)
    assert 700 < queries < 1600
    eps = float(distance.median())
    assert rays(model, x, y, eps, queries=queries).success.double().mean() > 0.7
