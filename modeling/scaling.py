"""Numbers as tensors, and sizes and ranges of maps: resizing that is fast on a CPU, grids of patches, stretching."""

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (B, η, h, w) maps to (B, η, H, W), as `F.interpolate(mode="bilinear", align_corners=False)`.

    Bilinear resizing is separable: a product with one matrix from the left and one from the right. On a CPU, in
    float32, this takes about half the time of `F.interpolate` for a handful of maps, and equals it to rounding.
    """
    if not _takes_matrices(maps):
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    rows, columns = _matrix(maps.shape[-2], size[0]), _matrix(maps.shape[-1], size[1])
    return rows @ (maps @ columns.T)


def _takes_matrices(maps: Tensor) -> bool:
    """Whether these maps may be multiplied with the matrices kept here."""
    ordinary = type(maps) is Tensor and maps.device.type == "cpu" and maps.dtype == torch.float32
    return ordinary and not torch.compiler.is_compiling()


@lru_cache(maxsize=64)
def _matrix(narrow: int, wide: int) -> Tensor:
    """(wide, narrow): each row holds the weights with which an output position mixes input positions."""
    with torch.inference_mode(False), torch.no_grad():
        # Kept between calls, so whatever default device or type happens to be set must not get in.
        identity = torch.eye(narrow, device="cpu", dtype=torch.float32).view(1, 1, narrow, narrow)
        return F.interpolate(identity, size=(wide, narrow), mode="bilinear", align_corners=False)[0, 0].contiguous()


@lru_cache(maxsize=64)
def _averages(wide: int, narrow: int) -> Tensor:
    """(narrow, wide): each row holds the weights with which an output position averages input positions."""
    with torch.inference_mode(False), torch.no_grad():
        identity = torch.eye(wide, device="cpu", dtype=torch.float32)
        if wide % narrow == 0:
            return identity[:narrow].repeat_interleave(wide // narrow, dim=1)[:, :wide] / (wide // narrow)
        averaged = F.interpolate(
            identity[None, None], size=(narrow, wide), mode="bilinear", align_corners=False, antialias=True
        )
        return averaged[0, 0].contiguous()


def _mixed(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Maps (B, C, h, w) with matrices (g, h) from the left and (w', w) from the right: (B, C, g, w'). On a CPU this
    takes half the time of pooling or antialiased interpolation or less; a tenth where channels lie innermost in
    memory, as in ConvNeXt.
    """
    if maps.stride(1) == 1 and maps.shape[1] > 1:
        mixed = columns @ maps.permute(0, 2, 3, 1)
        return (rows @ mixed.flatten(2)).unflatten(2, mixed.shape[2:]).permute(0, 3, 1, 2).contiguous()
    return rows @ (maps @ columns.T)


def patch_grid(size: tuple[int, int], patches: int) -> tuple[int, int]:
    """Rows and columns of an image of this height and width with so many patches along its shorter side."""
    shorter = min(size)
    return round(patches * size[0] / shorter), round(patches * size[1] / shorter)


def on_grid(features: Tensor, grid: tuple[int, int], scaled: bool = True) -> Tensor:
    """A layer's activations (B, C, h, w) on the grid of patches, (B, C, g, w) float32: the mean over each patch, or
    interpolated bilinearly; if `scaled`, divided by their root mean square over the image.
    """
    height, width = features.shape[-2:]
    finish = _scaled if scaled else Tensor.float
    if (height, width) == grid:
        return finish(features)
    in_blocks = height % grid[0] == 0 and width % grid[1] == 0
    if not in_blocks and (height <= grid[0] or width <= grid[1]):
        return _enlarged(finish(features), grid)
    if _takes_matrices(features):
        return finish(_mixed(features, _averages(height, grid[0]), _averages(width, grid[1])))
    if in_blocks:
        return finish(F.avg_pool2d(features, (height // grid[0], width // grid[1])))
    return finish(F.interpolate(features.float(), size=grid, mode="bilinear", align_corners=False, antialias=True))


def _enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """As [`resize`], of many channels on a grid of few positions: as a single product of matrices."""
    if not _takes_matrices(maps):
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    rows, columns = _matrix(maps.shape[-2], size[0]), _matrix(maps.shape[-1], size[1])
    if maps.stride(1) == 1 and maps.shape[1] > 1:
        return _mixed(maps, rows, columns)
    return (maps.flatten(2) @ torch.kron(rows, columns).T).unflatten(2, size)


def _scaled(features: Tensor) -> Tensor:
    features = features.float()
    norm = torch.linalg.vector_norm(features, dim=(1, 2, 3), keepdim=True)
    numbers = features.shape[1] * features.shape[2] * features.shape[3]
    return features * (numbers**0.5 / norm.clamp_min(1e-6))


def halve(maps: Tensor) -> Tensor:
    """Mean over 2×2 pixels of (B, η, H, W) maps with even sides; several times as fast as avg_pool2d on a CPU."""
    rows = maps[..., ::2, :] + maps[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]) * 0.25


def minmax(maps: Tensor) -> Tensor:
    """Stretches every map (B, η, H, W) to [0, 1]; one that is constant but for rounding becomes 0."""
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    return torch.where(has_contrast(low, high), stretch(maps, low, high), 0)


def has_contrast(low: Tensor, high: Tensor) -> Tensor:
    """Whether maps with these minima and maxima show something. Differences in the last digits are rounding: the mean
    over the channels of a layer norm, for one, is zero everywhere, and stretching it would show noise.
    """
    # False as well where a map is not finite: a NaN anywhere in it makes `high` NaN, with which comparisons are false,
    # and infinity is not more than infinity.
    return high - low > 1e-5 * torch.maximum(high.abs(), low.abs())


def stretch(maps: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(maps − low) / (high − low), with an epsilon relative to the maps' own magnitude: soft attention maps have
    values around 1/(H·W), and an absolute 1e-8 would dim the maps of large images.
    """
    span = high - low
    scale = 1 / (span + 1e-8 * (low.abs() + span) + torch.finfo(maps.dtype).tiny)
    return (maps - low) * scale


def contribution_map(contributions: Tensor, size: tuple[int, int], floor: str = "least") -> tuple[Tensor, Tensor]:
    """The map of one target an image.

    Args:
        contributions (`Tensor`): (B, 1, g, w), to that target; or (B, K, g, w), for a map of each of K.
        size (`tuple[int, int]`): height and width H, W of the input.
        floor (`str`): what is 0 in the map: `"least"`, the patch that speaks most against the target, or `"zero"`,
            every patch that does not speak for it.

    Returns:
        `tuple[Tensor, Tensor]`: the contributions, (B, K, H, W) float32 stretched to [0, 1], and (B · K,) bool, true
            where a map shows nothing.
    """
    maps = contributions.float()
    maps = resize(maps.clamp(min=0) if floor == "zero" else maps, size)
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    shows_something = has_contrast(low, high)
    low = torch.zeros_like(low) if floor == "zero" else low
    return torch.where(shows_something, stretch(maps, low, high), torch.zeros_like(maps)), ~shows_something.flatten()


def box_blurred(maps: Tensor) -> Tensor:
    """The mean of (B, T, g, w) over 3×3 patches, those at the border repeated."""
    return F.avg_pool2d(F.pad(maps, (1, 1, 1, 1), mode="replicate"), kernel_size=3, stride=1)


def shrink(maps: Tensor, factor: int) -> Tensor:
    """Maps (B, η, H, W) at 1/`factor` of their size, rounded up; at half the size the mean of 2×2 pixels."""
    if factor == 1:
        return maps
    height, width = maps.shape[-2:]
    if factor == 2 and height % 2 == 0 and width % 2 == 0:
        return halve(maps)
    size = [-(-side // factor) for side in (height, width)]
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False, antialias=True)


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """No autocast inside: values around 1/(H·W) of a large image are below what float16 can hold."""
    device = like.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):  # torch does not know the former here
        return nullcontext()
    return torch.autocast(device, enabled=False)


def size_of(pixel_values: Tensor) -> tuple[int, int]:
    """Height and width of images (B, 3, H, W)."""
    height, width = pixel_values.shape[-2:]
    # While `torch.jit.trace` runs they are tensors; what it makes is for this size.
    return (int(height), int(width)) if torch.jit.is_tracing() else (height, width)


def scaled_vectors(weight: Tensor, exclusive: bool, classes: Tensor | None = None) -> Tensor:
    """The head's weights as the contribution network takes them.

    Args:
        weight (`Tensor`): (K, C).
        exclusive (`bool`): the classes share one probability (softmax), which what they have in common does not
            change: it is taken out, and so φ sums to 0 over the classes.
        classes (`Tensor`, *optional*): (B,), the ones asked for; None: all.

    Returns:
        `Tensor`: (K, C) or (B, C) float32; the rows of all K classes have length 1 in the root mean square.
    """
    weight = weight.float()
    common = weight.mean(dim=0) if exclusive else weight.new_zeros(())
    # Σ|w_k − w̄|² = Σ|w_k|² − K|w̄|²: the head of many classes is read, and not copied for the one that is asked for.
    squared_length = torch.linalg.vector_norm(weight).square() - len(weight) * common.square().sum()
    wanted = weight if classes is None else weight[classes]
    return (wanted - common) * torch.rsqrt((squared_length / len(weight)).clamp_min(0) + 1e-12)


def plain(values: Any, name: str, like: Tensor) -> Tensor:
    """Numbers as a tensor that can be computed with: of lists, arrays, and tensors of any layout, also those made
    within `torch.inference_mode`.

    Args:
        values: any of these.
        name (`str`): what an error calls them.
        like (`Tensor`): stands where they are to be used with it.

    Raises:
        ValueError: if they are no real numbers.
    """
    if not isinstance(values, Tensor):
        try:
            values = torch.as_tensor(values)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise ValueError(f"{name} must be a tensor of numbers, not {type(values).__name__}.") from None
    if values.is_nested or values.is_complex() or (values.is_meta and not like.is_meta):
        kind = "a nested tensor" if values.is_nested else "without values" if values.is_meta else str(values.dtype)
        raise ValueError(f"{name} must be a tensor of real numbers, and these are {kind}.")
    if values.is_quantized:
        values = values.dequantize()
    if values.layout != torch.strided:
        values = values.to_dense()
    if not torch.compiler.is_compiling() and values.is_inference() and not torch.is_inference_mode_enabled():
        values = values.clone()  # nothing could learn from them
    return values  # type: ignore[no-any-return]


def mean_of_known(loss: Tensor, known: Tensor) -> Tensor:
    """A loss that is a mean, or 0 where nothing was there to take the mean of: NaN would spoil every weight."""
    return torch.where(known.any(), loss, torch.zeros_like(loss))


def centred_blob(like: Tensor) -> Tensor:
    """A Gaussian in the middle of the image, (g, w); its standard deviation is 0.3 of each side."""
    rows, columns = (
        torch.exp(-torch.linspace(-1, 1, side, device=like.device).square() / 0.72) for side in like.shape[-2:]
    )
    return rows[:, None] * columns


def bounded_exp(logits: Tensor) -> Tensor:
    """Their exponential, finite and above 0 whatever they are."""
    return logits.clamp(-30, 30).exp()
