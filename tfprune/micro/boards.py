"""Memory of microcontroller boards, and whether a model fits in it; standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tfprune.errors import TfpruneError
from tfprune.gate.limits import amount
from tfprune.utils.untrusted import read_toml

KIB, MIB = 1024, 1024**2


@dataclass(frozen=True)
class Board:
    """What a board has, in bytes.

    Attributes
    ----------
    name : str
    ram, flash : int
        All of it, as its datasheet says.
    ram_taken, flash_taken : int
        What everything else on it takes: the program, TensorFlow Lite Micro's code, stacks, radio.
    """

    name: str
    ram: int
    flash: int
    ram_taken: int = 0
    flash_taken: int = 0

    def room(self, file: int, arena: int) -> Room:
        """The memory left beside a file of so many bytes and its arena."""
        return Room(self.ram - self.ram_taken - arena, self.flash - self.flash_taken - file)


@dataclass(frozen=True)
class Room:
    """Bytes that are left on a board, negative where there are too few."""

    ram_left: int
    flash_left: int

    @property
    def fits(self) -> bool:
        """Whether there are enough of both."""
        return min(self.ram_left, self.flash_left) >= 0

    def __str__(self) -> str:
        sizes = {"RAM": self.ram_left, "flash": self.flash_left}
        if self.fits:
            left = [f"{n:,} B of {what}" for what, n in sizes.items()]
            return f"fits, {' and '.join(left)} left"
        short = [f"{-n:,} B of {what}" for what, n in sizes.items() if n < 0]
        return f"does not fit, {' and '.join(short)} too little"


# SRAM and flash of the datasheets; of boards sold in several sizes the smallest.
BOARDS = {
    board.name: board
    for board in (
        Board("arduino-nano-33-ble", 256 * KIB, 1 * MIB),  # nRF52840
        Board("arduino-uno-r4", 32 * KIB, 256 * KIB),  # Renesas RA4M1
        Board("esp32", 520 * KIB, 4 * MIB),  # ESP32-WROOM-32E
        Board("esp32-s3", 512 * KIB, 4 * MIB),  # ESP32-S3-WROOM-1-N4
        Board("microbit-v2", 128 * KIB, 512 * KIB),  # nRF52833
        Board("raspberry-pi-pico", 264 * KIB, 2 * MIB),  # RP2040
        Board("raspberry-pi-pico-2", 520 * KIB, 4 * MIB),  # RP2350
        Board("stm32-blue-pill", 20 * KIB, 64 * KIB),  # STM32F103C8
        # STM32F407VG; 64 KiB more are coupled to the core and not next to these.
        Board("stm32f4-discovery", 128 * KIB, 1 * MIB),
    )
}
_NEEDED, _OPTIONAL = ("ram", "flash"), ("ram-taken", "flash-taken")


def boards(names: Sequence[str]) -> tuple[Board, ...]:
    """Boards by their names, or as ``.toml`` files describe them; each once.

    Raises
    ------
    TfpruneError
        If a name is not known, or a file is not as expected.
    """
    all_boards = [_read(Path(name)) if name.endswith(".toml") else _known(name) for name in names]
    return tuple(dict.fromkeys(all_boards))


def _known(name: str) -> Board:
    if name not in BOARDS:
        raise TfpruneError(
            f"--device: expected one of {', '.join(BOARDS)}, or a FILE.toml with ram and flash, "
            f"received {name!r}"
        )
    return BOARDS[name]


def _read(path: Path) -> Board:
    table, _ = read_toml(path, f"--device {path}")
    keys = ("name", *_NEEDED, *_OPTIONAL)
    for key in table:
        if key not in keys:
            raise TfpruneError(f"--device {path}: unknown key {key!r}, expected {', '.join(keys)}")
    missing = [key for key in _NEEDED if key not in table]
    if missing:
        raise TfpruneError(
            f"--device {path}: expected ram and flash, such as ram = '16 KiB'; "
            f"{' and '.join(missing)} not given"
        )
    name = table.pop("name", path.stem)
    if not isinstance(name, str) or not name.isprintable() or not name.strip():
        raise TfpruneError(f"--device {path}: name: expected a line of text, received {name!r}")
    sizes = {}
    for key, value in table.items():
        try:
            sizes[key.replace("-", "_")] = amount(value)
        except TfpruneError as error:
            raise TfpruneError(f"--device {path}: {key}: {error}") from None
    return Board(name, **sizes)
