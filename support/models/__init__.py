"""Classifiers: a feature map and a head on it.

- :mod:`~support.models.architectures`: multilayer perceptrons and convolutional networks, seeded,
  each a :class:`Classifier`, and what is done with one (used by every chapter);
- :mod:`~support.models.heads`: what turns features into log-scores, and the one algebra behind all
  of it (chapters 1 to 4);
- :mod:`~support.models.pretrained`: ImageNet pictures and networks (chapters 2, 3 and 5).
"""

from support.models.architectures import (
    NAMES,
    Classifier,
    Normalise,
    build,
    convnet,
    fingerprint,
    lenet,
    linear_model,
    mlp,
    resnet18,
    small_cnn,
    vgg16,
    with_head,
)
from support.models.heads import ClusterHead, GaussHead, LinearHead, SoftRmaxHead

__all__ = [
    "NAMES", "Classifier", "ClusterHead", "GaussHead", "LinearHead", "Normalise", "SoftRmaxHead",
    "build", "convnet", "fingerprint", "lenet", "linear_model", "mlp", "resnet18", "small_cnn",
    "vgg16", "with_head",
]  # fmt: skip
