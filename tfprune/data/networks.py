"""Loads a user's model from a file, safely."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import keras

from tfprune.data.built_in import BUILT_IN
from tfprune.errors import TfpruneError
from tfprune.loading import model_files
from tfprune.loading.keras2_folder import is_saved_model
from tfprune.loading.own_code import imported
from tfprune.utils.escapes import plain


def load_model(
    path: Path,
    unsafe: bool = False,
    compiled: bool = False,
    say: Callable[[str], None] | None = None,
    imports: Sequence[str] = (),
) -> keras.Model:
    """Reads a ``.keras`` or ``.h5`` file, one of Keras 1 and 2 as well, or their SavedModel.

    Parameters
    ----------
    path : Path
    unsafe : bool
        Whether code in the file (a Lambda layer) may be loaded.
    compiled : bool
        Whether to load its compile settings too.
    say : callable, optional
        Is told in a line what was adapted in a file of an older Keras.
    imports : sequence of str
        Paths of Python files that are run first; the model may name what they define.

    Raises
    ------
    TfpruneError
        If there is no such file, it is not a Keras model, needs code, or has no known shapes;
        if a file to import fails.
    """
    if not path.exists():
        raise TfpruneError(f"--model {path}: no such file, and not one of {', '.join(BUILT_IN)}")
    if not path.is_file() and not is_saved_model(path):
        raise TfpruneError(
            f"--model {path}: expected a file or a SavedModel, "
            "received a folder of another kind or a device"
        )
    own = imported(imports)
    try:
        if path.is_file():
            path.open("rb").close()  # What may not be read looks like no model otherwise.
        return model_files.load(path, unsafe, compiled, say, own)
    except (TfpruneError, OSError) as error:
        raise TfpruneError(f"--model {path}: {plain(model_files.reason(error))}") from None
