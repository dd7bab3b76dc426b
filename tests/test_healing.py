"""Healing and fine-tuning as a library's user meets them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

import tfprune
from tests.graphs import fill
from tfprune.datasets import digits
from tfprune.finetune import Lesson
from tfprune.parts import Part, prepare


@pytest.fixture(scope="module")
def data():
    return prepare(digits(0), "auto", None, 300, 0)


@pytest.fixture(scope="module")
def taught(data):
    """A classifier of the digits, logits, compiled with settings of its own; and pruned."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input(data.train.x.shape[1:]), kl.Conv2D(4, 3, activation="relu", name="seen"),
         kl.MaxPooling2D(4), kl.Flatten(), kl.Dense(48, activation="relu", name="hidden"),
         kl.Dropout(0.2), kl.Dense(10, name="out")]
    )  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.003), loss, metrics=["accuracy"])
    model.fit(data.train.x, data.train.y, batch_size=64, epochs=12, verbose=0)
    return model, tfprune.prune(model, data.calibration.x, remove=0.85, refit=0).model


def error(model, teacher, x):
    """Mean squared difference of all outputs, by what Keras computes."""
    ours, theirs = (
        [np.asarray(out, float) for out in keras.tree.flatten(m.predict(x, verbose=0))]
        for m in (model, teacher)
    )
    return [float(np.mean((a - b) ** 2)) for a, b in zip(ours, theirs, strict=True)]


def test_healing_comes_nearer_to_the_original_on_unseen_data(taught, data):
    model, pruned = taught
    before = [w.copy() for w in pruned.get_weights()]
    healed = tfprune.heal(pruned, model, data.train.x, 8, logits=False)
    (was,), (now,) = (error(m, model, data.test.x) for m in (pruned, healed))
    assert now < 0.6 * was
    accuracy = [
        np.mean(m.predict(data.test.x, verbose=0).argmax(1) == data.test.y)
        for m in (pruned, healed)
    ]
    assert accuracy[1] > accuracy[0]
    assert all(map(np.array_equal, before, pruned.get_weights()))
    # What pruning left alone stays, and so do names and compile settings.
    for mine, theirs in zip(healed.layers[0].weights, model.layers[0].weights, strict=True):
        assert np.array_equal(mine, theirs)
    assert [layer.name for layer in healed.layers] == [layer.name for layer in pruned.layers]
    assert healed.compiled
    assert type(healed.optimizer) is keras.optimizers.Adam
    assert float(healed.optimizer.learning_rate) == pytest.approx(0.003)
    assert healed.loss.get_config()["from_logits"]
    assert healed.evaluate(data.test.x, data.test.y, verbose=0)[1] == pytest.approx(accuracy[1])


def test_logits_learn_the_originals_probabilities(taught, data):
    """The teacher was compiled with a loss of logits, so nothing needs to be said."""
    model, pruned = taught
    healed = tfprune.heal(pruned, model, data.train.x, 8)

    def divergence(other):
        p, q = (keras.ops.log_softmax(m.predict(data.test.x, verbose=0)) for m in (other, model))
        return np.mean(np.sum(np.exp(q) * (np.asarray(q) - np.asarray(p)), axis=1))

    assert divergence(healed) < 0.6 * divergence(pruned)


def test_the_same_seed_gives_the_same_weights_and_another_one_others(taught, data):
    model, pruned = taught
    one, same, other = (
        tfprune.heal(pruned, model, data.train.x, 2, seed=seed).get_weights() for seed in (1, 1, 2)
    )
    assert all(map(np.array_equal, one, same))
    assert not all(map(np.array_equal, one, other))


def test_data_sets_and_files_heal_as_arrays_do(taught, data, tmp_path):
    model, pruned = taught
    x = data.train.x
    (was,) = error(pruned, model, data.test.x)
    np.save(tmp_path / "x.npy", x)
    stream = tf.data.Dataset.from_tensor_slices((x, data.train.y)).batch(100)
    from_file = tfprune.heal(pruned, model, tmp_path / "x.npy", 3)
    for one, two in zip(
        from_file.get_weights(), tfprune.heal(pruned, model, x, 3).get_weights(), strict=True
    ):
        assert np.array_equal(one, two)
    healed = tfprune.heal(pruned, model, stream, 8, logits=False)
    assert error(healed, model, data.test.x)[0] < 0.6 * was


def test_every_layer_learns_where_the_first_was_pruned(taught, data):
    """Filters too; the features in front of what changed are then the samples themselves."""
    model, _ = taught
    pruned = tfprune.prune(model, data.calibration.x, remove=0.5, refit=0, layers="all").model
    healed = tfprune.heal(pruned, model, data.train.x, 6)
    assert error(healed, model, data.test.x)[0] < 0.6 * error(pruned, model, data.test.x)[0]
    first, second = (m.get_layer("seen").get_weights() for m in (pruned, healed))
    assert not np.array_equal(first[0], second[0])


def several(rng):
    """Two inputs; a softmax behind its own layer, a nested sigmoid, and values."""
    one, two = keras.Input((6,), name="one"), keras.Input((5,), name="two")
    x = kl.Concatenate()([one, kl.Dense(6, activation="tanh", name="left")(two)])
    x = kl.Dense(24, activation="relu", name="hidden")(x)
    x = kl.Dropout(0.5)(kl.BatchNormalization(name="norm")(x))
    classes = kl.Softmax(name="classes")(kl.Dense(4, name="scores")(x))
    nested = keras.Sequential([keras.Input((24,)), kl.Dense(2, activation="sigmoid")], name="yes")
    values = kl.Dense(3, name="values")(x)
    outputs = {"classes": classes, "yes": nested(x), "values": values}
    return fill(keras.Model({"one": one, "two": two}, outputs), rng)


def test_two_inputs_and_three_outputs_of_several_kinds(rng):
    from tfprune.distance import difference, kinds_of

    model = several(rng)
    kinds = dict(zip(sorted(model.output), kinds_of(model), strict=True))
    assert kinds == {"classes": "softmax", "yes": "sigmoid", "values": "linear"}
    x = {name: rng.standard_normal((600, n)).astype("float32") for name, n in
         (("one", 6), ("two", 5))}  # fmt: skip
    pruned = tfprune.prune(model, x, remove=0.5, refit=0, layers=["hidden"]).model
    healed = tfprune.heal(pruned, model, x, 15)
    assert not healed.compiled
    new = {name: rng.standard_normal(a.shape).astype("float32") for name, a in x.items()}
    arrays = [new["one"], new["two"]]
    # The sum over outputs: one that is near already may give way a little.
    assert difference(healed, model, arrays) < 0.8 * difference(pruned, model, arrays)
    # The statistics stay, and what is in front of the pruned layer too.
    for mine, theirs in zip(
        healed.get_layer("norm").get_weights()[2:],
        pruned.get_layer("norm").get_weights()[2:],
        strict=True,
    ):
        assert np.array_equal(mine, theirs)
    assert np.array_equal(
        healed.get_layer("left").get_weights()[0], model.get_layer("left").get_weights()[0]
    )


def test_the_loss_of_probabilities_is_the_divergence_from_the_teacher(rng):
    from tfprune.distance import difference

    x = rng.standard_normal((50, 5)).astype("float32")
    made = []
    for _ in range(2):
        i = keras.Input((5,))
        made.append(fill(keras.Model(i, kl.Dense(4, activation="softmax")(i)), rng))
    p, q = (np.asarray(m.predict(x, verbose=0), float) for m in made)
    divergence = np.mean(np.sum(q * np.log(q / p), axis=1))
    assert difference(made[0], made[1], [x]) == pytest.approx(divergence, rel=1e-3)
    assert difference(made[0], made[0], [x]) == pytest.approx(0, abs=1e-6)


def test_the_loss_of_logits_is_the_divergence_at_a_temperature_of_two(rng):
    from tfprune.distance import difference

    x = rng.standard_normal((50, 5)).astype("float32")
    i = keras.Input((5,))
    made = [fill(keras.Model(i, kl.Dense(4)(i)), rng) for _ in range(2)]
    p, q = (np.exp(np.asarray(m.predict(x, verbose=0), float) / 2) for m in made)
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    divergence = 4 * np.mean(np.sum(q * np.log(q / p), axis=1))
    assert difference(*made, [x], logits=True) == pytest.approx(divergence, rel=1e-3)
    # Not said otherwise, linear outputs are values; a compiled loss may say otherwise.
    squared = np.mean((made[0].predict(x, verbose=0) - made[1].predict(x, verbose=0)) ** 2)
    variance = np.mean(np.var(made[1].predict(x, verbose=0), axis=0))
    assert difference(*made, [x]) == pytest.approx(squared / variance, rel=1e-3)
    made[1].compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert difference(*made, [x]) == pytest.approx(divergence, rel=1e-3)


def test_what_was_not_changed_is_not_trained(taught, data):
    model, _ = taught
    same = tfprune.heal(model, model, data.train.x[:50], 1)
    assert same is not model
    assert all(map(np.array_equal, same.get_weights(), model.get_weights()))


def test_half_precision_heals(rng):
    i = keras.Input((6,), dtype="float32")
    policy = "mixed_bfloat16"
    x = kl.Dense(16, activation="relu", dtype=policy)(i)
    model = fill(keras.Model(i, kl.Dense(3, dtype=policy)(x)), rng)
    data = rng.standard_normal((400, 6)).astype("float32")
    pruned = tfprune.prune(model, data, remove=0.6, refit=0).model
    (was,), (now,) = (
        error(m, model, data) for m in (pruned, tfprune.heal(pruned, model, data, 10))
    )
    assert now < 0.8 * was


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs: expected a whole number from 1, received 0"),
        ({"epochs": 1.5}, "epochs: expected a whole number"),
        ({"epochs": 1, "batch_size": -1}, "batch_size: expected a whole number"),
        ({"epochs": 1, "learning_rate": 0}, "learning_rate: expected a number in"),
        ({"epochs": 1, "learning_rate": float("nan")}, "learning_rate: expected a number in"),
        ({"epochs": 1, "x": np.zeros((9, 3))}, "expected samples of shape"),
    ],
)
def test_mistakes_are_told(taught, data, settings, message):
    model, pruned = taught
    with pytest.raises(tfprune.TfpruneError, match=message) as caught:
        tfprune.heal(pruned, model, **{"x": data.train.x, **settings})
    assert "\n" not in str(caught.value)


def test_another_kind_of_teacher_is_told(taught, data):
    other = keras.Sequential([keras.Input(data.train.x.shape[1:]), kl.Flatten(), kl.Dense(3)])
    with pytest.raises(tfprune.TfpruneError, match="teacher .*: expected outputs of shapes"):
        tfprune.heal(taught[1], other, data.train.x, 1)


def test_a_training_that_bursts_is_told(rng):
    i = keras.Input((4,))
    x = kl.Dense(16, activation="exponential", name="hidden")(i)
    model = fill(keras.Model(i, kl.Dense(2)(x)), rng)
    data = (10 * rng.standard_normal((300, 4))).astype("float32")
    pruned = tfprune.prune(model, data, remove=0.5, refit=0).model
    with pytest.raises(tfprune.TfpruneError, match="healing: expected a finite loss.*smaller"):
        tfprune.heal(pruned, model, data, 50, learning_rate=1)


def test_fine_tuning_learns_the_labels(taught, data):
    model, pruned = taught
    train = data.train
    assert train.y is not None
    tuned = Lesson(model, train).taught(pruned, 3)
    losses = [m.evaluate(train.x, train.y, verbose=0)[0] for m in (pruned, tuned)]
    assert losses[1] < losses[0]
    again = Lesson(model, train).taught(pruned, 3)
    assert all(map(np.array_equal, tuned.get_weights(), again.get_weights()))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "one logit", "values"])
def test_fine_tuning_takes_the_loss_from_output_and_labels(rng, kind):
    x = rng.standard_normal((400, 6)).astype("float32")
    truth = x @ rng.standard_normal((6, 3))
    y = {"values": truth, "softmax": truth.argmax(1)}.get(kind, (truth[:, 0] > 0).astype(int))
    units = 3 if kind in ("softmax", "values") else 1
    activation = kind if kind in ("softmax", "sigmoid") else None
    model = keras.Sequential(
        [keras.Input((6,)), kl.Dense(16, activation="relu"), kl.Dense(units, activation=activation)]
    )

    def score(m):
        out = m.predict(x, verbose=0)
        if kind == "values":
            return -np.mean((out - truth) ** 2)
        decided = out.argmax(1) if units > 1 else out[:, 0] > (0.5 if activation else 0)
        return np.mean(decided == y)

    tuned = Lesson(model, Part(x, y)).taught(model, 30)
    assert score(tuned) > (score(model) * 0.9 if kind == "values" else 0.8)


@pytest.mark.slow
def test_outputs_without_labels_stay_as_the_teachers(rng):
    model = several(rng)
    x = {name: rng.standard_normal((600, n)).astype("float32") for name, n in
         (("one", 6), ("two", 5))}  # fmt: skip
    y = rng.integers(0, 4, 600)
    tuned = Lesson(model, Part(x, y)).taught(model, 3)
    spread = float(np.var(model.predict(x, verbose=0)["values"]))
    assert error(tuned, model, x)[sorted(model.output).index("values")] < 0.2 * spread


def test_weights_of_four_bits_are_on_their_grid_and_learn_to_live_there(taught, data):
    model, pruned = taught
    healed = tfprune.heal(pruned, model, data.train.x, 6, logits=False)
    there = tfprune.heal(healed, model, data.train.x, 6, logits=False, bits=4)

    def on_grid(model):
        """Each output's weights as whole multiples of a seventh of the largest, by hand."""
        made = keras.models.clone_model(model)
        made.set_weights(model.get_weights())
        for name in ("hidden", "out"):
            kernel, bias = made.get_layer(name).get_weights()
            scale = np.abs(kernel).max(axis=0) / 7
            made.get_layer(name).set_weights([np.round(kernel / scale) * scale, bias])
        return made

    for name in ("hidden", "out"):
        ours, theirs = (m.get_layer(name).get_weights()[0] for m in (there, on_grid(there)))
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    (rounded,), (learnt,) = (error(m, model, data.test.x) for m in (on_grid(healed), there))
    assert learnt < 0.7 * rounded


@pytest.mark.parametrize("bits", [1, 9, 4.0, True])
def test_bits_are_two_to_eight(taught, data, bits):
    model, pruned = taught
    with pytest.raises(tfprune.TfpruneError, match="bits: expected a whole number from 2 to 8"):
        tfprune.heal(pruned, model, data.train.x, 1, bits=bits)
