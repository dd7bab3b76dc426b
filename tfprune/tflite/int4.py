"""Quantises Dense weights to 4 bits, by the optional ``ai-edge-quantizer``.

Everything else is as in ``int8``: weights, activations, input and output of 8 bits.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from tfprune.tflite.interpreter import LiteModel
from tfprune.utils.arrays import Array
from tfprune.utils.console import quiet

SIGNATURE = "serving_default"
# Scales from the largest weight of a channel, or such that large weights are cut off: with 15
# levels now the one is better and now the other.
ALGORITHMS = ("MIN_MAX_UNIFORM_QUANT", "MSE")


def quantised(data: bytes, samples: Sequence[dict[str, Array]]) -> bytes:
    """Quantises a float32 file: Dense weights to 4 bits a channel, the rest to 8.

    Parameters
    ----------
    data : bytes
        A file as the converter makes it: tensors are known by their names, which must be there.
    samples : sequence of dict of str to array of shape (batch, ...)
        Inputs by the names of the signature, the same sample throughout a batch. They set the
        scales of activations, and the file nearest to the given one on them is the one returned.

    Raises
    ------
    Exception
        Of many kinds, if the package cannot.
    """
    names = list(samples[0])
    x = [np.stack([sample[name][0] for sample in samples]) for name in names]
    expected = LiteModel(data, names).predict(x)
    files = [_quantised(data, samples, algorithm) for algorithm in ALGORITHMS]
    return min(files, key=lambda file: _distance(LiteModel(file, names).predict(x), expected))


def _distance(received: Sequence[Array], expected: Sequence[Array]) -> float:
    """Mean squares of the differences, each output's in terms of its variance."""
    return sum(
        float(np.mean((ours - theirs) ** 2) / max(np.var(theirs), 1e-12))
        for ours, theirs in zip(received, expected, strict=True)
    )


def _quantised(data: bytes, samples: Sequence[dict[str, Array]], algorithm: str) -> bytes:
    with quiet(), warnings.catch_warnings():
        # Keeping all tensors, which calibrating needs, is warned of.
        warnings.simplefilter("ignore", UserWarning)
        from ai_edge_quantizer import calibrator, quantizer, recipe_manager
        from ai_edge_quantizer.algorithm_manager import AlgorithmName
        from ai_edge_quantizer.qtyping import TFLOperationName
        from ai_edge_quantizer.utils import qsv_utils

        recipe = recipe_manager.RecipeManager()
        recipe.add_static_config(".*", TFLOperationName.ALL_SUPPORTED, 8, 8)
        # Channelwise: with blocks LiteRT computes something else where it has no XNNPACK.
        recipe.add_static_config(
            ".*", TFLOperationName.FULLY_CONNECTED, 8, 4, algorithm_key=AlgorithmName[algorithm]
        )
        # By default ranges are moving averages, which cut off what is rare.
        ranges = calibrator.Calibrator(
            data, num_threads=1, qsv_update_func=qsv_utils.min_max_update
        )
        ranges.calibrate({SIGNATURE: samples}, recipe)
        result = quantizer.Quantizer(data, recipe.get_quantization_recipe()).quantize(
            ranges.get_model_qsvs(), enable_progress_report=False, enable_progress_bar=False
        )
    return bytes(result.quantized_model)
