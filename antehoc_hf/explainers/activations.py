"""Features of layers and, if asked for, the gradients of a score with respect to them, from one pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from antehoc_hf.explainers.network import Question
from antehoc_hf.modeling.taps import TapPoint


@dataclass
class Recorded:
    """What a pass left, in the order of the layers.

    Attributes:
        outputs (`Tensor`): of the network.
        features (`list[Tensor]`): (B, C, h, w) float32 each.
        gradients (`list[Tensor]`): likewise, of the sum of the scores; empty if not asked for.
    """

    outputs: Tensor
    features: list[Tensor]
    gradients: list[Tensor] = field(default_factory=list)


def record(
    question: Question,
    images: Tensor,
    points: Sequence[TapPoint],
    score: Callable[[Tensor], Tensor] | None = None,
    positions: Tensor | None = None,
) -> Recorded:
    """One forward pass and, with `score`, one backward pass from it to the layers.

    Works for frozen networks, since gradients are taken of the layers' own output, and where the next module
    overwrites its input in place, since that is given a copy.

    Args:
        question: whose layers are read.
        images (`Tensor`): (N, C, H, W).
        points: the layers.
        score (*optional*): outputs → (N,) what is differentiated.
        positions (`Tensor`, *optional*): (N,) which image of the batch each is a version of.

    Raises:
        ValueError: if the score does not depend on the layers in a differentiable way.
    """
    size = (images.shape[-2], images.shape[-1])
    kept: dict[int, Tensor] = {}
    with torch.set_grad_enabled(score is not None), _hooked(question.body, points, kept):
        outputs = question(images, positions)
        missing = [point.module for index, point in enumerate(points) if index not in kept]
        if missing:
            raise ValueError(f"The layer {missing[0]!r} took no part in the forward pass of these images.")
        layers = [kept[index] for index in range(len(points))]
        slopes: Sequence[Tensor | None] = []
        if score is not None:
            total = score(outputs).sum()
            if not total.requires_grad:
                raise ValueError(
                    "The network's outputs have no gradient with respect to "
                    f"{', '.join(point.module for point in points)}: name another layer, or use a method without "
                    "gradients such as 'score-cam'."
                )
            slopes = torch.autograd.grad(total, layers, allow_unused=True)
    features = [_grid(layer.detach(), point, size) for layer, point in zip(layers, points, strict=True)]
    gradients = [
        _grid(torch.zeros_like(layer) if slope is None else slope, point, size)
        for layer, slope, point in zip(layers, slopes, points, strict=False)
    ]
    return Recorded(outputs.detach(), features, gradients)


def _grid(tensor: Tensor, point: TapPoint, size: tuple[int, int]) -> Tensor:
    """A layer's output tensor as (B, C, h, w), float32."""
    return replace(point, item=None).features(tensor, size).float()


@contextmanager
def _hooked(body: nn.Module, points: Sequence[TapPoint], kept: dict[int, Tensor]) -> Iterator[None]:
    """Keeps each layer's output tensor, and gives what follows a copy of it."""
    by_module: dict[str, list[tuple[int, TapPoint]]] = {}
    for index, point in enumerate(points):
        by_module.setdefault(point.module, []).append((index, point))
    handles = [body.get_submodule(name).register_forward_hook(_reader(mine, kept)) for name, mine in by_module.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _reader(mine: list[tuple[int, TapPoint]], kept: dict[int, Tensor]) -> Callable[..., object]:
    calls = [0]

    def hook(module: nn.Module, inputs: object, output: object) -> object:
        for index, point in mine:
            if point.call == calls[0]:
                tensor = item_of(output, point.item)
                if torch.is_grad_enabled() and not tensor.requires_grad:
                    tensor = tensor.detach().requires_grad_()  # the graph begins at the first layer that is read
                kept.setdefault(index, tensor)
                output = with_item(output, point.item, tensor.clone())
        calls[0] += 1
        return output

    return hook


def item_of(output: object, item: int | None) -> Tensor:
    """The tensor at `item` of a module's output, or the output itself."""
    tensor = output if item is None else output[item]  # type: ignore[index]
    assert isinstance(tensor, Tensor)
    return tensor


def with_item(output: object, item: int | None, tensor: Tensor) -> object:
    """A module's output with another tensor at `item`."""
    if item is None:
        return tensor
    assert isinstance(output, tuple | list)
    items = [tensor if index == item else other for index, other in enumerate(output)]
    return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
