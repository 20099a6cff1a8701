"""Lipschitz bounds: exact where they can be, never below what is found by searching, and loud about what they do not know.

The magnitude-margin ratio: closed forms, a loop over images, the contract of the kernels.
"""

import math

import numpy as np
import pytest
import torch
from attack_nets import Counted, classes_of, held_out, linear, margin_now, pictures, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from support import attacks, models
from support.certificates import radius
from support.models import heads


def steepest(module: nn.Module, shape: tuple[int, ...], *, points: int = 20, iterations: int = 30) -> float:
    """Largest spectral norm of the Jacobian found at random points, by power iteration: a lower bound on the constant."""
    generator = torch.Generator().manual_seed(0)
    best = 0.0
    for _ in range(points):
        x = torch.rand(1, *shape, dtype=torch.float64, generator=generator)
        direction = torch.randn(1, *shape, dtype=torch.float64, generator=generator)
        for _ in range(iterations):
            _, pushed = torch.func.jvp(module, (x,), (direction / direction.norm(),))
            _, pull = torch.func.vjp(module, x)
            direction = pull(pushed)[0]
            if not direction.norm() > 0:
                break
            best = max(best, float(pushed.detach().norm()))
    return best


def matrix(module: nn.Module, shape: tuple[int, ...]) -> np.ndarray:
    """The matrix of a linear module without bias, column by column."""
    basis = torch.eye(math.prod(shape), dtype=torch.float64).unflatten(1, shape)
    with torch.no_grad():
        return module(basis).flatten(1).T.numpy()


@pytest.fixture(autouse=True)
def fixed_draws():
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        yield


# torch.func.jvp warns about its own use of torch.jit
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")

# --- chains -----------------------------------------------------------------------------------------------------------


def test_a_linear_layer_is_exact():
    layer = nn.Linear(7, 4).double()
    expected = np.linalg.svd(layer.weight.detach().numpy(), compute_uv=False)[0]
    assert radius.lipschitz_upper_bound(layer) == pytest.approx(expected, rel=1e-12)


def test_a_chain_of_aligned_linear_layers_is_exact():
    u, v, w = (torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0] for _ in range(3))
    first, second = nn.Linear(6, 6, bias=False).double(), nn.Linear(6, 6, bias=False).double()
    scales = torch.arange(6, 0, -1, dtype=torch.float64)
    with torch.no_grad():
        first.weight.copy_(u * scales @ v.T)
        second.weight.copy_(w * scales @ u.T)
    chain = nn.Sequential(first, second)
    assert radius.lipschitz_upper_bound(chain) == pytest.approx(36.0, rel=1e-12)
    assert steepest(chain, (6,)) == pytest.approx(36.0, rel=1e-9)


@pytest.mark.parametrize(
    "module",
    [
        models.mlp((1, 6, 6), (20, 12), 5, seed=1).body,
        models.lenet((1, 16, 16), seed=1).body,
        models.small_cnn((3, 8, 8), 4, seed=1, width=4).body,
        nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.LeakyReLU(-1.5), nn.AvgPool2d(3, 2), nn.Flatten(), nn.Tanh()),
        nn.Sequential(nn.Conv2d(1, 3, 2), nn.Sigmoid(), nn.MaxPool2d(3, 1, padding=1), nn.Identity()),
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4).eval(), nn.Softplus(3.0), nn.Dropout(0.3).eval()),
    ],
    ids=["mlp", "lenet", "small_cnn", "leaky and average", "sigmoid and max", "batch norm"],
)
def test_no_slope_found_exceeds_the_bound(module):
    shape = (3, 8, 8) if any(isinstance(m, nn.Conv2d) and m.in_channels == 3 for m in module) else (1, 16, 16)
    if any(isinstance(m, nn.Linear) and m.in_features == 36 for m in module):
        shape = (1, 6, 6)
    for layer in module:
        if isinstance(layer, nn.BatchNorm2d):  # as trained, not as made
            layer.running_var.uniform_(0.2, 3.0)
            layer.weight.data.uniform_(-2.0, 2.0)
    module = module.double()
    found = steepest(module, shape)
    with_shape, without = radius.lipschitz_upper_bound(module, shape), radius.lipschitz_upper_bound(module)
    assert 0 < found <= with_shape * (1 + 1e-9)
    assert with_shape <= without * (1 + 1e-9)


def test_the_bound_of_a_classifier_is_that_of_its_features():
    model = models.mlp((1, 4, 4), (9,), 3, seed=2, mean=0.5, std=0.25)
    expected = 4 * np.linalg.svd(model.body[2].weight.detach().double().numpy(), compute_uv=False)[0]
    assert radius.lipschitz_upper_bound(model) == pytest.approx(expected, rel=1e-12)


# --- single layers against their matrices -----------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    groups=st.integers(1, 2),
    seed=st.integers(0, 10**6),
)
def test_a_convolution_is_exact_with_a_shape_and_bounded_without(kernel, stride, padding, dilation, channels, groups, seed):
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        layer = nn.Conv2d(groups * channels[0], groups * channels[1], kernel, stride, padding, dilation, groups, bias=False).double()
    shape = (groups * channels[0], 10, 11)
    exact = np.linalg.norm(matrix(layer, shape), 2)
    assert radius.lipschitz_upper_bound(layer, shape) == pytest.approx(exact, rel=1e-9)
    assert exact <= radius.lipschitz_upper_bound(layer) * (1 + 1e-12)


@pytest.mark.parametrize("kernel", [2, 3, 5, 7])
def test_the_convolution_bound_is_tight_on_large_images(kernel):
    layer = nn.Conv2d(2, 3, kernel, bias=False).double()
    exact = np.linalg.norm(matrix(layer, (2, 26, 26)), 2)
    assert exact <= radius.convolution_bound(layer.weight.detach()) <= 1.15 * exact


def test_the_convolution_bound_holds_for_a_frequency_between_grid_points():
    """A kernel whose transform peaks halfway between two frequencies of the grid: the largest sample alone would be too small."""
    peak = 7.5 * 2 * math.pi / 32
    kernel = torch.tensor([1.0, 4 * math.cos(peak), -0.5], dtype=torch.float64)
    frequencies = torch.linspace(0, 2 * math.pi, 32 * 1000 + 1, dtype=torch.float64)
    response = (torch.exp(1j * frequencies[:, None] * torch.arange(3)) @ kernel.to(torch.complex128)).abs()
    supremum, sampled = float(response.max()), float(response[::1000].max())
    assert sampled < 0.999 * supremum
    assert supremum <= radius.convolution_bound(kernel[None, None, None]) <= 1.02 * supremum


@pytest.mark.parametrize(
    "pool",
    [nn.AvgPool2d(2), nn.AvgPool2d(3, 1), nn.AvgPool2d(3, 2), nn.AvgPool2d((2, 3), (1, 2), padding=1), nn.AdaptiveAvgPool2d(1)],
    ids=repr,
)
def test_average_pooling_against_its_matrix(pool):
    exact = np.linalg.norm(matrix(pool, (1, 9, 9)), 2)
    bound = radius.lipschitz_upper_bound(pool, (1, 9, 9))
    assert exact <= bound * (1 + 1e-12)
    if pool.__class__ is nn.AdaptiveAvgPool2d or pool.kernel_size == 2:
        assert bound == pytest.approx(exact, rel=1e-12)


def test_max_pooling_that_overlaps_can_repeat_an_entry():
    spike = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    spike[..., 2, 2] = 1
    pool = nn.MaxPool2d(3, 1)
    assert float(pool(spike).norm()) == 3.0  # nine windows see the one
    assert radius.lipschitz_upper_bound(pool) == 3.0
    assert radius.lipschitz_upper_bound(nn.MaxPool2d(2)) == 1.0


# --- refusals ---------------------------------------------------------------------------------------------------------


class Twice(nn.ReLU):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.GELU()), r"Sequential\.1, a GELU"),
        (nn.Sequential(nn.Dropout(0.5)), "a Dropout in training mode"),
        (nn.BatchNorm2d(3), "a BatchNorm2d in training mode"),
        (nn.BatchNorm2d(3, track_running_stats=False).eval(), "a BatchNorm2d"),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), "a Conv2d"),
        (nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), "an? AvgPool2d"),
        (nn.MaxPool2d(2, dilation=2), "a MaxPool2d"),
        (nn.AdaptiveAvgPool2d(2), "an? AdaptiveAvgPool2d"),
        (Twice(), "a Twice"),
        (models.resnet18(10), r"Classifier\.body\.1, a ResNet"),
    ],
    ids=lambda v: v if isinstance(v, str) else type(v).__name__,
)
def test_what_has_no_known_bound_is_refused_by_name(module, name):
    with pytest.raises(ValueError, match=f"no Lipschitz bound is known here for .*{name}"):
        radius.lipschitz_upper_bound(module)


# --- the magnitude-margin ratio ---------------------------------------------------------------------------------------


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
    found = radius.magnitude_margin_ratio(model, x, y, norm=norm)
    assert found.dtype == torch.float64 and torch.allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("norm", ["mean", "l2"])
def test_the_ratio_is_that_of_a_loop_over_the_images(norm):
    x, y = held_out(90)
    found = radius.magnitude_margin_ratio(trained(), x, y, norm=norm)
    assert found.dtype == torch.float32 and found.shape == (90,)
    assert torch.allclose(found, by_a_loop(trained(), x, y, norm=norm), rtol=1e-4, equal_nan=True)
    assert torch.equal(found.isnan(), margin_now(trained(), x, y) <= 0) and 0 < int(found.isnan().sum()) < 20


def test_the_ratio_says_at_which_step_a_linear_margin_vanishes():
    """eps n R = 1 for the mean, 1 / R the Euclidean distance for l2: an attack of that size, and no smaller, reaches the boundary."""
    model, x = linear((1, 4, 4), 2, dtype=torch.float64), 0.5 + 0 * pictures(4, (1, 4, 4), dtype=torch.float64)
    with torch.no_grad():
        model[1].bias += torch.tensor([0.3, 0.0])  # keeps the needed step inside the box
    y = classes_of(model, x)
    eps = 1 / (16 * radius.magnitude_margin_ratio(model, x, y))
    assert bool((eps < 0.5).all())
    assert bool(attacks.fgsm(model, x, y, 1.001 * eps).success.all()) and not bool(attacks.fgsm(model, x, y, 0.999 * eps).success.any())
    weight = model[1].weight.detach()
    away = 1 / radius.magnitude_margin_ratio(model, x, y, norm="l2")
    assert torch.allclose(away, margin_now(model, x, y) / (weight[0] - weight[1]).norm(), rtol=1e-12)


@pytest.mark.parametrize("factor", [1e-3, 1e4])
def test_the_ratio_does_not_depend_on_the_unit_of_the_scores(factor):
    x, y = held_out(40)
    found = radius.magnitude_margin_ratio(trained(), x, y)
    scaled = radius.magnitude_margin_ratio(trained(), x, y, scores=lambda model, x: factor * model(x) + 3)
    assert torch.allclose(found, scaled, rtol=1e-3, equal_nan=True)


def test_softrmax_is_judged_by_its_logits_and_not_by_its_logarithms():
    def logits(model, x):
        return model.head.logits(model.features(x))

    x, body = held_out(60)[0], models.mlp((1, 8, 8), (32,), 10, seed=3).body
    model = models.Classifier(body, heads.SoftRmaxHead(torch.randn(10, 32) / 8, torch.eye(10)[3])).eval()
    y = torch.full((60,), 3)  # whose centre z is near, as after training
    found, other = radius.magnitude_margin_ratio(model, x, y, scores=logits), radius.magnitude_margin_ratio(model, x, y)
    assert torch.allclose(found, by_a_loop(model, x, y, scores=logits), rtol=1e-3)
    assert torch.allclose(other, by_a_loop(model, x, y), rtol=1e-3)
    assert ((found - other).abs() > 0.01 * found).double().mean() > 0.9


def test_a_flat_or_tied_margin_is_zero_or_no_number():
    x, y = pictures(3, (1, 2, 2)), torch.tensor([0, 1, 0])
    flat = radius.magnitude_margin_ratio(lambda x: 0 * x.sum((1, 2, 3))[:, None] + torch.tensor([2.0, 1.0]), x, y)
    assert flat[[0, 2]].tolist() == [0, 0] and bool(flat[1].isnan())
    tied = radius.magnitude_margin_ratio(lambda x: x.sum((1, 2, 3))[:, None] * torch.tensor([3.0, 3.0, 1.0]), x, y)
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
    found = radius.magnitude_margin_ratio(lambda x: model(Watched.apply(x)), x, y, batch_size=100)
    assert model.passes == len(backward) == 3 and model.images == sum(backward) == 300
    assert torch.allclose(found, radius.magnitude_margin_ratio(trained(), x, y), rtol=1e-4, equal_nan=True)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["mean", "l2"]))
def test_order_and_neighbours_do_not_change_a_ratio(seed, norm):
    stream = torch.Generator().manual_seed(seed)
    x, y = held_out(140)
    found, order = radius.magnitude_margin_ratio(trained(), x[:70], y[:70], norm=norm), torch.randperm(70, generator=stream)
    again = radius.magnitude_margin_ratio(trained(), x[:70][order], y[:70][order], norm=norm)
    assert torch.equal(again.nan_to_num(-1), found[order].nan_to_num(-1))
    mine = torch.rand(70, generator=stream) < 0.3
    index = torch.where(mine, torch.arange(70), torch.arange(70) + 70)
    mixed = radius.magnitude_margin_ratio(trained(), x[index], y[index], norm=norm)
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
            ratios.append(radius.magnitude_margin_ratio(model, x, y))
        assert not ratios[-1].is_inference() and not ratios[-1].requires_grad
    assert torch.equal(ratios[0], ratios[1]) and torch.equal(ratios[0], ratios[2])
    assert torch.equal(x, before) and x.grad is None and x.requires_grad and all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == [True, True, True, True, False, True]
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items()) and torch.equal(torch.get_rng_state(), noise)


class Bomb(nn.Module):
    """A model that must not be reached."""

    def forward(self, x):
        raise AssertionError("the model was called before the input was checked")


X, Y = pictures(4, (1, 4, 4)), torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": X * 255}, r"\[0,1\]"),
        ({"x": torch.full_like(X, torch.nan)}, "NaN"),
        ({"x": X.half()}, "float16"),
        ({"y": Y.int()}, "int32"),
        ({"y": Y - 1}, "label -1"),
        ({"model": "resnet"}, "callable"),
        ({"batch_size": 0}, "batch_size"),
        ({"norm": "max"}, 'norm must be "mean" or "l2", not \'max\''),
        ({"scores": "logits"}, "scores must be None or a callable.*not str"),
        ({"model": nn.Sequential(nn.Dropout(0.5), Bomb()).train()}, "training mode"),
    ],
)
def test_what_the_ratio_cannot_take_is_refused_before_the_model_is_called(change, message):
    options = {"model": Bomb(), "x": X, "y": Y, **change}
    with pytest.raises(ValueError, match=message):
        radius.magnitude_margin_ratio(options.pop("model"), options.pop("x"), options.pop("y"), **options)


def test_what_only_the_scores_tell_is_refused_by_the_ratio():
    net = linear((1, 4, 4), 3)
    cases = {
        "label 2, but the model scores 2 classes": lambda x: net(x)[:, :2],
        "probabilities": lambda x: net(x).softmax(1),
        "NaN scores for 4 of 4": lambda x: net(x) * torch.nan,
        r"\(4, K\) with K >= 2; they are torch.float32 of shape \(4, 1\)": lambda x: net(x)[:, :1],
        "they are tuple": lambda x: (net(x), x),
        "torch.bfloat16": lambda x: net(x).bfloat16(),
        "differentiably": lambda x: net(x.detach()),
    }
    for message, model in cases.items():
        with pytest.raises(ValueError, match=message):
            radius.magnitude_margin_ratio(model, X, Y)
