"""Features of layers and, if asked for, the gradients of a score with respect to them, from one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from antehoc_hf.explainers.network import Network
from antehoc_hf.explainers.targets import Ask, Target
from antehoc_hf.modeling.taps import TapPoint


@dataclass
class Recorded:
    """
    What a pass left, in the order of the layers.

    Attributes:
        target: what is explained.
        features (`list[Tensor]`): (B, C, h, w) each.
        gradients (`list[Tensor]`): likewise, of the sum of the scores; empty if not asked for.
    """

    target: Target
    features: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)


def record(
    network: Network,
    pixel_values: Tensor,
    points: Sequence[TapPoint],
    ask: Ask,
    gradients: bool = False,
    positions: Tensor | None = None,
) -> Recorded:
    """
    One forward pass and, with `gradients`, one backward pass from the score to the layers.

    Works for frozen networks, since the layers' own output is what gradients are taken of, and where the next module
    overwrites its input in place, since that is given a copy.

    Args:
        network: whose layers are read.
        pixel_values (`Tensor`): (B, 3, H, W).
        points: the layers.
        ask: what is explained; its score is differentiated.
        gradients (`bool`): whether it is.
        positions (`Tensor`, *optional*): (B,) which image of the explained batch each is a version of.
    """
    size = (pixel_values.shape[-2], pixel_values.shape[-1])
    kept: dict[int, Tensor] = {}
    with torch.set_grad_enabled(gradients), _hooked(network.body, points, kept):
        # A leaf that needs a gradient: the graph exists also where every parameter is frozen.
        images = pixel_values.detach().requires_grad_(gradients)
        outputs = network(images, positions)
        if not gradients:
            return Recorded(ask(outputs), [_grid(kept[index], point, size) for index, point in enumerate(points)])
        leaves = [kept[i] for i in range(len(points))]
        target = ask(outputs.detach())
        found = torch.autograd.grad(target.score(outputs).sum(), leaves, allow_unused=True)
    slopes = [torch.zeros_like(leaf) if slope is None else slope for leaf, slope in zip(leaves, found, strict=True)]
    return Recorded(
        target,
        [_grid(leaf.detach(), point, size) for leaf, point in zip(leaves, points, strict=True)],
        [_grid(slope, point, size) for slope, point in zip(slopes, points, strict=True)],
    )


def _grid(tensor: Tensor, point: TapPoint, size: tuple[int, int]) -> Tensor:
    """A layer's output tensor as (B, C, h, w), float32."""
    return replace(point, item=None).features(tensor, size).float()


@contextmanager
def _hooked(body: nn.Module, points: Sequence[TapPoint], kept: dict[int, Tensor]) -> Iterator[None]:
    """Keeps each layer's output tensor, and gives what follows a copy of it."""
    handles = []
    counts = dict.fromkeys((point.module for point in points), 0)

    def hook_of(name: str) -> Any:
        mine = [(index, point) for index, point in enumerate(points) if point.module == name]

        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            changed = output
            for index, point in mine:
                if point.call == counts[name]:
                    tensor = changed if point.item is None else changed[point.item]
                    kept[index] = tensor
                    copy = tensor.clone()
                    if point.item is None:
                        changed = copy
                    else:
                        changed = type(changed)([copy if i == point.item else t for i, t in enumerate(changed)])
            counts[name] += 1
            return changed

        return hook

    for name in counts:
        handles.append(body.get_submodule(name).register_forward_hook(hook_of(name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
