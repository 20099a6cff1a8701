"""Attacks on classifiers that map [0,1] images to log-scores.

- :mod:`~support.attacks.gradient`: :func:`pgd`, the one to begin with, :func:`pgd_targets`,
  :func:`bim`, :func:`mifgsm`, :func:`fgsm` and :func:`rfgsm`, which follow a gradient's sign;
- :mod:`~support.attacks.multi_targeted`: :func:`multi_targeted`, short rounds towards every rival,
  which finds most for its passes;
- :mod:`~support.attacks.minimal_l2`: :func:`lbfgs`, the least distortion;
- :mod:`~support.attacks.minimum_norm`: :func:`fmn`, the least distance in the Euclidean or the
  maximum norm, in the box or in free space, and :func:`sigma_zero`, the fewest pixels;
- :mod:`~support.attacks.hard_label`: :func:`rays`, which sees decisions only;
- :mod:`~support.attacks.one_pixel`: :func:`one_pixel`, differential evolution, and
  :mod:`~support.attacks.census`: :func:`corner_outputs`, every pixel in every extreme colour;
- :mod:`~support.attacks.average_sample`: :func:`average_sample`, along two classes' mean images;
- :mod:`~support.attacks.clustr_loop`: :func:`clustr_pgd`, a published loop with its defects;
- :mod:`~support.attacks.base`: what they share, among it :func:`interval`, the exact ball, and
  :func:`margin`.

Every attack is a function of a model, images and labels, returns an :class:`AttackResult`, prints
nothing, and keeps one contract:

- **Scores.** The model (a module or any callable) maps images ``(N, ...)`` in [0,1] to log-scores
  ``(N, K)``; normalisation lives inside it. Probabilities are refused, scores that all lie in [0,1]
  warn, and so does nothing else: a saturated probability has no gradient, and an attack that gets
  none would call the model robust. A model must score each image by itself and the same each time:
  one that draws (dropout, attention or stochastic depth in training mode, scripted or not), that
  depends on the batch, or that changes its own statistics is refused, as two looks at up to 16
  images show it. It is handed copies, contiguous ones: it may write into its input and begin with a
  layer in place. No mode, parameter, buffer or ``.grad`` is changed.
- **Bounds.** ``eps`` is in pixel units of [0,1] (8/255, not 8). The box of allowed values is
  computed once in float64 and rounded inward, so that ``|x_adv - x| <= eps`` and ``0 <= x_adv <=
  1`` hold exactly in float64; ``eps=0`` returns the image itself.
- **Verdicts.** ``margin`` is the true class's score minus the best other one, ``success`` means
  below zero (a tie is no success), and both are read from one last pass over the returned images.
  The clean image counts: one that is misclassified already is returned as it is (except by
  :func:`fgsm`, :func:`rfgsm`, and :func:`average_sample` with a target, whose single step is always
  taken). :func:`lbfgs`, :func:`fmn` and :func:`sigma_zero` have no budget: they
  return the least distortion.
- **Independence.** All images of a call share the random draws, which come at a fixed shape from
  ``generator`` (default: a fresh one, seeded with :data:`SEED`), whoever is still undecided.
  Undecided images are packed into forward passes of a few fixed sizes, in which a row's bits depend
  on neither its place nor its neighbours, nor, with one CPU thread, on which of the sizes it is.
  With another ``batch_size``, or another number of images, verdicts agree except at margins below
  1e-5.
- **Cost.** Decided images leave the batch, every ten steps (:func:`pgd`, :func:`rays`), after every
  constant (:func:`lbfgs`), generation (:func:`one_pixel`) or class (:func:`average_sample`, the
  sweeps);
  ``queries`` counts, image by image, the model passes made until it was decided, with the clean
  pass and the last one. Rows that ride along until the next packing, the padding of the last pass,
  and the two looks at the beginning come on top.

Wrong input raises a ``ValueError`` that says what was given and what is wanted. The chapter
"Softmax is k-means" shows each attack at work.
"""

from support.attacks.average_sample import average_sample, class_means
from support.attacks.base import AttackResult, interval, margin
from support.attacks.census import corner_outputs
from support.attacks.clustr_loop import clustr_pgd, kernel_scores
from support.attacks.gradient import bim, fgsm, mifgsm, pgd, pgd_targets, rfgsm
from support.attacks.hard_label import rays
from support.attacks.minimal_l2 import lbfgs
from support.attacks.minimum_norm import fmn, sigma_zero
from support.attacks.multi_targeted import multi_targeted
from support.attacks.one_pixel import one_pixel
from support.common.arguments import SEED

__all__ = [
    "SEED", "AttackResult", "average_sample", "bim", "class_means", "clustr_pgd", "corner_outputs",
    "fgsm", "fmn", "interval", "kernel_scores", "lbfgs", "margin", "mifgsm", "multi_targeted",
    "one_pixel", "pgd", "pgd_targets", "rays", "rfgsm", "sigma_zero",
]  # fmt: skip
