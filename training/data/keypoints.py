"""Reading key points in whatever form a data set stores them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import datasets
import numpy as np
from numpy.typing import NDArray

from antehoc_hf.training.data.columns import column_values, find_column
from antehoc_hf.training.data.errors import DataError

Points = NDArray[np.float64]
Layout = Literal["points", "flat", "flat triples", "rows", "mapping"]
ORDERS = ("auto", "xy", "yx")
UNITS = ("auto", "pixels", "normalized")

_NAMES = (
    {"keypoints", "landmarks", "key_points", "kpts"},
    {"points", "keypoint", "landmark", "pts", "landmarks_2d", "keypoints_2d", "landmarks_68", "landmarks_68_2d"},
    {"landmarks_68_3d_xy_normalized", "keypoints_xy", "joints"},
)
_VISIBLE_ENDINGS = ("_visible", "_visibility")
# Coordinates of an image of more than a few pixels are not all this small.
_NORMALIZED_LIMIT = 2.0
_NO_POINT = -1.0  # in both coordinates: how many data sets write a point that is not there
# COCO's 0, 1 and 2: not labelled, labelled but hidden, visible.
_COCO_FLAGS = {0.0, 1.0, 2.0}


@dataclass(frozen=True)
class KeypointFormat:
    """How a column stores K points.

    Attributes:
        column: of the coordinates.
        visible_column: of K truth values, if there is one.
        layout: "points": K times x, y (and visibility). "flat": x, y, x, y … "flat triples": with visibility. "rows":
            all x, then all y. "mapping": {"x": …, "y": …}.
        count: K.
        swapped: whether y comes before x.
        normalized: whether coordinates are shares of width and height, not pixels.
    """

    column: str
    visible_column: str | None
    layout: Layout
    count: int
    swapped: bool = False
    normalized: bool = False

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        return [self.column, *([self.visible_column] if self.visible_column is not None else [])]

    def read(self, value: object, visible: Sequence[float] | None = None) -> Points:
        """(K, 2) x and y in the data set's own unit; NaN where a point is missing.

        Raises:
            DataError: if there are no points, more or fewer than K, or a coordinate is infinite; without the row.
        """
        if value is None:
            raise DataError("there are no key points")
        points = _arranged(value, self.layout)
        if len(points) != self.count:
            raise DataError(f"there are {len(points)} key points where there should be {self.count}")
        if np.isinf(points).any():
            raise DataError("a coordinate is infinite")
        xy = points[:, :2]
        missing: NDArray[np.bool_] = np.isnan(xy).any(axis=1) | (xy == _NO_POINT).all(axis=1)
        if points.shape[1] == 3 and set(np.unique(points[:, 2]).tolist()) <= _COCO_FLAGS:
            missing |= points[:, 2] == 0
        if visible is not None:
            if len(visible) != self.count:
                raise DataError(f"{self.visible_column} has {len(visible)} values for {self.count} key points")
            missing |= ~np.asarray(visible, dtype=np.float64).astype(bool)
        points = points[:, 1::-1] if self.swapped else points[:, :2]
        return np.where(missing[:, None], np.nan, points)


def find_format(
    dataset: datasets.Dataset, image_column: str, column: str | None, order: str, unit: str, source: str
) -> KeypointFormat:
    """Finds the column of the points and how it stores them.

    Args:
        dataset: a split of the data set.
        image_column: of the images.
        column: of the points, where a user names it.
        order: "xy", "yx" or "auto": x first, unless the points are a face's that would lie on its side.
        unit: "pixels", "normalized" (shares of width and height) or "auto": normalised if no coordinate exceeds 2.
        source: how to call the data set in an error.

    Raises:
        DataError: if there is no such column, or it holds no points.
    """
    for option, value, choices in (("keypoints_order", order, ORDERS), ("keypoints_unit", unit, UNITS)):
        if value not in choices:
            raise DataError(f"{option}={value!r} is unknown: use {', '.join(choices)}.")
    features = {name: feature for name, feature in dataset.features.items() if name != image_column}
    name = find_column(datasets.Features(features), "keypoints", _NAMES, _may_hold_points, column, source=source)
    visible = next((name + ending for ending in _VISIBLE_ENDINGS if name + ending in features), None)
    values = [value for value in column_values(dataset, name) if value is not None]
    if not values:
        raise DataError(f"Column {name!r} of {source} holds no key points at all.")
    layout = _layout_of(values, name, source)
    first = _arranged(values[0], layout)
    normalized = unit == "normalized" or (unit == "auto" and _looks_normalized(values, layout))
    return KeypointFormat(name, visible, layout, len(first), swapped=order == "yx", normalized=normalized)


def _may_hold_points(feature: object) -> bool:
    """Numbers in a list, a list of lists, a mapping or a list of mappings."""
    if isinstance(feature, Mapping):
        return {"x", "y"} <= {str(key).lower() for key in feature}
    if isinstance(feature, datasets.List | datasets.LargeList):
        inner = feature.feature
        return isinstance(inner, Mapping | datasets.List | datasets.LargeList) or _is_number(inner)
    return isinstance(feature, datasets.Array2D)


def _is_number(feature: object) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype.startswith(("int", "uint", "float"))


def _layout_of(values: Sequence[Any], column: str, source: str) -> Layout:
    """From all rows: a flat list of 3·K numbers looks like one of 2·K numbers in a single row."""
    first = values[0]
    if isinstance(first, Mapping):
        return "mapping"
    if isinstance(first, Sequence) and first and isinstance(first[0], Mapping):
        return "points"
    shape = _shape(first)
    if len(shape) == 2 and shape[1] in (2, 3) and shape[0] > 0:
        return "points"
    if len(shape) == 2 and shape[0] == 2 and shape[1] > 3:
        return "rows"
    if len(shape) == 1 and shape[0] >= 2:
        triples = shape[0] % 3 == 0 and all(
            len(value) % 3 == 0 and {float(flag) for flag in value[2::3] if flag is not None} <= _COCO_FLAGS
            for value in values
        )
        if triples:
            return "flat triples"
        if shape[0] % 2 == 0:
            return "flat"
    form = "×".join(map(str, shape)) or type(first).__name__
    raise DataError(
        f"Column {column!r} of {source} holds {form} where key points should be: K lists [x, y], one list of 2·K or "
        "3·K numbers (x, y and visibility), two lists of K numbers, or {'x': …, 'y': …}."
    )


def _shape(value: object) -> tuple[int, ...]:
    """Of nested lists; empty if they are ragged or no lists."""
    try:
        return np.asarray(value, dtype=np.float64).shape
    except (TypeError, ValueError):
        return ()


def _arranged(value: Any, layout: Layout) -> Points:
    """(K, 2) or (K, 3).

    Raises:
        DataError: if the value is of another layout than the column's first; without the row.
    """
    try:
        if layout == "mapping":
            return _of_mapping(value)
        if layout == "points" and len(value) and isinstance(value[0], Mapping):
            return np.stack([_of_mapping(point)[0] for point in value])
        numbers = np.asarray(value, dtype=np.float64)
        if layout == "flat":
            return numbers.reshape(-1, 2)
        if layout == "flat triples":
            return numbers.reshape(-1, 3)
        numbers = numbers.T if layout == "rows" else numbers
        if numbers.ndim == 2 and numbers.shape[1] in (2, 3):
            return numbers
    except (TypeError, ValueError, KeyError):
        pass
    raise DataError("the key points are not stored as in the first row")


def _of_mapping(value: Mapping[str, object]) -> Points:
    lower = {str(key).lower(): entry for key, entry in value.items()}
    flags = next((lower[key] for key in ("visible", "visibility", "v") if lower.get(key) is not None), None)
    parts = [lower["x"], lower["y"], *([flags] if flags is not None else [])]
    return np.stack([np.atleast_1d(np.asarray(part, dtype=np.float64)) for part in parts], axis=1)


def _looks_normalized(values: Sequence[Any], layout: Layout) -> bool:
    for value in values:
        try:
            numbers = _arranged(value, layout)[:, :2]
        except DataError:  # found, with its row, when the split is checked
            continue
        finite = np.abs(numbers[np.isfinite(numbers)])
        if finite.size and finite.max() > _NORMALIZED_LIMIT:
            return False
    return True
