"""Which groups of layers are pruned, which are skipped and why, as the user asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfprune.errors import TfpruneError
from tfprune.graph.groups import Group, followers
from tfprune.graph.trace import Trace
from tfprune.graph.unfollowed import Unfollowed
from tfprune.options import KINDS
from tfprune.results import ASKED_TO_SKIP, Other, Skipped
from tfprune.utils.checks import check_choice


def choose_layers(
    traced: Trace,
    groups: Sequence[Group],
    unfollowed_layers: Sequence[Unfollowed],
    layers: str | Sequence[str],
    skip: Sequence[str],
) -> tuple[list[Group], tuple[Skipped, ...], tuple[Other, ...]]:
    """The groups to prune, the layers that are skipped and why, and those not asked for."""
    kinds = {name: kind for group in groups for name, kind in group.kinds.items()}
    asked_names, named = _asked(kinds, unfollowed_layers, layers, skip)
    held = {
        group: name
        for name, together in followers(traced, groups).items()
        for group in together
        if name in skip
    }
    groups_to_prune = []
    skipped = []
    for group in groups:
        mine = [name for name in group.producers if name in asked_names and name not in skip]
        if mine == list(group.producers) and group.blocked is None and group not in held:
            groups_to_prune.append(group)
            continue
        rest = [name for name in group.producers if name not in mine]
        apart = f"goes together with {', '.join(rest)}, which was not asked for"
        if group in held:
            apart = f"goes together with {held[group]}, which is to be skipped"
        for name in group.producers:
            if name in skip:
                skipped.append(Skipped(name, ASKED_TO_SKIP))
            elif name in asked_names:
                skipped.append(Skipped(name, group.blocked or apart))
            elif kinds[name] in {kinds.get(other) for other in asked_names}:
                skipped.append(Skipped(name, group.blocked or "not among the layers asked for"))
    for one in unfollowed_layers:
        if one.name in skip or one.name in named:
            skipped.append(Skipped(one.name, ASKED_TO_SKIP if one.name in skip else one.reason))
    pruned = {name for group in groups_to_prune for name in group.producers}
    listed = pruned | {one.name for one in skipped}
    others = [
        Other(name, type(traced.layers[name]).__name__, prunable=True)
        for name in kinds
        if name not in listed
    ]
    others += [
        Other(one.name, one.layer, prunable=False)
        for one in unfollowed_layers
        if one.name not in listed
    ]
    return groups_to_prune, tuple(skipped), tuple(others)


def _asked(
    kinds: Mapping[str, str],
    unfollowed_layers: Sequence[Unfollowed],
    layers: str | Sequence[str],
    skip: Sequence[str],
) -> tuple[list[str], list[str]]:
    """The layers to prune that are asked for, and those among the others that are.

    Raises
    ------
    TfpruneError
        If there is no such layer.
    """
    if isinstance(layers, str):
        word = check_choice("layers", layers, KINDS)
        asked_names = [name for name, kind in kinds.items() if kind in KINDS[word]]
        # With "all", layers that are never pruned are listed one by one as well.
        named = [one.name for one in unfollowed_layers if one.kind in KINDS[word] or word == "all"]
    else:
        asked_names = list(layers)
        named = [one.name for one in unfollowed_layers if one.name in asked_names]
    for name in [*asked_names, *skip]:
        if name not in kinds and name not in {one.name for one in unfollowed_layers}:
            known = ", ".join(kinds) or "none"
            raise TfpruneError(
                f"layer {name!r} is no layer of the model with units; these are: {known}"
            )
    return asked_names, named
