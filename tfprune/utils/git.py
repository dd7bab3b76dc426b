"""The git commit that a command runs in."""

from __future__ import annotations

import subprocess
from typing import Any


def git_state() -> dict[str, Any] | None:
    """Commit and whether there are uncommitted changes; None outside a git checkout."""

    def git(*words: str) -> bytes:
        # As bytes: names of files may be of any characters.
        return subprocess.run(
            ["git", *words], capture_output=True, check=True, timeout=10
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD").decode("ascii")
        return {"commit": commit, "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
