"""The stages of ``export``, by its options; see :class:`tfprune.utils.console.Stages`."""

from __future__ import annotations

from tfprune.job.config import JobConfig
from tfprune.options import refits

MODEL_AND_DATA, HEALING, FINE_TUNING = "model and data", "healing", "fine-tuning"
COMPRESSION, QAT = "compression", "quantisation-aware training"
HEALING_AT_4_BITS = "healing at 4 bits"


def planned(config: JobConfig) -> list[str]:
    """The names of a run's stages in their order.

    Those that the steps open by their own names are ``activations``, ``selection``, ``budget``,
    ``reconstruction``, ``converting``, ``latency`` and ``testing``. By degrees the selection takes
    a moment, so it is no stage. What a search makes on the way is part of it.

    Examples
    --------
    >>> planned(JobConfig(schemes=("int8",), remove=0.5, heal=5).validate())[2:]
    ['selection', 'reconstruction', 'healing', 'converting', 'latency', 'testing']
    """
    options = config.options
    making = {
        "selection": options.share is not None,
        "budget": options.target is not None,
        "reconstruction": refits(options),
        HEALING: config.heal,
        FINE_TUNING: config.finetune,
        COMPRESSION: config.sparsity is not None or config.cluster is not None,
        QAT: config.qat,
        HEALING_AT_4_BITS: healed_at_4_bits(config),
    }
    if options.max_drop is not None:
        making = {"search": True}
    memory = {"memory": config.device or config.c_array}
    return [
        MODEL_AND_DATA, "activations", *(name for name, wanted in making.items() if wanted),
        "converting", *(name for name, wanted in memory.items() if wanted), "latency", "testing",
    ]  # fmt: skip


def healed_at_4_bits(config: JobConfig) -> bool:
    """Whether the pruned int4 file is of a model of its own, healed with its weights rounded."""
    zeros = config.sparsity is not None or config.cluster is not None
    return bool(config.heal) and "int4" in config.schemes and not zeros
