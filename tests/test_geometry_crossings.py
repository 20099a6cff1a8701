"""Boundary points, samples, normals and curvatures on models whose boundary is known, and on a trained network."""

import math

import pytest
import torch
from attack_nets import Counted, classes_of, convolutional, digits, linear, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from support import geometry

DOUBLE = torch.float64


def noise(seed, *shape, dtype=DOUBLE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def round_tube(radius, curved):
    """Class 0 within ``radius`` of the space spanned by all but the first ``curved`` coordinates: a ball, a cylinder, a slab."""

    def scores(x):
        slack = radius - x[:, :curved].norm(dim=1)
        return torch.stack([slack, -slack], 1)

    return scores


def on_tube(radius, curved, n, d, seed=0):
    """Boundary points, inward normals and classes of :func:`round_tube`."""
    x = noise(seed, n, d)
    x[:, :curved] *= radius / x[:, :curved].norm(dim=1, keepdim=True)
    normals = torch.zeros_like(x)
    normals[:, :curved] = -x[:, :curved] / radius
    return x, normals, torch.zeros(n, dtype=torch.int64)


# --- bisection --------------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.sampled_from([torch.float32, DOUBLE]))
def test_bisection_finds_a_known_plane(seed, d, dtype):
    weight = noise(seed, d)
    model = linear((d,), 2, dtype=DOUBLE)
    model[1].weight.data, model[1].bias.data = torch.stack([weight, -weight]), torch.tensor([0.3, -0.3], dtype=DOUBLE)
    model = model.to(dtype)
    a, b = noise(seed + 1, 40, d, dtype=dtype), noise(seed + 2, 40, d, dtype=dtype)
    differ = classes_of(model, a) != classes_of(model, b)
    if not bool(differ.any()):
        return
    found = geometry.bisect(model, a[differ], b[differ])
    gap = (found.point.double() @ weight + 0.3) / weight.norm()
    assert float(gap.abs().max()) < (1e-5 if dtype == torch.float32 else 1e-13)
    assert torch.equal(found.classes[:, 0], classes_of(model, a[differ])) and bool((found.classes[:, 0] != found.classes[:, 1]).all())
    assert float(found.residual.max()) < (1e-4 if dtype == torch.float32 else 1e-12)
    along = torch.lerp(a[differ].double(), b[differ].double(), found.t[:, None])
    assert torch.allclose(found.near.double(), along, atol=1e-6) and found.near.dtype == dtype


def test_both_sides_are_what_the_model_says():
    x, _ = digits()
    model = Counted(trained())
    classes = classes_of(trained(), x[:400])
    a, b = x[:200], x[200:400]
    differ = classes[:200] != classes[200:]
    a, b = a[differ], b[differ]
    found = geometry.bisect(model, a, b)
    assert model.images <= 1.25 * len(a) * found.queries and found.queries == 26
    sides = torch.stack([classes_of(trained(), found.near), classes_of(trained(), found.far)], 1)
    close = found.residual < 1e-5
    assert bool(((sides == found.classes).all(1) | close).all())
    assert torch.equal(found.classes[:, 0], classes[:200][differ])
    assert bool((found.width <= (b - a).flatten(1).norm(dim=1) * 2.0**-23).all())
    assert float(found.point.min()) >= 0 and float(found.point.max()) <= 1


def test_fewer_steps_leave_wider_brackets():
    model, a, b = round_tube(1.0, 3), torch.zeros(5, 3, dtype=DOUBLE), 4 * nn.functional.normalize(noise(0, 5, 3))
    for steps in (1, 4, 20):
        found = geometry.bisect(model, a, b, steps=steps)
        assert torch.allclose(found.width, torch.full((5,), 4 * 2.0**-steps, dtype=DOUBLE)) and found.queries == steps + 2
        assert bool((found.near.norm(dim=1) <= 1).all()) and bool((found.far.norm(dim=1) >= 1).all())


def test_a_segment_s_result_does_not_depend_on_its_batch():
    a, b = (noise(seed, 300, 1, 8, 8, dtype=torch.float32).sigmoid() for seed in (1, 2))
    model = convolutional(1, 8, 3, sharp=5.0)
    differ = classes_of(model, a) != classes_of(model, b)
    a, b = a[differ], b[differ]
    whole = geometry.bisect(model, a, b)
    order = torch.randperm(len(a), generator=torch.Generator().manual_seed(0))
    assert torch.equal(geometry.bisect(model, a[order], b[order]).near, whole.near[order])
    assert torch.allclose(geometry.bisect(model, a, b, batch_size=16).t, whole.t, atol=1e-5)
    assert not whole.near.is_inference() and not whole.near.requires_grad


def test_ends_that_are_neighbours():
    a = torch.zeros(1, 1, dtype=torch.float32)
    b = torch.full((1, 1), torch.finfo(torch.float32).smallest_normal)
    model = linear((1,), 2)
    model[1].weight.data, model[1].bias.data = torch.tensor([[0.0], [1e30]]), torch.tensor([1e-20, 0.0])
    found = geometry.bisect(model, a, b)
    assert float(found.width) <= float(b - a) and found.classes.tolist() == [[0, 1]]


# --- samples ----------------------------------------------------------------------------------------------------------------------


def test_samples_lie_on_the_boundary_and_come_from_both_sides():
    model = round_tube(2.0, 4)
    a, b = 0.1 * noise(0, 3, 4), 5 * nn.functional.normalize(noise(1, 3, 4))
    center = geometry.bisect(model, a, b).point
    found = geometry.boundary_sample(model, a, b, center, 0.1 * noise(2, 300, 4))
    assert torch.allclose(found.points.norm(dim=2), torch.full((3, 300), 2.0, dtype=DOUBLE))
    assert torch.equal(found.inside, (center[:, None] + 0.1 * noise(2, 300, 4)).norm(dim=2) < 2)
    assert 0.2 < float(found.inside.double().mean()) < 0.8 and found.classes.unique().tolist() == [1]
    assert torch.allclose(found.moved, (found.points - center[:, None] - 0.1 * noise(2, 300, 4)).norm(dim=2))


def test_an_oblique_plane_stretches_a_sample_by_one_over_the_cosine():
    """Interpolation along u projects obliquely: singular values 0 (the normal), 1 / cos (the incidence), and ones."""
    d, alpha = 6, math.radians(70)
    model = linear((d,), 2, dtype=DOUBLE)
    model[1].weight.data = torch.zeros(2, d, dtype=DOUBLE)
    model[1].weight.data[0, 0], model[1].bias.data = 1.0, torch.zeros(2, dtype=DOUBLE)
    u = torch.zeros(1, d, dtype=DOUBLE)
    u[0, 0], u[0, 1] = math.cos(alpha), math.sin(alpha)
    offsets = geometry.flat_spectrum(2000, d)
    found = geometry.boundary_sample(model, 1e4 * u, -1e4 * u, 0 * u, offsets)
    values = geometry.boundary_spectrum(found.points[0]).values / geometry.boundary_spectrum(offsets).values.mean()
    expected = torch.tensor([1 / math.cos(alpha), 1, 1, 1, 1, 0], dtype=DOUBLE)
    assert torch.allclose(values, expected, atol=2e-3)


# --- heights, curvatures, normals -------------------------------------------------------------------------------------------------


def test_heights_over_a_sphere():
    x, normals, own = on_tube(2.0, 5, 6, 5)
    frames = geometry.tangent_frames(normals, 2)
    found = geometry.heights(round_tube(2.0, 5), x, own, normals, torch.stack([0.5 * frames[:, 0], 3.0 * frames[:, 1]], 1), 1.0)
    assert torch.allclose(found[:, 0], torch.full((6,), 2 - math.sqrt(4 - 0.25), dtype=DOUBLE))
    assert bool(found[:, 1].isnan().all()), "beyond the sphere there is nothing to find"


@pytest.mark.parametrize(("curved", "d"), [(1, 4), (2, 6), (3, 6), (6, 6)])
@pytest.mark.parametrize("outside", [False, True])
def test_curvatures_of_slabs_cylinders_and_spheres(curved, d, outside):
    x, normals, own = on_tube(2.0, curved, 5, d)
    if outside:
        normals, own = -normals, own + 1
    frames = geometry.tangent_frames(normals, d - 1, generator=torch.Generator().manual_seed(3))
    found = geometry.curvatures(round_tube(2.0, curved), x, own, normals, frames, 0.02)
    expected = torch.tensor([0.5] * (curved - 1) + [0.0] * (d - curved), dtype=DOUBLE)
    expected = -expected.flip(0) if outside else expected
    assert torch.allclose(found, expected.expand(5, -1), atol=2e-4)


def test_curvatures_of_an_ellipsoid():
    axes = torch.tensor([1.0, 2.0, 4.0], dtype=DOUBLE)

    def scores(x):
        slack = 1 - (x / axes).square().sum(1)
        return torch.stack([slack, -slack], 1)

    x = torch.tensor([[1.0, 0.0, 0.0]], dtype=DOUBLE)  # curvatures there: a / b^2 and a / c^2 for a the first axis
    frames = torch.eye(3, dtype=DOUBLE)[None, 1:]
    turned = torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=DOUBLE) @ frames
    for frame in (frames, turned):
        found = geometry.curvatures(scores, x, torch.zeros(1, dtype=torch.int64), -x, frame, 0.01)
        assert torch.allclose(found, torch.tensor([[0.25, 0.0625]], dtype=DOUBLE), atol=1e-4)


def test_curvature_is_not_a_number_beyond_the_scale():
    x, normals, own = on_tube(0.5, 3, 4, 3)
    frames = geometry.tangent_frames(normals, 2)
    assert bool(geometry.curvatures(round_tube(0.5, 3), x, own, normals, frames, 2.0).isnan().all())


def test_three_normals_agree():
    model = round_tube(2.0, 3)
    a, b = torch.zeros(4, 3, dtype=DOUBLE), 5 * nn.functional.normalize(noise(1, 4, 3))
    crossing = geometry.bisect(model, a, b)
    exact = -crossing.point / 2
    slope = geometry.gradient_normals(model, crossing.point, crossing.classes[:, 0], crossing.classes[:, 1])
    assert torch.allclose(slope, exact, atol=1e-9)
    sample = geometry.boundary_sample(model, a, b, crossing.point, 0.01 * noise(0, 50, 3)).points
    fitted, spread = geometry.fitted_normals(sample)
    assert float(geometry.incidence(fitted, exact).max()) < 1 and float(spread.max()) < 0.02
    assert torch.allclose(geometry.incidence(crossing.point, exact), torch.zeros(4, dtype=DOUBLE), atol=1e-6)


def test_a_fitted_plane_is_exact():
    normal = nn.functional.normalize(noise(0, 2, 7), dim=1)
    sample = noise(1, 2, 20, 7)
    sample = sample - (sample * normal[:, None]).sum(2, keepdim=True) * normal[:, None] + 3
    found, spread = geometry.fitted_normals(sample)
    assert torch.allclose((found * normal).sum(1).abs(), torch.ones(2, dtype=DOUBLE)) and float(spread.max()) < 1e-12


def test_a_trained_network_s_gradients_point_into_the_own_class():
    x, _ = digits()
    classes = classes_of(trained(), x[:100])
    differ = classes[:50] != classes[50:]
    found = geometry.bisect(trained(), x[:50][differ], x[50:100][differ])
    normals = geometry.gradient_normals(trained(), found.point, found.classes[:, 0], found.classes[:, 1], batch_size=7)
    assert torch.allclose(normals.flatten(1).norm(dim=1), torch.ones(len(normals)), atol=1e-5)
    assert torch.equal(classes_of(trained(), found.point + 1e-3 * normals), found.classes[:, 0])
    assert all(parameter.grad is None for parameter in trained().parameters())


def test_tangent_frames_are_orthonormal_and_tangent():
    normals = nn.functional.normalize(noise(0, 4, 1, 2, 3).flatten(1), dim=1).reshape(4, 1, 2, 3)
    frames = geometry.tangent_frames(normals, 5).flatten(2)
    assert torch.allclose(frames @ frames.mT, torch.eye(5, dtype=DOUBLE).expand(4, 5, 5), atol=1e-12)
    assert float((frames @ normals.flatten(1)[..., None]).abs().max()) < 1e-12


def test_angles_of_incidence():
    normal = torch.tensor([[0.0, 2.0], [0.0, 2.0], [0.0, -2.0], [0.0, 2.0]])
    line = torch.tensor([[0.0, 1.0], [3.0, 0.0], [1.0, 1.0], [math.sin(1e-3), math.cos(1e-3)]])
    assert torch.allclose(geometry.incidence(line, normal), torch.tensor([0.0, 90.0, 45.0, math.degrees(1e-3)]), atol=1e-4)


@pytest.mark.parametrize("d", [2, 3, 10, 784])
def test_the_null_of_the_angle_is_that_of_random_directions(d):
    drawn = noise(0, 40_000, d)
    angles = geometry.incidence(drawn, torch.eye(d, dtype=DOUBLE)[:1].expand(40_000, d))
    for share in (0.05, 0.5, 0.95):
        below = float((angles <= geometry.incidence_null(d, share)).double().mean())
        assert below == pytest.approx(share, abs=0.008)
    assert geometry.incidence_null(2, 0.5) == pytest.approx(45) and geometry.incidence_null(d, 1.0) == pytest.approx(90)
    assert geometry.incidence_null(3, 0.5) == pytest.approx(60), "Archimedes: the cosine is uniform"


# --- bad input --------------------------------------------------------------------------------------------------------------------

SOME, OTHER = torch.zeros(4, 2), torch.full((4, 2), 3.0)
TUBE = round_tube(1.0, 2)
ZERO = torch.zeros(4, dtype=torch.int64)


def test_bad_input_is_refused():
    table = [
        (lambda: geometry.bisect(TUBE, SOME, SOME), "4 of 4"),
        (lambda: geometry.bisect(TUBE, SOME, OTHER[:3]), "must match"),
        (lambda: geometry.bisect(TUBE, SOME, OTHER.double()), "must match"),
        (lambda: geometry.bisect(TUBE, SOME * torch.nan, OTHER), "NaN"),
        (lambda: geometry.bisect(TUBE, SOME[:0], OTHER[:0]), "not empty"),
        (lambda: geometry.bisect(TUBE, SOME.long(), OTHER.long()), "int64"),
        (lambda: geometry.bisect(TUBE, [0.0], OTHER), "list"),
        (lambda: geometry.bisect(TUBE, SOME, OTHER, steps=0), "steps"),
        (lambda: geometry.bisect(TUBE, SOME, OTHER, steps=25), "from 1 to 24; 25"),
        (lambda: geometry.bisect(TUBE, SOME, OTHER, batch_size=0), "batch_size"),
        (lambda: geometry.bisect(lambda x: TUBE(x).softmax(1), SOME, OTHER), "probabilities"),
        (lambda: geometry.bisect(lambda x: TUBE(x) * torch.nan, SOME, OTHER), "NaN"),
        (lambda: geometry.bisect(lambda x: x.sum(1), SOME, OTHER), "log-scores"),
        (lambda: geometry.bisect("model", SOME, OTHER), "model"),
        (lambda: geometry.boundary_sample(TUBE, SOME, OTHER, SOME, torch.zeros(5, 3)), "offsets"),
        (lambda: geometry.boundary_sample(TUBE, SOME, OTHER, SOME[:2], torch.zeros(5, 2)), "center"),
        (lambda: geometry.boundary_sample(TUBE, SOME, SOME, SOME, torch.zeros(5, 2)), "different"),
        (lambda: geometry.heights(TUBE, SOME, ZERO, SOME, torch.zeros(5, 3), 1.0), "offsets"),
        (lambda: geometry.heights(TUBE, SOME, ZERO, SOME, torch.zeros(5, 2), 0.0), "reach must be a positive number; 0.0"),
        (lambda: geometry.gradient_normals(lambda x: 0 * x, SOME, torch.zeros(4).long(), torch.ones(4).long()), "no gradient"),
        (lambda: geometry.fitted_normals(torch.zeros(2, 3, 3)), "d \\+ 1"),
        (lambda: geometry.fitted_normals(torch.full((2, 4, 3), torch.nan)), "NaN"),
        (lambda: geometry.tangent_frames(SOME + 1, 2), "count must be a whole number from 1 to 1; 2"),
        (lambda: geometry.tangent_frames(SOME + 1, 0), "count"),
        (lambda: geometry.curvatures(TUBE, SOME, ZERO, SOME, torch.zeros(3, 1, 2), 0.1), "frames"),
        (lambda: geometry.incidence(SOME, OTHER), "zero"),
        (lambda: geometry.incidence(OTHER, OTHER[:2]), "one shape"),
        (lambda: geometry.incidence_null(1, 0.5), "dimensions"),
        (lambda: geometry.incidence_null(3, 1.5), "share"),
    ]
    for call, message in table:
        with pytest.raises(ValueError, match=message):
            call()
