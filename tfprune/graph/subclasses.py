"""Keeps copies of a model in the class that the user derived from ``keras.Model``."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import keras
import numpy as np

from tfprune.errors import TfpruneError
from tfprune.graph.batches import fixed_batch, from_zero_state, padded, reset_states
from tfprune.graph.configs import STATEFUL, arguments_of, can_be_shared
from tfprune.graph.inputs import packed
from tfprune.utils.arrays import Array

_MISSING = object()


def as_class_of(model: keras.Model, copy: keras.Model, layers: Mapping[int, Any]) -> keras.Model:
    """Turns a copy into a model of the original's class, with the attributes set on it.

    Parameters
    ----------
    model : keras.Model
    copy : keras.Model
        A Sequential or Functional model as Keras has it.
    layers : mapping of int to keras.Layer
        The copies of the model's layers, by the ids of these.

    Returns
    -------
    keras.Model
        The copy itself if it is of that class already, or if the class cannot be made of its
        inputs and outputs (of its layers, for a Sequential): see :func:`not_kept`.
    """
    result = copy if type(model) is type(copy) else _of_class(model, copy)
    if result is None:
        return copy
    for name, value in _attributes(model).items():
        shared = _shared(value, layers)
        before = vars(result).get(name, _MISSING)
        # What the class made for itself, a metric say, stays; a number may have been set later.
        if shared is not _MISSING and (before is _MISSING or _shared(before, {}) is not _MISSING):
            setattr(result, name, shared)
    return result


def not_kept(model: keras.Model, other: keras.Model) -> tuple[str, ...]:
    """Says in a line what a copy lacks of a model's class."""
    kind = type(model).__name__
    if type(other) is not type(model):
        return (
            f"model {other.name} is a plain {type(other).__name__} and no {kind}, which cannot be "
            f"made of inputs and outputs; {', '.join(overridden(model)) or 'what it adds'} of its "
            "own does not work there",
        )
    missing = [name for name in _attributes(model) if name not in vars(other)]
    if not missing:
        return ()
    names = ", ".join(missing)
    return (f"model {other.name} lacks {names}, which {kind} {model.name} has; set it again",)


def overridden(model: keras.Model) -> list[str]:
    """The public methods of ``keras.Model`` that a model's class overrides."""
    own = [kind for kind in type(model).__mro__ if not _from_keras(kind) and kind is not object]
    return sorted(
        {
            name
            for kind in own
            for name, value in vars(kind).items()
            if callable(value) and not name.startswith("_") and hasattr(keras.Model, name)
        }
    )


def check_call(model: keras.Model, x: Sequence[Array]) -> None:
    """Raises :class:`TfpruneError` if a class' ``call`` computes something else than its layers.

    Parameters
    ----------
    model : keras.Model
    x : sequence of arrays of shape (samples, ...)
        One for each of ``model.inputs``.
    """
    if "call" not in overridden(model):
        return
    graph = keras.Model(model.inputs, model.outputs)
    x = padded(x, fixed_batch(model))
    with from_zero_state(model):
        ours = keras.tree.flatten(model(packed(model, x), training=False))
        reset_states(model)
        theirs = keras.tree.flatten(graph(list(x), training=False))
    pairs = zip(ours, theirs, strict=True)
    for ours, theirs in pairs:
        expected, received = (
            keras.ops.convert_to_numpy(out).astype(float) for out in (ours, theirs)
        )
        if not np.allclose(expected, received, rtol=1e-2, atol=1e-3 * (1 + np.abs(expected).max())):
            raise TfpruneError(
                f"model {model.name}: the call of its class {type(model).__name__} computes "
                "something else than its layers do, and only these can be followed; hand over "
                "keras.Model(model.inputs, model.outputs), and call what comes back in your own"
            )


def _of_class(model: keras.Model, copy: keras.Model) -> keras.Model | None:
    """A model of the class over the copy's graph, or None if it cannot be built."""
    kind = type(model)
    chain = isinstance(copy, keras.Sequential)
    graph = ([copy.inputs[0], *copy.layers],) if chain else (copy.input, copy.output)
    known = {name: vars(model).get(name, _MISSING) for name in arguments_of(kind)}
    more = {name: value for name, value in known.items() if can_be_shared(value)}
    more.pop("name", None)
    try:
        try:
            instance = kind(*graph, name=model.name, **more)
        except TypeError:  # Its __init__ may take no name.
            instance = kind(*graph, **more)
            instance.name = model.name
        parts = (instance.layers, copy.layers) if chain else (instance.outputs, copy.outputs)
        same = len(parts[0]) == len(parts[1]) and all(map(lambda a, b: a is b, *parts))
    except Exception:  # Its class may do anything.
        return None
    if not same:  # It puts something of its own into the graph.
        return None
    if not copy.trainable:  # The other way round it would thaw layers that are frozen.
        instance.trainable = False
    return instance


def _attributes(model: keras.Model) -> dict[str, Any]:
    """The attributes of a model that its user set."""
    return {name: value for name, value in vars(model).items() if name not in _of_keras()}


@cache
def _of_keras() -> frozenset[str]:
    """The attributes that Keras sets on models."""
    data = keras.Input((1,), name="data")
    chain = keras.Sequential([data], name="chain")
    graph = keras.Model(data, keras.layers.Identity(name="same")(data), name="graph")
    for model in (chain, graph):
        model.compile("sgd", "mse", metrics=["mse"])
    # These come with training.
    trained = {"history", "_epoch_iterator", "_eval_epoch_iterator", "_predict_epoch_iterator"}
    return frozenset(vars(chain) | vars(graph)) | trained


def _shared(value: Any, layers: Mapping[int, Any]) -> Any:
    """An attribute's value for a copy, in which layers of the graph become their copies."""
    if id(value) in layers:
        return layers[id(value)]
    if isinstance(value, (list, tuple)):
        parts = [_shared(part, layers) for part in value]
        if any(part is _MISSING for part in parts):
            return _MISSING
        return tuple(parts) if isinstance(value, tuple) else parts
    if isinstance(value, Mapping):
        entries = {key: _shared(part, layers) for key, part in value.items()}
        return _MISSING if any(part is _MISSING for part in entries.values()) else entries
    # What has variables is not shared, nor are methods, which belong to the original.
    stateful = isinstance(value, STATEFUL) or hasattr(value, "assign")
    return _MISSING if stateful or isinstance(value, types.MethodType) else value


def _from_keras(kind: type) -> bool:
    return kind.__module__.split(".")[0] in ("keras", "tensorflow")
