"""Explanations of one model, one line each: `load_explainer("grad-cam", model)(pixel_values)`.

Every method gives maps (B, 1, H, W) in [0, 1] for the same model and the same target, and leaves the model as it was.
"""

from typing import TYPE_CHECKING

from antehoc_hf.explainers.registry import EXPLAINERS, load_explainer
from antehoc_hf.lazy import lazy_names

if TYPE_CHECKING:
    from antehoc_hf.explainers.base import Explainer, RawMaps
    from antehoc_hf.explainers.measured import measured_explainers
    from antehoc_hf.explainers.network import Question

__all__ = ["EXPLAINERS", "Explainer", "Question", "RawMaps", "load_explainer", "measured_explainers"]

# What needs torch; a command checks names of methods before it is imported.
_HOMES = {
    "Explainer": "antehoc_hf.explainers.base",
    "RawMaps": "antehoc_hf.explainers.base",
    "Question": "antehoc_hf.explainers.network",
    "measured_explainers": "antehoc_hf.explainers.measured",
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
