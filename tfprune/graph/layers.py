"""The layers and activations that pruning knows, and where their kernels read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers as kl

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

# Layers that may stand where an activation is asked for.
ACTIVATION_LAYERS = {
    kl.ReLU: "relu", kl.LeakyReLU: "leaky_relu", kl.ELU: "elu", kl.Softmax: "softmax",
}  # fmt: skip

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
    kl.AdaptiveAveragePooling1D, kl.AdaptiveAveragePooling2D, kl.AdaptiveAveragePooling3D,
    kl.AdaptiveMaxPooling1D, kl.AdaptiveMaxPooling2D, kl.AdaptiveMaxPooling3D,
    kl.UpSampling1D, kl.UpSampling2D, kl.UpSampling3D, kl.RepeatVector,
)  # fmt: skip
# Layers that compute one value of several that lie over each other.
MEETING = (kl.Add, kl.Subtract, kl.Multiply, kl.Average, kl.Maximum, kl.Minimum)
# Operations on tensors, ``x + y`` or ``keras.ops.relu(x)``, by the names of their classes: these
# stand nowhere in the public API. What arithmetic does with two tensors MEETING layers do.
ARITHMETIC = {
    "Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Maximum", "Minimum", "Power",
}  # fmt: skip
UNITWISE_OPERATIONS = {
    **dict.fromkeys(("Sigmoid", "HardSigmoid", "SparseSigmoid"), 0.5),
    **dict.fromkeys(("Relu", "ReLU", "Relu6", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu"), 0.0),
    **dict.fromkeys(("Silu", "HardSilu", "Softplus", "Squareplus", "SparsePlus"), 0.0),
    **dict.fromkeys(("Tanh", "HardTanh", "TanhShrink", "Softsign", "LogSigmoid"), 0.0),
    **dict.fromkeys(("HardShrink", "SoftShrink", "Threshold", "Clip", "Cast"), 0.0),
    **dict.fromkeys(("Exp", "Square", "Sqrt", "Absolute", "Negative"), 0.0),
}
# Those that only move values, whose labels they are run on; and of these and of layers the ones
# whose settings count features, or say which.
MOVING_OPERATIONS = {
    "Reshape", "Transpose", "Permute", "Squeeze", "ExpandDims", "Swapaxes", "Moveaxis", "Flip",
    "Concatenate", "Stack", "Split", "GetItem",
}  # fmt: skip
SIZED = {"Reshape", "Split", "GetItem"}
# Those that compute one value of several along an axis.
REDUCTIONS = {"Mean", "Sum", "Max", "Min", "Amax", "Amin", "Std", "Var"}

# Layers that mix units but keep their order, so that the way to an output stays visible.
MIXING = (kl.Softmax,)
# Normalisation over units.
OVER_UNITS = (kl.LayerNormalization, kl.RMSNormalization, kl.UnitNormalization)
TRANSPOSED = (kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose)
CONVOLUTIONS = (kl.Conv1D, kl.Conv2D, kl.Conv3D, *TRANSPOSED)
DEPTHWISE = (kl.DepthwiseConv1D, kl.DepthwiseConv2D)
SEPARABLE = (kl.SeparableConv1D, kl.SeparableConv2D)
RECURRENT = (kl.SimpleRNN, kl.GRU, kl.LSTM)
# Attention with kernels for queries, keys and values.
ATTENTION = (kl.MultiHeadAttention, kl.GroupQueryAttention)
# What a recurrent layer reads of its own units: see :func:`parts_of`.
ITSELF = ("candidate", "recurrent")
# What has units or filters that could go, and what of it has one activation alone.
FEEDFORWARD = (kl.Dense, *CONVOLUTIONS, *SEPARABLE)
MAKERS = (*FEEDFORWARD, *RECURRENT)
READERS = (kl.Dense, *CONVOLUTIONS, *DEPTHWISE, *SEPARABLE, *RECURRENT, *ATTENTION)
# Tables of a row for each word, whose columns are units.
EMBEDDINGS = (kl.Embedding, kl.ReversibleEmbedding)
# What multi-head attention multiplies with weights of its own.
ATTENDED = ("query", "key", "value")


# In front of the number of a group of channels, which a convolution reads by weights of its own.
GROUP = "group "


# What an embedding reads where it is called in reverse.
REVERSE = "reverse"


@dataclass(frozen=True)
class Kernel:
    """The weights by which a layer reads one of its inputs.

    Attributes
    ----------
    name : str
        Of the kernel among the layer's :func:`weights_of`.
    bias : str
        Of the bias that is added to what the kernel makes, whether the layer has it or not.
    axis : int
        The kernel's axis of input features.
    outputs : int
        How many axes of the kernel, the last ones, are the bias's.
    columns : slice
        Which outputs' weights read it, where others read something else.
    bias_row : int
        Where a layer has several biases, that which belongs to the kernel.
    """

    name: str
    bias: str
    axis: int = -2
    outputs: int = 1
    columns: slice = field(default_factory=lambda: slice(None))
    bias_row: int = 0


def kernel_of(layer: Any, part: str) -> Kernel:
    """The weights by which a layer reads an input; ``part`` names the input of several."""
    if type(layer) in RECURRENT and part:
        # A GRU that resets its state first has one part of the kernel for it, and one in front.
        gates = slice(None, 2 * layer.units) if "candidate" in parts_of(layer) else slice(None)
        columns = gates if part == "recurrent" else slice(2 * layer.units, None)
        return Kernel("recurrent_kernel", "bias", columns=columns, bias_row=1)
    if type(layer) in EMBEDDINGS:
        # Read in reverse it multiplies with a table of its own, or with its only one transposed.
        if part and getattr(layer, "tie_weights", False):
            return Kernel("embeddings", "", -1)
        return Kernel("reverse_embeddings" if part else "embeddings", "")
    if part and not part.startswith(GROUP):
        return Kernel(f"{part}/kernel", f"{part}/bias", 0, 2)
    if type(layer) in SEPARABLE:
        return Kernel("pointwise_kernel", "bias")
    return Kernel("kernel", "bias", -1 if type(layer) in TRANSPOSED else -2)


def parts_of(layer: Any) -> tuple[str, ...]:
    """The names of a layer's inputs for which it has a kernel each; one without a name else.

    A recurrent layer also reads its own units, ``recurrent``; a GRU that resets its state before it
    multiplies reads what is left of it as its ``candidate``.
    """
    if type(layer) in ATTENTION:
        return ATTENDED
    if type(layer) in RECURRENT:
        first = type(layer) is kl.GRU and not layer.reset_after
        return ("", *ITSELF) if first else ("", "recurrent")
    return (REVERSE,) if type(layer) in EMBEDDINGS else ("",)


def makes_with(layer: Any) -> list[Kernel]:
    """The weights from which a layer makes its units."""
    own = [kernel_of(layer, "recurrent")] if type(layer) in RECURRENT else []
    return [kernel_of(layer, ""), *own]


def gates_of(layer: Any) -> int:
    """How many numbers a layer computes for each unit: its weights are so many blocks of units."""
    return {kl.LSTM: 4, kl.GRU: 3}.get(type(layer), 1)


def weights_of(layer: Any) -> dict[str, Any]:
    """A layer's variables by name, in the order of ``get_weights``."""
    if type(layer) in ATTENTION:
        return {"/".join(weight.path.split("/")[-2:]): weight for weight in layer.weights}
    return {weight.name: weight for weight in layer.weights}


def arrays_of(layer: Any) -> dict[str, Any]:
    """A layer's weights by name; the kernel of a convolution in groups with all its zeros.

    So every input feature has a row, and every filter a column.
    """
    weights = dict(zip(weights_of(layer), layer.get_weights(), strict=True))
    groups = groups_in(layer)
    if groups > 1:
        kernel = weights["kernel"]
        *window, channels, filters = kernel.shape
        each = filters // groups
        whole = np.zeros((*window, groups * channels, filters), kernel.dtype)
        for group in range(groups):
            columns = slice(group * each, (group + 1) * each)
            rows = slice(group * channels, (group + 1) * channels)
            whole[..., rows, columns] = kernel[..., columns]
        weights["kernel"] = whole
    return weights


def stored(layer: Any, weights: dict[str, Any]) -> list[Any]:
    """Weights as :func:`arrays_of` has them, as ``layer.set_weights`` takes them."""
    groups = groups_in(layer)
    weights = dict(weights)
    if groups > 1:
        parts: list[Any] = np.split(weights["kernel"], groups, axis=-1)
        rows = parts[0].shape[-2] // groups
        weights["kernel"] = np.concatenate(
            [part[..., n * rows : (n + 1) * rows, :] for n, part in enumerate(parts)], axis=-1
        )
    return [weights[name] for name in weights_of(layer)]


def groups_in(layer: Any) -> int:
    """In how many groups a convolution reads its channels."""
    return getattr(layer, "groups", 1) if type(layer) in CONVOLUTIONS else 1


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


def activation_name(activation: Any) -> str:
    """The name of an activation function, or words that say it is not Keras' own."""
    if type(activation) in ACTIVATION_LAYERS:
        return ACTIVATION_LAYERS[type(activation)]
    name = getattr(activation, "__name__", type(activation).__name__)
    # A user's function may bear a name that Keras uses for another.
    if getattr(keras.activations, name, None) is activation:
        return name
    return f"{name} (not Keras' own)"


def width_of(layer: Any) -> str:
    """The setting that counts a layer's units."""
    if type(layer) in EMBEDDINGS:
        return "output_dim"
    return "filters" if type(layer) in (*CONVOLUTIONS, *SEPARABLE) else "units"


def is_operation(layer: Any) -> bool:
    """Whether it is one of Keras' operations, and no layer."""
    return not isinstance(layer, keras.Layer) and type(layer).__module__.startswith("keras.")


def describe(layer: Any) -> str:
    """A layer's name and class, for messages."""
    return f"{layer.name} ({type(layer).__name__})"
