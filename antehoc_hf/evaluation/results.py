"""What an evaluation of maps found: plain data, and tables a person can read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from antehoc_hf.evaluation.bootstrap import Estimate
from antehoc_hf.evaluation.controls import controls_explained
from antehoc_hf.evaluation.views import Column


@dataclass(frozen=True)
class MapRow:
    """The scores of one kind of map.

    Attributes:
        name (`str`): `"antehoc"`, the name of an explainer or of a control.
        kind (`str`): `"model"`, `"explainer"` or `"control"`.
        scores (`dict[str, Estimate]`): by metric; percent, except insertion, deletion, shares and the map's mean.
        behind_first (`dict[str, Estimate]`): by metric, the first row's score less this one's, paired by image: their
            interval says whether the two differ, which overlapping intervals of each alone don't.
        degenerate (`int`): maps that show nothing: constant or not finite.
        not_finite (`int`): maps with a value that is not finite; they were evaluated as if those values were 0.
        clipped (`int`): maps with a value outside [0, 1]; they were evaluated with it clipped.
        tied (`int`): maps in which pixels of one value lie on both sides of the edge of equal area: which of them are
            kept was drawn at random.
        invalid (`int`): images whose prediction under some mask was not finite; left out of that metric.
        undefined (`int`): images on which localisation is undefined (empty mask or map of zeros); left out of it.
    """

    name: str
    kind: str
    scores: dict[str, Estimate]
    behind_first: dict[str, Estimate] = field(default_factory=dict)
    degenerate: int = 0
    not_finite: int = 0
    clipped: int = 0
    tied: int = 0
    invalid: int = 0
    undefined: int = 0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"scores": _dicts(self.scores), "behind_first": _dicts(self.behind_first)}


@dataclass(frozen=True)
class MapReport:
    """The scores of maps, next to those of maps that explain nothing.

    Attributes:
        num_images (`int`): images seen.
        num_scored (`int`): images in the means: all, or the correctly classified ones, less the invalid ones.
        num_invalid (`int`): images on which the model's own prediction was not finite; in no mean.
        rows (`list[MapRow]`): the model's own map first, then explainers, then controls.
        columns (`dict[str, Column]`): the metrics that tables print; rows hold further ones.
        settings (`dict`): how it was measured, with the seed.
        about (`str`): what a reader must know.
        on_images (`dict[str, Estimate]`): how well the model does its task without any mask: `accuracy` (percent) or
            `nme` (percent).
        part_areas (`dict[str, Estimate]`): the share of the image that a part covers, where maps are compared with it.
        in_one_table (`bool`): False: metrics that reward brightness have a table of their own.
    """

    num_images: int
    num_scored: int
    num_invalid: int
    rows: list[MapRow]
    columns: dict[str, Column]
    settings: dict[str, Any]
    about: str = ""
    on_images: dict[str, Estimate] = field(default_factory=dict)
    part_areas: dict[str, Estimate] = field(default_factory=dict)
    in_one_table: bool = False

    def row(self, name: str) -> MapRow:
        """The row of that name.

        Raises:
            KeyError: if there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"No row is named {name!r}. There are: {', '.join(row.name for row in self.rows)}.")

    @property
    def controls(self) -> str:
        """What the rows of controls are, in one line."""
        return controls_explained(row.name for row in self.rows)

    @property
    def notes(self) -> list[str]:
        """What must not be overlooked, one sentence each."""
        notes = []
        for name, what in (("insertion_deletion_images", "Insertion and deletion are"), ("road_images", "ROAD is")):
            if 0 < (self.settings.get(name) or 0) < self.num_images:
                notes.append(f"{what} measured on the first {self.settings[name]} images.")
        if self.num_invalid:
            notes.append(f"{self.num_invalid} of {self.num_images} predictions were not finite; they are in no mean.")
        for row in self.rows:
            counted = [
                (row.invalid, "predictions on masked images were not finite; left out."),
                (row.not_finite, "maps held values that are not finite, taken as 0."),
                (row.clipped, "maps left [0, 1] and were clipped."),
            ]
            if row.kind != "control":
                edge = "at the edge of the kept area; which pixels are kept was drawn at random."
                counted += [
                    (row.degenerate, f"of {self.num_images} maps show no evidence at all."),
                    (row.tied, f"maps have equal values {edge}"),
                ]
            notes += [f"{row.name}: {count} {what}" for count, what in counted if count]
            if row.undefined:
                notes.append(
                    f"{row.name}: localisation is undefined on {row.undefined} images (nothing in the mask or in the "
                    "map); left out."
                )
        return notes

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain numbers, strings, lists and dictionaries; NaN becomes None."""
        return {
            "about": self.about,
            "num_images": self.num_images,
            "num_scored": self.num_scored,
            "num_invalid": self.num_invalid,
            **_dicts(self.on_images),
            "columns": {name: asdict(column) for name, column in self.columns.items()},
            "rows": [row.to_dict() for row in self.rows],
            "settings": self.settings,
            "part_areas": _dicts(self.part_areas),
            "controls": self.controls,
            "notes": self.notes,
        }

    def to_markdown(self) -> str:
        """Tables with intervals, the metrics that brightness can't buy first, and what must be known to read them."""
        level, seed = f"{100 * self.settings.get('level', 0.95):.0f} %", self.settings.get("seed", 0)
        lines = [f"{self._images()} {self.about} In brackets: {level} bootstrap intervals. Seed {seed}.".strip()]
        for title, names in self._tables():
            lines += ["", *([title, ""] if title else []), *markdown_table(self._cells(names, intervals=True))]
            paired = [name for name in names if any(name in row.behind_first for row in self.rows)]
            if paired:
                title = f"**{self.rows[0].name} less each other map**, paired by image. An interval without 0 is a "
                lines += ["", f"{title}difference.", "", *markdown_table(self._differences(paired))]
        notes = [f"- {note}" for note in self.notes]
        lines += [*(["", self.controls] if self.controls else []), *([""] if notes else []), *notes]
        return "\n".join(lines) + "\n"

    def to_text(self) -> str:
        """The tables for a terminal, with their columns in line and without intervals."""
        lines = [f"The maps, next to maps that explain nothing. {self._images()}", self.about]
        for title, names in self._tables():
            lines += [
                "",
                *([title.replace("**", "")] if title else []),
                *_aligned(self._cells(names, intervals=False)),
            ]
        return "\n".join([*lines, *(["", self.controls] if self.controls else [])])

    def _images(self) -> str:
        scores = [f"{name.replace('_', ' ')} {written(value, 1)}" for name, value in self.on_images.items()]
        areas = [f"{part} {100 * area.value:.1f} %" for part, area in self.part_areas.items()]
        covered = f" Share of the image that a part covers: {', '.join(areas)}." if areas else ""
        return f"{', '.join([f'{self.num_scored} images', *scores])}.{covered}"

    def _tables(self) -> list[tuple[str, list[str]]]:
        """Titles and metrics."""
        judging = [name for name, column in self.columns.items() if column.better is not None]
        describing = [name for name in self.columns if name not in judging]
        if self.in_one_table:
            return [("", list(self.columns))]
        fair = [name for name in judging if not self.columns[name].rewards_brightness]
        bright = [name for name in judging if self.columns[name].rewards_brightness]
        tables = [
            ("**What brightness can't buy.** A map shows something if it beats every control here.", fair),
            (
                "**On image ⊙ map.** Bright maps are rewarded: read these along with the map's mean and the controls.",
                bright,
            ),
        ]
        return [(title, names + describing) for title, names in tables if names]

    def _cells(self, names: Sequence[str], intervals: bool) -> list[list[str]]:
        rows = [["map", *(self.columns[name].heading for name in names)]]
        for row in self.rows:
            cells = [f"**{row.name}**" if intervals and row.kind == "model" else row.name]
            for name in names:
                column = self.columns[name]
                cells.append(written(row.scores.get(name), column.decimals, intervals and column.better is not None))
            rows.append(cells)
        return rows

    def _differences(self, names: Sequence[str]) -> list[list[str]]:
        rows = [["map", *(self.columns[name].heading for name in names)]]
        for row in self.rows[1:]:
            cells = [written(row.behind_first.get(name), self.columns[name].decimals) for name in names]
            rows.append([row.name, *cells])
        return rows


def written(estimate: Estimate | None, decimals: int, interval: bool = True) -> str:
    """A score as tables print it; "none" where it is undefined."""
    if estimate is None:
        return ""
    if math.isnan(estimate.value):
        return "none"
    value = f"{estimate.value:.{decimals}f}"
    return f"{value} [{estimate.low:.{decimals}f}, {estimate.high:.{decimals}f}]" if interval else value


def _dicts(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: estimate.to_dict() for name, estimate in estimates.items()}


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table whose first row is its head; the first column to the left, the others to the right."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|---|" + "---:|" * (len(rows[0]) - 1), *lines[1:]]


def _aligned(rows: list[list[str]]) -> list[str]:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
