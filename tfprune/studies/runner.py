"""Runs a study's experiments, each as often as asked, and goes on after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tfprune.output_folder.staging import OutputFolder, writing
from tfprune.studies import pictures, tables
from tfprune.studies.bench import Bench, Data
from tfprune.studies.kinds import NEEDS, MissingError
from tfprune.studies.record import Record, key_of
from tfprune.studies.study import Study
from tfprune.studies.summary import Results
from tfprune.studies.tasks import Task, by_workers, record_of
from tfprune.sweep.results_log import JsonLines
from tfprune.utils.console import meter
from tfprune.utils.git import git_state
from tfprune.utils.versions import versions
from tfprune.workers.pool import Workers

JOURNAL = "results.jsonl"


def run(
    study: Study,
    data: Data,
    folder: Path,
    *,
    seed: int,
    command: Sequence[str],
    say: Callable[[str], None],
    pool: Workers | None = None,
    path: str | None = None,
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
    pool : Workers, optional
        Who does it in place of this process.
    path : str, optional
        Of the file that the data comes from, for workers.

    Raises
    ------
    TfpruneError
        If the folder cannot be written, or a training fails.
    """
    places = [JOURNAL, "results.md", "results.json", *(spec["file"] for spec in study.figures)]
    with writing(folder, places=places) as output:
        return _run(study, data, output, seed=seed, command=command, say=say, pool=pool, path=path)


def _run(
    study: Study,
    data: Data,
    output: OutputFolder,
    *,
    seed: int,
    command: Sequence[str],
    say: Callable[[str], None],
    pool: Workers | None,
    path: str | None,
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

    def keep(records: Iterable[Record]) -> None:
        for record in records:
            journal.append(record)
        output.replace(tables.files(so_far()))

    with meter(study.name, _epochs(study, left), unit="epoch") as drawn:
        # The mean of all epochs, not of the last few: models differ a lot.
        drawn.smoothing = 0
        if pool is not None:
            for done in by_workers(pool, study, left, data=data, path=path, seed=seed):
                missing.update(done.missing)
                keep(done.records)
                drawn.update(_epochs(study, done.tasks))
            left = []
        bench: Bench | None = None
        for place, task in enumerate(left):
            if bench is None or bench.run != task.run:
                bench = Bench(study, data, task.run, seed + task.run, lambda: _moved(drawn))
            drawn.set_postfix_str(f"{task.experiment.id}, run {task.run + 1}")
            try:
                keep([record_of(bench, task)])
            except MissingError as error:
                missing[task.experiment.id] = str(error)
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
