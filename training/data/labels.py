"""What the labels of a classification or regression are, and how one becomes numbers."""

import logging
import math
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import datasets
import torch
from PIL import Image

from antehoc_hf.training.data.augmentation import ImageProcessor, Transform, evaluation_transform, train_transform
from antehoc_hf.training.data.columns import class_label, column_values, may_hold_labels, type_name
from antehoc_hf.training.data.errors import DataError, LabelError
from antehoc_hf.training.data.splits import Split
from antehoc_hf.training.data.targets import Encode

logger = logging.getLogger(__name__)

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
_WHOLE = re.compile(r"\s*[+-]?\d+(\.0*)?\s*")
_LARGEST_WHOLE = 2**53  # beyond it, floating-point numbers leave whole ones out
Kind = Literal["index", "indices", "multi-hot", "number", "vector"]
PROBLEM_TYPES: tuple[ProblemType, ...] = ("single_label_classification", "multi_label_classification", "regression")

# In place of a position: a name of several classes, as ImageNet's "crane" is one of a bird and of a machine.
_SHARED = -1


@dataclass(frozen=True)
class LabelSpace:
    """What the labels of a data set are and how one becomes numbers.

    `kind` is how they are stored: "index" (one class: integer, string or `ClassLabel`), "indices" (a list of
    classes), "multi-hot" (one 0 or 1 a class), "number" and "vector" (regression).
    """

    column: str
    names: list[str]
    problem_type: ProblemType
    kind: Kind
    lookup: Mapping[Hashable, int] = field(default_factory=dict, repr=False)

    def encode(self, value: object) -> int | float | list[float]:
        """One label as an index, a multi-hot list of length K, a number or a list of K numbers.

        Raises:
            LabelError: the label is missing, outside the classes, of the wrong length or not finite.
        """
        if value is None:
            raise LabelError("there is no label")
        if self.kind == "index":
            return self._index(value)
        if self.kind == "number":
            return _finite(value)
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise LabelError(f"{value!r} is not a list")
        if self.kind == "indices":
            chosen = {self._index(item) for item in value}
            return [float(index in chosen) for index in range(len(self.names))]
        if len(value) != len(self.names):
            raise LabelError(f"{len(value)} values where there are {len(self.names)}")
        numbers = [_finite(item) for item in value]
        if self.kind == "multi-hot" and not set(numbers) <= {0.0, 1.0}:
            raise LabelError(f"{value!r} holds other values than 0 and 1")
        return numbers

    def tensor(self, values: Sequence[object]) -> torch.Tensor:
        """A batch of labels: (B,) int64 for one class each, (B, K) float32 multi-hot or regression, (B,) float32
        for regression on one number.
        """
        dtype = torch.int64 if self.kind == "index" else torch.float32
        return torch.tensor([self.encode(value) for value in values], dtype=dtype)

    @property
    def columns(self) -> list[str]:
        """The label column."""
        return [self.column]

    def check(self, dataset: datasets.Dataset, split: str) -> None:
        """Reads every label of a whole split once.

        Raises:
            LabelError: naming the row, the split and the value.
        """
        check_labels(dataset, self, split)

    def unlabelled(self, dataset: datasets.Dataset) -> list[int]:
        """The rows without a label, or with -1 for a class."""
        none = (None, -1) if self.kind == "index" and -1 not in self.lookup else (None,)
        return [row for row, value in enumerate(column_values(dataset, self.column)) if value in none]

    def strata(self, dataset: datasets.Dataset) -> list[int] | None:
        """The classes, where each image has one."""
        return self.tensor(column_values(dataset, self.column)).tolist() if self.kind == "index" else None

    def encoder(self, processor: ImageProcessor, augmentation: str | None) -> Encode:
        """Items are {"pixel_values": (3, H, W) float32, "labels": tensor}."""
        return _Encoder(self, _transform(processor, augmentation))

    def _index(self, value: object) -> int:
        if isinstance(value, Hashable) and value in self.lookup:
            if self.lookup[value] == _SHARED:
                raise LabelError(f"label {value!r} is a name that several classes have: number the labels instead")
            return self.lookup[value]
        alike = next((name for name in self.names if name.lower().strip() == str(value).lower().strip()), None)
        raise LabelError(
            f"label {value!r} is not one of the {len(self.names)} classes ({_shortened(self.names)})"
            + (f", though {alike!r} is" if alike is not None else "")
        )


class Unlabelled(LabelSpace):
    """Images without labels, for a finished network that is explained and not trained; names and kind are its own."""

    @property
    def columns(self) -> list[str]:
        """None."""
        return []

    def check(self, dataset: datasets.Dataset, split: str) -> None:
        """Nothing can be wrong."""

    def unlabelled(self, dataset: datasets.Dataset) -> list[int]:
        """None: nothing is missed."""
        return []

    def strata(self, dataset: datasets.Dataset) -> None:
        """None: the classes are not known."""

    def encoder(self, processor: ImageProcessor, augmentation: str | None) -> Encode:
        """Items are {"pixel_values": (3, H, W) float32}."""
        return partial(_pixels, _transform(processor, augmentation))


def _transform(processor: ImageProcessor, augmentation: str | None) -> Transform:
    return train_transform(processor, augmentation) if augmentation else evaluation_transform(processor)


def _pixels(transform: Transform, images: list[Image.Image], values: object) -> list[dict[str, torch.Tensor]]:
    return [{"pixel_values": pixels} for pixels in transform(images)]


@dataclass(frozen=True)
class _Encoder:
    """A class, so that data-loader workers can be sent it."""

    labels: LabelSpace
    transform: Transform

    def __call__(
        self, images: list[Image.Image], values: Mapping[str, Sequence[object]]
    ) -> list[dict[str, torch.Tensor]]:
        pixels, labels = self.transform(images), self.labels.tensor(values[self.labels.column])
        return [{"pixel_values": x, "labels": y} for x, y in zip(pixels, labels, strict=True)]


def read_label_space(
    dataset: datasets.Dataset, column: str, *, names: Sequence[str] | None = None, problem_type: str | None = None
) -> LabelSpace:
    """What the labels in a column are: read from its type, and from its values where the type leaves it open.

    Integers and strings are classes (named by themselves, in sorted order; -1 stands for no label); floats are
    regression targets; lists are multi-label if they hold class indices or strings, or 0 and 1 only (multi-hot), else
    regression vectors.

    Args:
        dataset: the split that defines the classes, i.e. the training images.
        column: the label column.
        names: the classes in the order wanted (e.g. a trained model's), where the column's own order is not. Integers
            without names of their own are looked up among them as names, or else are positions in them.
        problem_type: one of `PROBLEM_TYPES`, where the values could be read otherwise (integers as numbers).

    Raises:
        DataError: the column can't hold labels, or not of that problem type, or holds one class only.
    """
    if problem_type is not None and problem_type not in PROBLEM_TYPES:
        raise DataError(f"problem_type={problem_type!r} is unknown: use one of {', '.join(PROBLEM_TYPES)}.")
    feature = dataset.features[column]
    if not may_hold_labels(feature):
        raise DataError(f"Column {column!r} can't be the label: it holds {type_name(feature)}.")
    values = [value for value in column_values(dataset, column) if value is not None]
    if not values:
        raise DataError(f"Column {column!r} holds no label at all.")
    kind = _kind(feature, values, problem_type)
    found: ProblemType = {
        "index": PROBLEM_TYPES[0], "indices": PROBLEM_TYPES[1], "multi-hot": PROBLEM_TYPES[1],
    }.get(kind, PROBLEM_TYPES[2])  # fmt: skip
    if problem_type not in (None, found):
        raise DataError(f"Column {column!r} holds {type_name(feature)}, which can't be read as {problem_type}.")
    if kind == "number" and max(map(abs, values)) >= _LARGEST_WHOLE and all(float(v).is_integer() for v in values):
        raise DataError(f"The numbers in column {column!r} are too large to tell apart: write these classes as text.")
    own, lookup = _classes(feature, values, kind, column)
    if not own:
        raise DataError(f"Column {column!r} holds no label at all.")
    if names is not None:
        own, lookup = _renamed(list(names), own, lookup, kind, nameless=class_label(feature) is None)
    elif kind == "index" and len(own) == 1:
        unlabelled = " (-1 stands for no label)" if -1 in values else ""
        raise DataError(
            f"There is one class only in column {column!r}, {own[0]!r}{unlabelled}: add images of at least one more."
        )
    if kind in ("index", "indices"):
        lookup = _positions(own) | lookup
    return LabelSpace(column, own, found, kind, lookup)


def with_class_names(splits: Mapping[str, Split]) -> dict[str, Split]:
    """Splits whose classes are numbered otherwise than the first's have the names of the classes instead."""
    first = next(iter(splits.values())).dataset.features
    united = dict(splits)
    for role, split in splits.items():
        for column, feature in split.dataset.features.items():
            classes = class_label(feature)
            if classes is not None and column in first and feature != first[column]:
                united[role] = replace(united[role], dataset=_named(united[role].dataset, column, classes.names))
    return united


def _named(dataset: datasets.Dataset, column: str, names: Sequence[str]) -> datasets.Dataset:
    def name(value: int | list[int] | None) -> object:
        if isinstance(value, list):
            return [name(item) for item in value]
        return names[value] if value is not None and 0 <= value < len(names) else None

    text: Any = datasets.Value("string")
    feature = datasets.List(text) if isinstance(dataset.features[column], datasets.List | datasets.LargeList) else text
    values = [name(value) for value in column_values(dataset, column)]
    return dataset.remove_columns(column).add_column(column, values, feature=feature)


def check_labels(dataset: datasets.Dataset, labels: LabelSpace, split: str) -> None:
    """Reads every label of a whole split once, so that a wrong one is found before training and not in its middle.

    Raises:
        LabelError: naming the row, the split and the value.
    """
    for row, value in enumerate(column_values(dataset, labels.column)):
        try:
            labels.encode(value)
        except LabelError as error:
            raise LabelError(
                f"Row {row} of split {split!r}, column {labels.column!r}: {error}: correct or remove it."
            ) from None


def _kind(feature: object, values: list[Any], problem_type: str | None) -> Kind:
    if not isinstance(values[0], list):
        as_numbers = isinstance(values[0], float) if problem_type is None else problem_type == "regression"
        return "number" if as_numbers and not isinstance(values[0], str) else "index"
    if class_label(feature) is not None or any(isinstance(item, str) for value in values for item in value):
        return "indices"
    # An index is never repeated in a list of indices, so lists of one length with only 0 and 1 are multi-hot.
    lengths = {len(value) for value in values}
    binary = all(item in (0, 1) for value in values for item in value)
    if binary and len(lengths) == 1 and lengths.pop() > 1 and problem_type != "regression":
        return "multi-hot"
    integers = all(isinstance(item, int) for value in values for item in value)
    return "indices" if integers and problem_type != "regression" else "vector"


def _classes(feature: object, values: list[Any], kind: str, column: str) -> tuple[list[str], dict[Hashable, int]]:
    if kind == "number":
        return [column], {}
    if kind in ("multi-hot", "vector"):
        return [str(index) if kind == "multi-hot" else f"{column}_{index}" for index in range(len(values[0]))], {}
    own_classes = class_label(feature)
    if own_classes is not None:
        return list(own_classes.names), {index: index for index in range(len(own_classes.names))}
    items = values if kind == "index" else [item for value in values for item in value]
    distinct = sorted({item for item in items if kind != "index" or item != -1})
    named = [f"{value:g}" if isinstance(value, float) else str(value) for value in distinct]
    return named, {value: index for index, value in enumerate(distinct)}


def _positions(names: Sequence[str]) -> dict[Hashable, int]:
    """Name → position, or `_SHARED` for a name that stands more than once."""
    counts = Counter(names)
    return {name: index if counts[name] == 1 else _SHARED for index, name in enumerate(names)}


def _renamed(
    names: list[str], own: list[str], lookup: Mapping[Hashable, int], kind: str, nameless: bool
) -> tuple[list[str], dict[Hashable, int]]:
    """The classes in another order; those which the other order lacks are errors where a row has them."""
    if kind in ("multi-hot", "vector", "number"):
        if len(names) != len(own):
            raise DataError(f"{len(names)} names are given for labels of {len(own)} values.")
        return names, {}
    position = _positions(names)
    numbers = nameless and not any(isinstance(value, str) for value in lookup)
    # "01" and "1.0" are names of the number 1, unless "1" is one too
    numeric: dict[Hashable, str] = {float(name): name for name in names if numbers and _WHOLE.fullmatch(name)}
    own = [
        numeric.get(value, name) if name not in position and not isinstance(value, bool) else name
        for name, value in zip(own, lookup or own, strict=True)
    ]
    shared = set(own) & set(names)
    indices = [value for value in lookup if isinstance(value, int) and 0 <= value < len(names)]
    if numbers and len(indices) == len(own):
        by_names = len(shared) == len(own)
        if shared and any(names[index] != name for index, name in zip(indices, own, strict=True)):
            logger.warning(
                "The labels %s may be names of classes or positions among them (%s): they are read as %s.",
                _shortened(own), _shortened(names), "names" if by_names else "positions",
            )  # fmt: skip
        if not by_names:
            return names, {index: index for index in range(len(names))}
    if not shared:
        raise DataError(
            f"The class names given ({_shortened(names)}) have nothing in common with the data set's "
            f"({_shortened(own)})."
        )
    known = {value: position[name] for value, name in numeric.items()}
    return names, known | {value: position[own[index]] for value, index in lookup.items() if own[index] in position}


def _finite(value: object) -> float:
    number = _number(value)
    if not math.isfinite(number):
        raise LabelError(f"{value!r} is not a finite number")
    return number


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise LabelError(f"{value!r} is not a number") from None


def _shortened(names: Sequence[str], most: int = 5) -> str:
    listed = ", ".join(names[:most])
    return listed if len(names) <= most else f"{listed}, …"
