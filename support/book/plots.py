"""Figures and tables that several chapters show. A function that draws takes or makes axes and
returns them; none computes a result."""

import itertools
import numbers
import textwrap
from collections.abc import Callable, Mapping, Sequence

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
    page = {"figure.dpi": 110, "figure.constrained_layout.use": True}
    sns.set_theme(style="ticks", palette=PALETTE, rc=page | frame)


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
    corner = [[None] * (len(side) - 1) + [name] for name in frame.columns.names]
    if any(name is not None for name in frame.index.names):
        corner[-1] = frame.index.names
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
    inches = (size * columns, 1.25 * size * rows)
    _, axes = plt.subplots(rows, columns, figsize=inches, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        pixels = image.detach().cpu().float().permute(1, 2, 0).numpy()
        ax.imshow(pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=1)
        ax.set_title(title, fontsize=8, pad=2)
    return axes


def cells(ax: Axes, predict, extent: float) -> Axes:
    """Decision cells of a classifier of the plane.

    Args:
        predict: (N, 2) float64 tensor -> (N,) class indices.
        extent: the square [-extent, extent]^2 is drawn.
    """
    line = torch.linspace(-extent, extent, 300, dtype=torch.float64, device="cpu")
    grid = torch.cartesian_prod(line, line)
    classes = predict(grid).reshape(len(line), len(line)).T
    colors = ListedColormap(PALETTE[: int(classes.max()) + 1])
    square = (-extent, extent, -extent, extent)
    bounds = {"vmin": -0.5, "vmax": len(colors.colors) - 0.5}
    look = {"cmap": colors, "alpha": 0.35, "interpolation": "nearest"}
    ax.imshow(classes, origin="lower", extent=square, **look, **bounds)
    ax.set(xticks=[], yticks=[], aspect="equal")
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
    looks = {
        name: {"color": PALETTE[place % len(PALETTE)], "marker": MARKERS[place % len(MARKERS)]}
        for place, name in enumerate(groups)
    }
    kinds = list(_FLAG_PANELS)
    mosaic = [["rows", "rows", *pair] for pair in zip(kinds[::2], kinds[1::2], strict=True)]
    _, axes = plt.subplot_mosaic(mosaic, figsize=(11.5, 8.2))
    _protocol_rows(axes["rows"], groups, looks, eps)
    for kind, draw in _FLAG_PANELS.items():
        ax = axes[kind]
        flags = [(name, report.flag(kind)) for name, group in groups.items() for report in group]
        raised = dict.fromkeys(name for name, flag in flags if flag.raised)
        for name, flag in flags:
            if flag.raised is not None:
                draw(ax, flag, looks[name])
        if not any(flag.curves for _, flag in flags):
            ax.text(0.5, 0.5, "not run", transform=ax.transAxes, ha="center", color="grey")
        title = textwrap.fill(f"{kind}, raised: {', '.join(raised)}" if raised else kind, 36)
        ax.set_title(title, fontsize=9, color=PALETTE[1] if raised else "black")
        ax.tick_params(labelsize=7)
        ax.xaxis.label.set_size(8)
        ax.yaxis.label.set_size(8)
    return axes


Look = Mapping[str, str]  # of a model: its colour and its marker


def _protocol_rows(
    ax: Axes, groups: Mapping[str, Sequence[Report]], looks: Mapping[str, Look], eps: float | None
) -> None:
    def ran(row: str, group: Sequence[Report]) -> list[float]:
        values = [report.accuracy(row, eps) for report in group if row in report.rows]
        return [value for value in values if value is not None]

    rows = max((report.rows for group in groups.values() for report in group), key=len)
    rows = [row for row in rows if any(ran(row, group) for group in groups.values())]
    height = {row: len(rows) - place for place, row in enumerate(rows)}
    for place, (name, group) in enumerate(groups.items()):
        found = {row: values for row in rows if (values := ran(row, group))}
        at = [height[row] + 0.15 * ((len(groups) - 1) / 2 - place) for row in found]
        ends = [list(map(end, found.values())) for end in (min, max)]
        ax.hlines(at, *ends, color=looks[name]["color"])
        means = list(map(np.mean, found.values()))
        ax.plot(means, at, linestyle="", label=name, markersize=6, **looks[name])
    ax.axhspan(height[WORST] - 0.5, height[WORST] + 0.5, color="grey", alpha=0.15, linewidth=0)
    ax.set_yticks(list(height.values()), labels=list(height))
    radius = next(iter(groups.values()))[0].eps[0] if eps is None else eps
    limits = {"xlim": (-0.02, 1.02), "ylim": (0.4, len(rows) + 0.6)}
    ax.set(xlabel=f"accuracy at eps = {radius:.3g}", **limits)
    ax.grid(axis="y", alpha=0.3)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=9)


def _slopes(ax: Axes, flag: Flag, look: Look) -> None:
    for (loss, values), style in zip(flag.curves.items(), ("-", ":"), strict=False):
        # Below the least float there is nothing but zero: the left edge of the axis.
        ordered = values.double().clamp_min(1e-46).sort().values.tolist()
        share = [*(np.arange(len(ordered) + 1) / len(ordered)), 1]
        steps = {"where": "post", "color": look["color"], "label": loss}
        ax.step([1e-50, *ordered, 1e3], share, style, **steps)
    labels = {"ylabel": "share of images at or below", "ylim": (0, 1.02), "xscale": "log"}
    ax.set(xlabel="largest derivative by a pixel (left step: 0)", xlim=(1e-49, 1e3), **labels)


def _gaps(ax: Axes, flag: Flag, look: Look) -> None:
    names = [name.replace(" against ", "\n– ") for name in flag.curves]
    gap, allowed = torch.stack(list(flag.curves.values())).T
    ax.plot(gap, names, linestyle="", markersize=5, **look)
    ax.plot(allowed, names, "|", color=look["color"], markersize=9)
    ax.axvline(0, color="grey", linewidth=0.8)
    alone = flag.name == "black box or transfer"
    ax.set_xlabel(f"{'broken by it alone, net' if alone else 'difference'} (bar: allowed)")


def _curve(x: str, line: str, color: str = "", **labels: str) -> Callable[..., None]:
    """The accuracy against ``x``, and a dashed line, in the model's colour where none is given."""

    def draw(ax: Axes, flag: Flag, look: Look) -> None:
        ax.plot(flag.curves[x], flag.curves["accuracy"], markersize=4, **look)
        height = float(flag.curves[line])
        ax.axhline(height, color=color or look["color"], linestyle="--", linewidth=1)
        ax.set(ylim=(-0.02, 1.02), **labels)

    return draw


def _failed_points(ax: Axes, flag: Flag, look: Look) -> None:
    without, reached = (
        flag.curves[f"PGD margin: {at}"] for at in ("without a gradient", "reached")
    )
    ax.scatter(without, reached, s=9, alpha=0.6, linewidth=0, **look)
    ax.axline((0, 0), (1, 1), color="grey", linestyle="--", linewidth=1)
    labels = {"xlabel": "margin, clean or noise (dashed: no progress)", "xscale": "symlog"}
    ax.set(ylabel="margin after PGD failed", yscale="symlog", **labels)


_FLAG_PANELS = {
    "zero gradient": _slopes,
    "black box or transfer": _gaps,
    "more iterations": _curve(
        "steps", "worst case", xscale="log", ylabel="accuracy",
        xlabel="steps of BIM (dashed: worst case)",
    ),
    "chance at a large eps": _curve(
        "eps", "chance", "grey", ylabel="accuracy under PGD, margin",
        xlabel="eps (dashed: chance from 0.5 on)",
    ),
    "loss at failed points": _failed_points,
    "loss gap": _gaps,
}  # fmt: skip
