"""Finding a data set by name: a folder or a file here, a data set on the Hub, the built-in shapes."""

import inspect
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetsError
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HTTPError

from antehoc_hf.commands.errors import looks_like_path
from antehoc_hf.modeling.backbone import hub_in_one_try
from antehoc_hf.training.data.archives import name_of_archive
from antehoc_hf.training.data.contained import check_saved
from antehoc_hf.training.data.errors import DataError
from antehoc_hf.training.data.folders import (
    OTHER_ARCHIVES,
    TABLE_SUFFIXES,
    File,
    Tree,
    readable,
    scan,
    skipped_in_words,
)
from antehoc_hf.training.data.layout import FolderLayout, arrange, training_split
from antehoc_hf.training.data.leaks import note_copies
from antehoc_hf.training.data.repositories import cached_files, declared, declared_features
from antehoc_hf.training.data.tables import check_classes, read_metadata, read_tables, with_absolute_paths

SHAPES = "shapes"
LoadOptions = dict[str, Any]
"""Of `datasets.load_dataset`, or of `load_shapes`."""
# Options of `load_dataset` that `load_dataset_builder` does not know.
_OF_READING = {"verification_mode", "keep_in_memory", "save_infos", "streaming", "num_proc"}
_OWN_OPTIONS = {"classes"}  # of class folders; all others are those of `datasets.load_dataset`


@dataclass(frozen=True)
class Source:
    """A loaded data set: all of its splits under their own names.

    Attributes:
        name: as it was loaded.
        splits: name → images.
        revision: the commit (or else branch or tag) on the Hub; None for local data.
        notes: how a folder was read, and what of it was not.
        root: the folder out of which its tables must not lead; None where the user has named them.
    """

    name: str
    splits: dict[str, datasets.Dataset]
    revision: str | None = None
    notes: tuple[str, ...] = ()
    root: Path | None = None


def load_source(
    name_or_path: str | os.PathLike[str] | datasets.Dataset | datasets.DatasetDict,
    *,
    config: str | None = None,
    revision: str | None = None,
    named: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Source:
    """Loads a data set with all its splits.

    Args:
        name_or_path: a folder (class folders of images, images with metadata, tables, or one written by
            `save_to_disk`), a table, an archive of images (ZIP or tar), the name of a data set on the Hub, "shapes"
            (this project's synthetic data), or a data set already loaded. A folder of that name is preferred to the
            Hub.
        config: the configuration, for data sets that have several.
        revision: branch, tag or commit of a data set on the Hub.
        named: "train", "validation", "test" → the name of that split, where the user gives it, by which folders are
            read.
        options: `classes` of class folders, see `antehoc_hf.training.data.layout.arrange`; or further arguments of
            `datasets.load_dataset`, which then reads the folder by its own rule, or of
            `antehoc_hf.shapes.load_shapes`.

    Raises:
        DataError: not found, not reachable, no images, ambiguous, or an option that doesn't fit; one sentence each.
    """
    options, named = dict(options or {}), dict(named or {})
    if isinstance(name_or_path, datasets.Dataset | datasets.DatasetDict):
        return _source("the data set given", name_or_path, revision)
    name = os.fspath(name_or_path)
    if not name:  # Path("") is the working folder
        raise DataError("The data set's name is empty: give a folder, or a name on the Hub.")
    path = Path(name).expanduser()
    if name == SHAPES:
        return _source(name, _load_shapes(options), None)
    if path.exists():
        if revision is not None:
            raise DataError(f"revision={revision!r} is for data sets on the Hub, and {str(path)!r} is a folder here.")
        return _of_path(path, readable(str(path)), config, named, options)
    if looks_like_path(name):
        raise DataError(f"There is no folder {str(path)!r}: check the path of the data set.")
    folder = None if set(options) - _OWN_OPTIONS else cached_files(name, config, revision)
    if folder is not None:
        return replace(_of_path(folder, name, config, named, options), revision=folder.name)
    source = _source(name, _load(name, config, revision=revision, **options), revision)
    if not datasets.config.HF_HUB_OFFLINE:
        _check_files(source, name, config, {"revision": revision, **options})
    source = _with_files_found(source, "", options.get("data_files"))
    return source if "data_files" in options else replace(source, root=Path(datasets.config.HF_DATASETS_CACHE))


def _of_path(path: Path, name: str, config: str | None, named: dict[str, str], options: LoadOptions) -> Source:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        check_saved(path)
        return replace(_source(name, datasets.load_from_disk(str(path)), None), root=path)
    said = declared(path / "README.md", config, name)
    if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        tree = Tree(path, name, tables=[File((), str(path))])
    elif path.is_file() and not name_of_archive(name):
        raise DataError(f"{name!r} is a file: give the folder that holds the data set, a table, or an archive.")
    elif said.by_datasets or set(options) - _OWN_OPTIONS:
        source = _source(name, _load(str(path), config, **options), None)
        _check_files(source, str(path), config, options)
        source = _with_files_found(source, str(path), options.get("data_files"))
        return source if "data_files" in options else replace(source, root=path)
    else:
        tree = scan(path / said.folder, name, only=said.files(path))
    layout = FolderLayout()
    load = partial(_load_files, name)
    if tree.metadata:
        splits = read_metadata(tree, named, load, layout)
    elif tree.tables and not _has_classes(tree, named, options):
        splits = read_tables(tree, named, load, layout)
        features = declared_features(path, config)
        if features is not None:
            check_classes([table.path for table in tree.tables], features, "the README")
            splits = _with_features(splits, features)
    elif tree.images:
        layout = arrange(tree, named, options.get("classes"))
        layout.skipped["tables next to class folders"] += len(tree.tables)
        note_copies(layout)
        splits = _of_images(layout, named)
    elif tree.skipped[OTHER_ARCHIVES]:  # `datasets` may know what is in them
        return replace(_source(name, _load(str(path), config), None), root=path)
    else:
        skipped = skipped_in_words(tree.skipped) or "it is empty"
        raise DataError(f"There is no image and no table in {name!r} that can be read ({skipped}): check the path.")
    for dataset in splits.values():
        dataset.info.dataset_name = Path(name).name
    skipped = skipped_in_words(tree.skipped + layout.skipped)
    notes = (*layout.notes, *([f"not read: {skipped}"] if skipped else []))
    named_by_user = path.suffix.lower() in TABLE_SUFFIXES and path.is_file()
    return Source(name, splits, notes=notes, root=None if named_by_user else path)


def _check_files(source: Source, name: str, config: str | None, options: LoadOptions) -> None:
    """Raises a DataError if files that `datasets` has read number their classes otherwise than the data set."""
    own = {key: value for key, value in options.items() if key not in _OF_READING}
    files = _load(name, config, load=datasets.load_dataset_builder, **own).config.data_files or {}
    for split, dataset in source.splits.items():
        check_classes(map(_downloaded, files.get(split, ())), dataset.features)


def _downloaded(address: str) -> str:
    """Where a file of the Hub lies in its cache; any other address as it is."""
    of_hub = re.fullmatch(r"hf://datasets/([^@]+)@([^/]+)/(.+)", address)
    if of_hub is None:
        return address
    found = try_to_load_from_cache(of_hub[1], of_hub[3], revision=of_hub[2], repo_type="dataset")
    return found if isinstance(found, str) else address


def _has_classes(tree: Tree, named: Mapping[str, str], options: LoadOptions) -> bool:
    """Whether images lie in folders of at least two classes: then tables next to them do not count."""
    if len({image.folder for image in tree.images}) < 2:
        return False
    layout = arrange(tree, named, options.get("classes"))
    return len({name for rows in layout.splits.values() for _, name in rows if name is not None}) > 1


def _of_images(layout: FolderLayout, named: Mapping[str, str]) -> dict[str, datasets.Dataset]:
    """The splits as data sets; those whose classes are among the training split's have its numbers for them."""
    by_split = {split: {name for _, name in rows if name is not None} for split, rows in layout.splits.items()}
    training = training_split(by_split, named)
    first = sorted(by_split.get(training or "") or set().union(*by_split.values()))
    splits = {}
    for split, rows in layout.splits.items():
        names = [*first, *sorted(by_split[split].difference(first))]
        table: dict[str, list[object]] = {"image": [_cell(file.path) for file, _ in rows]}
        features = datasets.Features({"image": datasets.Image()})
        if names:
            number = {None: None} | {name: index for index, name in enumerate(names)}
            table["label"] = [number[name] for _, name in rows]
            features["label"] = datasets.ClassLabel(names=names)
        splits[split] = datasets.Dataset.from_dict(table, features=features)
    return splits


def _cell(path: str) -> str | dict[str, object]:
    """An image of a data set; a path that is not text can't be stored, so the image itself is."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return {"bytes": Path(path).read_bytes(), "path": os.fsencode(path).decode("utf-8", "backslashreplace")}
    return path


def _with_files_found(source: Source, root: str, data_files: Any) -> Source:
    """With paths that tables hold taken from the table's folder, where the option `data_files` names the tables."""
    splits = {}
    for split, dataset in source.splits.items():
        files = data_files.get(split, ()) if isinstance(data_files, Mapping) else data_files or ()
        folders = {os.path.dirname(file) for file in ([files] if isinstance(files, str) else files)}
        for folder in sorted(folders) or [""]:
            base = os.path.abspath(os.path.join(root, folder))
            dataset = with_absolute_paths(dataset, base) if root or folder else dataset
        splits[split] = dataset
    return replace(source, splits=splits)


def _with_features(splits: dict[str, datasets.Dataset], features: datasets.Features) -> dict[str, datasets.Dataset]:
    """With the types that a README gives to the columns of tables, where these have them."""
    return {
        split: dataset.cast(features) if set(features) == set(dataset.features) else dataset
        for split, dataset in splits.items()
    }


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


def _load_shapes(options: LoadOptions) -> dict[str, datasets.Dataset]:
    from antehoc_hf.shapes import load_shapes

    misfit = "The options of the data set 'shapes' don't fit: {}."
    try:
        inspect.signature(load_shapes).bind(**options)
    except TypeError as error:
        raise DataError(misfit.format(_first_line(error))) from None
    try:
        loaded = load_shapes(**options)
    except ValueError as error:
        raise DataError(misfit.format(_first_line(error))) from None
    return {name: split for name, split in loaded.items() if len(split) > 0}  # 0 rows were asked for


def _load_files(name: str, builder: str, files: list[str], **options: Any) -> datasets.Dataset:
    return _load(name, None, builder=builder, data_files={"train": files}, **options)["train"]


def _load(
    name: str,
    config: str | None,
    builder: str | None = None,
    load: Callable[..., Any] = datasets.load_dataset,
    **options: Any,
) -> Any:
    if "split" in options:
        raise DataError("Name the splits with train_split, validation_split and test_split, not in the options.")
    try:
        with hub_in_one_try(builder is None):
            return load(builder or name, config, **options)
    except (ConnectionError, HTTPError):
        offline = " (offline mode is on: HF_HUB_OFFLINE)" if datasets.config.HF_HUB_OFFLINE else ""
        raise DataError(
            f"Data set {name!r} is not a folder here and not among the downloaded ones, and the Hub can't be "
            f"reached{offline}: connect to the network once, or give the path of a local folder."
        ) from None
    except datasets.exceptions.DatasetNotFoundError as error:
        raise DataError(
            f"Data set {name!r} is not a folder here, and not on the Hub or not open to you: check the name, or log "
            f"in with `hf auth login` ({_first_line(error)})."
        ) from None
    except (FileNotFoundError, ValueError, DatasetsError) as error:
        unknown = re.search(r"doesn't have a '(\w+)' key", str(error))
        if unknown:
            raise DataError(f"dataset_options: {unknown[1]!r} is not an option of load_dataset for {name}.") from None
        reason = _first_line(error.__cause__ or error)
        if "too large to convert" in reason:
            reason = "a column holds whole numbers of more than 18 digits; write them as text, such as 'id123'"
        raise DataError(f"Data set {name!r} can't be loaded: {reason}.") from None
    except RuntimeError as error:
        if "Dataset scripts are no longer supported" not in str(error):
            raise
        raise DataError(
            f"Data set {name!r} is a script, which `datasets` no longer runs: use a copy in Parquet."
        ) from None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
