"""FGSM, R+FGSM, BIM, MI-FGSM, PGD: closed forms of linear models, a second library, starts, steps and losses."""

import copy
import itertools

import pytest
import torch
import torchattacks
from attack_nets import Counted, Recorder, classes_of, held_out, linear, looked, pictures, same, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from torch import nn
from torch.nn import functional

import support.common.vision  # noqa: F401  torchattacks imports torchvision, which may need this door
from support.attacks import bim, fgsm, interval, margin, mifgsm, pgd, pgd_targets, rfgsm

ONE_STEP = [fgsm, rfgsm]
GRADIENT = [*ONE_STEP, bim, mifgsm, pgd, pgd_targets]
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
        theirs = classes_of(model, torchattacks.PGD(model, eps=eps, alpha=eps / 4, steps=10)(x, y)) != y
    ours = pgd(model, x, y, eps, steps=10, step_size=eps / 4).success
    only_they, only_we = int((theirs & ~ours).sum()), int((ours & ~theirs).sum())
    # The random starts differ. Which of two equal attacks is the one that breaks an image is the toss of a fair coin; ours keeps the best
    # iterate where theirs returns the last, and may only be better.
    assert int(theirs.sum()) > 40 and binom.sf(only_they - 1, only_they + only_we, 0.5) > 1e-3


def test_mifgsm_is_torchattacks_mifgsm_and_without_momentum_bim():
    x, y = held_out(200)
    model = copy.deepcopy(trained()).double()
    x, eps, step = x.double(), 0.07, 0.005
    with torch.random.fork_rng():
        theirs = torchattacks.MIFGSM(model, eps=eps, alpha=step, steps=15, decay=0.8)(x, y)
    # They return the last iterate, we the first success or the least margin: where nothing succeeds and the margin falls, the last.
    ours = mifgsm(model, x, y, eps, step_size=step, steps=15, decay=0.8)
    longer = mifgsm(model, x, y, eps, step_size=step, steps=14, decay=0.8)
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


# Starts and rivals.


def test_pgd_starts_uniformly_in_the_whole_ball_at_one_draw_for_all_images():
    x, model, eps = torch.full((20, 1, 8, 8), 0.5), Recorder(linear((1, 8, 8), 3)), 1e-3
    pgd(model, x, classes_of(model.model, x), eps, steps=1, restarts=30)
    starts = [(batch - 0.5) / eps for batch in model.seen[3:-1:2]]  # after three passes the start and the end of each restart
    assert len(starts) == 30 and all(torch.equal(start[0], start[-1]) for start in starts)
    place = torch.stack([start[0] for start in starts]).flatten().sort().values
    assert (place - torch.linspace(-1, 1, len(place))).abs().max() < 0.1  # a Kolmogorov distance of 0.05, met once in 10,000 times


def test_one_class_of_the_sweep_is_the_best_rival():
    model, x, eps = linear((3, 4, 4), 7, dtype=torch.float64), pictures(100, (3, 4, 4), seed=1, dtype=torch.float64), 0.05
    y, weight, (low, high) = classes_of(model, x), model[1].weight.detach(), interval(x, eps)
    ranked = model(x).detach().scatter(1, y[:, None], torch.inf).argsort(1)  # the worst rival first, the label last

    def reached(rival):
        """Whether some other class wins at the corner of the box that is best for this one."""
        down = (weight[y] - weight[rival]).view_as(x)
        return classes_of(model, torch.where(down > 0, low, high)) != y

    best, worst = reached(ranked[:, -2]), reached(ranked[:, 0])
    found = pgd_targets(model, x, y, eps, classes=1, steps=10)
    assert torch.equal(found.success, best) and int((best & ~worst).sum()) > 10
    every = pgd_targets(model, x, y, eps, steps=10)
    assert torch.equal(every.x_adv[best], found.x_adv[best]) and int(every.success.sum()) > int(best.sum())


def valley(x):
    """Scores of two classes whose difference is least at 0.5, where it is still 2: the slope points to the middle from both sides."""
    return torch.stack([2 + (x[:, 0] - 0.5).abs(), torch.zeros_like(x[:, 0])], 1)


def test_the_steps_of_the_sweep_begin_with_the_whole_ball_and_fall_to_zero_from_its_inner_half():
    x, y, eps, steps = torch.full((1, 1), 0.5, dtype=torch.float64), torch.zeros(1, dtype=torch.int64), 0.2, 8
    model = Recorder(valley)
    pgd_targets(model, x, y, eps, steps=steps, decay=0, generator=torch.Generator().manual_seed(3))
    at = torch.stack([batch[0, 0] for batch in model.seen[-steps - 2 : -1]])
    u = 2 * torch.rand(1, generator=torch.Generator().manual_seed(3), dtype=torch.float64).item() - 1
    assert float(at[0]) == pytest.approx(0.5 + eps / 2 * u, abs=1e-12)
    wanted = [(at[k] - 2 * eps * (1 - k / steps) * (at[k] - 0.5).sign()).clamp(0.5 - eps, 0.5 + eps) for k in range(steps)]
    torch.testing.assert_close(at[1:], torch.stack(wanted), rtol=0, atol=1e-12)
    held = Recorder(valley)
    pgd_targets(held, x, y, eps, steps=steps, decay=0, step_size=0.05, generator=torch.Generator().manual_seed(3))
    moves = torch.stack([batch[0, 0] for batch in held.seen[-steps - 2 : -1]]).diff().abs()
    torch.testing.assert_close(moves, torch.full_like(moves, 0.05), rtol=0, atol=1e-12)


def test_the_sweep_goes_on_along_its_running_sum():
    x, y = torch.full((1, 1), 0.5, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    places = []
    for decay in (0.0, 0.5, 1.0):
        model = Recorder(valley)
        pgd_targets(model, x, y, 0.4, steps=6, step_size=0.15, decay=decay, generator=torch.Generator().manual_seed(3))
        places.append([round(float(batch[0, 0]) - 0.5, 6) for batch in model.seen[-8:-1]])
    slopes = [[1 if at > 0 else -1 for at in row] for row in places]
    for decay, row, signs in zip((0.0, 0.5, 1.0), places, slopes, strict=True):
        total = 0
        for here, after, sign in zip(row, row[1:], signs, strict=False):
            total = decay * total - sign
            step = 0.15 * ((total > 0) - (total < 0))
            assert after == pytest.approx(max(-0.4, min(0.4, here + step)), abs=1e-6)
    assert places[0] != places[2]


@pytest.mark.parametrize("attack", [bim, mifgsm])
def test_the_first_success_is_returned_and_else_the_least_margin_met(attack):
    x, y = held_out(60)
    runs = [attack(trained(), x, y, 0.1, steps=count, step_size=0.01) for count in range(1, 13)]
    broken, margins = torch.stack([run.success for run in runs]), torch.stack([run.margin for run in runs])
    assert bool((broken[1:] >= broken[:-1]).all()) and bool((margins[1:] <= margins[:-1])[~broken[1:]].all())
    first = torch.stack([run.x_adv for run in runs])[broken.double().argmax(0), torch.arange(60)]
    assert torch.equal(runs[-1].x_adv[broken[-1]], first[broken[-1]]) and 10 < int(broken[-1].sum()) < 60


# Monotone success.


def test_what_breaks_in_a_ball_breaks_in_every_larger_one_of_a_linear_model():
    model, x = linear((3, 4, 4), 5), pictures(200, (3, 4, 4))
    y, before = classes_of(model, x), torch.zeros(200, dtype=torch.bool)
    for eps in (0.0, 0.01, 0.04, 0.08, 0.16):
        found = pgd_targets(model, x, y, eps).success
        assert not bool((before & ~found).any())
        before = found
    assert int(before.sum()) > 100


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


@pytest.mark.parametrize("attack", [bim, mifgsm, pgd, pgd_targets])
def test_a_clean_error_costs_the_clean_pass_and_the_last_check(attack):
    x, model = held_out(64)[0], Counted(trained())
    found = attack(model, x, (classes_of(trained(), x) + 1) % 10, 0.1)
    assert model.images == 2 * 64 + looked(64) and torch.equal(found.x_adv, x) and found.queries.unique().tolist() == [2]


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


def test_wrong_returns_of_a_given_loss_are_refused():
    net, x = linear((1, 4, 4), 3), pictures(4, (1, 4, 4))
    losses = {r"it returned torch.float32 \(\)": lambda model, x, y: model(x).sum(), "it returned float": lambda model, x, y: 1.0}
    for message, loss in losses.items():
        with pytest.raises(ValueError, match=message):
            pgd(net, x, classes_of(net, x), 0.1, loss=loss)
