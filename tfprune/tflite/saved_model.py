"""Writes a Keras model as a TensorFlow SavedModel of its inference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from tfprune.errors import TfpruneError
from tfprune.graph.clone import walk
from tfprune.graph.inputs import packed
from tfprune.utils.console import quiet

# More steps than these are not unrolled: each is some 20 operators of a file.
UNROLLED_STEPS = 256


def write_saved_model(
    model: keras.Model, specs: Sequence[keras.InputSpec], folder: str | Path
) -> Any:
    """Writes a SavedModel with one signature, ``serving_default``.

    The model is called with ``training=False``: without it, layers whose default is training, such
    as RandomFlip, would put their random changes into the graph.

    Parameters
    ----------
    model : keras.Model
    specs : sequence of keras.InputSpec
        One for each of ``model.inputs``, with the batch size, and the name in the signature.
    folder : path

    Returns
    -------
    tf.types.experimental.ConcreteFunction
        What was saved.

    Raises
    ------
    TfpruneError
        If TensorFlow cannot trace or save the model.
    """

    try:
        with quiet():
            try:
                return _write(model, specs, folder, track=False)
            except AssertionError:
                # TensorFlow's word for an untracked resource: a table of a layer of the user's.
                return _write(model, specs, folder, track=True)
    except Exception as error:
        raise TfpruneError(f"model {model.name}: TensorFlow cannot export it: {error}") from error


def _write(
    model: keras.Model, specs: Sequence[keras.InputSpec], folder: str | Path, track: bool
) -> Any:
    def infer(inputs: Any) -> Any:
        return model(inputs, training=False)

    archive = keras.export.ExportArchive()
    if track:
        # Traces every layer once more on its own: as long as all the rest, where it is not needed.
        archive.track(model)
    function = archive.add_endpoint("serve", infer, input_signature=[packed(model, specs)])
    archive.write_out(str(folder), verbose=False)
    return function.get_concrete_function()


def collecting_loops(function: Any) -> list[str]:
    """The loops of a graph that collect each step's outputs in a list, as recurrent layers do.

    Parameters
    ----------
    function : tf.types.experimental.ConcreteFunction

    Returns
    -------
    list of str
        The names of their nodes, which start with those of the layers.
    """
    graph = function.graph.as_graph_def()
    bodies = {inner.signature.name: inner.node_def for inner in graph.library.function}

    def collects(name: str) -> bool:
        return any(
            node.op.startswith("TensorList") or any(map(collects, _called(node)))
            for node in bodies[name]
        )

    loops = []
    for nodes in (graph.node, *bodies.values()):
        for node in nodes:
            if node.op in ("While", "StatelessWhile") and any(map(collects, _called(node))):
                loops.append(node.name)
    return sorted(set(loops))


def _called(node: Any) -> list[str]:
    """The functions that a node calls."""
    return [value.func.name for value in node.attr.values() if value.HasField("func")]


def recurrent_layers(model: keras.Model) -> dict[str, keras.layers.RNN]:
    """Recurrent layers that loop over time by their paths, those inside other layers included."""
    found = {}
    for path, layer in walk(model):
        for inside in _with_inner_layers(layer, set()):
            if isinstance(inside, keras.layers.RNN) and not inside.unroll:
                found[path if inside is layer else f"{path}/{inside.name}"] = inside
    return found


@contextmanager
def unrolled(model: keras.Model, steps: int) -> Iterator[None]:
    """While this lasts, recurrent layers compute step after step without a loop.

    Parameters
    ----------
    model : keras.Model
    steps : int
        Of a layer whose own input does not say how many it has.

    Raises
    ------
    TfpruneError
        If a layer has more than 256 steps.
    """
    layers = recurrent_layers(model)
    for path, layer in layers.items():
        number = _steps(layer) or steps
        if number > UNROLLED_STEPS:
            raise TfpruneError(
                f"layer {path}: expected at most {UNROLLED_STEPS} steps to unroll, it has {number}"
            )
    zeroing = [
        layer
        for layer in layers.values()
        if layer.go_backwards and layer.return_sequences and layer.zero_output_for_mask
    ]
    for layer in layers.values():
        layer.unroll = True
    for layer in zeroing:
        layer.call, layer.zero_output_for_mask = _zeroed(layer), False
    try:
        yield
    finally:
        for layer in layers.values():
            layer.unroll = False
        for layer in zeroing:
            layer.zero_output_for_mask = True
            del layer.call  # The class has its own.


def _zeroed(layer: keras.layers.RNN) -> Callable[..., Any]:
    """The call of a layer that goes backwards, with outputs of masked steps set to 0.

    Unrolled, Keras 3.15 takes the mask for that in the order of the inputs, not of the outputs.
    """
    call = layer.call

    def zeroed(sequences: Any, initial_state: Any = None, mask: Any = None, **kwargs: Any) -> Any:
        made = call(sequences, initial_state=initial_state, mask=mask, **kwargs)
        if mask is None:
            return made
        first = mask[0] if isinstance(mask, (list, tuple)) else mask
        outputs, *states = made if layer.return_state else (made,)
        kept = keras.ops.flip(first, 1)
        while len(kept.shape) < len(outputs.shape):
            kept = keras.ops.expand_dims(kept, -1)
        outputs = keras.ops.where(kept, outputs, keras.ops.zeros_like(outputs))
        return (outputs, *states) if layer.return_state else outputs

    return zeroed


def _steps(layer: keras.layers.RNN) -> int | None:
    """How many steps the sequences have that a layer gets, where its input says it."""
    try:
        tensor = layer.input
    except (AttributeError, ValueError):  # It is called more than once, or inside another layer.
        return None
    first = tensor[0] if isinstance(tensor, (list, tuple)) else tensor
    return first.shape[1]


def _with_inner_layers(value: Any, seen: set[int]) -> Iterator[keras.Layer]:
    """A layer and all layers in its attributes, those in containers included."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, keras.Layer):
        yield value
        values: Iterable[Any] = vars(value).values()
    elif isinstance(value, (list, tuple, set)):
        values = value
    elif isinstance(value, dict):
        values = value.values()
    else:
        return
    for inner in list(values):
        yield from _with_inner_layers(inner, seen)
