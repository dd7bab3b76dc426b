"""The table of layers in the docs is complete, and says what the rules say."""

from __future__ import annotations

import pytest
from keras import layers as kl

from docs.layers import PAGE, page, public, row_of


def test_the_page_is_that_of_the_rules():
    expected = "written by python -m docs.layers"
    assert PAGE.read_text(encoding="utf-8") == page(), expected


def test_every_public_class_has_a_row():
    names = {getattr(kl, name) for name in dir(kl) if not name.startswith("_")}
    assert {one for one in names if isinstance(one, type) and issubclass(one, kl.Layer)} == set(
        public()
    )


@pytest.mark.parametrize(
    ("kind", "makes", "passes", "reads"),
    [
        (kl.Dense, True, False, True),
        (kl.Conv2D, True, False, True),
        (kl.Embedding, True, False, False),
        (kl.BatchNormalization, False, True, False),
        (kl.MultiHeadAttention, False, False, True),
        (kl.Concatenate, False, True, False),
        (kl.Masking, False, False, False),
    ],
)
def test_rows_that_are_known(kind, makes, passes, reads):
    row = row_of(kind)
    assert (row.makes, row.passes, row.reads) == (makes, passes, reads)


def test_what_does_nothing_says_why():
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 5 and cells[0] not in ("layer", "---"):
            assert any(cells[1:]), line
