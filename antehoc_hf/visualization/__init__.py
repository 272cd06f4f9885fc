"""Pictures of maps: what the model saw, what it looked at, and whether it was right, at a glance."""

from antehoc_hf.visualization.comparison import comparison
from antehoc_hf.visualization.images import COLORMAP, denormalise, overlay
from antehoc_hf.visualization.panel import Caption, panel
from antehoc_hf.visualization.predictions import figure_of_predictions

__all__ = ["COLORMAP", "Caption", "comparison", "denormalise", "figure_of_predictions", "overlay", "panel"]
