"""A command's options as they are sent to workers, and whether these have the same model and data.

Workers load model and data anew, from the same paths.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any, TypeVar

import keras
import numpy as np

from tfprune.errors import TfpruneError
from tfprune.job.config import CommonConfig
from tfprune.utils.option_table import options

Config = TypeVar("Config", bound=CommonConfig)


class Sent(dict[str, Any]):
    """Options as JSON holds them, by which what was made of them is kept."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(repr(sorted(self.items())))


def sent(config: CommonConfig) -> Sent:
    """The options of a command, with paths that hold in another folder."""
    model = config.model if config.built_in else os.path.abspath(config.model)  # noqa: PTH100
    # Not pathlib: it may be a pattern.
    data = None if config.data is None else os.path.abspath(config.data)  # noqa: PTH100
    own = tuple(os.path.abspath(path) for path in config.import_)  # noqa: PTH100
    config = replace(config, model=model, data=data, import_=own)
    return Sent({one.name: getattr(config, one.name) for one in options(type(config))})


def received(table: type[Config], values: Mapping[str, Any]) -> Config:
    """The options that were sent; JSON has made lists of what was several."""
    plain: dict[str, Any] = {
        name: tuple(one) if isinstance(one, list) else one for name, one in values.items()
    }
    return table(**plain)


def origin_of(about: Mapping[str, Any], model: keras.Model, data: str) -> dict[str, str]:
    """The digests of model and data, by which it is known whether two processes have the same.

    Parameters
    ----------
    about : mapping
        What the manifest says of the model.
    model : keras.Model
    data : str
        The digest of the data.
    """
    return {"model": about["sha256"] or weights_digest(model), "data": data}


def check_origin(ours: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Raises :class:`TfpruneError` where a worker has another model or other data."""
    for what, digest in expected.items():
        if ours[what] != digest:
            raise TfpruneError(
                f"the {what} is another one here (SHA-256 {ours[what][:12]} in place of "
                f"{digest[:12]}); every machine needs the same files under the same paths, and "
                "a built-in model is best given as a file"
            )


def weights_digest(model: keras.Model) -> str:
    """SHA-256 of a model's weights and their shapes."""
    hasher = sha256()
    for weight in model.get_weights():
        hasher.update(f"{weight.shape}{weight.dtype}".encode())
        hasher.update(np.ascontiguousarray(weight).tobytes())
    return hasher.hexdigest()
