"""Concepts: dominant regions of maps, and what classes owe to concepts that people name (TCAV, Visual-TCAV)."""

from antehoc_hf.concepts.images import concept_images
from antehoc_hf.concepts.regions import dominant_regions
from antehoc_hf.concepts.tcav import TCAV
from antehoc_hf.concepts.visual_tcav import VisualTCAV

__all__ = ["TCAV", "VisualTCAV", "concept_images", "dominant_regions"]
