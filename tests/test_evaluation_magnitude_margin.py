"""The magnitude-margin ratio: closed forms, a loop over images, the contract of the kernels."""

import pytest
import torch
from attack_nets import Bomb, Counted, classes_of, held_out, linear, looked, margin_now, pictures, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from support import attacks, models
from support.evaluation import magnitude_margin_ratio
from support.models import heads


def by_a_loop(model, x, y, *, norm="mean", scores=None):
    """Equation 17 one image at a time: two gradients, their difference, its size."""
    ratios = []
    for image, label in zip(x, y.tolist(), strict=True):
        leaf = image[None].clone().requires_grad_()
        z = (model(leaf) if scores is None else scores(model, leaf))[0]
        others = [k for k in range(len(z)) if k != label]
        rival = max(others, key=lambda k: float(z[k].detach()))
        own, other = (torch.autograd.grad(z[k], leaf, retain_graph=True)[0] for k in (label, rival))
        size = (own - other).abs().mean() if norm == "mean" else (own - other).norm()
        distance = (z[label] - z[rival]).detach()
        ratios.append(size / distance if distance > 0 else torch.tensor(torch.nan))
    return torch.stack(ratios).to(x.dtype)


@pytest.mark.parametrize("norm", ["mean", "l2"])
def test_the_ratio_of_a_linear_model_is_its_closed_form(norm):
    model, x = linear((3, 4, 4), 5, dtype=torch.float64), pictures(50, (3, 4, 4), dtype=torch.float64)
    y = classes_of(model, x)
    weight, z = model[1].weight.detach(), model(x).detach()
    rival = z.scatter(1, y[:, None], -torch.inf).argmax(1)
    difference = weight[y] - weight[rival]
    size = difference.abs().mean(1) if norm == "mean" else difference.norm(dim=1)
    expected = size / (z.gather(1, y[:, None]) - z.gather(1, rival[:, None]))[:, 0]
    found = magnitude_margin_ratio(model, x, y, norm=norm)
    assert found.dtype == torch.float64 and torch.allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("norm", ["mean", "l2"])
def test_the_ratio_is_that_of_a_loop_over_the_images(norm):
    x, y = held_out(90)
    found = magnitude_margin_ratio(trained(), x, y, norm=norm)
    assert found.dtype == torch.float32 and found.shape == (90,)
    assert torch.allclose(found, by_a_loop(trained(), x, y, norm=norm), rtol=1e-4, equal_nan=True)
    assert torch.equal(found.isnan(), margin_now(trained(), x, y) <= 0) and 0 < int(found.isnan().sum()) < 20


def test_the_ratio_says_at_which_step_a_linear_margin_vanishes():
    """eps n R = 1 for the mean, 1 / R the Euclidean distance for l2: an attack of that size, and no smaller, reaches the boundary."""
    model, x = linear((1, 4, 4), 2, dtype=torch.float64), 0.5 + 0 * pictures(4, (1, 4, 4), dtype=torch.float64)
    with torch.no_grad():
        model[1].bias += torch.tensor([0.3, 0.0])  # keeps the needed step inside the box
    y = classes_of(model, x)
    eps = 1 / (16 * magnitude_margin_ratio(model, x, y))
    assert bool((eps < 0.5).all())
    assert bool(attacks.fgsm(model, x, y, 1.001 * eps).success.all()) and not bool(attacks.fgsm(model, x, y, 0.999 * eps).success.any())
    weight = model[1].weight.detach()
    away = 1 / magnitude_margin_ratio(model, x, y, norm="l2")
    assert torch.allclose(away, margin_now(model, x, y) / (weight[0] - weight[1]).norm(), rtol=1e-12)


@pytest.mark.parametrize("factor", [1e-3, 1e4])
def test_the_ratio_does_not_depend_on_the_unit_of_the_scores(factor):
    x, y = held_out(40)
    found = magnitude_margin_ratio(trained(), x, y)
    scaled = magnitude_margin_ratio(trained(), x, y, scores=lambda model, x: factor * model(x) + 3)
    assert torch.allclose(found, scaled, rtol=1e-3, equal_nan=True)


def test_softrmax_is_judged_by_its_logits_and_not_by_its_logarithms():
    def logits(model, x):
        return model.head.logits(model.features(x))

    x, body = held_out(60)[0], models.mlp((1, 8, 8), (32,), 10, seed=3).body
    model = models.Classifier(body, heads.SoftRmaxHead(torch.randn(10, 32) / 8, torch.eye(10)[3])).eval()
    y = torch.full((60,), 3)  # whose centre z is near, as after training
    found, other = magnitude_margin_ratio(model, x, y, scores=logits), magnitude_margin_ratio(model, x, y)
    assert torch.allclose(found, by_a_loop(model, x, y, scores=logits), rtol=1e-3)
    assert torch.allclose(other, by_a_loop(model, x, y), rtol=1e-3)
    assert ((found - other).abs() > 0.01 * found).double().mean() > 0.9


def test_a_flat_or_tied_margin_is_zero_or_no_number():
    x, y = pictures(3, (1, 2, 2)), torch.tensor([0, 1, 0])
    flat = magnitude_margin_ratio(lambda x: 0 * x.sum((1, 2, 3))[:, None] + torch.tensor([2.0, 1.0]), x, y)
    assert flat[[0, 2]].tolist() == [0, 0] and bool(flat[1].isnan())
    tied = magnitude_margin_ratio(lambda x: x.sum((1, 2, 3))[:, None] * torch.tensor([3.0, 3.0, 1.0]), x, y)
    assert bool(tied.isnan().all())


def test_one_forward_and_one_backward_pass_a_batch():
    backward = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            backward.append(len(gradient))
            return gradient

    (x, y), model = held_out(300), Counted(trained())
    found = magnitude_margin_ratio(lambda x: model(Watched.apply(x)), x, y, batch_size=100)
    assert len(backward) == 3 and sum(backward) == 300
    assert model.passes == 3 + 3 and model.images == 300 + 16 + looked(16)
    assert torch.allclose(found, magnitude_margin_ratio(trained(), x, y), rtol=1e-4, equal_nan=True)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["mean", "l2"]))
def test_order_and_neighbours_do_not_change_a_ratio(seed, norm):
    stream = torch.Generator().manual_seed(seed)
    x, y = held_out(140)
    found, order = magnitude_margin_ratio(trained(), x[:70], y[:70], norm=norm), torch.randperm(70, generator=stream)
    again = magnitude_margin_ratio(trained(), x[:70][order], y[:70][order], norm=norm)
    assert torch.equal(again.nan_to_num(-1), found[order].nan_to_num(-1))
    mine = torch.rand(70, generator=stream) < 0.3
    index = torch.where(mine, torch.arange(70), torch.arange(70) + 70)
    mixed = magnitude_margin_ratio(trained(), x[index], y[index], norm=norm)
    assert torch.equal(mixed[mine].nan_to_num(-1), found[mine].nan_to_num(-1))


def test_the_ratio_leaves_model_inputs_and_modes_alone():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).eval()
    model[0].train()  # harmless, and not ours to change
    model[4].weight.requires_grad_(False)
    x = pictures(6, (1, 4, 4)).requires_grad_()
    y, before, noise = classes_of(model, x), x.detach().clone(), torch.get_rng_state()
    modes, state = [part.training for part in model.modules()], {name: value.clone() for name, value in model.state_dict().items()}
    ratios = []
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            ratios.append(magnitude_margin_ratio(model, x, y))
        assert not ratios[-1].is_inference() and not ratios[-1].requires_grad
    assert torch.equal(ratios[0], ratios[1]) and torch.equal(ratios[0], ratios[2])
    assert torch.equal(x, before) and x.grad is None and x.requires_grad and all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == [True, True, True, True, False, True]
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items()) and torch.equal(torch.get_rng_state(), noise)


X, Y = pictures(4, (1, 4, 4)), torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": X * 255}, r"\[0,1\]"),
        ({"x": torch.full_like(X, torch.nan)}, "NaN"),
        ({"x": X.half()}, "float16"),
        ({"y": Y.int()}, "int32"),
        ({"y": Y - 1}, "-1 was given"),
        ({"model": "resnet"}, "callable"),
        ({"batch_size": 0}, "batch_size"),
        ({"norm": "max"}, "unknown norm 'max': choose one of mean, l2"),
        ({"scores": "logits"}, "scores must be None or a callable.*str was given"),
    ],
)
def test_what_the_ratio_cannot_take_is_refused_before_the_model_is_called(change, message):
    options = {"model": Bomb(), "x": X, "y": Y, **change}
    with pytest.raises(ValueError, match=message):
        magnitude_margin_ratio(options.pop("model"), options.pop("x"), options.pop("y"), **options)


def test_what_only_the_scores_tell_is_refused_by_the_ratio():
    net = linear((1, 4, 4), 3)
    cases = {
        r"y must be in 0 \.\. 1; 0 \.\. 2": lambda x: net(x)[:, :2],
        "probabilities": lambda x: net(x).softmax(1),
        "NaN scores for 4 of 4": lambda x: net(x) * torch.nan,
        r"\(4, K\).*torch.float32 \(4, 1\)": lambda x: net(x)[:, :1],
        "returned tuple": lambda x: (net(x), x),
        "torch.bfloat16": lambda x: net(x).bfloat16(),
        "differentiably": lambda x: net(x.detach()),
    }
    for message, model in cases.items():
        with pytest.raises(ValueError, match=message):
            magnitude_margin_ratio(model, X, Y)
