"""What travels with every checkpoint: configuration, models, maps and image processor. Imports nothing of ours."""

from .configuration_antehoc import AnteHocConfig
from .image_captioning import AnteHocForImageCaptioning
from .image_classification import AnteHocForImageClassification
from .image_processing_antehoc import AnteHocImageProcessor
from .landmark_detection import AnteHocForLandmarkDetection
from .modeling_antehoc import AnteHocModel, AnteHocPreTrainedModel
from .outputs import (
    AnteHocCaptionOutput,
    AnteHocImageCaptioningOutput,
    AnteHocImageClassifierOutput,
    AnteHocImageEncoderOutput,
    AnteHocLandmarkOutput,
    AnteHocModelOutput,
    AnteHocOutput,
)

__all__ = [
    "AnteHocCaptionOutput",
    "AnteHocConfig",
    "AnteHocForImageCaptioning",
    "AnteHocForImageClassification",
    "AnteHocForLandmarkDetection",
    "AnteHocImageCaptioningOutput",
    "AnteHocImageClassifierOutput",
    "AnteHocImageEncoderOutput",
    "AnteHocImageProcessor",
    "AnteHocLandmarkOutput",
    "AnteHocModel",
    "AnteHocModelOutput",
    "AnteHocOutput",
    "AnteHocPreTrainedModel",
]
