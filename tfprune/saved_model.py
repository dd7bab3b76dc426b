"""A Keras model as a TensorFlow SavedModel of what it computes in inference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from tfprune.errors import TfpruneError
from tfprune.inputs import packed
from tfprune.quiet import quiet


def write_saved_model(
    model: keras.Model, specs: Sequence[keras.InputSpec], folder: str | Path
) -> None:
    """Writes a SavedModel with one signature, ``serving_default``.

    The model is called with ``training=False``: without it, layers whose default is training, such
    as RandomFlip, would put their random changes into the graph.

    Parameters
    ----------
    model : keras.Model
    specs : sequence of keras.InputSpec
        One for each of ``model.inputs``, with the batch size, and the name in the signature.
    folder : path

    Raises
    ------
    TfpruneError
        If TensorFlow cannot trace or save the model.
    """

    try:
        with quiet():
            try:
                _write(model, specs, folder, track=False)
            except AssertionError:
                # TensorFlow's word for an untracked resource: a table of a layer of the user's.
                _write(model, specs, folder, track=True)
    except Exception as error:
        raise TfpruneError(f"model {model.name}: TensorFlow cannot export it: {error}") from error


def _write(
    model: keras.Model, specs: Sequence[keras.InputSpec], folder: str | Path, track: bool
) -> None:
    def infer(inputs: Any) -> Any:
        return model(inputs, training=False)

    archive = keras.export.ExportArchive()
    if track:
        # Traces every layer once more on its own: as long as all the rest, where it is not needed.
        archive.track(model)
    archive.add_endpoint("serve", infer, input_signature=[packed(model, specs)])
    archive.write_out(str(folder), verbose=False)
