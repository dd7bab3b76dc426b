"""Exported files: what they weigh, what they compute, and which are refused."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

import tfprune
from tests.support.graphs import fill, outputs
from tfprune import TfpruneError
from tfprune.core.metrics import disagreement
from tfprune.graph.inputs import check_inputs
from tfprune.graph.precision import in_float32
from tfprune.tflite import converter, verification
from tfprune.tflite.interpreter import LiteModel, latencies
from tfprune.utils.console import quiet


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
        (received,) = lite.predict([x])
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
    (received,) = lite.predict([x[:11]])
    np.testing.assert_allclose(received, outputs(model, x[:11])[0], atol=1e-3)


def test_outputs_keep_their_order(rng, tmp_path):
    data = keras.Input((4,), name="data")
    outs = [kl.Dense(n, name=f"out{n}")(data) for n in (12, 3, 1, 2, 5, 4, 7, 6, 9, 8, 11, 10)]
    many = fill(keras.Model(data, outs, name="many"), rng)
    x = rng.normal(0, 1, (20, 4)).astype("float32")
    path = tfprune.export(many, tmp_path, ["float32"], x, name="other")["float32"]
    assert path.name == "other_float32.tflite"
    received = LiteModel(path.read_bytes()).predict([x])
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
        verification.verify(data, "float32", [x], outputs(model, x))


def test_a_file_of_another_model_is_refused(model, x, tmp_path):
    other = keras.models.clone_model(model)
    for scheme in ("float32", "float16", "dynamic", "int8"):
        data = tfprune.export(other, tmp_path, [scheme], x)[scheme].read_bytes()
        with pytest.raises(TfpruneError, match=f"the {scheme} file disagrees with Keras"):
            verification.verify(data, scheme, [x], outputs(model, x))


def test_disagreement_by_hand():
    expected = np.array([[0.0], [2.0]])  # Their spread is 1.
    assert disagreement(expected + 0.5, expected) == 0.5
    assert disagreement(expected + 0.5, expected, step=0.25) == 0.25
    assert disagreement(expected + 0.5, expected, step=0.5) == 0
    # Nothing varies: a twentieth of the values' size, 2, is the measure.
    assert disagreement(np.full((3, 1), 2.5), np.full((3, 1), 2.0)) == pytest.approx(5)
    assert disagreement(np.full((3, 1), 0.5), np.zeros((3, 1))) == 0.5


def test_what_cannot_be_exported_leaves_the_folder_alone(model, x, tmp_path):
    (tmp_path / "small_float32.tflite").write_bytes(b"before")
    for bad, message in (
        ({"schemes": ["float32", "int5"]}, "expected some of float32, .* received 'int5'"),
        ({"schemes": []}, "expected some of"),
        ({"representative": None}, "expected samples"),
        ({"representative": x[:, :7]}, r"shape \(40,\)"),
        ({"directory": tmp_path / "small_float32.tflite"}, "can be written, File exists"),
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
    received = LiteModel(path.read_bytes()).predict([x])
    for ours, expected in zip(received, outputs(model, x), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_integer_schemes_of_long_recurrent_models_are_refused_before_they_crash(rng, tmp_path):
    data = keras.Input((300, 6), name="data")
    model = fill(keras.Model(data, kl.Dense(3)(kl.GRU(5, name="loop")(data))), rng)
    x = rng.normal(0, 1, (20, 300, 6)).astype("float32")
    with pytest.raises(TfpruneError, match=r"int8 failed: .* no file .* recurrent layers \(loop\)"):
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
    for measured in latencies(models, [x[0]]):
        assert 0 < measured["p10"] <= measured["median"] < 1e6


def several(rng, kind="list", names=("zeta", "alpha", "mid"), indices=False):
    """Two inputs of one shape that mean different things, and a third; names out of order."""
    first, second = (keras.Input((6,), name=name) for name in names[:2])
    third = keras.Input((3,), dtype="int32" if indices else "float32", name=names[2])
    words = kl.Flatten()(kl.Embedding(5, 2, name="words")(third)) if indices else third
    both = kl.Concatenate()([kl.Subtract()([first, second]), words])
    out = kl.Dense(3, name="out")(kl.Dense(8, activation="relu", name="hidden")(both))
    tensors = [first, second, third]
    taken = {
        "list": tensors,
        "dict": dict(zip(names, tensors, strict=True)),
        "keys": dict(zip(("b", "c", "a"), tensors, strict=True)),
        "nested": [first, {"p": second, "q": third}],
        "lists": {"p": [first, third], "q": second},
    }
    return fill(keras.Model(taken[kind], out, name="several"), rng)


@pytest.fixture
def parts(rng):
    zeta, alpha = rng.normal(0, 1, (2, 60, 6)).astype("float32")
    mid = rng.integers(0, 5, (60, 3)).astype("float32")
    return {"zeta": 3 * zeta + 1, "alpha": alpha, "mid": mid}


def by_hand(model, parts):
    third = parts["mid"]
    if third.dtype.kind == "i":
        third = model.get_layer("words").get_weights()[0][third].reshape(len(third), -1)
    joined = np.hstack([parts["zeta"] - parts["alpha"], third])
    (hidden, bias), (out, shift) = (model.get_layer(n).get_weights() for n in ("hidden", "out"))
    return np.maximum(joined @ hidden + bias, 0) @ out + shift


def by_name(path, arrays):
    """The outputs of a file by the interpreter alone, its inputs by the signature's names."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        runner = Interpreter(str(path)).get_signature_runner()
    details = runner.get_input_details()
    assert set(details) == set(arrays)
    made = []
    for sample in zip(*arrays.values(), strict=True):
        fed = {}
        for name, value in zip(arrays, sample, strict=True):
            fed[name] = value[None].astype(details[name]["dtype"])
            if details[name]["dtype"] == np.int8:
                scale, zero = details[name]["quantization"]
                fed[name] = np.clip(np.round(value[None] / scale) + zero, -128, 127).astype("i1")
        (out,) = runner(**fed).values()
        (detail,) = runner.get_output_details().values()
        scale, zero = detail["quantization"]
        made.append((out[0].astype(float) - zero) * scale if scale else out[0])
    return np.array(made)


@pytest.mark.filterwarnings("ignore:When providing .inputs. as a dict")
@pytest.mark.parametrize(
    ("kind", "batch"),
    [
        ("list", 1),
        ("list", 4),
        ("list", None),
        ("dict", 1),
        ("keys", 1),
        ("nested", 1),
        ("lists", 1),
    ],
)
def test_every_scheme_takes_several_inputs_by_their_names(rng, parts, tmp_path, kind, batch):
    model = several(rng, kind)
    names = ("b", "c", "a") if kind == "keys" else tuple(parts)
    arrays = dict(zip(names, parts.values(), strict=True))
    given = arrays if kind in ("dict", "keys", "lists") else list(parts.values())
    schemes = ("float32", "float16", "dynamic", "int8", "int16x8")
    paths = tfprune.export(model, tmp_path, schemes, given, batch=batch)
    expected = by_hand(model, parts)
    for scheme, path in paths.items():
        lite = LiteModel(path.read_bytes(), converter.signature_names(model))
        (received,) = lite.predict(check_inputs(model, given))
        tolerance = {"float32": 1e-4, "float16": 1e-2, "int16x8": 0.1}.get(scheme, 0.25)
        assert np.abs(received - expected).max() < tolerance * expected.std()
        if batch == 1:
            np.testing.assert_allclose(by_name(path, arrays), received, atol=1e-4)
    assert latencies([lite], [data[0] for data in check_inputs(model, given)])


def test_inputs_of_numbers_and_of_indices(rng, parts, tmp_path):
    model = several(rng, indices=True)
    parts["mid"] = parts["mid"].astype("int32")
    paths = tfprune.export(model, tmp_path, ("float32", "float16", "dynamic", "int8"), parts)
    expected = by_hand(model, parts)
    for path in paths.values():
        assert np.abs(by_name(path, parts) - expected).max() < 0.25 * expected.std()
    with pytest.raises(TfpruneError, match="no int16x8 file .* inputs of whole numbers"):
        tfprune.export(model, tmp_path, ["int16x8"], parts)


@pytest.mark.parametrize(
    "names",
    [
        ("my input", "a.b", "a-b"),
        ("class", "self", "x"),
        ("A", "a", "_b"),
        ("gr\u00f6\u00dfe", "x", "y"),
    ],
)
def test_names_that_tensorflow_cannot_take_are_numbered(rng, parts, tmp_path, names):
    model = several(rng, "list", names)
    x = list(parts.values())
    path = tfprune.export(model, tmp_path, ["float32"], x)["float32"]
    received = by_name(path, {f"input_{n}": data for n, data in enumerate(x)})
    np.testing.assert_allclose(received, outputs(model, x)[0], atol=1e-4)


def test_inputs_that_are_mixed_up_are_refused(rng, parts, tmp_path):
    model = several(rng)
    path = tfprune.export(model, tmp_path, ["float32"], parts)["float32"]
    data, x = path.read_bytes(), list(parts.values())
    names = converter.signature_names(model)
    verification.verify(data, "float32", x, outputs(model, x), names)
    with pytest.raises(TfpruneError, match="disagrees with Keras"):
        verification.verify(data, "float32", x, outputs(model, x), [names[1], names[0], names[2]])
    for wrong in ([], names[:2], [*names[:2], "other"]):
        with pytest.raises(TfpruneError, match=r"the names of its inputs \(alpha, mid, zeta\)"):
            LiteModel(data, wrong)
    for bad, message in (
        (x[:2], r"expected 3 arrays, one for each input .* \(zeta, alpha, mid\), received 2"),
        ({"zeta": x[0], "alpha": x[1]}, "by the names of the inputs .* received zeta, alpha"),
        ([x[0], x[1][:9], x[2]], "input alpha: expected 60 samples"),
    ):
        with pytest.raises(TfpruneError, match=message):
            tfprune.export(model, tmp_path, ["float32"], bad)


HALVES = ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"]


def as_float32(model, x):
    """What a Sequential of Dense layers computes, by plain arithmetic."""
    for layer in model.layers:
        kernel, bias = (weight.astype(np.float32) for weight in layer.get_weights())
        x = x @ kernel + bias
        x = np.maximum(x, 0) if layer.activation is keras.activations.relu else x
    return x


@pytest.mark.parametrize("policy", [*HALVES, "float64"])
def test_models_of_other_precision_are_exported_as_float32(rng, x, tmp_path, policy):
    layers = [kl.Dense(9, activation="relu", dtype=policy), kl.Dense(3, dtype=policy)]
    kind = policy if policy in ("float16", "float64") else "float32"
    model = keras.Sequential([keras.Input((40,), dtype=kind), *layers], name="half")
    schemes = ("float32", "float16", "dynamic", "int8", "int16x8")
    paths = tfprune.export(model, tmp_path, schemes, x)
    # What a float16 input holds is all that the model can know.
    taken = x.astype(kind).astype("float32")
    expected = as_float32(model, taken)
    for scheme, path in paths.items():
        (received,) = LiteModel(path.read_bytes()).predict([taken])
        tolerance = {"float32": 1e-4, "float16": 1e-2, "int16x8": 0.1}.get(scheme, 0.25)
        assert np.abs(received - expected).max() < tolerance * expected.std()
    assert [layer.dtype_policy.name for layer in model.layers] == [policy, policy]
    parameters = model.count_params()
    assert 4 * parameters < paths["float32"].stat().st_size < 4 * parameters + 3500


@pytest.mark.parametrize("policy", HALVES[:2])
def test_half_precision_anywhere_in_a_model_is_found(rng, tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    try:
        data, other = keras.Input((4, 6), name="data"), keras.Input((5, 3), name="a")
        inner = keras.Input((4, 3))
        nested = keras.Model(inner, kl.Dense(4, activation="relu", name="deep")(inner), name="net")
        wrapped = kl.TimeDistributed(kl.Dense(3, name="float16"), dtype="float32")(data)
        seen = kl.Flatten()(nested(kl.BatchNormalization()(wrapped)))
        read = kl.Bidirectional(kl.LSTM(3, unroll=True), name="both")(other)
        joined = keras.ops.tanh(kl.Concatenate()([seen, read])) * 2
        out = kl.Dense(2, dtype="float32")(keras.ops.cast(joined, "float16"))
        model = keras.Model([data, other], out, name="mixed")
    finally:
        keras.config.set_dtype_policy("float32")
    x = [rng.normal(0, 1, (40, *t.shape[1:])).astype("float32") for t in model.inputs]
    paths = tfprune.export(model, tmp_path, ["float32", "int8"], x)
    lite = LiteModel(paths["float32"].read_bytes(), ["data", "a"])
    # The outputs of the model itself differ by what half precision rounds away.
    (received,), (expected,) = lite.predict(x), outputs(model, x)
    assert 0 < np.abs(received - expected).max() < 0.05 * expected.std()


def test_models_of_float32_are_not_copied(model):
    assert in_float32(model) is model
    data = keras.Input((4,), dtype="float16")
    assert in_float32(keras.Model(data, kl.Dense(2)(data))).inputs[0].dtype == "float32"


def test_an_open_axis_has_the_size_of_the_samples(rng, tmp_path):
    data = keras.Input((None, None, 3), name="image")
    maps = kl.Conv2D(4, 3, activation="relu")(data)
    model = keras.Model(data, kl.Dense(2)(kl.GlobalAveragePooling2D()(maps)))
    x = rng.random((40, 12, 10, 3)).astype("float32")
    for batch in (1, None):
        paths = tfprune.export(model, tmp_path, ["float32", "int8"], x, batch=batch)
        received = LiteModel(paths["float32"].read_bytes()).predict([x])[0]
        np.testing.assert_allclose(received, model.predict(x, verbose=0), atol=1e-5)
