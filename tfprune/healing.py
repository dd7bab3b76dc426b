"""Healing: a pruned model learns, without labels, what the original answers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.batches import fixed_batch, from_zero_state
from tfprune.choices import check_count, check_rate
from tfprune.configs import config_of
from tfprune.copies import functional, lost, twin
from tfprune.distance import Spread, graph_of, matches
from tfprune.errors import PruningWarning, TfpruneError
from tfprune.fitting import Batch, batch_size_for, check_whole, cosine, epoch_of, fit
from tfprune.inputs import Array, Samples, packed, predicted
from tfprune.rounding import dense_kernels, rounded, rounded_call
from tfprune.subclasses import check_call

LEARNING_RATE = 0.005
# Samples that go through the teacher, or the layers in front, at a time.
PREDICTED = 512


def heal(
    model: keras.Model,
    teacher: keras.Model,
    x: Any,
    epochs: int,
    *,
    batch_size: int | None = None,
    learning_rate: float = LEARNING_RATE,
    logits: bool | None = None,
    bits: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> keras.Model:
    """Trains a pruned model to answer as the original does; no labels are needed.

    Outputs of a softmax or a sigmoid, and logits, learn by cross entropy, others by squared error
    in parts of the teacher's variance; several outputs count alike. The layers in front of the
    first one that pruning changed stay as they are, and what they compute is computed once where
    that is not more than the samples themselves. Layers work as in inference, so Dropout is off
    and the statistics of BatchNormalization stay. Adam, its rate along a cosine to 0.

    Parameters
    ----------
    model : keras.Model
        The pruned model; it stays as it is.
    teacher : keras.Model
        The original, of the same inputs and outputs.
    x : array, list or dict of arrays, path of a .npy, tf.data.Dataset or keras.utils.PyDataset
        Samples as the model takes them; labels that come with a data set are left out. Arrays are
        shuffled; a data set comes in its own order and batches, and is read once before the
        training and once in each epoch.
    epochs : int
        At least 1.
    batch_size : int, optional
        Of arrays; 128 by default, less where an epoch would be fewer than 64 steps, at least 16. A
        model of a fixed batch size takes that, and what is left over in an epoch is left out.
        Where a recurrent layer keeps its state from batch to batch, samples come in their own
        order and every pass over them starts with a state of zero.
    learning_rate : float
        In (0, 1], where Adam starts.
    logits : bool, optional
        Whether linear outputs of several units are the logits of classes, and so are compared as
        probabilities, of temperature 2. By default if the teacher's compiled loss says so.
    bits : int, optional
        From 2 to 8: the model answers with the weights of the Dense layers that are trained
        rounded to so many bits, a scale for each unit, and rounded they come back. 4 for files of
        the scheme ``int4``.
    seed : int
        Of the order of the samples.
    progress : bool
        Whether to draw progress bars on stderr.

    Returns
    -------
    keras.Model
        A new model with the names, trainable flags and compile settings of the pruned one.

    Raises
    ------
    TfpruneError
        If an argument is not as above, the data or the teacher does not fit the model, or the
        training does not stay finite.
    """
    epochs = check_count("epochs", epochs)
    size = None if batch_size is None else check_count("batch_size", batch_size)
    rate = check_rate(learning_rate)
    if bits is not None and (type(bits) is not int or not 2 <= bits <= 8):
        raise TfpruneError(f"bits: expected a whole number from 2 to 8 or None, received {bits!r}")
    _check_pair(model, teacher)
    samples = Samples(model, x)
    fixed = fixed_batch(model)
    if fixed is not None and size not in (None, fixed):
        raise TfpruneError(
            f"batch_size: expected {fixed}, which is all that model {model.name} takes, or None, "
            f"received {size}"
        )
    check_call(model, samples.head)
    size = size or fixed or batch_size_for(samples.total or 0)
    student = twin(model)
    head, tail = _parted(student, teacher)
    if tail is None or not tail.trainable_weights:
        return student
    with from_zero_state(teacher):
        lesson = _Lesson(
            head, tail, teacher, samples, batch_size=size, rng=np.random.default_rng(seed)
        )
        check_whole(model, lesson.samples)
        found = matches(model, teacher, lesson.variances, logits)
        network = _InInference(tail, bits)
        network.compile(
            keras.optimizers.Adam(cosine(rate, epochs * lesson.steps)),
            loss=[match.loss for match in found],
            loss_weights=[match.weight for match in found],
        )
        fit(network, lesson.feed, epochs, what="healing", samples=lesson.samples, progress=progress)
    if bits is not None:
        for kernel in dense_kernels(tail):
            kernel.assign(rounded(kernel.value, bits))
    # A new one, as the student's layers stand in several graphs by now.
    made = twin(model)
    made.set_weights(student.get_weights())
    for note in lost(model, made):
        warnings.warn(note, PruningWarning, stacklevel=2)
    return made


class _Lesson:
    """What the trained layers read, and the teacher's outputs, batch by batch.

    Attributes
    ----------
    samples, steps : int
        In an epoch.
    variances : list of float
        Of the teacher's outputs.
    """

    def __init__(
        self,
        head: keras.Model | None,
        tail: keras.Model,
        teacher: keras.Model,
        source: Samples,
        *,
        batch_size: int,
        rng: np.random.Generator,
    ) -> None:
        self._head, self._teacher, self._source = head, teacher, source
        self._models = [one for one in (head, tail, teacher) if one is not None]
        self._size, self._rng = batch_size, rng
        self._targets: list[Array] = []
        self._features: list[Array] = []
        self.samples = self.steps = 0
        self.variances: list[float] = []
        self._read()

    def _read(self) -> None:
        """Once through the data: counts, the teacher's variance, and what is worth keeping."""
        held = self._source.total is not None
        keep = held and self._head is not None and _no_larger(self._head)
        targets: list[list[Array]] = []
        features: list[list[Array]] = []
        spreads = [Spread() for _ in self._teacher.outputs]
        for batch in self._source.batches(PREDICTED):
            wanted = _answers(self._teacher, batch)
            for spread, out in zip(spreads, wanted, strict=True):
                spread.add(out)
            self.samples += len(batch[0])
            self.steps += 1
            targets += [wanted] if held else []
            features += [self._before(batch)] if keep else []
        self.variances = [spread.variance for spread in spreads]
        self._targets = [np.concatenate(out) for out in zip(*targets, strict=True)]
        self._features = [np.concatenate(out) for out in zip(*features, strict=True)]
        if held:
            self.steps = -(-self.samples // self._size)

    def _before(self, batch: Sequence[Array]) -> list[Array]:
        """What the trained layers read of a batch."""
        return list(batch) if self._head is None else _answers(self._head, batch)

    def feed(self) -> Iterator[Batch]:
        """The batches of an epoch."""
        order = epoch_of(self._models, self.samples, self._size, self._rng)
        if self._source.total is None:
            whole = fixed_batch(self._teacher) is not None
            for batch in self._source.batches(self._size):
                if len(batch[0]) == self._size or not whole:
                    yield self._before(batch), _answers(self._teacher, batch)
            return
        for index in order:
            read = [features[index] for features in self._features]
            yield read or self._before(self._source.at(index)), [t[index] for t in self._targets]


def _no_larger(head: keras.Model) -> bool:
    """Whether what a model computes of a sample is no larger than the sample."""
    made, taken = (
        [math.prod(size or 1 for size in tensor.shape[1:]) for tensor in tensors]
        for tensors in (head.outputs, head.inputs)
    )
    return sum(made) <= sum(taken)


def _answers(model: keras.Model, batch: Sequence[Array]) -> list[Array]:
    """A model's outputs for a batch, no half floats."""
    made = predicted(model, batch)
    return [out.astype(np.float32) if out.dtype.itemsize < 4 else out for out in made]


def _check_pair(model: keras.Model, teacher: keras.Model) -> None:
    """Raises :class:`TfpruneError` if the models do not take and make the same."""
    for one in (model, teacher):
        functional(one)
    for what in ("inputs", "outputs"):
        ours, theirs = ([tuple(t.shape[1:]) for t in getattr(m, what)] for m in (model, teacher))
        if ours != theirs:
            raise TfpruneError(
                f"teacher {teacher.name}: expected {what} of shapes {ours} as those of model "
                f"{model.name}, received {theirs}"
            )


def _parted(student: keras.Model, teacher: keras.Model) -> tuple[Any, Any]:
    """The part that computes what the teacher does and the part to train; None for no such."""
    theirs = {layer.name: layer for layer in teacher.layers}
    graph, calls = graph_of(student)
    clean = {id(tensor) for tensor in graph.inputs}
    for call in calls:
        if all(id(t) in clean for t in call.read) and _same(call.layer, theirs):
            clean |= {id(tensor) for tensor in call.made}
    if all(id(tensor) in clean for tensor in graph.outputs):
        return graph, None
    for call in reversed(calls):
        if len(call.made) > 1 or id(call.made[0]) not in clean:
            continue
        try:
            tail = keras.Model(call.made[0], graph.outputs)
        except ValueError:  # There is a way around this tensor.
            continue
        head = keras.Model(graph.inputs, call.made[0])
        # A layer that works on both sides would be trained on one of them alone.
        if not {id(x) for x in head.weights} & {id(x) for x in tail.weights}:
            return head, tail
    return None, graph


def _same(layer: Any, theirs: dict[str, Any]) -> bool:
    """Whether a layer computes what the teacher's layer of that name does."""
    if not isinstance(layer, keras.Layer):
        return True  # An operation, which has nothing that could differ.
    other = theirs.get(layer.name)
    if (
        other is None
        or type(other) is not type(layer)
        or str(config_of(other)) != str(config_of(layer))
    ):
        return False
    ours = layer.get_weights()
    return all(map(np.array_equal, ours, other.get_weights()))


class _InInference(keras.Model):  # type: ignore[misc]  # Keras is untyped
    """The same layers, which work as in inference even while they are trained.

    A class, as a Functional model overrules ``training=False`` in a call that it records.
    """

    def __init__(self, layers: keras.Model, bits: int | None = None) -> None:
        super().__init__(name="in_inference")
        self.inner, self._bits = layers, bits

    def call(self, inputs: Any, training: bool = False) -> list[Any]:
        given = packed(self.inner, keras.tree.flatten(inputs))
        if self._bits is None:
            return keras.tree.flatten(self.inner(given, training=False))
        return keras.tree.flatten(rounded_call(self.inner, given, self._bits))
