"""How figures are written in tables, pages and messages."""

from __future__ import annotations


def score_text(metric: str, value: float | None, unit: str = "") -> str:
    """A score as it stands in tables: a share in percent, a mean squared error in four digits.

    Parameters
    ----------
    metric : str
        ``mse``, or the name of a share such as ``accuracy``.
    value : float or None
        A share in [0, 1], or an error; nothing is written for None.
    unit : str
        Behind percents, " %" say.

    Examples
    --------
    >>> score_text("accuracy", 0.98765), score_text("accuracy", 0.5, " %")
    ('98.77', '50.00 %')
    >>> score_text("mse", 0.000123456), score_text("mse", None)
    ('0.0001235', '')
    """
    if value is None:
        return ""
    return f"{value:.4g}" if metric == "mse" else f"{100 * value:.2f}{unit}"
