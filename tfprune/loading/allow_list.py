"""The allow-list of classes that a model file may have Keras build without ``--unsafe``.

Keras looks up classes and functions by the names in a file, all public ones among them, and some
run code or read files when they are built or called. So a configuration is gone through before
Keras sees it, and what Keras gets is what was gone through: modules in one spelling, nothing beside
the keys that were looked at.
"""

from __future__ import annotations

import re
from typing import Any

from tfprune.errors import TfpruneError
from tfprune.loading.keras_classes import FUNCTIONS, MODELS, OPERATIONS, PUBLIC, RUNS_CODE, UNLISTED
from tfprune.loading.own_code import NOTHING, OwnCode, named, registered

Config = dict[str, Any]

# Values that Keras writes as objects; nothing of a file's own is called for them.
DATA = {"__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"}
DTYPES = re.compile(r"(b?float|u?int|complex)\d{1,3}|bool|string")
FUNCTION_MODULES = re.compile(r"builtins|keras(\.src)?\.(activations|losses|metrics|ops)(\.\w+)*")
# Names of files in place of the values.
VALUES = ("vocabulary", "idf_weights")
# Layers called in all; a few nested models, each called twice by the next, are millions.
MOST_CALLS = 100_000
# Of a model with a batch of its own: stateful layers keep as many states.
MOST_SAMPLES = 65_536
POLICIES = {"DTypePolicy", "FloatDTypePolicy"}


def trusted(config: Any, compiled: bool = False, own: OwnCode = NOTHING) -> Config:
    """A configuration that names nothing but Keras' own classes and functions, and the user's.

    Parameters
    ----------
    config : dict
        Of a model, in the form of Keras 3.
    compiled : bool
        Whether its compile settings are wanted; they are left out where not, and in nested models.
    own : OwnCode
        What else it may name: classes and functions of files that the user had run.

    Returns
    -------
    dict
        The same, in one spelling.

    Raises
    ------
    TfpruneError
        With the first class or function that is on no list.
    """
    result = _Walk(own).value(config, "")
    if not isinstance(result, dict) or not _is_model(result, own):
        raise TfpruneError("expected the configuration of a Sequential or Functional model")
    if compiled and isinstance(config.get("compile_config"), dict):
        result["compile_config"] = settings(config["compile_config"], own)
    calls = _calls(result, own)
    if calls > MOST_CALLS:
        raise TfpruneError(
            f"its layers are called {calls:,} times, expected at most {MOST_CALLS:,}"
        )
    return result


def settings(config: Config, own: OwnCode = NOTHING) -> Config:
    """Compile settings that name nothing but Keras' own classes and functions, and the user's.

    Raises
    ------
    TfpruneError
        With the first that is on no list.
    """
    return {key: _Walk(own).value(value, f"the {key}") for key, value in config.items()}


class _Walk:
    """One way through a configuration; ``where`` names the layer for messages."""

    def __init__(self, own: OwnCode) -> None:
        self._own = own

    def value(self, value: Any, where: str, plain: bool = False) -> Any:
        """Any value; ``plain`` where Keras expects no objects."""
        if isinstance(value, list):
            return [self.value(item, where, plain) for item in value]
        if not isinstance(value, dict):
            return value
        if "class_name" not in value:
            return {key: self._item(key, item, where, plain) for key, item in value.items()}
        if plain:
            raise TfpruneError(f"{where or 'it'} has an object where Keras writes sizes")
        return self._object(value, where)

    def _item(self, key: str, item: Any, where: str, plain: bool) -> Any:
        if key in VALUES and isinstance(item, (str, dict)):
            raise TfpruneError(
                f"{where}: expected the values of its {key}, received {item!r}, a file's name; "
                "save it with the values"
            )
        return self.value(item, where, plain)

    def _object(self, data: Config, where: str) -> Config:
        name, config = data["class_name"], data.get("config")
        inner = config.get("name") if isinstance(config, dict) else None
        own = data.get("name", inner)
        where = f"layer {own!r}" if isinstance(own, str) else where
        if not isinstance(name, str):
            raise TfpruneError(f"{where or 'it'}: expected a class's name, received {name!r}")
        if name in DATA:
            return self._data(data, where)
        if name in RUNS_CODE or name == "__lambda__":
            raise _code(name, where)
        mine = self._own.name_of(data)
        if name == "function":
            return _function(data, where) if mine is None else named(mine, name)
        module = _module(data.get("module"), name)
        keras_own = module is not None and data.get("registered_name") in (None, "", name)
        if not keras_own and mine is None:
            raise _foreign(data, where)
        if not isinstance(config, dict):
            raise TfpruneError(f"{where or name}: expected a configuration, received {config!r}")
        result: Config = {
            "module": module,
            "class_name": name,
            "config": {key: self._item(key, item, where, False) for key, item in config.items()},
            "registered_name": name if module in OPERATIONS else None,
        }
        if not keras_own and mine is not None:
            result |= named(mine, name)
        if "name" in data:
            result["name"] = data["name"]
        if "inbound_nodes" in data:
            result["inbound_nodes"] = self._nodes(data["inbound_nodes"], where)
        _check_batch(config.get("batch_shape"), where)
        # A stateful layer makes room for a batch of the shape that it is built for; its call builds
        # it as well.
        if isinstance(data.get("build_config"), dict) and config.get("stateful") is not True:
            result["build_config"] = self.value(data["build_config"], where, plain=True)
        if isinstance(data.get("shared_object_id"), int):
            result["shared_object_id"] = data["shared_object_id"]
        return result

    def _nodes(self, nodes: Any, where: str) -> Any:
        """Calls of a layer: each on a tensor of the graph, or it would be computed on the spot."""
        for node in nodes if isinstance(nodes, list) else [nodes]:
            if not _has_tensor(node):
                raise TfpruneError(f"{where} is called without a tensor of the graph")
        return self.value(nodes, where)

    def _data(self, data: Config, where: str) -> Config:
        config = data.get("config")
        dtype = config.get("dtype", "float32") if isinstance(config, dict) else None
        if not isinstance(dtype, str) or not DTYPES.fullmatch(dtype):
            raise TfpruneError(f"{where or 'it'}: expected an array of numbers, received {dtype!r}")
        return {"class_name": data["class_name"], "config": self.value(config, where)}


def _has_tensor(node: Any) -> bool:
    """Whether a call names a tensor, in the form of Keras 3 or of Keras 2."""
    if isinstance(node, dict):
        if node.get("class_name") == "__keras_tensor__":
            return True
        node = list(node.values())
    if not isinstance(node, list):
        return False
    names = len(node) > 2 and isinstance(node[0], str) and isinstance(node[1], int)
    return names or any(_has_tensor(item) for item in node)


def _check_batch(shape: Any, where: str) -> None:
    batch = shape[0] if isinstance(shape, list) and shape else None
    if isinstance(batch, int) and batch > MOST_SAMPLES:
        raise TfpruneError(
            f"{where}: expected a batch of at most {MOST_SAMPLES:,} samples, received {batch:,}"
        )


def _module(module: Any, name: str) -> str | None:
    """The public module of a class, where the file's module is Keras' and has it; else None."""
    if not isinstance(module, str) or not re.fullmatch(r"keras(\.\w+)*", module):
        return None
    if name in MODELS and re.fullmatch(r"keras(\.src)?(\.(models|engine)(\.\w+)?)?", module):
        return "keras.src.models.functional" if name == "Functional" else "keras"
    if module == "keras" and name in POLICIES:
        return "keras.dtype_policies"
    if module in OPERATIONS or module in UNLISTED:  # Spelt in one way alone.
        return module if name in PUBLIC[module] else None
    spelt = module.replace("keras.src.", "keras.", 1)
    for public, names in PUBLIC.items():
        if name in names and (spelt == public or spelt.startswith(f"{public}.")):
            return public
    return None


def _function(data: Config, where: str) -> Config:
    name, module = data.get("config"), data.get("module") or "builtins"
    known = isinstance(name, str) and name in FUNCTIONS
    if (
        not known
        or not isinstance(module, str)
        or not FUNCTION_MODULES.fullmatch(module)
        or data.get("registered_name") not in (None, "", name)
    ):
        raise TfpruneError(
            f"{where or 'it'} names the function {module}.{name}, which is on no list of functions "
            "that only compute; add --import FILE.py if it is yours and that file registers it, or "
            "--unsafe if you trust the file"
        )
    return {"module": "builtins", "class_name": "function", "config": name,
            "registered_name": name}  # fmt: skip


def _code(name: str, where: str) -> TfpruneError:
    what = "a Python function" if name == "__lambda__" else f"a {name} layer"
    at = f", {where}" if where else ""
    return TfpruneError(
        f"it would run code on loading ({what}{at}); add --unsafe if you trust the file"
    )


def _foreign(data: Config, where: str) -> TfpruneError:
    name = data.get("registered_name") or data.get("class_name")
    module = str(data.get("module"))
    at = f" ({where})" if where else ""
    if module.partition(".")[0] == "keras":
        return TfpruneError(
            f"it needs {module}.{name}{at}, which is not among those of Keras' classes that load "
            "without --unsafe"
        )
    return missing("class", str(name), at)


def missing(kind: str, name: str, where: str = "") -> TfpruneError:
    """Says that a file needs a class or a function of its author's, and where it may come from."""
    return TfpruneError(
        f"it needs the {kind} {name}{where}, which is not Keras' own; add --import FILE.py, the "
        f"Python file that defines it (in Python: import it, load the model, call tfprune.prune)"
    )


def _is_model(data: Config, own: OwnCode) -> bool:
    """Whether a configuration that was gone through is that of a model."""
    kind, name = data.get("class_name"), data.get("registered_name")
    return kind in MODELS or name in {registered(one) for one in own.models}


def _calls(data: Any, own: OwnCode) -> int:
    """How often layers are called when a model is built, those of nested models each time."""
    config = data.get("config") if isinstance(data, dict) else None
    if not isinstance(config, dict):
        return 1
    if _is_model(data, own) and isinstance(config.get("layers"), list):
        total = 0
        for entry in config["layers"]:
            nodes = entry.get("inbound_nodes") if isinstance(entry, dict) else None
            total += _calls(entry, own) * max(len(nodes) if isinstance(nodes, list) else 1, 1)
        return total
    inner = [config.get(key) for key in ("layer", "backward_layer", "cell")]
    many = [config[key] for key in ("layers", "cells") if isinstance(config.get(key), list)]
    return 1 + sum(_calls(item, own) for item in [*inner, *(x for xs in many for x in xs)] if item)
