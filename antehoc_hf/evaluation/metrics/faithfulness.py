"""Drop, Inc, Win and the literature's Average Drop and Increase in Confidence, as metrics of `evaluate`."""

from __future__ import annotations

from antehoc_hf.evaluation.faithfulness import avg_drop_terms, drop_terms, inc_terms, win_terms
from antehoc_hf.evaluation.metrics.base import MapMetric, Measure

_PAIR = ("p_image", "p_energy")
_TOLERANCE = {"tolerance": 0.0}

MEASURES = {
    "drop_cond": Measure(
        "The paper's Drop, percent, over images that lost; lower is better.", _PAIR, drop_terms, _TOLERANCE
    ),
    "inc_cond": Measure(
        "The paper's Inc, percent, over images that gained; higher is better.",
        _PAIR,
        inc_terms,
        {"denominator": "energy", "tolerance": 0.0},
    ),
    "win": Measure("Share of images that gained, percent; higher is better.", _PAIR, win_terms, _TOLERANCE),
    "avg_drop": Measure("Average Drop, percent, over all images; lower is better.", _PAIR, avg_drop_terms, _TOLERANCE),
    "inc_conf": Measure("Increase in Confidence: `win`, under its usual name.", _PAIR, win_terms, _TOLERANCE),
}


class Metric(MapMetric):
    """One of MEASURES."""

    @staticmethod
    def measures() -> dict[str, Measure]:
        return MEASURES
