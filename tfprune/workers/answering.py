"""What a worker does with a request: it calls the function that the request names.

A request is a plain dict: ``function`` (``module:name``), ``arguments`` that JSON can hold,
``versions`` of the packages on the side that asks, ``keras``, whether Keras is to be imported,
``variables`` of the environment by which TensorFlow chooses its kernels, and perhaps ``shared``,
by names the digests of bytes that many requests have in common, and ``near``: whoever did a request
with the same may do this one faster. The function returns a value that JSON can hold and arrays by
name. The answer is a dict with one of: ``value`` and ``arrays`` (or ``file``, with these);
``refused``, the text of a mistake that a user can mend; ``failed``, the traceback of anything else;
``lacking``, the digests of shared bytes that are not known yet.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.errors import TfpruneError
from tfprune.utils.arrays import Array
from tfprune.utils.versions import versions

# How many threads TensorFlow and linear algebra take; TensorFlow reads it when it is imported.
THREADS = (
    "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
)  # fmt: skip

Answer = dict[str, Any]
# Shared bytes of the last request that had some, by their digest.
_shared: dict[str, bytes] = {}


def answer(request: Mapping[str, Any], contents: Mapping[str, bytes] | None = None) -> Answer:
    """Does a piece of work; never raises.

    Parameters
    ----------
    request : mapping
        See the module.
    contents : mapping of str to bytes, optional
        Shared bytes by their digests, where they come with the request.
    """
    try:
        _check_versions(request["versions"])
        shared: dict[str, Any] = {}
        if "shared" in request:
            lacking = take(request, contents)
            if lacking:
                return {"lacking": lacking}
            shared = {name: _shared[digest] for name, digest in request["shared"].items()}
        if request["keras"]:
            prepare()
        module, _, name = request["function"].partition(":")
        value, arrays = getattr(import_module(module), name)(**request["arguments"], **shared)
    except (TfpruneError, OSError) as error:
        return {"refused": str(error) or type(error).__name__}
    except Exception:  # Whatever it is, the command shows it, and the worker goes on.
        return {"failed": traceback.format_exc()}
    return {"value": value, "arrays": arrays}


def take(request: Mapping[str, Any], contents: Mapping[str, bytes] | None) -> list[str]:
    """Keeps the shared bytes that a request names, and no others; those that are not known."""
    wanted = list(dict.fromkeys(request["shared"].values()))
    known = {**_shared, **(contents or {})}
    _shared.clear()
    _shared.update({digest: known[digest] for digest in wanted if digest in known})
    return [digest for digest in wanted if digest not in known]


def prepare() -> None:
    """Imports Keras, with its standard settings: the first time takes seconds."""
    from tfprune.utils.environment import start_keras

    start_keras()


def answer_by_files(request: Mapping[str, Any], folder: str, number: int) -> Answer:
    """As :func:`answer`, for an answer that goes as JSON: arrays go through a folder."""
    contents = {}
    if "shared" in request:
        contents = {one: (Path(folder) / one).read_bytes() for one in take(request, None)}
    made = answer(request, contents)
    arrays = made.pop("arrays", None)
    if arrays:
        path = Path(folder) / f"{number}.npz"
        np.savez(path, **arrays)
        made["file"] = str(path)
    return made


def loaded(made: Answer) -> dict[str, Array]:
    """The arrays of an answer, whichever way they came; a file of them is removed."""
    if "file" not in made:
        arrays: dict[str, Array] = made.get("arrays") or {}
        return arrays
    path = Path(made["file"])
    with np.load(path, allow_pickle=False) as archive:
        read = dict(archive)
    path.unlink()
    return read


def _check_versions(expected: Mapping[str, str]) -> None:
    """Raises :class:`TfpruneError` where a worker would compute with other packages."""
    # As JSON, or Dask, brought it.
    here = versions()
    other = [name for name in {**expected, **here} if expected.get(name) != here.get(name)]
    if other:
        there, this = (
            ", ".join(f"{name} {known.get(name, 'not installed')}" for name in other)
            for known in (expected, here)
        )
        raise TfpruneError(
            f"expected {there} as the command has, received {this}; install the same"
        )
