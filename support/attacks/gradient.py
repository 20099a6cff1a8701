"""Attacks in the maximum norm that follow the sign of a gradient: FGSM, R+FGSM, BIM, MI-FGSM and
PGD."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from support.attacks.base import (
    AttackResult,
    Call,
    Model,
    check,
    fast_rows,
    interval,
    margin,
    packed,
    per_image,
    prepare,
    radii,
    random_stream,
    score,
    whole_number,
)

REPACK_EVERY = 10
"""Steps between two packings of the undecided images: the only moments at which the host waits for
the device."""

Loss = str | Callable[[Model, Tensor, Tensor], Tensor]
Slope = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class _Goal:
    """What is climbed and what is judged; ``y`` are the labels of the call, ``rival`` the classes
    that :func:`pgd_targets` aims at."""

    slope: Callable[[Model, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    """``(model, leaf, y, rival) -> (gradient of what is climbed, shaped like leaf, or None; scores
    (n, K))``."""
    margin: Callable[[Tensor, Tensor], Tensor]
    """``(scores, y) -> (n,)``; below zero is a success."""
    passes: int
    """Model passes that one step costs an image."""


@dataclass(frozen=True)
class _Found:
    """The best iterate of every image so far: its first success, else its least margin. The tensors
    are updated in place."""

    x: Tensor
    margin: Tensor
    queries: Tensor

    def take(self, index: Tensor) -> "_Found":
        """A copy of some rows."""
        return _Found(
            *(whole.index_select(0, index) for whole in (self.x, self.margin, self.queries))
        )

    def put(self, index: Tensor, part: "_Found") -> None:
        """Write the first rows of a copy back."""
        for whole, rows in (
            (self.x, part.x),
            (self.margin, part.margin),
            (self.queries, part.queries),
        ):
            whole.index_copy_(0, index, rows[: len(index)])

    def note(self, x: Tensor, margins: Tensor, passes: int) -> None:
        """One more iterate, seen at the cost of some passes; NaN margins never count."""
        undecided = self.margin >= 0
        self.queries.add_(undecided, alpha=passes)
        improved = undecided.logical_and_(margins < self.margin)
        self.x.lerp_(
            x, per_image(improved, x).to(x.dtype)
        )  # by a weight of 0 or 1 lerp is exact, and it is 10 times faster than where
        torch.where(improved, margins, self.margin, out=self.margin)


@dataclass(frozen=True)
class _Ball:
    """The allowed box of every image, the length of a step, and which boxes hold more than the
    image."""

    low: Tensor
    high: Tensor
    step: Tensor
    open: Tensor


@torch.inference_mode(False)
@torch.no_grad()
def fgsm(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    *,
    targeted: bool = False,
    loss: Loss = "ce",
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Fast gradient sign method: one step to the corner of the eps-ball that the loss gradient
    points to.

    ``x_adv = x + eps * sign(grad loss)`` (Goodfellow, Shlens and Szegedy 2015, section 4), cut to
    [0,1]; a pixel whose derivative is exactly zero stays. It is exact for a linear model with two
    classes. The step is taken for every image, also where the clean one is misclassified, as in the
    papers' curves of accuracy against eps. Used in the chapter "Softmax is k-means" (``fig2``).

    Args:
        model: maps (n, ...) images in [0,1] to (n, K) log-scores.
        x: (N, ...) images in [0,1], float32 or float64.
        y: (N,) int64 true labels, or the wanted ones if ``targeted``.
        eps: radius in the maximum norm, in units of [0,1]; one number or (N,).
        targeted: lower the loss of the wanted label instead of raising that of the true one.
        loss: "ce" (cross-entropy of the log-scores; its gradient is followed without the factor
            that saturates), "margin" (best other score minus the label's), or a callable ``(model,
            x, y) -> (n,)``, whose gradient is used as it is.
        generator: unused, nothing is drawn; there so that all attacks are called alike.
        batch_size: at most so many images in one forward pass; ``None`` picks what is fast on the
            device.

    Returns:
        The result; ``queries`` is 3 (4 with a callable loss).

    Raises:
        ValueError: a wrong input, or a model whose scores do not depend differentiably on the
            image.
    """
    check(model, x, y, batch_size=batch_size, generator=generator)
    goal, radius = _goal(loss, targeted), radii("eps", eps, x)
    call = prepare(model, x, y, batch_size or fast_rows(x, model=model, backward=True))
    low, high = interval(call.x, radius)
    x_adv = call.x.clone()
    for index, real in packed(torch.arange(len(x_adv), device=x_adv.device), call.rows):
        direction, _ = _direction(call.model, goal, call.x[index], call.y[index], call.y[index])
        corner = torch.where(
            direction > 0, high[index], torch.where(direction < 0, low[index], call.x[index])
        )
        x_adv[index[:real]] = corner[:real]
    return _judged(call, goal, x_adv, torch.full_like(call.y, 1 + goal.passes))


@torch.inference_mode(False)
@torch.no_grad()
def rfgsm(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    *,
    random_share: float = 0.5,
    targeted: bool = False,
    loss: Loss = "ce",
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """R+FGSM: a random signed step of ``random_share * eps``, then a signed gradient step with the
    rest (Tramer et al. 2018, section 4.1).

    ``x' = x + a sign(N(0, I))``, ``x_adv = x' + (eps - a) sign(grad loss(x'))``, cut to [0,1]; the
    second step is always taken, as in :func:`fgsm`. Used in the chapter "Persistence"
    (``attack-ranking``).

    Args:
        model: maps (n, ...) images in [0,1] to (n, K) log-scores.
        x: (N, ...) images in [0,1], float32 or float64.
        y: (N,) int64 true labels, or the wanted ones if ``targeted``.
        eps: radius in the maximum norm, in units of [0,1]; one number or (N,).
        random_share: a / eps, between 0 and 1; with 0 it is :func:`fgsm`.
        targeted: lower the loss of the wanted label instead of raising that of the true one.
        loss: "ce", "margin" or a callable, as in :func:`fgsm`.
        generator: source of the random step, one draw of an image's shape for all images. ``None``:
            a fresh one of fixed seed.
        batch_size: at most so many images in one forward pass; ``None`` picks what is fast on the
            device.

    Returns:
        The result; ``queries`` is 3 (4 with a callable loss).

    Raises:
        ValueError: a wrong input, or a model whose scores do not depend differentiably on the
            image.
    """
    check(model, x, y, batch_size=batch_size, generator=generator)
    if (
        isinstance(random_share, bool)
        or not isinstance(random_share, int | float)
        or not 0 <= random_share <= 1
    ):
        raise ValueError(
            f"random_share must be a number from 0 to 1, the random step's share of eps; given is {random_share!r}"
        )
    goal, radius = _goal(loss, targeted), radii("eps", eps, x)
    call = prepare(model, x, y, batch_size or fast_rows(x, model=model, backward=True))
    stream = random_stream(generator)
    noise = (
        torch.randn(x.shape[1:], generator=stream, dtype=x.dtype, device=stream.device)
        .to(x.device)
        .sign()
    )
    first = per_image(radius * random_share, call.x).to(x.dtype)
    ball = _ball(call, radius, radius * (1 - random_share))
    x_adv = torch.clamp(call.x + first * noise, ball.low, ball.high)
    for index, real in packed(torch.arange(len(x_adv), device=x_adv.device), call.rows):
        direction, _ = _direction(call.model, goal, x_adv[index], call.y[index], call.y[index])
        corner = torch.clamp(
            x_adv[index] + ball.step[index] * direction, ball.low[index], ball.high[index]
        )
        x_adv[index[:real]] = corner[:real]
    return _judged(call, goal, x_adv, torch.full_like(call.y, 1 + goal.passes))


@torch.inference_mode(False)
@torch.no_grad()
def bim(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    *,
    steps: int = 10,
    step_size: float | Tensor | None = None,
    targeted: bool = False,
    loss: Loss = "ce",
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Basic iterative method: signed steps from the image itself, cut to the eps-ball and to [0,1]
    after each.

    ``x_{t+1} = clip(x_t + step_size * sign(grad loss(x_t)))`` around ``x`` (Kurakin, Goodfellow and
    Bengio 2017, section 2.2). It differs from the papers' loops in what it returns: the first
    success, else the iterate of least margin, where they return the last iterate. Used in the
    chapter "Softmax is k-means".

    Args:
        model: maps (n, ...) images in [0,1] to (n, K) log-scores.
        x: (N, ...) images in [0,1], float32 or float64.
        y: (N,) int64 true labels, or the wanted ones if ``targeted``.
        eps: radius in the maximum norm, in units of [0,1]; one number or (N,).
        steps: number of steps T.
        step_size: length of a step in units of [0,1]; one number or (N,). Default ``eps / steps``,
            as wang2022 has it.
        targeted: lower the loss of the wanted label instead of raising that of the true one.
        loss: "ce", "margin" or a callable, as in :func:`fgsm`.
        generator: unused, nothing is drawn.
        batch_size: at most so many images in one forward pass; ``None`` picks what is fast on the
            device.

    Returns:
        The result; an image that holds out costs ``steps + 3`` queries (``2 * steps + 3`` with a
        callable loss).

    Raises:
        ValueError: a wrong input, or a model whose scores do not depend differentiably on the
            image.
    """
    check(model, x, y, batch_size=batch_size, generator=generator)
    whole_number("steps", steps, 1)
    goal, radius = _goal(loss, targeted), radii("eps", eps, x)
    step = _step(step_size, x, radius, 1 / steps)
    call = prepare(model, x, y, batch_size or fast_rows(x, model=model, backward=True))
    ball, found = _ball(call, radius, step), _clean(call, goal)
    _ascend(call, goal, ball, found, call.x, call.y, steps)
    return _judged(call, goal, found.x, found.queries)


@torch.inference_mode(False)
@torch.no_grad()
def mifgsm(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    *,
    steps: int = 10,
    step_size: float | Tensor | None = None,
    decay: float = 1.0,
    targeted: bool = False,
    loss: Loss = "ce",
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """MI-FGSM: :func:`bim` along a running sum of gradients, each divided by its l1 norm (Dong et
    al. 2018, Algorithm 1).

    ``g_{t+1} = decay * g_t + grad / |grad|_1``, then ``x_{t+1} = clip(x_t + step_size *
    sign(g_{t+1}))``. With ``decay`` 0 it is :func:`bim`. Used in the chapter "Persistence"
    (``attack-ranking``).

    Args:
        model: maps (n, ...) images in [0,1] to (n, K) log-scores.
        x: (N, ...) images in [0,1], float32 or float64.
        y: (N,) int64 true labels, or the wanted ones if ``targeted``.
        eps: radius in the maximum norm, in units of [0,1]; one number or (N,).
        steps: number of steps T.
        step_size: length of a step in units of [0,1]; one number or (N,). Default ``eps / steps``,
            the paper's.
        decay: of the running sum, at least 0; the paper's is 1.
        targeted: lower the loss of the wanted label instead of raising that of the true one.
        loss: "ce", "margin" or a callable, as in :func:`fgsm`.
        generator: unused, nothing is drawn.
        batch_size: at most so many images in one forward pass; ``None`` picks what is fast on the
            device.

    Returns:
        The result; an image that holds out costs ``steps + 3`` queries (``2 * steps + 3`` with a
        callable loss).

    Raises:
        ValueError: a wrong input, or a model whose scores do not depend differentiably on the
            image.
    """
    check(model, x, y, batch_size=batch_size, generator=generator)
    whole_number("steps", steps, 1)
    if (
        isinstance(decay, bool)
        or not isinstance(decay, int | float)
        or not 0 <= decay < float("inf")
    ):
        raise ValueError(f"decay must be a finite number of at least 0; given is {decay!r}")
    goal, radius = _goal(loss, targeted), radii("eps", eps, x)
    step = _step(step_size, x, radius, 1 / steps)
    call = prepare(model, x, y, batch_size or fast_rows(x, model=model, backward=True))
    ball, found = _ball(call, radius, step), _clean(call, goal)
    _ascend_with_momentum(call, goal, ball, found, steps, decay)
    return _judged(call, goal, found.x, found.queries)


@torch.inference_mode(False)
@torch.no_grad()
def pgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    *,
    steps: int = 20,
    step_size: float | Tensor | None = None,
    restarts: int = 1,
    targeted: bool = False,
    loss: Loss = "ce",
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Projected gradient descent in the maximum norm, with uniform random starts; restarts are
    merged by success.

    The steps are :func:`bim`'s; each restart begins at ``x + eps * u``, cut to [0,1], with ``u``
    uniform in [-1, 1] (Madry et al. 2018, section 2.1), one ``u`` for all images. An image that one
    restart breaks is spared the next ones. With the same generator seed, more restarts repeat the
    smaller run and go on, and so do more steps of the same given ``step_size``: no success is lost,
        and no margin of an image that holds out grows. Used in the chapter "Softmax is k-means",
        second question.

    Args:
        model: maps (n, ...) images in [0,1] to (n, K) log-scores.
        x: (N, ...) images in [0,1], float32 or float64.
        y: (N,) int64 true labels, or the wanted ones if ``targeted``.
        eps: radius in the maximum norm, in units of [0,1]; one number or (N,).
        steps: steps of each restart.
        step_size: length of a step in units of [0,1]; one number or (N,). Default ``2.5 * eps /
            steps``: any point of the ball can be reached from any start, with room to turn.
        restarts: number of random starts.
        targeted: lower the loss of the wanted label instead of raising that of the true one.
        loss: "ce", "margin" or a callable, as in :func:`fgsm`.
        generator: source of the starts: ``restarts`` draws of an image's shape. ``None``: a fresh
            one of fixed seed.
        batch_size: at most so many images in one forward pass; ``None`` picks what is fast on the
            device.

    Returns:
        The result; an image that holds out costs ``restarts * (steps + 1) + 2`` queries (``2 *
        steps + 1`` with a callable loss).

    Raises:
        ValueError: a wrong input, or a model whose scores do not depend differentiably on the
            image.
    """
    check(model, x, y, batch_size=batch_size, generator=generator)
    whole_number("steps", steps, 1)
    whole_number("restarts", restarts, 1)
    goal, radius = _goal(loss, targeted), radii("eps", eps, x)
    step = _step(step_size, x, radius, 2.5 / steps)
    call = prepare(model, x, y, batch_size or fast_rows(x, model=model, backward=True))
    ball, found, stream = _ball(call, radius, step), _clean(call, goal), random_stream(generator)
    for _ in range(restarts):
        _ascend(call, goal, ball, found, _start(call, ball, radius, stream), call.y, steps)
    return _judged(call, goal, found.x, found.queries)


@torch.inference_mode(False)
@torch.no_grad()
def pgd_targets(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    *,
    steps: int = 20,
    step_size: float | Tensor | None = None,
    restarts: int = 1,
    classes: int | None = None,
    loss: Loss = "margin",
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """PGD towards every other class in turn: the targeted sweep, merged by success.

    The rivals of an image are tried from the best clean score down. Any misclassification on the
    way is a success, whichever class wins. Where :func:`pgd` follows the rival that leads, the
    sweep also finds the ones that lead only later, as AutoAttack's targeted part does (Croce and
    Hein 2020, section 4.2). Used in the chapter "Softmax is k-means", second question.

    Args:
        model: maps (n, ...) images in [0,1] to (n, K) log-scores.
        x: (N, ...) images in [0,1], float32 or float64.
        y: (N,) int64 true labels.
        eps: radius in the maximum norm, in units of [0,1]; one number or (N,).
        steps: steps towards each class.
        step_size: length of a step in units of [0,1]; one number or (N,). Default ``2.5 * eps /
            steps``.
        restarts: random starts; each is used for all classes.
        classes: how many rivals are tried; ``None``: all K - 1.
        loss: "margin" climbs the rival's score minus the true one's, "ce" lowers the rival's
            cross-entropy (without its saturation), a callable ``(model, x, rival) -> (n,)`` is
            lowered.
        generator: source of the starts: ``restarts`` draws of an image's shape. ``None``: a fresh
            one of fixed seed.
        batch_size: at most so many images in one forward pass; ``None`` picks what is fast on the
            device.

    Returns:
        The result; an image that holds out costs ``restarts * classes * (steps + 1) + 2`` queries
        (``2 * steps + 1`` with a callable loss).

    Raises:
        ValueError: a wrong input, or a model whose scores do not depend differentiably on the
            image.
    """
    check(model, x, y, batch_size=batch_size, generator=generator)
    whole_number("steps", steps, 1)
    whole_number("restarts", restarts, 1)
    if classes is not None:
        whole_number("classes", classes, 1)
    goal, radius = _sweep_goal(loss), radii("eps", eps, x)
    step = _step(step_size, x, radius, 2.5 / steps)
    call = prepare(model, x, y, batch_size or fast_rows(x, model=model, backward=True))
    ball, found, stream = _ball(call, radius, step), _clean(call, goal), random_stream(generator)
    ranked = call.scores.scatter(1, call.y[:, None], -torch.inf).argsort(
        dim=1, descending=True, stable=True
    )
    rivals = ranked[ranked != call.y[:, None]].view(len(ranked), -1)[:, :classes]
    for _ in range(restarts):
        start = _start(call, ball, radius, stream)
        for rival in rivals.unbind(1):
            _ascend(call, goal, ball, found, start, rival, steps)
    return _judged(call, goal, found.x, found.queries)


def _goal(loss: Loss, targeted: bool) -> _Goal:
    if not isinstance(targeted, bool):
        raise ValueError(f"targeted must be True or False, not {targeted!r}")
    sign = -1 if targeted else 1
    named = {
        "ce": lambda scores, y, rival: sign * _ce_slope(scores, y),
        "margin": lambda scores, y, rival: sign * _margin_slope(scores, y),
    }
    return _objective(loss, named, sign, lambda scores, y: sign * margin(scores, y))


def _sweep_goal(loss: Loss) -> _Goal:
    named = {
        "ce": lambda scores, y, rival: -_ce_slope(scores, rival),
        "margin": lambda scores, y, rival: _difference(scores, rival, y),
    }
    return _objective(loss, named, -1, margin)


def _objective(
    loss: Loss, named: dict[str, Slope], sign: int, judged: Callable[[Tensor, Tensor], Tensor]
) -> _Goal:
    """A named loss by its gradient with respect to the scores, or a given one of the class
    ``rival``, raised (sign 1) or lowered (-1)."""
    if isinstance(loss, str) and loss in named:

        def slope(
            model: Model, leaf: Tensor, y: Tensor, rival: Tensor
        ) -> tuple[Tensor | None, Tensor]:
            scores = model(leaf)
            seen = scores.detach()
            return _gradient(scores, leaf, named[loss](seen, y, rival)), seen

        return _Goal(slope, judged, passes=1)
    if not callable(loss):
        raise ValueError(
            f'loss must be "ce", "margin" or a callable (model, x, y) -> (n,), not {loss!r}'
        )

    def slope_given(
        model: Model, leaf: Tensor, y: Tensor, rival: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        values = loss(model, leaf, rival)
        if not isinstance(values, Tensor) or values.shape != y.shape:
            given = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"loss must return one value an image, shape {tuple(y.shape)}; it returned {given}"
            )
        with torch.no_grad():
            scores = model(leaf)  # the loss keeps the scores that it saw to itself
        return _gradient(values, leaf, torch.full_like(values, sign)), scores

    return _Goal(slope_given, judged, passes=2)


def _ce_slope(scores: Tensor, y: Tensor) -> Tensor:
    """Direction (n, K) in score space that raises the cross-entropy of ``y`` fastest: softmax of
    the other scores, minus 1 at ``y``.

    It is the gradient of the log-odds ``logsumexp_{j != y} s_j - s_y``. Cross-entropy is softplus
    of the log-odds, its gradient this one times ``1 - p_y``: a factor that a signed step does not
    see, and that underflows to zero where the model is sure of itself.
    """
    own = y[:, None]
    return scores.scatter(1, own, -torch.inf).softmax(1).scatter_(1, own, -1)


def _margin_slope(scores: Tensor, y: Tensor) -> Tensor:
    """Gradient (n, K) of the best other score minus that of ``y``; the first one, where several are
    best."""
    return _difference(scores, scores.scatter(1, y[:, None], -torch.inf).argmax(1), y)


def _difference(scores: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Gradient (n, K) of the score of class ``up`` minus that of class ``down``."""
    return torch.zeros_like(scores).scatter_(1, up[:, None], 1).scatter_(1, down[:, None], -1)


def _gradient(outputs: Tensor, leaf: Tensor, weights: Tensor) -> Tensor | None:
    return (
        torch.autograd.grad(outputs, leaf, weights, allow_unused=True)[0]
        if outputs.requires_grad
        else None
    )


def _step(value: float | Tensor | None, x: Tensor, radius: Tensor, share: float) -> Tensor:
    return radius * share if value is None else radii("step_size", value, x, positive=True)


def _ball(call: Call, radius: Tensor, step: Tensor) -> _Ball:
    return _Ball(*interval(call.x, radius), per_image(step, call.x).to(call.x.dtype), radius > 0)


def _start(call: Call, ball: _Ball, radius: Tensor, stream: torch.Generator) -> Tensor:
    noise = torch.rand(
        call.x.shape[1:], generator=stream, dtype=call.x.dtype, device=stream.device
    ).to(call.x.device)
    return torch.clamp(
        call.x + per_image(radius, call.x).to(call.x.dtype) * (2 * noise - 1), ball.low, ball.high
    )


def _clean(call: Call, goal: _Goal) -> _Found:
    """The clean images as first iterates. A margin between two scores of minus infinity is no
    number: it counts as the largest."""
    clean = goal.margin(call.scores, call.y)
    return _Found(
        call.x.clone(), torch.where(clean.isnan(), torch.inf, clean), torch.ones_like(call.y)
    )


def _direction(
    model: Model, goal: _Goal, x: Tensor, y: Tensor, rival: Tensor
) -> tuple[Tensor, Tensor]:
    """The sign of the gradient at ``x``, zero where the derivative is zero or (as torch has it) no
    number, and the scores there."""
    with torch.enable_grad():
        slope, scores = goal.slope(model, x.detach().requires_grad_(), y, rival)
    if slope is None:
        raise ValueError(
            "the loss does not depend differentiably on the image, so no gradient is there to follow: one_pixel needs none"
        )
    return slope.sign(), scores


def _ascend(
    call: Call, goal: _Goal, ball: _Ball, found: _Found, start: Tensor, rival: Tensor, steps: int
) -> None:
    """Climb from ``start`` (N, ...) with all undecided images, and note the best iterates in
    ``found``."""
    alive = (ball.open & (found.margin >= 0)).nonzero()[:, 0]
    at = start.index_select(0, alive)
    for done in range(0, steps, REPACK_EVERY):
        for place, real in packed(torch.arange(len(alive), device=alive.device), call.rows):
            index = alive[place]
            here, y, wanted = at.index_select(0, place), call.y[index], rival[index]
            low, high, step = (
                ends.index_select(0, index) for ends in (ball.low, ball.high, ball.step)
            )
            best = found.take(index)
            for _ in range(min(REPACK_EVERY, steps - done)):
                direction, scores = _direction(call.model, goal, here, y, wanted)
                best.note(here, goal.margin(scores, y), goal.passes)
                here.addcmul_(direction, step).clamp_(low, high)
            at[place[:real]] = here[:real]
            found.put(index[:real], best)
        left = (found.margin[alive] >= 0).nonzero()[:, 0]
        alive, at = alive[left], at.index_select(0, left)
    if len(alive):
        best = found.take(alive)
        best.note(at, goal.margin(score(call.model, at, call.rows), call.y[alive]), 1)
        found.put(alive, best)


def _ascend_with_momentum(
    call: Call, goal: _Goal, ball: _Ball, found: _Found, steps: int, decay: float
) -> None:
    """Climb from the clean images along the sign of a running sum of normalised gradients. The
    steps are few: nobody leaves on the way."""
    for index, real in packed((ball.open & (found.margin >= 0)).nonzero()[:, 0], call.rows):
        here, y, best = call.x[index], call.y[index], found.take(index)
        low, high, step = (ends.index_select(0, index) for ends in (ball.low, ball.high, ball.step))
        carried = torch.zeros_like(here)
        for _ in range(steps):
            with torch.enable_grad():
                slope, scores = goal.slope(call.model, here.detach().requires_grad_(), y, y)
            if slope is None:
                raise ValueError(
                    "the loss does not depend differentiably on the image, so no gradient is there to follow"
                )
            best.note(here, goal.margin(scores, y), goal.passes)
            slope = slope.nan_to_num(0, 0, 0)
            length = per_image(slope.abs().flatten(1).sum(1), slope).clamp_min(
                torch.finfo(slope.dtype).tiny
            )
            carried.mul_(decay).addcdiv_(slope, length)
            here.addcmul_(carried.sign(), step).clamp_(low, high)
        best.note(here, goal.margin(score(call.model, here, call.rows), y), 1)
        found.put(index[:real], best)


def _judged(call: Call, goal: _Goal, x_adv: Tensor, queries: Tensor) -> AttackResult:
    margins = goal.margin(score(call.model, x_adv, call.rows), call.y)
    return AttackResult(x_adv, margins < 0, margins, queries + 1)
