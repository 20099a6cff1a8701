"""The one algebra of the book: class scores are log-kernels of distances to class centres.

======== ======================================= ==================== =================
head     log-score of class k                    centres              paper
======== ======================================= ==================== =================
linear   f . w_k + b_k                           Theorem 1's          hess2020
Gauss    -gamma |f - c_k|^2                      one per class        hess2020, Eq. 4
softRmax log p_k, p_k ~ 1 / |z - e_k|^2          the unit vectors     wang2022, Eq. 12
cluster  log sum_m exp(-|f - c_km|^2 / 2 var)    M per class          alfarra2021, Eq. 4
======== ======================================= ==================== =================

A head is a module from features (N, d) to log-scores (N, K); ``head.confidence(scores)`` turns the
scores into the confidences (N, K) of its paper. Attacks and losses work on the log-scores, because
a kernel of a large distance underflows in float32 and takes its gradient with it; the logarithm of
the kernel does not.
"""

import torch
from torch import Tensor, nn

from support.common.arguments import described, matrix, number, whole_number


def squared_distances(features: Tensor, centers: Tensor) -> Tensor:
    """Squared Euclidean distances, by one matrix product.

    The product is taken in float64 about the centres' mean, so that a distance far below the norms
    keeps its digits, and rounded at the end. The result is never negative; its gradient is finite
    everywhere, at a centre too. Used by all chapters.

    Args:
        features: (N, d), floating point.
        centers: (K, d).

    Returns:
        (N, K) in the features' dtype, but at least float32.

    Raises:
        ValueError: shapes that do not fit, integer or NaN entries.
    """
    _check("features", features, 2)
    _check("centers", centers, 2)
    if features.shape[1] != centers.shape[1]:
        raise ValueError(
            f"features have {features.shape[1]} columns and centers {centers.shape[1]}: they must "
            "agree"
        )
    kind = features.device.type
    # bf16 has three digits: too few for a difference of squares
    with torch.autocast(kind, enabled=False):
        working = torch.float32 if kind == "mps" else torch.float64  # Apple's GPUs have no float64
        origin = centers.detach().to(working).mean(0)
        f, c = features.to(working) - origin, centers.to(working) - origin
        d2 = f.square().sum(1, keepdim=True) + c.square().sum(1) - 2 * f @ c.T
        return d2.clamp_min(0).to(torch.promote_types(features.dtype, torch.float32))


def gauss_log_confidence(features: Tensor, centers: Tensor, gamma: float = 1.0) -> Tensor:
    """Logarithm of the Gauss confidence, -gamma |f - c_k|^2 (hess2020, Definition 1, with the
    kernel's width; chapter 1).

    Args:
        features: (N, d).
        centers: (K, d).
        gamma: positive; one over the squared unit of length of the features. The paper has 1.

    Returns:
        (N, K), at most 0. Finite where the confidence itself underflows to zero.

    Raises:
        ValueError: gamma that is not a positive number, or as :func:`squared_distances`.
    """
    return -number("gamma", float(gamma), above=0) * squared_distances(features, centers)


def log_softrmax(z: Tensor) -> Tensor:
    """Logarithm of softRmax, log p_i with p_i = |z - e_i|^-2 / sum_j |z - e_j|^-2 (wang2022, Eq.
    12; chapter 2).

    With m = argmax z and D = |z - e_m|^2, |z - e_i|^2 = D + 2 (z_m - z_i): no distance is ever the
    difference of two large numbers, and the classes keep the order of z however far out z lies. At
    z = e_i, log p_i is 0 and the others are minus infinity, with zero gradients (a subgradient for
    i; the others' limits depend on the direction).

    Args:
        z: (N, K).

    Returns:
        (N, K) log-probabilities.

    Raises:
        ValueError: not a matrix of floating-point numbers without NaN.
    """
    _check("z", z, 2)
    top = z.argmax(1, keepdim=True)
    gap = z.gather(1, top) - z
    # Divided by a common scale, nothing overflows: the result depends on ratios of distances only.
    scale = z.detach().abs().amax(1, keepdim=True).clamp_min(1)
    unit = torch.zeros_like(z).scatter_(1, top, 1.0)
    nearest = ((z - unit) / scale).square().sum(1, keepdim=True) * scale
    at_center = nearest == 0
    # gap * 2 / nearest, but with a finite gradient where it is 0 / 0 or x / 0
    excess = torch.where(at_center, 0.0, 2 * (gap / scale) / torch.where(at_center, 1.0, nearest))
    log_ratio = -torch.log1p(excess)
    log_p = log_ratio - log_ratio.logsumexp(1, keepdim=True)
    certain = torch.where(unit.bool(), 0.0, -torch.inf)
    return torch.where(at_center, certain, log_p)


def softrmax(z: Tensor) -> Tensor:
    """softRmax probabilities (wang2022, Eq. 12), (N, K): :func:`log_softrmax` exponentiated. They
    tend to 1/K as |z| grows."""
    return log_softrmax(z).exp()


def cluster_log_prob(
    features: Tensor, centers: Tensor, variance: float, nearest: int | None = None
) -> Tensor:
    """Log-probabilities of a soft nearest-cluster classifier (alfarra2021, Eq. 4; chapter 4).

    p_k = sum_m exp(-|f - c_km|^2 / 2 variance) / the same sum over all clusters of all classes.

    Args:
        features: (N, d).
        centers: (K, M, d): M clusters for each of K classes.
        variance: positive, in squared units of the features.
        nearest: count only this many clusters, the nearest ones of all classes together (the
            paper's D or L), 1 .. K M.

    Returns:
        (N, K). A class without any counted cluster has minus infinity, and gradient zero.

    Raises:
        ValueError: shapes that do not fit, a variance that is not positive, ``nearest`` out of
            range, NaN.
    """
    _check("centers", centers, 3)
    n_classes, per_class, _ = centers.shape
    width = 2 * number("variance", float(variance), above=0)
    log_kernel = -squared_distances(features, centers.flatten(0, 1)) / width
    if nearest is not None:
        whole_number("nearest", nearest, 1, n_classes * per_class)
        counted = log_kernel.topk(nearest, dim=1).indices
        left_out = torch.ones_like(log_kernel, dtype=torch.bool).scatter_(1, counted, False)
        log_kernel = log_kernel.masked_fill(left_out, -torch.inf)
    grouped = log_kernel.unflatten(1, (n_classes, per_class))
    empty = (grouped == -torch.inf).all(2)
    # The sum over no cluster at all has no gradient; a finite stand-in keeps NaN out of the
    # backward pass.
    some = grouped.masked_fill(empty[:, :, None], 0.0).logsumexp(2)
    return some.masked_fill(empty, -torch.inf) - log_kernel.logsumexp(1, keepdim=True)


class LinearHead(nn.Module):
    """Scores f . w_k + b_k; confidence is the softmax. Weight and bias are copied and trainable.

    Args:
        weight: (K, d).
        bias: (K,) or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        super().__init__()
        _check("weight", weight, 2)
        self.weight = nn.Parameter(weight.detach().clone())
        if bias is not None:
            _check("bias", bias, 1)
            if len(bias) != len(weight):
                raise ValueError(
                    f"bias must have one entry per row of the weight, {len(weight)}; {len(bias)} "
                    "were given"
                )
            bias = nn.Parameter(bias.detach().clone())
        self.register_parameter("bias", bias)

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.linear(features, self.weight, self.bias)

    @staticmethod
    def confidence(scores: Tensor) -> Tensor:
        return scores.softmax(1)

    def extra_repr(self) -> str:
        classes, features = self.weight.shape
        return f"classes={classes}, features={features}, bias={self.bias is not None}"


class GaussHead(nn.Module):
    """Scores -gamma |f - c_k|^2; confidence is their exponential, not normalised: it vanishes far
    from all centres (hess2020, Eq. 4).

    Args:
        centers: (K, d), kept as a buffer: Algorithm 1 of hess2020 leaves them where they are.
        gamma: positive number; ``head.gamma``.
    """

    def __init__(self, centers: Tensor, gamma: float = 1.0):
        super().__init__()
        _check("centers", centers, 2)
        self.register_buffer("centers", centers.detach().clone())
        self.gamma = number("gamma", float(gamma), above=0)

    def forward(self, features: Tensor) -> Tensor:
        return gauss_log_confidence(features, self.centers, self.gamma)

    confidence = staticmethod(torch.exp)

    def extra_repr(self) -> str:
        classes, features = self.centers.shape
        return f"classes={classes}, features={features}, gamma={self.gamma!r}"


class SoftRmaxHead(LinearHead):
    """Linear z = f W^T + b, then log softRmax (wang2022, Eq. 12): the scores are log-probabilities,
    and confidence their exponential.

    The logits z themselves, which rank the classes alike, are ``head.logits(features)``.
    """

    def logits(self, features: Tensor) -> Tensor:
        return super().forward(features)

    def forward(self, features: Tensor) -> Tensor:
        z = self.logits(features)
        return log_softrmax(z.to(torch.promote_types(z.dtype, torch.float32)))

    confidence = staticmethod(torch.exp)


class ClusterHead(nn.Module):
    """Scores are the log-probabilities of :func:`cluster_log_prob` (alfarra2021, Eq. 4), confidence
    their exponential.

    Args:
        centers: (K, M, d), kept as a buffer.
        variance: positive number.
        nearest: as in :func:`cluster_log_prob`.
    """

    def __init__(self, centers: Tensor, variance: float, nearest: int | None = None):
        super().__init__()
        _check("centers", centers, 3)
        self.register_buffer("centers", centers.detach().clone())
        self.variance = number("variance", float(variance), above=0)
        self.nearest = nearest

    def forward(self, features: Tensor) -> Tensor:
        return cluster_log_prob(features, self.centers, self.variance, self.nearest)

    confidence = staticmethod(torch.exp)

    def extra_repr(self) -> str:
        sizes = f"classes, clusters, features={tuple(self.centers.shape)}"
        return f"{sizes}, variance={self.variance!r}, nearest={self.nearest}"


def last_layer(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weight (K, d) and bias (K,) of a linear layer in float64, zeros where it has no bias.

    Raises:
        ValueError: no matrix, a bias of another length, NaN or infinity.
    """
    w = matrix("weight", weight).to(torch.float64)
    if bias is None:
        return w, w.new_zeros(len(w))
    if not isinstance(bias, Tensor) or bias.shape != w.shape[:1] or not bias.isfinite().all():
        raise ValueError(
            f"bias must be {len(w)} finite numbers, one per row of the weight; {described(bias)} "
            "was given"
        )
    return w, bias.to(torch.float64)


def _check(name: str, value: Tensor, dimensions: int) -> None:
    """Refuse what is no tensor of floating-point numbers without NaN (infinity passes)."""
    if not isinstance(value, Tensor) or value.dim() != dimensions or not value.is_floating_point():
        raise ValueError(
            f"{name} must be a floating-point tensor with {dimensions} dimensions; "
            f"{described(value)} was given"
        )
    if value.isnan().any():
        raise ValueError(
            f"{name} must not contain NaN; {int(value.isnan().sum())} of {value.numel()} entries "
            "are"
        )
