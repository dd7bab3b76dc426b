"""Right answers by class and changed answers, held against plain loops."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfprune.data.scoring import make_scorer
from tfprune.data.splits import Split
from tfprune.job.answers import SHOWN, Answers
from tfprune.outputs.decisions import Rule

SAMPLES, CLASSES = 200, 5


def outputs_of(rng, shape):
    values = rng.random(shape)
    return (values / values.sum(axis=-1, keepdims=True)).astype("float32")


def answers_of(rng, reference, labels, rules=None):
    """The answers of one file whose outputs are the reference's with noise."""
    x = rng.normal(0, 1, (len(reference), 3)).astype("float32")
    measure = make_scorer([reference], Split({"x": x}, labels), rules)
    noisy = reference + rng.normal(0, 0.1, reference.shape).astype("float32")
    answers = Answers(measure)
    answers.add("a.tflite", [noisy])
    return answers, noisy


def test_right_answers_of_each_class(rng):
    reference = outputs_of(rng, (SAMPLES, CLASSES))
    labels = rng.integers(0, CLASSES - 1, SAMPLES)  # The last class has no samples.
    answers, noisy = answers_of(rng, reference, labels)
    found = answers.classes
    samples, before, after = [0] * CLASSES, [0] * CLASSES, [0] * CLASSES
    for label, old, new in zip(labels.tolist(), reference, noisy, strict=True):
        samples[label] += 1
        before[label] += int(max(range(CLASSES), key=lambda c: old[c]) == label)
        after[label] += int(max(range(CLASSES), key=lambda c: new[c]) == label)
    assert (found["samples"], found["original"]) == (samples, before)
    assert found["right"] == {"a.tflite": after}
    assert found["each"] == "class"
    json.dumps(found)


def test_samples_whose_answer_changed(rng):
    reference = outputs_of(rng, (SAMPLES, CLASSES))
    labels = np.where(rng.random(SAMPLES) < 0.8, reference.argmax(axis=1), 0)
    answers, noisy = answers_of(rng, reference, labels)
    found = answers.changed("a.tflite")
    count = worse = better = 0
    for label, old, new in zip(labels, reference, noisy, strict=True):
        before, after = old.argmax(), new.argmax()
        count += before != after
        worse += bool(before == label != after)
        better += bool(before != label == after)
    assert (found["count"], found["worse"], found["better"]) == (count, worse, better)
    assert count > SHOWN
    assert len(found["samples"]) == SHOWN == len({one["index"] for one in found["samples"]})
    for one in found["samples"]:
        at = one["index"]
        assert one["before"] == reference[at].argmax() != one["after"] == noisy[at].argmax()
        assert one["label"] == labels[at]
    spoilt = [one["before"] == one["label"] for one in found["samples"]]
    assert spoilt == sorted(spoilt, reverse=True)
    json.dumps(found)


def test_one_unit_decides_between_two_classes(rng):
    reference = rng.random((SAMPLES, 1)).astype("float32")
    labels = (reference[:, 0] > 0.5).astype("float32")
    answers, noisy = answers_of(rng, reference, labels)
    right = [int(((noisy[:, 0] > 0.5) & (labels == 1)).sum())]
    right.insert(0, int(((noisy[:, 0] <= 0.5) & (labels == 0)).sum()))
    assert answers.classes["right"]["a.tflite"] == right
    assert answers.classes["original"] == answers.classes["samples"]
    assert answers.changed("a.tflite")["count"] == SAMPLES - sum(right)


def test_units_that_answer_yes_or_no_have_a_figure_each(rng):
    reference = rng.random((SAMPLES, 3)).astype("float32")
    labels = (reference > 0.5).astype(int)
    rules = [Rule(True, 0.5, "told", binary=True)]
    answers, noisy = answers_of(rng, reference, labels, rules)
    assert answers.classes["each"] == "unit"
    assert answers.classes["samples"] == [SAMPLES] * 3
    assert answers.classes["right"]["a.tflite"] == [
        int(((noisy[:, unit] > 0.5) == labels[:, unit]).sum()) for unit in range(3)
    ]
    assert answers.changed("a.tflite") is None


def test_positions_of_a_sample_count_by_class(rng):
    reference = outputs_of(rng, (20, 4, 4, CLASSES))
    labels = rng.integers(0, CLASSES, (20, 4, 4))
    answers, noisy = answers_of(rng, reference, labels)
    right = noisy.argmax(axis=-1) == labels
    assert answers.classes["right"]["a.tflite"] == [
        int(right[labels == one].sum()) for one in range(CLASSES)
    ]
    assert answers.changed("a.tflite") is None


@pytest.mark.parametrize("labels", [None, "values"])
def test_without_classes_there_is_nothing_to_count(rng, labels):
    reference = outputs_of(rng, (SAMPLES, CLASSES))
    y = None if labels is None else rng.normal(0, 1, reference.shape)
    answers, noisy = answers_of(rng, reference, y)
    assert answers.classes is None
    if labels is None:
        found = answers.changed("a.tflite")
        assert found["count"] == int((reference.argmax(1) != noisy.argmax(1)).sum())
        assert "worse" not in found
        assert "label" not in found["samples"][0]
    else:
        assert answers.changed("a.tflite") is None
