"""The least budget is the one that brute force over ReLU patterns finds."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from support import attacks, certificates, models
from support.models import heads


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def centred_scores(model, x):
    with torch.no_grad():
        scores = model(x).double()
    return scores - scores.mean(1, keepdim=True)


def by_enumeration(model, x, like=None, label=None):
    """The least budget as the least of one linear programme per pattern of active units: one hidden layer only."""
    first = model.body[2]
    weight, bias = first.weight.detach().double().numpy(), first.bias.detach().double().numpy()
    mean, std = float(model.body[0].mean), float(model.body[0].std)
    weight, bias = weight / std, bias - weight.sum(1) * mean / std
    out, offset = (value.detach().double().numpy() for value in (model.head.weight, model.head.bias))
    start = x.double().reshape(-1).numpy()
    n, best = len(start), math.inf
    for pattern in itertools.product((0, 1), repeat=len(bias)):
        on = np.array(pattern)
        sign = 1 - 2 * on  # pre-activations below zero where off, above where on
        upper = [np.c_[sign[:, None] * weight, np.zeros(len(bias))], np.c_[np.eye(n), -np.ones(n)], np.c_[-np.eye(n), -np.ones(n)]]
        right = [-sign * bias, start, -start]
        through = (out * on) @ weight, (out * on) @ bias + offset
        equal, wanted = None, None
        if like is not None:
            target = centred_scores(model.double(), like[None].double())[0].numpy()
            model.float()
            matrix, constant = (part - part.mean(0) for part in through)
            equal, wanted = np.c_[matrix, np.zeros(len(out))], target - constant
        else:
            upper.append(np.c_[through[0] - through[0][label], np.zeros(len(out))])
            right.append(through[1][label] - through[1])
        answer = linprog(
            [*[0.0] * n, 1.0], A_ub=np.vstack(upper), b_ub=np.concatenate(right), A_eq=equal, b_eq=wanted, bounds=[(0, 1)] * n + [(0, 1)]
        )
        if answer.status == 0:
            best = min(best, answer.fun)
    return best


@pytest.mark.parametrize("seed", range(4))
def test_the_least_budget_is_that_of_all_patterns(seed):
    model = models.mlp((1, 3, 3), (6,), 3, seed=seed, mean=0.2, std=0.7)
    x, other = rand(2, 1, 3, 3, seed=seed)
    found = certificates.least_budget(model, x, like=other)
    assert found.upper == pytest.approx(by_enumeration(model, x, like=other), abs=1e-5)
    assert found.lower == pytest.approx(found.upper, abs=1e-5)
    assert float((found.x - x).abs().max()) <= found.upper + 1e-7
    with torch.no_grad():
        p = model.double()(torch.stack([found.x, other.double()])).softmax(1)
    assert torch.allclose(p[0], p[1], atol=1e-6)
    model.float()
    label = 1 - int(model(x[None]).argmax())
    found = certificates.least_budget(model, x, label=max(label, 0))
    assert found.upper == pytest.approx(by_enumeration(model, x, label=max(label, 0)), abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_pixels_at_the_ends_of_the_box_cannot_leave_it(seed):
    model = models.mlp((1, 3, 3), (6,), 3, seed=seed)
    x = rand(1, 3, 3, seed=seed).round()
    own = int(model(x[None]).argmax())
    for label in {0, 1, 2} - {own}:
        found, expected = certificates.least_budget(model, x, label=label), by_enumeration(model, x, label=label)
        assert found.upper == pytest.approx(expected, abs=1e-5)
        if found.x is not None:
            assert float((found.x - x).abs().max()) == pytest.approx(found.upper, abs=1e-6)


def test_no_search_goes_below_the_least_budget_and_no_enclosure_forbids_it():
    model = models.mlp((1, 4, 4), (8, 6), 4, seed=3)
    generator = torch.Generator().manual_seed(0)
    model = models.with_head(model, heads.LinearHead(10 * torch.randn(4, 6, generator=generator)))
    x, other = rand(2, 1, 4, 4, seed=1)
    found = certificates.least_budget(model, x, like=other)
    assert 0 < found.upper <= float((x - other).abs().max()) + 1e-6
    low, high = certificates.centred_score_bounds(model, x[None], found.upper + 1e-6)
    target = centred_scores(model, other[None])
    assert (target >= low - 1e-5).all() and (target <= high + 1e-5).all()
    own = int(model(x[None]).argmax())
    budgets = {k: certificates.least_budget(model, x, label=k) for k in range(4)}
    assert budgets[own].upper == pytest.approx(0, abs=1e-9)
    tried = [k for k, budget in budgets.items() if k != own and math.isfinite(budget.upper)]
    assert tried
    for k in tried:
        attack = attacks.pgd(
            model, x[None], torch.tensor([k]), 0.99 * budgets[k].upper, targeted=True, loss="margin", steps=100, restarts=5
        )
        assert not attack.success.any() and attack.margin > 0, "the label is out of reach below the least budget"
        with torch.no_grad():
            scores = model(budgets[k].x[None].float())[0]
        assert float(scores.max() - scores[k]) < 1e-4, "and the image returned has it"


def test_a_goal_out_of_the_radius_is_infinitely_far():
    model = models.mlp((1, 3, 3), (6,), 3, seed=0)
    x, other = rand(2, 1, 3, 3)
    full = certificates.least_budget(model, x, like=other)
    found = certificates.least_budget(model, x, like=other, within=full.lower / 2)
    assert math.isinf(found.lower) and math.isinf(found.upper) and found.x is None


def test_goals_and_models_that_do_not_fit_are_refused():
    x, mlp = rand(1, 1, 8, 8), models.mlp((1, 8, 8), (5,), 3)
    for goal in ({}, {"like": x[0], "label": 1}):
        with pytest.raises(ValueError, match="one of the two"):
            certificates.least_budget(mlp, x[0], **goal)
    with pytest.raises(ValueError, match="Linear and ReLU in turns"):
        certificates.least_budget(models.lenet((1, 16, 16)), rand(1, 16, 16), label=1)
