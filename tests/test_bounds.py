"""Enclosures hold every image that is tried, and are tight where they can be."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support import attacks, certificates, models
from support.certificates.bounds import body_bounds
from support.models import heads

F64 = torch.float64


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def centred_scores(model, x):
    with torch.no_grad():
        scores = model(x).double()
    return scores - scores.mean(1, keepdim=True)


NETS = {
    "mlp": lambda seed: models.mlp((1, 4, 4), (9, 7), 5, seed=seed, mean=0.3, std=0.5),
    "lenet": lambda seed: models.lenet((1, 16, 16), 4, seed=seed),
}


@pytest.mark.filterwarnings("ignore:all scores lie in")
@pytest.mark.parametrize("name", NETS)
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 0.3))
def test_no_image_of_the_ball_leaves_the_enclosure(name, seed, eps):
    model = NETS[name](seed % 7)
    x = rand(3, *((1, 4, 4) if name == "mlp" else (1, 16, 16)), seed=seed)
    low, high = certificates.centred_score_bounds(model, x, eps)
    assert low.shape == high.shape == (3, 5 if name == "mlp" else 4) and low.dtype == F64 and (low <= high + 1e-12).all()
    ends = attacks.interval(x, eps)
    generator = torch.Generator().manual_seed(seed)
    for draw in range(20):
        u = torch.rand(x.shape, generator=generator)
        inside = torch.lerp(*ends, u.round() if draw % 2 else u)  # corners and interior points
        found = centred_scores(model, inside)
        assert (found >= low - 1e-5).all() and (found <= high + 1e-5).all()
    for k in range(low.shape[1]):  # as far as a search gets
        y = torch.full((3,), k)
        worst = attacks.pgd(model, x, y, eps, steps=10, loss=lambda m, x, y: -m(x).gather(1, y[:, None])[:, 0] + m(x).mean(1)).x_adv
        assert (centred_scores(model, worst)[:, k] >= low[:, k] - 1e-5).all()


def test_the_enclosure_of_a_point_is_its_scores_and_a_linear_network_is_enclosed_tightly():
    model = NETS["lenet"](0)
    x = rand(2, 1, 16, 16)
    low, high = certificates.centred_score_bounds(model, x, 0.0)
    assert torch.allclose(low, centred_scores(model, x), atol=1e-5) and torch.allclose(low, high, atol=1e-12)
    head = heads.LinearHead(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)))
    linear = models.Classifier(torch.nn.Sequential(torch.nn.Flatten()), head)
    x = 0.5 + 0 * rand(1, 1, 4, 4)
    low, high = certificates.centred_score_bounds(linear, x, 0.1)
    weight = (linear.head.weight - linear.head.weight.mean(0)).detach().double()
    assert torch.allclose(high[0], weight.sum(1) * 0.5 + 0.1 * weight.abs().sum(1), atol=1e-6)
    assert torch.allclose(low[0], weight.sum(1) * 0.5 - 0.1 * weight.abs().sum(1), atol=1e-6)


@pytest.mark.parametrize("settings", [{"padding": 1}, {"stride": 2, "padding": 1}, {"dilation": 2}, {"groups": 2}], ids=str)
def test_the_box_of_a_convolution_is_the_smallest_one(settings):
    """By the corner that each output likes best: one box for each output of the matrix."""
    layer = torch.nn.Conv2d(2, 4, 3, **settings).double()
    model = models.Classifier(torch.nn.Sequential(layer), torch.nn.Identity())
    low, high = rand(1, 2, 6, 6).double(), 1 + rand(1, 2, 6, 6, seed=1).double()
    with torch.no_grad():
        start = layer(torch.zeros(1, 2, 6, 6, dtype=F64)).flatten()
        matrix = layer(torch.eye(72, dtype=F64).unflatten(1, (2, 6, 6))).flatten(1).T - start[:, None]
    found = body_bounds(model, low, high)[1]
    for end, sign in zip(found, (-1, 1), strict=True):
        corner = torch.where(sign * matrix > 0, high.flatten(), low.flatten())
        assert torch.allclose(end.flatten(), (matrix * corner).sum(1) + start, atol=1e-12)


def test_models_without_a_rule_are_refused():
    x = rand(1, 1, 8, 8)
    with pytest.raises(ValueError, match="no interval rule is known here for 2, a BatchNorm2d"):
        certificates.centred_score_bounds(models.small_cnn((1, 8, 8), 3), x, 0.1)
    gauss = models.with_head(models.mlp((1, 8, 8), (5,), 3), heads.GaussHead(torch.zeros(3, 5)))
    with pytest.raises(ValueError, match=r"a head with a weight is wanted.*GaussHead"):
        certificates.centred_score_bounds(gauss, x, 0.1)
