"""
How far maps can be trusted: functions on tensors, reports that print every score next to those of maps that explain
nothing, and one registry of metrics.

`evaluate_maps` takes models of all three tasks; `register_metric` adds a metric to every report, card and to
`load_metric`. What can be measured on `shapes` alone is in `antehoc_hf.evaluation.shapes_parts`.
"""

from antehoc_hf.evaluation.bootstrap import Estimate, bootstrap_mean, paired_difference
from antehoc_hf.evaluation.captions import bleu, caption_probability
from antehoc_hf.evaluation.complexity import map_entropy, map_gini, map_mean
from antehoc_hf.evaluation.controls import CONTROLS, center_map, constant_map, random_map, sobel_map
from antehoc_hf.evaluation.faithfulness import avg_drop, class_probability, drop_cond, inc_cond, win
from antehoc_hf.evaluation.insertion_deletion import insertion_deletion
from antehoc_hf.evaluation.landmarks import landmark_metrics, nme
from antehoc_hf.evaluation.loading import load_metric
from antehoc_hf.evaluation.localisation import (
    energy_share,
    energy_share_over_area,
    iou,
    pointing_game,
    relevance_rank,
)
from antehoc_hf.evaluation.maps import binarise, binarise_equal_area
from antehoc_hf.evaluation.metric import METRICS, Metric, metric_path, register_metric
from antehoc_hf.evaluation.parts import importance_correlation, important_parts, part_importance
from antehoc_hf.evaluation.report import evaluate_maps
from antehoc_hf.evaluation.results import MapReport, MapRow
from antehoc_hf.evaluation.road import road
from antehoc_hf.evaluation.sanity import randomisation_similarity, target_similarity
from antehoc_hf.evaluation.sanity_report import evaluate_sanity
from antehoc_hf.evaluation.scorer import Scorer
from antehoc_hf.evaluation.settings import EvaluationSettings
from antehoc_hf.evaluation.stability import drop_change, inc_change, map_similarity, max_sensitivity, salt_and_pepper
from antehoc_hf.evaluation.stability_report import evaluate_stability

__all__ = [
    "CONTROLS",
    "METRICS",
    "Estimate",
    "EvaluationSettings",
    "MapReport",
    "MapRow",
    "Metric",
    "Scorer",
    "avg_drop",
    "binarise",
    "binarise_equal_area",
    "bleu",
    "bootstrap_mean",
    "caption_probability",
    "center_map",
    "class_probability",
    "constant_map",
    "drop_change",
    "drop_cond",
    "energy_share",
    "energy_share_over_area",
    "evaluate_maps",
    "evaluate_sanity",
    "evaluate_stability",
    "importance_correlation",
    "important_parts",
    "inc_change",
    "inc_cond",
    "insertion_deletion",
    "iou",
    "landmark_metrics",
    "load_metric",
    "map_entropy",
    "map_gini",
    "map_mean",
    "map_similarity",
    "max_sensitivity",
    "metric_path",
    "nme",
    "paired_difference",
    "part_importance",
    "pointing_game",
    "random_map",
    "randomisation_similarity",
    "register_metric",
    "relevance_rank",
    "road",
    "salt_and_pepper",
    "sobel_map",
    "target_similarity",
    "win",
]
