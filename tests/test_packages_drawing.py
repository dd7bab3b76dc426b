"""The drawing of the packages in the docs is that of the code."""

from __future__ import annotations

from docs.packages import DRAWING, ROWS, drawing, imports
from tests.test_layout import ORDER


def test_the_committed_drawing_is_the_codes():
    """Else run: python -m docs.packages."""
    assert DRAWING.read_text(encoding="utf-8") == drawing()


def test_its_rows_are_the_pinned_order():
    assert list(reversed(ROWS)) == ORDER


def test_an_import_is_drawn():
    assert ("pruner", "calibration") in imports()
    assert ("calibration", "pruner") not in imports()
