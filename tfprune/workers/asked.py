"""The options that say where pieces of work are done; the same for all commands that have them."""

from __future__ import annotations

from typing import Any

from tfprune.errors import TfpruneError
from tfprune.utils.checks import text, whole
from tfprune.utils.option_table import RUN, option

MOST = 1024


def workers_option() -> Any:
    """``--workers``."""
    return option(
        None, whole(1, MOST + 1), RUN, "NUMBER",
        "How many processes of this machine share the work, each with its part of the cores. "
        "Without it this process does it all.",
    )  # fmt: skip


def cluster_option() -> Any:
    """``--cluster``."""
    return option(
        None, text, RUN, "ADDRESS",
        "In place of --workers the address of a Dask scheduler, such as tcp://10.0.0.1:8786, "
        "whose workers do it; files need the same paths there.",
    )  # fmt: skip


def check_asked(workers: int | None, cluster: str | None) -> None:
    """Raises :class:`TfpruneError` where both are given."""
    if workers is not None and cluster is not None:
        raise TfpruneError("--workers and --cluster: expected one of them, received 2")


def workers_or_address(value: object, what: str) -> int | str:
    """A number of processes, or the address of a scheduler, where one option says either.

    Examples
    --------
    >>> workers_or_address("4", "--workers"), workers_or_address("tcp://10.0.0.1:8786", "--workers")
    (4, 'tcp://10.0.0.1:8786')
    """
    if isinstance(value, str) and "://" in value:
        return value
    try:
        return whole(1, MOST + 1)(value, what)
    except TfpruneError as error:
        raise TfpruneError(f"{error}; or an address such as tcp://10.0.0.1:8786") from None


def split_asked(asked: int | str | None) -> tuple[int | None, str | None]:
    """A number of processes and the address of a scheduler, of which one is None at least.

    Examples
    --------
    >>> split_asked(4), split_asked("tcp://10.0.0.1:8786"), split_asked(None)
    ((4, None), (None, 'tcp://10.0.0.1:8786'), (None, None))
    """
    return (None, asked) if isinstance(asked, str) else (asked, None)
