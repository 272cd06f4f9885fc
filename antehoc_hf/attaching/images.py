"""Images without labels: a folder however nested, a data set by name, or anything that Python can iterate over."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor

from antehoc_hf.commands.errors import check_data
from antehoc_hf.modeling.image_input import UnreadableImageError
from antehoc_hf.training.data.columns import find_image_column
from antehoc_hf.training.data.errors import BadImageError, DataError
from antehoc_hf.training.data.folders import scan
from antehoc_hf.training.data.images import decode_image, raw_images, unreadable_reason
from antehoc_hf.training.data.sources import load_source
from antehoc_hf.training.data.splits import find_splits

LEAST_IMAGES = 40
_KEYS = ("image", "img", "pixel_values")


@dataclass(frozen=True)
class Pictures:
    """Images: some to fit the map; others, which it never sees, to judge it; and where several maps are fitted,
    further ones to choose among them.

    Args:
        name (`str`): what to call them.
        fitted (`Dataset`): rows with `pixel_values` (3, H, W), normalised.
        held_out (`Dataset`): the same, of other images.
        choosing (`Dataset`): the same, of yet others; none unless asked for.
        skipped (`list[str]`): those that could not be read, each with the reason.
        revision (`str`, *optional*): of a data set on the Hub.
    """

    name: str
    fitted: LazyImages
    held_out: LazyImages
    choosing: LazyImages
    skipped: list[str]
    revision: str | None = None


class LazyImages(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Images as the network takes them, read when they are asked for.

    Args:
        values: what [`decode_image`] reads; a tensor is taken as it is, normalised already.
        encode: an RGB image → (3, H, W).
    """

    def __init__(self, values: _Values, encode: Callable[[Any], Tensor]) -> None:
        self._values, self._encode = values, encode

    def __len__(self) -> int:
        return len(self._values.positions)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} of {len(self)} images")
        value, name = self._values[position]
        return {"pixel_values": value if isinstance(value, Tensor) else self._encode(decode_image(value, name))}


@dataclass(frozen=True)
class _Values:
    """Some of the images of a source: its reader of one image, how to call it, and which ones."""

    read: Callable[[int], Any]
    name: Callable[[int], str]
    positions: Sequence[int]

    def __getitem__(self, position: int) -> tuple[Any, str]:
        index = int(self.positions[position])
        return self.read(index), self.name(index)


def check_pictures(source: str | Path, split: str | None) -> None:
    """What can be said of local images before a network is fetched.

    Raises:
        DataError: if a folder holds too few images.
        UsageError: if what is clearly a path leads nowhere, or to an empty folder.
    """
    check_data(source)
    path = Path(source).expanduser()
    if path.is_dir() and split is None and 0 < len(scan(path).images) < LEAST_IMAGES:
        load_pictures(source, None)  # which says so, or that they cannot be read


def load_pictures(
    source: Any,
    processor: Any,
    *,
    max_images: int = 2000,
    held_out: int = 200,
    choosing: bool = False,
    split: str | None = None,
    seed: int = 0,
) -> Pictures:
    """Finds images, leaves out those that cannot be read, and sets some aside.

    Args:
        source: a folder, a file, a data set's name or the data set itself, with labels or without; or an iterable of
            pictures, arrays, paths, bytes or rows that hold one as `image`. Tensors count as normalised already.
        processor: the model's image processor.
        max_images (`int`): images to fit the map to, at random.
        held_out (`int`): images to judge it on; at most a fifth of all.
        choosing (`bool`): set as many aside once more, to choose among maps.
        split (`str`, *optional*): of a data set; by default its training split.
        seed (`int`): of the choice.

    Raises:
        DataError: if there are no images, too few, or none that can be read.
    """
    if max_images < LEAST_IMAGES:
        raise DataError(f"max_images={max_images}: a map needs at least {LEAST_IMAGES} images, better some hundred.")
    most = max_images + (2 if choosing else 1) * held_out
    name, count, read, called, revision = _found(source, split, most)
    if count == 0:
        raise DataError(f"There are no images in {name}: name a folder of images or a data set.")
    order = np.random.default_rng(seed).permutation(count)
    wanted = order[:most]
    readable, skipped = _readable(_Values(read, called, wanted.tolist()))
    if not readable:
        raise DataError(f"None of the {len(wanted)} images in {name} can be read; the first: {skipped[0]}.")
    if len(readable) < LEAST_IMAGES:
        unread = f" ({len(skipped)} more cannot be read)" if skipped else ""
        raise DataError(
            f"There are {len(readable)} images in {name}{unread}: a map needs at least {LEAST_IMAGES}, better some "
            "hundred."
        )
    aside = max(min(held_out, len(readable) // 5), 8)

    def encode(image: Any) -> Tensor:
        pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    last = 2 * aside if choosing else aside
    chosen = (readable[last:], readable[:aside], readable[aside:last])
    fitted, judging, others = (LazyImages(_Values(read, called, positions), encode) for positions in chosen)
    return Pictures(name, fitted, judging, others, skipped, revision)


_Found = tuple[str, int, Callable[[int], Any], Callable[[int], str], str | None]


def _found(source: Any, split: str | None, most: int) -> _Found:
    """Name, number, reader and namer of the images, and the data set's revision."""
    if isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        if path.is_file():
            raise DataError(f"{path} is a file: give the folder that holds the images.")
        if path.is_dir() and split is None:
            files = [file.path for file in scan(path).images]
            if files:
                return str(source), len(files), files.__getitem__, files.__getitem__, None
    if isinstance(source, str | os.PathLike | datasets.Dataset | datasets.DatasetDict):
        return _of_data_set(source, split)
    if not isinstance(source, Iterable):
        raise DataError(f"images={source!r} is neither a folder, a data set nor something to iterate over.")
    values = [_image_of(row) for row in islice(iter(source), most)]
    return "the images given", len(values), values.__getitem__, lambda index: f"Image {index}", None


def _of_data_set(source: Any, split: str | None) -> _Found:
    named = {} if split is None else {"train": split}
    loaded = load_source(source, named=named)
    splits = find_splits(loaded, named)
    chosen = splits["train"] if "train" in splits else next(iter(splits.values()))
    column = find_image_column(chosen.dataset.features, source=loaded.name)
    raw = raw_images(chosen.dataset.select_columns([column]), column)
    return loaded.name, len(raw), lambda index: raw[index][column], chosen.where, loaded.revision


def _image_of(row: Any) -> Any:
    """The image of a row, or the row itself."""
    if isinstance(row, Mapping) and not {"bytes", "path"} & row.keys():
        key = next((key for key in _KEYS if key in row), None)
        if key is None:
            raise DataError(f"A row holds {', '.join(map(str, row))}, and none of them is called 'image'.")
        row = row[key]
    if isinstance(row, tuple | list) and row and not isinstance(row[0], int | float):  # (image, label)
        row = row[0]
    if isinstance(row, Tensor) and not (row.ndim == 3 and len(row) == 3 and row.is_floating_point()):
        raise DataError(f"A tensor must be one normalised image (3, height, width), not {tuple(row.shape)}.")
    return row


def _readable(values: _Values) -> tuple[list[int], list[str]]:
    """Positions of the images that can be read, in order, and the reasons against the others."""

    def reason(position: int) -> str | None:
        value, _ = values[position]
        if isinstance(value, Tensor):
            return None
        try:
            return unreadable_reason(value)
        except (BadImageError, UnreadableImageError, TypeError, ValueError) as error:
            return " ".join(str(error).split())[:120]

    threads = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)
    with ThreadPoolExecutor(threads) as pool:
        reasons = list(pool.map(reason, range(len(values.positions))))
    good = [values.positions[position] for position, why in enumerate(reasons) if why is None]
    bad = [f"{values[position][1]}: {why}" for position, why in enumerate(reasons) if why is not None]
    return good, bad
