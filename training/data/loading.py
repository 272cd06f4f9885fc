"""From the name of a data set to splits that are found and checked."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import datasets

from antehoc_hf.training.data.columns import find_image_column, find_label_column, same_kind
from antehoc_hf.training.data.contained import check_images_inside
from antehoc_hf.training.data.errors import DataError
from antehoc_hf.training.data.folders import quoted
from antehoc_hf.training.data.image_data import ImageData
from antehoc_hf.training.data.images import find_unreadable
from antehoc_hf.training.data.labels import LabelSpace, Unlabelled, read_label_space, with_class_names
from antehoc_hf.training.data.sources import Source, load_source
from antehoc_hf.training.data.splits import Split, find_splits, hold_out, take
from antehoc_hf.training.data.targets import ReadTargets, T, TargetSpace

logger = logging.getLogger(__name__)

_NAMED_ROWS = 5
_NAMED_CLASSES = 20


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
    on_missing_label: Literal["stop", "skip"] = "stop",
    options: Mapping[str, object] | None = None,
    report: Callable[[str], None] = logger.info,
) -> ImageData[T]:
    """Loads a data set of images for any task; image column and splits are found by themselves.

    Args:
        name_or_path: a name on the Hub, a folder (class folders, images with metadata, tables, saved to disk), a
            table, a ZIP archive, "shapes", or a data set already loaded; see
            [`antehoc_hf.training.data.sources.load_source`].
        read_targets: (first split, image column, name of the data set) → what the task learns from.
        config: configuration of the data set.
        revision: branch, tag or commit on the Hub.
        image_column: where it isn't found by itself.
        train_split: where it hasn't a usual name; in a folder the split's own folder, "." for all of it.
        validation_split: likewise.
        test_split: likewise.
        validation_fraction: part of the training images held out, by class where there are classes, if the data set
            has no validation split; 0 for none. Test images are never used.
        max_train_samples: a random subset of the training images, the same for the same seed.
        max_eval_samples: likewise of validation and of test.
        seed: of the held-out images and the subsets; independent of the Trainer's.
        on_bad_image: "stop": an image that can't be read ends the run when it is reached. "skip": all images used
            are read once beforehand, and those that can't be read are left out, counted and named.
        on_missing_label: "stop": a row without label, points or caption is an error. "skip": such rows are left out
            and counted. A validation or test split of nothing else is always left out.
        options: those of [`antehoc_hf.training.data.sources.load_source`].
        report: is given what was found (splits, classes, images, what was not read) before anything is checked.

    Raises:
        DataError: one sentence about what is wrong with the data set or an argument.
    """
    for name, choice in (("on_bad_image", on_bad_image), ("on_missing_label", on_missing_label)):
        if choice not in ("stop", "skip"):
            raise DataError(f"{name}={choice!r} is unknown: use 'stop' or 'skip'.")
    given = {"train": train_split, "validation": validation_split, "test": test_split}
    named = {role: name for role, name in given.items() if name is not None}
    source = load_source(name_or_path, config=config, revision=revision, named=named, options=options)
    splits = find_splits(source, named)
    report(_found(source, splits))
    splits = with_class_names(splits)
    first = next(iter(splits.values())).dataset
    image_column = find_image_column(first.features, image_column, source=source.name)
    for split in splits.values():
        if source.root is not None and image_column in split.dataset.features:
            check_images_inside(split.dataset, image_column, source.root, source.name)
    targets = read_targets(first, image_column, source.name)
    if isinstance(targets, Unlabelled):
        count, classes = len(targets.names), quoted(targets.names, _NAMED_CLASSES)
        report(f"  no labels; the network's {count} classes: {classes}" if count else "  no labels")
    elif isinstance(targets, LabelSpace):
        noun = "values" if targets.problem_type == "regression" else "classes"
        named_classes = quoted(targets.names, _NAMED_CLASSES)
        report(f"  {len(targets.names)} {noun}, from column {targets.column!r}: {named_classes}")
        for one, other in _alike(targets.names):
            report(f"  classes {one!r} and {other!r} differ in case or spaces only: are they one?")
    splits = _checked(splits, image_column, targets, source, skip_unlabelled=on_missing_label == "skip")
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


def _found(source: Source, splits: Mapping[str, Split]) -> str:
    """What there is and what was left out, in a few lines."""
    counts = [
        f"{len(split)} {role} images" + (f" ({split.name!r})" if split.name != role else "")
        for role, split in splits.items()
    ]
    lines = [f"Found in {source.name}: {', '.join(counts)}."]
    used = {split.name for split in splits.values()}
    unused = [f"{name!r} ({len(dataset)} images)" for name, dataset in source.splits.items() if name not in used]
    lines += [f"  not used: {', '.join(unused)}"] if unused else []
    return "\n".join([*lines, *(f"  {note}" for note in source.notes)])


def _alike(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of names that are the same but for case and spaces."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault("".join(name.split()).casefold(), []).append(name)
    return [(first, other) for first, *others in alike.values() for other in others]


def _checked(
    splits: dict[str, Split], image_column: str, targets: TargetSpace, source: Source, skip_unlabelled: bool
) -> dict[str, Split]:
    """Every split has the columns, of one type, and nothing wrong in them; one that hides its truth is left out."""
    first = next(iter(splits.values())).dataset.features
    kept = {}
    for role, split in splits.items():
        features = split.dataset.features
        optional = role != "train" and "train" in splits
        missing = next((column for column in (image_column, *targets.columns) if column not in features), None)
        if missing == image_column or (missing is not None and not optional):
            raise DataError(
                f"Split {split.name!r} of {source.name} has no column {missing!r} (columns: {', '.join(features)})."
            )
        if missing is not None:
            logger.warning("Split %r of %s has no column %r and is left out.", split.name, source.name, missing)
            continue
        for column in targets.columns:
            if not same_kind(first[column], features[column]):
                raise DataError(
                    f"Split {split.name!r} of {source.name} has another type in column {column!r} than the first: "
                    "make them alike."
                )
        unlabelled = targets.unlabelled(split.dataset)
        if optional and len(unlabelled) == len(split):
            logger.warning("Split %r of %s has no labels and is left out.", split.name, source.name)
            continue
        if unlabelled and skip_unlabelled:
            columns = " or ".join(map(repr, targets.columns))
            logger.warning(
                "%d of %d %s images have nothing in %s and are left out.", len(unlabelled), len(split), role, columns
            )
            split, unlabelled = split.without(unlabelled), []
        try:
            targets.check(split.dataset, split.name)
        except DataError as error:
            hint = f"; --on_missing_label skip leaves out the rows that have none ({len(unlabelled)})."
            raise type(error)(str(error).rstrip(".") + hint if unlabelled else str(error)) from None
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
            more = f" and {len(bad) - _NAMED_ROWS} more" if len(bad) > _NAMED_ROWS else ""
            logger.warning(
                "%d of %d %s images can't be read and are left out: %s%s.",
                len(bad), len(split), role, "; ".join(named[:_NAMED_ROWS]), more,
            )  # fmt: skip
        splits[role] = split.without(list(bad))
        skipped += named
    return replace(data, splits=splits, skipped=skipped)
