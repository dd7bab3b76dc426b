"""Measures what each consumer of units receives, in one pass over the calibration data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
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


# Moments of what each consumer receives: of the samples that folds are fitted on, or of all where
# none are held back, and of those held back; no second ones where there are none.
Pair = tuple[list[Moments], list[Moments]]


def measure(
    trace: Trace,
    consumers: Sequence[Consumer],
    samples: Samples,
    batch_size: int | None = None,
    progress: bool = False,
    *,
    exact: bool = False,
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
    exact : bool
        See :class:`tfprune.core.moments.Moments`.

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
    probe = Probe(trace, consumers, exact)
    with meter("activations", samples.total, progress) as bar:
        return measured(consumers, probe.moments(samples, batch_size, done=bar.update))


class Probe:
    """A model that gives what consumers receive.

    Parameters
    ----------
    trace : Trace
    consumers : sequence of Consumer
    exact : bool
        See :class:`tfprune.core.moments.Moments`.
    """

    def __init__(self, trace: Trace, consumers: Sequence[Consumer], exact: bool = False) -> None:
        self._consumers, self._exact = consumers, exact
        self._needed = sorted({tensor for consumer in consumers for tensor in consumer.tensors})
        self._model = keras.Model(
            trace.model.inputs, [trace.tensors[tensor] for tensor in self._needed]
        )
        self._forward = Forward(self._model, BATCH)

    def moments(
        self,
        samples: Samples,
        batch_size: int | None = None,
        *,
        total: int | None = None,
        done: Callable[[int], object] = lambda samples: None,
    ) -> Pair:
        """The moments of some samples, in one pass.

        Parameters
        ----------
        samples : Samples
        batch_size : int, optional
        total : int, optional
            The number of all samples, of which these are a part.
        done : callable
            Is told after every batch how many samples it had.

        Raises
        ------
        TfpruneError
            See :func:`measure`.
        """
        rng = np.random.default_rng(0)
        total = total or samples.total
        each = max(POSITIONS, -(-VECTORS // total) if total else 0)
        moments, others = self._empty(), list[Moments]()
        with from_zero_state(self._model):
            for batch, held in samples.divided(batch_size or self._forward.step):
                received = self._received(batch, each, rng)
                parts: list[tuple[list[Moments], npt.NDArray[np.bool_] | None]] = [(moments, None)]
                if held.any():
                    others = others or self._empty()
                    parts = [(moments, ~held), (others, held)]
                for place, consumer in enumerate(self._consumers):
                    with _naming(consumer.layer):
                        for tensor in consumer.tensors:
                            for which, rows in parts:
                                part = received[tensor] if rows is None else received[tensor][rows]
                                which[place].add(vectors(part, consumer.index))
                done(len(batch[0]))
        return moments, others

    def _empty(self) -> list[Moments]:
        widths = [consumer.index.shape[1] for consumer in self._consumers]
        share = WAITING // (2 * len(widths))
        return [Moments(units, self._exact, waiting=share) for units in widths]

    def _received(
        self, batch: Sequence[npt.NDArray[Any]], each: int, rng: np.random.Generator
    ) -> dict[int, npt.NDArray[Any]]:
        """What the tensors needed hold for a batch, of a large model at some positions."""
        forward, count = self._forward, len(batch[0])
        if not forward.large:
            return dict(zip(self._needed, predicted(self._model, batch), strict=True))
        index = [_drawn(tensor.shape, count, each, rng) for tensor in self._model.outputs]
        made = [
            out if one is None else out.reshape(count, each, -1)
            for out, one in zip(forward(batch, index), index, strict=True)
        ]
        return dict(zip(self._needed, made, strict=True))


def measured(consumers: Sequence[Consumer], pair: Pair) -> list[Measured]:
    """What was measured of each consumer.

    Raises
    ------
    TfpruneError
        See :func:`measure`.
    """
    moments, others = pair
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
