"""ClusTR: fine-tuning with the Magnet loss, and QTRADES, the one-step regulariser beside it
(alfarra2021, sections 3.3 and 4.2).

Chapter 4.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from support import models
from support.attacks import interval, kernel_scores
from support.attacks.base import uniform
from support.clustering import Clusters, class_clusters
from support.common import progress
from support.common.arguments import number, whole_number
from support.models.architectures import Classifier
from support.models.heads import ClusterHead
from support.training import fitting, magnet

Scores = Callable[[Tensor], Tensor]


def soft_cross_entropy(scores: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of one prediction under another: -sum_k t_k log p_k, with p the softmax of
    ``scores`` and t that of ``target``.

    The second term of alfarra2021, Eq. 6. It is the Kullback-Leibler divergence of TRADES plus the
    entropy of t: it is not zero where the two agree, and lowering it through t makes the clean
    prediction more certain.

    Args:
        scores, target: (N, K) log-scores.

    Returns:
        (N,).
    """
    log_p, log_t = scores.log_softmax(1), target.log_softmax(1)
    # A class that cannot win has probability zero and logarithm minus infinity: their product
    # counts as zero.
    return -torch.where(log_t == -torch.inf, 0.0, log_t.exp() * log_p).sum(1)


def quick_adversary(
    scores: Scores, x: Tensor, clean: Tensor, noise: Tensor, eps: float, step_size: float
) -> Tensor:
    """QTRADES' adversary: uniform noise, then one signed step up the cross-entropy with the clean
    prediction (alfarra2021, 4.2).

    Args:
        scores: from images to (N, K) log-scores; it is called once, in whatever mode its module is.
        x: (N, ...) images in [0, 1].
        clean: (N, K) their log-scores.
        noise: (N, ...) draws, uniform in [0, 1).
        eps: of the noise and of the ball, in units of [0, 1].
        step_size: of the step; the authors have 10/255 at eps 8/255 (in their code, not in the
            paper).

    Returns:
        The adversarial images, inside the eps-ball and [0, 1] exactly.

    Raises:
        ValueError: eps or step_size that is not a number of at least 0.
    """
    number("eps", eps, least=0)
    number("step_size", step_size, least=0)
    low, high = interval(x, eps)
    with torch.enable_grad():
        start = (x + eps * (2 * noise - 1)).clamp(0, 1).detach().requires_grad_()
        climbed = soft_cross_entropy(scores(start), clean.detach()).sum()
        slope = torch.autograd.grad(climbed, start)[0]
    return torch.clamp(start.detach() + step_size * slope.sign(), low, high)


def qtrades_loss(
    model: Classifier, x: Tensor, y: Tensor, *, eps: float, step_size: float, weight: float
) -> Tensor:
    """Training loss of QTRADES alone: cross-entropy with the label plus ``weight`` times Eq. 6's
    term, (N,).

    The adversary is made in evaluation mode and with draws of torch's global generator, which
    :func:`support.training.fit` seeds for each epoch.
    """
    clean, noise = model(x), torch.rand_like(x)
    adversary = quick_adversary(fitting.evaluating(model), x, clean, noise, eps, step_size)
    label_term = torch.nn.functional.cross_entropy(clean, y, reduction="none")
    return label_term + weight * soft_cross_entropy(model(adversary), clean)


def fine_tune(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    n_classes: int,
    *,
    clusters: int = 2,
    sampled: int = 12,
    images: int = 20,
    alpha: float = 12.5,
    epochs: int,
    lr: float = 1e-4,
    weight: float = 0.0,
    eps: float = 8 / 255,
    step_size: float = 10 / 255,
    as_published: bool = False,
    augment: bool = False,
    seed: int = 0,
    device: str | torch.device = "cpu",
    name: str = "magnet",
    on_epoch: Callable[[Classifier, int], object] | None = None,
) -> fitting.FitResult:
    """Train features with the Magnet loss on sampled neighbourhoods (alfarra2021, 3.3 and appendix
    A), from wherever ``model`` stands.

    Before each epoch the training features are clustered class by class; an epoch is as many steps
    as pass one data set's worth of images. A step samples ``sampled`` clusters and takes the means
    of their features in the batch for centres, as Rippel et al. do. With ``weight`` it adds
    QTRADES: Eq. 6's cross-entropy of the adversary's prediction with the clean one, both under Eq.
    4 with the epoch's clusters; the adversary is made in evaluation mode. Adam with a constant
    rate, as the authors' schedule turns out.

    ClusTR is this after softmax training; "Magnet loss" in the paper's tables is this from random
    weights.

    Args:
        model: its body is trained in place; its head is not looked at.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 in 0 .. n_classes - 1, each class at least ``clusters`` times.
        n_classes: C.
        clusters: K, clusters per class.
        sampled, images: m clusters a step, d images of each; m at most 1 + (C - 1) K.
        alpha: the gap of the Magnet loss.
        epochs: at least 1.
        lr: of Adam.
        weight: lambda of Eq. 6; 0 for ClusTR without QTRADES.
        eps, step_size: of QTRADES' adversary.
        as_published: take the kernel sums for the adversary's logits, in the step and in the loss,
            as the authors' code does (:func:`support.attacks.kernel_scores`); without it the
            log-probabilities, as Eq. 6 says.
        augment: random crops and flips.
        seed: of all draws.
        device: where to train.
        name: on the progress bar.
        on_epoch: called as ``on_epoch(model, epoch)`` before the first epoch with -1 and after
            each, with the model under the clusters of its training features.

    Returns:
        The model in evaluation mode, under a :class:`~support.models.heads.ClusterHead` of the
        training features' clusters and variance, and the mean ``loss`` of each epoch, Magnet loss
        and regulariser together.

    Raises:
        ValueError: inputs that do not fit, from the kernels used.
        FloatingPointError: the loss became infinite or NaN.
    """
    whole_number("epochs", epochs, 1)
    number("lr", lr, above=0)
    device = torch.device(device)
    generator = torch.Generator().manual_seed(seed)
    body = model.body.to(device)
    x, y = x.to(device), y.to(device)
    scores = kernel_scores if as_published else fitting.mixed_scores
    optimizer = torch.optim.Adam(body.parameters(), lr=lr)
    losses = torch.full((len(x),), float("nan"), dtype=torch.float32, device=device)
    steps = -(-len(x) // (sampled * images))
    mean_losses, began = [], fitting.clock(device)
    tuned, found = _clustered(model, x, y, n_classes, clusters, generator)
    if on_epoch is not None:
        on_epoch(tuned, -1)
    with progress.bar(epochs * steps, name) as bar:
        for epoch in range(epochs):
            around, total = magnet.neighbourhoods(found), x.new_zeros(())
            for _ in range(steps):
                batch = magnet.sample(around, losses, m=sampled, d=images, generator=generator)
                shown, labels = x[batch.images], y[batch.images]
                if augment:
                    shown = fitting.random_crop_flip(shown, generator)
                body.train()
                f = fitting.mixed_features(tuned, shown)
                centers = magnet.segment_means(f, batch.cluster, sampled)
                kinds = around.labels[batch.clusters]
                each = magnet.magnet_loss(f, labels, centers, kinds, alpha, assigned=batch.cluster)
                loss = each.mean()
                if weight:
                    clean = tuned.head(f)
                    noise = uniform(shown.shape, generator, shown)
                    inner = fitting.evaluating(tuned, scores)
                    adversary = quick_adversary(inner, shown, clean, noise, eps, step_size)
                    quick = soft_cross_entropy(scores(tuned, adversary), clean)
                    loss = loss + weight * quick.mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                losses[batch.images] = each.detach().float()
                total += loss.detach()
                bar.update()
            mean_losses.append(fitting.finite_loss(float(total) / steps, epoch, lr))
            tuned, found = _clustered(model, x, y, n_classes, clusters, generator)
            if on_epoch is not None:
                on_epoch(tuned, epoch)
    optimizer.zero_grad(set_to_none=True)
    return fitting.FitResult(tuned, {"loss": mean_losses}, fitting.clock(device) - began)


def cluster_classifier(
    model: Classifier, x: Tensor, y: Tensor, n_classes: int, *, clusters: int = 2, seed: int = 0
) -> Classifier:
    """The same features read by Eq. 4: clusters of the training features of each class, and their
    variance.

    Args:
        model: any classifier, in evaluation mode; its body is shared.
        x, y: the training images and labels, as in :func:`fine_tune`.
        n_classes, clusters: C and K.
        seed: of k-means.
    """
    return _clustered(model, x, y, n_classes, clusters, torch.Generator().manual_seed(seed))[0]


def _clustered(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    n_classes: int,
    clusters: int,
    generator: torch.Generator,
) -> tuple[Classifier, Clusters]:
    model.eval()
    f = fitting.extract(model, x)
    found = class_clusters(f, y.to(f.device), n_classes, clusters, generator=generator)
    variance = float(found.inertia.sum()) / max(len(x) - 1, 1)  # Eq. 3's, over all training images
    return models.with_head(model, ClusterHead(found.centers, variance).to(f.device)), found
