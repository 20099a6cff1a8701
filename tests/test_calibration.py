"""The attackers against known truth: what counts as found, and that ours find what is there and nothing else."""

import functools
import itertools
from dataclasses import replace

import pytest
import torch
from attack_nets import Counted, held_out, linear, pictures, trained
from torch import nn

from support import attacks, data
from support.common import paths
from support.evaluation import calibration, verified_properties
from support.evaluation.verified_properties import Properties
from support.models import published

needs_data = pytest.mark.skipif(not (paths.data_sets() / "vnncomp2021").is_dir(), reason="SKIPPED: no VNN-COMP 2021 under BOOK_DATA")


# --- what counts ------------------------------------------------------------------------------------------------------------------


def settled(votes: dict[bool, tuple[int, int]]) -> tuple[nn.Module, Properties]:
    """A linear network and properties whose truth follows from its weights; ``votes`` are those for each truth."""
    net, x = linear((1, 5, 5), 10, seed=3), pictures(60, (1, 5, 5), seed=4)
    y = net(x).argmax(1)
    weight = net[1].weight.detach().double()
    gap = weight[y][:, None] - weight
    low, high = (end.double().flatten(1)[:, None] for end in attacks.interval(x, 0.05))
    bias = net[1].bias.detach().double()
    least = torch.where(gap > 0, low, high).mul(gap).sum(2) + bias[y][:, None] - bias
    violated = least.scatter(1, y[:, None], torch.inf).amin(1) < 0
    assert 10 < int(violated.sum()) < 50
    count = torch.tensor([votes[bool(one)] for one in violated])
    eps = torch.full((60,), 0.05, dtype=torch.float64)
    return net, Properties(x, y, eps, ("net",) * 60, count)


def compare(monkeypatch, attacker, votes=None):
    net, given = settled(votes or {True: (0, 5), False: (5, 0)})
    monkeypatch.setattr(published, "network", lambda name: net)
    return calibration.compare("made up", attacker, given)


def test_of_a_linear_network_everything_that_is_violated_is_found_and_nothing_else(monkeypatch):
    row = compare(monkeypatch, calibration.ours("multi_targeted", attacks.multi_targeted))
    assert row.found == row.violated > 10 and row.faults == 0 < row.holds and row.missed == ()
    assert row.violated + row.holds == 60 and row.undecided == 0 and row.passes_found < row.passes_held


def test_a_success_where_most_tools_proved_there_is_none_is_a_fault(monkeypatch):
    row = compare(monkeypatch, calibration.ours("multi_targeted", attacks.multi_targeted), {True: (5, 1), False: (5, 0)})
    assert row.holds == 60 and row.violated == 0 and row.faults > 10 and row.passes_found == 0
    assert row.disputed == row.disputed_found == row.faults
    row = compare(monkeypatch, calibration.ours("multi_targeted", attacks.multi_targeted), {True: (0, 0), False: (1, 1)})
    assert row.undecided == 60 and row.open > 10 and row.holds == row.violated == 0 and 0 < row.disputed < 60 and row.disputed_found == 0


def test_an_attack_that_does_nothing_or_leaves_the_ball_finds_nothing(monkeypatch):
    idle = calibration.Attacker("idle", "nobody's", lambda model, x, y, eps: (x + 0 * model(x).sum(), None))
    row = compare(monkeypatch, idle)
    assert row.found == row.faults == 0 and len(row.missed) == row.violated and row.passes_found == row.passes_held == 1
    outside = calibration.Attacker("outside", "nobody's", lambda model, x, y, eps: (1 - x, None))
    assert compare(monkeypatch, outside).faults == 0
    lost = calibration.Attacker("lost", "nobody's", lambda model, x, y, eps: (x * torch.nan, None))
    assert compare(monkeypatch, lost).found == 0


def test_a_success_is_one_in_float32_and_in_float64():
    class Rounded(nn.Module):
        """What float32 makes of scores that float64 tells apart: the other class is ahead by rounding alone."""

        def forward(self, x):
            far = 1e8 if x.dtype == torch.float32 else 0.0
            first = x.flatten(1).sum(1) + far
            return torch.stack([first - far, torch.full_like(first, 0.3)], 1)

    x, y, eps = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0]), torch.zeros(1)
    assert bool(attacks.margin(Rounded()(x), y) < 0) and not bool(calibration.successes(Rounded(), x, y, eps, x))


@pytest.mark.filterwarnings("ignore:Please import")
def test_every_attack_of_the_table_runs_and_finds_nothing_that_is_not_there(monkeypatch):
    every = calibration.attackers(45)
    assert {attacker.library.split()[0] for attacker in every} == {"ours", "torchattacks", "foolbox"}
    monkeypatch.setattr(calibration, "STANDARD_STEPS", 5)
    noise = torch.get_rng_state()
    for attacker in calibration.attackers(45):
        row = compare(monkeypatch, attacker)
        assert row.faults == 0 and row.passes_held > 0, attacker
        assert row.found > 0.5 * row.violated or attacker.name.startswith("Square"), attacker
    assert torch.equal(torch.get_rng_state(), noise)


# --- multi_targeted ---------------------------------------------------------------------------------------------------------------


def test_an_image_that_holds_out_costs_what_is_said_and_more_rounds_lose_nothing():
    x, y = held_out(60)
    found = [attacks.multi_targeted(trained(), x, y, 0.06, steps=2, rounds=rounds, classes=4) for rounds in (1, 2, 3, 5)]
    for rounds, result in zip((1, 2, 3, 5), found, strict=True):
        assert bool((result.queries[~result.success] == rounds * 4 * 3 + 2).all()) and not bool(result.success.all())
    for fewer, more in itertools.pairwise(found):
        assert bool((more.success >= fewer.success).all()) and bool((more.margin[~more.success] <= fewer.margin[~more.success]).all())
        assert torch.equal(more.x_adv[fewer.success], fewer.x_adv[fewer.success])


def test_rounds_climb_the_difference_and_then_the_rivals_score_alone():
    """Two pixels: the label's score falls along the first, the rival's rises along the second; what is climbed shows where it ends."""

    class Two(nn.Module):
        def forward(self, x):
            return torch.stack([5 - x[:, 0], x[:, 1]], 1)

    x, y, eps = torch.full((1, 2), 0.5), torch.tensor([0]), 0.25
    moved = []

    class Seen(nn.Module):
        def forward(self, x):
            moved.append(x.detach().clone())
            return Two()(x)

    attacks.multi_targeted(Seen(), x, y, eps, steps=1, rounds=2)
    ends = [one[0].tolist() for one in moved if one[0, 1] == 0.75]
    assert ends[0] == [0.75, 0.75] and 0.375 <= ends[1][0] <= 0.625


@pytest.mark.parametrize("attack", ["multi_targeted", "pgd_targets"])
def test_sweeps_decide_linear_networks_as_the_closed_form_does(attack):
    right, total = calibration.exact_verdicts(getattr(attacks, attack), range(3))
    assert right == total == 600
    right, _ = calibration.exact_verdicts(attacks.fgsm, range(3))
    assert 300 < right < 600  # the corner of the loss is not that of the nearest rival


# --- verified properties ----------------------------------------------------------------------------------------------------------


@functools.cache
def row(benchmark: str, seed: int) -> calibration.Row:
    def find(model, x, y, eps, **settings):
        return attacks.multi_targeted(model, x, y, eps, generator=torch.Generator().manual_seed(seed), **settings)

    return calibration.compare(benchmark, calibration.ours("multi_targeted", find))


@needs_data
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", verified_properties.SETS)
def test_every_violated_property_is_found_and_none_that_holds(name, seed):
    found = row(name, seed)
    assert found.faults == 0 and found.missed == () and found.found == found.violated
    assert (found.violated, found.holds) == {"mnistfc": (22, 43), "oval21": (3, 17), "cifar10_resnet": (0, 58)}[name]


@needs_data
def test_fewer_passes_find_more_than_apgd():
    apgd = next(one for one in calibration.attackers(164) if one.name == "APGD-CE, 100 steps")
    for benchmark in ("mnistfc", "oval21"):
        other = calibration.compare(benchmark, apgd)
        assert row(benchmark, 0).found > other.found and row(benchmark, 0).passes_found < other.passes_found / 4


@needs_data
def test_where_one_tool_alone_found_a_violation_there_is_none_for_us():
    given = verified_properties.load("mnistfc")
    alone = (given.votes[:, 1] > 0) & ~given.violated & (given.votes[:, 0] != 1)
    found = calibration.compare("mnistfc", calibration.ours("multi_targeted", attacks.multi_targeted), given.take(alone))
    assert found.faults == found.open == 0 and found.holds + found.undecided == int(alone.sum()) > 40


# --- networks whose robustness is known -------------------------------------------------------------------------------------------


SOUND = [known for known in calibration.CONTROLS if known.network != "cifar10/provable-8"]  # whose file's number is no bound at 8/255


@needs_data
@pytest.mark.parametrize("known", SOUND, ids=lambda known: known.network)
def test_no_attack_goes_below_what_is_proven(known):
    seen = calibration.control(known, 300, rounds=1, classes=3)
    assert seen["of"] == 300 and seen["wrong"] < seen["attacked"]
    room = 3 * (known.unproven * (1 - known.unproven) / 300) ** 0.5  # these are the first 300 of 10,000 images
    assert seen["attacked"] / 300 <= known.unproven + room
    if known.published is not None:
        room = 3 * (known.published * (1 - known.published) / 300) ** 0.5
        assert seen["attacked"] / 300 >= known.published - room


def test_networks_count_what_they_are_shown():
    net, x = Counted(trained()), held_out(20)[0]
    counted = calibration.ours("multi_targeted", attacks.multi_targeted).find(net, x, net(x).argmax(1), torch.full((20,), 0.01))
    assert counted[0].shape == x.shape and net.images > 20 and bool((counted[1] <= 164).all())


def test_a_control_sees_the_whole_evaluation_at_its_radius(monkeypatch):
    """A linear model of two classes: who is right in the worst case is a closed form."""
    images, stream = data.load("digits", "test"), torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).requires_grad_(False)
    model[1].weight.copy_(torch.randn(2, 64, generator=stream))
    model[1].bias.zero_()
    gap = model[1].weight[0] - model[1].weight[1]
    x = images.x[:40]
    y = (x.flatten(1) @ gap < 0).long()
    given = replace(images.take(40), y=y, classes=("0", "1"))
    monkeypatch.setattr(calibration.data, "load", lambda name, split: given)
    monkeypatch.setattr(calibration.published, "network", {"digits/known": model}.__getitem__)
    low, high = attacks.interval(x, 0.1)
    side = torch.where(y == 0, 1.0, -1.0)[:, None] * gap
    least = torch.where(side > 0, low.flatten(1), high.flatten(1)).mul(side).sum(1)
    found = calibration.under_protocol("digits/known", 0.1, replace(calibration.PROTOCOL, images=40, square_images=40))
    assert found["rows"]["clean"] == [40, 40] and found["rows"]["worst case"] == [int((least > 0).sum()), 40] != [40, 40]
    assert {row for row, (_, of) in found["rows"].items() if of == 40} == set(found["rows"]) and not found["flags"]
