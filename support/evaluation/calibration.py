"""The attackers, checked against known truth and beside other libraries: the page "Do our attacks
work?".

:func:`compare` runs attacks on the properties that verifiers have settled
(:mod:`support.evaluation.verified_properties`): every success on a property that holds is a fault,
of the attack or of a verifier, and every violated property without a success is a miss.
:func:`control` runs our attack on networks whose robustness is proven or published, and
:func:`under_protocol` the whole evaluation that the papers' networks go through. Everything that
is found is judged here: cut to the ball and the box, exactly, and read in float32 and in float64; a
success is one in both. ``python -m support calibrate`` writes the numbers of the page.
"""

import copy
import importlib.metadata
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from support import attacks, data
from support.attacks.base import fast_rows, score, streams_kept
from support.evaluation import BUDGETS, Budget, evaluate
from support.evaluation.verified_properties import SETS, Properties, load
from support.models import published

Find = Callable[[nn.Module, Tensor, Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""(model, x (n, ...), y (n,), eps (n,)) to the images (n, ...) that an attack returns, and the
passes (n,) that each took, where the attack counts them itself."""

SEED = 0
STANDARD_STEPS = 100  # of APGD and FAB in AutoAttack's standard version


@dataclass(frozen=True)
class Attacker:
    """An attack, whose it is, and what it is told."""

    name: str
    library: str
    find: Find


@dataclass(frozen=True)
class Row:
    """What an attack found of a benchmark.

    Attributes:
        benchmark, attack, library: whose row it is.
        found, violated: successes on the properties that verifiers found violated, and their
            number.
        faults, holds: the same of those that hold: a success here is a fault.
        open, undecided: the same of all others.
        disputed_found, disputed: the same of those of which one tool proved what another refuted.
        passes_found, passes_held: model passes of an image, in the mean over the violated and over
            the holding properties (0 where there are none). Ours count them image by image, without
            the padding of small batches; a library's are the images that the network was shown.
        seconds: of processor time, for the whole benchmark.
        missed: the numbers of the violated properties without a success.
    """

    benchmark: str
    attack: str
    library: str
    found: int
    violated: int
    faults: int
    holds: int
    open: int
    undecided: int
    disputed_found: int
    disputed: int
    passes_found: float
    passes_held: float
    seconds: float
    missed: tuple[int, ...]


def successes(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor, found: Tensor) -> Tensor:
    """Whether what an attack returned is a counterexample, (N,) bool: an image of ball and box
    whose class is another one, in float32 and in float64. What is no number counts as the image
    itself.

    Args:
        model: (n, ...) to (n, K) log-scores, float32.
        x, y, eps: (N, ...), (N,), (N,) as everywhere.
        found: (N, ...), cut to ball and box here.
    """
    low, high = attacks.interval(x, eps)
    inside = torch.where(found.isnan(), x, found.to(x.dtype)).clamp(low, high)
    rows = fast_rows(x, model=model)
    single = attacks.margin(score(model, inside, rows), y) < 0
    exact = attacks.margin(score(copy.deepcopy(model).double(), inside.double(), rows), y) < 0
    return single & exact


@torch.no_grad()
def compare(benchmark: str, attacker: Attacker, properties: Properties | None = None) -> Row:
    """An attack on each property of a benchmark.

    Args:
        benchmark: one of :data:`support.evaluation.verified_properties.SETS`.
        attacker: the attack; it sees the networks and the three kinds of properties one after the
            other.
        properties: of the benchmark, where they are loaded already.

    Raises:
        DataError: as :func:`support.evaluation.verified_properties.load` and
            :func:`support.models.published.network`.
    """
    given = load(benchmark) if properties is None else properties
    networks = {name: published.network(name) for name in dict.fromkeys(given.networks)}
    kinds = (given.violated, given.holds, ~(given.violated | given.holds))
    won, passes, began = torch.zeros_like(given.violated), [0, 0, 0], time.process_time()
    names = np.array(given.networks)
    shown: list[int] = []  # images of each pass
    for name, network in networks.items():
        for kind, mask in enumerate(kinds):
            index = (mask & torch.from_numpy(names == name)).nonzero()[:, 0]
            if not len(index):
                continue
            x, y, eps = given.x[index], given.y[index], given.eps[index]
            shown.clear()
            counting = network.register_forward_pre_hook(lambda _, args: shown.append(len(args[0])))
            with counting, torch.enable_grad():
                found, queries = attacker.find(network, x.clone(), y.clone(), eps.clone())
            passes[kind] += sum(shown) if queries is None else int(queries.sum())
            won[index] = successes(network, x, y, eps, found.detach())
    counts = [(int(won[mask].sum()), int(mask.sum())) for mask in (*kinds, given.disputed)]
    each = [images / max(count, 1) for images, (_, count) in zip(passes, counts, strict=False)]
    missed = (kinds[0] & ~won).nonzero()[:, 0].tolist()
    return Row(
        benchmark, attacker.name, attacker.library, *sum(counts, ()), *each[:2],
        time.process_time() - began, tuple(missed),
    )  # fmt: skip


# --- attacks --------------------------------------------------------------------------------------


def ours(name: str, attack: Callable[..., attacks.AttackResult], **settings) -> Attacker:
    """One of our attacks on a network's log-scores."""

    def find(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        result = attack(model, x, y, eps, **settings)
        return result.x_adv, result.queries

    return Attacker(name, "ours", find)


def library(package: str, name: str, build: Callable[..., Callable], **settings) -> Attacker:
    """An attack of a library, of which ``build(model, eps=eps, **settings)`` returns ``(x, y) ->
    images``: asked for one radius at a time, with seeds of its own."""

    def find(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor) -> tuple[Tensor, None]:
        found = x.clone()
        with streams_kept(range(torch.cuda.device_count())):
            for radius in eps.unique().tolist():
                random.seed(SEED)
                np.random.seed(SEED)
                torch.manual_seed(SEED)
                at = eps == radius
                found[at] = build(model, eps=radius, **settings)(x[at], y[at]).detach()
        return found, None

    return Attacker(name, f"{package} {importlib.metadata.version(package)}", find)


def attackers(passes: int) -> list[Attacker]:
    """Ours and those of torchattacks and foolbox, among them AutoAttack's four parts, at about so
    many passes of an image that holds out; and its APGDs with the steps of its standard version.

    Raises:
        ModuleNotFoundError: foolbox is not installed; the extra ``tests`` has it.
    """
    import foolbox

    from support.common.vision import import_torchvision

    import_torchvision()
    import torchattacks

    few = passes // 9 - 1  # a search towards each of nine rivals; a step of FAB takes two passes
    apgd = partial(torchattacks.APGD, loss="ce")
    apgd_targets = partial(torchattacks.APGDT, n_classes=10)
    fab = partial(torchattacks.FAB, norm="Linf", n_restarts=1, multi_targeted=True, n_classes=10)
    square = partial(torchattacks.Square, norm="Linf", n_restarts=1)

    def pgd(model: nn.Module, eps: float) -> Callable:
        return torchattacks.PGD(model, eps=eps, alpha=2.5 * eps / passes, steps=passes)

    def foolbox_pgd(model: nn.Module, eps: float) -> Callable:
        attack = foolbox.attacks.LinfPGD(rel_stepsize=2.5 / passes, steps=passes)
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
        return lambda x, y: attack(wrapped, x, y, epsilons=eps)[1]

    theirs = partial(library, "torchattacks")
    return [
        ours("multi_targeted", attacks.multi_targeted),
        ours(f"pgd_targets, {few} steps a target", attacks.pgd_targets, steps=few),
        ours("pgd_targets, 80 steps a target", attacks.pgd_targets, steps=80),
        ours(f"the rival's score alone, {few} steps", attacks.pgd_targets, steps=few, loss=_fallen),
        ours(f"pgd on the margin, {passes} steps", attacks.pgd, loss="margin", steps=passes),
        ours(f"pgd on cross-entropy, {passes} steps", attacks.pgd, steps=passes),
        theirs(f"PGD, {passes} steps", pgd),
        library("foolbox", f"PGD, {passes} steps", foolbox_pgd),
        theirs(f"APGD-CE, {STANDARD_STEPS} steps", apgd, steps=STANDARD_STEPS),
        theirs(f"APGD-CE, {passes} steps", apgd, steps=passes),
        theirs(f"APGD-T, {few} steps a target", apgd_targets, steps=few),
        theirs(f"APGD-T, {STANDARD_STEPS} steps a target", apgd_targets, steps=STANDARD_STEPS),
        theirs(f"FAB-T, {few // 2} steps a target", fab, steps=few // 2),
        theirs(f"Square, {passes} queries", square, n_queries=passes),
        theirs("Square, 1000 queries", square, n_queries=1000),
    ]


def _fallen(model: nn.Module, x: Tensor, rival: Tensor) -> Tensor:
    """What is lowered where the rival's score is to rise, whatever the label's does."""
    return -model(x).gather(1, rival[:, None])[:, 0]


# --- networks whose robustness is known -----------------------------------------------------------


@dataclass(frozen=True)
class Control:
    """A network whose robustness is known from elsewhere.

    Attributes:
        network: by its name in :data:`support.models.published.NETWORKS`.
        eps: radius in units of [0,1].
        published: share of test images that an attack made wrong, or that are wrong.
        unproven: published share that could not be proven right: no attack can do more.
    """

    network: str
    eps: float
    published: float | None
    unproven: float


CONTROLS = (
    Control("mnist/provable-0.1", 0.1, 0.041, 0.058),
    Control("mnist/provable-0.3", 0.3, None, 0.3364),
    Control("cifar10/provable-8", 8 / 255, None, 0.7171),
    Control("cifar10/vnncomp-resnet_2b", 2 / 255, 1 - 0.5482, 1 - 0.2688),
    Control("cifar10/vnncomp-resnet_4b", 1 / 255, 1 - 0.6975, 1 - 0.2328),
)
"""Wong and Kolter (2018), Wong et al. (2018), and the benchmark cifar10_resnet of VNN-COMP 2021."""


def control(known: Control, count: int, **settings) -> dict[str, float | int]:
    """Errors on the first ``count`` test images: clean, and under
    :func:`support.attacks.multi_targeted` with these settings.

    Raises:
        DataError: the network or the data set is not there.
    """
    images = data.load(known.network.split("/")[0], "test").take(count)
    model = published.network(known.network)
    eps = torch.full_like(images.y, known.eps, dtype=torch.float64)
    found = attacks.multi_targeted(model, images.x, images.y, eps, **settings)
    with torch.no_grad():
        clean = attacks.margin(score(model, images.x, fast_rows(images.x)), images.y) < 0
        won = clean | successes(model, images.x, images.y, eps, found.x_adv)
    return {"wrong": int(clean.sum()), "attacked": int(won.sum()), "of": len(images)}


PLAIN = {"mnist": "mnist/vnncomp-256x4", "cifar10": "cifar10/resnet20"}
"""For each data set a network that nobody has made robust."""
PROTOCOL = replace(
    BUDGETS["quick"], images=150, targeted_images=150, square_images=150, square_queries=300,
    hard_label_images=150, transfer_images=0,
)  # fmt: skip
"""What the protocol may spend on a control: every row sees as many images."""


def under_protocol(network: str, eps: float, budget: Budget = PROTOCOL) -> dict[str, Any]:
    """A published network under :func:`support.evaluation.evaluate`, as the papers' networks are:
    its name, right and seen images of each row, and the flags that were raised.

    Raises:
        DataError: as :func:`control`.
    """
    images = data.load(network.split("/")[0], "test").take(budget.images)
    report = evaluate(published.network(network), images.x, images.y, eps, budget=budget)
    seen = {row: report.robust(row) for row in report.rows}
    return {
        "network": network,
        "rows": {row: [int(mask.sum()), len(mask)] for row, mask in seen.items() if len(mask)},
        "flags": [flag.name for flag in report.flags if flag.raised],
    }


def exact_verdicts(
    attack: Callable[..., attacks.AttackResult], seeds: Iterable[int], **settings
) -> tuple[int, int]:
    """On how many images an attack of a linear model decides as the closed form does, and of how
    many.

    The least difference to each rival over ball and box is at a corner of it. Random models of ten
    classes in float64, 200 images of 36 pixels each, radius 0.06.
    """
    right = total = 0
    for seed in seeds:
        stream = torch.Generator().manual_seed(seed)
        kind = {"generator": stream, "dtype": torch.float64, "device": stream.device}
        weight = torch.randn(10, 36, **kind)
        x = torch.rand(200, 36, **kind)
        model = nn.Linear(36, 10, bias=False, dtype=torch.float64).requires_grad_(False)
        model.weight.copy_(weight)
        y, (low, high) = model(x).argmax(1), attacks.interval(x, 0.06)
        gap = weight[y][:, None] - weight
        least = torch.where(gap > 0, low[:, None], high[:, None]).mul(gap).sum(2)
        least = least.scatter(1, y[:, None], torch.inf).amin(1)
        found = attack(model, x, y, 0.06, **settings)
        right += int((found.success == (least < 0)).sum())
        total += len(x)
    return right, total


def everything(count: int, seeds: int, say: Callable[[str], None] = lambda line: None) -> dict:
    """All numbers of the page, as JSON has them.

    Args:
        count: test images of each control.
        seeds: draws of our attack's starts.
        say: is told of each row when it is there.

    Raises:
        DataError: something of it is not there.
    """
    first = ours("multi_targeted", attacks.multi_targeted)
    passes = round(compare(SETS[0], first).passes_held)
    rows: list[Row] = []
    for benchmark in SETS:
        for attacker in attackers(passes):
            row = compare(benchmark, attacker)
            say(f"{benchmark}: {row.attack} ({row.library}): {row.found} of {row.violated}")
            rows.append(row)
    seeded = [ours(f"seed {seed}", partial(_seeded, seed)) for seed in range(seeds)]
    found_by_seed = {
        benchmark: [compare(benchmark, attacker).found for attacker in seeded]
        for benchmark in SETS[:2]  # the third has none that is violated
    }
    controls = []
    for known in CONTROLS:
        attacked = control(known, count, rounds=1, classes=3)
        both = known.network, PLAIN[known.network.split("/")[0]]
        judged = [under_protocol(name, known.eps) for name in both]
        controls.append(vars(known) | attacked | {"protocol": judged})
        say(f"{known.network}: {controls[-1]}")
    linear = {
        name: exact_verdicts(getattr(attacks, name), range(5))
        for name in ("multi_targeted", "pgd_targets", "pgd", "bim", "fgsm")
    }
    shown = [vars(replace(row, seconds=round(row.seconds, 2))) for row in rows]
    return {
        "passes": passes, "rows": shown, "found_by_seed": found_by_seed, "controls": controls,
        "linear": linear,
    }  # fmt: skip


def _seeded(seed: int, *call) -> attacks.AttackResult:
    return attacks.multi_targeted(*call, generator=torch.Generator().manual_seed(seed))
