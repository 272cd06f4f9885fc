"""The image processor: the pixels of timm's evaluation transform for the backbone."""

from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor
from transformers import BatchFeature
from transformers.dynamic_module_utils import custom_object_save
from transformers.image_processing_utils import BaseImageProcessor

from .rgb import to_rgb


class AnteHocImageProcessor(BaseImageProcessor):
    """
    Resizes, crops and normalises as timm evaluates the backbone; bit for bit timm's own transform.

    Args:
        image_size (`int` or `list[int]`): side, or [height, width], in pixels.
        image_mean, image_std (`list[float]`): normalisation of pixels in [0, 1].
        interpolation (`str`): `"bilinear"`, `"bicubic"`, `"lanczos"` or `"nearest"`.
        crop_pct (`float`): the image is resized to size / crop_pct, then cropped; 1 shows the whole (square) image.
        crop_mode (`str`): `"center"`, `"squash"` or `"border"`, as in timm.

    Raises:
        ValueError: if a value makes no sense.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012  as transformers declares it

    def __init__(
        self,
        image_size: int | list[int] = 224,
        image_mean: list[float] | None = None,
        image_std: list[float] | None = None,
        interpolation: str = "bicubic",
        crop_pct: float = 0.875,
        crop_mode: str = "center",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image_size = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
        self.image_mean = list(image_mean or (0.485, 0.456, 0.406))
        self.image_std = list(image_std or (0.229, 0.224, 0.225))
        self.interpolation = interpolation
        self.crop_pct = crop_pct
        self.crop_mode = crop_mode
        if not 0 < crop_pct <= 1:
            raise ValueError(f"crop_pct={crop_pct} must lie in (0, 1].")
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            raise ValueError(f"image_size={image_size} must be a positive number of pixels or [height, width].")

    @property
    def size(self) -> dict[str, int]:
        """Height and width of `pixel_values`, as transformers writes them."""
        return {"height": self.image_size[0], "width": self.image_size[1]}

    @classmethod
    def from_backbone(cls, backbone: str, image_size: int | list[int] | None = None, **options: Any) -> Any:
        """
        The processor that timm's evaluation of this backbone uses.

        Args:
            backbone (`str`): a timm architecture, with or without pretrained tag.
            image_size (`int` or `list[int]`, *optional*): another size than the backbone's own.
            options: any argument of the class, to override timm's.
        """
        cfg = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
        data = resolve_data_config(pretrained_cfg=cfg.to_dict() if cfg is not None else {}, verbose=False)
        values = {
            "image_size": list(data["input_size"][1:]) if image_size is None else image_size,
            "image_mean": list(data["mean"]),
            "image_std": list(data["std"]),
            "interpolation": data["interpolation"],
            "crop_pct": data["crop_pct"],
            "crop_mode": data["crop_mode"],
        }
        return cls(**{**values, **options})

    def to_dict(self) -> dict[str, Any]:
        """
        Without the class's name: `AutoImageProcessor` then finds it in the `auto_map` of the model's config.json.

        Named in the processor's own file, transformers' image pipelines go on to look for a video processor of that
        name and ask the user, at a prompt, whether to run code for it.
        """
        values = super().to_dict()
        values.pop("image_processor_type", None)
        values.pop("auto_map", None)
        return values

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """As in transformers, with the code: the folder loads where this project is not installed."""
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        custom_object_save(self, save_directory)
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def transform(self) -> Any:
        """timm's evaluation transform, from a PIL image to a normalised (3, H, W) tensor."""
        return create_transform(
            input_size=(3, *self.image_size),
            is_training=False,
            interpolation=self.interpolation,
            mean=tuple(self.image_mean),
            std=tuple(self.image_std),
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
        )

    def preprocess(self, images: Any, return_tensors: str | None = None, **kwargs: Any) -> BatchFeature:
        """
        Args:
            images: one image or a list: PIL, path, (H, W), (H, W, C) or (C, H, W) array or tensor (uint8, or float
                in [0, 1]).
            return_tensors (`str`, *optional*): `"pt"` for one (B, 3, H, W) tensor.

        Raises:
            ValueError: if something is no image.
        """
        several = isinstance(images, (list, tuple)) or (isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4)
        batch = list(images) if several else [images]
        transform = self.transform()
        pixels = [transform(to_rgb(_as_pil(image))) for image in batch]
        data = torch.stack(pixels) if return_tensors is not None and pixels else pixels
        return BatchFeature(data={"pixel_values": data}, tensor_type=return_tensors)

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        return self.preprocess(images, *args, **kwargs)


def _as_pil(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, (str, Path)):
        try:
            opened = Image.open(image)
            opened.load()
        except OSError as error:
            raise ValueError(f"{image} cannot be read as an image: {error}") from error
        return opened
    if isinstance(image, Tensor):
        image = image.detach().cpu().numpy()
    if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
        raise ValueError(f"Expected an image (PIL, path, array or tensor), got {type(image).__name__}.")
    if image.ndim == 3 and image.shape[0] in (1, 3, 4) and image.shape[2] not in (1, 3, 4):
        image = image.transpose(1, 2, 0)
    if np.issubdtype(image.dtype, np.floating):
        if image.size and (image.min() < 0 or image.max() > 1 or not np.isfinite(image).all()):
            raise ValueError("An image of floating-point numbers must have values in [0, 1].")
        image = np.round(image * 255).astype(np.uint8)
    return Image.fromarray(image.squeeze(-1) if image.ndim == 3 and image.shape[2] == 1 else image)
