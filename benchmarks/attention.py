"""``python -m benchmarks.attention``: a small Transformer with half of its units, in LiteRT.

A tagger on sequences that this program makes: pairs of a key and a value, each one symbol, and
behind them keys that ask. The tag of a key that asks is the value of the last pair with that key,
so it has to look for the key and for the place. Embeddings of symbols and of places, 2 blocks of
attention and two Dense layers each, LayerNormalization in front of both. A share of the units of
all hidden layers goes, and of what the heads hold; the width that the blocks' sums share stays.
Accuracy is that of the keys that ask in test samples, and of the files in LiteRT.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from tabulate import tabulate

from benchmarks.recurrent import HEAD, Array, row_of
from tfprune.utils.console import quiet

with quiet():
    import keras
    from keras import layers as kl

    import tfprune

KEYS, VALUES, PAIRS = 4, 4, 8
ASKED, SYMBOLS = KEYS, KEYS * VALUES + KEYS
LENGTH = PAIRS + ASKED


def looked_up(samples: int, seed: int) -> tuple[list[Array], Array]:
    """Symbols and places, both (samples, 12), and tags (samples, 4) of the keys that ask.

    A key without a pair has the tag 4.
    """
    random = np.random.default_rng(seed)
    keys = random.integers(0, KEYS, (samples, PAIRS))
    values = random.integers(0, VALUES, (samples, PAIRS))
    asked = random.permuted(np.tile(np.arange(KEYS), (samples, 1)), axis=1)
    tags = np.full_like(asked, VALUES)
    for place in range(PAIRS):
        tags = np.where(asked == keys[:, place, None], values[:, place, None], tags)
    x = np.concatenate([keys * VALUES + values, KEYS * VALUES + asked], axis=1)
    return [x.astype("int32"), np.tile(np.arange(LENGTH, dtype="int32"), (samples, 1))], tags


def transformer(width: int = 32, heads: int = 4, hidden: int = 64) -> keras.Model:
    """Two blocks, and a softmax of 5 tags at each key that asks."""
    symbols = keras.Input((LENGTH,), dtype="int32", name="symbols")
    places = keras.Input((LENGTH,), dtype="int32", name="places")
    x = kl.Add(name="sum")(
        [kl.Embedding(SYMBOLS, width, name="words")(symbols),
         kl.Embedding(LENGTH, width, name="order")(places)]
    )  # fmt: skip
    for n in (1, 2):
        y = kl.LayerNormalization(name=f"norm{n}a")(x)
        y = kl.MultiHeadAttention(heads, width // heads, name=f"attention{n}")(y, y)
        x = kl.Add(name=f"sum{n}a")([x, y])
        y = kl.LayerNormalization(name=f"norm{n}b")(x)
        y = kl.Dense(hidden, activation="relu", name=f"hidden{n}")(y)
        x = kl.Add(name=f"sum{n}b")([x, kl.Dense(width, name=f"back{n}")(y)])
    x = kl.LayerNormalization(name="norm")(kl.Cropping1D((PAIRS, 0), name="asking")(x))
    tags = kl.Dense(VALUES + 1, activation="softmax", name="tags")(x)
    return keras.Model([symbols, places], tags, name="transformer")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention")
    parser.add_argument("--epochs", type=int, default=10, help="of training")
    parser.add_argument("--heal", type=int, default=10, help="epochs of healing")
    parser.add_argument("--remove", type=float, nargs="+", default=[0.5, 0.75], help="shares")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    keras.utils.set_random_seed(asked.seed)
    (x, y), test = looked_up(8000, 0), looked_up(1000, 1)
    model = transformer()
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy")
    start = time.perf_counter()
    model.fit(x, y, 64, asked.epochs, verbose=0)
    print(f"{time.perf_counter() - start:.0f} s to train", file=sys.stderr)
    few = [part[:1000] for part in x]
    states = {"original": model}
    for share in asked.remove:
        start = time.perf_counter()
        result = tfprune.prune(model, few, remove=share, layers="all")
        healed = tfprune.heal(result.model, model, x, asked.heal)
        states |= {f"{share:.0%} pruned": result.model, f"{share:.0%} healed": healed}
        print(f"{share:.0%}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    sample = [part[:200] for part in few]
    table = [row_of("transformer", state, one, sample, test) for state, one in states.items()]
    print(tabulate(table, HEAD, "pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
