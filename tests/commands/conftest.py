"""What tests of several commands share."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    """The user's environment with an empty cache."""
    return {**os.environ, "TFPRUNE_CACHE": str(tmp_path_factory.mktemp("cache"))}
