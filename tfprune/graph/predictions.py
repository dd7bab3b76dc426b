"""A model's outputs as numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from tfprune.errors import TfpruneError
from tfprune.graph.batches import fixed_batch, from_zero_state, many_models, padded
from tfprune.graph.clone import walk
from tfprune.graph.forward import batch_for
from tfprune.graph.inputs import packed
from tfprune.graph.precision import HALF
from tfprune.utils.arrays import Array
from tfprune.utils.streamed import concatenated, parallel_pieces

# Samples of a batch, by Keras' default.
PREDICTED = 32
# What loops over time or steps, itself or inside.
LOOPS = (kl.RNN, kl.Bidirectional, kl.Wrapper)
# Batches up to which a model computes them layer by layer: to trace it takes longer.
FEW = 8


def output_names(model: keras.Model) -> list[str]:
    """What each output of a model is called, each name once.

    The keys where outputs are a dict, else the names of the layers that make them; what is called
    as one before it has a number behind, ``NAME_2``.

    Examples
    --------
    >>> data = keras.Input((3,))
    >>> made = keras.layers.Dense(2, name="kind")(data)
    >>> output_names(keras.Model(data, [made, made])), output_names(keras.Model(data, {"a": made}))
    (['kind', 'kind_2'], ['a'])
    """
    structure = getattr(model, "output", None)
    if isinstance(structure, dict):
        return [str(name) for name in sorted(structure)]
    # A Sequential model has no names of outputs.
    known = getattr(model, "output_names", None) or [model.layers[-1].name]
    names: list[str] = []
    for name in known:
        number = known[: len(names)].count(name)
        names.append(f"{name}_{number + 1}" if number else name)
    return names


@many_models()
def outputs_of(model: keras.Model, x: Sequence[Array], *, finite: bool = True) -> list[Array]:
    """A model's outputs as arrays of shape (samples, ...), half precision as float32.

    Parameters
    ----------
    model : keras.Model
    x : sequence of arrays of shape (samples, ...)
        One for each of ``model.inputs``. What is streamed is read part by part; outputs are held.
    finite : bool
        Whether outputs have to be.

    Raises
    ------
    TfpruneError
        If it cannot, or the outputs are not finite.
    """
    size = fixed_batch(model)
    step = size or batch_for(model, PREDICTED)
    at_once = len(x[0]) <= FEW * step and _can_be_called(model)

    def computed(part: Sequence[Array]) -> Any:
        if not at_once:
            return model.predict(packed(model, part), batch_size=step, verbose=0)
        starts = range(0, len(part[0]), step)
        batches = ([data[start : start + step] for data in part] for start in starts)
        outputs = [model(packed(model, batch), training=False) for batch in batches]
        arrays = (
            [keras.ops.convert_to_numpy(out) for out in keras.tree.flatten(one)] for one in outputs
        )
        return [np.concatenate(one) for one in zip(*arrays, strict=True)]

    try:
        parts = []
        with from_zero_state(model):
            # In the batches that one call of predict would take.
            for part in parallel_pieces(x, size or PREDICTED):
                parts.append(keras.tree.flatten(computed(padded(part, size))))
    except TfpruneError:
        raise
    except Exception as error:  # An index outside an Embedding, say: TensorFlow's own kinds.
        lines = [text.strip() for text in str(error).splitlines() if text.strip()]
        line = " ".join(lines[:2])
        raise TfpruneError(f"model {model.name}: it cannot compute the data: {line}") from None
    arrays = [concatenated(list(map(np.asarray, one))) for one in zip(*parts, strict=True)]
    arrays = [out[: len(x[0])] for out in arrays]
    arrays = [out.astype(np.float32) if out.dtype.name in HALF else out for out in arrays]
    if finite and not all(np.isfinite(out).all() for out in arrays):
        raise TfpruneError(f"model {model.name}: expected finite outputs, received NaN or infinity")
    return arrays


def _can_be_called(model: keras.Model) -> bool:
    """Whether a model computes as fast, and the same, without being traced for it.

    Loops over time are slow then, and what is the user's own may do otherwise in ``predict``.
    """
    own = any(
        getattr(type(model), name) is not getattr(keras.Model, name)
        for name in ("predict", "predict_step")
    )
    return not own and all(
        type(layer).__module__.startswith("keras.") and not isinstance(layer, LOOPS)
        for _, layer in walk(model, wrappers=False)
    )
