"""Where every unit's value goes in a model: which features hold it, which weights read it.

Each tensor has *labels*: for every feature the number of the unit that it holds, 0 for none.
Layers that only move values are run on the labels themselves. What is not on the allow-lists
of :mod:`tfprune.layers` blocks the units that reach it, with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers as kl

from tfprune import layers as known
from tfprune.features import Features, compact, row_of, shape_of
from tfprune.labels import Index
from tfprune.layers import describe
from tfprune.readings import Producer, Reading, Trace


def trace(model: keras.Model) -> Trace:
    """Follows the units of every Dense and convolution layer of a model.

    Raises
    ------
    TfpruneError
        If the model is neither Sequential nor Functional, or has no shapes yet.
    """
    return _Tracer(model).result


class _Tracer:
    def __init__(self, model: keras.Model) -> None:
        self.features: dict[int, Features] = {}
        self.alive: list[Any] = []  # Tensors are known by id, so none may be collected.
        self.views = 0
        self.refused: dict[str, str] = {}
        source = known.functional(model)
        self.originals = {layer.name: layer for layer in model.layers}
        self.result = Trace(model)
        self.inner: list[tuple[str, Any]] = []
        clone = keras.models.clone_model(
            source, clone_function=known.copied, call_function=self._call
        )
        for layer in known.weighted(source):
            known.copy_weights(layer, clone.get_layer(layer.name))
        for name, part in self.inner:
            part.set_weights(self.originals[name].get_weights()[:1])
        self.result.model = clone
        for name, reason in self.refused.items():
            self._block(self.result.slices.get(name, np.zeros(1, np.intp)), reason)
        for tensor in clone.outputs:
            self._block(self._features_of(tensor).labels, "output layer")

    def _call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = layer(*args, **kwargs)
        inputs = [t for t in keras.tree.flatten((args, kwargs)) if isinstance(t, keras.KerasTensor)]
        self.alive += [inputs, outputs]
        given = [self._features_of(tensor) for tensor in inputs]
        made = self._handler(layer)(layer, inputs, given, outputs)
        if made is not None:
            self.features[id(outputs)] = made
        return outputs

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
        }
        return handlers.get(type(layer), self._unknown)

    def _features_of(self, tensor: Any) -> Features:
        if id(tensor) not in self.features:
            nobody = np.broadcast_to(np.intp(0), shape_of(tensor))
            self.features[id(tensor)] = Features(nobody, nobody, nobody.astype(float))
        return self.features[id(tensor)]

    def _next_views(self, *views: Index) -> Index:
        """New views, different where one of the old ones was."""
        rows = [row_of(array) for array in views]
        arrays = views if any(row is None for row in rows) else tuple(rows)
        stacked = np.stack([array.ravel() for array in arrays])  # type: ignore[union-attr]
        kinds, position = np.unique(stacked, axis=1, return_inverse=True)
        made = self.views + 1 + position.reshape(arrays[0].shape)  # type: ignore[union-attr]
        self.views += kinds.shape[1]
        return made

    def _after(
        self,
        features: Features,
        centre: float | npt.NDArray[Any] = 0.0,
        shape: tuple[int, ...] | None = None,
    ) -> Features:
        """Features after a function that treats every unit alone."""
        views = self._next_views(features.views)
        labels = features.labels
        if shape is not None and shape != labels.shape:
            labels = features.rows()[0]
        return Features.spread(labels, views, centre, shape or labels.shape)

    def _block(self, labels: Index, reason: str) -> None:
        self.result.blocked.append((np.unique(labels), reason))

    def _refuse(self, layer: Any, labels: Index, reason: str) -> None:
        """Blocks units at a layer, and those that reach it in its other places if it is shared."""
        self._block(labels, f"{describe(layer)} {reason}")
        self.refused[layer.name] = f"{describe(layer)} {reason}"

    def _row(self, layer: Any, given: Features) -> Index | None:
        """Labels on the last axis of what a layer takes, if there are any and it can be cut."""
        if not given.labels.any():
            if layer.weights:
                # Where it is shared, what reaches it elsewhere has to stay for this.
                self._cut(layer.name, given.rows()[0])
            return None
        row = given.row
        if row is None:
            self._refuse(layer, given.labels, "reads its units across several axes")
        elif getattr(layer, "data_format", "channels_last") != "channels_last":
            self._refuse(layer, row, "has its channels first")
            return None
        return row

    def _cut(self, name: str, row: Index) -> None:
        """Notes that a layer has to change with its units; a shared one in all its places."""
        self._lay_over(name, [self.result.slices.setdefault(name, row), row])

    def _lay_over(self, name: str, rows: list[Index]) -> Index:
        """Joins labels that lie over each other; a unit over something unlabelled has to stay."""
        together = rows[0]
        for row in rows[1:]:
            both = (together > 0) & (row > 0)
            self.result.labels.join(together[both], row[both])
            alone = (together > 0) != (row > 0)
            if alone.any():
                reason = f"{name} lays it over something that cannot be pruned"
                self._block(np.maximum(together, row)[alone], reason)
            together = np.maximum(together, row)
        return together

    def _dense(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> Features:
        self._read(layer, inputs[0], given[0], shiftless=False)
        return self._produce(layer, "dense", layer.units, out)

    def _convolution(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> Features:
        # Inside a transposed convolution outputs near the border sum over fewer inputs.
        padded = layer.padding != "valid" or type(layer) in known.TRANSPOSED
        grouped = getattr(layer, "groups", 1) > 1
        if grouped:
            self._refuse(layer, given[0].labels, "reads its channels in groups")
        else:
            self._read(layer, inputs[0], given[0], shiftless=padded)
        made = self._produce(layer, "conv", layer.filters, out)
        if grouped:
            self._block(made.labels, "it makes its filters in groups")
        return made

    def _separable(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> Features:
        # Channels are read only after the depthwise half, so that is where they are measured.
        part = known.depthwise_part(layer)
        between = part(inputs[0])
        self.alive.append(between)
        self.inner.append((layer.name, part))
        halfway = self._depthwise(layer, inputs, given, between)
        if halfway is not None:
            self._read(layer, between, halfway, shiftless=False)
        return self._produce(layer, "conv", layer.filters, out)

    def _produce(self, layer: Any, kind: str, units: int, out: Any) -> Features:
        original = self.originals[layer.name]
        # A layer that is called again makes the same units again.
        producer = self.result.producers.get(layer.name) or Producer(
            layer.name, kind, self.result.labels.new(units)
        )
        self.result.producers[layer.name] = producer
        for unfit in ("quantization_mode", "lora_enabled"):
            if getattr(original, unfit, None):
                self._block(producer.labels, f"its weights are not plain ({unfit})")
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            self._block(producer.labels, "its channels come first")
        nothing = np.zeros(units, np.intp)
        shape = (*shape_of(out)[:-1], units)
        fresh = self._after(Features.spread(producer.labels, nothing, 0.0, shape))
        return self._activation(layer, None, [fresh], out)

    def _read(self, layer: Any, tensor: Any, given: Features, shiftless: bool) -> None:
        row = self._row(layer, given)
        if row is None:
            return
        if getattr(self.originals[layer.name], "lora_enabled", False):
            self._refuse(layer, row, "reads with weights that are not plain (lora)")
            return
        places = [id(other) for other in self.result.tensors]
        if id(tensor) not in places:
            self.result.tensors.append(tensor)
            places.append(id(tensor))
        if type(layer) not in known.SEPARABLE:
            self._cut(layer.name, row)
        _, views, centre = given.rows()
        place = places.index(id(tensor))
        self.result.readings.append(Reading(layer.name, place, row, views, centre, shiftless))

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
                return self._mix(layer, inputs, given, out, f"{name} of {describe(layer)}")
            if name not in known.UNITWISE_ACTIVATIONS:
                self._block(
                    features.labels,
                    f"activation {name} of {describe(layer)} is not known to treat units alone",
                )
                return features
            centre = known.UNITWISE_ACTIVATIONS[name]
        return self._after(features, centre)

    def _mix(
        self, layer: Any, inputs: Any, given: list[Features], out: Any, what: str | None = None
    ) -> Features:
        self._block(given[0].labels, f"{what or describe(layer)} mixes the units")
        return given[0]

    def _move(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> Features | None:
        original = self.originals[layer.name]

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
                self._block(labels, f"{describe(layer)} splits the units over several axes")
            else:
                self._cut(layer.name, row)
        return Features(
            labels,
            compact(moved([f.views for f in given], "int32").astype(np.intp)),
            compact(moved([f.centre for f in given], "float32").astype(float)),
        )

    def _resize(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> Features:
        """Pooling, padding, cropping, upsampling, rescaling: every channel for itself."""
        if self._row(layer, given[0]) is None:
            return self._features_of(out)
        return self._after(given[0], 0.0, shape_of(out))

    def _meet(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> Features:
        """Layers that meet in one: what lies over each other goes together."""
        if not any(features.labels.any() for features in given):
            return self._features_of(out)
        rows = []
        size = out.shape[-1]
        for tensor, features in zip(inputs, given, strict=True):
            row = features.row
            if row is None:
                self._block(features.labels, f"{describe(layer)} meets units across several axes")
                return self._features_of(out)
            if len(row) == size:
                rows.append(row)
            elif tensor.shape[-1] == 1 and row.any():
                self._block(row, f"{describe(layer)} spreads it over all channels")
        together = self._lay_over(describe(layer), rows)
        wide = [features.rows()[1] for features in given if features.labels.shape[-1] == size]
        return Features.spread(together, self._next_views(*wide), 0.0, shape_of(out))

    def _per_unit_weights(self, layer: Any, given: Features, whole: bool) -> bool:
        """Notes that a layer has weights per feature, which go with their units."""
        row = self._row(layer, given)
        if row is None:
            return False
        if not whole:
            self._refuse(layer, row, "does not work along the last axis")
            return False
        views = given.rows()[1]
        if max(Counter(zip(row[row > 0], views[row > 0], strict=True)).values()) > 1:
            self._refuse(layer, row, "treats one unit differently at each position")
            return False
        self._cut(layer.name, row)
        return True

    def _normalise(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> Features:
        features = given[0]
        last = layer.axis in (-1, len(inputs[0].shape) - 1)
        if not self._per_unit_weights(layer, features, last):
            return features
        # The centre goes the way of the values: gamma * (centre - mean) / deviation + beta.
        centre = features.rows()[2].reshape((1,) * features.labels.ndim + (-1,))
        values = keras.ops.convert_to_tensor(centre.astype("float32"))
        normalised = self.originals[layer.name](values, training=False)
        return self._after(features, keras.ops.convert_to_numpy(normalised).ravel())

    def _prelu(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> Features:
        last = len(inputs[0].shape) - 1
        self._per_unit_weights(layer, given[0], last not in (layer.shared_axes or []))
        return self._after(given[0])

    def _depthwise(
        self, layer: Any, inputs: Any, given: list[Features], out: Any
    ) -> Features | None:
        if self._row(layer, given[0]) is None:
            return None
        if layer.depth_multiplier != 1:
            self._refuse(layer, given[0].labels, "makes several channels of one")
            return None
        if not self._per_unit_weights(layer, given[0], whole=True):
            return None
        after = self._after(given[0], 0.0, shape_of(out))
        if type(layer) in known.SEPARABLE:
            return after
        return self._activation(layer, inputs, [after], out)

    def _unknown(self, layer: Any, inputs: Any, given: list[Features], out: Any) -> None:
        """What is not on a list may do anything with its units."""
        for features in given:
            self._block(features.labels, f"feeds {describe(layer)}, which is not handled")
