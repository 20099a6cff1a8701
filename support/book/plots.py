"""Figures and tables that several chapters show. A function that draws takes or makes axes and
returns them; none computes a result."""

import itertools
import numbers
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from torch import Tensor

from support.book import markup
from support.book.profiles import NOTHING
from support.evaluation import WORST, Flag, Report

# Okabe and Ito's palette: told apart under the common kinds of colour blindness, on light and on
# dark pages.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
SOFTMAX, GAUSS, THIRD, FOURTH = PALETTE[:4]


def use_style() -> None:
    """The book's look: white ground, thin frame, colour-blind safe cycle, resolution for a retina
    screen."""
    frame = {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
    sns.set_theme(
        style="ticks",
        palette=PALETTE,
        rc={"figure.dpi": 110, "figure.constrained_layout.use": True, **frame},
    )


def table(
    frame: pd.DataFrame,
    caption: str,
    *,
    digits: int = 3,
    kind: str = "f",
    columns: Mapping[str, str] = NOTHING,
    missing: str = "–",
) -> None:
    """Show a table of numbers and words, with equal labels beside each other as one.

    Args:
        frame: whole numbers and words are shown as they are; several levels of labels are allowed.
        caption: what the table shows, in a phrase.
        digits: of the other numbers: decimals, or significant digits where ``kind`` is ``"g"``.
        kind: ``"f"``, ``"g"`` or ``"%"``.
        columns: formats of single columns, such as ``{"share": ".0%"}``.
        missing: what stands for None and NaN.
    """

    def text(value: object, form: str) -> str:
        if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral | np.bool):
            return missing if np.isnan(value) else format(float(value), form)
        return missing if value is None or value is pd.NA else str(value)

    shown = [
        [text(value, columns.get(name, f".{digits}{kind}")) for value in frame.iloc[:, place]]
        for place, name in enumerate(frame.columns)
    ]
    rows = list(zip(*shown, strict=True))
    head, side = _levels(frame.columns), _levels(frame.index)
    corner = [["" for _ in side] for _ in head]
    for level, name in enumerate(frame.columns.names):
        corner[level][-1] = "" if name is None else str(name)
    if any(name is not None for name in frame.index.names):
        corner[-1] = ["" if name is None else str(name) for name in frame.index.names]
    html = markup.fill(
        "frame.html.j2", caption=caption, corner=corner, head=head, side=side, rows=rows
    )
    plain = pd.DataFrame(rows, frame.index, frame.columns).to_string()
    display({"text/html": html, "text/plain": f"{caption}\n{plain}"}, raw=True)


def _levels(labels: pd.Index) -> list[dict[int, tuple[str, int]]]:
    """For each level of labels, where a label begins, its text, and how many places it spans; of
    the last level each stands for itself."""
    names = [label if isinstance(label, tuple) else (label,) for label in labels]
    levels = []
    for level in range(labels.nlevels):
        last = level == labels.nlevels - 1
        key = (lambda place: place) if last else (lambda place, end=level + 1: names[place][:end])
        groups = [list(group) for _, group in itertools.groupby(range(len(names)), key)]
        levels.append({group[0]: (str(names[group[0]][level]), len(group)) for group in groups})
    return levels


def band(
    ax: Axes,
    x: Sequence[float],
    runs: np.ndarray,
    *,
    label: str,
    color: str,
    style: str = "-",
    marker: str = "o",
) -> Axes:
    """Mean over runs as a line and their range as a band.

    Args:
        x: (P,) positions.
        runs: (S, P) one row per run.
    """
    runs = np.atleast_2d(np.asarray(runs, dtype=float))
    ax.plot(x, runs.mean(0), style, color=color, label=label, marker=marker, markersize=4)
    ax.fill_between(x, runs.min(0), runs.max(0), color=color, alpha=0.2, linewidth=0)
    return ax


def pictures(
    images: Tensor, titles: Sequence[str], *, columns: int, size: float = 0.95
) -> np.ndarray:
    """A grid of pictures, each with a title above it.

    Args:
        images: (N, C, H, W) in [0, 1], C = 1 (drawn in grey) or 3.
        titles: N short strings.
        columns: pictures in a row; ``size`` is the edge of one in inches.

    Returns:
        The array of axes.
    """
    rows = -(-len(images) // columns)
    _, axes = plt.subplots(
        rows, columns, figsize=(size * columns, 1.25 * size * rows), squeeze=False
    )
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
    ax.imshow(
        classes,
        origin="lower",
        extent=square,
        cmap=colors,
        alpha=0.35,
        interpolation="nearest",
        **bounds,
    )
    ax.set_aspect("equal")
    ax.set(xticks=[], yticks=[])
    return ax


MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")


def protocol(
    reports: Report | Mapping[str, Report | Sequence[Report]], eps: float | None = None
) -> dict[str, Axes]:
    """What the modern protocol found: accuracy under every row, and beside it the numbers behind
    each flag.

    Args:
        reports: one, or by the models' names; several of one name (its seeds) are drawn in one
            colour, their accuracies as mean and range.
        eps: the radius of the accuracies, default the first. A flag shows the radius at which it is
            worst.

    Returns:
        The axes, ``"rows"`` and one for each flag by its name. A flag's title says which models
        raised it.
    """
    named = {"model": reports} if isinstance(reports, Report) else reports
    groups = {
        name: [found] if isinstance(found, Report) else list(found) for name, found in named.items()
    }
    kinds = list(_FLAG_PANELS)
    mosaic = [["rows", "rows", kinds[place], kinds[place + 1]] for place in range(0, len(kinds), 2)]
    _, axes = plt.subplot_mosaic(mosaic, figsize=(11.5, 8.2))
    _protocol_rows(axes["rows"], groups, eps)
    for kind, draw in _FLAG_PANELS.items():
        raised = []
        for place, (name, group) in enumerate(groups.items()):
            flags = [report.flag(kind) for report in group]
            if any(flag.raised for flag in flags):
                raised.append(name)
            for flag in flags:
                if flag.raised is not None:
                    draw(
                        axes[kind],
                        flag,
                        PALETTE[place % len(PALETTE)],
                        MARKERS[place % len(MARKERS)],
                    )
        if not any(report.flag(kind).curves for group in groups.values() for report in group):
            axes[kind].text(
                0.5, 0.5, "not run", transform=axes[kind].transAxes, ha="center", color="grey"
            )
        title = textwrap.fill(f"{kind}, raised: {', '.join(raised)}" if raised else kind, 36)
        axes[kind].set_title(title, fontsize=9, color=PALETTE[1] if raised else "black")
        axes[kind].tick_params(labelsize=7)
        axes[kind].xaxis.label.set_size(8)
        axes[kind].yaxis.label.set_size(8)
    return axes


def _protocol_rows(ax: Axes, groups: Mapping[str, Sequence[Report]], eps: float | None) -> None:
    def ran(row: str, group: Sequence[Report]) -> list[float]:
        values = [report.accuracy(row, eps) for report in group if row in report.rows]
        return [value for value in values if value is not None]

    rows = max((report.rows for group in groups.values() for report in group), key=len)
    rows = [row for row in rows if any(ran(row, group) for group in groups.values())]
    height = {row: len(rows) - place for place, row in enumerate(rows)}
    for place, (name, group) in enumerate(groups.items()):
        found = {row: values for row in rows if (values := ran(row, group))}
        at = [height[row] + 0.15 * ((len(groups) - 1) / 2 - place) for row in found]
        color = PALETTE[place % len(PALETTE)]
        ax.hlines(
            at,
            [min(values) for values in found.values()],
            [max(values) for values in found.values()],
            color=color,
        )
        ax.plot(
            [np.mean(values) for values in found.values()],
            at,
            MARKERS[place % len(MARKERS)],
            color=color,
            label=name,
            markersize=6,
        )
    ax.axhspan(height[WORST] - 0.5, height[WORST] + 0.5, color="grey", alpha=0.15, linewidth=0)
    ax.set_yticks(list(height.values()), labels=list(height))
    radius = next(iter(groups.values()))[0].eps[0] if eps is None else eps
    ax.set(
        xlim=(-0.02, 1.02), ylim=(0.4, len(rows) + 0.6), xlabel=f"accuracy at eps = {radius:.3g}"
    )
    ax.grid(axis="y", alpha=0.3)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=9)


def _slopes(ax: Axes, flag: Flag, color: str, marker: str) -> None:
    for (loss, values), style in zip(flag.curves.items(), ("-", ":"), strict=False):
        # Below the least float there is nothing but zero: the left edge of the axis.
        ordered = values.double().clamp_min(1e-46).sort().values.tolist()
        share = np.arange(len(ordered) + 1) / len(ordered)
        ax.step([1e-50, *ordered, 1e3], [*share, 1], style, color=color, where="post", label=loss)
    ax.set_xscale("log")
    ax.set(
        xlim=(1e-49, 1e3),
        ylim=(0, 1.02),
        xlabel="largest derivative by a pixel (left step: 0)",
        ylabel="share of images at or below",
    )


def _gaps(ax: Axes, flag: Flag, color: str, marker: str) -> None:
    names = [name.replace(" against ", "\n– ") for name in flag.curves]
    gap, allowed = torch.stack(list(flag.curves.values())).T
    ax.plot(gap, names, marker, color=color, markersize=5)
    ax.plot(allowed, names, "|", color=color, markersize=9)
    ax.axvline(0, color="grey", linewidth=0.8)
    ax.set_xlabel(
        "broken by it alone, net (bar: allowed)"
        if flag.name == "black box or transfer"
        else "difference (bar: allowed)"
    )


def _iterations(ax: Axes, flag: Flag, color: str, marker: str) -> None:
    ax.plot(flag.curves["steps"], flag.curves["accuracy"], marker=marker, color=color, markersize=4)
    ax.axhline(float(flag.curves["worst case"]), color=color, linestyle="--", linewidth=1)
    ax.set_xscale("log")
    ax.set(ylim=(-0.02, 1.02), xlabel="steps of BIM (dashed: worst case)", ylabel="accuracy")


def _sweep(ax: Axes, flag: Flag, color: str, marker: str) -> None:
    ax.plot(flag.curves["eps"], flag.curves["accuracy"], marker=marker, color=color, markersize=4)
    ax.axhline(float(flag.curves["chance"]), color="grey", linestyle="--", linewidth=1)
    ax.set(
        ylim=(-0.02, 1.02),
        xlabel="eps (dashed: chance from 0.5 on)",
        ylabel="accuracy under PGD, margin",
    )


def _failed_points(ax: Axes, flag: Flag, color: str, marker: str) -> None:
    without, reached = (
        flag.curves["PGD margin: without a gradient"],
        flag.curves["PGD margin: reached"],
    )
    ax.scatter(without, reached, s=9, marker=marker, color=color, alpha=0.6, linewidth=0)
    ax.axline((0, 0), (1, 1), color="grey", linestyle="--", linewidth=1)
    ax.set_xscale("symlog")
    ax.set_yscale("symlog")
    ax.set(xlabel="margin, clean or noise (dashed: no progress)", ylabel="margin after PGD failed")


_FLAG_PANELS = {
    "zero gradient": _slopes,
    "black box or transfer": _gaps,
    "more iterations": _iterations,
    "chance at a large eps": _sweep,
    "loss at failed points": _failed_points,
    "loss gap": _gaps,
}
