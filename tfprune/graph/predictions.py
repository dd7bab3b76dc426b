"""A model's outputs as numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from tfprune.errors import TfpruneError
from tfprune.graph.batches import fixed_batch, from_zero_state, padded
from tfprune.graph.inputs import packed
from tfprune.graph.precision import HALF
from tfprune.utils.arrays import Array


def outputs_of(model: keras.Model, x: Sequence[Array], *, finite: bool = True) -> list[Array]:
    """A model's outputs as arrays of shape (samples, ...), half precision as float32.

    Parameters
    ----------
    model : keras.Model
    x : sequence of arrays of shape (samples, ...)
        One for each of ``model.inputs``.
    finite : bool
        Whether outputs have to be.

    Raises
    ------
    TfpruneError
        If it cannot, or the outputs are not finite.
    """
    size = fixed_batch(model)
    try:
        with from_zero_state(model):
            outputs = keras.tree.flatten(
                model.predict(packed(model, padded(x, size)), batch_size=size, verbose=0)
            )
    except Exception as error:  # An index outside an Embedding, say: TensorFlow's own kinds.
        lines = [text.strip() for text in str(error).splitlines() if text.strip()]
        line = " ".join(lines[:2])
        raise TfpruneError(f"model {model.name}: it cannot compute the data: {line}") from None
    arrays = [np.asarray(out)[: len(x[0])] for out in outputs]
    arrays = [out.astype(np.float32) if out.dtype.name in HALF else out for out in arrays]
    if finite and not all(np.isfinite(out).all() for out in arrays):
        raise TfpruneError(f"model {model.name}: expected finite outputs, received NaN or infinity")
    return arrays
