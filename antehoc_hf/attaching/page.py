"""A page of pictures: held-out images, and what each method says the network looked at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from antehoc_hf.visualization.images import COLORMAP, denormalise, overlay
from antehoc_hf.visualization.layout import Picture
from antehoc_hf.visualization.panel import Caption, captioned


def save_page(
    path: Path,
    pixel_values: Tensor,
    maps: Mapping[str, Tensor],
    captions: Sequence[str],
    config: Any,
    without_evidence: Sequence[bool],
) -> None:
    """A row for each image: the image, then its overlay with the map of each method.

    Args:
        path (`Path`): of the picture.
        pixel_values (`Tensor`): (B, 3, H, W), normalised.
        maps (`dict`): method → (B, 1, H, W) in [0, 1].
        captions: what is predicted, one for each image.
        config: of the model, for mean and standard deviation.
        without_evidence: images for which the first method found nothing.
    """
    images = denormalise(pixel_values, config.image_mean, config.image_std)
    rows: list[dict[str, Picture]] = [
        {"image": image, **{name: overlay(image, of_method[row]) for name, of_method in maps.items()}}
        for row, image in enumerate(images)
    ]
    for pictures, nothing in zip(rows, without_evidence, strict=True):
        if nothing:
            pictures[next(iter(maps))] = None
    captioned(rows, [Caption(caption) for caption in captions], None, 1, COLORMAP)[0].savefig(path)
