"""How a model was compiled: what a pruned or healed one takes over, and what it must not share."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tfprune.data.splits import Split
from tfprune.graph.clone import clone
from tfprune.graph.compile_settings import fresh_optimizer
from tfprune.training.finetuning import FineTuner

ops = keras.ops


# Keras has losses of these names, which compute something else.
def dice(truth, predictions):
    return 5.0 + ops.mean(ops.square(truth - predictions))


def huber(truth, predictions):
    return 3.0 * ops.mean(ops.abs(truth - predictions))


def mae(truth, predictions):
    return 7.0 + ops.mean(ops.abs(truth - predictions), axis=-1)


class Huber(keras.losses.Loss):
    def __init__(self, by):
        super().__init__(name="huber")
        self.by = by

    def call(self, truth, predictions):
        return self.by * ops.mean(ops.square(truth - predictions), axis=-1)


class Above(keras.metrics.Metric):
    """The share of predictions above a limit, which no configuration tells."""

    def __init__(self, limit=0.0, name="above"):
        super().__init__(name=name)
        self.limit = limit
        self.total = self.add_weight(initializer="zeros", name="total")
        self.count = self.add_weight(initializer="zeros", name="count")

    def update_state(self, truth, predictions, sample_weight=None):
        above = ops.cast(predictions > self.limit, "float32")
        self.total.assign_add(ops.sum(above))
        self.count.assign_add(ops.cast(ops.size(above), "float32"))

    def result(self):
        return self.total / self.count


class Closed(Above):
    def __init__(self, table):
        super().__init__(float(table[0]), name="closed")


@pytest.fixture
def x(rng):
    return rng.normal(0, 1, (100, 8)).astype("float32")


def single():
    return keras.Sequential(
        [keras.Input((8,)), kl.Dense(16, activation="relu", name="hidden"), kl.Dense(1, name="a")]
    )


def named():
    model = single()
    return keras.Model(model.inputs[0], model.outputs[0])


def double():
    data = keras.Input((8,))
    hidden = kl.Dense(16, activation="relu", name="hidden")(data)
    return keras.Model(data, {name: kl.Dense(1, name=name)(hidden) for name in "ab"})


def listed():
    model = double()
    return keras.Model(model.inputs, model.outputs)


COMPILED = [
    (single, lambda: {"loss": dice}),
    (single, lambda: {"loss": huber, "metrics": ["mae", mae], "weighted_metrics": [mae]}),
    (
        single,
        lambda: {"loss": Huber(4.0), "metrics": ["mae", keras.metrics.MeanAbsoluteError(name="m")]},
    ),
    (single, lambda: {"loss": lambda truth, made: dice(truth, made), "metrics": [Above(0.1)]}),
    (
        single,
        lambda: {"loss": [dice], "metrics": [keras.metrics.MeanMetricWrapper(mae, name="wrapped")]},
    ),
    (named, lambda: {"loss": {"a": "mse"}, "metrics": {"a": [dice, "mae"]}}),
    (single, lambda: {"loss": dice, "run_eagerly": False}),
    (single, lambda: {"loss": "mse", "steps_per_execution": 3, "run_eagerly": False}),
    (double, lambda: {"loss": {"a": "mse", "b": dice}, "loss_weights": {"a": 1.0, "b": 0.01}}),
    (
        double,
        lambda: {
            "loss": {"a": dice, "b": huber},
            "metrics": {"a": [mae], "b": ["mse", Above(-0.2)]},
        },
    ),
    (
        listed,
        lambda: {"loss": [dice, "mse"], "loss_weights": [0.5, 2.0], "metrics": [["mae"], [mae]]},
    ),
]


@pytest.mark.parametrize(("build", "how"), COMPILED)
def test_a_pruned_model_is_compiled_as_the_original(x, build, how):
    model = build()
    model.compile("adam", **{"run_eagerly": True, **how()})
    y = {name: x[:, [at]] for at, name in enumerate("ab")}
    y = {double: y, listed: list(y.values())}.get(build, y["a"])
    model.fit(x, y, batch_size=50, verbose=0)
    trained = [weight.numpy() for weight in model.optimizer.variables]
    # No unit is that close to another: it computes the same.
    pruned = tfprune.prune(model, x, threshold=0.01).model
    before, after = (
        m.evaluate(x, y, sample_weight=x[:, 2] ** 2, verbose=0, return_dict=True)
        if len(model.outputs) == 1
        else m.evaluate(x, y, verbose=0, return_dict=True)
        for m in (model, pruned)
    )
    assert before == pytest.approx(after, rel=1e-5)
    assert pruned.loss == model.loss
    for name in ("run_eagerly", "steps_per_execution", "jit_compile"):
        assert getattr(pruned, name) == getattr(model, name)
    shared = {id(metric) for metric in _metrics(model)} & {id(m) for m in _metrics(pruned)}
    assert not shared
    pruned.fit(x, y, batch_size=50, verbose=0)
    assert int(model.optimizer.iterations) == int(pruned.optimizer.iterations) == 2
    for weight, value in zip(model.optimizer.variables, trained, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


def _metrics(model):
    return [metric for metric in model.metrics if metric.name not in ("loss", "compile_metrics")]


def test_healing_and_compressing_keep_what_a_model_was_compiled_with(x):
    model = double()
    how = {"loss": {"a": dice, "b": huber}, "metrics": {"a": [mae, Above(0.3)]}}
    model.compile("adam", **how, loss_weights={"a": 2.0, "b": 3.0}, run_eagerly=True)
    pruned = tfprune.prune(model, x, remove=0.5, refit=0).model
    healed = tfprune.heal_with_record(pruned, model, x, epochs=1).model
    y = {"a": x[:, :1], "b": x[:, 1:2]}
    made = {name: np.asarray(out) for name, out in healed(x).items()}
    losses = {name: how["loss"][name](y[name], made[name]) for name in "ab"}
    figures = healed.evaluate(x, y, batch_size=100, verbose=0, return_dict=True)
    assert figures["loss"] == pytest.approx(float(2 * losses["a"] + 3 * losses["b"]), rel=1e-5)
    assert figures["a_mae"] == pytest.approx(float(np.mean(mae(y["a"], made["a"]))), rel=1e-5)
    assert figures["a_above"] == pytest.approx(np.mean(made["a"] > 0.3), rel=1e-5)
    assert healed.loss == how["loss"]


class Adam(keras.optimizers.SGD):
    """Steps of half the length; named like one of Keras, and of arguments of its own."""

    def __init__(self, rate=0.1, halves=2.0, **kwargs):
        super().__init__(learning_rate=rate, **kwargs)
        self.rate, self.halves = rate, halves

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient / self.halves, variable, learning_rate)

    def get_config(self):
        return {"rate": self.rate, "name": self.name, "momentum": self.momentum}


class CosineDecay(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, start):
        self.start = start

    def __call__(self, step):
        return self.start / (1.0 + ops.cast(step, "float32"))


class Unready(keras.optimizers.SGD):
    def __init__(self, table):
        super().__init__(learning_rate=float(table[0]))

    def get_config(self):
        return {"name": self.name}


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: Adam(0.2, halves=4.0, momentum=0.5),
        lambda: keras.optimizers.SGD(CosineDecay(0.3), momentum=0.1),
        lambda: keras.optimizers.SGD(lambda: 0.05),
        lambda: keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.3, 10)),
        lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1, clipnorm=0.5),
        lambda: keras.optimizers.LossScaleOptimizer(Adam(0.2, halves=4.0), initial_scale=4.0),
    ],
)
def test_a_fresh_optimizer_takes_the_same_steps(x, optimizer):
    model = single()
    model.compile(optimizer(), "mse", run_eagerly=True)
    model.fit(x, x[:, :1], batch_size=100, epochs=2, verbose=0)
    copy = clone(model)
    assert type(copy.optimizer) is type(model.optimizer)
    assert copy.optimizer is not model.optimizer
    # As one that was made anew by hand.
    other = clone(model)
    other.compile(optimizer(), "mse", run_eagerly=True)
    for one in (copy, other):
        one.fit(x, x[:, :1], batch_size=100, epochs=3, shuffle=False, verbose=0)
    for ours, theirs in zip(copy.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_learning_rate_is_that_which_was_set_last(x):
    model = single()
    model.compile(keras.optimizers.Adam(0.1), "mse")
    model.optimizer.learning_rate = 0.002
    assert float(clone(model).optimizer.learning_rate) == pytest.approx(0.002)
    assert float(fresh_optimizer(model.optimizer, learning_rate=0.3).learning_rate) == (
        pytest.approx(0.3)
    )


@pytest.mark.parametrize("scaled", [True, False])
def test_losses_are_scaled_as_the_original_scales_them(x, scaled):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = single()
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile(keras.optimizers.SGD(0.01), dice, auto_scale_loss=scaled, run_eagerly=True)
    pruned = tfprune.prune(model, x, remove=0.5, refit=0).model
    kinds = keras.optimizers.LossScaleOptimizer
    assert isinstance(model.optimizer, kinds) == isinstance(pruned.optimizer, kinds) == scaled
    pruned.fit(x, x[:, :1], verbose=0)


def test_fine_tuning_uses_an_optimizer_and_a_loss_of_the_users_own(x):
    model = single()
    model.compile(keras.optimizers.SGD(CosineDecay(0.01)), [huber])
    y = x[:, 0].astype("float32")
    tuner = FineTuner(model, Split(x, y), model)
    predictions = model.predict(x, verbose=0)
    assert tuner.loss(model) == pytest.approx(float(huber(y, predictions)), rel=1e-5)
    assert tuner.loss(tuner.fine_tuned(model, 2, tuner)[0]) < tuner.loss(model)
