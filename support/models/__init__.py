"""Classifiers: architectures, heads (what turns features into log-scores), and pretrained
networks."""

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

__all__ = [
    "NAMES", "Classifier", "Normalise", "build", "convnet", "fingerprint", "lenet", "linear_model", "mlp", "resnet18", "small_cnn",
    "vgg16", "with_head",
]  # fmt: skip
