"""How commands are started, and what every command does when it is interrupted."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tfprune
from tests.support.paths import ROOT

WORK = """
import os, signal, sys
from tfprune.studies.config import StudyConfig
from tfprune.cli.command import main

class Cut:
    def __del__(self):
        raise KeyError("cut short")

def work(config, command):
    cut = Cut()
    os.kill(os.getpid(), signal.SIGINT)

sys.exit(main(work, lambda: StudyConfig, [], "tools.work"))
"""


def test_destructors_that_an_interrupt_cut_short_say_nothing():
    done = subprocess.run(
        [sys.executable, "-c", WORK], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines() == ["tools.work: interrupted; nothing was changed"]


@pytest.mark.parametrize("module", ["tfprune", "tfprune.cli.main"])
def test_the_command_is_a_module_too(module):
    def run(*words):
        line = [sys.executable, "-m", module, *words]
        return subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT)

    assert run("--version").stdout == f"tfprune {tfprune.__version__}\n"
    done = run("exprot")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tfprune: unknown command 'exprot'; did you mean export?\n"
