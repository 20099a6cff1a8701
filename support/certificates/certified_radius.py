"""What a Lipschitz constant certifies of a nearest-cluster classifier (alfarra2021; chapter 4)."""

import torch
from torch import Tensor

from support.common.arguments import class_vector, described, number
from support.models.heads import squared_distances


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
    lipschitz = number("lipschitz", float(lipschitz), above=0)
    d2 = squared_distances(features.to(torch.float64), centers.to(torch.float64))
    kinds = class_vector("center_labels", center_labels, len(centers)).to(d2.device)
    if len(kinds.unique()) < 2:
        raise ValueError(
            f"a rival needs centres of at least two classes; all {len(kinds)} are of class "
            f"{kinds.tolist()[:1]}"
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
    _vector("radii", radii)
    if not len(radii):
        raise ValueError("radii must be of at least one image; none was given")
    fits = isinstance(correct, Tensor) and correct.shape == radii.shape
    if not fits or correct.dtype != torch.bool:
        raise ValueError(
            f"correct must be a bool tensor of shape ({len(radii)},); {described(correct)} was "
            "given"
        )
    at = _vector("at", torch.as_tensor(at, dtype=radii.dtype, device=radii.device))
    return ((radii[:, None] > at) & correct[:, None]).double().mean(0)


def _vector(name: str, value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.dim() != 1 or not value.is_floating_point():
        raise ValueError(f"{name} must be a floating-point vector; {described(value)} was given")
    if value.isnan().any():
        raise ValueError(f"{name} must not contain NaN")
    return value
