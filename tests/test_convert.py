"""Exported files: what they weigh, what they compute, and which are refused."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

import tfprune
from tests.graphs import fill, outputs
from tfprune import TfpruneError, convert
from tfprune.litert import LiteModel, latencies
from tfprune.quiet import quiet


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(7)
    return fill(
        keras.Sequential(
            [
                keras.Input((40,), name="data"),
                kl.Dense(60, activation="relu", name="hidden"),
                kl.Dense(30, name="out"),
            ],
            name="small",
        ),
        rng,
    )


@pytest.fixture
def x(rng):
    return rng.normal(0, 1, (200, 40)).astype("float32")


WEIGHTS = 40 * 60 + 60 * 30
BIASES = 60 + 30


def test_every_scheme_weighs_what_its_weights_do_and_computes_the_same(model, x, tmp_path):
    schemes = ("float32", "float16", "dynamic", "int8", "int16x8")
    paths = tfprune.export(model, tmp_path / "new" / "folder", schemes, x)
    assert {path.name for path in paths.values()} == {f"small_{s}.tflite" for s in schemes}
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == sorted(
        path.name for path in paths.values()
    )
    size = {scheme: path.stat().st_size for scheme, path in paths.items()}
    parameters = WEIGHTS + BIASES
    assert parameters == model.count_params()
    # The rest is names, metadata and quantisation parameters.
    assert 4 * parameters < size["float32"] < 4 * parameters + 3500
    assert 2 * parameters < size["float16"] < 2 * parameters + 3500
    assert WEIGHTS + 4 * BIASES < size["int8"] < WEIGHTS + 4 * BIASES + 6500
    assert size["dynamic"] < size["float16"]
    expected = outputs(model, x)[0]
    for scheme, path in paths.items():
        lite = LiteModel(path.read_bytes())
        (received,) = lite.predict(x)
        tolerance = {"float32": 1e-4, "float16": 1e-2, "int16x8": 0.1}.get(scheme, 0.25)
        assert np.abs(received - expected).max() < tolerance * expected.std()
        assert (lite.steps[0] > 0) == (scheme == "int8")


def test_int8_takes_and_gives_int8(model, x, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    path = tfprune.export(model, tmp_path, ["int8"], x)["int8"]
    with quiet():
        interpreter = Interpreter(str(path))
    (inside,), (outside,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert inside["dtype"] == outside["dtype"] == np.int8
    assert inside["shape"].tolist() == [1, 40]


@pytest.mark.parametrize("batch", [None, 1, 8])
def test_batches(model, x, tmp_path, batch):
    path = tfprune.export(model, tmp_path, ["float32", "int8"], x, batch=batch)["float32"]
    lite = LiteModel(path.read_bytes())
    # 11 samples do not fill the second batch of 8.
    (received,) = lite.predict(x[:11])
    np.testing.assert_allclose(received, outputs(model, x[:11])[0], atol=1e-3)


def test_outputs_keep_their_order(rng, tmp_path):
    data = keras.Input((4,), name="data")
    outs = [kl.Dense(n, name=f"out{n}")(data) for n in (12, 3, 1, 2, 5, 4, 7, 6, 9, 8, 11, 10)]
    many = fill(keras.Model(data, outs, name="many"), rng)
    x = rng.normal(0, 1, (20, 4)).astype("float32")
    path = tfprune.export(many, tmp_path, ["float32"], x, name="other")["float32"]
    assert path.name == "other_float32.tflite"
    received = LiteModel(path.read_bytes()).predict(x)
    for ours, expected in zip(received, outputs(many, x), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def without_weights(model):
    """The route that drops the weights and reports nothing."""
    function = tf.function(lambda x: model(x)).get_concrete_function(
        tf.TensorSpec((1, 40), tf.float32)
    )
    with quiet():
        return tf.lite.TFLiteConverter.from_concrete_functions([function], model).convert()


def test_a_file_that_lost_its_weights_is_refused(model, x):
    data = without_weights(model)
    assert len(data) < 4 * WEIGHTS / 2
    with pytest.raises(TfpruneError, match="the float32 file (disagrees|does not run)"):
        convert.verify(data, "float32", x, outputs(model, x))


def test_a_file_of_another_model_is_refused(model, x, tmp_path):
    other = keras.models.clone_model(model)
    for scheme in ("float32", "float16", "dynamic", "int8"):
        data = tfprune.export(other, tmp_path, [scheme], x)[scheme].read_bytes()
        with pytest.raises(TfpruneError, match=f"the {scheme} file disagrees with Keras"):
            convert.verify(data, scheme, x, outputs(model, x))


def test_disagreement_by_hand():
    expected = np.array([[0.0], [2.0]])  # Their spread is 1.
    assert convert.disagreement(expected + 0.5, expected) == 0.5
    assert convert.disagreement(expected + 0.5, expected, step=0.25) == 0.25
    assert convert.disagreement(expected + 0.5, expected, step=0.5) == 0
    # Nothing varies: a twentieth of the values' size, 2, is the measure.
    assert convert.disagreement(np.full((3, 1), 2.5), np.full((3, 1), 2.0)) == pytest.approx(5)
    assert convert.disagreement(np.full((3, 1), 0.5), np.zeros((3, 1))) == 0.5


def test_what_cannot_be_exported_leaves_the_folder_alone(model, x, tmp_path):
    (tmp_path / "small_float32.tflite").write_bytes(b"before")
    for bad, message in (
        ({"schemes": ["float32", "int5"]}, "expected some of float32, .* received 'int5'"),
        ({"schemes": []}, "expected some of"),
        ({"representative": None}, "expected samples"),
        ({"representative": x[:, :7]}, r"shape \(40,\)"),
        ({"directory": tmp_path / "small_float32.tflite"}, "cannot be written"),
    ):
        arguments = {"directory": tmp_path, "schemes": ["float32"], "representative": x, **bad}
        with pytest.raises(TfpruneError, match=message):
            tfprune.export(model, **arguments)
    assert [p.name for p in tmp_path.iterdir()] == ["small_float32.tflite"]
    assert (tmp_path / "small_float32.tflite").read_bytes() == b"before"


def test_outputs_in_a_dict_keep_their_names(rng, tmp_path):
    data = keras.Input((4,), name="data")
    heads = {f"head_{n}": kl.Dense(3, name=f"head_{n}")(data) for n in (1, 2, 9, 10, 11)}
    model = fill(keras.Model(data, heads, name="heads"), rng)
    x = rng.normal(0, 1, (20, 4)).astype("float32")
    path = tfprune.export(model, tmp_path, ["float32"], x)["float32"]
    received = LiteModel(path.read_bytes()).predict(x)
    for ours, expected in zip(received, outputs(model, x), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_integer_schemes_of_recurrent_models_are_refused_before_they_crash(rng, tmp_path):
    data = keras.Input((4, 6), name="data")
    model = fill(keras.Model(data, kl.Dense(3)(kl.GRU(5, name="loop")(data))), rng)
    x = rng.normal(0, 1, (20, 4, 6)).astype("float32")
    with pytest.raises(TfpruneError, match=r"no int8 file .* recurrent layers \(loop\)"):
        tfprune.export(model, tmp_path, ["float32", "int8"], x)
    assert tfprune.export(model, tmp_path, ["float32", "dynamic"], x)


@pytest.mark.parametrize("batch", [0, -1, 2.5, "dynamic", 10**9])
def test_a_batch_is_a_whole_number_or_open(model, x, tmp_path, batch):
    with pytest.raises(TfpruneError, match="batch: expected a whole number"):
        tfprune.export(model, tmp_path, ["float32"], x, batch=batch)


def test_an_operator_that_tflite_lacks_is_told_in_a_line(rng, tmp_path):
    data = keras.Input((4,), name="data")
    strange = keras.Model(data, keras.ops.linalg.det(kl.Reshape((2, 2))(kl.Dense(4)(data))))
    x = rng.normal(0, 1, (20, 4)).astype("float32")
    with pytest.raises(TfpruneError, match="no float32 file can be made of it") as caught:
        tfprune.export(strange, tmp_path, ["float32"], x)
    assert "\n" not in str(caught.value)


def test_latency_is_in_microseconds_and_p10_below_the_median(model, x, tmp_path):
    paths = tfprune.export(model, tmp_path, ["float32", "int8"], x)
    models = [LiteModel(path.read_bytes()) for path in paths.values()]
    for measured in latencies(models, x[0]):
        assert 0 < measured["p10"] <= measured["median"] < 1e6
