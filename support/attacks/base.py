"""What all attacks share: their result, the checks of their input, the exact bounds, and passes of
a few fixed sizes."""

import math
import random
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from support.common.arguments import (
    described,
    images,
    labels,
    points,
    random_stream,
    scoring_model,
    whole_number,
)

# Image values in one pass on a CPU. A convolutional net is fastest while its activations fit the
# cache (measured on LeNet and on 4-convolution nets: beyond it a row costs up to twice as much), a
# dense one gains by more rows.
_VALUES_FORWARD, _VALUES_BACKWARD, _VALUES_DENSE = 150_000, 50_000, 800_000
_VALUES_ON_ACCELERATOR = 2**22
_MOST_ROWS = 512

LEAST_ROWS = 16
"""The smallest size that passes are halved to: from here on the CPU kernels of one thread compute a
row by the same sums, so that its bits do not depend on the size (measured on convolutional and
dense nets, forward and backward; below, they do)."""

_TIED, _RANDOM = 3e-3, 1e-4
"""Shares of the largest score by which an image's scores may differ in two passes: beside other
images, where other sums are rounded, and beside the same ones. Batch statistics and dropout move
them by tenths."""

Model = Callable[[Tensor], Tensor]
Function = TypeVar("Function", bound=Callable)


@dataclass(frozen=True)
class AttackResult:
    """What an attack found, image by image.

    Attributes:
        x_adv: (N, ...) the images, of the inputs' dtype and device: the first success found, else
            the least margin met.
        success: (N,) bool, judged at ``x_adv`` in the inputs' own precision.
        margin: (N,) score of the true class minus the best other score at ``x_adv``, in nats of
            log-score. A targeted attack's margin is the best score of any other class minus the
            target's. Below zero is a success, either way.
        queries: (N,) int64, model passes made for the image until it was decided, the clean pass
            and the last check included; the two looks at up to 16 images with which a call begins
            (:func:`first_outputs`) are not.
    """

    x_adv: Tensor
    success: Tensor
    margin: Tensor
    queries: Tensor


@dataclass(frozen=True)
class Call:
    """A call that passed the checks: private copies of the inputs, the clean scores, and the rows
    of one forward pass."""

    model: Model
    x: Tensor
    y: Tensor
    scores: Tensor
    rows: int


@dataclass(frozen=True)
class Rows:
    """Tensors with a row for each image, some of which are worked on at a time."""

    def take(self, index: Tensor) -> Self:
        """A copy of some rows."""
        return type(self)(*(part.index_select(0, index) for part in self._parts()))

    def put(self, index: Tensor, part: Self) -> None:
        """Write the first rows of a copy back."""
        for whole, rows in zip(self._parts(), part._parts(), strict=True):
            whole.index_copy_(0, index, rows[: len(index)])

    def _parts(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]


def attack(function: Function) -> Function:
    """An attack does the same in every gradient mode of its caller, and returns ordinary
    tensors."""
    return torch.inference_mode(False)(torch.no_grad()(function))


def margin(scores: Tensor, y: Tensor) -> Tensor:
    """The score of class ``y`` minus the best other score: below zero when another class wins.

    Args:
        scores: (N, K) log-scores.
        y: (N,) int64 labels.

    Returns:
        (N,) margins, in nats for normalised log-scores.
    """
    own = y[:, None]
    return scores.gather(1, own)[:, 0] - scores.scatter(1, own, -torch.inf).amax(1)


def interval(x: Tensor, eps: float | Tensor) -> tuple[Tensor, Tensor]:
    """The largest box of x's own dtype inside ``[x - eps, x + eps]`` and ``[0, 1]``, both judged in
    float64.

    ``x + eps`` rounded to the nearest float32 may lie outside the ball, and so may its clipping;
    here an end that does moves one float inward. Rounding is monotone, so what holds at the ends
    holds at every value between them.

    Args:
        x: (N, ...) images in [0,1], float32 or float64.
        eps: the radius, one for all or (N,), in units of [0,1].

    Returns:
        ``(low, high)``, shaped like ``x``; both equal ``x`` where ``eps`` is 0.
    """
    exact = x.double()
    radius = per_image(torch.as_tensor(eps, dtype=torch.float64, device=x.device), x)
    low, high = (
        (exact - radius).to(x.dtype).clamp_min_(0),
        (exact + radius).to(x.dtype).clamp_max_(1),
    )
    # Floats of one sign are ordered as the integers of their bits: one more is the next float up,
    # one less the next down.
    bits = torch.int32 if x.dtype == torch.float32 else torch.int64
    low.view(bits).add_(exact - low.double() > radius)
    high.view(bits).sub_((high.double() - exact > radius).to(bits))
    return low, high


def per_image(values: Tensor, x: Tensor) -> Tensor:
    """(N,) or () values, shaped to be broadcast over the images ``x`` (N, ...)."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


def even(count: int, limit: int) -> int:
    """The size of equal pieces of at most ``limit`` that cover ``count`` things: 400 in pieces of
    at most 191 makes 134."""
    return math.ceil(count / math.ceil(count / limit))


def packed(index: Tensor, most: int, least: int = LEAST_ROWS) -> Iterator[tuple[Tensor, int]]:
    """Cut an index into pieces of a few fixed sizes: ``most``, and for what is left its halves,
    filled to three quarters or more.

    Args:
        index: (n,) int64.
        most: the largest size.
        least: no size is halved below it.

    Returns:
        Pairs of an index filled up to its size with its first entry, and how many of its entries
        are real.
    """
    while len(index):
        size = most
        while size // 2 >= least and 4 * len(index) <= 3 * size:
            size //= 2
        piece, index = index[:size], index[size:]
        yield torch.cat([piece, piece[:1].expand(size - len(piece))]), len(piece)


def score(model: Model, x: Tensor, rows: int) -> Tensor:
    """Scores (N, K) of ``x`` (N, ...), without gradients, in passes of at most ``rows`` images."""
    pieces = packed(torch.arange(len(x), device=x.device), rows)
    with torch.no_grad():  # copies: a model may write where it reads, or where it wrote before
        return torch.cat([model(x.index_select(0, at))[:real].clone() for at, real in pieces])


def uniform(shape: torch.Size, stream: torch.Generator, like: Tensor) -> Tensor:
    """Numbers in [0, 1) that are drawn where the stream is, for all images alike, and used where
    ``like`` is."""
    drawn = torch.rand(shape, generator=stream, dtype=like.dtype, device=stream.device)
    return drawn.to(like.device)


def normal(shape: torch.Size, stream: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers, drawn as by :func:`uniform`."""
    drawn = torch.randn(shape, generator=stream, dtype=like.dtype, device=stream.device)
    return drawn.to(like.device)


def check(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
    pictures: bool = False,
    boxed: bool = True,
) -> None:
    """Judge all of a call's common inputs that can be judged without touching the model.

    Args:
        model: a module or a callable; a module's dropout and batch norm must be in evaluation mode.
        x: (N, ...) images in [0,1], float32 or float64; (N, C, H, W) if ``pictures``.
        y: (N,) int64 labels on the device of ``x``.
        batch_size: at most so many images in one forward pass, or ``None``.
        generator: a generator, or ``None``.
        pictures: the attack needs channels, rows and columns.
        boxed: the images must lie in [0,1]; else any finite values will do.

    Raises:
        ValueError: what was given and what is wanted.
    """
    if boxed:
        images("x", x, pictures=pictures)
    else:
        points("x", x)
    labels("y", y, x)
    scoring_model(model)
    random_stream(generator)
    if batch_size is not None:
        whole_number("batch_size", batch_size, 1)


def prepare(
    model: Model,
    x: Tensor,
    y: Tensor,
    batch_size: int | None = None,
    *,
    backward: bool = False,
    looks: int = 2,
) -> Call:
    """Copy checked inputs, make the clean pass, check its scores and, by so many ``looks``, what
    the model does.

    ``batch_size`` bounds the images of one pass; ``None`` picks what is fast, for passes that go
    back, too, if ``backward``.

    Raises:
        ValueError: the scores are no log-scores, or a label exceeds the number of classes (both
            judged after one forward pass, but for NaN scores and probabilities, which are judged on
            all clean images), or as :func:`first_outputs`.
    """
    x, y = x.detach().clone(memory_format=torch.contiguous_format), y.detach().clone()
    rows = even(len(x), batch_size or fast_rows(x, model=model, backward=backward))
    first = first_scores(model, x[:rows], int(y.max()), looks=looks)
    scores = torch.cat([first, score(model, x[rows:], rows)]) if len(x) > rows else first
    check_log_scores(scores)
    return Call(model, x, y, scores, rows)


def judged(call: Call, x_adv: Tensor, queries: Tensor, sign: int = 1) -> AttackResult:
    """The result, by one last pass over the images that are returned; the margin of a targeted
    attack has ``sign`` -1."""
    margins = sign * margin(score(call.model, x_adv, call.rows), call.y)
    return AttackResult(x_adv, margins < 0, margins, queries + 1)


def rivals(call: Call) -> Tensor:
    """(N, K - 1) all classes but the label's, from the best clean score down."""
    own = call.y[:, None]
    ranked = call.scores.scatter(1, own, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return ranked[ranked != own].view(len(ranked), -1)


def gradient(outputs: Tensor, leaf: Tensor, weights: Tensor) -> Tensor:
    """The gradient of the weighted sum of ``outputs`` with respect to the images ``leaf``.

    Raises:
        ValueError: there is none.
    """
    if outputs.requires_grad:
        found = torch.autograd.grad(outputs, leaf, weights, allow_unused=True)[0]
        if found is not None:
            return found
    raise ValueError(
        "what is followed does not depend differentiably on the image, so there is no gradient: "
        "one_pixel and rays need none"
    )


def fast_rows(
    x: Tensor, most: int = _MOST_ROWS, *, model: Model | None = None, backward: bool = False
) -> int:
    """How many images of the size of ``x`` (N, ...) make a fast pass on their device.

    Args:
        x: images.
        most: no more rows than that.
        model: the model, if it is known: one without convolutions is given more rows.
        backward: whether the pass goes back, too.
    """
    dense = isinstance(model, nn.Module) and not any(
        isinstance(part, _ConvNd) for part in model.modules()
    )
    on_cpu = _VALUES_DENSE if dense else _VALUES_BACKWARD if backward else _VALUES_FORWARD
    values = on_cpu if x.device.type == "cpu" else _VALUES_ON_ACCELERATOR
    return min(max(values // x[0].numel(), LEAST_ROWS), most)


def first_scores(model: Model, x: Tensor, label: int = 0, *, looks: int = 2) -> Tensor:
    """Scores (n, K) of a first batch, which have the class ``label``.

    Raises:
        ValueError: the model cannot take the images, or returns something else, or as
            :func:`first_outputs`.
    """
    wanted = f"the model must map {tuple(x.shape)} images to ({len(x)}, K) log-scores with K >= 2"

    def judge(scores: Tensor) -> None:
        check_scores(scores, len(x), wanted)
        if label >= scores.shape[1]:
            raise ValueError(
                f"y holds label {label}, but the model scores {scores.shape[1]} classes, from 0 to "
                f"{scores.shape[1] - 1}"
            )

    try:
        return first_outputs(model, x.detach().contiguous(), judge, looks=looks)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # how torch says that shapes, dtypes or devices do not fit
        raise ValueError(
            f"{wanted}; it fails on {x.dtype} images on {x.device}: {error}"
        ) from error


@torch.no_grad()
def first_outputs(
    function: Model,
    x: Tensor,
    judge: Callable[[Tensor], None] = lambda outputs: None,
    *,
    module: object = None,
    looks: int = 2,
) -> Tensor:
    """What a function says of a first batch, once it is seen to say the same of an image each time
    and beside any others.

    No layer's class tells: functional dropout, attention and stochastic depth in training mode are
    random, and a scripted batch norm ties images to their neighbours. Two looks at the last images,
    half of the batch but at most 8, beside their negatives show what they do. They leave buffers
    and global generators as they were.

    Args:
        function: maps (n, ...) to (n, ...).
        x: (n, ...), n at least 1.
        judge: raises an error where the first outputs are not what is wanted.
        module: whose buffers are watched; default: the function.
        looks: 2, or 0 for a function that may be asked only once.

    Raises:
        ValueError: outputs that are random, or depend on the other images, or change the module.
    """
    owner = function if module is None else module
    watched = isinstance(owner, nn.Module)
    held = {name: value.clone() for name, value in owner.named_buffers()} if watched else {}
    devices = [x.device] if x.device.type == "cuda" else []
    with streams_kept(devices):
        try:
            first = function(x.clone())
            judge(first)
            if not isinstance(first, Tensor) or first.shape[:1] != x.shape[:1]:
                raise ValueError(
                    f"a row for each of {len(x)} images is wanted, not {described(first)}"
                )
            first = first.clone()
            why = _unsteady(function, x, first, looks, devices)
        finally:
            moved = []
            for name, value in owner.named_buffers() if watched else ():
                if not torch.equal(value.nan_to_num(), held[name].nan_to_num()):
                    value.copy_(held[name])
                    moved += [name] if value.is_floating_point() else []
    if why or moved:
        why = why or f"a pass changes its buffer {moved[0]}"
        raise ValueError(
            f"the model must score each image by itself, the same each time, but {why}; is some "
            "part of it in training mode? call eval(), and turn off what ties or draws"
        )
    return first


def _unsteady(
    function: Model, x: Tensor, first: Tensor, looks: int, devices: list[torch.device]
) -> str | None:
    """Why outputs are not those of the images alone; None where they are."""
    few = min(max(len(x) // 2, 1), LEAST_ROWS // 2)
    part = torch.cat([x[-few:], 1 - x[-few:]])
    part = part[: len(part) - (len(part) == len(x))]  # of another size than before
    seen, streams = [], []
    for _ in range(looks):
        try:
            seen.append(function(part.clone()).clone())
        except RuntimeError as error:
            return f"it takes {len(x)} images at a time and fails on {len(part)}: {error}"
        streams.append(_streams(devices))
    if not looks:
        return None
    size = float(first.double().nan_to_num(0, 0, 0).abs().max())

    def differ(one: Tensor, other: Tensor, share: float) -> bool:
        apart = (one.double() - other.double()).nan_to_num(0, 0, 0).abs()
        return bool((apart > share * size + 1e-6).any())

    if streams[0] != streams[1]:
        return "it draws random numbers"
    if differ(*seen, _RANDOM):
        return "two passes over the same images differ"
    if len(seen[0]) != len(part) or differ(seen[0][:few], first[-few:], _TIED):
        return "an image's scores depend on the other images of the batch"
    return None


def _streams(devices: list[torch.device]) -> tuple:
    """The states of the global generators, as values to be compared."""
    _, keys, *place = np.random.get_state()
    drawn = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, devices)]
    return random.getstate(), keys.tobytes(), *place, *(state.numpy().tobytes() for state in drawn)


@contextmanager
def streams_kept(devices: Iterable[torch.device | int]) -> Iterator[None]:
    """The global generators, of GPUs those named, come back as they were, whatever happens."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def check_scores(scores: Tensor, count: int, wanted: str) -> None:
    """Raise a ValueError unless they are (count, K), K at least 2, in a precision that verdicts can
    rest on."""
    if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != count:
        raise ValueError(f"{wanted}; it returned {described(scores)}")
    if scores.shape[1] < 2 or scores.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"{wanted}, float32 or float64, which verdicts need: attack outside autocast; it "
            f"returned {described(scores)}"
        )


def refuse_probabilities(scores: Tensor) -> None:
    """Raise a ValueError where scores (N, K) hold NaN, or are probabilities: every row
    non-negative, with sum one."""
    if bool(scores.isnan().any()):
        count = int(scores.isnan().any(1).sum())
        raise ValueError(
            f"the model returned NaN scores for {count} of {len(scores)} clean images; log-scores "
            "are wanted"
        )
    if bool((scores >= 0).all()) and bool(((scores.sum(1) - 1).abs() < 1e-4).all()):
        raise ValueError(
            "the model returned probabilities (every row is non-negative and sums to one); "
            "log-scores are wanted: drop the softmax, or take the logarithm in a stable form, for "
            "the gradient of a saturated probability is zero"
        )


def check_log_scores(scores: Tensor) -> None:
    """:func:`refuse_probabilities`, and a warning at the caller's line where all scores (N, K) lie
    in [0,1]."""
    refuse_probabilities(scores)
    low, high = (end.item() for end in scores.aminmax())
    if low >= 0 and high <= 1:
        frame, level = sys._getframe(1), 2
        while frame.f_back and frame.f_globals["__name__"].split(".")[0] in ("support", "torch"):
            frame, level = frame.f_back, level + 1
        warnings.warn(
            f"all scores lie in [0,1] (from {low:g} to {high:g}): are they probabilities? Attacks "
            "want log-scores",
            stacklevel=level,
        )
