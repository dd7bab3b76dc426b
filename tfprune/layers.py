"""What is known of Keras' layers and activations: the allow-lists, copying, describing."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers as kl

from tfprune.errors import TfpruneError

# Activations that treat every unit alone, and the centre of their range where they have one.
UNITWISE_ACTIVATIONS = {
    **dict.fromkeys(("sigmoid", "hard_sigmoid", "sparse_sigmoid"), 0.5),
    **dict.fromkeys(("tanh", "hard_tanh", "tanh_shrink", "softsign"), 0.0),
    **dict.fromkeys(("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu"), 0.0),
    **dict.fromkeys(("silu", "mish", "softplus", "squareplus", "sparse_plus"), 0.0),
    **dict.fromkeys(("exponential", "hard_silu", "hard_shrink", "soft_shrink"), 0.0),
    **dict.fromkeys(("threshold", "log_sigmoid", "linear"), 0.0),
}
MIXING_ACTIVATIONS = {"softmax", "log_softmax", "sparsemax"}

# Layers that hand values on as they are (in inference).
IDENTITY = (
    kl.Dropout, kl.AlphaDropout, kl.GaussianDropout, kl.GaussianNoise, kl.SpatialDropout1D,
    kl.SpatialDropout2D, kl.SpatialDropout3D, kl.ActivityRegularization, kl.Identity,
)  # fmt: skip
# Layers that apply one function without weights to every unit alone.
NONLINEAR = (kl.ReLU, kl.LeakyReLU, kl.ELU)
# Layers that move values and change none.
MOVING = (kl.Flatten, kl.Reshape, kl.Permute, kl.Concatenate)
# Layers that change positions and keep channels apart.
RESIZING = (
    kl.MaxPooling1D, kl.MaxPooling2D, kl.MaxPooling3D,
    kl.AveragePooling1D, kl.AveragePooling2D, kl.AveragePooling3D,
    kl.GlobalMaxPooling1D, kl.GlobalMaxPooling2D, kl.GlobalMaxPooling3D,
    kl.GlobalAveragePooling1D, kl.GlobalAveragePooling2D, kl.GlobalAveragePooling3D,
    kl.ZeroPadding1D, kl.ZeroPadding2D, kl.ZeroPadding3D,
    kl.Cropping1D, kl.Cropping2D, kl.Cropping3D,
    kl.UpSampling1D, kl.UpSampling2D, kl.UpSampling3D,
)  # fmt: skip
# Layers that compute one value of several that lie over each other.
MEETING = (kl.Add, kl.Subtract, kl.Multiply, kl.Average, kl.Maximum, kl.Minimum)
# Layers that mix units but keep their order, so that the way to an output stays visible.
MIXING = (kl.Softmax, kl.LayerNormalization)
TRANSPOSED = (kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose)
CONVOLUTIONS = (kl.Conv1D, kl.Conv2D, kl.Conv3D, *TRANSPOSED)
DEPTHWISE = (kl.DepthwiseConv1D, kl.DepthwiseConv2D)
SEPARABLE = (kl.SeparableConv1D, kl.SeparableConv2D)


def depthwise_part(layer: Any) -> Any:
    """The depthwise half of a separable convolution, without weights yet."""
    kind = kl.DepthwiseConv1D if type(layer) is kl.SeparableConv1D else kl.DepthwiseConv2D
    return kind(
        layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        depth_multiplier=layer.depth_multiplier,
        data_format=layer.data_format,
        dilation_rate=layer.dilation_rate,
        use_bias=False,
        dtype=layer.dtype_policy,
    )


def functional(model: keras.Model) -> keras.Model:
    """The functional form of a Sequential or Functional model, not compiled.

    Raises
    ------
    TfpruneError
        If the model is neither, or has no shapes yet.
    """
    if not isinstance(model, keras.Model):
        raise TfpruneError(f"model: expected a Keras 3 model, received {type(model).__name__}")
    try:
        inputs, outputs = model.inputs, model.outputs
    except (AttributeError, ValueError):
        inputs = outputs = None
    if not inputs or not outputs:
        raise TfpruneError(
            f"model {model.name}: expected a Sequential or Functional model with known shapes, "
            f"received {type(model).__name__} without; build it on keras.Input, or wrap it in "
            "keras.Model(inputs, outputs)"
        )
    if isinstance(model, keras.Sequential):
        return keras.Model(inputs[0], outputs[0], name=model.name)
    # Not the model itself: cloning one that is compiled would compile the clone as well.
    return keras.Model(model.input, model.output, name=model.name)


def copied(layer: Any, **changes: Any) -> Any:
    """A new layer of the same configuration, but for the changes; weights are not copied.

    Raises
    ------
    TfpruneError
        If the layer cannot be copied.
    """
    if isinstance(layer, keras.Model):
        return keras.models.clone_model(layer, clone_function=copied)
    try:
        config = {**layer.get_config(), **changes}
        if changes:
            # An array of constants would not fit the new width; weights are set anyway.
            config |= {key: "zeros" for key, value in config.items() if _is_constant(key, value)}
        if type(layer) is kl.Lambda:
            # Its code runs in this process already, so copying it trusts nothing new.
            return kl.Lambda.from_config(config, safe_mode=False)
        return type(layer).from_config(config)
    except (NotImplementedError, TypeError):
        raise TfpruneError(
            f"layer {describe(layer)} cannot be copied: its class needs a get_config that its "
            "__init__ takes"
        ) from None


def _is_constant(key: str, value: Any) -> bool:
    kind = value.get("class_name") if isinstance(value, dict) else None
    return key.endswith("_initializer") and kind == "Constant"


def copy_weights(source: Any, target: Any, weights: list[Any] | None = None) -> None:
    """Gives a layer's copy its weights, or others, and what is derived from them."""
    target.set_weights(source.get_weights() if weights is None else weights)
    for layer in [target, *getattr(target, "layers", [])]:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()  # Normalization computes with values made from its weights.


def weighted(model: keras.Model) -> list[Any]:
    """The layers that have weights."""
    return [layer for layer in model.layers if layer.weights]


def activation_name(activation: Any) -> str:
    """The name of an activation function; says so if it is not one of Keras' own."""
    name = getattr(activation, "__name__", type(activation).__name__)
    # A user's function may bear a name that Keras uses for another.
    if getattr(keras.activations, name, None) is activation:
        return name
    return f"{name} (not Keras' own)"


def describe(layer: Any) -> str:
    """A layer's name and class, for messages."""
    return f"{layer.name} ({type(layer).__name__})"
