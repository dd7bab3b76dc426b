"""``python -m tools.export --prune 30``: a Keras model in, small measured TFLite files out."""

from __future__ import annotations

import sys
from functools import partial

from tfprune.cli import export

main = partial(export.main, name="tools.export")

if __name__ == "__main__":
    sys.exit(main())
