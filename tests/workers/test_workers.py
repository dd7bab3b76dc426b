"""Work shared by processes of this machine and by a real Dask cluster, against a plain loop."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import keras
import numpy as np
import pytest

import tfprune
from tests.support.paths import ROOT
from tfprune.errors import TfpruneError
from tfprune.graph.inputs import Samples
from tfprune.graph.tracer import trace
from tfprune.reconstruction.sites import Wiring
from tfprune.reconstruction.summed import solve_by_sums
from tfprune.shards import files
from tfprune.shards.equations import open_source
from tfprune.sweep.config import SweepConfig
from tfprune.sweep.grid import grid
from tfprune.sweep.runner import run
from tfprune.workers import cluster as cluster_module
from tfprune.workers import pool as pool_module
from tfprune.workers import processes
from tfprune.workers.pool import Piece, open_workers

pytest.importorskip("distributed", reason="needs requirements-cluster.txt")
PIECES = "tests.support.pieces"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def nothing(line):
    pass


def plain(name, function, **arguments):
    """A piece without Keras, whose import takes seconds."""
    return Piece(name, f"{PIECES}:{function}", arguments, keras=False)


@contextlib.contextmanager
def started(*words):
    """A program of Dask; ended with what it started."""
    with subprocess.Popen(
        [sys.executable, "-m", "dask", *words], env=ENVIRONMENT, cwd=ROOT / "tests",
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def address():
    """A scheduler with two workers, in a folder of their own."""
    with started("scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard") as scheduler:
        for line in scheduler.stderr:
            found = re.search(r"tcp://127\.0\.0\.1:\d+", line)
            if found:
                break
        with started("worker", found[0], "--nworkers", "2", "--nthreads", "1", "--no-dashboard"):
            yield found[0]


@pytest.fixture(params=["processes", "cluster"])
def where(request):
    """What is asked for: two processes, or the address of a cluster."""
    if request.param == "processes":
        return 2, None
    return None, request.getfixturevalue("address")


def test_pieces_are_done_once_each_whatever_dies(where, tmp_path):
    pieces = [plain(f"piece {n}", "scaled", number=n, marker=None) for n in range(7)]
    for number, parent in ((2, False), (4, where[1] is not None)):
        # On a cluster the parent of a process is the Dask worker.
        died = {"number": number, "marker": str(tmp_path / f"died{number}"), "parent": parent}
        pieces[number] = replace(pieces[number], arguments=died)
    with open_workers(*where, nothing) as pool:
        done = list(pool.results(pieces, ordered=True, shared=b"\x03"))
        assert [one.value for one in done] == [{"number": n, "factor": 3} for n in range(7)]
        for n, one in enumerate(done):
            assert one.arrays["table"].tolist() == [0, 3 * n, 6 * n]
        again = list(pool.results(pieces, shared=b"\x05"))
        assert sorted(one.value["number"] for one in again) == list(range(7))
        assert all(one.arrays["table"][1] == 5 * one.value["number"] for one in again)
        bad = plain("shard 8", "refused", path="8.npz")
        with pytest.raises(TfpruneError, match=r"shard 8: 8\.npz: no such file"):
            list(pool.results([bad]))
        with pytest.raises(RuntimeError, match=r"(?s)piece 9:.*TypeError"):
            list(pool.results([plain("piece 9", "refused", other=1)]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pool_module, "versions", lambda: {"tfprune": "9.9"})
            with pytest.raises(TfpruneError, match=r"expected .*tfprune 9\.9.* received .*tfprune"):
                list(pool.results([bad]))
    assert len(list(tmp_path.iterdir())) == 2


def test_pieces_go_where_something_of_them_is_kept():
    pieces = [replace(plain(name, "slept", seconds=0.5), near=name) for name in "ab"]
    with open_workers(2, None, nothing) as pool:
        first, again, third = (
            {one.piece.name: one.value for one in pool.results(order, ordered=True)}
            for order in (pieces, pieces[::-1], pieces)
        )
    assert first["a"] != first["b"]
    assert first == again == third


def test_a_piece_that_ends_every_worker_is_told():
    with (
        open_workers(1, None, nothing) as pool,
        pytest.raises(TfpruneError, match="piece: a worker ended 3 times over it: SIGKILL"),
    ):
        list(pool.results([plain("piece", "deadly")]))


@pytest.mark.parametrize("alike", [False, True])
def test_threads_are_a_share_of_the_cores_or_the_command_s(alike, where, monkeypatch):
    """Two workers on four cores."""
    names = ["OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"]
    for module in (pool_module, processes):
        monkeypatch.setattr(module, "cores", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    with open_workers(*where, nothing, alike=alike) as pool:
        begun = pool.begin(plain("piece", "environment", names=names))
        while not begun.ended:
            pool.wait([begun])
        share = ("3", "2") if where[0] else ("1", "1")  # As the user, and Dask, said.
        expected = ("3", "4") if alike else share
        assert begun.result().value == dict(zip(names, expected, strict=True))


def test_a_scheduler_that_does_not_answer_is_told(monkeypatch):
    monkeypatch.setattr(cluster_module, "PATIENCE", 1)
    for wrong in ("tcp://127.0.0.1:9", "nonsense", "foo://127.0.0.1:9"):
        said = f"--cluster {wrong}: no scheduler answers there .* start one with: dask scheduler"
        with pytest.raises(TfpruneError, match=said), open_workers(None, wrong, nothing):
            pass


def test_numbers_that_are_none_are_told():
    for number, cluster, said in (
        (0, None, "workers: expected a whole number from 1 to 1024"),
        (2, "tcp://127.0.0.1:9", "workers and cluster: expected one of them"),
    ):
        with pytest.raises(TfpruneError, match=said), open_workers(number, cluster, nothing):
            pass


def test_dask_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(TfpruneError, match=r"--cluster: needs Dask, .*'tfprune\[cluster\]'"),
        open_workers(None, "tcp://127.0.0.1:9", nothing),
    ):
        pass


@pytest.fixture(scope="module")
def home(tmp_path_factory, seed):
    """A folder with a model and its data."""
    folder = tmp_path_factory.mktemp("home")
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(16, "tanh", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="output")(hidden))
    model.save(folder / "tiny.keras")
    x = np.random.default_rng(seed).normal(size=(300, 4)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=model.predict(x, verbose=0))
    return folder


INTERRUPTED = """
import sys
from tfprune.cli.command import guarded
from tfprune.workers.pool import Piece, open_workers

def work():
    with open_workers(2, None, print) as pool:
        piece = Piece("piece", "tests.support.pieces:endless", {"folder": sys.argv[1]}, keras=False)
        list(pool.results([piece, piece, piece]))
    return 0

sys.exit(guarded(work, "tools.sweep"))
"""


def test_ctrl_c_ends_the_workers(tmp_path):
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as running:
        while len(list(tmp_path.iterdir())) < 2:
            assert running.poll() is None
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=60)[1]
    assert (running.returncode, said) == (130, "tools.sweep: interrupted; nothing was changed\n")
    for path in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name), 0)


def test_files_are_measured_where_the_workers_are(address, tmp_path, rng, monkeypatch):
    monkeypatch.setattr(files, "LEAST", 1)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(16, "tanh", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="output")(hidden))
    paths = [tmp_path / f"{n}.npy" for n in range(5)]
    for path in paths:
        np.save(path, rng.normal(size=(40, 4)))
    alone, shared = tfprune.Pruner(model, paths), tfprune.Pruner(model, paths, cluster=address)
    for ours, theirs in zip(shared.calibration.groups, alone.calibration.groups, strict=True):
        for one, other in zip(ours.views, theirs.views, strict=True):
            np.testing.assert_allclose(one.moments.gram(), other.moments.gram(), 1e-12, 1e-12)
            np.testing.assert_allclose(one.held.gram(), other.held.gram(), 1e-12, 1e-12)
    known = files.as_shards(paths, model)
    paths[3].unlink()
    with pytest.raises(TfpruneError, match=r"^worker tcp://.*3\.npy: .*cannot be read \(No such"):
        tfprune.Pruner(model, known, cluster=address)


DEADLY = """
import os, signal
from pathlib import Path

import keras

class Own(keras.layers.Layer):
    pass

if not Path({marker!r}).exists():
    Path({marker!r}).touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_normal_equations_are_the_same_whoever_sums_them(where, tmp_path, rng, monkeypatch):
    """To the bit; also where a worker ends, whose piece another does."""
    monkeypatch.setattr(files, "LEAST", 1)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(16, "relu", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="output")(hidden))
    smaller = keras.models.clone_model(model)
    paths = [str(tmp_path / f"{n}.npy") for n in range(5)]
    for path in paths:
        np.save(path, rng.normal(size=(40, 4)))
    deadly = tmp_path / "deadly.py"
    deadly.write_text(DEADLY.format(marker=str(tmp_path / "died")))
    shards = replace(files.as_shards(paths, model), imports=(str(deadly),))
    made = []
    for asked in ((None, None), where):
        ours, theirs = Wiring(trace(smaller)), Wiring(trace(model))
        samples = Samples(model, shards.x)
        with open_source(shards, asked, samples, smaller, model) as source:
            pieces = source.begin(ours, theirs, {})
            assert solve_by_sums(ours, theirs, {}, pieces) == ["hidden", "output"]
        made.append([one.tobytes() for one in ours.trace.model.get_weights()])
    assert made[0] == made[1]
    assert (tmp_path / "died").exists()


def test_a_sweep_is_that_without_workers(home, address):
    words = {"selections": "effect", "degrees": "none", "folds": "drop", "schemes": "float32"}
    alone = SweepConfig(
        model=str(home / "tiny.keras"), data=str(home / "data.npz"), output=str(home / "alone"),
        shares="50%,75%", heal="1", **words,
    )  # fmt: skip
    whole = run(grid(alone), ["sweep"], nothing)
    shared = replace(alone, output=str(home / "shared"))
    begun = run(grid(replace(shared, shares="75%", workers=1)), ["sweep"], nothing)
    assert begun.rows == [whole.rows[n] for n in (0, 3, 4)]
    lines = []
    run(grid(replace(shared, cluster=address)), ["sweep"], lines.append)
    assert "5 points in float32: 5 files, 3 of them measured before" in lines
    logs, tables = (
        [(home / name / f"sweep.{kind}").read_bytes() for name in ("alone", "shared")]
        for kind in ("jsonl", "csv")
    )
    assert tables[0] == tables[1]
    assert sorted(logs[0].splitlines()) == sorted(logs[1].splitlines())
