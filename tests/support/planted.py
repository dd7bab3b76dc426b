"""Model files that somebody changed: made of a small model by editing its parts."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
from keras import layers as kl

Edit = Callable[[Any], Any]


def small(path: Path, *layers: Any, compiled: bool = False) -> Path:
    """A small model's file, as Keras saves it."""
    model = keras.Sequential(
        [keras.Input((3,), name="x"), *(layers or [kl.Dense(3, name="d"), kl.Activation("relu")])]
    )
    if compiled:
        model.compile("adam", "mse", metrics=["mae"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras calls .h5 legacy; users still have it.
        model.save(path)
    return path


def edited(path: Path, edit: Edit) -> Path:
    """Changes the configuration in a file; what ``edit`` returns takes its place."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            file.attrs["model_config"] = json.dumps(edit(config) or config)
    else:
        config = json.loads(member(path, "config.json"))
        replace(path, "config.json", json.dumps(edit(config) or config))
    return path


def member(path: Path, name: str) -> bytes:
    """The bytes of a member of a ``.keras`` file."""
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def replace(path: Path, name: str, data: bytes | str, **kwargs: Any) -> Path:
    """Writes a ``.keras`` file anew with other content of one member."""
    with zipfile.ZipFile(path) as archive:
        content = {key: archive.read(key) for key in archive.namelist()}
    with zipfile.ZipFile(path, "w", **kwargs) as archive:
        for key, value in {**content, name: data}.items():
            archive.writestr(key, value)
    return path


def weights_edited(path: Path, edit: Callable[[h5py.File], Any]) -> Path:
    """Changes the HDF5 file of a ``.keras`` file, or an ``.h5`` file itself."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            edit(file)
        return path
    content = io.BytesIO(member(path, "model.weights.h5"))
    with h5py.File(content, "r+") as file:
        edit(file)
    return replace(path, "model.weights.h5", content.getvalue())


def last_layer(layer: dict[str, Any]) -> Edit:
    """Puts a layer in the place of the last one."""

    def edit(config: Any) -> None:
        config["config"]["layers"][-1] = layer

    return edit


def obj(class_name: str, module: str | None = "keras.layers", **config: Any) -> dict[str, Any]:
    """A serialised object."""
    return {
        "module": module, "class_name": class_name, "config": config, "registered_name": None,
    }  # fmt: skip


def function(name: str, module: str = "keras.config") -> dict[str, Any]:
    """A serialised function."""
    return {
        "module": module, "class_name": "function", "config": name, "registered_name": name,
    }  # fmt: skip


def dense(**changes: Any) -> dict[str, Any]:
    """A Dense layer of three units."""
    return obj("Dense", **{"name": "d2", "units": 3, **changes})


def wrapped(layer: Any) -> dict[str, Any]:
    """A layer in a wrapper."""
    return obj("TimeDistributed", name="t", layer=layer)


def nested(layer: dict[str, Any], kind: str = "Sequential") -> dict[str, Any]:
    """A layer in a model."""
    start = obj("InputLayer", batch_shape=[None, 3], name="i")
    if kind == "Sequential":
        return obj("Sequential", "keras", name="s", layers=[start, layer])
    tensor = obj("__keras_tensor__", shape=[None, 3], dtype="float32", keras_history=["i", 0, 0])
    calls = [{"args": [tensor], "kwargs": {}}]
    layers = [
        {**start, "name": "i", "inbound_nodes": []},
        {**layer, "name": "bad", "inbound_nodes": calls},
    ]
    ends = {"input_layers": ["i", 0, 0], "output_layers": ["bad", 0, 0]}
    return obj(kind, "keras", name="m", layers=layers, **ends)
