"""The networks of chapter 8: the same budget for all, the yardstick's adversary, the kernel's width, and the cache."""

import math

import pytest
import torch

from support import attacks, data, models, networks, training
from support.common.cache import Cache
from support.models import heads

RECIPE = networks.Recipe(warm=10, tuned=5, lr=0.1, tuned_lr=0.05, magnet_lr=0.003, eps=0.1, pgd_steps=3, joint_weight=8.0)
DIGITS = data.load("digits", "train").take(600)
CLUSTERED = ("Magnet", "ClusTR", "ClusTR + QTRADES")
HEADS = {"Gauss": heads.GaussHead, "softRmax": heads.SoftRmaxHead} | dict.fromkeys(CLUSTERED, heads.ClusterHead)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def trained(folder, names=networks.NAMES, seed=0):
    return networks.train(names, "mlp", DIGITS.x, DIGITS.y, 10, RECIPE, seed=seed, cache=Cache(folder))


def test_every_network_has_its_head_is_in_evaluation_mode_and_has_learnt(folder):
    for name, net in trained(folder).items():
        assert type(net.head) is HEADS.get(name, heads.LinearHead) and not net.training
        assert float((training.predict(net, DIGITS.x).argmax(1) == DIGITS.y).double().mean()) > 0.6, name


def test_each_network_is_a_unit_and_a_second_training_finds_them_all(folder):
    first = trained(folder)
    kept = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.safetensors")}
    assert len(kept) == len(networks.NAMES) + 1, "one each, and the common start"
    again = trained(folder)
    assert {file.name: file.stat().st_mtime_ns for file in folder.glob("*.safetensors")} == kept
    assert all(models.fingerprint(first[name]) == models.fingerprint(again[name]) for name in first)


def test_a_network_does_not_depend_on_which_others_are_trained(folder, tmp_path):
    together = trained(folder)
    for name in ("Gauss", "Magnet", "QTRADES"):
        assert models.fingerprint(trained(tmp_path, [name])[name]) == models.fingerprint(together[name])


def test_all_networks_look_at_the_data_equally_often(monkeypatch):
    """Passes through the body in training mode with labels behind them, counted in images; adversaries come on top."""
    passes = {}
    real_fit, real_tune = training.fit, networks.clustr.fine_tune

    def fit(model, x, y, *, epochs, name, **rest):
        passes[name] = epochs
        return real_fit(model, x, y, epochs=epochs, name=name, **rest)

    def fine_tune(model, x, y, classes, *, epochs, name, **rest):
        passes[name] = epochs
        return real_tune(model, x, y, classes, epochs=epochs, name=name, **rest)

    monkeypatch.setattr(networks.training, "fit", fit)
    monkeypatch.setattr(networks.clustr, "fine_tune", fine_tune)
    networks.train(networks.NAMES, "mlp", DIGITS.x, DIGITS.y, 10, RECIPE)
    own = {name.removeprefix("zoo-"): count for name, count in passes.items()}
    whole = RECIPE.warm + RECIPE.tuned
    assert own.pop("warm-0") == RECIPE.warm
    assert own == {
        "nominal-0": RECIPE.tuned, "gauss-0": RECIPE.tuned, "ClusTR": RECIPE.tuned, "qtrades-0": RECIPE.tuned,
        "ClusTR + QTRADES": RECIPE.tuned, "softrmax-0": whole, "Magnet": whole, "adversarial-0": RECIPE.tuned,
    }  # fmt: skip


def test_the_yardsticks_loss_is_the_cross_entropy_inside_its_ball_and_no_less_than_a_random_ones():
    net = models.mlp((1, 8, 8), (32,), 10, seed=1)
    seen = []
    net.register_forward_pre_hook(lambda module, inputs: seen.append((inputs[0].detach(), module.training)))
    x, y = DIGITS.x[:64], DIGITS.y[:64]
    net.train()
    torch.manual_seed(0)
    loss = networks.adversarial_loss(0.1, 5)(net, x, y)
    last, training_mode = seen[-1]
    low, high = attacks.interval(x, 0.1)
    assert net.training and training_mode and bool(((last >= low) & (last <= high)).all())
    assert torch.allclose(loss, torch.nn.functional.cross_entropy(net(last), y, reduction="none"))
    noise = torch.clamp(x + 0.1 * (2 * torch.rand(x.shape) - 1), 0, 1)
    assert float(loss.detach().mean()) > float(training.cross_entropy(net, noise, y).detach().mean()) > 0
    loss.mean().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_at_radius_zero_the_yardstick_is_ordinary_training():
    net = models.mlp((1, 8, 8), (16,), 10, seed=2)
    batch = DIGITS.x[:20], DIGITS.y[:20]
    assert torch.equal(networks.adversarial_loss(0.0, 2)(net, *batch), training.cross_entropy(net, *batch))


def test_the_kernels_width_rejects_the_share_that_was_asked_for():
    stream = torch.Generator().manual_seed(3)
    centers = torch.eye(4) * 10
    labels = torch.arange(4).repeat(500)
    features = centers[labels] + torch.randn(2000, 4, generator=stream)
    gamma = networks.kernel_width(features, labels, centers, 0.05)
    confidence = heads.GaussHead(centers, gamma=gamma)(features).exp().gather(1, labels[:, None])
    assert float((confidence < 1 / 4).double().mean()) == pytest.approx(0.05, abs=1e-3)
    assert math.isfinite(gamma) and gamma > 0


def test_unknown_networks_are_refused():
    with pytest.raises(ValueError, match=r"unknown networks \['Gaus'\]: there are nominal, Gauss"):
        trained(None, ["nominal", "Gaus"])


def test_an_adversary_without_steps_is_refused():
    with pytest.raises(ValueError, match="at least 1; 0 was given"):
        networks.adversarial_loss(0.1, 0)


def test_names_become_names_of_units():
    assert [networks.slug(name) for name in ("ClusTR + QTRADES", "nominal")] == ["clustr-qtrades", "nominal"]
