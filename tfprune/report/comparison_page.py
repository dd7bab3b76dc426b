"""Makes the page of a comparison of sizes."""

from __future__ import annotations

import tfprune
from tfprune.gate import formats
from tfprune.gate.comparison import Comparison
from tfprune.report.page import render


def comparison_page(comparison: Comparison, everything: bool = False) -> str:
    """The comparison as HTML; unchanged models only if ``everything`` is asked for."""
    head, *rows = formats.cells(comparison, everything)
    hidden = 0 if everything else sum(not row.changed for row in comparison.rows)
    count = len(comparison.rows)
    return render(
        "comparison.html",
        summary=formats.summary(comparison),
        failed=comparison.failed,
        models=f"{count} {'model' if count == 1 else 'models'}",
        baseline=comparison.baseline,
        candidate=comparison.candidate,
        warnings=comparison.warnings,
        head=[*head[:9], "why"],
        rows=rows,
        hidden=hidden,
        version=tfprune.__version__,
    )
