"""The record of one run of an experiment, a line of ``results.jsonl``."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfprune.studies.study import Experiment, Study
from tfprune.utils.arrays import Array
from tfprune.utils.digests import text_digest


@dataclass(frozen=True)
class Record:
    """The results of one run of an experiment.

    Attributes
    ----------
    key : str
        Of all that the values depend on.
    study, experiment : str
    run : int
        From 0; the seed of the run is the command's seed plus this.
    values : dict of str to float
        By quantity.
    history : list of dict
        For each epoch of the training, see :class:`tfprune.studies.bench.Trained`.
    pictures : dict of str to dict
        Arrays of bytes that figures show, packed; of the first run alone.
    seconds : float
        That it took, on the clock.
    """

    key: str
    study: str
    experiment: str
    run: int
    values: dict[str, float]
    history: list[dict[str, float]] = field(default_factory=list)
    pictures: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0


def key_of(
    study: Study,
    experiment: Experiment,
    run: int,
    *,
    seed: int,
    data: str,
    versions: Mapping[str, str],
) -> str:
    """Names a run by all that its values depend on."""
    parts = [
        study.name,
        experiment.id,
        run,
        seed,
        study.settings_digest(experiment),
        data,
        dict(versions),
    ]
    return text_digest(json.dumps(parts, sort_keys=True))


def pack(image: Array) -> dict[str, Any]:
    """An array of numbers from 0 to 1 as bytes that JSON can hold."""
    data = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    return {"shape": list(data.shape), "data": base64.b64encode(data.tobytes()).decode()}


def unpack(packed: Mapping[str, Any]) -> Array:
    """The array again, from 0 to 1."""
    data = np.frombuffer(base64.b64decode(packed["data"]), np.uint8)
    return data.reshape(packed["shape"]) / 255
