"""Clones models and layers, with other widths where asked, nested models included."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import keras
from keras import layers as kl

from tfprune.errors import TfpruneError
from tfprune.graph.compile_settings import compile_as, not_compiled
from tfprune.graph.configs import Config, ConfigError, fixed_starts, hand_over_starts, remade
from tfprune.graph.layers import describe
from tfprune.graph.subclasses import as_class_of, not_kept
from tfprune.graph.wrappers import has_shapes, holds_layers, is_nested, rewrapped, wrapped

Arguments = Callable[[Any, tuple[Any, ...]], tuple[Any, ...]]


def functional(model: keras.Model) -> keras.Model:
    """The functional form of a Sequential or Functional model, not compiled.

    Raises
    ------
    TfpruneError
        If the model is neither, or has no shapes yet.
    """
    if not isinstance(model, keras.Model):
        load = "; keras.saving.load_model loads a file" if isinstance(model, (str, Path)) else ""
        raise TfpruneError(
            f"model: expected a Keras 3 model, received {type(model).__name__}{load}"
        )
    if not has_shapes(model):
        raise TfpruneError(
            f"model {model.name}: expected a Sequential or Functional model with known shapes, "
            f"received {type(model).__name__} without; build it on keras.Input, or wrap it in "
            "keras.Model(inputs, outputs)"
        )
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    # Not the model itself: cloning one that is compiled would compile the clone as well.
    return keras.Model(model.input, model.output, name=model.name)


def clone_layer(
    layer: Any,
    /,
    *,
    rewrite: Callable[[Config], Config] | None = None,
    dtypes: Mapping[str, str] | None = None,
    **changes: Any,
) -> Any:
    """Builds a new layer of the same configuration with some changes; weights are not copied.

    Functions and objects of the user's own in it are handed over: see :mod:`tfprune.graph.configs`.

    Parameters
    ----------
    layer : keras.Layer or keras.Operation
    rewrite : callable, optional
        Makes another configuration of the layer's, and of each layer's inside it.
    dtypes : mapping of str to str, optional
        What the inputs of models inside it become.
    changes
        Entries of its configuration.

    Raises
    ------
    TfpruneError
        If the layer cannot be copied.
    """

    def inside(part: Any, **changes: Any) -> Any:
        if isinstance(part, keras.Model) and has_shapes(part):
            return rebuild(part, inside, dtypes)
        try:
            # What makes weights of one width alone would fail at another; weights are set anyway.
            starts = dict.fromkeys(fixed_starts(part), "zeros") if part is layer else {}
            return remade(part, {**starts, **changes}, child=inside, rewrite=rewrite)
        except ConfigError as error:
            raise TfpruneError(
                f"layer {describe(part)} cannot be copied: its class needs a get_config that its "
                f"__init__ takes ({error})"
            ) from None

    return inside(layer, **changes)


def copy_weights(source: Any, target: Any, weights: list[Any] | None = None) -> None:
    """Gives a layer's copy its weights, or other ones, and the state that is derived from them.

    The copy's initializers become those of the source where they are the user's own.
    """
    target.set_weights(source.get_weights() if weights is None else weights)
    if not isinstance(source, keras.Model):
        hand_over_starts(source, target)
    for layer in [target, *getattr(target, "layers", [])]:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()  # Normalization computes with values made from its weights.


def clone(model: keras.Model, replaced: Callable[[Any], Any] = lambda layer: None) -> keras.Model:
    """Copies a model with its weights and compile settings; the copy shares nothing with it.

    Parameters
    ----------
    model : keras.Model
    replaced : callable
        Gives another layer of the same weights in place of a layer's copy, or None.

    Raises
    ------
    TfpruneError
        If a layer cannot be copied.
    """
    pairs: list[tuple[Any, Any]] = []

    def paired(layer: Any) -> Any:
        pairs.append((layer, replaced(layer) or clone_layer(layer)))
        return pairs[-1][1]

    copy = rebuild(model, paired)
    for layer, other in pairs:
        if getattr(layer, "weights", None):
            copy_weights(layer, other)
    compile_as(model, copy)
    return copy


def lost(model: keras.Model, other: keras.Model) -> tuple[str, ...]:
    """Lists what a copy of a model lacks, and what to do about it, a line each."""
    inner = {layer.name: layer for layer in other.layers}
    inside = [
        not_kept(layer, inner[layer.name])
        for layer in model.layers
        if isinstance(layer, keras.Model) and layer.name in inner
    ]
    return (*not_kept(model, other), *chain.from_iterable(inside), *not_compiled(model, other))


def walk(model: keras.Model, wrappers: bool = True) -> Iterator[tuple[str, Any]]:
    """All layers with their paths (``name``, ``outer/inner``).

    In place of nested models, and of ``wrappers`` that are looked into, come the layers inside.
    """
    yield from _within(model.layers, "", wrappers)


def _within(layers: Iterable[Any], prefix: str, wrappers: bool) -> Iterator[tuple[str, Any]]:
    for layer in layers:
        inside = layer.layers if is_nested(layer) else wrapped(layer) if wrappers else []
        if inside:
            yield from _within(inside, f"{prefix}{layer.name}/", wrappers)
        else:
            yield prefix + layer.name, layer


def rebuild(
    model: keras.Model,
    change: Callable[[Any], Any],
    dtypes: Mapping[str, str] | None = None,
    arguments: Arguments | None = None,
) -> keras.Model:
    """Rebuilds a model with new layers, not compiled, its inputs under their old names.

    It is of the same class, the user's own too where that can be made: see
    :func:`tfprune.graph.subclasses.as_class_of`.

    Parameters
    ----------
    model : keras.Model
    change : callable
        Called once with every layer of :func:`walk`; returns the one in its place.
    dtypes : mapping of str to str, optional
        What inputs of a type become; they keep it by default.
    arguments : callable, optional
        Given a new layer and what it is to be called with, returns what it is called with.
    """
    fresh = _fresh(model, dtypes or {})
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    inputs = keras.tree.map_structure(fresh, structure)
    layers: dict[int, Any] = {}
    copy = _rebuild(model, inputs, change, dtypes or {}, layers, arguments=arguments)
    return as_class_of(model, copy, layers)


def _fresh(model: keras.Model, dtypes: Mapping[str, str]) -> Callable[..., Any]:
    names = {id(layer.output): layer.name for layer in model.layers if type(layer) is kl.InputLayer}

    def fresh(tensor: Any, shape: Any = None) -> Any:
        shape = tensor.shape if shape is None else shape
        name = names.get(id(tensor), tensor.name)
        dtype = dtypes.get(tensor.dtype, tensor.dtype)
        return keras.Input(batch_shape=shape, dtype=dtype, name=name)

    return fresh


def _rebuild(
    model: keras.Model,
    inputs: Any,
    change: Callable[[Any], Any],
    dtypes: Mapping[str, str],
    copies: dict[int, Any],
    *,
    arguments: Arguments | None,
) -> keras.Model:
    later: set[int] = set()

    def new(layer: Any) -> Any:
        if holds_layers(layer):
            later.add(id(layer))
            return layer  # Rebuilt where it is called: only then its inputs are known.
        if id(layer) not in copies:
            copies[id(layer)] = change(layer)
        return copies[id(layer)]

    def called(layer: Any, shapes: Sequence[Any]) -> Any:
        """The copy of a layer that takes inputs of these shapes."""
        if id(layer) in copies:
            return copies[id(layer)]
        if not holds_layers(layer):
            return new(layer)
        if is_nested(layer):
            fresh = map(_fresh(layer, dtypes), layer.inputs, shapes)
            sequential = isinstance(layer, keras.Sequential)
            structure = layer.inputs[0] if sequential else layer.input
            own = keras.tree.pack_sequence_as(structure, list(fresh))
            copies[id(layer)] = _rebuild(layer, own, change, dtypes, copies, arguments=arguments)
            return copies[id(layer)]
        if type(layer) is kl.TimeDistributed:  # It hands over one step at a time.
            shapes = [(shape[0], *shape[2:]) for shape in shapes]
        inside = [called(part, shapes) for part in wrapped(layer)]
        copies[id(layer)] = rewrapped(layer, inside, dtypes)
        return copies[id(layer)]

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if id(layer) not in later:  # The copy of a model of another class may look like one.
            return layer(*(arguments(layer, args) if arguments else args), **kwargs)
        first = args[0] if args else next(iter(kwargs.values()))
        return called(layer, [one.shape for one in keras.tree.flatten(first)])(*args, **kwargs)

    if isinstance(model, keras.Sequential):
        tensor, layers = inputs, []
        for layer in model.layers:
            tensor = call(new(layer), tensor)
            layers.append(copies[id(layer)])
        copy = keras.Sequential([inputs, *layers], name=model.name)
    else:
        copy = keras.models.clone_model(
            functional(model), inputs, clone_function=new, call_function=call
        )
    if not model.trainable:
        copy.trainable = False
    return copy
