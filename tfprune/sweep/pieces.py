"""The points of a sweep as pieces of work for other processes, which load model and data anew."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

import keras

from tfprune.errors import TfpruneError
from tfprune.job.model_and_data import model_and_data
from tfprune.sweep.bench import Bench, digest
from tfprune.sweep.config import SweepConfig
from tfprune.sweep.grid import Point
from tfprune.sweep.results_log import Row
from tfprune.utils.arrays import Array
from tfprune.workers.pool import Piece, Workers


def measured(
    pool: Workers,
    config: SweepConfig,
    left: Mapping[Point, Mapping[str, str]],
    known: Sequence[Row],
    origin: Mapping[str, str],
    *,
    say: Callable[[str], None],
) -> Iterator[list[Row]]:
    """The rows of points, as workers get done with them.

    Parameters
    ----------
    pool : Workers
    config : SweepConfig
    left : mapping of Point to mapping of str to str
        The keys of the schemes that a point is to be measured in. A healed point and the same one
        unhealed go together, as one starts from the other.
    known : sequence of Row
        That were measured before.
    origin : mapping of str to str
        Digests of the model and of the data, which have to be the workers' too.
    say : callable
        Is told what workers have to say.
    """
    options = asdict(_found_anywhere(config))
    together: dict[Point, list[Point]] = {}
    for point in left:
        together.setdefault(point.bare, []).append(point)
    pieces = [
        Piece(
            bare.name,
            f"{__name__}:measure",
            {
                "options": options,
                "points": [[asdict(point), dict(left[point])] for point in points],
                "known": [asdict(row) for row in known if row.point.bare == bare],
                "origin": dict(origin),
            },
        )
        for bare, points in together.items()
    ]
    for done in pool.results(pieces):
        for line in done.value["said"]:
            say(line)
        yield [Row(**row) for row in done.value["rows"]]


def measure(
    options: dict[str, Any],
    points: list[tuple[dict[str, Any], dict[str, str]]],
    known: list[dict[str, Any]],
    origin: dict[str, str],
) -> tuple[dict[str, Any], dict[str, Array]]:
    """The rows of some points; what a worker runs.

    Raises
    ------
    TfpruneError
        If model or data cannot be read here, or are others than where the command runs.
    """
    bench, ours, said = _bench(_Options(options))
    for what, expected in origin.items():
        if ours[what] != expected:
            raise TfpruneError(
                f"the {what} is another one here (SHA-256 {ours[what][:12]} in place of "
                f"{expected[:12]}); every machine needs the same files under the same paths, and "
                "a built-in model is best given as a file"
            )
    del said[:]
    rows = [Row(**row) for row in known]
    before = len(rows)
    for point, keys in points:
        rows += bench.rows(Point(**point), keys, tuple(rows))
    return {"rows": [asdict(row) for row in rows[before:]], "said": list(said)}, {}


class _Options(dict[str, Any]):
    """The options of a sweep, by which a bench is kept."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(repr(sorted(self.items())))


@lru_cache(maxsize=1)
def _bench(options: _Options) -> tuple[Bench, dict[str, str], list[str]]:
    """What measures the points of a sweep, the digests of what it is made of, and what it says."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
    config = SweepConfig(**values)
    said = list[str]()
    keras.utils.set_random_seed(config.seed)
    model, data, about = model_and_data(config, said.append)
    bench = Bench(config, model, data, said.append)
    return bench, origin_of(about, model, data.sha256), said


def origin_of(about: Mapping[str, Any], model: keras.Model, data: str) -> dict[str, str]:
    """The digests of model and data, by which it is known whether two processes have the same."""
    return {"model": about["sha256"] or digest(model), "data": data}


def _found_anywhere(config: SweepConfig) -> SweepConfig:
    """The same with paths that hold in another folder."""
    model = config.model if config.built_in else os.path.abspath(config.model)  # noqa: PTH100
    # Not pathlib: it may be a pattern.
    data = None if config.data is None else os.path.abspath(config.data)  # noqa: PTH100
    own = tuple(os.path.abspath(path) for path in config.import_)  # noqa: PTH100
    return replace(config, model=model, data=data, import_=own)
