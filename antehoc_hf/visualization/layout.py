"""Where everything stands in a panel of maps."""

from __future__ import annotations

from dataclasses import dataclass

# Lengths in inches.
CELL, GAP, BLOCK_GAP, ROW_GAP, MARGIN = 1.6, 0.08, 0.45, 0.14, 0.3
HEADING, CAPTION, TITLE, BAR = 0.3, 0.3, 0.45, 0.62


@dataclass(frozen=True)
class Layout:
    """
    Positions in a panel. They are measured in inches from the top left; matplotlib counts from the bottom left.

    Attributes:
        count, columns (`int`): images, and how many stand side by side.
        kinds (`int`): pictures of each image.
        ratio (`float`): height over width of a picture.
        caption, title (`float`): heights of the text above an image and of the figure's title, 0 for none.
    """

    count: int
    columns: int
    kinds: int
    ratio: float
    caption: float
    title: float

    @property
    def block(self) -> float:
        """Width of the pictures of one image."""
        return self.kinds * CELL + (self.kinds - 1) * GAP

    @property
    def row(self) -> float:
        """Height of one row, with its caption."""
        return self.caption + CELL * self.ratio + ROW_GAP

    @property
    def width(self) -> float:
        """Of the figure."""
        return 2 * MARGIN + self.columns * self.block + (self.columns - 1) * BLOCK_GAP

    @property
    def height(self) -> float:
        """Of the figure."""
        return self.title + HEADING + -(-self.count // self.columns) * self.row + BAR

    def corner(self, index: int) -> tuple[float, float]:
        """Left and upper edge of an image's block, in inches, below its caption."""
        row, column = divmod(index, self.columns)
        return MARGIN + column * (self.block + BLOCK_GAP), self.title + HEADING + row * self.row + self.caption

    def cell(self, index: int, kind: int) -> tuple[float, float, float, float]:
        """(left, bottom, width, height) of a picture, in parts of the figure."""
        left, top = self.corner(index)
        high = CELL * self.ratio
        return (
            (left + kind * (CELL + GAP)) / self.width,
            1 - (top + high) / self.height,
            CELL / self.width,
            high / self.height,
        )
