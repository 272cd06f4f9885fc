"""How far maps can be trusted: functions on tensors, reports that print every score next to those of maps that explain
nothing, and one registry of metrics.

`evaluate_maps` takes models of all three tasks; `register_metric` adds a metric to every report, card and to
`load_metric`. What can be measured on `shapes` alone is in `antehoc_hf.evaluation.shapes_parts`.
"""

from antehoc_hf.evaluation.bootstrap import bootstrap_mean, paired_difference
from antehoc_hf.evaluation.complexity import map_mean
from antehoc_hf.evaluation.controls import CONTROLS
from antehoc_hf.evaluation.faithfulness import avg_drop, drop_cond, inc_cond, win
from antehoc_hf.evaluation.insertion_deletion import insertion_deletion
from antehoc_hf.evaluation.loading import load_metric
from antehoc_hf.evaluation.localisation import energy_share, pointing_game
from antehoc_hf.evaluation.metric import METRICS, Metric, metric_path, register_metric
from antehoc_hf.evaluation.parts import importance_correlation
from antehoc_hf.evaluation.report import evaluate_maps
from antehoc_hf.evaluation.road import road
from antehoc_hf.evaluation.sanity_report import evaluate_sanity
from antehoc_hf.evaluation.scorer import Scorer
from antehoc_hf.evaluation.settings import EvaluationSettings
from antehoc_hf.evaluation.stability_report import evaluate_stability

__all__ = [
    "CONTROLS",
    "METRICS",
    "EvaluationSettings",
    "Metric",
    "Scorer",
    "avg_drop",
    "bootstrap_mean",
    "drop_cond",
    "energy_share",
    "evaluate_maps",
    "evaluate_sanity",
    "evaluate_stability",
    "importance_correlation",
    "inc_cond",
    "insertion_deletion",
    "load_metric",
    "map_mean",
    "metric_path",
    "paired_difference",
    "pointing_game",
    "register_metric",
    "road",
    "win",
]
