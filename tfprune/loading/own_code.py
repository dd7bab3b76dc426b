"""Runs Python files of the user's own, so that a model file may name what they define."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from tfprune.errors import TfpruneError
from tfprune.loading.file_trial import Key, key_of

# In front of the name of a class without a registered one: no class of Keras' is called so.
PREFIX = "own>"


@dataclass(frozen=True)
class OwnCode:
    """What files of the user's own define.

    Attributes
    ----------
    objects : mapping of str to class or function
        By the names that a model file knows them by: ``package>Name`` where they are registered
        with Keras, else the name of a class.
    models : frozenset of str
        Those names that are classes of models.
    """

    objects: Mapping[str, Any] = field(default_factory=dict)
    models: frozenset[str] = frozenset()

    def name_of(self, data: Mapping[str, Any]) -> str | None:
        """The name in :attr:`objects` of what a configuration names; None if it is not there."""
        kind, registered = data.get("class_name"), data.get("registered_name")
        wanted = data.get("config") if kind == "function" else (registered or kind)
        if not isinstance(wanted, str) or wanted not in self.objects:
            return None
        # A function's name stands in its configuration.
        is_class = isinstance(self.objects[wanted], type)
        return wanted if is_class == (kind != "function") else None

    def spelled(self, value: Any) -> Any:
        """A configuration that is not checked, its objects under the names that Keras finds."""
        if isinstance(value, list):
            return [self.spelled(item) for item in value]
        if not isinstance(value, dict):
            return value
        spelled = {key: self.spelled(item) for key, item in value.items()}
        name = self.name_of(value) if "class_name" in value else None
        return spelled if name is None else {**spelled, **named(name, value["class_name"])}

    @contextlib.contextmanager
    def known_to_keras(self) -> Iterator[None]:
        """Within the block, Keras finds the objects by their registered names."""
        import keras

        with keras.saving.custom_object_scope(
            {registered(name): one for name, one in self.objects.items()}
        ):
            yield


NOTHING = OwnCode()
# Files that were run in this process: a command reads a model up to three times.
_imported: dict[Key, OwnCode] = {}


def registered(name: str) -> str:
    """The name of an object of :attr:`OwnCode.objects` that Keras looks it up by."""
    return name if ">" in name else PREFIX + name


def named(name: str, kind: str) -> dict[str, Any]:
    """What a configuration says of an object of :attr:`OwnCode.objects`, beside its settings."""
    if kind == "function":
        return {"module": "builtins", "class_name": kind, "config": name, "registered_name": kind}
    # Without a module Keras finds it by its registered name alone.
    return {
        "module": None,
        "class_name": name.rpartition(">")[2],
        "registered_name": registered(name),
    }


def imported(paths: Sequence[str | Path]) -> OwnCode:
    """Runs Python files, each once in a process, and says what they define.

    Their folders are searched for what they import themselves, after all others.

    Parameters
    ----------
    paths : sequence of str or Path

    Raises
    ------
    TfpruneError
        If a file is not there or fails.
    """
    objects: dict[str, Any] = {}
    models: frozenset[str] = frozenset()
    for path in map(Path, paths):
        if path.is_dir():
            raise TfpruneError(f"--import {path}: expected a Python file, it is a folder")
        if not path.is_file():
            raise TfpruneError(f"--import {path}: no such file")
        key = key_of(path)
        if key not in _imported:
            _imported[key] = _run(path)
        objects |= _imported[key].objects
        models |= _imported[key].models
    return OwnCode(objects, models)


def _run(path: Path) -> OwnCode:
    import keras

    before = dict(keras.saving.get_custom_objects())
    module = _module(path)
    known = keras.saving.get_custom_objects()
    objects = {name: one for name, one in known.items() if before.get(name) is not one}
    # Classes of the file's own that nobody registered are saved by their names alone.
    for name, one in vars(module).items():
        here = isinstance(one, type) and one.__module__ == module.__name__
        if here and issubclass(one, _kinds()) and one not in objects.values():
            objects[name] = one
    if not objects:
        raise TfpruneError(
            f"--import {path}: it defines no layer, loss or metric of its own, and registers "
            "nothing with keras.saving.register_keras_serializable"
        )
    models = [n for n, one in objects.items() if isinstance(one, type)]
    return OwnCode(objects, frozenset(n for n in models if issubclass(objects[n], keras.Model)))


def _kinds() -> tuple[type, ...]:
    import keras

    return (
        keras.Layer, keras.Loss, keras.Metric, keras.Regularizer, keras.Initializer,
        keras.constraints.Constraint, keras.Optimizer,
        keras.optimizers.schedules.LearningRateSchedule,
    )  # fmt: skip


def _module(path: Path) -> ModuleType:
    """The file as a module, under its own name where no other module has it."""
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_of_--import"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TfpruneError(f"--import {path}: expected the path of a Python file, FILE.py")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    sys.modules[name] = module
    try:
        # What a command prints may be read by a program.
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # It may do anything.
        del sys.modules[name]
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__)
                 if f.filename == str(path)]  # fmt: skip
        at = f", line {lines[-1]}" if lines else ""
        raise TfpruneError(
            f"--import {path}: it fails ({type(error).__name__}{at}: {error})"
        ) from error
    return module
