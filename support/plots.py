"""Figures that several chapters draw. Every function takes or makes axes and returns them; none computes a result."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from torch import Tensor

# Okabe and Ito's palette: told apart under the common kinds of colour blindness, on light and on dark pages.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
SOFTMAX, GAUSS, THIRD, FOURTH = PALETTE[:4]


def use_style() -> None:
    """The book's look: white ground, thin frame, colour-blind safe cycle, resolution for a retina screen."""
    frame = {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
    sns.set_theme(style="ticks", palette=PALETTE, rc={"figure.dpi": 110, "figure.constrained_layout.use": True, **frame})


def band(ax: Axes, x: Sequence[float], runs: np.ndarray, *, label: str, color: str, style: str = "-", marker: str = "o") -> Axes:
    """Mean over runs as a line and their range as a band.

    Args:
        x: (P,) positions.
        runs: (S, P) one row per run.
    """
    runs = np.atleast_2d(np.asarray(runs, dtype=float))
    ax.plot(x, runs.mean(0), style, color=color, label=label, marker=marker, markersize=4)
    ax.fill_between(x, runs.min(0), runs.max(0), color=color, alpha=0.2, linewidth=0)
    return ax


def pictures(images: Tensor, titles: Sequence[str], *, columns: int, size: float = 0.95) -> np.ndarray:
    """A grid of pictures, each with a title above it.

    Args:
        images: (N, C, H, W) in [0, 1], C = 1 (drawn in grey) or 3.
        titles: N short strings.
        columns: pictures in a row; ``size`` is the edge of one in inches.

    Returns:
        The array of axes.
    """
    rows = -(-len(images) // columns)
    _, axes = plt.subplots(rows, columns, figsize=(size * columns, 1.25 * size * rows), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        pixels = image.detach().cpu().float().permute(1, 2, 0).numpy()
        ax.imshow(pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=1)
        ax.set_title(title, fontsize=8, pad=2)
    return axes


def cells(ax: Axes, predict, extent: float, *, resolution: int = 300) -> Axes:
    """Decision cells of a classifier of the plane.

    Args:
        predict: (N, 2) float64 tensor -> (N,) class indices.
        extent: the square [-extent, extent]^2 is drawn.
    """
    line = torch.linspace(-extent, extent, resolution, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    classes = predict(grid).reshape(resolution, resolution).T
    colors = ListedColormap(PALETTE[: int(classes.max()) + 1])
    square = (-extent, extent, -extent, extent)
    bounds = {"vmin": -0.5, "vmax": len(colors.colors) - 0.5}
    ax.imshow(classes, origin="lower", extent=square, cmap=colors, alpha=0.35, interpolation="nearest", **bounds)
    ax.set_aspect("equal")
    ax.set(xticks=[], yticks=[])
    return ax
