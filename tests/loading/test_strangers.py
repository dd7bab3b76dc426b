"""Files from strangers: nothing in them is run without --unsafe, whichever way they come in."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers as kl

from tests.support.planted import (
    dense,
    edited,
    function,
    last_layer,
    nested,
    obj,
    replace,
    small,
    wrapped,
)
from tfprune.data.networks import load_model
from tfprune.errors import TfpruneError

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.usefixtures("same_process"),
]
SUFFIXES = pytest.mark.parametrize("suffix", [".keras", ".h5"])
CODE = "it would run code on loading.*--unsafe"
FOREIGN = "which is not (Keras' own; add --import|among those of Keras' classes)"
FUNCTION = "names the function.*--unsafe"


@pytest.fixture(autouse=True)
def epsilon():
    """What the planted functions change; nothing may."""
    before = keras.config.epsilon(), keras.config.floatx(), keras.config.image_data_format()
    yield
    after = keras.config.epsilon(), keras.config.floatx(), keras.config.image_data_format()
    keras.config.set_epsilon(before[0])
    assert after == before


@pytest.fixture
def built(monkeypatch):
    """What Keras was asked to build."""
    asked = []
    for module, name in ((keras.saving, "deserialize_keras_object"), (keras.models, "load_model")):
        original = getattr(module, name)

        def recorded(*args, original=original, **kwargs):
            asked.append(args)
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, recorded)
    return asked


LAMBDA = obj("Lambda", name="l", function=function("set_epsilon"), arguments={}, output_shape=[3])
BYTECODE = {
    "class_name": "__lambda__",
    "config": {"code": "4wA=", "defaults": None, "closure": None},
}
PLANTED = {
    "Lambda of a public function": (LAMBDA, CODE),
    "Lambda of bytecode": (obj("Lambda", name="l", function=BYTECODE), CODE),
    "TFSMLayer": (obj("TFSMLayer", name="t", filepath="saved", call_endpoint="serve"), CODE),
    "TorchModuleWrapper": (obj("TorchModuleWrapper", name="t", module="UEs="), CODE),
    "JaxLayer": (obj("JaxLayer", name="j", call_fn=BYTECODE), CODE),
    "FlaxLayer": (obj("FlaxLayer", name="f", module={}, method=None), CODE),
    "Lambda in a wrapper": (wrapped(LAMBDA), CODE),
    "Lambda in a wrapper in a wrapper": (wrapped(wrapped(LAMBDA)), CODE),
    "Lambda in a Sequential": (nested(LAMBDA), CODE),
    "Lambda in a Functional": (nested(LAMBDA, "Functional"), CODE),
    "Lambda in a Model": (nested(nested(LAMBDA), "Model"), CODE),
    "Lambda as a cell": (obj("RNN", name="r", cell=LAMBDA), CODE),
    "Lambda among cells": (obj("RNN", name="r", cell=obj("StackedRNNCells", cells=[LAMBDA])), CODE),
    "Lambda as an activation": (dense(activation=LAMBDA), CODE),
    "bytecode as an activation": (dense(activation=BYTECODE), CODE),
    "function as an activation": (dense(activation=function("set_epsilon")), FUNCTION),
    "function under another name": (
        dense(activation={**function("relu", "keras.activations"), "registered_name": "evil>f"}),
        FUNCTION,
    ),
    "function of another module": (dense(activation=function("relu", "os")), FUNCTION),
    "function as an initializer": (dense(kernel_initializer=function("set_epsilon")), FUNCTION),
    "class as an initializer": (dense(kernel_initializer=obj("Popen", "subprocess")), FOREIGN),
    "function as a regularizer": (dense(kernel_regularizer=function("set_epsilon")), FUNCTION),
    "function as a constraint": (dense(bias_constraint=function("set_epsilon")), FUNCTION),
    "function in a list": (dense(units=[3, [function("set_epsilon")]]), FUNCTION),
    "class of another module": (obj("Dense", "os", name="d2", units=3), FOREIGN),
    "module inside Keras": (obj("get_file", "keras.src.utils.file_utils", name="f"), FOREIGN),
    "public class that is no layer": (obj("FeatureSpace", "keras.utils", features={}), FOREIGN),
    "registered under another name": (
        {**dense(), "registered_name": "evil>Dense"},
        FOREIGN,
    ),
    "no class but a number": ({**dense(), "class_name": 3}, "a class's name|a class_name"),
    "subclassed model": (obj("Model", "elsewhere", name="m"), "not Keras' own|no layers"),
    "operation that calls functions": (obj("Map", "keras.src.ops.core", name="m"), FOREIGN),
    "words in a file": (obj("StringLookup", name="s", vocabulary="/etc/passwd"), "a file's name"),
    "words in a file, as text": (
        obj("TextVectorization", name="s", vocabulary="words.txt"),
        "a file's name",
    ),
    "function as standardize": (
        obj("TextVectorization", name="s", standardize=function("set_epsilon")),
        FUNCTION,
    ),
    "type of another module": (
        dense(units={"class_name": "__typespec__", "module": "os", "config": []}),
        FOREIGN,
    ),
    "array of objects": (
        dense(units=obj("__numpy__", value=[1], dtype="object")),
        "array of numbers",
    ),
}  # fmt: skip


@SUFFIXES
@pytest.mark.parametrize("name", PLANTED)
def test_keras_never_sees_what_is_not_its_own(tmp_path, built, suffix, name):
    layer, why = PLANTED[name]
    path = edited(small(tmp_path / f"m{suffix}"), last_layer(layer))
    built.clear()
    with pytest.raises(TfpruneError, match=why) as caught:
        load_model(path, compiled=True)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not built


def test_the_same_files_do_harm_in_keras(tmp_path):
    """Or else the test above would show nothing."""
    path = edited(small(tmp_path / "m.keras"), last_layer(LAMBDA))
    model = keras.models.load_model(path)
    before = keras.config.epsilon()
    with contextlib.suppress(Exception):
        model(np.ones((1, 3)))
    changed = keras.config.epsilon() is not before
    keras.config.set_epsilon(before)
    assert changed


@pytest.mark.parametrize("where", ["inbound_nodes", "build_config"])
def test_beside_the_configuration_of_a_layer(tmp_path, built, where):
    def edit(config):
        layer = nested(dense(), "Functional")
        bad = layer["config"]["layers"][-1]
        if where == "inbound_nodes":
            bad["inbound_nodes"][0]["kwargs"] = {"training": function("set_epsilon")}
        else:
            bad["build_config"] = {"input_shape": function("set_epsilon")}
        config["config"]["layers"][-1] = layer

    path = edited(small(tmp_path / "m.keras"), edit)
    built.clear()
    with pytest.raises(TfpruneError):
        load_model(path)
    assert not built


def test_nothing_is_computed_while_a_model_is_built(tmp_path, built):
    """A layer called on a number would be, and the number can ask for any size."""

    def edit(config):
        layer = nested(obj("Arange", "keras.src.ops.numpy", name="bad"), "Functional")
        layer["config"]["layers"][-1]["inbound_nodes"] = [{"args": [10**12], "kwargs": {}}]
        config["config"]["layers"][-1] = layer

    path = edited(small(tmp_path / "m.keras"), edit)
    built.clear()
    with pytest.raises(TfpruneError, match="called without a tensor"):
        load_model(path)
    assert not built


def test_states_for_a_large_batch(tmp_path):
    layers = [keras.Input(batch_shape=(2, 3, 4)), kl.GRU(3, stateful=True, name="g")]
    keras.Sequential(layers).save(tmp_path / "m.keras")
    assert load_model(tmp_path / "m.keras").layers[0].stateful

    def edit(config):
        config["config"]["layers"][0]["config"]["batch_shape"][0] = 10**12

    with pytest.raises(TfpruneError, match="a batch of at most"):
        load_model(edited(tmp_path / "m.keras", edit))


@SUFFIXES
def test_names_are_shown_as_names(tmp_path, suffix):
    layer = {**dense(name="a\n::error::b\u202e"), "class_name": "Other\x1b[31m"}
    path = edited(small(tmp_path / f"m{suffix}"), last_layer(layer))
    with pytest.raises(TfpruneError) as caught:
        load_model(path)
    assert str(caught.value).isprintable()
    assert "::error" not in str(caught.value)


@pytest.mark.parametrize("key", ["optimizer", "loss", "metrics"])
def test_compile_settings_are_gone_through_where_they_are_wanted(tmp_path, built, key):
    def edit(config):
        config["compile_config"][key] = function("set_epsilon")
        # Nested models bring settings of their own, which nobody wants.
        inner = nested(obj("ReLU", name="r"))
        inner["compile_config"] = {key: function("set_epsilon")}
        config["config"]["layers"][-1] = inner

    path = edited(small(tmp_path / "m.keras", compiled=True), edit)
    assert not load_model(path).compiled
    built.clear()
    with pytest.raises(TfpruneError, match=FUNCTION):
        load_model(path, compiled=True)
    assert not built


@pytest.mark.parametrize("key", ["optimizer_config", "loss", "metrics"])
def test_compile_settings_of_h5(tmp_path, key):
    import h5py

    path = small(tmp_path / "m.h5", compiled=True)
    assert load_model(path, compiled=True).loss == "mse"
    with h5py.File(path, "r+") as file:
        training = json.loads(file.attrs["training_config"])
        training[key] = function("set_epsilon")
        if key == "metrics":
            name = {"name": "m", "fn": function("set_epsilon")}
            training[key] = [{"class_name": "MeanMetricWrapper", "config": name}]
        file.attrs["training_config"] = json.dumps(training)
    load_model(path)
    with pytest.raises(TfpruneError):
        load_model(path, compiled=True)


@SUFFIXES
def test_unsafe_lets_code_run(tmp_path, suffix):
    path = small(tmp_path / f"m{suffix}", kl.Lambda(lambda x: 2 * x, output_shape=(3,)))
    with pytest.raises(TfpruneError, match=CODE):
        load_model(path)
    np.testing.assert_array_equal(load_model(path, unsafe=True)(np.ones((1, 3))), [[2, 2, 2]])


@SUFFIXES
def test_the_cause_decides_not_the_name_of_the_file(tmp_path, suffix):
    folder = tmp_path / "lambda custom"
    folder.mkdir()
    path = edited(small(folder / f"customer{suffix}"), last_layer(dense(units="lambda")))
    with pytest.raises(TfpruneError, match="Keras cannot read it") as caught:
        load_model(path)
    assert "--unsafe" not in str(caught.value)
    assert "Keras' own" not in str(caught.value)


DEEP = 100_000


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * DEEP + "]" * DEEP, "deep"),
        ('{"a":' * DEEP + "1" + "}" * DEEP, "deep"),
        ('{"class_name": "Sequential", "config": ' + "1" * 5000 + "}", "JSON"),
        ('{"class_name": "Sequential", "config": ' + "1" * 400 + "}", "400 digits"),
        ('{"class_name": "Sequential", "class_name": "Model"}', "twice"),
        (b'{"class_name": "\xff\xfe"}', "UTF-8"),
        ("no JSON", "JSON"),
        ("", "JSON"),
        ("[]", "Sequential or Functional"),
        ("3", "Sequential or Functional"),
        ('{"class_name": "Sequential", "config": null}', "layers|a configuration|not Keras' own"),
        ('{"class_name": "Sequential", "config": {"layers": 3}}', "layers|not Keras' own"),
    ],
)  # fmt: skip
@SUFFIXES
def test_absurd_configurations_are_one_line(tmp_path, suffix, text, why):
    import h5py

    path = small(tmp_path / f"m{suffix}")
    if suffix == ".keras":
        replace(path, "config.json", text)
    else:
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = text if isinstance(text, str) else np.bytes_(text)
    with pytest.raises(TfpruneError, match=why) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_models_that_call_each_other_twice(tmp_path):
    """Thirty lines of a file, a thousand million calls."""

    def edit(config):
        layer = nested(dense(), "Functional")
        for _ in range(30):
            layer = nested(layer, "Functional")
            layer["config"]["layers"][-1]["inbound_nodes"] *= 2
        config["config"]["layers"][-1] = layer

    with pytest.raises(TfpruneError, match=r"called [\d,]+ times"):
        load_model(edited(small(tmp_path / "m.keras"), edit))


@SUFFIXES
@pytest.mark.parametrize("units", [10**9, 10**13])
def test_no_more_weights_than_the_file_has(tmp_path, suffix, units):
    path = edited(small(tmp_path / f"m{suffix}"), last_layer(dense(units=units)))
    with pytest.raises(TfpruneError, match=rf"layer 'd2' has weights of shape .*{units}"):
        load_model(path)
    kl.Dense(3).build((None, 3))  # Keras is as it was.


@pytest.mark.parametrize(
    ("command", "suffix"), [("tools.export", ".keras"), ("tools.sweep", ".h5")]
)
def test_commands_end_with_one_line(tmp_path, command, suffix):
    import tensorflow as tf

    marker = tmp_path / "ran"

    class Saved(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32)])
        def __call__(self, x):
            tf.io.write_file(str(marker), "ran")
            return x

    module = Saved()
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.__call__)
    layer = obj("TFSMLayer", name="t", filepath=str(tmp_path / "saved"),
                call_endpoint="serving_default")  # fmt: skip
    path = edited(small(tmp_path / f"m{suffix}"), last_layer(layer))
    np.savez(tmp_path / "d.npz", x=np.ones((60, 3), "float32"), y=np.zeros(60, int))
    words = ["--model", str(path), "--data", str(tmp_path / "d.npz"), "--output", "out"]
    done = subprocess.run(
        [sys.executable, "-m", command, *words], capture_output=True, text=True,
        timeout=300, check=False, env={**os.environ, "TFPRUNE_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "it would run code on loading (a TFSMLayer layer, layer 't')" in done.stderr
    assert not marker.exists()
