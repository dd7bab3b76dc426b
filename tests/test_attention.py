"""The sequences of benchmarks.attention."""

from __future__ import annotations

import numpy as np

from benchmarks.attention import KEYS, LENGTH, PAIRS, VALUES, looked_up, transformer


def test_a_tag_is_the_value_of_the_last_pair_with_the_key():
    (symbols, places), tags = looked_up(50, 3)
    assert places.tolist() == [list(range(LENGTH))] * 50
    for row, tagged in zip(symbols.tolist(), tags.tolist(), strict=True):
        last = {symbol // VALUES: symbol % VALUES for symbol in row[:PAIRS]}
        asked = [symbol - KEYS * VALUES for symbol in row[PAIRS:]]
        assert sorted(asked) == list(range(KEYS))
        assert tagged == [last.get(key, VALUES) for key in asked]
    assert (tags == VALUES).any()


def test_the_transformer_says_a_tag_of_each_key_that_asks():
    x, tags = looked_up(3, 0)
    assert transformer(8, 2, 4)(x).shape == (*tags.shape, VALUES + 1)
    assert np.unique(x[0]).max() < KEYS * VALUES + KEYS
