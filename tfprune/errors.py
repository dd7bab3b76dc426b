"""``TfpruneError``, for what a user can mend, and ``PruningWarning``."""


class TfpruneError(ValueError):
    """Says what was expected, what came, and what to do, in one line.

    Examples
    --------
    >>> import tfprune
    >>> tfprune.register_layer(int, "unitwise")
    Traceback (most recent call last):
        ...
    tfprune.errors.TfpruneError: layer: expected a subclass of keras.Layer, received <class 'int'>
    """


class PruningWarning(UserWarning):
    """What a user of the library should know of a result that is not an error.

    Examples
    --------
    The same stands in the result's notes. Here one unit cannot say what four said:

    >>> import warnings
    >>> import keras
    >>> import numpy as np
    >>> import tfprune
    >>> hidden = keras.layers.Dense(4, name="hidden")
    >>> model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(4)])
    >>> for layer in model.layers:
    ...     layer.set_weights([np.eye(4), np.zeros(4)])
    >>> x = np.random.default_rng(0).normal(size=(100, 4))
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", tfprune.PruningWarning)
    ...     result = tfprune.prune(model, x, remove=0.75)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    tfprune.errors.PruningWarning: pruning changed the outputs: ...
    """
