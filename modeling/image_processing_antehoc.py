"""The image processor: the pixels of timm's evaluation transform for the backbone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.data.transforms import str_to_pil_interp
from torch import Tensor
from transformers import BatchFeature
from transformers.dynamic_module_utils import custom_object_save
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ImagesKwargs

from .configuration_antehoc import backbone_defaults
from .image_geometry import ImageGeometry, evaluation_geometry, height_and_width, resized_part
from .image_input import as_pil, to_rgb
from .map_head import is_number

_INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "nearest", "box", "hamming")
_CROP_MODES = ("center", "squash", "border")
_OPTIONS = ("image_size", "image_mean", "image_std", "interpolation", "crop_pct", "crop_mode")

# What every processor does that has these options in transformers, and ours without being asked.
_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
# Of files and calls of transformers, without a meaning here.
_IDLE = ("processor_class", "feature_extractor_type", "image_processor_type", "auto_map", "default_to_square",
         "disable_grouping", "input_data_format")  # fmt: skip


class _Arguments(ImagesKwargs, total=False):
    """What `from_pretrained` may override, as transformers wants to have it declared."""

    image_size: int | list[int]
    interpolation: str
    crop_pct: float
    crop_mode: str


class AnteHocImageProcessor(BaseImageProcessor):
    """Resizes, crops and normalises as timm evaluates the backbone; bit for bit timm's own transform.

    Of images so thin that their resized version would have more than 8 million pixels (and sixteen times those of the
    input), only what the crop keeps is resized; these pixels may differ from timm's by one level of 255.

    Args:
        image_size (`int` or `list[int]`): side, or [height, width], in pixels.
        image_mean, image_std (`list[float]`): normalisation of pixels in [0, 1].
        interpolation (`str`): `"bilinear"`, `"bicubic"`, `"lanczos"`, `"nearest"`, `"box"` or `"hamming"`.
        crop_pct (`float`): the image is resized to size / crop_pct, then cropped; 1 shows the whole (square) image.
        crop_mode (`str`): `"center"`, `"squash"` or `"border"`, as in timm.
        kwargs: the same as transformers calls it: `size`, `resample`, `do_normalize=False`.

    Raises:
        ValueError: if a value makes no sense, or for another option.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012  as transformers declares it
    valid_kwargs = _Arguments

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
        own = (image_size, image_mean, image_std, interpolation, crop_pct, crop_mode)
        values: dict[str, Any] = dict(zip(_OPTIONS, own, strict=True)) | _own_options(kwargs)
        super().__init__()
        self.image_size = height_and_width(values["image_size"])
        self.image_mean = _checked_channels("image_mean", values["image_mean"], (0.485, 0.456, 0.406))
        self.image_std = _checked_channels("image_std", values["image_std"], (0.229, 0.224, 0.225), positive=True)
        self.interpolation = _checked_choice("interpolation", values["interpolation"], _INTERPOLATIONS)
        self.crop_mode = _checked_choice("crop_mode", values["crop_mode"], _CROP_MODES)
        self.crop_pct = crop_pct = values["crop_pct"]
        if not is_number(crop_pct) or not 0 < crop_pct <= 1:
            raise ValueError(f"crop_pct={crop_pct!r} must lie in (0, 1].")

    @property
    def size(self) -> dict[str, int]:
        """Height and width of `pixel_values`, as transformers writes them."""
        return {"height": self.image_size[0], "width": self.image_size[1]}

    @classmethod
    def from_backbone(cls, backbone: str, image_size: int | list[int] | None = None, **options: Any) -> Any:
        """The processor that timm's evaluation of this backbone uses.

        Args:
            backbone (`str`): a timm architecture, with or without pretrained tag.
            image_size (`int` or `list[int]`, *optional*): another size than the backbone's own.
            options: any argument of the class, to override timm's.

        Raises:
            ValueError: if timm does not know the backbone, or a value makes no sense.
        """
        backbone_defaults(backbone)  # for its error
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
        """Without the class's name: `AutoImageProcessor` then finds it in the `auto_map` of the model's config.json.

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

    def transform(self, crop_pct: float | None = None) -> Any:
        """timm's evaluation transform, from a PIL image to a normalised (3, H, W) tensor; for thin images see
        [`preprocess`], which does not resize what is cropped off.
        """
        return create_transform(
            input_size=(3, self.image_size[0], self.image_size[1]),
            is_training=False,
            interpolation=self.interpolation,
            mean=tuple(self.image_mean),
            std=tuple(self.image_std),
            crop_pct=self.crop_pct if crop_pct is None else crop_pct,
            crop_mode=self.crop_mode,
        )

    def geometry(self, height: int, width: int) -> ImageGeometry:
        """Where the points of an image of that size lie in the network's input, and back."""
        size = (self.image_size[0], self.image_size[1])
        return evaluation_geometry(height, width, size, self.crop_pct, self.crop_mode)

    def post_process_keypoint_detection(
        self, outputs: Any, target_sizes: Any = None, names: list[str] | None = None
    ) -> list[dict[str, Any]]:
        """Points in pixels of the images as they were before resizing and cropping.

        Args:
            outputs (`AnteHocLandmarkOutput`): of B images.
            target_sizes (*optional*): (B, 2) heights and widths of the images; None: pixels of the network's input.
            names (`list[str]`, *optional*): of the K points; the model has them as `config.landmark_names`.

        Returns:
            `list[dict]`: for each image `keypoints` (K, 2) float32, x to the right and y down, whole numbers being the
            centres of pixels; and `names`, if they were given.

        Raises:
            ValueError: if there are not as many sizes as images, or names as points.
        """
        landmarks = outputs.landmarks.detach().float().cpu()
        height, width = self.image_size
        sizes = [(height, width)] * len(landmarks) if target_sizes is None else [tuple(size) for size in target_sizes]
        if len(sizes) != len(landmarks):
            raise ValueError(f"target_sizes has {len(sizes)} sizes for {len(landmarks)} images: give one for each.")
        if names is not None and len(names) != landmarks.shape[1]:
            raise ValueError(f"There are {len(names)} names for {landmarks.shape[1]} points.")
        whole = ImageGeometry((height, width), (height, width), (0, 0), (height, width))
        found = []
        for points, (rows, columns) in zip(landmarks, sizes, strict=True):
            geometry = whole if target_sizes is None else self.geometry(int(rows), int(columns))
            found.append({"keypoints": geometry.to_image(points), **({"names": list(names)} if names else {})})
        return found

    def preprocess(self, images: Any, return_tensors: str | None = None, **kwargs: Any) -> BatchFeature:
        """Images as the model takes them.

        Args:
            images: one image or a list: PIL, path, (H, W), (H, W, C) or (C, H, W) array or tensor (integers in 0…255,
                or floating-point numbers in [0, 1]).
            return_tensors (`str`, *optional*): `"pt"` for one (B, 3, H, W) tensor.
            kwargs: options of the class, for this call alone; `device`, where `pixel_values` are to be.

        Raises:
            ValueError: if something is no image, or there is none; for an option that there is not.
        """
        if (device := kwargs.pop("device", None)) is not None:
            return self.preprocess(images, return_tensors, **kwargs).to(device)
        if options := _own_options(kwargs):
            other = type(self)(**{**{name: getattr(self, name) for name in _OPTIONS}, **options})
            return other.preprocess(images, return_tensors)
        # Any sequence, so that a column of a data set is one, too.
        a_sequence = isinstance(images, Sequence) and not isinstance(images, (str, bytes))
        several = a_sequence or (isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4)
        batch = list(images) if several else [images]
        if not batch:
            raise ValueError("Expected at least one image, got an empty list.")
        transform = self.transform()
        pixels = [self._transformed(to_rgb(as_pil(image)), transform) for image in batch]
        data = torch.stack(pixels) if return_tensors is not None else pixels
        return BatchFeature(data={"pixel_values": data}, tensor_type=return_tensors)

    def _transformed(self, image: Image.Image, transform: Any) -> Tensor:
        """(3, H, W), normalised."""
        geometry = self.geometry(image.height, image.width)
        if geometry.wasteful:
            image, _ = resized_part(image, geometry, str_to_pil_interp(self.interpolation))
            transform = self.transform(crop_pct=1.0)  # nothing is left to resize or to crop, but there may be to pad
        pixels: Tensor = transform(image)
        return pixels

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:  # type: ignore[override]
        return self.preprocess(images, *args, **kwargs)


def _own_options(given: dict[str, Any]) -> dict[str, Any]:
    """Options as transformers' processors have them, under the names that they have here.

    Raises:
        ValueError: for one that changes something which this processor cannot change.
    """
    own: dict[str, Any] = {}
    for name, value in given.items():
        if name in _IDLE or value is None or (name in _STEPS and value is True):
            continue
        if name in _OPTIONS:
            own[name] = value
        elif name == "size":
            own["image_size"] = _sides(value)
        elif name == "resample":
            own["interpolation"] = _INTERPOLATION_OF.get(value, value)
        elif name == "do_normalize":
            own |= {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
        elif name in _STEPS:
            raise ValueError(
                f"{name}={value!r} is not possible: this processor always resizes and crops images in RGB and brings "
                "them to [0, 1], where floating-point arrays are already. crop_mode='squash' shows the whole image."
            )
        elif (name, value) not in (("rescale_factor", 1 / 255), ("data_format", "channels_first")):
            raise ValueError(
                f"An AnteHocImageProcessor has no option {name}={value!r}; its options are {', '.join(_OPTIONS)}."
            )
    return own


def _sides(size: Any) -> Any:
    """`image_size` of what transformers calls `size`."""
    if not hasattr(size, "keys"):
        return size
    if set(size.keys()) != {"height", "width"}:
        raise ValueError(f"size={dict(size)!r} must have height and width; image_size and crop_pct say the rest.")
    return [size["height"], size["width"]]


_INTERPOLATION_OF = {number: name.lower() for name, number in Image.Resampling.__members__.items()}


def _checked_channels(name: str, values: Any, default: tuple[float, ...], positive: bool = False) -> list[float]:
    values = default if values is None else values
    fitting = isinstance(values, (list, tuple)) and len(values) == 3 and all(map(is_number, values))
    if not fitting or (positive and min(values) <= 0):
        kind = "positive " if positive else ""
        raise ValueError(f"{name}={values!r} must be three {kind}numbers, one for each of red, green and blue.")
    return list(values)


def _checked_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, choices))}.")
    return value
