"""Loading a data set by name or folder, finding its splits, holding out a validation split, taking subsets.

Nothing here knows what the columns mean: every task's loader builds on it.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.exceptions import DatasetsError
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

from antehoc_hf.training.data.errors import DataError

SHAPES = "shapes"
_ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
# A folder with one of these is no class folder.
_DATA_FILES = {".arrow", ".csv", ".gz", ".json", ".jsonl", ".parquet", ".tar", ".tgz", ".txt", ".zip"}


@dataclass(frozen=True)
class Source:
    """A loaded data set: all of its splits under their own names."""

    name: str
    splits: dict[str, datasets.Dataset]
    revision: str | None = None


@dataclass(frozen=True, eq=False)
class Split:
    """A part of one split that remembers which rows of the original it holds, so that errors can name them."""

    name: str
    dataset: datasets.Dataset
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.dataset)

    def __str__(self) -> str:
        return self.name

    def select(self, positions: np.ndarray) -> Split:
        """The rows at these positions of this split, in this order."""
        if np.array_equal(positions, np.arange(len(self))):
            return self
        return Split(self.name, self.dataset.select(positions.tolist()), self.rows[positions])

    def without(self, positions: Sequence[int]) -> Split:
        """All rows but those at these positions."""
        return self.select(np.setdiff1d(np.arange(len(self)), np.asarray(positions, dtype=np.int64)))

    def where(self, position: int) -> str:
        """How to call one row in a message."""
        return f"Row {self.rows[position]} of split {self.name!r}"


def load_source(
    name_or_path: str | os.PathLike[str] | datasets.Dataset | datasets.DatasetDict,
    *,
    config: str | None = None,
    revision: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Source:
    """Loads a data set with all its splits.

    Args:
        name_or_path: a folder (a data set, class folders of images, or one written by `save_to_disk`), the name of a
            data set on the Hub, "shapes" (this project's synthetic data), or a data set already loaded. A folder
            of that name is preferred to the Hub.
        config: the configuration, for data sets that have several.
        revision: branch, tag or commit of a data set on the Hub.
        options: further arguments of `datasets.load_dataset`, or of `antehoc_hf.shapes.load_shapes`.

    Raises:
        DataError: not found, not reachable, no images, or an option that doesn't fit; one sentence each.
    """
    options = dict(options or {})
    if isinstance(name_or_path, datasets.Dataset | datasets.DatasetDict):
        return _source("the data set given", name_or_path, revision)
    name = os.fspath(name_or_path)
    path = Path(name).expanduser()
    if name == SHAPES:
        return _source(name, _load_shapes(options), None)
    if path.exists():
        return _source(str(path), _load_folder(path, config, revision, options), None)
    if _looks_like_path(name):
        raise DataError(f"There is no folder {str(path)!r}: check the path of the data set.")
    return _source(name, _load(name, config, options, revision=revision), revision)


def find_splits(
    source: Source,
    *,
    train_split: str | None = None,
    validation_split: str | None = None,
    test_split: str | None = None,
) -> dict[str, Split]:
    """The splits for training, validation and test, by their usual names or those given.

    A data set with one split only is a training split, unless it is called validation or test.

    Returns:
        "train", "validation", "test" → split; without those that the data set lacks.

    Raises:
        DataError: a split named by the user that doesn't exist, no split with a usual name, an empty split, or a
            validation or test split which is the training split itself.
    """
    wanted = {"train": train_split, "validation": validation_split, "test": test_split}
    chosen = {role: _split_name(role, name, source) for role, name in wanted.items()}
    if not any(chosen.values()):
        only = list(source.splits)
        if len(only) != 1:
            raise DataError(f"No split of {source.name} has a usual name: name them ({_names(source)}).")
        chosen["train"] = only[0]
    for role in ("validation", "test"):
        if chosen[role] is not None and chosen[role] == chosen["train"]:
            raise DataError(
                f"{role}_split={chosen[role]!r} is also the training split: leave it out to hold out a part of it."
            )
    found = {}
    for role, name in chosen.items():
        if name is None:
            continue
        dataset = source.splits[name]
        if len(dataset) == 0:
            raise DataError(f"Split {name!r} of {source.name} is empty.")
        found[role] = Split(name, dataset, np.arange(len(dataset)))
    return found


def hold_out(split: Split, fraction: float, seed: int, strata: Sequence[int] | None = None) -> tuple[Split, Split]:
    """Sets a part of a split aside, the same for the same seed.

    Args:
        split: n rows.
        fraction: part to set aside, in (0, 1): round(fraction · n) rows, at least one.
        seed: of the choice.
        strata: the class of each row: classes are then represented in proportion (to within one row), and a class
            never loses its last row, unless every class has but one.

    Returns:
        What remains, and what is set aside, each in the original order.

    Raises:
        DataError: fewer than two rows, or a fraction outside (0, 1).
    """
    if not 0 < fraction < 1:
        raise DataError(f"validation_fraction={fraction} must lie between 0 and 1.")
    count = len(split)
    if count < 2:
        raise DataError(f"Split {split.name!r} has {count} row, too few to hold out a validation split.")
    size = min(max(1, round(fraction * count)), count - 1)
    generator = np.random.default_rng(seed)
    order = generator.permutation(count)
    taken = order[:size] if strata is None else _stratified(order, np.asarray(strata), size)
    taken = np.sort(taken if len(taken) else order[:size])
    return split.without(taken.tolist()), split.select(taken)


def take(split: Split, limit: int | None, seed: int, option: str = "max_samples") -> Split:
    """At most `limit` rows, chosen at random but always the same for a seed, in the original order; a smaller limit
    takes a subset of what a larger one takes.

    Raises:
        DataError: a limit below one.
    """
    if limit is None:
        return split
    if limit < 1:
        raise DataError(f"{option}={limit} must be at least 1.")
    if limit >= len(split):
        return split
    return split.select(np.sort(np.random.default_rng(seed).permutation(len(split))[:limit]))


def _stratified(order: np.ndarray, strata: np.ndarray, size: int) -> np.ndarray:
    """`size` positions of a random order, each stratum in proportion: whole parts first, largest remainders next."""
    classes, counts = np.unique(strata, return_counts=True)
    exact = counts * size / counts.sum()
    quota = np.floor(exact).astype(np.int64)
    remainder = np.where(counts > 1, exact - quota, -1.0)
    extra = np.argsort(-remainder, kind="stable")[: size - quota.sum()]
    quota[extra[remainder[extra] >= 0]] += 1
    quota = np.minimum(quota, counts - 1)
    shuffled = strata[order]
    return np.concatenate([order[shuffled == c][:n] for c, n in zip(classes, quota, strict=True)])


def _source(name: str, loaded: Any, revision: str | None) -> Source:
    if isinstance(loaded, datasets.Dataset):
        loaded = {str(loaded.split or "train"): loaded}
    if not isinstance(loaded, Mapping) or not all(isinstance(part, datasets.Dataset) for part in loaded.values()):
        raise DataError(f"{name} was loaded as a stream, which can't be split or shuffled: leave streaming out.")
    if not loaded:
        raise DataError(f"{name} has no split.")
    splits = {str(key): part for key, part in loaded.items()}
    return Source(name, splits, _hub_commit(next(iter(splits.values()))) or revision)


def _hub_commit(dataset: datasets.Dataset) -> str | None:
    """The commit a data set came from, which `datasets` notes in the addresses of its files (no network)."""
    for address in dataset.info.download_checksums or {}:
        match = re.match(r"hf://datasets/[^@]+@([0-9a-f]{40})/", str(address))
        if match:
            return match.group(1)
    return None


def _load_shapes(options: dict[str, Any]) -> Any:
    from antehoc_hf.shapes import load_shapes

    try:
        inspect.signature(load_shapes).bind(**options)
    except TypeError as error:
        raise DataError(f"The options of the data set 'shapes' don't fit: {_first_line(error)}.") from None
    try:
        loaded = load_shapes(**options)
    except ValueError as error:
        raise DataError(f"The options of the data set 'shapes' don't fit: {_first_line(error)}.") from None
    return {name: split for name, split in loaded.items() if len(split) > 0}  # 0 rows were asked for


def _load_folder(path: Path, config: str | None, revision: str | None, options: dict[str, Any]) -> Any:
    if revision is not None:
        raise DataError(f"revision={revision!r} is for data sets on the Hub, and {str(path)!r} is a folder here.")
    if not path.is_dir():
        raise DataError(f"{str(path)!r} is a file: give the folder that holds the data set.")
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return datasets.load_from_disk(str(path))
    _check_image_folders(path)
    return _load(str(path), config, options)


def _load(name: str, config: str | None, options: dict[str, Any], revision: str | None = None) -> Any:
    if "split" in options:
        raise DataError("Name the splits with train_split, validation_split and test_split, not in the options.")
    try:
        return datasets.load_dataset(name, config, revision=revision, **options)
    except ConnectionError:
        offline = " (offline mode is on: HF_HUB_OFFLINE)" if datasets.config.HF_HUB_OFFLINE else ""
        raise DataError(
            f"Data set {name!r} is no folder here and not among the downloaded ones, and the Hub can't be "
            f"reached{offline}: connect to the network once, or give the path of a local folder."
        ) from None
    except datasets.exceptions.DatasetNotFoundError as error:
        raise DataError(
            f"Data set {name!r} is no folder here, and not on the Hub or not open to you: check the name, or log in "
            f"with `hf auth login` ({_first_line(error)})."
        ) from None
    except (FileNotFoundError, ValueError, DatasetsError) as error:
        raise DataError(f"Data set {name!r} can't be loaded: {_first_line(error.__cause__ or error)}.") from None
    except RuntimeError as error:
        if "Dataset scripts are no longer supported" not in str(error):
            raise
        raise DataError(
            f"Data set {name!r} is a script, which `datasets` no longer runs: use a copy in Parquet."
        ) from None


def _check_image_folders(root: Path) -> None:
    """A class folder without an image would be left out silently, and shift the classes after it."""
    upper = [root, *(child for child in root.iterdir() if child.is_dir())]
    if any((folder / name).is_file() for folder in upper for name in _METADATA):
        return  # the metadata, not the folders, say what there is
    extensions = _DATA_FILES.union(ImageFolder.EXTENSIONS)
    filled: set[Path] = set()
    for path, children, files in os.walk(root, topdown=False, followlinks=True):
        visible = {Path(path, name) for name in children if not name.startswith((".", "_"))}
        empty = sorted(visible - filled)
        if empty and visible & filled:
            raise DataError(
                f"Folder {str(empty[0].relative_to(root))!r} in {str(root)!r} holds no image, though the folders "
                "beside it do: put images into it, or remove it."
            )
        if visible & filled or any(os.path.splitext(name)[1].lower() in extensions for name in files):
            filled.add(Path(path))


def _split_name(role: str, named: str | None, source: Source) -> str | None:
    if named is not None:
        if named not in source.splits:
            raise DataError(f"{source.name} has no split {named!r}: it has {_names(source)}.")
        return named
    for alias in _ALIASES[role]:
        for name in source.splits:
            if name.lower() == alias:
                return name
    return None


def _names(source: Source) -> str:
    return ", ".join(map(repr, source.splits))


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
