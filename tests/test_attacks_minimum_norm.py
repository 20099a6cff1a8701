"""Minimum-norm attacks: exact distances of linear networks in free space and in the box, the fewest pixels, peers, dead ends."""

import math

import pytest
import torch
from attack_nets import Counted, Recorder, classes_of, held_out, linear, pictures, trained
from test_attacks_minimal_l2 import nearest_wrong
from torch import nn

from support.attacks import fmn, lbfgs, margin, pgd, sigma_zero

SHAPE = (1, 5, 5)


def problem(classes, seed=0):
    model, x = linear(SHAPE, classes, seed=seed, dtype=torch.float64), pictures(80, SHAPE, seed=seed, dtype=torch.float64)
    return model, x, classes_of(model, x)


def size(change, norm=2):
    return change.flatten(1).norm(p=norm, dim=1)


def plane_distance(model, x, y, norm):
    """Exact distance (N,) to the nearest class of a linear model in all of space: the margin over the dual norm of the weights."""
    weight = model[1].weight.detach()
    scores = model(x).detach()
    gap = (weight[y][:, None] - weight).norm(p=1 if norm == math.inf else 2, dim=2)
    far = (scores.gather(1, y[:, None]) - scores) / gap
    return far.scatter(1, y[:, None], torch.inf).amin(1)


def fewest_wrong(model, x, y):
    """The fewest pixels (N,) whose change within [0,1] changes the class of a linear model: the largest gains first, for each rival."""
    weight, scores, flat = model[1].weight.detach(), model(x).detach(), x.flatten(1)
    channels = x.shape[1]
    found = []
    for rival in range(len(weight)):
        slope = weight[rival] - weight[y]
        each = torch.where(slope > 0, (1 - flat) * slope, -flat * slope).unflatten(1, (channels, -1)).sum(1)
        gains = each.sort(1, descending=True).values.cumsum(1)
        need = scores.gather(1, y[:, None]) - scores[:, [rival]]
        count = 1 + (gains <= need).sum(1)
        found.append(torch.where((y == rival) | (count > gains.shape[1]), torch.inf, count.double()))
    return torch.stack(found, 1).amin(1)


@pytest.mark.parametrize("norm", [2, math.inf])
def test_two_linear_classes_are_left_at_the_exact_distance_in_free_space(norm):
    model, x, y = problem(2)
    found = fmn(model, x, y, norm=norm, space="free")
    ratio = size(found.x_adv - x, norm) / plane_distance(model, x, y, norm)
    assert bool(found.success.all()) and float(ratio.min()) >= 1 and float(ratio.max()) < 1.001
    assert float(found.x_adv.min()) < 0 or float(found.x_adv.max()) > 1  # the box plays no part


def test_two_linear_classes_are_left_at_the_exact_distance_in_the_box():
    model, x, y = problem(2)
    found, exact = fmn(model, x, y), nearest_wrong(model, x, y)
    ratio = size(found.x_adv - x) / exact
    assert bool(found.success.all()) and float(ratio.min()) >= 1 - 1e-9 and float(ratio.max()) < 1.005
    assert float((exact / plane_distance(model, x, y, 2)).max()) > 1.01  # the box does play a part


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_of_ten_linear_classes_the_nearest_is_found_nearly(seed):
    """adv-lib's own bound for attacks of this kind is 1.25."""
    model, x, y = problem(10, seed)
    exact = {"box": nearest_wrong(model, x, y), "free": plane_distance(model, x, y, 2)}
    for space, distance in exact.items():
        found = fmn(model, x, y, space=space)
        ratio = size(found.x_adv - x) / distance
        assert bool(found.success.all()) and float(ratio.min()) >= 1 - 1e-9 and float(ratio.mean()) < 1.05
    found = fmn(model, x, y, norm=math.inf, space="free")
    ratio = size(found.x_adv - x, math.inf) / plane_distance(model, x, y, math.inf)
    assert bool(found.success.all()) and float(ratio.min()) >= 1 - 1e-9 and float(ratio.mean()) < 1.05


@pytest.mark.parametrize("classes", [2, 10])
def test_the_fewest_pixels_of_a_linear_network(classes):
    model, x, y = problem(classes)
    found, exact = sigma_zero(model, x, y), fewest_wrong(model, x, y)
    ratio = (found.x_adv != x).flatten(1).sum(1) / exact
    assert bool(found.success.all()) and float(ratio.min()) >= 1 and float(ratio.mean()) < 1.25
    assert float((ratio == 1).double().mean()) > 0.7 and float(exact.max()) > 2


def test_a_pixel_of_a_picture_is_a_position():
    model, x = linear((3, 5, 5), 4, dtype=torch.float64), pictures(30, (3, 5, 5), dtype=torch.float64)
    y = classes_of(model, x)
    found, flat = sigma_zero(model, x, y), sigma_zero(nn.Sequential(nn.Unflatten(1, (3, 5, 5)), model), x.flatten(1), y)
    positions = (found.x_adv != x).any(1).flatten(1).sum(1)
    ratio = positions / fewest_wrong(model, x, y)
    assert float(ratio.min()) >= 1 and float((ratio == 1).double().mean()) > 0.8
    assert bool(found.success.all()) and float(positions.double().mean()) < float((flat.x_adv != x.flatten(1)).sum(1).double().mean())


class Ellipse(nn.Module):
    """Two classes of points in the plane: inside an ellipse about (.5, .5), and outside."""

    HALF = torch.tensor([0.4, 0.1], dtype=torch.float64)

    def forward(self, x):
        inside = 5 - 5 * ((x - 0.5) / self.HALF).square().sum(1)
        return torch.stack([inside, 0 * inside], 1)


def test_on_a_curved_boundary_the_path_slides_to_the_nearest_point():
    turn = torch.linspace(0, 2 * math.pi, 100_000, dtype=torch.float64)
    boundary = 0.5 + Ellipse.HALF * torch.stack([turn.cos(), turn.sin()], 1)
    stream = torch.Generator().manual_seed(0)
    x = 0.5 + Ellipse.HALF * 0.6 * (2 * torch.rand(60, 2, generator=stream, dtype=torch.float64) - 1)
    y = torch.zeros(60, dtype=torch.int64)
    found = fmn(Ellipse(), x, y, space="free")
    ratio = size(found.x_adv - x) / torch.cdist(x, boundary).amin(1)
    assert bool(found.success.all()) and float(ratio.min()) >= 1 - 1e-6 and float(ratio.max()) < 1.005


@pytest.mark.parametrize("attack", [fmn, sigma_zero])
def test_of_all_wrong_images_that_were_met_none_is_nearer(attack):
    x, y = held_out(20)
    x, y = x[classes_of(trained(), x) == y], y[classes_of(trained(), x) == y]
    met = Recorder(trained())
    for image, label in zip(x.split(1), y.split(1), strict=True):
        met.seen.clear()
        found = attack(met, image, label, steps=40)
        seen = torch.cat(met.seen)
        wrong = seen[(margin(trained()(seen), label.expand(len(seen))) < 0) & ((seen - image).flatten(1).norm(dim=1) < 10)]
        far = (lambda change: (change != 0).any(1).flatten(1).sum(1).float()) if attack is sigma_zero else size
        assert bool(found.success) and float(far(found.x_adv - image)) <= float(far(wrong - image).min()) * (1 + 1e-5)


def test_on_a_trained_network_hardly_anything_is_nearer():
    x, y = held_out(60)
    found = fmn(trained(), x, y, norm=math.inf)
    radius = size(found.x_adv - x, math.inf)
    assert bool(found.success.all())
    missed = ~pgd(trained(), x, y, radius.double().clamp(max=1) * 0.9, steps=40, restarts=3, loss="margin").success
    assert float(missed.double().mean()) > 0.8  # a little inside, hardly anything is left
    ours, other = fmn(trained(), x, y), lbfgs(trained(), x, y)
    ratio = (size(ours.x_adv - x) / size(other.x_adv - x))[ours.queries > 2]
    assert float(ratio.median()) < 1.01 and float(ratio.mean()) < 1.1
    assert float(ours.queries.double().mean()) < float(other.queries.double().mean())


def test_foolbox_finds_nothing_nearer_by_more_than_a_little():
    foolbox = pytest.importorskip("foolbox")
    x, y = held_out(40)
    peer = foolbox.attacks.L2FMNAttack(steps=100)
    with torch.random.fork_rng():
        _, theirs, won = peer(foolbox.PyTorchModel(trained(), bounds=(0, 1)), x, y, epsilons=None)
    ours = fmn(trained(), x, y)
    both = won & ours.success
    assert float(both.double().mean()) > 0.9
    assert float(size(ours.x_adv - x)[both].mean()) < 1.05 * float(size(theirs - x)[both].mean())


@pytest.mark.parametrize(("attack", "more"), [(fmn, 13), (sigma_zero, 3)])
def test_queries_are_what_is_said_and_more_steps_are_no_farther(attack, more):
    x, y = held_out(16)
    counted = Counted(trained())
    found = attack(counted, x, y, steps=20)
    right = classes_of(trained(), x) == y
    assert bool((found.queries[right] == 20 + more).all()) and bool((found.queries[~right] == 2).all())
    assert counted.images >= int(found.queries.sum())


@pytest.mark.parametrize("attack", [fmn, sigma_zero])
def test_what_cannot_be_crossed_is_returned_unsuccessful_with_its_least_margin(attack):
    class Sure(nn.Module):
        """The first class leads everywhere."""

        def forward(self, x):
            total = x.flatten(1).mean(1)
            return torch.stack([5 + total, total.square()], 1)

    x, y = pictures(12, SHAPE), torch.zeros(12, dtype=torch.int64)
    found = attack(Sure(), x, y, steps=10)
    assert not bool(found.success.any()) and bool((found.margin <= margin(Sure()(x), y)).all())
    flat = attack(lambda z: torch.stack([2 + 0 * z.flatten(1).sum(1), 0 * z.flatten(1).sum(1)], 1), x, y, steps=10)
    assert torch.equal(flat.x_adv, x) and not bool(flat.success.any())
