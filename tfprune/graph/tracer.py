"""Where every unit's value goes in a model: which features hold it, which weights read it.

Each tensor has *labels*: for every feature the number of the unit that it holds, 0 for none.
Layers that only move values are run on the labels themselves. What is not on the allow-lists
of :mod:`tfprune.graph.layers` blocks the units that reach it, with the reason.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers as kl

from tfprune.graph import layers as known
from tfprune.graph.clone import clone_layer, copy_weights, functional, is_nested
from tfprune.graph.configs import config_of
from tfprune.graph.features import Features, compact, row_of, shape_of
from tfprune.graph.trace import Ledger, Trace, slot


def trace(model: keras.Model) -> Trace:
    """Follows the units of every Dense and convolution layer of a model.

    Raises
    ------
    TfpruneError
        If the model is neither Sequential nor Functional, or has no shapes yet.
    """
    return _Tracer(model).result


class _Tracer(Ledger):
    def __init__(self, model: keras.Model) -> None:
        super().__init__(model)
        self.prefix = ""
        self.copies: dict[int, Any] = {}
        self.nested: set[int] = set()
        self.marked: dict[int, tuple[keras.Model, list[Any]]] = {}
        self.ends: dict[int, Any] = {}
        self.inner: list[tuple[str, Any]] = []
        clone = keras.models.clone_model(
            functional(model), clone_function=self._copied, call_function=self._call
        )
        for layer in self.result.layers.values():
            if getattr(layer, "weights", None):  # Operations such as x[:, 0] have none.
                copy_weights(layer, self.copies[id(layer)])
        for path, part in self.inner:
            part.set_weights(self.result.layers[path].get_weights()[:1])
        self.result.model = clone
        for name, reason in self.refused.items():
            for key, labels in self.result.input_labels.items():
                if key == name or key.startswith(f"{name}:"):  # All inputs of attention.
                    self.block(labels, reason)
        for tensor in clone.outputs:
            self.block(self.features_of(tensor).labels, "output layer")

    def _copied(self, layer: Any) -> Any:
        if is_nested(layer) or id(layer) in self.ends:
            self.nested.add(id(layer))
            return layer
        if id(layer) in self.copies:
            return self.copies[id(layer)]
        path = self.prefix + layer.name
        while path in self.result.layers:
            path += "'"
        taken = {copy.name for copy in self.copies.values()}
        name = path.replace("/", ".").replace("'", "_")
        while name in taken:
            name += "_"
        copy = clone_layer(layer) if name == layer.name else clone_layer(layer, name=name)
        self.copies[id(layer)] = copy
        self.paths[id(copy)] = path
        self.result.layers[path] = layer
        self.result.copies[path] = copy
        return copy

    def _call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        if id(layer) in self.ends:
            self.ends[id(layer)] = args[0]
            return args[0]
        inputs = [t for t in keras.tree.flatten((args, kwargs)) if isinstance(t, keras.KerasTensor)]
        if id(layer) in self.nested:  # The copy of a model of another class may look like one.
            given = args[0] if args else kwargs["inputs"]
            return self._enter(layer, keras.tree.flatten(given))
        self.args, self.kwargs = args, kwargs  # For the few that ask what is what.
        outputs = layer(*args, **kwargs)
        self.alive += [inputs, outputs]
        self.result.given.setdefault(self.path(layer), []).append(inputs)
        given = [self.features_of(tensor) for tensor in inputs]
        made = self._handler(layer)(layer, inputs, given, outputs)
        if made is not None:
            self.features[id(outputs)] = made
        return outputs

    def _enter(self, nested: keras.Model, inputs: list[Any]) -> Any:
        """Calls the layers of a nested model one by one, as if they stood outside."""
        self.paths[id(nested)] = self.prefix + nested.name
        for number, tensor in enumerate(inputs):
            self._through_door(nested, number, self.features_of(tensor))
        if id(nested) not in self.marked:
            # Where the marks are called, its outputs are known as tensors outside.
            source = functional(nested)
            marks = [kl.Identity() for _ in source.outputs]
            ends = [mark(out) for mark, out in zip(marks, source.outputs, strict=True)]
            self.marked[id(nested)] = keras.Model(source.inputs, ends), marks
        model, marks = self.marked[id(nested)]
        self.ends.update((id(mark), None) for mark in marks)
        outside, self.prefix = self.prefix, f"{self.prefix}{nested.name}/"
        keras.models.clone_model(
            model, inputs, clone_function=self._copied, call_function=self._call
        )
        self.prefix = outside
        outputs = [self.ends[id(mark)] for mark in marks]
        return keras.tree.pack_sequence_as(nested.output, outputs)

    def _through_door(self, nested: keras.Model, number: int, given: Features) -> None:
        """A nested model that is called again takes the same widths again."""
        if given.row is None:
            self.block(given.labels, f"enters {self.describe(nested)} across several axes")
        else:
            self.cut(slot(self.path(nested), f"input {number}"), given.row)

    def _handler(self, layer: Any) -> Callable[..., Features | None]:
        # Exact types: a subclass may do anything.
        handlers = {
            kl.Dense: self._dense,
            kl.Activation: self._activation,
            kl.BatchNormalization: self._normalise,
            kl.PReLU: self._prelu,
            kl.Rescaling: self._resize,
            **dict.fromkeys(known.DEPTHWISE, self._depthwise),
            **dict.fromkeys(known.CONVOLUTIONS, self._convolution),
            **dict.fromkeys(known.SEPARABLE, self._separable),
            **dict.fromkeys(known.RESIZING, self._resize),
            **dict.fromkeys(known.MEETING, self._meet),
            **dict.fromkeys(known.IDENTITY, self._identity),
            **dict.fromkeys(known.NONLINEAR, self._activation),
            **dict.fromkeys(known.MOVING, self._move),
            **dict.fromkeys(known.MIXING, self._mix),
            **dict.fromkeys(known.RECURRENT, self._recurrent),
            kl.MultiHeadAttention: self._attend,
        }
        if known.is_operation(layer):
            return self._operation
        return handlers.get(type(layer), self._unknown)

    def _dense(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> Features:
        self.read(layer, inputs[0], given[0])
        return self._made(layer, "dense", layer.units, out)

    def _made(self, layer: Any, kind: str, units: int, out: Any) -> Features:
        return self._activation(layer, None, [self.produce(layer, kind, units, out)], out)

    def _recurrent(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> None:
        self.read(layer, inputs[0], given[0])
        for features in given[1:]:
            self.block(features.labels, f"is the initial state of {self.describe(layer)}")

    def _attend(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> None:
        if config_of(layer).get("use_gate"):
            self._unknown(layer, inputs, given, out)
            return
        bound = inspect.signature(type(layer).call).bind(layer, *self.args, **self.kwargs)
        query, value = bound.arguments["query"], bound.arguments["value"]
        key = bound.arguments.get("key")
        read = {"query": query, "key": value if key is None else key, "value": value}
        for part, tensor in read.items():
            self.read(layer, tensor, self.features_of(tensor), part=part)
        for tensor, features in zip(inputs, given, strict=True):
            if all(tensor is not other for other in read.values()):
                self.block(features.labels, f"is a mask of {self.describe(layer)}")

    def _convolution(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> Features:
        # Inside a transposed convolution outputs near the border sum over fewer inputs.
        padded = type(layer) in known.TRANSPOSED or (
            # A kernel of one pixel never reaches beyond the border.
            layer.padding != "valid" and set(layer.kernel_size) != {1}
        )
        grouped = getattr(layer, "groups", 1) > 1
        if grouped:
            self.refuse(layer, given[0].labels, "reads its channels in groups")
        else:
            self.read(layer, inputs[0], given[0], no_offset=padded)
        made = self._made(layer, "conv", layer.filters, out)
        if grouped:
            self.block(made.labels, "it makes its filters in groups")
        return made

    def _separable(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> Features:
        # Channels are read only after the depthwise half, so that is where they are measured.
        part = known.depthwise_part(layer)
        between = part(inputs[0])
        self.alive.append(between)
        self.inner.append((self.path(layer), part))
        halfway = self._depthwise(layer, inputs, given, between)
        if halfway is not None:
            self.read(layer, between, halfway, cuts=False)
        return self._made(layer, "conv", layer.filters, out)

    def _identity(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> Features:
        return given[0]

    def _activation(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> Features:
        features = given[0]
        centre = 0.0
        if type(layer) not in known.NONLINEAR:
            name = known.activation_name(layer.activation)
            if name == "linear":
                return features
            if name in known.MIXING_ACTIVATIONS:
                return self._mix(layer, inputs, given, out, f"{name} of {self.describe(layer)}")
            if name not in known.UNITWISE_ACTIVATIONS:
                what = f"activation {name} of {self.describe(layer)}"
                self.block(features.labels, f"{what} is not known to treat units alone")
                return features
            centre = known.UNITWISE_ACTIVATIONS[name]
        return self.after(features, centre)

    def _mix(
        self, layer: Any, inputs: Any, given: list[Features], out: Any, what: str | None = None
    ) -> Features:
        self.block(given[0].labels, f"{what or self.describe(layer)} mixes the units")
        return given[0]

    def _move(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> Features | None:
        original = self.original(layer)

        def moved(arrays: list[Any], dtype: str) -> npt.NDArray[Any]:
            tensors = [keras.ops.convert_to_tensor(a[None].astype(dtype)) for a in arrays]
            made = original(tensors if type(layer) is kl.Concatenate else tensors[0])
            return keras.ops.convert_to_numpy(made)[0]

        if len(out.shape) < 2 or None in out.shape[1:] or getattr(layer, "axis", 1) == 0:
            self._unknown(layer, inputs, given, out)
            return None
        labels = compact(moved([f.labels for f in given], "int32").astype(np.intp))
        if type(layer) is kl.Reshape:
            row = row_of(labels)
            if row is None:
                self.block(labels, f"{self.describe(layer)} splits the units over several axes")
            else:
                self.cut(self.path(layer), row)
        return Features(
            labels,
            compact(moved([f.views for f in given], "int32").astype(np.intp)),
            compact(moved([f.centre for f in given], "float32").astype(float)),
        )

    def _resize(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> Features:
        """Pooling, padding, cropping, upsampling, rescaling: every channel for itself."""
        if self.row(layer, given[0]) is None:
            return self.features_of(out)
        return self.after(given[0], 0.0, shape_of(out))

    def _meet(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> Features:
        """Layers that meet in one: what lies over each other goes together."""
        if not any(features.labels.any() for features in given):
            return self.features_of(out)
        rows = []
        size = out.shape[-1]
        for tensor, features in zip(inputs, given, strict=True):
            row = features.row
            if row is None:
                self.block(
                    features.labels, f"{self.describe(layer)} meets units across several axes"
                )
                return self.features_of(out)
            if len(row) == size:
                rows.append(row)
            elif tensor.shape[-1] == 1 and row.any():
                self.block(row, f"{self.describe(layer)} spreads it over all channels")
        together = self.lay_over(self.describe(layer), rows)
        wide = [features.rows()[1] for features in given if features.labels.shape[-1] == size]
        return Features.spread(together, self.next_views(*wide), 0.0, shape_of(out))

    def _operation(
        self, layer: Any, inputs: Any, given: list[Features], out: Any
    ) -> Features | None:
        """``x + y``, ``0.5 * x``, ``keras.ops.relu(x)``: what treats every unit alone."""
        name = type(layer).__name__
        others = [a for a in keras.tree.flatten((self.args, self.kwargs)) if a is not inputs[0]]
        if len(given) == 1 and all(np.ndim(other) == 0 for other in others):
            if name in known.UNITWISE_OPERATIONS:
                return self.after(given[0], known.UNITWISE_OPERATIONS[name])
            if name in known.ARITHMETIC:
                return self.after(given[0])
        ranks = {len(tensor.shape) for tensor in inputs}
        if len(given) == 2 and name in known.ARITHMETIC and len(ranks) == 1:
            return self._meet(layer, inputs, given, out)
        self._unknown(layer, inputs, given, out)
        return None

    def _per_unit_weights(self, layer: Any, given: Features, whole: bool) -> bool:
        """Notes that a layer has weights per feature, which go with their units."""
        row = self.row(layer, given)
        if row is None:
            return False
        if not whole:
            self.refuse(layer, row, "does not work along the last axis")
            return False
        views = given.rows()[1]
        if max(Counter(zip(row[row > 0], views[row > 0], strict=True)).values()) > 1:
            self.refuse(layer, row, "treats one unit differently at each position")
            return False
        self.cut(self.path(layer), row)
        return True

    def _normalise(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> Features:
        features = given[0]
        last = layer.axis in (-1, len(inputs[0].shape) - 1)
        if not self._per_unit_weights(layer, features, last):
            return features
        # The centre goes the way of the values: gamma * (centre - mean) / deviation + beta.
        centre = features.rows()[2].reshape((1,) * features.labels.ndim + (-1,))
        values = keras.ops.convert_to_tensor(centre.astype("float32"))
        normalised = self.original(layer)(values, training=False)
        return self.after(features, keras.ops.convert_to_numpy(normalised).ravel())

    def _prelu(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> Features:
        last = len(inputs[0].shape) - 1
        self._per_unit_weights(layer, given[0], last not in (layer.shared_axes or []))
        return self.after(given[0])

    def _depthwise(
        self, layer: Any, inputs: Any, given: list[Features], out: Any
    ) -> Features | None:
        if self.row(layer, given[0]) is None:
            return None
        if not self._per_unit_weights(layer, given[0], whole=True):
            return None
        # Every channel makes so many, each by a filter of its own.
        times = layer.depth_multiplier
        labels, views, _ = (np.repeat(array, times) for array in given[0].rows())
        views = views * times + np.tile(np.arange(times), len(views) // times)
        shape = shape_of(out)
        after = Features.spread(labels, self.next_views(views), 0.0, shape)
        if type(layer) in known.SEPARABLE:
            return after
        return self._activation(layer, inputs, [after], out)

    def _unknown(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> None:
        """What is not on a list may do anything with its units."""
        for features in given:
            self.block(features.labels, f"feeds {self.describe(layer)}, which is not handled")
