"""Data sets for image classification and regression: from a name to batches of `pixel_values` and `labels`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import datasets
import torch
from torch import Tensor

from antehoc_hf.training.augmentation import ImageProcessor, Transform, evaluation_transform, train_transform
from antehoc_hf.training.columns import (
    LabelSpace,
    ProblemType,
    check_labels,
    column_values,
    find_image_column,
    find_label_column,
    read_label_space,
)
from antehoc_hf.training.errors import DataError
from antehoc_hf.training.images import decode_image, find_unreadable, raw_images
from antehoc_hf.training.splits import Source, Split, find_splits, hold_out, load_source, take

logger = logging.getLogger(__name__)

_SHOWN = 5


class ImageDataset(torch.utils.data.Dataset):
    """A split as the Trainer wants it: an item is {"pixel_values": (3, H, W) float32, "labels": tensor}.

    Images are read and transformed when asked for. Whole batches are read at once (`__getitems__`), which the data
    loader makes use of. It is no `datasets.Dataset`, so `remove_unused_columns` leaves it alone.

    Raises (on access):
        BadImageError: naming the row of the original split, and the file where known.
    """

    def __init__(self, split: Split, image_column: str, labels: LabelSpace, transform: Transform) -> None:
        self.split = split
        self.image_column = image_column
        self.labels = labels
        self.transform = transform
        self.raw = raw_images(split.dataset.select_columns([image_column, labels.column]), image_column)

    @property
    def column_names(self) -> list[str]:
        """The columns read: images and labels."""
        return [self.image_column, self.labels.column]

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
        pixels = self.transform(images)
        labels = self.labels.tensor(rows[self.labels.column])
        return [{"pixel_values": x, "labels": y} for x, y in zip(pixels, labels, strict=True)]


class TransformedData(NamedTuple):
    """What the Trainer is given; None for a split that the data set lacks."""

    train: ImageDataset | None
    validation: ImageDataset | None
    test: ImageDataset | None


@dataclass(frozen=True)
class ImageData:
    """A data set of labelled images, found and checked.

    Attributes:
        name: as it was loaded.
        revision: the commit (or else branch or tag) on the Hub; None for local data.
        splits: "train", "validation", "test" → split, without those the data set lacks.
        image_column: the column of the images.
        labels: what the labels are.
        skipped: the images left out, each with row, split, file where known and reason.
        held_out: whether validation is a part of the training split, because there was none.
    """

    name: str
    revision: str | None
    splits: Mapping[str, Split]
    image_column: str
    labels: LabelSpace
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
    def label_column(self) -> str:
        """The column of the labels."""
        return self.labels.column

    @property
    def label_names(self) -> list[str]:
        """The K classes, or the names of the K numbers of a regression."""
        return self.labels.names

    @property
    def problem_type(self) -> ProblemType:
        """As in `transformers.PretrainedConfig.problem_type`."""
        return self.labels.problem_type

    @property
    def fingerprints(self) -> dict[str, str]:
        """Split → the fingerprint of `datasets`, which changes with the data and the choice of rows."""
        return {role: split.dataset._fingerprint for role, split in self.splits.items()}

    def with_transforms(self, processor: ImageProcessor, augmentation: str = "crop-flip") -> TransformedData:
        """The splits as tensors: training images augmented, validation and test images as the processor gives them.

        Args:
            processor: the model's image processor.
            augmentation: a key of `antehoc_hf.training.augmentation.AUGMENTATIONS`.

        Raises:
            DataError: unknown augmentation.
        """
        augmented, plain = train_transform(processor, augmentation), evaluation_transform(processor)

        def transformed(role: str, transform: Transform) -> ImageDataset | None:
            split = self.splits.get(role)
            return None if split is None else ImageDataset(split, self.image_column, self.labels, transform)

        return TransformedData(
            transformed("train", augmented), transformed("validation", plain), transformed("test", plain)
        )

    def _dataset(self, role: str) -> datasets.Dataset | None:
        return self.splits[role].dataset if role in self.splits else None


def load_image_data(
    name_or_path: str | os.PathLike[str] | datasets.Dataset | datasets.DatasetDict,
    *,
    config: str | None = None,
    revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    label_names: Sequence[str] | None = None,
    problem_type: str | None = None,
    train_split: str | None = None,
    validation_split: str | None = None,
    test_split: str | None = None,
    validation_fraction: float = 0.1,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
    seed: int = 0,
    on_bad_image: Literal["stop", "skip"] = "stop",
    options: Mapping[str, Any] | None = None,
) -> ImageData:
    """Loads a data set of labelled images; columns, classes and splits are found by themselves.

    Args:
        name_or_path: a name on the Hub, a folder (data set, class folders, saved to disk), "shapes", or a data set
            already loaded; see `antehoc_hf.training.splits.load_source`.
        config: configuration of the data set.
        revision: branch, tag or commit on the Hub.
        image_column: where it isn't found by itself.
        label_column: likewise.
        label_names: the classes in a given order, e.g. those of a trained model; labels are matched by name.
        problem_type: as in transformers, where the labels could be read otherwise.
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
        DataError: one sentence about what is wrong with the data set or an argument; `LabelError` for a label.
    """
    if on_bad_image not in ("stop", "skip"):
        raise DataError(f"on_bad_image={on_bad_image!r} is unknown: use 'stop' or 'skip'.")
    source = load_source(name_or_path, config=config, revision=revision, options=options)
    splits = find_splits(source, train_split=train_split, validation_split=validation_split, test_split=test_split)
    first = next(iter(splits.values())).dataset
    image_column = find_image_column(first.features, image_column, source=source.name)
    label_column = find_label_column(first.features, image_column, label_column, source=source.name)
    labels = read_label_space(first, label_column, names=label_names, problem_type=problem_type)
    splits = _checked(splits, image_column, labels, source, test_is_named=test_split is not None)
    held_out = "train" in splits and "validation" not in splits and validation_fraction != 0
    if held_out:
        splits = _with_validation(splits, labels, validation_fraction, seed)
    splits = {
        role: take(split, max_train_samples, seed, "max_train_samples")
        if role == "train"
        else take(split, max_eval_samples, seed, "max_eval_samples")
        for role, split in splits.items()
    }
    data = ImageData(source.name, source.revision, splits, image_column, labels, held_out=held_out)
    return _without_bad_images(data) if on_bad_image == "skip" else data


def _checked(
    splits: dict[str, Split], image_column: str, labels: LabelSpace, source: Source, test_is_named: bool
) -> dict[str, Split]:
    """Every split has the columns, the classes and right labels; a test split that hides its labels is left out."""
    first = next(iter(splits.values())).dataset.features[labels.column]
    kept = {}
    for role, split in splits.items():
        for column in (image_column, labels.column):
            if column not in split.dataset.features:
                raise DataError(
                    f"Split {split.name!r} of {source.name} has no column {column!r} "
                    f"(columns: {', '.join(split.dataset.features)})."
                )
        if split.dataset.features[labels.column] != first:
            raise DataError(
                f"Split {split.name!r} of {source.name} has other classes or another type of label than the first: "
                "make them alike."
            )
        if role == "test" and not test_is_named and _hides_labels(split, labels):
            logger.warning("Split %r of %s has no labels and is left out.", split.name, source.name)
            continue
        check_labels(split.dataset, labels, split.name)
        kept[role] = split
    return kept


def _hides_labels(split: Split, labels: LabelSpace) -> bool:
    hidden = (None, -1) if labels.kind == "index" else (None,)
    return all(value in hidden for value in column_values(split.dataset, labels.column))


def _with_validation(splits: dict[str, Split], labels: LabelSpace, fraction: float, seed: int) -> dict[str, Split]:
    train = splits["train"]
    strata = None
    if labels.kind == "index":
        strata = labels.tensor(column_values(train.dataset, labels.column)).tolist()
    remaining, validation = hold_out(train, fraction, seed, strata)
    return {**splits, "train": remaining, "validation": validation}


def _without_bad_images(data: ImageData) -> ImageData:
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
