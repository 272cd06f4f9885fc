"""Pipelines of our own: a prediction together with its map. They are registered by `import antehoc_hf`."""

from antehoc_hf.pipelines.image_captioning import AnteHocImageCaptioningPipeline
from antehoc_hf.pipelines.image_classification import AnteHocImageClassificationPipeline
from antehoc_hf.pipelines.landmark_detection import AnteHocLandmarkDetectionPipeline

__all__ = ["AnteHocImageCaptioningPipeline", "AnteHocImageClassificationPipeline", "AnteHocLandmarkDetectionPipeline"]
