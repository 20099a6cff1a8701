"""The Magnet loss: features are pulled to the nearest cluster of their class and pushed from the
clusters of all others.

Rippel et al. (2016) trained it for metric learning, on neighbourhoods of clusters; alfarra2021
trains it for robustness. Values are computed in float64 through log-sum-exps, without floors: they
are exact at any distance, and so are the gradients. Chapter 4.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from support.clustering import Clusters
from support.common.arguments import class_vector, number, random_stream, whole_number
from support.models.heads import squared_distances

Reading = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Neighbourhoods:
    """Which images lie in which cluster, ready to be sampled from; made by :func:`neighbourhoods`.

    Attributes:
        centers: (M, d).
        labels: (M,) int64 class of each cluster.
        members: (N,) int64, all images, cluster by cluster.
        starts: (M + 1,) int64 on the CPU: cluster i has ``members[starts[i] : starts[i + 1]]``.
    """

    centers: Tensor
    labels: Tensor
    members: Tensor
    starts: Tensor


@dataclass(frozen=True)
class Batch:
    """A neighbourhood: a seed cluster, its impostors, and images of each.

    Attributes:
        clusters: (m,) int64, the seed cluster first, its impostors by distance.
        images: (m d,) int64, d of each cluster in turn.
        cluster: (m d,) int64 in 0 .. m - 1, the place of each image's cluster in ``clusters``.
    """

    clusters: Tensor
    images: Tensor
    cluster: Tensor


def clustering_loss(
    features: Tensor,
    labels: Tensor,
    centers: Tensor,
    center_labels: Tensor,
    *,
    own: Reading,
    others: Reading,
    together: Reading,
) -> Tensor:
    """The general clustering loss of alfarra2021, Eq. 2, image by image: H(F(own clusters),
    G(clusters of other classes)).

    Args:
        features: (N, d).
        labels: (N,) int64.
        centers: (M, d).
        center_labels: (M,) int64 class of each centre.
        own: F, from squared distances (N, M) float64 and the mask (N, M) of each image's own class
            to (N,).
        others: G, the same with the mask of the other classes.
        together: H, from the two (N,) to (N,).

    Returns:
        (N,) float64. The paper takes the mean.

    Raises:
        ValueError: shapes that do not fit, NaN, a label without a centre of its class or without
            one of another class.
    """
    d2, same = _distances(features, labels, centers, center_labels)
    return together(own(d2, same), others(d2, ~same))


def magnet_loss(
    features: Tensor,
    labels: Tensor,
    centers: Tensor,
    center_labels: Tensor,
    alpha: float,
    variance: float | Tensor | None = None,
    *,
    assigned: Tensor | None = None,
    detach_variance: bool = False,
    hinge: bool = True,
) -> Tensor:
    """The Magnet loss of each image (alfarra2021, Eq. 3; Rippel et al. 2016, Eq. 4).

    max(0, alpha + |f - c_own|^2 / 2v + log sum_other exp(-|f - c_other|^2 / 2v)), the sum over the
    centres of other classes.

    With the batch's own variance the loss does not change when features and centres are scaled
    together: it says nothing on the size of the numerator of the robustness radius, only on its
    ratio to the spread within the clusters.

    Args:
        features: (N, d).
        labels: (N,) int64.
        centers: (M, d). In training they are the means of the sampled clusters
            (:func:`segment_means`), and gradients reach them.
        center_labels: (M,) int64 class of each centre.
        alpha: the gap, a finite number.
        variance: v, positive. Default: the mean squared distance to the own centre, sum / (N - 1).
        assigned: (N,) int64, the own centre of each image, of its class. Default: the nearest one,
            as in Eq. 3.
        detach_variance: no gradient through the default variance.
        hinge: cut off below zero. An attack that climbs the loss wants it uncut: the cut has no
            gradient.

    Returns:
        (N,) in the features' dtype, at least float32; the paper takes the mean.

    Raises:
        ValueError: as :func:`clustering_loss`; a variance that is not positive, or none to be had
            from fewer than two images or from images that all lie at their centres; an assigned
            centre of another class.
    """
    d2, same = _distances(features, labels, centers, center_labels)
    number("alpha", alpha)
    if assigned is None:
        own = d2.masked_fill(~same, torch.inf).amin(1)
    else:
        place = class_vector("assigned", assigned, len(features), len(centers))[:, None]
        if wrong := int((~same.gather(1, place)).sum()):
            raise ValueError(
                f"assigned names centres of another class for {wrong} of {len(features)} images"
            )
        own = d2.gather(1, place)[:, 0]
    if variance is not None:
        number("variance", float(variance), above=0)
    else:
        if len(features) < 2:
            raise ValueError(
                f"a variance needs at least two images; {len(features)} was given: pass variance"
            )
        variance = own.sum() / (len(features) - 1)
        variance = variance.detach() if detach_variance else variance
        if not bool(variance > 0):
            raise ValueError("the variance is zero: every image lies at its centre; pass variance")
    # Masked after the division: an infinite distance over the variance would have no derivative.
    rivals = (d2 / (-2 * variance)).masked_fill(same, -torch.inf).logsumexp(1)
    value = alpha + own / (2 * variance) + rivals
    return (value.relu() if hinge else value).to(torch.promote_types(features.dtype, torch.float32))


def segment_means(features: Tensor, index: Tensor, n: int) -> Tensor:
    """Mean of the features of each segment, with gradients: the centres of a sampled neighbourhood.

    Args:
        features: (N, d).
        index: (N,) int64 in 0 .. n - 1, each at least once.
        n: number of segments.

    Returns:
        (n, d).

    Raises:
        ValueError: a segment without features, or an index out of range.
    """
    size = class_vector("index", index, len(features), n).bincount(minlength=n)
    if not bool(size.all()):
        raise ValueError(f"index must name each of the segments 0 .. {n - 1} at least once")
    return features.new_zeros(n, features.shape[1]).index_add(0, index, features) / size[:, None]


def neighbourhoods(clusters: Clusters) -> Neighbourhoods:
    """Sort the images of :func:`support.clustering.class_clusters` by cluster."""
    classes, k, _ = clusters.centers.shape
    sizes = clusters.index.bincount(minlength=classes * k)
    starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]).cpu()
    labels = torch.arange(classes, device=clusters.index.device).repeat_interleave(k)
    return Neighbourhoods(
        clusters.centers.flatten(0, 1), labels, clusters.index.argsort(stable=True), starts
    )


def sample(
    around: Neighbourhoods,
    losses: Tensor,
    *,
    m: int = 12,
    d: int = 20,
    generator: torch.Generator | None = None,
) -> Batch:
    """Draw a neighbourhood (Rippel et al. 2016, 3.2; alfarra2021, appendix A: m = 12, d = 20).

    The seed cluster is drawn with probability proportional to the mean of its images' last known
    losses; a cluster of which none is known counts with the largest mean there is, and all alike
    where none is positive. The impostors are the m - 1 clusters of other classes nearest to the
    seed. Of each cluster d images are drawn, none twice, unless the cluster has fewer.

    Args:
        around: the clusters.
        losses: (N,) the last loss of each image, NaN where it has none.
        m: clusters in the neighbourhood.
        d: images of each.
        generator: a CPU generator; default: a fresh one, the same in every call.

    Raises:
        ValueError: more impostors than clusters of other classes, a negative loss, numbers below 1,
            shapes that do not fit.
    """
    whole_number("m", m, 1)
    whole_number("d", d, 1)
    if losses.shape != around.members.shape or not losses.is_floating_point():
        wanted = f"floating point of shape {tuple(around.members.shape)}"
        raise ValueError(f"losses must be {wanted}; {losses.dtype} {tuple(losses.shape)} was given")
    if bool((losses < 0).any()):
        least = float(losses[losses < 0].min())
        raise ValueError(f"losses must not be negative; the least is {least}")
    generator = random_stream(generator)
    sizes = around.starts.diff()
    known = losses.double()[around.members]
    cluster = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
    cluster = cluster.to(known.device)
    blank = known.new_zeros(len(sizes))
    count = blank.index_add(0, cluster, (~known.isnan()).double())
    mean = blank.index_add(0, cluster, known.nan_to_num(0.0)) / count
    weight = torch.where(mean.isnan(), mean.nan_to_num(0.0).max(), mean).cpu()
    weight = weight if bool(weight.max() > 0) else torch.ones_like(weight)
    seed = torch.multinomial(weight, 1, generator=generator).to(around.labels.device)
    own = around.labels == around.labels[seed]
    d2 = squared_distances(around.centers[seed], around.centers)[0].masked_fill(own, torch.inf)
    rivals = int(d2.isfinite().sum())
    if m - 1 > rivals:
        raise ValueError(
            f"m = {m} wants {m - 1} impostors, but the other classes have {rivals} clusters: take "
            f"m at most {rivals + 1}"
        )
    clusters = torch.cat([seed, d2.topk(m - 1, largest=False).indices])

    def draw(size: int) -> Tensor:
        if size >= d:
            return torch.randperm(size, generator=generator, device=generator.device)[:d]
        return torch.randint(size, (d,), generator=generator, device=generator.device)

    places = torch.cat([int(around.starts[i]) + draw(int(sizes[i])) for i in clusters.tolist()])
    images = around.members[places.to(around.members.device)]
    return Batch(clusters, images, torch.arange(m, device=images.device).repeat_interleave(d))


def _distances(
    features: Tensor, labels: Tensor, centers: Tensor, center_labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Squared distances (N, M) in float64, and which centres are of the image's own class, after
    all checks."""
    class_vector("labels", labels, len(features))
    class_vector("center_labels", center_labels, len(centers))
    d2 = squared_distances(features.to(torch.float64), centers.to(torch.float64))
    same = labels[:, None] == center_labels
    if not bool((same.any(1) & ~same.all(1)).all()):
        raise ValueError(
            "every image needs a centre of its class and one of another; centres are of classes "
            f"{center_labels.unique().tolist()}, images of {labels.unique().tolist()}"
        )
    return d2, same
