"""Finding the taps of a backbone by watching one forward pass of a copy without weights (meta device)."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .taps import TapPoint, find_layout, last_norm, read_of_attention

# How residual shortcuts are called across timm's families.
_SHORTCUT_NAMES = frozenset(("downsample", "shortcut", "skip", "proj_skip", "conv_skip", "identity", "c1x1_w"))
# Of transformers: those whose head reads the class token, and those where it reads the patches' mean beside it.
_OF_TRANSFORMERS = ("ViTForImageClassification", "DeiTForImageClassification")
_READ_BOTH = ("Dinov2ForImageClassification", "Dinov2WithRegistersForImageClassification")
# Where a layer has no positions at this size (squeeze-and-excitation), it is not a main-path convolution.
_MIN_POSITIONS = 2


PrefixOf = Callable[[int, tuple[int, int]], int]
"""(number of tokens, height and width of the image) → how many of the tokens are no positions."""


@dataclass(frozen=True)
class LayerCall:
    """One call of a module during the watched pass, in the order in which calls ended."""

    module: str
    call: int
    kind: str  # "conv", "norm", "channel_norm", "activation" or "other"
    layout: dict[str, Any] | None
    is_leaf: bool

    @property
    def grid(self) -> tuple[int, int] | None:
        return None if self.layout is None else self.layout["grid"]

    def tap_point(self) -> TapPoint:
        assert self.layout is not None
        placed = {key: self.layout[key] for key in ("item", "layout", "prefix_tokens", "stride")}
        return TapPoint(module=self.module, call=self.call, **placed)


def elongated(height: int, width: int) -> tuple[int, int]:
    """A size whose axes cannot be confused; the shorter side stays, so that grids too small are still seen."""
    if height > width:
        return height + max(height // 2, 32), width
    return height, width + max(width // 2, 32)


def watch(backbone: nn.Module, image: Tensor) -> list[LayerCall]:
    """Runs `backbone` on `image` and lists every module's calls with the grids they return."""
    calls: list[LayerCall] = []
    counts: dict[str, int] = {}
    size = (image.shape[-2], image.shape[-1])
    fixed = int(getattr(backbone, "num_prefix_tokens", 0) or 0)
    prefix_of: PrefixOf = getattr(backbone, "num_prefix_tokens_of", lambda tokens, size: fixed)
    channels = {info["module"]: info["num_chs"] for info in _feature_info(backbone)}
    handles = []
    for name, module in backbone.named_modules():
        if name:
            handles.append(module.register_forward_hook(_watcher(name, calls, counts, size, prefix_of, channels)))
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            backbone(image)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _watcher(
    name: str,
    calls: list[LayerCall],
    counts: dict[str, int],
    size: tuple[int, int],
    prefix_of: "PrefixOf",
    channels: dict[str, int],
) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        tokens = output[0] if isinstance(output, (tuple, list)) and output else output
        prefix = prefix_of(tokens.shape[1], size) if isinstance(tokens, Tensor) and tokens.ndim == 3 else 0
        layout = find_layout(output, size, channels.get(name), prefix)
        leaf = next(module.children(), None) is None
        calls.append(LayerCall(name, counts.get(name, 0), _kind(module), layout, leaf))
        counts[name] = counts.get(name, 0) + 1

    return hook


def _kind(module: nn.Module) -> str:
    name = type(module).__name__
    if isinstance(module, nn.Conv2d):
        return "conv"
    if "layernorm" in name.lower() or name.startswith("RmsNorm"):
        return "channel_norm"  # over channels: their mean is 0 (or nearly so) everywhere, no attention at all
    if "norm" in name.lower() or isinstance(module, nn.modules.batchnorm._NormBase):
        return "norm"
    home = type(module).__module__
    if "activations" in home or (home == "torch.nn.modules.activation" and name != "MultiheadAttention"):
        return "activation"
    return "other"


def _feature_info(backbone: nn.Module) -> list[dict[str, Any]]:
    info = getattr(backbone, "feature_info", None) or []
    entries = info if isinstance(info, list) else [dict(entry) for entry in info.get_dicts()]
    return [entry for entry in entries if isinstance(entry, dict) and "module" in entry and "num_chs" in entry]


def convolution_taps(calls: list[LayerCall], tap_point: str, include_shortcuts: bool) -> list[TapPoint]:
    """One tap for every main-path convolution, in the order in which they run.

    Args:
        calls: of [`watch`].
        tap_point: `"activation"`, `"norm"` or `"conv"`, see `AnteHocConfig.tap_point`.
        include_shortcuts: whether convolutions of residual shortcuts count.
    """
    convolutions = [
        index
        for index, call in enumerate(calls)
        if call.kind == "conv"
        and call.grid is not None
        and call.grid[0] * call.grid[1] >= _MIN_POSITIONS
        and (include_shortcuts or not _is_shortcut(call.module))
    ]
    if not convolutions:
        return []
    points: dict[tuple[str, int], TapPoint] = {}
    for index, following in zip(convolutions, [*convolutions[1:], len(calls)], strict=True):
        call = _read_after(calls, index, following, tap_point)
        # Parallel branches end in one activation: one tap, placed where the last of them ends.
        points.pop((call.module, call.call), None)
        points[call.module, call.call] = call.tap_point()
    return list(points.values())


def _is_shortcut(module: str) -> bool:
    return any(part in _SHORTCUT_NAMES or part.startswith("c1x1_w") for part in module.split("."))


def _read_after(calls: list[LayerCall], conv: int, following: int, tap_point: str) -> LayerCall:
    """The call to read for a convolution: the first activation (or norm) on its grid before the next convolution."""
    wanted = {"activation": ("activation", "norm"), "norm": ("norm", "channel_norm"), "conv": ()}[tap_point]
    for kind in wanted:
        for call in calls[conv + 1 : following]:
            if call.kind == kind and call.grid == calls[conv].grid and not _is_shortcut(call.module):
                return call
    return calls[conv]


def stage_taps(backbone: nn.Module, calls: list[LayerCall]) -> list[TapPoint]:
    """timm's stages (`feature_info`); without them the last output at each resolution of the top-level modules."""
    last = {call.module: call for call in calls if call.layout is not None}
    named = [call for info in _feature_info(backbone) if (call := _ending_in(info["module"], last)) is not None]
    if len(named) < 2:
        top = [
            call for call in calls if call.layout is not None and call.module.count(".") <= 1 and call.kind == "other"
        ]
        named = named or list({call.grid: call for call in top}.values())
    return [call.tap_point() for call in named]


def at_the_classifier(backbone: nn.Module, calls: list[LayerCall], points: list[TapPoint]) -> list[TapPoint]:
    """The same taps, but with the last stage's output in place of a last tap that lies within that stage (in a branch
    of a ConvNeXt's block, say), if the output is as wide as what the classifier reads; or with the last norm's output,
    if the classifier reads its mean beside the class token.
    """
    if type(getattr(backbone, "network", None)).__name__ in _READ_BOTH:
        norm = last_norm(backbone)
        names = [name for name, module in backbone.named_modules() if module is norm]
        read = [call.tap_point() for call in calls if call.module in names and call.layout is not None]
        return [*points[:-1], *read] if read else points
    width = getattr(backbone.get_classifier(), "in_features", None)  # type: ignore[operator]
    order = {(call.module, call.call): index for index, call in enumerate(calls)}
    ends = stage_taps(backbone, calls)[-1:]
    within = ends and points and order[ends[0].module, ends[0].call] > order[points[-1].module, points[-1].call]
    if not within:
        return points
    layout = calls[order[ends[0].module, ends[0].call]].layout
    return [*points[:-1], *ends] if layout is not None and layout["channels"] == width else points


def _ending_in(name: str, calls: dict[str, LayerCall]) -> LayerCall | None:
    """The call of a module named so, or named so within an inner network (`encoder.blocks.0` for `blocks.0`)."""
    found = (call for module, call in calls.items() if module == name or module.endswith(f".{name}"))
    return next(found, None)


def named_taps(calls: list[LayerCall], names: list[str]) -> list[TapPoint]:
    """Taps at modules named by the user.

    Raises:
        ValueError: if there is no such module in the forward pass or its output has no grid of positions.
    """
    last = {call.module: call for call in calls}
    points = []
    for name in names:
        if name not in last:
            known = ", ".join([call.module for call in calls if call.layout is not None][:6])
            raise ValueError(f"taps names {name!r}, but the backbone runs no module named so; it has e.g. {known}.")
        if last[name].layout is None:
            raise ValueError(f"taps names {name!r}, whose output has no grid of positions to make a map from.")
        points.append(last[name].tap_point())
    return points


def reaches_last_stage(backbone: nn.Module, calls: list[LayerCall], points: list[TapPoint]) -> bool:
    """Whether the last of the taps lies in the backbone's last stage (not so in a hybrid with attention on top)."""
    stages = [info["module"] for info in _feature_info(backbone)]
    if not points:
        return False
    if len(stages) < 2:
        return True
    order = {(call.module, call.call): index for index, call in enumerate(calls)}
    ends = [index for index, call in enumerate(calls) if call.module == stages[-2]]
    last = order[points[-1].module, points[-1].call]
    # Where timm's names of the stages are not those of modules, the last two fifths of the pass must do.
    return last > ends[-1] if ends else last > 0.6 * len(calls)


def at_fixed_intervals(points: list[TapPoint], count: int) -> list[TapPoint]:
    """`count` of them at fixed intervals, first and last included: round(linspace(0, L-1, count)), half up."""
    if count == 1:
        return points[-1:]
    step = (len(points) - 1) / (count - 1)
    return [points[int(step * index + 0.5)] for index in range(count)]


def class_token_taps(backbone: nn.Module, calls: list[LayerCall]) -> list[TapPoint]:
    """Where the attentions of a network whose head reads the class token are read, in their order; none of any other
    network.

    Args:
        backbone: timm's network, or another one behind its interface.
        calls: of [`watch`].
    """
    norm = last_norm(backbone)
    if norm is None or not _reads_class_token(backbone):
        return []
    of_module = {call.module: call for call in calls}
    points = []
    for name, module in backbone.named_modules():
        read = read_of_attention(module)
        if read is not None:
            # What enters torch's own attention, which has no parts to read: the norm of torchvision's blocks.
            call = of_module.get(f"{name}.{read}" if read else f"{name.rpartition('.')[0]}.ln_1")
            width = norm.weight.numel() * (3 if read == "qkv" else 1)
            if call is not None and call.layout is not None and call.layout["channels"] == width:
                points.append(replace(call.tap_point(), attention=name))
    return points


def _reads_class_token(backbone: nn.Module) -> bool:
    kind, inner = type(backbone), getattr(backbone, "network", None)
    if isinstance(inner, nn.Module):
        kind = type(inner)
        home = kind.__module__.split(".", 1)[0]
        return (home == "transformers" and kind.__name__ in (*_OF_TRANSFORMERS, *_READ_BOTH)) or (
            home == "torchvision" and kind.__name__ == "VisionTransformer"
        )
    return (
        kind.__module__ == "timm.models.vision_transformer"
        and kind.__name__ == "VisionTransformer"
        and getattr(backbone, "global_pool", None) == "token"
        and isinstance(backbone.norm, nn.LayerNorm)
        and isinstance(backbone.fc_norm, nn.Identity)
        and all(type(block).__name__ == "Block" for block in backbone.blocks)  # type: ignore[union-attr]
    )
