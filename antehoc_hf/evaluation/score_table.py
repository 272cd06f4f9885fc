"""Scores by map and measure with their intervals: the plain result of an evaluation, as JSON and as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from antehoc_hf.evaluation.bootstrap import Estimate


@dataclass(frozen=True)
class ScoreTable:
    """
    What an evaluation found.

    Attributes:
        title (`str`): what was measured, in a sentence.
        num_images (`int`): images seen.
        scores (`dict`): name of the map → name of the measure → its mean with the interval; NaN where it says nothing.
        decimals (`dict`): measure → decimals in the table, 2 where nothing is said.
        settings (`dict`): how it was measured, with the seed.
        notes (`list[str]`): what must not be overlooked.
    """

    title: str
    num_images: int
    scores: Mapping[str, Mapping[str, Estimate]]
    decimals: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain numbers, strings, lists and dictionaries; what is no number is None."""
        scores = {
            row: {measure: estimate.to_dict() for measure, estimate in of_row.items()}
            for row, of_row in self.scores.items()
        }
        return {
            "title": self.title,
            "num_images": self.num_images,
            "scores": scores,
            "settings": dict(self.settings),
            "notes": list(self.notes),
        }

    def to_markdown(self) -> str:
        """A table with the intervals in brackets."""
        measures = list(dict.fromkeys(measure for of_row in self.scores.values() for measure in of_row))
        lines = [f"{self.title} {self.num_images} images, seed {self.settings.get('seed', 0)}.", ""]
        lines += ["| map | " + " | ".join(measures) + " |", "|---|" + "---:|" * len(measures)]
        for row, of_row in self.scores.items():
            cells = [_cell(of_row.get(measure), self.decimals.get(measure, 2)) for measure in measures]
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
        return "\n".join([*lines, *([""] if self.notes else []), *(f"- {note}" for note in self.notes)]) + "\n"


def _cell(estimate: Estimate | None, decimals: int) -> str:
    if estimate is None:
        return ""
    if math.isnan(estimate.value):
        return "none"
    low, high = f"{estimate.low:.{decimals}f}", f"{estimate.high:.{decimals}f}"
    return f"{estimate.value:.{decimals}f} [{low}, {high}]"
