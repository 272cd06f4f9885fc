"""Reading the backbone's activations during a forward pass, leaving nothing behind."""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .tap_layout import TapPoint

Hook = Callable[[nn.Module, Any, Any], None]


def forward_with_taps(
    backbone: nn.Module,
    tap_points: list[TapPoint],
    read: Callable[[Tensor], Tensor],
    call: Callable[[], Any],
    image_size: tuple[int, int],
) -> tuple[Any, list[Tensor]]:
    """
    Runs the backbone and reads its taps on the way.

    What is read is reduced at once, so no activation is kept alive by it. The hooks exist during the call alone, so
    copying and pickling never meet one. `torch.compile` cannot follow `register_forward_hook`; where it is at work,
    each tapped module's table of hooks is replaced by one with another entry and put back afterwards.

    Args:
        backbone: the timm network.
        tap_points: where to read.
        read: (B, C, h, w) features to what is kept of them.
        call: runs the backbone.
        image_size: height and width of the input.

    Returns:
        The result of `call` and one tensor for each tap, in the order of `tap_points`.

    Raises:
        ValueError: if a tapped module was not run or gives something else than expected.
    """
    readings: dict[int, Tensor] = {}
    by_module: dict[str, list[tuple[int, TapPoint]]] = {}
    for index, point in enumerate(tap_points):
        by_module.setdefault(point.module, []).append((index, point))

    hooks = [
        (backbone.get_submodule(name), _reading_hook(points, readings, read, image_size))
        for name, points in by_module.items()
    ]
    if torch.compiler.is_compiling():
        result = _with_hooks(hooks, call)
    else:
        result = _with_hooks_of_this_thread(hooks, call)
    missing = [point.module for index, point in enumerate(tap_points) if index not in readings]
    if missing:
        raise ValueError(
            f"The layers {', '.join(missing)} of the configuration's tap_points took no part in this forward pass: "
            "remove tap_points from the configuration to have them found anew."
        )
    return result, [readings[index] for index in range(len(tap_points))]


def _with_hooks(hooks: list[tuple[nn.Module, Hook]], call: Callable[[], Any]) -> Any:
    """What `torch.compile` and `torch.export` can follow: tables swapped and put back."""
    tables = [module._forward_hooks for module, _ in hooks]
    for module, hook in hooks:
        module._forward_hooks = {**module._forward_hooks, "antehoc_tap": hook}  # type: ignore[assignment, dict-item]
    try:
        return call()
    finally:
        for (module, _), table in zip(hooks, tables, strict=True):
            module._forward_hooks = table


def _with_hooks_of_this_thread(hooks: list[tuple[nn.Module, Hook]], call: Callable[[], Any]) -> Any:
    """The same where several threads may run the model at once: each adds its own entries and removes them."""
    thread, key = threading.get_ident(), object()

    def of_this_thread(hook: Hook) -> Hook:
        def guarded(module: nn.Module, inputs: Any, output: Any) -> None:
            if threading.get_ident() == thread:
                hook(module, inputs, output)

        return guarded

    for module, hook in hooks:
        module._forward_hooks[key] = of_this_thread(hook)  # type: ignore[index]
    try:
        return call()
    finally:
        for module, _ in hooks:
            module._forward_hooks.pop(key, None)  # type: ignore[call-overload]


def _reading_hook(
    points: list[tuple[int, TapPoint]],
    readings: dict[int, Tensor],
    read: Callable[[Tensor], Tensor],
    image_size: tuple[int, int],
) -> Hook:
    calls = [0]

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        for index, point in points:
            if point.call == calls[0]:
                readings[index] = read(point.features(output, image_size))
        calls[0] += 1

    return hook
