"""Samples with the teacher's outputs, some of them held out from training."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Protocol

import keras
import numpy as np

from tfprune.data.held_out import held_out_split
from tfprune.graph.batches import fixed_batch, rebatched, reset_states, states_of
from tfprune.graph.inputs import Samples, predicted
from tfprune.outputs.distance import Spread
from tfprune.training.augmentation import flipped_and_shifted
from tfprune.training.loop import Batch, batch_size_for, check_whole, epoch_of
from tfprune.utils.arrays import Array

# Samples that go through the teacher, or the layers in front, at a time.
PREDICTED = 512
# A data set is read in its own order, so what is held out of it is kept: samples and bytes.
MOST_KEPT, KEPT_BYTES = 1_000, 2**27


class SoftTargets(Protocol):
    """Batches of the trained part's inputs and the teacher's outputs.

    Attributes
    ----------
    trained_on, held_out : int
        Numbers of samples.
    batch_size : int
        Samples of a batch, at most.
    variances : list of float
        Of the teacher's outputs.
    """

    trained_on: int
    held_out: int
    batch_size: int
    variances: list[float]

    @property
    def steps(self) -> int:
        """Batches of an epoch.

        Raises
        ------
        TfpruneError
            If there are too few samples for a model of a fixed batch size.
        """

    def batches(self, rng: np.random.Generator) -> Iterator[Batch]:
        """The batches of an epoch."""

    def held_out_batches(self) -> Iterator[Batch]:
        """The held-out samples; if there are none, the samples trained on."""


def soft_targets(
    head: keras.Model | None,
    tail: keras.Model,
    teacher: keras.Model,
    samples: Samples,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    hold_out: bool = True,
    augment: bool = False,
) -> SoftTargets:
    """Reads the data once and computes the teacher's outputs.

    Parameters
    ----------
    head : keras.Model or None
        What computes the inputs of the part that is trained.
    tail : keras.Model
        That part.
    teacher : keras.Model
    samples : Samples
    batch_size : int, optional
        Of data whose samples have numbers.
    seed : int
        Of which samples are held out. Of data that a recurrent layer reads with a state from batch
        to batch, these are the last ones.
    hold_out : bool
        Whether any are.
    augment : bool
        Whether samples that are trained on are flipped and shifted each time, in front of the
        teacher, too; what is held out stays as it is.
    """
    models = _Models(head, tail, teacher, augment)
    if samples.total is None:
        return _Stream(models, samples, seed=seed, hold_out=hold_out)
    return _Numbered(models, samples, batch_size, seed=seed, hold_out=hold_out)


class _Models:
    """The teacher, both parts of the student, and the batches that they take.

    Attributes
    ----------
    fixed : int or None
        Their batch size, if that is fixed.
    ordered : bool
        Whether one keeps a state from batch to batch.
    augment : bool
    """

    def __init__(
        self, head: keras.Model | None, tail: keras.Model, teacher: keras.Model, augment: bool
    ) -> None:
        self.head, self.teacher, self.augment = head, teacher, augment
        self.all = [model for model in (head, tail, teacher) if model is not None]
        self.fixed = fixed_batch(teacher)
        self.ordered = any(map(states_of, self.all))

    def reset(self) -> None:
        """Starts a pass over the data."""
        for model in self.all:
            reset_states(model)

    def answers(self, batch: Sequence[Array]) -> list[Array]:
        """The teacher's outputs."""
        return _outputs(self.teacher, batch)

    def before(self, batch: Sequence[Array]) -> list[Array]:
        """The inputs of the part that is trained."""
        return list(batch) if self.head is None else _outputs(self.head, batch)

    def trained_on(self, batch: Sequence[Array], rng: np.random.Generator) -> Batch:
        """A batch to train on: what the trained part reads, and the teacher's outputs for it."""
        seen = flipped_and_shifted(batch, rng) if self.augment else batch
        return self.before(seen), self.answers(seen)

    def steps(self, samples: int, size: int) -> int:
        """Batches of an epoch; incomplete ones are left out where the size is fixed."""
        check_whole(self.teacher, samples)
        return samples // size if self.fixed else -(-samples // size)


class _Numbered:
    """Of arrays. The teacher answers once; what the head computes is kept if it is no larger,
    and the samples are in memory."""

    def __init__(
        self, models: _Models, source: Samples, batch_size: int | None, *, seed: int,
        hold_out: bool,
    ) -> None:  # fmt: skip
        self._models, self._source = models, source
        total = source.total or 0
        self._trained_on, self._held_out = np.arange(total), np.arange(0)
        if hold_out:
            self._trained_on, self._held_out = held_out_split(
                total, seed, least=models.fixed or 1, ordered=models.ordered
            )
        self.trained_on, self.held_out = len(self._trained_on), len(self._held_out)
        self.batch_size = batch_size or models.fixed or batch_size_for(self.trained_on)
        keep = models.head is not None and _no_larger(models.head) and not source.streamed
        targets: list[list[Array]] = []
        features: list[list[Array]] = []
        spreads = [Spread() for _ in models.teacher.outputs]
        # States start anew with what is held out, as they do when the loss on it is measured.
        parts = [self._trained_on, self._held_out] if models.ordered else [np.arange(total)]
        for part in parts:
            models.reset()
            for index in self._chunks(part):
                batch = source.at(index)
                answers = models.answers(batch)
                for spread, out in zip(spreads, answers, strict=True):
                    spread.add(out)
                targets.append(answers)
                features += [models.before(batch)] if keep else []
        self.variances = [spread.variance for spread in spreads]
        self._targets = [np.concatenate(out) for out in zip(*targets, strict=True)]
        self._features = [np.concatenate(out) for out in zip(*features, strict=True)]

    @property
    def steps(self) -> int:
        return self._models.steps(self.trained_on, self.batch_size)

    def batches(self, rng: np.random.Generator) -> Iterator[Batch]:
        for index in epoch_of(self._models.all, self.trained_on, self.batch_size, rng):
            numbers = self._trained_on[index]
            if self._models.augment:
                yield self._models.trained_on(self._source.at(numbers), rng)
            else:
                yield self._at(numbers)

    def held_out_batches(self) -> Iterator[Batch]:
        self._models.reset()
        for index in self._chunks(self._held_out if self.held_out else self._trained_on):
            yield self._at(index)

    def _chunks(self, index: Array) -> Iterator[Array]:
        size = self._models.fixed or PREDICTED
        return (index[start : start + size] for start in range(0, len(index), size))

    def _at(self, index: Array) -> Batch:
        read = [features[index] for features in self._features]
        read = read or self._models.before(self._source.at(index))
        return read, [targets[index] for targets in self._targets]


class _Stream:
    """Of a data set, whose samples have no numbers and may come in another order each time.

    What is held out is told by a digest of a sample, so it stays the same, and equal samples are
    on one side. A data set that changes its samples each time (augmentation) is beyond that.
    """

    def __init__(self, models: _Models, source: Samples, *, seed: int, hold_out: bool) -> None:
        self._models, self._source = models, source
        self._key = f"{seed}".encode()
        bytes_each = sum(data[0].nbytes for data in source.head)
        most = min(MOST_KEPT, max(KEPT_BYTES // max(bytes_each, 1), 1)) if hold_out else 0
        # The smallest so far, the largest of them first, with their samples.
        kept: list[tuple[int, int, list[Array]]] = []
        digests: list[int] = []
        self.batch_size = models.fixed or 0
        spreads = [Spread() for _ in models.teacher.outputs]
        models.reset()
        for batch in source.batches(PREDICTED):
            for spread, out in zip(spreads, models.answers(batch), strict=True):
                spread.add(out)
            self.batch_size = max(self.batch_size, len(batch[0]))
            for row, digest in enumerate(self._digests(batch, len(digests))):
                digests.append(digest)
                if len(kept) < most or (most and digest < -kept[0][0]):
                    entry = (-digest, len(digests), [data[row] for data in batch])
                    (heapq.heappush if len(kept) < most else heapq.heapreplace)(kept, entry)
        self.variances = [spread.variance for spread in spreads]
        trained_on, _ = held_out_split(len(digests), seed, least=models.fixed or 1)
        entries = sorted(kept, reverse=True)[: len(digests) - len(trained_on)]
        # Where all samples are equal, none is held out.
        apart = bool(entries) and max(digests) > -entries[-1][0]
        self._limit = -entries[-1][0] if apart else -math.inf
        rows = [rows for negative, _, rows in sorted(entries) if apart]
        self._kept = [np.stack(column) for column in zip(*rows, strict=True)]
        self.held_out = len(rows)
        self.trained_on = sum(digest > self._limit for digest in digests)

    def _digests(self, batch: Sequence[Array], position: int) -> list[int]:
        """A number for each sample; samples of the smallest numbers are held out."""
        if self._models.ordered:  # The last ones, so that the others follow on each other.
            return [-position - row for row in range(len(batch[0]))]
        rows = zip(*map(np.ascontiguousarray, batch), strict=True)
        return [
            int.from_bytes(
                blake2b(
                    b"".join(part.tobytes() for part in row), digest_size=8, key=self._key
                ).digest()
            )
            for row in rows
        ]

    @property
    def steps(self) -> int:
        return self._models.steps(self.trained_on, self.batch_size)

    def batches(self, rng: np.random.Generator) -> Iterator[Batch]:
        self._models.reset()  # The order is the data set's own.
        for batch in rebatched(self._chosen(), self.batch_size):
            if len(batch[0]) == self.batch_size or not self._models.fixed:
                yield self._models.trained_on(batch, rng)

    def _chosen(self) -> Iterator[list[Array]]:
        position = 0
        for batch in self._source.batches(self.batch_size):
            digests = self._digests(batch, position)
            position += len(batch[0])
            chosen = np.array([digest > self._limit for digest in digests])
            if chosen.any():
                yield [data[chosen] for data in batch]

    def held_out_batches(self) -> Iterator[Batch]:
        self._models.reset()
        size = self._models.fixed or PREDICTED
        chunks = (
            [data[start : start + size] for data in self._kept]
            for start in range(0, self.held_out, size)
        )
        for batch in chunks if self.held_out else self._chosen():
            yield self._models.before(batch), self._models.answers(batch)


def _no_larger(head: keras.Model) -> bool:
    """Whether a model's outputs for a sample are no larger than the sample."""
    computed, read = (
        [math.prod(size or 1 for size in tensor.shape[1:]) for tensor in tensors]
        for tensors in (head.outputs, head.inputs)
    )
    return sum(computed) <= sum(read)


def _outputs(model: keras.Model, batch: Sequence[Array]) -> list[Array]:
    """A model's outputs for a batch, no half floats."""
    outputs = predicted(model, batch)
    return [out.astype(np.float32) if out.dtype.itemsize < 4 else out for out in outputs]
