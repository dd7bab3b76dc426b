"""What a user asks of the main job: its options, each in one place, and what goes together.

A field of a table is an option of the commands; see :mod:`tfprune.utils.option_table`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self

from tfprune.data.built_in import BUILT_IN
from tfprune.data.keras_data_sets import KERAS_DATA
from tfprune.data.scales import SCALES
from tfprune.errors import TfpruneError
from tfprune.micro.boards import Board, boards
from tfprune.options import (
    FOLD_NAMES,
    KINDS,
    PruneOptions,
    check_centre,
    check_multiple,
    check_threshold,
    prune_options,
)
from tfprune.tflite.compat import RUNTIME
from tfprune.tflite.schemes import DEFAULT_SCHEMES, MOST_BATCH, SCHEMES, check_micro, check_schemes
from tfprune.utils.checks import (
    AUTO,
    check_points,
    check_share,
    check_target,
    choice,
    names,
    switch,
    text,
    whole,
)
from tfprune.utils.option_table import (
    AMOUNT,
    CHOICE,
    COMMON,
    DATA,
    FILES,
    RUN,
    TRAINING,
    WEIGHTS,
    checked,
    flag,
    option,
)
from tfprune.workers.asked import workers_or_address

MODEL_FILES = (".keras", ".h5", ".hdf5")
# Options that say how much goes, of which one can be given; all but degrees are budgets.
AMOUNTS = ("prune", "remove", "target_params", "target_macs", "target_bytes", "max_drop")
SCHEMES_HELP = f"Some of {', '.join(SCHEMES)}."


def read_schemes(value: str | Sequence[str], what: str) -> tuple[str, ...]:
    """The names of schemes, as text or one by one."""
    return check_schemes(names(value, what) if isinstance(value, str) else value, what)


def _batch(value: object, what: str) -> int | None:
    """A file's batch size; None leaves it open."""
    size = str(value)
    if size == "dynamic":
        return None
    if not size.isascii() or not size.isdigit() or not 1 <= int(size) <= MOST_BATCH:
        raise TfpruneError(
            f"{what}: expected a whole number from 1 to {MOST_BATCH}, or dynamic, received {size!r}"
        )
    return int(size)


def read_epochs(value: object, what: str) -> int | str:
    """A number of epochs, or that the training finds its end."""
    if value == AUTO:
        return AUTO
    try:
        return whole(1, 2**20)(value, what)
    except TfpruneError as error:
        raise TfpruneError(f"{error}; or {AUTO}, which stops by itself") from None


def _boards(value: str | tuple[str | Board, ...], what: str) -> tuple[Board, ...]:
    wanted = names(value, what) if isinstance(value, str) else value
    known = [one if isinstance(one, Board) else boards([one])[0] for one in wanted]
    return tuple(dict.fromkeys(known))


# fmt: off
@dataclass(frozen=True)
class CommonConfig:
    """The options that all commands which prune have, in the types that the work takes.

    Attributes
    ----------
    needs_data : bool
        Whether a model of the user's own needs data; of the class.
    """

    needs_data: ClassVar[bool] = True

    model: str = option("cnn", text, COMMON, "NAME|FILE",
        f"{', '.join(BUILT_IN)}, or the path of a .keras or .h5 file; may stand without the flag.",
        bare=True)
    data: str | None = option(None, text, COMMON, "PATH",
        "A folder with a folder of pictures for each class, or of pictures alone, or with train "
        "and test of either; an .npz of x_train, y_train, x_test, y_test, or x, y; a .npy, .csv, "
        ".parquet or .tfrecord; or several by a pattern in quotes, 'part*.npz'. Data without "
        "labels is fine. For a model of several inputs an .npz of x_train_NAME, x_test_NAME, or "
        "x_NAME, for every input; likewise y_train_NAME, y_test_NAME for outputs.")
    heal: int | str | None = option(None, read_epochs, COMMON, "EPOCHS|auto",
        "Epochs in which the pruned model learns the original's outputs; needs no labels. auto "
        "stops by itself, after 30 at most.")
    schemes: tuple[str, ...] = option(DEFAULT_SCHEMES, read_schemes, COMMON, "NAME,NAME",
        SCHEMES_HELP)
    output: str = option("exported", text, COMMON, "FOLDER", "The folder to write to.")

    dataset: str = option("auto", choice(("auto", "mnist", "digits", *KERAS_DATA)), DATA, "NAME",
        "auto (MNIST, else the bundled digits), mnist, digits, or another of Keras' own: "
        f"{', '.join(KERAS_DATA)}.")
    label: str | None = option(None, text, DATA, "COLUMN",
        "Which column of a .csv or .parquet is the label: its name, or its number from 0; without "
        "it there are no labels. Of a .tfrecord which feature; by default image/class/label or "
        "label.")
    output_name: str | None = option(None, text, DATA, "NAME",
        "Of a model of several outputs the one whose labels count, y_train_NAME or y_train: for "
        "accuracy, --max-drop and --finetune. By default all that have labels, y_train_NAME each, "
        "and the mean of their accuracies.")
    feature: str | None = option(None, text, DATA, "NAME",
        "Which feature of a .tfrecord is the sample; by default image/encoded or image, else the "
        "only one.")
    scale: str = option("auto", choice(SCALES), DATA, "HOW",
        f"{', '.join(SCALES)}: what bytes from 0 to 255 are brought to. auto is 0..1, but for a "
        "model that scales by itself; with labels the way under which the original scores best.")
    units: int | None = option(None, whole(1, 2**16), DATA, "NUMBER",
        "Width of a built-in model's hidden layer.")
    epochs: int | None = option(None, whole(1, 2**20), DATA, "NUMBER",
        "Epochs of training a built-in model.")
    import_: tuple[str, ...] = option((), names, DATA, "FILE.py,FILE.py",
        "Run these Python files of your own first: a model file may then name the layers, losses "
        "and metrics that they define.")
    unsafe: bool = option(False, switch, DATA, "",
        "Load a model file although it can run code.")

    round_to: int | None = option(None, check_multiple, AMOUNT, "NUMBER",
        "Widths of layers are multiples of this, such as 8. By degrees and budgets fewer units go "
        "for it; by --remove the nearest.")

    layers: tuple[str, ...] | None = option(None, names, CHOICE, "KIND|NAME,NAME",
        "Prune dense, conv, recurrent or all layers, or only these. By default dense, or all in a "
        "model without a hidden Dense layer that can lose units.")
    skip: tuple[str, ...] = option((), names, CHOICE, "NAME,NAME", "Leave these layers alone.")
    centre: str | float = option("auto", check_centre, CHOICE, "NAME|NUMBER",
        "Where angles are measured from: mean, activation (0.5 after a sigmoid, else 0), none (0) "
        "or a number; auto is mean for least-squares and scaled, else activation.")
    approximate: bool = option(False, switch, CHOICE, "",
        "Also remove units in front of LayerNormalization, RMSNormalization and UnitNormalization, "
        "which change with them: scaled to what they made of all units, and how far they are off "
        "is said.")
    calibration: int = option(10_000, whole(1, 2**40), CHOICE, "NUMBER",
        "How many training samples to measure activations on.")

    adapt: bool = option(False, switch, TRAINING, "",
        "Before pruning, give BatchNormalization the means and variances of the training data, for "
        "data that differ from those that the model learnt on. Kept only if the original then "
        "scores better on validation data; healing learns from it.")
    augment: bool = option(False, switch, TRAINING, "",
        "While healing, mirror the pictures trained on at random and shift them by up to a tenth.")

    seed: int = option(0, whole(0, 2**32), RUN, "NUMBER", "Seed of splitting and training.")
    # fmt: on

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

    def validate(self) -> Self:
        """Returns the same with every value read and checked, alone and with the others.

        Raises
        ------
        TfpruneError
            For the first thing that is not possible.
        """
        config = checked(self)
        if not config.built_in:
            _check_own_model(config)
        if config.built_in and config.import_:
            raise TfpruneError("--import: for model files only, not for built-in models")
        if config.built_in and config.output_name:
            raise TfpruneError("--output-name: built-in models have one output; leave it out")
        if config.dataset in ("digits", *KERAS_DATA) and config.data is not None:
            raise TfpruneError(
                f"--data: not used with --dataset {config.dataset}; leave one of them out"
            )
        if config.augment and config.heal is None:
            raise TfpruneError("--augment: it is a part of healing; add --heal EPOCHS, or auto")
        both = set(config.layers or ()) & set(config.skip)
        if both:
            raise TfpruneError(f"--layers and --skip both name {', '.join(sorted(both))}")
        return config


def _check_own_model(config: CommonConfig) -> None:
    if not config.model.endswith(MODEL_FILES) and not Path(config.model).is_dir():
        raise TfpruneError(
            f"--model: expected {', '.join(BUILT_IN)} or the path of a .keras or .h5 file, "
            f"received {config.model!r}"
        )
    for name in ("units", "epochs"):
        if getattr(config, name) is not None:
            raise TfpruneError(f"{flag(name)}: for built-in models only, not for {config.model}")
    if config.needs_data and config.data is None and config.dataset == "auto":
        raise TfpruneError(
            f"--model {config.model}: expected data for a model of your own; "
            "add --data PATH (or --dataset mnist, or digits)"
        )


# fmt: off
@dataclass(frozen=True)
class JobConfig(CommonConfig):
    """The options of ``export``, in the types that the work takes.

    Attributes
    ----------
    options : PruneOptions
        What :meth:`validate` made of those that say which units are to go.
    """

    prune: float | None = option(None, check_threshold, COMMON, "DEGREES",
        "Degrees in (0, 90): two units whose activation vectors are closer do the same work. 30 if "
        "nothing else is asked for.")
    remove: float | None = option(None, check_share, COMMON, "SHARE",
        "In place of degrees the share of units that goes from every layer, such as 50%.")
    target_bytes: float | None = option(None, check_target, COMMON, "SHARE|NUMBER",
        "In place of degrees how many bytes the pruned file of the first of --schemes may have, "
        "such as 50% or 20000; layers are narrowed where units have least effect for what they "
        "cost.")
    max_drop: float | None = option(None, check_points, COMMON, "POINTS",
        "In place of degrees the percent points of accuracy that may go, such as 0.1: a search "
        "for the smallest model, on held-out data and files of the first of --schemes.")

    target_params: float | None = option(None, check_target, AMOUNT, "SHARE|NUMBER",
        "As --target-bytes, for parameters.")
    target_macs: float | None = option(None, check_target, AMOUNT, "SHARE|NUMBER",
        "As --target-bytes, for multiply-accumulates of a sample.")

    select: str | None = option(None, text, CHOICE, "NAME",
        "By what units are chosen: angle (the default) or span with degrees; effect (the "
        "default), span, angle, magnitude or random with --remove; budgets know effect only.")
    fold: str = option("least-squares", choice(FOLD_NAMES), CHOICE, "NAME",
        f"What takes over the work of removed units: {', '.join(FOLD_NAMES)}.")
    refit: int | None = option(None, whole(0, 2**20), CHOICE, "STEPS",
        "Steps, at most, that fit the layers around removed units, after a closed form; 0 for "
        "neither. With --remove and budgets 100, in most tries of --max-drop 20, in large models "
        "none after the closed form; else 0.")

    finetune: int | None = option(None, whole(1, 2**20), TRAINING, "EPOCHS",
        "Epochs of training on labels, after healing; the unpruned model gets the same and stands "
        "beside it as NAME_finetuned_SCHEME.tflite.")
    qat: int | None = option(None, whole(1, 2**20), TRAINING, "EPOCHS",
        "Epochs of quantisation-aware training, without labels, for the pruned int8 file.")

    cluster: int | None = option(None, whole(2, 257), WEIGHTS, "NUMBER",
        "Distinct weights that a kernel of the pruned model may have, 2 to 256.")
    sparsity: float | None = option(None, check_share, WEIGHTS, "SHARE",
        "Share of the pruned model's weights to set to zero, such as 50%.")

    batch: int | None = option(1, _batch, FILES, "NUMBER|dynamic",
        "The files' batch size, fixed or open.")
    compat: bool = option(False, switch, FILES, "",
        "Make files that tflite-runtime 2.14 can run, the last runtime for 32-bit systems.")
    test_data: int | None = option(None, whole(1, 2**40), FILES, "NUMBER",
        "How many test samples to write beside the files, for tools/run.py on a device.")
    c_array: bool = option(False, switch, FILES, "",
        "Write the int8 files as C source as well, NAME.h and NAME.cc, for TensorFlow Lite Micro; "
        "needs tflite-micro, which measures the memory that they work in.")
    device: tuple[Board, ...] = option((), _boards, FILES, "NAME,NAME",
        "Say whether the int8 files fit in microcontroller boards, by name (an unknown one is "
        "answered with all names) or FILE.toml with ram and flash.")

    json: bool = option(False, switch, RUN, "", "Print the manifest in place of the tables.")
    workers: int | str | None = option(None, workers_or_address, RUN, "NUMBER|ADDRESS",
        "How many processes of this machine share the tries of --max-drop, and measure several "
        "files of --data; or the address of a Dask scheduler, whose workers do it. "
        "Without it this process does it all.")
    # fmt: on
    options: PruneOptions = field(default_factory=PruneOptions)

    @property
    def suffix(self) -> str:
        """What the names of pruned files have behind the model's name."""
        options = self.options
        if options.share is not None:
            return f"_remove{100 * options.share:g}"
        if options.target is not None:
            amount = options.target.amount
            return f"_{options.target.what}{100 * amount if amount < 1 else amount:.12g}"
        if options.max_drop is not None:
            return f"_drop{options.max_drop:g}"
        return f"_prune{options.degrees:g}"

    @property
    def amount(self) -> str:
        """The option that says how much goes, as it is typed."""
        return flag(next((n for n in AMOUNTS if getattr(self, n) is not None), AMOUNTS[0]))

    def validate(self) -> Self:
        """See :meth:`CommonConfig.validate`; makes ``options``, too."""
        config = super().validate()
        amounts = [flag(name) for name in AMOUNTS if getattr(config, name) is not None]
        if len(amounts) > 1:
            raise TfpruneError(
                f"{' and '.join(amounts)}: expected one of them, received {len(amounts)}"
            )
        _check_files(config)
        options = prune_options(
            config.prune,
            remove=config.remove,
            target_params=config.target_params,
            target_macs=config.target_macs,
            target_bytes=config.target_bytes,
            max_drop=config.max_drop,
            select=config.select,
            fold=config.fold,
            refit=config.refit,
            round_to=config.round_to,
            scheme=config.schemes[0],
            file_batch=config.batch,
            file_compat=config.compat,
            seed=config.seed,
            called=lambda name: flag("prune" if name == "threshold" else name),
        )
        return replace(config, options=options)


def _check_files(config: JobConfig) -> None:
    """Refuses files that their schemes or their batch size rule out."""
    schemes = config.schemes
    if config.qat is not None and "int8" not in schemes:
        raise TfpruneError(
            f"--qat: it makes the int8 file, and --schemes has none: {', '.join(schemes)}"
        )
    for scheme in [SCHEMES[name] for name in schemes if config.compat]:
        if scheme.not_compat:
            raise TfpruneError(
                f"--compat: {RUNTIME} has no {scheme.not_compat}; "
                f"leave {scheme.name} out of --schemes"
            )
    for name in ("c_array", "device"):
        if getattr(config, name):
            check_micro(flag(name), schemes, config.batch)
