"""Which layers a method reads, and their features as (B, C, h, w) whatever the network's own layout."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from torch import Tensor, nn

from antehoc_hf.explainers.activations import record
from antehoc_hf.explainers.network import Network
from antehoc_hf.explainers.targets import Ask
from antehoc_hf.modeling.tap_search import LayerCall, stage_taps
from antehoc_hf.modeling.taps import TapPoint

# A grid of a single position shows nothing.
_LEAST = 2
# So many layers from the end are tried before giving up on a network whose score depends on no position.
_TRIED = 6


def named_layers(network: Network, pixel_values: Tensor, names: Sequence[str]) -> list[TapPoint]:
    """
    Layers by the names of their modules, in the order given.

    Raises:
        ValueError: if there is no such module, or its output is no grid of positions.
    """
    calls = {call.module: call for call in network.calls(pixel_values)}
    return [_named(name, calls, network.body) for name in names]


def _named(name: str, calls: dict[str, LayerCall], body: nn.Module) -> TapPoint:
    if name not in dict(body.named_modules()):
        near = get_close_matches(name, calls, n=3) or [call.module for call in calls.values() if _has_grid(call)][-3:]
        raise ValueError(f"layer={name!r} is no module of the network: did you mean {', '.join(map(repr, near))}?")
    if name not in calls:
        raise ValueError(f"layer={name!r} takes no part in the network's forward pass.")
    if not _has_grid(calls[name]):
        usable = ", ".join([call.module for call in calls.values() if _has_grid(call) and not call.is_leaf][-3:])
        raise ValueError(f"layer={name!r} gives no grid of positions of at least 2×2: use for example {usable}.")
    return calls[name].tap_point()


def last_layer(network: Network, pixel_values: Tensor, ask: Ask) -> TapPoint:
    """
    The last layer on whose positions the score depends: the last stage of a CNN. In a transformer that reads its class
    token the patches of the last block lead nowhere, so that the block before is taken.

    Raises:
        ValueError: if the network has no layer with a grid of positions.
    """
    candidates = _from_the_end(network, pixel_values)
    if not candidates:
        raise ValueError("The network has no layer whose output is a grid of at least 2×2 positions: name one.")
    for point in candidates[:_TRIED]:
        if bool(record(network, pixel_values, [point], ask, gradients=True).gradients[0].abs().amax() > 0):
            return point
    return candidates[0]


def block_ends(network: Network, pixel_values: Tensor, ask: Ask) -> list[TapPoint]:
    """
    The last features at each resolution, fine to coarse: timm's stages where it names them (in a ResNet the stem's
    activation and layer1…layer4), else what the modules give last before the grid shrinks (SISE, phase 1). Nothing
    that comes after [`last_layer`]: the score does not depend on its positions.

    Raises:
        ValueError: if the network has no layer with a grid of positions.
    """
    calls = [call for call in network.calls(pixel_values) if _has_grid(call)]
    order = {call.module: index for index, call in enumerate(calls)}
    last = last_layer(network, pixel_values, ask)
    calls = calls[: order[last.module] + 1]
    if getattr(network.body, "feature_info", None):
        stages = [point for point in stage_taps(network.body, calls) if point.module in order]
        if len(stages) > 1:
            return stages
    blocks = {call.grid: call for call in calls if not call.is_leaf and call.kind == "other"}
    # Before the first block there is the stem, whose last activation counts.
    activations = {call.grid: call for call in calls if call.kind == "activation"}
    ends = (activations | blocks) or {call.grid: call for call in calls}
    return [call.tap_point() for call in sorted(ends.values(), key=calls.index)]


def _from_the_end(network: Network, pixel_values: Tensor) -> list[TapPoint]:
    calls = [call for call in network.calls(pixel_values) if _has_grid(call)]
    blocks = [call for call in calls if not call.is_leaf and call.kind == "other" and call.module] or calls
    return [call.tap_point() for call in reversed(blocks)]


def _has_grid(call: LayerCall) -> bool:
    return call.layout is not None and call.layout["item"] is None and min(call.layout["grid"]) >= _LEAST
