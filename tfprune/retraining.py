"""What the main job trains after pruning: healing, then fine-tuning beside the original."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import keras

from tfprune.distance import difference
from tfprune.errors import TfpruneError
from tfprune.evaluate import Yardstick
from tfprune.finetune import Lesson
from tfprune.healing import heal
from tfprune.inputs import check_inputs
from tfprune.models import load_model
from tfprune.parts import Dataset
from tfprune.records import Trained
from tfprune.request import Request
from tfprune.rounding import in_bits


def retrained(
    request: Request,
    model: keras.Model,
    pruned: keras.Model,
    data: Dataset,
    measure: Yardstick,
    *,
    say: Callable[[str], None],
) -> tuple[dict[str, keras.Model], list[Trained]]:
    """Trains as far as it is asked for.

    Returns
    -------
    models : dict
        ``pruned``, trained or as it was, and in front of it, where there was fine-tuning, the
        original after the same: ``finetuned``.
    trained : list of Trained

    Raises
    ------
    TfpruneError
        If the data has no labels for fine-tuning, or a training does not stay finite.
    """
    trained: list[Trained] = []

    if request.heal:
        pruned, told_of = healed(request, model, pruned, data, measure)
        trained.append(told_of)
    models = {"finetuned": model, "pruned": pruned} if request.finetune else {"pruned": pruned}
    if request.finetune:
        settings = _settings(request, say)
        lesson = Lesson(model, data.train, settings, measure)
        held_back = Lesson(model, data.validation, settings, measure)
        for variant, before in list(models.items()):
            start = time.perf_counter()
            after = lesson.taught(before, request.finetune, seed=request.seed, progress=True)
            seconds = round(time.perf_counter() - start, 2)
            losses = (held_back.loss(before), held_back.loss(after))
            entry = ("finetune", variant, request.finetune, len(data.train), seconds, *losses)
            trained.append(Trained(*entry))
            models[variant] = after
    return models, trained


def healed(
    request: Request,
    model: keras.Model,
    pruned: keras.Model,
    data: Dataset,
    measure: Yardstick,
    *,
    bits: int | None = None,
) -> tuple[keras.Model, Trained]:
    """Lets a pruned model learn the original's outputs, at so many bits if given."""
    logits = measure.classifies
    held = check_inputs(pruned, data.validation.x)
    x = check_inputs(pruned, data.train.x)
    start = time.perf_counter()
    made = heal(
        pruned,
        model,
        x if len(x) > 1 else x[0],
        request.heal or 0,
        logits=logits,
        bits=bits,
        seed=request.seed,
        progress=True,
    )
    return made, Trained(
        how="heal" if bits is None else f"heal at {bits} bits",
        variant="pruned",
        epochs=request.heal or 0,
        samples=len(data.train),
        seconds=round(time.perf_counter() - start, 2),
        before=difference(pruned if bits is None else in_bits(pruned, bits), model, held, logits),
        after=difference(made, model, held, logits),
    )


def _settings(request: Request, say: Callable[[str], None]) -> keras.Model | None:
    """A user's own model with the compile settings of its file, where they can be had."""
    if request.built_in:
        return None
    try:
        model = load_model(Path(request.model), request.unsafe, compiled=True)
    except TfpruneError:  # The model itself was read before: it is a loss of the user's own.
        model = None
    if model is None or not model.compiled:
        say("fine-tuning: no compile settings that can be read; Adam, and a loss by the labels")
        return None
    return model
