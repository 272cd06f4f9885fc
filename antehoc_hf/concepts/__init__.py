"""Concepts: dominant regions of maps, and what classes owe to concepts that people name (TCAV, Visual-TCAV)."""

from antehoc_hf.concepts.images import concept_images
from antehoc_hf.concepts.regions import Region, dominant_regions
from antehoc_hf.concepts.tcav import TCAV, TcavResult
from antehoc_hf.concepts.visual_tcav import GlobalExplanation, LocalExplanation, VisualTCAV

__all__ = [
    "TCAV",
    "GlobalExplanation",
    "LocalExplanation",
    "Region",
    "TcavResult",
    "VisualTCAV",
    "concept_images",
    "dominant_regions",
]
