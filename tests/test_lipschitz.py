"""Lipschitz bounds: exact where they can be, never below what is found by searching, and loud about what they do not know."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from support import certificates, models


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


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


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
    assert certificates.lipschitz_upper_bound(layer) == pytest.approx(expected, rel=1e-12)


def test_a_chain_of_aligned_linear_layers_is_exact():
    u, v, w = (torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0] for _ in range(3))
    first, second = nn.Linear(6, 6, bias=False).double(), nn.Linear(6, 6, bias=False).double()
    scales = torch.arange(6, 0, -1, dtype=torch.float64)
    with torch.no_grad():
        first.weight.copy_(u * scales @ v.T)
        second.weight.copy_(w * scales @ u.T)
    chain = nn.Sequential(first, second)
    assert certificates.lipschitz_upper_bound(chain) == pytest.approx(36.0, rel=1e-12)
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
    with_shape, without = certificates.lipschitz_upper_bound(module, shape), certificates.lipschitz_upper_bound(module)
    assert 0 < found <= with_shape * (1 + 1e-9)
    assert with_shape <= without * (1 + 1e-9)


def test_the_bound_of_a_classifier_is_that_of_its_features():
    model = models.mlp((1, 4, 4), (9,), 3, seed=2, mean=0.5, std=0.25)
    expected = 4 * np.linalg.svd(model.body[2].weight.detach().double().numpy(), compute_uv=False)[0]
    assert certificates.lipschitz_upper_bound(model) == pytest.approx(expected, rel=1e-12)


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
    assert certificates.lipschitz_upper_bound(layer, shape) == pytest.approx(exact, rel=1e-9)
    assert exact <= certificates.lipschitz_upper_bound(layer) * (1 + 1e-12)


@pytest.mark.parametrize("kernel", [2, 3, 5, 7])
def test_the_convolution_bound_is_tight_on_large_images(kernel):
    layer = nn.Conv2d(2, 3, kernel, bias=False).double()
    exact = np.linalg.norm(matrix(layer, (2, 26, 26)), 2)
    assert exact <= certificates.convolution_bound(layer.weight.detach()) <= 1.15 * exact


def test_the_convolution_bound_holds_for_a_frequency_between_grid_points():
    """A kernel whose transform peaks halfway between two frequencies of the grid: the largest sample alone would be too small."""
    peak = 7.5 * 2 * math.pi / 32
    kernel = torch.tensor([1.0, 4 * math.cos(peak), -0.5], dtype=torch.float64)
    frequencies = torch.linspace(0, 2 * math.pi, 32 * 1000 + 1, dtype=torch.float64)
    response = (torch.exp(1j * frequencies[:, None] * torch.arange(3)) @ kernel.to(torch.complex128)).abs()
    supremum, sampled = float(response.max()), float(response[::1000].max())
    assert sampled < 0.999 * supremum
    assert supremum <= certificates.convolution_bound(kernel[None, None, None]) <= 1.02 * supremum


@pytest.mark.parametrize(
    "pool",
    [nn.AvgPool2d(2), nn.AvgPool2d(3, 1), nn.AvgPool2d(3, 2), nn.AvgPool2d((2, 3), (1, 2), padding=1), nn.AdaptiveAvgPool2d(1)],
    ids=repr,
)
def test_average_pooling_against_its_matrix(pool):
    exact = np.linalg.norm(matrix(pool, (1, 9, 9)), 2)
    bound = certificates.lipschitz_upper_bound(pool, (1, 9, 9))
    assert exact <= bound * (1 + 1e-12)
    if pool.__class__ is nn.AdaptiveAvgPool2d or pool.kernel_size == 2:
        assert bound == pytest.approx(exact, rel=1e-12)


def test_max_pooling_that_overlaps_can_repeat_an_entry():
    spike = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    spike[..., 2, 2] = 1
    pool = nn.MaxPool2d(3, 1)
    assert float(pool(spike).norm()) == 3.0  # nine windows see the one
    assert certificates.lipschitz_upper_bound(pool) == 3.0
    assert certificates.lipschitz_upper_bound(nn.MaxPool2d(2)) == 1.0


def test_batch_norm_counts_with_its_steepest_channel_whatever_its_sign():
    norm = nn.BatchNorm1d(2, eps=0.0).double().eval()
    norm.running_var.copy_(torch.tensor([0.25, 1.0]))
    norm.weight.data.copy_(torch.tensor([-3.0, 2.0]))
    assert certificates.lipschitz_upper_bound(norm) == 6.0


def test_a_leaky_unit_counts_with_its_steeper_side():
    assert [certificates.lipschitz_upper_bound(nn.LeakyReLU(slope)) for slope in (0.2, -1.5, 3.0)] == [1.0, 1.5, 3.0]


# --- refusals ---------------------------------------------------------------------------------------------------------


class Twice(nn.ReLU):
    def forward(self, x):
        return 2 * super().forward(x)


def test_what_has_no_known_bound_is_refused_by_name():
    table = [
        (nn.Sequential(nn.Linear(2, 2), nn.GELU()), r"1, a GELU"),
        (nn.Sequential(nn.Dropout(0.5)), "a Dropout in training mode"),
        (nn.BatchNorm2d(3), "a BatchNorm2d in training mode"),
        (nn.BatchNorm2d(3, track_running_stats=False).eval(), "a BatchNorm2d"),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), "a Conv2d"),
        (nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), "an? AvgPool2d"),
        (nn.MaxPool2d(2, dilation=2), "a MaxPool2d"),
        (nn.AdaptiveAvgPool2d(2), "an? AdaptiveAvgPool2d"),
        (Twice(), "a Twice"),
        (models.resnet18(10), "1, a ResNet"),
    ]
    for module, name in table:
        with pytest.raises(ValueError, match=f"no Lipschitz bound is known here for .*{name}"):
            certificates.lipschitz_upper_bound(module)


def test_a_layer_that_stands_twice_counts_twice():
    layer = nn.Linear(4, 4, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(3 * torch.eye(4))
    assert certificates.lipschitz_upper_bound(nn.Sequential(layer, nn.ReLU(), layer)) == 9


# --- the lower bound --------------------------------------------------------------------------------------------------


def test_the_lower_bound_of_a_linear_layer_is_its_norm():
    layer = nn.Linear(6, 4).double()
    with torch.no_grad():
        layer.weight.copy_(normal(4, 6))
    exact = float(torch.linalg.matrix_norm(layer.weight.detach(), 2))
    assert certificates.lipschitz_lower_bound(layer, normal(1, 6), iterations=200) == pytest.approx(exact, rel=1e-6)


def test_the_lower_bound_is_the_steepest_jacobian_and_below_the_upper_bound():
    model = models.mlp((1, 3, 3), (8, 6), 3, seed=1).double()
    x = torch.rand(12, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    jacobians = torch.stack([torch.autograd.functional.jacobian(lambda v: model.features(v[None])[0], row).flatten(1) for row in x])
    expected = float(torch.linalg.matrix_norm(jacobians, 2).max())
    found = certificates.lipschitz_lower_bound(model, x, iterations=300)
    assert found <= expected * (1 + 1e-9) and found == pytest.approx(expected, rel=1e-4)
    assert found <= certificates.lipschitz_upper_bound(model, (1, 3, 3))


def test_the_lower_bound_passes_through_pooling_and_leaves_the_model_alone():
    model = models.lenet(seed=0)
    found = certificates.lipschitz_lower_bound(model, torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0)), iterations=5)
    assert 0 < found < certificates.lipschitz_upper_bound(model, (1, 28, 28))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_points_and_iterations_are_wanted():
    with pytest.raises(ValueError, match="that is not empty, finite values"):
        certificates.lipschitz_lower_bound(nn.Linear(2, 2), torch.zeros(0, 2))
    with pytest.raises(ValueError, match="iterations must be a whole number of at least 1; 0"):
        certificates.lipschitz_lower_bound(nn.Linear(2, 2), torch.zeros(1, 2), iterations=0)
