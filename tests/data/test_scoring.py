"""What labels mean, and scores by hand arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from tfprune.data.scoring import make_scorer
from tfprune.data.splits import Split
from tfprune.errors import TfpruneError
from tfprune.outputs.decisions import rule_of

LOGITS = np.array([[0.1, 0.9, 0.0], [2.0, 1.0, -1.0], [0.0, 0.1, 0.2], [1.0, 0.0, 0.5]])
X = np.zeros((4, 7))


def test_accuracy_agreement_and_output_error_by_hand():
    measure = make_scorer([LOGITS], Split(X, np.array([1, 0, 2, 2], np.uint8)))
    assert measure.metric == "accuracy"
    assert measure.scores([LOGITS])["accuracy"] == 0.75
    moved = LOGITS.copy()
    moved[0, 0] += 1.0  # 1.1 beats 0.9: the first sample changes its class.
    scores = measure.scores([moved])
    assert scores["accuracy"] == 0.5
    assert scores["agreement"] == 0.75
    spread = np.sqrt(np.mean((LOGITS - LOGITS.mean(axis=0)) ** 2))
    assert scores["output_error"] == pytest.approx(np.sqrt(1 / 12) / spread)


def test_without_labels_agreement_and_output_error_remain():
    scores = make_scorer([LOGITS], Split(X)).scores([LOGITS])
    assert scores == {"agreement": 1.0, "output_error": 0.0}


@pytest.mark.parametrize(
    ("output", "labels", "metric"),
    [
        (LOGITS, [[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0]], "accuracy"),
        (LOGITS, [[1], [0], [2], [0]], "accuracy"),
        (LOGITS, [1.0, 0.0, 2.0, 0.0], "accuracy"),
        (LOGITS, [[1.0], [0.0], [2.0], [0.0]], "accuracy"),
        (LOGITS, LOGITS + 0.5, "mse"),
        (LOGITS[:, :1], [0.0, 1.0, 0.0, 1.0], "accuracy"),
        (LOGITS[:, :1], [[0.0], [1.0], [0.0], [1.0]], "accuracy"),
        (LOGITS[:, :1], [0.0, 1.0, 2.0, 1.0], "mse"),
        (LOGITS[:, :1], [0, 1, 0, 1], "accuracy"),
        (LOGITS[:, :1], [[0], [1], [0], [1]], "accuracy"),
        (LOGITS[:, :1], [0.5, 1.5, 0.5, 1.5], "mse"),
        (LOGITS[:, :1], [[0.5], [1.5], [0.5], [1.5]], "mse"),
        (LOGITS[:, :1], [3, 1, 0, 7], "mse"),
        (np.repeat(LOGITS[:, None], 5, 1), np.ones((4, 5), int), "accuracy"),
    ],
)
def test_the_shapes_say_what_labels_mean(output, labels, metric):
    measure = make_scorer([output], Split(X, np.array(labels)))
    assert measure.metric == metric
    assert metric in measure.scores([output])


def test_the_labels_find_their_output():
    measure = make_scorer([LOGITS[:, :2], LOGITS], Split(X, np.array([1, 0, 2, 0])))
    assert measure.output == 1
    assert measure.scores([LOGITS[:, :2], LOGITS])["accuracy"] == 1


def test_an_output_as_large_as_the_input_reconstructs_it():
    x = np.arange(128.0).reshape(4, 32)
    for labels in (None, np.array([1, 0, 2, 9]), np.array([[1.0], [0.0], [2.0], [9.0]])):
        measure = make_scorer([x + 2], Split(x, labels))
        assert measure.scores([x + 2]) == {"mse": 4.0, "agreement": 1.0, "output_error": 0.0}


def test_an_output_as_large_as_one_of_several_inputs_is_no_copy_of_it():
    x = np.arange(128.0).reshape(4, 32)
    assert make_scorer([x + 2], Split({"a": x, "b": x})).metric is None
    assert (
        make_scorer([x + 2], Split({"a": x, "b": x}, np.array([1, 0, 2, 9]))).metric == "accuracy"
    )


def test_probabilities_are_no_reconstruction_however_many():
    x = np.random.default_rng(0).normal(0, 1, (4, 32))
    shares = np.abs(x) / np.abs(x).sum(axis=1, keepdims=True)
    assert make_scorer([shares], Split(x)).metric is None
    assert make_scorer([shares], Split(x, np.array([1, 0, 2, 31]))).metric == "accuracy"
    with pytest.raises(TfpruneError, match="fit no output"):
        make_scorer([shares], Split(x, np.array([1, 0, 2, 32])))


def test_float_labels_are_counted_as_the_classes_they_name():
    for kind in (float, np.float32):
        measure = make_scorer([LOGITS], Split(X, np.array([1, 0, 2, 2], kind)))
        assert measure.scores([LOGITS])["accuracy"] == 0.75


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1, 2, 3],
        [0.0, 1.0, 2.0, 3.0],
        [0.5, 1, 2, 0],
        [-1, 0, 1, 2],
        [[1, 2], [1, 2], [1, 2], [1, 2]],
    ],
)
def test_labels_that_fit_no_output_are_told(labels):
    with pytest.raises(TfpruneError, match=r"fit no output of the model \(shapes \(3,\)\)"):
        make_scorer([LOGITS], Split(X, np.array(labels)))


def test_a_single_unit_decides_at_the_middle_of_the_references_range():
    """Where nothing but the values is known."""
    probabilities, logits = np.array([[0.2], [0.6]]), np.array([[-0.2], [0.3]])
    assert rule_of(probabilities).decisions(probabilities).tolist() == [0, 1]
    assert rule_of(logits).decisions(logits).tolist() == [0, 1]
    # Rounding may take the one negative value away; the boundary stays.
    assert rule_of(logits).decisions(np.array([[0.0], [0.3]])).tolist() == [0, 1]


def test_pictures_of_classes_agree_pixel_by_pixel(rng):
    reference = rng.normal(0, 1, (6, 4, 4, 3))
    moved = reference.copy()
    # One pixel of each picture changes its class.
    changed = reference[:, 0, 0].argmin(axis=-1)
    moved[np.arange(6), 0, 0, changed] += 100
    for labels in (None, reference.argmax(axis=-1), reference.argmax(axis=-1)[..., None]):
        measure = make_scorer([reference], Split(np.zeros((6, 4, 4, 1)), labels))
        assert measure.scores([moved])["agreement"] == pytest.approx(15 / 16)
        assert measure.scores([reference])["agreement"] == 1
        if labels is not None:
            assert measure.metric == "accuracy"
            assert measure.scores([moved])["accuracy"] == pytest.approx(15 / 16)
    single = reference[..., :1]
    measure = make_scorer([single], Split(np.zeros((6, 4, 4, 2))))
    flipped = single.copy()
    flipped[:, 2] *= -1
    assert measure.scores([flipped])["agreement"] == pytest.approx(12 / 16)


def test_of_several_outputs_agreement_is_that_of_the_worst(rng):
    picture, kind = rng.normal(0, 1, (10, 5, 5, 2)), rng.normal(0, 1, (10, 4))
    measure = make_scorer([picture, kind], Split(np.zeros((10, 3))))
    moved = np.roll(kind, 1, axis=1)
    moved[:7] = kind[:7]
    assert measure.scores([picture, moved])["agreement"] == pytest.approx(0.7)
    assert measure.scores([-picture, moved])["agreement"] == 0


def test_labels_with_an_axis_of_one_are_those_without(rng):
    """As Keras takes them for sparse categorical cross entropy."""
    outputs, y = rng.random((8, 3, 5, 4)), rng.integers(0, 4, (8, 3, 5))
    plain = make_scorer([outputs], Split(np.zeros((8, 3)), y))
    axis = make_scorer([outputs], Split(np.zeros((8, 3)), y[..., None].astype(np.float32)))
    assert plain.scores([outputs]) == axis.scores([outputs])
    assert plain.scores([outputs])["accuracy"] == np.mean(outputs.argmax(-1) == y)
    assert axis.target.shape == (8, 3, 5)


def test_all_labels_say_what_some_of_them_are():
    """Whole numbers among the test labels of a regression are values all the same."""
    outputs = np.array([[0.0], [1.0], [1.0]])
    some = Split(np.zeros((3, 2)), np.array([0.0, 1.0, 0.0]))
    assert make_scorer([outputs], some).metric == "accuracy"
    measure = make_scorer([outputs], some, labels=np.array([0.0, 1.0, 0.0, 2.5]))
    assert measure.metric == "mse"
    assert measure.scores([outputs])["mse"] == pytest.approx(1 / 3)
    later = measure.like([outputs[:2]], Split(np.zeros((2, 2)), np.array([1.0, 1.0])))
    assert later.scores([outputs[:2]])["mse"] == 0.5


def test_classes_numbered_from_1_are_told():
    with pytest.raises(TfpruneError, match="numbered from 1"):
        make_scorer([LOGITS], Split(X, np.array([1, 2, 3, 1])))


def test_labels_belong_to_the_output_that_decides(rng):
    """A single unit that could be held against anything stands first."""
    values, five, three = rng.normal(0, 1, (60, 1)), rng.random((60, 5)), rng.random((60, 3))
    y = rng.permutation(np.repeat(np.arange(3), 20))
    found = make_scorer([values, five, three], Split(np.zeros((60, 4)), y))
    assert (found.metric, found.output) == ("accuracy", 2)
    assert make_scorer([values, five], Split(np.zeros((60, 4)), y)).output == 1
    assert make_scorer([values, five], Split(np.zeros((60, 4)), values[:, 0])).output == 0


def test_agreement_of_values_is_the_share_of_their_variance(rng):
    reference = rng.normal(3, 2, (5000, 1))
    made = make_scorer([reference], Split(np.zeros((5000, 4)), reference[:, 0] + 1))
    noisy = reference + rng.normal(0, 1, reference.shape)
    assert made.scores([reference])["agreement"] == 1
    assert made.scores([noisy])["agreement"] == pytest.approx(
        1 - np.mean((noisy - reference) ** 2) / reference.var()
    )
    assert made.scores([-reference])["agreement"] == 0


def test_what_says_whether_outputs_are_as_good(rng):
    x = Split(np.zeros((30, 2)))
    logits, years = rng.normal(0, 1, (30, 3)), rng.normal(40, 5, (30, 1))
    softmax, linear, mse = (
        rule_of(logits, "softmax"), rule_of(logits, "linear"), rule_of(years, "linear", "mse")
    )  # fmt: skip
    classes = Split(np.zeros((30, 2)), rng.integers(0, 3, 30))
    values = Split(np.zeros((30, 2)), rng.normal(0, 1, (30, 3)))
    expected = [
        ([logits], x, [softmax], ("agreement",)),
        ([logits], x, [linear], ("agreement", "output_error")),
        ([years], x, [mse], ("output_error",)),
        ([logits, years], x, [softmax, mse], ("agreement_output 1", "output_error_output 2")),
        ([logits], classes, [linear], ("accuracy",)),
        ([logits, years], classes, [softmax, mse], ("accuracy", "output_error_output 2")),
        ([logits], values, [linear], ("output_error",)),
    ]
    for reference, part, rules, names in expected:
        assert make_scorer(reference, part, rules).judged_by == names


@pytest.mark.parametrize(
    ("rare", "judged"), [(1, {"output_error"}), (9, {"agreement", "output_error"})]
)
def test_agreement_with_nearly_one_answer_alone_says_nothing(rare, judged):
    probabilities = np.tile([[0.9, 0.1]], (100, 1))
    probabilities[:rare] = [0.1, 0.9]
    measure = make_scorer([probabilities], Split(np.zeros((100, 7)), None))
    assert set(measure.judged_by) == judged
    said = [note for note in measure.notes if "one answer for 99.0 % of the samples" in note]
    assert len(said) == (rare == 1)
    labelled = make_scorer([probabilities], Split(np.zeros((100, 7)), np.zeros(100, int)))
    assert labelled.judged_by == ("accuracy",)
