"""``Inspection``, what ``inspect`` returns: records of a model, as text, HTML and plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from tfprune.errors import TfpruneError
from tfprune.inspection import html, text
from tfprune.inspection.records import (
    DEGREES,
    SHARES,
    GroupInfo,
    LayerInfo,
    Measurements,
    Recommendation,
)
from tfprune.utils.escapes import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Inspection:
    """What is in a model and what could go; ``str()`` is text, notebooks show it as HTML.

    Attributes
    ----------
    name : str
        Of the model.
    layers : tuple of LayerInfo
        In the model's order: class, output shape, parameters, multiply-accumulates, bytes.
    groups : tuple of GroupInfo
        Layers whose units go together, with their consumers; those that stay say why.
    measured : Measurements or None
        Redundancy and sensitivity of the groups; None without data, or where nothing can go.
    recommended : Recommendation or None
        What to do next, where something was measured.

    Examples
    --------
    >>> import keras
    >>> import tfprune
    >>> hidden = keras.layers.Dense(8, "tanh", name="hidden")
    >>> model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(2, name="out")])
    >>> found = tfprune.inspect(model)
    >>> [(group.name, group.stays) for group in found.groups]
    [('hidden', None), ('out', 'output layer')]
    >>> found.parameters, found.macs, found.bytes
    (58, 48, 88)
    """

    name: str
    layers: tuple[LayerInfo, ...]
    groups: tuple[GroupInfo, ...]
    measured: Measurements | None = None
    recommended: Recommendation | None = None

    @property
    def parameters(self) -> int:
        """Numbers that the layers hold."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates of one sample; None where an axis has no size."""
        return text.macs_of(self.layers)

    @property
    def bytes(self) -> int:
        """About what the weights take in an int8 file."""
        return sum(layer.bytes for layer in self.layers)

    @property
    def prunable(self) -> tuple[GroupInfo, ...]:
        """The groups that can lose units."""
        return tuple(group for group in self.groups if group.stays is None)

    def __str__(self) -> str:
        tree = text.group_tree(self.groups)
        parts = [self._title(), text.layer_table(self.layers), f"{text.TREE_TITLE}\n{tree}"]
        if self.measured is not None:
            measured = self.measured
            table = text.redundancy_table(measured.redundancy)
            parts.append(f"{text.REDUNDANCY_TITLE}\n{table}")
            table = text.sensitivity_table(measured.sensitivity, measured.original)
            parts.append(f"{text.sensitivity_title(measured)}\n{table}")
        parts.append(self._end())
        return "\n\n".join(parts)

    def _repr_html_(self) -> str:
        parts = [
            f"<p><b>{escape(self._title())}</b></p>",
            html.table(text.LAYER_HEAD, text.layer_rows(self.layers), last_bold=True),
            f"<p>{text.TREE_TITLE}</p>",
            html.tree(self.groups),
        ]
        if self.measured is not None:
            measured = self.measured
            parts += [
                f"<p>{escape(text.REDUNDANCY_TITLE)}</p>",
                html.table(text.REDUNDANCY_HEAD, text.redundancy_rows(measured.redundancy)),
                f"<p>{escape(text.sensitivity_title(measured, blocks=False))}</p>",
                html.heat_map(measured.sensitivity, measured),
            ]
        advice = self.recommended
        end = (
            f"<p>{escape(self._end())}</p>"
            if advice is None
            else html.step(plain(advice.command), advice.expected)
        )
        return "".join([*parts, end])

    def plot(self) -> Figure:
        """The heat map of sensitivity, as a matplotlib figure.

        Raises
        ------
        TfpruneError
            If nothing was measured.
        """
        from tfprune.inspection.picture import heat_map

        if self.measured is None:
            raise TfpruneError(f"plot: expected a model that was measured; {self._end()}")
        return heat_map(self.measured)

    def to_html(self) -> str:
        """The same as a page of HTML by itself."""
        return html.page(plain(self.name), self._repr_html_())

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, for JSON."""
        totals = {"parameters": self.parameters, "macs": self.macs, "bytes": self.bytes}
        return {**totals, "degrees": DEGREES, "shares": SHARES, **asdict(self)}

    def _title(self) -> str:
        return (
            f"{plain(self.name)}: {self.parameters:,} parameters, {text.count_text(self.macs)} "
            f"multiply-accumulates (MACs), about {self.bytes:,} bytes of weights in int8"
        )

    def _end(self) -> str:
        """The line at the end: what to do next."""
        if self.recommended is not None:
            return f"next: {plain(self.recommended.command)}  # expect {self.recommended.expected}"
        if not self.prunable:
            return "next: nothing can be pruned; the reasons stand in the tree"
        if self.measured is not None:
            return "next: see that data and model fit; then what could go at what cost can be said"
        return "next: give it data, and it measures what of that could go"
