"""Rewrites configurations of Keras 1 and 2, and of ``.h5`` files, as Keras 3 writes them.

Nothing is built here: a configuration goes in and another comes out, with what was changed by name
and what has to be done to weights. What has no counterpart in Keras 3 is refused with the reason.
"""

from __future__ import annotations

from typing import Any

from tfprune.errors import TfpruneError
from tfprune.loading import keras2_ops
from tfprune.loading.keras2_forms import HARD_SIGMOID, Adapted, Config, native, plain, tensor
from tfprune.loading.keras2_layers import layer
from tfprune.loading.keras_classes import MODELS

# Layers that were called with a list, their states after their input.
WITH_STATES = ("SimpleRNN", "LSTM", "GRU", "RNN", "Bidirectional", "ConvLSTM2D")


def adapted(config: Any, version: str | None = None) -> Adapted:
    """A model's configuration in the form that Keras 3 writes itself.

    Parameters
    ----------
    config : dict
        ``{"class_name": "Sequential" or "Functional" or "Model", "config": ...}``, of Keras 1.0 on.
    version : str, optional
        Of the Keras that wrote it.

    Returns
    -------
    Adapted

    Raises
    ------
    TfpruneError
        With what has no counterpart in Keras 3, and the layer's name.
    """
    result = Adapted(keras_3=str(version).startswith("3"))
    if not isinstance(config, dict) or config.get("class_name") not in MODELS:
        kind = config.get("class_name") if isinstance(config, dict) else type(config).__name__
        raise TfpruneError(
            f"expected a Sequential or Functional model, received {kind}; "
            "load it in Python, and call tfprune.prune or save it as .keras for --import FILE.py"
        )
    result.config = _entry(plain(config), (), result)
    return result


def _entry(data: Config, path: tuple[str, ...], result: Adapted) -> Config:
    """A layer or a nested model."""
    if data.get("class_name") in MODELS:
        return _model(data, path, result)
    return layer(data, path, result, _entry)


def _model(data: Config, path: tuple[str, ...], result: Adapted) -> Config:
    """A nested or outermost model."""
    config = data["config"]
    if isinstance(config, list):
        result.note("Sequential as a list")
        config = {"name": path[-1] if path else "sequential", "layers": config}
    if not isinstance(config, dict) or not isinstance(config.get("layers"), list):
        raise TfpruneError(
            f"the configuration of a {data['class_name']} model has no layers: a subclassed model? "
            "Load it in Python, wrap it in keras.Model(inputs, outputs) and call tfprune.prune"
        )
    entries = [entry for entry in config["layers"] if isinstance(entry, dict)]
    if len(entries) != len(config["layers"]) or not entries:
        raise TfpruneError(f"expected layers, received {str(config['layers'])[:80]}")
    name = str(config.get("name") or "model").replace("/", "_")
    if "layers" in config and "input_layers" in config:
        fresh = _Functional(config, entries, path, result).config()
        module, kind = "keras.src.models.functional", "Functional"
    else:
        fresh = {"layers": _sequential(entries, config, path, result)}
        module, kind = "keras", "Sequential"
    own = {"name": path[-1] if path else name, "trainable": config.get("trainable", True), **fresh}
    if kind == "Sequential":
        del own["trainable"]
    return {"module": module, "class_name": kind, "config": own, "registered_name": None}


def names_of(
    entries: list[Config], path: tuple[str, ...], result: Adapted
) -> tuple[list[str], list[str]]:
    """The names that layers had and those that they get: Keras 3 takes no ``/``."""
    before: list[str] = []
    after: list[str] = []
    taken: set[str] = set()
    counts: dict[str, int] = {}
    for number, entry in enumerate(entries):
        config = entry.get("config")
        own = config.get("name") if isinstance(config, dict) else None
        name = entry.get("name") or own or f"{entry.get('class_name')}_{number}".lower()
        before.append(str(name))
        free = stem = str(name).replace("/", "_")
        while free in taken:
            counts[stem] = counts.get(stem, 1) + 1
            free = f"{stem}_{counts[stem]}"
        taken.add(free)
        if free != name:
            result.note("names with /" if "/" in str(name) else "names that are not unique")
        if free != name and not path:
            result.names[free] = str(name)
        after.append(free)
    return before, after


def _renamed(entry: Config, name: str) -> Config:
    config = entry.get("config")
    if isinstance(config, list):
        config = {"layers": config}
    return {**entry, "config": {**config, "name": name} if isinstance(config, dict) else config}


def _sequential(
    entries: list[Config], outer: Config, path: tuple[str, ...], result: Adapted
) -> list[Config]:
    names = names_of(entries, path, result)[1]
    shape = _first_shape(entries[0], outer)
    layers = []
    for entry, name in zip(entries, names, strict=True):
        layers.append(_entry(_renamed(entry, name), (*path, name), result))
        if _is_hard_sigmoid(layers[-1], result):
            layers.insert(-1, _scaled(name))
    if layers[0]["class_name"] != "InputLayer" and shape is not None:
        batch_shape, dtype = shape
        result.note("Sequential without InputLayer")
        config = {"batch_shape": batch_shape, "name": f"{names[0]}_input"}
        config |= {"dtype": dtype} if dtype else {}
        layers.insert(0, native("keras.layers", "InputLayer", config))
    return layers


def _first_shape(entry: Config, outer: Config) -> tuple[list[Any], str | None] | None:
    """Shape, with the batch, and type of what goes into a Sequential; None where nothing says."""
    config = entry.get("config")
    while isinstance(config, (dict, list)) and entry.get("class_name") in MODELS:
        inner = config if isinstance(config, list) else config.get("layers")
        if not isinstance(inner, list) or not inner or not isinstance(inner[0], dict):
            return None
        outer = config if isinstance(config, dict) else {}
        entry = inner[0]
        config = entry.get("config")
    if not isinstance(config, dict):
        return None
    dtype = config.get("input_dtype") or config.get("dtype")
    dtype = dtype if isinstance(dtype, str) else None
    if entry.get("class_name") == "Embedding":
        dtype = str(config.get("input_dtype") or "float32")
    shape = config.get("batch_input_shape") or config.get("batch_shape")
    if shape is None and config.get("input_shape"):
        shape = [None, *config["input_shape"]]
    if shape is None:
        shape = outer.get("build_input_shape")
    return (shape, dtype) if isinstance(shape, list) else None


class _Functional:
    """One Functional model: its layers, and who calls whom."""

    def __init__(
        self, model: Config, entries: list[Config], path: tuple[str, ...], result: Adapted
    ) -> None:
        self._model, self._entries = model, entries
        self._path, self._result = path, result
        before, self._names = names_of(entries, path, result)
        if len(set(before)) < len(before):
            raise TfpruneError("expected layers of different names in a Functional model")
        self._renames = dict(zip(before, self._names, strict=True))
        self._classes = {
            name: entry.get("class_name") for name, entry in zip(before, entries, strict=True)
        }
        self._last: dict[str, int] = {}
        places = [entry.get("inbound_nodes") for entry in entries]
        for place in (*places, model.get("output_layers")):
            for name, node in _references(place):
                self._last[name] = max(node, self._last.get(name, 0))
        # Nodes that count before those that the model's layers were called by.
        self._offsets = {name: self._offset(name, entry) for name, entry in
                         zip(before, entries, strict=True)}  # fmt: skip

    def _offset(self, name: str, entry: Config) -> int:
        """1 where a nested model's own node is counted: what Keras 2 did, Keras 3 in part."""
        if entry.get("class_name") not in MODELS:
            return 0
        nodes = entry.get("inbound_nodes")
        calls = len(nodes) if isinstance(nodes, list) else 0
        return 1 if self._last.get(name, -1) >= calls else 0

    def config(self) -> Config:
        layers: list[Config] = []
        for entry, name in zip(self._entries, self._names, strict=True):
            nodes = entry.get("inbound_nodes")
            calls = [self._node(node, entry) for node in nodes] if isinstance(nodes, list) else []
            translated = keras2_ops.translated(entry, name, calls, self._result)
            if translated is None:
                fresh = _entry(_renamed(entry, name), (*self._path, name), self._result)
                translated = [{**fresh, "name": name, "inbound_nodes": calls}]
                if _is_hard_sigmoid(fresh, self._result):
                    scale = _scaled(name)
                    before = {**scale, "name": scale["config"]["name"], "inbound_nodes": calls}
                    links = [
                        {"args": [tensor(before["name"], at, 0)], "kwargs": {}}
                        for at in range(len(calls))
                    ]
                    translated = [before, {**translated[0], "inbound_nodes": links}]
            layers += translated
        return {
            "layers": layers,
            "input_layers": self._ends(self._model.get("input_layers")),
            "output_layers": self._ends(self._model.get("output_layers")),
        }

    def _ends(self, ends: Any) -> Any:
        """Inputs or outputs of the model; a list of one is the one."""
        if isinstance(ends, dict):
            return {key: self._ends(value) for key, value in ends.items()}
        if _is_reference(ends):
            name, call, index = self._called(ends)
            # Here Keras 3 counts a Functional model's own node.
            whole = self._classes[ends[0]] in ("Model", "Functional")
            return [name, call + int(whole), index]
        if not isinstance(ends, list) or not ends:
            raise TfpruneError(f"expected the model's inputs and outputs, received {ends!r}")
        values = [self._ends(value) for value in ends]
        return values[0] if len(values) == 1 else values

    def _called(self, reference: list[Any]) -> tuple[str, int, int]:
        old, node, index = reference[:3]
        if old not in self._renames:
            raise TfpruneError(f"the graph names a layer {old!r} that is not there")
        return self._renames[old], node - self._offsets[old], index

    def _tensor(self, reference: list[Any]) -> Any:
        return tensor(*self._called(reference))

    def _values(self, value: Any) -> Any:
        """Keyword arguments of a call, with the tensors among them."""
        if _is_reference(value) and value[0] in self._renames:
            return self._tensor(value)
        if isinstance(value, list):
            if len(value) == 4 and value[0] == "_CONSTANT_VALUE":
                return value[2]
            return [self._values(item) for item in value]
        if isinstance(value, dict):
            return {key: self._values(item) for key, item in value.items()}
        return value

    def _node(self, node: Any, entry: Config) -> Config:
        """One call of a layer: its arguments, as Keras 3 has them."""
        if isinstance(node, dict) and set(node) == {"args", "kwargs"}:
            return self._of_keras_3(node)
        kwargs: Config = {}

        def argument(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: argument(item) for key, item in value.items()}
            if _is_call(value):
                kwargs.update(value[3] if len(value) > 3 and isinstance(value[3], dict) else {})
                return value[2] if value[0] == "_CONSTANT_VALUE" else self._tensor(value)
            if isinstance(value, list):
                return [argument(item) for item in value]
            raise TfpruneError(f"layer {entry.get('name')!r}: expected calls, received {value!r}")

        first = argument(node)
        if isinstance(first, list) and len(first) == 1:
            first = first[0]
        for key in ("name", "mask", "training", "constants"):
            if kwargs.get(key) is None:
                kwargs.pop(key, None)
        named = self._values(kwargs)
        if entry.get("class_name") in WITH_STATES and isinstance(first, list):
            first, *states = first
            named["initial_state"] = states
        return {"args": [first], "kwargs": named}

    def _of_keras_3(self, node: Any) -> Any:
        """A node in Keras 3's own form: only names change."""
        if isinstance(node, list):
            return [self._of_keras_3(item) for item in node]
        if not isinstance(node, dict):
            return node
        history = node["config"].get("keras_history") if _is_tensor(node) else None
        if isinstance(history, list) and history and history[0] in self._renames:
            name = self._renames[history[0]]
            return {**node, "config": {**node["config"], "keras_history": [name, *history[1:]]}}
        return {key: self._of_keras_3(value) for key, value in node.items()}


def _is_tensor(node: Config) -> bool:
    return node.get("class_name") == "__keras_tensor__" and isinstance(node.get("config"), dict)


def _is_call(value: Any) -> bool:
    """Whether it is ``[name, node, tensor]`` or that with keyword arguments."""
    return (
        isinstance(value, list)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and isinstance(value[1], int)
    )


def _is_reference(value: Any) -> bool:
    return _is_call(value) and len(value) == 3 and isinstance(value[2], int)


def _references(value: Any) -> list[tuple[str, int]]:
    """All ``(layer, node)`` that calls name."""
    if _is_call(value):
        inner = _references(value[3]) if len(value) > 3 else []
        return [(value[0], value[1]), *inner]
    if isinstance(value, dict):
        value = list(value.values())
    return [ref for item in value for ref in _references(item)] if isinstance(value, list) else []


def _is_hard_sigmoid(entry: Config, result: Adapted) -> bool:
    activation = entry["config"].get("activation") if entry["class_name"] == "Activation" else None
    return activation == "hard_sigmoid" and not result.keras_3


def _scaled(name: str) -> Config:
    """What stands in front of Keras 3's hard_sigmoid for it to be that of Keras 2."""
    return native("keras.layers", "Rescaling", {
        "name": f"{name}_scale", "scale": HARD_SIGMOID, "offset": 0.0,
    })  # fmt: skip
