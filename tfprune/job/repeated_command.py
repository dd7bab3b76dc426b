"""The command to type next, with what this one said of model and data."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tfprune.job.config import CommonConfig
from tfprune.utils.option_table import options


def repeated(
    config: CommonConfig, command: Sequence[str], name: str, without: Collection[str] = ()
) -> list[str]:
    """The words of a command that says of model and data what this one did.

    Parameters
    ----------
    config : CommonConfig
        The options that this command was given.
    command : sequence of str
        Its words, as typed.
    name : str
        The other command's.
    without : collection of str
        Options that are left out.
    """
    words = ["tfprune", name] if command[0] == "tfprune" else ["python", "-m", f"tools.{name}"]
    for one in options(CommonConfig):
        value = getattr(config, one.name)
        if one.name not in without and value != one.default:
            typed = ",".join(value) if isinstance(value, tuple) else str(value)
            words += [one.flag] if one.switch else [one.flag, typed]
    return words
