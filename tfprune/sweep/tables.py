"""Writes a sweep as CSV, as Markdown, and as a few lines for the terminal."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from tabulate import tabulate

from tfprune.sweep.grid import UNPRUNED
from tfprune.sweep.pareto import pareto
from tfprune.sweep.results_log import Row
from tfprune.utils.escapes import fence, markdown, plain
from tfprune.utils.figures import score_text

MARK = "●"
# Columns of words; the others are numbers.
WORDS = ("Pareto", "select", "fold", "scheme")


@dataclass(frozen=True)
class Sweep:
    """The results of a sweep.

    Attributes
    ----------
    rows : sequence of Row
        In the order of the grid.
    total : int
        How many there will be.
    about : dict
        ``model``, ``data``, and how many samples each part has.
    command : sequence of str
    """

    rows: Sequence[Row]
    total: int
    about: dict[str, Any]
    command: Sequence[str]

    @property
    def files(self) -> list[Row]:
        """The rows that have a file, from the smallest to the largest, then by what they lose."""
        rows = [row for row in self.rows if row.bytes is not None]
        return sorted(rows, key=lambda row: (row.size, row.loss("validation")))

    @property
    def pareto(self) -> list[Row]:
        """The files that no other beats in both bytes and the validation part's metric."""
        files = self.files
        sizes = [row.size for row in files]
        return [files[at] for at in pareto(sizes, [row.loss("validation") for row in files])]


def files(sweep: Sweep) -> dict[str, bytes]:
    """The content of ``sweep.csv`` and ``sweep.md``, by name."""
    texts = {"sweep.csv": to_csv(sweep), "sweep.md": to_markdown(sweep)}
    # Names of files may be of bytes that are no UTF-8.
    return {name: text.encode(errors="backslashreplace") for name, text in texts.items()}


def to_csv(sweep: Sweep) -> str:
    """All rows in the order of the grid, with all fields, and whether they are Pareto points."""
    best = {row.key for row in sweep.pareto}
    out = io.StringIO()
    names = [field.name for field in fields(Row)]
    writer = csv.DictWriter(out, [*names, "pareto"], lineterminator="\n")
    writer.writeheader()
    for row in sweep.rows:
        writer.writerow({**asdict(row), "pareto": int(row.key in best)})
    return out.getvalue()


def to_markdown(sweep: Sweep) -> str:
    """The Pareto set, all files from the smallest to the largest, and what was refused."""
    best = sweep.pareto
    parts = [
        f"# Sweep of {markdown(sweep.about['model'])} on {markdown(sweep.about['data'])}",
        fence(plain(shlex.join(sweep.command)), "sh"),
        told(sweep),
        "![metric against bytes](sweep.png)",
        "## Pareto set",
        table(sweep, best, "pipe"),
        _flags(best),
        "## All files",
        table(sweep, sweep.files, "pipe", {row.key for row in best}),
    ]
    refused = [row for row in sweep.rows if row.reason]
    if refused:
        lines = [
            f"- {row.point.name}, {row.scheme}: {markdown(' '.join(row.reason.split()))}"
            for row in refused
        ]
        parts += ["## Refused", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _flags(best: Sequence[Row]) -> str:
    """How ``tools.export`` makes these files, beside the flags that the sweep had itself."""
    points = list(dict.fromkeys(row.point for row in best if row.point.flags))
    if not points:
        return ""
    lines = [f"- {point.name}: `{point.flags}`" for point in points]
    return "\n".join(["Flags of `tools.export` that prune like this:", "", *lines])


def to_text(sweep: Sweep) -> str:
    """The Pareto set and what it was chosen on."""
    refused = sum(bool(row.reason) for row in sweep.rows)
    lines = [told(sweep), "", table(sweep, sweep.pareto, "simple")]
    if refused:
        lines += ["", f"{refused} of {len(sweep.rows)} files were refused; sweep.md says why"]
    return "\n".join(lines)


def smallest_within(sweep: Sweep, points: float = 1.0) -> tuple[Row, Row] | None:
    """The best unpruned file, and the smallest of the Pareto set that is near it in validation.

    None where figures are no shares, or no file is so near.

    Parameters
    ----------
    sweep : Sweep
    points : float
        How many percent points it may be below.
    """
    base = [row for row in sweep.files if row.select == UNPRUNED]
    if not base or base[0].metric == "mse":
        return None
    whole = max(base, key=lambda row: (row.validation or 0, -row.size))
    least = (whole.validation or 0) - points / 100 - 1e-9
    near = [row for row in sweep.pareto if (row.validation or 0) >= least]
    return (whole, min(near, key=lambda row: row.size)) if near else None


def next_command(sweep: Sweep, export: Sequence[str]) -> str:
    """What to type for the smallest file within a point; empty where that is not a pruned one.

    Parameters
    ----------
    sweep : Sweep
    export : sequence of str
        The words of ``export`` that say of model and data what the sweep was told.
    """
    found = smallest_within(sweep)
    if found is None or not found[1].point.flags:
        return ""
    row = found[1]
    return f"{shlex.join([*export, '--schemes', row.scheme])} {row.point.flags}"


def told(sweep: Sweep) -> str:
    """How many files were measured, and on what, in words."""
    about = sweep.about
    left = sweep.total - len(sweep.rows)
    return (
        f"{len(sweep.rows)} of {sweep.total} files measured"
        + (f", {left} left (the same command goes on)" if left else "")
        + f". The Pareto set is chosen on {about['validation']:,} validation samples; the test "
        f"figures beside it are of {about['test']:,} samples that nothing was chosen on. "
        f"Activations were measured on {about['calibration']:,} training samples."
    )


def table(sweep: Sweep, rows: Sequence[Row], form: str, marked: set[str] | None = None) -> str:
    """Rows as a table without empty columns; with keys to mark, a column of marks."""
    head, body = cells(sweep, rows, marked)
    align = ["left" if name in WORDS else "right" for name in head]
    return tabulate(body, head, form, colalign=align or None, disable_numparse=True)


def cells(
    sweep: Sweep, rows: Sequence[Row], marked: set[str] | None = None
) -> tuple[list[str], list[list[Any]]]:
    """Head and rows of :func:`table`."""
    base = next(
        (row.bytes for row in sweep.rows if (row.select, row.scheme) == (UNPRUNED, "float32")), None
    )
    metric = rows[0].metric if rows else ""
    unit = "" if metric == "mse" else " %"
    made = [
        {
            "Pareto": MARK if marked and row.key in marked else "",
            "select": row.select,
            "amount": _amount(row),
            "fold": row.fold,
            "refit": row.refit or "",
            "heal": row.heal or "",
            "augment": "yes" if row.augment else "",
            "round to": row.round_to or "",
            "scheme": row.scheme,
            "units": row.units,
            "bytes": f"{row.size:,}",
            "times smaller": f"{base / row.size:.2f}" if base else "",
            f"validation {metric}{unit}": score_text(metric, row.validation),
            f"test {metric}{unit}": score_text(metric, row.test),
            "test agreement %": score_text("agreement", row.agreement),
        }
        for row in rows
    ]
    head = [name for name in (made[0] if made else {}) if any(cell[name] for cell in made)]
    return head, [[cell[name] for name in head] for cell in made]


def _amount(row: Row) -> str:
    if row.amount is None:
        return ""
    return f"{row.amount:g}°" if row.unit == "degrees" else f"{100 * row.amount:g} %"
