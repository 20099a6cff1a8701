"""Fitting classifiers; beside it the training of ClusTR (``clustr``, ``magnet``)."""

from support.training.fitting import (
    SCHEDULES,
    FitResult,
    Loss,
    cross_entropy,
    extract,
    fit,
    learning_rate,
    predict,
    random_crop_flip,
)

__all__ = [
    "SCHEDULES",
    "FitResult",
    "Loss",
    "cross_entropy",
    "extract",
    "fit",
    "learning_rate",
    "predict",
    "random_crop_flip",
]
