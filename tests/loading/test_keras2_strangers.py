"""Files of Keras 2 from strangers: tf_keras, which they are held against, runs nothing in them."""

from __future__ import annotations

import base64
import json

import h5py
import numpy as np
import pytest

from tests.support.keras2_files import L, chain, save, tf_keras
from tfprune.data.networks import load_model
from tfprune.loading import keras2_in_tf_keras

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning"),
    pytest.mark.usefixtures("same_process"),
]


def _write(marker):
    """A model of which building writes a file: a function of TensorFlow on constants alone."""
    call = ["_CONSTANT_VALUE", -1, str(marker), {"contents": "ran"}]
    return {
        "class_name": "Functional",
        "config": {
            "name": "inner",
            "layers": [
                {"class_name": "InputLayer", "name": "i", "inbound_nodes": [],
                 "config": {"batch_input_shape": [None, 3], "dtype": "float32", "name": "i"}},
                {"class_name": "TFOpLambda", "name": "w", "inbound_nodes": [call],
                 "config": {"name": "w", "function": "io.write_file"}},
            ],
            "input_layers": [["i", 0, 0]],
            "output_layers": [["i", 0, 0]],
        },
        "__passive_serialization__": True,
    }  # fmt: skip


def _hidden(path, marker, ndarray):
    """Where the adapted configuration has nothing: an argument that Keras 3 does not take."""
    model = chain((3, 1), L.TimeDistributed(L.Activation("relu")), L.Flatten())
    inner = {"type": "ndarray", "value": _write(marker)} if ndarray else _write(marker)

    def edit(config):
        layers = config["config"]["layers"]
        wrapper = next(x for x in layers if x["class_name"] == "TimeDistributed")
        wrapper["config"]["layer"]["config"]["implementation"] = inner

    return save(model, path, edit)


def _node(path, marker):
    """A node that is an Identity to one who reads it as text, and writes to a file."""
    url = base64.b64encode(f"file://{marker}".encode()).decode()
    node = {
        "name": "n", "op": "DebugIdentity", "input": ["x"],
        "attr": {"T": {"type": "DT_FLOAT"}, "debug_urls": {"list": {"s": [url]}},
                 "tensor_name": {"s": "eDow"}, "device_name": {"s": ""}},
        "experimentalDebugInfo": {"originalNodeNames": ['op: "Identity"']},
    }  # fmt: skip
    x = L.Input((3,))
    model = tf_keras.Model(x, L.Dense(3)(L.Activation("relu")(x)))

    def edit(config):
        layer = config["config"]["layers"][1]
        layer["class_name"] = "TensorFlowOpLayer"
        layer["config"] = {"name": layer["name"], "node_def": node, "constants": {}}

    return save(model, path, edit)


FILES = {
    "marked to be built": lambda path, marker: _hidden(path, marker, ndarray=False),
    "marked, as an array": lambda path, marker: _hidden(path, marker, ndarray=True),
    "a node of a graph": _node,
}


@pytest.mark.parametrize("kind", FILES)
def test_tf_keras_writes_no_file(tmp_path, kind):
    marker = tmp_path / "marker"
    load_model(FILES[kind](tmp_path / "m.h5", marker))
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["marked, as an array", "a node of a graph"])
def test_the_same_files_do_harm_in_tf_keras(tmp_path, kind):
    """Or else the test above would show nothing."""
    marker = tmp_path / "marker"
    path = FILES[kind](tmp_path / "m.h5", marker)
    config = json.loads(h5py.File(path).attrs["model_config"])

    def bare(value):
        if isinstance(value, dict):
            value = value["value"] if value.get("type") == "ndarray" else value
            named = "class_name" in value
            skip = {"module", "registered_name"} if named else set()
            return {key: bare(item) for key, item in value.items() if key not in skip}
        return [bare(item) for item in value] if isinstance(value, list) else value

    try:
        model = tf_keras.models.model_from_config(bare(config))
        model(np.ones((1, *model.input_shape[1:]), "float32"))
    except AttributeError:
        pass  # What wrote the file is no tensor of a graph.
    assert marker.exists()


HIDDEN = {
    "Lambda": {"class_name": "Lambda", "config": {"function": ["4wA=", None, None]}},
    "another function": {"class_name": "TFOpLambda", "config": {"function": "io.read_file"}},
    "what tf_keras builds with": {
        "class_name": "deserialize_keras_object",
        "config": {"config": {}},
    },
    "a layer of a graph's node": {"class_name": "TensorFlowOpLayer", "config": {"node_def": ""}},
    "a function": {"class_name": "function", "config": "get_file"},
    "words in a file": {"class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}},
}


@pytest.mark.parametrize("name", HIDDEN)
def test_tf_keras_gets_nothing_that_is_on_no_list(tmp_path, monkeypatch, name):
    received = []

    def edit(config):
        config["config"]["layers"][1]["config"]["kernel_regularizer"] = HIDDEN[name]

    path = save(chain((8, 8, 3), L.DepthwiseConv2D(3)), tmp_path / "m.h5", edit)
    monkeypatch.setattr(tf_keras.models, "model_from_config", received.append)
    load_model(path)
    assert not received


def test_tf_keras_looks_up_no_module(tmp_path, monkeypatch):
    received = []
    monkeypatch.setattr(tf_keras.models, "model_from_config", received.append)
    model = chain((3,), L.Dense(3))
    config = json.loads(h5py.File(save(model, tmp_path / "m.h5")).attrs["model_config"])
    config["config"]["layers"][1] |= {"module": "os", "compile_config": {"optimizer": "x"}}
    config["config"]["layers"][1]["config"]["kernel_initializer"]["registered_name"] = "evil>f"
    keras2_in_tf_keras.by_tf_keras(config)
    assert len(received) == 1
    for word in ("module", "registered_name", "compile_config"):
        assert word not in str(received)
