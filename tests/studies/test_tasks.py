"""The experiments of a study by workers, against those of one process."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.inline import Inline
from tests.support.studies import tiny
from tfprune.errors import TfpruneError
from tfprune.studies import runner
from tfprune.studies.data import find_data
from tfprune.studies.study import Experiment
from tfprune.studies.tasks import Task, together
from tfprune.workers.pool import Workers

# Times, which no two runs share.
TIMES = {"step_ms", "seconds"}


def nothing(line):
    pass


def test_workers_give_what_one_process_does(tmp_path):
    made = tiny("zheng", only=("cnn", "cnn.30", "cnn.60"))
    made = replace(made, experiments=tuple(replace(one, runs=2) for one in made.experiments))
    data = find_data(None, 0, nothing)
    engine = Inline()
    results = [
        runner.run(
            made, data, tmp_path / str(n), seed=0, command=["t"], say=nothing, pool=pool, path=None
        )
        for n, pool in enumerate((None, Workers(engine, nothing)))
    ]
    # Three experiments that share a network are one piece; each run has a network of its own.
    assert len(engine.requests) == 2
    for ours, theirs in zip(*(one.records for one in results), strict=True):
        assert (ours.key, ours.experiment, ours.run) == (theirs.key, theirs.experiment, theirs.run)
        assert {k: v for k, v in ours.values.items() if k not in TIMES} == pytest.approx(
            {k: v for k, v in theirs.values.items() if k not in TIMES}, rel=1e-6
        )
        assert ours.pictures == theirs.pictures
        for one, other in zip(ours.history, theirs.history, strict=True):
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
    other = replace(data, sha256="0" * 64)
    with pytest.raises(TfpruneError, match="zheng: cnn, run 1: the data is another one here"):
        runner.run(
            made, other, tmp_path / "2", seed=0, command=["t"], say=nothing,
            pool=Workers(Inline(), nothing),
        )  # fmt: skip


def test_tasks_that_share_a_model_go_together(rng):
    def task(name, models, run=0, change=None):
        settings = {} if change is None else {"change": change}
        return Task(Experiment(name, "score", models, settings, 1, 10, 10, ()), run, f"{name}{run}")

    tasks = [
        task("a", ("one",)), task("b", ("two",)), task("c", ("one",), run=1),
        task("d", ("one", "two")), task("e", ("three",)), task("f", ()),
        task("g", ("one",), change={"epochs": 3}), task("h", ("three",)),
    ]  # fmt: skip
    wanted = {("a", "b", "d"), ("c",), ("e", "h"), ("f",), ("g",)}
    for _ in range(5):
        order = rng.permutation(len(tasks))
        groups = together([tasks[place] for place in order])
        names = [[one.experiment.id for one in group] for group in groups]
        assert {tuple(sorted(group)) for group in names} == wanted
        place = {tasks[p].experiment.id: n for n, p in enumerate(np.asarray(order))}
        assert all(group == sorted(group, key=place.get) for group in names)
