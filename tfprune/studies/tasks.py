"""The runs of a study's experiments, and what a run of one leaves; also as pieces for workers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.errors import TfpruneError
from tfprune.studies.bench import Bench, Data
from tfprune.studies.kinds import KINDS, MissingError, Outcome
from tfprune.studies.record import Record, pack
from tfprune.studies.study import Experiment, Study
from tfprune.utils.arrays import Array
from tfprune.workers.pool import Piece, Workers


@dataclass(frozen=True)
class Task:
    """A run of an experiment, and the key of its record."""

    experiment: Experiment
    run: int
    key: str


def record_of(bench: Bench, task: Task) -> Record:
    """What a run of an experiment gives.

    Raises
    ------
    MissingError
        If it needs a package that is not installed.
    TfpruneError
        If a value is not finite.
    """
    began = time.perf_counter()
    outcome = KINDS[task.experiment.kind](bench, task.experiment)
    _check_finite(task, outcome)
    return Record(
        key=task.key,
        study=bench.study.name,
        experiment=task.experiment.id,
        run=task.run,
        values={name: round(value, 6) for name, value in outcome.values.items()},
        history=outcome.history,
        pictures={name: pack(image) for name, image in outcome.pictures.items() if task.run == 0},
        seconds=round(time.perf_counter() - began, 2),
    )


def _check_finite(task: Task, outcome: Outcome) -> None:
    for figures in (outcome.values, *outcome.history):
        for name, value in figures.items():
            if not np.isfinite(value):
                raise TfpruneError(
                    f"{task.experiment.id}, run {task.run + 1}: expected a finite {name}, received "
                    f"{value}; the training went astray, try another --seed"
                )


@dataclass(frozen=True)
class Finished:
    """What workers made of some tasks: records, and what was missing by experiment."""

    tasks: tuple[Task, ...]
    records: tuple[Record, ...]
    missing: dict[str, str]


def by_workers(
    pool: Workers,
    study: Study,
    tasks: Sequence[Task],
    *,
    data: Data,
    path: str | None,
    seed: int,
) -> Iterator[Finished]:
    """The records of tasks, as workers get done; tasks that train the same models go together.

    Parameters
    ----------
    pool : Workers
    study : Study
    tasks : sequence of Task
    data : Data
        Its digest has to be the workers' too.
    path : str or None
        Of the file that the data comes from.
    seed : int
        Of the first run.
    """
    groups = together(tasks)
    plain = asdict(replace(study, figures=(), experiments=()))
    pieces = [
        Piece(
            f"{study.name}: {group[0].experiment.id}, run {group[0].run + 1}",
            f"{__name__}:run_tasks",
            {
                "study": plain,
                "tasks": [[asdict(replace(t.experiment, rows=())), t.run, t.key] for t in group],
                "path": None if path is None else str(Path(path).absolute()),
                "digest": data.sha256,
                "seed": seed,
            },
        )
        for group in groups
    ]
    by_key = {group[0].key: group for group in groups}
    for done in pool.results(pieces):
        records = tuple(Record(**record) for record in done.value["records"])
        group = by_key[done.piece.arguments["tasks"][0][2]]
        yield Finished(tuple(group), records, done.value["missing"])


def together(tasks: Sequence[Task]) -> list[list[Task]]:
    """Tasks in groups that have no model in common, each in order."""
    group_of: dict[str, list[Task]] = {}
    groups: list[list[Task]] = []
    for task in tasks:
        one, change = task.experiment, task.experiment.settings.get("change", {})
        keys = [
            json.dumps([task.run, name, change, one.train, one.test], sort_keys=True)
            for name in one.models
        ]
        met = [group for group in groups if any(group_of.get(key) is group for key in keys)]
        group = met[0] if met else []
        if not met:
            groups.append(group)
        for other in met[1:]:
            group += other
            groups.remove(other)
            group_of.update({key: group for key, value in group_of.items() if value is other})
        group.append(task)
        group_of.update(dict.fromkeys(keys, group))
    order = {task: place for place, task in enumerate(map(id, tasks))}
    return [sorted(group, key=lambda task: order[id(task)]) for group in groups]


def run_tasks(
    study: dict[str, Any], tasks: list[list[Any]], path: str | None, digest: str, seed: int
) -> tuple[dict[str, Any], dict[str, Array]]:
    """The records of some tasks of one run; what a worker runs.

    Raises
    ------
    TfpruneError
        If the data is another one here, or a training fails.
    """
    data = _data(path, seed)
    if data.sha256 != digest:
        raise TfpruneError(f"the data is another one here: {path or data.name}")
    whole = Study(**{**study, "experiments": (), "figures": ()})
    run = tasks[0][1]
    bench = Bench(whole, data, run, seed + run, lambda: None)
    records, missing = list[dict[str, Any]](), dict[str, str]()
    for about, number, key in tasks:
        experiment = Experiment(**{**about, "models": tuple(about["models"]), "rows": ()})
        try:
            records.append(asdict(record_of(bench, Task(experiment, number, key))))
        except MissingError as error:
            missing[experiment.id] = str(error)
    return {"records": records, "missing": missing}, {}


@lru_cache(maxsize=1)
def _data(path: str | None, seed: int) -> Data:
    from tfprune.studies.data import find_data

    return find_data(path, seed, lambda line: None)
