"""Reads a study's file, checks it, and cuts it down for a quick run; needs no TensorFlow."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from tfprune.errors import TfpruneError
from tfprune.utils.digests import text_digest

NAMES = ("fanyu", "zhu", "bastani", "zheng", "mchunu")
Table = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A line of the table of results.

    Attributes
    ----------
    label : str
    quantity : str
        Which of the experiment's values it shows; its last word says in what unit.
    published : float or None
    ours : str
        The value of the package's own rule beside it, or empty.
    cut : bool
        Whether the columns of what was removed, and of bytes, are of this row.
    note : str
        Why a published figure is not reached, or how ours was come by.
    """

    label: str
    quantity: str
    published: float | None = None
    ours: str = ""
    cut: bool = False
    note: str = ""


@dataclass(frozen=True)
class Experiment:
    """What is run so many times for some rows.

    Attributes
    ----------
    id, kind : str
        The kind names a function of :mod:`tfprune.studies.kinds`.
    models : tuple of str
        Which of the study's models it trains.
    settings : dict
        What else the kind wants to know.
    runs, train, test : int
        How often, and on how many samples at most.
    rows : tuple of Row
    """

    id: str
    kind: str
    models: tuple[str, ...]
    settings: Table
    runs: int
    train: int
    test: int
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes
    ----------
    name, title : str
    text : str
        What was done, and what the study leaves open.
    quick : bool
    models : dict of str to dict
        Layers, loss, optimizer, batch and epochs.
    experiments : tuple of Experiment
    figures : tuple of dict
        What is drawn, see :mod:`tfprune.studies.pictures`.
    """

    name: str
    title: str
    text: str
    quick: bool
    models: dict[str, Table]
    experiments: tuple[Experiment, ...]
    figures: tuple[Table, ...] = field(default=())

    def epochs(self, model: str) -> int:
        """In which a model is trained, at most."""
        return int(self.models[model]["epochs"])

    def settings_digest(self, experiment: Experiment) -> str:
        """Of all that an experiment's values depend on in the study's file."""
        parts = [
            experiment.kind,
            experiment.settings,
            experiment.train,
            experiment.test,
            {name: self.models[name] for name in experiment.models},
        ]
        return text_digest(json.dumps(parts, sort_keys=True))


def check_name(name: str) -> str:
    """Returns the name of a study.

    Raises
    ------
    TfpruneError
        If there is none of this name.
    """
    if name not in NAMES:
        raise TfpruneError(
            f"study: expected one of {', '.join(NAMES)}, or all, received {name or 'none'!r}"
        )
    return name


def load(name: str, quick: bool = False, runs: int | None = None) -> Study:
    """Reads a study.

    Parameters
    ----------
    name : str
        One of :data:`NAMES`.
    quick : bool
        Whether the entries of every ``quick`` table of the file take the place of those beside it.
    runs : int, optional
        In place of the file's numbers of runs, and of the one run of a quick one.

    Raises
    ------
    TfpruneError
        If there is no such study.
    """
    text = files(__package__).joinpath(f"{check_name(name)}.toml").read_text(encoding="utf-8")
    return from_table(name, tomllib.loads(text), quick, runs)


def from_table(name: str, table: Table, quick: bool = False, runs: int | None = None) -> Study:
    """A study from the contents of its file."""
    whole = _resolved(table, quick)
    most = whole.get("most_epochs")
    models = whole["models"]
    if most is not None:
        models = {key: {**one, "epochs": min(one["epochs"], most)} for key, one in models.items()}
    if quick and runs is None:
        runs = 1
    entries_to_run = (entry for entry in whole["experiments"] if not entry.get("skip"))
    entries = (one for entry in entries_to_run for one in _each(entry))
    experiments = tuple(_experiment(one, whole, runs) for one in entries)
    return Study(
        name=name,
        title=whole["title"],
        text=whole["text"].strip(),
        quick=quick,
        models=models,
        experiments=experiments,
        figures=tuple(whole.get("figures", ())),
    )


def _resolved(value: Any, quick: bool) -> Any:
    if isinstance(value, list):
        return [_resolved(one, quick) for one in value]
    if not isinstance(value, dict):
        return value
    entry = {key: one for key, one in value.items() if key != "quick"}
    if quick:
        entry |= value.get("quick", {})
    return {key: _resolved(one, quick) for key, one in entry.items()}


def _each(entry: Table) -> Iterator[Table]:
    """An experiment, or one for each entry of its ``each``, which are named ``id.point``."""
    points = entry.get("each")
    if points is None:
        yield entry
        return
    common = {key: value for key, value in entry.items() if key != "each"}
    ids = entry.get("points")
    for point in points:
        if ids is None or point["id"] in ids:
            # A point without rows of its own has the common ones, with its own figures.
            yield {**common, **point, "id": f"{entry['id']}.{point['id']}", "point": point["id"]}


def _experiment(entry: Table, whole: Table, runs: int | None) -> Experiment:
    known = ("id", "kind", "models", "runs", "train", "test", "rows", "published", "points", "note")
    published = entry.get("published", {})
    rows = tuple(
        Row(
            **{
                "published": published.get(row["quantity"]),
                "note": entry.get("note", ""),
                **row,
                "label": row["label"].format(entry.get("point", "")),
            }
        )
        for row in entry.get("rows", ())
    )
    return Experiment(
        id=entry["id"],
        kind=entry["kind"],
        models=tuple(entry.get("models", ())),
        settings={key: value for key, value in entry.items() if key not in known},
        runs=runs or int(entry["runs"] if "runs" in entry else whole["runs"]),
        train=min(entry.get("train", whole["train"]), whole["train"]),
        test=min(entry.get("test", whole["test"]), whole["test"]),
        rows=rows,
    )


def listing() -> Iterator[tuple[str, str, Mapping[str, int]]]:
    """Name, title, and what :data:`NAMES` have: how many experiments and published figures."""
    for name in NAMES:
        study = load(name)
        rows = [row for one in study.experiments for row in one.rows]
        published = sum(row.published is not None for row in rows)
        yield (
            name,
            study.title,
            {"experiments": len(study.experiments), "published figures": published},
        )
