"""Means and standard deviations over the runs of a study."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfprune.studies.record import Record
from tfprune.studies.study import Experiment, Row, Study

# Unit and digits after the point of a quantity, by the last word of its name.
UNITS = {
    "accuracy": (" %", 2),
    "error": (" %", 2),
    "removed": (" %", 1),
    "constant": (" %", 1),
    "similar": (" %", 1),
    "complementary": (" %", 1),
    "change": (" points", 2),
    "loss": ("", 4),
    "correct": ("", 0),
    "epochs": (" epochs", 1),
    "step_ms": (" ms", 1),
    "bytes": (" B", 0),
    "parameters": ("", 0),
}


@dataclass(frozen=True)
class Measured:
    """Of how many runs a mean is, and how far these are apart.

    Attributes
    ----------
    mean : float
    deviation : float or None
        Standard deviation of the runs (divided by their count less one); None of a single one.
    runs : int
    """

    mean: float
    deviation: float | None
    runs: int


@dataclass(frozen=True)
class Results:
    """What was measured of a study so far.

    Attributes
    ----------
    study : Study
    comparable : bool
        Whether the data is what published figures are of.
    records : sequence of Record
    total : int
        How many runs there will be.
    missing : dict of str to str
        Experiments that could not be run, and why.
    about : dict
        The manifest: command, versions, seed, data, commit.
    """

    study: Study
    comparable: bool
    records: Sequence[Record]
    total: int
    missing: dict[str, str]
    about: dict[str, Any]

    def of(self, experiment: str) -> list[Record]:
        """The runs of an experiment."""
        return [record for record in self.records if record.experiment == experiment]

    def measured(self, experiment: str, quantity: str) -> Measured | None:
        """A quantity over the runs that have it; None if none has."""
        values = [
            record.values[quantity] for record in self.of(experiment) if quantity in record.values
        ]
        if not values:
            return None
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return Measured(statistics.fmean(values), deviation, len(values))

    @property
    def rows(self) -> list[tuple[Experiment, Row]]:
        """All rows of the table, in the study's order."""
        return [(one, row) for one in self.study.experiments for row in one.rows]


def unit(quantity: str) -> tuple[str, int]:
    """Unit, with a space before it, and digits after the point."""
    return UNITS[quantity.rpartition(".")[2]]


def shown(measured: Measured | None, quantity: str) -> str:
    """Mean ± standard deviation with the unit."""
    if measured is None:
        return ""
    after, digits = unit(quantity)
    spread = "" if measured.deviation is None else f" ± {measured.deviation:,.{digits}f}"
    return f"{measured.mean:,.{digits}f}{spread}{after}"
