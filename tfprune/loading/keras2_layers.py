"""Rewrites layers of Keras 1 and 2 as Keras 3 has them: classes and arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from tfprune.errors import TfpruneError
from tfprune.loading import keras1
from tfprune.loading.keras2_forms import Adapted, Config, Edit
from tfprune.loading.keras_classes import (
    CONSTRAINTS,
    INITIALIZERS,
    LAYERS,
    OPERATIONS,
    REGULARIZERS,
    RUNS_CODE,
    SCHEDULES,
    UNLISTED,
)

Inner = Callable[[Config, tuple[str, ...], Adapted], Config]

# Classes that Keras 3 itself writes under another name than the public one.
ALIASES = {"GroupedQueryAttention": "GroupQueryAttention"}
CLASSES = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "CuDNNGRU": "GRU",
    "CuDNNLSTM": "LSTM",
    "Input": "InputLayer",
    "SyncBatchNormalization": "BatchNormalization",
    "ThresholdedReLU": "ReLU",
}
# What Keras 3 no longer takes, and the values that it computes with all the same: any for None.
NEUTRAL: dict[str, tuple[Any, ...] | None] = {
    "adjustment": (None,),
    "batch_input_shape": None,  # Of a layer inside a model: the shape is known there.
    "build_input_shape": None,
    "causal": (False,),
    "dynamic": (False, None),
    "filters": None,  # A DepthwiseConv2D's, of its base class.
    "function_type": None,
    "fused": None,
    "groups": (1,),
    "implementation": None,
    "input_dtype": None,
    "input_length": None,
    "input_shape": None,
    "input_spec": None,
    "kernel_constraint": None,  # Of depthwise and separable convolutions, which have their own.
    "kernel_initializer": None,
    "kernel_regularizer": None,
    "key_shape": None,
    "noise_shape": (None,),
    "optional": (False,),
    "query_shape": None,
    "ragged": (False, None),
    "renorm": (False, None),
    "rng_type": None,
    "softmax_robust_masking": (False,),
    "sparse": (False, None),
    "stateful": (False,),
    "time_major": (False,),
    "trainable": None,
    "type_spec": (None,),
    "value_shape": None,
    "virtual_batch_size": (None,),
    "vocabulary_size": None,
}
# Dropped without a word: they say nothing of the age of a file.
UNSAID = {
    "batch_input_shape", "dynamic", "implementation", "input_spec", "key_shape", "optional",
    "query_shape", "ragged", "softmax_robust_masking", "sparse", "trainable", "value_shape",
}  # fmt: skip
GONE = {"AbstractRNNCell", "DenseFeatures", "LocallyConnected1D", "LocallyConnected2D"}
DTYPES = ("_infer", "infer", "infer_with_float32_vars")


def layer(data: Config, path: tuple[str, ...], result: Adapted, inner: Inner) -> Config:
    """One layer as Keras 3 has it.

    Parameters
    ----------
    data : dict
        ``class_name`` and ``config``.
    path : tuple of str
        Its name, after those of the models around it.
    result : Adapted
        Is told what changed.
    inner : callable
        Adapts what is wrapped in the layer, with the same arguments.

    Returns
    -------
    dict

    Raises
    ------
    TfpruneError
        If it has no counterpart in Keras 3.
    """
    name = data.get("class_name")
    config = data.get("config")
    where = f"layer {path[-1]!r}" if path else "a layer"
    if not isinstance(name, str) or not isinstance(config, dict):
        raise TfpruneError(
            f"{where}: expected a class_name and a config, received {str(data)[:80]}"
        )
    module = data.get("module")
    own = module is None or str(module).startswith(("keras.", "tf_keras."))
    if not own or data.get("registered_name") not in (None, name):
        return data  # Not Keras' own, which is said where files are checked.
    try:
        module, name, config = _layer(name, dict(config), path, result, inner)
    except TfpruneError as error:
        raise TfpruneError(f"{where} ({name}): {error}") from None
    return {"module": module, "class_name": name, "config": config, "registered_name": None}


def _layer(
    name: str, config: Config, path: tuple[str, ...], result: Adapted, inner: Inner
) -> tuple[str | None, str, Config]:
    if name in RUNS_CODE:
        return "keras.layers", name, _with_code(config)
    operation = next((module for module, names in OPERATIONS.items() if name in names), None)
    if result.keras_3 and operation and "trainable" not in config:
        return operation, name, config  # A layer of this name would say whether it is trained.
    if not result.keras_3:
        name, config = _renamed(name, config, path, result)
    name = ALIASES.get(name, name)
    if name not in LAYERS:
        # Where it is not Keras' own either, that is said where files are checked.
        module = next((key for key, names in UNLISTED.items() if name in names), None)
        return module, name, config
    for key in [key for key in config if key in ("layer", "backward_layer", "cell", "cells")]:
        wrapped = config[key]
        many = isinstance(wrapped, list)
        copies = [
            inner(item, (*path, key, *((str(at),) if many else ())), result)
            for at, item in enumerate(wrapped if many else [wrapped])
            if isinstance(item, dict)
        ]
        config[key] = copies if many else (copies[0] if copies else None)
    if not result.keras_3:
        _special(name, config, path, result)
    for key, value in list(config.items()):
        config[key] = _argument(key, value)
        if config[key] is None and key == "dtype":
            del config[key]
    if not result.keras_3:
        _drop_unknown(name, config, result)
    return "keras.layers", name, config


def _renamed(
    name: str, config: Config, path: tuple[str, ...], result: Adapted
) -> tuple[str, Config]:
    """The class and arguments under the names that Keras 3 has, if it has them."""
    known, config = keras1.renamed(name, config)
    if known != name:
        result.note(name)
    if known in GONE:
        raise TfpruneError("Keras 3 has no such layer; build the model anew without it")
    if known.startswith("CuDNN"):
        result.edits.append(Edit(path, "cudnn"))
        config["recurrent_activation"] = "sigmoid"
        config |= {"reset_after": True} if known == "CuDNNGRU" else {}
    if known == "ThresholdedReLU":
        config["threshold"] = config.pop("theta", 1.0)
    if known in CLASSES:
        result.note(known)
    if any(known in names for names in UNLISTED.values()):
        config.pop("rng_type", None)
    return CLASSES.get(known, known), config


def _special(name: str, config: Config, path: tuple[str, ...], result: Adapted) -> None:
    """What a class needs beside other names."""
    axis = config.get("axis")
    if name == "BatchNormalization" and isinstance(axis, list):
        if len(axis) != 1:
            raise TfpruneError(f"Keras 3 normalises one axis, expected axis={axis} to be one")
        config["axis"] = axis[0]
    if name == "LeakyReLU" and "alpha" in config:
        config["negative_slope"] = config.pop("alpha")
        result.note("alpha")
    if name == "InputLayer" and "batch_input_shape" in config:
        config["batch_shape"] = config.pop("batch_input_shape")
    if name == "GRU" and "reset_after" not in config:
        config["reset_after"] = False  # Keras 3's default is another.
        result.note("reset_after")
    if config.get("activation") == "hard_sigmoid":
        if name in ("LSTM", "GRU", "SimpleRNN", "ConvLSTM2D") or "Cell" in name:
            raise TfpruneError(
                "activation='hard_sigmoid' of Keras 2, clip(0.2 x + 0.5, 0, 1), "
                "has no counterpart in Keras 3"
            )
        if name != "Activation":  # Which gets a layer in front of it.
            result.edits.append(Edit(path, "hard_sigmoid"))
        result.note("hard_sigmoid")
    if config.get("recurrent_activation") == "hard_sigmoid":
        if "LSTM" not in name and "GRU" not in name:
            raise TfpruneError("recurrent_activation='hard_sigmoid' has no counterpart in Keras 3")
        result.edits.append(Edit(path, "recurrent_hard_sigmoid"))
        result.note("hard_sigmoid")


def _argument(key: str, value: Any) -> Any:
    """One argument of a layer: what stands in a form of its own."""
    if key == "dtype":
        return _dtype(value)
    for suffix, known in _KINDS.items():
        if key.endswith(suffix):
            return _object(value, *known)
    return value


def _dtype(value: Any) -> Any:
    if not isinstance(value, dict):
        return None if value in DTYPES else value
    config = value.get("config")
    name = config.get("name") if isinstance(config, dict) else None
    if value.get("class_name") in ("Policy", "PolicyV1", "DTypePolicy", "FloatDTypePolicy"):
        return None if name in DTYPES else name
    return value


def _initializer(name: str, config: Config) -> Config:
    if name == "VarianceScaling" and config.get("distribution") == "normal":
        config["distribution"] = "truncated_normal"
    return {key: value for key, value in config.items() if key != "dtype"}


_KINDS: dict[str, tuple[str, frozenset[str], Callable[[str, Config], Config]]] = {
    "_initializer": ("keras.initializers", INITIALIZERS, _initializer),
    "_regularizer": ("keras.regularizers", REGULARIZERS, lambda _, config: config),
    "_constraint": ("keras.constraints", CONSTRAINTS, lambda _, config: config),
    "learning_rate": ("keras.optimizers.schedules", SCHEDULES, lambda _, config: config),
}


def _object(
    value: Any, module: str, known: frozenset[str], change: Callable[[str, Config], Config]
) -> Any:
    """An initializer and the like, with the module that Keras 3 looks it up in."""
    if not isinstance(value, dict) or not isinstance(value.get("config"), dict):
        return value
    name = value.get("class_name")
    if name not in known:
        return {"module": None, **value}
    config = change(str(name), dict(value["config"]))
    return {"module": module, "class_name": name, "config": config, "registered_name": None}


def _with_code(config: Config) -> Config:
    """A Lambda as Keras 3 reads it; whether it is read is decided elsewhere."""
    for key in ("function_type", "module", "output_shape_type", "output_shape_module"):
        config.pop(key, None)
    function = config.get("function")
    if isinstance(function, list) and len(function) == 3:
        code = dict(zip(("code", "defaults", "closure"), function, strict=True))
        config["function"] = {"class_name": "__lambda__", "config": code}
    return config


@cache
def _accepted(name: str) -> frozenset[str] | None:
    """The arguments that a class of Keras 3 takes; all for None."""
    import keras

    kind = getattr(keras.layers, name, None)
    names: set[str] = set()
    for base in inspect.getmro(kind) if kind else ():
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        names |= {parameter.name for parameter in parameters}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return frozenset(names) - {"self", "kwargs", "args"} or None


def _drop_unknown(name: str, config: Config, result: Adapted) -> None:
    accepted = _accepted(name)
    if accepted is None:
        return
    for key in [key for key in config if key not in accepted]:
        value = config[key]
        neutral = NEUTRAL.get(key, ())
        if neutral is not None and value not in neutral:
            raise TfpruneError(f"Keras 3 has no counterpart of {key}={value!r}")
        del config[key]
        if key not in UNSAID:
            result.note(key)
