"""Measures what each consumer of units receives, in one pass over the calibration data."""

from __future__ import annotations

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
from tfprune.graph.groups import Consumer
from tfprune.graph.inputs import Samples, predicted
from tfprune.graph.trace import Trace
from tfprune.utils.console import meter


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
    batch_size: int = 256,
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
    batch_size : int
        Of data that does not come in batches of its own.
    progress : bool
        Whether to draw a progress bar on stderr.

    Returns
    -------
    list of Measured
        One for each consumer. A unit that stands at several positions (in a picture, or after
        Flatten) has a sample for each.

    Raises
    ------
    TfpruneError
        If an activation is NaN or infinite; names the layer that receives it.
    """
    needed = sorted({tensor for consumer in consumers for tensor in consumer.tensors})
    probe = keras.Model(trace.model.inputs, [trace.tensors[tensor] for tensor in needed])
    moments = [Moments(consumer.index.shape[1]) for consumer in consumers]
    others: list[Moments] = []
    with meter("activations", samples.total, progress) as bar, from_zero_state(probe):
        for batch, held in samples.divided(batch_size):
            received = dict(zip(needed, predicted(probe, batch), strict=True))
            parts: list[tuple[list[Moments], npt.NDArray[np.bool_] | None]] = [(moments, None)]
            if held.any():
                others = others or [Moments(moment.units) for moment in moments]
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
            moments[place].flush()
            if not others:
                results.append(Measured(moments[place]))
                continue
            fitted, held_moments = moments[place], others[place]
            held_moments.flush()
            results.append(Measured(fitted + held_moments, fitted, held_moments))
    return results


@contextmanager
def _naming(layer: str) -> Iterator[None]:
    try:
        yield
    except TfpruneError as error:
        raise TfpruneError(f"what layer {layer} reads: {error}") from None


def vectors(features: npt.NDArray[Any], index: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """The units' activations, shape (samples x positions, units), out of a tensor's features."""
    units = index.shape[1]
    rows = features.reshape(-1, features.shape[-1])
    if index.size == rows.shape[1] and (index.ravel() == np.arange(index.size)).all():
        return rows.reshape(-1, units)  # Already in order: no copy.
    return rows[:, index].reshape(-1, units)
