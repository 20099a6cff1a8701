"""One-pixel searches: brute force and closed forms on 4x4 images, the two strategies, success rules, a second library."""

import itertools

import numpy as np
import pytest
import torch
import torchattacks
from attack_nets import Counted, classes_of, convolutional, held_out, linear, margin_now, never, pictures, same, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import nn

import support.common.vision  # noqa: F401  torchattacks imports torchvision, which may need this door
from support import attacks
from support.attacks import one_pixel
from support.attacks.one_pixel import _others, _plans, _trial


def search(model, x, y, **options):
    """The search with little work."""
    return one_pixel(model, x, y, **{"population": 30, "generations": 5, **options})


def brute_force(model, x, y):
    """Least margin of each image over all positions and colour corners, the image itself included: one candidate at a time."""
    least = margin_now(model, x, y)
    for row, column in np.ndindex(*x.shape[2:]):
        for colour in itertools.product((0.0, 1.0), repeat=x.shape[1]):
            candidate = x.clone()
            candidate[:, :, row, column] = torch.tensor(colour, dtype=x.dtype)
            least = torch.minimum(least, margin_now(model, candidate, y))
    return least


def changed_pixels(x, x_adv):
    return (x != x_adv).any(1).flatten(1).sum(1)


# Optima.


@pytest.mark.parametrize("strategy", ["best1bin", "rand1bin"])
@pytest.mark.parametrize("channels", [1, 3])
def test_differential_evolution_over_two_colour_levels_finds_the_brute_force_optimum(strategy, channels):
    model, x = convolutional(channels, 4, 5, sharp=4.0), pictures(12, (channels, 4, 4))
    y, least = classes_of(model, x), brute_force(model, x, classes_of(model, x))
    found = one_pixel(model, x, y, population=400, generations=10, levels=2, strategy=strategy, success=never)
    assert torch.allclose(found.margin, least, atol=1e-5)


def test_linear_models_have_a_closed_form():
    model, x = linear((3, 4, 4), 2, dtype=torch.float64), pictures(40, (3, 4, 4), dtype=torch.float64)
    y = classes_of(model, x)
    weight = model[1].weight.detach()
    slope = (weight[y] - weight[1 - y]).view_as(x)
    gain = torch.where(slope > 0, slope * x, slope * (x - 1)).sum(1).flatten(1).amax(1)  # the most that one pixel takes off the margin
    assert torch.allclose(brute_force(model, x, y), margin_now(model, x, y) - gain, rtol=0, atol=1e-12)
    # Evolution over 16 * 256**3 pixels is never better; it ends at the optimum for three images in four, elsewhere at another pixel's.
    evolved = one_pixel(model, x, y, population=400, generations=60, success=never)
    share = (margin_now(model, x, y) - evolved.margin) / gain
    assert bool((share <= 1 + 1e-12).all())
    assert int((share > 1 - 1e-12).sum()) >= 30 and share.mean() > 0.98


# What a candidate may be.


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 3]), st.sampled_from([2, 5, 256]), st.sampled_from(["best1bin", "rand1bin"]))
def test_at_most_one_pixel_changes_to_one_of_the_levels(seed, channels, levels, strategy):
    model, x = convolutional(channels, 5, 4, seed=seed), pictures(10, (channels, 5, 5), seed=seed)
    stream = torch.Generator().manual_seed(seed)
    y = classes_of(model, x)
    found = one_pixel(model, x, y, population=12, generations=6, levels=levels, strategy=strategy, recombination=0.7, generator=stream)
    assert found.x_adv.shape == x.shape and bool((changed_pixels(x, found.x_adv) <= 1).all())
    assert bool(((found.x_adv >= 0) & (found.x_adv <= 1)).all())
    changed = found.x_adv[found.x_adv != x] * (levels - 1)
    assert torch.allclose(changed, changed.round(), atol=1e-4)
    assert torch.equal(found.success, margin_now(model, found.x_adv, y) < 0)
    assert bool((found.margin <= margin_now(model, x, y) + 1e-6).all())


def test_all_pixels_of_oblong_images_are_reached():
    x, y = torch.zeros(1, 1, 3, 4), torch.zeros(1, dtype=torch.int64)

    class Only(nn.Module):
        """Class 1 wins only if one certain pixel is bright."""

        pixel = 0

        def forward(self, x):
            bright = x.flatten(1)
            return torch.stack([torch.zeros_like(bright[:, 0]), bright[:, self.pixel] - 0.5], 1)

    model = Only()
    for pixel in range(12):
        model.pixel = pixel
        found = search(model, x, y, population=100)
        assert bool(found.success) and int(found.x_adv.flatten().nonzero()) == pixel


# Differential evolution itself.


def test_partners_are_distinct_and_uniform():
    stream, counts = torch.Generator().manual_seed(0), torch.zeros(3, 7, 7)
    for uniform in torch.rand((400, 1, 3, 7), generator=stream):
        picked = [partner[0] for partner in _others(uniform)]
        everyone = torch.stack([torch.arange(7), *picked])
        assert bool((everyone.sort(0).values.diff(dim=0) > 0).all())
        for which, partner in enumerate(picked):
            counts[which, torch.arange(7), partner] += 1
    expected = 400 / 6
    off = counts[:, ~torch.eye(7, dtype=torch.bool)]
    # A chi-squared statistic of 18 rows of 6 cells each, 5 degrees of freedom a row: 105 on average; 170 is met once in 20,000 times.
    assert counts[:, torch.eye(7, dtype=torch.bool)].sum() == 0
    assert ((off - expected) ** 2 / expected).sum() < 105 / 5 * 5 * (21 / 18) + 65


def reference_trial(members, values, strategy, factor, crossed, partners, anew):
    """The mutation, crossover and repair of scipy's best1bin and rand1bin, member by member."""
    trial = members.copy()
    for image in range(len(members)):
        best = members[image, values[image].argmin()]
        for i in range(members.shape[1]):
            a, b, c = (int(partner[i]) for partner in partners)
            base = best if strategy == "best1bin" else members[image, c]
            for d in range(members.shape[2]):
                if crossed[i, d]:
                    trial[image, i, d] = base[d] + factor * (members[image, a, d] - members[image, b, d])
                if not 0 <= trial[image, i, d] <= 1:
                    trial[image, i, d] = anew[i, d]
    return trial


@pytest.mark.parametrize("strategy", ["best1bin", "rand1bin"])
@pytest.mark.parametrize("recombination", [0.0, 0.6, 1.0])
def test_trials_are_those_of_a_loop_over_members(strategy, recombination):
    members, values = torch.rand(3, 9, 5, dtype=torch.float64), torch.randn(3, 9)
    plans = list(_plans(12, 9, 5, recombination, torch.Generator().manual_seed(5), members))
    assert len(plans) == 12 and len({float(plan.factor) for plan in plans}) == 12
    for plan in plans:
        assert 0.5 <= float(plan.factor) < 1 and plan.crossed.any(1).all()
        expected = reference_trial(members.numpy(), values.numpy(), strategy, float(plan.factor), plan.crossed, plan.partners, plan.anew)
        found = _trial(members, values, strategy, plan)
        assert torch.allclose(found, torch.from_numpy(expected), rtol=0, atol=1e-15)
        assert bool(((found >= 0) & (found <= 1)).all())
    share = torch.stack([plan.crossed for plan in plans]).double().mean().item()
    assert share == pytest.approx(recombination + (1 - recombination) / 5, abs=0.08)  # one coordinate of five always crosses
    fewer = _plans(3, 9, 5, recombination, torch.Generator().manual_seed(5), members)
    assert all(torch.equal(few.anew, many.anew) for few, many in zip(fewer, plans, strict=False))


def test_the_first_population_is_tested_and_costs_its_passes():
    (x, y), model = held_out(60), Counted(trained())
    y = torch.where(torch.arange(60) < 4, (y + 1) % 10, y)  # wrong from the start
    found = one_pixel(model, x, y, population=50, generations=0)
    clean = classes_of(trained(), x) != y
    assert int(found.success.sum()) > int(clean.sum()) >= 4
    assert found.queries[clean].unique().tolist() == [2] and found.queries[~clean].unique().tolist() == [52]
    assert torch.equal(found.x_adv[clean], x[clean])
    assert int(found.queries.sum()) <= model.images <= int(found.queries.sum()) + 16 * 50


def test_generations_go_on_where_fewer_stopped():
    x, y = held_out(60)
    runs = [one_pixel(trained(), x, y, population=20, generations=count) for count in (0, 3, 12)]
    for few, more in itertools.pairwise(runs):
        assert torch.equal(few.x_adv[few.success], more.x_adv[few.success])
        assert bool((more.margin <= few.margin)[~more.success].all())
        assert torch.equal(few.queries[few.success], more.queries[few.success])
    assert int(runs[2].success.sum()) > int(runs[0].success.sum())
    held = ~runs[2].success
    assert runs[2].queries[held].unique().tolist() == [20 * 13 + 2]


# Success rules.


def sure_error(scores, y):
    """hess2020's rule for Gauss networks: misclassified, with a confidence above 0.1 (here of a Gauss head, exp of the best score)."""
    return (scores.argmax(1) != y) & (scores.amax(1).exp() > 0.1)


class Gauss(nn.Module):
    """Scores -0.3 distance^2 of the trained network's outputs to ten centres."""

    def __init__(self):
        super().__init__()
        self.net = trained()

    def forward(self, x):
        features = self.net(x) / 2
        return -0.3 * (features[:, None] - torch.eye(10)).square().sum(2)


def test_the_success_rule_decides_what_ends_a_search():
    (x, y), model = held_out(80), Gauss()
    plain, ruled = search(model, x, y), search(model, x, y, success=sure_error)
    with torch.no_grad():
        assert torch.equal(ruled.success, sure_error(model(ruled.x_adv), y))
        assert torch.equal(plain.success, model(plain.x_adv).argmax(1) != y)
    assert bool((ruled.success <= plain.success).all()) and 0 < int(ruled.success.sum()) < int(plain.success.sum())
    assert bool((ruled.margin[ruled.success] < 0).all())
    swapped = search(model, x, y, success=lambda scores, y: attacks.margin(scores, y) < 0)
    assert same(swapped, plain)


def test_another_objective_is_lowered():
    x, y = held_out(30)
    confidence = lambda scores, y: scores.log_softmax(1).gather(1, y[:, None])[:, 0]  # noqa: E731
    found, other = (search(trained(), x, y, success=never, **options) for options in ({"objective": confidence}, {}))
    with torch.no_grad():
        assert confidence(trained()(found.x_adv), y).sum() <= confidence(trained()(other.x_adv), y).sum()
        assert bool((confidence(trained()(found.x_adv), y) <= confidence(trained()(x), y) + 1e-6).all())
    # A hit counts whatever its value: with the objective upside down, too.
    upside_down = search(trained(), x, y, objective=lambda scores, y: -attacks.margin(scores, y))
    assert torch.equal(upside_down.success, upside_down.queries < 30 * 6 + 2) and bool(upside_down.success.any())
    undefined = search(trained(), x, y, success=never, objective=lambda scores, y: scores[:, 0] * torch.nan)
    assert torch.equal(undefined.x_adv, x)


# Another library.


def test_it_breaks_what_torchattacks_one_pixel_breaks():
    (x, y), model = held_out(60), trained()
    right = classes_of(model, x) == y
    x, y = x[right], y[right]
    with torch.random.fork_rng(), np.errstate(divide="ignore"):
        state = np.random.get_state()  # its differential evolution draws from numpy's global generator
        np.random.seed(0)
        theirs = torchattacks.OnePixel(model, pixels=1, steps=10, popsize=10)(x, y)
        np.random.set_state(state)
    broken = classes_of(model, theirs) != y
    assert int(broken.sum()) >= 3
    ours = one_pixel(model, x, y, population=9, generations=10).success  # a popsize of 10 over three dimensions: 3 * 3 members
    # The draws differ. Which of two equal searches is the one that breaks an image is the toss of a fair coin.
    only_they, only_we = int((broken & ~ours).sum()), int((ours & ~broken).sum())
    assert bool(ours.any()) and binomtest(only_they, max(only_they + only_we, 1)).pvalue > 1e-3
    # With a real budget all that it breaks falls.
    x, y = x[broken], y[broken]
    assert bool(one_pixel(model, x, y, population=200, generations=20).success.all())


# Bad input (what all attacks share is in test_attacks_contract.py).


def test_rules_that_return_something_else_are_refused():
    net, x, y = linear((1, 4, 4), 3), pictures(4, (1, 4, 4)), torch.tensor([0, 1, 2, 0])
    for options, message in (
        ({"success": lambda scores, y: attacks.margin(scores, y)}, "success must return one bool a row.*float32"),
        ({"success": lambda scores, y: scores > 0}, r"returned torch.bool \(4, 3\)"),
        ({"success": lambda scores, y: True}, "returned bool"),
        ({"objective": lambda scores, y: scores.argmax(1)}, "objective must return one floating value a row.*int64"),
        ({"objective": lambda scores, y: 0.0}, "returned float"),
    ):
        with pytest.raises(ValueError, match=message):
            search(net, x, y, **options)
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        search(net, x.flatten(1), y)
