"""A data set of images for the Trainer: its splits, and the tensors made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple

import datasets
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from antehoc_hf.training.data.augmentation import ImageProcessor
from antehoc_hf.training.data.images import decode_image, raw_images
from antehoc_hf.training.data.splits import Split
from antehoc_hf.training.data.targets import Encode, T, TargetSpace


class ImageDataset(torch.utils.data.Dataset):
    """A split as the Trainer wants it: an item holds `pixel_values` (3, H, W) float32 and the task's own tensors.

    Images are read and transformed when asked for. Whole batches are read at once (`__getitems__`), which the data
    loader makes use of. It is not a `datasets.Dataset`, so `remove_unused_columns` leaves it alone.

    Raises (on access):
        BadImageError: naming the row of the original split, and the file where known.
    """

    def __init__(
        self, split: Split, image_column: str, targets: TargetSpace, encode: Encode, augmentation: str | None = None
    ) -> None:
        self.split = split
        self.augmentation = augmentation
        self.image_column = image_column
        self.targets = targets
        self.encode = encode
        self.source_name: str | None = None  # of the data set, as it was loaded
        self.source_revision: str | None = None  # its commit on the Hub
        self.raw = raw_images(split.dataset.select_columns(self.column_names), image_column)

    @property
    def column_names(self) -> list[str]:
        """The columns read: images and what is learned from."""
        return [self.image_column, *self.targets.columns]

    @property
    def info(self) -> datasets.DatasetInfo:
        """What `datasets` knows about the data set."""
        return self.split.dataset.info

    @property
    def fingerprint(self) -> str:
        """Changes with the data and the choice of rows, not with the augmentation."""
        return self.split.dataset._fingerprint

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        if not -len(self) <= position < len(self):
            raise IndexError(f"position {position} of {len(self)} images")
        return self.__getitems__([position % len(self)])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[dict[str, Tensor]]:
        rows = self.raw[list(positions)]
        return self.encode(self._decoded(positions, rows), rows)

    def photos(self, positions: Sequence[int]) -> list[Image.Image]:
        """The images themselves."""
        return self._decoded(positions, self.raw[list(positions)])

    def _decoded(self, positions: Sequence[int], rows: Mapping[str, Sequence[object]]) -> list[Image.Image]:
        return [
            decode_image(value, self.split.where(position))
            for position, value in zip(positions, rows[self.image_column], strict=True)
        ]


class TransformedData(NamedTuple):
    """What the Trainer is given; None for a split that the data set lacks."""

    train: ImageDataset | None
    validation: ImageDataset | None
    test: ImageDataset | None


@dataclass(frozen=True)
class ImageData(Generic[T]):
    """A data set of images and what a task learns from, found and checked.

    Attributes:
        name: as it was loaded.
        revision: the commit (or else branch or tag) on the Hub; None for local data.
        splits: "train", "validation", "test" → split, without those the data set lacks.
        image_column: the column of the images.
        targets: what is learned; for classification the labels, a `LabelSpace`.
        skipped: the images left out, each with row, split, file where known and reason.
        held_out: whether validation is a part of the training split, because there was none.
    """

    name: str
    revision: str | None
    splits: Mapping[str, Split]
    image_column: str
    targets: T
    skipped: list[str] = field(default_factory=list)
    held_out: bool = False

    @property
    def train(self) -> datasets.Dataset | None:
        """The training images as `datasets` has them."""
        return self._dataset("train")

    @property
    def validation(self) -> datasets.Dataset | None:
        """The validation images as `datasets` has them."""
        return self._dataset("validation")

    @property
    def test(self) -> datasets.Dataset | None:
        """The test images as `datasets` has them."""
        return self._dataset("test")

    @property
    def fingerprints(self) -> dict[str, str]:
        """Split → the fingerprint of `datasets`, which changes with the data and the choice of rows."""
        return {role: split.dataset._fingerprint for role, split in self.splits.items()}

    def with_transforms(self, processor: ImageProcessor, augmentation: str = "crop-flip") -> TransformedData:
        """The splits as tensors: training images augmented, validation and test images as the processor gives them.

        Args:
            processor: the model's image processor.
            augmentation: by name; for classification a key of `antehoc_hf.training.data.augmentation.AUGMENTATIONS`.

        Raises:
            DataError: unknown augmentation.
        """

        def encoded(role: str, name: str | None = None) -> ImageDataset | None:
            split, encode = self.splits.get(role), self.targets.encoder(processor, name)
            if split is None:
                return None
            made = ImageDataset(split, self.image_column, self.targets, encode, name)
            made.source_name, made.source_revision = self.name, self.revision
            return made

        return TransformedData(encoded("train", augmentation), encoded("validation"), encoded("test"))

    def _dataset(self, role: str) -> datasets.Dataset | None:
        return self.splits[role].dataset if role in self.splits else None


def sample(images: ImageDataset, count: int, seed: int = 0) -> list[int]:
    """Positions of at most `count` images, at random but the same for a seed: data are often sorted by class."""
    order = np.random.default_rng(seed).permutation(len(images))
    return [int(position) for position in order[:count]]
