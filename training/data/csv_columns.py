"""How columns of CSV files are read where pandas would guess wrong: words that it takes for gaps, and numbers."""

import csv
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import datasets

_CODE = re.compile(r"0[0-9]+|[+-]?[0-9]{16,}")  # as a number it would lose its zeros, or its last digits
_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?inf(inity)?|true|false", re.IGNORECASE)
_NO_VALUE = re.compile(r"[-#<]?(na|n/a|nan|null|none)( n/a)?>?|-?1\.#(ind|qnan)", re.IGNORECASE)
_LONGEST_CELL = 2**31 - 1


@dataclass
class CsvColumns:
    """What the cells of each column are.

    Attributes:
        kinds: column → the kinds of cells in it.
        gaps: column → those of its cells that are words for no value.
    """

    kinds: dict[str, set[str]] = field(default_factory=dict)
    gaps: dict[str, set[str]] = field(default_factory=dict)

    @property
    def text(self) -> set[str]:
        """The columns that are text though pandas would change some of their cells: "01" is not 1, and "NA" is a name
        among names; among numbers it is a gap, as an empty cell always is.
        """
        return {name for name, found in self.kinds.items() if _is_text(found)}

    @property
    def options(self) -> dict[str, object]:
        """Of `datasets`' builder for CSV files, by which such columns stay as they are."""
        whole_file: dict[str, object] = {"chunksize": None}  # the types of all of its rows, not of the first
        if not self.text:
            return whole_file
        gaps = {name: [""] if name in self.text else ["", *sorted(self.gaps.get(name, ()))] for name in self.kinds}
        return whole_file | {"converters": dict.fromkeys(self.text, text), "keep_default_na": False, "na_values": gaps}

    def with_whole_numbers(self, dataset: datasets.Dataset) -> datasets.Dataset:
        """With columns of whole numbers and empty cells as integers: pandas has floating-point numbers for them."""
        whole = {name for name, found in self.kinds.items() if {"whole"} < found <= {"whole", "gap", "empty"}}
        for name in whole & set(dataset.column_names):
            if getattr(dataset.features[name], "dtype", None) == "float64":
                dataset = dataset.cast_column(name, datasets.Value("int64"))
        return dataset


def read_columns(paths: Iterable[str], delimiter: str = ",") -> CsvColumns:
    """Looks at every cell; a column is judged by all files together.

    Args:
        paths: files of one kind.
        delimiter: between two cells.
    """
    columns = CsvColumns()
    for path in paths:
        try:
            with open(path, newline="", encoding="utf-8-sig", errors="replace") as file, _long_cells():
                rows = csv.reader(file, delimiter=delimiter)
                header = next(rows, [])
                for row in rows:
                    for name, cell in zip(header, row, strict=False):
                        kind = _kind(cell.strip())
                        columns.kinds.setdefault(name, set()).add(kind)
                        if kind == "gap":
                            columns.gaps.setdefault(name, set()).add(cell)
        except (OSError, csv.Error):  # whoever reads the file says what is wrong with it
            return CsvColumns()
    return columns


def _kind(cell: str) -> str:
    if not cell:
        return "empty"
    if _CODE.fullmatch(cell):
        return "code"
    if _WHOLE.fullmatch(cell):
        return "whole"
    if _NUMBER.fullmatch(cell):
        return "number"
    return "gap" if _NO_VALUE.fullmatch(cell) else "word"


def _is_text(found: set[str]) -> bool:
    """Of the kinds of cells in a column."""
    if "word" in found:
        return bool(found & {"gap", "code", "whole", "number"})
    if "code" in found:
        return "number" not in found
    return "gap" in found <= {"gap", "empty"}


def text(cell: str) -> str | None:
    """A cell as it is; None if it is empty."""
    return cell if cell.strip() else None


def cells_by_file(path: str) -> dict[str, dict[str, str]]:
    """The rows of a `metadata.csv` as they stand there, by the normalised path in `file_name`."""
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file, _long_cells():
        return {os.path.normpath(row["file_name"]): row for row in csv.DictReader(file) if row.get("file_name")}


@contextmanager
def _long_cells() -> Iterator[None]:
    """Cells of any length, such as an image in base64."""
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)
