"""What a task learns from: the columns other than the image, checked once and made into tensors."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import datasets
from PIL import Image
from torch import Tensor

from antehoc_hf.training.data.augmentation import ImageProcessor

Encode = Callable[[list[Image.Image], Mapping[str, Sequence[object]]], list[dict[str, Tensor]]]
"""B upright RGB images and the target columns' B values each → B items as the data loader collates them. It can be
pickled, for the data loader's workers."""


class TargetSpace(Protocol):
    """What a data set says about each image, as one task reads it; made from the split that defines it."""

    @property
    def columns(self) -> list[str]:
        """The columns that are read, other than the image's."""
        ...

    def check(self, dataset: datasets.Dataset, split: str) -> None:
        """Reads every value of a split once, so that a wrong one is found before training and not in its middle.

        Raises:
            DataError: naming the row, the split and what is wrong with it.
        """
        ...

    def unlabelled(self, dataset: datasets.Dataset) -> list[int]:
        """The rows without truth; all of them where a split keeps it to itself, as test splits of competitions do."""
        ...

    def strata(self, dataset: datasets.Dataset) -> list[int] | None:
        """A class for each row, by which a held-out part is drawn evenly; None if there are none."""
        ...

    def encoder(self, processor: ImageProcessor, augmentation: str | None) -> Encode:
        """From images and values to items.

        Args:
            processor: the model's image processor.
            augmentation: of training images, by name; None: evaluation, as the processor has it.

        Raises:
            DataError: if there is no augmentation of that name.
        """
        ...


T = TypeVar("T", bound=TargetSpace, covariant=True)

ReadTargets = Callable[[datasets.Dataset, str, str], T]
"""The split that defines them, its image column and the data set's name → targets."""
