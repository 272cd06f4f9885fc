"""Key points as what a model learns: a group of a data set's points, in units of the network's input."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from antehoc_hf.evaluation.landmarks import hulls_mask, normalizers
from antehoc_hf.modeling.image_geometry import ImageGeometry
from antehoc_hf.training.data.augmentation import ImageProcessor
from antehoc_hf.training.data.columns import column_values
from antehoc_hf.training.data.errors import DataError
from antehoc_hf.training.data.images import image_size, raw_images
from antehoc_hf.training.data.keypoints import KeypointFormat, Points
from antehoc_hf.training.data.landmark_augmentation import RandomAffine, check_augmentation, mirrored
from antehoc_hf.training.data.landmark_groups import LandmarkScheme, flip_within, parts_within
from antehoc_hf.training.data.targets import Encode

_BATCH = 256
# Points may lie outside the image, where a face is cut off, but not by more than its size.
_MARGIN = 1.0


@dataclass(frozen=True)
class LandmarkTargets:
    """The points of a data set that a model finds.

    Attributes:
        format: how the data set stores its points.
        image_column: of the images, whose size tells what a coordinate means.
        scheme: what all its points are.
        group: the chosen group, as the user called it.
        points: the chosen points, in ascending order.
        expect_upright: whether a face lying on its side is taken for swapped axes.
    """

    format: KeypointFormat
    image_column: str
    scheme: LandmarkScheme
    group: str
    points: list[int]
    expect_upright: bool = True

    @property
    def columns(self) -> list[str]:
        """Those of the points and of their visibility."""
        return self.format.columns

    @property
    def names(self) -> list[str]:
        """Of the chosen points."""
        return [self.scheme.names[point] for point in self.points]

    @property
    def flip(self) -> list[int] | None:
        """Position of each chosen point's mirror image; None if it is not known or not chosen."""
        return flip_within(self.scheme, self.points)

    @property
    def parts(self) -> dict[str, list[int]]:
        """Convex piece → positions among the chosen points."""
        return parts_within(self.scheme, self.points)

    def check(self, dataset: datasets.Dataset, split: str) -> None:
        """Raises a DataError naming the first row without its points, with an infinite one, or with one wildly
        outside.
        """
        sideways = 0
        rows = self._all_points(dataset, split)
        for points in rows:
            if self.expect_upright and self.scheme.eyes is not None:
                across, along = np.abs(points[self.scheme.eyes[0]] - points[self.scheme.eyes[1]])
                sideways += bool(along > across)
        if sideways > len(rows) / 2:
            raise DataError(
                f"In {sideways} of {len(rows)} rows of split {split!r} the eyes lie above each other, as if y came "
                "before x: say keypoints_order=yx, or xy if the faces really lie on their sides."
            )
        self._check_inside(dataset, split, rows)

    def unlabelled(self, dataset: datasets.Dataset) -> list[int]:
        """The rows without points."""
        return [row for row, value in enumerate(column_values(dataset, self.format.column)) if value is None]

    def strata(self, dataset: datasets.Dataset) -> list[int] | None:
        """None: points have no classes."""
        return None

    def encoder(self, processor: ImageProcessor, augmentation: str | None, part_masks: bool = False) -> Encode:
        """Items are `pixel_values` (3, H, W) and `labels` (K, 2), see `AnteHocForLandmarkDetection`; for evaluation
        also `normalizer` (2, 2), see `antehoc_hf.evaluation.landmarks.normalizers`.

        Args:
            processor: the model's image processor.
            augmentation: a key of `LANDMARK_AUGMENTATIONS`; None: evaluation.
            part_masks: also give `part_masks` (P, H, W) bool, the hulls of the scheme's parts.

        Raises:
            DataError: if there is no such augmentation, or it mirrors points whose mirror images are not known.
        """
        if augmentation is not None:
            check_augmentation(augmentation, self.flip, self.group)
        return _Encoder(self, processor, augmentation, part_masks)

    def mean_points(self, dataset: datasets.Dataset, processor: ImageProcessor, most: int = 2000) -> Tensor:
        """The mean of the chosen points over at most `most` images, (K, 2) in units of the input; 0.5 for a point that
        is missing in all of them. Only the heads of the image files are read.
        """
        count = min(most, len(dataset))
        rows = raw_images(dataset.select_columns([self.image_column, *self.columns]), self.image_column)
        placed = []
        for position in np.linspace(0, len(dataset) - 1, count).astype(int).tolist():
            values = rows[position]
            size = image_size(values[self.image_column])
            if size is not None:
                placed.append(processor.geometry(*size).to_input(self.pixels(values, *size))[self.points])
        mean = torch.stack(placed).nanmean(dim=0) if placed else torch.full((len(self.points), 2), torch.nan)
        return torch.nan_to_num(mean, nan=0.5)

    def pixels(self, values: Mapping[str, Any], height: int, width: int) -> Tensor:
        """All points of one image, (K, 2) float64 in its pixels; whole numbers are centres of pixels."""
        visible = values[self.format.visible_column] if self.format.visible_column is not None else None
        points = torch.from_numpy(self.format.read(values[self.format.column], visible))
        if self.format.normalized:
            points = points * torch.tensor([width, height], dtype=torch.float64) - 0.5
        return points

    def _all_points(self, dataset: datasets.Dataset, split: str) -> list[Points]:
        values = column_values(dataset, self.format.column)
        flags = self.format.visible_column
        visible = column_values(dataset, flags) if flags is not None else [None] * len(values)
        rows = []
        for row, (value, seen) in enumerate(zip(values, visible, strict=True)):
            try:
                rows.append(self.format.read(value, seen))
            except DataError as error:
                raise DataError(
                    f"Row {row} of split {split!r}, column {self.format.column!r}: {error}: correct or remove it."
                ) from None
        return rows

    def _check_inside(self, dataset: datasets.Dataset, split: str, rows: Sequence[Points]) -> None:
        """By the heads of the image files; one that can't be read is reported elsewhere."""
        images = raw_images(dataset.select_columns([self.image_column]), self.image_column)
        for start in range(0, len(rows), _BATCH):
            for offset, value in enumerate(images[start : start + _BATCH][self.image_column]):
                row, size = start + offset, image_size(value)
                if size is None:
                    continue
                sides = np.array([1.0, 1.0]) if self.format.normalized else np.array([size[1], size[0]])
                relative = rows[row] / sides
                outside = (relative < -_MARGIN) | (relative > 1 + _MARGIN)
                if outside.any():
                    point = int(outside.any(axis=1).argmax())
                    x, y = rows[row][point]
                    raise DataError(
                        f"Row {row} of split {split!r}: point {point} at ({x:.4g}, {y:.4g}) lies far outside its "
                        f"image of {size[1]}×{size[0]} pixels: correct it, or say keypoints_unit or keypoints_order."
                    )


class _Encoder:
    """Pickled for the data loader's workers."""

    def __init__(
        self, targets: LandmarkTargets, processor: ImageProcessor, augmentation: str | None, part_masks: bool
    ) -> None:
        self.targets = targets
        self.processor = processor
        self.augmentation = augmentation
        self.part_masks = part_masks
        self.flip = targets.flip
        self.affine = None
        if augmentation in ("affine", "affine-flip"):
            mean, std, flip = processor.image_mean, processor.image_std, self.flip
            self.affine = RandomAffine(mean, std, processor.interpolation, flip if "flip" in augmentation else None)

    def __call__(self, images: list[Image.Image], rows: Mapping[str, Sequence[object]]) -> list[dict[str, Tensor]]:
        columns = self.targets.columns
        values = [dict(zip(columns, row, strict=True)) for row in zip(*(rows[c] for c in columns), strict=True)]
        return [self._item(image, value) for image, value in zip(images, values, strict=True)]

    def _item(self, image: Image.Image, values: Mapping[str, Any]) -> dict[str, Tensor]:
        geometry: ImageGeometry = self.processor.geometry(image.height, image.width)
        points = self.targets.pixels(values, image.height, image.width)
        placed = geometry.to_input(points)
        labels = placed[self.targets.points]
        if self.affine is not None:
            pixel_values, labels = self.affine(image, labels, geometry)
            return {"pixel_values": pixel_values, "labels": labels.float()}
        pixel_values = self.processor(image, return_tensors="pt")["pixel_values"][0]
        if self.augmentation == "flip" and self.flip is not None and torch.rand(()) < 0.5:
            pixel_values, labels = pixel_values.flip(-1), mirrored(labels, self.flip)
        item = {"pixel_values": pixel_values, "labels": labels.float()}
        if self.augmentation is None:
            unit = (geometry.crop[1] / geometry.scale[0], geometry.crop[0] / geometry.scale[1])
            item["normalizer"] = normalizers(points, unit, self.targets.scheme.eyes).float()
        if self.part_masks:
            item["part_masks"] = self._masks(placed, geometry)
        return item

    def _masks(self, placed: Tensor, geometry: ImageGeometry) -> Tensor:
        """(P, H, W) bool."""
        height, width = geometry.crop
        masks = [
            hulls_mask([placed[list(piece)] for piece in pieces.values()], height, width)
            for pieces in self.targets.scheme.parts.values()
        ]
        return torch.stack(masks) if masks else torch.zeros(0, height, width, dtype=torch.bool)
