"""Boards and what fits on them, by hand arithmetic."""

from __future__ import annotations

import pytest

from tfprune import TfpruneError
from tfprune.micro.boards import BOARDS, Board, boards
from tfprune.tflite.schemes import check_micro

TOML = """
name = "my board"
ram = "16 KiB"
flash = 65536
ram-taken = 4096
"""


def test_named_boards_have_the_memory_of_their_datasheets():
    uno, pico = boards(["arduino-uno-r4", "raspberry-pi-pico", "arduino-uno-r4"])
    assert (uno.ram, uno.flash) == (32 * 1024, 256 * 1024)
    assert (pico.ram, pico.flash) == (264 * 1024, 2 * 1024 * 1024)
    assert all(board.name == name for name, board in BOARDS.items())


def test_a_file_describes_a_board(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TOML)
    assert boards([str(path)]) == (Board("my board", 16384, 65536, ram_taken=4096),)
    path.write_text("ram = 1000\nflash = '2 KB'")
    assert boards([str(path)]) == (Board("mine", 1000, 2000),)


@pytest.mark.parametrize(
    ("file", "arena", "fits", "said"),
    [
        (60_000, 10_000, True, "fits, 2,288 B of RAM and 5,536 B of flash left"),
        (65_536, 12_288, True, "fits, 0 B of RAM and 0 B of flash left"),
        (65_537, 12_000, False, "does not fit, 1 B of flash too little"),
        (60_000, 12_304, False, "does not fit, 16 B of RAM too little"),
        (70_000, 16_384, False, "does not fit, 4,096 B of RAM and 4,464 B of flash too little"),
    ],
)
def test_what_fits_and_by_how_much(file, arena, fits, said):
    room = Board("b", 16384, 65536, ram_taken=4096).room(file, arena)
    assert (room.fits, str(room)) == (fits, said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ram = ", "expected a TOML file"),
        ("ram = 5", "flash not given"),
        ("", "ram and flash not given"),
        ("ram = 5\nflash = 6\nrom = 7", "unknown key 'rom'"),
        ("ram = 5\nflash = '6 KX'", "flash: expected bytes"),
        ("ram = -5\nflash = 6", "ram: expected bytes"),
        ("ram = true\nflash = 6", "ram: expected bytes"),
        ("ram = [1]\nflash = 6", "ram: expected bytes"),
        ("ram = 5\nflash = 6\nname = 7", "name: expected a line of text"),
        ('ram = 5\nflash = 6\nname = "a\\nb"', "name: expected a line of text"),
        ("\x00", "expected a TOML file"),
    ],
)
def test_bad_files_are_told_in_a_line(tmp_path, text, said):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(TfpruneError, match=said) as caught:
        boards([str(path)])
    assert str(path) in str(caught.value)
    # A parser may speak in several lines; the command joins them.
    assert len(str(caught.value)) < 400


def test_unknown_boards_and_files_are_told(tmp_path):
    with pytest.raises(TfpruneError, match=r"expected one of .*raspberry-pi-pico.*received 'pico'"):
        boards(["pico"])
    with pytest.raises(TfpruneError, match="No such file"):
        boards([str(tmp_path / "none.toml")])


def test_what_is_not_for_microcontrollers_is_refused_with_the_reason(monkeypatch):
    with pytest.raises(TfpruneError, match=r"float16: .*no floats of 16 bits; dynamic: "):
        check_micro("--c-array", ("float16", "dynamic"), 1)
    with pytest.raises(TfpruneError, match="one size; leave --batch dynamic out"):
        check_micro("--device", ("int8",), None)
    monkeypatch.setattr("tfprune.tflite.schemes.find_spec", lambda name: None)
    with pytest.raises(TfpruneError, match=r"--c-array: .*requirements-tflm\.txt"):
        check_micro("--c-array", ("int8",), 1)
    monkeypatch.setattr("tfprune.tflite.schemes.find_spec", lambda name: name)
    check_micro("--c-array", ("float32", "int8"), 1)
