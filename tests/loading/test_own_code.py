"""``--import``: model files that name what the user's own Python files define, and nothing more."""

from __future__ import annotations

import json
import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import layers as kl

from tests.support.commands import run
from tests.support.graphs import fill
from tests.support.planted import dense, edited, function, last_layer, obj, small
from tfprune.data.networks import load_model
from tfprune.errors import TfpruneError
from tfprune.graph import user_rules
from tfprune.loading import own_code
from tools.inspect.__main__ import main as inspect

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.usefixtures("same_process"),
]
OWN = """
    import keras
    import tfprune
    from helper_of_mine import FACTOR

    kept = keras.saving.register_keras_serializable("mine")

    @kept
    class Scale(keras.layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

        def call(self, x):
            return FACTOR * self.scale * x

    class Plain(keras.layers.Layer):
        def call(self, x):
            return x

    @kept
    class Mine(keras.Model):
        def train_step(self, data):
            return {**super().train_step(data), "mine": 1.0}

    @kept
    def far(y, p):
        return keras.ops.mean(keras.ops.abs(y - p), axis=-1)

    @kept
    class Worst(keras.metrics.Mean):
        def update_state(self, y, p, sample_weight=None):
            return super().update_state(keras.ops.max(keras.ops.abs(y - p)))

    def wipe(path):
        raise AssertionError("called")

    tfprune.register_layer(Scale, "unitwise")
"""


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    """What a file registers is gone after the test."""
    known, modules, path = keras.saving.get_custom_objects(), dict(sys.modules), list(sys.path)
    before = dict(known)
    monkeypatch.setattr(user_rules, "USER_RULES", {})
    monkeypatch.setattr(own_code, "_imported", {})
    yield
    known.clear()
    known.update(before)
    for name in set(sys.modules) - set(modules):
        if name.startswith(("own_", "helper_")):
            del sys.modules[name]
    sys.path[:] = path


@pytest.fixture
def own(tmp_path):
    """A file of the user's, which imports another one."""
    (tmp_path / "helper_of_mine.py").write_text("FACTOR = 2.0\n")
    path = tmp_path / "own_layers.py"
    path.write_text(textwrap.dedent(OWN))
    return path


@pytest.fixture
def saved(own, tmp_path, rng):
    """Files of models of these classes, saved where they are known; they are unknown now."""
    objects = own_code.imported([own]).objects
    mine, scale, plain = objects["mine>Mine"], objects["mine>Scale"], objects["Plain"]
    data = keras.Input((8,), name="data")
    hidden = scale(name="own")(kl.Dense(16, activation="relu", name="hidden")(data))
    model = fill(mine(data, kl.Dense(2, name="out")(hidden), name="net"), rng)
    model.compile("adam", objects["mine>far"], metrics=[objects["mine>Worst"]()])
    model.save(tmp_path / "mine.keras")
    x = rng.normal(size=(120, 8)).astype("float32")
    np.savez(tmp_path / "data.npz", x=x, y=np.asarray(model(x)))
    chain = keras.Sequential([keras.Input((8,)), kl.Dense(4), scale(name="own"), plain(name="p")])
    for suffix in (".keras", ".h5"):
        fill(chain, rng).save(tmp_path / f"chain{suffix}")
    keras.saving.get_custom_objects().clear()
    own_code._imported.clear()
    return tmp_path, model, x


def test_a_class_that_is_missing_is_named_and_what_to_type(saved):
    folder, _, _ = saved
    for name, missing in (("mine.keras", "mine>Mine"), ("chain.h5", "mine>Scale")):
        for unsafe in (False, True):
            with pytest.raises(TfpruneError, match="add --import FILE.py") as error:
                load_model(folder / name, unsafe)
            # Keras itself names a class without its package.
            named = missing.partition(">")[2] if unsafe and name == "mine.keras" else missing
            assert f"it needs the class {named}" in str(error.value)
            assert "Functional" not in str(error.value)


@pytest.mark.parametrize("unsafe", [False, True])
def test_what_the_file_defines_is_found(saved, own, unsafe):
    folder, model, x = saved
    loaded = load_model(folder / "mine.keras", unsafe, compiled=True, imports=[own])
    assert type(loaded).__name__ == "Mine"
    np.testing.assert_array_equal(loaded(x), model(x))
    assert loaded.loss.__name__ == "far"
    assert "mine" in loaded.fit(x, np.asarray(model(x)), verbose=0).history
    for suffix in (".keras", ".h5"):
        chain = load_model(folder / f"chain{suffix}", unsafe, imports=[own])
        assert [type(layer).__name__ for layer in chain.layers] == ["Dense", "Scale", "Plain"]


def test_export_prunes_trains_and_scores_with_it(saved, own, tmp_path, capfd):
    argv = ["--model", tmp_path / "mine.keras", "--import", own, "--data", tmp_path / "data.npz"]
    words = ["--remove", "50%", "--finetune", 1, "--schemes", "float32"]
    code, _, err = run([*argv, *words, "--output", tmp_path / "made"], capfd)
    assert code == 0, err
    assert "settings cannot be read" not in err
    manifest = json.loads((tmp_path / "made" / "manifest.json").read_text())
    (layer,) = manifest["prune"]["layers"]
    assert (layer["name"], layer["units_after"]) == ("hidden", 8)
    # Without the file the loss is unknown, and so is the model.
    code, _, err = run([*argv[:2], *argv[4:], *words, "--output", tmp_path / "no"], capfd)
    assert code == 2


def test_inspect_types_it_again(saved, own, tmp_path, capsys):
    assert inspect([str(tmp_path / "mine.keras"), "--import", str(own)]) == 0
    assert f"--import {own}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("planted", "reason"),
    [
        (obj("Lambda", name="l", function=function("set_epsilon")), "run code on loading"),
        (dense(activation=function("wipe", "own_layers")), "on no list of functions"),
        (dense(activation={**function("wipe", "own_layers"), "config": "mine>wipe"}), "on no list"),
        (obj("FACTOR", "own_layers", name="f"), "needs the class FACTOR"),
        (obj("Popen", "subprocess", name="f"), "needs the class Popen"),
        ({**obj("Scale", "own_layers", name="s"), "registered_name": "evil>Scale"}, "evil>Scale"),
        (obj("Plain", "own_layers", name="s", x=function("wipe", "os")), "on no list"),
        (obj("Plain", "own_layers", name="s", x=obj("Popen", "subprocess")), "class Popen"),
        (obj("Plain", "own_layers", name="s", vocabulary="/etc/passwd"), "a file's name"),
    ],
)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_nothing_else_is_let_through(own, tmp_path, planted, reason, suffix):
    """The checks of a file of a stranger's are as strict as without the option."""
    path = edited(small(tmp_path / f"m{suffix}"), last_layer(planted))
    with pytest.raises(TfpruneError, match=reason):
        load_model(path, imports=[own])


def test_keras_own_classes_stay_keras_own(tmp_path):
    """A class of the user's that is called as one of Keras' takes nothing over."""
    path = tmp_path / "own_dense.py"
    path.write_text("import keras\nclass Dense(keras.layers.Dense):\n    pass\n")
    loaded = load_model(small(tmp_path / "m.keras"), imports=[path])
    assert type(loaded.layers[0]) is kl.Dense


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import keras\n1 / 0\n", r"ZeroDivisionError, line 2: division by zero"),
        ("def broken(:\n", "SyntaxError"),
        ("raise SystemExit(3)\n", "SystemExit"),
        ("import keras\nx = keras.layers.Dense\n", "defines no layer, loss or metric"),
        (None, "no such file"),
    ],
)
def test_a_file_that_fails_is_told_in_a_line(tmp_path, text, reason):
    path = tmp_path / "own_broken.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(TfpruneError, match=f"--import .*own_broken.py: .*{reason}"):
        load_model(small(tmp_path / "m.keras"), imports=[path])


def test_a_folder_is_told_so(tmp_path):
    with pytest.raises(TfpruneError, match="--import .*: expected a Python file, it is a folder"):
        load_model(small(tmp_path / "m.keras"), imports=[tmp_path])


def test_what_it_prints_is_not_in_the_answer(tmp_path, capsys):
    """``inspect --json`` prints JSON alone."""
    path = tmp_path / "own_words.py"
    path.write_text("import keras\nprint('hello')\nclass Own(keras.layers.Layer):\n    pass\n")
    file = small(tmp_path / "m.keras")
    assert inspect([str(file), "--import", str(path), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)
    assert "hello" in err


def test_not_for_built_in_models(capfd):
    code, _, err = run(["--model", "mlp", "--import", "own.py"], capfd)
    assert code == 2
    assert "--import: for model files only" in err
