"""What the tests of the size gate share."""

from __future__ import annotations

import json


def manifest(path, models, accuracy=None, tensorflow="2.21.0", **more):
    """A manifest of sizes; returns its path."""
    accuracy = accuracy or {}
    artifacts = [
        {"file": name, "bytes": size, **({"accuracy": accuracy[name]} if name in accuracy else {})}
        for name, size in models.items()
    ]
    content = {"schema": 1, "versions": {"tensorflow": tensorflow}, "artifacts": artifacts, **more}
    path.write_text(json.dumps(content))
    return path
