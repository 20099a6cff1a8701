"""Checks that the kernels make of their arguments before any work. Each returns the argument and
raises a ``ValueError`` that names it and says what is wanted and what was given.

- numbers: :func:`whole_number`, :func:`number`; words: :func:`choice`, :func:`flag`;
- tensors: :func:`images` (in [0,1]), :func:`points` and :func:`matrix` (finite),
  :func:`class_vector` (int64), :func:`labels` (one for each image), :func:`radii` (one for all
  images, or one for each);
- functions: :func:`function`, and :func:`scoring_model` for one that is asked about images in
  batches;
- draws: :func:`random_stream`, with :data:`SEED` where a caller gives no generator.
"""

import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

SEED = 0
"""Seed of the generator that a kernel makes for itself when it is given none."""


def described(value: object) -> str:
    """What was given, in an error: a tensor's dtype and shape, else the type."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    return type(value).__name__


def whole_number(name: str, value: object, least: int, most: int | None = None) -> int:
    """An integer from ``least`` to ``most``; a bool is none."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be a whole number {limits}; {value!r} was given")
    return int(value)


def number(
    name: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> float:
    """A finite number within some bounds, ``above`` and ``below`` being strict; a bool is none."""
    real = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if (
        not real
        or (least is not None and value < least)
        or (above is not None and value <= above)
        or (most is not None and value > most)
        or (below is not None and value >= below)
    ):
        raise ValueError(
            f"{name} must be {_bounds(least, above, most, below)}; {value!r} was given"
        )
    return float(value)


def _bounds(
    least: float | None, above: float | None, most: float | None, below: float | None
) -> str:
    low = least if above is None else above
    if most is None and below is None:
        if low is None:
            return "a finite number"
        kind = "above" if least is None else "of at least"
        return "a positive number" if above == 0 else f"a number {kind} {low:g}"
    left = "(-inf" if low is None else f"({low:g}" if least is None else f"[{low:g}"
    return f"in {left}, " + (f"{most:g}]" if below is None else f"{below:g})")


def choice(name: str, value: object, words: Iterable[str]) -> str:
    """One of some words."""
    words = tuple(words)
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(words)}")
    return value


def flag(name: str, value: object) -> bool:
    """True or False, and nothing that only counts as such."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False; {value!r} was given")
    return value


def function(
    name: str, value: object, signature: str, *, optional: bool = False
) -> Callable | None:
    """A callable (or None where ``optional``); ``signature`` says of what kind."""
    if not callable(value) and not (optional and value is None):
        wanted = "None or a callable" if optional else "a callable"
        raise ValueError(f"{name} must be {wanted} {signature}; {described(value)} was given")
    return value


def class_vector(name: str, value: object, n: int, classes: int | None = None) -> Tensor:
    """An int64 vector of n entries, from 0 to ``classes - 1`` where that is known."""
    if not isinstance(value, Tensor) or value.dtype != torch.int64 or value.shape != (n,):
        raise ValueError(f"{name} must be int64 of shape ({n},); {described(value)} was given")
    if classes is not None and n:
        low, high = (int(end) for end in value.aminmax())
        if low < 0 or high >= classes:
            raise ValueError(f"{name} must be in 0 .. {classes - 1}; {low} .. {high} was given")
    return value


def labels(name: str, value: object, x: Tensor, classes: int | None = None) -> Tensor:
    """A class from 0 for each image of ``x`` (N, ...): int64 (N,) on the same device."""
    class_vector(name, value, len(x), classes)
    if value.device != x.device:
        raise ValueError(f"{name} must be on {x.device}, like the images; it is on {value.device}")
    if len(value) and int(value.min()) < 0:
        raise ValueError(f"{name} must hold labels from 0; {int(value.min())} was given")
    return value


def images(name: str, value: object, *, pictures: bool = False) -> Tensor:
    """At least one image with values in [0,1], float32 or float64: (N, ...), or (N, C, H, W) if
    ``pictures``."""
    wanted = _tensor(name, value, "(N, C, H, W)" if pictures else "(N, ...)", "values in [0,1]")
    if pictures and value.ndim != 4:
        raise ValueError(f"{wanted}; {described(value)} was given")
    low, high = (end.item() for end in value.detach().aminmax())  # NaN anywhere: both are NaN
    if not (low >= 0 and high <= 1):
        nan = ", that is NaN" if math.isnan(low) else ""
        raise ValueError(f"{wanted}; values from {low:g} to {high:g} were given{nan}")
    return value


def points(name: str, value: object, *, matrix: bool = False) -> Tensor:
    """At least one point with finite values, float32 or float64: (N, ...), or (N, d) if
    ``matrix``."""
    wanted = _tensor(name, value, "(N, d)" if matrix else "(N, ...)", "finite values")
    if matrix and value.ndim != 2:
        raise ValueError(f"{wanted}; {described(value)} was given")
    return _finite(name, value)


def matrix(name: str, value: object, *, rows: int = 1, columns: int | None = None) -> Tensor:
    """Finite numbers of any floating dtype, (N, d) with d >= 1 and at least so many rows; with so
    many columns where that is known."""
    if (
        not isinstance(value, Tensor)
        or value.ndim != 2
        or not value.is_floating_point()
        or len(value) < rows
        or not value.shape[1]
    ):
        raise ValueError(
            f"{name} must be a floating-point matrix that is not empty; "
            f"{described(value)} was given"
        )
    if columns not in (None, value.shape[1]):
        raise ValueError(f"{name} must have {columns} columns; {value.shape[1]} were given")
    return _finite(name, value)


def _finite(name: str, value: Tensor) -> Tensor:
    if value.numel() and not all(math.isfinite(end.item()) for end in value.detach().aminmax()):
        bad = int((~value.isfinite()).sum())
        raise ValueError(f"{name} must be finite; {bad} of {value.numel()} are NaN or infinite")
    return value


def _tensor(name: str, value: object, shape: str, values: str) -> str:
    """What is wanted of a batch, once its type, dtype and least size are right."""
    wanted = f"{name} must be a float32 or float64 tensor {shape} that is not empty, {values}"
    if (
        not isinstance(value, Tensor)
        or value.dtype not in (torch.float32, torch.float64)
        or value.ndim < 2
        or not value.numel()
    ):
        raise ValueError(f"{wanted}; {described(value)} was given")
    return wanted


def radii(name: str, value: float | Tensor, x: Tensor, *, positive: bool = False) -> Tensor:
    """Radii in units of [0,1], one for all images of ``x`` (N, ...) or one for each, as (N,)
    float64 on x's device; above 0 if ``positive``, else at least 0."""
    least = "positive" if positive else "at least 0"
    wanted = (
        f"{name} must be finite and {least}, in units of the pixel range [0,1]: a number, or a "
        f"floating tensor of shape ({len(x)},)"
    )
    if isinstance(value, Tensor):
        if not value.is_floating_point() or tuple(value.shape) not in {(), (len(x),)}:
            raise ValueError(f"{wanted}; {described(value)} was given")
    elif isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{wanted}; {value!r} was given")
    found = torch.as_tensor(value, dtype=torch.float64, device=x.device).detach()
    allowed = found.isfinite() & (found > 0 if positive else found >= 0)
    if not bool(allowed.all()):
        bad = found[~allowed][0].item() if found.ndim else found.item()
        raise ValueError(f"{wanted}; {bad} was given")
    return found.expand(len(x)).clone()


def scoring_model(model: object, name: str = "model") -> Callable[[Tensor], Tensor]:
    """A module or a callable that treats each image of a batch by itself: dropout and batch norm in
    training mode tie an image to its neighbours and are refused."""
    function(name, model, "or module from images to log-scores")
    network = model if isinstance(model, nn.Module) else nn.Identity()
    if any(value.is_inference() for value in (*network.parameters(), *network.buffers())):
        raise ValueError(f"{name} was made under torch.inference_mode: make it outside")
    for place, part in network.named_modules():
        where = f"{type(part).__name__} at {place or 'the top'}"
        if isinstance(part, _BatchNorm | _DropoutNd) and part.training:
            raise ValueError(
                f"{where} is in training mode and would tie images to their neighbours: call "
                f"{name}.eval() first"
            )
        if isinstance(part, _BatchNorm) and part.running_mean is None:
            raise ValueError(
                f"{where} keeps no running statistics and ties images to their neighbours: give it "
                "track_running_stats=True"
            )
    return model


def random_stream(generator: torch.Generator | None) -> torch.Generator:
    """The caller's generator, or a fresh CPU one seeded with :data:`SEED`: the same draws on every
    device."""
    if generator is None:
        return torch.Generator().manual_seed(SEED)
    if not isinstance(generator, torch.Generator):
        raise ValueError(
            f"generator must be a torch.Generator or None; {described(generator)} was given"
        )
    return generator
