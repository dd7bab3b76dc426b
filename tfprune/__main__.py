"""``python -m tfprune COMMAND``: as ``tfprune COMMAND``, where that is not on the path."""

from __future__ import annotations

import sys

from tfprune.cli.main import main

if __name__ == "__main__":
    sys.argv[0] = "tfprune"
    sys.exit(main())
