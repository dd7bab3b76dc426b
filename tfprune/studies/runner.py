"""Runs a study's experiments, each as often as asked, and goes on after an interruption."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.data.sources import load as load_data
from tfprune.data.splits import Raw, Split
from tfprune.errors import TfpruneError
from tfprune.output_folder.staging import OutputFolder, writing
from tfprune.studies import pictures, tables
from tfprune.studies.bench import Bench, Data
from tfprune.studies.kinds import KINDS, NEEDS, MissingError, Outcome
from tfprune.studies.networks import CLASSES, SHAPE
from tfprune.studies.record import Record, key_of, pack
from tfprune.studies.study import Experiment, Study
from tfprune.studies.summary import Results
from tfprune.sweep.results_log import JsonLines
from tfprune.utils.console import meter
from tfprune.utils.digests import text_digest
from tfprune.utils.git import git_state
from tfprune.utils.versions import versions

JOURNAL = "results.jsonl"
# Of the labels of MNIST's 10,000 test images, as bytes.
MNIST_LABELS = "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5"


@dataclass(frozen=True)
class Task:
    """A run of an experiment, and the key of its record."""

    experiment: Experiment
    run: int
    key: str


def find_data(path: str | None, seed: int, say: Callable[[str], None]) -> Data:
    """MNIST from a file, or without one the digits that scikit-learn brings.

    Raises
    ------
    TfpruneError
        If the file has no images of 28x28 with classes 0 to 9, for training and test.
    """
    if path is None:
        say(
            "no --data: on scikit-learn's 1,797 handwritten digits, not on MNIST; "
            "published figures are of MNIST"
        )
    raw = load_data("digits" if path is None else "mnist", path, seed, say)
    train, test = (_images(raw, part, path) for part in (raw.train, raw.test))
    labels = np.asarray(test.y).astype(np.uint8).tobytes()
    is_mnist = path is not None and text_digest(labels) == MNIST_LABELS
    if path is not None and not is_mnist:
        say(f"--data {path}: not MNIST's test labels; published figures are of MNIST")
    return Data("MNIST" if is_mnist else raw.name, raw.sha256, is_mnist, train, test)


def _images(raw: Raw, part: Split, path: str | None) -> Split:
    x, y = part.arrays[0], part.y
    if y is None or y.ndim != 1 or y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= CLASSES:
        raise TfpruneError(f"--data {path}: expected a class from 0 to 9 for each image")
    scaled = x.astype(np.float32) / 255 if x.dtype == np.uint8 else x.astype(np.float32)
    return Split(scaled.reshape(-1, *SHAPE), y.astype(np.intp))


def run(
    study: Study,
    data: Data,
    folder: Path,
    *,
    seed: int,
    command: Sequence[str],
    say: Callable[[str], None],
) -> Results:
    """Runs what was not run before, and writes results.md, results.json and pictures.

    Every finished run is a line of ``results.jsonl``; tables are brought up to date after each.

    Parameters
    ----------
    study : Study
    data : Data
    folder : Path
    seed : int
        Of the first run; the next run's is one more.
    command : sequence of str
        For the record.
    say : callable
        Is told, in a line each, what the user should know while it runs.

    Raises
    ------
    TfpruneError
        If the folder cannot be written, or a training fails.
    """
    places = [JOURNAL, "results.md", "results.json", *(spec["file"] for spec in study.figures)]
    with writing(folder, places=places) as output:
        return _run(study, data, output, seed=seed, command=command, say=say)


def _run(
    study: Study,
    data: Data,
    output: OutputFolder,
    *,
    seed: int,
    command: Sequence[str],
    say: Callable[[str], None],
) -> Results:
    journal = JsonLines(output.path / JOURNAL, Record, "tools.reproduce")
    tasks = _tasks(study, data, seed)
    left = [task for task in tasks if task.key not in journal.rows]
    say(
        f"{study.name}{' (quick)' if study.quick else ''}: {len(tasks)} runs on {data.name}"
        + (f", {len(tasks) - len(left)} of them done before" if len(left) < len(tasks) else "")
    )
    missing: dict[str, str] = {}
    about = {
        "command": list(command),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "versions": versions() | _versions(("scikit-learn", "scikit-image")),
        "git": git_state(),
        "data": {
            "name": data.name,
            "sha256": data.sha256,
            "train": len(data.train),
            "test": len(data.test),
        },
    }

    def so_far() -> Results:
        done = [journal.rows[task.key] for task in tasks if task.key in journal.rows]
        return Results(study, data.is_mnist, done, len(tasks), missing, about)

    bench: Bench | None = None
    with meter(study.name, _epochs(study, left), unit="epoch") as drawn:
        # The mean of all epochs, not of the last few: models differ a lot.
        drawn.smoothing = 0
        for place, task in enumerate(left):
            if bench is None or bench.run != task.run:
                bench = Bench(study, data, task.run, seed + task.run, lambda: _moved(drawn))
            drawn.set_postfix_str(f"{task.experiment.id}, run {task.run + 1}")
            began = time.perf_counter()
            try:
                outcome = KINDS[task.experiment.kind](bench, task.experiment)
            except MissingError as error:
                missing[task.experiment.id] = str(error)
            else:
                _check_finite(task, outcome)
                journal.append(
                    Record(
                        key=task.key,
                        study=study.name,
                        experiment=task.experiment.id,
                        run=task.run,
                        values={name: round(value, 6) for name, value in outcome.values.items()},
                        history=outcome.history,
                        pictures={
                            name: pack(image)
                            for name, image in outcome.pictures.items()
                            if task.run == 0
                        },
                        seconds=round(time.perf_counter() - began, 2),
                    )
                )
                output.replace(tables.files(so_far()))
            # Early stopping leaves epochs out; what stands in the bar is what is over.
            over = _epochs(study, left) - _epochs(study, left[place + 1 :])
            drawn.update(max(0, over - drawn.n))
    results = so_far()
    output.replace({**tables.files(results), **pictures.files(results)})
    return results


def _tasks(study: Study, data: Data, seed: int) -> list[Task]:
    """All runs, run by run, so that experiments share the models of a run."""
    most = max(experiment.runs for experiment in study.experiments)
    tasks = []
    for run_ in range(most):
        for experiment in study.experiments:
            if run_ < experiment.runs:
                used = versions() | _versions(NEEDS.get(experiment.kind, ()))
                key = key_of(study, experiment, run_, seed=seed, data=data.sha256, versions=used)
                tasks.append(Task(experiment, run_, key))
    return tasks


def _epochs(study: Study, tasks: Sequence[Task]) -> int:
    """How many the trainings of these tasks take, models that they share counted once, and one
    for each task beside."""
    models = {}
    for task in tasks:
        change = task.experiment.settings.get("change", {})
        for name in task.experiment.models:
            epochs = change.get("model", {}).get("epochs", study.epochs(name))
            models[task.run, name, str(change), task.experiment.train] = epochs
    return len(tasks) + sum(models.values())


def _check_finite(task: Task, outcome: Outcome) -> None:
    for figures in (outcome.values, *outcome.history):
        for name, value in figures.items():
            if not np.isfinite(value):
                raise TfpruneError(
                    f"{task.experiment.id}, run {task.run + 1}: expected a finite {name}, received "
                    f"{value}; the training went astray, try another --seed"
                )


def _moved(drawn: Any) -> None:
    drawn.update()


def _versions(packages: Sequence[str]) -> dict[str, str]:
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
