"""How far a decision is from changing: Lipschitz bounds of networks, which certify, and the
magnitude-margin ratio, which does not.

A Lipschitz constant estimated from samples is a lower bound and certifies nothing:
    :func:`lipschitz_lower_bound` is there to show
how far an upper bound may be from the truth. The other bounds are upper ones, in l2, up to float64
rounding (chapters 1 and 4). The ratio of wang2022 is local, a first-order estimate at the image
(chapter 2).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from support.attacks.base import Model, check, even, fast_rows, margin, packed, refuse_probabilities
from support.common.arguments import class_vector
from support.models.architectures import Classifier, Normalise
from support.models.heads import squared_distances

_EXPLICIT = 4_000_000  # entries of a convolution's matrix up to which its norm is computed exactly
_ELEMENTWISE = {
    nn.Identity: 1.0,
    nn.Flatten: 1.0,
    nn.Unflatten: 1.0,
    nn.ReLU: 1.0,
    nn.Tanh: 1.0,
    nn.Softplus: 1.0,
    nn.Sigmoid: 0.25,
}


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
        ValueError: a layer without a known bound, named; among them residual blocks, and dropout or
            batch norm in training mode.
    """
    shape = None if input_shape is None else tuple(int(side) for side in input_shape)
    return _chain(module, shape, type(module).__name__)[0]


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
        ValueError: no points, or a number of iterations below 1.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() < 2 or not len(x):
        raise ValueError(
            f"x must hold at least one point as a row; {type(x).__name__} {tuple(getattr(x, 'shape', ()))} was given"
        )
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1; {iterations} was given")
    function = module.features if isinstance(module, Classifier) else module
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    direction = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    steepest = x.new_zeros(len(x))
    for _ in range(iterations):
        direction = direction / _row_norms(direction).clamp_min(torch.finfo(x.dtype).tiny)
        pushed = torch.func.jvp(function, (x,), (direction,))[1].detach()
        steepest = torch.maximum(steepest, _row_norms(pushed).flatten())
        direction = torch.func.vjp(function, x)[1](pushed)[0].detach()
    return float(steepest.max())


def robustness_radius(
    features: Tensor,
    centers: Tensor,
    center_labels: Tensor,
    lipschitz: float,
    labels: Tensor | None = None,
) -> Tensor:
    """Certified l2 radius of a nearest-cluster classifier: no shorter perturbation changes its
    class (alfarra2021, Prop. 1).

    For an own centre m and a rival r, |f - r|^2 - |f - m|^2 over 2 L |r - m| is the distance to
    their bisector over L. The minimum over *all* centres of other classes certifies that m stays
    nearer than each of them; the maximum over the own class's centres m is the best of these
    certificates. Taking the second nearest centre for the only rival, as the paper proposes, is no
    certificate: a farther rival may have a nearer bisector. It certifies the nearest centre's
        class, not the soft sum of Eq. 4.

    Args:
        features: (N, d).
        centers: (M, d).
        center_labels: (M,) int64 class of each centre, at least two different ones.
        lipschitz: L, positive: an upper bound on the features' l2 Lipschitz constant.
        labels: (N,) int64: measure the class given here. Default: the class of the nearest centre.

    Returns:
        (N,) float64. With the default at least 0, and 0 at a tie. With ``labels`` negative exactly
        where the nearest centre is of another class (how far, over L, the features are beyond the
        bisectors), so that positive means correct and certified.

    Raises:
        ValueError: shapes that do not fit, one class only, labels that no centre has, NaN, or L
            that is not positive.
    """
    lipschitz = float(lipschitz)
    if not 0 < lipschitz < math.inf:
        raise ValueError(f"lipschitz must be a positive number; {lipschitz} was given")
    d2 = squared_distances(features.to(torch.float64), centers.to(torch.float64))
    kinds = class_vector("center_labels", center_labels, len(centers)).to(d2.device)
    if len(kinds.unique()) < 2:
        raise ValueError(
            f"a rival needs centres of at least two classes; all {len(kinds)} are of class {kinds.tolist()[:1]}"
        )
    if labels is None:
        own = kinds[d2.argmin(1)]
    else:
        own = class_vector("labels", labels, len(features)).to(d2.device)
        if strangers := sorted(set(own.tolist()) - set(kinds.tolist())):
            raise ValueError(f"labels must be classes that have a centre; {strangers} have none")
    exact = centers.detach().to(torch.float64)
    apart = torch.cdist(exact, exact, compute_mode="donot_use_mm_for_euclid_dist")
    best = d2.new_full((len(d2),), -torch.inf)
    for m, kind in enumerate(kinds.tolist()):
        rows, rivals = torch.nonzero(own == kind)[:, 0], kinds != kind
        margin = d2[rows][:, rivals] - d2[rows, m, None]
        between = apart[m, rivals]
        # Two classes that share a centre: neither is ever nearer, from anywhere.
        distance = torch.where(between > 0, margin / (2 * between), 0.0).amin(1)
        best[rows] = torch.maximum(best[rows], distance)
    return best / lipschitz


def certified_accuracy(radii: Tensor, correct: Tensor, at: Tensor) -> Tensor:
    """Share of the images that are classified correctly and certified beyond a radius (alfarra2021,
    4.1).

    Args:
        radii: (N,) certified radii.
        correct: (N,) bool.
        at: (R,) radii of the curve, in the units of ``radii``.

    Returns:
        (R,) float64, falling; at 0 the share of correct images that are not on a bisector.

    Raises:
        ValueError: shapes or types that do not fit, no image, NaN.
    """
    if (
        not isinstance(radii, Tensor)
        or radii.dim() != 1
        or not len(radii)
        or not radii.is_floating_point()
        or radii.isnan().any()
    ):
        raise ValueError(
            "radii must be a floating-point tensor (N,) without NaN, of at least one image"
        )
    if (
        not isinstance(correct, Tensor)
        or correct.dtype != torch.bool
        or correct.shape != radii.shape
    ):
        given = (
            f"{correct.dtype} {tuple(correct.shape)}"
            if isinstance(correct, Tensor)
            else type(correct).__name__
        )
        raise ValueError(
            f"correct must be a bool tensor of shape ({len(radii)},); {given} was given"
        )
    at = torch.as_tensor(at, dtype=radii.dtype, device=radii.device)
    if at.dim() != 1 or at.isnan().any():
        raise ValueError(
            f"at must be one-dimensional and without NaN; its shape is {tuple(at.shape)}"
        )
    return ((radii[:, None] > at) & correct[:, None]).double().mean(0)


def convolution_bound(weight: Tensor) -> float:
    """Upper bound on the spectral norm of a convolution with zero padding, for any image size,
    stride, dilation and padding.

    Its matrix is a compression of the operator on the infinite grid, whose norm is the largest
    spectral norm of the kernel's Fourier transform over all frequencies. That maximum is bounded by
    the one on a grid: a trigonometric polynomial of degree n, sampled at N > 2n points per period,
        is at most 1 / cos(pi n / N) times its largest sample (Ehlich and Zeller, 1964), here
    once per dimension. A kernel of width k has degree ceil((k - 1) / 2) about its middle.

    Args:
        weight: (out, in, kh, kw), of one group.
    """
    out, inputs, height, width = weight.shape
    degrees = [side // 2 for side in (height, width)]
    points = max(32 if out * inputs <= 64 * 64 else 16, 4 * max(degrees))
    spectrum = torch.fft.rfft2(weight.to(torch.float64), s=(points, points)).permute(
        2, 3, 0, 1
    )  # the other half is its conjugate
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

    ``M_z = z_y - z_j`` with j the best other class (Eq. 4), and m the mean of ``|d M_z / d x|``
    over the image's n pixels and channels. To first order, ``eps n R = 1`` where a signed step of
    size eps brings the margin to zero. R does not change when z is multiplied by
    a number, but it depends on what z is: compare networks on the z before softmax and softRmax,
        not on log-probabilities.

    One forward and one backward pass for each batch: the margins' sum has every image's own
        gradient.

    Args:
        model: maps (n, ...) images in [0,1] to (n, K) log-scores.
        x: (N, ...) images in [0,1], float32 or float64.
        y: (N,) int64 true labels.
        scores: ``(model, x) -> (n, K)``, the z to be judged; default ``model(x)``. For a softRmax
            network: ``lambda model, x: model.head.logits(model.features(x))``.
        norm: "mean" as in the paper, or "l2", the Euclidean norm of the gradient, as in the
            authors' code: then ``1 / R`` is to first order the Euclidean distance to the boundary.
        batch_size: at most so many images in one pass; ``None`` picks what is fast on the device.

    Returns:
        (N,) in the dtype of ``x``, per unit of [0,1]; NaN for images whose z does not rank the
        label strictly first: Eq. 4 has no margin for them.

    Raises:
        ValueError: a wrong input, or scores that are NaN, probabilities, or no differentiable
            function of the image.
    """
    check(model, x, y, batch_size=batch_size)
    if norm not in ("mean", "l2"):
        raise ValueError(f'norm must be "mean" or "l2", not {norm!r}')
    if scores is not None and not callable(scores):
        raise ValueError(
            f"scores must be None or a callable (model, x) -> (n, K), not {type(scores).__name__}"
        )
    rows = even(len(x), batch_size or fast_rows(x, model=model, backward=True))
    ratios, seen = x.new_empty(len(x)), []
    for index, real in packed(torch.arange(len(x), device=x.device), rows):
        leaf, label = x.detach()[index].requires_grad_(), y[index]
        with torch.enable_grad():
            z = model(leaf) if scores is None else scores(model, leaf)
        _check_scores(z, label)
        found = z.detach()
        rival = found.scatter(1, label[:, None], -torch.inf).argmax(1)
        direction = (
            torch.zeros_like(found).scatter_(1, rival[:, None], -1).scatter_(1, label[:, None], 1)
        )
        slope = (
            torch.autograd.grad(z, leaf, direction, allow_unused=True)[0]
            if z.requires_grad
            else None
        )
        if slope is None:
            raise ValueError(
                "the scores do not depend differentiably on the image, so the margin has no gradient"
            )
        flat, margins = slope.flatten(1), margin(found, label)
        size = flat.abs().mean(1) if norm == "mean" else torch.linalg.vector_norm(flat, dim=1)
        ratios[index[:real]] = torch.where(margins > 0, size / margins, torch.nan)[:real].to(
            x.dtype
        )
        seen.append(found[:real])
    refuse_probabilities(torch.cat(seen))
    return ratios


def _check_scores(z: Tensor, y: Tensor) -> None:
    if (
        not isinstance(z, Tensor)
        or z.ndim != 2
        or len(z) != len(y)
        or z.shape[1] < 2
        or z.dtype not in (torch.float32, torch.float64)
    ):
        given = (
            f"{z.dtype} of shape {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
        )
        raise ValueError(
            f"scores of {len(y)} images must be float32 or float64 of shape ({len(y)}, K) with K >= 2; they are {given}"
        )
    if int(y.max()) >= z.shape[1]:
        raise ValueError(
            f"y holds label {int(y.max())}, but the model scores {z.shape[1]} classes, from 0 to {z.shape[1] - 1}"
        )


def _chain(
    module: nn.Module, shape: tuple[int, ...] | None, name: str
) -> tuple[float, tuple[int, ...] | None]:
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
    reference = next(
        (t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()),
        torch.zeros(()),
    )
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
    if (
        kind in (nn.BatchNorm1d, nn.BatchNorm2d)
        and not module.training
        and module.running_var is not None
    ):
        scale = (module.running_var.to(torch.float64) + module.eps).rsqrt()
        return float(
            (scale if module.weight is None else scale * module.weight.detach().abs()).max()
        )
    if kind is nn.Conv2d and module.padding_mode == "zeros":
        return _convolution(module, shape)
    if kind in (nn.MaxPool2d, nn.AvgPool2d) and _plain_pooling(module):
        kernel, stride = _pair(module.kernel_size), _pair(module.stride)
        windows = math.prod(
            -(-k // s) for k, s in zip(kernel, stride, strict=True)
        )  # that one entry can lie in
        return math.sqrt(windows / (math.prod(kernel) if kind is nn.AvgPool2d else 1))
    if kind is nn.AdaptiveAvgPool2d and _pair(module.output_size) == (1, 1):
        return 1.0 if shape is None else 1 / math.sqrt(math.prod(shape[-2:]))
    mode = (
        " in training mode"
        if module.training and ("Dropout" in kind.__name__ or "BatchNorm" in kind.__name__)
        else ""
    )
    raise ValueError(
        f"no Lipschitz bound is known here for {name}, a {kind.__name__}{mode}: {module}"
    )


def _plain_pooling(module: nn.MaxPool2d | nn.AvgPool2d) -> bool:
    """Pooling whose every output is the maximum of one window, or its sum over the kernel's
    size."""
    if type(module) is nn.MaxPool2d:
        return _pair(module.dilation) == (1, 1)
    return (
        module.divisor_override is None
        and (module.count_include_pad or _pair(module.padding) == (0, 0))
        and not module.ceil_mode
    )


def _convolution(module: nn.Conv2d, shape: tuple[int, ...] | None) -> float:
    weight = module.weight.detach().to(torch.float64)
    if (
        shape is not None
        and math.prod(shape) * math.prod(_output_shape(module, shape)) <= _EXPLICIT
    ):
        basis = torch.eye(math.prod(shape), dtype=torch.float64, device=weight.device).unflatten(
            1, shape
        )
        matrix = nn.functional.conv2d(
            basis, weight, None, module.stride, module.padding, module.dilation, module.groups
        ).flatten(1)
        gram = matrix.T @ matrix if matrix.shape[1] < matrix.shape[0] else matrix @ matrix.T
        return math.sqrt(max(0.0, float(torch.linalg.eigvalsh(gram)[-1])))
    return max(convolution_bound(group) for group in weight.chunk(module.groups))


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _row_norms(x: Tensor) -> Tensor:
    """Norm of each row over all its entries, shaped to be broadcast over them."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1).reshape(-1, *[1] * (x.dim() - 1))
