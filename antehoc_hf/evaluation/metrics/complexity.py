"""How much maps show, as metrics of `evaluate`."""

from __future__ import annotations

from antehoc_hf.evaluation.complexity import map_entropy, map_gini, map_mean
from antehoc_hf.evaluation.metrics.base import MapMetric, Measure

MEASURES = {
    "map_mean": Measure("Mean value of the map: its brightness.", ("maps",), map_mean),
    "map_entropy": Measure(
        "Entropy of the map as a distribution, in [0, 1]; 1 for constant maps.", ("maps",), map_entropy
    ),
    "map_gini": Measure("Gini index of the map's values, in [0, 1); 0 for constant maps.", ("maps",), map_gini),
}


class Metric(MapMetric):
    """One of MEASURES."""

    @staticmethod
    def measures() -> dict[str, Measure]:
        return MEASURES
