"""Converts SavedModels and runs TFLite files in a process of their own.

TensorFlow's converter and LiteRT are native code that ends its process on some models: that is
then a reason to refuse a file, and this process goes on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tfprune.errors import TfpruneError
from tfprune.tflite.conversion_worker import read_arrays, write_arrays
from tfprune.utils.arrays import Array
from tfprune.utils.child_process import Child, ChildEndedError, ChildError

# In a work folder.
MODEL, INPUTS, FILE = "saved_model", "inputs", "model.tflite"
# One for all conversions of this process: it takes some seconds to import TensorFlow.
_CHILD = Child("tfprune.tflite.conversion_worker")


def start() -> None:
    """Starts the process without waiting for it, so that other work can go on.

    Raises
    ------
    TfpruneError
        If it cannot be started.
    """
    try:
        _CHILD.start()
    except ChildError as error:
        raise TfpruneError(str(error)) from None


@contextmanager
def work_folder(samples: Sequence[Array]) -> Iterator[Path]:
    """A temporary folder with samples, an array of shape (samples, ...) for each input.

    Raises
    ------
    TfpruneError
        If it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="tfprune-") as name:
            write_arrays(Path(name) / INPUTS, samples)
            yield Path(name)
    except OSError as error:
        raise TfpruneError(
            f"temporary files in {tempfile.gettempdir()}: {error.strerror or error}; "
            "the environment variable TMPDIR names another folder for them"
        ) from None


def convert_folder(
    folder: Path,
    scheme: str,
    names: Sequence[str],
    *,
    batch: int | None = 1,
    compat: bool = False,
) -> bytes:
    """Converts the SavedModel in a work folder.

    Parameters
    ----------
    folder : Path
        Holds the SavedModel as ``MODEL``.
    scheme : str
        A key of ``tfprune.tflite.conversion_worker.SETTINGS``.
    names : sequence of str
        The inputs' names in the signature.
    batch, compat
        See :func:`tfprune.tflite.converter.convert`.

    Raises
    ------
    ChildError
        With the reason, if TensorFlow cannot, or crashes.
    """
    try:
        _CHILD.ask(
            "convert_saved_model", folder=str(folder / MODEL), scheme=scheme,
            file=str(folder / FILE), inputs=str(folder / INPUTS), names=list(names),
            batch=batch or 1, compat=compat,
        )  # fmt: skip
    except ChildEndedError as error:
        raise ChildError(f"TensorFlow's converter crashed with {error}") from None
    return (folder / FILE).read_bytes()


def run_file(
    folder: Path, data: bytes, names: Sequence[str], delegate: bool = True
) -> tuple[list[Array], list[float]]:
    """Runs a TFLite file on the samples of a work folder.

    Parameters
    ----------
    folder : Path
    data : bytes
        The file's content.
    names, delegate
        See :class:`tfprune.tflite.interpreter.LiteModel`.

    Returns
    -------
    outputs : list of arrays of shape (samples, ...)
    steps : list of float
        The quantisation step of each output, 0 where it is float.

    Raises
    ------
    ChildError
        If it does not run, or crashes.
    """
    (folder / FILE).write_bytes(data)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        outputs = Path(scratch) / "outputs"
        try:
            steps = _CHILD.ask(
                "predict", file=str(folder / FILE), inputs=str(folder / INPUTS),
                outputs=str(outputs), names=list(names), delegate=delegate,
            )  # fmt: skip
        except ChildEndedError as error:
            raise ChildError(f"crashes in LiteRT with {error}") from None
        except ChildError as error:
            text = " ".join(str(error).split())
            raise ChildError(f"does not run in LiteRT: {text}") from None
        return [np.array(out) for out in read_arrays(outputs)], steps
