"""Pictures of maps: what the model saw, what it looked at, and whether it was right, at a glance."""

from antehoc_hf.visualization.comparison import comparison
from antehoc_hf.visualization.images import denormalise, overlay, photo_parts
from antehoc_hf.visualization.panel import Caption, panel

__all__ = ["Caption", "comparison", "denormalise", "overlay", "panel", "photo_parts"]
