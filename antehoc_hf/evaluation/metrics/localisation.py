"""Agreement of maps with masks, as metrics of `evaluate`."""

from __future__ import annotations

from antehoc_hf.evaluation.localisation import (
    energy_share,
    energy_share_over_area,
    iou,
    pointing_game,
    relevance_rank,
)
from antehoc_hf.evaluation.metrics.base import MapMetric, Measure

_PAIR = ("maps", "masks")

MEASURES = {
    "energy_share": Measure("Part of the map's sum inside the mask, in [0, 1].", _PAIR, energy_share),
    "energy_share_over_area": Measure("The same over the mask's area; 1 is chance.", _PAIR, energy_share_over_area),
    "pointing_game": Measure(
        "Share of maps whose largest value is in the mask.", _PAIR, pointing_game, {"tolerance": 0}, drawn=True
    ),
    "relevance_rank": Measure(
        "Part of the K largest values in the mask of K pixels; the mask's area is chance.",
        _PAIR,
        relevance_rank,
        drawn=True,
    ),
    "iou": Measure(
        "Intersection over union of mask and binarised map, in [0, 1].", _PAIR, iou, {"threshold": None}, drawn=True
    ),
}


class Metric(MapMetric):
    """One of MEASURES."""

    @staticmethod
    def measures() -> dict[str, Measure]:
        return MEASURES
