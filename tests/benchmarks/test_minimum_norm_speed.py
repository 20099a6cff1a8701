"""Minimum-norm attacks beside foolbox's and adv-lib's, in one run: ``pytest tests/benchmarks/test_minimum_norm_speed.py -s``.

The ratio of CPU seconds is reported; passes and distances are judged, each found image by our own pass. adv-lib takes part where it is
installed: ``python -m pip install adv-lib``, in an environment of its own, for it brings a server of plots.
"""

import importlib
import importlib.util
import math

import foolbox
import pytest
import torch
from attack_nets import Counted, held_out, trained
from turns import compare

import support.common.vision  # noqa: F401  adv-lib imports torchvision, which may need this door
from support.attacks import fmn, margin, sigma_zero

STEPS = 100
NORMS = {
    "l2": (2, {"foolbox": foolbox.attacks.L2FMNAttack, "foolbox DDN": foolbox.attacks.DDNAttack}),
    "l-infinity": (math.inf, {"foolbox": foolbox.attacks.LInfFMNAttack}),
}


def sizes(model, x, y, found, size):
    """What was changed of each image, infinite where the class is the same."""
    with torch.no_grad():
        return torch.where(margin(model(found), y) < 0, size(found - x), torch.inf)


def foolbox_attack(attack, model, x, y):
    def run():
        found = attack(steps=STEPS)(foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), x, y, epsilons=None)[0]
        return found.clamp(0, 1)

    return run


def adv_lib_attacks():
    """Their module; None where it is not installed."""
    return importlib.import_module("adv_lib.attacks") if importlib.util.find_spec("adv_lib") else None


@pytest.mark.parametrize("norm", NORMS)
def test_minimum_norm_beside_its_peers(benchmark, norm):
    order, known = NORMS[norm]
    model, (x, y) = Counted(trained()).eval(), held_out(100)
    peers = {name: foolbox_attack(attack, model, x, y) for name, attack in known.items()}
    if theirs := adv_lib_attacks():
        peers["adv-lib"] = lambda: theirs.fmn(model, x, y, norm=order, steps=STEPS)
        if order == 2:
            peers["adv-lib DDN"] = lambda: theirs.ddn(model, x, y, steps=STEPS, levels=None)
    compare(benchmark, f"minimum norm, {norm}, {STEPS} steps", lambda: fmn(model, x, y, norm=order, steps=STEPS), peers)

    def size(change):
        return change.flatten(1).norm(order, dim=1)

    model.images = 0
    ours = sizes(model, x, y, fmn(model, x, y, norm=order, steps=STEPS).x_adv, size)
    assert model.images <= len(x) * (STEPS + 14) + len(x)  # and the judge's own
    said = {name: sizes(model, x, y, run(), size) for name, run in peers.items()}
    benchmark.extra_info |= {f"median {norm}": {"ours": float(ours.median()), **{name: float(far.median()) for name, far in said.items()}}}
    print(benchmark.extra_info[f"median {norm}"])
    assert all(bool((ours.isfinite() | far.isinf()).all()) for far in said.values())
    assert all(ours.median() <= 1.02 * far.median() for far in said.values())


def test_fewest_pixels_beside_adv_lib(benchmark):
    theirs = adv_lib_attacks() or pytest.skip("adv-lib is not installed")
    model, (x, y) = Counted(trained()).eval(), held_out(100)
    peers = {"adv-lib": lambda: theirs.sigma_zero(model, x, y, num_steps=300)}
    compare(benchmark, "fewest pixels, 300 steps", lambda: sigma_zero(model, x, y), peers)

    def size(change):
        return change.flatten(1).ne(0).sum(1).double()

    ours, other = (sizes(model, x, y, found, size) for found in (sigma_zero(model, x, y).x_adv, peers["adv-lib"]()))
    benchmark.extra_info |= {"mean pixels": {"ours": float(ours.mean()), "adv-lib": float(other.mean())}}
    print(benchmark.extra_info["mean pixels"])
    assert ours.isfinite().all() and ours.mean() <= 1.05 * other.mean()
