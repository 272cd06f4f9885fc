"""No file of a data set leads out of its folder: a stranger's table could have a model learn and show private ones.

A table that the user names, alone or with the option `data_files`, may name images anywhere. Links to images are
followed, as people make them to arrange their own.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from huggingface_hub.constants import HF_HUB_CACHE

from antehoc_hf.training.data.errors import DataError


def check_images_inside(dataset: datasets.Dataset, column: str, root: Path, source: str) -> None:
    """Raises a DataError if a row names an image outside of `root` and of the caches of archives and the Hub."""
    caches = (datasets.config.HF_DATASETS_CACHE, HF_HUB_CACHE)
    roots = [
        f"{folder}{os.sep}"
        for place in (root, *caches)
        for folder in (os.path.abspath(place), os.path.realpath(place))
    ]
    for chunk in dataset.data.column(column).chunks:
        for path in _paths(chunk):
            place = os.path.abspath(path)
            if not place.startswith(tuple(roots)) and os.path.exists(place):
                raise DataError(
                    f"{source} names the image {path!r} outside of its folder: put the images there, or, if you trust "
                    "its tables, name them with --dataset_options '{\"data_files\": …}'."
                )


def _paths(cells: pa.Array) -> Iterable[str]:
    """The files that cells name, where they do not hold the image itself."""
    if pa.types.is_struct(cells.type) and {"bytes", "path"} <= {field.name for field in cells.type}:
        cells = pc.struct_field(cells, "path").filter(pc.is_null(pc.struct_field(cells, "bytes")))
    if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
        yield from filter(None, cells.to_pylist())


def check_names_inside(names: Any, what: str) -> None:
    """Raises a DataError if a name of a file, a list of them, or the values of a mapping lead upwards or are absolute.

    Args:
        names: as a README or a list of files has them.
        what: where they stand, as `"The README of pets names a data_dir"`.
    """
    if isinstance(names, dict):
        names = list(names.values())
    for name in names if isinstance(names, list) else [names]:
        if isinstance(name, dict | list):
            check_names_inside(name, what)
        elif isinstance(name, str) and (PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts):
            raise DataError(f"{what} outside of it, {name!r}.")


def check_saved(folder: Path) -> None:
    """The same for the lists of files in a folder that `save_to_disk` wrote, where they can be read."""
    for path in (folder / "dataset_dict.json", *folder.glob("state.json"), *folder.glob("*/state.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            names = [*content.get("splits", ()), *(file["filename"] for file in content.get("_data_files", ()))]
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue  # absent or damaged: `datasets` says so
        check_names_inside(names, f"{path} names a file")
