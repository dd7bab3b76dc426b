"""The options of ``inspect``: those that all commands share, without what is written or trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from tfprune.errors import TfpruneError
from tfprune.job.config import CommonConfig
from tfprune.tflite.schemes import DEFAULT_SCHEMES
from tfprune.utils.checks import names, switch, whole
from tfprune.utils.option_table import CHOICE, RUN, option

PICTURES = (".png", ".svg", ".pdf")


def _page(value: str, what: str) -> str:
    if Path(value).suffix not in (".html", *PICTURES):
        raise TfpruneError(
            f"{what}: expected a file's name that ends in .html, .png, .svg or .pdf, "
            f"received {value!r}"
        )
    if not Path(value).absolute().parent.is_dir():
        raise TfpruneError(f"{what}: there is no folder {str(Path(value).parent)!r}; make it first")
    return value


# fmt: off
@dataclass(frozen=True)
class InspectConfig(CommonConfig):
    """The options of ``inspect``; fields that are none of them are as ``export`` has them."""

    needs_data: ClassVar[bool] = False

    layers: tuple[str, ...] | None = option(("all",), names, CHOICE, "KIND|NAME,NAME",
        "Measure dense, conv, recurrent or all layers, or only these.")
    calibration: int = option(2_000, whole(1, 2**40), CHOICE, "NUMBER",
        "How many training samples to measure activations on.")
    out: str | None = option(None, _page, RUN, "FILE",
        "Also write what is found to FILE.html, or the heat map to FILE.png, .svg or .pdf.")
    json: bool = option(False, switch, RUN, "", "Print JSON in place of the tables.")

    heal: int | None = None
    adapt: bool = False
    augment: bool = False
    round_to: int | None = None
    schemes: tuple[str, ...] = DEFAULT_SCHEMES
    output: str = ""
    centre: str | float = "auto"
    approximate: bool = False
    # fmt: on

    def validate(self) -> Self:
        """See :meth:`CommonConfig.validate`; a picture needs something measured."""
        config = super().validate()
        if config.out is not None and Path(config.out).suffix in PICTURES and not config.measures:
            raise TfpruneError(
                f"--out: {config.out} would show the scores with units gone, which take data; add "
                "--data PATH, or write .html"
            )
        return config

    @property
    def measures(self) -> bool:
        """Whether there is data; built-in models come with theirs."""
        return self.built_in or self.data is not None or self.dataset != "auto"
