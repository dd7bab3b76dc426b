"""The smaller model as it was asked for: pruned, trained, compressed, and its files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras

from tfprune.data.scoring import Yardstick
from tfprune.data.splits import Dataset
from tfprune.errors import TfpruneError
from tfprune.graph.compile_settings import compile_as
from tfprune.graph.inputs import Array, check_inputs
from tfprune.graph.predictions import outputs_of
from tfprune.job.config import Request
from tfprune.job.retraining import ADVICE, healed, record, retrained
from tfprune.options import Wish
from tfprune.prune_result import PruneResult
from tfprune.pruning import Pruner
from tfprune.tflite.compat import check_compat
from tfprune.tflite.converter import convert_each, signature_names
from tfprune.tflite.interpreter import LiteModel
from tfprune.tfmot.compression import compress
from tfprune.tfmot.distillation import distance
from tfprune.tfmot.qat import quantisation_aware
from tfprune.training.records import Trained

# How often a file that training left over its budget is made again, smaller.
ATTEMPTS = 3


@dataclass(frozen=True, eq=False)
class Made:
    """What became of a model.

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
class Workshop:
    """What smaller models are made of.

    Attributes
    ----------
    request : Request
    model : keras.Model
    data : Dataset
    measure : Yardstick
        Of the test data; what labels mean is all that is used.
    pruner : Pruner
    say : callable
        Is told, in a line each, what the user should know.
    """

    request: Request
    model: keras.Model
    data: Dataset
    measure: Yardstick
    pruner: Pruner
    say: Callable[[str], None]

    @property
    def names(self) -> list[str]:
        """What the inputs are called in files."""
        return signature_names(self.model)

    def make(self, wish: Wish) -> Made:
        """Prunes, trains and compresses as it was asked for.

        Raises
        ------
        TfpruneError
            If a budget cannot be met, or a training fails.
        """
        made = self._once(wish)
        target = wish.target
        if target is None or target.what != "bytes":
            return made
        reached = made.result.reached
        assert reached is not None, "a target was asked for"
        limit = reached.limit
        for _ in range(ATTEMPTS):
            made, content = self.with_file(made, target.scheme, "--target-bytes")
            size = len(content)
            if size <= limit:
                reached = replace(reached, limit=limit, reached=size)
                return replace(made, result=replace(made.result, reached=reached))
            # Trained weights may take a few bytes more than those that widths were chosen with.
            self.say(f"{size:,} bytes after all steps, {limit:,} asked for; once more, smaller")
            target = replace(target, amount=limit - (size - limit))
            made = self._once(replace(wish, target=target))
        raise TfpruneError(
            f"target_bytes: {limit:,} bytes cannot be reached with what else was asked for; "
            f"{ATTEMPTS} attempts were over, the last by {size - limit:,}"
        )

    def with_file(self, made: Made, scheme: str, flag: str) -> tuple[Made, bytes]:
        """The same with the pruned model's file of a scheme, and that file.

        Raises
        ------
        TfpruneError
            If it cannot be made; says which flag needs it.
        """
        if scheme not in made.files:
            calibration = check_inputs(self.model, self.data.calibration.x)
            more = dict(self.files(made.models["pruned"], [scheme], calibration))
            made = replace(made, files=made.files | more)
        content = made.files[scheme]
        if isinstance(content, TfpruneError):
            raise TfpruneError(
                f"{flag} needs the pruned {scheme} file: {content}; put another one first in "
                "--schemes"
            ) from content
        return made, content

    def files(
        self, model: keras.Model, schemes: Sequence[str], calibration: Sequence[Array]
    ) -> Iterator[tuple[str, bytes | TfpruneError]]:
        """A model's files, converted as it was asked for, or why there is none."""
        return convert_each(model, schemes, calibration, self.request.batch, self.request.compat)

    def _once(self, wish: Wish) -> Made:
        request = self.request
        result = self.pruner.prune_as(wish)
        models, learnt = retrained(
            request, self.model, result.model, self.data, self.measure, say=self.say
        )
        files: dict[str, bytes | TfpruneError] = {}
        quantised = False
        if asked(request):
            x, validation = (
                check_inputs(self.model, part.x) for part in (self.data.train, self.data.validation)
            )
            targets, wanted = (outputs_of(self.model, part) for part in (x, validation))
            lesson = {"targets": targets, "x": x, "held_out": (validation, wanted)}
            models["pruned"], steps = self._compressed(models["pruned"], lesson)
            learnt += steps
            if request.qat is not None:
                try:
                    files["int8"], quantised, step = self._quantised(models["pruned"], lesson)
                    learnt.append(step)
                except TfpruneError as error:
                    files["int8"] = error
        if healed_at_4_bits(request):
            model, told = healed(
                request, self.model, models["pruned"], self.data, self.measure, bits=4
            )
            learnt.append(told)
            calibration = check_inputs(self.model, self.data.calibration.x)
            files |= dict(self.files(model, ["int4"], calibration))
        return Made(result, models, learnt, files, quantised)

    def _compressed(
        self, pruned: keras.Model, lesson: dict[str, Any]
    ) -> tuple[keras.Model, list[Trained]]:
        """The pruned model with the zeros and shared weights asked for.

        It learns what the original computes, so it needs no labels.
        """
        request = self.request
        if request.sparsity is None and request.cluster is None:
            return pruned, []
        model, steps = compress(
            pruned,
            **lesson,
            sparsity=request.sparsity,
            clusters=request.cluster,
            seed=request.seed,
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
                    data=self.data,
                ),
                before=step.before,
                note=step.note,
            )
            for step in steps
        ]
        return model, entries

    def _quantised(
        self, pruned: keras.Model, lesson: dict[str, Any]
    ) -> tuple[bytes, bool, Trained]:
        """The better of the int8 files with and without training for it, on validation data.

        Also whether it is the one with training.
        """
        request = self.request
        assert request.qat is not None, "it was asked for"
        start = time.perf_counter()
        trained, history = quantisation_aware(
            pruned,
            **lesson,
            epochs=request.qat,
            sparse=request.sparsity is not None,
            clustered=request.cluster is not None,
            batch=request.batch,
            seed=request.seed,
            progress=True,
        )
        if request.compat:
            check_compat(trained, f"the int8 file of {self.model.name}")
        seconds = time.perf_counter() - start
        calibration = check_inputs(self.model, self.data.calibration.x)
        converted = dict(self.files(pruned, ["int8"], calibration))["int8"]
        entry = record("qat", "pruned", request.qat, history, seconds=seconds, data=self.data)
        if isinstance(converted, TfpruneError):
            return trained, True, entry
        x, wanted = lesson["held_out"]
        before, after = (
            distance(LiteModel(content, self.names).predict(x), wanted)
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


def asked(request: Request) -> dict[str, Any]:
    """What is to be done to the pruned model beside converting it, for the manifest."""
    wanted = {
        "sparsity": request.sparsity,
        "clusters": request.cluster,
        "qat_epochs": request.qat,
    }
    return wanted if any(value is not None for value in wanted.values()) else {}


def healed_at_4_bits(request: Request) -> bool:
    """Whether the pruned int4 file is of a model of its own, healed with its weights rounded."""
    zeros = request.sparsity is not None or request.cluster is not None
    return bool(request.heal) and "int4" in request.schemes and not zeros


def made_by(request: Request, variant: str, scheme: str, *, quantised: bool) -> str:
    """How a file was made, in words; ``quantised`` is whether int8 was trained for."""
    steps = []
    if variant == "pruned" and request.sparsity is not None:
        steps.append(f"sparsity {100 * request.sparsity:g} %")
    if variant == "pruned" and request.cluster is not None:
        steps.append(f"{request.cluster} clusters")
    if (variant, scheme) == ("pruned", "int4") and healed_at_4_bits(request):
        steps.append(f"healing of {request.heal} epochs at 4 bits")
    elif (variant, scheme) == ("pruned", "int8") and quantised:
        steps.append(f"quantisation-aware training of {request.qat} epochs")
    else:
        steps.append("conversion after training")
    return ", ".join(steps)
