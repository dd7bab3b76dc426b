"""Quantisation-aware training of a model to an int8 file, by tensorflow-model-optimization."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.errors import TfpruneError
from tfprune.graph.precision import in_float32
from tfprune.tflite.conversion_process import MODEL, convert_folder, start, work_folder
from tfprune.tflite.converter import REPRESENTATIVE, signature_names
from tfprune.tflite.minify import minify
from tfprune.tflite.pooling import with_means
from tfprune.tflite.verification import verify
from tfprune.tfmot.bridge import to_tf_keras
from tfprune.tfmot.distillation import Distillation, Sides, as_inputs, tools
from tfprune.training.records import TrainingHistory
from tfprune.utils.arrays import Array
from tfprune.utils.child_process import ChildError
from tfprune.utils.console import quiet

RATE = 5e-4
# Enough for most models, for advice.
EPOCHS = 3
# What tfmot knows how to quantise where it stands alone, by tf_keras' names.
ACTIVATIONS = ("linear", "relu", "sigmoid", "tanh", "softmax", "swish", "gelu")
# What tfmot calls its copy of a layer.
PREFIX = "quant_"


def quantisation_aware(
    model: keras.Model,
    targets: Sequence[Array],
    x: Sequence[Array],
    *,
    epochs: int,
    sparse: bool = False,
    clustered: bool = False,
    batch: int | None = 1,
    seed: int = 0,
    progress: bool = False,
    held_out: Sides | None = None,
) -> tuple[bytes, TrainingHistory]:
    """An int8 file, with int8 input and output, of a model that was trained for it.

    Trained without labels, the rounding of weights and activations simulated: see
    :class:`tfprune.tfmot.distillation.Distillation`. The ranges of the activations start from what
    they are on the samples, as tfmot's own start takes thousands of steps to be forgotten.

    Parameters
    ----------
    model : keras.Model
        A Sequential or Functional model.
    targets : sequence of arrays of shape (samples, ...)
        What the original model makes of ``x``: see :func:`tfprune.graph.predictions.outputs_of`.
    x : sequence of arrays of shape (samples, ...)
        One for each of ``model.inputs``.
    epochs : int
    sparse, clustered : bool
        Whether zeros stay zero, and weights that are shared stay shared.
    batch : int or None
        Fixed batch size of the file; None leaves it open.
    seed : int
        The global seeds of Python, numpy and TensorFlow are set to it.
    progress : bool
        Whether to draw a progress bar on stderr.
    held_out : pair of sequences of arrays, optional
        Other samples and targets; by default a part of these is held out.

    Returns
    -------
    content : bytes
    history : TrainingHistory
        The loss on held-out samples with the rounding simulated. The file is that of the best
        state, the start among them.

    Raises
    ------
    TfpruneError
        If the model cannot be carried to tf_keras, tensorflow-model-optimization cannot quantise
        it, the training fails, or the file disagrees with what was trained.

    References
    ----------
    Jacob et al. (2018), "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference".
    """
    start()
    model = in_float32(model)
    check_quantisable(model, x)
    x = as_inputs(model, x)
    means = with_means(model)
    if means is not None and quantisable(means, x):
        model = means
    distillation = Distillation(x, targets, epochs, seed=seed, progress=progress, held_out=held_out)
    samples = [data[:REPRESENTATIVE] for data in x]
    names = signature_names(model)
    with tools() as (tf_keras, tfmot):
        tf_keras.utils.set_random_seed(seed)
        # The file holds the names of tfmot's layers, which are counted through the whole process.
        tf_keras.backend.reset_uids()
        tfk_model = to_tf_keras(model, x)
        network = _quantised(tfk_model, _scheme(tfmot, sparse, clustered), tfmot)
        _set_ranges(network, tfk_model, samples, tf_keras)
        _set_other_ranges(network, samples)
        history = distillation.train(network, "qat", RATE, tf_keras)
        if clustered:
            network = tfmot.experimental.combine.strip_clustering_cqat(network)
        content = _converted(network, names, samples, batch, tf_keras)
        # Not with the model: the training may have come far from a model that was worse.
        verify(
            content, "int8", samples, tf.nest.flatten(network.predict(samples, verbose=0)), names
        )
    return content, history


def check_quantisable(model: keras.Model, x: Sequence[Array]) -> None:
    """Raises before any training for models that :func:`quantisation_aware` cannot handle.

    Raises
    ------
    TfpruneError
        If an input takes whole numbers, the model cannot be carried to tf_keras, or
        tensorflow-model-optimization cannot quantise it.
    """
    for name, tensor in zip(signature_names(model), model.inputs, strict=True):
        if "float" not in tensor.dtype:
            raise TfpruneError(f"--qat: input {name} takes whole numbers; leave --qat out")
    with tools() as (_, tfmot):
        _quantised(to_tf_keras(model, x), _scheme(tfmot, False, False), tfmot)


def quantisable(model: keras.Model, x: Sequence[Array]) -> bool:
    """Whether :func:`check_quantisable` lets a model pass, so that --qat may be advised."""
    try:
        check_quantisable(model, x)
    except TfpruneError:
        return False
    return True


def _scheme(tfmot: Any, sparse: bool, clustered: bool) -> Any:
    combine = tfmot.experimental.combine
    if clustered:
        return combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=sparse)
    if sparse:
        return combine.Default8BitPrunePreserveQuantizeScheme()
    return tfmot.quantization.keras.default_8bit.Default8BitQuantizeScheme()


def _quantised(tfk_model: Any, scheme: Any, tfmot: Any) -> Any:
    """The tf_keras model with int8 rounding in its layers."""
    for layer in tfk_model.layers:
        if type(layer).__name__ == "Activation" and layer.activation.__name__ not in ACTIVATIONS:
            name = layer.name.removesuffix("_activation")
            raise _refused(f"activation {layer.activation.__name__} of layer {name}")
    quantization = tfmot.quantization.keras
    try:
        return quantization.quantize_apply(quantization.quantize_annotate_model(tfk_model), scheme)
    except (RuntimeError, ValueError) as error:
        known = re.match(r"Layer (.+):<class '[\w.]+\.(\w+)'> is not supported", str(error))
        what = f"layer {known[1]} ({known[2]})" if known else str(error).splitlines()[0]
        raise _refused(what) from error


def _refused(what: str) -> TfpruneError:
    return TfpruneError(
        f"--qat: tensorflow-model-optimization cannot quantise {what}; leave --qat out"
    )


def _set_ranges(network: Any, tfk_model: Any, samples: Sequence[Array], tf_keras: Any) -> None:
    """Starts the ranges of activations from those of the model that is not quantised."""
    layer_ranges = {}
    for layer in network.layers:
        ranges = {
            weight.name.rpartition("_")[2].partition(":")[0]: weight
            for weight in layer.weights
            if re.search(r"(activation|output)_(min|max)(:0)?$", weight.name)
        }
        if ranges:
            layer_ranges[layer.name.removeprefix(PREFIX)] = ranges
    tensors = {name: _outputs(tfk_model.get_layer(name)) for name in layer_ranges}
    values_of = tf_keras.Model(tfk_model.inputs, tensors).predict(list(samples), verbose=0)
    for name, ranges in layer_ranges.items():
        values = np.concatenate([np.ravel(value) for value in tf.nest.flatten(values_of[name])])
        ranges["min"].assign(min(0.0, float(values.min())))
        ranges["max"].assign(max(0.0, float(values.max())))


def _set_other_ranges(network: Any, samples: Sequence[Array]) -> None:
    """Starts the ranges of inputs and kernels, which tfmot measures in training alone."""
    before = [variable.numpy() for variable in network.variables]
    network(list(samples), training=True)
    for variable, value in zip(network.variables, before, strict=True):
        if not re.search(r"(kernel|quantize_layer)_(min|max)(:0)?$", variable.name):
            variable.assign(value)


def _outputs(layer: Any) -> list[Any]:
    """A layer's output tensor of each of its calls."""
    outputs: list[Any] = []
    with contextlib.suppress(ValueError):
        while True:
            outputs.append(layer.get_output_at(len(outputs)))
    return outputs


def _converted(
    network: Any, names: Sequence[str], samples: Sequence[Array], batch: int | None, tf_keras: Any
) -> bytes:
    specs = [
        tf.TensorSpec((batch, *data.shape[1:]), tf.float32, name=name)
        for name, data in zip(names, samples, strict=True)
    ]

    def serve(*inputs: Any) -> dict[str, Any]:
        outputs = tf.nest.flatten(network(list(inputs), training=False))
        return {f"output_{number}": output for number, output in enumerate(outputs)}

    with work_folder(samples) as folder:
        with quiet():
            archive = tf_keras.export.ExportArchive()
            archive.track(network)
            archive.add_endpoint("serving_default", serve, input_signature=specs)
            archive.write_out(str(folder / MODEL))
        try:
            content = convert_folder(folder, "trained int8", names, batch=batch)
        except ChildError as error:
            raise TfpruneError(f"--qat: no int8 file can be made of the model: {error}") from error
    _check_whole(content)
    return minify(content)


def _check_whole(content: bytes) -> None:
    """Raises if operators stayed in floats for lack of ranges; the converter says nothing."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        details = Interpreter(model_content=content).get_tensor_details()
    floats = [detail["name"] for detail in details if detail["dtype"] == np.float32]
    layers = {part for name in floats for part in re.findall(rf"{PREFIX}([^/;]+)", name)}
    if floats:
        raise _refused(f"all of the model: floats stay in {', '.join(sorted(layers)) or floats[0]}")
