"""Options of commands as the fields of a dataclass, with default, check and help.

From the fields come the parameters that a command line is read by, ``--help``, the tables in
``docs/options.md``, and the checks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Table = TypeVar("Table", bound=DataclassInstance)

# Reads and checks a value, which comes as text or is right already; its second argument is what
# the user calls it.
Check = Callable[[Any, str], Any]
OPTION = "option"
# The groups of --help, in its order: what most people need, then by subject.
COMMON = "Common"
DATA = "Model and data"
AMOUNT = "How much is removed"
CHOICE = "Which units are removed"
GRID = "Points of the sweep"
TRAINING = "Training of the pruned model"
WEIGHTS = "Weights of the pruned model"
FILES = "Files"
RUN = "The run"
GROUPS = (COMMON, DATA, AMOUNT, CHOICE, GRID, TRAINING, WEIGHTS, FILES, RUN)


@dataclass(frozen=True)
class Option:
    """What is known of an option.

    Attributes
    ----------
    name : str
        Of its field.
    group : str
        Its subject, one of :data:`GROUPS`.
    metavar : str
        What stands for its value in help; empty for a switch.
    help : str
        One sentence or two.
    check : callable
        See :data:`Check`.
    default : object
        What it is if it is not given.
    bare : bool
        Whether its value may be typed without the flag.
    """

    name: str
    group: str
    metavar: str
    help: str
    check: Check
    default: Any = None
    bare: bool = False

    @property
    def flag(self) -> str:
        """As it is typed."""
        return flag(self.name)

    @property
    def switch(self) -> bool:
        """Whether it can be given without a value."""
        return not self.metavar

    @property
    def usage(self) -> str:
        """The flag and what stands for its value."""
        return f"{self.flag} {self.metavar}".rstrip()

    @property
    def listed(self) -> str:
        """How help and docs show it: by its flag, but what has to be given without one."""
        return self.metavar if self.bare and not self.default else self.usage

    @property
    def default_text(self) -> str:
        """The default as it would be typed; empty if there is none to type."""
        if isinstance(self.default, tuple):
            return ",".join(self.default)
        return "" if self.default is None or self.default is False else str(self.default)


def option(
    default: Any,
    check: Check,
    group: str,
    metavar: str,
    help: str,  # noqa: A002
    *,
    bare: bool = False,
) -> Any:
    """A field of a dataclass that is an option of a command.

    Parameters
    ----------
    default, check, group, metavar, help, bare
        See :class:`Option`.

    Examples
    --------
    >>> from tfprune.utils.checks import whole
    >>> @dataclass(frozen=True)
    ... class Training:
    ...     epochs: int = option(5, whole(1), COMMON, "NUMBER", "How often all samples are seen.")
    >>> checked(Training(epochs="20"))
    Training(epochs=20)
    """
    known = {"group": group, "metavar": metavar, "help": help, "check": check, "bare": bare}
    return dataclasses.field(default=default, metadata={OPTION: known})


def flag(name: str) -> str:
    """A field's name as it is typed; a last ``_`` keeps it apart from a word of Python's.

    Examples
    --------
    >>> flag("target_bytes"), flag("import_")
    ('--target-bytes', '--import')
    """
    return f"--{name.rstrip('_').replace('_', '-')}"


def options(table: type[DataclassInstance]) -> list[Option]:
    """The options of a table: its own, then those that it shares with others."""
    fields = sorted(dataclasses.fields(table), key=lambda f: f.name not in table.__annotations__)
    return [
        Option(field.name, default=field.default, **field.metadata[OPTION])
        for field in fields
        if OPTION in field.metadata
    ]


def grouped(table: type[DataclassInstance]) -> dict[str, list[Option]]:
    """The options of a table by their groups, those that most people need first."""
    known = options(table)
    groups = {group: [one for one in known if one.group == group] for group in GROUPS}
    return {group: members for group, members in groups.items() if members}


def checked(values: Table) -> Table:
    """Returns a table with every value read and checked; None, which is nothing said, stays.

    Raises
    ------
    TfpruneError
        For the first value that is not possible; names the option's flag.
    """
    known = [(one, getattr(values, one.name)) for one in options(type(values))]
    right = {
        one.name: one.check(value, one.flag) for one, value in known if value is not None
    }  # fmt: skip
    return dataclasses.replace(values, **right)
