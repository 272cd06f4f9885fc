"""Data sets in tables: Parquet, Arrow, CSV and JSON files, and image folders with metadata."""

import glob
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from antehoc_hf.training.data.csv_columns import cells_by_file, read_columns, text
from antehoc_hf.training.data.errors import DataError
from antehoc_hf.training.data.folders import File, Tree, quoted
from antehoc_hf.training.data.images import raw_images
from antehoc_hf.training.data.layout import FolderLayout, place, role_of

_BUILDERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".parquet": ("parquet", {}), ".arrow": ("arrow", {}), ".csv": ("csv", {}), ".tsv": ("csv", {"delimiter": "\t"}),
}  # fmt: skip
_WITH_IMAGES = (".parquet", ".arrow")  # others name files
_SHARD = re.compile(r"[-_.]\d+[-_]of[-_]\d+.*$")
_LOOKED_AT = 100  # values of a column that show whether it holds paths

Load = Callable[..., datasets.Dataset]
"""`datasets.load_dataset` of one split, with its errors in a sentence: (builder, data_files, further options)."""


def read_tables(tree: Tree, named: Mapping[str, str], load: Load, layout: FolderLayout) -> dict[str, datasets.Dataset]:
    """The tables of a folder, by split; relative paths of images in them are those from the table's folder.

    A table belongs to the split that its name or its folder says: `train.csv`, `test-00000-of-00002.parquet`. If none
    says so, all are training data.

    Raises:
        DataError: some tables say so and others do not; or a table can't be read.
    """
    splits = {}
    for split, files in _by_split(tree.tables, named, tree.source).items():
        suffixes = sorted({_suffix(file) for file in files})
        if len(suffixes) > 1:
            raise DataError(
                f"{tree.source} has tables of several kinds for the split {split!r} ({quoted(suffixes)}): name one of "
                f"them as the data set, such as {os.path.basename(files[0].path)}."
            )
        builder, options = _BUILDERS.get(suffixes[0], ("json", {}))
        # Alike in all splits.
        tables = [table.path for table in tree.tables if builder == "csv" and _suffix(table) == suffixes[0]]
        columns = read_columns(tables, options.get("delimiter", ","))
        loaded = []
        for folder, paths in _by_folder(files).items():
            own = {**options, **columns.options} if tables else options
            dataset = load(builder, [glob.escape(path) for path in paths], **own)
            check_classes(paths, dataset.features)
            loaded.append(with_absolute_paths(columns.with_whole_numbers(dataset), folder))
        splits[split] = _joined(loaded, split)
    if all(_suffix(table) in _WITH_IMAGES for table in tree.tables):
        layout.skipped["images next to the tables"] += len(tree.images)
    return splits


def read_metadata(
    tree: Tree, named: Mapping[str, str], load: Load, layout: FolderLayout
) -> dict[str, datasets.Dataset]:
    """Images described by `metadata.csv`, `.jsonl` or `.parquet` next to them, as the `imagefolder` of `datasets`
    reads it; the splits are those of the images' folders.

    Raises:
        DataError: as [`antehoc_hf.training.data.layout.place`], or a table can't be read.
    """
    loaded = [load("imagefolder", [glob.escape(table.path)]) for table in tree.metadata]
    columns = read_columns(table.path for table in tree.metadata if _suffix(table) == ".csv")
    loaded = [
        _as_written(columns.with_whole_numbers(dataset), table, columns.text) if _suffix(table) == ".csv" else dataset
        for dataset, table in zip(loaded, tree.metadata, strict=True)
    ]
    listed = [_image_files(dataset, table) for dataset, table in zip(loaded, tree.metadata, strict=True)]
    placed = place((file for files in listed for file in files), named, tree.source, layout)
    parts: dict[str, list[datasets.Dataset]] = {}
    for dataset, files in zip(loaded, listed, strict=True):
        splits = [placed[file.folder][0] if file.folder in placed else None for file in files]
        layout.skipped["images outside of the splits' folders"] += splits.count(None)
        for split in dict.fromkeys(split for split in splits if split is not None):
            rows = [row for row, own in enumerate(splits) if own == split]
            parts.setdefault(split, []).append(dataset if len(rows) == len(dataset) else dataset.select(rows))
    known = {os.path.normpath(file.path) for files in listed for file in files}
    layout.skipped["images that the metadata do not list"] += sum(
        os.path.normpath(image.path) not in known for image in tree.images
    )
    return {split: _joined(datasets_, split) for split, datasets_ in parts.items()}


def check_classes(paths: Iterable[str], features: datasets.Features, names_of: str = "the other files") -> None:
    """Raises a DataError if a Parquet or Arrow file has other names for the numbers of its classes than `features`:
    `datasets` would take the numbers as they are.
    """
    for path in paths:
        own = _features_in(path)
        for column in own.keys() & features.keys():
            theirs, ours = (getattr(known[column], "names", None) for known in (own, features))
            if theirs is not None and ours is not None and theirs != ours:
                raise DataError(
                    f"{path} numbers the classes of {column!r} as {quoted(theirs)}, {names_of} as {quoted(ours)}: "
                    "write them anew with the same names in the same order."
                )


def _features_in(path: str) -> datasets.Features:
    """The columns' types that `datasets` has written into a table; none where it was written by others."""
    try:
        if path.endswith(".parquet"):
            schema = pq.read_schema(path)
        elif path.endswith(".arrow"):
            with pa.memory_map(path) as opened:
                schema = pa.ipc.open_stream(opened).schema
        else:
            return datasets.Features()
        known = b"huggingface" in (schema.metadata or {})
        return datasets.Features.from_arrow_schema(schema) if known else datasets.Features()
    except (OSError, pa.ArrowInvalid, ValueError, KeyError, TypeError):
        return datasets.Features()  # what is wrong with the file is said where it is read


def with_absolute_paths(dataset: datasets.Dataset, folder: str) -> datasets.Dataset:
    """With paths of files, which are relative to the table's folder, made absolute, in whichever columns they are."""
    for name, feature in dataset.features.items():
        if not isinstance(feature, datasets.Value) or feature.dtype not in ("string", "large_string"):
            continue
        values = [value for value in dataset[:_LOOKED_AT][name] if value]
        if any(os.path.isfile(os.path.join(folder, value)) for value in values if not os.path.isabs(value)):
            texts = dataset[:][name]
            absolute = [text if not text or "://" in text else os.path.join(folder, text) for text in texts]
            position = dataset.column_names.index(name)
            field = dataset.data.schema.field(name)
            table = dataset.data.table.set_column(position, field, pa.array(absolute, field.type))
            dataset = datasets.Dataset(datasets.table.InMemoryTable(table), info=dataset.info, split=dataset.split)
    return dataset


def _as_written(dataset: datasets.Dataset, table: File, as_text: Collection[str]) -> datasets.Dataset:
    """With these columns of a `metadata.csv` as they stand there."""
    columns = sorted(set(as_text) & set(dataset.column_names))
    rows, folder = cells_by_file(table.path) if columns else {}, os.path.dirname(table.path)
    files = [os.path.normpath(os.path.relpath(path, folder)) for path in _image_paths(dataset, table)]
    for name in columns if all(file in rows for file in files) else ():
        values = [text(rows[file][name]) for file in files]
        dataset = dataset.remove_columns(name).add_column(name, values, feature=datasets.Value("string"))
    return dataset


def _image_paths(dataset: datasets.Dataset, table: File) -> list[str]:
    column = next(name for name, feature in dataset.features.items() if isinstance(feature, datasets.Image))
    cells = raw_images(dataset.select_columns([column]), column)[:][column]
    return [cell["path"] if cell else os.path.join(os.path.dirname(table.path), "") for cell in cells]


def _image_files(dataset: datasets.Dataset, table: File) -> list[File]:
    folder, paths = os.path.dirname(table.path), _image_paths(dataset, table)
    inner = [os.path.relpath(os.path.dirname(path), folder).split(os.sep) for path in paths]
    return [
        File((*table.folder, *(part for part in parts if part != os.curdir)), path)
        for parts, path in zip(inner, paths, strict=True)
    ]


def _by_split(tables: Sequence[File], named: Mapping[str, str], source: str) -> dict[str, list[File]]:
    found: dict[str, list[File]] = {}
    unclear = []
    for table in tables:
        stem = _SHARD.sub("", os.path.splitext(os.path.basename(table.path))[0])
        names = [stem, *table.folder, "/".join((*table.folder, stem))]
        split = next((name for name in names if name in named.values()), None)
        split = split or next((name for name in names[:-1] if role_of(name)), None)
        if split is None:
            unclear.append(table)
        else:
            found.setdefault(split, []).append(table)
    if not found or ("." in named.values() and unclear):
        found["." if "." in named.values() else "train"] = unclear
    elif unclear and not named:
        names, first = [os.path.basename(table.path) for table in unclear], next(iter(found))
        raise DataError(
            f"{source} has tables of the splits {quoted(list(found))} and others ({quoted(names)}): say which are "
            f"read, such as --{role_of(first)}_split {first}, or remove the others."
        )
    return found


def _suffix(table: File) -> str:
    return os.path.splitext(table.path)[1].lower()


def _by_folder(files: Sequence[File]) -> dict[str, list[str]]:
    folders: dict[str, list[str]] = {}
    for file in files:
        folders.setdefault(os.path.dirname(file.path), []).append(file.path)
    return folders


def _joined(parts: list[datasets.Dataset], split: str) -> datasets.Dataset:
    if len(parts) == 1:
        return parts[0]
    try:
        return datasets.concatenate_datasets(parts)
    except ValueError as error:
        raise DataError(f"The tables of split {split!r} do not have the same columns: {error}.") from None
