"""Files whose Dense weights have 4 bits, by ``ai-edge-quantizer``, which is an optional extra.

Everything else is as in ``int8``: weights, activations, input and output of 8 bits.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from tfprune.quiet import quiet

SIGNATURE = "serving_default"


def quantised(data: bytes, samples: Sequence[dict[str, npt.NDArray[Any]]]) -> bytes:
    """Quantises a float32 file: Dense weights to 4 bits a channel, the rest to 8.

    Parameters
    ----------
    data : bytes
        A file as the converter makes it: tensors are known by their names, which must be there.
    samples : sequence of dict of str to array
        Inputs by the names of the signature; they set the scales of activations.

    Raises
    ------
    Exception
        Of many kinds, if the package cannot.
    """
    with quiet(), warnings.catch_warnings():
        # Keeping all tensors, which calibrating needs, is warned of.
        warnings.simplefilter("ignore", UserWarning)
        from ai_edge_quantizer import calibrator, quantizer, recipe_manager
        from ai_edge_quantizer.qtyping import TFLOperationName
        from ai_edge_quantizer.utils import qsv_utils

        recipe = recipe_manager.RecipeManager()
        recipe.add_static_config(".*", TFLOperationName.ALL_SUPPORTED, 8, 8)
        # Channelwise: with blocks LiteRT computes something else where it has no XNNPACK.
        recipe.add_static_config(".*", TFLOperationName.FULLY_CONNECTED, 8, 4)
        # By default ranges are moving averages, which cut off what is rare.
        ranges = calibrator.Calibrator(
            data, num_threads=1, qsv_update_func=qsv_utils.min_max_update
        )
        ranges.calibrate({SIGNATURE: samples}, recipe)
        made = quantizer.Quantizer(data, recipe.get_quantization_recipe()).quantize(
            ranges.get_model_qsvs(), enable_progress_report=False, enable_progress_bar=False
        )
    return bytes(made.quantized_model)
