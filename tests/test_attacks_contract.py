"""What all attacks keep, each seen through the same tests: bounds, verdicts, independence of neighbours, what is left alone, bad input.

What one attack alone does is in the file of its module.
"""

import itertools
import math
import subprocess
import sys
import warnings

import pytest
import torch
from attack_nets import Bomb, Counted, classes_of, convolutional, held_out, linear, margin_now, pictures, same, same_verdicts, trained
from torch import nn

from support import attacks

ATTACKS = {
    "fgsm": {}, "rfgsm": {}, "bim": {}, "mifgsm": {}, "pgd": {"steps": 13}, "pgd_targets": {"steps": 5}, "multi_targeted": {},
    "rays": {"queries": 60},
    "average_sample": {}, "average_sample to a target": {"target": 2}, "lbfgs": {"search": 1, "steps": 8},
    "one_pixel": {"population": 20, "generations": 2}, "fmn": {"steps": 8}, "fmn in the maximum norm": {"steps": 8, "norm": math.inf},
    "sigma_zero": {"steps": 12},
}  # fmt: skip
EVERY = pytest.mark.parametrize("attack", ATTACKS)
UNBOUNDED = ["lbfgs", "one_pixel", "fmn", "fmn in the maximum norm", "sigma_zero"]
BOUNDED = [name for name in ATTACKS if name not in UNBOUNDED]
GRADIENT = ["fgsm", "rfgsm", "bim", "mifgsm", "pgd", "pgd_targets"]
DRAWING = ["rfgsm", "pgd", "pgd_targets", "multi_targeted", "rays", "one_pixel"]
ONE_STEP = ["fgsm", "rfgsm", "average_sample to a target"]  # always taken, also from a clean error
MOVED = ["x_adv", "success", "margin", "queries"]


def call(attack, model, x, y, eps=0.1, **options):
    """Any attack with little work."""
    function = getattr(attacks, attack.split()[0])
    options = {**ATTACKS[attack], **options}
    if function is attacks.average_sample and "means" not in options:
        shape, dtype = (x.shape[1:], x.dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else ((1, 4, 4), torch.float32)
        options["means"] = pictures(10 if shape[-1:] == (8,) else 3, shape, seed=1, dtype=dtype)
    return function(model, x, y, *([eps] if attack in BOUNDED else []), **options)


# Bounds and verdicts.


@EVERY
def test_images_lie_in_the_ball_and_the_box_judged_in_float64_and_verdicts_are_of_them(attack):
    for eps, dtype in itertools.product((0.0, 1e-45, 1e-9, 1 / 255, 0.1, 1 / 3, 1.0, 3.0), (torch.float32, torch.float64)):
        model, x = convolutional(1, 4, 3, seed=2, sharp=4.0).to(dtype), pictures(9, (1, 4, 4), seed=3, dtype=dtype)
        y = classes_of(model, x)
        y[0] = (y[0] + 1) % 3
        found = call(attack, model, x, y, eps)
        assert found.x_adv.dtype == found.margin.dtype == dtype and found.x_adv.shape == x.shape
        assert found.queries.dtype == torch.int64 and found.success.dtype == torch.bool
        assert bool(((found.x_adv >= 0) & (found.x_adv <= 1)).all())
        assert attack not in BOUNDED or bool(((found.x_adv.double() - x.double()).abs() <= eps).all())
        assert torch.equal(found.success, found.margin < 0)
        assert torch.allclose(found.margin, margin_now(model, found.x_adv, y), atol=1e-5)
        assert attack in ONE_STEP or (torch.equal(found.x_adv[0], x[0]) and bool(found.success[0]) and int(found.queries[0]) == 2)
        if attack in BOUNDED and eps == 0:
            assert torch.equal(found.x_adv, x) and found.success.tolist() == [True] + 8 * [False]


@pytest.mark.parametrize("attack", BOUNDED)
def test_a_radius_for_each_image_gives_what_each_radius_alone_gives(attack):
    x, y = held_out(40)
    radii = torch.linspace(0, 0.3, 40, dtype=torch.float64)[torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    found = call(attack, trained(), x, y, radii)
    assert bool(((found.x_adv.double() - x.double()).abs().amax((1, 2, 3)) <= radii).all())
    for place in (0, 7, 23, 39):
        alone = call(attack, trained(), x, y, float(radii[place]))
        assert torch.equal(found.x_adv[place], alone.x_adv[place]) and found.queries[place] == alone.queries[place]


@pytest.mark.parametrize("attack", [name for name in BOUNDED if "average" not in name])
def test_success_grows_with_eps(attack):
    """Of a linear model of two classes, an image that falls at one radius falls at all larger ones."""
    model, x = linear((1, 6, 6), 2), pictures(100, (1, 6, 6))
    y = classes_of(model, x)
    broken = [call(attack, model, x, y, eps).success for eps in (0.0, 0.04, 0.08, 0.16)]
    assert all(bool((more | ~fewer).all()) for fewer, more in itertools.pairwise(broken))
    assert 0 == int(broken[0].sum()) < int(broken[1].sum()) < int(broken[3].sum())


# Independence of order, neighbours and batch size; draws.


@EVERY
@pytest.mark.parametrize("seed", [0, 1])
def test_order_and_neighbours_do_not_matter(attack, seed):
    stream = torch.Generator().manual_seed(seed)
    x, y = held_out(96)
    found = call(attack, trained(), x[:48], y[:48])
    order = torch.randperm(48, generator=stream)
    assert same(call(attack, trained(), x[order], y[order]), found, order)
    mine = torch.rand(48, generator=stream) < 0.4
    index = torch.where(mine, torch.arange(48), torch.arange(48) + 48)
    other = call(attack, trained(), x[index], y[index])
    for name in MOVED:
        assert torch.equal(getattr(other, name)[mine], getattr(found, name)[mine]), name


@EVERY
def test_batch_size_and_number_of_images_change_no_verdict(attack):
    x, y = held_out(40)
    found = call(attack, trained(), x, y)
    for batch_size in (1, 17, 200):
        assert same_verdicts(call(attack, trained(), x, y, batch_size=batch_size), found)
    few = call(attack, trained(), x[:17], y[:17])
    assert same_verdicts(few, type(found)(*(getattr(found, name)[:17] for name in MOVED)))


@pytest.mark.parametrize("attack", DRAWING)
def test_draws_come_from_the_generator_alone_and_do_not_depend_on_the_images(attack):
    (x, y), noise, states = held_out(20), torch.get_rng_state(), []
    wrong = (classes_of(trained(), x) + 1) % 10
    for labels, eps in ((y, 0.0), (y, 0.1), (wrong, 1.0)):  # nobody is searched, some are, all are over at once
        stream = torch.Generator().manual_seed(3)
        call(attack, trained(), x, labels, eps, generator=stream)
        states.append(stream.get_state())
    if attack != "rays":  # which draws as long as it asks
        assert all(torch.equal(state, states[0]) for state in states)
    assert torch.equal(torch.get_rng_state(), noise)
    default = call(attack, trained(), x, y)
    assert same(default, call(attack, trained(), x, y, generator=torch.Generator().manual_seed(attacks.SEED)))
    assert not torch.equal(default.x_adv, call(attack, trained(), x, y, generator=torch.Generator().manual_seed(9)).x_adv)


# What an attack must leave alone.


@pytest.mark.filterwarnings("ignore:all scores lie in")
@EVERY
def test_inputs_model_and_random_state_are_left_as_they_were(attack):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).eval()
    model[0].train()  # harmless, and not ours to change
    model[4].weight.requires_grad_(False)
    x = pictures(6, (1, 4, 4)).requires_grad_()
    y = classes_of(model, x)
    before, modes = [part.detach().clone() for part in (x, y)], [part.training for part in model.modules()]
    state, noise = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    results = []
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            results.append(call(attack, model, x, y))
        assert not any(getattr(results[-1], name).is_inference() or getattr(results[-1], name).requires_grad for name in MOVED)
    assert same(*results[:2]) and same(*results[1:])
    assert torch.equal(x, before[0]) and torch.equal(y, before[1]) and x.grad is None and x.requires_grad
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [part.training for part in model.modules()] == modes and all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == [True, True, True, True, False, True]
    assert torch.equal(torch.get_rng_state(), noise) and results[0].x_adv.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("attack", [name for name in ATTACKS if name != "one_pixel"])
def test_vectors_are_welcome_where_pictures_are_not_needed(attack):
    net, x = linear((2,), 3), pictures(12, (2,))
    found = call(attack, net, x, classes_of(net, x), 0.2)
    assert found.x_adv.shape == (12, 2) and (attack not in BOUNDED or bool(((found.x_adv - x).abs() <= 0.2).all()))


# Bad input.

X, Y = pictures(4, (1, 4, 4)), torch.tensor([0, 1, 2, 0])
NAN, HIGH, LOW = X.clone(), X.clone(), X.clone()
NAN[1, 0, 2, 3], HIGH[0, 0, 0, 0], LOW[0, 0, 0, 0] = torch.nan, 1.0001, -1e-6
BAD = [
    ({"x": [[0.1]]}, "x must be a float32 or float64 tensor.*; list was given"),
    ({"x": (X * 255).byte()}, "uint8"),
    ({"x": X.half()}, "float16"),
    ({"x": X[:0], "y": Y[:0]}, "not empty"),
    ({"x": X.flatten()}, r"\(64,\) was given"),
    ({"x": NAN}, "NaN"),
    ({"x": HIGH}, r"1\.0001 were given"),
    ({"x": LOW}, "values from -1e-06"),
    ({"x": X * 255}, r"\[0,1\]"),
    ({"y": Y.int()}, "int32"),
    ({"y": torch.eye(4)}, "float32"),
    ({"y": Y[:3]}, r"\(3,\) was given"),
    ({"y": Y - 1}, "-1 was given"),
    ({"y": [0, 1, 2, 0]}, "list was given"),
    ({"batch_size": 0}, "batch_size must be a whole number of at least 1; 0 was given"),
    ({"model": "resnet"}, "model must be a callable"),
]
BAD_EPS = [
    (-0.1, "at least 0.*-0.1"), (float("nan"), "nan"), (float("inf"), "inf"), ("8/255", "8/255"), (True, "True"),
    (torch.tensor([1, 2, 3, 4]), "int64"), (torch.rand(3), r"\(3,\)"), (torch.tensor([0.1, 0.1, -0.2, 0.1]), "-0.2"),
]  # fmt: skip
BAD_OPTIONS = {
    "rfgsm": [{"random_share": 1.5}, {"random_share": True}],
    "bim": [{"steps": 0}, {"steps": 2.5}, {"step_size": 0.0}, {"step_size": -0.1}],
    "mifgsm": [{"steps": 0}, {"step_size": 0.0}, {"decay": -1}, {"decay": float("nan")}],
    "pgd": [{"steps": 0}, {"step_size": 0.0}, {"restarts": 0}, {"targeted": "all"}],
    "pgd_targets": [{"steps": 0}, {"step_size": 0.0}, {"restarts": 0}, {"classes": 0}],
    "fmn": [{"steps": 0}, {"norm": 1}, {"norm": "inf"}, {"space": "ball"}],
    "sigma_zero": [{"steps": 0}, {"threshold": 0}, {"threshold": 1.5}],
    "multi_targeted": [{"steps": 0}, {"rounds": 0}, {"rounds": 1.5}, {"classes": 0}],
    "rays": [{"queries": 0}, {"queries": 2.5}],
    "average_sample": [{"target": 3}, {"target": -1}, {"target": "all"}, {"target": True}, {"target": Y.int()}, {"target": Y + 1}],
    "lbfgs": [{"search": -1}, {"growth": 1.0}, {"growth": "2"}, {"steps": 0}, {"targeted": 1}, {"loss": "hinge"}],
    "one_pixel": [
        {"population": 3}, {"generations": -1}, {"strategy": "best2bin"}, {"recombination": 1.5}, {"levels": 1}, {"success": "any"},
        {"objective": 3},
    ],
}  # fmt: skip


@EVERY
def test_bad_input_is_refused_before_the_model_is_called(attack):
    options = [*BAD, *(({name: value}, name) for one in BAD_OPTIONS.get(attack, []) for name, value in one.items())]
    options += [({"eps": eps}, says) for eps, says in BAD_EPS if attack in BOUNDED]
    options += [({"generator": 3}, "torch.Generator")] if attack in DRAWING else []
    options += [({"loss": "hinge"}, "hinge"), ({"loss": 3}, "loss must be")] if attack in GRADIENT else []
    options += [({"targeted": 1}, "targeted must be True or False")] if attack in GRADIENT[:-1] else []
    for change, message in options:
        given = {"model": Bomb(), "x": X, "y": Y, **change}
        with pytest.raises(ValueError, match=message):
            call(attack, given.pop("model"), given.pop("x"), given.pop("y"), **given)


class Wrapped(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@EVERY
def test_what_only_the_scores_tell_is_refused_after_one_pass(attack):
    net, means = linear((1, 4, 4), 3), {"means": pictures(4, (1, 4, 4))} if "average" in attack else {}
    cases = {
        "label 3, but the model scores 3 classes": (net, Y + 1),
        "probabilities": (lambda x: net(x).softmax(1), Y),
        r"K >= 2.*\(4, 1\)": (lambda x: net(x)[:, :1], Y),
        r"returned torch.float32 \(4,\)": (lambda x: net(x)[:, 0], Y),
        "it returned tuple": (lambda x: (net(x), x), Y),
        "NaN scores for 4 of 4": (lambda x: net(x) * torch.nan, Y),
        "bfloat16": (lambda x: net(x).bfloat16(), Y),
        "it fails on torch.float32": (linear((1, 5, 5), 3), Y),
    }
    for message, (model, y) in cases.items():
        counted = Counted(Wrapped(model))
        with pytest.raises(ValueError, match=message):
            call(attack, counted, X, y, **means)
        assert counted.passes == (3 if message.startswith(("NaN", "prob")) else 1)  # these after the looks at what it does


@pytest.mark.parametrize("attack", [*GRADIENT, "multi_targeted", "lbfgs", "fmn", "sigma_zero"])
def test_a_model_without_a_gradient_is_refused(attack):
    net = linear((1, 4, 4), 3)
    with pytest.raises(ValueError, match="differentiably"):
        call(attack, lambda x: net(x.detach()), X, classes_of(net, X))


@EVERY
def test_scores_that_look_like_probabilities_warn_at_the_callers_line(attack):
    net = linear((1, 4, 4), 3)
    with pytest.warns(UserWarning, match="lie in") as caught:
        call(attack, lambda x: net(x).sigmoid(), X, Y)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(attack, net, X, Y)


@pytest.mark.parametrize("module", ["support.attacks", "support.evaluation"])
def test_a_reader_can_import_it_without_the_book(module):
    code = f"import sys, {module}; print(*sorted(name for name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    heavy = ("support.book", "support.classroom", "matplotlib", "IPython", "ipykernel", "jupyter_client", "nbformat", "papermill")
    assert module in loaded and not [name for name in loaded if name.startswith(heavy)]
