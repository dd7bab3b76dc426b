"""Records of a traced model: producers and consumers of units, and what blocks them."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfprune.graph.calls import Attended, Sized
from tfprune.graph.features import Features, Index, Labels, row_of, shape_of
from tfprune.graph.helpers import StepsAside, StepsBack
from tfprune.graph.layers import GROUP, REVERSE


@dataclass(frozen=True)
class Producer:
    """A layer whose units (or filters) could be removed.

    Attributes
    ----------
    name : str
    kind : str
        ``dense``, ``conv``, ``recurrent`` or ``embedding``.
    labels : array of shape (units,)
    """

    name: str
    kind: str
    labels: Index


@dataclass(frozen=True, eq=False)
class Reading:
    """A layer that multiplies features with its weights.

    Attributes
    ----------
    layer : str
    tensor : int
        Position in :attr:`Trace.tensors`.
    labels, views : arrays of shape (features,)
        On the last axis. Features of one view went through the same functions.
    centre : array of shape (features,)
        The middle of the activation's range where it has one, 0.5 after a sigmoid, else 0: the
        point from which the studies measured angles.
    no_offset : bool
        Whether a constant cannot go into the bias: padding inside the layer puts zeros where
        the constant would be, or there is nowhere to put it.
    part : str
        Which of the layer's inputs, where it has a kernel for each (attention).
    """

    layer: str
    tensor: int
    labels: Index
    views: Index
    centre: npt.NDArray[np.float64]
    no_offset: bool
    part: str = ""


@dataclass(frozen=True, eq=False)
class RegisteredCall:
    """A call of a layer whose rule a user registered.

    Attributes
    ----------
    layer : str
    inputs : list of KerasTensor
    input_labels : list of arrays
        Of the shapes of the inputs without the batch.
    output : KerasTensor or list of KerasTensor
    labels : array or None
        Of the output's shape without the batch; None where its units are nobody's.
    """

    layer: str
    inputs: list[Any]
    input_labels: list[Index]
    output: Any
    labels: Index | None


def slot(path: str, part: str = "") -> str:
    """The key in :attr:`Trace.input_labels` of a layer's input."""
    return f"{path}:{part}" if part and not part.startswith(GROUP) else path


def is_tied(trace: Trace, path: str) -> bool:
    """Whether an embedding is called in reverse as well, with the table that makes its units."""
    return path in trace.tied and slot(path, REVERSE) in trace.input_labels


@dataclass
class Trace:
    """Which layers produce units, which layers consume them, and what blocks their removal.

    Attributes
    ----------
    model : keras.Model
        A copy of the traced model, the owner of ``tensors``.
    layers : dict of str to layer
        The original's layers by path: ``name``, or ``outer/inner`` inside a nested model.
    labels : Labels
    producers : dict of str to Producer
    readings : list of Reading
    tensors : list of KerasTensor
        The tensors that are read.
    input_labels : dict of str to array of shape (features,)
        By :func:`slot`, labels on the last axis of what reaches a layer that changes with it.
    blocked : list of (array, str)
        Labels of units that cannot go, and the reason; the later entry is the better reason.
    copies : dict of str to layer
        The layers of ``model`` by the same paths.
    call_inputs : dict of str to list of list of KerasTensor
        What each layer takes, once for every call.
    call_outputs : dict of str to list of list of KerasTensor
        What each layer makes, once for every call.
    registered : list of RegisteredCall
        The calls of layers whose rules a user registered, in order.
    steps : dict of str to int
        Of layers inside a TimeDistributed the number of axes of steps behind the batch.
    approximated : list of str
        Normalisation over units that may go although it is another one without them.
    attended : list of Attended
        The calls of attention layers, in order.
    sized : list of Sized
        The first call of each layer or operation whose settings count features.
    even : list of (str, str)
        Layers that have to keep as many units as each other, though not the same ones: Keras takes
        the two of a Bidirectional for equally wide.
    unweighted : dict of str to set of (str, str)
        Of those of them that have no weights the layers that read what they make, and by which
        part.
    scored : set of str
        Attention that gives its scores in some call.
    tied : dict of str to list of KerasTensor
        What embeddings make that read in reverse with the same table, and layers hand on as it is.
    """

    model: keras.Model
    layers: dict[str, Any] = field(default_factory=dict)
    labels: Labels = field(default_factory=Labels)
    producers: dict[str, Producer] = field(default_factory=dict)
    readings: list[Reading] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)
    input_labels: dict[str, Index] = field(default_factory=dict)
    blocked: list[tuple[Index, str]] = field(default_factory=list)
    copies: dict[str, Any] = field(default_factory=dict)
    call_inputs: dict[str, list[list[Any]]] = field(default_factory=dict)
    call_outputs: dict[str, list[list[Any]]] = field(default_factory=dict)
    registered: list[RegisteredCall] = field(default_factory=list)
    steps: dict[str, int] = field(default_factory=dict)
    sized: list[Sized] = field(default_factory=list)
    attended: list[Attended] = field(default_factory=list)
    even: list[tuple[str, str]] = field(default_factory=list)
    approximated: list[str] = field(default_factory=list)
    unweighted: dict[str, Set[tuple[str, str]]] = field(default_factory=dict)
    scored: set[str] = field(default_factory=set)
    tied: dict[str, list[Any]] = field(default_factory=dict)


class Ledger:
    """Builds the records of one trace.

    Layers are those of the copy that is traced; they go by the path of the original (``name``,
    or ``outer/inner`` inside a nested model).
    """

    def __init__(self, model: keras.Model, approximate: bool = False) -> None:
        self.result = Trace(model)
        self.approximate = approximate
        self.features: dict[int, Features] = {}
        self.alive: list[Any] = []  # Tensors and layers are known by id: none may be collected.
        self.views = 0
        self.refused: dict[str, str] = {}
        self.paths: dict[int, str] = {}
        # Halves of separable convolutions and their likes, which take the weights of their layers.
        self.inner: list[tuple[str, Any]] = []
        # Axes of steps of the TimeDistributed layers around what is called, and what has them.
        self.axes = 0
        self._with_steps: list[Any] = []
        self._aside: dict[int, Any] = {}
        self._whole: dict[int, Any] = {}
        self._helpers = 0

    def path(self, layer: Any) -> str:
        """The path of the original layer."""
        return self.paths[id(layer)]

    def original(self, layer: Any) -> Any:
        """The original of a copied layer."""
        return self.result.layers[self.path(layer)]

    def describe(self, layer: Any) -> str:
        """A layer's path and class, for messages."""
        kind = getattr(layer, "stands_for", type(layer).__name__)
        return f"{self.path(layer)} ({kind})"

    def features_of(self, tensor: Any) -> Features:
        """A tensor's features; without units if none were noted."""
        if id(tensor) not in self.features:
            nobody = np.broadcast_to(np.intp(0), shape_of(tensor))
            self.features[id(tensor)] = Features(nobody, nobody, nobody.astype(float))
        return self.features[id(tensor)]

    def helper_name(self) -> str:
        """A name for a layer of the traced copy that the model does not have."""
        self._helpers += 1
        return f"tfprune.{self._helpers}"

    def aside(self, tensor: Any) -> Any:
        """What a layer inside a TimeDistributed takes of a tensor: its steps as samples."""
        if not self.axes or not isinstance(tensor, keras.KerasTensor):
            return tensor
        self._with_steps.append(tensor)
        if id(tensor) not in self._aside:
            result = StepsAside(self.helper_name(), self.axes)(tensor)
            self._aside[id(tensor)], self._whole[id(result)] = result, tensor
            self.features[id(result)] = self._of_a_step(self.features_of(tensor))
            self.alive += [tensor, result]
        return self._aside[id(tensor)]

    def whole(self, tensor: Any) -> Any:
        """A tensor as it stands outside, with its steps."""
        if not self.axes or not isinstance(tensor, keras.KerasTensor):
            return tensor
        if id(tensor) not in self._whole:
            helper = StepsBack(self.helper_name(), self.axes)
            result = helper([tensor, self._with_steps[-1]])
            self._whole[id(tensor)] = result
            own, steps = self.features_of(tensor), shape_of(result)[: self.axes]
            self.features[id(result)] = own.changed(
                lambda array: np.broadcast_to(array, (*steps, *array.shape))
            )
            self.alive += [tensor, result]
        return self._whole[id(tensor)]

    def _of_a_step(self, features: Features) -> Features:
        first = features.changed(lambda array: array[(0,) * self.axes])
        if (features.labels == first.labels).all():
            return first
        self.block(features.labels, "holds other units at each step of a TimeDistributed")
        return first.changed(np.zeros_like)

    def next_views(self, *views: Index) -> Index:
        """New view numbers, different wherever one of the old ones was."""
        rows = [row_of(array) for array in views]
        arrays = views if any(row is None for row in rows) else tuple(rows)
        stacked = np.stack([array.ravel() for array in arrays])  # type: ignore[union-attr]
        kinds, position = np.unique(stacked, axis=1, return_inverse=True)
        new_views = self.views + 1 + position.reshape(arrays[0].shape)  # type: ignore[union-attr]
        self.views += kinds.shape[1]
        return new_views

    def after(
        self,
        features: Features,
        centre: float | npt.NDArray[Any] = 0.0,
        shape: tuple[int, ...] | None = None,
    ) -> Features:
        """Features after a function that treats every unit by itself."""
        views = self.next_views(features.views)
        labels = features.labels
        if shape is not None and shape != labels.shape:
            labels = features.rows()[0]
        return Features.spread(labels, views, centre, shape or labels.shape)

    def block(self, labels: Index, reason: str) -> None:
        """Notes why units cannot be removed."""
        self.result.blocked.append((np.unique(labels), reason))

    def refuse(self, layer: Any, labels: Index, reason: str) -> None:
        """Blocks units at a layer; a shared layer blocks those of its other calls too."""
        self.block(labels, f"{self.describe(layer)} {reason}")
        self.refused[self.path(layer)] = f"{self.describe(layer)} {reason}"

    def row(self, layer: Any, features: Features, part: str = "") -> Index | None:
        """Labels along the last axis of a layer's input, if it has units that can be cut."""
        if not features.labels.any():
            if getattr(layer, "weights", ()):
                # Where it is shared, what reaches it elsewhere has to stay for this.
                self.cut(slot(self.path(layer), part), features.rows()[0])
            return None
        row = self.joined_row(features)
        if row is None:
            self.refuse(layer, features.labels, "reads its units across several axes")
        elif getattr(layer, "data_format", "channels_last") != "channels_last":
            self.refuse(layer, row, "has its channels first")
            return None
        return row

    def joined_row(self, features: Features) -> Index | None:
        """Labels along the last axis; None if a feature is one unit here and another's there.

        Units that are one feature at different positions (after a pixel shuffle, say) are joined:
        the feature is there, or is not.
        """
        row = features.row
        if row is not None:
            return row
        rows = features.labels.reshape(-1, features.labels.shape[-1])
        columns = [np.unique(column) for column in self.result.labels.find(rows).T]
        units = np.concatenate([column[column > 0] for column in columns])
        if len(np.unique(units)) < len(units):
            return None
        for column in columns:
            own = column[column > 0]
            if len(own):
                self.result.labels.join(np.full(len(own) - 1, own[0]), own[1:])
            if 0 < len(own) < len(column):
                self.block(own, "something that cannot be pruned lies at some of its positions")
        return np.array([column[-1] for column in columns], np.intp)

    def size(self, sized: Sized) -> None:
        """Notes a call whose settings count features; a layer that is called again has the same."""
        for other in self.result.sized:
            if other.layer == sized.layer:
                for ours, theirs in zip(
                    [other.before, *other.after], [sized.before, *sized.after], strict=True
                ):
                    self.lay_over(sized.layer, [ours.ravel(), theirs.ravel()])
                return
        self.result.sized.append(sized)

    def cut(self, name: str, row: Index) -> None:
        """Notes that a layer changes with the units of its input; in all calls if it is shared."""
        self.lay_over(name, [self.result.input_labels.setdefault(name, row), row])

    def lay_over(self, name: str, rows: list[Index]) -> Index:
        """Joins labels that are added up; a unit added to an unlabelled feature has to stay."""
        together = rows[0]
        for row in rows[1:]:
            both = (together > 0) & (row > 0)
            self.result.labels.join(together[both], row[both])
            alone = (together > 0) != (row > 0)
            if alone.any():
                reason = f"{name} lays it over something that cannot be pruned"
                self.block(np.maximum(together, row)[alone], reason)
            together = np.maximum(together, row)
        return self.result.labels.apart(together, rows)

    def produce(self, layer: Any, kind: str, units: int, out: Any) -> Features:
        """Notes a producer of units; returns the features of its output before the activation."""
        path, original = self.path(layer), self.original(layer)
        # A layer that is called again produces the same units.
        producer = self.result.producers.get(path) or Producer(
            path, kind, self.result.labels.new(units)
        )
        self.result.producers[path] = producer
        for unfit in ("quantization_mode", "lora_enabled"):
            if getattr(original, unfit, None):
                self.block(producer.labels, f"its weights are not plain ({unfit})")
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            self.block(producer.labels, "its channels come first")
        nothing = np.zeros(units, np.intp)
        shape = (*shape_of(out)[:-1], units)
        return self.after(Features.spread(producer.labels, nothing, 0.0, shape))

    def read(
        self,
        layer: Any,
        tensor: Any,
        features: Features,
        *,
        no_offset: bool = False,
        part: str = "",
        cuts: bool = True,
    ) -> None:
        """Notes that a layer consumes a tensor: multiplies its features with a kernel.

        Parameters
        ----------
        part : str
            Which of the layer's inputs, where it has a kernel for each.
        cuts : bool
            Whether these features are what the layer is given, and cut with its units.
        """
        row = self.row(layer, features, part)
        if row is None:
            return
        path, tensor = self.path(layer), self.whole(tensor)
        if getattr(self.original(layer), "lora_enabled", False):
            self.refuse(layer, row, "reads with weights that are not plain (lora)")
            return
        places = [id(other) for other in self.result.tensors]
        if id(tensor) not in places:
            self.result.tensors.append(tensor)
            places.append(id(tensor))
        if cuts:
            self.cut(slot(path, part), row)
        _, views, centre = features.rows()
        place = places.index(id(tensor))
        self.result.readings.append(Reading(path, place, row, views, centre, no_offset, part))
