"""Augmentation by name: from a Pillow image to the normalised tensor the network is trained on.

All randomness comes from the global generators of Python, NumPy and torch, which `transformers.set_seed` and the
Trainer seed, and every data-loader worker from its own number: one seed gives one sequence, each worker another.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.transforms import ResizeKeepRatio
from torch import Tensor
from torchvision import transforms

from antehoc_hf.modeling.image_geometry import ImageGeometry
from antehoc_hf.training.data.errors import DataError

Transform = Callable[[list[Image.Image]], Tensor]

AUGMENTATIONS = {
    "none": "the evaluation transform: no augmentation",
    "flip": "the evaluation transform, mirrored half of the time",
    "crop-flip": "resized to cover the input, padded by an eighth on every side, cropped at random, mirrored "
    "(for small images, and where objects should stay whole)",
    "resized-crop-flip": "a random part of 8 to 100 % of the area at a random aspect ratio, mirrored "
    "(usual for ImageNet)",
    "strong": "a random part of 35 to 100 %, mirrored, RandAugment (9 of 10, two operations), random erasing "
    "of a quarter of the images",
}
_PADDING = 8  # CIFAR's usual 4 pixels of 32
_LONGEST = 16  # times the other side, in shares of the input's sides, before an image is resized to be cropped
# timm's usual policy, but never above 9: at 10 it posterises to 0 bits, which Pillow 13 refuses.
_RAND_AUGMENT = "rand-m9-mstd0.5-mmax9-inc1"


class ImageProcessor(Protocol):
    """What is asked of an image processor; `AnteHocImageProcessor` is one."""

    @property
    def image_size(self) -> Sequence[int]: ...
    @property
    def image_mean(self) -> Sequence[float]: ...
    @property
    def image_std(self) -> Sequence[float]: ...
    @property
    def interpolation(self) -> str: ...
    def __call__(self, images: Any, *, return_tensors: str) -> Any: ...
    def geometry(self, height: int, width: int) -> ImageGeometry: ...


def evaluation_transform(processor: ImageProcessor) -> Transform:
    """The image processor itself: a list of B images → (B, 3, H, W) float32, normalised."""
    return _Evaluation(processor)


def train_transform(processor: ImageProcessor, augmentation: str = "crop-flip") -> Transform:
    """A named augmentation: a list of B images → (B, 3, H, W) float32, normalised as by the processor.

    Args:
        processor: gives size, mean, standard deviation and interpolation.
        augmentation: a key of `AUGMENTATIONS`. The random crops are timm's and torchvision's, RandAugment (Cubuk et
            al. 2020, arXiv:1909.13719) and random erasing (Zhong et al. 2020, arXiv:1708.04896) timm's.

    Raises:
        DataError: the name is unknown; the sentence lists those there are.
    """
    if augmentation not in AUGMENTATIONS:
        raise DataError(f"augmentation={augmentation!r} is unknown: use one of {', '.join(AUGMENTATIONS)}.")
    if augmentation == "none":
        return evaluation_transform(processor)
    if augmentation == "flip":
        return _Evaluation(processor, transforms.RandomHorizontalFlip())
    if augmentation == "crop-flip":
        return _PerImage(_crop_flip(processor))
    if augmentation == "resized-crop-flip":
        return _PerImage(_timm(processor, scale=(0.08, 1.0)))
    return _PerImage(_timm(processor, scale=(0.35, 1.0), auto_augment=_RAND_AUGMENT, re_prob=0.25, re_mode="pixel"))


class NormalisedTensor:
    """An RGB image of uint8 → (3, H, W) float32, (pixel / 255 - mean) / std; a few times as fast as torchvision's
    three steps, which matters for small images.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = 255 * torch.tensor(mean, dtype=torch.float32).view(3, 1, 1)
        self.std = 255 * torch.tensor(std, dtype=torch.float32).view(3, 1, 1)

    def __call__(self, image: Image.Image) -> Tensor:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return pixels.to(torch.float32, memory_format=torch.contiguous_format).sub_(self.mean).div_(self.std)


class _RandomPart:
    """Of an image so thin that a crop shows next to nothing of it, a random part, which is resized in its stead."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width

    def __call__(self, image: Image.Image) -> Image.Image:
        tall, wide = image.height / self.height, image.width / self.width
        height = min(image.height, max(1, round(_LONGEST * wide * self.height)))
        width = min(image.width, max(1, round(_LONGEST * tall * self.width)))
        if (height, width) == (image.height, image.width):
            return image
        top, left = random.randint(0, image.height - height), random.randint(0, image.width - width)
        return image.crop((left, top, left + width, top + height))


class _Evaluation:
    def __init__(self, processor: ImageProcessor, before: Callable[[Image.Image], Image.Image] | None = None) -> None:
        self.processor = processor
        self.before = before

    def __call__(self, images: list[Image.Image]) -> Tensor:
        if self.before is not None:
            images = [self.before(image) for image in images]
        return self.processor(images, return_tensors="pt")["pixel_values"]


class _PerImage:
    def __init__(self, transform: Callable[[Image.Image], Tensor]) -> None:
        self.transform = transform

    def __call__(self, images: list[Image.Image]) -> Tensor:
        return torch.stack([self.transform(image) for image in images])


def _crop_flip(processor: ImageProcessor) -> transforms.Compose:
    height, width = processor.image_size
    return transforms.Compose(
        [
            _RandomPart(height, width),
            ResizeKeepRatio((height, width), interpolation=processor.interpolation),
            transforms.RandomCrop((height, width), padding=(width // _PADDING, height // _PADDING)),
            transforms.RandomHorizontalFlip(),
            NormalisedTensor(processor.image_mean, processor.image_std),
        ]
    )


def _timm(processor: ImageProcessor, **options: Any) -> Callable[[Image.Image], Tensor]:
    height, width = processor.image_size
    return create_transform(
        input_size=(3, height, width),
        is_training=True,
        color_jitter=0.0,
        interpolation=processor.interpolation,
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
        **options,
    )
