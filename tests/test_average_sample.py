"""The average-sample attack: its formula image by image, linear closed forms, the attacks' common contract, and bad input."""

import pytest
import torch
from attack_nets import Counted, classes_of, convolutional, digits, held_out, linear, margin_now, pictures, same, same_verdicts, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from support.attacks import average_sample, class_means, interval

RADII = [0.0, 1e-45, 1e-9, 1 / 255, 0.1, 1 / 3, 1.0, 3.0]


def means():
    """Those of the digits that the network was trained on, not of the attacked ones."""
    x, y = digits()
    return class_means(x[:1297], y[:1297], 10)


def moved_plainly(image, label, target, eps, averages):
    """Equation 16 for one image, pixel by pixel, cut to the exact box."""
    low, high = interval(image[None], eps)
    out = image.clone().flatten()
    for place, (own, other) in enumerate(zip(averages[label].flatten().tolist(), averages[target].flatten().tolist(), strict=True)):
        if other != own:
            out[place] = (high if other > own else low).flatten()[place]
    return out.view_as(image)


# --- class means ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_class_means_are_means_of_classes(dtype):
    x, y = pictures(40, (2, 3, 3), dtype=dtype), torch.arange(40) % 4
    found = class_means(x, y, 4)
    assert found.dtype == dtype and found.shape == (4, 2, 3, 3)
    for k in range(4):
        assert torch.allclose(found[k], x[y == k].double().mean(0).to(dtype), rtol=0, atol=1e-7 if dtype == torch.float32 else 1e-15)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(class_means(x[order], y[order], 4), found, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_pixel_has_its_own_value_as_mean_and_so_no_direction(dtype):
    """Classes of 3, 7 and 11 images: a plain sum of equal numbers, divided, is not always that number."""
    y = torch.tensor([2] * 11 + [0] * 3 + [1] * 7)
    x = pictures(21, (1, 10, 30), dtype=dtype)
    constant = pictures(1, (1, 10, 30), seed=1, dtype=dtype)
    x[y < 2] = constant
    found = class_means(x, y, 3)
    assert torch.equal(found[0], constant[0]) and torch.equal(found[1], constant[0])
    x[y == 2] = constant
    sums = torch.stack([x[y == k].double().sum(0) / (y == k).sum() for k in range(3)]).to(dtype)
    assert torch.equal(class_means(x, y, 3)[2], constant[0])
    assert dtype == torch.float32 or not torch.equal(sums[1], sums[2])


def test_rounding_leads_no_mean_out_of_the_range():
    x = torch.tensor([0.1, 1, 1, 1, 1, 1, 1], dtype=torch.float64).repeat(300, 1) * torch.linspace(0, 1, 300, dtype=torch.float64)[:, None]
    x = torch.cat([x, 1 - x]).T[:, None]
    found = class_means(x, torch.zeros(7, dtype=torch.int64), 1)
    assert float(found.min()) >= 0 and float(found.max()) <= 1 and torch.allclose(found[0], x.mean(0), atol=1e-15)


def test_an_empty_class_is_refused():
    x, y = pictures(6, (1, 2, 2)), torch.tensor([0, 1, 1, 4, 0, 4])
    with pytest.raises(ValueError, match="of 6 classes, these have none: 2, 3, 5"):
        class_means(x, y, 6)
    with pytest.raises(ValueError, match="label 4, but classes is 3: labels go from 0 to 2"):
        class_means(x, y, 3)
    for change in ({"x": x * 255}, {"x": x.half()}, {"y": y.int()}, {"y": y[:3]}, {"y": y - 1}, {"classes": 0}, {"classes": 5.0}):
        with pytest.raises(ValueError, match=r"x must be|y must be|classes must be"):
            class_means(**{"x": x, "y": y, "classes": 5, **change})


# --- the formula ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [0.05, 0.3, 1.0])
def test_a_given_target_is_equation_16(eps):
    (x, y), averages = held_out(40), means()
    for target in (3, (y + 1) % 10):
        found = average_sample(trained(), x, y, eps, means=averages, target=target)
        aims = torch.as_tensor(target).expand(len(y))
        expected = torch.stack([moved_plainly(x[i], int(y[i]), int(aims[i]), eps, averages) for i in range(len(x))])
        assert torch.equal(found.x_adv, expected)
        assert torch.equal(found.x_adv[aims == y], x[aims == y])
        assert torch.allclose(found.margin, margin_now(trained(), expected, y), atol=1e-5)
        assert torch.equal(found.success, found.margin < 0)
        assert found.queries.dtype == torch.int64 and found.queries.unique().tolist() == [2]


def test_without_a_target_the_best_of_all_classes_is_returned():
    (x, y), averages = held_out(120), means()
    singles = torch.stack([average_sample(trained(), x, y, 0.12, means=averages, target=k).margin for k in range(10)])
    found = average_sample(trained(), x, y, 0.12, means=averages)
    assert torch.equal(found.success, (singles < 0).any(0)) and 20 < int(found.success.sum()) < 115
    held = ~found.success
    assert torch.allclose(found.margin[held], singles.amin(0)[held], atol=1e-5)  # the own class among them: the clean image
    assert torch.allclose(found.margin, margin_now(trained(), found.x_adv, y), atol=1e-5)
    wrong = classes_of(trained(), x) != y
    assert bool(wrong.any()) and torch.equal(found.x_adv[wrong], x[wrong]) and found.queries[wrong].unique().tolist() == [2]
    assert found.queries[held].unique().tolist() == [11]
    rivals = found.success & ~wrong
    assert 3 <= int(found.queries[rivals].min()) <= int(found.queries[rivals].max()) <= 11


def test_two_linear_classes_are_decided_by_the_closed_form():
    """The step moves the margin by exactly its sum over the pixels that move."""
    model, x = linear((1, 4, 4), 2, dtype=torch.float64), 0.25 + 0.5 * pictures(60, (1, 4, 4), dtype=torch.float64)
    with torch.no_grad():
        model[1].bias -= model(x).median(0).values  # both classes occur
    y, eps = classes_of(model, x), 0.1
    weight, averages = model[1].weight.detach(), class_means(x, y, 2)
    direction = (averages[1 - y] - averages[y]).sign().flatten(1)
    change = eps * ((weight[y] - weight[1 - y]) * direction).sum(1)
    found = average_sample(model, x, y, eps, means=averages, target=1 - y)
    assert torch.allclose(found.margin, margin_now(model, x, y) + change, atol=1e-12)
    assert 0 < int(found.success.sum()) < 60


def test_a_step_can_lead_into_the_tail():
    """The paper's "guaranteed not" needs a small eps: past the target's mean, the step goes on along the same signs."""
    averages = torch.stack([torch.full((1, 2, 2), value) for value in (0.3, 0.4)])
    x, y, model = averages[:1].clone(), torch.tensor([0]), linear((1, 2, 2), 2)
    near, far = (average_sample(model, x, y, eps, means=averages, target=1).x_adv for eps in (0.1, 0.7))
    assert torch.allclose(near, averages[1:]) and torch.allclose(far, torch.ones(1, 1, 2, 2))


# --- the contract -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:all scores lie in")  # now and then those of a random network do
@settings(max_examples=25, deadline=None)
@given(st.sampled_from(RADII), st.integers(0, 10**6), st.sampled_from([torch.float32, torch.float64]), st.sampled_from([None, 0, 2]))
def test_images_lie_in_the_ball_and_the_box_judged_in_float64(eps, seed, dtype, target):
    model, x = convolutional(1, 4, 3, seed=seed).to(dtype), pictures(9, (1, 4, 4), seed=seed, dtype=dtype)
    averages = pictures(3, (1, 4, 4), seed=seed + 1, dtype=dtype)
    found = average_sample(model, x, classes_of(model, x), eps, means=averages, target=target)
    assert found.x_adv.dtype == found.margin.dtype == dtype and found.x_adv.shape == x.shape
    assert bool(((found.x_adv.double() - x.double()).abs() <= eps).all())
    assert bool(((found.x_adv >= 0) & (found.x_adv <= 1)).all())


@pytest.mark.parametrize("target", [None, 4])
def test_eps_zero_is_the_clean_answer(target):
    x, y = held_out(100)
    found = average_sample(trained(), x, y, 0.0, means=means(), target=target)
    assert torch.equal(found.x_adv, x)
    assert torch.equal(found.success, classes_of(trained(), x) != y) and bool(found.success.any())
    assert torch.allclose(found.margin, margin_now(trained(), x, y), atol=1e-5)


@pytest.mark.parametrize("target", [None, 4])
def test_a_radius_for_each_image_gives_what_each_radius_alone_gives(target):
    x, y = held_out(30)
    radii = torch.linspace(0, 0.4, 30, dtype=torch.float64)
    found = average_sample(trained(), x, y, radii, means=means(), target=target)
    for place in (0, 7, 22, 29):
        alone = average_sample(trained(), x, y, float(radii[place]), means=means(), target=target)
        assert torch.equal(found.x_adv[place], alone.x_adv[place]) and found.queries[place] == alone.queries[place]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_order_and_neighbours_do_not_matter(seed, aimed):
    stream = torch.Generator().manual_seed(seed)
    x, y = held_out(140)
    aims = (y + 3) % 10 if aimed else None

    def run(index, images=x):
        target = None if aims is None else aims[index]
        return average_sample(trained(), images[index], y[index], 0.15, means=means(), target=target)

    first = torch.arange(70)
    found, order = run(first), torch.randperm(70, generator=stream)
    assert same(run(order), found, order)
    mine = torch.rand(70, generator=stream) < 0.3
    mixed = run(torch.where(mine, first, first + 70))
    for name in ("x_adv", "success", "margin", "queries"):
        assert torch.equal(getattr(mixed, name)[mine], getattr(found, name)[mine]), name


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 150))
def test_batch_size_changes_no_verdict(batch_size):
    x, y = held_out(100)
    found = average_sample(trained(), x, y, 0.12, means=means())
    assert same_verdicts(average_sample(trained(), x, y, 0.12, means=means(), batch_size=batch_size), found)


def test_decided_images_leave_the_batch_after_every_class():
    (x, y), model = held_out(200), Counted(trained())
    found = average_sample(model, x, y, 0.5, means=means())
    assert int(found.queries.sum()) <= model.images <= int(found.queries.sum()) + 10 * 16 + 200  # padding to the next fixed size
    assert model.images < 200 * 11 / 2


def test_inputs_model_and_random_state_are_left_as_they_were():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).eval()
    model[0].train()  # harmless, and not ours to change
    x, averages = pictures(6, (1, 4, 4)).requires_grad_(), pictures(3, (1, 4, 4), seed=1)
    y = classes_of(model, x)
    before, noise = [part.detach().clone() for part in (x, y, averages)], torch.get_rng_state()
    modes = [part.training for part in model.modules()]
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            found = average_sample(model, x, y, 0.1, means=averages)
        assert not any(part.is_inference() or part.requires_grad for part in (found.x_adv, found.margin, found.success, found.queries))
    assert all(torch.equal(now, then) for now, then in zip((x, y, averages), before, strict=True)) and x.grad is None
    assert [p.training for p in model.modules()] == modes and all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), noise)
    assert found.x_adv.data_ptr() != x.data_ptr()


def test_vectors_are_welcome():
    net, x = linear((2,), 3), pictures(12, (2,))
    y = torch.arange(12) % 3
    found = average_sample(net, x, y, 0.2, means=class_means(x, y, 3))
    assert found.x_adv.shape == (12, 2)


def test_infinite_log_scores_are_margins_too():
    """A softRmax network is certain at its centres; two scores of minus infinity have no difference, which counts as no success."""
    sure = torch.eye(3).log()
    rows = torch.stack([sure[0], sure[0], torch.full((3,), -torch.inf), sure[1], sure[2]])
    x, y = torch.tensor([[0.0], [1.0], [0.5]]), torch.tensor([0, 1, 0])
    found = average_sample(lambda x: rows[(4 * x[:, 0]).long()], x, y, 0.25, means=torch.tensor([[0.2], [0.4], [0.6]]))
    assert found.success.tolist() == [False, True, True] and found.margin.tolist() == [torch.inf, -torch.inf, -torch.inf]
    assert found.x_adv[:, 0].tolist()[1:] == [1.0, 0.75]


# --- bad input --------------------------------------------------------------------------------------------------------


class Bomb(nn.Module):
    """A model that must not be reached."""

    def forward(self, x):
        raise AssertionError("the model was called before the input was checked")


X, Y, M = pictures(4, (1, 4, 4)), torch.tensor([0, 1, 2, 0]), pictures(3, (1, 4, 4), seed=1)
HOLE = M.clone()
HOLE[1, 0, 0, 0] = torch.nan
BAD = {
    "NaN pixel": ({"x": torch.full_like(X, torch.nan)}, "NaN"),
    "0 to 255": ({"x": X * 255}, r"\[0,1\]"),
    "label dtype": ({"y": Y.int()}, "int32"),
    "model": ({"model": "resnet"}, "callable"),
    "batch size": ({"batch_size": 0}, "batch_size"),
    "generator": ({"generator": 3}, "torch.Generator"),
    "negative eps": ({"eps": -0.1}, "at least 0.*-0.1"),
    "infinite eps": ({"eps": float("inf")}, "inf"),
    "no tensor": ({"means": [[0.1]]}, "means must be a floating tensor.*given is list"),
    "whole means": ({"means": M.round().long()}, "given is torch.int64"),
    "shape of the means": ({"means": M[:, 0]}, r"given is shape \(3, 4, 4\)"),
    "a mean's size": ({"means": torch.rand(3, 1, 5, 4)}, r"\(K, 1, 4, 4\)"),
    "no means": ({"means": M[:0]}, r"given is shape \(0, 1, 4, 4\)"),
    "NaN in a mean": ({"means": HOLE}, "values from nan to nan"),
    "normalised means": ({"means": M - 0.5}, "values from -0.5 to 0.5"),
    "label without a mean": ({"means": M[:2]}, "y holds label 2, but means holds 2 classes"),
    "target out of range": ({"target": 3}, "a class from 0 to 2.*given are 3 to 3"),
    "negative target": ({"target": -1}, "given are -1 to -1"),
    "target text": ({"target": "all"}, "given is 'all'"),
    "target truth": ({"target": True}, "given is True"),
    "target dtype": ({"target": Y.int()}, "int32"),
    "target count": ({"target": Y[:3]}, r"of 4 such on cpu; given is torch.int64 of shape \(3,\)"),
    "targets out of range": ({"target": Y + 1}, "given are 1 to 3"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_the_model_is_called(case):
    change, message = BAD[case]
    options = {"model": Bomb(), "x": X, "y": Y, "eps": 0.1, "means": M, **change}
    with pytest.raises(ValueError, match=message):
        average_sample(options.pop("model"), options.pop("x"), options.pop("y"), options.pop("eps"), **options)


def test_what_only_the_scores_tell_is_refused():
    with pytest.raises(ValueError, match="each of the model's 5 classes; 3 were given"):
        average_sample(linear((1, 4, 4), 5), X, Y, 0.1, means=M)
    net = linear((1, 4, 4), 3)
    with pytest.raises(ValueError, match="probabilities"):
        average_sample(lambda x: net(x).softmax(1), X, Y, 0.1, means=M)
    with pytest.warns(UserWarning, match="lie in") as caught:
        average_sample(lambda x: net(x).sigmoid(), X, Y, 0.1, means=M)
    assert caught[0].filename == __file__
    with pytest.raises(ValueError, match=r"training mode.*model.eval\(\)"):
        average_sample(nn.Sequential(nn.Dropout(0.5), net).train(), X, Y, 0.1, means=M)
