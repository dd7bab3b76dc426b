"""``tfprune.Pruner``: a model measured once, pruned in several ways."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.support.graphs import chain
from tests.support.paths import ROOT
from tfprune import PruningWarning, TfpruneError

README = ROOT / "README.md"


@pytest.fixture
def x(rng):
    return rng.normal(0, 1, (300, 6)).astype("float32")


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"threshold": 45, "fold": "scaled"},
        {"remove": 0.5, "refit": 0},
        {"remove": 0.5, "select": "random", "seed": 3},
        {"target_params": "60%", "refit": 0},
        {"target_bytes": "90%", "scheme": "float32", "file_batch": None, "refit": 0},
    ],
)
def test_it_prunes_as_prune_does(rng, x, how):
    model = chain(rng, units=12)
    pruner = tfprune.Pruner(model, x, layers="all")
    pruner.prune(remove=0.3, refit=0)  # What was done before makes no difference.
    ours, anew = pruner.prune(**how), tfprune.prune(model, x, layers="all", **how)
    assert (ours.layers, ours.skipped, ours.reached) == (anew.layers, anew.skipped, anew.reached)
    for mine, other in zip(ours.model.get_weights(), anew.model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_what_is_asked_is_checked_as_by_prune(rng, x):
    pruner = tfprune.Pruner(chain(rng), x)
    with pytest.raises(TfpruneError, match="target_macs and remove: expected one of them"):
        pruner.prune(remove=0.5, target_macs="50%")
    with pytest.raises(TfpruneError, match="threshold and remove: expected one of them"):
        pruner.prune(threshold=30, remove=0.5)
    with pytest.raises(TfpruneError, match="number of degrees between 0 and 90, received 91"):
        pruner.prune(91)
    with pytest.raises(TypeError, match="layers"):
        pruner.prune(layers="conv")


def test_a_threshold_is_there_where_one_chose(rng, x):
    pruner = tfprune.Pruner(chain(rng), x)
    assert pruner.prune().threshold == 30
    assert pruner.prune(12).threshold == 12
    assert pruner.prune(remove=0.5, refit=0).threshold is None
    assert pruner.prune(target_params="80%", refit=0).threshold is None


class Unready(keras.optimizers.SGD):
    """Cannot be made from what its get_config tells."""

    def __init__(self, table):
        super().__init__(learning_rate=float(table[0]))


class Counted(keras.metrics.Mean):
    def __init__(self, table):
        super().__init__(name="counted")
        self.limit = float(table[0])

    def update_state(self, truth, predictions, sample_weight=None):
        return super().update_state(predictions > self.limit)


def test_what_a_result_lacks_is_told(rng, x):
    model = chain(rng)
    model.compile("sgd", "mse", metrics=["mae", Counted([0.5])])
    with pytest.warns(PruningWarning, match="lacks the metric counted: Counted cannot be made"):
        result = tfprune.prune(model, x, remove=0.5, refit=0)
    assert ["lacks the metric" in note for note in result.notes] == [False, True]
    assert result.model.compiled
    model.compile(Unready([0.1]), "mse")
    with pytest.warns(PruningWarning, match="not compiled: its optimizer Unready cannot") as told:
        result = tfprune.Pruner(model, x).prune(remove=0.5, refit=0)
    assert [str(warning.message) for warning in told] == list(result.notes)
    assert told[0].filename == __file__
    assert not result.model.compiled
    with pytest.warns(PruningWarning, match="not compiled"):
        tfprune.heal(chain(rng), model, x, 1) and tfprune.heal(model, chain(rng), x, 1)


def test_the_readme_shows_it(rng, x):
    ((block,),) = [re.findall(r"```python\n(pruner = .*?)```", README.read_text(), re.DOTALL)]
    model = keras.Sequential(
        [keras.Input((6,)), kl.Dense(12, activation="relu"), kl.Dense(8), kl.Dense(2)]
    )
    names = {"tfprune": tfprune, "model": model, "x": x}
    exec(block, names)
    assert names["careful"].threshold == 10
