"""The trainings after pruning: healing, then fine-tuning beside the original model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import keras

from tfprune.data.networks import load_model
from tfprune.data.scoring import Scorer
from tfprune.data.splits import Dataset
from tfprune.errors import TfpruneError
from tfprune.graph.inputs import check_inputs
from tfprune.job.config import JobConfig
from tfprune.job.stages import FINE_TUNING, HEALING
from tfprune.training.distillation import heal_with_record
from tfprune.training.finetuning import FineTuner
from tfprune.training.records import Trained, TrainingHistory
from tfprune.utils.console import during

# What to type where a training gained nothing.
ADVICE = "give it more epochs or more data, or leave it out"


@dataclass(frozen=True)
class Trial:
    """How a model is healed that is only tried.

    Attributes
    ----------
    epochs : int or "auto"
    enough : callable
        Whether a model that is being healed is so good, or so bad, that no more is needed.
    augment : bool
        Whether pictures are flipped and shifted.
    """

    epochs: int | str
    enough: Callable[[keras.Model], bool] = lambda model: False
    augment: bool = False


def retrained(
    config: JobConfig,
    model: keras.Model,
    pruned: keras.Model,
    data: Dataset,
    measure: Scorer,
    *,
    say: Callable[[str], None],
    trial: Trial | None = None,
) -> tuple[dict[str, keras.Model], list[Trained]]:
    """Heals and fine-tunes as the options ask.

    Returns
    -------
    models : dict
        ``pruned``, trained or as it was, and in front of it, where there was fine-tuning, the
        original after the same: ``finetuned``.
    trained : list of Trained

    Raises
    ------
    TfpruneError
        If the data has no labels for fine-tuning, or the outputs of a model are not finite.
    """
    trained: list[Trained] = []

    if config.heal:
        with during(HEALING):
            pruned, entry = healed(config, model, pruned, data, measure, trial=trial)
        trained.append(entry)
    models = {"finetuned": model, "pruned": pruned} if config.finetune else {"pruned": pruned}
    if config.finetune:
        settings = _settings(config, say)
        tuner = FineTuner(model, data.train, settings, measure)
        held_out = FineTuner(model, data.validation, settings, measure)
        with during(FINE_TUNING):
            for variant, before in list(models.items()):
                start = time.perf_counter()
                after, history = tuner.fine_tuned(
                    before, config.finetune, held_out, seed=config.seed, progress=True
                )
                seconds = time.perf_counter() - start
                trained.append(
                    record(
                        "finetune", variant, config.finetune, history, seconds=seconds, data=data
                    )
                )
                models[variant] = after
    return models, trained


def healed(
    config: JobConfig,
    model: keras.Model,
    pruned: keras.Model,
    data: Dataset,
    measure: Scorer,
    *,
    bits: int | None = None,
    trial: Trial | None = None,
) -> tuple[keras.Model, Trained]:
    """Heals a pruned model, with Dense weights of ``bits`` bits if given.

    The loss is watched on the validation data, so none of the training data is held out.
    """
    x, validation = (check_inputs(pruned, part.x) for part in (data.train, data.validation))
    trial = trial or Trial(config.heal or 0, augment=config.augment)
    asked = trial.epochs
    start = time.perf_counter()
    result = heal_with_record(
        pruned,
        model,
        x if len(x) > 1 else x[0],
        asked,
        augment=trial.augment,
        logits=measure.classifies,
        bits=bits,
        validation=validation if len(x) > 1 else validation[0],
        seed=config.seed,
        progress=True,
        enough=trial.enough,
    )
    seconds = time.perf_counter() - start
    how = "heal" if bits is None else f"heal at {bits} bits"
    history = result.history
    epochs = asked if isinstance(asked, int) else len(history.losses) - 1
    entry = record(how, "pruned", epochs, history, seconds=seconds, data=data)
    return result.model, replace(entry, augment=trial.augment)


def record(
    how: str,
    variant: str,
    epochs: int,
    history: TrainingHistory,
    *,
    seconds: float,
    data: Dataset,
) -> Trained:
    """The record of a training on training data, with held-out losses on validation data.

    Parameters
    ----------
    how, variant : str
        See :class:`Trained`.
    epochs : int
    history : TrainingHistory
    seconds : float
    data : Dataset
    """
    note = history.problem
    return Trained(
        how=how,
        variant=variant,
        epochs=epochs,
        samples=len(data.train),
        seconds=round(seconds, 2),
        before=history.before,
        after=history.after,
        held_out=len(data.validation),
        best_epoch=history.best_epoch,
        learning_rate=history.learning_rate,
        note=f"{note}; {ADVICE}" if note else "",
    )


def _settings(config: JobConfig, say: Callable[[str], None]) -> keras.Model | None:
    """A user's own model with the compile settings of its file, where they can be had."""
    if config.built_in:
        return None
    try:
        model = load_model(Path(config.model), config.unsafe, compiled=True, imports=config.import_)
    except TfpruneError as error:  # The model itself was read before: a loss of the user's own.
        say(f"fine-tuning: Adam, and a loss by the labels; its settings cannot be read: {error}")
        return None
    if not model.compiled:
        say("fine-tuning: no compile settings; Adam, and a loss by the labels")
        return None
    return model
