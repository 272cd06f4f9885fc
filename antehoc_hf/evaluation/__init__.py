"""Measures of maps: functions on tensors, and one report that prints every score beside the controls."""

from antehoc_hf.evaluation.bootstrap import Estimate, bootstrap_mean, bootstrap_means
from antehoc_hf.evaluation.controls import CONTROLS, black_map, center_map, constant_map, random_map, sobel_map
from antehoc_hf.evaluation.faithfulness import avg_drop, class_probability, drop_cond, inc_cond, inc_conf, win
from antehoc_hf.evaluation.insertion_deletion import InsertionDeletion, insertion_deletion
from antehoc_hf.evaluation.localisation import energy_share, energy_share_over_area, pointing_game
from antehoc_hf.evaluation.maps import binarise, binarise_equal_area, degenerate_maps, rank_pixels
from antehoc_hf.evaluation.report import evaluate_maps
from antehoc_hf.evaluation.results import MapReport, MapRow
from antehoc_hf.evaluation.settings import EvaluationSettings

__all__ = [
    "CONTROLS",
    "Estimate",
    "EvaluationSettings",
    "InsertionDeletion",
    "MapReport",
    "MapRow",
    "avg_drop",
    "binarise",
    "binarise_equal_area",
    "black_map",
    "bootstrap_mean",
    "bootstrap_means",
    "center_map",
    "class_probability",
    "constant_map",
    "degenerate_maps",
    "drop_cond",
    "energy_share",
    "energy_share_over_area",
    "evaluate_maps",
    "inc_cond",
    "inc_conf",
    "insertion_deletion",
    "pointing_game",
    "random_map",
    "rank_pixels",
    "sobel_map",
    "win",
]
