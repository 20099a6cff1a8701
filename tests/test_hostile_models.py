"""Every kernel that takes a model, on every hostile model: right, or refused with the reason; and under any default of device and dtype."""

import contextlib
import dataclasses
import random

import numpy as np
import pytest
import torch
from hostile_models import CLASSES, HOSTILE, SHAPE
from torch import nn

from support import attacks, certificates, evaluation, geometry, smoothing, training
from support.path_kernel import ntk, train_path

BUDGET = evaluation.Budget(
    images=8, noise_draws=1, bim=(2,), pgd_steps=2, targeted_images=4, square_images=8, square_queries=3, hard_label_images=4,
    hard_label_queries=4, sweep=(0.5,), sweep_images=2,
)  # fmt: skip


def images(count=24, seed=3):
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def labels(count=24):
    return torch.arange(count) % CLASSES


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
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_is_treated_rightly_or_refused(name, kernel):
    hostile = HOSTILE[name]
    kind = "asked" if kernel in ASKED else "bounded" if kernel in BOUNDED else "followed"
    reason = hostile.but.get(kernel, getattr(hostile, kind))
    if reason == "":
        pytest.skip("nothing is promised")
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
