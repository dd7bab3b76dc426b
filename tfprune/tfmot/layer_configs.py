"""Translates Keras 3 layers into tf_keras configurations; refuses others by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import layers as kl

from tfprune.errors import TfpruneError
from tfprune.graph.configs import config_of
from tfprune.graph.layers import activation_name, describe, is_operation

# Activations that mean the same in both, by their names there; ``hard_sigmoid`` does not.
ACTIVATIONS = {
    **{name: name for name in ("linear", "relu", "sigmoid", "tanh", "softmax", "elu", "selu")},
    **{name: name for name in ("softplus", "softsign", "exponential", "gelu", "mish")},
    "silu": "swish",
}
# Activations that are layers there.
AS_LAYERS: dict[str, tuple[str, dict[str, float]]] = {
    "leaky_relu": ("LeakyReLU", {"alpha": 0.2}),
    "relu6": ("ReLU", {"max_value": 6.0}),
}


@dataclass(frozen=True)
class Rule:
    """How a layer's configuration is translated; keys that it does not name are refused.

    Attributes
    ----------
    keys : str
        Those that are carried as they are, apart from ``activation``.
    renamed : mapping of str to str
        Those that have another name in tf_keras.
    only : mapping
        Those that tf_keras does not know, and the one value that means the same there.
    ignored : str
        Those that play no part in inference.
    """

    keys: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, Any] = field(default_factory=dict)
    ignored: str = ""


_CONVOLUTION = "kernel_size strides padding data_format dilation_rate use_bias"
_POOLING = Rule("pool_size padding strides data_format")
_GLOBAL = Rule("data_format keepdims")
RULES: dict[type, Rule] = {
    kl.Dense: Rule("units use_bias", only={"quantization_config": None}),
    **dict.fromkeys(
        (kl.Conv1D, kl.Conv2D, kl.Conv3D), Rule(f"filters groups {_CONVOLUTION}")
    ),
    **dict.fromkeys(
        (kl.Conv1DTranspose, kl.Conv2DTranspose), Rule(f"filters output_padding {_CONVOLUTION}")
    ),
    **dict.fromkeys(
        (kl.DepthwiseConv1D, kl.DepthwiseConv2D), Rule(f"depth_multiplier {_CONVOLUTION}")
    ),
    **dict.fromkeys(
        (kl.SeparableConv1D, kl.SeparableConv2D), Rule(f"filters depth_multiplier {_CONVOLUTION}")
    ),
    kl.BatchNormalization: Rule(
        "axis momentum epsilon center scale",
        only={"renorm": False},
        ignored="synchronized renorm_clipping renorm_momentum",
    ),
    kl.LayerNormalization: Rule("axis epsilon center scale", only={"rms_scaling": False}),
    kl.ReLU: Rule("max_value negative_slope threshold"),
    kl.LeakyReLU: Rule(renamed={"negative_slope": "alpha"}),
    kl.ELU: Rule("alpha"),
    kl.PReLU: Rule("shared_axes"),
    kl.Softmax: Rule("axis"),
    kl.Activation: Rule(),
    **dict.fromkeys((kl.MaxPooling1D, kl.MaxPooling2D, kl.MaxPooling3D), _POOLING),
    **dict.fromkeys((kl.AveragePooling1D, kl.AveragePooling2D, kl.AveragePooling3D), _POOLING),
    **dict.fromkeys((kl.GlobalMaxPooling1D, kl.GlobalMaxPooling2D), _GLOBAL),
    **dict.fromkeys((kl.GlobalAveragePooling1D, kl.GlobalAveragePooling2D), _GLOBAL),
    kl.ZeroPadding1D: Rule("padding", only={"data_format": "channels_last"}),
    kl.ZeroPadding2D: Rule("padding data_format"),
    kl.Cropping1D: Rule("cropping"),
    kl.Cropping2D: Rule("cropping data_format"),
    kl.UpSampling1D: Rule("size"),
    kl.UpSampling2D: Rule("size data_format interpolation"),
    kl.Flatten: Rule("data_format"),
    kl.Reshape: Rule("target_shape"),
    kl.Permute: Rule("dims"),
    kl.RepeatVector: Rule("n"),
    kl.Rescaling: Rule("scale offset"),
    kl.Concatenate: Rule("axis"),
    **dict.fromkeys((kl.Add, kl.Subtract, kl.Multiply, kl.Average), Rule()),
    **dict.fromkeys((kl.Maximum, kl.Minimum), Rule()),
}  # fmt: skip
# What training would use and inference does not; training there has a loss of its own.
_ENDINGS = ("_initializer", "_regularizer")
_NOTHING = object()


def translated(layer: Any) -> dict[str, Any]:
    """A layer's configuration as tf_keras takes it.

    Raises
    ------
    TfpruneError
        If the layer, its activation or anything else in its configuration cannot be carried.
    """
    if is_operation(layer):
        raise refused(layer, "an operation on tensors; build it with layers such as Add")
    rule = RULES.get(type(layer))
    if rule is None:
        raise refused(layer, "not one of the layers that can be carried")
    config: dict[str, Any] = {}
    for key, value in config_of(layer).items():
        if key in ("name", "trainable", "dtype") or key.endswith(_ENDINGS):
            continue
        if key.endswith("_constraint") and value is None:
            continue
        if key == "activation":
            config[key] = _activation(layer)
        elif key in rule.keys.split():
            config[key] = value
        elif key in rule.renamed:
            config[rule.renamed[key]] = value
        elif key not in rule.ignored.split() and value != rule.only.get(key, _NOTHING):
            raise refused(layer, f"tf_keras has nothing like its {key}={value!r}")
    return config


def _activation(layer: Any) -> str:
    name = activation_name(layer.activation)
    if isinstance(layer.activation, keras.Layer) or name not in {**ACTIVATIONS, **AS_LAYERS}:
        known = ", ".join([*ACTIVATIONS, *AS_LAYERS])
        raise refused(layer, f"its activation {name} is not one of {known}")
    return ACTIVATIONS.get(name, name)


def refused(layer: Any, why: str) -> TfpruneError:
    """The error that names a layer which cannot be carried."""
    return TfpruneError(f"layer {describe(layer)} cannot be carried to tf_keras: {why}")
