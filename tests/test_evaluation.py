"""Today's evaluation: closed forms, independent libraries, the contract of its table, and models with and without masked gradients."""

import dataclasses
import random
from functools import cache

import foolbox
import numpy as np
import pytest
import torch
import torchattacks
from attack_nets import classes_of, digits, held_out, linear, pictures, regress
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from support import evaluation, models
from support.attacks import interval, margin
from support.book import plots
from support.common.cache import Cache
from support.evaluation import BUDGETS, ROWS, WORST, Budget, compare, compare_flags, evaluate, gradient_masking, rows
from support.models.heads import ClusterHead

EVERYTHING = Budget(
    images=24, noise_draws=3, bim=(10, 20), pgd_steps=20, targeted_images=24, autoattack_images=12, square_images=16, square_queries=60,
    hard_label_images=16, hard_label_queries=120, transfer_images=24, sweep=(0.2, 0.5), sweep_images=24,
)  # fmt: skip
NEAR, FAR = 0.08, 0.15
OWN = EVERYTHING.images
SEEN = {"APGD-CE": 12, "APGD-T": 12, "FAB-T": 12, "Square": 16, "hard label": 16, "BIM-100": 0, "BIM-1000": 0, WORST: 12}


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Ten steps of APGD and FAB, where the protocol takes a hundred: enough for small networks, and ten times faster."""
    assert rows.STEPS == 100
    monkeypatch.setattr(rows, "STEPS", 10)


@cache
def trained() -> nn.Module:
    """An undefended network that fits the first 1,297 digits, the same on every machine."""
    net = models.mlp((1, 8, 8), (128,), 10, seed=1)
    regress(net.body, net.head, *(part[:1297] for part in digits()))
    return net


@cache
def peer() -> nn.Module:
    """A linear classifier of the digits, trained by another way than the network that it is the peer of."""
    from sklearn.linear_model import LogisticRegression

    x, y = digits()
    fitted = LogisticRegression(max_iter=300).fit(x[:1297].flatten(1), y[:1297])
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        net[1].weight.copy_(torch.from_numpy(fitted.coef_))
        net[1].bias.copy_(torch.from_numpy(fitted.intercept_))
    return net.eval()


class Saturated(nn.Module):
    """The trained network behind a temperature so low that its probabilities are 0 and 1, with a floor that keeps logarithms finite."""

    def forward(self, x):
        return (300 * trained()(x)).softmax(1).clamp_min(1e-30).log()


class Shattered(nn.Module):
    """The trained network behind a ripple too fine to be seen, whose slope drowns every other."""

    def forward(self, x):
        return trained()(x + 1e-4 * (1e5 * x).sin())


class Quantised(nn.Module):
    """The trained network behind eight grey levels: no gradient anywhere."""

    def forward(self, x):
        return trained()((8 * x).round() / 8 + 0 * x)


class Steep(nn.Module):
    """The trained network at a low temperature: its cross-entropy has no slope where it is sure, its scores have."""

    def forward(self, x):
        return 300 * trained()(x)


class Rippled(nn.Module):
    """The trained network behind a ripple in which short steps are caught and long ones are not."""

    def forward(self, x):
        return trained()(x + 0.0015 * (2 * torch.pi * x / 0.008).sin())


class OneSided(torch.autograd.Function):
    """An image whose right-hand columns have no derivative."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, slope):
        return torch.cat([slope[..., :3], torch.zeros_like(slope[..., 3:])], -1)


class HalfBlind(nn.Module):
    """The trained network, of whose gradient only a part of the image is seen."""

    def forward(self, x):
        return trained()(OneSided.apply(x))


def away(x):
    """The nearest of the images that are judged (n,), and how far it is from each picture in the maximum norm."""
    apart, nearest = (x[:, None] - held_out(100)[0]).abs().flatten(2).amax(2).min(1)
    return nearest, apart[:, None]


class Blinkered(nn.Module):
    """The trained network, which takes a picture far from every image for the nearest one of them."""

    def forward(self, x):
        nearest, apart = away(x)
        return trained()(torch.where(apart[..., None, None] > 0.2, held_out(100)[0][nearest], x))


class Spared(nn.Module):
    """The trained network, but for some images: around them nothing can be found, and a slope that is seen there leads nowhere."""

    def forward(self, x):
        (nearest, apart), y = away(x), held_out(100)[1]
        sure = nn.functional.one_hot(y[nearest], 10) * (8 + apart + 1e-3 * x.flatten(1).sum(1, keepdim=True))
        return torch.where((nearest[:, None] < 5) & (apart < 0.2), sure, trained()(x))


def elsewhere(model, x, y):
    """A training loss that grows without any class winning."""
    return model(x).logsumexp(1)


def bounded(model, x, y):
    """A training loss that is blind far from the boundary: minus the probability at a low temperature."""
    return -(300 * model(x)).softmax(1).gather(1, y[:, None])[:, 0]


@cache
def report(kind: str) -> evaluation.Report:
    """The quick budget with a black box that sees scores, at one radius, on digits."""
    budget = dataclasses.replace(BUDGETS["quick"], square_images=50, square_queries=300)
    models_ = {"plain": trained(), "own loss": trained(), "linear": peer(), "saturated": Saturated(), "shattered": Shattered()}
    models_ |= {"quantised": Quantised(), "steep": Steep(), "rippled": Rippled(), "half blind": HalfBlind(), "other loss": trained()}
    models_ |= {"blinkered": Blinkered(), "spared": Spared()}
    other, own = trained() if kind == "linear" else peer(), {"own loss": bounded, "other loss": elsewhere}
    return evaluate(models_[kind].eval(), *held_out(100), 0.15, budget=budget, peer=other, loss_own=own.get(kind))


@cache
def everything() -> evaluation.Report:
    """All rows of the trained network at two radii."""
    return evaluate(trained(), *held_out(40), (NEAR, FAR), budget=EVERYTHING, peer=peer(), loss_own=bounded)


def corner_margins(model, x, y, eps):
    """(N, K) the least that a linear model's margin over each rival can be inside ball and box, in float64."""
    weight, bias = (part.detach().double() for part in (model[1].weight, model[1].bias))
    difference = weight[y][:, None] - weight[None]
    low, high = (end.double().flatten(1)[:, None] for end in interval(x, eps))
    least = torch.where(difference > 0, low, high).mul(difference).sum(2) + bias[y][:, None] - bias
    return least.scatter(1, y[:, None], torch.inf)


# --- closed forms -----------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:all scores lie")
@pytest.mark.parametrize(("classes", "eps"), [(2, 0.02), (2, 0.1), (3, 0.05), (5, 0.03), (5, 0.1)])
def test_every_row_agrees_with_the_closed_form_of_a_linear_model(classes, eps):
    model, x = linear((1, 6, 6), classes, seed=classes), pictures(24, (1, 6, 6), seed=7)
    y = classes_of(model, x)
    y[:3] = (y[:3] + 1) % classes  # three that are wrong from the start
    found = evaluate(model, x, y, eps, budget=EVERYTHING, peer=linear((1, 6, 6), classes, seed=99))
    closed = corner_margins(model, x, y, eps).amin(1)
    assert closed.abs().min() > 1e-5  # none so near that rounding decides
    robust = closed > 0
    assert 2 < int(robust.sum()) < 22
    for row in found.rows:
        if row != "transfer to peer":
            seen = found.robust(row)
            assert bool((seen | ~robust[: len(seen)]).all()), f"{row} broke an image that cannot be broken"
    assert torch.equal(found.robust("multi-targeted"), robust)
    assert torch.equal(found.robust(), robust[: SEEN.get(WORST if classes > 3 else "APGD-CE")])
    if classes == 2:
        for row in ("FGSM", "BIM-10", "BIM-20", "PGD cross-entropy", "PGD margin", "APGD-CE", "FAB-T"):
            assert torch.equal(found.robust(row), robust[: len(found.robust(row))]), row
    assert not any(flag.raised for flag in found.flags if flag.name != "chance at a large eps")


@pytest.mark.filterwarnings("ignore:all scores lie")
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.floats(0, 0.4), st.integers(0, 3))
def test_no_row_breaks_what_cannot_be_broken(seed, classes, eps, draw):
    budget = Budget(images=8, bim=(10,), noise_draws=2, pgd_steps=5, targeted_images=5, hard_label_images=6, hard_label_queries=30)
    model, x = linear((1, 3, 3), classes, seed=seed % 7), pictures(8, (1, 3, 3), seed=seed)
    y = torch.randint(classes, (8,), generator=torch.Generator().manual_seed(seed))
    found = evaluate(model, x, y, eps, budget=budget, seed=draw)
    robust = corner_margins(model, x, y, eps).amin(1) > 1e-5
    for row in found.rows:
        seen = found.robust(row)
        assert bool((seen | ~robust[: len(seen)]).all())
        assert not bool((seen & ~found.robust("clean")[: len(seen)]).any())
        if row != WORST and len(seen):
            assert not bool((found.robust() & ~seen[: len(found.robust())]).any())
    assert len(found.robust()) == 5, "of multi-targeted, which sees the fewest"


# --- independent libraries --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [NEAR, FAR])
def test_the_worst_case_is_at_most_what_other_libraries_find(eps):
    x, y = held_out(OWN)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torchattacks.PGD(trained(), eps=eps, alpha=eps / 4, steps=20)(x, y)
        wrapped = foolbox.PyTorchModel(trained(), bounds=(0, 1))
        others = foolbox.attacks.LinfPGD(steps=20)(wrapped, x, y, epsilons=eps)[1]
    ours = everything()
    for found in (theirs, others):
        with torch.no_grad():
            held = (trained()(found.clamp(*interval(x, eps))).argmax(1) == y).double()
        left = held.mean()
        assert 0 < left < 0.9
        assert ours.accuracy(eps=eps) <= held[: SEEN[WORST]].mean()
        assert ours.accuracy("PGD cross-entropy", eps) <= left + 2 / OWN


@pytest.mark.parametrize(
    ("row", "attack"),
    [
        ("APGD-CE", lambda net, eps: torchattacks.APGD(net, eps=eps, steps=rows.STEPS)),
        ("APGD-T", lambda net, eps: torchattacks.APGDT(net, eps=eps, steps=rows.STEPS, n_classes=10)),
        ("FAB-T", lambda net, eps: torchattacks.FAB(net, eps=eps, steps=rows.STEPS, multi_targeted=True, n_classes=10)),
        ("Square", lambda net, eps: torchattacks.Square(net, eps=eps, n_queries=60)),
    ],
)
def test_the_rows_of_autoattack_are_the_librarys_own(row, attack):
    x, y = (part[: SEEN[row]] for part in held_out(OWN))
    with torch.random.fork_rng():
        found = attack(trained(), NEAR)(x, y)
    trained().zero_grad(set_to_none=True)
    with torch.no_grad():
        left = margin(trained()(found.clamp(*interval(x, NEAR))), y) >= 0
    assert torch.equal(everything().robust(row, NEAR), left & everything().robust("clean")[: len(x)])


def test_what_a_library_returns_outside_the_ball_is_no_success(monkeypatch):
    class Cheat:
        def __init__(self, model, **settings):
            assert settings["norm"] == "Linf"

        def __call__(self, x, y):
            return torch.where(torch.arange(x[0].numel()).view(x[0].shape) % 2 == 0, torch.nan, 1 - x)

    monkeypatch.setattr(torchattacks, "APGD", Cheat)
    x, y = held_out(OWN)
    with torch.no_grad():
        assert (margin(trained()(1 - x), y) < 0).double().mean() > 0.5
    assert torch.equal(rows.autoattack(trained(), x, y, 1e-4, name="APGD-CE", seed=0) < 0, rows.margins(trained(), x, y) < 0)


# --- the table --------------------------------------------------------------------------------------------------------------------


def test_the_table_has_every_row_in_its_order():
    table = everything().table()
    assert list(table.columns) == [NEAR, FAR, "images", "flags"]
    assert [row for row in table.index if row in ROWS] == list(ROWS)
    assert {row for row in table.index if row not in ROWS} == {"BIM-20", "FGSM, own loss", "BIM-10, own loss", "BIM-20, own loss"}
    for row in table.index:
        assert table.loc[row, "images"] == SEEN.get(row, OWN) == len(everything().robust(row))
        for eps in (NEAR, FAR):
            accuracy = everything().accuracy(row, eps)
            if row in ("BIM-100", "BIM-1000"):
                assert accuracy is None and np.isnan(table.loc[row, eps])
            else:
                assert accuracy == table.loc[row, eps] == float(everything().robust(row, eps).double().mean())


def test_the_worst_case_is_the_worst_of_every_row_over_the_images_that_all_saw():
    found = everything()
    left = torch.ones(SEEN[WORST], dtype=torch.bool)
    for eps in (NEAR, FAR):
        for row in found.rows:
            seen = found.robust(row, eps)
            if row not in (WORST, "transfer to peer") and len(seen):
                left &= seen[: len(left)]
                assert found.accuracy(eps=eps) <= float(seen[: len(left)].double().mean()), "no worse than a row of its own"
        assert torch.equal(found.robust(eps=eps), left)  # at the larger one with what was broken at the smaller
    assert found.accuracy() == found.accuracy(WORST, NEAR) > found.accuracy(eps=FAR)


def test_images_that_are_wrong_count_as_wrong_in_every_row():
    x, y = held_out(OWN)
    y = y.clone()
    y[::2] = (y[::2] + 1) % 10
    found = evaluate(trained(), x, y, 0.02, budget=EVERYTHING, peer=peer(), loss_own=bounded)
    for row in found.rows:
        assert not bool(found.robust(row)[::2].any()), row
    assert found.accuracy("clean") > 0.4


def test_at_eps_zero_every_row_is_the_clean_one():
    found = evaluate(trained(), *held_out(OWN), 0, budget=EVERYTHING, peer=peer(), loss_own=bounded)
    for row in found.rows:
        seen = found.robust(row)
        if row != "transfer to peer":
            assert torch.equal(seen, found.robust("clean")[: len(seen)])
        assert len(seen) == SEEN.get(row, OWN)
    assert found.eps == (0.0,)


@pytest.mark.parametrize("classes", [2, 3])
def test_apgd_t_is_not_run_where_its_loss_is_not_defined(classes):
    model, x = linear((1, 6, 6), classes), pictures(OWN, (1, 6, 6))
    found = evaluate(model, x, classes_of(model, x), 0.05, budget=EVERYTHING)
    assert found.accuracy("APGD-T") is None
    assert all(found.accuracy(row) is not None for row in ("APGD-CE", "FAB-T", "Square", "multi-targeted"))


def test_rows_of_transfer_need_a_peer():
    found = evaluate(trained(), *held_out(8), 0.1, budget=dataclasses.replace(EVERYTHING, autoattack_images=0, square_images=0))
    assert found.accuracy("transfer from peer") is found.accuracy("transfer to peer") is None


def test_transfer_judges_the_network_it_names():
    found = evaluate(trained(), *held_out(60), 0.2, budget=dataclasses.replace(BUDGETS["quick"], transfer_images=60), peer=peer())
    swapped = evaluate(peer(), *held_out(60), 0.2, budget=dataclasses.replace(BUDGETS["quick"], transfer_images=60), peer=trained())
    assert torch.equal(found.robust("transfer to peer"), swapped.robust("transfer from peer"))
    assert torch.equal(found.robust("transfer from peer"), swapped.robust("transfer to peer"))
    assert found.accuracy("transfer from peer") < found.accuracy("clean")


def test_names_and_radii_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"no row 'PGD': there are clean, uniform noise"):
        everything().accuracy("PGD")
    with pytest.raises(ValueError, match=r"eps must be one of \(0.08, 0.15\), not 0.3"):
        everything().robust("FGSM", 0.3)
    with pytest.raises(ValueError, match="no flag 'masking'"):
        everything().flag("masking")


def test_an_accuracy_knows_its_images():
    found = everything().accuracy("Square", FAR)
    assert (found.of, found.mask.tolist()) == (16, everything().robust("Square", FAR).tolist())


def test_a_raised_flag_speaks_against_the_rows_that_it_names():
    plain, masked = report("plain").table(), report("saturated").table()
    assert not any(plain["flags"].str.contains("gradient")), "not of a network that hides nothing"
    assert "zero gradient" in masked.loc["PGD cross-entropy", "flags"]
    assert "zero gradient" not in masked.loc["PGD margin", "flags"]
    for row in ("clean", "uniform noise", "hard label", WORST):
        assert masked.loc[row, "flags"] == ""
    own = report("own loss").table()["flags"]
    assert "zero gradient" in own["FGSM, own loss"]
    assert "zero gradient" not in own["FGSM"]


def test_models_side_by_side():
    first, second = report("plain"), report("saturated")
    together = compare({"plain": first, "both": [first, second]})
    assert list(together.columns) == ["plain", "both", "images"]
    assert (together.loc["FGSM", "images"], together.loc[WORST, "images"], together.loc["APGD-CE", "images"]) == ("100", "50", "0")
    mixed = compare({"net": [first, evaluate(trained(), *held_out(9), 0.15, budget=dataclasses.replace(BUDGETS["quick"]), peer=peer())]})
    assert mixed.loc["FGSM", "images"] == "9 to 100"
    assert list(together.index) == list(first.rows)
    assert together.loc["FGSM", "plain"] == first.accuracy("FGSM")
    assert together.loc["FGSM", "both"] == pytest.approx((first.accuracy("FGSM") + second.accuracy("FGSM")) / 2)
    assert np.isnan(together.loc["APGD-CE", "both"])
    several = compare({"net": everything()})
    assert several["net", FAR][WORST] == everything().accuracy(eps=FAR)
    assert several["images", ""][WORST] == str(SEEN[WORST])
    signs = compare_flags({"plain": first, "both": [first, second]})
    assert list(signs.index) == list(gradient_masking.NAMES)
    assert signs.loc["zero gradient"].tolist() == ["no", "raised by 1 of 2"]
    with pytest.raises(ValueError, match="same radii"):
        compare({"one": first, "two": everything()})
    with pytest.raises(ValueError, match="at least one report"):
        compare({"one": []})


# --- the same every time, and nothing touched -------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_report_and_nothing_is_touched():
    model = models.small_cnn((1, 8, 8), 10, seed=3)
    model.body[1].train(False)
    x, y = held_out(12)
    budget = dataclasses.replace(EVERYTHING, bim=(10,), pgd_steps=5, autoattack_images=3, hard_label_images=6)
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    modes = [part.training for part in model.modules()]
    first, second = (evaluate(model, x, y, 0.05, budget=budget, peer=peer(), loss_own=bounded, seed=3) for _ in range(2))
    for row in first.rows:
        assert torch.equal(first.robust(row), second.robust(row)), row
    assert [flag.value for flag in first.flags] == [flag.value for flag in second.flags]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]
    assert [part.training for part in model.modules()] == modes
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


def test_a_library_that_fails_leaves_the_generators_alone(monkeypatch):
    class Broken:
        def __init__(self, model, **settings):
            torch.manual_seed(1), np.random.seed(1), random.seed(1)
            raise RuntimeError("out of order")

    monkeypatch.setattr(torchattacks, "APGD", Broken)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with pytest.raises(RuntimeError, match="out of order"):
        rows.autoattack(trained(), *held_out(4), 0.1, name="APGD-CE", seed=0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1] and random.getstate() == before[2]


def test_our_own_rows_depend_on_the_image_alone():
    budget = dataclasses.replace(EVERYTHING, autoattack_images=0, square_images=0, hard_label_images=24)
    x, y = held_out(OWN)
    whole = evaluate(trained(), x, y, 0.15, budget=budget, peer=peer(), loss_own=bounded)
    order = torch.randperm(OWN, generator=torch.Generator().manual_seed(2))
    mixed = evaluate(trained(), x[order], y[order], 0.15, budget=budget, peer=peer(), loss_own=bounded)
    few = evaluate(trained(), x[:17], y[:17], 0.15, budget=budget, peer=peer(), loss_own=bounded)
    for row in whole.rows:
        if whole.accuracy(row) is not None:
            assert torch.equal(mixed.robust(row), whole.robust(row)[order]), row
            assert torch.equal(few.robust(row), whole.robust(row)[:17]), row


def test_no_more_images_than_the_budget_grants():
    shuffled = evaluate(trained(), *held_out(200), 0.1, budget=dataclasses.replace(BUDGETS["quick"], images=7))
    assert shuffled.images == 7
    assert all(len(shuffled.robust(row)) in (0, 7) for row in shuffled.rows)


def test_scores_of_minus_infinity_are_no_trouble():
    centers = torch.randn(10, 2, 16, generator=torch.Generator().manual_seed(0))
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16))
    model = models.Classifier(body, ClusterHead(centers, 1.0, nearest=3)).eval()
    x, _ = held_out(OWN)
    scores = model(x).detach()
    assert bool((scores == -torch.inf).any())
    found = evaluate(model, x, classes_of(model, x), 0.05, budget=EVERYTHING, peer=peer())
    assert found.accuracy("clean") == 1
    assert all(found.accuracy(row) is not None for row in ("APGD-CE", "APGD-T", "FAB-T", "Square", "hard label"))
    assert 0 < found.accuracy("APGD-T") < 1


# --- asked once for each row ------------------------------------------------------------------------------------------------------


class Once:
    """Cached calls, and what was computed: the attack or row, and the settings."""

    def __init__(self, folder):
        self.cache, self.computed = Cache(folder), []

    def __call__(self, function, *args, **settings):
        misses = self.cache.misses
        found = self.cache.once(function, *args, **settings)
        if self.cache.misses > misses:
            self.computed.append(settings.get("attack", function).__name__)
        return found


def test_rows_are_kept_and_only_what_changed_is_computed_again(tmp_path):
    once, (x, y) = Once(tmp_path), held_out(OWN)
    few = dataclasses.replace(EVERYTHING, images=5)

    def run(model=None, eps=0.1, budget=few, **more):
        once.computed.clear()
        given = {"peer": peer(), "loss_own": bounded, "seed": 0} | more
        return evaluate(trained() if model is None else model, x, y, eps, budget=budget, once=once, **given)

    first, plain = run(), evaluate(trained(), x, y, 0.1, budget=few, peer=peer(), loss_own=bounded)
    assert len(once.computed) == 22  # 18 rows, 2 slopes, 2 radii of the sweep
    again = run()
    assert not once.computed
    for row in first.rows:
        assert torch.equal(first.robust(row), again.robust(row)) and torch.equal(first.robust(row), plain.robust(row)), row
    assert [flag.value for flag in again.flags] == [flag.value for flag in first.flags] == [flag.value for flag in plain.flags]
    run(budget=dataclasses.replace(few, square_queries=70))
    assert once.computed == ["autoattack"]
    run(budget=dataclasses.replace(few, bim=(10, 20, 30)))
    assert once.computed == ["bim", "bim"]  # with the protocol's loss and the model's own
    run(peer=linear((1, 8, 8), 10))
    assert once.computed == ["transfer", "transfer"]
    run(loss_own=lambda model, x, y: bounded(model, x, y) ** 3)
    assert sorted(once.computed) == ["bim", "bim", "fgsm", "slope"]
    run(eps=0.11)
    assert len(once.computed) == 18
    run(seed=1)
    assert sorted(once.computed) == 4 * ["autoattack"] + ["multi_targeted"] + 2 * ["noise"] + 4 * ["pgd"] + ["rays"]  # what draws
    run(model=linear((1, 8, 8), 10, seed=4))
    assert len(once.computed) == 22


def scripted(broken, asked=None):
    """In place of the rows: an image falls where ``broken(name of the attack or row, eps, settings)`` names it."""

    def once(function, model, x, y, eps=None, **settings):
        name = settings.get("attack", function).__name__
        if asked is not None:
            asked.append((name, len(x), eps, settings))
        found = torch.ones(len(x))
        found[[place for place in broken(name, eps, settings) if place < len(x)]] = -1
        return found

    return once


def test_the_worst_case_counts_what_fell_at_a_smaller_radius():
    x, y = held_out(8)
    y = classes_of(trained(), x)
    fell = {("fgsm", 0.1): [0], ("rays", 0.1): [1], ("rays", 0.2): [2], ("pgd", 0.3): [3], ("transfer", 0.1): [4]}
    once = scripted(lambda name, eps, settings: [] if settings.get("to_peer") else fell.get((name, eps), []))
    found = evaluate(trained(), x, y, (0.2, 0.3, 0.1), budget=EVERYTHING, peer=peer(), once=once)
    left = {eps: found.robust(eps=eps).logical_not().nonzero()[:, 0].tolist() for eps in found.eps}
    assert left == {0.1: [0, 1, 4], 0.2: [0, 1, 2, 4], 0.3: [0, 1, 2, 3, 4]}
    assert found.robust("hard label", 0.2).logical_not().nonzero()[:, 0].tolist() == [2]  # a row's accuracy is its own
    others = scripted(lambda name, eps, settings: range(8) if settings.get("to_peer") else [])
    found = evaluate(trained(), x, y, 0.1, budget=EVERYTHING, peer=peer(), once=others)
    assert found.accuracy() == 1 and found.accuracy("transfer to peer") == 0


def test_what_a_budget_grants_is_what_is_asked_for():
    x, y, asked = *held_out(50), []
    budget = Budget(
        images=40, noise_draws=4, bim=(7, 1000), long_images=9, pgd_steps=6, pgd_restarts=2, targeted_images=8, targeted_rounds=3,
        targeted_classes=2, autoattack_images=5, square_images=4, square_queries=11, hard_label_images=3, hard_label_queries=12,
        transfer_images=60, sweep=(0.2, 0.6), sweep_images=10,
    )  # fmt: skip
    found = evaluate(trained(), x, y, 0.1, budget=budget, peer=peer(), loss_own=bounded, seed=5, once=scripted(lambda *_: [], asked))
    assert all(settings.get("seed", 5) == 5 for *_, settings in asked)
    assert all("seed" in settings for name, *_, settings in asked if name in ("noise", "pgd", "multi_targeted", "rays", "autoattack"))
    said = [
        (name, count, eps, *(settings.get(key) for key in ("steps", "restarts", "loss", "queries"))) for name, count, eps, settings in asked
    ]
    expected = [
        ("noise", 40, 0.1, None, None, None, None), ("noise", 40, 0.1, None, None, None, None),
        ("fgsm", 40, 0.1, None, None, "ce", None), ("bim", 40, 0.1, 7, None, "ce", None), ("bim", 9, 0.1, 1000, None, "ce", None),
        ("fgsm", 40, 0.1, None, None, bounded, None), ("bim", 40, 0.1, 7, None, bounded, None), ("bim", 9, 0.1, 1000, None, bounded, None),
        ("pgd", 40, 0.1, 6, 2, "ce", None), ("pgd", 40, 0.1, 6, 2, "margin", None), ("multi_targeted", 8, 0.1, None, None, None, None),
        *3 * [("autoattack", 5, 0.1, None, None, None, None)], ("autoattack", 4, 0.1, None, None, None, 11),
        ("rays", 3, 0.1, None, None, None, 12), *2 * [("transfer", 40, 0.1, 6, None, None, None)],
        ("slope", 40, None, None, None, rows.cross_entropy, None), ("slope", 40, None, None, None, bounded, None),
        ("pgd", 10, 0.2, 6, None, "margin", None), ("pgd", 10, 0.6, 6, None, "margin", None),
    ]  # fmt: skip
    assert said == expected
    assert [settings["gaussian"] for name, *_, settings in asked if name == "noise"] == [False, True]
    assert {settings["draws"] for name, *_, settings in asked if name == "noise"} == {4}
    assert [(settings["classes"], settings["rounds"]) for name, *_, settings in asked if name == "multi_targeted"] == [(2, 3)]
    assert found.accuracy("BIM-1000") == float(found.robust("clean")[:9].double().mean())


# --- rows -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gaussian", [False, True])
def test_noise_keeps_the_worst_of_its_draws(gaussian):
    (x, y), eps, stream, each = held_out(40), 0.3, torch.Generator().manual_seed(4), []
    for _ in range(6):
        drawn = torch.randn(1, 8, 8, generator=stream) if gaussian else 2 * torch.rand(1, 8, 8, generator=stream) - 1
        each.append(rows.margins(trained(), (x + eps * drawn).clamp((x - eps).clamp_min(0), (x + eps).clamp_max(1)), y))
    found, least = rows.noise(trained(), x, y, eps, draws=6, gaussian=gaussian, seed=4), torch.stack(each).amin(0)
    assert torch.allclose(found, least, atol=1e-4)
    assert all(int((kept - least > 1e-3).sum()) > 0 for kept in each)  # no draw alone is the worst for all


def test_transfer_is_the_corner_and_the_end_of_mifgsm_of_another_library():
    (x, y), eps = held_out(40), 0.1
    with torch.random.fork_rng():
        end = torchattacks.MIFGSM(peer(), eps=eps, alpha=eps / 8, steps=8, decay=1.0)(x, y)
        plain = torchattacks.BIM(peer(), eps=eps, alpha=eps / 8, steps=8)(x, y)
        corner = torchattacks.FGSM(peer(), eps=eps)(x, y)
    found = rows.transfer(trained(), x, y, eps, peer=peer(), to_peer=False, steps=8)
    theirs = torch.minimum(rows.margins(trained(), end, y), rows.margins(trained(), corner, y))
    without = torch.minimum(rows.margins(trained(), plain, y), rows.margins(trained(), corner, y))
    same = [((one - theirs).abs() < 1e-3).double().mean() for one in (found, without)]
    assert same[0] > 0.9 > same[1]  # signs of tiny slopes differ


def test_the_slope_is_the_steepest_pixel_of_the_loss():
    x, y = held_out(5)
    leaf = x.clone().requires_grad_()
    exact = torch.autograd.grad(nn.functional.cross_entropy(trained()(leaf), y, reduction="sum"), leaf)[0].abs().flatten(1).amax(1)
    assert torch.allclose(rows.slope(trained(), x, y, loss=rows.cross_entropy), exact, rtol=1e-4)
    assert torch.equal(rows.slope(trained(), x, y, loss=lambda model, x, y: torch.zeros(len(y))), torch.zeros(5))
    assert torch.equal(rows.slope(trained(), x, y, loss=lambda model, x, y: (x * torch.nan).flatten(1).sum(1)), torch.zeros(5))


# --- masked gradients -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "raised"),
    [
        ("plain", ()),
        ("linear", ()),
        ("saturated", gradient_masking.NAMES[:5]),
        ("quantised", gradient_masking.NAMES[:5]),
        ("shattered", gradient_masking.NAMES[1:5]),
        ("own loss", ("zero gradient", "loss gap")),
        # Planted for one flag: it is raised, and no other but what follows from it.
        ("steep", ("zero gradient",)),
        ("rippled", ("more iterations",)),
        ("blinkered", ("chance at a large eps",)),
        ("spared", ("loss at failed points",)),
        ("other loss", ("loss gap",)),
        ("half blind", ("black box or transfer", "more iterations")),  # more steps do not reach what the black box found
    ],
)
def test_flags_tell_masked_gradients_from_sound_ones(kind, raised):
    found = report(kind)
    assert all(flag.raised is not None for flag in found.flags)
    assert tuple(flag.name for flag in found.flags if flag.raised) == raised
    for flag in found.flags:
        assert flag.raised == (flag.value > flag.threshold)
        assert flag.eps == 0.15 and flag.curves and flag.says


def test_masking_is_no_robustness():
    """The gradient rows of the masked models say robust; the worst case does not."""
    for kind in ("saturated", "quantised", "shattered"):
        found = report(kind)
        assert found.accuracy("PGD margin") > 0.8
        assert found.accuracy() < 0.5
    assert report("own loss").accuracy("BIM-100, own loss") > 0.8
    assert report("own loss").accuracy("BIM-100") < 0.4


def bools(*counts):
    """Masks of 1000 images, each right at the first so many."""
    return [torch.arange(1000) < count for count in counts]


def signs(robust, *, margins=None, slopes=None, sweep=None, y=None):
    every = bools(1000)[0]
    labels = torch.arange(1000) % 10 if y is None else y
    found = gradient_masking.of_radius(0.1, {"clean": every, WORST: every} | robust, margins or {}, slopes or {}, sweep or {}, labels)
    return {flag.name: flag for flag in found}


@pytest.mark.parametrize(("zeros", "raised"), [(0, False), (10, False), (11, True)])
def test_the_threshold_of_zero_gradients(zeros, raised):
    flag = signs({}, slopes={"cross-entropy": (torch.arange(1000) >= zeros).float()})["zero gradient"]
    assert (flag.raised, flag.value, flag.threshold) == (raised, zeros / 1000, gradient_masking.ZERO_GRADIENT)


def test_the_threshold_of_a_stronger_black_box():
    white, few, more = bools(500, 481, 470)
    assert not signs({"PGD margin": white, "Square": few})["black box or transfer"].raised
    flag = signs({"PGD margin": white, "Square": more})["black box or transfer"]
    assert flag.raised and flag.value == pytest.approx(0.03) and "Square leaves 47.0% right" in flag.says
    # what the white box breaks and the black box does not counts against: a paired difference, not a count of wins
    worse = more.clone()
    worse[500:520] = True
    assert not signs({"PGD margin": white, "Square": worse})["black box or transfer"].raised
    # on 20 images chance alone is worth more than two points
    twenty = {"clean": white[:20], "PGD margin": white[:20], "Square": torch.arange(20) < 19}
    assert not signs(twenty)["black box or transfer"].raised
    # a row that saw fewer images is compared on those
    seen = signs({"PGD margin": white, "Square": (torch.arange(1000) < 50)[:100]})["black box or transfer"]
    assert seen.value == pytest.approx(0.5)


def test_the_threshold_of_more_iterations():
    def flag(*counts, worst):
        names = ("BIM-10", "BIM-100", "BIM-1000")
        return signs(dict(zip(names, bools(*counts), strict=True)) | {WORST: bools(worst)[0]})["more iterations"]

    assert not flag(600, 500, 480, worst=470).raised  # falls to the floor
    assert not flag(600, 500, 480, worst=100).raised  # falls, though not to the floor
    assert not flag(500, 500, 500, worst=450).raised  # nothing left to gain
    weaker = flag(500, 550, 500, worst=500)
    assert weaker.raised and "BIM-100 leaves more right than BIM-10" in weaker.says
    assert not flag(500, 500, 495, worst=350).raised  # what other losses and starts gain
    stalled = flag(500, 500, 495, worst=340)
    assert stalled.raised and "does not fall" in stalled.says


def test_the_threshold_of_the_large_radius():
    labels = torch.arange(1000) % 4
    for count, raised in ((250, False), (251, True)):
        flag = signs({}, sweep={0.1: bools(900)[0], 0.5: bools(count)[0]}, y=labels)["chance at a large eps"]
        assert (flag.raised, flag.threshold) == (raised, 0.25)
    assert signs({}, sweep={0.1: bools(900)[0]})["chance at a large eps"].raised is None


def test_a_grey_image_leaves_one_class_at_the_most():
    """The bound behind that threshold: at eps 0.5 the grey image is in every ball, whatever the classifier."""
    x, y = held_out(50)
    low, high = interval(x, 0.5)
    grey = torch.full_like(x, 0.5)
    assert bool(((low <= grey) & (grey <= high)).all())
    with torch.no_grad():
        right = trained()(grey).argmax(1) == y
    assert right.double().mean() <= report("plain").flag("chance at a large eps").threshold + 0.02


def test_the_threshold_of_no_progress():
    clean, noisy = torch.full((1000,), 2.0), torch.full((1000,), 1.5)
    for stuck, raised in ((20, False), (21, True)):
        reached = torch.where(torch.arange(1000) < stuck, 1.5, 1.4)
        found = {"clean": clean, "uniform noise": noisy, "PGD margin": reached}
        flag = signs({"PGD margin": bools(1000)[0]}, margins=found)["loss at failed points"]
        assert (flag.raised, flag.value) == (raised, stuck / 1000)
    broken = signs({"PGD margin": bools(0)[0]}, margins={"clean": clean, "uniform noise": noisy, "PGD margin": clean})
    assert broken["loss at failed points"].value == 0


def test_the_threshold_of_a_gap_between_losses():
    for count, raised in ((399, True), (401, False)):
        first, second = bools(500, count)
        flag = signs({"PGD cross-entropy": first, "PGD margin": second})["loss gap"]
        assert flag.raised == raised
    own = signs({"BIM-10": bools(100)[0], "BIM-10, own loss": bools(800)[0]})["loss gap"]
    assert own.raised and own.value == pytest.approx(0.7)


def test_flags_without_their_rows_are_not_run():
    found = signs({})
    assert [flag.raised for flag in found.values()] == [None] * 6
    assert all(flag.value is None and flag.says.startswith("not run: ") for flag in found.values())


def test_of_several_radii_a_flag_shows_the_worst():
    kept = evaluate(Saturated().eval(), *held_out(60), (0.02, 0.2), budget=BUDGETS["quick"], peer=peer())
    assert kept.flag("black box or transfer").eps == 0.2
    assert kept.flag("black box or transfer").raised


def test_the_figure_shows_every_row_and_flag():
    import matplotlib.pyplot as plt

    axes = plots.protocol({"plain": report("plain"), "masked": [report("saturated"), report("own loss")]})
    assert set(axes) == {"rows", *gradient_masking.NAMES}
    labels = [label.get_text() for label in axes["rows"].get_yticklabels()]
    assert labels == [row for row in report("own loss").rows if report("own loss").accuracy(row) is not None]
    assert "raised: masked" in axes["zero gradient"].get_title().replace("\n", " ")
    assert all(axes[name].lines or axes[name].collections for name in gradient_masking.NAMES)
    plt.close(axes["rows"].figure)
    alone = plots.protocol(evaluate(trained(), *held_out(5), 0.1, budget=Budget(images=5, bim=(), noise_draws=0, pgd_restarts=0)))
    assert [text.get_text() for text in alone["more iterations"].texts] == ["not run"]
    plt.close(alone["rows"].figure)


# --- wrong input ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x": held_out(4)[0].double()}, "x must be float32"),
        ({"x": held_out(4)[0][:, 0]}, r"\(N, C, H, W\)"),
        ({"x": 2 * held_out(4)[0]}, "values in"),
        ({"y": torch.tensor([0, 1, 2, 10])}, "label 10"),
        ({"y": torch.zeros(4)}, "int64"),
        ({"eps": -0.1}, "eps must be finite and at least 0"),
        ({"eps": float("nan")}, "eps must be finite"),
        ({"eps": ()}, "one radius or several different ones"),
        ({"eps": (0.1, 0.1)}, "several different ones"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"peer": linear((1, 8, 8), 4)}, "peer must score the same 10 classes as the model; it scores 4"),
        ({"model": lambda x: trained()(x).softmax(1)}, "probabilities"),
        ({"peer": models.small_cnn((1, 8, 8), 10).train()}, "in training mode"),
        ({"model": lambda x: torch.zeros(len(x), 10) - 1}, "does not depend differentiably on the image"),
    ],
)
def test_wrong_input_is_refused(change, says):
    call = dict(zip("xy", held_out(4), strict=True)) | {"model": trained(), "eps": 0.1, "budget": BUDGETS["quick"]} | change
    with pytest.raises(ValueError, match=says):
        evaluate(call.pop("model"), call.pop("x"), call.pop("y"), call.pop("eps"), **call)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": 0}, "images must be a whole number of at least 1"),
        ({"bim": (10, 0)}, "each length in bim must be"),
        ({"pgd_steps": 0}, "pgd_steps must be"),
        ({"autoattack_images": -1}, "autoattack_images must be a whole number of at least 0"),
        ({"square_queries": 1.5}, "square_queries must be"),
        ({"targeted_classes": 0}, "targeted_classes must be"),
        ({"sweep": (0.0, 0.5)}, r"each radius in sweep must be in \(0, 1\]"),
    ],
)
def test_wrong_budgets_are_refused(change, says):
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(EVERYTHING, **change)


def test_the_budgets_of_the_profiles():
    assert set(BUDGETS) == {"quick", "standard", "paper"}
    quick, standard, paper = BUDGETS.values()
    assert quick.autoattack_images == quick.square_images == quick.long_images == 0
    assert max(standard.sweep) >= 0.5 <= max(quick.sweep) <= max(paper.sweep)
    for field in dataclasses.fields(Budget):
        least, middle, most = (getattr(budget, field.name) for budget in BUDGETS.values())
        if isinstance(least, int):
            assert least <= middle <= most, field.name
