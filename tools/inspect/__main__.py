"""``python -m tools.inspect my.keras``: what is in a model and what could go.

A folder without ``__init__.py``: scripts in ``tools`` that are started by their path find the
standard library's ``inspect``, as a module anywhere goes before such a folder.
"""

from __future__ import annotations

import sys
from functools import partial

from tfprune.cli import inspection

main = partial(inspection.main, name="tools.inspect")

if __name__ == "__main__":
    sys.exit(main())
