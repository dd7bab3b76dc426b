"""Files of Keras 1 and 2: what they compute in Keras 3 is what tf_keras computes, or a refusal."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

from tests.support.keras2_files import L, chain, same, save, shuffled, tf_keras
from tfprune.data.networks import load_model
from tfprune.errors import TfpruneError
from tfprune.loading import keras2_in_tf_keras
from tfprune.utils.console import quiet

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning"),
    pytest.mark.usefixtures("same_process"),
]


PICTURES = [
    L.Rescaling(0.5, offset=0.1),
    L.Normalization(),
    L.Conv2D(4, 3, groups=2, padding="same"),
    L.BatchNormalization(),
    L.LeakyReLU(0.2),
    L.DepthwiseConv2D(3, depth_multiplier=2),
    L.ReLU(6.0, negative_slope=0.1, threshold=0.2),
    L.SeparableConv2D(4, 3, padding="same"),
    L.PReLU(shared_axes=[1, 2]),
    L.Conv2DTranspose(4, 3, strides=2, padding="same"),
    L.ELU(0.5),
    L.ThresholdedReLU(0.1),
    L.SpatialDropout2D(0.3),
    L.MaxPooling2D(),
    L.Activation("hard_sigmoid"),
    L.UpSampling2D(2, interpolation="bilinear"),
    L.ZeroPadding2D(((1, 0), (0, 1))),
    L.LayerNormalization(),
    L.Conv2D(3, 3, activation="hard_sigmoid", kernel_regularizer="l2"),
    L.TimeDistributed(L.Dense(3, activation="hard_sigmoid")),
    L.GlobalAveragePooling2D(),
    L.Dense(
        2, kernel_initializer=tf_keras.initializers.VarianceScaling(), bias_constraint="non_neg"
    ),
]
SEQUENCES = [
    L.Conv1D(5, 3, padding="causal"),
    L.DepthwiseConv1D(3),
    L.SeparableConv1D(4, 3),
    L.LSTM(3, return_sequences=True, recurrent_activation="hard_sigmoid"),
    L.GRU(3, return_sequences=True, reset_after=False, recurrent_activation="hard_sigmoid"),
    L.Bidirectional(L.GRU(3, return_sequences=True, recurrent_activation="hard_sigmoid")),
    L.RNN(
        [L.LSTMCell(3, recurrent_activation="hard_sigmoid"), L.GRUCell(2)], return_sequences=True
    ),
    L.Bidirectional(
        L.LSTM(2, return_sequences=True),
        backward_layer=L.LSTM(2, go_backwards=True, return_sequences=True),
        merge_mode="sum",
    ),
    L.SimpleRNN(3),
]


def test_layers_of_pictures(tmp_path, rng):
    model = shuffled(chain((8, 8, 4), *PICTURES), rng)
    x = rng.normal(size=(3, 8, 8, 4)).astype("float32")
    said = same(model, x, save(model, tmp_path / "m.h5"))
    for change in ("groups", "alpha", "ThresholdedReLU", "hard_sigmoid"):
        assert change in said
    assert said.startswith("m.h5: written by Keras 2.")
    assert "computes what tf_keras computes" in said


def test_layers_of_sequences(tmp_path, rng):
    model = shuffled(chain((9, 4), *SEQUENCES), rng)
    x = rng.normal(size=(3, 9, 4)).astype("float32")
    assert "time_major" in same(model, x, save(model, tmp_path / "m.h5"))


def test_masks_and_embeddings(tmp_path, rng):
    layers = (L.Embedding(7, 3, input_length=6, mask_zero=True), L.LSTM(4))
    model = shuffled(chain((6,), *layers, dtype="int32"), rng)
    x = rng.integers(0, 7, (4, 6)).astype("int32")
    assert "input_length" in same(model, x, save(model, tmp_path / "m.h5"))


def test_several_inputs_states_and_attention(tmp_path, rng):
    x, h, c = L.Input((5, 4)), L.Input((3,)), L.Input((3,))
    y, *_ = L.LSTM(3, return_sequences=True, return_state=True)(x, initial_state=[h, c])
    z = L.MultiHeadAttention(2, 3)(y, x)
    a, b = L.Attention(use_scale=True)([y, z]), L.Subtract()([y, z])
    d = L.Dot(axes=2, normalize=True)([y, z])
    outputs = {"d": d, "last": L.Concatenate(axis=1)([a, b])}
    model = shuffled(tf_keras.Model([x, h, c], outputs), rng)
    data = [rng.normal(size=(2, *s)).astype("float32") for s in ((5, 4), (3,), (3,))]
    same(model, data, save(model, tmp_path / "m.h5"))


def test_nested_and_shared_models(tmp_path, rng):
    def sequential():
        model = tf_keras.Sequential([L.Dense(4, input_shape=(4,)), L.BatchNormalization()])
        model.layers[0].trainable = False
        return model

    inner, start = sequential(), L.Input((4,))
    other = tf_keras.Model(start, L.BatchNormalization()(L.Dense(4)(sequential()(start))))
    x = L.Input((4,))
    a = inner(x)
    b = other(inner(a), training=False)
    model = shuffled(tf_keras.Model(x, L.Add()([b, a, other(b)])), rng)
    same(model, rng.normal(size=(3, 4)).astype("float32"), save(model, tmp_path / "m.h5"))


@pytest.mark.parametrize("kind", ["Sequential", "Functional"])
def test_a_nested_model_at_the_end(tmp_path, rng, kind):
    """Its outputs are the model's: they count a node of the nested model as well."""
    x, inside = L.Input((4,)), L.Input((4,))
    last = L.Dense(4)
    if kind == "Sequential":
        inner = tf_keras.Sequential([L.Input((4,)), last])
    else:
        inner = tf_keras.Model(inside, last(inside))
    once = inner(L.Dense(4)(x))
    model = shuffled(tf_keras.Model(x, [once, inner(once)]), rng)
    data = rng.normal(size=(3, 4)).astype("float32")
    same(model, data, save(model, tmp_path / "m.h5"))
    model = shuffled(tf_keras.Model(x, once), rng)
    same(model, data, save(model, tmp_path / "n.h5"))


def test_functions_of_tensorflow(tmp_path, rng):
    x = L.Input((8, 8, 3))
    y = L.Conv2D(3, 3, padding="same")(x)
    z = tf.nn.relu(1.0 - (x + y) * 2.0 / 3.0) - np.array([0.1, 0.2, 0.3], "float32")
    z = tf.concat([tf.nn.relu6(z), x], -1)
    flat = tf.reshape(z, (-1, 384))
    some, last = flat[:, :5], flat[..., -3:]
    stack = tf.stack([some, tf.maximum(some, 0.5)], axis=1)
    turned = tf.transpose(stack, [0, 2, 1])
    outputs = [
        tf.reduce_mean(z, axis=[1, 2]),
        last * last,
        tf.abs(some),
        *tf.split(flat, [100, 284], axis=1),
        tf.matmul(stack, turned),
        tf.image.resize(x, (4, 4)),
        tf.pad(y, [[0, 0], [1, 1], [2, 0], [0, 0]]),
        tf.expand_dims(tf.squeeze(tf.reduce_max(flat, axis=1, keepdims=True), 1), -1),
        tf.clip_by_value(some, 0.0, 0.3),
        tf.nn.softmax(some),
        tf.math.l2_normalize(some, axis=1),
        tf.sqrt(tf.square(last)),
        tf.nn.leaky_relu(some, alpha=0.1),
        tf.cast(last, "float32") ** 2.0,
        tf.nn.space_to_depth(z, 2),
        tf.nn.gelu(some),
        tf.sigmoid(some) / (1.0 + tf.exp(some)),
    ]
    model = shuffled(tf_keras.Model(x, outputs), rng)
    said = same(
        model, rng.normal(size=(2, 8, 8, 3)).astype("float32"), save(model, tmp_path / "m.h5")
    )
    assert "tf.nn.relu" in said
    assert "computes what tf_keras computes" in said


@pytest.mark.parametrize("function", ["io.write_file", "py_function", "nn.conv2d", "shape"])
def test_other_functions_of_tensorflow_are_named(tmp_path, function):
    x = L.Input((3,))
    model = tf_keras.Model(x, tf.abs(x))

    def edit(config):
        config["config"]["layers"][1]["config"]["function"] = function

    with pytest.raises(TfpruneError, match=rf"tf\.{function}.*no counterpart.*tf_keras"):
        load_model(save(model, tmp_path / "m.h5", edit))


def test_nodes_of_tensorflow_2_0(tmp_path, rng):
    """As TF 2.0 to 2.3 wrote them, when tf_keras of today no longer does."""
    model = chain((4, 6), L.Dense(6))
    with h5py.File(save(model, tmp_path / "m.h5"), "r+") as file:
        config = json.loads(file.attrs["model_config"])
        first, dense = (layer["name"] for layer in config["config"]["layers"])
        nodes = [
            ("add", "AddV2", {"1": 2.0}, [dense]), ("act", "Relu", {}, ["add"]),
            ("sum", "AddV2", {}, ["act", first]), ("cat", "ConcatV2", {"2": 2}, ["sum", "add"]),
            ("mean", "Mean", {"1": [1]}, ["cat"]), ("flat", "Reshape", {"1": [-1, 24]}, ["act"]),
        ]  # fmt: skip
        for name, op, constants, inputs in nodes:
            text = f'name: "{name}"\nop: "{op}"\ninput: "x"\nattr {{ key: "T" }}'
            inner = {"name": name, "node_def": text, "constants": constants}
            calls = [[[given, 0, 0, {}] for given in inputs]]
            layer = {"class_name": "TensorFlowOpLayer", "config": inner, "name": name}
            config["config"]["layers"].append({**layer, "inbound_nodes": calls})
        config["config"]["output_layers"] = [["mean", 0, 0], ["flat", 0, 0]]
        file.attrs["model_config"] = json.dumps(config)
    x = rng.normal(size=(2, 4, 6)).astype("float32")
    y = x @ model.get_weights()[0]
    cat = np.concatenate([np.maximum(y + 2, 0) + x, y + 2], -1)
    outputs = load_model(tmp_path / "m.h5")(x)
    np.testing.assert_allclose(outputs[0], cat.mean(1), atol=1e-5)
    np.testing.assert_allclose(outputs[1], np.maximum(y + 2, 0).reshape(2, 24), atol=1e-5)


REFUSED = [
    (L.LSTM(3), {"time_major": True}, "time_major=True"),
    (L.LSTM(3, activation="hard_sigmoid"), {}, "clip"),
    (L.BatchNormalization(), {"axis": [1, 2]}, "axis"),
    (L.BatchNormalization(), {"virtual_batch_size": 2}, "virtual_batch_size=2"),
    (L.Dense(3), {"spam": 3}, "spam=3"),
    (L.LocallyConnected1D(3, 2), {}, "no such layer"),
]


@pytest.mark.parametrize(("layer", "changes", "why"), REFUSED)
def test_what_has_no_counterpart_says_so(tmp_path, layer, changes, why):
    def edit(config):
        config["config"]["layers"][1]["config"] |= changes

    with pytest.raises(TfpruneError, match=rf"layer '{layer.name}'.*{why}") as caught:
        load_model(save(chain((5, 4), layer), tmp_path / "m.h5", edit))
    assert "\n" not in str(caught.value)


def test_other_outputs_are_no_silent_harm(tmp_path, rng):
    """Where Keras 3 computes something else, tf_keras tells."""
    model = shuffled(chain((4,), L.Dense(3), L.Dense(3)), rng)
    path = save(model, tmp_path / "m.h5")
    loaded = load_model(path)
    loaded.layers[1].kernel.assign(loaded.layers[1].kernel * 1.1)
    config = json.loads(h5py.File(path).attrs["model_config"])
    with pytest.raises(TfpruneError, match=r"differ by [\d.]+%"):
        keras2_in_tf_keras.difference(loaded, config, path)


@pytest.mark.parametrize("change", ["missing", "more", "shape"])
def test_every_weight_has_its_place(tmp_path, change):
    model = chain((4,), L.Dense(3), L.Dense(3))
    with h5py.File(save(model, tmp_path / "m.h5"), "r+") as file:
        group = file["model_weights"]
        names = [layer.name for layer in model.layers[1:]]
        if change == "missing":
            group.attrs["layer_names"] = names[:1]
        elif change == "more":
            group.create_group("extra").attrs["weight_names"] = ["w"]
            group["extra"]["w"] = np.ones(2)
            group.attrs["layer_names"] = [*names, "extra"]
        else:
            key = f"{names[0]}/kernel:0"
            del group[names[0]][key]
            group[names[0]][key] = np.ones((3, 4), "float32")
    with pytest.raises(TfpruneError, match="expected"):
        load_model(tmp_path / "m.h5")


def test_compile_settings(tmp_path):
    model = chain((4,), L.Dense(3, activation="softmax"))
    model.compile(tf_keras.optimizers.legacy.Adam(0.02, decay=0.1), "categorical_crossentropy",
                  metrics=["accuracy", tf_keras.metrics.Precision(name="p")])  # fmt: skip
    model.fit(np.ones((2, 4)), np.eye(3)[:2], verbose=0)
    path = save(model, tmp_path / "m.h5")
    with h5py.File(path, "r+") as file:
        training = json.loads(file.attrs["training_config"])
        optimizer = training["optimizer_config"]["config"]
        optimizer["lr"] = optimizer.pop("learning_rate")
        file.attrs["training_config"] = json.dumps(training)
    loaded = load_model(path, compiled=True)
    assert loaded.loss == "categorical_crossentropy"
    rates = [float(loaded.optimizer.learning_rate)]
    loaded.fit(np.ones((2, 4)), np.eye(3)[:2], verbose=0)
    rates.append(float(loaded.optimizer.learning_rate))
    np.testing.assert_allclose(rates, [0.02, 0.02 / 1.1], rtol=1e-5)
    assert set(loaded.evaluate(np.ones((2, 4)), np.eye(3)[:2], verbose=0, return_dict=True)) == {
        "loss", "accuracy", "p",
    }  # fmt: skip


@pytest.mark.parametrize("optimizer", ["adam", tf_keras.optimizers.SGD(0.3, momentum=0.9)])
def test_archives_of_keras_2(tmp_path, rng, optimizer):
    """``.keras`` as Keras 2.12 to 2.15 wrote it; settings as they were given to compile."""
    layers = [L.DepthwiseConv2D(3), L.LeakyReLU(0.3), L.Flatten(), L.Dense(2, "hard_sigmoid")]
    model = shuffled(chain((5, 5, 2), *layers), rng)
    model.compile(optimizer, "mse", metrics=["mae"])
    model.save(tmp_path / "m.keras")
    data = rng.normal(size=(2, 5, 5, 2)).astype("float32")
    said = same(model, data, tmp_path / "m.keras", compiled=True)
    assert "adapted: groups, alpha, hard_sigmoid; computes what tf_keras computes" in said
    loaded = load_model(tmp_path / "m.keras", compiled=True)
    assert loaded.loss == "mse"
    rate = 0.3 if optimizer != "adam" else 0.001
    assert float(loaded.optimizer.learning_rate) == pytest.approx(rate)


@pytest.mark.parametrize(
    "name",
    ["autoencoder_toycar.h5", "hand_keypoints.hdf5", "mobilenetv1_vww.h5", "resnet8_cifar10.h5",
     "streaming_wakeword.h5"],
)  # fmt: skip
def test_published_files(name, rng):
    folder = os.environ.get("TFPRUNE_MODELS", "")
    path = Path(folder) / name
    if not path.is_file():
        pytest.skip(f"needs {name}: set TFPRUNE_MODELS to a folder that has it")
    with quiet():
        model = tf_keras.models.load_model(path, compile=False)
    x = rng.random((4, *model.input_shape[1:])).astype("float32")
    said = same(model, x, path, compiled=True)
    assert ("adapted: groups" in said) == (name in ("mobilenetv1_vww.h5", "streaming_wakeword.h5"))
