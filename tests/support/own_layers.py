"""Layers that Keras does not have, as users write them."""

from __future__ import annotations

import keras
from keras import layers as kl


class Scale(kl.Layer):
    """A weight for every unit, and one for all of them."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")
        self.factor = self.add_weight(shape=(1,), name="factor")

    def call(self, x):
        return keras.ops.tanh(self.factor * self.scale * x)


class Channels(Scale):
    """Weights with other axes in front, by inheritance."""

    def build(self, shape):
        super().build(shape)
        self.planes = self.add_weight(shape=(2, 1, shape[-1]), name="planes")

    def call(self, x):
        return super().call(x) + self.planes[0] * keras.ops.abs(x) + self.planes[1]


class Block(kl.Layer):
    """Layers that name their weights alike."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = [kl.BatchNormalization(name="a"), kl.BatchNormalization(name="b")]

    def build(self, shape):
        for part in self.parts:
            part.build(shape)

    def call(self, x):
        return keras.ops.relu(self.parts[1](self.parts[0](x, training=False), training=False))


class Halved(kl.Layer):
    """Every channel at half the size."""

    def call(self, x):
        return x[:, ::2, ::2]


class Penalty(kl.Layer):
    """Returns what it takes."""

    def call(self, x):
        return x


class Counting(kl.Layer):
    """Returns what it takes, and keeps a number for every unit."""

    def build(self, shape):
        self.seen = self.add_weight(shape=(shape[-1],), trainable=False, name="seen")

    def call(self, x):
        return x


class Twice(kl.Layer):
    def call(self, x):
        return 2 * x


class Centred(kl.Layer):
    """Subtracts the mean of all units."""

    def call(self, x):
        return x - keras.ops.mean(x, axis=-1, keepdims=True)


class Flipped(kl.Layer):
    """Units in another order."""

    def call(self, x):
        return x[..., ::-1]


class Pairs(kl.Layer):
    """Looks at units two by two."""

    def call(self, x):
        pairs = keras.ops.reshape(x, (-1, x.shape[-1] // 2, 2))
        return keras.ops.reshape(keras.ops.softmax(pairs), (-1, x.shape[-1]))


class FirstOnly(kl.Layer):
    """Adds one unit to all."""

    def call(self, x):
        return x + x[..., :1]


class Square(kl.Layer):
    """A weight with the units on two axes."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")

    def call(self, x):
        return x @ self.kernel


class Width(kl.Layer):
    """A width in its configuration."""

    def __init__(self, units=12, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.scale = self.add_weight(shape=(units,), name="scale")

    def get_config(self):
        return {**super().get_config(), "units": self.units}

    def call(self, x):
        return x * self.scale


class Axis(kl.Layer):
    """Works along the axis that it is asked to."""

    def __init__(self, axis=-1, **kwargs):
        super().__init__(**kwargs)
        self.axis = axis

    def get_config(self):
        return {**super().get_config(), "axis": self.axis}

    def call(self, x):
        return keras.ops.softmax(x, axis=1) if self.axis == 1 else keras.ops.relu(x)


class Doubled(kl.Layer):
    """Twice as many features."""

    def call(self, x):
        return keras.ops.concatenate([x, -x], axis=-1)


class Total(kl.Layer):
    """Takes two."""

    def call(self, x, y):
        return x + y
