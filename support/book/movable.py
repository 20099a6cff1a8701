"""A figure that its reader moves: sliders, and one state for each of their positions, all drawn
beforehand.

``draw`` is called once for every combination of the sliders' values and says what stands in each
panel then::

    width = movable.Slider("width", "kernel width", (0.5, 1, 2), start=1)
    plane = movable.Panel("distance", "confidence", (0, 3), (0, 1))

    def draw(width):
        line = movable.Mark("line", x, np.exp(-width * x**2), plots.GAUSS, label="Gauss")
        return movable.State([[line]], f"At width {width:g} ...")

    movable.show([width], [plane], draw, alt="The confidence falls with the distance ...")

The page holds a still picture of the first state, and the numbers of all; ``_static/movable.js``
puts axes and sliders in its place. It asks nothing of the network. Where scripts are off, and in a
notebook, the still picture stays.
"""

import base64
import io
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from support.book import markup

Kind = Literal["line", "dots", "area", "arrow"]
DASHES = {"-": "", "--": "7 4", ":": "2 3"}
MOST_STATES, GRID = 2000, 1000  # GRID: steps in which a panel's width and height are counted


@dataclass(frozen=True)
class Slider:
    """One thing to move: ``name`` is the argument of ``draw``, ``values`` are its stops, ``start``
    the index of the first one shown, ``form`` how a value is written."""

    name: str
    label: str
    values: Sequence[float]
    start: int = 0
    form: str = "g"


@dataclass(frozen=True)
class Panel:
    """A pair of axes. Labels are plain text, without formulas."""

    xlabel: str
    ylabel: str
    xlim: tuple[float, float]
    ylim: tuple[float, float]
    title: str = ""
    xscale: Literal["linear", "log"] = "linear"
    yscale: Literal["linear", "log"] = "linear"

    @property
    def ways(self) -> tuple[tuple[tuple[float, float], str], ...]:
        """Limits and scale, across and up."""
        return (self.xlim, self.xscale), (self.ylim, self.yscale)


@dataclass(frozen=True)
class Mark:
    """What is drawn through points (N,) in the panel's units: a line, dots, a filled area within
    them, or an arrow along them. Those with a label stand in the legend."""

    kind: Kind
    x: Sequence[float]
    y: Sequence[float]
    color: str
    label: str = ""
    style: Literal["-", "--", ":"] = "-"


@dataclass(frozen=True)
class State:
    """What one position of the sliders shows: the marks of each panel, and a sentence."""

    marks: Sequence[Sequence[Mark]]
    says: str


def show(
    sliders: Sequence[Slider], panels: Sequence[Panel], draw: Callable[..., State], *, alt: str
) -> None:
    """Show a movable figure.

    Args:
        sliders: at least one; ``draw`` gets a value of each by its name.
        panels: side by side, below one another where the page is narrow.
        draw: the state for some values.
        alt: what is seen, for a reader who does not see it.

    Raises:
        ValueError: no slider or a start that it has not, too many states, marks for another number
            of panels, or a point that is no finite number (positive on a logarithmic axis).
    """
    counts = [len(slider.values) for slider in sliders]
    if not sliders or not all(0 <= s.start < len(s.values) for s in sliders):
        raise ValueError("wants at least one slider, each with a start among its values")
    if math.prod(counts) > MOST_STATES:
        raise ValueError(f"{math.prod(counts)} states are more than {MOST_STATES}: fewer stops")
    names = [slider.name for slider in sliders]
    stops = itertools.product(*(slider.values for slider in sliders))
    states = [draw(**dict(zip(names, values, strict=True))) for values in stops]
    for state in states:
        _check(state, panels)
    first = int(np.ravel_multi_index([slider.start for slider in sliders], counts))
    picture, axes = _still(panels, states[first])
    content = {"panels": axes, **_pooled(states, panels)} | {
        "alt": alt,
        "sliders": [
            {
                "label": slider.label,
                "start": slider.start,
                "texts": [format(value, slider.form) for value in slider.values],
            }
            for slider in sliders
        ],
    }
    # In a script element only "<" could end it.
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    html = markup.fill(
        "movable.html.j2", alt=alt, says=states[first].says, picture=picture, content=Markup(text)
    )
    display({"text/html": html, "text/plain": f"{alt} {states[first].says}"}, raw=True)


def _check(state: State, panels: Sequence[Panel]) -> None:
    if len(state.marks) != len(panels):
        raise ValueError(f"marks for {len(state.marks)} panels were given, there are {len(panels)}")
    for panel, marks in zip(panels, state.marks, strict=True):
        for mark in marks:
            if mark.kind not in get_args(Kind) or mark.style not in DASHES:
                raise ValueError(f"no such mark: {mark.kind!r}, {mark.style!r}")
            for values, (_, scale) in zip((mark.x, mark.y), panel.ways, strict=True):
                least = 0 if scale == "log" else -math.inf
                if not all(math.isfinite(value) and value > least for value in values):
                    raise ValueError(
                        f"a {mark.kind} {mark.label!r} has a point that a {scale} axis has not"
                    )


def _pooled(states: Sequence[State], panels: Sequence[Panel]) -> dict[str, Any]:
    """Every mark once, and for each state the numbers of its marks, panel by panel."""
    pool: dict[str, int] = {}
    found = []
    for state in states:
        placed = [
            [pool.setdefault(_placed(mark, panel), len(pool)) for mark in marks]
            for panel, marks in zip(panels, state.marks, strict=True)
        ]
        found.append({"marks": placed, "says": state.says})
    return {"marks": [json.loads(text) for text in pool], "states": found}


def _placed(mark: Mark, panel: Panel) -> str:
    """A mark with its points in whole steps of the panel, from its upper left corner."""
    across, up = map(_steps, (mark.x, mark.y), panel.ways)
    points = [value for x, y in zip(across, up, strict=True) for value in (x, GRID - y)]
    told = {name: getattr(mark, name) for name in ("kind", "color", "label")}
    return json.dumps(told | {"dash": DASHES[mark.style], "points": points})


def _steps(values: Sequence[float], way: tuple[tuple[float, float], str]) -> list[int]:
    limits, scale = way
    low, high = np.log(limits) if scale == "log" else limits
    at = np.log(values) if scale == "log" else np.asarray(values, dtype=float)
    # What lies far outside is cut off by the panel's frame anyway.
    return (GRID * (at - low) / (high - low)).round().clip(-9 * GRID, 9 * GRID).astype(int).tolist()


def _still(panels: Sequence[Panel], state: State) -> tuple[str, list[dict[str, Any]]]:
    """A state as a PNG in base64, and the panels with the ticks that it has."""
    inches = (min(4.7 * len(panels), 9.4), 3.7)
    figure, axes = plt.subplots(1, len(panels), figsize=inches, squeeze=False, layout="constrained")
    for ax, panel, marks in zip(axes[0], panels, state.marks, strict=True):
        ax.set(xscale=panel.xscale, yscale=panel.yscale, title=panel.title)
        ax.set(xlim=panel.xlim, ylim=panel.ylim, xlabel=panel.xlabel, ylabel=panel.ylabel)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(FuncFormatter(_number))
            axis.set_minor_locator(NullLocator())
        for mark in marks:
            _draw(ax, mark)
    legend = {
        label: line
        for ax in axes[0]
        for line, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    if legend:
        columns = min(len(legend), 2 * len(panels))
        place = {"loc": "outside lower center", "ncols": columns, "fontsize": 9}
        figure.legend(legend.values(), legend, **place)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    ticked = [_ticked(panel, ax) for panel, ax in zip(panels, axes[0], strict=True)]
    plt.close(figure)
    return base64.b64encode(file.getvalue()).decode("ascii"), ticked


def _draw(ax: Axes, mark: Mark) -> None:
    look = {"color": mark.color, "label": mark.label or None}
    if mark.kind == "area":
        ax.fill(mark.x, mark.y, alpha=0.3, linewidth=0, **look)
    else:
        style = "o" if mark.kind == "dots" else mark.style
        ax.plot(mark.x, mark.y, style, markersize=5, **look)
    if mark.kind == "arrow":
        ends = {"xy": (mark.x[-1], mark.y[-1]), "xytext": (mark.x[-2], mark.y[-2])}
        ax.annotate("", arrowprops={"arrowstyle": "-|>", "color": mark.color}, **ends)


def _number(value: float, _: object = None) -> str:
    return f"{value:g}".replace("-", "−")


def _ticked(panel: Panel, ax: Axes) -> dict[str, Any]:
    told = {name: getattr(panel, name) for name in ("title", "xlabel", "ylabel")}
    for axis, way in zip((ax.xaxis, ax.yaxis), panel.ways, strict=True):
        (low, high), _ = way
        seen = [value for value in axis.get_majorticklocs() if low <= value <= high]
        ticks = zip(_steps(seen, way), map(_number, seen), strict=True)
        told[f"{axis.axis_name}ticks"] = list(ticks)
    return told
