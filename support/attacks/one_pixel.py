"""The search for one pixel by differential evolution, without a gradient."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from support.attacks.base import (
    LEAST_ROWS,
    AttackResult,
    Call,
    Model,
    Rows,
    attack,
    check,
    even,
    fast_rows,
    margin,
    normal,
    packed,
    prepare,
    score,
    uniform,
)
from support.common.arguments import (
    choice,
    described,
    function,
    number,
    random_stream,
    whole_number,
)

Rule = Callable[[Tensor, Tensor], Tensor]

_MEAN, _SPREAD = 128 / 255, 127 / 255  # of the first colours, as Su et al. draw them
_FACTORS = 0.5, 1.0  # between which the factor F of each generation is drawn
_MOST_CANDIDATES = 4096  # of one forward pass, where the device's own limit is higher


@dataclass(frozen=True)
class _Search:
    """A one-pixel search: what is lowered, what ends it, and the most candidates of a forward
    pass."""

    call: Call
    objective: Rule
    success: Rule
    rows: int


@dataclass(frozen=True)
class _Found(Rows):
    """Per image the best pixel so far (position -1: none, the image as it is). The tensors are
    updated in place, some rows at a time."""

    position: Tensor
    colour: Tensor
    value: Tensor
    decided: Tensor
    queries: Tensor

    def undecided(self) -> Tensor:
        return (~self.decided).nonzero()[:, 0]


@attack
def one_pixel(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    population: int = 400,
    generations: int = 100,
    strategy: str = "best1bin",
    recombination: float = 1.0,
    levels: int = 256,
    success: Rule | None = None,
    objective: Rule | None = None,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """One-pixel attack by differential evolution (Su, Vargas and Sakurai 2019, section III), all
    images in lockstep.

    A candidate is a position and a colour, a point ``u`` of the unit cube of 2 + C dimensions: row
    ``floor(u_0 * H)``, column ``floor(u_1 * W)``, and colours rounded down to ``levels`` equal
    steps from 0 to 1, as the 8-bit pictures of the paper. The first population has uniform
    positions and colours from N(128, 127) / 255, cut to [0,1]. Each generation makes one trial for
    each member ``i``, ``base + F * (u_a - u_b)`` with distinct random ``a, b`` and, for each
    generation, an F from [0.5, 1), where base is the best member (``"best1bin"``, what hess2020's
    code uses) or a third random one (``"rand1bin"``, Su et al. eq. 1, there with F = 0.5);
    coordinates outside the cube are drawn anew, a trial replaces its member if it is better. A run
    ends for an image as soon as one of its candidates, the first population included, meets the
    success rule, or when the clean image does. All images share the random draws. Used in the
    chapter "Softmax is k-means" (``table1``, ``fig1``).

    Args:
        model: maps (n, C, H, W) images in [0,1] to (n, K) log-scores.
        x: (N, C, H, W) images in [0,1], float32 or float64.
        y: (N,) int64 true labels.
        population: members, at least 4.
        generations: generations after the first population.
        strategy: "best1bin" or "rand1bin".
        recombination: probability that a coordinate comes from the trial and not from its member
            (one always does). 1: no crossover.
        levels: number of values that a colour channel can take, 256 for 8-bit pictures.
        success: rule ``(scores (M, K), y (M,)) -> (M,) bool`` for a success. Default:
            misclassified.
        objective: ``(scores (M, K), y (M,)) -> (M,)``, lowered. Default: the true class's score
            minus the best other, which, unlike a probability, does not go flat where the model is
            sure.
        generator: source of all draws, whose number depends on ``population`` and ``generations``
            alone. ``None``: a fresh one of fixed seed.
        batch_size: at most so many candidates in one forward pass; ``None`` picks what is fast on
            the device.

    Returns:
        The result. ``success`` is the rule's verdict at ``x_adv``, ``margin`` always the true score
        minus the best other. An image that holds out costs ``population * (generations + 1) + 2``
        queries; a success is the best hit of its generation.

    Raises:
        ValueError: a wrong input, or a rule that returns something else than one bool (or value) a
            row.
    """
    check(model, x, y, batch_size=batch_size, pictures=True)
    whole_number("population", population, 4)
    whole_number("generations", generations, 0)
    choice("strategy", strategy, ("best1bin", "rand1bin"))
    number("recombination", recombination, least=0, most=1)
    whole_number("levels", levels, 2)
    for name, rule in (("objective", objective), ("success", success)):
        function(name, rule, "(scores (M, K), y (M,)) -> (M,)", optional=True)
    stream, rows = (
        random_stream(generator),
        batch_size or fast_rows(x, _MOST_CANDIDATES, model=model),
    )
    call = prepare(model, x, y, rows)
    search = _Search(call, objective or margin, success or _misclassified, rows)
    found = _clean(search)
    alive = found.undecided()
    members, values = _first_population(population, x, stream).expand(len(alive), -1, -1), None
    # All plans are drawn, whether or not an image is left, so that the stream does not depend on
    # the images.
    plans = _plans(generations, population, 2 + x.shape[1], recombination, stream, x)
    for plan in (None, *plans):
        trial = members if plan is None else _trial(members, values, strategy, plan)
        position, colour = _decode(trial, x.shape, levels)
        value, hit = _evaluate(search, alive, position, colour)
        _note(found, alive, position, colour, value, hit)
        values = value if values is None else values
        better = value < values
        members = torch.where(better[..., None], trial, members)
        values = torch.where(better, value, values)
        # One wait for the device a generation is little beside its `population` passes an image;
        # one in ten generations would waste up to 4,000 passes on each decided image.
        left = (~found.decided[alive]).nonzero()[:, 0]
        alive, members, values = alive[left], members[left], values[left]
    return _judged(search, found)


def _clean(search: _Search) -> _Found:
    """The clean images as first candidates."""
    call = search.call
    value, hit = _judge(search, call.scores, call.y)
    position = torch.full_like(call.y, -1)
    return _Found(position, call.x.new_zeros(call.x.shape[:2]), value, hit, torch.ones_like(call.y))


def _misclassified(scores: Tensor, y: Tensor) -> Tensor:
    return margin(scores, y) < 0


def _judge(search: _Search, scores: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Value, made finite, and success (M,) of each row."""
    value, hit = search.objective(scores, y), search.success(scores, y)
    for name, kind, given in (("success", "bool", hit), ("objective", "floating value", value)):
        right = isinstance(given, Tensor) and given.shape == y.shape
        if not right or (
            given.dtype != torch.bool if given is hit else not given.is_floating_point()
        ):
            raise ValueError(
                f"{name} must return one {kind} a row, shape {tuple(y.shape)}; it returned "
                f"{described(given)}"
            )
    return value.to(search.call.x.dtype).nan_to_num(nan=torch.finfo(search.call.x.dtype).max), hit


def _first_population(population: int, x: Tensor, stream: torch.Generator) -> Tensor:
    """(P, 2 + C) points of the unit cube: uniform positions, normal colours."""
    where = uniform((population, 2), stream, x)
    colours = normal((population, x.shape[1]), stream, x) * _SPREAD + _MEAN
    return torch.cat([where, colours.clamp(0, 1)], dim=1)


@dataclass(frozen=True)
class _Plan:
    """The draws of one generation, the same for all images."""

    factor: Tensor
    """()"""
    partners: tuple[Tensor, Tensor, Tensor]
    """(P,) each, three distinct other members"""
    crossed: Tensor
    """(P, D) bool, coordinates that come from the trial"""
    anew: Tensor
    """(P, D), in place of coordinates outside the cube"""


def _plans(
    generations: int,
    population: int,
    dimensions: int,
    recombination: float,
    stream: torch.Generator,
    x: Tensor,
) -> Iterator[_Plan]:
    points, (low, high) = population * dimensions, _FACTORS
    sizes = [1, 3 * population, population, points, points]
    for first in range(0, generations, 10):
        # One draw a generation, so that more generations begin like fewer; ten at a time, to spare
        # calls.
        count = min(10, generations - first)
        drawn = torch.stack([uniform((sum(sizes),), stream, x) for _ in range(count)])
        factor, partners, always, crossed, anew = drawn.split(sizes, dim=1)
        factor = low + (high - low) * factor[:, 0]
        always = _index(always, dimensions)[..., None] == torch.arange(dimensions, device=x.device)
        crossed = (crossed.view(-1, population, dimensions) < recombination) | always
        others = zip(*_others(partners.view(-1, 3, population)), strict=True)
        anew = anew.view(-1, population, dimensions)
        yield from (_Plan(*plan) for plan in zip(factor, others, crossed, anew, strict=True))


def _index(drawn: Tensor, count: int) -> Tensor:
    """Uniform numbers in [0, 1) as whole numbers below ``count``."""
    # just below 1, the product may round up to count
    return (drawn * count).long().clamp_max(count - 1)


def _others(drawn: Tensor) -> list[Tensor]:
    """For each of P members three others, distinct, from uniform numbers (G, 3, P): each (G, P)."""
    generations, _, count = drawn.shape
    taken = [torch.arange(count, device=drawn.device).expand(generations, -1)]
    for which in range(3):
        place = _index(drawn[:, which], count - len(taken))
        for other in torch.stack(taken).sort(0).values:
            place = place + (place >= other)
        taken.append(place)
    return taken[1:]


def _trial(members: Tensor, values: Tensor, strategy: str, plan: _Plan) -> Tensor:
    """One trial (B, P, D) for each of the members (B, P, D), whose values are (B, P)."""
    a, b, c = plan.partners
    best = values.argmin(1)[:, None, None].expand(-1, 1, members.shape[2])
    base = members.gather(1, best) if strategy == "best1bin" else members[:, c]
    trial = torch.where(plan.crossed, base + plan.factor * (members[:, a] - members[:, b]), members)
    return torch.where((trial < 0) | (trial > 1), plan.anew, trial)


def _decode(points: Tensor, shape: torch.Size, levels: int) -> tuple[Tensor, Tensor]:
    """Points (B, P, 2 + C) of the unit cube as flat positions (B, P) and colours (B, P, C) for
    images of ``shape`` (N, C, H, W)."""
    _, _, height, width = shape
    position = _index(points[..., 0], height) * width + _index(points[..., 1], width)
    return position, (points[..., 2:] * levels).floor().clamp_max(levels - 1) / (levels - 1)


def _evaluate(
    search: _Search, index: Tensor, position: Tensor, colour: Tensor
) -> tuple[Tensor, Tensor]:
    """Values and successes (B, Q) of the candidates ``position`` (B, Q), ``colour`` (B, Q, C) of
    the images ``index`` (B,).

    They are cut into forward passes of a few fixed sizes, each of the same columns of one or
    several images, so that many candidates are one image's alone.
    """
    call, (rows, count), channels = search.call, position.shape, colour.shape[2]
    flat, buffer = call.x.flatten(2), None
    width = even(count, search.rows)
    short = -count % width  # the last columns are filled up with the first
    position = torch.cat([position, position[:, :short]], 1)
    colour = torch.cat([colour, colour[:, :short]], 1)
    scores = call.scores.new_empty((rows, count + short, call.scores.shape[1]))
    sizes = max(1, search.rows // width), -(-LEAST_ROWS // width)
    with torch.no_grad():
        for place, real in packed(torch.arange(rows, device=index.device), *sizes):
            pictures = flat[index[place]][:, None].expand(-1, width, -1, -1)
            if buffer is None or buffer.shape != pictures.shape:
                buffer = pictures.new_empty(pictures.shape)
            for columns in torch.arange(count + short, device=index.device).split(width):
                where, paint = position[place][:, columns], colour[place][:, columns]
                pixel = where[..., None, None].expand(-1, -1, channels, 1)
                buffer.copy_(pictures).scatter_(3, pixel, paint[..., None])
                found = call.model(buffer.view(-1, *call.x.shape[1:])).view(len(place), width, -1)
                scores[place[:real, None], columns] = found[:real]
    labels = call.y[index].repeat_interleave(count)
    value, hit = _judge(search, scores[:, :count].flatten(0, 1), labels)
    return value.view(rows, count), hit.view(rows, count)


def _note(
    found: _Found, index: Tensor, position: Tensor, colour: Tensor, value: Tensor, hit: Tensor
) -> None:
    """Keep, for each image of ``index``, none of them decided, the best of its candidates (B, Q):
    of the hits if there are any, else of all."""
    success, old = hit.any(1), found.take(index)
    best = torch.where(hit | ~success[:, None], value, torch.inf).argmin(1, keepdim=True)
    reached, place = value.gather(1, best)[:, 0], position.gather(1, best)[:, 0]
    paint = colour.gather(1, best[..., None].expand(-1, 1, colour.shape[2]))[:, 0]
    taken = success | (reached < old.value)
    place = torch.where(taken, place, old.position)
    reached = torch.where(taken, reached, old.value)
    paint = torch.where(taken[:, None], paint, old.colour)
    found.put(index, _Found(place, paint, reached, success, old.queries + position.shape[1]))


def _judged(search: _Search, found: _Found) -> AttackResult:
    call, flat = search.call, search.call.x.flatten(2)
    place = found.position.clamp_min(0)[:, None, None].expand(-1, flat.shape[1], 1)
    changed = (found.position >= 0)[:, None, None]
    pixel = torch.where(changed, found.colour[..., None], flat.gather(2, place))
    x_adv = flat.scatter(2, place, pixel).view_as(call.x)
    scores = score(call.model, x_adv, call.rows)
    _, success = _judge(search, scores, call.y)
    return AttackResult(x_adv, success, margin(scores, call.y), found.queries + 1)
