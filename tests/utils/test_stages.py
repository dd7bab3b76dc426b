"""Stages of a run on stderr: what a log gets, what a terminal gets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap

import pytest

from tests.support.paths import ROOT
from tfprune.utils import console
from tfprune.utils.console import Stages, during, meter, say


def lines(capfd):
    out, err = capfd.readouterr()
    assert out == ""
    assert "\r" not in err
    return err.split("\n")[:-1]


def test_a_log_gets_each_stage_once_with_its_number(capfd):
    with Stages(["first", "second", "third", "fourth"]):
        with during("first"):
            say("WARNING: beside it")
            assert lines(capfd) == ["1 of 4: first", "WARNING: beside it"]
        for _ in range(2):  # A loop comes through it again.
            with during("second"), meter("second: rates", None) as rates:
                rates.update()
            with meter("second", 5) as bar:
                for _ in range(5):
                    bar.update()
                    bar.set_postfix_str("loss 3")
                    with during("fourth"), meter("inner", 2) as inner:
                        inner.update(2)
        with meter("fourth", 1) as bar:
            bar.update()
    assert lines(capfd) == ["2 of 4: second", "3 of 4: third: nothing to do", "4 of 4: fourth"]


def test_a_mistake_in_the_first_stage_is_told_alone(capfd):
    with pytest.raises(ValueError, match="wrong"), Stages(["first", "second"]), during("first"):
        raise ValueError("wrong")
    assert lines(capfd) == []
    with Stages(["only"]):
        pass
    assert lines(capfd) == ["1 of 1: only: nothing to do"]


def test_a_long_stage_says_now_and_then_how_long_it_takes_yet(capfd, monkeypatch):
    clock = iter(range(0, 10_000, 25))  # Seconds that pass from look to look.
    monkeypatch.setattr(console, "AGAIN", 60.0)
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(clock)))
    with Stages(["short", "healing"]), meter("healing", 10) as bar:
        for _ in range(10):
            bar.set_postfix_str("")
            bar.n += 1
    first, second, *more = lines(capfd)
    assert (first, second) == ("1 of 2: short: nothing to do", "2 of 2: healing")
    assert 1 <= len(more) <= 4
    for line in more:
        assert re.fullmatch(r"2 of 2: healing, \d+%, (\d\d:)+\d\d left", line), line
    assert len(set(more)) == len(more)


def test_without_a_run_bars_are_as_they_were(capfd):
    with meter("activations", 3) as bar:
        bar.update(3)
    assert "activations: 100%" in capfd.readouterr().err
    with meter("activations", 3, shown=False) as bar, Stages([]):
        with meter("activations", 3, shown=False) as other:
            other.update()
        bar.update()
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_line_that_moves_and_ends_with_the_time():
    import fcntl
    import pty
    import struct
    import termios

    script = """
        import time
        from tfprune.utils.console import *
        with Stages(["one", "two", "three"]):
            with during("one"):
                say("beside")
            with meter("three", 4) as bar:
                for _ in range(4):
                    time.sleep(0.12)
                    bar.update()
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stderr=theirs, stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as child:  # fmt: skip
        out = child.communicate(timeout=60)[0]
    os.close(theirs)
    received = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # The end of a pseudo-terminal.
            break
        if not part:
            break
        received += part
    os.close(ours)
    assert out == b""
    written = received.decode()
    assert re.search(r"3 of 3: three: +\d+%.*<00:00", written)
    # What stays: of what a carriage return wrote over, the last that is not blank.
    shown = [[p for p in line.split("\r") if p.strip()] for line in written.split("\n")]
    assert [parts[-1].strip() for parts in shown if parts] == [
        "tfprune: beside", "1 of 3: one, 00:00", "2 of 3: two: nothing to do",
        "3 of 3: three, 00:00",
    ]  # fmt: skip
