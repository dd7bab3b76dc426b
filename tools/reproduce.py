"""``python -m tools.reproduce STUDY``: a study's experiments, published figures beside ours."""

from __future__ import annotations

import sys
from functools import partial

from tfprune.cli import reproduce

main = partial(reproduce.main, name="tools.reproduce")

if __name__ == "__main__":
    sys.exit(main())
