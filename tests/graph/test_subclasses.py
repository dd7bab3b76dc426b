"""Models of a class of the user's own: what a copy is, and what is said where it is another."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tfprune import PruningWarning, TfpruneError
from tfprune.graph.clone import clone

ops = keras.ops


@pytest.fixture
def x(rng):
    return rng.normal(0, 1, (64, 8)).astype("float32")


def notes_on_the_class(result):
    """The notes but for what half of the units of random weights cost."""
    return [note for note in result.notes if not note.startswith("pruning changed the outputs")]


class Counting(keras.Model):
    """As Keras' guide to ``train_step`` has it, with a metric of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = keras.metrics.Sum(name="seen")

    def train_step(self, data):
        logs = super().train_step(data)
        self.seen.update_state(ops.shape(data[0])[0])
        return {**logs, "seen": self.seen.result()}

    @property
    def metrics(self):
        return [*super().metrics, self.seen]


class Weighted(keras.Model):
    """Takes an argument, of which its configuration knows nothing."""

    def __init__(self, inputs, outputs, factor=1.0):
        super().__init__(inputs, outputs)
        self.factor = factor

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self.factor * super().compute_loss(x, y, y_pred, sample_weight, training)


class Chain(keras.Sequential):
    def train_step(self, data):
        return {**super().train_step(data), "chain": 1.0}


class Built(keras.Model):
    """Builds its graph itself."""

    def __init__(self, units):
        data = keras.Input((8,))
        hidden = kl.Dense(units, activation="relu", name="hidden")(data)
        super().__init__(data, kl.Dense(2)(hidden))

    def train_step(self, data):
        return {**super().train_step(data), "built": 1.0}


class Doubling(keras.Model):
    def call(self, inputs, training=False):
        return 2 * super().call(inputs, training=training)


class Watching(keras.Model):
    """Computes what its layers do."""

    def call(self, inputs, training=False):
        return super().call(inputs, training=training)


def graph(kind, **more):
    data = keras.Input((8,))
    hidden = kl.Dense(32, activation="relu", name="hidden")(data)
    return kind(data, kl.Dense(2)(hidden), **more)


def chain():
    return Chain([keras.Input((8,)), kl.Dense(32, activation="relu", name="hidden"), kl.Dense(2)])


@pytest.mark.parametrize(
    "build", [lambda: graph(Counting), chain, lambda: graph(Watching), lambda: graph(keras.Model)]
)
def test_a_result_is_of_the_models_class(x, build):
    model = build()
    model.compile("adam", "mse", run_eagerly=True)
    model.get_layer("hidden").trainable = False
    result = tfprune.prune(model, x, remove=0.5, refit=0)
    healed = tfprune.heal_with_record(result.model, model, x, 1).model
    for made in (result.model, healed):
        assert type(made) is type(model)
        assert made.name == model.name
        assert not made.get_layer("hidden").trainable
        assert made.get_layer("hidden").units == 16
        keys = made.fit(x, x[:, :2], epochs=2, verbose=0).history.keys()
        assert keys == model.fit(x, x[:, :2], epochs=2, verbose=0).history.keys()
    assert not notes_on_the_class(result)
    if isinstance(model, Counting):
        assert model.seen is not healed.seen


def test_arguments_and_attributes_of_a_class_go_with_it(x):
    model = graph(Weighted, factor=3.0)
    model.classes = ["a", "b"]
    model.first = model.get_layer("hidden")
    model.compile("sgd", "mse", run_eagerly=True)
    copy = clone(model)
    assert type(copy) is Weighted
    figures = [m.evaluate(x, x[:, :2], verbose=0) for m in (copy, model)]
    assert figures[0] == pytest.approx(figures[1])
    assert copy.classes == ["a", "b"]
    assert copy.first is copy.get_layer("hidden")
    model.factor = 0.5  # Set later than it was made.
    assert clone(model).factor == 0.5


def test_what_cannot_be_of_the_class_says_so(x):
    model = Built(32)
    model.compile("sgd", "mse")
    with pytest.warns(PruningWarning, match="is a plain Functional and no Built.*; train_step of"):
        result = tfprune.prune(model, x, remove=0.5, refit=0)
    assert len(notes_on_the_class(result)) == 1
    assert type(result.model) is type(keras.Model(model.inputs, model.outputs))
    assert "built" not in result.model.fit(x, x[:, :2], verbose=0).history
    model = graph(Counting)
    model.teacher = keras.Sequential([keras.Input((8,)), kl.Dense(2)])
    with pytest.warns(PruningWarning, match="lacks teacher, which Counting .* has"):
        tfprune.prune(model, x, remove=0.5, refit=0)


def test_a_call_that_computes_something_else_is_refused(x):
    model = graph(Doubling)
    with pytest.raises(TfpruneError, match="the call of its class Doubling computes something"):
        tfprune.prune(model, x)
    with pytest.raises(TfpruneError, match="the call of its class Doubling computes something"):
        tfprune.heal(model, model, x, 1)


@pytest.mark.parametrize("kind", [Counting, Watching, Built])
def test_such_a_model_inside_another(x, kind):
    inner = Built(12) if kind is Built else graph(kind)
    data = keras.Input((8,))
    hidden = kl.Dense(10, activation="relu", name="first")(data)
    hidden = kl.Dense(8, name="second")(hidden)
    model = keras.Model(data, kl.Dense(3)(inner(hidden)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PruningWarning)
        result = tfprune.prune(model, x, remove=0.5, refit=20)
    assert [(layer.name, layer.units_after) for layer in result.layers] == [("first", 5)]
    assert [note.split(" ")[1] for note in notes_on_the_class(result)] == [inner.name] * (
        kind is Built
    )
    copy = clone(model)
    np.testing.assert_array_equal(np.asarray(copy(x)), np.asarray(model(x)))
    if kind is not Built:
        assert type(copy.layers[3]) is kind


def test_a_compile_of_the_users_own_is_told(x):
    class Own(keras.Model):
        def compile(self, first, second):
            super().compile(first, "mse")
            self.second = second

    model = graph(Own)
    model.compile("sgd", "adam")
    with pytest.warns(PruningWarning, match="not compiled: Own has a compile of its own"):
        result = tfprune.prune(model, x, remove=0.5, refit=0)
    assert type(result.model) is Own

    class Told(Own):
        def get_compile_config(self):
            return {"first": "sgd", "second": "adam"}

        def compile_from_config(self, config):
            self.compile(**config)

    model = graph(Told)
    model.compile("sgd", "adam")
    result = tfprune.prune(model, x, remove=0.5, refit=0)
    assert (result.model.compiled, result.model.second) == (True, "adam")
    assert not notes_on_the_class(result)
