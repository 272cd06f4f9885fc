"""Finding the columns of a data set by their types and names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets

from antehoc_hf.training.data.errors import DataError

# Looked for in this order, whatever the case of the letters; the names of one group are equally good.
_IMAGE_NAMES = (
    {"image", "img"},
    {"images", "picture", "photo", "pixel_values", "jpg", "jpeg", "png", "webp"},
    {"file", "filename", "file_name", "path", "file_path", "image_path", "image_file_path"},
)
_LABEL_NAMES = (
    {"label", "labels"},
    {"target", "targets", "class", "classes", "category", "categories", "class_name", "class_id", "cls", "y"},
)


def find_image_column(
    features: datasets.Features, override: str | None = None, *, source: str = "the data set"
) -> str:
    """The column that holds the images: of type `datasets.Image`, or else bytes, paths or arrays under a usual name.

    Raises:
        DataError: as [`find_column`].
    """
    if override is not None:
        return _existing(override, features, "image_column", source)
    typed = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    if typed:
        return _best(typed, _IMAGE_NAMES, "image", features, source)
    return find_column(features, "image", _IMAGE_NAMES, _may_hold_images, source=source)


def find_label_column(
    features: datasets.Features, image_column: str, override: str | None = None, *, source: str = "the data set"
) -> str:
    """The column that holds the labels: one called label(s), the only one of type `ClassLabel`, or one under
    another usual name (target, class, category …).

    Args:
        features, override, source: as of [`find_column`].
        image_column: the column of the images, which is left out.

    Raises:
        DataError: as [`find_column`].
    """
    if override is not None:
        return _existing(override, features, "label_column", source)
    others = {name: f for name, f in features.items() if name != image_column and may_hold_labels(f)}
    typed = [name for name, feature in others.items() if class_label(feature) is not None]
    named = [[name for name in others if name.lower() in names] for names in _LABEL_NAMES]
    for candidates in (named[0], typed, named[1]):
        if candidates:
            return _only(candidates, "label", features, source)
    of_other_types = [name for name in features if name.lower() in _LABEL_NAMES[0] and name != image_column]
    if of_other_types:
        name = of_other_types[0]
        raise DataError(f"Column {name!r} of {source} can't be the label: it holds {type_name(features[name])}.")
    if list(features) == [image_column]:
        raise DataError(
            f"{source} has images but no labels: put them into a folder for each class, or describe them in a "
            "metadata.csv with the columns file_name and label."
        )
    raise _missing("label", features, source)


def find_column(
    features: datasets.Features,
    what: str,
    groups: Sequence[set[str]],
    may_hold: Callable[[object], bool],
    override: str | None = None,
    *,
    source: str = "the data set",
) -> str:
    """A column of a usual name whose type may hold what is looked for; the names of one group are equally good.

    Args:
        features: the features of the data set.
        what: what is looked for, as the option `{what}_column` names it.
        groups: names in lower case, the most telling group first.
        may_hold: whether a column of that type is a candidate.
        override: the column the user named, which is only checked to exist.
        source: how to call the data set in an error.

    Raises:
        DataError: no column, or several which are equally likely; the sentence names the columns there are.
    """
    if override is not None:
        return _existing(override, features, f"{what}_column", source)
    for names in groups:
        named = [name for name in features if name.lower() in names and may_hold(features[name])]
        if named:
            return _only(named, what, features, source)
    raise _missing(what, features, source)


def column_values(dataset: datasets.Dataset, column: str) -> list[Any]:
    """A column as Python values, without touching the others."""
    return dataset.with_format(None).select_columns([column])[:][column]


def _may_hold_images(feature: object) -> bool:
    if isinstance(feature, datasets.Value):
        return feature.dtype in ("string", "large_string", "binary", "large_binary")
    if isinstance(feature, Mapping):
        return {"bytes", "path"} <= set(feature)
    return isinstance(feature, datasets.Array2D | datasets.Array3D | datasets.List | datasets.LargeList)


def may_hold_labels(feature: object) -> bool:
    """Whether a column of this type may hold classes or numbers, one or a list."""
    if isinstance(feature, datasets.List | datasets.LargeList):
        return not isinstance(feature.feature, datasets.List | datasets.LargeList) and may_hold_labels(feature.feature)
    if isinstance(feature, datasets.ClassLabel):
        return True
    numbers = ("int", "uint", "float", "bool", "string", "large_string")
    return isinstance(feature, datasets.Value) and feature.dtype.startswith(numbers)


def class_label(feature: object) -> datasets.ClassLabel | None:
    """The classes that a type names, of a value or of the values of a list."""
    inner = feature.feature if isinstance(feature, datasets.List | datasets.LargeList) else feature
    return inner if isinstance(inner, datasets.ClassLabel) and inner.names else None


def same_kind(first: object, other: object) -> bool:
    """Whether two columns can be read alike: classes go by their names, numbers and texts by their values."""
    if isinstance(first, datasets.List | datasets.LargeList) and isinstance(other, datasets.List | datasets.LargeList):
        return same_kind(first.feature, other.feature)
    if isinstance(first, Mapping) and isinstance(other, Mapping):
        return set(first) == set(other) and all(same_kind(first[key], other[key]) for key in first)
    if isinstance(other, datasets.Value) and isinstance(first, datasets.ClassLabel | datasets.Value):
        texts = isinstance(first, datasets.ClassLabel) or _is_text(first)
        return texts == _is_text(other) and other.dtype != "null"
    return bool(first == other)


def _is_text(feature: object) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")


def _best(
    candidates: list[str], groups: Sequence[set[str]], what: str, features: datasets.Features, source: str
) -> str:
    for names in groups:
        named = [name for name in candidates if name.lower() in names]
        if named:
            return _only(named, what, features, source)
    return _only(candidates, what, features, source)


def _only(candidates: list[str], what: str, features: datasets.Features, source: str) -> str:
    if len(candidates) == 1:
        return candidates[0]
    found = ", ".join(map(repr, candidates))
    raise DataError(
        f"Several columns of {source} may be the {what}: {found}; say which with {what}_column "
        f"(columns: {', '.join(features)})."
    )


def _missing(what: str, features: datasets.Features, source: str) -> DataError:
    return DataError(
        f"No column of {source} looks like the {what}: name it with {what}_column (columns: {', '.join(features)})."
    )


def _existing(name: str, features: datasets.Features, option: str, source: str) -> str:
    if name not in features:
        raise DataError(f"{option}={name!r} is not a column of {source} (columns: {', '.join(features)}).")
    return name


def type_name(feature: object) -> str:
    """A column's type in words."""
    if isinstance(feature, datasets.Value):
        return f"values of type {feature.dtype}"
    return f"values of type {type(feature).__name__}"
