"""What the protocol found: one table, one flag list, and several models side by side."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from support.evaluation.gradient_masking import NAMES, Flag
from support.measures import share
from support.sampling import Share

WORST = "worst case"
TO_PEER = "transfer to peer"
ROWS = (
    "clean", "uniform noise", "Gaussian noise", "FGSM", "BIM-10", "BIM-100", "BIM-1000",
    "PGD cross-entropy", "PGD margin", "multi-targeted", "APGD-CE", "APGD-T", "FAB-T", "Square",
    "hard label", "transfer from peer", TO_PEER, WORST,
)  # fmt: skip
"""The rows of every report, in their order. Budgets may name further lengths of BIM; a model's own
loss adds rows after BIM's."""


def row_names(bim: Iterable[int], own: bool) -> tuple[str, ...]:
    """:data:`ROWS` with these lengths of BIM among them, and with the rows of the model's own
    loss."""
    first, last = ROWS.index("BIM-10"), ROWS.index("BIM-1000")
    loops = [f"BIM-{count}" for count in sorted({10, 100, 1000, *bim})]
    owned = [f"{row}, own loss" for row in ("FGSM", *(f"BIM-{count}" for count in sorted(bim)))]
    return (*ROWS[:first], *loops, *(owned if own else ()), *ROWS[last + 1 :])


@dataclass(frozen=True)
class Report:
    """The rows of one model at one or several radii.

    Attributes:
        eps: the radii, in the order given, in units of [0,1].
        images: how many images the budget granted and there were.
        rows: the names, in the order of the table.
        found: ``(row, eps) -> (n,)`` bool, whether an image is still right; n images, the first
            ones, of those that ran; of the worst case those that all of them saw.
        flags: signs of masked gradients, one of each kind: of several radii the worst.
    """

    eps: tuple[float, ...]
    images: int
    rows: tuple[str, ...]
    found: Mapping[tuple[str, float], Tensor]
    flags: tuple[Flag, ...]

    def robust(self, row: str = WORST, eps: float | None = None) -> Tensor:
        """Whether each image is right under the row's attack: (n,) bool of the first n images,
        those that the row saw.

        A row that the budget left out saw none: (0,).

        Raises:
            ValueError: no such row, or a radius that was not run.
        """
        if row not in self.rows:
            raise ValueError(f"no row {row!r}: there are {', '.join(self.rows)}")
        if eps is not None and eps not in self.eps:
            raise ValueError(f"eps must be one of {self.eps}, not {eps!r}")
        found = self.found.get((row, self.eps[0] if eps is None else eps))
        return self.found["clean", self.eps[0]][:0] if found is None else found

    def accuracy(self, row: str = WORST, eps: float | None = None) -> Share | None:
        """Share of the images that the row saw which are right under it, with its sampling error;
        ``None`` where the budget left it out. ``eps``: default the first.

        Raises:
            ValueError: no such row, or a radius that was not run.
        """
        seen = self.robust(row, eps)
        return share(seen) if len(seen) else None

    def flag(self, name: str) -> Flag:
        """The flag of that name.

        Raises:
            ValueError: there is none.
        """
        found = [flag for flag in self.flags if flag.name == name]
        if not found:
            raise ValueError(f"no flag {name!r}: there are {', '.join(NAMES)}")
        return found[0]

    def table(self) -> pd.DataFrame:
        """Accuracy by row and radius, NaN where the budget left a row out; ``images``, how many a
        row saw (0: not run); and ``flags``, the raised ones that speak against the row."""
        columns = {
            eps: pd.Series([self.accuracy(row, eps) for row in self.rows], dtype=float).to_numpy()
            for eps in self.eps
        }
        seen = [max(len(self.robust(row, eps)) for eps in self.eps) for row in self.rows]
        against = [
            ", ".join(flag.name for flag in self.flags if flag.raised and row in flag.rows)
            for row in self.rows
        ]
        index = pd.Index(self.rows, name="accuracy under")
        return pd.DataFrame({**columns, "images": seen, "flags": against}, index=index)


def compare(reports: Mapping[str, Report | Sequence[Report]]) -> pd.DataFrame:
    """Accuracies of several models side by side; of several reports of one name (its seeds) the
    mean over those that ran the row.

    Args:
        reports: by the name that heads the column. All of the same radii.

    Returns:
        Rows as in the reports; a column for each name, or, with several radii, for each (name,
        eps); and ``images``, how many each row saw of each report: ``"100"``, or ``"50 to 100"``
        where reports differ.

    Raises:
        ValueError: no report, or reports of different radii.
    """
    groups = _groups(reports)
    radii = {report.eps for group in groups.values() for report in group}
    if len(radii) != 1:
        raise ValueError(
            f"reports side by side must be of the same radii; given are {sorted(radii)}"
        )
    eps = radii.pop()
    tables = {
        name: pd.concat([report.table()[list(eps)] for report in group]).groupby(level=0).mean()
        for name, group in groups.items()
    }
    longest = max((report.rows for group in groups.values() for report in group), key=len)
    together = pd.concat(tables, axis=1).reindex(longest)
    together.index.name = "accuracy under"
    one = len(eps) == 1
    if one:
        together = together.droplevel(1, axis=1)
    every = [report.table()["images"] for group in groups.values() for report in group]
    seen = pd.concat(every).groupby(level=0).agg(["min", "max"]).reindex(longest)
    together["images" if one else ("images", "")] = [
        f"{least}" if least == most else f"{least} to {most}"
        for least, most in seen.itertuples(index=False)
    ]
    return together


def compare_flags(reports: Mapping[str, Report | Sequence[Report]]) -> pd.DataFrame:
    """Flags of several models side by side: ``raised``, ``no``, ``not run``; of several reports of
    one name, how many raised it."""

    def said(found: list[Flag]) -> str:
        ran = [flag.raised for flag in found if flag.raised is not None]
        if not any(ran):
            return "no" if ran else "not run"
        return "raised" if len(found) == 1 else f"raised by {sum(ran)} of {len(ran)}"

    groups = _groups(reports)
    columns = {
        name: [said([report.flag(flag) for report in group]) for flag in NAMES]
        for name, group in groups.items()
    }
    return pd.DataFrame(columns, index=pd.Index(NAMES, name="flag"))


def _groups(reports: Mapping[str, Report | Sequence[Report]]) -> dict[str, list[Report]]:
    groups = {
        name: [found] if isinstance(found, Report) else list(found)
        for name, found in reports.items()
    }
    if not groups or not all(groups.values()):
        raise ValueError("compare needs at least one report of each name")
    return groups
