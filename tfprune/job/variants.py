"""Builds the smaller model as the options ask: pruned, trained, compressed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import keras

from tfprune.data.scoring import Scorer
from tfprune.data.splits import Dataset
from tfprune.errors import TfpruneError
from tfprune.graph.compile_settings import compile_as
from tfprune.graph.inputs import check_inputs
from tfprune.graph.predictions import outputs_of
from tfprune.job.config import JobConfig
from tfprune.job.retraining import ADVICE, Trial, healed, record, retrained
from tfprune.job.stages import (
    COMPRESSION,
    HEALING,
    HEALING_AT_4_BITS,
    QAT,
    healed_at_4_bits,
)
from tfprune.options import PruneOptions
from tfprune.prune_result import PruneResult
from tfprune.pruner import Pruner
from tfprune.tflite.compat import check_compat
from tfprune.tflite.converter import convert_each, signature_names
from tfprune.tflite.interpreter import LiteModel
from tfprune.tfmot.compression import compress
from tfprune.tfmot.distillation import distance
from tfprune.tfmot.qat import quantisation_aware
from tfprune.training.records import Trained
from tfprune.utils.arrays import Array
from tfprune.utils.console import during

# How often a file that training left over its budget is made again, smaller.
ATTEMPTS = 3


@dataclass(frozen=True, eq=False)
class Variant:
    """A smaller model with the models and files that were made on the way.

    Attributes
    ----------
    result : PruneResult
    models : dict of str to keras.Model
        By variant: ``pruned``, and ``finetuned`` where there was fine-tuning.
    training : sequence of Trained
    files : dict of str to bytes or TfpruneError
        Files of the pruned model that were made on the way, by scheme, or why there is none.
    quantised : bool
        Whether the int8 file is that of quantisation-aware training.
    """

    result: PruneResult
    models: dict[str, keras.Model]
    training: Sequence[Trained]
    files: dict[str, bytes | TfpruneError] = field(default_factory=dict)
    quantised: bool = False


@dataclass(frozen=True, eq=False)
class VariantBuilder:
    """Builds smaller models from one original, its data and the options.

    Attributes
    ----------
    config : JobConfig
    original : keras.Model
        As it came.
    model : keras.Model
        What is pruned and learnt from: the original, or, with ``--adapt``, adapted to the data.
    data : Dataset
    measure : Scorer
        Of the test data; what labels mean is all that is used.
    pruner : Pruner
    say : callable
        Is told, in a line each, what the user should know.
    """

    config: JobConfig
    original: keras.Model
    model: keras.Model
    data: Dataset
    measure: Scorer
    pruner: Pruner
    say: Callable[[str], None]

    @cached_property
    def _held(self) -> Dataset:
        """The data with the samples that tensorflow-model-optimization trains on in memory."""
        data = self.data
        held = replace(data, train=data.train.held(), validation=data.validation.held())
        if data.train.streamed:
            self.say(
                f"of {len(data.train):,} training samples {len(held.train):,} are held in memory "
                "for --sparsity, --cluster and --qat"
            )
        return held

    @property
    def names(self) -> list[str]:
        """The inputs' names in files."""
        return signature_names(self.model)

    def make(self, options: PruneOptions, trial: Trial | None = None) -> Variant:
        """Prunes, trains and compresses as the options ask; on trial it may heal less.

        Raises
        ------
        TfpruneError
            If a budget cannot be met, or a training fails.
        """
        variant = self._once(options, trial)
        target = options.target
        if target is None or target.what != "bytes":
            return variant
        reached = variant.result.reached
        assert reached is not None, "a target was asked for"
        limit = reached.limit
        for _ in range(ATTEMPTS):
            variant, content = self.with_file(variant, target.scheme, "--target-bytes")
            size = len(content)
            if size <= limit:
                reached = replace(reached, limit=limit, reached=size)
                return replace(variant, result=replace(variant.result, reached=reached))
            # Trained weights may take a few bytes more than those that widths were chosen with.
            self.say(f"{size:,} bytes after all steps, {limit:,} asked for; once more, smaller")
            target = replace(target, amount=limit - (size - limit))
            variant = self._once(replace(options, target=target))
        raise TfpruneError(
            f"{target.called}: {limit:,} bytes cannot be reached with what else was asked for; "
            f"{ATTEMPTS} attempts were over, the last by {size - limit:,}"
        )

    @property
    def can_heal_on(self) -> bool:
        """Whether the last thing that is done to a model is to heal it."""
        config = self.config
        later = asked(config) or config.finetune or healed_at_4_bits(config)
        return bool(config.heal) and not later

    def healed_on(self, variant: Variant, trial: Trial) -> Variant:
        """A variant that was healed, healed for more epochs."""
        with during(HEALING):
            pruned, entry = healed(
                self.config, self.model, variant.models["pruned"], self.data, self.measure,
                trial=trial,
            )  # fmt: skip
        models, training = variant.models | {"pruned": pruned}, [*variant.training, entry]
        return replace(variant, models=models, training=training, files={})

    def with_file(self, variant: Variant, scheme: str, flag: str) -> tuple[Variant, bytes]:
        """The variant with its pruned file of a scheme, and that file's bytes.

        Raises
        ------
        TfpruneError
            If it cannot be made; says which flag needs it.
        """
        if scheme not in variant.files:
            calibration = check_inputs(self.model, self.data.calibration.x)
            more = dict(self.files(variant.models["pruned"], [scheme], calibration))
            variant = replace(variant, files=variant.files | more)
        content = variant.files[scheme]
        if isinstance(content, TfpruneError):
            raise TfpruneError(
                f"{flag} needs the pruned {scheme} file: {content}; put another one first in "
                "--schemes"
            ) from content
        return variant, content

    def files(
        self, model: keras.Model, schemes: Sequence[str], calibration: Sequence[Array]
    ) -> Iterator[tuple[str, bytes | TfpruneError]]:
        """A model's files, converted as it was asked for, or why there is none."""
        return convert_each(model, schemes, calibration, self.config.batch, self.config.compat)

    def _once(self, options: PruneOptions, trial: Trial | None = None) -> Variant:
        config = self.config
        result = self.pruner.prune_as(options)
        models, trainings = retrained(
            config, self.model, result.model, self.data, self.measure, say=self.say, trial=trial
        )
        files: dict[str, bytes | TfpruneError] = {}
        quantised = False
        if asked(config):
            held = self._held
            x, validation = (
                check_inputs(self.model, part.x) for part in (held.train, held.validation)
            )
            targets, held_out_targets = (outputs_of(self.model, part) for part in (x, validation))
            tuner = {"targets": targets, "x": x, "held_out": (validation, held_out_targets)}
            with during(COMPRESSION):
                models["pruned"], steps = self._compressed(models["pruned"], tuner)
            trainings += steps
            if config.qat is not None:
                try:
                    with during(QAT):
                        files["int8"], quantised, step = self._quantised(models["pruned"], tuner)
                    trainings.append(step)
                except TfpruneError as error:
                    files["int8"] = error
        if healed_at_4_bits(config):
            with during(HEALING_AT_4_BITS):
                model, record = healed(
                    config, self.model, models["pruned"], self.data, self.measure, bits=4
                )
                trainings.append(record)
                calibration = check_inputs(self.model, self.data.calibration.x)
                files |= dict(self.files(model, ["int4"], calibration))
        return Variant(result, models, trainings, files, quantised)

    def _compressed(
        self, pruned: keras.Model, tuner: dict[str, Any]
    ) -> tuple[keras.Model, list[Trained]]:
        """The pruned model with the zeros and shared weights asked for.

        It learns what the original computes, so it needs no labels.
        """
        config = self.config
        if config.sparsity is None and config.cluster is None:
            return pruned, []
        model, steps = compress(
            pruned,
            **tuner,
            sparsity=config.sparsity,
            clusters=config.cluster,
            seed=config.seed,
            progress=True,
        )
        compile_as(pruned, model)
        entries = [
            replace(
                record(
                    step.how,
                    "pruned",
                    step.epochs,
                    step.history,
                    seconds=step.seconds,
                    data=self._held,
                ),
                before=step.before,
                note=step.note,
            )
            for step in steps
        ]
        return model, entries

    def _quantised(self, pruned: keras.Model, tuner: dict[str, Any]) -> tuple[bytes, bool, Trained]:
        """The better of the int8 files with and without training for it, on validation data.

        Also whether it is the one with training.
        """
        config = self.config
        assert config.qat is not None, "it was asked for"
        start = time.perf_counter()
        trained, history = quantisation_aware(
            pruned,
            **tuner,
            epochs=config.qat,
            sparse=config.sparsity is not None,
            clustered=config.cluster is not None,
            batch=config.batch,
            seed=config.seed,
            progress=True,
        )
        if config.compat:
            check_compat(trained, f"the int8 file of {self.model.name}")
        seconds = time.perf_counter() - start
        calibration = check_inputs(self.model, self.data.calibration.x)
        converted = dict(self.files(pruned, ["int8"], calibration))["int8"]
        entry = record("qat", "pruned", config.qat, history, seconds=seconds, data=self._held)
        if isinstance(converted, TfpruneError):
            return trained, True, entry
        x, targets = tuner["held_out"]
        before, after = (
            distance(LiteModel(content, self.names).predict(x), targets)
            for content in (converted, trained)
        )
        entry = replace(entry, before=before, after=after)
        if after <= before:
            return trained, True, entry
        note = (
            f"the int8 file converted without training does better on held-out samples and is kept "
            f"({before:.4g}, trained {after:.4g}); {ADVICE}"
        )
        return converted, False, replace(entry, after=before, best_epoch=0, note=note)


def asked(config: JobConfig) -> dict[str, Any]:
    """The options that change the pruned model, for the manifest."""
    values = {
        "sparsity": config.sparsity,
        "clusters": config.cluster,
        "qat_epochs": config.qat,
    }
    return values if any(value is not None for value in values.values()) else {}


def made_by(config: JobConfig, variant: str, scheme: str, *, quantised: bool) -> str:
    """How a file was made, in words; ``quantised`` is whether int8 was trained for."""
    steps = []
    if variant == "pruned" and config.sparsity is not None:
        steps.append(f"sparsity {100 * config.sparsity:g} %")
    if variant == "pruned" and config.cluster is not None:
        steps.append(f"{config.cluster} clusters")
    if (variant, scheme) == ("pruned", "int4") and healed_at_4_bits(config):
        epochs = f"of {config.heal} epochs " if isinstance(config.heal, int) else ""
        steps.append(f"healing {epochs}at 4 bits")
    elif (variant, scheme) == ("pruned", "int8") and quantised:
        steps.append(f"quantisation-aware training of {config.qat} epochs")
    else:
        steps.append("conversion after training")
    return ", ".join(steps)
