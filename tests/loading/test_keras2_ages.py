"""Configurations as versions of Keras 1 and 2 wrote them, one after another."""

from __future__ import annotations

import json

import h5py
import keras
import numpy as np
import pytest

from tests.support.keras2_files import L, chain, same, save, shuffled, tf_keras
from tfprune.data.networks import load_model
from tfprune.loading import h5_weights
from tfprune.loading.keras2_forms import Adapted

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning"),
    pytest.mark.usefixtures("same_process"),
]


def without_input_layer(config):
    first, second = config["config"]["layers"][:2]
    shape = first["config"]["batch_input_shape"]
    second["config"]["batch_input_shape"] = shape
    del config["config"]["layers"][0]


def as_list(config):
    without_input_layer(config)
    config["config"] = config["config"]["layers"]


def with_build_shape(config):
    shape = config["config"]["layers"][0]["config"]["batch_input_shape"]
    del config["config"]["layers"][0]
    config["config"]["build_input_shape"] = shape


@pytest.mark.parametrize("edit", [without_input_layer, as_list, with_build_shape])
def test_sequential_models_of_all_ages(tmp_path, rng, edit):
    layers = [L.Input((6, 6, 2)), L.Conv2D(3, 3), L.Flatten(), L.Dense(2)]
    model = shuffled(tf_keras.Sequential(layers), rng)
    x = rng.normal(size=(2, 6, 6, 2)).astype("float32")
    assert "Sequential" in same(model, x, save(model, tmp_path / "m.h5", edit, "2.2.2"))


def test_a_sequential_model_that_starts_with_another(tmp_path, rng):
    inner = tf_keras.Sequential([L.Dense(3, input_shape=(4,)), L.LeakyReLU(0.3)])
    model = shuffled(tf_keras.Sequential([inner, L.Dense(2)]), rng)

    def edit(config):
        without_input_layer(config["config"]["layers"][1])
        del config["config"]["layers"][0]

    x = rng.normal(size=(2, 4)).astype("float32")
    same(model, x, save(model, tmp_path / "m.h5", edit))


def test_nested_sequential_models_without_input_layers(tmp_path, rng):
    """As Teachable Machine and others write them."""
    x = L.Input((6, 6, 2))
    body = tf_keras.Model(x, L.DepthwiseConv2D(3)(L.Conv2D(3, 3)(x)))
    first = tf_keras.Sequential([body, L.GlobalAveragePooling2D()])
    second = tf_keras.Sequential([L.Dense(4, input_shape=(3,)), L.Dense(2, use_bias=False)])
    model = shuffled(tf_keras.Sequential([first, second]), rng)

    def edit(config):
        for entry in (*config["config"]["layers"], config):
            layers = entry["config"].get("layers", [])
            if layers and layers[0]["class_name"] == "InputLayer":
                shape = layers.pop(0)["config"]["batch_input_shape"]
                if layers[0]["class_name"] not in ("Functional", "Sequential"):
                    layers[0]["config"]["batch_input_shape"] = shape

    data = rng.normal(size=(2, 6, 6, 2)).astype("float32")
    said = same(model, data, save(model, tmp_path / "m.h5", edit, "2.2.4-tf"))
    assert "groups, Sequential without InputLayer" in said


def test_augmentation_of_keras_2(tmp_path, rng):
    """Layers that Keras 3 keeps for old files alone; in inference they do nothing."""
    layers = [L.RandomHeight(0.2), L.RandomWidth(0.2), L.Resizing(8, 8), L.Flatten(), L.Dense(2)]
    model = shuffled(tf_keras.Sequential([L.Input((8, 8, 2)), *layers]), rng)
    data = rng.normal(size=(2, 8, 8, 2)).astype("float32")
    same(model, data, save(model, tmp_path / "m.h5"))


def test_slashes_in_names(tmp_path, rng):
    x = L.Input((4,), name="in/put")
    y = L.Dense(3, name="block/dense")(x)
    model = shuffled(
        tf_keras.Model(x, L.Add(name="a/b")([y, L.Dense(3, name="block_dense")(y)])), rng
    )
    said = same(model, rng.normal(size=(2, 4)).astype("float32"), save(model, tmp_path / "m.h5"))
    assert "names with /" in said


def test_forms_of_values(tmp_path, rng):
    """As several versions wrote policies, arrays, shapes and initializers."""
    model = shuffled(
        chain((6, 6, 2), L.Conv2D(3, 3), L.LeakyReLU(0.25), L.BatchNormalization()), rng
    )

    def edit(config):
        _, conv, leaky, norm = (layer["config"] for layer in config["config"]["layers"])
        conv["dtype"] = {"class_name": "Policy", "config": {"name": "float32"}}
        conv["kernel_size"] = {"class_name": "__tuple__", "items": [3, 3]}
        conv["kernel_initializer"] = {
            "class_name": "VarianceScaling",
            "config": {
                "scale": 2.0,
                "mode": "fan_in",
                "distribution": "normal",
                "dtype": "float32",
            },
        }
        leaky["alpha"] = {"type": "ndarray", "value": 0.25}
        norm |= {"axis": [3], "fused": True, "virtual_batch_size": None, "renorm": False}

    x = rng.normal(size=(2, 6, 6, 2)).astype("float32")
    same(model, x, save(model, tmp_path / "m.h5", edit))


def test_order_within_a_layer_is_by_name(tmp_path, rng):
    """BatchNormalization's four weights are all of one shape."""
    model = shuffled(chain((4,), L.BatchNormalization()), rng)
    save(model, tmp_path / "m.h5")
    other = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(name="norm")])
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        group = file["model_weights"][model.layers[1].name]
        group.attrs["weight_names"] = group.attrs["weight_names"][::-1]
        h5_weights.assign(other, file["model_weights"], Adapted(), "2.4.0")
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        np.testing.assert_array_equal(
            getattr(other.layers[0], name), getattr(model.layers[1], name)
        )


def write_keras_1(path, layers, weights, backend="tensorflow"):
    """A Sequential model as Keras 1 saved it: ``(class, config)`` and arrays by their names."""
    config = [{"class_name": kind, "config": inner} for kind, inner in layers]
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": config})
        group = file.create_group("model_weights")
        group.attrs["backend"] = backend
        names = [inner["name"] for _, inner in layers]
        group.attrs["layer_names"] = [name.encode() for name in names]
        for name in names:
            entry = group.create_group(name)
            arrays = weights.get(name, {})
            entry.attrs["weight_names"] = [f"{name}_{key}".encode() for key in arrays]
            for key, array in arrays.items():
                entry[f"{name}_{key}"] = array.astype("float32")
    return path


def test_keras_1_pictures(tmp_path, rng):
    """Held against the same model built with Keras 3."""
    k = keras.layers
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), k.Conv2D(4, (3, 2), strides=2, padding="same", activation="relu"),
         k.BatchNormalization(), k.MaxPooling2D(2), k.Dropout(0.2), k.Flatten(), k.Dense(5)]
    )  # fmt: skip
    for weight in model.weights:
        weight.assign(np.abs(rng.normal(size=weight.shape)))
    conv, norm, dense = (layer.get_weights() for layer in model.layers if layer.get_weights())
    weight_decay = {"name": "WeightRegularizer", "l1": 0.0, "l2": 0.01}
    convolution = {
        "name": "c", "batch_input_shape": [None, 8, 8, 3], "nb_filter": 4, "nb_row": 3, "nb_col": 2,
        "subsample": [2, 2], "border_mode": "same", "bias": True, "dim_ordering": "tf",
        "init": "glorot_uniform", "activation": "relu", "trainable": True, "b_regularizer": None,
        "W_regularizer": weight_decay, "input_dtype": "float32", "activity_regularizer": None,
        "W_constraint": {"name": "MaxNorm", "m": 2, "axis": 0}, "b_constraint": None,
    }  # fmt: skip
    layers = [
        ("Convolution2D", convolution),
        ("BatchNormalization", {"name": "n", "mode": 0, "axis": 3, "epsilon": 0.001,
                                "momentum": 0.99, "gamma_regularizer": None}),
        ("MaxPooling2D", {"name": "p", "pool_size": [2, 2], "strides": [2, 2],
                          "border_mode": "valid", "dim_ordering": "tf"}),
        ("Dropout", {"name": "d", "p": 0.2}),
        ("Flatten", {"name": "f"}),
        ("Dense", {"name": "o", "output_dim": 5, "init": "uniform", "input_dim": None,
                   "bias": True, "activation": "linear"}),
    ]  # fmt: skip
    arrays = {
        "c": dict(zip("Wb", conv, strict=True)),
        "n": dict(zip(("gamma", "beta", "running_mean", "running_std"), norm, strict=True)),
        "o": dict(zip("Wb", dense, strict=True)),
    }
    said = []
    loaded = load_model(write_keras_1(tmp_path / "m.h5", layers, arrays), say=said.append)
    x = rng.normal(size=(2, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(loaded(x), model(x), atol=1e-5)
    assert "an old Keras; adapted: Sequential as a list, Convolution2D" in said[0]
    assert loaded.layers[0].kernel_regularizer.l2 == pytest.approx(0.01)
    assert loaded.layers[0].kernel_constraint.max_value == 2


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_keras_1_gates(tmp_path, rng, kind):
    """One array for each gate; the activation of gates is clip(0.2 x + 0.5, 0, 1)."""
    units, gates = 3, "icfo" if kind == "LSTM" else "zrh"
    weights = {
        f"{what}_{gate}": rng.normal(size=shape)
        for gate in gates
        for what, shape in (("W", (4, units)), ("U", (units, units)), ("b", (units,)))
    }
    config = {"name": "r", "batch_input_shape": [None, 6, 4], "output_dim": units, "init": "normal",
              "inner_init": "orthogonal", "activation": "tanh", "inner_activation": "hard_sigmoid",
              "return_sequences": False, "go_backwards": False, "stateful": False, "unroll": False,
              "consume_less": "cpu", "dropout_W": 0.0, "dropout_U": 0.0, "input_dim": 4,
              "U_regularizer": None, "forget_bias_init": "one", "input_length": None}  # fmt: skip
    path = write_keras_1(tmp_path / "m.h5", [(kind, config)], {"r": weights})
    x = rng.normal(size=(2, 6, 4)).astype("float32")

    def gate(name, value, hidden):
        whole = value @ weights[f"W_{name}"] + hidden @ weights[f"U_{name}"] + weights[f"b_{name}"]
        return whole if name in "ch" else np.clip(0.2 * whole + 0.5, 0, 1)

    h = c = np.zeros((2, units))
    for value in x.transpose(1, 0, 2):
        if kind == "LSTM":
            i, f, o = (gate(name, value, h) for name in "ifo")
            c = f * c + i * np.tanh(gate("c", value, h))
            h = o * np.tanh(c)
        else:
            z, r = gate("z", value, h), gate("r", value, h)
            h = z * h + (1 - z) * np.tanh(gate("h", value, r * h))
    np.testing.assert_allclose(load_model(path)(x), h, atol=1e-5)


def test_kernels_of_theano(tmp_path, rng):
    """(filters, channels, rows, columns), turned round: Theano computed convolutions proper."""
    kernel = rng.normal(size=(3, 3, 2, 4)).astype("float32")
    config = {"name": "c", "batch_input_shape": [None, 6, 6, 2], "nb_filter": 4, "nb_row": 3,
              "nb_col": 3, "border_mode": "valid", "dim_ordering": "tf", "bias": False}  # fmt: skip
    stored = kernel[::-1, ::-1].transpose(3, 2, 0, 1)
    arrays = {"c": {"W": stored}}
    path = write_keras_1(tmp_path / "m.h5", [("Convolution2D", config)], arrays, "theano")
    x = rng.normal(size=(1, 6, 6, 2)).astype("float32")
    expected = keras.ops.conv(x, kernel, padding="valid")
    np.testing.assert_allclose(load_model(path)(x), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_weights_of_cudnn(tmp_path, rng, kind):
    """Kernels of the gates transposed, biases of input and recurrence apart."""
    units, features = 3, 5
    layer = getattr(L, kind)(units, name="r", return_sequences=True)
    model = shuffled(
        tf_keras.Sequential([L.Input((4, features)), L.Bidirectional(layer, name="b")]), rng
    )

    def edit(config):
        inner = config["config"]["layers"][1]["config"]["layer"]
        inner["class_name"] = f"CuDNN{kind}"
        for key in ("recurrent_activation", "reset_after", "implementation", "dropout", "unroll",
                    "activation", "recurrent_dropout", "use_bias", "time_major"):  # fmt: skip
            inner["config"].pop(key, None)

    path = save(model, tmp_path / "m.h5", edit, "2.2.4")
    gates = 4 if kind == "LSTM" else 3
    with h5py.File(path, "r+") as file:
        entry = file["model_weights"]["b"]
        for name in entry.attrs["weight_names"]:
            value = entry[name][()]
            del entry[name]
            if "recurrent" in name:
                value = np.hstack([part.T for part in np.hsplit(value, gates)])
            elif "kernel" in name:
                parts = np.hsplit(value, gates)
                value = np.hstack([part.ravel(order="F").reshape(part.shape) for part in parts])
            elif kind == "LSTM":
                value = np.concatenate([0.3 * value, 0.7 * value])
            else:
                value = value.ravel()
            entry[name] = value
    x = rng.normal(size=(2, 4, features)).astype("float32")
    assert f"CuDNN{kind}" in same(model, x, path)


def test_merges_of_keras_1(tmp_path, rng):
    model = chain((4,), L.Dense(3, name="d"))
    path = save(shuffled(model, rng), tmp_path / "m.h5")
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        merges = [("sum", {}), ("mul", {}), ("concat", {"concat_axis": -1}), ("max", {})]
        calls = [[["d", 0, 0], ["d", 0, 0]]]
        config["config"]["layers"] += [
            {"class_name": "Merge", "name": mode, "inbound_nodes": calls,
             "config": {"name": mode, "mode": mode, "mode_type": "raw", "layers": [], **extra}}
            for mode, extra in merges
        ]  # fmt: skip
        config["config"]["output_layers"] = [[mode, 0, 0] for mode, _ in merges]
        file.attrs["model_config"] = json.dumps(config)
    x = rng.normal(size=(2, 4)).astype("float32")
    y = np.asarray(model(x))
    for output, expected in zip(load_model(path)(x), (y + y, y * y, np.c_[y, y], y), strict=True):
        np.testing.assert_allclose(output, expected, atol=1e-5)
