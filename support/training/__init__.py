"""Fitting classifiers; beside it the training of ClusTR (``clustr``, ``magnet``)."""

from support.training.fitting import FitResult, Loss, cross_entropy, extract, fit, predict

__all__ = ["FitResult", "Loss", "cross_entropy", "extract", "fit", "predict"]
