"""Writes test samples beside the files, so that scores can be repeated on a device."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.core.metrics import metric_of
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
        """The ``accuracy`` and ``mse`` of outputs for all test data on these samples alone.

        As in :meth:`Scorer.scores` those of each of several outputs with labels come beside them.
        """
        some = [out[self.index] for out in outputs]
        scores = self.measure.some(self.index).scores(some)
        return {n: value for n, value in scores.items() if metric_of(n)[0] in ("accuracy", "mse")}

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
        each unit of the output decides alone. Where several outputs have labels it is
        ``y_test_NAME``, and ``outputs`` in ``scoring`` is a list of the same for each, with its
        ``name``. Where the data set is given, ``dataset`` is JSON text as well.

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
        chosen = [np.asarray(data[self.index]) for data in x]
        # Their files take float32.
        chosen = [c.astype(np.float32) if c.dtype.name in OTHERS else c for c in chosen]
        arrays = {f"x_test_{name}": data for name, data in zip(names, chosen, strict=True)}
        if len(x) == 1:
            arrays = {"x_test": chosen[0]}
        each = [one for one in self.measure.each if one.target is not None]
        told = [self._told(one, chosen[0], len(each) > 1, arrays) for one in each]
        scoring = {"outputs": told} if len(told) > 1 else {"metric": None} | dict(*told)
        texts = {"scoring": scoring} | ({"dataset": dict(dataset)} if dataset else {})
        arrays |= {key: np.array(json.dumps(value)) for key, value in texts.items()}
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
        return {
            "file": path.name,
            "samples": len(self.index),
            "bytes": path.stat().st_size,
            "sha256": file_digest(path),
        }

    def _told(
        self, one: Scorer, first: Array, several: bool, arrays: dict[str, Array]
    ) -> dict[str, Any]:
        """What the labels of an output are; they are put among the arrays."""
        assert one.target is not None, "it is one with labels"
        told: dict[str, Any] = {"name": one.name} if several else {}
        told |= {"metric": one.metric, "output": one.output}
        rule, target = one.rules[one.output], one.target[self.index]
        if one.metric == "accuracy" and rule.alone:
            told["threshold"] = rule.threshold
        told["copy"] = one.metric == "mse" and np.array_equal(target.ravel(), first.ravel())
        if not told["copy"]:
            arrays[f"y_test_{one.name}" if several else "y_test"] = target
        return told


def check_test_count(count: int | None, available: int) -> None:
    """Refuses to take more test samples than there are."""
    if count is not None and count > available:
        raise TfpruneError(f"--test-data: expected at most {available} samples, received {count}")


def drawn(count: int, measure: Scorer, samples: int, seed: int) -> TestSet:
    """Draws samples of the test data, the same ones for the same seed."""
    order = np.random.default_rng(seed).permutation(samples)
    return TestSet(np.sort(order[:count]), measure)
