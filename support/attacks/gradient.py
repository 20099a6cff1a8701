"""Attacks in the maximum norm that follow the sign of a gradient.

:func:`pgd` is the whole of it: it sets out from random points, :func:`climb` goes on step by step
and keeps the best, :func:`move` makes one step. :func:`bim` sets out from the image itself,
:func:`mifgsm` moves along a running sum of gradients, :func:`pgd_targets` climbs towards every
other class, and :func:`fgsm` and :func:`rfgsm` move once.

All take the model, the images ``x``, the labels ``y``, the radius ``eps``, ``targeted``, ``loss``
and ``batch_size`` as :func:`pgd` has them, and raise a ``ValueError`` as it does.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from support.attacks.base import (
    AttackResult,
    Call,
    Model,
    Rows,
    attack,
    check,
    gradient,
    interval,
    judged,
    margin,
    normal,
    packed,
    per_image,
    prepare,
    rivals,
    score,
    uniform,
)
from support.common.arguments import described, flag, number, radii, random_stream, whole_number

REPACK_EVERY = 10
"""Steps between two packings of the undecided images: the only moments at which the host waits for
the device."""

Loss = str | Callable[[Model, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Goal:
    """What is climbed, and what is judged: by default away from the label ``y``, with ``targeted``
    towards it, in a ``sweep`` towards another class, with any error a success."""

    loss: Loss
    targeted: bool = False
    sweep: bool = False

    def __post_init__(self) -> None:
        flag("targeted", self.targeted)
        if not callable(self.loss) and self.loss not in ("ce", "margin"):
            raise ValueError(
                'loss must be "ce", "margin" or a callable (model, x, y) -> (n,); '
                f"{self.loss!r} was given"
            )

    @property
    def passes(self) -> int:
        """Model passes that one step costs an image."""
        return 2 if callable(self.loss) else 1

    @property
    def sign(self) -> int:
        """Of the margin: below zero is a success."""
        return -1 if self.targeted else 1

    def slope(self, model: Model, x: Tensor, y: Tensor, aim: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient at ``x`` of what is climbed, and the scores (n, K) there; ``aim`` is the
        class that the loss is of."""
        sign = -1 if self.targeted or self.sweep else 1
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            if callable(self.loss):
                values = self.loss(model, leaf.clone(), aim)
                if not isinstance(values, Tensor) or values.shape != y.shape:
                    raise ValueError(
                        f"loss must return one value an image, shape {tuple(y.shape)}; it returned "
                        f"{described(values)}"
                    )
                with torch.no_grad():
                    scores = model(leaf.clone())  # the loss keeps the scores that it saw to itself
                return gradient(values, leaf, torch.full_like(values, sign)), scores
            outputs = model(leaf.clone())  # the model may write where it reads
            scores = outputs.detach()
            if self.loss == "ce":
                weights = sign * log_odds_slope(scores, aim)
            elif self.sweep:
                weights = difference_slope(scores, aim, y)
            else:
                rival = scores.scatter(1, y[:, None], -torch.inf).argmax(1)
                weights = sign * difference_slope(scores, rival, y)
            return gradient(outputs, leaf, weights), scores


def log_odds_slope(scores: Tensor, y: Tensor) -> Tensor:
    """Direction (n, K) in score space that raises the cross-entropy of ``y`` fastest: softmax of
    the other scores, minus 1 at ``y``.

    It is the gradient of the log-odds ``logsumexp_{j != y} s_j - s_y``. Cross-entropy is softplus
    of the log-odds, its gradient this one times ``1 - p_y``: a factor that a signed step does not
    see, and that underflows to zero where the model is sure of itself.
    """
    own = y[:, None]
    return scores.scatter(1, own, -torch.inf).softmax(1).scatter_(1, own, -1)


def difference_slope(scores: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Gradient (n, K) of the score of class ``up`` minus that of class ``down``."""
    return torch.zeros_like(scores).scatter_(1, up[:, None], 1).scatter_(1, down[:, None], -1)


@dataclass(frozen=True)
class Ball(Rows):
    """The allowed box of every image, and the length of a step."""

    low: Tensor
    high: Tensor
    step: Tensor


@dataclass(frozen=True)
class Best(Rows):
    """The best iterate of every image so far: its first success, else its least margin. The tensors
    are updated in place."""

    x: Tensor
    margin: Tensor
    queries: Tensor

    def note(self, x: Tensor, margins: Tensor, passes: int) -> None:
        """One more iterate, seen at the cost of some passes; NaN margins never count."""
        undecided = self.margin >= 0
        self.queries.add_(undecided, alpha=passes)
        improved = undecided.logical_and_(margins < self.margin)
        # by a weight of 0 or 1 lerp is exact, and it is 10 times faster than where
        self.x.lerp_(x, per_image(improved, x).to(x.dtype))
        torch.where(improved, margins, self.margin, out=self.margin)


@dataclass(frozen=True)
class Walk(Rows):
    """Where the images stand, and the running sum of their gradients (of no size without one)."""

    x: Tensor
    total: Tensor


@dataclass(frozen=True)
class Search:
    """An attack on a batch of images: where it may go, and what it found."""

    call: Call
    goal: Goal
    radius: Tensor
    ball: Ball
    best: Best

    def start(self, direction: Tensor, share: float = 1.0) -> Tensor:
        """The images moved by a share of their radius along ``direction``, one for all."""
        size = per_image(self.radius * share, self.call.x).to(self.call.x.dtype)
        return torch.clamp(self.call.x + size * direction, self.ball.low, self.ball.high)

    def undecided(self) -> Tensor:
        """Indices of the images that no success is known of and that may move at all."""
        return ((self.radius > 0) & (self.best.margin >= 0)).nonzero()[:, 0]

    def result(self) -> AttackResult:
        return judged(self.call, self.best.x, self.best.queries, self.goal.sign)


def begin(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    goal: Goal,
    batch_size: int | None,
    *,
    step_size: float | Tensor | None = None,
    share: float = 1.0,
) -> Search:
    """Check a call, make its clean pass, and take the clean images for the best so far. Without a
    ``step_size``, a step is that share of the radius."""
    check(model, x, y, batch_size=batch_size)
    radius = radii("eps", eps, x)
    step = radius * share if step_size is None else radii("step_size", step_size, x, positive=True)
    call = prepare(model, x, y, batch_size, backward=True)
    ball = Ball(*interval(call.x, radius), per_image(step, call.x).to(call.x.dtype))
    clean = goal.sign * margin(call.scores, call.y)
    clean = torch.where(clean.isnan(), torch.inf, clean)  # between two scores of minus infinity
    return Search(call, goal, radius, ball, Best(call.x.clone(), clean, torch.ones_like(call.y)))


@attack
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

    ``x_{t+1} = clip(x_t + step_size * sign(grad loss(x_t)))`` around ``x``; each restart begins at
    ``x + eps * u``, cut to [0,1], with ``u`` uniform in [-1, 1] (Madry et al. 2018, section 2.1),
    one ``u`` for all images. An image that one restart breaks is spared the next ones. With the
    same generator seed, more restarts repeat the smaller run and go on, and so do more steps of the
    same given ``step_size``: no success is lost, and no margin of an image that holds out grows.
    Used in the chapter "Softmax is k-means", second question.

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
        loss: "ce" (cross-entropy of the log-scores; its gradient is followed without the factor
            that saturates), "margin" (best other score minus the label's), or a callable ``(model,
            x, y) -> (n,)``, whose gradient is used as it is.
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
    share = 2.5 / whole_number("steps", steps, 1)
    whole_number("restarts", restarts, 1)
    goal, stream = Goal(loss, targeted), random_stream(generator)
    search = begin(model, x, y, eps, goal, batch_size, step_size=step_size, share=share)
    for _ in range(restarts):
        climb(search, search.start(2 * uniform(x.shape[1:], stream, x) - 1), steps)
    return search.result()


def climb(
    search: Search,
    start: Tensor,
    steps: int,
    *,
    aim: Tensor | None = None,
    decay: float | None = None,
    falling: bool = False,
) -> None:
    """Climb from ``start`` (N, ...) with all undecided images, and keep the best iterates.

    ``aim`` (N,) are the classes of a sweep, ``decay`` is that of a running sum of gradients;
    ``falling`` steps go down to zero in a straight line.
    """
    call, goal, best = search.call, search.goal, search.best
    aim = call.y if aim is None else aim
    alive = search.undecided()
    at = start.index_select(0, alive)
    walk = Walk(at, torch.zeros_like(at[:, :0] if decay is None else at))
    for done in range(0, steps, REPACK_EVERY):
        for place, real in packed(torch.arange(len(alive), device=alive.device), call.rows):
            index = alive[place]
            here, ball, found = walk.take(place), search.ball.take(index), best.take(index)
            y, wanted = call.y[index], aim[index]
            for step in range(done, min(done + REPACK_EVERY, steps)):
                slope, scores = goal.slope(call.model, here.x, y, wanted)
                found.note(here.x, goal.sign * margin(scores, y), goal.passes)
                if decay is not None:
                    slope = add_normalised(here.total, slope, decay)
                move(here.x, slope, ball, 1 - step / steps if falling else 1)
            walk.put(place[:real], here)
            best.put(index[:real], found)
        left = (best.margin[alive] >= 0).nonzero()[:, 0]
        alive, walk = alive[left], walk.take(left)
    if len(alive):
        found, scores = best.take(alive), score(call.model, walk.x, call.rows)
        found.note(walk.x, goal.sign * margin(scores, call.y[alive]), 1)
        best.put(alive, found)


def move(at: Tensor, slope: Tensor, ball: Ball, share: float = 1) -> Tensor:
    """One step, or a share of it, along the sign of the slope, in place, cut to ball and box; a
    pixel whose derivative is zero or (as torch has it) no number stays."""
    return at.addcmul_(slope.sign(), ball.step, value=share).clamp_(ball.low, ball.high)


def add_normalised(total: Tensor, slope: Tensor, decay: float) -> Tensor:
    """``decay * total + slope / |slope|_1``, in place."""
    slope = slope.nan_to_num(0, 0, 0)
    length = per_image(slope.abs().flatten(1).sum(1), slope)
    return total.mul_(decay).addcdiv_(slope, length.clamp_min(torch.finfo(slope.dtype).tiny))


@attack
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
    batch_size: int | None = None,
) -> AttackResult:
    """Basic iterative method: the steps of :func:`pgd` from the image itself (Kurakin, Goodfellow
    and Bengio 2017, section 2.2).

    It differs from the papers' loops in what it returns: the first success, else the iterate of
    least margin, where they return the last iterate. Used in the chapter "Softmax is k-means".

    Args:
        steps: number of steps T.
        step_size: as in :func:`pgd`, but by default ``eps / steps``, as wang2022 has it.

    Returns:
        The result; an image that holds out costs ``steps + 3`` queries (``2 * steps + 3`` with a
        callable loss).
    """
    share = 1 / whole_number("steps", steps, 1)
    goal = Goal(loss, targeted)
    search = begin(model, x, y, eps, goal, batch_size, step_size=step_size, share=share)
    climb(search, search.call.x, steps)
    return search.result()


@attack
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
    batch_size: int | None = None,
) -> AttackResult:
    """MI-FGSM: :func:`bim` along a running sum of gradients, each divided by its l1 norm (Dong et
    al. 2018, Algorithm 1).

    ``g_{t+1} = decay * g_t + grad / |grad|_1``, then ``x_{t+1} = clip(x_t + step_size *
    sign(g_{t+1}))``. With ``decay`` 0 it is :func:`bim`. Used in the chapter "Persistence"
    (``attack-ranking``).

    Args:
        steps: number of steps T.
        step_size: as in :func:`pgd`, but by default ``eps / steps``, the paper's.
        decay: of the running sum, at least 0; the paper's is 1.

    Returns:
        The result; an image that holds out costs ``steps + 3`` queries (``2 * steps + 3`` with a
        callable loss).
    """
    share = 1 / whole_number("steps", steps, 1)
    number("decay", decay, least=0)
    goal = Goal(loss, targeted)
    search = begin(model, x, y, eps, goal, batch_size, step_size=step_size, share=share)
    climb(search, search.call.x, steps, decay=decay)
    return search.result()


@attack
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
    decay: float = 0.75,
    loss: Loss = "margin",
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> AttackResult:
    """Gradient steps towards every other class in turn: the targeted sweep, merged by success.

    The rivals of an image are tried from the best clean score down. Any misclassification on the
    way is a success, whichever class wins. Where :func:`pgd` follows the rival that leads, the
    sweep also finds the ones that lead only later, as AutoAttack's targeted part does (Croce and
    Hein 2020, section 4.2). Three things make it find more of what verifiers know to be there (the
    properties of VNN-COMP 2021): steps that begin with the whole width of the ball and fall to
    zero, a running sum of gradients as in :func:`mifgsm`, and starts in the inner half of the ball,
    from where slopes that are flat at its corners are still seen. Used in the chapter "Softmax is
    k-means", second question.

    Args:
        steps: steps towards each class.
        step_size: length of all steps in units of [0,1], one number or (N,). By default the first
            step is ``2 * eps``, and they fall to zero in a straight line.
        restarts: random starts, ``x + eps / 2 * u`` with ``u`` as in :func:`pgd`; each is used for
            all classes.
        classes: how many rivals are tried; ``None``: all K - 1.
        decay: of the running sum of gradients, at least 0; with 0 each step follows its own.
        loss: "margin" climbs the rival's score minus the true one's, "ce" lowers the rival's
            cross-entropy (without its saturation), a callable ``(model, x, rival) -> (n,)`` is
            lowered.
        generator: as in :func:`pgd`.

    Returns:
        The result; an image that holds out costs ``restarts * classes * (steps + 1) + 2`` queries
        (``2 * steps + 1`` with a callable loss).
    """
    whole_number("steps", steps, 1)
    whole_number("restarts", restarts, 1)
    number("decay", decay, least=0)
    if classes is not None:
        whole_number("classes", classes, 1)
    goal, stream = Goal(loss, sweep=True), random_stream(generator)
    search = begin(model, x, y, eps, goal, batch_size, step_size=step_size, share=2)
    how = {"decay": decay, "falling": step_size is None}
    for _ in range(restarts):
        start = search.start(2 * uniform(x.shape[1:], stream, x) - 1, 0.5)
        for rival in rivals(search.call)[:, :classes].unbind(1):
            climb(search, start, steps, aim=rival, **how)
    return search.result()


@attack
def fgsm(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    *,
    targeted: bool = False,
    loss: Loss = "ce",
    batch_size: int | None = None,
) -> AttackResult:
    """Fast gradient sign method: one step to the corner of the eps-ball that the loss gradient
    points to.

    ``x_adv = x + eps * sign(grad loss)`` (Goodfellow, Shlens and Szegedy 2015, section 4), cut to
    [0,1]; a pixel whose derivative is exactly zero stays. It is exact for a linear model with two
    classes. The step is taken for every image, also where the clean one is misclassified, as in the
    papers' curves of accuracy against eps. Used in the chapter "Softmax is k-means" (``fig2``).

    Returns:
        The result; ``queries`` is 3 (4 with a callable loss).
    """
    # A step over the whole pixel range, cut to the box, ends in the box's corner exactly.
    search = begin(model, x, y, eps, Goal(loss, targeted), batch_size, step_size=1.0)
    return _moved_once(search, search.call.x)


@attack
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
        random_share: a / eps, between 0 and 1; with 0 it is :func:`fgsm`.
        generator: source of the random step, one draw of an image's shape for all images. ``None``:
            a fresh one of fixed seed.

    Returns:
        The result; ``queries`` is 3 (4 with a callable loss).
    """
    number("random_share", random_share, least=0, most=1)
    goal, stream = Goal(loss, targeted), random_stream(generator)
    search = begin(model, x, y, eps, goal, batch_size, share=1 - random_share)
    return _moved_once(search, search.start(normal(x.shape[1:], stream, x).sign(), random_share))


def _moved_once(search: Search, start: Tensor) -> AttackResult:
    """The end of one step of every image, whether it needs one or not."""
    call, goal, x_adv = search.call, search.goal, start.clone()
    for index, real in packed(torch.arange(len(x_adv), device=x_adv.device), call.rows):
        here, y = start[index], call.y[index]
        slope, _ = goal.slope(call.model, here, y, y)
        x_adv[index[:real]] = move(here, slope, search.ball.take(index))[:real]
    return judged(call, x_adv, torch.full_like(call.y, 1 + goal.passes), goal.sign)
