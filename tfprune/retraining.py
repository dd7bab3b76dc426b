"""What the main job trains after pruning: healing, then fine-tuning beside the original."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
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

    def told(
        how: str,
        variant: str,
        work: Callable[[], keras.Model],
        before: keras.Model,
        loss: Callable[[keras.Model], float],
    ) -> keras.Model:
        epochs = getattr(request, how)
        start = time.perf_counter()
        after = work()
        seconds = round(time.perf_counter() - start, 2)
        losses = (loss(before), loss(after))
        trained.append(Trained(how, variant, epochs, len(data.train), seconds, *losses))
        return after

    if request.heal:
        # Labels say no more than that the output decides between classes.
        logits = measure.metric == "accuracy" and len(measure.reference) == 1
        held = check_inputs(pruned, data.validation.x)
        x = check_inputs(pruned, data.train.x)
        samples = x if len(x) > 1 else x[0]
        unhealed, epochs = pruned, request.heal
        pruned = told(
            "heal",
            "pruned",
            lambda: heal(
                unhealed, model, samples, epochs, logits=logits, seed=request.seed, progress=True
            ),
            unhealed,
            lambda made: difference(made, model, held, logits),
        )
    models = {"finetuned": model, "pruned": pruned} if request.finetune else {"pruned": pruned}
    if request.finetune:
        settings = _settings(request, say)
        lesson = Lesson(model, data.train, settings)
        held_back = Lesson(model, data.validation, settings)
        for variant, made in list(models.items()):
            models[variant] = told(
                "finetune",
                variant,
                partial(lesson.taught, made, request.finetune, seed=request.seed, progress=True),
                made,
                held_back.loss,
            )
    return models, trained


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
