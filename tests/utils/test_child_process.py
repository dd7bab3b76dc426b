"""Processes that answer: they crash alone, come again, and end with who started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support.paths import ROOT
from tfprune.utils.child_process import Child, ChildEndedError, ChildError

posix = pytest.mark.skipif(os.name == "nt", reason="signals")


@pytest.fixture(scope="module")
def answers():
    made = Child("tests.support.answers")
    yield made
    made.stop()


def test_answers_are_values_or_errors_whatever_is_printed(answers):
    assert answers.ask("double", value=[1, "ä\n"]) == [1, "ä\n", 1, "ä\n"]
    with pytest.raises(ChildError, match="not so\nand why") as caught:
        answers.ask("refuse", text="not so\nand why")
    assert not isinstance(caught.value, ChildEndedError)
    with pytest.raises(ChildError, match="ValueError"):
        answers.ask("refuse", text="")
    # One process for all of them.
    assert answers.ask("process") == answers.ask("process") != os.getpid()


@posix
@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGILL"])
def test_a_crash_is_an_error_that_names_the_signal(answers, name):
    before = answers.ask("process")
    with pytest.raises(ChildEndedError, match=f"^{name}$"):
        answers.ask("die", name=name)
    assert answers.ask("process") != before


@posix
def test_what_was_said_last_is_passed_on(answers):
    last = "I0000 fine\nF0000 00:00:1.5 tensor.cc:101] Check failed: 1 == 2 (1 vs. 2)\n"
    with pytest.raises(ChildEndedError, match=r"^SIGABRT \(F0000 .* Check failed: 1 == 2"):
        answers.ask("die", name="SIGABRT", last=last)
    # And not once more by another one.
    with pytest.raises(ChildEndedError, match="^SIGABRT$"):
        answers.ask("die", name="SIGABRT")


@posix
def test_a_kill_may_be_the_system_short_of_memory(answers):
    with pytest.raises(ChildEndedError, match="SIGKILL.*memory"):
        answers.ask("die", name="SIGKILL")


def test_one_that_has_ended_by_itself_is_started_again(answers):
    before = answers.ask("process")
    with pytest.raises(ChildEndedError, match="exit code 3"):
        answers.ask("leave", code=3)
    assert answers.ask("process") != before


@posix
def test_it_ends_when_nothing_is_asked_for_long():
    code = (
        "import sys, tfprune.utils.child_process as c; "
        "c.IDLE = 0.3; c.serve('tests.support.answers')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        process.stdin.write(b'["double", {"value": 4}]\n')
        process.stdin.flush()
        assert process.stdout.readline() == b'{"value": 8}\n'
        assert process.wait(timeout=60) == 0


def test_an_end_between_two_requests_is_not_noticed(answers):
    before = answers.ask("process")
    answers._process.stdin.close()
    answers._process.wait(timeout=60)
    assert answers.ask("process") != before


@posix
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_who_started_it_in_the_middle_of_native_code(tmp_path, number):
    import fcntl

    held = tmp_path / "held"
    code = (
        "from tfprune.utils.child_process import Child; "
        f"Child('tests.support.answers').ask('hold', path={str(held)!r})"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as parent:
        _wait_for(lambda: held.exists() and held.read_text() == "held")
        parent.send_signal(number)
    with held.open() as file:
        # Whoever holds a lock lives.
        def free() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        _wait_for(free)


@posix
def test_an_interrupt_stops_it_and_is_passed_on(tmp_path):
    held = tmp_path / "held"
    code = (
        "from tfprune.utils.child_process import Child\n"
        "answers = Child('tests.support.answers')\n"
        "try:\n"
        f"    answers.ask('hold', path={str(held)!r})\n"
        "except KeyboardInterrupt:\n"
        "    print(answers.ask('double', value=4))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as parent:  # fmt: skip
        _wait_for(lambda: held.exists() and held.read_text() == "held")
        # As a terminal does: to all of the group.
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.communicate(timeout=60) == ("8\n", "")


FORK = """
import os, sys
from tfprune.utils.child_process import Child
answers = Child("tests.support.answers")
first = answers.ask("process")
if os.fork() == 0:
    second = answers.ask("process")
    os._exit(second == first)
print(os.waitstatus_to_exitcode(os.wait()[1]), answers.ask("process") == first)
"""


@posix
def test_a_fork_asks_a_process_of_its_own():
    done = subprocess.run(
        [sys.executable, "-c", FORK], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("0 True\n", "")


SCRIPT = """
import sys
from tfprune.utils.child_process import Child
answers = Child("tests.support.answers")
print(answers.ask("double", value=21))
print(*answers.ask("places"), sep="\\n")
"""


@pytest.mark.parametrize("way", ["script", "-c", "stdin"])
def test_it_works_from_wherever_python_runs(tmp_path, way):
    """A script without a guard; the package from a place that only sys.path knows."""
    script = tmp_path / "script.py"
    text = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{SCRIPT}"
    script.write_text(text)
    words = {"script": [str(script)], "-c": ["-c", text], "stdin": ["-"]}[way]
    done = subprocess.run(
        [sys.executable, *words], input=text if way == "stdin" else None, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    first, *places = done.stdout.splitlines()
    assert first == "42"
    assert str(ROOT) in places and (way != "script" or str(tmp_path) in places)


def test_what_cannot_be_started_is_told(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/python")
    with pytest.raises(ChildError, match=r"Python \(/no/python\) cannot be started"):
        Child("tests.support.answers").ask("process")


def _wait_for(what, seconds=60.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)
