"""Whether data fits a model: shapes, numbers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfprune.errors import TfpruneError


def input_shape(model: keras.Model) -> tuple[int | None, ...]:
    """The shape of one sample as the model takes it.

    Raises
    ------
    TfpruneError
        If the model has several inputs.
    """
    if len(model.inputs) != 1:
        names = ", ".join(tensor.name for tensor in model.inputs)
        raise TfpruneError(
            f"model {model.name}: expected one input, it has {len(model.inputs)} ({names}); "
            "models with several inputs are not handled yet"
        )
    return tuple(model.inputs[0].shape[1:])


def fits(sample: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    """Whether a sample's shape is what is wanted; None there means any size."""
    return len(sample) == len(wanted) and all(
        want in (None, size) for size, want in zip(sample, wanted, strict=True)
    )


def check_inputs(model: keras.Model, x: npt.ArrayLike) -> npt.NDArray[Any]:
    """Returns data as an array of the model's input type.

    Raises
    ------
    TfpruneError
        If it is empty, of another shape than the model takes, not numbers, NaN or infinite.
    """
    try:
        data = np.asarray(x)
    except ValueError as error:
        raise TfpruneError(
            f"data: expected an array, received {type(x).__name__}: {error}"
        ) from None
    wanted = input_shape(model)
    if not np.issubdtype(data.dtype, np.number) and data.dtype != bool:
        raise TfpruneError(f"data: expected numbers, received an array of {data.dtype}")
    if not fits(data.shape[1:], wanted):
        raise TfpruneError(
            f"data: expected samples of shape {wanted} as model {model.name} takes them, "
            f"received {data.shape[1:]}"
        )
    if not len(data):
        raise TfpruneError("data: expected at least one sample, received none")
    wanted_type = model.inputs[0].dtype
    with np.errstate(over="ignore"):
        data = data.astype(wanted_type, copy=False)
    # Looked at as the model takes it: a large float64 may be no float32.
    if np.issubdtype(data.dtype, np.floating) and not np.isfinite(data).all():
        raise TfpruneError(
            f"data: expected finite numbers, received NaN or infinity (as {wanted_type})"
        )
    return data
