"""Models on which TensorFlow's converter ends its process are refused, and this process goes on."""

from __future__ import annotations

import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

import tfprune
from tests.support.graphs import outputs
from tests.support.paths import ROOT
from tfprune import TfpruneError
from tfprune.tflite import conversion_process, verification
from tfprune.tflite import converter as convert
from tfprune.tflite.interpreter import LiteModel
from tfprune.tflite.saved_model import UNROLLED_STEPS, recurrent_layers, unrolled
from tfprune.utils.child_process import Child

STEPS = (6, 4)


class Holder(kl.Layer):
    """A layer of a user's own with layers in a list in it."""

    def __init__(self, *inside, **options):
        super().__init__(**options)
        self.parts = list(inside)

    def build(self, shape):
        for part in self.parts:
            part.build(shape)
            shape = part.compute_output_shape(shape)

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x

    def compute_output_shape(self, shape):
        for part in self.parts:
            shape = part.compute_output_shape(shape)
        return shape


class Fold(kl.Layer):
    """Loops over time by TensorFlow, without a recurrent layer."""

    def call(self, x):
        return tf.map_fn(lambda one: 2 * one + 1, x)

    def compute_output_shape(self, shape):
        return shape


class Halving(kl.Layer):
    """A loop that keeps one value, which TensorFlow can calibrate."""

    def call(self, x):
        return keras.ops.while_loop(lambda n, a: n < 3, lambda n, a: (n + 1, a / 2), (0, x))[1]

    def compute_output_shape(self, shape):
        return shape


def nested(layer):
    inner = keras.Sequential([keras.Input(STEPS), layer], name="inner")
    return keras.Sequential([keras.Input(STEPS), inner], name="outer")


def model_of(body):
    """The body between an input and a Dense layer."""
    layers = [kl.Flatten(), kl.Dense(2, name="out")]
    return keras.Sequential([keras.Input(STEPS, name="data"), body, *layers], name="net")


LOOPS = {
    "plain": (lambda **o: kl.GRU(3, name="gru", **o), ["gru"]),
    "both ways": (
        lambda **o: kl.Bidirectional(kl.LSTM(3, name="lstm", **o), name="both"),
        ["both/forward_lstm", "both/backward_lstm"],
    ),
    "each": (
        lambda **o: kl.TimeDistributed(
            keras.Sequential([kl.Reshape((2, 2)), kl.SimpleRNN(3, name="rnn", **o)]), name="each"
        ),
        ["each/rnn"],
    ),
    "held": (
        lambda **o: Holder(kl.LSTM(3, name="lstm", **o), name="held"),
        ["held/lstm"],
    ),
    "held in held": (
        lambda **o: Holder(Holder(kl.Bidirectional(kl.GRU(2, name="gru", **o))), name="held"),
        ["held/forward_gru", "held/backward_gru"],
    ),
    "nested": (
        lambda **o: nested(kl.Bidirectional(kl.LSTM(3, name="lstm", **o), name="both")),
        ["outer/inner/both/forward_lstm", "outer/inner/both/backward_lstm"],
    ),
    "cells": (
        lambda **o: kl.RNN([kl.LSTMCell(3), kl.GRUCell(2)], name="cells", **o),
        ["cells"],
    ),
}


@pytest.fixture
def x(rng):
    return rng.normal(0, 1, (40, *STEPS)).astype("float32")


@pytest.mark.parametrize("kind", LOOPS)
def test_recurrent_layers_are_found_wherever_they_are(kind):
    body, named = LOOPS[kind]
    paths = list(recurrent_layers(model_of(body())))
    assert [re.sub(r"sequential(_\d+)?/", "", path) for path in paths] == named
    assert not recurrent_layers(model_of(body(unroll=True)))


@pytest.mark.parametrize("kind", ["both ways", "held", "nested"])
def test_recurrent_layers_are_unrolled_for_integers_alone(x, tmp_path, kind):
    model = model_of(LOOPS[kind][0]())
    (expected,) = outputs(model, x)
    files = tfprune.export(model, tmp_path, ["float32", "int8"], x)
    for scheme, tolerance in (("float32", 1e-3), ("int8", 0.25)):
        (received,) = LiteModel(files[scheme].read_bytes()).predict([x])
        assert np.abs(received - expected).max() < tolerance * expected.std()
    assert len(recurrent_layers(model)) == len(LOOPS[kind][1])  # They loop as before.
    np.testing.assert_array_equal(outputs(model, x)[0], expected)


MASKED = {
    "both ways": lambda: kl.Bidirectional(kl.LSTM(3, return_sequences=True)),
    "both ways, with states": lambda: kl.Bidirectional(
        kl.GRU(3, return_sequences=True, return_state=True)
    ),
    "summed": lambda: kl.Bidirectional(kl.SimpleRNN(3, return_sequences=True), merge_mode="sum"),
    "backwards": lambda: kl.GRU(3, return_sequences=True, go_backwards=True),
    "zeros": lambda: kl.GRU(
        3, return_sequences=True, go_backwards=True, zero_output_for_mask=True
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MASKED)
def test_masked_steps_are_the_same_unrolled(rng, x, kind):
    # At the ends and in the middle.
    x[rng.random(x.shape[:2]) < 0.4] = 0
    inputs = keras.Input(STEPS)
    model = keras.Model(inputs, MASKED[kind]()(kl.Masking()(inputs)))
    expected = keras.tree.flatten(model(x))
    with unrolled(model, STEPS[0]):
        received = keras.tree.flatten(model(x))
    assert recurrent_layers(model)  # They loop as before.
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    for one, other in zip(keras.tree.flatten(model(x)), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_integer_file_of_a_masked_tagger_is_the_model(rng, tmp_path):
    x = rng.integers(1, 20, (300, 6)).astype("int32")
    x[np.arange(6) >= rng.integers(2, 7, (300, 1))] = 0
    model = keras.Sequential([
        keras.Input((6,), dtype="int32"), kl.Embedding(20, 5, mask_zero=True),
        kl.Bidirectional(kl.LSTM(4, return_sequences=True)),
    ])  # fmt: skip
    (expected,) = outputs(model, x)
    path = tfprune.export(model, tmp_path, ["int8"], x)["int8"]
    (received,) = LiteModel(path.read_bytes()).predict([x])
    for half in np.split(received - expected, 2, axis=-1):
        assert half.std() < 0.2 * expected.std()


def test_many_features_are_not_steps(rng, tmp_path):
    x = rng.normal(0, 1, (20, 3, UNROLLED_STEPS + 1)).astype("float32")
    both = kl.Bidirectional(kl.SimpleRNN(2), name="both")
    model = keras.Sequential([keras.Input(x.shape[1:], name="data"), both, kl.Dense(2)])
    path = tfprune.export(model, tmp_path, ["int8"], x)["int8"]
    (received,), (expected,) = LiteModel(path.read_bytes()).predict([x]), outputs(model, x)
    assert np.abs(received - expected).max() < 0.25 * np.ptp(expected)


def test_too_many_steps_to_unroll_are_one_line(rng, tmp_path):
    steps = UNROLLED_STEPS + 1
    x = rng.normal(0, 1, (20, steps, 2)).astype("float32")
    for size in (steps, None):
        body = [keras.Input((size, 2), name="data"), kl.GRU(3, name="gru"), kl.Dense(2)]
        message = f"recurrent layers .gru.*layer gru: expected at most {UNROLLED_STEPS} .* {steps}"
        with pytest.raises(TfpruneError, match=message):
            tfprune.export(keras.Sequential(body), tmp_path, ["int8"], x)
        assert not list(tmp_path.iterdir())


def test_loops_of_other_layers_are_found_in_the_graph(x, tmp_path):
    for scheme in ("int8", "int16x8"):
        message = rf"{scheme} failed: .*no file .* of loops .*\(.*fold.*/while\)"
        with pytest.raises(TfpruneError, match=message):
            tfprune.export(model_of(Fold(name="fold")), tmp_path, [scheme], x)
    model = model_of(Halving())
    path = tfprune.export(model, tmp_path, ["int8"], x)["int8"]
    (received,), (expected,) = LiteModel(path.read_bytes()).predict([x]), outputs(model, x)
    assert np.abs(received - expected).max() < 0.25 * expected.std()


def test_a_crash_that_nobody_foresaw_is_one_line(x, tmp_path, monkeypatch):
    """What is refused above, sent on to the converter."""
    monkeypatch.setattr(convert, "collecting_loops", lambda function: [])
    model = model_of(kl.LSTM(3))
    message = "model net: no int8 file can be made of it: TensorFlow's converter crashed with SIG"
    with pytest.raises(TfpruneError, match=message) as caught:
        tfprune.export(model, tmp_path, ["float32", "int8"], x)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert tfprune.export(model, tmp_path, ["float32"], x)["float32"].stat().st_size


def test_a_file_that_crashes_when_it_runs_is_refused(x, monkeypatch):
    model = model_of(kl.Dense(3))
    ((_, data),) = convert.convert(model, ["float32"], [x])
    dying = Child("tests.support.answers")
    monkeypatch.setattr(conversion_process, "_CHILD", dying)
    with pytest.raises(TfpruneError, match="the float32 file crashes in LiteRT with SIGSEGV"):
        verification.verify(data, "float32", [x], outputs(model, x))
    dying.stop()


SCRIPT = """
import sys
sys.path.insert(0, ROOT)
import keras, numpy, tfprune
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="net")
print(tfprune.export(model, "out", ["int8"], numpy.eye(4, dtype="float32"))["int8"].name)
"""


def test_a_script_without_a_guard_exports(tmp_path):
    """A process that runs the script once more would do so for ever."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("ROOT", repr(str(ROOT))))
    done = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "net_int8.tflite\n"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["net_int8.tflite"]
