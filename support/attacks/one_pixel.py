"""Searches that change one pixel and need no gradient: differential evolution, and all positions
with all extreme colours."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from support.attacks.base import (
    LEAST_ROWS,
    AttackResult,
    Call,
    Model,
    check,
    even,
    fast_rows,
    margin,
    packed,
    prepare,
    random_stream,
    score,
    whole_number,
)

Rule = Callable[[Tensor, Tensor], Tensor]

_MEAN, _SPREAD = 128 / 255, 127 / 255  # of the first colours, as Su et al. draw them
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
class _Found:
    """Per image the best pixel so far (position -1: none, the image as it is). The tensors are
    updated in place, some rows at a time."""

    position: Tensor
    colour: Tensor
    value: Tensor
    decided: Tensor
    queries: Tensor

    def undecided(self) -> Tensor:
        return (~self.decided).nonzero()[:, 0]


@torch.inference_mode(False)
@torch.no_grad()
def one_pixel(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    population: int = 400,
    generations: int = 100,
    strategy: str = "best1bin",
    mutation: float | tuple[float, float] = (0.5, 1.0),
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
    each member ``i``, ``base + F * (u_a - u_b)`` with distinct random ``a, b``, where base is the
    best member (``"best1bin"``, what hess2020's code uses) or a third random one (``"rand1bin"``,
    Su et al. eq. 1 with ``mutation=0.5``); coordinates outside the cube are drawn anew, a trial
    replaces its member if it is better. A run ends for an image as soon as one of its candidates,
    the first population included, meets the success rule, or when the clean image does. All images
    share the random draws. Used in the chapter "Softmax is k-means" (``table1``, ``fig1``).

    Args:
        model: maps (n, C, H, W) images in [0,1] to (n, K) log-scores.
        x: (N, C, H, W) images in [0,1], float32 or float64.
        y: (N,) int64 true labels.
        population: members, at least 4.
        generations: generations after the first population.
        strategy: "best1bin" or "rand1bin".
        mutation: the factor F, or a range that one F a generation is drawn from (dither).
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
    check(model, x, y, batch_size=batch_size, generator=generator, pictures=True)
    whole_number("population", population, 4)
    whole_number("generations", generations, 0)
    low, high = _factor_range(mutation)
    if strategy not in ("best1bin", "rand1bin"):
        raise ValueError(f'strategy must be "best1bin" or "rand1bin", not {strategy!r}')
    if (
        not isinstance(recombination, Real)
        or isinstance(recombination, bool)
        or not 0 <= recombination <= 1
    ):
        raise ValueError(f"recombination must be a probability, not {recombination!r}")
    whole_number("levels", levels, 2)
    rules = _rule("objective", objective, margin), _rule("success", success, _misclassified)
    rows = batch_size or fast_rows(x, _MOST_CANDIDATES, model=model)
    search = _Search(prepare(model, x, y, rows), *rules, rows)
    found = _clean(search)
    stream, alive = random_stream(generator), found.undecided()
    members, values = _first_population(population, x, stream).expand(len(alive), -1, -1), None
    # All plans are drawn, whether or not an image is left, so that the stream does not depend on
    # the images.
    for plan in (
        None,
        *_plans(generations, population, 2 + x.shape[1], (low, high), recombination, stream, x),
    ):
        trial = members if plan is None else _trial(members, values, strategy, plan)
        position, colour = _decode(trial, x.shape, levels)
        value, hit = _evaluate(search, alive, position, colour)
        _note(found, alive, position, colour, value, hit)
        if values is None:
            values = value
        better = value < values
        members, values = (
            torch.where(better[..., None], trial, members),
            torch.where(better, value, values),
        )
        # One wait for the device a generation is little beside its `population` passes an image;
        # one in ten generations would waste up to 4,000 passes on each decided image.
        left = (~found.decided[alive]).nonzero()[:, 0]
        alive, members, values = alive[left], members[left], values[left]
    return _judged(search, found)


@torch.inference_mode(False)
@torch.no_grad()
def one_pixel_corners(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    ascent: int = 0,
    ascent_steps: int = 10,
    levels: int = 256,
    success: Rule | None = None,
    objective: Rule | None = None,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """One-pixel attack by trial of every position with every extreme colour, and a colour ascent on
    the best positions.

    The ``H * W * 2**C`` candidates set one pixel to a corner of the colour cube. For a model that
    is linear in the pixel the best of them is the optimum over all colours; for a network it is a
    lower bound of the damage, at 8,192 passes for a 32x32 colour image, a fifth of
    :func:`one_pixel`'s. ``ascent`` adds signed gradient steps on the colour, from mid-grey, at that
    many positions with the best corners. Nothing is random. Used in the chapter "Softmax is
    k-means" (``table1``).

    Args:
        model: maps (n, C, H, W) images in [0,1] to (n, K) log-scores.
        x: (N, C, H, W) images in [0,1], float32 or float64.
        y: (N,) int64 true labels.
        ascent: positions whose colour is refined by gradients, 0 for none.
        ascent_steps: colours tried at each of them; the steps shrink from a quarter of the colour
            range to nothing.
        levels: number of values that a colour channel can take during the ascent, 256 for 8-bit
            pictures.
        success: rule ``(scores (M, K), y (M,)) -> (M,) bool`` for a success. Default:
            misclassified.
        objective: ``(scores (M, K), y (M,)) -> (M,)``, lowered. Default: the true class's score
            minus the best other.
        generator: unused, nothing is drawn.
        batch_size: at most so many candidates in one forward pass; ``None`` picks what is fast on
            the device.

    Returns:
        The result. ``success`` is the rule's verdict at ``x_adv``, ``margin`` always the true score
        minus the best other. An image that holds out costs ``H * W * 2**C + ascent * ascent_steps +
        2`` queries; a success is the best hit of the pass it was found in.

    Raises:
        ValueError: a wrong input, a rule that returns something else than one bool (or value) a
            row, or an ascent without a gradient.
    """
    check(model, x, y, batch_size=batch_size, generator=generator, pictures=True)
    whole_number("ascent", ascent, 0)
    whole_number("ascent_steps", ascent_steps, 1)
    channels, places = x.shape[1], x.shape[2] * x.shape[3]
    if ascent > places:
        raise ValueError(f"ascent must be at most the {places} positions of an image, not {ascent}")
    whole_number("levels", levels, 2)
    rules = _rule("objective", objective, margin), _rule("success", success, _misclassified)
    rows = batch_size or fast_rows(x, _MOST_CANDIDATES, model=model)
    search = _Search(prepare(model, x, y, rows), *rules, rows)
    found = _clean(search)
    corners = (
        torch.arange(2**channels, device=x.device)[:, None]
        >> torch.arange(channels, device=x.device)
    ) & 1
    position, colour = (
        torch.arange(places, device=x.device).repeat_interleave(len(corners)),
        corners.to(x.dtype).repeat(places, 1),
    )
    block = even(len(position), search.rows)
    values = torch.full((len(x), len(position)), torch.inf, dtype=x.dtype, device=x.device)
    for start in range(0, len(position), block):
        part, alive = slice(start, start + block), found.undecided()
        here, paint = position[part].expand(len(alive), -1), colour[part].expand(len(alive), -1, -1)
        value, hit = _evaluate(search, alive, here, paint)
        _note(found, alive, here, paint, value, hit)
        values[alive, part] = value
    if ascent:
        best = (
            values.view(len(x), places, len(corners))
            .amin(2)
            .argsort(dim=1, stable=True)[:, :ascent]
        )
        _climb_colours(search, found, best, ascent_steps, levels)
    return _judged(search, found)


def _factor_range(mutation: float | tuple[float, float]) -> tuple[float, float]:
    ends = mutation if isinstance(mutation, tuple) else (mutation, mutation)
    if (
        len(ends) != 2
        or not all(isinstance(end, Real) and not isinstance(end, bool) for end in ends)
        or not 0 <= ends[0] <= ends[1] <= 2
    ):
        raise ValueError(
            f"mutation must be a number or a pair (low, high) with 0 <= low <= high <= 2, not {mutation!r}"
        )
    return ends


def _rule(name: str, rule: Rule | None, default: Rule) -> Rule:
    if rule is not None and not callable(rule):
        raise ValueError(
            f"{name} must be None or a callable (scores (M, K), y (M,)) -> (M,), not {rule!r}"
        )
    return rule or default


def _clean(search: _Search) -> _Found:
    """The clean images as first candidates."""
    value, hit = _judge(search, search.call.scores, search.call.y)
    position = torch.full_like(search.call.y, -1)
    return _Found(
        position,
        search.call.x.new_zeros(search.call.x.shape[:2]),
        value,
        hit,
        torch.ones_like(position),
    )


def _misclassified(scores: Tensor, y: Tensor) -> Tensor:
    return margin(scores, y) < 0


def _judge(search: _Search, scores: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Value, made finite, and success (M,) of each row."""
    value, hit = search.objective(scores, y), search.success(scores, y)
    if not isinstance(hit, Tensor) or hit.dtype != torch.bool or hit.shape != y.shape:
        given = (
            f"{hit.dtype} of shape {tuple(hit.shape)}"
            if isinstance(hit, Tensor)
            else type(hit).__name__
        )
        raise ValueError(
            f"the success rule must return one bool a row, shape {tuple(y.shape)}; it returned {given}"
        )
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.shape != y.shape:
        given = (
            f"{value.dtype} of shape {tuple(value.shape)}"
            if isinstance(value, Tensor)
            else type(value).__name__
        )
        raise ValueError(
            f"the objective must return one floating value a row, shape {tuple(y.shape)}; it returned {given}"
        )
    return value.to(search.call.x.dtype).nan_to_num(nan=torch.finfo(search.call.x.dtype).max), hit


def _first_population(population: int, x: Tensor, stream: torch.Generator) -> Tensor:
    """(P, 2 + C) points of the unit cube: uniform positions, normal colours."""
    where = _uniform((population, 2), stream, x)
    normal = torch.randn(
        (population, x.shape[1]), generator=stream, dtype=x.dtype, device=stream.device
    ).to(x.device)
    return torch.cat([where, (normal * _SPREAD + _MEAN).clamp(0, 1)], dim=1)


def _uniform(shape: tuple[int, ...], stream: torch.Generator, x: Tensor) -> Tensor:
    return torch.rand(shape, generator=stream, dtype=x.dtype, device=stream.device).to(x.device)


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
    factors: tuple[float, float],
    recombination: float,
    stream: torch.Generator,
    x: Tensor,
) -> Iterator[_Plan]:
    points = population * dimensions
    for first in range(0, generations, 10):
        # One draw a generation, so that more generations begin like fewer; ten at a time, to spare
        # calls.
        drawn = torch.stack(
            [
                _uniform((1 + 4 * population + 2 * points,), stream, x)
                for _ in range(min(10, generations - first))
            ]
        )
        factor, partners, always, crossed, anew = drawn.split(
            [1, 3 * population, population, points, points], dim=1
        )
        factor = factors[0] + (factors[1] - factors[0]) * factor[:, 0]
        always = _index(always, dimensions)[..., None] == torch.arange(dimensions, device=x.device)
        crossed = (crossed.view(-1, population, dimensions) < recombination) | always
        a, b, c = _others(partners.view(-1, 3, population))
        for which in range(len(drawn)):
            yield _Plan(
                factor[which],
                (a[which], b[which], c[which]),
                crossed[which],
                anew[which].view(population, dimensions),
            )


def _index(uniform: Tensor, count: int) -> Tensor:
    """Uniform numbers in [0, 1) as whole numbers below ``count``."""
    return (
        (uniform * count).long().clamp_max(count - 1)
    )  # just below 1, the product may round up to count


def _others(uniform: Tensor) -> list[Tensor]:
    """For each of P members three others, distinct, from uniform numbers (G, 3, P): each (G, P)."""
    generations, _, count = uniform.shape
    taken = [torch.arange(count, device=uniform.device).expand(generations, -1)]
    for which in range(3):
        drawn = _index(uniform[:, which], count - len(taken))
        for other in torch.stack(taken).sort(0).values:
            drawn = drawn + (drawn >= other)
        taken.append(drawn)
    return taken[1:]


def _trial(members: Tensor, values: Tensor, strategy: str, plan: _Plan) -> Tensor:
    """One trial (B, P, D) for each of the members (B, P, D), whose values are (B, P)."""
    a, b, c = plan.partners
    best = values.argmin(1)[:, None, None].expand(-1, 1, members.shape[2])
    base = members.gather(1, best) if strategy == "best1bin" else members[:, c]
    trial = torch.where(plan.crossed, base + plan.factor * (members[:, a] - members[:, b]), members)
    return torch.where((trial < 0) | (trial > 1), plan.anew, trial)


def _rounded(colour: Tensor, levels: int) -> Tensor:
    return (colour * levels).floor().clamp_max(levels - 1) / (levels - 1)


def _decode(points: Tensor, shape: torch.Size, levels: int) -> tuple[Tensor, Tensor]:
    """Points (B, P, 2 + C) of the unit cube as flat positions (B, P) and colours (B, P, C) for
    images of ``shape`` (N, C, H, W)."""
    _, _, height, width = shape
    return _index(points[..., 0], height) * width + _index(points[..., 1], width), _rounded(
        points[..., 2:], levels
    )


@dataclass(frozen=True)
class _Pass:
    """The candidates of one forward pass: the same columns of one or several images, so that many
    candidates are one image's alone."""

    images: Tensor
    """(n, C, H * W)"""
    position: Tensor
    """(n, width)"""
    colour: Tensor
    """(n, width, C)"""
    place: Tensor
    """(real,) the rows of the table of candidates that the first images are"""
    start: int
    """The column of the table that the first candidate is."""

    def pictures(self) -> Tensor:
        """(n, width, C, H * W) the images, once for each candidate: a view."""
        return self.images[:, None].expand(-1, self.position.shape[1], -1, -1)

    def pixels(self) -> Tensor:
        """(n, width, C, 1) where the candidates' pixels are."""
        return self.position[:, :, None, None].expand(-1, -1, self.images.shape[1], 1)

    def write(self, table: Tensor, values: Tensor) -> None:
        """Put the pass's values (n * width, ...) in their places of the table (B, Q, ...)."""
        own = values.view(*self.position.shape, *values.shape[1:])
        columns = slice(self.start, self.start + own.shape[1])
        table[self.place, columns] = own[: len(self.place), : table.shape[1] - self.start]


def _passes(search: _Search, index: Tensor, position: Tensor, colour: Tensor) -> Iterator[_Pass]:
    """Cut the candidates (B, Q) of the images ``index`` (B,) into forward passes of a few fixed
    sizes."""
    flat, count = search.call.x.flatten(2), position.shape[1]
    width = even(count, search.rows)
    short = -count % width  # the last columns are filled up with the first
    position, colour = (
        torch.cat([position, position[:, :short]], 1),
        torch.cat([colour, colour[:, :short]], 1),
    )
    images = max(1, search.rows // width)
    for place, real in packed(
        torch.arange(len(index), device=index.device), images, -(-LEAST_ROWS // width)
    ):
        own, where, paint = flat[index[place]], position[place], colour[place]
        for start in range(0, count, width):
            columns = slice(start, start + width)
            yield _Pass(own, where[:, columns], paint[:, columns], place[:real], start)


def _evaluate(
    search: _Search, index: Tensor, position: Tensor, colour: Tensor
) -> tuple[Tensor, Tensor]:
    """Values and successes (B, Q) of the candidates ``position`` (B, Q), ``colour`` (B, Q, C) of
    the images ``index`` (B,)."""
    call, buffer = search.call, None
    scores = call.scores.new_empty((*position.shape, call.scores.shape[1]))
    with torch.inference_mode():
        for part in _passes(search, index, position, colour):
            pictures = part.pictures()
            if buffer is None or buffer.shape != pictures.shape:
                buffer = pictures.new_empty(pictures.shape)
            buffer.copy_(pictures).scatter_(3, part.pixels(), part.colour[..., None])
            part.write(scores, call.model(buffer.view(-1, *call.x.shape[1:])))
    value, hit = _judge(
        search, scores.flatten(0, 1), call.y[index].repeat_interleave(position.shape[1])
    )
    return value.view(position.shape), hit.view(position.shape)


def _slopes(
    search: _Search, index: Tensor, position: Tensor, colour: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`_evaluate`, and the gradients (B, Q, C) of the values with respect to the colours."""
    call = search.call
    values, hits, slopes = (
        colour.new_empty(position.shape),
        torch.empty_like(position, dtype=torch.bool),
        torch.empty_like(colour),
    )
    for part in _passes(search, index, position, colour):
        y = call.y[index[part.place]]
        y = torch.cat([y, y[:1].expand(len(part.images) - len(y))]).repeat_interleave(
            part.position.shape[1]
        )
        with torch.enable_grad():
            leaf = part.colour.clone().requires_grad_()
            painted = part.pictures().scatter(3, part.pixels(), leaf[..., None])
            value, hit = _judge(search, call.model(painted.reshape(-1, *call.x.shape[1:])), y)
            slope = (
                torch.autograd.grad(value.sum(), leaf, allow_unused=True)[0]
                if value.requires_grad
                else None
            )
        if slope is None:
            raise ValueError(
                "the objective does not depend differentiably on the colour, so there is no gradient to follow: use ascent=0"
            )
        part.write(values, value.detach())
        part.write(hits, hit)
        part.write(slopes, slope.flatten(0, 1))
    return values, hits, slopes


def _note(
    found: _Found, index: Tensor, position: Tensor, colour: Tensor, value: Tensor, hit: Tensor
) -> None:
    """Keep, for each undecided image of ``index``, the best of its candidates (B, Q): of the hits
    if there are any, else of all."""
    done, success = found.decided[index], hit.any(1)
    best = torch.where(hit | ~success[:, None], value, torch.inf).argmin(1, keepdim=True)
    reached = value.gather(1, best)[:, 0]
    taken = (success | (reached < found.value[index])) & ~done
    found.value[index] = torch.where(taken, reached, found.value[index])
    found.position[index] = torch.where(
        taken, position.gather(1, best)[:, 0], found.position[index]
    )
    chosen = colour.gather(1, best[..., None].expand(-1, 1, colour.shape[2]))[:, 0]
    found.colour[index] = torch.where(taken[:, None], chosen, found.colour[index])
    found.queries[index] += position.shape[1] * ~done
    found.decided[index] = done | success


def _climb_colours(
    search: _Search, found: _Found, position: Tensor, steps: int, levels: int
) -> None:
    """Refine the colours at some positions (N, Q) by signed steps from mid-grey, which end at
    nothing."""
    alive = found.undecided()
    here = position[alive]
    colour = torch.full(
        (*here.shape, search.call.x.shape[1]), 0.5, dtype=search.call.x.dtype, device=here.device
    )
    for step in range(steps):
        paint = _rounded(colour, levels)
        value, hit, slope = _slopes(search, alive, here, paint)
        _note(found, alive, here, paint, value, hit)
        colour = (colour - 0.25 * (1 - step / steps) * slope.sign()).clamp(0, 1)


def _judged(search: _Search, found: _Found) -> AttackResult:
    flat = search.call.x.flatten(2)
    where = found.position.clamp_min(0)[:, None, None].expand(-1, flat.shape[1], 1)
    pixel = torch.where(
        (found.position >= 0)[:, None, None], found.colour[..., None], flat.gather(2, where)
    )
    x_adv = flat.scatter(2, where, pixel).view_as(search.call.x)
    scores = score(search.call.model, x_adv, search.call.rows)
    return AttackResult(
        x_adv,
        _judge(search, scores, search.call.y)[1],
        margin(scores, search.call.y),
        found.queries + 1,
    )
