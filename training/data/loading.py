"""Data sets by name: from a name to batches of `pixel_values` and what a task learns from."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, NamedTuple

import datasets
import numpy as np
import torch
from torch import Tensor

from antehoc_hf.training.data.augmentation import ImageProcessor
from antehoc_hf.training.data.columns import find_image_column, find_label_column
from antehoc_hf.training.data.errors import DataError
from antehoc_hf.training.data.images import decode_image, find_unreadable, raw_images
from antehoc_hf.training.data.labels import LabelSpace, read_label_space
from antehoc_hf.training.data.splits import Source, Split, find_splits, hold_out, load_source, take
from antehoc_hf.training.data.targets import Encode, ReadTargets, T, Targets

logger = logging.getLogger(__name__)

_SHOWN = 5


class ImageDataset(torch.utils.data.Dataset):
    """A split as the Trainer wants it: an item holds `pixel_values` (3, H, W) float32 and the task's own tensors.

    Images are read and transformed when asked for. Whole batches are read at once (`__getitems__`), which the data
    loader makes use of. It is no `datasets.Dataset`, so `remove_unused_columns` leaves it alone.

    Raises (on access):
        BadImageError: naming the row of the original split, and the file where known.
    """

    def __init__(
        self, split: Split, image_column: str, targets: Targets, encode: Encode, augmentation: str | None = None
    ) -> None:
        self.split = split
        self.augmentation = augmentation
        self.image_column = image_column
        self.targets = targets
        self.encode = encode
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
        images = [
            decode_image(value, self.split.where(position))
            for position, value in zip(positions, rows[self.image_column], strict=True)
        ]
        return self.encode(images, rows)


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
            return None if split is None else ImageDataset(split, self.image_column, self.targets, encode, name)

        return TransformedData(encoded("train", augmentation), encoded("validation"), encoded("test"))

    def _dataset(self, role: str) -> datasets.Dataset | None:
        return self.splits[role].dataset if role in self.splits else None


def load_image_data(
    name_or_path: str | os.PathLike[str] | datasets.Dataset | datasets.DatasetDict,
    *,
    label_column: str | None = None,
    label_names: Sequence[str] | None = None,
    problem_type: str | None = None,
    **options: Any,
) -> ImageData[LabelSpace]:
    """Loads a data set of labelled images; columns, classes and splits are found by themselves.

    Args:
        name_or_path: as in [`load_data`].
        label_column: where it isn't found by itself.
        label_names: the classes in a given order, e.g. those of a trained model; labels are matched by name.
        problem_type: as in transformers, where the labels could be read otherwise.
        options: those of [`load_data`].

    Raises:
        DataError: one sentence about what is wrong with the data set or an argument; `LabelError` for a label.
    """

    def read(dataset: datasets.Dataset, image_column: str, source: str) -> LabelSpace:
        column = find_label_column(dataset.features, image_column, label_column, source=source)
        return read_label_space(dataset, column, names=label_names, problem_type=problem_type)

    return load_data(name_or_path, read, **options)


def load_data(
    name_or_path: str | os.PathLike[str] | datasets.Dataset | datasets.DatasetDict,
    read_targets: ReadTargets[T],
    *,
    config: str | None = None,
    revision: str | None = None,
    image_column: str | None = None,
    train_split: str | None = None,
    validation_split: str | None = None,
    test_split: str | None = None,
    validation_fraction: float = 0.1,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
    seed: int = 0,
    on_bad_image: Literal["stop", "skip"] = "stop",
    options: Mapping[str, Any] | None = None,
) -> ImageData[T]:
    """Loads a data set of images for any task; image column and splits are found by themselves.

    Args:
        name_or_path: a name on the Hub, a folder (data set, class folders, saved to disk), "shapes", or a data set
            already loaded; see `antehoc_hf.training.data.splits.load_source`.
        read_targets: (first split, image column, name of the data set) → what the task learns from.
        config: configuration of the data set.
        revision: branch, tag or commit on the Hub.
        image_column: where it isn't found by itself.
        train_split: where it hasn't a usual name.
        validation_split: likewise.
        test_split: likewise.
        validation_fraction: part of the training images held out, by class where there are classes, if the data set
            has no validation split; 0 for none. Test images are never used.
        max_train_samples: a random subset of the training images, the same for the same seed.
        max_eval_samples: likewise of validation and of test.
        seed: of the held-out images and the subsets; independent of the Trainer's.
        on_bad_image: "stop": an image that can't be read ends the run when it is reached. "skip": all images used
            are read once beforehand, and those that can't be read are left out, counted and named.
        options: further arguments of `datasets.load_dataset` or of `load_shapes`.

    Raises:
        DataError: one sentence about what is wrong with the data set or an argument.
    """
    if on_bad_image not in ("stop", "skip"):
        raise DataError(f"on_bad_image={on_bad_image!r} is unknown: use 'stop' or 'skip'.")
    source = load_source(name_or_path, config=config, revision=revision, options=options)
    splits = find_splits(source, train_split=train_split, validation_split=validation_split, test_split=test_split)
    first = next(iter(splits.values())).dataset
    image_column = find_image_column(first.features, image_column, source=source.name)
    targets = read_targets(first, image_column, source.name)
    splits = _checked(splits, image_column, targets, source, test_is_named=test_split is not None)
    held_out = "train" in splits and "validation" not in splits and validation_fraction != 0
    if held_out:
        train = splits["train"]
        remaining, validation = hold_out(train, validation_fraction, seed, targets.strata(train.dataset))
        splits = {**splits, "train": remaining, "validation": validation}
    splits = {
        role: take(split, max_train_samples, seed, "max_train_samples")
        if role == "train"
        else take(split, max_eval_samples, seed, "max_eval_samples")
        for role, split in splits.items()
    }
    data = ImageData(source.name, source.revision, splits, image_column, targets, held_out=held_out)
    return _without_bad_images(data) if on_bad_image == "skip" else data


def _checked(
    splits: dict[str, Split], image_column: str, targets: Targets, source: Source, test_is_named: bool
) -> dict[str, Split]:
    """Every split has the columns, of one type, and nothing wrong in them; a test split that hides its truth goes."""
    first = next(iter(splits.values())).dataset.features
    kept = {}
    for role, split in splits.items():
        for column in (image_column, *targets.columns):
            if column not in split.dataset.features:
                raise DataError(
                    f"Split {split.name!r} of {source.name} has no column {column!r} "
                    f"(columns: {', '.join(split.dataset.features)})."
                )
        for column in targets.columns:
            if split.dataset.features[column] != first[column]:
                raise DataError(
                    f"Split {split.name!r} of {source.name} has other classes or another type in column {column!r} "
                    "than the first: make them alike."
                )
        if role == "test" and not test_is_named and targets.is_hidden(split.dataset):
            logger.warning("Split %r of %s has no labels and is left out.", split.name, source.name)
            continue
        targets.check(split.dataset, split.name)
        kept[role] = split
    return kept


def _without_bad_images(data: ImageData[T]) -> ImageData[T]:
    splits, skipped = {}, []
    for role, split in data.splits.items():
        bad = find_unreadable(split.dataset, data.image_column, f"{role} images")
        named = [f"{split.where(position)}: {reason}" for position, reason in bad.items()]
        if len(bad) == len(split):
            raise DataError(f"None of the {len(split)} {role} images can be read; the first: {named[0]}.")
        if bad:
            more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
            logger.warning(
                "%d of %d %s images can't be read and are left out: %s%s.",
                len(bad), len(split), role, "; ".join(named[:_SHOWN]), more,
            )  # fmt: skip
        splits[role] = split.without(list(bad))
        skipped += named
    return replace(data, splits=splits, skipped=skipped)


def sample(images: ImageDataset, count: int, seed: int = 0) -> list[int]:
    """Positions of at most `count` images, at random but the same for a seed: data are often sorted by class."""
    order = np.random.default_rng(seed).permutation(len(images))
    return [int(position) for position in order[:count]]
