"""Pictures that are flipped and shifted while a model heals."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import layers as kl

import tfprune
from tfprune.graph.inputs import Samples
from tfprune.training.augmentation import flipped_and_shifted, moved
from tfprune.training.soft_targets import soft_targets
from tfprune.training.student import parted


def one_by_one(pictures, mirrored, shifts):
    """Every pixel by itself."""
    made = np.empty_like(pictures)
    count, height, width, _ = pictures.shape
    for n in range(count):
        for row in range(height):
            for column in range(width):
                above = min(max(row - shifts[n][0], 0), height - 1)
                left = min(max(column - shifts[n][1], 0), width - 1)
                if mirrored[n]:
                    left = width - 1 - left
                made[n, row, column] = pictures[n, above, left]
    return made


@given(
    st.tuples(*[st.integers(1, 5)] * 3, st.sampled_from([1, 3, 4])),
    st.integers(0, 2**32 - 1),
)
def test_pictures_move_as_pixels_do_one_by_one(shape, seed):
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, shape).astype("uint8")
    mirrored, shifts = rng.random(shape[0]) < 0.5, rng.integers(-3, 4, (shape[0], 2))
    before = pictures.copy()
    made = moved(pictures, mirrored, shifts)
    assert made.dtype == pictures.dtype
    np.testing.assert_array_equal(made, one_by_one(pictures, mirrored, shifts))
    np.testing.assert_array_equal(pictures, before)


def test_every_shift_of_up_to_a_tenth_comes_alike_often():
    """Where a pixel in the middle came from tells its picture's shift and side."""
    count = 7000
    places = np.stack(np.meshgrid(np.arange(20), np.arange(32), indexing="ij"), axis=-1)
    picture = np.concatenate([places, places[:, :, :1]], axis=-1)
    pictures = np.broadcast_to(picture, (count, *picture.shape))
    (made,) = flipped_and_shifted([pictures], np.random.default_rng(0))
    rows, columns = made[:, 10, 16, 0], made[:, 10, 16, 1]
    # Neighbours of a mirrored picture are in reverse order.
    mirrored = made[:, 10, 17, 1] < columns
    assert abs(mirrored.mean() - 0.5) < 0.03
    down, right = 10 - rows, 16 - np.where(mirrored, 31 - columns, columns)
    for shifts, most in ((down, 2), (right, 3)):
        values, counts = np.unique(shifts, return_counts=True)
        assert values.tolist() == list(range(-most, most + 1))
        np.testing.assert_allclose(counts / count, 1 / (2 * most + 1), atol=0.02)


def test_all_pictures_of_a_sample_move_alike():
    rng = np.random.default_rng(1)
    small = rng.random((50, 10, 10, 1))
    one, two = flipped_and_shifted([small, small.copy()], np.random.default_rng(2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, small)


def pair(pool):
    """A teacher, and a student that has fewer units behind a layer that reads no pictures."""
    keras.utils.set_random_seed(4)
    made = []
    for units in (6, 3):
        front = [kl.Conv2D(4, 3, activation="relu", name="seen")]
        front += [kl.MaxPooling2D(9, name="small")] if pool else []
        made.append(
            keras.Sequential(
                [keras.Input((12, 12, 3)), *front, kl.Flatten(name="flat"),
                 kl.Dense(units, name="hidden"), kl.Dense(2, name="out")]
            )
        )  # fmt: skip
    made[1].get_layer("seen").set_weights(made[0].get_layer("seen").get_weights())
    return made


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("pool", [False, True], ids=["front computed anew", "front small"])
def test_the_teacher_sees_what_the_student_does(pool, stream):
    """Of a front that is small enough what it computes is kept, but not while pictures move."""
    teacher, pruned = pair(pool)
    x = np.random.default_rng(0).random((40, 12, 12, 3)).astype("float32")
    head, tail = parted(pruned, teacher)
    assert head is not None
    data = tf.data.Dataset.from_tensor_slices(x).batch(8) if stream else x
    targets = soft_targets(head, tail, teacher, Samples(pruned, data), augment=True)
    assert targets.held_out == 10
    behind = keras.Model(teacher.get_layer("hidden").input, teacher.outputs[0])
    through = keras.Model(teacher.inputs[0], teacher.get_layer("hidden").input)
    plain = through(x).numpy()

    def rows_of(inputs):
        return np.reshape(inputs[0], (len(inputs[0]), -1))

    def is_plain(rows):
        return np.abs(rows[:, None] - plain).max(axis=-1).min(axis=1) < 1e-5

    seen = []
    for epoch in range(2):
        for inputs, answers in targets.batches(np.random.default_rng(epoch)):
            seen.append(rows_of(inputs))
            np.testing.assert_allclose(answers[0], behind(seen[-1]), atol=1e-5)
    # Some stay as they are, or look alike behind the front.
    assert np.mean(np.concatenate([is_plain(rows) for rows in seen])) < 0.5
    assert not np.array_equal(seen[0], seen[len(seen) // 2])
    for inputs, answers in targets.held_out_batches():
        assert is_plain(rows_of(inputs)).all()
        np.testing.assert_allclose(answers[0], behind(rows_of(inputs)), atol=1e-5)


def test_healing_by_moved_pictures_goes_by_the_seed():
    teacher, pruned = pair(True)
    x = np.random.default_rng(0).random((80, 12, 12, 3)).astype("float32")
    how = {"epochs": 2, "learning_rate": 0.01}
    one, same, other, still = (
        tfprune.heal_with_record(pruned, teacher, x, **how, augment=augment, seed=seed)
        for augment, seed in ((True, 1), (True, 1), (True, 2), (False, 1))
    )
    assert one.history.losses == same.history.losses
    assert one.history.losses[0] == still.history.losses[0]
    assert one.history.losses[1:] != still.history.losses[1:]
    assert one.history.losses != other.history.losses
    assert one.after < one.before


@pytest.mark.parametrize("shape", [(12,), (12, 12), (12, 12, 2), (3, 12, 12)])
def test_what_is_no_picture_is_refused(shape):
    layers = [kl.Flatten(), kl.Dense(4, name="hidden"), kl.Dense(2)]
    model = keras.Sequential([keras.Input(shape, name="signal"), *layers])
    x = np.zeros((9, *shape), "float32")
    with pytest.raises(tfprune.TfpruneError, match="augment: expected .* pictures.*signal") as told:
        tfprune.heal(model, model, x, 1, augment=True)
    assert str(shape) in str(told.value)
    assert "\n" not in str(told.value)
