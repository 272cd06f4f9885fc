"""Measures that need a model, as metrics of `evaluate`: they take the score of each image that the function gave."""

from __future__ import annotations

from torch import Tensor

from antehoc_hf.evaluation.metrics.base import MapMetric, Measure


def _as_they_are(scores: Tensor) -> Tensor:
    if scores.ndim != 1:
        raise ValueError(f"scores must be (N,), one for each image, but their shape is {tuple(scores.shape)}.")
    return scores


def _of_scores(description: str) -> Measure:
    return Measure(description, ("scores",), _as_they_are)


MEASURES = {
    "insertion": _of_scores("`insertion_deletion(…).insertion`, in [0, 1]; higher is better."),
    "deletion": _of_scores("`insertion_deletion(…).deletion`, in [0, 1]; lower is better."),
    "insertion_minus_deletion": _of_scores("`insertion_deletion(…).difference`; higher is better, 0 is chance."),
    "road": _of_scores("`road(…).combined`; higher is better, 0 is chance."),
    "max_sensitivity": _of_scores("`max_sensitivity(…)`; lower is more stable."),
    "randomisation_similarity": _of_scores("One step of `randomisation_similarity(…)`; it should be near 0."),
    "target_similarity": _of_scores("`target_similarity(…)`; 1 for maps that depend on no class."),
    "importance_correlation": _of_scores("`importance_correlation(…).correlation`; higher is better, 0 is chance."),
    "preserved": _of_scores("`part_completeness(…).preserved`; higher is better."),
    "destroyed": _of_scores("`part_completeness(…).destroyed`; higher is better."),
    "target_contrast": _of_scores("`target_contrast(…)`; ½ is chance, 0 for maps that depend on no class."),
}


class Metric(MapMetric):
    """One of MEASURES."""

    @staticmethod
    def measures() -> dict[str, Measure]:
        return MEASURES
