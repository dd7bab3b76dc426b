"""The experiments of a study by workers, against those of one process."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.inline import Inline
from tests.support.studies import tiny
from tfprune.errors import TfpruneError
from tfprune.studies import kinds, runner
from tfprune.studies.data import find_data
from tfprune.studies.study import Experiment
from tfprune.studies.tasks import Task, together
from tfprune.workers.pool import Workers


def nothing(line):
    pass


def fake(bench, experiment):
    """In place of a training: figures that tell the run, the experiment and its samples."""
    if experiment.id == "cnn.60":
        raise kinds.MissingError("needs another package")
    train, test = bench.parts(experiment)
    values = {
        "seed": bench.seed, "run": bench.run, "degrees": experiment.settings.get("degrees", 0),
        "train": float(train.arrays[0].sum()), "test": float(test.y.sum()),
        "models": float(len(bench.study.models["cnn"]["layers"])),
    }  # fmt: skip
    return kinds.Outcome(values, [{"epoch": 1, "loss": 0.5}], {"picture": np.eye(2)})


def test_workers_give_what_one_process_does(tmp_path, monkeypatch):
    made = tiny("zheng", only=("cnn", "cnn.30", "cnn.60"))
    made = replace(made, experiments=tuple(replace(one, runs=2) for one in made.experiments))
    for one in made.experiments:
        monkeypatch.setitem(kinds.KINDS, one.kind, fake)
    data = find_data(None, 4, nothing)
    engine = Inline()
    results = [
        runner.run(
            made, data, tmp_path / str(n), seed=4, command=["t"], say=nothing, pool=pool, path=None
        )
        for n, pool in enumerate((None, Workers(engine, nothing)))
    ]
    # Three experiments that share a network are one piece; each run has a network of its own.
    assert len(engine.requests) == 2
    for one in results:
        assert [(r.experiment, r.run) for r in one.records] == [
            ("cnn", 0), ("cnn.30", 0), ("cnn", 1), ("cnn.30", 1),
        ]  # fmt: skip
        assert one.missing == {"cnn.60": "needs another package"}
    ours, theirs = ([replace(r, seconds=0) for r in one.records] for one in results)
    assert ours == theirs
    assert [one.values["seed"] for one in ours] == [4, 4, 5, 5]
    other = replace(data, sha256="0" * 64)
    with pytest.raises(TfpruneError, match="zheng: cnn, run [12]: the data is another one here"):
        runner.run(
            made, other, tmp_path / "2", seed=4, command=["t"], say=nothing,
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
