"""Where every unit's value goes in a model: which features hold it, which weights read it.

Each tensor has *labels*: for every feature the number of the unit that it holds, 0 for none. The
model's layers are copied and called one by one; for each call the layer's rule
(:mod:`tfprune.graph.registry`) says what its output holds.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import keras
from keras import layers as kl

from tfprune.errors import TfpruneError
from tfprune.graph import rules
from tfprune.graph.clone import clone_layer, copy_weights, functional
from tfprune.graph.direct_readers import follow_tied, follow_unweighted
from tfprune.graph.features import Features, shape_of
from tfprune.graph.helpers import BothWays
from tfprune.graph.recurrent import merged
from tfprune.graph.registry import rule_of
from tfprune.graph.rules import Call
from tfprune.graph.sizes import check_sizes
from tfprune.graph.trace import Ledger, RegisteredCall, Trace, slot
from tfprune.graph.user_rules import user_rule
from tfprune.graph.wrappers import holds_layers, is_nested, wrapped


def trace(model: keras.Model, approximate: bool = False) -> Trace:
    """Follows the units of every Dense, convolution and recurrent layer of a model.

    Parameters
    ----------
    model : keras.Model
    approximate : bool
        Whether units go through normalisation over units, which changes with them.

    Raises
    ------
    TfpruneError
        If the model is neither Sequential nor Functional, or has no shapes yet.
    """
    ledger = Ledger(model, approximate)
    walk = _Walk(ledger)
    clone, _ = walk.through(functional(model))
    result = ledger.result
    for path, layer in result.layers.items():
        if getattr(layer, "weights", None):  # Operations such as x[:, 0] have none.
            copy_weights(layer, result.copies[path])
    for path, part in ledger.inner:
        part.set_weights(result.layers[path].get_weights()[: len(part.weights)])
    result.model = clone
    result.attended = [
        replace(one, inputs=list(clone.inputs))
        for one in result.attended
        if one.path not in result.scored
    ]
    for name, reason in ledger.refused.items():
        for key, labels in result.input_labels.items():
            if key == name or key.startswith(f"{name}:"):  # All inputs of attention.
                ledger.block(labels, reason)
    check_sizes(result)
    follow_tied(result)
    follow_unweighted(result)
    for tensor in clone.outputs:
        ledger.block(ledger.features_of(tensor).labels, "output layer")
    return result


class _Walk:
    """Calls copies of a model's layers, those inside others as if they stood outside."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._copies: dict[int, Any] = {}
        self._holding: set[int] = set()
        self._marked: dict[int, tuple[keras.Model, list[Any]]] = {}
        # What each nested model made, by identity.
        self._made: dict[int, set[int]] = {}

    def through(
        self, model: keras.Model, inputs: Any = None, prefix: str = "", marks: Any = ()
    ) -> tuple[keras.Model, list[Any]]:
        """Walks through a model.

        Parameters
        ----------
        model : keras.Model
        inputs : list of KerasTensor, optional
            What it is called on.
        prefix : str
            In front of its layers' paths.
        marks : sequence of keras.Layer
            Layers of it that are not called.

        Returns
        -------
        keras.Model
            A copy of it.
        list of KerasTensor
            What reaches the marks.
        """
        ends: dict[int, Any] = {id(mark): None for mark in marks}

        def copied(layer: Any) -> Any:
            if id(layer) in ends:
                return layer
            if holds_layers(layer):
                self._holding.add(id(layer))
                return layer
            return self._copy(layer, prefix)

        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            if id(layer) in ends:
                ends[id(layer)] = args[0]
                return args[0]
            if id(layer) in self._holding:  # A copy of another class may look like one.
                return self._inside(layer, args, kwargs, prefix)
            return self._called(layer, args, kwargs)

        copy = keras.models.clone_model(model, inputs, clone_function=copied, call_function=call)
        return copy, list(ends.values())

    def _copy(self, layer: Any, prefix: str) -> Any:
        if id(layer) in self._copies:
            return self._copies[id(layer)]
        result = self._ledger.result
        path = prefix + layer.name
        while path in result.layers:
            path += "'"
        taken = {copy.name for copy in self._copies.values()}
        name = path.replace("/", ".").replace("'", "_")
        while name in taken:
            name += "_"
        copy = clone_layer(layer) if name == layer.name else clone_layer(layer, name=name)
        self._copies[id(layer)] = copy
        self._ledger.paths[id(copy)] = path
        result.layers[path] = layer
        result.copies[path] = copy
        return copy

    def _called(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a layer and asks its rule what the output holds."""
        ledger = self._ledger
        path, result = ledger.path(layer), ledger.result
        if ledger.axes:
            result.steps[path] = ledger.axes
        result.call_inputs.setdefault(path, []).append(_tensors((args, kwargs)))
        args, kwargs = keras.tree.map_structure(ledger.aside, (args, kwargs))
        inputs, output = _tensors((args, kwargs)), self._output(layer, args, kwargs)
        ledger.alive += [inputs, output]
        features = [ledger.features_of(tensor) for tensor in inputs]
        call = Call(layer, args, kwargs, inputs, features, output, ledger)
        reasons = len(result.blocked)
        held = rule_of(layer)(call)
        if user_rule(layer) is not None:
            if held is None and len(result.blocked) == reasons:
                rules.unknown(call)
            _note(call, held)
        if held is not None:
            each = held if isinstance(held, list) else [held]
            made = keras.tree.flatten(output) if isinstance(held, list) else [output]
            ledger.alive += made
            for tensor, one in zip(made, each, strict=True):
                ledger.features[id(tensor)] = one
        output = keras.tree.map_structure(ledger.whole, output)
        result.call_outputs.setdefault(path, []).append(_tensors(output))
        return output

    def _output(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return layer(*args, **kwargs)
        except Exception as error:  # A layer of the user's may fail in any way.
            original = self._ledger.original(layer)
            # No public attribute has the layers that a layer holds.
            parts: Any = getattr(original, "_flatten_layers", lambda **_: [])(include_self=False)
            others = [part.name for part in parts if id(part) in self._copies]
            if not others:
                raise
            raise TfpruneError(
                f"layer {self._ledger.describe(layer)}: uses the weights of {others[0]}, another "
                "layer of the model, so no copy of it can be made; for a table of words that also "
                "reads in reverse expected keras.layers.ReversibleEmbedding"
            ) from error

    def _inside(
        self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], prefix: str
    ) -> Any:
        """Calls a layer; of a nested model or a wrapper the layers inside, as if they stood out."""
        if is_nested(layer):
            given = args[0] if args else kwargs["inputs"]
            return self._enter(layer, keras.tree.flatten(given), prefix)
        if type(layer) is kl.TimeDistributed:
            self._ledger.axes += 1
            # Whether it is trained, and which steps are masked, changes nothing here.
            given = args[0] if args else kwargs["inputs"]
            output = self._inside(layer.layer, (given,), {}, f"{prefix}{layer.name}/")
            self._ledger.axes -= 1
            return output
        if type(layer) is kl.Bidirectional:
            return self._both_ways(layer, args, kwargs, f"{prefix}{layer.name}")
        return self._called(self._copy(layer, prefix), args, kwargs)

    def _both_ways(
        self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], path: str
    ) -> list[Any]:
        """Calls the two layers of a Bidirectional, and merges what they make."""
        bound = inspect.signature(type(layer).call).bind(layer, *args, **kwargs).arguments
        starts = keras.tree.flatten(bound.get("initial_state"))
        starts = [state for state in starts if state is not None]
        half = len(starts) // 2
        known = {"mask": bound["mask"]} if bound.get("mask") is not None else {}
        made = []
        for one, start in zip(wrapped(layer), (starts[:half], starts[half:]), strict=True):
            more = {**known, **({"initial_state": start} if start else {})}
            output = self._called(self._copy(one, f"{path}/"), (bound["sequences"],), more)
            made.append(keras.tree.flatten(output))
        ledger, mode = self._ledger, layer.merge_mode
        axis = 1 + ledger.axes if layer.return_sequences else None
        ledger.result.even.append(
            (f"{path}/{layer.forward_layer.name}", f"{path}/{layer.backward_layer.name}")
        )
        helper = BothWays(ledger.helper_name(), mode, axis)
        inputs = [output for output, *_ in made][0 if mode else 1 :]
        output = helper(inputs)
        ledger.paths[id(helper)], ledger.result.copies[path] = path, helper
        ledger.alive += [helper, output]
        ledger.result.call_inputs.setdefault(path, []).append(inputs)
        ledger.result.call_outputs.setdefault(path, []).append([output])
        features = [ledger.features_of(tensor) for tensor in inputs]
        call = Call(helper, (inputs,), {}, inputs, features, output, ledger)
        ledger.features[id(output)] = merged(call, mode)
        outputs = [output] if mode else [made[0][0], output]
        return [*outputs, *made[0][1:], *made[1][1:]]

    def _enter(self, nested: keras.Model, inputs: list[Any], prefix: str) -> Any:
        """Calls the layers of a nested model one by one, as if they stood outside."""
        path = prefix + nested.name
        self._ledger.paths[id(nested)] = path
        for number, tensor in enumerate(inputs):
            self._through_door(nested, number, self._ledger.features_of(tensor))
        if id(nested) not in self._marked:
            # Where the marks are called, its outputs are known as tensors outside.
            source = functional(nested)
            marks = [kl.Identity() for _ in source.outputs]
            ends = [mark(out) for mark, out in zip(marks, source.outputs, strict=True)]
            self._marked[id(nested)] = keras.Model(source.inputs, ends), marks
        model, marks = self._marked[id(nested)]
        # Keras cannot cut a graph between two calls of one layer.
        made = self._made.setdefault(id(nested), set())
        inputs = [self._again(one) if id(one) in made else one for one in inputs]
        _, outputs = self.through(model, inputs, f"{path}/", marks)
        made |= {id(one) for one in outputs}
        # A Sequential that a wrapper holds was never called, and has no output of its own.
        sequential = isinstance(nested, keras.Sequential)
        structure = nested.outputs[0] if sequential else nested.output
        return keras.tree.pack_sequence_as(structure, outputs)

    def _again(self, tensor: Any) -> Any:
        """The same tensor, as a layer that stands in the copy alone hands it on."""
        ledger = self._ledger
        helper = kl.Identity(name=ledger.helper_name())
        output = helper(tensor)
        ledger.alive += [helper, output]
        ledger.features[id(output)] = ledger.features_of(tensor)
        return output

    def _through_door(self, nested: keras.Model, number: int, given: Features) -> None:
        """A nested model that is called again takes the same widths again."""
        ledger = self._ledger
        if given.row is None:
            ledger.block(given.labels, f"enters {ledger.describe(nested)} across several axes")
        else:
            ledger.cut(slot(ledger.path(nested), f"input {number}"), given.row)


def _tensors(structure: Any) -> list[Any]:
    """The tensors in a structure, in order."""
    return [one for one in keras.tree.flatten(structure) if isinstance(one, keras.KerasTensor)]


def _note(call: Call, held: Any) -> None:
    """Notes what a user's rule says of a call, to be tried before units are cut.

    Raises
    ------
    TfpruneError
        If it is not what a rule returns.
    """
    shape = shape_of(call.output) if hasattr(call.output, "shape") else None
    if held is not None and not (isinstance(held, Features) and held.labels.shape == shape):
        raise TfpruneError(
            f"layer {call.name}: expected its rule to return call.unitwise(), call.identity() or "
            f"call.block(reason), for an output of its shape; received {type(held).__name__}"
        )
    path = call.ledger.path(call.layer)
    labels = [features.labels for features in call.features]
    made = None if held is None else held.labels
    registered = RegisteredCall(path, call.inputs, labels, call.output, made)
    call.ledger.result.registered.append(registered)
