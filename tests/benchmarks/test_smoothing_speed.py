"""Persistence beside the published loop over images and beside its floor: ``pytest tests/benchmarks/test_smoothing_speed.py -s``.

Times are CPU seconds of this process, in turns; the ratios are reported, and what is judged is the count of model evaluations, and that
the answers are those which other noise gives, within what sampling theory allows.
"""

import functools
import time

import pytest
import torch
from attack_nets import Counted, looked, regress
from scipy import stats
from torch import nn
from turns import compare

from support import data, models
from support.smoothing import bracketing, linear_beginning, persistence, stability

LOOP = {"samples": 1000, "max_steps": 12, "precision": 1e-3}  # the paper's samples for its figures; it prints no others


def fc100():
    """FC100-100-10 and 200 digits blown up to MNIST's size. Hidden weights as they are drawn, the last layer by regression."""
    parts = {name: data.load("digits", name) for name in ("train", "test")}
    wide = {name: nn.functional.interpolate(part.x, (28, 28), mode="bilinear").contiguous() for name, part in parts.items()}
    model = models.mlp((1, 28, 28), (100, 100), 10, seed=0)
    regress(model.body, model.head, wide["train"], parts["train"].y)
    return model, wide["test"][:200]


def timed(run):
    start = time.process_time()
    return run(), time.process_time() - start


def loop(model, x, seed):
    stream = torch.Generator().manual_seed(seed)
    found = [bracketing(model, image[None], generator=stream, **LOOP) for image in x]
    return torch.tensor([one.sigma for one in found], dtype=torch.float64), sum(one.queries for one in found)


def test_200_images_beside_the_published_loop(benchmark):
    """Target: at least 20 times faster."""
    model, x = fc100()
    assert linear_beginning(model, x) is not None
    (first, spent), theirs = timed(lambda: loop(model, x if not benchmark.disabled else x[:60], 1))
    persistence(model, x, samples=32)
    found, ours = timed(lambda: persistence(model, x, samples=2000))
    fewer = spent / len(first) / float(found.queries.double().mean())
    # Noise of its own tells what each answer is worth.
    fresh, sure = 4000, {"samples": 4000, "generator": torch.Generator().manual_seed(9)}
    at = stability(model, x, found.sigma, **sure) - 0.7
    error = (0.21 * (1 / 2000 + 1 / fresh)) ** 0.5
    report = {
        "times faster": theirs / len(first) / ours * len(x),
        "times fewer evaluations": fewer,
        "stability off by": float(at.abs().median()),
    }
    benchmark.extra_info |= report
    print("\n200 images, FC100-100-10: " + ", ".join(f"{name} {value:.3g}" for name, value in report.items()))
    assert fewer >= 3
    assert float(at.abs().median()) <= 5 * error
    # One interval of them all is wrong once in a million runs, whatever the images' noise shares.
    found, band = persistence(model, x, error=1e-6 / len(x)), {"confidence_level": 1 - 1e-6 / len(x)}
    for end, side, limit in ((found.lower, "high", 1), (found.upper, "low", -1)):
        inside = (end > 0) & end.isfinite()
        for share in stability(model, x[inside], end[inside], **sure).tolist():
            exact = getattr(stats.binomtest(round(share * fresh), fresh).proportion_ci(**band), side)
            assert limit * exact >= limit * 0.7
    benchmark.pedantic(lambda: persistence(model, x), rounds=1)


@pytest.mark.parametrize("clip", [False, True])
def test_a_generic_model_beside_its_bare_forward_passes(benchmark, clip):
    """Target: at most 1.25 times the passes that it spends, at the batch size at which they are fastest."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
        model = nn.Sequential(*body, nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 10)).eval()
        x = torch.rand(10 if benchmark.disabled else 60, 1, 28, 28)
    counted = Counted(model)
    found = persistence(counted, x, samples=600, clip=clip)
    total = int(found.queries.sum())
    assert counted.images == total + looked(len(x))  # nothing else is computed

    def bare(size):
        batch = torch.rand(size, 1, 28, 28)
        with torch.inference_mode():
            for _ in range(total // size):
                model(batch)

    peers = {f"forward by {size}": functools.partial(bare, size) for size in (64, 128, 192, 256, 512)}
    ours = functools.partial(persistence, model, x, samples=600, clip=clip)
    compare(benchmark, f"LeNet, {total} passes, clip {clip}", ours, peers)
