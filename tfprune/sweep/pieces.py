"""The points of a sweep as pieces of work for other processes, which load model and data anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import keras

from tfprune.job.model_and_data import model_and_data
from tfprune.job.sent_config import Sent, check_origin, origin_of, received, sent
from tfprune.sweep.bench import Bench
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
    options = sent(config)
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
    bench, ours, said = _bench(Sent(options))
    check_origin(ours, origin)
    del said[:]
    rows = [Row(**row) for row in known]
    before = len(rows)
    for point, keys in points:
        rows += bench.rows(Point(**point), keys, tuple(rows))
    return {"rows": [asdict(row) for row in rows[before:]], "said": list(said)}, {}


@lru_cache(maxsize=1)
def _bench(options: Sent) -> tuple[Bench, dict[str, str], list[str]]:
    """What measures the points of a sweep, the digests of what it is made of, and what it says."""
    config = received(SweepConfig, options)
    said = list[str]()
    keras.utils.set_random_seed(config.seed)
    model, data, about = model_and_data(config, said.append)
    bench = Bench(config, model, data, said.append)
    return bench, origin_of(about, model, data.sha256), said
