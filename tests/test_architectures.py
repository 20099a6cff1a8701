"""Models: shapes, seeds, normalisation, shared and copied bodies."""

import pytest
import torch
from torch import nn

from support import models
from support.models import heads

BUILDERS = {
    "mlp": (lambda **k: models.build("mlp", (1, 8, 8), 10, **k), (1, 8, 8), 64),
    "lenet": (lambda **k: models.build("lenet", (1, 28, 28), 10, **k), (1, 28, 28), 84),
    "linear_model": (lambda **k: models.linear_model((1, 8, 8), 10, **k), (1, 8, 8), 64),
    "convnet": (lambda **k: models.convnet((1, 28, 28), 3, 10, **k), (1, 28, 28), 256),
    "convnet, small kernel": (lambda **k: models.convnet((1, 8, 8), 3, 10, kernel=2, **k), (1, 8, 8), 256),
    "small_cnn": (lambda **k: models.build("small_cnn", (3, 32, 32), 10, **k), (3, 32, 32), 64),
    "resnet18": (lambda **k: models.build("resnet18", (3, 32, 32), 10, **k), (3, 32, 32), 512),
    "vgg16": (lambda **k: models.build("vgg16", (3, 32, 32), 10, **k), (3, 32, 32), 512),
}


def images(shape, n=3):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", BUILDERS)
def test_scores_are_the_head_of_the_features(name):
    make, shape, d = BUILDERS[name]
    model, x = make(), images(shape)
    with torch.no_grad():
        features = model.features(x)
        assert features.shape == (3, d)
        assert torch.equal(model(x), features @ model.head.weight.T + model.head.bias)
        assert (features >= 0).all()  # every body here ends in a ReLU, or in pooling after one
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("name", BUILDERS)
def test_a_seed_decides_the_weights_and_nothing_else_moves(name):
    make, _, _ = BUILDERS[name]
    torch.random.default_generator.manual_seed(5)
    before = torch.random.get_rng_state()
    first = make(seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    assert models.fingerprint(make(seed=1)) == models.fingerprint(first)
    assert models.fingerprint(make(seed=2)) != models.fingerprint(first)


@pytest.mark.parametrize("name", BUILDERS)
def test_models_come_in_evaluation_mode_so_images_are_independent(name):
    make, shape, _ = BUILDERS[name]
    model, x = make(), images(shape, 4)
    assert not any(m.training for m in model.modules())
    with torch.no_grad():
        together, apart = model(x), torch.cat([model(one) for one in x.split(1)])
    assert torch.allclose(together, apart, atol=1e-5)


def test_normalisation_is_inside():
    normalise = models.Normalise((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    x = images((3, 2, 2))
    expected = torch.stack([(x[:, 0] - 0.1) / 1, (x[:, 1] - 0.2) / 2, (x[:, 2] - 0.3) / 4], 1)
    assert torch.allclose(normalise(x), expected)
    assert isinstance(models.lenet().body[0], models.Normalise)
    assert torch.equal(models.lenet().body[0](torch.tensor([[[[0.0, 1.0]]]])), torch.tensor([[[[-0.5, 0.5]]]]))
    assert "body.0.mean" in models.lenet().state_dict()
    with pytest.raises(ValueError, match="std must be positive"):
        models.Normalise(0.0, 0.0)


def test_the_small_input_stems():
    net = models.resnet18(10).body[1]
    assert (net.conv1.kernel_size, net.conv1.stride) == ((3, 3), (1, 1))
    assert isinstance(net.maxpool, nn.Identity)
    assert float(net.conv1.weight.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)  # He's, by the outputs
    linear = [m for m in models.vgg16(10).modules() if isinstance(m, nn.Linear | heads.LinearHead)]
    assert len(linear) == 1
    assert sum(isinstance(m, nn.Conv2d) for m in models.vgg16(10).modules()) == 13
    assert sum(isinstance(m, nn.Conv2d) for m in models.small_cnn((1, 8, 8), 10).modules()) == 4


def test_with_head_shares_the_body_and_copy_shares_nothing():
    model = models.mlp((1, 4, 4), (6,), 3)
    head = heads.GaussHead(torch.zeros(3, 6))
    shared, copied = models.with_head(model, head), models.with_head(model, head, copy=True)
    assert shared.body is model.body and shared.head is head
    pointers = {p.data_ptr() for p in model.parameters()}
    assert not pointers & {t.data_ptr() for t in (*copied.parameters(), *copied.buffers())}
    x = images((1, 4, 4))
    assert torch.equal(shared.features(x), copied.features(x))
    assert not shared.training and not shared.head.training


def test_with_head_changes_no_mode():
    model = models.small_cnn((1, 8, 8), 2).train()
    model.body[2].eval()  # one batch norm is frozen on purpose
    head = models.with_head(model, heads.GaussHead(torch.zeros(2, 64)))
    assert head.training and head.head.training and head.body[1].training and not head.body[2].training


def test_the_fingerprint_sees_structure_parameters_and_buffers():
    model = models.small_cnn((1, 8, 8), 3, width=4)
    seen = {models.fingerprint(model)}
    with torch.no_grad():
        model.head.bias[1] += 1e-7
        seen.add(models.fingerprint(model))
        model.body[2].running_var[0] += 1e-6
        seen.add(models.fingerprint(model))
    for gamma in (1.0, 1.0000001):
        seen.add(models.fingerprint(models.with_head(model, heads.GaussHead(torch.zeros(3, 16), gamma))))
    model.body[3] = nn.Tanh()
    seen.add(models.fingerprint(model))
    assert len(seen) == 6


def test_what_cannot_be_built_is_refused():
    table = [
        (lambda: models.build("alexnet", (3, 32, 32), 10), "unknown model 'alexnet': choose one of mlp, lenet"),
        (lambda: models.build("vgg16", (1, 28, 28), 10), r"vgg16 takes images of shape \(3, 32, 32\); \(1, 28, 28\)"),
        (lambda: models.build("lenet", (1, 8, 8), 10), "at least 16x16 pixels are wanted; 8x8"),
        (lambda: models.convnet((1, 17, 28), 4, 10), "sides of at least 18; 4 and 17x28"),
        (lambda: models.small_cnn((3, 4, 4), 10), "at least 8x8"),
        (lambda: models.mlp((1, 4), (3,), 2), "shape must be"),
        (lambda: models.mlp((1, 4, 4), (), 2), "at least one width"),
        (lambda: models.lenet(n_classes=0), "n_classes must be a whole number of at least 1; 0"),
    ]
    for call, message in table:
        with pytest.raises(ValueError, match=message):
            call()
