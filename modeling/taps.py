"""Reading the backbone's activations during a forward pass, leaving nothing behind."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .tap_layout import TapPoint

_HOOK_KEY = "antehoc_taps"


def forward_with_taps(
    backbone: nn.Module,
    tap_points: list[TapPoint],
    read: Callable[[Tensor], Tensor],
    call: Callable[[], Any],
    image_size: tuple[int, int],
) -> tuple[Any, list[Tensor]]:
    """
    Runs the backbone and reads its taps on the way.

    What is read is reduced at once, so no activation is kept alive by it. The hooks exist during the call alone:
    each tapped module's table of hooks is replaced by a copy with one more entry and put back afterwards, which
    `torch.compile`, `torch.export`, copying and pickling all bear (`register_forward_hook` breaks the graph).

    Args:
        backbone: the timm network.
        tap_points: where to read.
        read: (B, C, h, w) features to what is kept of them.
        call: runs the backbone.
        image_size: height and width of the input.

    Returns:
        The result of `call` and one tensor for each tap, in the order of `tap_points`.

    Raises:
        RuntimeError: if a tapped module was not run.
    """
    readings: dict[int, Tensor] = {}
    by_module: dict[str, list[tuple[int, TapPoint]]] = {}
    for index, point in enumerate(tap_points):
        by_module.setdefault(point.module, []).append((index, point))

    modules = [backbone.get_submodule(name) for name in by_module]
    tables = [module._forward_hooks for module in modules]
    for module, points in zip(modules, by_module.values(), strict=True):
        hook = _reading_hook(points, readings, read, image_size)
        module._forward_hooks = {**module._forward_hooks, _HOOK_KEY: hook}  # type: ignore[assignment, dict-item]
    try:
        result = call()
    finally:
        for module, table in zip(modules, tables, strict=True):
            module._forward_hooks = table
    missing = [point.module for index, point in enumerate(tap_points) if index not in readings]
    if missing:
        raise RuntimeError(f"The tapped layers {', '.join(missing)} took no part in this forward pass.")
    return result, [readings[index] for index in range(len(tap_points))]


def _reading_hook(
    points: list[tuple[int, TapPoint]],
    readings: dict[int, Tensor],
    read: Callable[[Tensor], Tensor],
    image_size: tuple[int, int],
) -> Callable[[nn.Module, Any, Any], None]:
    calls = [0]

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        for index, point in points:
            if point.call == calls[0]:
                readings[index] = read(point.features(output, image_size))
        calls[0] += 1

    return hook
