"""Explanations of one model, one line each: `load_explainer("grad-cam", model)(pixel_values)`.

Every method gives maps (B, 1, H, W) in [0, 1] for the same model and the same target, and leaves the model as it was.
"""

from antehoc_hf.explainers.base import Explainer, RawMaps
from antehoc_hf.explainers.measured import measured_explainers
from antehoc_hf.explainers.network import Question
from antehoc_hf.explainers.registry import EXPLAINERS, load_explainer

__all__ = ["EXPLAINERS", "Explainer", "Question", "RawMaps", "load_explainer", "measured_explainers"]
