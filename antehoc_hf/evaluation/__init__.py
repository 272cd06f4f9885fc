"""Measures of maps: functions on tensors, and one report that prints every score beside the controls."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from antehoc_hf.evaluation.bootstrap import Estimate, bootstrap_mean, bootstrap_means, mean_change, paired_difference
from antehoc_hf.evaluation.captions import (
    CaptionMapReport,
    bleu,
    caption_probability,
    evaluate_caption_maps,
    normalise_caption,
)
from antehoc_hf.evaluation.complexity import map_entropy, map_gini, map_mean
from antehoc_hf.evaluation.controls import CONTROLS, black_map, center_map, constant_map, random_map, sobel_map
from antehoc_hf.evaluation.faithfulness import avg_drop, class_probability, drop_cond, inc_cond, inc_conf, win
from antehoc_hf.evaluation.imputation import linear_imputation, noisy_linear_imputation
from antehoc_hf.evaluation.insertion_deletion import InsertionDeletion, insertion_deletion
from antehoc_hf.evaluation.landmark_report import LandmarkMapReport, LandmarkSettings, evaluate_landmark_maps
from antehoc_hf.evaluation.landmarks import hull_mask, landmark_metrics, nme
from antehoc_hf.evaluation.localisation import (
    energy_share,
    energy_share_over_area,
    iou,
    pointing_game,
    relevance_rank,
)
from antehoc_hf.evaluation.maps import binarise, binarise_equal_area, degenerate_maps, rank_pixels
from antehoc_hf.evaluation.metrics import METRICS, load_metric, metric_path
from antehoc_hf.evaluation.report import evaluate_maps
from antehoc_hf.evaluation.results import MapReport, MapRow
from antehoc_hf.evaluation.road import Road, road
from antehoc_hf.evaluation.sanity import (
    cascade,
    model_similarity,
    randomisation_similarity,
    randomisation_steps,
    randomised,
    target_similarity,
)
from antehoc_hf.evaluation.sanity_report import evaluate_sanity
from antehoc_hf.evaluation.score_table import ScoreTable
from antehoc_hf.evaluation.settings import EvaluationSettings
from antehoc_hf.evaluation.stability import (
    drop_change,
    inc_change,
    map_similarity,
    max_sensitivity,
    salt_and_pepper,
)
from antehoc_hf.evaluation.stability_report import evaluate_stability

if TYPE_CHECKING:
    from antehoc_hf.evaluation.parts import (
        Completeness,
        ImportanceCorrelation,
        images_without,
        importance_correlation,
        important_parts,
        part_completeness,
        part_importance,
        region_masks,
        removal_effects,
        sharing_classes,
        target_contrast,
    )

# Names that cost an import of datasets are looked up on first use.
_OF_PARTS = (
    "Completeness",
    "ImportanceCorrelation",
    "images_without",
    "importance_correlation",
    "important_parts",
    "part_completeness",
    "part_importance",
    "region_masks",
    "removal_effects",
    "sharing_classes",
    "target_contrast",
)

__all__ = [
    "CONTROLS",
    "METRICS",
    "CaptionMapReport",
    "Completeness",
    "Estimate",
    "EvaluationSettings",
    "ImportanceCorrelation",
    "InsertionDeletion",
    "LandmarkMapReport",
    "LandmarkSettings",
    "MapReport",
    "MapRow",
    "Road",
    "ScoreTable",
    "avg_drop",
    "binarise",
    "binarise_equal_area",
    "black_map",
    "bleu",
    "bootstrap_mean",
    "bootstrap_means",
    "caption_probability",
    "cascade",
    "center_map",
    "class_probability",
    "constant_map",
    "degenerate_maps",
    "drop_change",
    "drop_cond",
    "energy_share",
    "energy_share_over_area",
    "evaluate_caption_maps",
    "evaluate_landmark_maps",
    "evaluate_maps",
    "evaluate_sanity",
    "evaluate_stability",
    "hull_mask",
    "images_without",
    "importance_correlation",
    "important_parts",
    "inc_change",
    "inc_cond",
    "inc_conf",
    "insertion_deletion",
    "iou",
    "landmark_metrics",
    "linear_imputation",
    "load_metric",
    "map_entropy",
    "map_gini",
    "map_mean",
    "map_similarity",
    "max_sensitivity",
    "mean_change",
    "metric_path",
    "model_similarity",
    "nme",
    "noisy_linear_imputation",
    "normalise_caption",
    "paired_difference",
    "part_completeness",
    "part_importance",
    "pointing_game",
    "random_map",
    "randomisation_similarity",
    "randomisation_steps",
    "randomised",
    "rank_pixels",
    "region_masks",
    "relevance_rank",
    "removal_effects",
    "road",
    "salt_and_pepper",
    "sharing_classes",
    "sobel_map",
    "target_contrast",
    "target_similarity",
    "win",
]


def __getattr__(name: str) -> Any:
    if name in _OF_PARTS:
        return getattr(import_module("antehoc_hf.evaluation.parts"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
