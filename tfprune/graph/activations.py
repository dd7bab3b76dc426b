"""Measures what each consumer of units receives, in one pass over the calibration data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfprune.core.moments import Moments
from tfprune.errors import TfpruneError
from tfprune.graph.batches import from_zero_state
from tfprune.graph.forward import Forward, Index
from tfprune.graph.groups import Consumer
from tfprune.graph.inputs import Samples, predicted
from tfprune.graph.trace import Trace
from tfprune.utils.console import meter

# Samples in a batch where none are asked for; fewer of a large model.
BATCH = 256
# Of a large model: positions of a sample that are measured, drawn at random, and vectors that all
# samples together are to give, if more positions are needed for that.
POSITIONS, VECTORS = 256, 2**17
# Bytes of the buffers in which vectors wait to be multiplied, at most.
WAITING = 2**28


@dataclass(frozen=True, eq=False)
class Measured:
    """The moments of what one consumer receives.

    Attributes
    ----------
    moments : Moments
        Of all samples; angles and folds are computed from them.
    fitted, held : Moments or None
        Of the samples that folds are fitted on, and of those held back to compare them on; None
        if nothing is held back.
    """

    moments: Moments
    fitted: Moments | None = None
    held: Moments | None = None


def measure(
    trace: Trace,
    consumers: Sequence[Consumer],
    samples: Samples,
    batch_size: int | None = None,
    progress: bool = False,
) -> list[Measured]:
    """Moments of the activation vectors that each consumer receives, in one forward pass.

    Parameters
    ----------
    trace : Trace
    consumers : sequence of Consumer
        Which consumers to measure, at least one.
    samples : Samples
        Calibration data; only one batch of activations is held at a time.
    batch_size : int, optional
        Of data that does not come in batches of its own; by default 256, and of a large model (over
        2 million numbers a sample) as many as there is memory for.
    progress : bool
        Whether to draw a progress bar on stderr.

    Returns
    -------
    list of Measured
        One for each consumer. A unit that stands at several positions (in a picture, or after
        Flatten) has a sample for each; of a picture in a large model for 256 of them, drawn at
        random, or for more where all samples together would have less than 131,072.

    Raises
    ------
    TfpruneError
        If an activation is NaN or infinite; names the layer that receives it.
    """
    needed = sorted({tensor for consumer in consumers for tensor in consumer.tensors})
    probe = keras.Model(trace.model.inputs, [trace.tensors[tensor] for tensor in needed])
    forward, rng = Forward(probe, BATCH), np.random.default_rng(0)
    each = max(POSITIONS, -(-VECTORS // samples.total) if samples.total else 0)
    widths = [consumer.index.shape[1] for consumer in consumers]
    share = WAITING // (2 * len(widths))
    moments = [Moments(units, share) for units in widths]
    others: list[Moments] = []
    with meter("activations", samples.total, progress) as bar, from_zero_state(probe):
        for batch, held in samples.divided(batch_size or forward.step):
            if forward.large:
                index = [_drawn(tensor.shape, len(held), each, rng) for tensor in probe.outputs]
                made = [
                    out if one is None else out.reshape(len(held), each, -1)
                    for out, one in zip(forward(batch, index), index, strict=True)
                ]
            else:
                made = predicted(probe, batch)
            received = dict(zip(needed, made, strict=True))
            parts: list[tuple[list[Moments], npt.NDArray[np.bool_] | None]] = [(moments, None)]
            if held.any():
                others = others or [Moments(units, share) for units in widths]
                parts = [(moments, ~held), (others, held)]
            for place, consumer in enumerate(consumers):
                with _naming(consumer.layer):
                    for tensor in consumer.tensors:
                        for which, rows in parts:
                            part = received[tensor] if rows is None else received[tensor][rows]
                            which[place].add(vectors(part, consumer.index))
            bar.update(len(batch[0]))
    results = []
    for place, consumer in enumerate(consumers):
        with _naming(consumer.layer):
            moments[place].close()
            if not others:
                results.append(Measured(moments[place]))
                continue
            fitted, held_moments = moments[place], others[place]
            held_moments.close()
            results.append(Measured(fitted + held_moments, fitted, held_moments))
    return results


@contextmanager
def _naming(layer: str) -> Iterator[None]:
    try:
        yield
    except TfpruneError as error:
        raise TfpruneError(f"what layer {layer} reads: {error}") from None


def _drawn(
    shape: tuple[int | None, ...], samples: int, each: int, rng: np.random.Generator
) -> Index | None:
    """Positions of a tensor that are measured, so many of each sample; None for all."""
    if None in shape[1:]:
        return None
    positions = math.prod(size or 1 for size in shape[1:-1])
    if positions <= each:
        return None
    drawn = rng.integers(0, positions, (samples, each))
    return (drawn + positions * np.arange(samples)[:, None]).ravel()


def vectors(features: npt.NDArray[Any], index: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """The units' activations, shape (samples x positions, units), out of a tensor's features."""
    units = index.shape[1]
    rows = features.reshape(-1, features.shape[-1])
    if index.size == rows.shape[1] and (index.ravel() == np.arange(index.size)).all():
        return rows.reshape(-1, units)  # Already in order: no copy.
    return rows[:, index].reshape(-1, units)
