"""The program of that process: calls TensorFlow's converter and LiteRT.

Both are native code that ends the process on some models, so
:class:`tfprune.utils.child_process.Child` runs
these functions. Arrays are ``0.npy``, ``1.npy``, ... in a folder.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.tflite.int4 import quantised
from tfprune.tflite.interpreter import LiteModel
from tfprune.utils.arrays import Array
from tfprune.utils.console import quiet

with quiet():
    import tensorflow as tf

Converter = Any
Representative = Callable[[], Iterator[dict[str, Array]]]


def _float32(converter: Converter, samples: Representative) -> None:
    pass


def _float16(converter: Converter, samples: Representative) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _dynamic(converter: Converter, samples: Representative) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _int8(converter: Converter, samples: Representative) -> None:
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    _trained_int8(converter, samples)


def _trained_int8(converter: Converter, samples: Representative) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8


def _int16x8(converter: Converter, samples: Representative) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    ]


SETTINGS: dict[str, Callable[[Converter, Representative], None]] = {
    "float32": _float32,
    "float16": _float16,
    "dynamic": _dynamic,
    "int8": _int8,
    "int16x8": _int16x8,
    # Quantised after the conversion.
    "int4": _float32,
    # The ranges are in the graph, from quantisation-aware training.
    "trained int8": _trained_int8,
}


def convert_saved_model(
    *,
    folder: str,
    scheme: str,
    file: str,
    inputs: str,
    names: Sequence[str],
    batch: int,
    compat: bool,
) -> None:
    """Converts a SavedModel to a TFLite file.

    Parameters
    ----------
    folder : str
        Of the SavedModel.
    scheme : str
        A key of ``SETTINGS``.
    file : str
        To write.
    inputs : str
        Folder of samples, an array of shape (samples, ...) for each input.
    names : sequence of str
        The inputs' names in the signature, in the order of the arrays.
    batch : int
        How often a sample stands in a batch for calibration.
    compat : bool
        Whether weights of Dense layers have one scale in place of one for each unit.

    Raises
    ------
    Exception
        Of many kinds, if TensorFlow cannot; the message is its first line.
    """
    arrays = read_arrays(inputs)

    def representative() -> Iterator[dict[str, Array]]:
        for sample in zip(*arrays, strict=True):
            yield {
                name: np.repeat(data[None], batch, axis=0)
                for name, data in zip(names, sample, strict=True)
            }

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            # There is no public name for it; the old runtime has no FULLY_CONNECTED of version 12.
            converter._experimental_disable_per_channel_quantization_for_dense_layers = compat
            SETTINGS[scheme](converter, representative)
            content = bytes(converter.convert())
            if scheme == "int4":
                content = quantised(content, list(representative()))
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RuntimeError(reason) from error
    Path(file).write_bytes(content)


def predict(
    *, file: str, inputs: str, outputs: str, names: Sequence[str], delegate: bool = True
) -> list[float]:
    """Runs a TFLite file on samples.

    Parameters
    ----------
    file : str
    inputs, outputs : str
        Folders of arrays of shape (samples, ...); that of the outputs is made.
    names : sequence of str
        See :class:`tfprune.tflite.interpreter.LiteModel`.
    delegate : bool
        Whether XNNPACK may compute.

    Returns
    -------
    list of float
        The quantisation step of each output, 0 where it is float.
    """
    lite = LiteModel(Path(file).read_bytes(), names, delegate)
    write_arrays(outputs, lite.predict(read_arrays(inputs)))
    return lite.steps


def write_arrays(folder: str | Path, arrays: Sequence[Array]) -> None:
    """Writes arrays into a new folder."""
    Path(folder).mkdir()
    for place, data in enumerate(arrays):
        np.save(Path(folder) / f"{place}.npy", data, allow_pickle=False)


def read_arrays(folder: str | Path) -> list[Array]:
    """The arrays of a folder, memory-mapped."""
    count = len(list(Path(folder).iterdir()))
    paths = [Path(folder) / f"{place}.npy" for place in range(count)]
    return [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths]
