"""The evaluation's rows beside their best peers: ``pytest tests/benchmarks/test_evaluation_speed.py -s`` shows the ratios.

As for the attacks, times are reported as ratios and model passes are judged.
"""

import functools

import foolbox
import pytest
import torch
import torchattacks
from attack_nets import Counted, digits
from test_attacks_speed import robust
from turns import compare

from support import evaluation, models, training
from support.attacks import bim, margin, rays
from support.evaluation import rows


def undefended():
    """An undefended network of the digits, and 100 images that it has not seen."""
    x, y = digits()
    model = training.fit(models.mlp((1, 8, 8), (64, 64), 10), x[:1297], y[:1297], epochs=15, lr=0.1).model
    return model, x[1297:1397], y[1297:1397]


def test_bim_1000_on_an_undefended_network_beside_libraries(benchmark):
    """Target: at least 2 times fewer sample passes than a loop that keeps decided images, and nothing lost; the time is reported."""
    (model, x, y), eps, steps = undefended(), 0.3, 1000
    ours, theirs, others = Counted(model), Counted(model), Counted(model)
    attack = foolbox.attacks.LinfBasicIterativeAttack(steps=steps, abs_stepsize=eps / steps, random_start=False)
    wrapped, plain = foolbox.PyTorchModel(theirs.eval(), bounds=(0, 1)), torchattacks.BIM(others, eps=eps, alpha=eps / steps, steps=steps)
    found = bim(ours, x, y, eps, steps=steps)
    broken, ends = attack(wrapped, x, y, epsilons=eps)[2], plain(x, y)
    with torch.no_grad():
        also = margin(model(ends), y) < 0
    for name, peer, success in (("foolbox", theirs, broken), ("torchattacks", others, also)):
        fewer = peer.images / ours.images
        print(f"\nBIM-1000, undefended: {ours.images} sample passes, {name} {peer.images}: {fewer:.1f} times fewer")
        assert 0.9 < success.double().mean() <= found.success.double().mean()
        assert peer.images >= steps * len(x) and fewer >= 2
        benchmark.extra_info[f"times fewer passes than {name}"] = fewer
    compare(
        benchmark,
        "BIM-1000, undefended",
        lambda: bim(model, x, y, eps, steps=steps),
        {
            "foolbox": lambda: attack(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=eps),
            "torchattacks": lambda: torchattacks.BIM(model, eps=eps, alpha=eps / steps, steps=steps)(x, y),
        },
        rounds=1,
    )


def test_an_autoattack_row_beside_the_library_alone(benchmark):
    """The stand-in that the library attacks costs no pass; its smaller pieces, without gradients for weights, should save time."""
    model, x, y = robust("LeNet", 64)
    ours, theirs = Counted(model), Counted(model)

    def alone(net):
        with torch.random.fork_rng():
            torchattacks.APGDT(net, eps=0.02, steps=10, n_classes=10)(x, y)

    kept, rows.STEPS = rows.STEPS, 10
    try:
        rows.autoattack(ours, x, y, 0.02, name="APGD-T", seed=0)
        alone(theirs)
        assert ours.images <= theirs.images + 2 * len(x) + 1 + 32  # the clean pass, the last one, one image for the classes, padding
        bare = functools.partial(rows.autoattack, model, x, y, 0.02, name="APGD-T", seed=0)
        compare(benchmark, "APGD-T, LeNet", bare, {"torchattacks": lambda: alone(model)})
    finally:
        rows.STEPS = kept


@pytest.mark.parametrize("name", ["MLP", "LeNet"])
def test_rays_beside_its_bare_forward_passes(benchmark, name):
    """Target: at most 1.2 times the forward passes of a convolutional network; no more passes than queries, but for padding.

    On a small dense network the search's own steps on (n, D) signs show: about three times the forward passes.
    """
    model, x, y = robust(name, 64)
    counted = Counted(model)
    found = rays(counted, x, y, 0.01, queries=200)
    assert int(found.queries.sum()) == 64 * 202 <= counted.images <= 1.3 * 64 * 202

    def bare():
        with torch.inference_mode():
            for _ in range(202):
                model(x)

    compare(benchmark, f"RayS, {name}, 200 queries", lambda: rays(model, x, y, 0.01, queries=200), {"forward": bare})


def test_the_quick_budget_in_sample_passes(benchmark):
    """What one report at quick may cost, counted: seconds for any network that a quick chapter has."""
    model, x, y = undefended()
    counted = Counted(model).eval()
    found = evaluation.evaluate(counted, x, y, 0.1, budget=evaluation.BUDGETS["quick"], peer=counted.model)
    print(f"\nquick report: {counted.images} sample passes")
    assert found.accuracy() < found.accuracy("clean")
    assert counted.images < 120_000
    benchmark.extra_info["sample passes"] = counted.images
    benchmark.pedantic(lambda: evaluation.evaluate(model, x, y, 0.1, budget=evaluation.BUDGETS["quick"], peer=model), rounds=1)
