"""Whatever device TensorFlow puts things on does the work: here the second of two processors."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

from tests.support.paths import ROOT

# Without soft placement an operation that is put on another device than it can run on fails, and
# every operation says where it runs.
CODE = """
import sys
import numpy as np
import tensorflow as tf

processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
tf.config.set_soft_device_placement(False)
tf.debugging.set_log_device_placement(True)

import keras
import tfprune
from keras import layers as kl
from tfprune.graph import forward
from tfprune.reconstruction import segments

if sys.argv[2] == "large":
    forward.LARGE = segments.LARGE = 0
with tf.device(sys.argv[1]):
    keras.utils.set_random_seed(0)
    data = keras.Input((8, 8, 3))
    x = kl.BatchNormalization()(kl.Conv2D(6, 3, use_bias=False, name="first")(data))
    x = kl.Conv2D(6, 3, activation="relu", name="second")(kl.ReLU()(x))
    x = kl.GlobalAveragePooling2D()(x)
    model = keras.Model(data, kl.Dense(3, activation="softmax", name="out")(x))
    samples = np.random.default_rng(0).normal(size=(210, 8, 8, 3)).astype("float32")
    smaller = tfprune.prune(model, samples, remove=0.5, layers="all", refit=2).model
    healed = tfprune.heal(smaller, model, samples, epochs=1, learning_rate=0.001)
    np.save(sys.argv[3], [np.asarray(one(samples[:2])) for one in (smaller, healed)])
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "large"])
def test_nothing_takes_the_first_processor_for_granted(size, tmp_path):
    outputs = []
    for number in (0, 1):
        file = tmp_path / f"{number}.npy"
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", CODE, f"/CPU:{number}", size, str(file)],
            capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        outputs.append(np.load(file))
        ran = re.findall(r"(MatMul|Conv2D|Mean).*device:CPU:(\d)", done.stdout + done.stderr)
        assert {where for _, where in ran} == {str(number)}
    np.testing.assert_allclose(*outputs, rtol=1e-3, atol=1e-4)
