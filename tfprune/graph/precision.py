"""Copies of half- and double-precision models in float32, which TensorFlow's converter needs."""

from __future__ import annotations

from typing import Any

import keras

from tfprune.graph.clone import clone_layer, copy_weights, rebuild
from tfprune.graph.configs import Config

HALF = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
# The converter refuses most operators in double precision too.
OTHERS = (*HALF, "float64")
FLOAT32 = dict.fromkeys(OTHERS, "float32")


def in_float32(model: keras.Model) -> keras.Model:
    """A model that computes in float32 what this one computes in half or double precision.

    Parameters
    ----------
    model : keras.Model
        A Sequential or Functional model.

    Returns
    -------
    keras.Model
        The model itself if no layer and no input is of such a precision; else a copy, not compiled,
        with the same names, and the weights as float32.

    Raises
    ------
    TfpruneError
        If a layer cannot be copied.
    """
    if not any(tensor.dtype in OTHERS for tensor in model.inputs) and not _is_other(model):
        return model
    pairs: list[tuple[Any, Any]] = []

    def single(layer: Any) -> Any:
        pairs.append((layer, _single(layer)))
        return pairs[-1][1]

    copy_of_model = rebuild(model, single, FLOAT32)
    for layer, copy in pairs:
        if getattr(layer, "weights", None):
            values = zip(layer.get_weights(), copy.weights, strict=True)
            copy_weights(layer, copy, [value.astype(weight.dtype) for value, weight in values])
    return copy_of_model


def _is_other(layer: Any) -> bool:
    """Whether a layer, or one inside it, has a policy of half or double precision."""
    if isinstance(layer, keras.Model):
        inside = [inner for inner in layer.layers if type(inner) is not keras.layers.InputLayer]
        return any(map(_is_other, inside))
    inside = [getattr(layer, name, None) for name in ("layer", "forward_layer", "cell")]
    return layer.dtype_policy.name in OTHERS or any(
        _is_other(inner) for inner in inside if isinstance(inner, keras.Layer)
    )


def _single(layer: Any) -> Any:
    """A copy of a layer, or of an operation, with float32 for the precisions in its config."""

    def rewrite(config: Config) -> Config:
        return {key: _with_float32(key, value) for key, value in config.items()}

    return clone_layer(layer, rewrite=rewrite, dtypes=FLOAT32)


def _with_float32(key: str, value: Any) -> Any:
    """A value of a config with its policies of other precision replaced; itself if it has none."""
    if key == "dtype":
        name = value["config"].get("name") if isinstance(value, dict) else value
        return FLOAT32.get(name, value)
    if isinstance(value, dict):
        entries = {inner: _with_float32(inner, old) for inner, old in value.items()}
        return entries if any(entries[inner] is not value[inner] for inner in value) else value
    return value
