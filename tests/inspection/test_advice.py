"""What is recommended, and how sure it is said to be."""

from __future__ import annotations

import keras
from keras import layers as kl

import tfprune
from tfprune.inspection import advice as advice_module
from tfprune.inspection.records import Measurements
from tfprune.inspection.sensitivity import Size
from tfprune.inspection.trial_healing import Healed


def test_a_model_that_does_not_know_the_labels_is_not_to_be_pruned_yet(rng):
    hidden = kl.Dense(8, "relu", name="hidden")
    model = keras.Sequential([keras.Input((4,)), hidden, kl.Dense(3, "softmax", name="out")])
    x = rng.normal(size=(500, 4)).astype("float32")
    found = tfprune.inspect(model, x, rng.integers(0, 3, 500))
    assert found.recommended is None
    assert "no better than chance" in found.measured.warning
    assert str(found).splitlines()[-1].startswith("next: see that data and model fit")
    assert "see that data and model fit" in found._repr_html_()


def test_a_score_is_told_with_how_sure_it_is():
    def margin(share, count, score="accuracy"):
        return advice_module._margin(Measurements(score, share, 1, count, (), ()))

    # 0.8 * 0.2 / 400 = 0.02 squared; where all are right, one of 50 more.
    assert margin(0.8, 400) == "give or take 4.0 points on 400 samples"
    assert margin(1.0, 50) == "give or take 4.0 points on 50 samples"
    assert margin(0.99, 2000, "output variance kept") == "on 2,000 samples"


def test_a_trial_of_healing_that_did_worse_is_told():
    measured = Measurements("accuracy", 0.8, 1, 400, (), ())

    def expected(healed):
        return advice_module._expected(
            advice_module.Request(heal=10), 0.7, Size(50, 60), measured, 100,
            healed=Healed(healed, 3, 60),
        )  # fmt: skip

    now = "(now 80.00 %, give or take 4.0 points on 400 samples)"
    assert expected(0.65).endswith(
        f"accuracy 70.00 % {now} before refitting and healing; on trial, 3 epochs on 60 samples, "
        "healing did worse: it takes more data"
    )
    assert expected(0.75).endswith(
        f"accuracy 75.00 % {now} as healed on trial, 3 epochs on 60 samples; 70.00 % before; "
        "the command refits first"
    )
