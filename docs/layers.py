"""Writes what becomes of units at each of Keras' layers: ``python -m docs.layers``.

Every class of ``keras.layers`` that has a rule is put into a small model behind a Dense layer and
in front of another one, and the model is traced: the table says what the rules themselves say.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfprune.utils.console import quiet

with quiet():
    import keras
    from keras import layers as kl

from tfprune.graph.attention import can_be_reduced
from tfprune.graph.groups import groups_of
from tfprune.graph.layers import EMBEDDINGS, MEETING
from tfprune.graph.registry import KERAS_RULES
from tfprune.graph.tracer import trace
from tfprune.graph.unfollowed import unfollowed
from tfprune.graph.wrappers import wrapped
from tfprune.loading.keras_classes import RUNS_CODE

PAGE = Path(__file__).parent / "layers.md"
INTRODUCTION = """# Layers

What becomes of units at each of Keras' layers. A layer that *makes* units can lose them. One that
*passes* them on hands every unit to what comes behind it, with weights of its own cut where it has
some for each unit. One that *reads* them multiplies them with a kernel, into which what is removed
is folded. Units that reach a layer with none of these stay, for the reason in the last column.
Layers of your own: [extending](extending.md). Written from the rules by `python -m docs.layers`.

"""
# What the constructors of layers want, by the names of their arguments.
ARGUMENTS: dict[str, Any] = {
    "units": 4, "filters": 4, "kernel_size": 2, "rate": 0.5, "stddev": 0.1, "n": 3, "num_heads": 2,
    "key_dim": 4, "head_dim": 4, "num_query_heads": 2, "num_key_value_heads": 1, "input_dim": 9,
    "output_dim": 4, "dims": (2, 1, 3), "activation": "relu", "target_shape": (-1, 6),
    "scale": 0.5, "output_size": 2, "pool_size": 2,
    "equation": "abc,cd->abd", "output_shape": (None, 4),
}  # fmt: skip
SHAPES = {1: (6,), 2: (8, 6), 3: (8, 8, 6), 4: (8, 8, 8, 6)}
# Axes behind the batch, where the name does not say it.
AXES = {
    "GRU": 2, "LSTM": 2, "SimpleRNN": 2, "MultiHeadAttention": 2, "GroupQueryAttention": 2,
    "Attention": 2, "AdditiveAttention": 2, "Permute": 3, "Reshape": 2, "Flatten": 2,
    "GroupNormalization": 3, "EinsumDense": 2, "ConvLSTM1D": 3, "ConvLSTM2D": 4, "RNN": 2,
    "Bidirectional": 2,
}  # fmt: skip


# What tests/graph/test_embeddings.py tries of a table that is read in reverse.
TIED = (
    "reads in reverse; a table for both ways (`tie_weights`) stays one, and goes where nothing but "
    "layers with kernels reads the words"
)


@dataclass(frozen=True)
class Row:
    """What becomes of units at a layer."""

    name: str
    makes: bool = False
    passes: bool = False
    reads: bool = False
    reason: str = ""


def public() -> list[type]:
    """All classes of ``keras.layers``, each by its first name."""
    return [kind for kind, _ in sorted(_names().items(), key=lambda pair: pair[1])]


def _names() -> dict[type, str]:
    """The public name of each class."""
    found = {name: getattr(kl, name) for name in reversed(dir(kl))}
    return {
        one: name
        for name, one in found.items()
        if isinstance(one, type) and issubclass(one, kl.Layer)
    }


def row_of(kind: type) -> Row:
    """What becomes of units at a layer of a class."""
    name = _names()[kind]
    if kind is kl.TimeDistributed:
        assert wrapped(kl.TimeDistributed(kl.Dense(2))), "what is said below"
        return Row(name, True, True, True, "as the layer inside")
    if kind is kl.Bidirectional:
        assert len(wrapped(kl.Bidirectional(kl.GRU(2)))) == 2, "what is said below"
        return Row(name, True, False, True, "as the two recurrent layers inside")
    if kind in (kl.Layer, kl.Wrapper):
        return Row(name, reason="only its subclasses compute something")
    if kind is kl.InputLayer:
        return Row(name, reason="what the model is given has no units")
    if kind not in KERAS_RULES:
        return Row(name, reason=_unruled(kind))
    model = _model(kind)
    groups = groups_of(trace(model))
    makes = any("it" in group.producers for group in groups)
    reads = any(one.layer == "it" for group in groups for one in group.consumers)
    before = [group for group in groups if "a" in group.producers]
    passes = any(one.layer == "reader" for group in before for one in group.consumers)
    reason = next((group.blocked for group in before if group.blocked), None) or ""
    passes = passes and not reason
    if reason:
        asked = [one for one in groups_of(trace(model, approximate=True)) if "a" in one.producers]
        reason += "; passes them on with `--approximate`" * (not any(one.blocked for one in asked))
    reason = reason.replace(f"it ({name})", "it").removeprefix("feeds it, which ")
    reason = reason.removeprefix("it ")
    if kind in (kl.MultiHeadAttention, kl.GroupQueryAttention):
        assert not can_be_reduced(model.get_layer("it")), "what is said below"
        reason = "; ".join([*[reason] * bool(reason), "its heads and their widths are reduced"])
    if kind in EMBEDDINGS:
        reason = "numbers of words are no units"
    if kind is kl.ReversibleEmbedding:
        reads, reason = True, f"{reason}; {TIED}"
    return Row(name, makes, passes, reads, reason)


def _unruled(kind: type) -> str:
    """Why units stay at a layer without a rule."""
    if _names()[kind] in RUNS_CODE:
        return "runs code of its own"
    try:
        said = unfollowed(_model(kind))
    except Exception:  # Each class has errors of its own for other inputs and arguments.
        said = []
    if said and said[0].name.partition("/")[0] == "it":
        return said[0].reason.replace("it (", "(")
    module = kind.__module__
    if "preprocessing" in module or _names()[kind].startswith("Random"):
        return "is not handled: prepares data, in front of all units"
    return "is not handled"


def _model(kind: type) -> keras.Model:
    """A model with a layer ``it`` of the class between two Dense layers."""
    name = _names()[kind]
    parameters = inspect.signature(kind.__init__).parameters.values()  # type: ignore[misc]
    free = [one for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    needed = [one.name for one in free if one.default is one.empty]
    given = {one: ARGUMENTS[one] for one in needed[1:] if one not in ("cell", "layer")}
    given |= {"groups": 3} if kind is kl.GroupNormalization else {}
    given |= {"cell": kl.GRUCell(4)} if "cell" in needed else {}
    given |= {"layer": kl.GRU(4, return_sequences=True)} if "layer" in needed else {}
    layer = kind(**given, name="it")
    digit = next((n for n in (1, 2, 3) if f"{n}D" in name), None)
    shape = SHAPES[AXES.get(name, 1 + (digit or 0))]
    if kind in EMBEDDINGS:
        data = keras.Input((8,), dtype="int32")
        made = layer(data)
    else:
        data = keras.Input(shape)
        first = kl.Dense(6, name="a")(data)
        if kind in MEETING or name in ("Concatenate", "Dot"):
            made = layer([first, kl.Dense(6, name="b")(data)])
        elif name in ("Attention", "AdditiveAttention"):
            made = layer([kl.Dense(6, name="b")(data), first, kl.Dense(6, name="c")(data)])
        elif name in ("MultiHeadAttention", "GroupQueryAttention"):
            made = layer(kl.Dense(6, name="b")(data), first)
        else:
            made = layer(first)
    made = made[0] if isinstance(made, (list, tuple)) else made
    return keras.Model(data, kl.Dense(2, name="out")(kl.Dense(3, name="reader")(made)))


def page() -> str:
    """The page as the command writes it."""
    lines = ["| layer | makes units | passes units | reads units | why units stay, or more |",
             "|---|:-:|:-:|:-:|---|"]  # fmt: skip
    for kind in public():
        row = row_of(kind)
        marks = ("x" if mark else "" for mark in (row.makes, row.passes, row.reads))
        lines.append(f"| {row.name} | {' | '.join(marks)} | {row.reason} |")
    return INTRODUCTION + "\n".join(lines) + "\n"


if __name__ == "__main__":
    with quiet():
        text = page()
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
