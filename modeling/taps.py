"""Where the backbone is read, and reading it during a forward pass.

The grid of positions in a layer's output may be (B, C, h, w), (B, h, w, C) or (B, tokens, C).
"""

import copyreg
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Hook = Callable[[nn.Module, Any, Any], None]
Kept = TypeVar("Kept")
Finish = Callable[[Tensor], Tensor] | None
"""(B, C, g, w) → (B, C, g, w), linear, the same for every position; None: nothing."""


@dataclass(frozen=True)
class TapPoint:
    """One place in the backbone that is read.

    Attributes:
        module: the module's name in the backbone.
        call: which of its calls in a forward pass, from 0.
        item: index into the output where that is a tuple or list, else None.
        layout: `"NCHW"`, `"NHWC"` or `"NLC"` (tokens).
        prefix_tokens: class and register tokens in front of the grid (`"NLC"` only).
        stride: height and width of an input in pixels for each position of the grid (`"NLC"` only).
        attention: name of the self-attention that this is a part of, or the norm before it; what is read then is what
            the class token takes from each position there, see [`taken_by_class_token`].
    """

    module: str
    call: int = 0
    item: int | None = None
    layout: str = "NCHW"
    prefix_tokens: int = 0
    stride: tuple[float, float] | None = None
    attention: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data, without what is default."""
        values = asdict(self)
        return {key: value for key, value in values.items() if key == "module" or value != _DEFAULTS[key]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TapPoint":
        """The inverse of [`to_dict`].

        Raises:
            ValueError: if a key is unknown or something in it makes no sense.
        """
        if not isinstance(values, dict) or "module" not in values or set(values) - set(cls.__dataclass_fields__):
            raise ValueError(f"tap_points of the configuration holds {values!r}, which does not describe a tap.")
        stride = values.get("stride")
        point = cls(**{**values, "stride": tuple(stride) if isinstance(stride, (list, tuple)) else stride})
        if not point._is_sound():
            raise ValueError(f"tap_points of the configuration holds {values!r}, which does not describe a tap.")
        return point

    def _is_sound(self) -> bool:
        whole = [self.call, self.prefix_tokens] + ([] if self.item is None else [self.item])
        strides = self.stride if self.stride is not None else (1.0, 1.0)
        return (
            isinstance(self.module, str)
            and self.module != ""
            and (self.attention is None or (isinstance(self.attention, str) and self.layout == "NLC"))
            and self.layout in ("NCHW", "NHWC", "NLC")
            and all(type(number) is int and number >= 0 for number in whole)
            and isinstance(strides, tuple)
            and len(strides) == 2
            and all(type(number) in (int, float) and number > 0 for number in strides)
        )

    def features(self, output: Any, image_size: tuple[int, int]) -> Tensor:
        """The module's output as (B, C, h, w); a view where that is possible."""
        tensor = output if self.item is None else output[self.item] if len(output) > self.item else None
        if not isinstance(tensor, Tensor) or tensor.ndim != len(self.layout):
            raise ValueError(
                f"tap_points of the configuration describes the output of {self.module!r} as {self.layout}, which it "
                "is not: remove tap_points from the configuration to have them found anew."
            )
        if self.layout == "NCHW":
            return tensor
        if self.layout == "NHWC":
            return tensor.movedim(-1, 1)
        positions = tensor.shape[1] - self.prefix_tokens
        rows, columns = grid_of_tokens(positions, image_size, self.stride)
        if rows * columns != positions:
            size = "×".join(map(str, image_size))
            raise ValueError(
                f"{positions} tokens of {self.module!r} are no grid on images of {size} pixels: remove tap_points and "
                "class_token_taps from the configuration to have them found anew."
            )
        return tensor[:, self.prefix_tokens :].movedim(-1, 1).unflatten(2, (rows, columns))


_DEFAULTS = {key: field.default for key, field in TapPoint.__dataclass_fields__.items()}


def grid_of_tokens(tokens: int, image_size: tuple[int, int], stride: tuple[float, float] | None) -> tuple[int, int]:
    """Rows and columns of a token grid on an image of this size."""
    if stride is not None:
        rows = max(round(image_size[0] / stride[0]), 1)
        if tokens % rows == 0:
            return rows, tokens // rows
    rows = max(round((tokens * image_size[0] / image_size[1]) ** 0.5), 1)
    return rows, tokens // rows


def find_layout(
    output: Any, image_size: tuple[int, int], channels: int | None = None, prefix_tokens: int = 0
) -> dict[str, Any] | None:
    """Finds the grid of positions in a module's output for a single image.

    Args:
        output: what the module returned; of a tuple or list the last tensor with a grid is taken.
        image_size: height and width of the input that led to it; best not square, so that axes can't be confused.
        channels: number of channels if known (timm's `feature_info`), to tell axes apart.
        prefix_tokens: tokens of the backbone that are no positions.

    Returns:
        `item`, `layout`, `prefix_tokens`, `stride` of a [`TapPoint`], `grid` (rows, columns) and `channels`; None
        where there is no grid.
    """
    if isinstance(output, (tuple, list)):
        for item in reversed(range(len(output))):
            found = find_layout(output[item], image_size, channels, prefix_tokens)
            if found is not None:
                return {**found, "item": item}
        return None
    if not isinstance(output, Tensor) or not output.is_floating_point() or output.shape[:1] != (1,):
        return None  # e.g. attention heads in the place of the batch
    if output.ndim == 4:
        return _layout_of_grid(output.shape, image_size, channels)
    if output.ndim == 3:
        return _layout_of_tokens(output.shape, image_size, prefix_tokens)
    return None


def _layout_of_grid(shape: torch.Size, image_size: tuple[int, int], channels: int | None) -> dict[str, Any] | None:
    candidates = {"NCHW": (shape[2], shape[3], shape[1]), "NHWC": (shape[1], shape[2], shape[3])}
    fitting = {name: c for name, c in candidates.items() if _fits(c[0], c[1], image_size)}
    if len(fitting) > 1 and channels is not None:
        fitting = {name: c for name, c in fitting.items() if c[2] == channels} or fitting
    if not fitting:
        return None
    # A tie is settled for the common layout.
    name = "NCHW" if "NCHW" in fitting else "NHWC"
    rows, columns, width = fitting[name]
    grid = (rows, columns)
    return {"item": None, "layout": name, "grid": grid, "channels": width, "prefix_tokens": 0, "stride": None}


def _fits(rows: int, columns: int, image_size: tuple[int, int]) -> bool:
    """Whether a grid has (nearly) the proportions of the image; padding may add a position or two at each side."""
    height, width = image_size
    if rows < 1 or columns < 1 or rows > height + 2 or columns > width + 2:
        return False
    stride = height / rows
    return abs(columns - width / stride) <= max(2.0, 0.25 * columns)


def _layout_of_tokens(shape: torch.Size, image_size: tuple[int, int], prefix_tokens: int) -> dict[str, Any] | None:
    height, width = image_size
    for prefix in dict.fromkeys((prefix_tokens, 0, 1)):
        tokens = shape[1] - prefix
        if tokens < 1:
            continue
        # The stride is a whole number of pixels in every patch embedding, the same in both directions.
        stride = (height * width / tokens) ** 0.5
        for whole in (round(stride), int(stride), int(stride) + 1):
            if whole < 1:
                continue
            for up in (0, 1):  # floor or ceil at the border
                rows, columns = (height + up * (whole - 1)) // whole, (width + up * (whole - 1)) // whole
                if rows * columns == tokens:
                    return {
                        "item": None,
                        "layout": "NLC",
                        "grid": (rows, columns),
                        "channels": shape[2],
                        "prefix_tokens": prefix,
                        "stride": (height / rows, width / columns),
                    }
    return None


def forward_with_taps(
    backbone: nn.Module,
    tap_points: list[TapPoint],
    read: Callable[[Tensor, Finish], Kept],
    call: Callable[[], Any],
    image_size: tuple[int, int],
) -> tuple[Any, list[Kept]]:
    """Runs the backbone and reads its taps on the way.

    What is read is reduced at once, so no activation is kept alive by it. The hooks exist during the call alone, and
    copies made meanwhile in another thread leave them out ([`copies_without_taps`]). `torch.compile` cannot follow
    `register_forward_hook`; where it is at work, each tapped module's table of hooks is replaced by one with another
    entry and put back afterwards.

    Args:
        backbone: the timm network.
        tap_points: where to read.
        read: (B, C, h, w) features to what is kept of them; with an attention's come the rest, or None.
        call: runs the backbone.
        image_size: height and width of the input.

    Returns:
        The result of `call` and what was kept of each tap, in the order of `tap_points`.

    Raises:
        ValueError: if a tapped module was not run or gives something else than expected.
    """
    readings: dict[int, Kept] = {}
    by_module: dict[str, list[tuple[int, TapPoint]]] = {}
    for index, point in enumerate(tap_points):
        by_module.setdefault(point.module, []).append((index, point))

    hooks = [
        (backbone.get_submodule(name), _reading_hook(backbone, points, readings, read, image_size))
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
        module._forward_hooks = {**module._forward_hooks, _TAP: hook}  # type: ignore[assignment, dict-item]
    try:
        return call()
    finally:
        for (module, _), table in zip(hooks, tables, strict=True):
            module._forward_hooks = table


def _with_hooks_of_this_thread(hooks: list[tuple[nn.Module, Hook]], call: Callable[[], Any]) -> Any:
    """The same where several threads may run the model at once: each adds its own entries and removes them."""
    thread, key = threading.get_ident(), f"{_TAP}_{id(hooks)}"

    def of_this_thread(hook: Hook) -> Hook:
        def guarded(module: nn.Module, inputs: Any, output: Any) -> None:
            if threading.get_ident() == thread:
                hook(module, inputs, output)

        return guarded

    copies_without_taps(module for module, _ in hooks)
    for module, hook in hooks:
        module._forward_hooks[key] = of_this_thread(hook)  # type: ignore[index]
    try:
        return call()
    finally:
        for module, _ in hooks:
            module._forward_hooks.pop(key, None)  # type: ignore[call-overload]


# How the keys of reading hooks begin in a module's table, where those of torch are numbers.
_TAP = "antehoc_tap"


def copies_without_taps(modules: Iterable[nn.Module]) -> None:
    """Sees to it that copies and pickles of such modules, alone or as parts of another, leave out the hooks of forward
    passes that are running in other threads.

    `copyreg` is where `copy` and `pickle` look for how objects of a class are taken apart. What they write is the same
    as without it.
    """
    for module in modules:
        kind = type(module)
        if kind not in copyreg.dispatch_table and not isinstance(module, torch.jit.ScriptModule):
            copyreg.pickle(kind, _taken_apart)


def _taken_apart(module: nn.Module) -> str | tuple[Any, ...]:
    """As `module.__reduce_ex__` has it, without reading hooks."""
    parts = module.__reduce_ex__(4)
    if len(parts) < 3 or not isinstance(parts[2], dict) or "_forward_hooks" not in parts[2]:
        return parts
    # Listed at once: another thread may add an entry at any time.
    hooks = [entry for entry in list(module._forward_hooks.items()) if not str(entry[0]).startswith(_TAP)]
    return (*parts[:2], {**parts[2], "_forward_hooks": OrderedDict(hooks)}, *parts[3:])


def _reading_hook(
    backbone: nn.Module,
    points: list[tuple[int, TapPoint]],
    readings: dict[int, Kept],
    read: Callable[[Tensor, Finish], Kept],
    image_size: tuple[int, int],
) -> Hook:
    calls = [0]

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        for index, point in points:
            if point.call == calls[0]:
                seen, finish = output, None
                if point.attention is not None:
                    seen, finish = taken_by_class_token(backbone, point.attention, inputs, output)
                readings[index] = read(point.features(seen, image_size), finish)
        calls[0] += 1

    return hook


def read_of_attention(attention: nn.Module) -> str | None:
    """Which part of it [`taken_by_class_token`] reads, `""` for what enters; None: it does not know all of it."""
    if isinstance(attention, nn.MultiheadAttention):
        plain = attention._qkv_same_embed_dim and attention.bias_k is None and not attention.add_zero_attn
        return "" if plain and attention.batch_first else None
    names = {name for name, _ in attention.named_children()}
    if {"q_proj", "k_proj", "v_proj", "o_proj"} <= names:
        return "v_proj" if hasattr(attention, "num_attention_heads") else None
    timms = type(attention).__name__ == "Attention" and {"qkv", "proj", "norm"} <= names  # others weigh otherwise
    return "qkv" if timms and isinstance(attention.norm, nn.Identity) and attention.gate is None else None


def last_norm(network: nn.Module) -> nn.LayerNorm | None:
    """The norm behind the last layer."""
    children = reversed(list(network.children()))
    return network if isinstance(network, nn.LayerNorm) else next(filter(None, map(last_norm, children)), None)


def taken_by_class_token(backbone: nn.Module, name: str, inputs: Any, output: Any) -> tuple[Tensor, Finish]:
    """What the class token takes from each token in one attention, as the network's last norm weighs it; but for that
    norm's division, which is the same for all.

    The token that the head reads is a sum: what it began with, and what each attention and each MLP has added. An
    attention adds Σ_i A_i W_O W_V x_i, one summand for each position i, and what the head's weights make of a summand
    is that position's direct share in the logits (Elhage et al., "A Mathematical Framework for Transformer Circuits",
    2021; Gandelsman, Efros, Steinhardt, "Interpreting CLIP's Image Representation via Text-Based Decomposition", ICLR
    2024, Sections 3 and 4). The patches' own tokens, behind the last layer, are read by nobody.

    Args:
        backbone, name: the network, and the attention's name in it.
        inputs, output: of what [`read_of_attention`] names; the class token is the first.

    Returns:
        `tuple[Tensor, Finish]`: A_i W_V x_i, (B, N, C), times N; and the rest, which is the same at each position, so
            that means over positions may be taken before it.

    Raises:
        ValueError: if there is no such attention.
    """
    attention, norm = backbone.get_submodule(name), last_norm(backbone)
    read, seen = read_of_attention(attention), getattr(output, "shape", ())
    if read is None or norm is None or seen[2:] != ((3 if read == "qkv" else 1) * norm.weight.numel(),):
        raise ValueError(
            f"class_token_taps of the configuration names {name!r}, which is no attention that can be read so: remove "
            "tap_points and class_token_taps from the configuration to have them found anew."
        )
    query, key, value, project = _projected(attention, read, inputs, output)
    weights = (query @ key.mT * query.shape[-1] ** -0.5).softmax(dim=-1) * value.shape[2]
    block, by = backbone.get_submodule(name.rpartition(".")[0]), norm.weight
    scale = next((getattr(block, name) for name in ("ls1", "layer_scale1") if hasattr(block, name)), nn.Identity())

    def finish(kept: Tensor) -> Tensor:
        kept = kept.to(value.dtype).movedim(1, -1)
        added = project(kept) - project(torch.zeros_like(kept[:1, :1, :1]))  # without the bias
        added = scale(added).float()
        return ((added - added.mean(dim=-1, keepdim=True)) * by.float()).movedim(-1, 1)

    return (weights.mT * value).transpose(1, 2).flatten(2), finish


def _projected(attention: Any, read: str, inputs: Any, output: Tensor) -> tuple[Tensor, Tensor, Tensor, nn.Module]:
    """The class token's query (B, heads, 1, D), keys and values (B, heads, N, D), and the projection behind them."""
    if read == "qkv":
        project, heads, (query, key, value) = attention.proj, attention.num_heads, output.chunk(3, dim=-1)
        query = query[:, :1]
    elif read == "v_proj":
        project, heads, tokens, value = attention.o_proj, attention.num_attention_heads, inputs[0], output
        query, key = attention.q_proj(tokens[:, :1]), attention.k_proj(tokens)
    else:
        project, heads = attention.out_proj, attention.num_heads
        layers = zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True)
        parts = zip((output[:, :1], output, output), layers, strict=True)
        query, key, value = (F.linear(tokens, *layer) for tokens, layer in parts)
    query, key, value = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    if hasattr(attention, "q_norm"):
        query, key = attention.q_norm(query), attention.k_norm(key)
    return query, key, value, project
