"""What all attacks share: their result, the checks of their input, the exact bounds, and passes of
a few fixed sizes."""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral, Real

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

SEED = 0
"""Seed of the generator that an attack makes for itself when it is given none."""

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

Model = Callable[[Tensor], Tensor]


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
            and the last check included.
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
    with torch.inference_mode():
        pieces = packed(torch.arange(len(x), device=x.device), rows)
        found = torch.cat([model(x.index_select(0, index))[:real] for index, real in pieces])
    return found.clone()  # outside inference mode a copy is an ordinary tensor


def random_stream(generator: torch.Generator | None) -> torch.Generator:
    """The caller's generator, or a fresh CPU one seeded with :data:`SEED`: the same draws on every
    device."""
    return torch.Generator().manual_seed(SEED) if generator is None else generator


def check(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    batch_size: int | None,
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
    _check_images(x, pictures, boxed)
    _check_labels(y, x)
    _check_model(model)
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ValueError(
            f"generator must be a torch.Generator or None, not {type(generator).__name__}"
        )
    if batch_size is not None:
        whole_number("batch_size", batch_size, 1)


def prepare(model: Model, x: Tensor, y: Tensor, most: int) -> Call:
    """Copy checked inputs, make the clean pass, check its scores; ``most`` bounds the images of one
    forward pass.

    Raises:
        ValueError: the scores are no log-scores, or a label exceeds the number of classes (both
            judged after one forward pass, but for NaN scores and probabilities, which are judged on
            all clean images).
    """
    x, y = x.detach().clone(), y.detach().clone()
    rows = even(len(x), most)
    first = _first_scores(model, x[:rows])
    if int(y.max()) >= first.shape[1]:
        raise ValueError(
            f"y holds label {int(y.max())}, but the model scores {first.shape[1]} classes, from 0 to {first.shape[1] - 1}"
        )
    scores = torch.cat([first, score(model, x[rows:], rows)]) if len(x) > rows else first
    _check_log_scores(scores)
    return Call(model, x, y, scores, rows)


def whole_number(name: str, value: object, least: int) -> None:
    """Raise a ValueError unless ``value`` is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")


def radii(name: str, value: float | Tensor, x: Tensor, *, positive: bool = False) -> Tensor:
    """``value`` as (N,) float64 on x's device.

    Raises:
        ValueError: not a number or a floating (N,) tensor, not finite, negative, or zero where
            ``positive``.
    """
    least = "positive" if positive else "at least 0"
    wanted = f"{name} must be finite and {least}, in units of the pixel range [0,1]: a number, or a floating tensor of shape ({len(x)},)"
    if isinstance(value, Tensor):
        if not value.is_floating_point() or tuple(value.shape) not in {(), (len(x),)}:
            raise ValueError(
                f"{wanted}; given is a {value.dtype} tensor of shape {tuple(value.shape)}"
            )
    elif isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{wanted}; given is {value!r}")
    found = torch.as_tensor(value, dtype=torch.float64, device=x.device).detach()
    allowed = found.isfinite() & (found > 0 if positive else found >= 0)
    if not bool(allowed.all()):
        raise ValueError(
            f"{wanted}; given is {found[~allowed][0].item() if found.ndim else found.item()}"
        )
    return found.expand(len(x)).clone()


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


def _check_images(x: Tensor, pictures: bool, boxed: bool = True) -> None:
    shape, span = (
        "(N, C, H, W)" if pictures else "(N, ...)",
        (0, 1) if boxed else (-torch.finfo().max, torch.finfo().max),
    )
    wanted = f"x must be a float32 or float64 tensor {shape} of at least one image, {'values in [0,1]' if boxed else 'finite values'}"
    if not isinstance(x, Tensor):
        raise ValueError(f"{wanted}; given is {type(x).__name__}")
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{wanted}; given is {x.dtype}")
    if x.ndim < 2 or (pictures and x.ndim != 4) or not x.numel():
        raise ValueError(f"{wanted}; given is shape {tuple(x.shape)}")
    low, high = (end.item() for end in x.detach().aminmax())  # NaN anywhere makes both ends NaN
    if not (low >= span[0] and high <= span[1]):
        raise ValueError(
            f"{wanted}; given are values from {low} to {high}"
            + (": there are NaN pixels" if math.isnan(low) else "")
        )


def _check_labels(y: Tensor, x: Tensor) -> None:
    wanted = f"y must be an int64 tensor of shape ({len(x)},) on {x.device}, labels from 0"
    if not isinstance(y, Tensor):
        raise ValueError(f"{wanted}; given is {type(y).__name__}")
    if y.dtype != torch.int64 or tuple(y.shape) != (len(x),) or y.device != x.device:
        raise ValueError(f"{wanted}; given is {y.dtype} of shape {tuple(y.shape)} on {y.device}")
    if int(y.min()) < 0:
        raise ValueError(f"{wanted}; given is label {int(y.min())}")


def _check_model(model: Model) -> None:
    if not callable(model):
        raise ValueError(
            f"model must be a module or a callable from images to log-scores, not {type(model).__name__}"
        )
    if not isinstance(model, nn.Module):
        return
    for name, part in model.named_modules():
        where = f"{type(part).__name__} at {name or 'the top'}"
        if isinstance(part, _BatchNorm | _DropoutNd) and part.training:
            raise ValueError(
                f"{where} is in training mode and would tie images to their neighbours: call model.eval() first"
            )
        if isinstance(part, _BatchNorm) and part.running_mean is None:
            raise ValueError(
                f"{where} keeps no running statistics and ties images to their neighbours: give it track_running_stats=True"
            )


def _first_scores(model: Model, x: Tensor) -> Tensor:
    wanted = f"the model must map {tuple(x.shape)} images to ({len(x)}, K) log-scores with K >= 2"
    try:
        with torch.inference_mode():
            scores = model(x.clone())
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # how torch says that shapes, dtypes or devices do not fit
        raise ValueError(
            f"{wanted}; it fails on {x.dtype} images on {x.device}: {error}"
        ) from error
    if (
        not isinstance(scores, Tensor)
        or scores.ndim != 2
        or len(scores) != len(x)
        or scores.shape[1] < 2
    ):
        given = (
            f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        )
        raise ValueError(f"{wanted}; it returned {given}")
    if scores.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"scores must be float32 or float64, not {scores.dtype}: attack outside autocast, verdicts need the precision"
        )
    return scores.clone()


def refuse_probabilities(scores: Tensor) -> None:
    """Raise a ValueError where scores (N, K) hold NaN, or are probabilities: every row
    non-negative, with sum one."""
    if bool(scores.isnan().any()):
        count = int(scores.isnan().any(1).sum())
        raise ValueError(
            f"the model returned NaN scores for {count} of {len(scores)} clean images; log-scores are wanted"
        )
    if bool((scores >= 0).all()) and bool(((scores.sum(1) - 1).abs() < 1e-4).all()):
        raise ValueError(
            "the model returned probabilities (every row is non-negative and sums to one); log-scores are wanted: drop the softmax, or "
            "take the logarithm in a stable form, for the gradient of a saturated probability is zero"
        )


def _check_log_scores(scores: Tensor) -> None:
    refuse_probabilities(scores)
    low, high = (end.item() for end in scores.aminmax())
    if low >= 0 and high <= 1:
        warnings.warn(
            f"all scores lie in [0,1] (from {low:g} to {high:g}): are they probabilities? Attacks want log-scores",
            stacklevel=6,
        )
