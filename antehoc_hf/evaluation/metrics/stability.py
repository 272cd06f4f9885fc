"""Changes of Drop and Inc under noise, and of maps, as metrics of `evaluate`."""

from __future__ import annotations

import torch
from torch import Tensor

from antehoc_hf.evaluation.faithfulness import IncDenominator, drop_terms, inc_terms
from antehoc_hf.evaluation.metrics.base import MapMetric, Measure
from antehoc_hf.evaluation.stability import map_similarity

_FOUR = ("p_image", "p_energy", "p_noisy_image", "p_noisy_energy")


def _drop_pairs(
    p_image: Tensor, p_energy: Tensor, p_noisy_image: Tensor, p_noisy_energy: Tensor, tolerance: float
) -> Tensor:
    pair = drop_terms(p_image, p_energy, tolerance), drop_terms(p_noisy_image, p_noisy_energy, tolerance)
    return torch.stack(pair, dim=1)


def _inc_pairs(
    p_image: Tensor,
    p_energy: Tensor,
    p_noisy_image: Tensor,
    p_noisy_energy: Tensor,
    denominator: IncDenominator,
    tolerance: float,
) -> Tensor:
    clean = inc_terms(p_image, p_energy, denominator, tolerance)
    return torch.stack([clean, inc_terms(p_noisy_image, p_noisy_energy, denominator, tolerance)], dim=1)


MEASURES = {
    "drop_change": Measure(
        "The paper's CD: change of Drop under noise, percentage points; lower is more stable.",
        _FOUR,
        _drop_pairs,
        {"tolerance": 0.0},
    ),
    "inc_change": Measure(
        "The paper's CI: change of Inc under noise, percentage points; lower is more stable.",
        _FOUR,
        _inc_pairs,
        {"denominator": "energy", "tolerance": 0.0},
    ),
    "map_similarity": Measure(
        "Rank correlation of two maps of an image, in [−1, 1].", ("maps", "other_maps"), map_similarity
    ),
}


class Metric(MapMetric):
    """One of MEASURES."""

    @staticmethod
    def measures() -> dict[str, Measure]:
        return MEASURES
