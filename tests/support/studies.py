"""Studies that are done in seconds."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from importlib.resources import files

from tfprune.studies import study


def tiny(name, *, only=(), train=150, **more):
    """A study at a size at which its experiments do nothing but run."""
    text = files("tfprune.studies").joinpath(f"{name}.toml").read_text()
    whole = tomllib.loads(text)
    whole["quick"] = {**whole["quick"], "train": train, "test": 100, "most_epochs": 1, **more}
    made = study.from_table(name, whole, quick=True)
    return replace(
        made, experiments=tuple(one for one in made.experiments if not only or one.id in only)
    )
