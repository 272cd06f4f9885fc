"""How images become a network's input, in the words of timm and of transformers."""

from collections.abc import Mapping
from typing import Any

from PIL import Image

from antehoc_hf.modeling.map_head import as_list, is_number
from antehoc_hf.sources.classifier import Preprocessing

_RESAMPLING = {method.value: method.name.lower() for method in Image.Resampling}


def of_timm(cfg: Mapping[str, Any]) -> Preprocessing:
    """Of timm's `pretrained_cfg`.

    Raises:
        ValueError: if sizes or colours in it are no numbers.
    """
    size = "test_input_size" if cfg.get("test_input_size") else "input_size"
    sides = _floats(cfg.get(size), f"{size} of timm's pretrained_cfg")
    return Preprocessing(
        image_size=[int(side) for side in sides[-2:]] if sides else None,
        image_mean=_floats(cfg.get("mean"), "mean of timm's pretrained_cfg"),
        image_std=_floats(cfg.get("std"), "std of timm's pretrained_cfg"),
        interpolation=cfg.get("interpolation"),
        crop_pct=cfg.get("test_crop_pct") or cfg.get("crop_pct"),
        crop_mode=cfg.get("crop_mode"),
    )


def of_transformers(values: Mapping[str, Any], origin: str) -> Preprocessing:
    """Of an image processor of transformers, as `preprocessor_config.json` has it.

    Raises:
        ValueError: if it does something to images that is not resizing, cropping and normalising.
    """
    if values.get("rescale_offset") or values.get("do_flip_channel_order"):
        raise ValueError(
            f"{origin} prepares its images in a way that is not known here (an offset, or channels in another order)."
        )
    mean, std = (_floats(values.get(name), f"{name} of {origin}") for name in ("image_mean", "image_std"))
    if values.get("do_normalize") is False:
        mean, std = [0.0] * 3, [1.0] * 3
    size = values.get("size") or {}
    size = {"shortest_edge": size} if isinstance(size, int) else dict(size)
    crop = values.get("crop_size") or {}
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else dict(crop)
    interpolation = _RESAMPLING.get(values.get("resample", 2), "bilinear")
    cropped = values.get("do_center_crop") and crop.get("height")
    edge = size.get("shortest_edge")
    common: dict[str, Any] = {"image_mean": mean, "image_std": std, "interpolation": interpolation}
    if cropped and edge:
        share = min(crop["height"], crop["width"]) / edge
        return Preprocessing([crop["height"], crop["width"]], crop_pct=min(share, 1.0), crop_mode="center", **common)
    if size.get("height"):
        return Preprocessing([size["height"], size["width"]], crop_pct=1.0, crop_mode="squash", **common)
    if edge and values.get("crop_pct"):  # ConvNeXt: resized to edge / crop_pct, then cropped, below 384 pixels
        share = 1.0 if edge >= 384 else float(values["crop_pct"])
        mode = "squash" if edge >= 384 else "center"
        return Preprocessing([edge, edge], crop_pct=share, crop_mode=mode, **common)
    return Preprocessing([edge, edge] if edge else None, crop_pct=1.0 if edge else None, **common)


def _floats(values: Any, name: str) -> list[float] | None:
    """The numbers, or None; how many there must be, and between which bounds, the image processor checks."""
    values = [values] * 3 if is_number(values) else as_list(values)  # transformers takes one for all channels
    if values is None or (isinstance(values, list) and all(is_number(value) for value in values)):
        return None if values is None else [float(value) for value in values]
    raise ValueError(f"{name} must be a list of numbers, not {repr(values)[:60]}: correct it where the network is.")
