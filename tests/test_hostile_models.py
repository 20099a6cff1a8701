"""Every kernel that takes a model, on every hostile model: right, or refused with the reason; and under any default of device and dtype."""

import contextlib
import dataclasses
import functools
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_models import CLASSES, HOSTILE, SHAPE, Layer, other_defaults, plain
from torch import nn

from support import attacks, certificates, clustering, data, evaluation, geometry, models, networks, smoothing, training
from support.book import plots
from support.common.cache import Cache
from support.evaluation import rows
from support.evaluation.substitute_model import substitute
from support.path_kernel import ntk, train_path
from support.training import clustr

BUDGET = evaluation.Budget(
    images=8, noise_draws=1, bim=(2,), pgd_steps=2, targeted_images=4, square_images=8, square_queries=3, hard_label_images=4,
    hard_label_queries=4, sweep=(0.5,), sweep_images=2,
)  # fmt: skip


def images(count=24, seed=3):
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed), device="cpu", dtype=torch.float32)


def labels(count=24):
    return torch.arange(count, device="cpu") % CLASSES


def attacking(name, eps=True, **settings):
    def run(model):
        return getattr(attacks, name)(model, images(), labels(), *([0.15] if eps else []), **settings)

    return run


class Split(nn.Module):
    """A model whose answer hangs on the first pixel: there is a crossing between a black and a white one."""

    def __init__(self, model):
        super().__init__()
        self.model, self.training = model, model.training

    def forward(self, x):
        pixel = 200 * (x.flatten(1)[:, :1] - 0.5)
        scores = self.model(x)
        return torch.cat([scores[:, :1] + pixel, scores[:, 1:]], 1)


def bisected(model):
    a, b = images(), images(24, 4)
    a[:, 0, 0, 0], b[:, 0, 0, 0] = 0, 1
    return geometry.bisect(Split(model), a, b)


def trained_path(model):
    return train_path(model, images(9), labels(9), lr=0.05, steps=2).predict(images(3, 1).double())


ASKED = {
    "fgsm": attacking("fgsm"), "rfgsm": attacking("rfgsm"), "bim": attacking("bim", steps=2), "mifgsm": attacking("mifgsm", steps=2),
    "pgd": attacking("pgd", steps=2), "pgd_targets": attacking("pgd_targets", steps=2), "rays": attacking("rays", queries=6),
    "average_sample": attacking("average_sample", means=images(CLASSES, 2)), "lbfgs": attacking("lbfgs", False, search=0, steps=3),
    "fmn": attacking("fmn", False, steps=3), "sigma_zero": attacking("sigma_zero", False, steps=3),
    "multi_targeted": attacking("multi_targeted", steps=1, rounds=2),
    "one_pixel": attacking("one_pixel", False, population=4, generations=1),
    "corner_outputs": lambda model: list(attacks.corner_outputs(model, images(4))),
    "magnitude_margin_ratio": lambda model: evaluation.magnitude_margin_ratio(model, images(), labels()),
    "evaluate": lambda model: evaluation.evaluate(model, images(), labels(), 0.1, budget=BUDGET).found,
    "persistence": lambda model: smoothing.persistence(model, images(4), samples=32),
    "stability": lambda model: smoothing.stability(model, images(4), 0.2, samples=32),
    "bisect": bisected,
    "gradient_normals": lambda model: geometry.gradient_normals(model, images(), labels(), (labels() + 1) % CLASSES),
    "predict": lambda model: training.predict(model, images()),
    "lipschitz_lower_bound": lambda model: certificates.lipschitz_lower_bound(model, images(4), iterations=2),
}  # fmt: skip
BOUNDED = {
    "lipschitz_upper_bound": lambda model: certificates.lipschitz_upper_bound(model, SHAPE),
    "centred_score_bounds": lambda model: certificates.centred_score_bounds(model, images(4), 0.05),
    "least_budget": lambda model: dataclasses.astuple(certificates.least_budget(model, images(1)[0], label=1, within=0.05, seconds=20))[:2],
}
FOLLOWED = {
    "ntk": lambda model: ntk(model, images(3)),
    "train_path": trained_path,
}
KERNELS = {**ASKED, **BOUNDED, **FOLLOWED}


def numbers(found):
    """Everything that a kernel found, one tensor after the other."""
    if isinstance(found, torch.Tensor):
        return [found.detach().double().nan_to_num(7, 8, 9)]
    if dataclasses.is_dataclass(found):
        found = {part.name: getattr(found, part.name) for part in dataclasses.fields(found)}
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list | tuple):
        return [one for part in found for one in numbers(part)]
    return [torch.tensor(found, dtype=torch.float64, device="cpu")] if isinstance(found, float) else []


def world(model):
    """What no kernel may change: the model, the global generators."""
    parts = list(model.modules())
    return [
        *(value.clone().nan_to_num() for value in (*model.parameters(), *model.buffers())), *(part.training for part in parts),
        torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(),
    ]  # fmt: skip


def alike(one, other):
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:all scores lie in")
@pytest.mark.parametrize(
    ("name", "kernel"), [(name, kernel) for name in HOSTILE for kernel in KERNELS if HOSTILE[name].but.get(kernel) != ""]
)
def test_a_hostile_model_is_treated_rightly_or_refused(name, kernel):
    hostile = HOSTILE[name]
    kind = "asked" if kernel in ASKED else "bounded" if kernel in BOUNDED else "followed"
    reason = hostile.but.get(kernel, getattr(hostile, kind))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, twin = hostile.build()
    before = world(model)
    with pytest.raises(ValueError, match=reason) if reason else contextlib.nullcontext() as caught:
        found = numbers(KERNELS[kernel](model))
    assert all(map(alike, before, world(model)))
    if reason:
        assert "\n" not in str(caught.value).partition("fails on")[0]
    else:
        expected = numbers(KERNELS[kernel](twin))
        assert len(found) == len(expected) > 0
        for one, other in zip(found, expected, strict=True):
            assert one.shape == other.shape and torch.allclose(one, other, rtol=1e-5, atol=1e-6)


# What else computes, for the defaults.


def fitted(model):
    found = training.fit(model, images(), labels(), epochs=2, batch_size=8, augment=True)
    return list(found.model.parameters()), found.history["loss"]


def tuned(model):
    return list(
        clustr.fine_tune(model, images(), labels(), CLASSES, sampled=3, images=4, epochs=1, weight=0.5, augment=True).model.parameters()
    )


def loop(model):
    seen = clustr.cluster_classifier(model, images(), labels(), CLASSES)
    return attacks.clustr_pgd(seen, images(), labels(), 0.1, steps=2, restarts=2)


def long_path(model):
    path = train_path(model, images(9), labels(9), lr=0.05, steps=3, optimizer="adam", batch_size=4)
    return path.contributions(images(2, 1).double()), path.kernel(images(2, 1).double(), both=True)


def bent(model):
    found = bisected(model)
    own, other = found.classes.T
    split = Split(model)
    normals = geometry.gradient_normals(split, found.point, own, other)
    frames = geometry.tangent_frames(normals, 3)
    offsets = geometry.flat_spectrum(20, 16, dtype=torch.float32).reshape(20, *SHAPE) * 0.01
    sample = geometry.boundary_sample(split, found.near[:2], found.far[:2], found.point[:2], offsets)
    return (
        geometry.curvatures(split, found.point, own, normals, frames, 0.01),
        geometry.boundary_spectrum(sample.points[0].flatten(1)),
        sample,
    )


def shapes(model):
    x, angles = images().flatten(1)[:, :3].double(), [0.1, 0.3]
    points = geometry.triangulate(x, labels())
    exact = geometry.barycentric_weights(points, x + 0.01), geometry.gabriel(points), geometry.bounded_cells(points)
    return *exact, geometry.wedge_normals(3, angles), geometry.project_wedge(x, angles), geometry.wedge_probability(x, angles, 0.3)


def copied(model):
    build = functools.partial(models.mlp, SHAPE, (6,), CLASSES)
    return list(substitute(model, images(8), lambda seed: build(seed=seed), rounds=1, max_queries=12, epochs=2).model.parameters())


def built(model):
    return [list(models.build(name, (3, 32, 32), 10, seed=2).parameters()) for name in ("mlp", "lenet", "small_cnn")]


def given(model):
    sets = [data.load("digits", split) for split in data.SPLITS]
    return [(found.x, found.y, found.take(33, seed=4).x) for found in sets], data.two_gaussians(9, 1), data.moons(9, 1)


def named(model):
    few = {"train": 200, "draw": 2, "epochs": 1}
    random_weights = [networks.untrained(f"digits/{body}/softmax") for body in networks.BODIES if "digits" in networks.BODIES[body].data]
    trained = networks.get("digits:1,7/mlp-9/gauss", tuned=1, **few), networks.train("digits/mlp-9/magnet", probe=probe, **few).trace
    return [list(built.state_dict().values()) for built in (*random_weights, trained[0])], trained[1]


def probe(model):
    return [float(model.head.variance)] if hasattr(model.head, "variance") else [0.1]


def kept(model):
    """What the cache gives back the first time, and the second."""
    with tempfile.TemporaryDirectory() as folder:
        return [numbers(list(Cache(Path(folder)).once(several, images(2)).values())) for _ in range(2)]


def several(x):
    return {"x": x, "y": x.double(), "array": torch.from_numpy(x.numpy() + 1), "number": 0.1}


def drawn(model):
    _, ax = plots.plt.subplots()
    plots.cells(ax, lambda points: points.argmax(1), 2.0)
    found = torch.from_numpy(np.ascontiguousarray(ax.images[0].get_array()))
    plots.plt.close(ax.figure)
    return found


OTHERS = {
    "data": given, "networks": named, "cache": kept, "cells": drawn,
    "fit": fitted, "fine_tune": tuned, "clustr_pgd": loop, "long path": long_path, "curvatures": bent, "shapes": shapes,
    "substitute": copied, "build": built,
    "along_path": lambda model: smoothing.along_path(model, images(2), images(2, 4), points=3, samples=32),
    "stability_curve": lambda model: smoothing.stability_curve(model, images(4), [0.1, 0.3], samples=32),
    "class_clusters": lambda model: clustering.class_clusters(images().flatten(1), labels(), CLASSES, 2),
    "region": lambda model: (geometry.adversarial_directions(model.head.weight), geometry.cone_ray(model.head.weight)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kernel", {**KERNELS, **OTHERS})
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_defaults_of_device_and_dtype_change_nothing(kernel, dtype):
    run = {**KERNELS, **OTHERS}[kernel]
    expected = numbers(run(plain()))
    with other_defaults(dtype):
        found = numbers(run(plain()))
    assert len(found) == len(expected) > 0 and all(map(torch.equal, found, expected))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kernel", KERNELS)
def test_inference_mode_changes_nothing(kernel):
    expected = numbers(KERNELS[kernel](plain()))
    model = plain()
    with torch.inference_mode():
        found = numbers(KERNELS[kernel](model))
    assert len(found) == len(expected) > 0 and all(map(torch.equal, found, expected))


AUTOATTACK = ("APGD-CE", "FAB-T", "Square")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kernel", [*ASKED, *AUTOATTACK])
def test_images_in_any_order_of_memory_are_the_same_images(kernel, monkeypatch):
    model, usual = plain(), images
    model.body[1] = Layer(lambda layer, x: x.view(len(x), -1))  # which other orders do not allow
    libraries = {name: functools.partial(library_row, name=name) for name in AUTOATTACK}
    run = {**ASKED, **libraries}[kernel]
    expected = numbers(run(model))
    monkeypatch.setattr(sys.modules[__name__], "images", lambda *which: usual(*which).transpose(2, 3).contiguous().transpose(2, 3))
    assert not images().is_contiguous() and torch.equal(images(), usual())
    found = numbers(run(model))
    assert len(found) == len(expected) > 0
    assert all(torch.allclose(one, other, rtol=1e-5, atol=1e-6) for one, other in zip(found, expected, strict=True))


def library_row(model, name):
    return rows.autoattack(model, images(4), labels(4), 0.1, name=name, seed=0, queries=5)


@pytest.mark.parametrize("kernel", [*BOUNDED, *FOLLOWED])
def test_a_hook_on_all_modules_is_one_on_each(kernel):
    handle = nn.modules.module.register_module_forward_hook(lambda module, given, out: 2 * out)
    try:
        with pytest.raises(ValueError, match="has hooks"):
            KERNELS[kernel](plain())
    finally:
        handle.remove()
