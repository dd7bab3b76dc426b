"""Runs a sweep: prunes, exports and measures every point of its grid once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import keras

from tfprune.data.scales import InputScale
from tfprune.data.splits import Dataset
from tfprune.errors import TfpruneError
from tfprune.job.model_and_data import model_and_data
from tfprune.job.original import check_samples
from tfprune.job.sent_config import origin_of
from tfprune.job.stages import MODEL_AND_DATA
from tfprune.output_folder.staging import OutputFolder, writing
from tfprune.sweep import pieces, plot, tables
from tfprune.sweep.bench import Bench
from tfprune.sweep.config import SweepConfig
from tfprune.sweep.grid import UNPRUNED, Grid, Point, key
from tfprune.sweep.page import sweep_page
from tfprune.sweep.results_log import ResultsLog, Row
from tfprune.sweep.tables import Sweep
from tfprune.training.augmentation import check_pictures
from tfprune.utils.console import Stages, during, meter
from tfprune.utils.versions import versions
from tfprune.workers.pool import Workers, open_workers

JOURNAL, PICTURE, PAGE = "sweep.jsonl", "sweep.png", "sweep.html"
# Raised when the same settings come to mean other angles or folds, so that old rows are left.
ANGLES = 3
# The same of healed points: 2 is the best state on validation data.
HEALING = {"healing": 2}
# Seconds between two pictures while it runs; tables are written after every point.
BETWEEN_PICTURES = 60.0


def run(grid: Grid, command: Sequence[str], say: Callable[[str], None]) -> Sweep:
    """Measures every point of the grid that was not measured before.

    Each finished file is a line of ``sweep.jsonl``; ``sweep.csv``, ``sweep.md``, ``sweep.png``
    and ``sweep.html`` show those of this grid, and are kept up to date. A scheme that is refused is
    a row with the reason.

    Parameters
    ----------
    grid : Grid
    command : sequence of str
        The command line, for the table.
    say : callable
        Is told, in a line each, what the user should know while it runs.

    Raises
    ------
    TfpruneError
        If what is asked for is not possible, nothing can be pruned, or the unpruned model can be
        exported in no scheme.
    """
    places = [JOURNAL, PICTURE, PAGE, "sweep.csv", "sweep.md"]
    stages = Stages([MODEL_AND_DATA, "activations", "sweep"])
    config = grid.config
    # Workers start while model and data are loaded here.
    pool = open_workers(config.workers, config.cluster, say)
    with writing(Path(config.output), places=places) as output, stages, pool as started:
        return _run(grid, output, command, say, started)


def _run(
    grid: Grid,
    output: OutputFolder,
    command: Sequence[str],
    say: Callable[[str], None],
    pool: Workers | None,
) -> Sweep:
    config = grid.config
    if pool is not None:
        pool.prepare()
    journal = ResultsLog(output.path / JOURNAL)
    keras.utils.set_random_seed(config.seed)
    with during(MODEL_AND_DATA):
        model, data, about = model_and_data(config, say)
        check_samples(data)
        if config.augment:
            check_pictures(model, "--augment")
    bench = Bench(config, model, data, say)
    for note in (*data.notes, *bench.notes):
        say(f"data: {note}")
    for doubt in bench.doubts():
        say(str(doubt))
    origin = origin_of(about, model, data.sha256)
    common = _common(config, origin["model"], data, bench.layers)
    row_keys = {
        (point, scheme): key(point, scheme, common | (HEALING if point.heal else {}))
        for point in grid.points
        for scheme in config.schemes
    }
    finished = [key for key in row_keys.values() if key in journal.rows]
    say(
        f"{len(grid.points)} points in {', '.join(config.schemes)}: {len(row_keys)} files"
        + (f", {len(finished)} of them measured before" if finished else "")
    )
    drawn_at = -BETWEEN_PICTURES

    def so_far() -> Sweep:
        rows = [journal.rows[key] for key in row_keys.values() if key in journal.rows]
        return Sweep(rows, len(row_keys), _about(about["name"], data), list(command))

    with meter("sweep", len(row_keys), unit="file") as bar:
        # The mean of all files, not of the last few: points differ a lot.
        bar.smoothing = 0
        bar.initial = len(finished)
        bar.update(len(finished))

        def keep(rows: Iterable[Row]) -> None:
            nonlocal drawn_at
            for row in rows:
                journal.append(row)
                bar.update()
            draw = time.monotonic() - drawn_at > BETWEEN_PICTURES
            output.replace(_files(so_far(), draw))
            if draw:
                drawn_at = time.monotonic()

        left: dict[Point, dict[str, str]] = {}
        for (point, scheme), name in row_keys.items():
            if name not in journal.rows:
                left.setdefault(point, {})[scheme] = name
        if pool is not None:
            for rows in pieces.measured(pool, config, left, so_far().rows, origin, say=say):
                keep(rows)
                bar.set_postfix_str(rows[-1].point.name)
                _check_any(so_far())
        for point, keys in left.items() if pool is None else ():
            _check_any(so_far())
            bar.set_postfix_str(point.name)
            keep(bench.rows(point, keys, so_far().rows))
    result = so_far()
    output.replace(_files(result, True))
    return result


def _common(
    config: SweepConfig, model: str, data: Dataset, layers: Sequence[str]
) -> dict[str, Any]:
    """What the figures of all points depend on, beside the point; the default as its word."""
    return {
        "model": model,
        "data": data.sha256,
        "scale": config.scale,
        "factors": [_factors(scale) for scale in data.scales],
        "seed": config.seed,
        "calibration": config.calibration,
        "centre": config.centre,
        "angles": ANGLES,
        "layers": layers,
        "skip": config.skip,
        "versions": versions(),
        # Not where it was not asked for, so that rows of before it are found.
        **({"adapt": True} if config.adapt else {}),
    }


def _factors(scale: InputScale) -> Any:
    more = scale.offset != 0 or scale.reverse
    return (scale.factor, scale.offset, scale.reverse) if more else scale.factor


def _about(name: str, data: Dataset) -> dict[str, Any]:
    parts = ("train", "calibration", "validation", "test")
    return {"model": name, "data": data.name, **{part: len(getattr(data, part)) for part in parts}}


def _check_any(sweep: Sweep) -> None:
    """Raises :class:`TfpruneError` if the unpruned model can be exported in no scheme."""
    unpruned = [row for row in sweep.rows if row.select == UNPRUNED]
    if unpruned and all(row.reason for row in unpruned):
        raise TfpruneError(unpruned[0].reason)


def _files(sweep: Sweep, draw: bool) -> dict[str, bytes]:
    """The tables, and the picture with the page that shows it."""
    made = tables.files(sweep)
    if draw:
        made[PICTURE] = plot.picture(sweep)
        made[PAGE] = sweep_page(sweep, made[PICTURE]).encode(errors="backslashreplace")
    return made
