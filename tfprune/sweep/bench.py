"""Builds the models of a sweep's points, exports them and measures their files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import keras

from tfprune.data.splits import Dataset
from tfprune.errors import TfpruneError
from tfprune.graph.inputs import check_inputs
from tfprune.job.adapted_start import start_of
from tfprune.job.model_and_data import pruner_of
from tfprune.job.original import doubts, scorer
from tfprune.job.records import Finding
from tfprune.job.sent_config import weights_digest
from tfprune.options import prune_options
from tfprune.sweep.config import SweepConfig
from tfprune.sweep.grid import UNPRUNED, Point
from tfprune.sweep.results_log import Row
from tfprune.tflite.converter import convert_each, signature_names
from tfprune.tflite.interpreter import LiteModel
from tfprune.tflite.reader import weight_bytes
from tfprune.training.distillation import heal_with_record
from tfprune.utils.streamed import concatenated


class Bench:
    """Builds the model of each point and measures its files; reuses what points have in common.

    Parameters
    ----------
    config : SweepConfig
    model : keras.Model
    data : Dataset
    say : callable
        Is told, in a line each, what the user should know.

    Raises
    ------
    TfpruneError
        If nothing can be pruned.
    """

    def __init__(
        self, config: SweepConfig, model: keras.Model, data: Dataset, say: Callable[[str], None]
    ) -> None:
        self._request, self._model, self._data, self._say = config, model, data, say
        self._last: tuple[Point, _Made] | None = None
        self._representative = check_inputs(model, data.calibration.x)
        held, shown = (check_inputs(model, part.x) for part in (data.validation, data.test))
        # Run as one, so that labels mean the same in both.
        self._x = [concatenated(pair) for pair in zip(held, shown, strict=True)]
        part = data.test.given(self._x).labelled_as([data.validation, data.test])
        whole = scorer(config, model, self._x, part, data)
        self._held = len(held[0])
        self._validation, self._test = (
            whole.some(index) for index in (slice(self._held), slice(self._held, None))
        )
        self.metric = whole.metric or "agreement"
        self.notes = [*whole.notes]
        self._whole = whole
        start = start_of(config, model, data, self._validation)
        self._start = start.model
        self._findings = start.findings
        self.notes += start.notes
        self._pruner = pruner_of(config, start.model, data)
        if not self._pruner.units:
            why = "; ".join(f"{skip.name}: {skip.reason}" for skip in self._pruner.skipped)
            raise TfpruneError(f"nothing to prune: {why or 'no layer of the kinds asked for'}")
        calibration = self._pruner.calibration
        if calibration.layers_note:
            say(calibration.layers_note)
        self.layers = (calibration.asked,) if config.layers is None else config.layers

    def doubts(self) -> list[Finding]:
        """Why data and model do not seem to fit; nothing where they do."""
        found = doubts(self._request, self._model, self._x, self._whole, self._data)
        return [*found, *self._findings]

    def rows(self, point: Point, keys: dict[str, str], known: Sequence[Row]) -> Iterator[Row]:
        """A row for each of the schemes, which come with their keys; and rows that are there."""
        try:
            variant = self._made(point)
        except TfpruneError as error:
            for scheme in keys:
                yield self._row(point, scheme, keys, reason=str(error))
            return
        about: dict[str, Any] = {"units": variant.units, "units_before": variant.units_before}
        # The same weights make the same file.
        weights = weights_digest(variant.model)
        equal = {row.scheme: row for row in known if row.weights == weights}
        for scheme, name in keys.items():
            if scheme in equal:
                yield Row(**{**asdict(equal[scheme]), **asdict(point), **about, "key": name})
        rest = [scheme for scheme in keys if scheme not in equal]
        for scheme, content in self._files(variant.model, rest, point):
            if isinstance(content, TfpruneError):
                yield self._row(point, scheme, keys, reason=str(content), **about)
                continue
            yield self._row(
                point, scheme, keys,
                bytes=len(content),
                weights_bytes=_weight_bytes(content),
                parameters=variant.model.count_params(),
                weights=weights,
                sha256=sha256(content).hexdigest(),
                **about,
                **self._scores(content),
            )  # fmt: skip

    def _row(self, point: Point, scheme: str, keys: dict[str, str], **figures: Any) -> Row:
        named = {**asdict(point), "key": keys[scheme], "scheme": scheme, "metric": self.metric}
        return Row(**named, **figures)

    def _made(self, point: Point) -> _Made:
        """The model of a point; a healed one starts from the unhealed one before it."""
        if point.select == UNPRUNED:
            return _Made(self._model, self._pruner.units, self._pruner.units)
        bare = point.bare
        if self._last is None or self._last[0] != bare:
            self._last = bare, self._pruned(bare)
        last = self._last[1]
        if not point.heal:
            return last
        return replace(last, model=self._healed(last.model, point))

    def _pruned(self, point: Point) -> _Made:
        share = point.unit == "share"
        asked = prune_options(
            None if share else point.amount,
            remove=point.amount if share else None,
            select=point.select,
            fold=point.fold,
            refit=point.refit,
            round_to=point.round_to,
            seed=self._request.seed,
        )
        result = self._pruner.prune_as(asked)
        before, after = (
            sum(getattr(layer, f"units_{when}") for layer in result.layers)
            for when in ("before", "after")
        )
        return _Made(result.model, before, after)

    def _healed(self, pruned: keras.Model, point: Point, bits: int | None = None) -> keras.Model:
        x, validation = (
            check_inputs(self._model, part.x) for part in (self._data.train, self._data.validation)
        )
        result = heal_with_record(
            pruned,
            self._start,
            x if len(x) > 1 else x[0],
            point.heal,
            augment=point.augment,
            logits=self._test.classifies,
            bits=bits,
            validation=validation if len(x) > 1 else validation[0],
            seed=self._request.seed,
        )
        if result.problem:
            at = f" at {bits} bits" if bits else ""
            self._say(f"{point.name}: healed{at}: {result.problem}")
        return result.model

    def _files(
        self, model: keras.Model, schemes: Sequence[str], point: Point
    ) -> Iterator[tuple[str, bytes | TfpruneError]]:
        """The files, or why there is none; int4 ones of healed models healed at 4 bits as well."""
        if point.heal and "int4" in schemes:
            schemes = [scheme for scheme in schemes if scheme != "int4"]
            try:
                rounded = self._healed(model, point, bits=4)
            except TfpruneError as error:
                yield "int4", error
            else:
                yield from convert_each(rounded, ["int4"], self._representative)
        if schemes:
            yield from convert_each(model, schemes, self._representative)

    def _scores(self, content: bytes) -> dict[str, float]:
        outputs = LiteModel(content, signature_names(self._model)).predict(self._x)
        held = self._validation.scores([out[: self._held] for out in outputs])
        shown = self._test.scores([out[self._held :] for out in outputs])
        scores = {"validation": held[self.metric], "test": shown[self.metric]}
        scores |= {name: shown[name] for name in ("agreement", "output_error")}
        return {name: round(value, 6) for name, value in scores.items()}


@dataclass(frozen=True, eq=False)
class _Made:
    """A model of a point, and the hidden units of the layers asked for before and after."""

    model: keras.Model
    units_before: int
    units: int


def _weight_bytes(content: bytes) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        return weight_bytes(path)
