"""Every layer that makes units is in the table: pruned, skipped with its reason, or named below."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.support.graphs import chain
from tfprune import TfpruneError


class Projection(kl.Layer):
    """Multiplies with a kernel of its own."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.scale = self.add_weight(shape=(self.units,), name="scale")

    def call(self, x):
        return (x @ self.kernel) * self.scale

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.units)


class Scale(kl.Layer):
    """Has weights, and makes no units."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")

    def call(self, x):
        return x * self.scale


class Block(kl.Layer):
    """Holds layers, one of them in a list."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = kl.Dense(4, name="first")
        self.rest = [kl.Conv1D(3, 1, name="conv"), kl.LayerNormalization()]

    def build(self, shape):
        self.first.build(shape)
        self.rest[0].build((*shape[:-1], 4))
        self.rest[1].build((*shape[:-1], 3))

    def call(self, x):
        return self.rest[1](self.rest[0](self.first(x)))

    def compute_output_shape(self, shape):
        return (*shape[:-1], 3)


class MyDense(kl.Dense):
    pass


class Inner(keras.Model):
    @classmethod
    def of_steps(cls):
        data = keras.Input((3,))
        return cls(data, kl.Dense(3, name="dense")(data), name="inner")


def inner():
    data = keras.Input((10, 3))
    return Inner(data, kl.Dense(3, name="dense")(data), name="inner")


def several(*layers, tail=(), batch=None):
    data = keras.Input((10, 3), batch_size=batch)
    return keras.Sequential([data, *layers, kl.Flatten(), *tail, kl.Dense(2)])


def attention(kind):
    data = keras.Input((10, 3))
    layer = kind(data, data)
    return keras.Model(data, kl.Dense(2)(kl.Flatten()(layer)))


CASES = {
    "steps of a model of a class of its own": (
        lambda: several(kl.TimeDistributed(Inner.of_steps(), name="steps")),
        {"steps/inner/dense": "inside steps (TimeDistributed), which is not looked into"},
    ),
    "steps of a layer of its own": (
        lambda: several(kl.TimeDistributed(Projection(4, name="own"), name="steps")),
        {"steps/own": "inside steps (TimeDistributed), which is not looked into"},
    ),
    "steps of a layer with a state": (
        lambda: several(
            kl.TimeDistributed(kl.Reshape((3, 1))),
            kl.TimeDistributed(kl.LSTM(4, stateful=True, name="lstm"), name="steps"), batch=20
        ),
        {"steps/lstm": "inside steps (TimeDistributed), which is not looked into"},
    ),
    "both ways of cells": (
        lambda: several(kl.Bidirectional(kl.RNN(kl.GRUCell(4), name="rnn"), name="both")),
        {
            "both/forward_rnn": "inside both (Bidirectional), which is not looked into",
            "both/backward_rnn": "inside both (Bidirectional), which is not looked into",
        },
    ),
    "recurrent": (
        lambda: several(
            kl.RNN(kl.GRUCell(3), name="cell", return_sequences=True), kl.Reshape((10, 3, 1)),
            kl.ConvLSTM1D(2, 2, name="lstm"),
        ),
        {"cell": "the units of the cells of an RNN are not pruned",
         "lstm": "the filters of a ConvLSTM are not pruned"},
    ),
    "gated attention": (
        lambda: attention(kl.MultiHeadAttention(2, 3, use_gate=True, name="mha")),
        {"mha": "its heads are gated"},
    ),
    "einsum": (
        lambda: several(kl.EinsumDense("abc,cd->abd", output_shape=(10, 4), name="einsum")),
        {"einsum": "the units of an EinsumDense are not pruned"},
    ),
    "a kernel of its own": (
        lambda: several(Projection(4, name="own"), Scale()),
        {"own": "Projection is not one of Keras' layers"},
    ),
    "a subclass": (
        lambda: several(MyDense(4, name="mine")),
        {"mine": "MyDense is not one of Keras' layers"},
    ),
    "layers in a layer": (
        lambda: several(Block(name="block")),
        {
            "block/first": "inside block (Block), which is not looked into",
            "block/conv": "inside block (Block), which is not looked into",
        },
    ),
    "a spectral norm": (
        lambda: several(kl.SpectralNormalization(kl.Conv1D(4, 2, name="conv"), name="norm")),
        {"norm/conv": "inside norm (SpectralNormalization), which is not looked into"},
    ),
    "a model of a class of its own": (
        lambda: several(inner()),
        {"inner/dense": "inside inner (Inner), which is not looked into"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_layer_with_units_has_its_row(rng, case):
    build, expected = CASES[case]
    model = build()
    result = tfprune.prune(model, rng.normal(0, 1, (40, 10, 3)), 5, layers="all")
    reasons = {skip.name: skip.reason for skip in result.skipped}
    assert reasons.pop(model.layers[-1].name) == "output layer"
    assert reasons == expected
    assert not result.others
    for name, reason in expected.items():
        assert any(row.startswith(name) and row.endswith(reason) for row in str(result).split("\n"))
    # Named, it is skipped with the same reason; spared, it is said to be.
    (name, reason), *_ = expected.items()
    data = rng.normal(0, 1, (40, 10, 3))
    assert (name, reason) in [(s.name, s.reason) for s in prune(model, data, [name]).skipped]
    spared = tfprune.prune(model, data, 5, layers="all", skip=[name]).skipped
    assert (name, "asked to skip") in [(s.name, s.reason) for s in spared]


def prune(model, x, names):
    return tfprune.prune(model, x, 5, layers=names)


def test_an_embedding_has_its_row(rng):
    model = keras.Sequential(
        [keras.Input((4,), dtype="int32"), kl.Embedding(9, 3, name="words"), kl.Flatten(),
         kl.Dense(5, name="hidden"), kl.Dense(2)]
    )  # fmt: skip
    result = tfprune.prune(model, rng.integers(0, 9, (40, 4)), remove=0.4, refit=0, layers="all")
    assert [layer.name for layer in result.layers] == ["words", "hidden"]


def test_layers_of_other_kinds_are_named_in_a_line(rng):
    model = several(
        *[kl.Conv1D(3, 1, name=f"conv{at}") for at in range(4)],
        kl.RNN(kl.LSTMCell(4), return_sequences=True, name="lstm"),
        kl.SpectralNormalization(kl.Conv1D(2, 1, name="deep"), name="norm"),
        tail=[kl.Dense(6, activation="relu", name="hidden")],
    )
    result = tfprune.prune(model, rng.normal(0, 1, (40, 10, 3)), 5)
    table = str(result).split("\n")
    # One line names them all; they have no rows of their own.
    assert sum("(lstm)" in line for line in table) == 1
    assert [line for line in table if line.startswith("also there")] == [
        "also there, not asked for: 4 Conv1D (conv0, conv1, conv2, ...)",
        "also there, never pruned: 1 RNN (lstm), 1 Conv1D (norm/deep)",
    ]


@pytest.mark.parametrize(
    ("layers", "sentence", "lines"),
    [
        (None, "the model has no Dense layer", ["not asked for: 1 Conv1D (conv)"]),
        ("dense", "the model has no Dense layer", ["not asked for: 1 Conv1D (conv)"]),
        ("conv", "every convolution was skipped", []),
        ("all", "every layer with units was skipped", []),
        (["conv"], "every layer asked for was skipped", []),
        ([], "no layer was asked for", ["not asked for: 1 Conv1D (conv)"]),
    ],
)
def test_nothing_to_prune_says_what_was_asked_for_and_what_there_is(rng, layers, sentence, lines):
    model = keras.Sequential(
        [keras.Input((10, 3)), kl.RNN(kl.LSTMCell(4), return_sequences=True, name="lstm"),
         kl.Conv1D(3, 1, name="conv")]
    )  # fmt: skip
    result = tfprune.prune(model, rng.normal(0, 1, (40, 10, 3)), layers=layers)
    said = str(result).split("\n")
    assert f"nothing to prune: {sentence}" in said
    rest = [*lines, *(["never pruned: 1 RNN (lstm)"] * (layers != "all"))]
    assert [line for line in said if line.startswith("also")] == [f"also there, {r}" for r in rest]
    assert ("the cells" in str(result)) == (layers == "all")


def test_layers_that_do_not_exist_are_still_told(rng):
    with pytest.raises(TfpruneError, match="layer 'hiden' is no layer of the model with units"):
        tfprune.prune(chain(rng), np.zeros((40, 6)), layers=["hiden"])
