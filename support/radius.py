"""How far a decision is from changing: Lipschitz bounds of networks, which certify, and the magnitude-margin ratio, which does not.

A Lipschitz constant estimated from samples is a lower bound and certifies nothing. The bounds here are upper ones, in l2, up
to float64 rounding (chapters 1 and 4). The ratio of wang2022 is local, a first-order estimate at the image (chapter 2).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from support.attacks._contract import Model, check, even, fast_rows, margin, packed, refuse_probabilities
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


@torch.inference_mode(False)
@torch.no_grad()
def magnitude_margin_ratio(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    scores: Callable[[Model, Tensor], Tensor] | None = None,
    norm: str = "mean",
    batch_size: int | None = None,
) -> Tensor:
    """R = m / M_z, the size of the margin's gradient over the margin (wang2022, Eq. 17; chapter 2).

    ``M_z = z_y - z_j`` with j the best other class (Eq. 4), and m the mean of ``|d M_z / d x|`` over the image's n pixels and channels.
    To first order, ``eps n R = 1`` where a signed step of size eps brings the margin to zero. R does not change when z is multiplied by
    a number, but it depends on what z is: compare networks on the z before softmax and softRmax, not on log-probabilities.

    One forward and one backward pass for each batch: the margins' sum has every image's own gradient.

    Args:
        model: maps (n, ...) images in [0,1] to (n, K) log-scores.
        x: (N, ...) images in [0,1], float32 or float64.
        y: (N,) int64 true labels.
        scores: ``(model, x) -> (n, K)``, the z to be judged; default ``model(x)``. For a softRmax network:
            ``lambda model, x: model.head.logits(model.features(x))``.
        norm: "mean" as in the paper, or "l2", the Euclidean norm of the gradient, as in the authors' code: then ``1 / R`` is to first
            order the Euclidean distance to the boundary.
        batch_size: at most so many images in one pass; ``None`` picks what is fast on the device.

    Returns:
        (N,) in the dtype of ``x``, per unit of [0,1]; NaN for images whose z does not rank the label strictly first:
        Eq. 4 has no margin for them.

    Raises:
        ValueError: a wrong input, or scores that are NaN, probabilities, or no differentiable function of the image.
    """
    check(model, x, y, batch_size=batch_size)
    if norm not in ("mean", "l2"):
        raise ValueError(f'norm must be "mean" or "l2", not {norm!r}')
    if scores is not None and not callable(scores):
        raise ValueError(f"scores must be None or a callable (model, x) -> (n, K), not {type(scores).__name__}")
    rows = even(len(x), batch_size or fast_rows(x, model=model, backward=True))
    ratios, seen = x.new_empty(len(x)), []
    for index, real in packed(torch.arange(len(x), device=x.device), rows):
        leaf, label = x.detach()[index].requires_grad_(), y[index]
        with torch.enable_grad():
            z = model(leaf) if scores is None else scores(model, leaf)
        _check_scores(z, label)
        found = z.detach()
        rival = found.scatter(1, label[:, None], -torch.inf).argmax(1)
        direction = torch.zeros_like(found).scatter_(1, rival[:, None], -1).scatter_(1, label[:, None], 1)
        slope = torch.autograd.grad(z, leaf, direction, allow_unused=True)[0] if z.requires_grad else None
        if slope is None:
            raise ValueError("the scores do not depend differentiably on the image, so the margin has no gradient")
        flat, margins = slope.flatten(1), margin(found, label)
        size = flat.abs().mean(1) if norm == "mean" else torch.linalg.vector_norm(flat, dim=1)
        ratios[index[:real]] = torch.where(margins > 0, size / margins, torch.nan)[:real].to(x.dtype)
        seen.append(found[:real])
    refuse_probabilities(torch.cat(seen))
    return ratios


def _check_scores(z: Tensor, y: Tensor) -> None:
    if not isinstance(z, Tensor) or z.ndim != 2 or len(z) != len(y) or z.shape[1] < 2 or z.dtype not in (torch.float32, torch.float64):
        given = f"{z.dtype} of shape {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
        raise ValueError(f"scores of {len(y)} images must be float32 or float64 of shape ({len(y)}, K) with K >= 2; they are {given}")
    if int(y.max()) >= z.shape[1]:
        raise ValueError(f"y holds label {int(y.max())}, but the model scores {z.shape[1]} classes, from 0 to {z.shape[1] - 1}")


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
