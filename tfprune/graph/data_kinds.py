"""Kinds of data that come otherwise than as arrays: files, and data sets of TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfprune.errors import TfpruneError
from tfprune.sample_files.rows import is_table, rows_of_files
from tfprune.utils.arrays import Array

# Samples in a batch of a data set that comes without batches.
BATCH = 32

Shape = tuple[int | None, ...]


def batched(x: Any, shapes: Sequence[Shape]) -> Any:
    """A data set of single samples in batches; anything else as it is."""
    return x.batch(BATCH) if isinstance(x, tf.data.Dataset) and _singles(x, shapes) else x


def _singles(data_set: tf.data.Dataset, shapes: Sequence[Shape]) -> bool:
    """Whether a data set comes without batches."""
    spec = data_set.element_spec
    inputs = tf.nest.flatten(spec[0] if isinstance(spec, tuple) else spec)
    ranks: list[Any] = [getattr(getattr(one, "shape", None), "rank", None) for one in inputs]
    single = [len(shape) for shape in shapes]
    return None not in ranks and sorted(single) == sorted(ranks)


def flat_batches(
    data_set: tf.data.Dataset, inputs: Mapping[str, Shape], size: int
) -> tf.data.Dataset:
    """A data set in batches of a size, each a tuple in the order of the inputs, no labels."""

    def arranged(first: Any, *_: Any) -> tuple[Any, ...]:
        if isinstance(first, Mapping):
            return tuple(first[name] for name in inputs)
        return tuple(first) if isinstance(first, (list, tuple)) else (first,)

    flat = data_set.map(arranged)
    return flat.batch(size) if _singles(data_set, list(inputs.values())) else flat.rebatch(size)


def are_data_sets(x: Any) -> bool:
    """Whether data is a list of data sets of TensorFlow."""
    several = isinstance(x, (list, tuple)) and bool(x)
    return several and all(isinstance(one, tf.data.Dataset) for one in x)


def joined(x: Any) -> Any:
    """Several data sets as one, one behind the other; anything else as it is."""
    if not are_data_sets(x):
        return x
    try:
        return reduce(tf.data.Dataset.concatenate, x)
    except (TypeError, ValueError):
        specs = ", ".join(str(one.element_spec) for one in x[:3])
        raise TfpruneError(
            f"data: expected data sets of samples of one kind, received {specs}"
        ) from None


def is_files(x: Any) -> bool:
    """Whether data is the path of a file, or a list of paths."""
    several = isinstance(x, (list, tuple)) and len(x)
    return all(isinstance(one, (str, Path)) for one in (x if several else [x]))


def read_files(x: Any, shapes: Sequence[Shape]) -> Any:
    """The samples of a file, or of a list of files, left in them; anything else as it is."""
    if not is_files(x):
        return x
    if isinstance(x, (str, Path)):
        if not is_table(x) and Path(x).suffix.lower() != ".npz":
            return mapped_file(x)
        x = [x]
    return rows_of_files([str(path) for path in x], shapes[0] if len(shapes) == 1 else None)


def mapped_file(path: str | Path) -> Array:
    """A .npy file as a memory-mapped array."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TfpruneError(f"data {path}: cannot be read as a .npy file ({error})") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise TfpruneError(f"data {path}: expected a .npy file of one array, received an archive")
    return array
