"""Measures of maps: functions on tensors, and one report that prints every score beside the controls."""

from antehoc_hf.evaluation.bootstrap import Estimate, bootstrap_mean, bootstrap_means
from antehoc_hf.evaluation.captions import (
    CaptionMapReport,
    bleu,
    caption_probability,
    evaluate_caption_maps,
    normalise_caption,
)
from antehoc_hf.evaluation.controls import CONTROLS, black_map, center_map, constant_map, random_map, sobel_map
from antehoc_hf.evaluation.faithfulness import avg_drop, class_probability, drop_cond, inc_cond, inc_conf, win
from antehoc_hf.evaluation.insertion_deletion import InsertionDeletion, insertion_deletion
from antehoc_hf.evaluation.landmark_report import LandmarkMapReport, LandmarkSettings, evaluate_landmark_maps
from antehoc_hf.evaluation.landmarks import hull_mask, landmark_metrics, nme
from antehoc_hf.evaluation.localisation import energy_share, energy_share_over_area, pointing_game
from antehoc_hf.evaluation.maps import binarise, binarise_equal_area, degenerate_maps, rank_pixels
from antehoc_hf.evaluation.report import evaluate_maps
from antehoc_hf.evaluation.results import MapReport, MapRow
from antehoc_hf.evaluation.settings import EvaluationSettings

__all__ = [
    "CONTROLS",
    "CaptionMapReport",
    "Estimate",
    "EvaluationSettings",
    "InsertionDeletion",
    "LandmarkMapReport",
    "LandmarkSettings",
    "MapReport",
    "MapRow",
    "avg_drop",
    "binarise",
    "binarise_equal_area",
    "black_map",
    "bleu",
    "bootstrap_mean",
    "bootstrap_means",
    "caption_probability",
    "center_map",
    "class_probability",
    "constant_map",
    "degenerate_maps",
    "drop_cond",
    "energy_share",
    "energy_share_over_area",
    "evaluate_caption_maps",
    "evaluate_landmark_maps",
    "evaluate_maps",
    "hull_mask",
    "inc_cond",
    "inc_conf",
    "insertion_deletion",
    "landmark_metrics",
    "nme",
    "normalise_caption",
    "pointing_game",
    "random_map",
    "rank_pixels",
    "sobel_map",
    "win",
]
