"The checks of arguments: what passes comes back, what does not is named with what is wanted."

import math

import numpy as np
import pytest
import torch
from torch import nn

from support.common import arguments
from support.common.arguments import SEED

X = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("value", [1, 4, np.int64(3)])
def test_whole_numbers_come_back(value):
    assert arguments.whole_number("steps", value, 1, 4) == value


@pytest.mark.parametrize("value", [0, 5, 2.0, True, "2", None, math.nan])
def test_what_is_no_whole_number_in_range_is_refused(value):
    with pytest.raises(ValueError, match="steps must be a whole number from 1 to 4; "):
        arguments.whole_number("steps", value, 1, 4)


def test_a_whole_number_without_a_largest_one():
    assert arguments.whole_number("steps", 10**30, 1) == 10**30
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1; 0 was given"):
        arguments.whole_number("steps", 0, 1)


@pytest.mark.parametrize(
    ("bounds", "good", "bad", "wanted"),
    [
        ({}, [-3, 0.5], [math.inf, math.nan, True, "1", None], "a finite number"),
        ({"above": 0}, [1e-300], [0, -1, math.inf], "a positive number"),
        ({"above": 1}, [1.5], [1], "a number above 1"),
        ({"least": 0}, [0, 2], [-1e-300, math.nan], "a number of at least 0"),
        ({"least": 0, "below": 1}, [0, 0.5], [1, -0.1], r"in \[0, 1\)"),
        ({"above": 0, "below": 1}, [0.5], [0, 1], r"in \(0, 1\)"),
        ({"least": 0, "most": 1}, [0, 1], [-0.1, 1.1], r"in \[0, 1\]"),
        ({"above": 0, "most": 1}, [1], [0, 1.1], r"in \(0, 1\]"),
        ({"most": 1}, [1, -5], [2], r"in \(-inf, 1\]"),
    ],
)
def test_numbers_keep_their_bounds(bounds, good, bad, wanted):
    for value in good:
        assert arguments.number("lr", value, **bounds) == value
    for value in bad:
        with pytest.raises(ValueError, match=f"^lr must be {wanted}; .* was given"):
            arguments.number("lr", value, **bounds)


def test_words_flags_and_functions():
    assert arguments.choice("loss", "ce", ("ce", "margin")) == "ce"
    for value in ("hinge", None, 3):
        with pytest.raises(ValueError, match=f"unknown loss {value!r}: choose one of ce, margin"):
            arguments.choice("loss", value, ("ce", "margin"))
    assert arguments.flag("targeted", False) is False
    with pytest.raises(ValueError, match="targeted must be True or False; 1 was given"):
        arguments.flag("targeted", 1)
    assert arguments.function("rule", len, "(x) -> n") is len and arguments.function("rule", None, "", optional=True) is None
    with pytest.raises(ValueError, match=r"rule must be a callable \(x\) -> n; NoneType was given"):
        arguments.function("rule", None, "(x) -> n")
    with pytest.raises(ValueError, match="rule must be None or a callable"):
        arguments.function("rule", "len", "(x) -> n", optional=True)


def test_class_vectors_and_labels():
    y = torch.tensor([0, 2, 1])
    assert arguments.class_vector("y", y, 3, 3) is y and arguments.labels("y", y, X) is y
    assert len(arguments.class_vector("y", y[:0], 0, 3)) == 0
    for value in (y.int(), y[:2], y[:, None], y.tolist()):
        with pytest.raises(ValueError, match=r"y must be int64 of shape \(3,\); .* was given"):
            arguments.class_vector("y", value, 3)
    with pytest.raises(ValueError, match=r"y must be in 0 \.\. 1; 0 \.\. 2 was given"):
        arguments.class_vector("y", y, 3, 2)
    with pytest.raises(ValueError, match="y must hold labels from 0; -1 was given"):
        arguments.labels("y", y - 1, X)
    with pytest.raises(ValueError, match="y must be on cpu, like the images; it is on meta"):
        arguments.labels("y", y.to("meta"), X)


@pytest.mark.parametrize("check", [arguments.images, arguments.points])
def test_batches_of_a_wrong_kind_are_refused(check):
    for value in ("x", X.half(), X[:0], X.flatten(), (255 * X).byte()):
        with pytest.raises(ValueError, match=r"x must be a float32 or float64 tensor .* was given"):
            check("x", value)


def test_images_lie_in_the_box_and_points_are_finite():
    assert arguments.images("x", X, pictures=True) is X and arguments.points("x", X.double() - 7).shape == X.shape
    for value, says in ((X + 1, "values from 1"), (X - 1, "values from -"), (X / 0 * 0, "NaN")):
        with pytest.raises(ValueError, match=says):
            arguments.images("x", value)
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        arguments.images("x", X.flatten(1), pictures=True)
    with pytest.raises(ValueError, match=r"\(N, d\)"):
        arguments.points("x", X, matrix=True)
    for bad in (math.nan, math.inf, -math.inf):
        value = X.flatten(1).clone()
        value[1, 2] = bad
        with pytest.raises(ValueError, match="x must be finite; 1 of 12 are NaN or infinite"):
            arguments.points("x", value, matrix=True)


def test_radii_are_one_for_all_or_one_each_in_float64():
    each = torch.tensor([0.1, 0.0, 0.3])
    assert torch.equal(arguments.radii("eps", 0.1, X), torch.full((3,), 0.1, dtype=torch.float64))
    assert torch.equal(arguments.radii("eps", each, X), each.double())
    for value in (-0.1, math.inf, math.nan, True, "0.1", torch.ones(2), torch.ones(3, dtype=torch.int64), each - 0.1):
        with pytest.raises(ValueError, match=r"eps must be finite and at least 0, .* was given"):
            arguments.radii("eps", value, X)
    with pytest.raises(ValueError, match=r"eps must be finite and positive, .*; 0\.0 was given"):
        arguments.radii("eps", each, X, positive=True)


def test_models_that_tie_images_together_are_refused():
    net = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 2)).eval()
    assert arguments.scoring_model(net) is net and arguments.scoring_model(len) is len
    with pytest.raises(ValueError, match=r"model must be a callable or module .*; torch.float32 \(3, 1, 2, 2\) was given"):
        arguments.scoring_model(X)
    with pytest.raises(ValueError, match=r"Dropout at 1 is in training mode .* call peer.eval\(\) first"):
        arguments.scoring_model(net.train(), "peer")
    with pytest.raises(ValueError, match="keeps no running statistics"):
        arguments.scoring_model(nn.BatchNorm1d(4, track_running_stats=False).eval())


def test_a_stream_is_the_callers_or_a_fresh_one_of_fixed_seed():
    own = torch.Generator().manual_seed(3)
    assert arguments.random_stream(own) is own
    fresh = [torch.rand(2, generator=arguments.random_stream(None)) for _ in range(2)]
    assert torch.equal(*fresh) and torch.equal(fresh[0], torch.rand(2, generator=torch.Generator().manual_seed(SEED)))
    with pytest.raises(ValueError, match=r"generator must be a torch.Generator or None; int was given"):
        arguments.random_stream(3)
