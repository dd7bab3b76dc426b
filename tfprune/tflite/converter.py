"""Converts Keras models to TFLite files and compares each with Keras before it is written.

Schemes: ``float32``; ``float16`` (weights of 16 bits); ``dynamic`` (weights of 8 bits, computed
from float inputs); ``int8`` (weights, activations, input and output of 8 bits); ``int16x8``
(activations of 16 bits, weights of 8); ``int4`` (as int8, Dense weights of 4 bits).
"""

from __future__ import annotations

import keyword
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfprune.errors import TfpruneError
from tfprune.graph.batches import check_stateless
from tfprune.graph.inputs import collected, input_shapes
from tfprune.graph.precision import in_float32
from tfprune.graph.predictions import outputs_of
from tfprune.output_folder.staging import writing
from tfprune.tflite.compat import check_compat
from tfprune.tflite.conversion_process import MODEL, convert_folder, start, work_folder
from tfprune.tflite.minify import minify
from tfprune.tflite.pooling import with_means
from tfprune.tflite.saved_model import (
    collecting_loops,
    recurrent_layers,
    unrolled,
    write_saved_model,
)
from tfprune.tflite.schemes import DEFAULT_SCHEMES, SCHEMES, check_batch, check_schemes
from tfprune.tflite.verification import compare
from tfprune.utils.arrays import Array
from tfprune.utils.child_process import ChildError
from tfprune.utils.console import meter

# Samples whose ranges set the scales of quantised activations.
REPRESENTATIVE = 500


def convert(
    model: keras.Model,
    schemes: Sequence[str],
    representative: Sequence[Array],
    batch: int | None = 1,
    compat: bool = False,
) -> Iterator[tuple[str, bytes]]:
    """Converts a model, scheme by scheme.

    Parameters
    ----------
    model : keras.Model
        One of half precision is converted, and compared, as its copy in float32.
    schemes : sequence of str
    representative : sequence of arrays of shape (samples, ...)
        One for each of ``model.inputs``. Sets the scales of quantised activations (at most 500
        samples are used), and is what every file is compared on with Keras; an axis that the
        model leaves open has its size in the file.
    batch : int or None
        Fixed batch size; None leaves it open, at the cost of a few operators.
    compat : bool
        Whether tflite-runtime 2.14 is to run the files: weights of Dense layers then have one
        scale in place of one for each unit.

    Yields
    ------
    (scheme, bytes)

    Raises
    ------
    TfpruneError
        If the converter refuses the model, a file disagrees with Keras, or with ``compat`` has
        operators that the runtime has not.
    """
    for scheme, result in convert_each(model, schemes, representative, batch, compat):
        if isinstance(result, TfpruneError):
            raise result
        yield scheme, result


def convert_each(
    model: keras.Model,
    schemes: Sequence[str],
    representative: Sequence[Array],
    batch: int | None = 1,
    compat: bool = False,
) -> Iterator[tuple[str, bytes | TfpruneError]]:
    """Converts a model as :func:`convert` does, but goes on with the others if a scheme fails.

    Yields
    ------
    (scheme, bytes or TfpruneError)
        In the order of the schemes; the error in place of a file that cannot be made or is wrong.
    """
    left = list(schemes)
    try:
        for scheme, result in _each(model, schemes, representative, batch, compat):
            left.remove(scheme)
            yield scheme, result
    except TfpruneError as error:  # Something that all schemes need, such as finite outputs.
        for scheme in left:
            yield scheme, error


def _each(
    model: keras.Model,
    schemes: Sequence[str],
    representative: Sequence[Array],
    batch: int | None,
    compat: bool,
) -> Iterator[tuple[str, bytes | TfpruneError]]:
    """As :func:`convert_each`, but raises where something fails that all schemes need."""
    check_batch(batch)
    check_stateless(model)
    start()
    model = in_float32(model)
    samples = [
        np.asarray(data[:REPRESENTATIVE]).astype(tensor.dtype)
        for data, tensor in zip(representative, model.inputs, strict=True)
    ]
    names = signature_names(model)
    specs = [
        # An axis without a size in the model gets that of the samples.
        keras.InputSpec(shape=(batch, *data.shape[1:]), dtype=tensor.dtype, name=name)
        for name, tensor, data in zip(names, model.inputs, samples, strict=True)
    ]
    with ExitStack() as stack:

        @cache
        def saved(network: keras.Model) -> tuple[Path, list[str]]:
            folder = stack.enter_context(work_folder(samples))
            return folder, collecting_loops(write_saved_model(network, specs, folder / MODEL))

        @cache
        def without_loops(network: keras.Model, loops: tuple[str, ...]) -> Path:
            folder = stack.enter_context(work_folder(samples))
            _write_unrolled(network, specs, folder, loops)
            return folder

        def made(network: keras.Model, scheme: str) -> tuple[bytes, float]:
            """A file, and how far its outputs are from Keras'."""
            folder, loops = saved(network)
            # TensorFlow's calibration crashes on loops that collect each step's outputs.
            if loops and SCHEMES[scheme].from_samples:
                folder = without_loops(network, tuple(loops))
            try:
                content = convert_folder(folder, scheme, names, batch=batch, compat=compat)
            except ChildError as error:
                is_integer = any(data.dtype.kind in "iu" for data in samples)
                # TensorFlow needs their range, but does not measure it.
                fails = "TensorFlow fails on inputs of whole numbers"
                reason = fails if scheme == "int16x8" and is_integer else error
                raise TfpruneError(
                    f"model {model.name}: no {scheme} file can be made of it: {reason}"
                ) from None
            content = minify(content)
            if compat:
                check_compat(content, f"the {scheme} file of {model.name}")
            return content, compare(folder, content, scheme, expected, names)

        saved(model)
        expected = outputs_of(model, samples)
        means = with_means(model) if any(SCHEMES[one].coarse for one in schemes) else None
        for scheme in schemes:
            networks = [model, means] if means and SCHEMES[scheme].coarse else [model]
            files, failures = [], []
            for network in networks:
                try:
                    files.append(made(network, scheme))
                except TfpruneError as error:
                    failures.append(error)
            yield scheme, min(files, key=itemgetter(1))[0] if files else failures[0]


def signature_names(model: keras.Model) -> list[str]:
    """The inputs' names in the model's files, in the order of ``model.inputs``.

    Their own names; ``input_0`` and so on if TensorFlow cannot take one of them for an argument.
    """
    names = list(input_shapes(model))
    plain = all(
        re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]*", name)
        and not keyword.iskeyword(name)
        and name != "self"
        for name in names
    )
    if plain and len({name.lower() for name in names}) == len(names):
        return names
    return [f"input_{number}" for number in range(len(names))]


def _write_unrolled(
    model: keras.Model, specs: Sequence[keras.InputSpec], folder: Path, loops: Sequence[str]
) -> None:
    """Writes the SavedModel whose recurrent layers have a copy of their cell for each step."""
    layers = recurrent_layers(model)
    kind = "recurrent layers" if layers else "loops that collect values"
    refusal = (
        f"model {model.name}: no file quantised from samples can be made of {kind} "
        f"({', '.join(layers or loops)}), as TensorFlow crashes on them"
    )
    if not layers:
        raise TfpruneError(refusal)
    # The last axis is that of features, where there are more.
    steps = max(size for spec in specs for size in spec.shape[1:-1] or spec.shape[1:] or (1,))
    try:
        with unrolled(model, steps):
            left = collecting_loops(write_saved_model(model, specs, folder / MODEL))
    except TfpruneError as error:
        raise TfpruneError(f"{refusal}, and unrolled: {error}") from None
    if left:
        raise TfpruneError(f"{refusal}; unrolled there are still {', '.join(left)}")


def export(
    model: keras.Model,
    directory: str | os.PathLike[str],
    schemes: Sequence[str] = DEFAULT_SCHEMES,
    representative: Any = None,
    *,
    name: str | None = None,
    batch: int | None = 1,
    compat: bool = False,
    progress: bool = False,
) -> dict[str, Path]:
    """Writes ``NAME_SCHEME.tflite`` files, each run in LiteRT and compared with Keras first.

    Parameters
    ----------
    model : keras.Model
    directory : path
        Made if it is not there. Files in it are replaced only once all are right.
    schemes : sequence of str
        Some of float32, float16, dynamic, int8, int16x8, int4 (which needs ai-edge-quantizer).
    representative : array, list or dict of arrays, path of a .npy, tf.data.Dataset or PyDataset
        A few hundred samples as the model takes them, several inputs in the order of
        ``model.inputs`` or by their names: the files are compared on them, and they set the
        scales of quantised activations. Of a file or data set the first 1,000 are read.
    name : str, optional
        The model's own by default.
    batch : int or None
        Fixed batch size; None leaves it open.
    compat : bool
        Whether tflite-runtime 2.14 is to run the files.
    progress : bool
        Whether to draw a progress bar on stderr.

    Returns
    -------
    dict of str to Path
        Scheme -> file.

    Raises
    ------
    TfpruneError
        If an argument is not as above, the converter refuses the model, or a file disagrees
        with Keras or, with ``compat``, the runtime.

    Examples
    --------
    >>> import tempfile
    >>> import keras
    >>> import numpy as np
    >>> import tfprune
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="net")
    >>> x = np.random.default_rng(0).normal(size=(100, 4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = tfprune.export(model, folder, ["float32", "int8"], representative=x)
    ...     [(path.name, path.stat().st_size < 5000) for path in files.values()]
    [('net_float32.tflite', True), ('net_int8.tflite', True)]
    """
    names = check_schemes(schemes)
    if representative is None:
        raise TfpruneError(
            "representative: expected samples to compare the files on, received none"
        )
    samples = collected(model, representative)
    folder = Path(directory)
    files = {scheme: f"{name or model.name}_{scheme}.tflite" for scheme in names}
    with writing(folder, "output", list(files.values())) as output:
        contents, failures = {}, {}
        with meter("converting", len(names), progress, "file") as bar:
            for scheme, data in _each(model, names, samples, batch, compat):
                if isinstance(data, TfpruneError):
                    failures[scheme] = data
                else:
                    contents[files[scheme]] = data
                bar.update()
        if failures:
            raise TfpruneError(_refusal(names, failures))
        try:
            output.replace(contents)
        except OSError as error:
            raise TfpruneError(f"output {folder}: cannot be written ({error.strerror})") from None
    return {scheme: folder / file for scheme, file in files.items()}


def _refusal(schemes: Sequence[str], failures: dict[str, TfpruneError]) -> str:
    """A message: which schemes failed, why the first of them did, and what to call instead."""
    others = [scheme for scheme in schemes if scheme not in failures]
    advice = "to write the others: "
    if not others:
        others = [scheme for scheme in DEFAULT_SCHEMES if scheme not in failures][:1]
        advice = "perhaps another can be made: "
    listed = ", ".join(f'"{scheme}"' for scheme in others)
    more = f"; {advice}schemes=[{listed}]" if others else ""
    first = next(iter(failures.values()))
    return f"schemes: {' and '.join(failures)} failed: {first}; nothing was written{more}"
