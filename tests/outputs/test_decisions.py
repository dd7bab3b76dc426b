"""What single units and rows of them decide, by activation, loss, or range, in this order."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

from tfprune.data.scoring import make_scorer
from tfprune.data.splits import Split
from tfprune.outputs.decisions import activations_of, rule_of, rules_of
from tfprune.training.finetuning import FineTuner

# Three inputs of 0..1, of which the model's single output is 0.1 to 0.9.
X = np.array([[0.1], [0.3], [0.6], [0.9]], np.float32)
LOW, HALF = [1, 1, 1, 1], [0, 0, 1, 1]
CLASSIFIER = keras.losses.BinaryCrossentropy


def identity(*behind, loss=None, activation=None):
    """A model whose only weight is 1."""
    dense = kl.Dense(1, activation=activation, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((1,)), dense, *behind])
    if loss is not None:
        model.compile("sgd", loss=loss)
    return model


def decided(model):
    outputs = [model.predict(X, verbose=0)]
    (rule,) = rules_of(model, outputs)
    return rule.decisions(outputs[0]).ravel().tolist(), rule.reason


@pytest.mark.parametrize(
    ("loss", "expected", "reason"),
    [
        (None, LOW, "linear"),
        (CLASSIFIER(from_logits=True), LOW, "logits"),
        (keras.losses.BinaryFocalCrossentropy(from_logits=True), LOW, "logits"),
        (CLASSIFIER(), HALF, "probabilities"),
        ("binary_crossentropy", HALF, "probabilities"),
        (keras.losses.binary_crossentropy, HALF, "probabilities"),
        ("hinge", LOW, "hinge"),
        ("mse", HALF, "values"),
        (keras.losses.MeanAbsoluteError(), HALF, "values"),
        (lambda y, p: keras.ops.mean((y - p) ** 2), LOW, "linear"),
    ],
)
def test_a_linear_unit_decides_by_the_loss_whatever_its_values_are(loss, expected, reason):
    classes, why = decided(identity(loss=loss))
    assert classes == expected
    assert reason in why


def test_a_loss_that_only_its_author_has_is_no_obstacle():
    rule = rule_of(X, "linear", "dice_of_my_own")
    assert rule.decisions(X).tolist() == LOW


def test_the_activation_comes_before_the_loss():
    # All between 0.5 and 0.71: all yes.
    sigmoid = identity(activation="sigmoid", loss=CLASSIFIER(from_logits=True))
    classes, why = decided(sigmoid)
    assert (classes, why) == (LOW, "its activation is sigmoid")
    shifted = identity(kl.Rescaling(1.0, offset=-0.45), kl.Activation("tanh"), loss="mse")
    assert decided(shifted) == (HALF, "its activation is tanh")


def test_the_range_is_the_last_resort():
    unknown = identity(kl.Rescaling(1.0))
    assert decided(unknown) == (HALF, "its values lie between 0 and 1")
    wide = identity(kl.Rescaling(1.0, offset=-0.2))
    assert decided(wide) == ([0, 1, 1, 1], "its values do not lie between 0 and 1")


@pytest.mark.parametrize(
    ("behind", "name"),
    [
        ((), "linear"),
        ((kl.Reshape((1, 1)), kl.Flatten(), kl.Dropout(0.5)), "linear"),
        ((kl.Activation("linear"), kl.Identity()), "linear"),
        ((kl.Activation("sigmoid"), kl.Flatten()), "sigmoid"),
        ((kl.Reshape((1, 1, 1)), kl.UpSampling2D(4, interpolation="bilinear")), "linear"),
        ((kl.Reshape((1, 1, 1)), kl.Resizing(3, 3)), "linear"),
        ((kl.Reshape((1, 1)), kl.GlobalAveragePooling1D()), "linear"),
        ((kl.Activation("hard_sigmoid"),), "hard_sigmoid"),
        ((kl.ReLU(),), ""),
        ((kl.BatchNormalization(),), ""),
        ((keras.Sequential([keras.Input((1,)), kl.Dense(1, activation="tanh")]),), "tanh"),
    ],
)
def test_the_activation_is_looked_for_behind_what_moves_values(behind, name):
    assert activations_of(identity(*behind)) == [name]


def test_the_activation_of_an_operation_and_of_several_outputs():
    image = keras.Input((3,))
    logits = kl.Dense(1)(image)
    model = keras.Model(image, [keras.ops.sigmoid(logits), logits, logits + 1.0])
    assert activations_of(model) == ["sigmoid", "linear", ""]
    model.compile("sgd", loss=[None, CLASSIFIER(), "mse"])
    outputs = [np.asarray(out) for out in model.predict(np.ones((2, 3)), verbose=0)]
    rules = rules_of(model, outputs)
    assert [rule.threshold for rule in rules] == [0.5, 0.5, 0.5]
    assert rules[2].values


BITS = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])


def rows(activation, loss=None):
    """A model of three units that are its input, or the sigmoid of it."""
    dense = kl.Dense(3, activation=activation, kernel_initializer="identity")
    model = keras.Sequential([keras.Input((3,)), dense])
    if loss is not None:
        model.compile("sgd", loss=loss)
    return model


@pytest.mark.parametrize(
    ("activation", "loss", "threshold"),
    [
        ("sigmoid", None, 0.5),
        ("sigmoid", "binary_crossentropy", 0.5),
        ("linear", CLASSIFIER(from_logits=True), 0),
    ],
)
def test_several_labels_at_once_are_counted_as_keras_binary_accuracy_does(
    activation, loss, threshold
):
    model = rows(activation, loss)
    x = np.array([[2, -1, -3], [-1, -2, 1], [1, 1, 2], [-2, -1, 3]], np.float32)
    outputs = [model.predict(x, verbose=0)]
    measure = make_scorer(outputs, Split(x, BITS), rules_of(model, outputs))
    keras_says = keras.metrics.BinaryAccuracy(threshold=threshold)
    keras_says.update_state(BITS, outputs[0])
    assert measure.scores(outputs)["accuracy"] == pytest.approx(float(keras_says.result()))
    assert measure.scores(outputs)["accuracy"] == pytest.approx(8 / 12)
    moved = outputs[0].copy()
    moved[0] = -moved[0] if threshold == 0 else 1 - moved[0]
    assert measure.scores([moved])["agreement"] == pytest.approx(9 / 12)
    assert not measure.classifies
    (note,) = measure.notes
    assert "binary_accuracy" in note
    assert f"above {threshold:g}" in note
    # Trained as such: what is right costs less.
    tuner = FineTuner(model, Split(x, (x > 0).astype(int)))
    assert tuner.loss(model) < FineTuner(model, Split(x, (x < 0).astype(int))).loss(model)


@pytest.mark.parametrize("activation", ["linear", "softmax", "relu"])
def test_values_of_0_and_1_are_values_where_no_unit_says_yes_or_no(activation):
    model = rows(activation, "mse" if activation == "linear" else None)
    x = np.array([[2, -1, -3], [-1, -2, 1], [1, 1, 2], [-2, -1, 3]], np.float32)
    outputs = [model.predict(x, verbose=0)]
    measure = make_scorer(outputs, Split(x, BITS), rules_of(model, outputs))
    assert measure.metric == "mse"
    assert measure.scores(outputs)["mse"] == pytest.approx(np.mean((outputs[0] - BITS) ** 2))


def test_rows_of_one_1_are_classes_of_sigmoids_as_well():
    model = rows("sigmoid", "binary_crossentropy")
    x = np.array([[2, -1, -3], [-1, -2, -1.5], [1, 1, 2]], np.float32)
    outputs = [model.predict(x, verbose=0)]
    measure = make_scorer(outputs, Split(x, np.eye(3)), rules_of(model, outputs))
    assert measure.classifies
    assert measure.scores(outputs)["accuracy"] == pytest.approx(2 / 3)


def test_without_labels_an_output_of_values_agrees_by_variance(rng):
    """Years are all above 0: that they stay so is no agreement."""
    model = identity(loss="mse")
    x = rng.normal(20, 2, (4000, 1))
    noisy = x + rng.normal(0, 1, x.shape)
    for one in (model, identity()):
        measure = make_scorer([x], Split(np.zeros((4000, 3))), rules_of(one, [x]))
        expected = 1 - np.mean((noisy - x) ** 2) / x.var()
        assert measure.scores([noisy])["agreement"] == pytest.approx(expected, rel=1e-4)
        assert measure.notes == []


def test_the_notes_say_above_what_the_output_decides():
    model = identity(activation="sigmoid")
    outputs = [model.predict(X, verbose=0)]
    measure = make_scorer(outputs, Split(X, np.array(HALF)), rules_of(model, outputs))
    assert measure.notes == [
        "the output decides for class 1 above 0.5, as its activation is sigmoid"
    ]
    assert measure.about == {
        "metric": "accuracy", "output": 0, "labels": "classes", "thresholds": [0.5],
    }  # fmt: skip
    three = np.eye(3)
    assert make_scorer([three], Split(X, np.array([0, 1, 2]))).notes == []


def test_other_samples_are_decided_by_the_same_rule():
    """Validation logits that happen to lie between 0 and 1, of a model that nothing is known of."""
    wide = np.array([[-2.0], [0.4], [0.3], [1.5]])
    measure = make_scorer([wide], Split(X, np.array(LOW)))
    later = measure.like([X], Split(X, np.array(LOW)))
    assert later.scores([X])["accuracy"] == 1
    assert later.some(slice(2)).scores([X[:2]])["accuracy"] == 1


def test_fine_tuning_takes_logits_for_logits_and_labels_with_an_axis_of_one(rng):
    """A unit whose values all lie between 0 and 1 learns as Keras' own loss from logits."""
    model = identity()
    y = np.array([0, 1, 0, 1])
    ones = y[:, None].astype(np.float32)
    expected = CLASSIFIER(from_logits=True)(ones, X)
    assert FineTuner(model, Split(X, y)).loss(model) == pytest.approx(float(expected), rel=1e-5)
    picture = keras.Input((4, 4, 2))
    model = keras.Model(picture, kl.Conv2D(3, 1)(picture))
    x = rng.normal(0, 1, (6, 4, 4, 2)).astype(np.float32)
    classes = rng.integers(0, 3, (6, 4, 4))
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
        classes, model.predict(x, verbose=0)
    )
    for labels in (classes, classes[..., None]):
        loss = FineTuner(model, Split(x, labels)).loss(model)
        assert loss == pytest.approx(float(expected), rel=1e-4)
