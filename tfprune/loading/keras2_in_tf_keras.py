"""Loads a Keras 2 file in tf_keras, to compare its outputs with those of Keras 3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfprune.errors import TfpruneError
from tfprune.loading import keras1, keras2_layers, keras2_ops
from tfprune.loading.allow_list import VALUES
from tfprune.loading.keras2_forms import plain
from tfprune.loading.keras_classes import (
    CONSTRAINTS,
    FUNCTIONS,
    INITIALIZERS,
    LAYERS,
    MODELS,
    REGULARIZERS,
)
from tfprune.utils.console import quiet

# How far outputs may differ, as a share of the largest: float32 in another order of sums.
CLOSE = 1e-3
SAMPLES = 4
# For axes of unknown length.
LENGTH = 16
# What tf_keras may find in a configuration. It gets the file's own, with what the adapted one no
# longer has, and looks up classes in modules of its own: the allow-list saw another text.
KNOWN = {
    *LAYERS, *MODELS, *INITIALIZERS, *REGULARIZERS, *CONSTRAINTS, *keras1.CLASSES,
    *keras2_layers.ALIASES, *keras2_layers.CLASSES, "DTypePolicy", "FloatDTypePolicy", "InputSpec",
    "Policy", "PolicyV1", "__ellipsis__", "__slice__",
}  # fmt: skip
# Classes that name a function of TensorFlow. A TensorFlowOpLayer holds any node of a graph, in a
# form that is not the one read here.
NAMES_FUNCTION = {"TFOpLambda", "SlicingOpLambda"}


def difference(model: keras.Model, config: Any, path: Path) -> float | None:
    """The difference between a model's outputs and those of tf_keras for the same file.

    Parameters
    ----------
    model : keras.Model
        Read from the file.
    config : dict
        The file's configuration as it stands there; not compared where it has anything that is on
        no list.
    path : Path
        Of the ``.h5`` file.

    Returns
    -------
    float or None
        The largest difference on random inputs, as a share of the largest output; None where
        tf_keras does not read the file.

    Raises
    ------
    TfpruneError
        If they differ.
    """
    x = _inputs(model)
    outputs = model(x if len(x) > 1 else x[0], training=False)
    try:
        with quiet():
            other = by_tf_keras(config)
            other.load_weights(path)
            expected = other(x if len(x) > 1 else x[0], training=False)
    except Exception:  # Whatever it is that tf_keras cannot do, there is nothing to compare with.
        return None
    pairs = zip(keras.tree.flatten(outputs), keras.tree.flatten(expected), strict=True)
    differences = [_relative(np.asarray(ours), np.asarray(theirs)) for ours, theirs in pairs]
    largest = max(differences)
    if not largest <= CLOSE:
        what = "differ in shape or are not finite"
        if largest < np.inf:
            what = f"differ by {largest:.1%} of the largest"
        raise TfpruneError(
            f"Keras 3 computes something else from it than Keras 2 does (outputs {what}); "
            "build the model with Keras 3's layers and give it the file's weights"
        )
    return largest


def by_tf_keras(config: Any) -> Any:
    """The tf_keras model of a file's configuration.

    Raises
    ------
    TfpruneError
        If anything in it is on no list, wherever it stands.
    """
    import tf_keras

    return tf_keras.models.model_from_config(_by_names(plain(config)))


def _relative(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> float:
    if ours.shape != theirs.shape or not np.array_equal(np.isnan(ours), np.isnan(theirs)):
        return float("inf")
    ours, theirs = np.nan_to_num(ours), np.nan_to_num(theirs)
    size = max(float(np.abs(theirs).max(initial=0.0)), 1e-6)
    return float(np.abs(ours.astype(float) - theirs.astype(float)).max(initial=0.0)) / size


def _inputs(model: keras.Model) -> list[npt.NDArray[Any]]:
    rng = np.random.default_rng(0)
    arrays = []
    for tensor in model.inputs:
        batch, *rest = tensor.shape
        shape = (batch or SAMPLES, *(size or LENGTH for size in rest))
        if "float" in tensor.dtype and not _has_embedding(model):
            arrays.append(rng.normal(size=shape).astype(tensor.dtype))
        else:  # Indexes, small enough for any table.
            arrays.append(rng.integers(0, 2, shape).astype(tensor.dtype))
    return arrays


def _has_embedding(model: keras.Model) -> bool:
    return any(isinstance(layer, keras.layers.Embedding) for layer in model.layers)


def _by_names(value: Any) -> Any:
    """Classes by their names alone, so that tf_keras finds its own; nothing for it to decode."""
    if isinstance(value, list):
        return [_by_names(item) for item in value]
    if not isinstance(value, dict):
        return value
    for key in VALUES:
        if isinstance(value.get(key), (str, dict)):
            raise TfpruneError(f"expected the values of its {key}, received a file's name")
    if "class_name" in value:
        _check_class(value)
    if value.get("class_name") == "__ellipsis__":
        return ...
    dropped = {"__passive_serialization__", "build_config", "compile_config"}
    dropped |= {"module", "registered_name"} if "class_name" in value else set()
    return {key: _by_names(item) for key, item in value.items() if key not in dropped}


def _check_class(data: dict[str, Any]) -> None:
    name, config = data["class_name"], data.get("config")
    known = isinstance(name, str) and name in KNOWN
    if isinstance(name, str) and name in NAMES_FUNCTION and isinstance(config, dict):
        known = keras2_ops.is_translated(config.get("function"))
    elif name == "function":
        known = isinstance(config, str) and config in FUNCTIONS
    if not known:
        raise TfpruneError(
            f"it has a {name!r} ({str(config)[:80]}), which is on no list for tf_keras"
        )
