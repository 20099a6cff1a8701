"""The average-sample attack: its formula image by image, linear closed forms, and bad input."""

import pytest
import torch
from attack_nets import Bomb, Counted, classes_of, digits, held_out, linear, margin_now, pictures, trained

from support.attacks import average_sample, class_means, interval


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
    with pytest.raises(ValueError, match=r"y must be in 0 \.\. 2; 0 \.\. 4 was given"):
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


# --- costs --------------------------------------------------------------------------------------------------------------


def test_decided_images_leave_the_batch_after_every_class():
    (x, y), model = held_out(200), Counted(trained())
    found = average_sample(model, x, y, 0.5, means=means())
    assert int(found.queries.sum()) <= model.images <= int(found.queries.sum()) + 10 * 16 + 200  # padding to the next fixed size
    assert model.images < 200 * 11 / 2


def test_infinite_log_scores_are_margins_too():
    """A softRmax network is certain at its centres; two scores of minus infinity have no difference, which counts as no success."""
    sure = torch.eye(3).log()
    rows = torch.stack([sure[0], sure[0], torch.full((3,), -torch.inf), sure[1], sure[2]])
    x, y = torch.tensor([[0.0], [1.0], [0.5]]), torch.tensor([0, 1, 0])
    found = average_sample(lambda x: rows[(4 * x[:, 0]).long()], x, y, 0.25, means=torch.tensor([[0.2], [0.4], [0.6]]))
    assert found.success.tolist() == [False, True, True] and found.margin.tolist() == [torch.inf, -torch.inf, -torch.inf]
    assert found.x_adv[:, 0].tolist()[1:] == [1.0, 0.75]


# --- bad input --------------------------------------------------------------------------------------------------------


def test_means_and_targets_that_do_not_fit_are_refused_before_the_model_is_called():
    x, y, averages = pictures(4, (1, 4, 4)), torch.tensor([0, 1, 2, 0]), pictures(3, (1, 4, 4), seed=1)
    hole = averages.clone()
    hole[1, 0, 0, 0] = torch.nan
    for change, message in (
        ({"means": [[0.1]]}, "means must be a float32 or float64 tensor.*list was given"),
        ({"means": averages.round().long()}, "torch.int64"),
        ({"means": averages[:, 0]}, r"\(K, 1, 4, 4\).*\(3, 4, 4\) on cpu was given"),
        ({"means": torch.rand(3, 1, 5, 4)}, r"\(K, 1, 4, 4\)"),
        ({"means": averages[:0]}, "not empty"),
        ({"means": hole}, "NaN"),
        ({"means": averages - 0.5}, "values from -0.5 to 0.5"),
        ({"means": averages[:2]}, r"y must be in 0 \.\. 1; 0 \.\. 2"),
        ({"target": 3}, "target must be a whole number from 0 to 2; 3"),
        ({"target": y.int()}, "int32"),
        ({"target": y[:3]}, r"int64 of shape \(4,\); torch.int64 \(3,\)"),
        ({"target": y + 1}, r"in 0 \.\. 2; 1 \.\. 3"),
    ):
        with pytest.raises(ValueError, match=message):
            average_sample(Bomb(), x, y, 0.1, **{"means": averages, **change})
    with pytest.raises(ValueError, match="each of the model's 5 classes; 3 were given"):
        average_sample(linear((1, 4, 4), 5), x, y, 0.1, means=averages)


def test_classes_are_tried_from_the_best_clean_score_down():
    x, y = held_out(120)
    found, wrong = average_sample(trained(), x, y, 0.2, means=means()), classes_of(trained(), x) != y
    with torch.no_grad():
        ranked = trained()(x).scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)
    alone = torch.stack([average_sample(trained(), x, y, 0.2, means=means(), target=ranked[:, k]).success for k in range(9)])
    broken = found.success & ~wrong
    assert torch.equal(found.queries[broken] - 3, alone.double().argmax(0)[broken]) and len(found.queries[broken].unique()) > 3
