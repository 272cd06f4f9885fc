"""How columns of CSV files are read where pandas would guess wrong: numbers that are names, and whole numbers."""

import csv
import os
import re
from collections.abc import Sequence

import datasets

_CODE = re.compile(r"0\d+")
_WHOLE = re.compile(r"[+-]?\d{1,15}")


def codes_and_whole(paths: Sequence[str], delimiter: str = ",") -> tuple[set[str], set[str]]:
    """The columns of numbers with leading zeros, which are text ("01" is not 1), and those of whole numbers of which
    some cells are empty, for which pandas takes floating-point numbers.

    Args:
        paths: files of one kind; a column is read alike in all of them.
        delimiter: between two cells.
    """
    codes, whole, other, empty = set[str](), set[str](), set[str](), set[str]()
    for path in paths:
        try:
            with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
                rows = csv.reader(file, delimiter=delimiter)
                header = next(rows, [])
                for row in rows:
                    for name, cell in zip(header, row, strict=False):
                        value = cell.strip()
                        (whole if _WHOLE.fullmatch(value) else other if value else empty).add(name)
                        if _CODE.fullmatch(value):
                            codes.add(name)
        except (OSError, csv.Error):  # whoever reads the file says what is wrong with it
            return set(), set()
    return codes - other, (whole & empty) - other - codes


def text(cell: str) -> str | None:
    """A cell as it is; None if it is empty."""
    return cell or None


def cells_by_file(path: str) -> dict[str, dict[str, str]]:
    """The rows of a `metadata.csv` as they stand there, by the normalised path in `file_name`."""
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        return {os.path.normpath(row["file_name"]): row for row in csv.DictReader(file) if row.get("file_name")}


def with_whole_numbers(dataset: datasets.Dataset, columns: set[str]) -> datasets.Dataset:
    """With these columns as integers again, where they are floating-point numbers."""
    for name in columns & set(dataset.column_names):
        if getattr(dataset.features[name], "dtype", None) == "float64":
            dataset = dataset.cast_column(name, datasets.Value("int64"))
    return dataset
