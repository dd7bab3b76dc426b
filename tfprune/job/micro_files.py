"""Tries int8 files in TensorFlow Lite Micro, measures them, and writes them as C source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfprune.errors import TfpruneError
from tfprune.job.records import Artifact
from tfprune.micro.boards import Board
from tfprune.micro.c_source import c_array, identifier
from tfprune.micro.tflm import Trial, check_runs, tflm_version, tried
from tfprune.tflite.converter import convert_each, signature_names
from tfprune.tflite.interpreter import LiteModel
from tfprune.utils.arrays import Array

SCHEME = "int8"
# How many samples of the test data go through both runtimes.
SAMPLES = 16

Files = Sequence[tuple[Artifact, LiteModel]]


def examined(
    files: Files,
    x: Sequence[Array],
    folder: Path,
    devices: Sequence[Board],
    arrays: bool,
    *,
    say: Callable[[str], None],
) -> tuple[list[tuple[Artifact, LiteModel]], dict[str, Any] | None]:
    """Runs the int8 files in TensorFlow Lite Micro, if anything was asked for.

    Parameters
    ----------
    files : sequence of (Artifact, LiteModel)
        They lie in the folder.
    x : sequence of arrays of shape (samples, ...)
        Test data, for each input.
    folder : Path
    devices : sequence of Board
        Is told for each whether the files fit.
    arrays : bool
        Whether to write ``NAME.h`` and ``NAME.cc`` beside ``NAME.tflite``.
    say : callable
        Is told, in a line, where kernels differ.

    Returns
    -------
    files : list of (Artifact, LiteModel)
        The int8 ones with their arenas.
    section : dict or None
        What the manifest says of it.

    Raises
    ------
    TfpruneError
        If TensorFlow Lite Micro cannot run a file, or computes something else.
    """
    if not devices and not arrays:
        return list(files), None
    if not any(artifact.scheme == SCHEME for artifact, _ in files):
        return list(files), None  # None could be made, which the user was told.
    others = sorted({artifact.scheme for artifact, _ in files} - {SCHEME})
    if others:
        say(f"for microcontrollers are int8 files alone, not {', '.join(others)}")
    entries, measured_files = [], []
    for artifact, lite in files:
        if artifact.scheme != SCHEME:
            measured_files.append((artifact, lite))
            continue
        data = (folder / artifact.file).read_bytes()
        trial = tried(data, lite.fed([np.asarray(each[:SAMPLES]) for each in x]), artifact.file)
        if trial.different:
            say(
                f"{artifact.file}: TensorFlow Lite Micro gives other values than LiteRT's "
                f"{trial.kernels} kernels, {trial.different} of {trial.values}, by up to "
                f"{trial.steps:g} steps"
            )
        entry = _entry(artifact, trial)
        if arrays:
            entry["c_array"] = _written(data, Path(artifact.file).stem, trial, folder)
        entries.append(entry)
        measured_files.append((replace(artifact, arena_bytes=trial.arena), lite))
    section = {
        "tflite_micro": tflm_version(),
        "files": entries,
        "devices": [
            _device(board, [a for a, _ in measured_files if a.scheme == SCHEME])
            for board in devices
        ],
    }
    return measured_files, section


def check_early(
    model: keras.Model,
    x: Sequence[Array],
    calibration: Sequence[Array],
    schemes: Sequence[str],
    **how: Any,
) -> None:
    """Refuses a model that TensorFlow Lite Micro cannot run, before the long work.

    A file that cannot be made is told here only where there is no other scheme.

    Parameters
    ----------
    model : keras.Model
    x : sequence of arrays of shape (samples, ...)
        For each input.
    calibration : sequence of arrays of shape (samples, ...)
    schemes : sequence of str
        All that were asked for.
    **how
        What :func:`tfprune.tflite.converter.convert` is told: ``batch``, ``compat``.

    Raises
    ------
    TfpruneError
        As :func:`examined`.
    """
    ((_, data),) = convert_each(model, [SCHEME], calibration, **how)
    if isinstance(data, TfpruneError):
        if set(schemes) == {SCHEME}:
            raise data
        return
    fed = LiteModel(data, signature_names(model)).fed([np.asarray(each[:1]) for each in x])
    check_runs(data, fed, f"the {SCHEME} file of {model.name}")


def _entry(artifact: Artifact, trial: Trial) -> dict[str, Any]:
    return {
        "file": artifact.file,
        "arena_bytes": trial.arena,
        "samples": trial.samples,
        "values": trial.values,
        "different": trial.different,
        "steps": trial.steps,
        "kernels": trial.kernels,
    }


def _written(data: bytes, name: str, trial: Trial, folder: Path) -> list[str]:
    header, source = c_array(data, name, trial.arena, trial.inputs, trial.outputs)
    stem = identifier(name)
    for ending, text in ((".h", header), (".cc", source)):
        (folder / f"{stem}{ending}").write_text(text, encoding="utf-8", errors="backslashreplace")
    return [f"{stem}.h", f"{stem}.cc"]


def _device(board: Board, artifacts: Sequence[Artifact]) -> dict[str, Any]:
    files = []
    for artifact in artifacts:
        assert artifact.arena_bytes is not None, "int8 files were measured"
        room = board.room(artifact.bytes, artifact.arena_bytes)
        files.append(
            {
                "file": artifact.file,
                "fits": room.fits,
                "ram_left_bytes": room.ram_left,
                "flash_left_bytes": room.flash_left,
                "verdict": str(room),
            }
        )
    return {
        "name": board.name,
        "ram_bytes": board.ram,
        "flash_bytes": board.flash,
        "ram_taken_bytes": board.ram_taken,
        "flash_taken_bytes": board.flash_taken,
        "files": files,
    }
