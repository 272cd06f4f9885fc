"""Tables as a person reads them on a terminal."""

import math
from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of a table with its columns in line: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def cell(value: float, decimals: int) -> str:
    """A number with so many decimals; "none" if there is none."""
    return "none" if math.isnan(value) else f"{value:.{decimals}f}"
