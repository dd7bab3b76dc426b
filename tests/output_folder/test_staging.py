"""Files that appear in a folder all together or not at all, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.kills import MANIFEST, NEW, OLD, change, content, fill
from tests.support.paths import ROOT
from tfprune.errors import TfpruneError
from tfprune.output_folder import transaction
from tfprune.output_folder.staging import replace_files, staging, writing
from tfprune.output_folder.transaction import JOURNAL, STAGE
from tfprune.utils.files import PARTIAL, STALE, remove_stale_partials, write_whole
from tfprune.utils.locks import LOCK

posix = pytest.mark.skipif(os.name == "nt", reason="needs fork, signals and links")


def child(code, *words, **more):
    """Python code in a process of its own, started."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more,
    )  # fmt: skip


@posix
@pytest.mark.parametrize("how", ["kill", "fail", "interrupt"])
def test_a_change_cut_short_at_any_call_is_made_whole_or_not_at_all(tmp_path, how):
    words = [sys.executable, "-m", "tests.support.kills", str(tmp_path), how]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 60


CHANGES = """
import sys
from pathlib import Path
from tests.support.kills import NEW, OLD, MANIFEST, fill
from tfprune.output_folder.staging import staging

print("ready", flush=True)
for turn in range(1_000_000):
    files = dict(OLD if turn % 2 else NEW)
    del files["notes.txt"]
    obsolete = {*OLD, *NEW} - {"notes.txt"}
    with staging(Path(sys.argv[1]), MANIFEST, (), lambda written: obsolete) as stage:
        fill(stage, files)
"""


@posix
@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_at_random_times(tmp_path, kills):
    """A process that changes a folder all the time, from one state to another and back."""
    times = random.Random(kills)
    seen = []
    for number in range(kills):
        folder = tmp_path / str(number)
        fill(folder, OLD)
        with child(CHANGES, folder) as running:
            assert running.stdout.readline() == "ready\n"
            time.sleep(times.uniform(0, 0.3))
            running.kill()
            running.communicate()
        with writing(folder):
            pass
        seen.append(content(folder, hidden=True))
        assert seen[-1] in (OLD, NEW)
        assert not list(folder.glob(".tfprune-*"))


def test_a_change_leaves_other_files_alone(tmp_path):
    fill(tmp_path, OLD)
    change(tmp_path)
    assert content(tmp_path, hidden=True) == NEW
    assert not (tmp_path / "older").exists()


HOLDS = """
import sys
from pathlib import Path
from tfprune.output_folder.staging import writing

with writing(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.readline()
"""


def test_one_run_at_a_time_writes_into_a_folder(tmp_path):
    with child(HOLDS, tmp_path, stdin=subprocess.PIPE) as running:
        assert running.stdout.readline() == "ready\n"
        with pytest.raises(TfpruneError) as refused, writing(tmp_path):
            pass
        assert str(refused.value) == (
            f"--output {tmp_path}: another run (process {running.pid}) is writing there; wait "
            "until it has ended, or choose another folder"
        )
        # Another folder is free, and a folder inside is another one.
        with writing(tmp_path / "inside"):
            pass
        running.communicate("\n", timeout=30)
    with writing(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    assert not list(tmp_path.iterdir())


def test_a_short_change_waits_for_another(tmp_path):
    with child(HOLDS, tmp_path, stdin=subprocess.PIPE) as running:
        assert running.stdout.readline() == "ready\n"
        running.stdin.write("\n")
        running.stdin.flush()
        replace_files(tmp_path, {"a/b": b"1", "c": b"2"}, wait=60)
        running.communicate()
    assert content(tmp_path) == {"a/b": "1", "c": "2"}


def test_what_dead_runs_left_goes_and_what_looks_alike_stays(tmp_path):
    dead = tmp_path / f"{STAGE}abc_123" / "new"
    dead.mkdir(parents=True)
    (dead / "half.tflite").write_text("half")
    (tmp_path / LOCK).write_text("99999999")
    for name in (".tfprune-notes", f"{STAGE}", f"{STAGE}my notes"):
        (tmp_path / name).mkdir()
    (tmp_path / f"{STAGE}file").write_text("mine")
    elsewhere = tmp_path.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "kept").touch()
    (tmp_path / f"{STAGE}link").symlink_to(elsewhere)
    with writing(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {
        ".tfprune-notes", STAGE, f"{STAGE}my notes", f"{STAGE}file", f"{STAGE}link",
    }  # fmt: skip
    assert (elsewhere / "kept").exists()


def test_a_folder_that_stays_empty_is_not_made(tmp_path):
    with pytest.raises(ZeroDivisionError), staging(tmp_path / "a" / "b", "x") as stage:
        (stage / "file").write_text(str(1 / 0))
    assert not list(tmp_path.iterdir())


def refused(target, *places):
    with pytest.raises(TfpruneError) as error, writing(target, places=places):
        pytest.fail("it has to be refused before the work")
    (line,) = str(error.value).splitlines()
    return line


@posix
def test_links_in_the_way_are_refused_before_the_work(tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    out.mkdir()
    (out / "plots").symlink_to(elsewhere)
    assert refused(out, "plots/a.png") == (
        f"--output {out}: plots is in the way, a link; a folder of its own, or none, is expected"
    )
    (out / "plots").unlink()
    (out / "plots").symlink_to(tmp_path / "nowhere")
    assert "plots is in the way, a link" in refused(out, "plots/a.png")
    (out / "cnn.md").mkdir()
    assert refused(out, "cnn.md") == f"--output {out}: cnn.md is in the way, a folder of that name"
    (out / "c").write_text("")
    assert refused(out, "c/x") == f"--output {out}: c is in the way, a file of that name"
    for name in ("../x", "/x", "a//b", "a/./b", "", "a/../../b"):
        assert f"expected files within it, received {name!r}" in refused(out, name)
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    assert refused(dangling) == (
        f"--output {dangling}: expected a folder that can be written, {dangling} is a link to "
        "nothing"
    )
    assert "dangling is a link to nothing" in refused(dangling / "inside")
    assert refused(out / "c") == (
        f"--output {out / 'c'}: expected a folder that can be written, File exists"
    )
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert "loop: expected a folder that can be written" in refused(loop)
    assert not list(elsewhere.iterdir())
    assert not (tmp_path / "nowhere").exists()


@posix
def test_links_that_do_no_harm_are_taken(tmp_path):
    """A link to the folder stands for it; a link of a file's name is replaced, not followed."""
    out, link, mine = tmp_path / "out", tmp_path / "link", tmp_path / "mine.tflite"
    fill(out, OLD)
    link.symlink_to(out)
    mine.write_text("mine")
    (out / "fresh.tflite").symlink_to(mine)
    change(link)
    assert content(out, hidden=True) == NEW
    assert mine.read_text() == "mine"
    assert link.is_symlink()
    # Through the link and without it the folder is one.
    with child(HOLDS, link, stdin=subprocess.PIPE) as running:
        assert running.stdout.readline() == "ready\n"
        assert "is writing there" in refused(out)
        running.communicate("\n")


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots").chmod(0o555)
    assert "plots is in the way, a folder that cannot be written" in refused(tmp_path, "plots/a")
    tmp_path.chmod(0o555)
    assert "expected a folder that can be written, Permission denied" in refused(tmp_path)
    assert "expected a folder that can be written" in refused(tmp_path / "inside")
    tmp_path.chmod(0o755)


def test_a_folder_of_another_file_system_is_refused(tmp_path, monkeypatch):
    """Files cannot be moved there in one step."""
    (tmp_path / "plots").mkdir()
    lstat = Path.lstat

    def elsewhere(path):
        known = list(lstat(path))
        known[2] += path.name == "plots"  # st_dev
        return os.stat_result(known)

    monkeypatch.setattr(Path, "lstat", elsewhere)
    assert "plots is in the way, a folder on another file system" in refused(tmp_path, "plots/a")


FULL = """
import resource, sys
from pathlib import Path
from tests.support.kills import change
from tfprune.errors import TfpruneError

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    change(Path(sys.argv[1]))
except (TfpruneError, OSError) as error:
    sys.exit(f"{error}")
"""


@posix
@pytest.mark.parametrize("room", [0, 2, 40])
def test_a_full_disk_leaves_the_old_files(tmp_path, room):
    """For nothing at all, for part of a file, and for all files but not for the journal."""
    fill(tmp_path, OLD)
    with child(FULL, tmp_path, room) as running:
        err = running.communicate()[1]
    assert running.returncode == 1
    assert "File too large" in err
    assert "Traceback" not in err
    assert content(tmp_path, hidden=True) == OLD


FOREIGN = [
    "", "{", "[1, 2]", "null", '"x"', "[" * 100_000, "1" * 5000,
    {"stage": "../x", "moves": [], "removals": [], "undo": False},
    {"stage": f"{STAGE}x/../..", "moves": [], "removals": [], "undo": False},
    {"stage": f"{STAGE}x", "moves": ["../victim"], "removals": [], "undo": False},
    {"stage": f"{STAGE}x", "moves": [], "removals": ["../victim"], "undo": False},
    {"stage": f"{STAGE}x", "moves": [], "removals": ["link/victim"], "undo": False},
    {"stage": f"{STAGE}x", "moves": [], "removals": ["/etc/victim"], "undo": True},
    {"stage": f"{STAGE}x", "moves": [], "removals": [1], "undo": False},
    {"stage": f"{STAGE}x", "moves": "ab", "removals": [], "undo": False},
    {"stage": f"{STAGE}link", "moves": ["victim"], "removals": [], "undo": False},
]  # fmt: skip


@posix
@pytest.mark.parametrize("told", FOREIGN, ids=range(len(FOREIGN)))
def test_a_journal_of_a_stranger_reaches_nothing_outside(tmp_path, told):
    out = tmp_path / "out"
    for folder in (out, out / f"{STAGE}x" / "new", out / f"{STAGE}x" / "old"):
        folder.mkdir(parents=True, exist_ok=True)
    (tmp_path / "victim").write_text("whole")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "victim").write_text("planted")
    (out / f"{STAGE}x" / "new" / "victim").write_text("planted")
    (out / "link").symlink_to(tmp_path)
    (out / f"{STAGE}link").symlink_to(tmp_path)
    (out / JOURNAL).write_text(told if isinstance(told, str) else json.dumps(told))
    assert refused(out).startswith(f"--output {out}: ")
    assert content(tmp_path)["victim"] == "whole"
    assert content(tmp_path)["new/victim"] == "planted"
    assert (out / JOURNAL).exists()


def test_readers_wait_for_a_change_and_say_when_it_was_cut_short(tmp_path, monkeypatch):
    monkeypatch.setattr(transaction, "PATIENCE", 0.2)
    fill(tmp_path, OLD)
    reads = []

    def read():
        reads.append(content(tmp_path))
        if len(reads) == 1:
            change(tmp_path)
            raise OSError("a file that was there is not")
        return reads[-1]

    assert transaction.read_settled(tmp_path, "it", read) == NEW
    (tmp_path / JOURNAL).write_text("{}")
    with pytest.raises(TfpruneError, match="^it: a run was cut short while it put its files"):
        transaction.read_settled(tmp_path, "it", read)
    (tmp_path / JOURNAL).unlink()
    with pytest.raises(ZeroDivisionError):
        transaction.read_settled(tmp_path, "it", lambda: 1 / 0)

    def restless():
        fill(tmp_path, {MANIFEST: str(time.monotonic_ns()) * len(reads)})
        reads.append({})

    with pytest.raises(TfpruneError, match="replaced all the time"):
        transaction.read_settled(tmp_path, "it", restless)


def test_single_files_appear_whole(tmp_path):
    write_whole(tmp_path / "a", b"1")
    assert content(tmp_path, hidden=True) == {"a": "1"}
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "b" / "c", b"1")
    young, old = tmp_path / f"{PARTIAL}1", tmp_path / f"{PARTIAL}2"
    for path in (young, old):
        path.touch()
    os.utime(old, (time.time() - STALE - 9,) * 2)
    remove_stale_partials(tmp_path)
    assert young.exists()
    assert not old.exists()


@posix
def test_a_single_file_goes_where_a_link_points_to_and_into_a_pipe(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    code = "import sys; sys.stdout.write(open(sys.argv[1]).read())"
    with child(code, tmp_path / "pipe") as running:
        write_whole(tmp_path / "pipe", b"through")
        assert running.communicate()[0] == "through"
    assert (tmp_path / "pipe").is_fifo()


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from tests.support.kills import NEW, change
from tfprune.cli.command import main
from tfprune.studies.config import StudyConfig

def work(config, command):
    if sys.argv[2] == "during":
        replace = os.replace
        os.replace = lambda *paths: (replace(*paths), os.kill(os.getpid(), signal.SIGTERM))
    change(Path(sys.argv[1]))
    os.kill(os.getpid(), signal.SIGTERM)

sys.exit(main(work, lambda: StudyConfig, [], "tools.work"))
"""


@posix
@pytest.mark.parametrize("when", ["during", "after"])
def test_an_interrupt_says_what_it_left(tmp_path, when):
    """It came too late to change nothing."""
    fill(tmp_path, OLD)
    with child(INTERRUPTED, tmp_path, when) as running:
        out, err = running.communicate()
    assert (running.returncode, out) == (130, "")
    assert err == f"tools.work: interrupted; written by then, and whole: {tmp_path}\n"
    assert content(tmp_path, hidden=True) == NEW


def test_no_signal_is_changed_for_good(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    change(tmp_path)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
