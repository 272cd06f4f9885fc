"""Pictures of maps: what the model saw, what it looked at, and whether it was right, at a glance."""

from antehoc_hf.visualization.captions import Described, caption_panel, word_map_strip
from antehoc_hf.visualization.comparison import comparison
from antehoc_hf.visualization.images import COLORMAP, denormalise, overlay
from antehoc_hf.visualization.landmarks import figure_of_landmarks, figure_of_parts, landmark_panel
from antehoc_hf.visualization.panel import Caption, panel
from antehoc_hf.visualization.predictions import figure_of_predictions

__all__ = [
    "COLORMAP",
    "Caption",
    "Described",
    "caption_panel",
    "comparison",
    "denormalise",
    "figure_of_landmarks",
    "figure_of_parts",
    "figure_of_predictions",
    "landmark_panel",
    "overlay",
    "panel",
    "word_map_strip",
]
