"""The substitute network: it learns the target and never the labels, asks for what it says, and does so again to the bit."""

import functools

import pytest
import torch
from attack_nets import Bomb, Counted, Recorder, classes_of, held_out, linear, trained
from scipy.stats import binom
from torch import nn

from support import models, training
from support.attacks import fgsm
from support.common.cache import Cache
from support.evaluation.substitute_model import substitute


def build(seed):
    return models.mlp((1, 8, 8), (48,), 10, seed=seed)


class Shifted(nn.Module):
    """A target that answers with the class after the true one: whoever sees labels would be found out."""

    def __init__(self):
        super().__init__()
        self.net = trained()

    def forward(self, x):
        return self.net(x).roll(1, dims=1)


def shuffled():
    """Digits that the target has not seen, in an order that mixes their writers."""
    x, y = held_out(500)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    return x[order], y[order]


def seeds(count=100):
    return shuffled()[0][:count]


def rest():
    """Digits that neither target nor copy has seen."""
    return tuple(part[100:] for part in shuffled())


@functools.cache
def copied():
    return substitute(trained(), seeds(), build, rounds=3)


def agreement(first, second, x):
    return float((classes_of(first, x) == classes_of(second, x)).double().mean())


# --- it learns the target ---------------------------------------------------------------------------------------------


def test_the_copy_agrees_with_the_target_on_digits_that_neither_has_seen():
    found = copied()
    assert isinstance(found.model, models.Classifier) and not found.model.training
    assert found.agreement[-1] > 0.97  # on what it was trained on
    assert agreement(found.model, trained(), rest()[0]) > 0.85
    untrained = agreement(build(0), trained(), rest()[0])
    assert untrained < 0.4


def test_the_labels_never_enter():
    """The same images under permuted answers: the copy follows the answers, and is wrong about nearly every label."""
    x, y = rest()
    found = substitute(Shifted(), seeds(), build, rounds=3)
    assert agreement(found.model, Shifted(), x) > 0.85
    assert (classes_of(found.model, x) == y).double().mean() < 0.1


def test_only_the_winning_class_of_the_target_counts():
    """Another temperature, other scores of the losers: the same copy to the bit."""

    def hard(x):
        return -1e3 * (1 - nn.functional.one_hot(trained()(x).argmax(1), 10).float())

    assert models.fingerprint(substitute(hard, seeds(), build, rounds=3).model) == models.fingerprint(copied().model)


def test_attacks_on_the_copy_break_the_target_more_than_noise_does():
    x, y = rest()
    moved = fgsm(copied().model, x, y, 0.2).x_adv
    noise = (x + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()).clamp(0, 1)
    clean, noisy, attacked = (classes_of(trained(), images) == y for images in (x, noise, moved))
    assert noisy.sum() < clean.sum()
    # Were the attack no more than noise, which of the two breaks an image that only one breaks would be the toss of a coin.
    only_attack, only_noise = int((noisy & ~attacked).sum()), int((attacked & ~noisy).sum())
    assert binom.sf(only_attack - 1, only_attack + only_noise, 0.5) < 1e-6


def test_any_architecture_can_copy_any_target():
    target, x = linear((1, 8, 8), 3), seeds(60)
    found = substitute(target, x, lambda seed: models.small_cnn((1, 8, 8), 3, seed=seed, width=4), rounds=1, epochs=20)
    assert found.queries == 120 and found.model(x).shape == (60, 3)


# --- the recipe -------------------------------------------------------------------------------------------------------


def unique(x):
    return {tuple(image) for image in x.flatten(1).tolist()}


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_one_round_is_the_jacobian_step_towards_the_answered_class(rounds):
    """Against Algorithm 1 written out: train, move each image by the sign of the gradient of the answered probability, ask again."""
    x, step = seeds(40), 0.07
    target = Recorder(trained())
    found = substitute(target, x, build, rounds=rounds, step=step, epochs=5)
    for number in range(rounds):
        answers = classes_of(trained(), x)
        copy = training.fit(build(0), x, answers, epochs=5, lr=0.05, batch_size=64).model
        leaf = x.clone().requires_grad_()
        probability = copy(leaf).softmax(1).gather(1, answers[:, None]).sum()
        slope = torch.autograd.grad(probability, leaf)[0]
        plain = (x + step * slope.sign()).clamp(0, 1)
        exact = fgsm(copy, x, answers, step, targeted=True).x_adv
        sure = slope != 0  # a probability that rounds to one has lost its gradient; the attack's direction has not
        assert sure.double().mean() > 0.5, number
        assert (plain - exact)[sure].abs().max() <= 2**-23
        x = torch.cat([x, exact])
    assert unique(x) == unique(torch.cat(target.seen))  # nothing else was asked
    answers = classes_of(trained(), x)
    copy = training.fit(build(0), x, answers, epochs=5, lr=0.05, batch_size=64).model
    assert models.fingerprint(copy) == models.fingerprint(found.model)
    assert found.queries == len(x) == 40 * 2**rounds and len(found.agreement) == rounds + 1


def test_every_image_is_asked_about_once():
    target = Counted(trained())
    found = substitute(target, seeds(100), build, rounds=2, epochs=2)
    assert found.queries == 400
    assert 400 <= target.images <= 400 + 3 * 64  # passes are filled up to fixed sizes


@pytest.mark.parametrize(("budget", "rounds", "queries", "trainings"), [(50, 3, 50, 1), (51, 3, 51, 2), (130, 5, 130, 3), (400, 3, 400, 4)])
def test_the_budget_is_kept_to_the_image(budget, rounds, queries, trainings):
    target = Recorder(trained())
    found = substitute(target, seeds(50), build, rounds=rounds, epochs=1, max_queries=budget)
    assert found.queries == queries and len(found.agreement) == trainings
    assert len(unique(torch.cat(target.seen))) <= queries
    assert unique(seeds(50)) <= unique(torch.cat(target.seen))


def test_a_run_is_repeated_to_the_bit_and_another_seed_is_another_copy():
    noise = torch.get_rng_state()
    runs = [substitute(trained(), seeds(50), build, rounds=2, epochs=3, max_queries=120, seed=seed) for seed in (0, 0, 1)]
    prints = [models.fingerprint(run.model) for run in runs]
    assert prints[0] == prints[1] != prints[2] and runs[0].agreement == runs[1].agreement
    assert torch.equal(torch.get_rng_state(), noise)


def test_the_cache_keeps_every_round_under_the_targets_answers(tmp_path):
    cache = Cache(tmp_path)
    first = substitute(trained(), seeds(50), build, rounds=2, epochs=3, cache=cache, name="copy")
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    other = substitute(Shifted(), seeds(50), build, rounds=2, epochs=3, cache=cache, name="copy")
    assert len(list(tmp_path.glob("*.safetensors"))) == 6  # other answers, other units
    again = substitute(trained(), seeds(50), build, rounds=2, epochs=3, cache=cache, name="copy")
    assert len(list(tmp_path.glob("*.safetensors"))) == 6  # and nothing is trained again
    assert models.fingerprint(again.model) == models.fingerprint(first.model) != models.fingerprint(other.model)
    assert (again.queries, again.agreement) == (first.queries, first.agreement)


def test_target_and_seeds_are_left_as_they_were():
    target, x = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10)).eval(), seeds(20).clone()
    target[0].train()  # harmless, and not ours to change
    before, state = x.clone(), {name: value.clone() for name, value in target.state_dict().items()}
    substitute(target, x, build, rounds=1, epochs=1)
    assert torch.equal(x, before) and target[0].training and not target[1].training
    assert all(torch.equal(value, state[name]) for name, value in target.state_dict().items())
    assert all(p.grad is None for p in target.parameters())


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_seed": seeds(4) * 255}, r"\[0,1\]"),
        ({"x_seed": seeds(4)[:0]}, "not empty"),
        ({"x_seed": seeds(4).flatten(1)}, r"\(N, C, H, W\)"),
        ({"x_seed": seeds(4).double()}, "x_seed must be float32.*float64"),
        ({"x_seed": [0.1]}, "list was given"),
        ({"rounds": -1}, "rounds must be a whole number of at least 0; -1"),
        ({"rounds": 1.5}, r"1\.5 was given"),
        ({"step": 0.0}, "step must be finite and positive"),
        ({"step": -0.1}, "-0.1"),
        ({"max_queries": 3}, "max_queries must be a whole number of at least 4; 3"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": "one"}, "seed must be"),
        ({"lr": 0.0}, "lr must be a positive number"),
        ({"target_model": "vgg"}, "callable"),
        ({"build": lambda seed: nn.Linear(2, 2)}, "build must map a seed to a Classifier; it made a Linear"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_target_is_asked(change, message):
    options = {"target_model": Bomb(), "x_seed": seeds(4), "build": build, "rounds": 1, **change}
    with pytest.raises(ValueError, match=message):
        substitute(options.pop("target_model"), options.pop("x_seed"), options.pop("build"), **options)


def test_a_copy_with_another_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="copies of 10 classes, but the target has 3"):
        substitute(linear((1, 8, 8), 3), seeds(4), build, rounds=1)
    with pytest.raises(ValueError, match="probabilities"):
        substitute(lambda x: trained()(x).softmax(1), seeds(4), build, rounds=1)
