"""What every command does when it is interrupted."""

from __future__ import annotations

import subprocess
import sys

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
