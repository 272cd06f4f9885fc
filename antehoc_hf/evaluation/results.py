"""What an evaluation of maps found: plain data, and tables a person can read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from antehoc_hf.evaluation.bootstrap import Estimate

# (metric, heading, decimals) of the two tables. Arrows tell which way is better.
_Column = tuple[str, str, int]
_HONEST: tuple[_Column, ...] = (
    ("equal_area_avg_drop", "Avg. Drop, equal area ↓", 1),
    ("equal_area_win", "Win, equal area ↑", 1),
    ("equal_area_accuracy", "accuracy, equal area ↑", 1),
    ("insertion_minus_deletion", "insertion − deletion ↑", 3),
    ("insertion_minus_deletion_pixel_blur", "the same, to blur ↑", 3),
    ("insertion_minus_deletion_patch_mean", "the same, patches ↑", 3),
    ("insertion_minus_deletion_patch_blur", "the same, patches to blur ↑", 3),
    ("road", "ROAD ↑", 3),
    ("energy_share_over_area", "energy share / area ↑", 2),
    ("pointing_game", "pointing game ↑", 1),
    ("relevance_rank", "relevance rank ↑", 2),
)
HONEST_METRICS = tuple(name for name, _, _ in _HONEST)
"""The measures that brightness can't buy."""

_PAPER: tuple[_Column, ...] = (
    ("drop_cond", "Drop ↓", 1),
    ("inc_cond", "Inc ↑", 1),
    ("win", "Win ↑", 1),
    ("avg_drop", "Avg. Drop ↓", 1),
    ("accuracy", "accuracy ↑", 1),
    ("binarised_drop_cond", "Drop, binarised ↓", 1),
    ("binarised_inc_cond", "Inc, binarised ↑", 1),
    ("binarised_win", "Win, binarised ↑", 1),
)


@dataclass(frozen=True)
class MapRow:
    """
    The scores of one kind of map.

    Attributes:
        name (`str`): `"antehoc"`, the name of an explainer or of a control.
        kind (`str`): `"model"`, `"explainer"` or `"control"`.
        scores (`dict[str, Estimate]`): by metric; percent, except insertion, deletion, shares and the map's mean.
        degenerate (`int`): maps that show nothing: constant or not finite.
        not_finite (`int`): maps with a value that is not finite; they were evaluated as if those values were 0.
        clipped (`int`): maps with a value outside [0, 1]; they were evaluated with it clipped.
        tied (`int`): maps in which pixels of one value lie on both sides of the edge of equal area: which of them are
            kept was drawn at random.
        invalid (`int`): images whose probability on some masked image was not finite; left out of that measure.
        undefined (`int`): images on which localisation says nothing (empty mask or map of zeros); left out of it.
        behind_first (`dict[str, Estimate]`): by metric, the first row's score less this one's, paired by image: their
            interval says whether the two differ, which overlapping intervals of each alone don't.
    """

    name: str
    kind: str
    scores: dict[str, Estimate]
    degenerate: int = 0
    not_finite: int = 0
    clipped: int = 0
    tied: int = 0
    invalid: int = 0
    undefined: int = 0
    behind_first: dict[str, Estimate] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        counts = {name: getattr(self, name) for name in _COUNTS}
        scores = {name: estimate.to_dict() for name, estimate in self.scores.items()}
        paired = {name: estimate.to_dict() for name, estimate in self.behind_first.items()}
        return {"name": self.name, "kind": self.kind, "scores": scores, "behind_first": paired, **counts}


_COUNTS = ("degenerate", "not_finite", "clipped", "tied", "invalid", "undefined")


@dataclass(frozen=True)
class MapReport:
    """
    The scores of a model's maps beside those of maps that explain nothing.

    Attributes:
        num_images (`int`): images seen.
        num_scored (`int`): images in the means: all, or the correctly classified ones, less the invalid ones.
        num_invalid (`int`): images on which the model's own prediction was not finite; in no mean.
        accuracy (`Estimate`): of the model on the images, percent.
        rows (`list[MapRow]`): the model's own map first, then explainers, then controls.
        settings (`dict`): how it was measured, with the seed.
    """

    num_images: int
    num_scored: int
    num_invalid: int
    accuracy: Estimate
    rows: list[MapRow]
    settings: dict[str, Any] = field(default_factory=dict)

    def row(self, name: str) -> MapRow:
        """
        The row of that name.

        Raises:
            KeyError: if there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"No row is named {name!r}. There are: {', '.join(row.name for row in self.rows)}.")

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain numbers, strings, lists and dictionaries; what is no number is None."""
        return {
            "num_images": self.num_images,
            "num_scored": self.num_scored,
            "num_invalid": self.num_invalid,
            "accuracy": self.accuracy.to_dict(),
            "rows": [row.to_dict() for row in self.rows],
            "settings": self.settings,
        }

    def to_markdown(self) -> str:
        """Tables, the measures that brightness can't buy first, with what must be known to read them."""
        settings = self.settings
        class_of = "its label" if settings.get("target") == "label" else "the model's own prediction"
        level = f"{100 * settings.get('level', 0.95):.0f} %"
        lines = [
            f"{self.num_scored} images, accuracy {_number(self.accuracy, 1)} %. The class watched in an image is "
            f"{class_of}. In brackets: {level} bootstrap intervals. Seed {settings.get('seed', 0)}.",
            "",
            "**What brightness can't buy.** A map shows something if it beats every control here.",
            "",
            *self._table(_HONEST),
            "",
            f"**{self.rows[0].name} less each other map**, paired by image. An interval without 0 is a difference.",
            "",
            *self._difference_table(),
            "",
            "**The paper's measures.** They reward bright maps: read them beside the map's mean and the controls.",
            "",
            *self._table(_PAPER),
        ]
        notes = self._notes()
        return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"

    def _table(self, columns: tuple[_Column, ...]) -> list[str]:
        used = [column for column in columns if any(column[0] in row.scores for row in self.rows)]
        headings = ["map", *(heading for _, heading, _ in used), "mean of map"]
        lines = ["| " + " | ".join(headings) + " |", "|---|" + "---:|" * (len(headings) - 1)]
        for row in self.rows:
            cells = [f"**{row.name}**" if row.kind == "model" else row.name]
            cells += [_number(row.scores.get(name), decimals) for name, _, decimals in used]
            cells.append(_number(row.scores.get("map_mean"), 2, interval=False))
            lines.append("| " + " | ".join(cells) + " |")
        return lines

    def _difference_table(self) -> list[str]:
        used = [column for column in _HONEST if any(column[0] in row.behind_first for row in self.rows)]
        lines = ["| map | " + " | ".join(heading for _, heading, _ in used) + " |", "|---|" + "---:|" * len(used)]
        for row in self.rows[1:]:
            cells = [_number(row.behind_first.get(name), decimals) for name, _, decimals in used]
            lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
        return lines

    def _notes(self) -> list[str]:
        """What must not be overlooked, one line each."""
        notes = []
        watched = self.settings.get("insertion_deletion_images") or 0
        if 0 < watched < self.num_images:
            notes.append(f"- Insertion and deletion are measured on the first {watched} images.")
        if self.num_invalid:
            notes.append(
                f"- {self.num_invalid} of {self.num_images} predictions were not finite; they are in no mean."
            )
        for row in self.rows:
            if row.degenerate and row.kind != "control":
                notes.append(f"- {row.name}: {row.degenerate} of {self.num_images} maps show no evidence at all.")
            if row.tied and row.kind != "control":
                notes.append(
                    f"- {row.name}: {row.tied} maps have equal values at the edge of the kept area; which pixels are "
                    "kept was drawn at random."
                )
            if row.not_finite:
                notes.append(f"- {row.name}: {row.not_finite} maps held values that are not finite, taken as 0.")
            if row.clipped:
                notes.append(f"- {row.name}: {row.clipped} maps left [0, 1] and were clipped.")
            if row.invalid:
                notes.append(f"- {row.name}: {row.invalid} predictions on masked images were not finite; left out.")
            if row.undefined:
                notes.append(
                    f"- {row.name}: localisation is undefined on {row.undefined} images (nothing in the mask "
                    "or in the map); left out."
                )
        return notes


def _number(estimate: Estimate | None, decimals: int, interval: bool = True) -> str:
    if estimate is None:
        return ""
    if math.isnan(estimate.value):
        return "none"
    value = f"{estimate.value:.{decimals}f}"
    return f"{value} [{estimate.low:.{decimals}f}, {estimate.high:.{decimals}f}]" if interval else value
