#!/usr/bin/env python3
"""``python -m tools.compare``: fails when a model became bigger or worse than its limits allow."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

if __package__ in (None, ""):
    # Run as a script, by a pre-commit hook say: the package stands beside this folder.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tfprune.cli import compare

main = partial(compare.main, name="tools.compare")

if __name__ == "__main__":
    sys.exit(main())
