"""Moments and angles against plain loops over the samples themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune.core.moments import ROWS, Moments, angles
from tfprune.errors import TfpruneError


def moments_of(activations, sizes=None):
    moments = Moments(activations.shape[1])
    start = 0
    for size in sizes or [len(activations)]:
        moments.add(activations[start : start + size])
        start += size
    return moments


def angle_by_hand(first, second):
    """Degrees between two vectors, element by element."""
    dot = sum(float(a) * float(b) for a, b in zip(first, second, strict=True))
    lengths = [math.sqrt(sum(float(a) ** 2 for a in v)) for v in (first, second)]
    if 0 in lengths:
        return math.nan
    return math.degrees(math.acos(max(-1.0, min(1.0, dot / lengths[0] / lengths[1]))))


@st.composite
def activations(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    samples, units = draw(st.integers(2, 40)), draw(st.integers(1, 6))
    values = rng.normal(draw(st.sampled_from([0.0, 0.5, 3.0])), 1, (samples, units))
    return np.maximum(values, 0).astype(np.float32) if draw(st.booleans()) else values


@given(activations(), st.sampled_from([0.0, 0.5, -1.0]))
def test_angles_are_those_of_a_plain_double_loop(a, centre):
    measured = angles(moments_of(a).gram(centre))
    for i in range(a.shape[1]):
        for j in range(a.shape[1]):
            expected = angle_by_hand(a[:, i] - centre, a[:, j] - centre)
            if i == j and not math.isnan(expected):
                expected = 0.0
            # Near 0 and 180 degrees arccos turns float32 rounding of 1e-7 into hundredths.
            assert measured[i, j] == pytest.approx(expected, abs=0.06, nan_ok=True)


@given(activations(), st.data())
def test_batches_and_shards_add_up(a, data):
    cut = data.draw(st.integers(0, len(a)))
    whole = moments_of(a)
    batches = moments_of(a, [cut, len(a) - cut])
    shards = moments_of(a[:cut]) + moments_of(a[cut:])
    for other in (batches, shards):
        assert other.count == whole.count == len(a)
        np.testing.assert_allclose(other.mean, a.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(other.gram(), a.T.astype(float) @ a, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(other.covariance(), whole.covariance(), atol=1e-5)


@settings(max_examples=25)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([3, 140]),
    st.sampled_from([0.0, 2.0, 1e4]),
    st.sampled_from([0.0, 5.0]),
)
def test_shards_in_any_order_are_one_pass_to_twelve_digits(seed, units, mean, drift):
    rng = np.random.default_rng(seed)
    a = rng.normal(mean, 1, (400, units)).astype(np.float32)
    a += drift * np.linspace(0, 1, len(a), dtype=np.float32)[:, None]
    cuts = np.sort(rng.integers(0, len(a), 6))
    parts = [part for part in np.split(a, cuts) if len(part)]
    whole, total = Moments(units, exact=True), Moments(units, exact=True)
    whole.add(a)
    for place in rng.permutation(len(parts)):
        shard = Moments(units, exact=True)
        shard.add(parts[place])
        total = total + Moments.of(shard.state())
    exact = a.astype(np.float64)
    centred = exact - exact.mean(axis=0)
    for ours in (whole, total):
        assert ours.count == len(a)
        np.testing.assert_allclose(ours.mean, exact.mean(axis=0), 1e-12, 1e-12)
        for made, wanted in (
            (ours.gram(), exact.T @ exact), (len(a) * ours.covariance(), centred.T @ centred),
        ):  # fmt: skip
            size = float(np.abs(wanted).max())
            np.testing.assert_allclose(made, wanted, 0, 1e-12 * size)


def test_more_samples_than_wait_at_once(rng):
    a = rng.normal(2, 1, (2 * ROWS + 17, 130)).astype(np.float32)
    moments = moments_of(a, [ROWS - 1, 3, ROWS + 15])
    np.testing.assert_allclose(moments.gram(), a.T.astype(float) @ a, rtol=1e-5)
    np.testing.assert_allclose(moments.covariance(), np.cov(a.T.astype(float), ddof=0), atol=1e-5)


def test_a_small_spread_around_a_large_mean_survives(rng):
    spread = rng.normal(0, 1e-3, (5000, 2))
    moments = moments_of((1 + spread).astype(np.float32))
    expected = np.cov((1 + spread).astype(np.float32).T.astype(float), ddof=0)
    np.testing.assert_allclose(moments.covariance(), expected, rtol=1e-3, atol=1e-10)
    assert not moments.constant().any()


def test_constant_and_dead_units_are_found(rng):
    a = rng.normal(0, 1, (300, 4)).astype(np.float32)
    a[:, 1] = 0
    a[:, 2] = 0.7
    a[:, 3] = 0
    a[17, 3] = 1e-3  # Fires once, weakly: alive.
    assert moments_of(a).constant().tolist() == [False, True, True, False]


def test_a_vector_without_length_has_no_angle(rng):
    a = np.column_stack([np.zeros(10), np.ones(10), np.ones(10)])
    measured = angles(moments_of(a).gram())
    assert np.isnan(measured[0]).all()
    assert measured[1, 2] == pytest.approx(0, abs=0.06)


def test_cosines_just_outside_their_range_are_clamped():
    gram = np.array([[1.0, 1.0 + 1e-12], [1.0 + 1e-12, 1.0]])
    assert angles(gram)[0, 1] == 0
    assert angles(-gram + 2 * np.diag([1.0, 1.0]))[0, 1] == 180


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rows", [10, ROWS, ROWS + 10])
def test_numbers_that_are_not_finite_are_refused_by_the_call_that_adds_them(bad, rows):
    a = np.ones((rows, 3), np.float32)
    a[-4, 1] = bad
    moments = Moments(3)
    moments.add(np.arange(6.0).reshape(2, 3))
    with pytest.raises(TfpruneError, match="NaN or infinity"):
        moments.add(a)


@pytest.mark.parametrize("units", [3, 200])
def test_large_finite_numbers_are_no_infinity(units):
    a = np.full((10, units), 3e38, np.float32)
    a[::2] *= -1
    np.testing.assert_allclose(moments_of(a).mean, 0, atol=1e32)


def test_squares_beyond_float32_do_not_overflow():
    a = np.array([[1e25, 1], [-1e25, 2], [3e25, 4]], np.float32)
    gram = moments_of(a).gram()
    np.testing.assert_allclose(gram, a.T.astype(float) @ a, rtol=1e-5)


def test_another_shape_is_refused():
    with pytest.raises(TfpruneError, match=r"\(samples, 3\), received \(4, 2\)"):
        Moments(3).add(np.ones((4, 2)))
    with pytest.raises(TfpruneError, match="2 units cannot be added to 3"):
        Moments(2) + Moments(3)


def test_a_smaller_buffer_and_closing_change_nothing_but_rounding(rng):
    a = rng.normal(1, 1, (900, 6))
    plain, small = Moments(6), Moments(6, waiting=1)
    plain.add(a)
    for part in np.array_split(a, 7):
        small.add(part)
        small.close()
    assert small.count == plain.count
    np.testing.assert_allclose(small.gram(), plain.gram(), rtol=1e-12)
    np.testing.assert_allclose(small.mean, plain.mean, rtol=1e-12)
