"""FGSM, BIM, PGD: closed forms of linear models, exact bounds, independence of neighbours, a second library, and bad input."""

import copy
import itertools
import math
import warnings
from fractions import Fraction

import pytest
import torch
import torchattacks
from attack_nets import Counted, classes_of, convolutional, held_out, linear, margin_now, pictures, same, same_verdicts, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import support.common.vision  # noqa: F401  torchattacks imports torchvision, which may need this door
from support import attacks
from support.attacks import bim, fgsm, interval, margin, mifgsm, pgd, pgd_targets, rfgsm

ONE_STEP = [fgsm, rfgsm]
GRADIENT = [*ONE_STEP, bim, mifgsm, pgd, pgd_targets]
ALL = [*GRADIENT, attacks.one_pixel, attacks.one_pixel_corners]


def call(attack, model, x, y, eps=0.1, **options):
    """Any attack with little work; the one-pixel searches take no eps."""
    if attack is attacks.one_pixel:
        return attack(model, x, y, **{"population": 20, "generations": 2, **options})
    return attack(model, x, y, **options) if attack is attacks.one_pixel_corners else attack(model, x, y, eps, **options)


# Closed forms.


def least_margin(model, x, y, eps):
    """The least margin of a linear model in the box, over all rivals: at the corner that the sign of the weights' difference points to."""
    weight, bias = model[1].weight.detach(), model[1].bias.detach()
    low, high = (end.flatten(1) for end in interval(x, eps))
    difference = weight[y][:, None] - weight[None]
    worst = torch.where(difference > 0, low[:, None], high[:, None])
    margins = (difference * worst).sum(2) + bias[y][:, None] - bias[None]
    return margins.scatter(1, y[:, None], torch.inf).amin(1)


@pytest.mark.parametrize("attack", [fgsm, bim, mifgsm, pgd])
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_two_linear_classes_are_attacked_optimally(attack, loss):
    model, x = linear((1, 4, 4), 2, dtype=torch.float64), pictures(64, (1, 4, 4), dtype=torch.float64)
    y = classes_of(model, x)
    broken = []
    for eps in (0.003, 0.15, 0.3):
        found, least = attack(model, x, y, eps, loss=loss), least_margin(model, x, y, eps)
        broken.append(int(found.success.sum()))
        assert torch.equal(found.success, least < 0)
        held = ~found.success
        assert torch.allclose(found.margin[held], least[held], rtol=0, atol=1e-12)
        if attack is fgsm:
            assert torch.allclose(found.margin, least, rtol=0, atol=1e-12)
    assert 0 <= broken[0] < broken[1] < broken[2]


def test_target_sweep_finds_the_optimum_over_many_linear_classes():
    model, x = linear((3, 4, 4), 7, dtype=torch.float64), pictures(100, (3, 4, 4), seed=1, dtype=torch.float64)
    y = classes_of(model, x)
    held, broken = 0, 0
    for eps in (0.01, 0.05):
        found, least = pgd_targets(model, x, y, eps, steps=10), least_margin(model, x, y, eps)
        assert torch.equal(found.success, least < 0)
        assert torch.allclose(found.margin[~found.success], least[~found.success], rtol=0, atol=1e-12)
        held, broken = held + int((~found.success).sum()), broken + int(found.success.sum())
    assert held > 20 and broken > 20


def test_targeted_attack_on_a_linear_model_is_decided_by_its_closed_form():
    model, x = linear((1, 4, 4), 2, dtype=torch.float64), pictures(64, (1, 4, 4), dtype=torch.float64)
    wanted = 1 - classes_of(model, x)
    for attack in (fgsm, bim, pgd):
        found = attack(model, x, wanted, 0.3, targeted=True)
        assert torch.equal(found.success, least_margin(model, x, 1 - wanted, 0.3) < 0)
        assert torch.equal(found.success, classes_of(model, found.x_adv) == wanted)
        assert torch.equal(found.success, found.margin < 0)
        assert 5 < int(found.success.sum()) < 60


def test_margin_and_success_are_those_of_the_returned_image():
    x, y = held_out(120)
    for attack in GRADIENT:
        found = attack(trained(), x, y, 0.12)
        assert torch.equal(found.success, found.margin < 0)
        assert torch.equal(found.success, margin_now(trained(), found.x_adv, y) < 0)
        assert torch.allclose(found.margin, margin_now(trained(), found.x_adv, y), atol=1e-5)
        assert found.queries.dtype == torch.int64 and found.success.dtype == torch.bool


# Bounds.

RADII = [0.0, 1e-45, 1e-20, 1e-9, 2**-24, 1 / 255, 8 / 255, 0.1, 0.3, 1 / 3, 0.5, 1.0, 3.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eps", RADII)
def test_interval_lies_inside_the_ball_and_is_the_largest_such(dtype, eps):
    special = torch.tensor([0.0, 1.0, 0.5, 1e-45, 1e-38, 1e-9, 1 / 255, 8 / 255, 0.1, 1 - 2**-24, 254 / 255, 0.3], dtype=dtype)
    x = torch.cat([special, torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=dtype)])[:, None]
    low, high = interval(x, eps)
    assert low.dtype == high.dtype == dtype
    below, above = torch.nextafter(low, torch.full_like(low, -1)), torch.nextafter(high, torch.full_like(high, 2))
    columns = (part[:, 0].tolist() for part in (x, low, high, below, above))
    for value, bottom, top, less, more in zip(*columns, strict=True):
        assert 0 <= bottom <= value <= top <= 1
        assert value - bottom <= eps and top - value <= eps  # Python's floats are float64
        assert less < 0 or Fraction(value) - Fraction(less) > Fraction(eps)
        assert more > 1 or Fraction(more) - Fraction(value) > Fraction(eps)
        if dtype == torch.float32:  # then not only in float64: in exact arithmetic
            assert Fraction(value) - Fraction(bottom) <= Fraction(eps) and Fraction(top) - Fraction(value) <= Fraction(eps)


def test_plain_clipping_would_break_the_bound():
    # Why the interval exists: without it, the nearest float32 to x + eps lies outside the ball for some pixels.
    x = pictures(50, (1, 8, 8))
    plain = (x + 0.1).clamp(0, 1)
    assert bool(((plain.double() - x.double()).abs() > 0.1).any())
    assert not bool(((interval(x, 0.1)[1].double() - x.double()).abs() > 0.1).any())


@pytest.mark.filterwarnings("ignore:all scores lie in")  # now and then those of a random network do
@settings(max_examples=25, deadline=None)
@given(st.sampled_from(RADII), st.integers(0, 10**6), st.sampled_from([torch.float32, torch.float64]), st.sampled_from(GRADIENT))
def test_adversarial_images_lie_in_the_ball_and_the_box_judged_in_float64(eps, seed, dtype, attack):
    model, x = convolutional(1, 4, 3, seed=seed).to(dtype), pictures(9, (1, 4, 4), seed=seed, dtype=dtype)
    found = attack(model, x, classes_of(model, x), eps)
    assert found.x_adv.dtype == dtype and found.x_adv.shape == x.shape
    assert bool(((found.x_adv.double() - x.double()).abs() <= eps).all())
    assert bool(((found.x_adv >= 0) & (found.x_adv <= 1)).all())


def test_a_radius_for_each_image_gives_what_each_radius_alone_gives():
    x, y = held_out(40)
    radii = torch.linspace(0, 0.3, 40, dtype=torch.float64)[torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    for attack in GRADIENT:
        found = attack(trained(), x, y, radii)
        assert bool(((found.x_adv.double() - x.double()).abs().amax((1, 2, 3)) <= radii).all())
        for place in (0, 7, 23, 39):
            alone = attack(trained(), x, y, float(radii[place]))
            assert torch.equal(found.x_adv[place], alone.x_adv[place]) and found.queries[place] == alone.queries[place]


@pytest.mark.parametrize("attack", GRADIENT)
def test_eps_zero_is_the_clean_answer(attack):
    x, y = held_out(100)
    found = attack(trained(), x, y, 0.0)
    assert torch.equal(found.x_adv, x)
    assert torch.equal(found.success, classes_of(trained(), x) != y) and bool(found.success.any())
    assert torch.allclose(found.margin, margin_now(trained(), x, y), atol=1e-5)


# Another library.


def robust(model, x, y):
    return (classes_of(model, x) == y).double().mean().item()


@pytest.mark.parametrize("eps", [1 / 255, 8 / 255, 0.1])
def test_fgsm_is_torchattacks_fgsm_up_to_the_rounding_of_the_box(eps):
    (x, y), model = held_out(300), trained()
    with torch.random.fork_rng():
        theirs = torchattacks.FGSM(model, eps=eps)(x, y)
        double = torchattacks.FGSM(copy.deepcopy(model).double(), eps=eps)(x.double(), y)
    ours = fgsm(model, x, y, eps)
    # Where the model is sure, their float32 cross-entropy loses its gradient in the cancellation 1 - p_y; in float64 it does not.
    with torch.no_grad():
        unsure = model(x).softmax(1).gather(1, y[:, None])[:, 0] < 0.999
    assert 100 < int(unsure.sum()) < 300
    assert (ours.x_adv - theirs)[unsure].abs().max() <= 2**-23  # two units in the last place of a float32 below 1
    exact = fgsm(copy.deepcopy(model).double(), x.double(), y, eps)
    assert (exact.x_adv - double).abs().max() <= 2**-52
    assert 1 - exact.success.double().mean().item() == robust(copy.deepcopy(model).double(), double, y)


@pytest.mark.parametrize("eps", [0.05, 0.1, 0.15])
def test_pgd_reaches_the_robust_accuracy_of_torchattacks_pgd(eps):
    (x, y), model = held_out(400), trained()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = robust(model, torchattacks.PGD(model, eps=eps, alpha=eps / 4, steps=10)(x, y), y)
    ours = 1 - pgd(model, x, y, eps, steps=10, step_size=eps / 4).success.double().mean().item()
    # Other random starts, and we keep the best iterate where they return the last: at most one image in a hundred worse, three better.
    assert theirs - 0.03 <= ours <= theirs + 0.01


def test_mifgsm_is_torchattacks_mifgsm_and_without_momentum_bim():
    x, y = held_out(200)
    model = copy.deepcopy(trained()).double()
    x, eps, step = x.double(), 0.1, 0.01
    with torch.random.fork_rng():
        theirs = torchattacks.MIFGSM(model, eps=eps, alpha=step, steps=7, decay=0.8)(x, y)
    # They return the last iterate, we the first success or the least margin: where nothing succeeds and the margin falls, the last.
    ours = mifgsm(model, x, y, eps, step_size=step, steps=7, decay=0.8)
    longer = mifgsm(model, x, y, eps, step_size=step, steps=6, decay=0.8)
    last = ~ours.success & (ours.margin < longer.margin)
    assert int(last.sum()) > 40
    assert (ours.x_adv - theirs)[last].abs().max() <= 1e-12
    assert same(mifgsm(model, x, y, eps, decay=0.0), bim(model, x, y, eps))


def test_the_running_sum_of_mifgsm_lives_through_repacking():
    x, y = held_out(120)
    whole = mifgsm(trained(), x, y, 0.08, steps=35, step_size=0.004)
    held = ~whole.success
    assert 10 < int(held.sum()) < 110
    assert same(mifgsm(trained(), x[held], y[held], 0.08, steps=35, step_size=0.004), whole, held)


def test_rfgsm_starts_with_a_random_corner_and_ends_as_fgsm_without_one():
    x, y = held_out(60)
    plain, none = fgsm(trained(), x, y, 0.1), rfgsm(trained(), x, y, 0.1, random_share=0.0)
    assert (plain.x_adv - none.x_adv).abs().max() <= 2**-23
    inside = torch.full((4, 1, 8, 8), 0.5)
    random = rfgsm(trained(), inside, y[:4], 0.1, random_share=1.0)
    assert torch.allclose((random.x_adv - inside).abs(), torch.tensor(0.1)) and torch.equal(random.x_adv[0], random.x_adv[3])
    both = rfgsm(trained(), inside, y[:4], 0.1)
    moved = ((both.x_adv - inside) / 0.1).round(decimals=4)
    assert {-1.0, 0.0, 1.0} == set(moved.unique().tolist())


@pytest.mark.parametrize(("attack", "options"), [(mifgsm, {"decay": -1}), (mifgsm, {"decay": math.nan}), (rfgsm, {"random_share": 1.5})])
def test_bad_momentum_and_random_shares(attack, options):
    x, y = held_out(2)
    with pytest.raises(ValueError, match=next(iter(options))):
        attack(trained(), x, y, 0.1, **options)


# Monotone success.


def test_success_grows_with_eps():
    radii = (0.0, 0.01, 0.04, 0.08, 0.16)
    model, x = linear((3, 4, 4), 5), pictures(200, (3, 4, 4))
    y, before = classes_of(model, x), torch.zeros(200, dtype=torch.bool)
    for eps in radii:  # a linear model: what breaks in a ball breaks in every larger one, image by image
        found = pgd_targets(model, x, y, eps).success
        assert not bool((before & ~found).any())
        before = found
    assert int(before.sum()) > 100
    inputs, labels = held_out(150)
    for attack in GRADIENT:  # a network: the rate
        rates = [attack(trained(), inputs, labels, eps).success.double().mean().item() for eps in radii]
        assert rates == sorted(rates) and rates[-1] > rates[0] + (0.2 if attack is rfgsm else 0.3)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["ce", "margin"]), st.sampled_from([pgd, pgd_targets]))
def test_more_restarts_and_more_steps_lose_nothing(seed, loss, attack):
    x, y = held_out(40)

    def run(steps, restarts):
        stream = torch.Generator().manual_seed(seed)
        return attack(trained(), x, y, 0.1, steps=steps, step_size=0.02, restarts=restarts, loss=loss, generator=stream)

    runs = [run(*size) for size in ((2, 1), (12, 1), (12, 3))]
    for small, large in itertools.pairwise(runs):
        assert not bool((small.success & ~large.success).any())
        held = ~large.success
        assert bool((large.margin[held] <= small.margin[held]).all())
    broken = runs[1].success
    assert torch.equal(runs[1].x_adv[broken], runs[2].x_adv[broken])


# Independence of order, neighbours and batch size.


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(GRADIENT), st.sampled_from(["ce", "margin"]))
def test_order_and_neighbours_do_not_matter(seed, attack, loss):
    stream = torch.Generator().manual_seed(seed)
    x, y = held_out(140)
    first, other = x[:70], x[70:]
    options = {"loss": loss} if attack in ONE_STEP else {"loss": loss, "steps": 13}
    found = attack(trained(), first, y[:70], 0.1, **options)
    order = torch.randperm(70, generator=stream)
    assert same(attack(trained(), first[order], y[:70][order], 0.1, **options), found, order)
    mine = torch.rand(70, generator=stream) < 0.3
    mixed = attack(trained(), torch.where(mine[:, None, None, None], first, other), torch.where(mine, y[:70], y[70:]), 0.1, **options)
    for name in ("x_adv", "success", "margin", "queries"):
        assert torch.equal(getattr(mixed, name)[mine], getattr(found, name)[mine]), name


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 150), st.sampled_from(GRADIENT))
def test_batch_size_and_number_of_images_change_no_verdict(batch_size, attack):
    x, y = held_out(100)
    found = attack(trained(), x, y, 0.1)
    assert same_verdicts(attack(trained(), x, y, 0.1, batch_size=batch_size), found)
    few = attack(trained(), x[:17], y[:17], 0.1)
    assert same_verdicts(few, type(found)(found.x_adv[:17], found.success[:17], found.margin[:17], found.queries[:17]))


def test_draws_come_from_the_generator_alone_and_do_not_depend_on_the_images():
    x, y = held_out(30)
    before = torch.get_rng_state()
    states = []
    for eps in (0.0, 0.1, 1.0):  # nobody is searched, some are, everybody breaks at once
        stream = torch.Generator().manual_seed(3)
        found = pgd(trained(), x, y, eps, restarts=4, generator=stream)
        states.append(stream.get_state())
    assert torch.equal(states[0], states[1]) and torch.equal(states[0], states[2])
    assert torch.equal(torch.get_rng_state(), before)
    default = pgd(trained(), x, y, 0.1, restarts=2)
    assert same(default, pgd(trained(), x, y, 0.1, restarts=2, generator=torch.Generator().manual_seed(attacks.SEED)))
    other = pgd(trained(), x, y, 0.1, restarts=2, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(default.x_adv, other.x_adv) and len(found.success) == 30


# Cost.


def test_queries_count_the_passes_of_an_image():
    model, x = linear((1, 4, 4), 3), pictures(20, (1, 4, 4))
    y = classes_of(model, x)
    held = 1e-9
    assert fgsm(model, x, y, held).queries.unique().tolist() == [3]
    assert bim(model, x, y, held, steps=7).queries.unique().tolist() == [7 + 3]
    assert pgd(model, x, y, held, steps=7, restarts=4).queries.unique().tolist() == [4 * 8 + 2]
    assert pgd_targets(model, x, y, held, steps=7, restarts=2).queries.unique().tolist() == [2 * 2 * 8 + 2]
    assert pgd_targets(model, x, y, held, steps=7, classes=1).queries.unique().tolist() == [8 + 2]
    loss = lambda model, x, y: -margin(model(x), y)  # noqa: E731
    assert pgd(model, x, y, held, steps=7, loss=loss).queries.unique().tolist() == [2 * 7 + 1 + 2]
    assert pgd(model, x, (y + 1) % 3, 0.5).queries.unique().tolist() == [2]  # misclassified from the start: clean pass and last check
    # The first step from the image breaks everything: seen at the second iterate.
    assert bim(model, x, y, 1.0, steps=1).queries.unique().tolist() == [1 + 2 + 1]


def test_decided_images_leave_the_batch_at_the_next_packing():
    (x, y), model = held_out(200), Counted(trained())
    found = pgd(model, x, y, 0.3, steps=40, restarts=5)
    assert bool(found.success.all())
    assert model.images <= 200 * (2 + 10) + 3 * 200  # all break within the first ten steps or soon after
    assert int(found.queries.sum()) <= model.images
    model = Counted(trained())
    held = pgd(model, x, y, 1e-6, steps=40, restarts=5)
    assert int(held.queries.sum()) == int((~held.success).sum()) * (5 * 41 + 2) + 2 * int(held.success.sum())


# Losses.


def test_named_losses_equal_the_same_losses_given_as_callables():
    x, y = held_out(80)
    named = {
        "ce": lambda model, x, y: functional.cross_entropy(model(x).double(), y, reduction="none"),
        "margin": lambda model, x, y: -margin(model(x), y),
    }
    for name, given_loss in named.items():
        for targeted in (False, True):
            labels = (y + 1) % 10 if targeted else y
            ours = pgd(trained(), x, labels, 0.08, loss=name, targeted=targeted)
            given_one = pgd(trained(), x, labels, 0.08, loss=given_loss, targeted=targeted)
            # Where a pixel's derivative is rounding noise, the two may sign it differently.
            assert (ours.x_adv != given_one.x_adv).double().mean() < 1e-3
            assert (ours.success != given_one.success).sum() <= 1


def test_cross_entropy_does_not_saturate_while_the_plain_one_does():
    x, y = held_out(100)
    (model, sharp) = trained(), nn.Sequential(trained(), Scale(1e4))
    expected = fgsm(model, x, y, 0.1, loss="margin")
    found = pgd(sharp, x, y, 0.15, loss="ce", steps=10)
    plain = pgd(sharp, x, y, 0.15, loss=lambda model, x, y: functional.cross_entropy(model(x), y, reduction="none"), steps=10)
    assert int(found.success.sum()) >= int(expected.success.sum())
    assert int(plain.success.sum()) < int(found.success.sum()) / 2  # its gradient underflows: it looks like robustness


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, scores):
        return self.factor * scores


class Steps(nn.Module):
    """A model whose derivative is zero everywhere: pixels rounded to black or white."""

    def __init__(self):
        super().__init__()
        self.net = linear((1, 4, 4), 3)

    def forward(self, x):
        return self.net(torch.round(x))


class Kink(nn.Module):
    """A model whose derivative is no number at black pixels: the square root."""

    def __init__(self):
        super().__init__()
        self.net = linear((1, 4, 4), 3)

    def forward(self, x):
        return self.net(torch.where(x > 0, x, x * 0).sqrt() * 1.0)


@pytest.mark.parametrize("attack", GRADIENT)
def test_zero_and_undefined_gradients_move_no_pixel_and_break_no_bound(attack):
    x = pictures(30, (1, 4, 4))
    flat = attack(Steps(), x, classes_of(Steps(), x), 0.02)
    assert bool(((flat.x_adv - x).abs() <= 0.02).all()) and bool(flat.x_adv.isfinite().all())
    if attack in (fgsm, bim, mifgsm):
        assert torch.equal(flat.x_adv, x) and not bool(flat.success.any())
    black = torch.zeros(5, 1, 4, 4)
    kink = attack(Kink(), black, classes_of(Kink(), black), 0.1)
    assert bool(kink.x_adv.isfinite().all()) and bool((kink.x_adv <= 0.1).all())


@pytest.mark.parametrize("attack", [attack for attack in GRADIENT if attack is not rfgsm])
def test_a_gradient_that_is_one_number_for_all_pixels_is_followed(attack):
    x, y = torch.full((6, 1, 3, 3), 0.5), torch.zeros(6, dtype=torch.int64)
    found = attack(lambda x: x.sum((1, 2, 3))[:, None] * torch.tensor([1.0, -1.0]), x, y, 0.25)
    assert torch.allclose(found.margin, torch.tensor(2 * 9 * 0.25)) and torch.allclose(found.x_adv, torch.tensor(0.25))


@pytest.mark.parametrize("attack", GRADIENT)
def test_a_model_without_a_gradient_is_refused(attack):
    x = pictures(4, (1, 4, 4))
    net = linear((1, 4, 4), 3)
    with pytest.raises(ValueError, match="differentiably"):
        attack(lambda x: net(x.detach()), x, classes_of(net, x), 0.1)


# What an attack must leave alone.


@pytest.mark.parametrize("attack", ALL)
def test_inputs_model_and_random_state_are_left_as_they_were(attack):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    model.eval()
    model[0].train()  # harmless, and not ours to change
    model[4].weight.requires_grad_(False)
    x = pictures(6, (1, 4, 4)).requires_grad_()
    y = classes_of(model, x)
    before, modes = [part.detach().clone() for part in (x, y)], [part.training for part in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    noise = torch.get_rng_state()
    found = call(attack, model, x, y)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1]) and x.grad is None and x.requires_grad
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [part.training for part in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == [True, True, True, True, False, True]
    assert torch.equal(torch.get_rng_state(), noise)
    assert found.x_adv.data_ptr() != x.data_ptr() and not found.x_adv.requires_grad


@pytest.mark.parametrize("attack", ALL)
def test_the_callers_gradient_mode_changes_nothing(attack):
    x, y = held_out(20)
    found = call(attack, trained(), x, y)
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode():
            inside = call(attack, trained(), x.clone(), y.clone())
        assert same(inside, found)
        assert not any(part.is_inference() or part.requires_grad for part in (inside.x_adv, inside.margin, inside.success, inside.queries))


@pytest.mark.parametrize("attack", ALL)
def test_dtype_is_kept(attack):
    x, y = held_out(10)
    found = call(attack, convolutional(1, 8, 10).double(), x.double(), y)
    assert found.x_adv.dtype == found.margin.dtype == torch.float64
    assert call(attack, convolutional(1, 8, 10), x, y).x_adv.dtype == torch.float32


# Bad input.


class Bomb(nn.Module):
    """A model that must not be reached."""

    def forward(self, x):
        raise AssertionError("the model was called before the input was checked")


X, Y = pictures(4, (1, 4, 4)), torch.tensor([0, 1, 2, 0])
NAN, HIGH, LOW = X.clone(), X.clone(), X.clone()
NAN[1, 0, 2, 3], HIGH[0, 0, 0, 0], LOW[0, 0, 0, 0] = torch.nan, 1.0001, -1e-6
BAD = {
    "no tensor": ({"x": [[0.1]]}, "given is list"),
    "bytes": ({"x": (X * 255).byte()}, "uint8"),
    "half": ({"x": X.half()}, "float16"),
    "no images": ({"x": X[:0], "y": Y[:0]}, "at least one image"),
    "one dimension": ({"x": X.flatten()}, "shape"),
    "NaN pixel": ({"x": NAN}, "NaN"),
    "above one": ({"x": HIGH}, "1.0001"),
    "below zero": ({"x": LOW}, "values from -9.99"),
    "0 to 255": ({"x": X * 255}, r"\[0,1\]"),
    "label dtype": ({"y": Y.int()}, "int32"),
    "one-hot labels": ({"y": torch.eye(4)}, "float32"),
    "label count": ({"y": Y[:3]}, r"shape \(3,\)"),
    "negative label": ({"y": Y - 1}, "label -1"),
    "labels no tensor": ({"y": [0, 1, 2, 0]}, "given is list"),
    "batch size": ({"batch_size": 0}, "batch_size must be a whole number of at least 1, not 0"),
    "generator": ({"generator": 3}, "torch.Generator"),
    "model": ({"model": "resnet"}, "callable"),
}
BAD_EPS = {
    "negative": ({"eps": -0.1}, "at least 0.*-0.1"),
    "NaN": ({"eps": float("nan")}, "nan"),
    "infinite": ({"eps": float("inf")}, "inf"),
    "text": ({"eps": "8/255"}, "8/255"),
    "truth": ({"eps": True}, "True"),
    "whole tensor": ({"eps": torch.tensor([1, 2, 3, 4])}, "int64"),
    "eps count": ({"eps": torch.rand(3)}, r"\(3,\)"),
    "one negative": ({"eps": torch.tensor([0.1, 0.1, -0.2, 0.1])}, "-0.2"),
    "loss": ({"loss": "hinge"}, "hinge"),
}
BAD_STEPS = {
    "no steps": ({"steps": 0}, "steps must be a whole number of at least 1, not 0"),
    "half a step": ({"steps": 2.5}, "2.5"),
    "step size": ({"step_size": 0.0}, "step_size must be finite and positive"),
    "negative step": ({"step_size": -0.1}, "-0.1"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("attack", ALL)
def test_bad_input_is_refused_before_the_model_is_called(attack, case):
    change, message = BAD[case]
    options = {"model": Bomb(), "x": X, "y": Y, **change}
    with pytest.raises(ValueError, match=message):
        call(attack, options.pop("model"), options.pop("x"), options.pop("y"), **options)


@pytest.mark.parametrize("case", BAD_EPS)
@pytest.mark.parametrize("attack", GRADIENT)
def test_bad_radius_or_loss_is_refused_before_the_model_is_called(attack, case):
    change, message = BAD_EPS[case]
    with pytest.raises(ValueError, match=message):
        attack(Bomb(), X, Y, **{"eps": 0.1, **change})


@pytest.mark.parametrize("case", BAD_STEPS)
@pytest.mark.parametrize("attack", [attack for attack in GRADIENT if attack not in ONE_STEP])
def test_bad_steps_are_refused_before_the_model_is_called(attack, case):
    change, message = BAD_STEPS[case]
    with pytest.raises(ValueError, match=message):
        attack(Bomb(), X, Y, 0.1, **change)


def test_other_bad_options_are_refused_before_the_model_is_called():
    for attack, options in ((pgd, {"restarts": 0}), (pgd_targets, {"classes": 0}), (fgsm, {"targeted": 1}), (pgd, {"targeted": "all"})):
        with pytest.raises(ValueError, match=next(iter(options))):
            attack(Bomb(), X, Y, 0.1, **options)


@pytest.mark.parametrize("attack", ALL)
def test_what_only_the_scores_tell_is_refused_after_one_pass(attack):
    net = linear((1, 4, 4), 3)
    cases = {
        "label 3, but the model scores 3 classes": (net, Y + 1),
        "probabilities": (lambda x: net(x).softmax(1), Y),
        "K >= 2": (lambda x: net(x)[:, :1], Y),
        r"returned shape \(4,\)": (lambda x: net(x)[:, 0], Y),
        "it returned tuple": (lambda x: (net(x), x), Y),
        "NaN scores for 4 of 4": (lambda x: net(x) * torch.nan, Y),
        "bfloat16": (lambda x: net(x).bfloat16(), Y),
        "it fails on torch.float32": (linear((1, 5, 5), 3), Y),
    }
    for message, (model, y) in cases.items():
        counted = Counted(model) if isinstance(model, nn.Module) else Counted(Wrapped(model))
        with pytest.raises(ValueError, match=message):
            call(attack, counted, X, y)
        assert counted.passes == 1


class Wrapped(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_wrong_returns_of_a_given_loss_are_refused():
    net = linear((1, 4, 4), 3)
    for loss, message in ((lambda model, x, y: model(x).sum(), r"it returned \(\)"), (lambda model, x, y: 1.0, "it returned float")):
        with pytest.raises(ValueError, match=message):
            pgd(net, X, classes_of(net, X), 0.1, loss=loss)


@pytest.mark.parametrize("attack", ALL)
def test_scores_that_look_like_probabilities_warn_at_the_callers_line(attack):
    net = linear((1, 4, 4), 3)
    with pytest.warns(UserWarning, match="lie in") as caught:
        call(attack, lambda x: net(x).sigmoid(), X, Y)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(attack, net, X, Y)


@pytest.mark.parametrize("attack", ALL)
@pytest.mark.parametrize("layer", [nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Dropout2d(0.1), nn.SyncBatchNorm(1)])
def test_layers_that_tie_neighbours_are_refused_in_training_mode_only(attack, layer):
    model = nn.Sequential(layer, linear((1, 4, 4), 3)).train()
    with pytest.raises(ValueError, match=r"training mode.*model.eval\(\)"):
        call(attack, model, X, Y)
    assert model.training and layer.training
    if not isinstance(layer, nn.SyncBatchNorm):
        call(attack, model.eval(), X, Y)
    with pytest.raises(ValueError, match="running statistics"):
        call(attack, nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), linear((1, 4, 4), 3)).eval(), X, Y)


def test_plain_layers_may_be_in_training_mode():
    x, y = held_out(10)
    assert same(pgd(trained().train(), x, y, 0.1), pgd(trained().eval(), x, y, 0.1))


@pytest.mark.parametrize("attack", GRADIENT)
def test_vectors_are_welcome_where_pictures_are_not_needed(attack):
    net = linear((2,), 3)
    x = pictures(12, (2,))
    found = attack(net, x, classes_of(net, x), 0.2)
    assert found.x_adv.shape == (12, 2) and bool(((found.x_adv - x).abs() <= 0.2).all())
