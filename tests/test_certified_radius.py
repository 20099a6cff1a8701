"""Proposition 1 of alfarra2021: never broken, attained, and wrong when only the two nearest centres are looked at."""

import math

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from support import certificates


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def nearest_class(features, centers, kinds):
    return kinds[(features[:, None] - centers).square().sum(2).argmin(1)]


def two_nearest(features, centers, lipschitz):
    """What the paper's sentence says: Proposition 1 with the two nearest centres (one centre per class)."""
    near = (features[:, None] - centers).square().sum(2).topk(2, dim=1, largest=False)
    apart = (centers[near.indices[:, 0]] - centers[near.indices[:, 1]]).norm(dim=1)
    return (near.values[:, 1] - near.values[:, 0]) / (2 * lipschitz * apart)


def exact_distance(point, centers, own, rivals):
    """Distance from a point to the nearest place where some rival is at least as near as every own centre, by quadratic programmes.

    For each rival: minimise |z - point| such that |z - rival|^2 <= |z - m|^2 for all own m, linear in z.
    """
    found = math.inf
    for rival in rivals:
        # |z - r|^2 <= |z - m|^2 is 2 (m - r) z <= |m|^2 - |r|^2
        a = 2 * (centers[own] - centers[rival])
        b = (centers[own] ** 2).sum(1) - (centers[rival] ** 2).sum()
        start = centers[rival]  # feasible
        closer = {"type": "ineq", "fun": lambda z, a=a, b=b: b - a @ z, "jac": lambda z, a=a: -a}
        settings = {"method": "SLSQP", "constraints": [closer], "options": {"ftol": 1e-14, "maxiter": 500}}
        result = scipy.optimize.minimize(lambda z: ((z - point) ** 2).sum(), start, jac=lambda z: 2 * (z - point), **settings)
        found = min(found, math.sqrt(max(result.fun, 0)))
    return found


# --- the radius -------------------------------------------------------------------------------------------------------


def test_a_hand_example():
    centers = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    found = certificates.robustness_radius(torch.tensor([[1.0, 7.0], [2.0, 0.0], [3.5, 0.0]]), centers, torch.tensor([0, 1]), 2.0)
    assert found.tolist() == [0.5, 0.0, 0.75]
    labelled = certificates.robustness_radius(
        torch.tensor([[1.0, 7.0], [3.5, 0.0]]), centers, torch.tensor([0, 1]), 2.0, torch.tensor([0, 0])
    )
    assert labelled.tolist() == [0.5, -0.75]


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(1, 3), st.integers(1, 4), st.integers(0, 10**6))
def test_no_point_inside_the_radius_has_another_class(classes, k, d, seed):
    """The identity as the network, L = 1: points of the ball are features. Its rim is searched towards every rival's bisector, too."""
    centers, kinds = normal(classes * k, d, seed=seed), torch.arange(classes).repeat_interleave(k)
    points = 1.5 * normal(30, d, seed=seed + 1)
    radii = certificates.robustness_radius(points, centers, kinds, 1.0)
    assert (radii >= 0).all()
    own = nearest_class(points, centers, kinds)
    directions = torch.cat([normal(200, d, seed=seed + 2), (centers[:, None] - centers).flatten(0, 1)])
    directions = directions[directions.norm(dim=1) > 0]
    directions = directions / directions.norm(dim=1, keepdim=True)
    there = points[:, None] + radii[:, None, None] * (1 - 1e-9) * directions
    assert (nearest_class(there.flatten(0, 1), centers, kinds).view(30, -1) == own[:, None]).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 6), st.integers(2, 4), st.integers(0, 10**6))
def test_with_one_centre_per_class_the_radius_is_the_distance_to_the_boundary(classes, d, seed):
    centers, points = normal(classes, d, seed=seed), normal(4, d, seed=seed + 1)
    kinds = torch.arange(classes)
    own = nearest_class(points, centers, kinds)
    found = certificates.robustness_radius(points, centers, kinds, 1.0)
    for point, kind, value in zip(points.numpy(), own.tolist(), found.tolist(), strict=True):
        expected = exact_distance(point, centers.numpy(), [kind], [j for j in range(classes) if j != kind])
        assert value == pytest.approx(expected, rel=1e-5, abs=1e-7)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_with_several_it_never_exceeds_that_distance(seed):
    centers, points, kinds = normal(6, 2, seed=seed), normal(4, 2, seed=seed + 1), torch.arange(3).repeat_interleave(2)
    own = nearest_class(points, centers, kinds)
    found = certificates.robustness_radius(points, centers, kinds, 1.0)
    for point, kind, value in zip(points.numpy(), own.tolist(), found.tolist(), strict=True):
        mine, rivals = np.flatnonzero((kinds == kind).numpy()), np.flatnonzero((kinds != kind).numpy())
        assert value <= exact_distance(point, centers.numpy(), mine, rivals) + 1e-6


def test_the_two_nearest_centres_are_no_certificate():
    """A counterexample of three centres in the plane, whose second nearest has the farther bisector; and many by search."""
    centers, point = (
        torch.tensor([[0.0, 0.0], [2.2, 0.0], [0.2, 0.755]], dtype=torch.float64),
        torch.tensor([[1.0, 0.0]], dtype=torch.float64),
    )
    kinds = torch.arange(3)
    assert float(certificates.robustness_radius(point, centers, kinds, 1.0)) == pytest.approx(0.1)
    assert float(two_nearest(point, centers, 1.0)) > 0.13
    assert nearest_class(point, centers, kinds).tolist() == [0]
    assert nearest_class(point + torch.tensor([[0.11, 0.0]]), centers, kinds).tolist() == [1]
    found = 0
    for seed in range(200):
        centers, points = normal(4, 2, seed=seed), normal(50, 2, seed=seed + 1000)
        right, claimed = certificates.robustness_radius(points, centers, torch.arange(4), 1.0), two_nearest(points, centers, 1.0)
        assert (right <= claimed + 1e-12).all()
        own = nearest_class(points, centers, torch.arange(4))
        rival = (points[:, None] - centers).square().sum(2)
        apart = (centers[own][:, None] - centers).norm(dim=2)
        ratio = (rival - rival.gather(1, own[:, None])) / (2 * apart)
        aim = ratio.scatter(1, own[:, None], torch.inf).argmin(1)
        unit = (centers[aim] - centers[own]) / (centers[aim] - centers[own]).norm(dim=1, keepdim=True)
        there = points + (right * (1 + 1e-9))[:, None] * unit
        wrong = (claimed > 1.01 * right) & (nearest_class(there, centers, torch.arange(4)) != own)
        found += int(wrong.sum())
    assert found > 100, "points whose class changes well inside the claimed radius"


def test_it_is_attained_by_a_network():
    """An orthogonal layer times L, then the identity: moving along the bisector's normal changes the class just beyond the radius."""
    lipschitz = 3.0
    q = torch.linalg.qr(normal(5, 5))[0]
    network = nn.Sequential(nn.Linear(5, 5, bias=False).double())
    with torch.no_grad():
        network[0].weight.copy_(lipschitz * q)
    assert certificates.lipschitz_upper_bound(network) == pytest.approx(lipschitz)
    centers, kinds, x = normal(4, 5, seed=1), torch.arange(4), normal(20, 5, seed=2)
    f = network(x).detach()
    radii = certificates.robustness_radius(f, centers, kinds, lipschitz)
    own = nearest_class(f, centers, kinds)
    d2 = (f[:, None] - centers).square().sum(2)
    apart = (centers[own][:, None] - centers).norm(dim=2)
    rival = ((d2 - d2.gather(1, own[:, None])) / (2 * apart)).scatter(1, own[:, None], torch.inf).argmin(1)
    unit = (centers[rival] - centers[own]) / (centers[rival] - centers[own]).norm(dim=1, keepdim=True)
    for factor, changed in ((1 - 1e-6, False), (1 + 1e-6, True)):
        moved = network(x + factor * radii[:, None] * (unit @ q)).detach()
        assert torch.equal(nearest_class(moved, centers, kinds) != own, torch.full((20,), changed))


def test_labels_make_the_sign_the_verdict():
    centers, kinds, f = normal(6, 4), torch.arange(3).repeat_interleave(2), normal(100, 4, seed=1)
    labels = torch.arange(100) % 3
    signed = certificates.robustness_radius(f, centers, kinds, 1.7, labels)
    own = nearest_class(f, centers, kinds)
    assert torch.equal(signed > 0, own == labels)
    assert torch.equal(signed[own == labels], certificates.robustness_radius(f, centers, kinds, 1.7)[own == labels])


def test_centres_of_the_own_class_are_no_rivals():
    centers, kinds = torch.tensor([[0.0], [2.0], [10.0]]), torch.tensor([0, 0, 1])
    found = certificates.robustness_radius(torch.tensor([[1.1], [-3.0]]), centers, kinds, 1.0)
    assert found.tolist() == pytest.approx([4.9, 9.0]), "to the bisector of 2 and 10, not to that of 0 and 2"


def test_classes_that_share_a_centre_are_a_tie():
    centers = torch.tensor([[0.0], [0.0], [5.0]])
    assert certificates.robustness_radius(torch.tensor([[1.0], [4.0]]), centers, torch.tensor([0, 1, 2]), 1.0).tolist() == [0.0, 1.5]


def test_the_scale_of_features_does_not_matter():
    f, centers, kinds = normal(20, 4), normal(5, 4, seed=1), torch.arange(5)
    first = certificates.robustness_radius(f, centers, kinds, 2.0)
    assert torch.allclose(certificates.robustness_radius(100 * f, 100 * centers, kinds, 200.0), first)


# --- the curve --------------------------------------------------------------------------------------------------------


def test_certified_accuracy_counts():
    radii, correct = torch.tensor([0.0, 0.5, 1.0, 2.0]), torch.tensor([True, True, False, True])
    assert certificates.certified_accuracy(radii, correct, torch.tensor([0.0, 0.4, 0.5, 1.5, 2.0])).tolist() == [0.5, 0.5, 0.25, 0.25, 0.0]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=20), st.integers(0, 10**6))
def test_certified_accuracy_falls_and_never_exceeds_the_accuracy(values, seed):
    correct = torch.rand(len(values), generator=torch.Generator().manual_seed(seed)) < 0.7
    curve = certificates.certified_accuracy(torch.tensor(values), correct, torch.linspace(0, 10, 11))
    assert (curve.diff() <= 0).all() and float(curve[0]) <= float(correct.double().mean()) + 1e-12


# --- what is refused --------------------------------------------------------------------------------------------------

F, C, Y = torch.zeros(2, 3), torch.eye(3)[:2], torch.tensor([0, 1])


def test_what_does_not_fit_is_refused():
    table = [
        (lambda: certificates.robustness_radius(F, C, Y, 0.0), "lipschitz must be a positive number; 0.0"),
        (lambda: certificates.robustness_radius(F, C, Y, math.inf), "lipschitz must be"),
        (lambda: certificates.robustness_radius(F, C, torch.tensor([1, 1]), 1.0), "at least two classes"),
        (lambda: certificates.robustness_radius(F, C, torch.tensor([0]), 1.0), r"center_labels must be int64 of shape \(2,\)"),
        (lambda: certificates.robustness_radius(F, C, Y, 1.0, torch.tensor([0, 7])), r"\[7\] have none"),
        (lambda: certificates.robustness_radius(F[:, :2], C, Y, 1.0), "features have 2 columns and centers 3"),
        (lambda: certificates.robustness_radius(F / 0, C, Y, 1.0), "must not contain NaN"),
        (lambda: certificates.certified_accuracy(torch.zeros(0), torch.zeros(0, dtype=torch.bool), torch.zeros(1)), "at least one image"),
        (lambda: certificates.certified_accuracy(torch.zeros(2), torch.tensor([1, 0]), torch.zeros(1)), "correct must be a bool tensor"),
        (
            lambda: certificates.certified_accuracy(torch.zeros(2), torch.ones(2).bool(), torch.tensor(0.5)),
            "at must be a floating-point vector",
        ),
    ]
    for call, message in table:
        with pytest.raises(ValueError, match=message):
            call()
