"""L-BFGS: exact optima of linear models, scipy's L-BFGS-B on the same objective, queries, dead ends."""

import numpy as np
import pytest
import torch
from attack_nets import Counted, classes_of, held_out, linear, pictures, trained
from scipy import optimize
from torch.nn import functional

from support.attacks import fgsm, lbfgs, margin
from support.attacks.base import prepare
from support.attacks.minimal_l2 import _Aim, _minimise


def length(found, x):
    return (found.x_adv - x).flatten(1).norm(dim=1)


def targets(y, classes=10):
    return (y + 1 + torch.arange(len(y)) % (classes - 1)) % classes


def nearest_wrong(model, x, y):
    """Exact least distance in the box at which a linear model leaves class y: one quadratic programme per rival, solved by its dual."""
    weight, bias = (part.detach().numpy() for part in (model[1].weight, model[1].bias))
    found = []
    for image, label in zip(x.flatten(1).numpy(), y.tolist(), strict=True):
        best = np.inf
        for rival in set(range(len(bias))) - {label}:
            normal, offset = weight[rival] - weight[label], bias[rival] - bias[label]
            reach = np.where(normal > 0, 1, 0)
            if normal @ reach + offset <= 0:
                continue

            def gap(step, image=image, normal=normal, offset=offset):
                return normal @ np.clip(image + step * normal, 0, 1) + offset

            step = optimize.brentq(gap, 0, 1e6, xtol=1e-14)
            best = min(best, np.linalg.norm(np.clip(image + step * normal, 0, 1) - image))
        found.append(best)
    return torch.tensor(found)


@pytest.mark.parametrize("inside", [True, False])
def test_two_linear_classes_are_left_at_the_exact_least_distance(inside):
    """With the box out of reach it is the distance to a hyperplane, with it a projection onto a half-space of the box."""
    model, x = linear((1, 5, 5), 2, dtype=torch.float64), pictures(80, (1, 5, 5), dtype=torch.float64)
    x = 0.4 + 0.2 * x if inside else x
    y = classes_of(model, x)
    exact = nearest_wrong(model, x, y)
    if inside:
        normal = (model[1].weight[0] - model[1].weight[1]).detach()
        assert torch.allclose(exact, margin(model(x), y).detach() / normal.norm())
    found = lbfgs(model, x, y)
    assert bool(found.success.all())
    ratio = length(found, x) / exact
    assert float(ratio.min()) >= 1 - 1e-9 and float(ratio.max()) < 1.03


def test_many_linear_classes_are_left_near_the_optimum():
    """Cross-entropy counts all rivals at once where the optimum needs one, which shows among random classes; the margin does not."""
    model, x = linear((1, 6, 6), 7, dtype=torch.float64), pictures(60, (1, 6, 6), dtype=torch.float64)
    y = classes_of(model, x)
    exact, medians = nearest_wrong(model, x, y), {}
    for loss in ("ce", "margin"):
        found = lbfgs(model, x, y, loss=loss)
        ratio = length(found, x) / exact
        assert bool(found.success.all()) and float(ratio.min()) >= 1 - 1e-9
        medians[loss] = float(ratio.median())
    assert medians["margin"] < 1.03 and medians["margin"] < medians["ce"] < 1.5


def test_a_minimisation_reaches_what_scipy_reaches():
    """On a convex surface, which has one minimum: that of a linear model, under curved cross-entropy and in the box."""
    (x, y), model = held_out(12), linear((1, 8, 8), 10, dtype=torch.float64)
    model[1].weight.data *= 4
    x, wanted = x.double(), targets(y)
    call = prepare(model, x, wanted, 64)
    flat, constant = x.flatten(1), torch.full((12,), 0.8, dtype=torch.float64)
    point, passes = _minimise(call, _Aim(wanted, 1, "ce"), flat, flat, constant, 200)
    assert bool((passes < 200).all())
    for i in range(12):

        def objective(z, i=i):
            leaf = torch.from_numpy(z).requires_grad_()
            with torch.enable_grad():
                loss = functional.cross_entropy(model(leaf.view(1, 1, 8, 8)), wanted[i : i + 1])
                value = (leaf - flat[i]).square().sum() / 2 + 0.8 * loss
                (slope,) = torch.autograd.grad(value, leaf)
            return value.item(), slope.numpy()

        exact = {"ftol": 1e-15, "gtol": 1e-10}
        theirs = optimize.minimize(objective, flat[i].numpy(), jac=True, method="L-BFGS-B", bounds=[(0, 1)] * 64, options=exact)
        assert float(point.value[i]) == pytest.approx(objective(point.z[i].numpy())[0], abs=1e-9)
        assert 0 < theirs.fun < objective(flat[i].numpy())[0] / 1.1
        assert float(point.value[i]) == pytest.approx(theirs.fun, rel=1e-4)


def test_the_distortion_beats_a_single_signed_step_by_far():
    x, y = held_out(100)
    found = lbfgs(trained(), x, y)
    assert bool(found.success.all())
    crude = torch.full((100,), torch.inf)
    for eps in np.linspace(0.02, 0.6, 12):
        step = fgsm(trained(), x, y, float(eps))
        crude = torch.where(step.success, torch.minimum(crude, length(step, x)), crude)
    right = classes_of(trained(), x) == y
    assert float((length(found, x) / crude)[right].median()) < 0.7
    assert torch.equal(found.x_adv[~right], x[~right])


def test_targets_are_reached_and_a_coarse_search_goes_farther():
    x, y = held_out(40)
    wanted = targets(y)
    fine, coarse = (lbfgs(trained(), x, wanted, targeted=True, search=search, growth=10.0) for search in (8, 0))
    for found in (fine, coarse):
        assert bool(found.success.all()) and torch.equal(classes_of(trained(), found.x_adv), wanted)
        assert float(found.x_adv.min()) >= 0 and float(found.x_adv.max()) <= 1
    assert bool((length(fine, x) <= length(coarse, x) * 1.02).all()) and float(fine.margin.mean()) > 5 * float(coarse.margin.mean())
    assert float(fine.queries.double().mean()) > float(coarse.queries.double().mean())


def test_of_all_successes_the_nearest_is_returned():
    x, y = held_out(60)
    wanted = targets(y)
    lengths = torch.stack([length(lbfgs(trained(), x, wanted, targeted=True, search=count, steps=6), x) for count in range(7)])
    assert bool((lengths[1:] <= lengths[:-1]).all()) and (lengths[-1] < lengths[0]).double().mean() > 0.4


def test_queries_count_the_passes():
    x, y = held_out(16)
    for few in (x[:1], x):
        model = Counted(trained())
        found = lbfgs(model, few, y[: len(few)], search=3)
        assert int(found.queries.sum()) <= model.images
        assert len(few) > 1 or model.images <= 16 * (int(found.queries) + 40)  # padding to sixteen, and passes until the next look


def test_clean_errors_are_kept_and_dead_ends_are_failures():
    x = pictures(6, (1, 4, 4))
    model = linear((1, 4, 4), 3)
    y = (classes_of(model, x) + 1) % 3
    found = lbfgs(model, x, y)
    assert torch.equal(found.x_adv, x) and bool(found.success.all()) and found.queries.unique().tolist() == [2]

    def constant(x):  # class 0 wins by 5 whatever the image, with a gradient of zero
        return torch.stack([x.flatten(1).sum(1) * 0 + 5, x.flatten(1).sum(1) * 0], 1)

    lost = lbfgs(constant, x, torch.zeros(6, dtype=torch.int64))
    assert not bool(lost.success.any()) and torch.allclose(lost.margin, torch.tensor(5.0)) and torch.equal(lost.x_adv, x)
