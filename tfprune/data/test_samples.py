"""Writes test samples beside the files, so that scores can be repeated on a device."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.data.scoring import Scorer
from tfprune.errors import TfpruneError
from tfprune.graph.precision import OTHERS
from tfprune.utils.arrays import Array
from tfprune.utils.digests import file_digest


@dataclass(frozen=True)
class TestSet:
    """Some of the test samples, and what outputs for them are compared with.

    Attributes
    ----------
    index : array of shape (count,)
        Which samples of the test data, in ascending order.
    measure : Scorer
        Of all test data.
    """

    # Not a class of tests, as pytest would think.
    __test__ = False

    index: Array
    measure: Scorer

    def score(self, outputs: Sequence[Array]) -> dict[str, float]:
        """The ``accuracy`` or ``mse`` of outputs for all test data on these samples alone."""
        measure = self.measure
        if measure.metric is None or measure.target is None:
            return {}
        if measure.metric == "accuracy":
            return {"accuracy": float(np.mean(measure.right(outputs)[self.index]))}
        # Of several outputs with labels the first alone travels.
        difference = outputs[measure.output].astype(float) - measure.target
        difference = difference[self.index]
        return {"mse": float(np.mean(difference**2))}

    def write(
        self,
        path: Path,
        x: Sequence[Array],
        names: Sequence[str],
        dataset: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Writes an ``.npz`` that ``tools/run.py`` reads as it is.

        Arrays ``x_test``, or ``x_test_NAME`` for several inputs, as the files take them before
        they quantise; ``y_test``, unless outputs are compared with the input; and ``scoring``,
        JSON text that says what the labels are: ``metric``, ``output``, and ``threshold`` where
        each unit of the output decides alone. Where the data set is given, ``dataset`` is JSON
        text as well.

        Parameters
        ----------
        path : Path
        x : sequence of arrays of shape (samples, ...)
            All test data, for each input.
        names : sequence of str
            The files' names of the inputs.
        dataset : mapping, optional
            ``name`` and ``sha256`` of the data that the samples are of, as in the manifest.

        Returns
        -------
        dict
            ``file``, ``samples``, ``bytes`` and ``sha256``, for the manifest.
        """
        measure = self.measure
        scoring: dict[str, Any] = {"metric": measure.metric}
        chosen = [np.asarray(data[self.index]) for data in x]
        # Their files take float32.
        chosen = [c.astype(np.float32) if c.dtype.name in OTHERS else c for c in chosen]
        arrays = {f"x_test_{name}": data for name, data in zip(names, chosen, strict=True)}
        if len(x) == 1:
            arrays = {"x_test": chosen[0]}
        if measure.metric is not None and measure.target is not None:
            scoring["output"] = measure.output
            rule = measure.rules[measure.output]
            if measure.metric == "accuracy" and rule.alone:
                scoring["threshold"] = rule.threshold
            target = measure.target[self.index]
            scoring["copy"] = measure.metric == "mse" and np.array_equal(
                target.ravel(), chosen[0].ravel()
            )
            if not scoring["copy"]:
                arrays["y_test"] = target
        texts = {"scoring": scoring} | ({"dataset": dict(dataset)} if dataset else {})
        arrays |= {key: np.array(json.dumps(value)) for key, value in texts.items()}
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
        return {
            "file": path.name,
            "samples": len(self.index),
            "bytes": path.stat().st_size,
            "sha256": file_digest(path),
        }


def check_test_count(count: int | None, available: int) -> None:
    """Refuses to take more test samples than there are."""
    if count is not None and count > available:
        raise TfpruneError(f"--test-data: expected at most {available} samples, received {count}")


def drawn(count: int, measure: Scorer, samples: int, seed: int) -> TestSet:
    """Draws samples of the test data, the same ones for the same seed."""
    order = np.random.default_rng(seed).permutation(samples)
    return TestSet(np.sort(order[:count]), measure)
