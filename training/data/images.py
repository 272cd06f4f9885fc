"""Reading images of any kind from bytes, files, arrays and data-set cells."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import datasets
import numpy as np
from datasets.utils import tqdm
from PIL import ExifTags, Image

from antehoc_hf.modeling.image_input import UnreadableImageError, decoding, open_image_file, to_rgb, upright
from antehoc_hf.training.data.errors import BadImageError

_CHECK_BATCH = 64
_MOST_THREADS = 16


def decode_image(value: object, where: str = "The image") -> Image.Image:
    """An RGB image, upright (EXIF orientation applied), from whatever a data set stores.

    Args:
        value: bytes of an image file, a path, a cell of `datasets.Image(decode=False)` (mapping with `bytes` and
            `path`), a Pillow image or an array (H, W) or (H, W, C), uint8 or uint16.
        where: how to call the image in an error, e.g. "Row 3 of split 'train'".

    Returns:
        A fully loaded image of mode "RGB"; see `antehoc_hf.modeling.image_input.to_rgb` for grey, alpha and 16 bit.

    Raises:
        BadImageError: the image is missing, truncated, not an image, or of a format that is not read.
    """
    try:
        with decoding():
            image = _open(value)
            image.load()
            return to_rgb(upright(image))
    except UnreadableImageError as error:
        name = _with_path(value, where)
        raise BadImageError(f"{name} can't be read ({error}): repair it, remove it, or skip bad images.") from None


def unreadable_reason(value: object) -> str | None:
    """Why `decode_image` can't read the value; None if it can. JPEG is decoded at an eighth of its size: the whole
    file is read, so a truncated one is found, at a fraction of the cost.
    """
    try:
        with decoding():
            image = _open(value)
            if image is not value:
                image.draft(None, (1, 1))
            image.load()
            to_rgb(image)
    except UnreadableImageError as error:
        return str(error)
    return None


def image_size(value: object) -> tuple[int, int] | None:
    """Height and width of the upright image, from the head of its file; None if it can't be read."""
    try:
        with decoding():
            image = _open(value)
            width, height = image.size
            sideways = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            if image is not value:
                image.close()
    except UnreadableImageError:
        return None
    return (width, height) if sideways else (height, width)


def find_unreadable(dataset: datasets.Dataset, image_column: str, label: str = "images") -> dict[int, str]:
    """Every row whose image can't be read, with a description (reason, and file where known).

    Reads every image once, in threads (decoders release the interpreter's lock), with a progress bar that obeys
    `datasets.disable_progress_bars()`.

    Args:
        dataset: any data set with an image column.
        image_column: its name.
        label: what the progress bar says is being checked.

    Returns:
        Row number → description, in order; empty when all are well.
    """
    raw = raw_images(dataset, image_column).select_columns([image_column])
    starts = range(0, len(raw), _CHECK_BATCH)

    def check(start: int) -> list[tuple[int, str]]:
        values = raw[start : start + _CHECK_BATCH][image_column]
        reasons = ((start + offset, value, unreadable_reason(value)) for offset, value in enumerate(values))
        return [(row, _with_path(value, reason)) for row, value, reason in reasons if reason is not None]

    with ThreadPoolExecutor(_threads()) as pool, tqdm(total=len(raw), desc=f"Checking {label}", unit=" images") as bar:
        found: dict[int, str] = {}
        for start, bad in zip(starts, pool.map(check, starts), strict=True):
            found.update(bad)
            bar.update(min(_CHECK_BATCH, len(raw) - start))
    return found


def raw_images(dataset: datasets.Dataset, image_column: str) -> datasets.Dataset:
    """The data set with its images as stored (bytes or path) and no format: decoding is ours, so that errors can
    name the row and Pillow's result is not copied about.
    """
    return dataset.with_format(None).cast_column(image_column, datasets.Image(decode=False))


def image_path(value: object) -> str | None:
    """The file an image came from, if the data set remembers it."""
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    return value.get("path") if isinstance(value, Mapping) else None


def _open(value: object) -> Image.Image:
    if isinstance(value, Mapping):
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if value is None:
        raise UnreadableImageError("there is no image")
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, bytes | bytearray | memoryview | str | os.PathLike):
        return open_image_file(value)
    array = np.asarray(value)
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)


def _with_path(value: object, text: str) -> str:
    path = image_path(value)
    return f"{text} [{path}]" if path else text


def _threads() -> int:
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_THREADS, mine)
