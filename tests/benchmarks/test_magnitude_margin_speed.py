"""The magnitude-margin ratio beside a loop over the images and beside the bare passes that it must make, in one run.

``pytest tests/benchmarks/test_magnitude_margin_speed.py -s`` shows the ratios. As with the attacks, the time is reported and
the count of passes judged.
"""

import pytest
import torch
from attack_nets import Counted, looked
from test_attacks_speed import robust
from torch import nn
from turns import compare

from support.attacks import margin
from support.attacks.base import fast_rows
from support.evaluation import magnitude_margin_ratio


class Backward(torch.autograd.Function):
    """The identity, which counts the backward passes through it."""

    passes = 0

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        Backward.passes += 1
        return gradient


class BothWays(nn.Module):
    """A model that counts its passes, forward and back."""

    def __init__(self, model):
        super().__init__()
        self.model = Counted(model)

    def forward(self, x):
        return self.model(Backward.apply(x))


def one_by_one(model, x, y):
    """Equation 17 for an image at a time: a forward and a backward pass each, no batch."""
    ratios = []
    for image, label in zip(x.split(1), y.split(1), strict=True):
        leaf = image.clone().requires_grad_()
        distance = margin(model(leaf), label)
        (slope,) = torch.autograd.grad(distance.sum(), leaf)
        ratios.append(slope.abs().mean() / distance.detach())
    return torch.cat(ratios)


def whole_batch_for_each(model, x, y):
    """The authors' way: for every image two gradients, each through the whole batch."""
    leaf = x.clone().requires_grad_()
    scores = model(leaf)
    top = scores.topk(2).indices
    ratios = []
    for place in range(len(x)):
        first, second = top[place].tolist()
        own, other = (torch.autograd.grad(scores[place, k], leaf, retain_graph=True)[0][place] for k in (first, second))
        ratios.append((own - other).abs().mean() / (scores[place, first] - scores[place, second]).detach())
    return torch.stack(ratios)


def bare(model, x, rows):
    """What cannot be spared: the forward and backward passes alone."""

    def run():
        for batch in x.split(rows):
            leaf = batch.clone().requires_grad_()
            torch.autograd.grad(model(leaf).sum(), leaf)

    return run


@pytest.mark.parametrize(("name", "images"), [("MLP", 1024), ("LeNet", 1024), ("four convolutions", 128)])
def test_the_ratio_beside_its_bare_passes(benchmark, name, images):
    """Target: at most 1.2 times the bare passes at their best batch size."""
    model, x, y = robust(name, images)
    counted, before = BothWays(model), Backward.passes
    found = magnitude_margin_ratio(counted, x, y)
    assert Backward.passes - before == counted.model.passes - 3 == -(-images // fast_rows(x, model=model, backward=True))
    assert counted.model.images - 16 - looked(16) <= 1.1 * images  # without what finds out what a model must not do
    assert torch.allclose(found, one_by_one(model, x, y), rtol=1e-3)
    peers = {f"forward and backward by {size}": bare(model, x, min(size, images)) for size in (16, 64, 256)}
    compare(benchmark, f"ratio, {name}", lambda: magnitude_margin_ratio(model, x, y), peers)


@pytest.mark.parametrize("loop", [one_by_one, whole_batch_for_each])
@pytest.mark.parametrize("name", ["MLP", "LeNet"])
def test_the_ratio_beside_loops_over_the_images(benchmark, name, loop):
    """Target: at least 3 times faster than one image at a time (ratio at most 0.33), and many times than a batch for each."""
    model, x, y = robust(name, 64)
    assert torch.allclose(magnitude_margin_ratio(model, x, y), loop(model, x, y), rtol=1e-3)
    peers = {loop.__name__: lambda: loop(model, x, y)}
    compare(benchmark, f"ratio, {name}, 64 images", lambda: magnitude_margin_ratio(model, x, y), peers)
