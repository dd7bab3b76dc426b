"""The installed versions of the packages that matter."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "ai-edge-litert")
# An extra, told of only where it is.
OPTIONAL = ("ai-edge-quantizer",)


@cache
def versions() -> dict[str, str]:
    """Version of Python, of this package and of what it computes with."""
    from tfprune import __version__

    installed = {"python": platform.python_version(), "tfprune": __version__}
    for package in (*PACKAGES, *OPTIONAL):
        try:
            installed[package] = version(package)
        except PackageNotFoundError:  # tensorflow-cpu and its like install the same module.
            if package in PACKAGES:
                installed[package] = "unknown"
    return installed
