"""Loads model files: checks the configuration as data, then lets Keras build the model."""

from __future__ import annotations

import contextlib
import copy
import math
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras

from tfprune.errors import TfpruneError
from tfprune.loading import (
    allow_list,
    file_trial,
    h5_arrays,
    h5_weights,
    keras2,
    keras2_folder,
    keras2_in_tf_keras,
    keras2_training,
    keras_archive,
    model_config,
)
from tfprune.loading.keras2_forms import Adapted
from tfprune.loading.own_code import NOTHING, OwnCode

Say = Callable[[str], None] | None
# Numbers that a model may hold beside those in its file: tables that layers make themselves.
SPARE = 1_000_000
# Characters of a configuration that a message shows.
LONGEST = 200
# And of a whole message: a name in a file may have any length.
MOST_CHARACTERS = 2_000


# How far files were from tf_keras' outputs: a command reads a file up to three times.
_compared: dict[file_trial.Key, float | None] = {}


def load(path: Path, unsafe: bool, compiled: bool, say: Say, own: OwnCode = NOTHING) -> keras.Model:
    """The model in a file; see :func:`tfprune.data.networks.load_model`.

    Raises
    ------
    TfpruneError
        With the reason alone, not the file's name.
    """
    if keras2_folder.is_saved_model(path):
        return _from_folder(path, unsafe, compiled, say)
    is_h5 = h5py.is_hdf5(path)
    if not is_h5 and not zipfile.is_zipfile(path):
        raise TfpruneError(
            "expected a .keras file as Keras 3 saves it (a zip archive) or an .h5 file, "
            "received something else; is it truncated?"
        )
    if not unsafe:
        file_trial.check(path)
    with own.known_to_keras():
        model = (_from_h5 if is_h5 else _from_keras)(path, unsafe, compiled, say, own)
    if not isinstance(model, keras.Model):
        raise TfpruneError(f"expected a model, received {type(model).__name__}")
    return model


def _from_folder(path: Path, unsafe: bool, compiled: bool, say: Say) -> keras.Model:
    with tempfile.TemporaryDirectory(prefix="tfprune-") as folder:
        file = Path(folder) / f"{path.name}.h5"
        keras2_folder.as_h5(path, file)
        model = _from_h5(file, unsafe, compiled, None, NOTHING)
    if say:
        say(f"{path.name}: layers and weights of a SavedModel of Keras 2; its graph is not read")
    return model


def _from_h5(path: Path, unsafe: bool, compiled: bool, say: Say, own: OwnCode) -> keras.Model:
    with h5_arrays.reading():
        file = h5py.File(path)
    with file:
        with h5_arrays.reading():
            numbers = h5_arrays.check_arrays(file, path.stat().st_size)
            text = h5_arrays.text_attribute(file.attrs, "model_config")
            if text is None or "model_weights" not in file:
                raise TfpruneError(
                    "it has no model_config: weights alone, as save_weights writes them? "
                    "Build the model in Python, load them and save it whole, as .keras"
                )
            version = h5_arrays.text_attribute(file.attrs, "keras_version")
            backend = h5_arrays.text_attribute(file["model_weights"].attrs, "backend")
            training = h5_arrays.text_attribute(file.attrs, "training_config")
        config = model_config.parsed(text, "model_config")
        adapted = _adapted(config, version)
        safe = (
            own.spelled(adapted.config) if unsafe else allow_list.trusted(adapted.config, own=own)
        )
        with weights_within(numbers):
            # Keras takes configurations apart while it reads them.
            model = _attempt(
                lambda: keras.saving.deserialize_keras_object(
                    copy.deepcopy(safe), safe_mode=not unsafe
                )
            )
        _attempt(lambda: h5_weights.assign(model, file["model_weights"], adapted, version))
    if compiled and training is not None:
        settings = _guarded(
            lambda: keras2_training.compile_config(model_config.parsed(training, "training_config"))
        )
        safe = own.spelled(settings) if unsafe else allow_list.settings(settings, own)
        _attempt(lambda: model.compile_from_config(safe))
    # tf_keras takes Theano's kernels as they are.
    comparable = backend != h5_weights.THEANO
    _compare(model, path, config, adapted, version=version, say=say, comparable=comparable)
    return model


def _compare(
    model: keras.Model,
    path: Path,
    config: Any,
    adapted: Adapted,
    *,
    version: str | None,
    say: Say,
    comparable: bool = True,
) -> None:
    """Holds a model of an older Keras against tf_keras, and says what was adapted."""
    compared = None
    if comparable and (version is None or not version.startswith("3")):
        key = file_trial.key_of(path)
        if key not in _compared:
            _compared[key] = _attempt(lambda: keras2_in_tf_keras.difference(model, config, path))
        compared = _compared[key]
    if say and adapted.changes:
        same = "" if compared is None else f"; computes what tf_keras computes (to {compared:.0e})"
        written = f"Keras {version}" if version else "an old Keras"
        say(f"{path.name}: written by {written}; adapted: {', '.join(adapted.changes)}{same}")


def _guarded(function: Callable[[], Any]) -> Any:
    """Calls a function on a configuration; any error becomes a :class:`TfpruneError`."""
    try:
        return function()
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, TfpruneError):
            raise
        raise TfpruneError(
            f"its configuration is not as Keras writes it ({type(error).__name__}: {error})"
        ) from None


def _adapted(config: Any, version: str | None) -> Adapted:
    return _guarded(lambda: keras2.adapted(config, version))


def _from_keras(path: Path, unsafe: bool, compiled: bool, say: Say, own: OwnCode) -> keras.Model:
    archive = keras_archive.read(path)
    adapted = Adapted(archive.config)
    if archive.version is not None and archive.version.startswith("2"):
        adapted = _adapted(archive.config, archive.version)
        settings = archive.config.get("compile_config")
        if compiled and isinstance(settings, dict):
            training = {"optimizer_config": settings.get("optimizer"), **settings}
            adapted.config["compile_config"] = _guarded(
                lambda: keras2_training.compile_config(training)
            )
    config = adapted.config
    if not unsafe:
        config = allow_list.trusted(config, compiled, own)
        if archive.assets and not keras_archive.needs_assets(config):
            raise TfpruneError(
                f"it has files that none of its layers reads ({next(iter(archive.assets))!r}); "
                "add --unsafe if you trust the file"
            )
    else:
        config = own.spelled(config)
    # Keras reads files alone, and it is to read what was checked.
    with tempfile.TemporaryDirectory(prefix="tfprune-") as folder:
        checked = Path(folder) / "model.keras"
        try:
            keras_archive.write(checked, config, archive)
        except OSError as error:
            raise TfpruneError(f"its copy cannot be written to {folder} ({error})") from None
        with weights_within(archive.numbers):
            model = _attempt(
                lambda: keras.models.load_model(checked, compile=compiled, safe_mode=not unsafe)
            )
    if adapted.config is not archive.config:
        _attempt(lambda: h5_weights.edit(model, adapted))
        _compare(model, path, archive.config, adapted, version=archive.version, say=say)
    return model


@contextlib.contextmanager
def weights_within(numbers: int) -> Iterator[None]:
    """Within the block, limits the weights that layers may allocate.

    A configuration of a few bytes can ask for any size of layer; a file has weights for all of it.
    """
    left = numbers + SPARE
    original = keras.layers.Layer.add_weight

    def add_weight(self: Any, shape: Any = None, *args: Any, **kwargs: Any) -> Any:
        nonlocal left
        sizes = (shape,) if isinstance(shape, int) else shape or ()
        left -= math.prod(int(size) for size in sizes)
        if left < 0:
            raise TfpruneError(
                f"layer {self.name!r} has weights of shape {tuple(sizes)}, "
                f"where the file has {numbers:,} numbers in all"
            )
        return original(self, shape, *args, **kwargs)

    keras.layers.Layer.add_weight = add_weight
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = original


def _attempt(function: Callable[[], Any]) -> Any:
    """Calls Keras, whose errors are of many kinds."""
    try:
        return function()
    except TfpruneError:
        raise
    except Exception as error:  # Keras, numpy and h5py each raise their own for a bad file.
        lacking = re.search(r"Could not locate (class|function) '([^']+)'", str(error))
        if lacking:
            raise allow_list.missing(lacking[1], lacking[2]) from None
        raise TfpruneError(f"Keras cannot read it ({reason(error)})") from None


def reason(error: BaseException) -> str:
    """Why something failed, in one line: Keras' last cause, whole, but for configurations in it."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    for mark in ("Exception encountered:", "Original error:"):
        text = text.rpartition(mark)[2] if mark in text else text
    text = re.split(r"\n\s*(?:Full object config|config=|Arguments received by)", text)[0]
    text = " ".join(_without_configurations(text).split()).strip(" '\"")
    text = text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}..."
    return text or type(error).__name__


def _without_configurations(text: str) -> str:
    """A text whose long parts in braces are left out."""
    kept, depth, start = [], 0, 0
    for match in re.finditer(r"[{}]", text):
        if match[0] == "{":
            if not depth:
                kept.append(text[start : match.start()])
                start = match.start()
            depth += 1
        elif depth:
            depth -= 1
            if not depth:
                inner = text[start : match.end()]
                kept.append(inner if len(inner) < LONGEST else "{...}")
                start = match.end()
    rest = text[start:]
    return "".join(kept) + (rest if not depth or len(rest) < LONGEST else "{...")
