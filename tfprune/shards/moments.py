"""Moments of samples in several files, each measured where a worker is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import keras
import numpy as np

from tfprune.core.moments import Moments
from tfprune.errors import TfpruneError
from tfprune.graph.activations import Measured, Pair, Probe, measured
from tfprune.graph.activations import measure as measure_here
from tfprune.graph.batches import states_of
from tfprune.graph.groups import Consumer, groups_of
from tfprune.graph.inputs import Samples
from tfprune.graph.trace import Trace
from tfprune.graph.tracer import trace
from tfprune.shards.files import Shards, read_samples
from tfprune.shards.sent_models import check_sendable, model_content, sent_model
from tfprune.utils.arrays import Array
from tfprune.utils.console import meter
from tfprune.utils.digests import text_digest
from tfprune.workers.pool import Piece, Workers

# The names that a state of moments has for samples that folds are fitted on, and held back.
FITTED, HELD = "fitted", "held"


def measure_files(
    shards: Shards,
    pool: Workers | None,
    traced: Trace,
    consumers: Sequence[Consumer],
    samples: Samples,
    *,
    batch_size: int | None = None,
    progress: bool = False,
) -> list[Measured]:
    """As :func:`tfprune.graph.activations.measure`, file by file, small ones together.

    The moments are summed in the order of the files, so that the sum is the same whoever did what.

    Parameters
    ----------
    shards : Shards
    pool : Workers or None
        None for this process alone.
    traced : Trace
    consumers : sequence of Consumer
    samples : Samples
        All samples; their model is sent to the workers.
    batch_size : int, optional
    progress : bool

    Raises
    ------
    TfpruneError
        If a worker cannot read a file or the model, or a layer is known to this process alone.
    """
    fitted, held = list[Moments](), list[Moments]()
    pieces = shards.pieces(samples.held_numbers())
    total = samples.total
    assert total is not None, "samples in files are counted"
    if pool is None:
        probe = Probe(traced, consumers, exact=True)
        parts = (Samples(samples.model, shards.at(one.places), held=one.held) for one in pieces)
        made = (probe.moments(part, batch_size, total=total) for part in parts)
    else:
        check_sendable(samples.model, traced)
        common = {
            "description": shards.description(),
            "consumers": _described(consumers),
            "imports": shards.absolute_imports(),
            "batch_size": batch_size,
            "total": total,
        }
        asked = [
            Piece(
                one.name,
                f"{__name__}:measure",
                {**common, "files": one.files, "held": one.held.tolist()},
            )
            for one in pieces
        ]
        done = pool.results(asked, ordered=True, shared=model_content(samples.model))
        made = (_read(one.arrays) for one in done)
    with meter("activations", total, progress) as bar:
        for piece, parts_of_it in zip(pieces, made, strict=True):
            fitted, held = _added(fitted, parts_of_it[0]), _added(held, parts_of_it[1])
            bar.update(len(piece.places))
    samples.hold()
    return measured(consumers, (fitted, held))


def measure_samples(
    traced: Trace,
    consumers: Sequence[Consumer],
    samples: Samples,
    shards: Shards | None,
    pool: Workers | None,
    *,
    batch_size: int | None,
    progress: bool,
) -> list[Measured]:
    """What consumers receive of some samples, measured by workers where there are any.

    Where samples come in several files, sums are exact to rounding of float64, so that it makes no
    difference whether workers, and how many of them, did it.
    """
    if not consumers:
        return []
    # A model that keeps a state from batch to batch reads all samples in their order.
    if shards is None or (pool is None and states_of(samples.model)):
        exact = shards is not None
        return measure_here(traced, consumers, samples, batch_size, progress, exact=exact)
    return measure_files(
        shards, pool, traced, consumers, samples, batch_size=batch_size, progress=progress
    )


def measure(
    files: list[tuple[Any, list[int] | None]],
    consumers: list[Any],
    held: list[int],
    shared: bytes,
    *,
    description: dict[str, Any],
    imports: list[str],
    batch_size: int | None,
    total: int,
) -> tuple[None, dict[str, Array]]:
    """The moments of some files' samples; what a worker runs.

    Raises
    ------
    TfpruneError
        If a file cannot be read, or the model is followed otherwise than where the command runs.
    """
    model, probe = _probe(shared, json.dumps(consumers), tuple(imports))
    x = read_samples(files, **description)
    samples = Samples(model, x, held=np.array(held, np.intp))
    return None, _written(probe.moments(samples, batch_size, total=total))


@lru_cache(maxsize=1)
def _probe(content: bytes, wanted: str, imports: tuple[str, ...]) -> tuple[keras.Model, Probe]:
    """A model that was sent, and what measures some of its consumers."""
    model = sent_model(content, imports)
    traced = trace(model)
    known = [consumer for group in groups_of(traced) for consumer in group.consumers]
    by_description = dict(zip(map(json.dumps, _described(known)), known, strict=True))
    chosen = [by_description.get(json.dumps(one)) for one in json.loads(wanted)]
    if None in chosen:
        raise TfpruneError("the model's units are followed otherwise by this worker")
    return model, Probe(traced, [one for one in chosen if one is not None], exact=True)


def _described(consumers: Sequence[Consumer]) -> list[list[Any]]:
    """Consumers as plain values by which they are known again: of equal ones the first, second."""
    counts = dict[str, int]()
    made = []
    for one in consumers:
        index = text_digest(one.index.astype("<i8").tobytes())
        about = [one.layer, one.part, len(one.tensors), list(one.index.shape), index]
        same = json.dumps(about)
        counts[same] = counts.get(same, -1) + 1
        made.append([*about, counts[same]])
    return made


def _written(pair: Pair) -> dict[str, Array]:
    """Moments as arrays by names."""
    return {
        f"{which}.{place}.{name}": array
        for which, moments in zip((FITTED, HELD), pair, strict=True)
        for place, one in enumerate(moments)
        for name, array in one.state().items()
    }


def _read(arrays: Mapping[str, Array]) -> tuple[list[Moments], list[Moments]]:
    """The moments of :func:`_written`."""
    states: dict[str, dict[int, dict[str, Array]]] = {FITTED: {}, HELD: {}}
    for key, array in arrays.items():
        which, place, name = key.split(".")
        states[which].setdefault(int(place), {})[name] = array
    fitted, held = (
        [Moments.of(states[which][place]) for place in sorted(states[which])]
        for which in (FITTED, HELD)
    )
    return fitted, held


def _added(total: list[Moments], more: list[Moments]) -> list[Moments]:
    if not total or not more:
        return total or more
    return [one + another for one, another in zip(total, more, strict=True)]
