"""The scenes as a Hugging Face data set, generated in memory."""

import io
import multiprocessing
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    DatasetInfo,
    Features,
    Image,
    List,
    NamedSplit,
    Value,
    concatenate_datasets,
)
from datasets.utils import tqdm
from PIL import Image as PILImage

from antehoc_hf.shapes.captions import describe
from antehoc_hf.shapes.parts import CLASSES, DECIDING, HORNS, LANDMARKS, TAILS, WINGS
from antehoc_hf.shapes.scene import (
    REGIONS,
    SMALLEST_IMAGE,
    Bytes,
    Recipe,
    check_background,
    check_whole_number,
    draw,
    part_mask,
)
from antehoc_hf.shapes.textures import BACKGROUNDS

ATTRIBUTES: tuple[str, ...] = tuple(
    f"{variant}_{part}" for part, variants in zip(DECIDING, (HORNS, WINGS, TAILS), strict=True) for variant in variants
)
"""The nine part variants, in the order of the `attributes` column (a multi-label target)."""

_CHUNK = 500  # rows turned into Arrow at a time, so that they are in memory once
_QUIET = 200  # rows made without a progress bar
_ALONE = 1000  # rows made without further processes

_Map = Callable[[Callable[[Recipe], dict[str, Any]], Iterable[Recipe]], Iterator[dict[str, Any]]]


def load_shapes(
    image_size: int = 64,
    train: int = 4000,
    validation: int = 500,
    test: int = 1000,
    seed: int = 0,
    background: str = "independent",
    without: Collection[str] = (),
) -> DatasetDict:
    """The data set of bugs on natural ground, generated in memory, on all cores; nothing is downloaded or cached.

    The columns, the ground truth and the splits are described in `antehoc_hf.shapes`. Row i of a split depends on the
    options and on i alone, not on how many rows there are, and its pixels are the same on every machine.

    Args:
        image_size: side of the square images in pixels, at least 32. One seed shows the same scenes at every size.
        train, validation, test: rows of each split; one of 0 rows is left out. `test_swapped` has as many as `test`.
        seed: a whole number, 0 or more.
        background: "independent" of the class, or "correlated": class k stands on background family k in 95 % of the
            rows of train, validation and test, and never in `test_swapped`.
        without: regions (of REGIONS) for which a column `without_<region>` is added: the same scene with that region
            removed and what was behind it in its place. Several at once are drawn by `render`.

    Returns:
        A DatasetDict with the splits train, validation, test and test_swapped that have rows.

    Raises:
        ValueError: an option is out of range; the sentence says which.
    """
    for name, value, smallest in (
        ("image_size", image_size, SMALLEST_IMAGE),
        ("train", train, 0),
        ("validation", validation, 0),
        ("test", test, 0),
        ("seed", seed, 0),
    ):
        check_whole_number(name, value, smallest)
    check_background(background)
    removed = _checked_regions(without)
    rows = {"train": train, "validation": validation, "test": test, "test_swapped": test}
    total = sum(rows.values())
    if not total:
        raise ValueError("train, validation and test are all 0: ask for at least one row.")
    splits = {}
    with (
        tqdm(total=total, desc="Drawing scenes", unit=" rows", disable=total <= _QUIET) as progress,
        _on_all_cores(total) as each,
    ):
        for split, count in rows.items():
            if not count:
                continue
            recipes = (Recipe(int(seed), split, index, int(image_size), background) for index in range(count))
            splits[split] = _split(split, each(partial(_row, removed=removed), recipes), removed, progress)
    return DatasetDict(splits)


@contextmanager
def _on_all_cores(total: int) -> Iterator[_Map]:
    """A `map` that keeps the order and, for many rows, uses every core that this process may run on.

    By forking alone, so on Linux: other ways start the user's script again in each process, which needs a guard there.
    Numpy and Pillow are all that the processes use.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    if total <= _ALONE or cores == 1 or multiprocessing.current_process().daemon:
        yield map
        return
    with multiprocessing.get_context("fork").Pool(cores) as pool:
        yield partial(pool.imap, chunksize=25)


def _checked_regions(without: Collection[str]) -> tuple[str, ...]:
    if isinstance(without, str):
        raise ValueError(f"without must be a list of regions, such as [{without!r}], not one text.")
    unknown = [region for region in without if region not in REGIONS]
    if unknown:
        raise ValueError(f"Cannot remove {unknown[0]!r}: without may hold {', '.join(REGIONS)}.")
    return tuple(region for region in REGIONS if region in without)


def _features(removed: tuple[str, ...]) -> Features:
    return Features(
        {
            "image": Image(),
            "label": ClassLabel(names=list(CLASSES)),
            "mask": Image(),
            "part_masks": Image(),
            "without_deciding_parts": Image(),
            **{f"without_{region}": Image() for region in removed},
            "horn": ClassLabel(names=list(HORNS)),
            "wings": ClassLabel(names=list(WINGS)),
            "tail": ClassLabel(names=list(TAILS)),
            "attributes": List(Value("float32"), length=len(ATTRIBUTES)),
            "background": ClassLabel(names=list(BACKGROUNDS)),
            "landmarks": List(List(Value("float32"), length=2), length=len(LANDMARKS)),
            "landmarks_visible": List(Value("bool"), length=len(LANDMARKS)),
            "captions": List(Value("string")),
            "caption_regions": List(List(Value("string"))),
            "scene": Value("string"),
        }
    )


def _split(split: str, rows: Iterator[dict[str, Any]], removed: tuple[str, ...], progress: tqdm) -> Dataset:
    features, name = _features(removed), NamedSplit(split)
    info = DatasetInfo(description="Bugs on natural ground, with known evidence.", features=features)
    chunks = []
    while True:
        columns: dict[str, list[Any]] = {column: [] for column in features}
        for row in islice(rows, _CHUNK):
            for column, value in row.items():
                columns[column].append(value)
            progress.update()
        if not columns["scene"]:
            break
        chunks.append(Dataset.from_dict(columns, features=features, info=info, split=name))
    return concatenate_datasets(chunks, info=info, split=name)


def _row(recipe: Recipe, removed: tuple[str, ...]) -> dict[str, Any]:
    scene = draw(recipe)
    variants = scene.bug.variants
    masks = scene.part_masks()
    places, visible = scene.landmarks()
    texts, regions = describe(scene.bug, recipe.label, BACKGROUNDS[scene.family])
    attributes = np.zeros(len(ATTRIBUTES))
    attributes[[3 * part + variant for part, variant in enumerate(variants)]] = 1.0
    return {
        "image": _png(scene.image()),
        "label": recipe.label,
        "mask": _png(part_mask(masks, "deciding").astype(np.uint8) * 255),
        "part_masks": _png(masks),
        "without_deciding_parts": _png(scene.image(DECIDING)),
        **{f"without_{region}": _png(scene.image([region])) for region in removed},
        **dict(zip(DECIDING, variants, strict=True)),
        "attributes": attributes.tolist(),
        "background": scene.family,
        "landmarks": places,
        "landmarks_visible": visible,
        "captions": texts,
        "caption_regions": regions,
        "scene": recipe.to_json(),
    }


def _png(pixels: Bytes) -> dict[str, bytes | None]:
    """An image as the data set keeps it: the bytes of a PNG file, decoded when the column is read."""
    buffer = io.BytesIO()
    # Textures hardly shrink further at higher levels, which take several times as long.
    PILImage.fromarray(pixels).save(buffer, "PNG", compress_level=1 if pixels.ndim == 3 else 6)
    return {"bytes": buffer.getvalue(), "path": None}
