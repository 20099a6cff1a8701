"""Lipschitz bounds of networks, and what they certify.

A Lipschitz constant estimated from samples is a lower bound and certifies nothing. Everything here is an upper bound, in l2, up
to float64 rounding. Chapters 1 and 4.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from support.models import Classifier, Normalise

_EXPLICIT = 4_000_000  # entries of a convolution's matrix up to which its norm is computed exactly
_ELEMENTWISE = {nn.Identity: 1.0, nn.Flatten: 1.0, nn.Unflatten: 1.0, nn.ReLU: 1.0, nn.Tanh: 1.0, nn.Softplus: 1.0, nn.Sigmoid: 0.25}


def lipschitz_upper_bound(module: nn.Module, input_shape: Sequence[int] | None = None) -> float:
    """Product of upper bounds on the layers' l2 Lipschitz constants.

    Linear layers count with their exact spectral norm; a convolution with the exact norm of its matrix where ``input_shape`` is
    known and that matrix is small (4 million entries), else with :func:`convolution_bound`. Batch norm counts in evaluation
    mode, as the affine map it then is.

    Args:
        module: a Sequential of known layers, a single one, or a :class:`~support.models.Classifier`, of which the feature map is
            bounded (without its head).
        input_shape: (C, H, W), or the shape of whatever the module takes, without the batch; makes the bound smaller.

    Returns:
        L with |module(x) - module(y)| <= L |x - y|, norms taken over all entries of an image.

    Raises:
        ValueError: a layer without a known bound, named; among them residual blocks, and dropout or batch norm in training mode.
    """
    shape = None if input_shape is None else tuple(int(side) for side in input_shape)
    return _chain(module, shape, type(module).__name__)[0]


def convolution_bound(weight: Tensor) -> float:
    """Upper bound on the spectral norm of a convolution with zero padding, for any image size, stride, dilation and padding.

    Its matrix is a compression of the operator on the infinite grid, whose norm is the largest spectral norm of the kernel's
    Fourier transform over all frequencies. That maximum is bounded by the one on a grid: a trigonometric polynomial of degree n,
    sampled at N > 2n points per period, is at most 1 / cos(pi n / N) times its largest sample (Ehlich and Zeller, 1964), here
    once per dimension. A kernel of width k has degree ceil((k - 1) / 2) about its middle.

    Args:
        weight: (out, in, kh, kw), of one group.
    """
    out, inputs, height, width = weight.shape
    degrees = [side // 2 for side in (height, width)]
    points = max(32 if out * inputs <= 64 * 64 else 16, 4 * max(degrees))
    spectrum = torch.fft.rfft2(weight.to(torch.float64), s=(points, points)).permute(2, 3, 0, 1)  # the other half is its conjugate
    largest = float(torch.linalg.matrix_norm(spectrum, ord=2).max())
    return largest / math.prod(math.cos(math.pi * degree / points) for degree in degrees)


def _chain(module: nn.Module, shape: tuple[int, ...] | None, name: str) -> tuple[float, tuple[int, ...] | None]:
    """Bound of a module, and the shape of what it makes of an input of that shape."""
    if isinstance(module, Classifier):
        return _chain(module.body, shape, f"{name}.body")
    if isinstance(module, nn.Sequential):
        bound = 1.0
        for child_name, child in module.named_children():
            factor, shape = _chain(child, shape, f"{name}.{child_name}")
            bound *= factor
        return bound, shape
    bound = _layer(module, shape, name)
    return bound, None if shape is None else _output_shape(module, shape)


def _output_shape(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    reference = next((t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()), torch.zeros(()))
    with torch.no_grad():
        return tuple(module(reference.new_zeros(1, *shape)).shape[1:])


def _layer(module: nn.Module, shape: tuple[int, ...] | None, name: str) -> float:
    kind = type(module)  # not isinstance: a subclass may compute something else
    if kind in _ELEMENTWISE:
        return _ELEMENTWISE[kind]
    if kind is nn.LeakyReLU:
        return max(1.0, abs(module.negative_slope))
    if kind is nn.Linear:
        return float(torch.linalg.matrix_norm(module.weight.detach().to(torch.float64), ord=2))
    if kind is Normalise:
        return float(1 / module.std.to(torch.float64).min())
    if kind in (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d) and not module.training:
        return 1.0
    if kind in (nn.BatchNorm1d, nn.BatchNorm2d) and not module.training and module.running_var is not None:
        scale = (module.running_var.to(torch.float64) + module.eps).rsqrt()
        return float((scale if module.weight is None else scale * module.weight.detach().abs()).max())
    if kind is nn.Conv2d and module.padding_mode == "zeros":
        return _convolution(module, shape)
    if kind in (nn.MaxPool2d, nn.AvgPool2d) and _plain_pooling(module):
        kernel, stride = _pair(module.kernel_size), _pair(module.stride)
        windows = math.prod(-(-k // s) for k, s in zip(kernel, stride, strict=True))  # that one entry can lie in
        return math.sqrt(windows / (math.prod(kernel) if kind is nn.AvgPool2d else 1))
    if kind is nn.AdaptiveAvgPool2d and _pair(module.output_size) == (1, 1):
        return 1.0 if shape is None else 1 / math.sqrt(math.prod(shape[-2:]))
    mode = " in training mode" if module.training and ("Dropout" in kind.__name__ or "BatchNorm" in kind.__name__) else ""
    raise ValueError(f"no Lipschitz bound is known here for {name}, a {kind.__name__}{mode}: {module}")


def _plain_pooling(module: nn.MaxPool2d | nn.AvgPool2d) -> bool:
    """Pooling whose every output is the maximum of one window, or its sum over the kernel's size."""
    if type(module) is nn.MaxPool2d:
        return _pair(module.dilation) == (1, 1)
    return module.divisor_override is None and (module.count_include_pad or _pair(module.padding) == (0, 0)) and not module.ceil_mode


def _convolution(module: nn.Conv2d, shape: tuple[int, ...] | None) -> float:
    weight = module.weight.detach().to(torch.float64)
    if shape is not None and math.prod(shape) * math.prod(_output_shape(module, shape)) <= _EXPLICIT:
        basis = torch.eye(math.prod(shape), dtype=torch.float64, device=weight.device).unflatten(1, shape)
        matrix = nn.functional.conv2d(basis, weight, None, module.stride, module.padding, module.dilation, module.groups).flatten(1)
        gram = matrix.T @ matrix if matrix.shape[1] < matrix.shape[0] else matrix @ matrix.T
        return math.sqrt(max(0.0, float(torch.linalg.eigvalsh(gram)[-1])))
    return max(convolution_bound(group) for group in weight.chunk(module.groups))


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
