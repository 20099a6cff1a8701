"""The numbers of the page "Do our attacks work?": computed by one command, kept in
``data/calibration.json`` with where they come from, and put into the page from there."""

import datetime
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import intervals, sampling
from support.book import rules
from support.common import files, paths

COUNT, SEEDS = 2000, 10
"""Test images of each control, and draws of our attack's starts."""


def path() -> Path:
    """Where the numbers are kept."""
    return paths.root() / "data" / "calibration.json"


def write(say: Callable[[str], None]) -> str:
    """Compute the numbers anew and keep them; a line that says so. ``say`` is told of each row.

    Raises:
        DataError: networks, properties or images are not there.
    """
    import torch

    from support.book import chapter_run
    from support.evaluation import calibration

    made = {
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **chapter_run.commit(),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    found = calibration.everything(COUNT, SEEDS, say) | {"made": made}
    files.write_all({path(): json.dumps(found, indent=1) + "\n"})
    return f"the numbers of the calibration are in {path()}"


def kept() -> dict[str, Any]:
    """What was computed, with what it says of each control."""
    found = json.loads(path().read_text(encoding="utf-8"))
    for row in found["controls"]:
        scatter = error(row["unproven"], row["of"])
        row |= {"word": survival(row), "beyond": beyond(row), "scatter": scatter}
    return found


def beyond(row: dict[str, Any]) -> bool:
    """Whether an attack turned more images than can be chance where so many could not be proven:
    then what is called proven is not."""
    return bool(intervals.clopper_pearson(row["attacked"], row["of"])[0] > row["unproven"])


SHOWN = ("clean", "FGSM", "PGD margin", "multi-targeted", "Square", "hard label", "worst case")
"""Rows of the evaluation that the page has room for."""
AHEAD = rules.OrderingRule(type="ordering", values=["control", "plain"], gap=0.1)
"""What a defence must keep in the worst case, as ``alfarra2021.table1-cifar10`` has it: ten points
more than a network that nobody has made robust."""


def survival(row: dict[str, Any]) -> str:
    """The second verdict on a control, by the rule of the papers' defences."""
    worst = [sampling.Share(*found["rows"]["worst case"]) for found in row["protocol"]]
    status = AHEAD.apply({"control": (worst[0],), "plain": (worst[1],)}).status
    return {"pass": "survives", "fail": "broken"}.get(status, "undecided")


def error(share: float, count: int) -> float:
    """The standard error of a share of so many images."""
    return (share * (1 - share) / count) ** 0.5


PARTS = ("calibration-linear", "calibration-properties", "calibration-controls")
"""The parts that are made of them."""
