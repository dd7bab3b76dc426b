"""The options of ``inspect``: those that all commands share, without what is written or trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tfprune.data.built_in import BUILT_IN
from tfprune.job.config import CommonConfig
from tfprune.tflite.schemes import DEFAULT_SCHEMES
from tfprune.utils.checks import names, switch, text, whole
from tfprune.utils.option_table import CHOICE, COMMON, RUN, option


# fmt: off
@dataclass(frozen=True)
class InspectConfig(CommonConfig):
    """The options of ``inspect``; fields that are none of them are as ``export`` has them."""

    needs_data: ClassVar[bool] = False

    model: str = option("cnn", text, COMMON, "NAME|FILE",
        f"{', '.join(BUILT_IN)}, or the path of a .keras or .h5 file; may stand without the flag.",
        bare=True)
    layers: tuple[str, ...] | None = option(("all",), names, CHOICE, "KIND|NAME,NAME",
        "Measure dense, conv or all layers, or only these.")
    calibration: int = option(2_000, whole(1, 2**40), CHOICE, "NUMBER",
        "How many training samples to measure activations on.")
    json: bool = option(False, switch, RUN, "", "Print JSON in place of the tables.")

    heal: int | None = None
    schemes: tuple[str, ...] = DEFAULT_SCHEMES
    output: str = ""
    centre: str | float = "auto"
    # fmt: on

    @property
    def measures(self) -> bool:
        """Whether there is data; built-in models come with theirs."""
        return self.built_in or self.data is not None or self.dataset != "auto"
