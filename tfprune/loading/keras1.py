"""Renames the layers and weights of Keras 1 files as Keras 2 and later have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tfprune.errors import TfpruneError

Weights = list[npt.NDArray[Any]]

CLASSES = {
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "Deconvolution2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
}
ARGUMENTS = {
    "W_constraint": "kernel_constraint",
    "W_regularizer": "kernel_regularizer",
    "U_regularizer": "recurrent_regularizer",
    "b_constraint": "bias_constraint",
    "b_regularizer": "bias_regularizer",
    "atrous_rate": "dilation_rate",
    "beta_init": "beta_initializer",
    "bias": "use_bias",
    "border_mode": "padding",
    "dim_ordering": "data_format",
    "dropout_U": "recurrent_dropout",
    "dropout_W": "dropout",
    "gamma_init": "gamma_initializer",
    "init": "kernel_initializer",
    "inner_activation": "recurrent_activation",
    "inner_init": "recurrent_initializer",
    "nb_filter": "filters",
    "p": "rate",
    "pool_length": "pool_size",
    "sigma": "stddev",
    "subsample": "strides",
    "subsample_length": "strides",
}
# Names that mean this in some classes alone.
BY_CLASS = {
    "Dense": {"output_dim": "units"},
    "SimpleRNN": {"output_dim": "units"},
    "GRU": {"output_dim": "units"},
    "LSTM": {"output_dim": "units"},
    "Embedding": {"init": "embeddings_initializer", "W_regularizer": "embeddings_regularizer",
                  "W_constraint": "embeddings_constraint"},
    "MaxPooling1D": {"stride": "strides"},
    "AveragePooling1D": {"stride": "strides"},
    "PReLU": {"init": "alpha_initializer"},
    "UpSampling1D": {"length": "size"},
}  # fmt: skip
# Said of how to compute or to train; nothing of it is needed to compute the same.
SPARE = ("consume_less", "forget_bias_init", "input_dim", "weights")
KERNEL_SIZE = (("nb_row", "nb_col"), ("kernel_dim1", "kernel_dim2", "kernel_dim3"))
INITIALIZERS = {
    "gaussian": "random_normal",
    "normal": "random_normal",
    "one": "ones",
    "uniform": "random_uniform",
    "zero": "zeros",
}
DATA_FORMATS = {"default": "channels_last", "tf": "channels_last", "th": "channels_first"}
MERGES = {
    "ave": "Average",
    "concat": "Concatenate",
    "cos": "Dot",
    "dot": "Dot",
    "max": "Maximum",
    "mul": "Multiply",
    "sum": "Add",
}


def renamed(class_name: str, config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A layer's class and arguments under the names of Keras 2.

    Parameters
    ----------
    class_name : str
    config : dict
        Of one layer; what has its name already is left as it is.

    Returns
    -------
    class_name : str
    config : dict

    Raises
    ------
    TfpruneError
        If the layer has no counterpart.
    """
    if class_name == "Merge":
        return _merge(config)
    name = CLASSES.get(class_name, class_name)
    own = BY_CLASS.get(name, {})
    result: dict[str, Any] = {}
    for key, value in config.items():
        if key in SPARE and not (name == "Embedding" and key == "input_dim"):
            continue
        result[own.get(key, ARGUMENTS.get(key, key))] = value
    for keys in KERNEL_SIZE:
        if all(key in result for key in keys):
            result["kernel_size"] = [result.pop(key) for key in keys]
    if "filter_length" in result:
        result["kernel_size"] = [result.pop("filter_length")]
    if isinstance(result.get("data_format"), str):
        result["data_format"] = DATA_FORMATS.get(result["data_format"], result["data_format"])
    for key, value in result.items():
        if key.endswith("_initializer") and isinstance(value, str):
            result[key] = INITIALIZERS.get(value, value)
        elif key.endswith(("_regularizer", "_constraint")) and isinstance(value, dict):
            result[key] = _by_name(value)
    if name == "BatchNormalization" and result.pop("mode", 0) not in (0, 2):
        raise TfpruneError(
            "BatchNormalization of mode 1 (per sample) has no counterpart in Keras 3"
        )
    if name == "Embedding":
        result.pop("dropout", None)
    return name, result


def _by_name(config: dict[str, Any]) -> Any:
    """``{"name": "WeightRegularizer", "l2": 0.01}`` with its class and arguments apart."""
    if "class_name" in config or "name" not in config:
        return config
    arguments = {key: value for key, value in config.items() if key != "name"}
    if "Regularizer" in str(config["name"]):
        arguments = {key: float(arguments.get(key, 0)) for key in ("l1", "l2")}
        return {"class_name": "L1L2", "config": arguments}
    if "m" in arguments:
        arguments["max_value"] = arguments.pop("m")
    return {"class_name": config["name"], "config": arguments}


def _merge(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    mode = config.get("mode")
    if config.get("layers"):
        raise TfpruneError(
            "a Merge of branches inside a Sequential has no counterpart in Keras 3; "
            "build the branches as a functional model"
        )
    if not isinstance(mode, str) or mode not in MERGES:
        raise TfpruneError(f"Merge of mode {mode!r} has no counterpart in Keras 3")
    result = {"name": config.get("name")}
    if mode == "concat":
        result["axis"] = config.get("concat_axis", -1)
    elif mode in ("dot", "cos"):
        result |= {"axes": config.get("dot_axes", -1), "normalize": mode == "cos"}
    return MERGES[mode], result


def gates_joined(class_name: str, weights: Weights) -> Weights:
    """Weights of a recurrent layer with one array for each gate, as kernel, recurrent and bias."""
    if class_name == "LSTM" and len(weights) == 12:
        order: tuple[int, ...] = (
            0,
            2,
            1,
            3,
        )  # Input, cell, forget, output in Keras 1; then input, forget, cell ...
    elif class_name == "GRU" and len(weights) == 9:
        order = (0, 1, 2)
    else:
        return weights
    return [
        np.concatenate([weights[3 * gate + kind] for gate in order], axis=-1) for kind in range(3)
    ]


def kernel_in_order(kernel: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """A convolution kernel of Keras 1 with its axes in the order of Keras 2.

    ``(filters, channels, rows, columns)`` becomes ``(rows, columns, channels, filters)``; 1-D
    kernels had an axis of length 1 beside their own. Others are returned as they are.
    """
    if kernel.shape == shape:
        return kernel
    if kernel.ndim == 4 and len(shape) == 3:
        if kernel.shape[1] == 1 and kernel.shape[:1] + kernel.shape[2:] == shape:
            return kernel[:, 0]
        turned = kernel.transpose(2, 3, 1, 0)
        if turned.shape[1] == 1 and turned.shape[:1] + turned.shape[2:] == shape:
            return turned[:, 0]
    if kernel.ndim == len(shape) >= 4:
        turned = kernel.transpose(*range(2, kernel.ndim), 1, 0)
        if turned.shape == shape:
            return turned
    return kernel
