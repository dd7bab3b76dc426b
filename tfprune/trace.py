"""Where every unit's value goes in a model: which features hold it, which weights read it.

Each tensor has *labels*: for every feature the number of the unit that it holds, 0 for none.
Layers that only move values are run on the labels themselves. What is not on the allow-lists
of :mod:`tfprune.layers` blocks the units that reach it, with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers as kl

from tfprune.layers import (
    IDENTITY,
    MIXING,
    MIXING_ACTIVATIONS,
    MOVING,
    NONLINEAR,
    UNITWISE_ACTIVATIONS,
    activation_name,
    copied,
    describe,
    functional,
    weighted,
)

Index = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Producer:
    """A layer whose units could go: unit ``i`` has the label ``first + i``."""

    name: str
    units: int
    first: int

    def unit_of(self, labels: Index) -> Index:
        """The unit that each label means, -1 where it is none of this layer's."""
        inside = (labels >= self.first) & (labels < self.first + self.units)
        return np.where(inside, labels - self.first, -1)


@dataclass(frozen=True, eq=False)
class Read:
    """A layer whose weights read a producer's units.

    Attributes
    ----------
    layer, producer : str
    tensor : int
        Position in :attr:`Trace.tensors` of the tensor that is read.
    index : array of shape (positions, units)
        Which feature (last axis) holds which unit, once for every position. All positions went
        through the same functions; a layer that sees units in several ways has several reads.
    centre : array of shape (units,)
        The point from which the units' activations are seen, if the activation defines it.
    """

    layer: str
    producer: str
    tensor: int
    index: Index
    centre: npt.NDArray[np.float64]


@dataclass
class Trace:
    """Which layers make units, which layers read them, and what stands in the way.

    Attributes
    ----------
    model : keras.Model
        A copy of the traced model, the owner of ``tensors``.
    producers : dict of str to Producer
    reads : list of Read
    tensors : list of KerasTensor
        The tensors that are read.
    labels : dict of str to array of shape (features,)
        The labels on the last axis of what reaches a layer that has to change with it: readers,
        layers with weights per unit, and (after it) Reshape.
    blocked : dict of str to str
        Producer -> the reason why its units cannot go.
    """

    model: keras.Model
    producers: dict[str, Producer] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)
    labels: dict[str, Index] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)

    def reads_of(self, producer: str) -> list[Read]:
        """The reads of one producer's units."""
        return [read for read in self.reads if read.producer == producer]


def trace(model: keras.Model) -> Trace:
    """Follows the units of every Dense layer of a Sequential or Functional model.

    Raises
    ------
    TfpruneError
        If the model is neither, or has no shapes yet.
    """
    return _Tracer(model).result


@dataclass(frozen=True)
class _Features:
    """What a tensor's features hold; all arrays have the tensor's shape without the batch.

    Features of one *view* went through the same functions, so one fold serves them.
    """

    labels: Index
    views: Index
    centre: npt.NDArray[np.float64]


class _Tracer:
    def __init__(self, model: keras.Model) -> None:
        self.features: dict[int, _Features] = {}
        self.alive: list[Any] = []  # Tensors are known by id, so none may be collected.
        self.calls: Counter[str] = Counter()
        self.next_label = 1
        self.next_view = 1
        source = functional(model)
        self.originals = {layer.name: layer for layer in model.layers}
        self.result = Trace(model)
        clone = keras.models.clone_model(source, clone_function=copied, call_function=self._call)
        for layer in weighted(source):
            clone.get_layer(layer.name).set_weights(layer.get_weights())
        self.result.model = clone
        self._finish(clone)

    def _call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = layer(*args, **kwargs)
        inputs = [t for t in keras.tree.flatten((args, kwargs)) if isinstance(t, keras.KerasTensor)]
        self.calls[layer.name] += 1
        self.alive += [inputs, outputs]
        given = [self._features_of(tensor) for tensor in inputs]
        earlier = self.result.labels.get(layer.name)
        made = self._handler(layer)(layer, inputs, given)
        if made is not None:
            self.features[id(outputs)] = made
        if self.calls[layer.name] > 1 and getattr(layer, "weights", None):
            reason = f"{describe(layer)} is shared: the model calls it more than once"
            for labels in [*(features.labels for features in given), earlier]:
                if labels is not None:
                    self._block(labels, reason)
            if layer.name in self.result.producers:
                self.result.blocked[layer.name] = reason
        return outputs

    def _handler(self, layer: Any) -> Callable[..., _Features | None]:
        # Exact types: a subclass may do anything.
        handlers = {
            kl.Dense: self._dense,
            kl.Activation: self._activation,
            kl.BatchNormalization: self._normalise,
            kl.PReLU: self._prelu,
            **dict.fromkeys(IDENTITY, self._identity),
            **dict.fromkeys(NONLINEAR, self._activation),
            **dict.fromkeys(MOVING, self._move),
            **dict.fromkeys(MIXING, self._mix),
        }
        return handlers.get(type(layer), self._unknown)

    def _features_of(self, tensor: Any) -> _Features:
        if id(tensor) not in self.features:
            shape = tuple(size or 1 for size in tensor.shape[1:])
            nobody = np.broadcast_to(np.intp(0), shape)
            self.features[id(tensor)] = _Features(nobody, nobody, np.broadcast_to(0.0, shape))
        return self.features[id(tensor)]

    def _changed(self, labels: Index, centre: float | npt.NDArray[Any]) -> _Features:
        """Features after a function that treats every unit alone."""
        view = self.next_view
        self.next_view += 1
        return _Features(
            labels,
            np.broadcast_to(np.intp(view), labels.shape),
            np.broadcast_to(centre, labels.shape),
        )

    def _block(self, labels: Index, reason: str) -> None:
        present = np.unique(labels)
        for producer in self.result.producers.values():
            if (producer.unit_of(present) >= 0).any():
                self.result.blocked.setdefault(producer.name, reason)

    def _per_feature(self, layer: Any, given: _Features) -> Index | None:
        """The labels on the last axis, if they are the same wherever one looks along the others."""
        rows = given.labels.reshape(-1, given.labels.shape[-1])
        if (rows != rows[0]).any():
            self._block(given.labels, f"{describe(layer)} reads its units across several axes")
            return None
        return rows[0]

    def _dense(self, layer: Any, inputs: list[Any], given: list[_Features]) -> _Features | None:
        labels = self._per_feature(layer, given[0])
        if labels is not None and labels.any():
            self._read(layer, inputs[0], labels, given[0])
        original = self.originals[layer.name]
        producer = Producer(layer.name, layer.units, self.next_label)
        self.next_label += layer.units
        self.result.producers[layer.name] = producer
        if getattr(original, "quantization_mode", None) is not None:
            self.result.blocked[layer.name] = "its weights are quantised already"
        made = np.arange(producer.first, producer.first + producer.units)
        shape = (*(size or 1 for size in inputs[0].shape[1:-1]), layer.units)
        fresh = self._changed(np.broadcast_to(made, shape), 0.0)
        return self._activation(layer, inputs, [fresh])

    def _read(self, layer: Any, tensor: Any, labels: Index, given: _Features) -> None:
        known = [id(other) for other in self.result.tensors]
        if id(tensor) not in known:
            self.result.tensors.append(tensor)
            known.append(id(tensor))
        self.result.labels[layer.name] = labels
        size = len(labels)
        views, centre = given.views.reshape(-1, size)[0], given.centre.reshape(-1, size)[0]
        for producer in self.result.producers.values():
            units = producer.unit_of(labels)
            for view in np.unique(views[units >= 0]):
                features = np.flatnonzero((units >= 0) & (views == view))
                times = np.bincount(units[features], minlength=producer.units)
                if (times != times[0]).any():
                    self._block(labels, f"{describe(layer)} reads only some of its units")
                    break
                # A stable sort by unit keeps the positions of each unit in order.
                order = features[np.argsort(units[features], kind="stable")]
                index = order.reshape(producer.units, times[0]).T
                place = known.index(id(tensor))
                self.result.reads.append(
                    Read(layer.name, producer.name, place, index, centre[index[0]])
                )

    def _identity(self, layer: Any, inputs: Any, given: list[_Features]) -> _Features:
        return given[0]

    def _activation(self, layer: Any, inputs: Any, given: list[_Features]) -> _Features:
        features = given[0]
        centre = 0.0
        if type(layer) not in NONLINEAR:
            name = activation_name(layer.activation)
            if name == "linear":
                return features
            if name in MIXING_ACTIVATIONS:
                return self._mix(layer, inputs, given, f"{name} of {describe(layer)}")
            if name not in UNITWISE_ACTIVATIONS:
                self._block(
                    features.labels,
                    f"activation {name} of {describe(layer)} is not known to treat units alone",
                )
                return features
            centre = UNITWISE_ACTIVATIONS[name]
        return self._changed(features.labels, centre)

    def _mix(
        self, layer: Any, inputs: Any, given: list[_Features], what: str | None = None
    ) -> _Features:
        self._block(given[0].labels, f"{what or describe(layer)} mixes the units")
        return given[0]

    def _move(self, layer: Any, inputs: Any, given: list[_Features]) -> _Features:
        original = self.originals[layer.name]

        def moved(arrays: list[Any], dtype: str) -> npt.NDArray[Any]:
            tensors = [keras.ops.convert_to_tensor(a[None].astype(dtype)) for a in arrays]
            out = original(tensors if type(layer) is kl.Concatenate else tensors[0])
            return keras.ops.convert_to_numpy(out)[0]

        labels = moved([f.labels for f in given], "int32").astype(np.intp)
        if type(layer) is kl.Reshape and labels.any():
            rows = labels.reshape(-1, labels.shape[-1])
            if (rows != rows[0]).any():
                self._block(labels, f"{describe(layer)} splits the units over several axes")
            self.result.labels[layer.name] = rows[0]
        return _Features(
            labels,
            moved([f.views for f in given], "int32").astype(np.intp),
            moved([f.centre for f in given], "float32").astype(float),
        )

    def _per_unit_weights(self, layer: Any, given: _Features, whole: bool) -> Index | None:
        """Notes that a layer has weights per feature, which go with their units."""
        if not given.labels.any():
            return None
        if not whole:
            self._block(given.labels, f"{describe(layer)} does not work along the last axis")
            return None
        labels = self._per_feature(layer, given)
        if labels is None:
            return None
        if max(Counter(labels[labels > 0].tolist()).values()) > 1:
            self._block(labels, f"{describe(layer)} treats one unit differently at each position")
            return None
        self.result.labels[layer.name] = labels
        return labels

    def _normalise(self, layer: Any, inputs: list[Any], given: list[_Features]) -> _Features:
        features = given[0]
        last = layer.axis in (-1, len(inputs[0].shape) - 1)
        if self._per_unit_weights(layer, features, last) is None:
            return features
        # The centre goes the way of the values: gamma * (centre - mean) / deviation + beta.
        original = self.originals[layer.name]
        normalised = original(
            keras.ops.convert_to_tensor(features.centre[None].astype("float32")), training=False
        )
        return self._changed(
            features.labels, keras.ops.convert_to_numpy(normalised)[0].astype(float)
        )

    def _prelu(self, layer: Any, inputs: list[Any], given: list[_Features]) -> _Features:
        last = len(inputs[0].shape) - 1
        self._per_unit_weights(layer, given[0], last not in (layer.shared_axes or []))
        return self._changed(given[0].labels, 0.0)

    def _unknown(self, layer: Any, inputs: Any, given: list[_Features]) -> None:
        for features in given:
            self._block(features.labels, f"feeds {describe(layer)}, which is not handled")

    def _finish(self, clone: keras.Model) -> None:
        for tensor in clone.outputs:
            labels = np.unique(self._features_of(tensor).labels)
            for producer in self.result.producers.values():
                if (producer.unit_of(labels) >= 0).any():
                    self.result.blocked[producer.name] = "output layer"
        read = {read.producer for read in self.result.reads}
        for producer in self.result.producers.values():
            if producer.name not in read:
                self.result.blocked.setdefault(producer.name, "nothing reads its units")
