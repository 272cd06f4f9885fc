"""Pictures of maps: what the model saw, what it looked at, and whether it was right, at a glance."""

from antehoc_hf.visualization.comparison import comparison
from antehoc_hf.visualization.images import denormalise, overlay, photo_parts
from antehoc_hf.visualization.landmarks import figure_of_landmarks, figure_of_parts
from antehoc_hf.visualization.panel import Caption, panel
from antehoc_hf.visualization.predictions import figure_of_predictions

__all__ = [
    "Caption",
    "comparison",
    "denormalise",
    "figure_of_landmarks",
    "figure_of_parts",
    "figure_of_predictions",
    "overlay",
    "panel",
    "photo_parts",
]
