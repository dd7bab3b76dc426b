"""Renders templates as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfprune.errors import TfpruneError
from tfprune.utils.escapes import visible

if TYPE_CHECKING:
    import jinja2

REPORT = "report.html"
TEMPLATES = Path(__file__).parent / "templates"
# Longer texts, of files that a stranger made, are cut.
LONGEST = 2000


def render(template: str, **values: Any) -> str:
    """A page as text.

    Parameters
    ----------
    template : str
        A file of ``templates/``.
    **values
        What it shows. Texts stay texts, whatever they hold.

    Raises
    ------
    TfpruneError
        If Jinja2 is not installed.
    """
    return _environment().get_template(template).render(**values)


def _environment() -> jinja2.Environment:
    try:
        import jinja2
    except ImportError:
        raise TfpruneError("HTML pages need Jinja2: pip install jinja2") from None
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["png"] = _address
    made.filters["count"] = "{:,}".format
    made.filters["percent"] = lambda share: f"{100 * share:.2f}"
    return made


def _address(png: bytes) -> Any:
    """A picture as an address that holds it; as markup, so that it is not cut."""
    from markupsafe import Markup

    return Markup("data:image/png;base64," + base64.b64encode(png).decode())


def _shown(value: Any) -> Any:
    """Texts without characters that cannot be seen; what a template made is left alone."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return visible(value if len(value) <= LONGEST else value[:LONGEST] + "…")
