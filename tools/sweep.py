"""``python -m tools.sweep --model my.keras --data my.npz``: accuracy against bytes, all ways."""

from __future__ import annotations

import sys
from functools import partial

from tfprune.cli import sweep

main = partial(sweep.main, name="tools.sweep")

if __name__ == "__main__":
    sys.exit(main())
