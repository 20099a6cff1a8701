"""One-pixel searches: brute force and closed forms on 4x4 images, the two strategies, success rules, independence, a second library."""

import itertools

import numpy as np
import pytest
import torch
import torchattacks
from attack_nets import Counted, classes_of, convolutional, held_out, linear, margin_now, never, pictures, same, same_verdicts, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import support.common.vision  # noqa: F401  torchattacks imports torchvision, which may need this door
from support import attacks
from support.attacks import one_pixel, one_pixel_corners
from support.attacks.one_pixel import _others, _plans, _trial

SEARCHES = [one_pixel, one_pixel_corners]


def search(attack, model, x, y, **options):
    """Either search, with little work."""
    if attack is one_pixel:
        return one_pixel(model, x, y, **{"population": 30, "generations": 5, **options})
    options.pop("population", None)
    return one_pixel_corners(model, x, y, **options)


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


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_corner_search_is_brute_force(channels, seed):
    model, x = convolutional(channels, 4, 5, seed=seed, sharp=4.0), pictures(12, (channels, 4, 4), seed=seed)
    y, least = classes_of(model, x), brute_force(model, x, classes_of(model, x))
    found = one_pixel_corners(model, x, y, success=never)
    assert torch.allclose(found.margin, least, atol=1e-5) and not bool(found.success.any())
    assert torch.equal(one_pixel_corners(model, x, y).success, least < 0)
    assert int((least < 0).sum()) > 0
    assert found.queries.unique().tolist() == [16 * 2**channels + 2]


@pytest.mark.parametrize("strategy", ["best1bin", "rand1bin"])
@pytest.mark.parametrize("channels", [1, 3])
def test_differential_evolution_over_two_colour_levels_finds_the_brute_force_optimum(strategy, channels):
    model, x = convolutional(channels, 4, 5, sharp=4.0), pictures(12, (channels, 4, 4))
    y, least = classes_of(model, x), brute_force(model, x, classes_of(model, x))
    found = one_pixel(model, x, y, population=400, generations=10, levels=2, strategy=strategy, success=never)
    assert torch.allclose(found.margin, least, atol=1e-5)


def test_linear_models_have_a_closed_form_that_both_searches_reach():
    model, x = linear((3, 4, 4), 2, dtype=torch.float64), pictures(40, (3, 4, 4), dtype=torch.float64)
    y = classes_of(model, x)
    weight = model[1].weight.detach()
    slope = (weight[y] - weight[1 - y]).view_as(x)
    gain = torch.where(slope > 0, slope * x, slope * (x - 1)).sum(1).flatten(1).amax(1)  # the most that one pixel takes off the margin
    least = margin_now(model, x, y) - gain
    corners = one_pixel_corners(model, x, y, success=never)
    assert torch.allclose(corners.margin, least, rtol=0, atol=1e-12)
    assert torch.equal(one_pixel_corners(model, x, y).success, least < 0) and 0 < int((least < 0).sum()) < 40
    # Evolution over 16 * 256**3 pixels is never better; it ends at the optimum for three images in four, elsewhere at another pixel's.
    evolved = one_pixel(model, x, y, population=400, generations=60, success=never)
    share = (margin_now(model, x, y) - evolved.margin) / gain
    assert bool((share <= 1 + 1e-12).all())
    assert int((share > 1 - 1e-12).sum()) >= 30 and share.mean() > 0.98


class Bump(nn.Module):
    """Class 1 wins only where some pixel is close to one colour inside the cube, which no corner is."""

    def __init__(self, colour):
        super().__init__()
        self.register_buffer("colour", torch.tensor(colour)[:, None, None])

    def forward(self, x):
        distance = (x - self.colour).square().sum(1).flatten(1).amin(1)
        return torch.stack([torch.zeros_like(distance), 0.02 - distance], 1)


def test_colour_ascent_finds_what_no_corner_shows():
    model, x, y = Bump([0.2, 0.7, 0.4]), torch.zeros(5, 3, 4, 4), torch.zeros(5, dtype=torch.int64)
    assert not bool(one_pixel_corners(model, x, y).success.any())
    found = one_pixel_corners(model, x, y, ascent=3, ascent_steps=12)
    assert bool(found.success.all()) and torch.equal(changed_pixels(x, found.x_adv), torch.ones(5, dtype=torch.int64))
    assert bool(one_pixel(model, x, y, population=100, generations=20).success.all())
    held = one_pixel_corners(model, x, y, ascent=3, ascent_steps=12, success=never)
    assert held.queries.unique().tolist() == [16 * 8 + 3 * 12 + 2]
    assert bool((held.margin <= one_pixel_corners(model, x, y, success=never).margin).all())


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
    for pixel, attack in itertools.product(range(12), SEARCHES):
        model.pixel = pixel
        found = search(attack, model, x, y, population=100)
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
    plans = list(_plans(12, 9, 5, (0.5, 1.0), recombination, torch.Generator().manual_seed(5), members))
    assert len(plans) == 12 and len({float(plan.factor) for plan in plans}) == 12
    for plan in plans:
        assert 0.5 <= float(plan.factor) < 1 and plan.crossed.any(1).all()
        expected = reference_trial(members.numpy(), values.numpy(), strategy, float(plan.factor), plan.crossed, plan.partners, plan.anew)
        found = _trial(members, values, strategy, plan)
        assert torch.allclose(found, torch.from_numpy(expected), rtol=0, atol=1e-15)
        assert bool(((found >= 0) & (found <= 1)).all())
    share = torch.stack([plan.crossed for plan in plans]).double().mean().item()
    assert share == pytest.approx(recombination + (1 - recombination) / 5, abs=0.08)  # one coordinate of five always crosses
    fewer = _plans(3, 9, 5, (0.5, 1.0), recombination, torch.Generator().manual_seed(5), members)
    assert all(torch.equal(few.anew, many.anew) for few, many in zip(fewer, plans, strict=False))


def test_the_first_population_is_tested_and_costs_its_passes():
    (x, y), model = held_out(60), Counted(trained())
    found = one_pixel(model, x, y, population=50, generations=0)
    clean = classes_of(trained(), x) != y
    assert int(found.success.sum()) > int(clean.sum())
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
        features = self.net(x) / 8
        return -0.3 * (features[:, None] - torch.eye(10)).square().sum(2)


@pytest.mark.parametrize("attack", SEARCHES)
def test_the_success_rule_decides_what_ends_a_search(attack):
    (x, y), model = held_out(80), Gauss()
    plain, ruled = search(attack, model, x, y), search(attack, model, x, y, success=sure_error)
    with torch.no_grad():
        assert torch.equal(ruled.success, sure_error(model(ruled.x_adv), y))
        assert torch.equal(plain.success, model(plain.x_adv).argmax(1) != y)
    assert bool((ruled.success <= plain.success).all()) and 5 < int(ruled.success.sum()) < int(plain.success.sum())
    assert bool((ruled.margin[ruled.success] < 0).all())
    swapped = search(attack, model, x, y, success=lambda scores, y: attacks.margin(scores, y) < 0)
    assert same(swapped, plain)


@pytest.mark.parametrize("attack", SEARCHES)
def test_another_objective_is_lowered(attack):
    x, y = held_out(30)
    confidence = lambda scores, y: scores.log_softmax(1).gather(1, y[:, None])[:, 0]  # noqa: E731
    found, other = (search(attack, trained(), x, y, success=never, **options) for options in ({"objective": confidence}, {}))
    with torch.no_grad():
        assert confidence(trained()(found.x_adv), y).sum() <= confidence(trained()(other.x_adv), y).sum()
        assert bool((confidence(trained()(found.x_adv), y) <= confidence(trained()(x), y) + 1e-6).all())
    # A hit counts whatever its value: with the objective upside down, too, an exhaustive search finds one where there is one.
    upside_down = search(attack, trained(), x, y, objective=lambda scores, y: -attacks.margin(scores, y))
    assert bool((upside_down.margin[upside_down.success] < 0).all())
    if attack is one_pixel_corners:
        assert torch.equal(upside_down.success, one_pixel_corners(trained(), x, y).success)
    undefined = search(attack, trained(), x, y, success=never, objective=lambda scores, y: scores[:, 0] * torch.nan)
    assert torch.equal(undefined.x_adv, x)


# Independence.


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(SEARCHES), st.sampled_from([20, 130]))
def test_order_and_neighbours_do_not_matter(seed, attack, population):
    stream = torch.Generator().manual_seed(seed)
    x, y = held_out(48)
    options = {"population": population}
    found = search(attack, trained(), x[:24], y[:24], **options)
    order = torch.randperm(24, generator=stream)
    assert same(search(attack, trained(), x[:24][order], y[:24][order], **options), found, order)
    mine = torch.rand(24, generator=stream) < 0.4
    mixed_x = torch.where(mine[:, None, None, None], x[:24], x[24:])
    mixed = search(attack, trained(), mixed_x, torch.where(mine, y[:24], y[24:]), **options)
    for name in ("x_adv", "success", "margin", "queries"):
        assert torch.equal(getattr(mixed, name)[mine], getattr(found, name)[mine]), name


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 300), st.sampled_from(SEARCHES))
def test_batch_size_and_number_of_images_change_no_verdict(batch_size, attack):
    x, y = held_out(12)
    options = {"population": 20, "generations": 3} if attack is one_pixel else {}
    found = search(attack, trained(), x, y, **options)
    assert same_verdicts(search(attack, trained(), x, y, batch_size=batch_size, **options), found)
    few = search(attack, trained(), x[:3], y[:3], **options)
    assert same_verdicts(few, type(found)(found.x_adv[:3], found.success[:3], found.margin[:3], found.queries[:3]))


def test_draws_come_from_the_generator_alone_and_do_not_depend_on_the_images():
    x, y = held_out(20)
    noise, states = torch.get_rng_state(), []
    for labels in (y, (classes_of(trained(), x) + 1) % 10):  # a usual search, and one that is over at once
        stream = torch.Generator().manual_seed(1)
        one_pixel(trained(), x, labels, population=10, generations=4, strategy="rand1bin", generator=stream)
        states.append(stream.get_state())
    assert torch.equal(*states) and torch.equal(torch.get_rng_state(), noise)
    default = search(one_pixel, trained(), x, y, success=never)
    assert same(default, search(one_pixel, trained(), x, y, success=never, generator=torch.Generator().manual_seed(attacks.SEED)))
    other = search(one_pixel, trained(), x, y, success=never, generator=torch.Generator().manual_seed(9))
    assert not torch.equal(default.x_adv, other.x_adv)


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
    ours = one_pixel(model, x, y, population=9, generations=10)  # what a popsize of 10 comes to over three dimensions: 3 * 3 members
    # Different draws at a tiny budget: rates within a tenth of the images.
    assert ours.success.double().mean().item() == pytest.approx(broken.double().mean().item(), abs=0.1)
    # With a real budget, and by the exhaustive search with ascent, all that it breaks falls.
    x, y = x[broken], y[broken]
    assert bool(one_pixel(model, x, y, population=200, generations=20).success.all())
    assert bool(one_pixel_corners(model, x, y, ascent=16).success.all())


# Bad input (what all attacks share is in test_attacks_gradient.py).


class Bomb(nn.Module):
    def forward(self, x):
        raise AssertionError("the model was called before the input was checked")


X, Y = pictures(4, (1, 4, 4)), torch.tensor([0, 1, 2, 0])
BAD = {
    "vectors": (SEARCHES, {"x": X.flatten(1)}, r"\(N, C, H, W\)"),
    "success": (SEARCHES, {"success": "misclassified"}, "success must be None or a callable"),
    "objective": (SEARCHES, {"objective": 3}, "objective must be None or a callable"),
    "levels": (SEARCHES, {"levels": 1}, "levels must be a whole number of at least 2, not 1"),
    "population": ([one_pixel], {"population": 3}, "population must be a whole number of at least 4, not 3"),
    "generations": ([one_pixel], {"generations": -1}, "generations must be"),
    "strategy": ([one_pixel], {"strategy": "best2bin"}, "best2bin"),
    "mutation": ([one_pixel], {"mutation": 2.5}, "mutation"),
    "dither": ([one_pixel], {"mutation": (1.0, 0.5)}, "low <= high"),
    "recombination": ([one_pixel], {"recombination": 1.5}, "probability"),
    "ascent": ([one_pixel_corners], {"ascent": -1}, "ascent must be"),
    "ascent steps": ([one_pixel_corners], {"ascent_steps": 0}, "ascent_steps must be"),
    "positions": ([one_pixel_corners], {"ascent": 17}, "at most the 16 positions"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options_are_refused_before_the_model_is_called(case):
    among, change, message = BAD[case]
    for attack in among:
        options = {"x": X, "y": Y, **change}
        with pytest.raises(ValueError, match=message):
            attack(Bomb(), options.pop("x"), options.pop("y"), **options)


@pytest.mark.parametrize("attack", SEARCHES)
def test_rules_that_return_something_else_are_refused(attack):
    net = linear((1, 4, 4), 3)
    for options, message in (
        ({"success": lambda scores, y: attacks.margin(scores, y)}, "one bool a row.*float32"),
        ({"success": lambda scores, y: scores > 0}, r"returned torch.bool of shape \(4, 3\)"),
        ({"success": lambda scores, y: True}, "returned bool"),
        ({"objective": lambda scores, y: scores.argmax(1)}, "one floating value a row.*int64"),
        ({"objective": lambda scores, y: 0.0}, "returned float"),
    ):
        with pytest.raises(ValueError, match=message):
            search(attack, net, X, Y, **options)
    with pytest.raises(ValueError, match="differentiably"):
        one_pixel_corners(lambda x: net(x.detach()), X, classes_of(net, X), ascent=2, success=never)
