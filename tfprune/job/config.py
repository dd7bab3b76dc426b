"""What a user asks of the main job, checked before any of it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tfprune.data.built_in import BUILT_IN
from tfprune.errors import TfpruneError
from tfprune.micro.boards import Board, boards
from tfprune.options import (
    DEGREES,
    FOLD_NAMES,
    KINDS,
    PruneOptions,
    Target,
    check_centre,
    check_select,
    prune_options,
)
from tfprune.tflite.compat import RUNTIME
from tfprune.tflite.schemes import DEFAULT_SCHEMES, MOST_BATCH, SCHEMES, check_micro, check_schemes
from tfprune.utils.checks import check_choice, check_points, check_share

MODEL_FILES = (".keras", ".h5", ".hdf5")


@dataclass(frozen=True)
class JobConfig:
    """The flags of ``tools.export``, in the types that the rooms take.

    Attributes
    ----------
    prune : float
        Degrees in (0, 90).
    remove : float, optional
        In place of degrees the share of units in (0, 1) that goes.
    target : Target, optional
        In place of them a budget.
    max_drop : float, optional
        In place of them how many points of accuracy may go.
    select : str, optional
        By what units are chosen.
    refit : int, optional
        Steps of least squares for the survivors.
    heal, finetune : int or None
        Epochs; None for none.
    batch : int or None
        None leaves the batch size of the files open.
    qat : int, optional
        Epochs of quantisation-aware training.
    cluster : int, optional
        Distinct weights of a kernel.
    sparsity : float, optional
        Share in (0, 1) of a kernel's weights that become zero.
    compat : bool
        Whether tflite-runtime 2.14 is to run the files.
    test_data : int, optional
        How many test samples to write beside the files.
    c_array : bool
        Whether to write the int8 files as C source, too.
    devices : tuple of Board
        For which to say whether the int8 files fit.
    """

    prune: float = DEGREES
    remove: float | None = None
    target: Target | None = None
    max_drop: float | None = None
    select: str | None = None
    refit: int | None = None
    dataset: str = "auto"
    data: str | None = None
    scale: str = "auto"
    model: str = "cnn"
    units: int | None = None
    epochs: int | None = None
    heal: int | None = None
    finetune: int | None = None
    unsafe: bool = False
    centre: str | float = "auto"
    fold: str = "least-squares"
    layers: tuple[str, ...] | None = ("dense",)
    skip: tuple[str, ...] = ()
    calibration: int = 10_000
    schemes: tuple[str, ...] = DEFAULT_SCHEMES
    batch: int | None = 1
    seed: int = 0
    output: str = "exported"
    qat: int | None = None
    cluster: int | None = None
    sparsity: float | None = None
    compat: bool = False
    test_data: int | None = None
    c_array: bool = False
    devices: tuple[Board, ...] = ()

    @property
    def suffix(self) -> str:
        """What the names of pruned files have behind the model's name."""
        if self.remove is not None:
            return f"_remove{100 * self.remove:g}"
        if self.target is not None:
            amount = self.target.amount
            return f"_{self.target.what}{100 * amount if amount < 1 else amount:.12g}"
        if self.max_drop is not None:
            return f"_drop{self.max_drop:g}"
        return f"_prune{self.prune:g}"

    @property
    def options(self) -> PruneOptions:
        """Which units are to go; where a drop is given, the search for it sets the budget."""
        return PruneOptions(
            self.prune, self.remove, self.target, check_select(self.select, self.by_count),
            self.fold, self.refit, self.seed,
        )  # fmt: skip

    @property
    def by_count(self) -> bool:
        """Whether it is not degrees that say how much goes."""
        return not (self.remove is None and self.target is None and self.max_drop is None)

    @property
    def layers_to_prune(self) -> str | tuple[str, ...] | None:
        """A kind of layers by its name, or layers by theirs."""
        if self.layers is not None and len(self.layers) == 1 and self.layers[0] in KINDS:
            return self.layers[0]
        return self.layers

    @property
    def built_in(self) -> bool:
        """Whether the model is one of the package's own."""
        return self.model in BUILT_IN


def validate(
    config: JobConfig,
    *,
    prune: str | None = None,
    batch: str = "1",
    remove: str | None = None,
    target_params: str | None = None,
    target_macs: str | None = None,
    target_bytes: str | None = None,
    max_drop: str | None = None,
    sparsity: str | None = None,
    device: Sequence[str] = (),
) -> JobConfig:
    """Returns a config with every field checked, and these read from text.

    Raises
    ------
    TfpruneError
        For the first thing that is not possible.
    """
    check_choice("--dataset", config.dataset, ("auto", "mnist", "digits"))
    check_choice("--scale", config.scale, ("auto", "none"))
    check_choice("--fold", config.fold, FOLD_NAMES)
    limits = (
        ("units", 1, 2**16),
        ("epochs", 1, 2**20),
        ("heal", 1, 2**20),
        ("finetune", 1, 2**20),
        ("calibration", 1, 2**40),
        ("seed", 0, 2**32),
        ("qat", 1, 2**20),
        ("cluster", 2, 257),
        ("refit", 0, 2**20),
        ("test_data", 1, 2**40),
    )
    for flag, least, end in limits:
        value = getattr(config, flag)
        if value is not None and not least <= value < end:
            raise TfpruneError(
                f"--{flag.replace('_', '-')}: expected a whole number from {least} to {end - 1}, "
                f"received {value}"
            )
    if not config.built_in:
        if not config.model.endswith(MODEL_FILES) and not Path(config.model).is_dir():
            raise TfpruneError(
                f"--model: expected {', '.join(BUILT_IN)} or the path of a .keras or .h5 file, "
                f"received {config.model!r}"
            )
        for flag in ("units", "epochs"):
            if getattr(config, flag) is not None:
                raise TfpruneError(f"--{flag}: for built-in models only, not for {config.model}")
        if config.data is None and config.dataset == "auto":
            raise TfpruneError(
                f"--model {config.model}: expected data for a model of your own; "
                "add --data FILE.npz (or --dataset mnist, or digits)"
            )
    if config.dataset == "digits" and config.data is not None:
        raise TfpruneError("--data: not used with --dataset digits; leave one of them out")
    both = set(config.layers or ()) & set(config.skip)
    if both:
        raise TfpruneError(f"--layers and --skip both name {', '.join(sorted(both))}")
    budgets = {
        "prune": prune,
        "remove": remove,
        "target_params": target_params,
        "target_macs": target_macs,
        "target_bytes": target_bytes,
        "max_drop": max_drop,
    }
    given = [_flag(name) for name, value in budgets.items() if value is not None]
    if len(given) > 1:
        raise TfpruneError(f"{' and '.join(given)}: expected one of them, received {len(given)}")
    schemes = check_schemes(config.schemes)
    if config.qat is not None and "int8" not in schemes:
        raise TfpruneError(
            f"--qat: it makes the int8 file, and --schemes has none: {', '.join(schemes)}"
        )
    _check_compat(config.compat, schemes)
    size = _batch(batch)
    _check_micro(config.c_array, device, schemes, size)
    # The search for a drop sets a budget of parameters, so it allows what that does.
    searched = max_drop is not None
    asked = prune_options(
        DEGREES if prune is None else prune,
        remove=remove,
        target_params=1 if searched else target_params,
        target_macs=target_macs,
        target_bytes=target_bytes,
        select=config.select,
        fold=config.fold,
        refit=config.refit,
        scheme=schemes[0],
        file_batch=size,
        file_compat=config.compat,
        seed=config.seed,
        called=lambda name: _flag("max_drop" if searched and "target" in name else name),
    )
    return replace(
        config,
        prune=asked.degrees,
        remove=asked.share,
        target=None if searched else asked.target,
        max_drop=None if max_drop is None else check_points(max_drop, "--max-drop"),
        centre=check_centre(config.centre),
        schemes=schemes,
        batch=size,
        devices=boards(device),
        sparsity=None if sparsity is None else check_share(sparsity, "--sparsity"),
    )


def _flag(argument: str) -> str:
    return f"--{argument.replace('_', '-')}"


def _check_micro(
    c_array: bool, device: Sequence[str], schemes: Sequence[str], batch: int | None
) -> None:
    for flag, wanted in (("--c-array", c_array), ("--device", device)):
        if wanted:
            check_micro(flag, schemes, batch)


def _check_compat(compat: bool, schemes: Sequence[str]) -> None:
    for scheme in [SCHEMES[name] for name in schemes if compat]:
        if scheme.not_compat:
            raise TfpruneError(
                f"--compat: {RUNTIME} has no {scheme.not_compat}; "
                f"leave {scheme.name} out of --schemes"
            )


def _batch(batch: str) -> int | None:
    if batch == "dynamic":
        return None
    if not batch.isascii() or not batch.isdigit() or not 1 <= int(batch) <= MOST_BATCH:
        raise TfpruneError(
            f"--batch: expected a whole number from 1 to {MOST_BATCH}, or dynamic, "
            f"received {batch!r}"
        )
    return int(batch)
