"""The networks by name: what a name says, that each kind is made as its paper has it, and who shares what in the cache."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from support import attacks, clustering, data, models, networks, training
from support.common.cache import Cache
from support.models import architectures, heads, pretrained, published

TINY = {"train": 200, "epochs": 1, "tuned": 1}
CLUSTERED = ("magnet", "clustr", "clustr-qtrades")
HEADS = {
    "gauss": heads.GaussHead,
    "gauss/cross-entropy": heads.GaussHead,
    "softrmax": heads.SoftRmaxHead,
    "softrmax/far": heads.SoftRmaxHead,
}
HEADS |= dict.fromkeys(CLUSTERED, heads.ClusterHead)
DIGITS = data.load("digits", "train")


def told(name, **changes):
    """The settings that this network has of the tiny ones, and the changes."""
    return {key: value for key, value in TINY.items() if key in networks.settings(name)} | changes


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same(a, b) -> bool:
    return models.fingerprint(a) == models.fingerprint(b)


# --- names and settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", networks.names("digits/mlp/*"))
def test_every_kind_trains_and_has_its_head(name):
    kind = name.removeprefix("digits/mlp/")
    found = networks.train(name, **told(name))
    assert type(found.model.head) is HEADS.get(kind, heads.LinearHead)
    assert not any(part.training for part in found.model.modules())
    assert len(found.history["loss"]) == 1 and found.seconds > 0 and found.trace is None
    assert training.predict(found.model, DIGITS.x[:5]).shape == (5, 10)


@pytest.mark.parametrize("body", sorted(networks.BODIES.keys() - {"resnet50"}))  # whose weights not everybody has
def test_every_body_takes_the_images_that_it_says(body):
    for source in networks.BODIES[body].data[:1] if "cifar10" in networks.BODIES[body].data[:1] else networks.BODIES[body].data:
        shape, classes = networks.IMAGES[source]
        assert training.predict(networks.untrained(f"{source}/{body}/softmax"), torch.rand(2, *shape)).shape == (2, classes)


@pytest.mark.parametrize("body", ["linear_normal", "two_convolutions", "dropout"])
def test_first_weights_are_the_seeds_alone(body):
    state = torch.random.get_rng_state()
    nets = [networks.untrained(f"digits/{body}/softmax", seed=seed) for seed in (1, 1, 2)]
    assert same(nets[0], nets[1]) and not same(nets[1], nets[2]) and torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("body", "built"),
    [
        ("mlp", lambda: models.mlp((1, 8, 8), (128, 64), 10, seed=4)),
        ("mlp-9-5", lambda: models.mlp((1, 8, 8), (9, 5), 10, seed=4)),
        ("small_cnn-3", lambda: models.small_cnn((1, 8, 8), 10, width=3, seed=4)),
        ("convnet-3", lambda: models.convnet((1, 8, 8), 3, 10, kernel=2, seed=4)),
        ("convnet-3-1", lambda: models.convnet((1, 8, 8), 3, 10, kernel=1, seed=4)),
        ("linear", lambda: models.linear_model((1, 8, 8), 10, seed=4)),
        ("linear_normal", lambda: models.Classifier(nn.Flatten(), heads.LinearHead(normal(10, 64, seed=4) / 8, torch.zeros(10)))),
    ],
)
def test_sizes_of_a_body_stand_behind_it(body, built):
    assert same(networks.untrained(f"digits/{body}/softmax", seed=4), built())


def test_data_sets_have_the_shape_and_classes_that_names_rely_on():
    shape, classes = networks.IMAGES["digits"]
    assert DIGITS.x.shape[1:] == shape and len(DIGITS.classes) == classes
    assert tuple(networks.IMAGES) == data.NAMES


def test_some_classes_are_labelled_in_their_order_before_images_are_counted(monkeypatch):
    seen = []
    monkeypatch.setattr(networks.training, "fit", lambda model, x, y, **rest: seen.append((x, y)) or training.FitResult(model, {}, 0.0))
    networks.get("digits:8,3/mlp/softmax", train=50)
    (x, y), kept = seen[0], (DIGITS.y == 8) | (DIGITS.y == 3)
    assert torch.equal(x, DIGITS.x[kept][:50]) and torch.equal(y, (DIGITS.y[kept][:50] == 3).long())
    networks.get("digits/mlp/softmax", train=10**6, draw=7)
    networks.get("digits/mlp/softmax", train=60, draw=7)
    assert torch.equal(seen[1][0], DIGITS.take(1297, 7).x) and torch.equal(seen[2][0], DIGITS.take(60, 7).x)


def test_settings_come_from_the_profile_and_the_data():
    assert networks.settings("digits/mlp/gauss")["tuned"] == 20 and networks.settings("mnist/lenet/gauss", profile="standard")["tuned"] == 5
    assert networks.settings("cifar10/resnet18/adversarial", profile="paper")["eps"] == 8 / 255
    assert networks.settings("mnist/lenet/adversarial")["eps"] == 0.1
    assert networks.settings("imagenet/alexnet/published") == {}
    assert set(networks.settings("digits/mlp/qtrades")) > set(networks.settings("digits/mlp/softmax"))


@pytest.mark.parametrize("profile", networks.PROFILES)
def test_each_profile_trains_with_its_own_settings(profile, monkeypatch):
    seen = []
    monkeypatch.setattr(networks.training, "fit", lambda model, x, y, **rest: seen.append(rest) or training.FitResult(model, {}, 0.0))
    networks.get("digits/mlp/softmax/tuned", profile=profile, seed=3)
    asked = networks.settings("digits/mlp/softmax/tuned", profile=profile)
    first, second = seen
    assert (first["epochs"], first["lr"], first["seed"]) == (asked["epochs"], asked["lr"], 3)
    assert (second["epochs"], second["lr"], second["seed"]) == (asked["tuned"], asked["tuned_lr"], 3)


def test_what_is_changed_reaches_every_training(monkeypatch):
    first = {"epochs": 3, "lr": 0.3, "batch_size": 32, "weight_decay": 0.01, "augment": True}
    second = {"epochs": 2, "lr": 0.2, "augment": True}
    for kind in ("softmax", "softmax/tuned", "gauss", "qtrades", "adversarial"):
        seen = []
        monkeypatch.setattr(
            networks.training, "fit", lambda model, x, y, seen=seen, **rest: seen.append(rest) or training.FitResult(model, {}, 0.0)
        )
        more = {} if kind == "softmax" else {"tuned": 2, "tuned_lr": 0.2}
        networks.get(f"digits/mlp/{kind}", train=100, seed=3, **first, **more)
        for asked, wanted in zip(seen, (first, second)[: len(seen)], strict=True):
            assert asked.items() >= (wanted | {"seed": 3}).items(), kind


def test_the_names_of_a_pattern_have_a_line_each():
    found = networks.names("mnist/lenet/*")
    assert set(found) == {f"mnist/lenet/{kind}" for kind in networks.RECIPES} and all(found.values())
    assert "imagenet/squeezenet1_0/published" in networks.names() and not networks.names("digits/lenet/*")
    assert not networks.names("*/linear/gauss") and networks.names("*/linear/softrmax")
    assert all(networks._parse(name) for name in networks.names())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("minst/lenet/gaus", "did you mean 'mnist/lenet/gauss'"),
        ("mnist/lenet", "did you mean 'mnist/lenet/"),
        ("digits/mlp-/softmax", "unknown network"),
        ("digits/mlp-x/softmax", "did you mean 'digits/mlp/softmax'"),
        ("digits:/mlp/softmax", "unknown network"),
        ("digits:3,/mlp/softmax", "unknown network"),
        ("imagenet/squeezenet/published", "did you mean 'imagenet/squeezenet1_0/published'"),
        ("digits/mlp/published", "unknown network"),
        (None, "unknown network None"),
        ("digits:3,10/mlp/softmax", "digits has the classes 0 .. 9"),
        ("digits:3,3/mlp/softmax", "each once"),
        ("digits/lenet/softmax", "lenet takes images of mnist, .* not of digits"),
        ("mnist/lenet-3/softmax", "lenet has no sizes to choose: write mnist/lenet/softmax"),
        ("cifar10:1,2/resnet20/gauss", "resnet20 begins with published weights, which are for all of cifar10"),
        ("digits/linear/gauss", "gauss moves the features, and those of linear are the pixels"),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused(name, message):
    for ask in (networks.get, networks.untrained, networks.settings):
        with pytest.raises(ValueError, match=message):
            ask(name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": 0.1}, "digits/mlp/gauss has no setting 'eps': it has train, draw, epochs"),
        ({"profile": "fast"}, "unknown profile 'fast'"),
        ({"rejected": 1.0}, "rejected must be in"),
        ({"train": 0}, "between 1 and"),
        ({"probe": lambda model: [0.0]}, "a probe watches Magnet trainings only"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        networks.train("digits/mlp/gauss", **TINY | changes)
    with pytest.raises(ValueError, match="no setting 'seeds': it has none at all"):
        networks.get("imagenet/alexnet/published", seeds=3)
    with pytest.raises(ValueError, match="trained by others"):
        networks.untrained("imagenet/alexnet/published")


def test_published_weights_are_loaded_where_they_are_asked_for(monkeypatch):
    monkeypatch.setitem(networks.PUBLISHED, "imagenet/alexnet", lambda: nn.Linear(2, 2).eval())
    assert isinstance(networks.get("imagenet/alexnet/published", device="cpu"), nn.Linear)
    assert networks.PUBLISHED["imagenet/squeezenet1_0"].func is pretrained.network


def test_a_published_network_is_named_as_where_its_weights_lie():
    names = networks.names("*/published")
    assert {f"{name}/published" for name in published.NETWORKS} <= set(names)
    with pytest.raises(ValueError, match=r"did you mean .mnist/provable-0\.[13]/published"):
        networks.get("mnist/provable-0.2/published")


def test_warm_bodies_go_on_from_published_weights(monkeypatch):
    weights = architectures.cifar_resnet(20, 10, seed=5).requires_grad_(False)
    monkeypatch.setattr(networks.published, "network", {"cifar10/resnet20": weights}.__getitem__)
    pictures = dataclasses.replace(DIGITS.take(50), x=torch.rand(50, 3, 32, 32))
    monkeypatch.setattr(networks, "_loaded", lambda *where: pictures)
    name = "cifar10/resnet20"
    assert networks.settings(f"{name}/gauss")["epochs"] == 0 < networks.settings(f"{name}/softrmax")["epochs"]
    found = networks.train(f"{name}/softmax", seed=3)
    assert found.model is weights and not found.history
    _, first, asked = loss_of(monkeypatch, f"{name}/softrmax", epochs=2)
    own = training.predict(weights, pictures.x).gather(1, pictures.y[:, None]).mean()
    assert torch.allclose(first.head.weight, weights.head.weight / own) and isinstance(first.head, heads.SoftRmaxHead)
    assert asked["epochs"] == 2 and all(weight.requires_grad for weight in first.parameters())
    assert loss_of(monkeypatch, f"{name}/softmax", epochs=1)[2]["epochs"] == 1
    assert not same(networks.untrained(f"{name}/softmax", seed=5), networks.untrained(f"{name}/softmax", seed=6))


# --- the kinds --------------------------------------------------------------------------------------------------------


def loss_of(monkeypatch, name, **changes):
    """The model, loss and settings of the last training that this network's recipe asks for."""
    seen = []

    def fit(model, x, y, **rest):
        seen.append((model, rest))
        return training.FitResult(model, {}, 0.0)

    monkeypatch.setattr(networks.training, "fit", fit)
    found = networks.get(name, **told(name, **changes))
    return found, *seen[-1]


def test_softrmax_starts_from_the_softmax_networks_weights_and_the_far_one_a_hundred_times_out():
    soft, near, far = (networks.untrained(f"digits/mlp/{kind}", seed=2).head for kind in ("softmax", "softrmax", "softrmax/far"))
    assert torch.equal(near.weight, soft.weight) and torch.equal(near.bias, soft.bias)
    assert torch.equal(far.weight, 100 * soft.weight) and torch.equal(far.bias, 100 * soft.bias)


def test_a_gauss_network_is_pulled_to_the_frozen_means_and_its_width_rejects_the_share():
    soft = networks.get("digits/mlp/softmax", epochs=5)
    net = networks.get("digits/mlp/gauss", epochs=5, tuned=5, rejected=0.2)
    means = clustering.class_centroids(training.extract(soft, DIGITS.x), DIGITS.y, 10)
    assert torch.equal(net.head.centers, means)
    scores = training.predict(net, DIGITS.x)
    right = scores.argmax(1) == DIGITS.y
    assert float((scores[right].exp().amax(1) < 1 / 10).double().mean()) == pytest.approx(0.2, abs=0.01)
    before, after = ((training.extract(m, DIGITS.x) - means[DIGITS.y]).square().sum(1).mean() for m in (soft, net))
    assert after < 0.8 * before


def test_the_pull_does_not_depend_on_the_features_scale(monkeypatch):
    _, start, rest = loss_of(monkeypatch, "digits/mlp/gauss")
    f, x, y = training.extract(start, DIGITS.x[:50]), DIGITS.x[:50], DIGITS.y[:50]
    centers = start.head.centers
    unit = (centers - centers.mean(0)).square().sum(1).mean()
    assert torch.allclose(rest["loss"](start, x, y), (f - centers[y]).square().sum(1) / unit)


def test_chapter_3s_gauss_network_has_its_width_from_the_means():
    net = networks.get("digits/mlp/gauss/cross-entropy", **TINY)
    spread = (net.head.centers - net.head.centers.mean(0)).square().sum(1).mean()
    assert net.head.gamma == pytest.approx(5 / float(spread))


def test_the_proximal_networks_weights_have_equal_norms():
    head = networks.get("digits/mlp/proximal", **told("digits/mlp/proximal", epochs=2)).head
    assert head.bias is None and torch.allclose(head.weight.norm(dim=1), head.weight.norm(dim=1).mean().expand(10))


@pytest.mark.parametrize(
    ("kind", "penalty"),
    [("decay", lambda w: w.square().sum() / 10), ("printed-decay", lambda w: w.norm() / (10 * 64))],
)
def test_weight_decay_is_added_to_every_images_loss(monkeypatch, kind, penalty):
    _, model, rest = loss_of(monkeypatch, f"digits/linear/softmax/{kind}", strength=0.3)
    x, y = DIGITS.x[:9], DIGITS.y[:9]
    expected = training.cross_entropy(model, x, y) + 0.3 * penalty(model.head.weight)
    assert torch.allclose(rest["loss"](model, x, y), expected)


def test_a_dead_network_begins_anew_with_other_weights_and_the_same_draws(monkeypatch):
    seen = []

    def fit(model, x, y, *, seed, **rest):
        seen.append((models.fingerprint(model), seed))
        with torch.no_grad():
            model.head.weight.zero_()  # answers one class for everything
            if len(seen) == 3:
                model.head.weight.copy_(good.head.weight)
                model.body.load_state_dict(good.body.state_dict())
        return training.FitResult(model, {}, 0.0)

    good = networks.get("digits/mlp/softmax", epochs=3)
    monkeypatch.setattr(networks.training, "fit", fit)
    found = networks.train("digits/mlp/softmax/restarted", seed=4, train=50, test=200)
    first = [models.fingerprint(models.mlp((1, 8, 8), (128, 64), 10, seed=4 + 1000 * start)) for start in range(3)]
    assert found.starts == 3 and seen == [(mark, 4) for mark in first]


def test_quick_and_slow_adversaries_are_told_what_the_settings_say(monkeypatch):
    asked = []
    monkeypatch.setattr(networks.clustr, "qtrades_loss", lambda model, x, y, **rest: asked.append(rest))
    _, model, rest = loss_of(monkeypatch, "digits/mlp/qtrades", eps=0.2, quick_weight=3.0)
    rest["loss"](model, DIGITS.x[:2], DIGITS.y[:2])
    assert asked == [{"eps": 0.2, "step_size": 0.25, "weight": 3.0}]
    monkeypatch.setattr(networks, "adversarial_loss", lambda *given: given)
    assert loss_of(monkeypatch, "digits/mlp/adversarial", eps=0.3, pgd_steps=7)[2]["loss"] == (0.3, 7)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("magnet", {"epochs": 4, "lr": 0.01}),
        ("clustr", {"epochs": 2, "lr": 0.01}),
        ("clustr-qtrades", {"epochs": 2, "lr": 0.01, "weight": 8.0, "eps": 0.1, "step_size": 0.125, "as_published": True}),
    ],
)
def test_magnet_trainings_are_told_what_the_settings_say(monkeypatch, kind, expected):
    asked, real = [], networks.clustr.fine_tune

    def fine_tune(model, x, y, classes, **rest):
        asked.append(rest)
        return real(model, x, y, classes, **rest | {"epochs": 1})

    monkeypatch.setattr(networks.clustr, "fine_tune", fine_tune)
    name = f"digits/mlp/{kind}"
    own = told(name, epochs=4, magnet_lr=0.01, clusters=3, alpha=5.0, augment=True) | ({"tuned": 2} if kind != "magnet" else {})
    networks.get(name, seed=6, **own)
    common = {"clusters": 3, "alpha": 5.0, "augment": True, "seed": 6, "device": "cpu", "on_epoch": None}
    assert asked == [common | expected]


def test_a_probe_sees_a_magnet_training_before_it_and_after_each_epoch(tmp_path):
    def probe(model):
        return [model.head.variance, float(training.predict(model, DIGITS.x[:9]).sum())]

    asked = {"train": 200, "epochs": 1, "tuned": 3, "cache": Cache(tmp_path)}
    found = networks.train("digits/mlp/clustr", probe=probe, **asked)
    assert found.trace.shape == (4, 2) and found.trace[-1].tolist() == probe(found.model)
    again = networks.train("digits/mlp/clustr", probe=probe, **asked)
    assert torch.equal(found.trace, again.trace) and found.history == again.history and same(found.model, again.model)
    assert same(found.model, networks.get("digits/mlp/clustr", **asked)), "to be looked at changes nothing"


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
    assert torch.allclose(loss, nn.functional.cross_entropy(net(last), y, reduction="none"))
    noise = torch.clamp(x + 0.1 * (2 * torch.rand(x.shape) - 1), 0, 1)
    assert float(loss.detach().mean()) > float(training.cross_entropy(net, noise, y).detach().mean()) > 0
    loss.mean().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_the_yardstick_takes_every_step_of_pgd():
    """Against the climb written out: a uniform start, then signed steps of 2.5 eps / steps."""
    net = models.mlp((1, 8, 8), (32,), 10, seed=1)
    x, y, eps = DIGITS.x[:64], DIGITS.y[:64], 0.1
    torch.manual_seed(0)
    found = networks.adversarial_loss(eps, 4)(net, x, y)
    torch.manual_seed(0)
    at = (x + eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
    for _ in range(4):
        at.requires_grad_()
        slope = torch.autograd.grad(nn.functional.cross_entropy(net(at), y), at)[0]
        at = (x + (at.detach() + 2.5 * eps / 4 * slope.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    assert torch.allclose(found, training.cross_entropy(net, at, y), rtol=1e-4)


def test_at_radius_zero_the_yardstick_is_ordinary_training():
    net = models.mlp((1, 8, 8), (16,), 10, seed=2)
    batch = DIGITS.x[:20], DIGITS.y[:20]
    assert torch.equal(networks.adversarial_loss(0.0, 2)(net, *batch), training.cross_entropy(net, *batch))
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1; 0"):
        networks.adversarial_loss(0.1, 0)


def test_the_kernels_width_rejects_the_share_that_was_asked_for():
    stream = torch.Generator().manual_seed(3)
    centers = torch.eye(4) * 10
    labels = torch.arange(4).repeat(500)
    features = centers[labels] + torch.randn(2000, 4, generator=stream)
    wrong = torch.cat([centers[1:2]] * 100)  # images of another class: they do not count
    gamma = networks.kernel_width(torch.cat([features, wrong]), torch.cat([labels, torch.zeros(100, dtype=torch.int64)]), centers, 0.05)
    confidence = heads.GaussHead(centers, gamma=gamma)(features).exp().gather(1, labels[:, None])
    assert float((confidence < 1 / 4).double().mean()) == pytest.approx(0.05, abs=1e-3)
    assert math.isfinite(gamma) and gamma > 0


# --- the cache --------------------------------------------------------------------------------------------------------


def test_kinds_share_their_start_and_a_second_asking_finds_everything(tmp_path):
    names = [name for name in networks.names("digits/mlp/*") if not name.endswith("restarted")]

    def ask():
        cache = Cache(tmp_path)
        nets = [networks.get(name, cache=cache, **told(name)) for name in names]
        return nets, {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}

    first, files = ask()
    assert len(files) == len(names), "one each: what goes on from softmax finds it"
    second, again = ask()
    assert files == again and all(map(same, first, second))
    for name, net in zip(names, first, strict=True):
        if name.endswith(("gauss", "clustr", "qtrades")):
            assert same(net, networks.get(name, **told(name))), name


def test_two_who_ask_in_other_words_share(tmp_path):
    cache = Cache(tmp_path)
    networks.get("digits/mlp/softmax", epochs=1, lr=0.1, cache=cache)
    networks.get("digits/mlp-128-64/softmax", epochs=1, train=1297, cache=cache)
    networks.get("digits:0,1,2,3,4,5,6,7,8,9/mlp/softmax", epochs=1, profile="quick", cache=cache)
    assert len(list(tmp_path.iterdir())) == 1
    networks.get("digits/mlp/softmax", epochs=1, seed=1, cache=cache)
    networks.get("digits/mlp/softmax", epochs=1, train=1296, cache=cache)
    assert len(list(tmp_path.iterdir())) == 3


def test_the_seconds_are_those_of_the_first_training_with_its_start(tmp_path):
    first, second = (networks.train("digits/mlp/clustr", cache=Cache(tmp_path), **TINY) for _ in range(2))
    start = networks.train("digits/mlp/softmax", cache=Cache(tmp_path), train=200, epochs=1)
    assert first.seconds == second.seconds > start.seconds > 0
