"""Lipschitz constants of networks, in l2: an upper bound, which certifies, and a lower one, which
does not (chapters 1 and 4).

A constant estimated from samples is a lower bound: :func:`lipschitz_lower_bound` is there to show
how far an upper bound may be from the truth. An upper bound that is too small is a false
certificate, so :func:`lipschitz_upper_bound` knows layers by what they compute, and refuses the
rest. Both are up to float64 rounding.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from support.attacks.base import first_outputs, normal
from support.common.arguments import points, random_stream, scoring_model, whole_number
from support.models.architectures import Classifier, Normalise, plain_layers, refuse_altered

_EXPLICIT = 4_000_000  # entries of a convolution's matrix up to which its norm is computed exactly
_SAME_OR_LESS = (nn.Identity, nn.Flatten, nn.Unflatten, nn.ReLU, nn.Tanh)
_OFF = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)  # the identity in evaluation mode


def lipschitz_upper_bound(module: nn.Module, input_shape: Sequence[int] | None = None) -> float:
    """Product of upper bounds on the layers' l2 Lipschitz constants.

    Linear layers count with their exact spectral norm; a convolution with the exact norm of its
    matrix where ``input_shape`` is known and that matrix is small (4 million entries), else with
    :func:`convolution_bound`. Batch norm counts in evaluation mode, as the affine map it then is.

    Args:
        module: a Sequential of known layers, a single one, or a
            :class:`~support.models.architectures.Classifier`, of which the feature map is bounded
            (without its head).
        input_shape: (C, H, W), or the shape of whatever the module takes, without the batch; makes
            the bound smaller.

    Returns:
        L with |module(x) - module(y)| <= L |x - y|, norms taken over all entries of an image.

    Raises:
        ValueError: a layer without a known bound, named; among them residual blocks, subclasses of
            known layers, and dropout or batch norm in training mode. What
            :func:`support.models.architectures.refuse_altered` refuses.
    """
    shape = None if input_shape is None else tuple(int(side) for side in input_shape)
    bound = 1.0
    if type(module) is Classifier:
        refuse_altered(module)
        module = module.body
    for name, layer in plain_layers(module):  # one that stands here twice counts twice
        bound *= _layer(layer, shape, name)
        shape = None if shape is None else _output_shape(layer, shape)
    if math.isnan(bound):
        raise ValueError("no Lipschitz bound: a layer's statistics or settings make it NaN")
    return bound


def lipschitz_lower_bound(
    module: nn.Module, x: Tensor, *, iterations: int = 20, generator: torch.Generator | None = None
) -> float:
    """Largest slope of a module found at some points: a lower bound on its l2 Lipschitz constant,
    which certifies nothing.

    At each point power iteration climbs to the largest singular value of the Jacobian J, and |J v|
    / |v| counts at every v on the way. Printed beside :func:`lipschitz_upper_bound`: the constant
    lies between the two. Chapter 4.

    Args:
        module: rows in, rows out, each by itself; a
            :class:`~support.models.architectures.Classifier` counts with its features.
        x: (N, ...) the points.
        iterations: of the power iteration.
        generator: of the first directions; default: a fresh one of fixed seed.

    Raises:
        ValueError: no points, a number of iterations below 1, or a module whose outputs are random
            or depend on the other points.
    """
    points("x", x)
    whole_number("iterations", iterations, 1)
    scoring_model(module, "module")
    inner = module.features if isinstance(module, Classifier) else module
    x = x.detach().contiguous()
    first_outputs(inner, x, module=module)

    def function(at: Tensor) -> Tensor:
        return inner(at.clone())  # it may write where it reads

    direction = normal(x.shape, random_stream(generator), x)
    steepest = x.new_zeros(len(x))
    for _ in range(iterations):
        direction = direction / _row_norms(direction).clamp_min(torch.finfo(x.dtype).tiny)
        pushed = torch.func.jvp(function, (x,), (direction,))[1].detach()
        steepest = torch.maximum(steepest, _row_norms(pushed).flatten())
        direction = torch.func.vjp(function, x)[1](pushed)[0].detach()
    return float(steepest.max())


def convolution_bound(weight: Tensor) -> float:
    """Upper bound on the spectral norm of a convolution with zero padding, for any image size,
    stride, dilation and padding.

    Its matrix is a compression of the operator on the infinite grid, whose norm is the largest
    spectral norm of the kernel's Fourier transform over all frequencies. That maximum is bounded by
    the one on a grid: a trigonometric polynomial of degree n, sampled at N > 2n points per period,
    is at most 1 / cos(pi n / N) times its largest sample (Ehlich and Zeller, 1964), here once per
    dimension. A kernel of width k has degree ceil((k - 1) / 2) about its middle.

    Args:
        weight: (out, in, kh, kw), of one group.
    """
    out, inputs, height, width = weight.shape
    degrees = [side // 2 for side in (height, width)]
    grid = max(32 if out * inputs <= 64 * 64 else 16, 4 * max(degrees))
    spectrum = torch.fft.rfft2(weight.to(torch.float64), s=(grid, grid))  # half; the rest conjugate
    largest = float(torch.linalg.matrix_norm(spectrum.permute(2, 3, 0, 1), ord=2).max())
    return largest / math.prod(math.cos(math.pi * degree / grid) for degree in degrees)


def _output_shape(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    reference = next(
        (t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()),
        torch.zeros((), dtype=torch.float32, device="cpu"),
    )
    with torch.no_grad():
        return tuple(module(reference.new_zeros(1, *shape)).shape[1:])


def _layer(module: nn.Module, shape: tuple[int, ...] | None, name: str) -> float:
    kind, idle = type(module), not module.training
    if kind in _SAME_OR_LESS or (kind in _OFF and idle):
        return 1.0
    # beyond its threshold it is the identity: where that is low, it jumps
    if kind is nn.Softplus and module.threshold >= 20 and module.beta:
        return 1.0
    if kind is nn.Sigmoid:
        return 0.25
    if kind is nn.LeakyReLU:
        return max(1.0, abs(module.negative_slope))
    if kind is nn.Linear:
        return float(torch.linalg.matrix_norm(module.weight.detach().to(torch.float64), ord=2))
    if kind is Normalise:
        return float(1 / module.std.to(torch.float64).abs().min())
    if kind in (nn.BatchNorm1d, nn.BatchNorm2d) and idle and module.running_var is not None:
        scale = (module.running_var.to(torch.float64) + module.eps).rsqrt()
        return float(
            (scale if module.weight is None else scale * module.weight.detach().abs()).max()
        )
    if kind is nn.Conv2d and module.padding_mode == "zeros":
        return _convolution(module, shape)
    if kind in (nn.MaxPool2d, nn.AvgPool2d) and _plain_pooling(module):
        kernel, stride = _pair(module.kernel_size), _pair(module.stride)
        # windows that one entry can lie in
        windows = math.prod(-(-k // s) for k, s in zip(kernel, stride, strict=True))
        return math.sqrt(windows / (math.prod(kernel) if kind is nn.AvgPool2d else 1))
    if kind is nn.AdaptiveAvgPool2d and _pair(module.output_size) == (1, 1):
        return 1.0 if shape is None else 1 / math.sqrt(math.prod(shape[-2:]))
    moody = kind in (*_OFF, nn.BatchNorm1d, nn.BatchNorm2d) and not idle
    mode = " in training mode" if moody else ""
    written = " ".join(str(module).split())
    raise ValueError(
        f"no Lipschitz bound is known here for {name}, a {kind.__name__}{mode}: {written:.100}"
    )


def _plain_pooling(module: nn.MaxPool2d | nn.AvgPool2d) -> bool:
    """Pooling whose every output is the maximum of one window, or its sum over the kernel's
    size."""
    if type(module) is nn.MaxPool2d:
        return _pair(module.dilation) == (1, 1) and not module.return_indices
    return (
        module.divisor_override is None
        and (module.count_include_pad or _pair(module.padding) == (0, 0))
        and not module.ceil_mode
    )


def _convolution(module: nn.Conv2d, shape: tuple[int, ...] | None) -> float:
    weight = module.weight.detach().to(torch.float64)
    size = 0 if shape is None else math.prod(shape)
    if not size or size * math.prod(_output_shape(module, shape)) > _EXPLICIT:
        return max(convolution_bound(group) for group in weight.chunk(module.groups))
    basis = torch.eye(size, dtype=torch.float64, device=weight.device).unflatten(1, shape)
    settings = module.stride, module.padding, module.dilation, module.groups
    matrix = nn.functional.conv2d(basis, weight, None, *settings).flatten(1)
    gram = matrix.T @ matrix if matrix.shape[1] < matrix.shape[0] else matrix @ matrix.T
    return math.sqrt(max(0.0, float(torch.linalg.eigvalsh(gram)[-1])))


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _row_norms(x: Tensor) -> Tensor:
    """Norm of each row over all its entries, shaped to be broadcast over them."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1).reshape(-1, *[1] * (x.dim() - 1))
