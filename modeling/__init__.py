"""What travels with every checkpoint: configuration, models, maps and image processor. Imports nothing of ours."""

from .caption_outputs import AnteHocCaptionOutput, AnteHocImageCaptioningOutput
from .configuration_antehoc import AnteHocConfig, register_map_head
from .configuration_captions import AnteHocCaptionConfig
from .configuration_landmarks import AnteHocLandmarkConfig
from .contribution_map import ContributionMap, ContributionMapConfig
from .energy_map import EnergyMap, EnergyMapConfig
from .image_captioning import AnteHocCaptionModel, AnteHocForImageCaptioning
from .image_classification import AnteHocForImageClassification, AnteHocImageClassifierOutput
from .image_processing_antehoc import AnteHocImageProcessor
from .landmark_detection import AnteHocForLandmarkDetection, AnteHocLandmarkModel, AnteHocLandmarkOutput
from .map_head import Explanation, MapHead, MapHeadConfig, Targets
from .modeling_antehoc import AnteHocModel, AnteHocModelOutput, AnteHocPreTrainedModel

__all__ = [
    "AnteHocCaptionConfig",
    "AnteHocCaptionModel",
    "AnteHocCaptionOutput",
    "AnteHocConfig",
    "AnteHocForImageCaptioning",
    "AnteHocForImageClassification",
    "AnteHocForLandmarkDetection",
    "AnteHocImageCaptioningOutput",
    "AnteHocImageClassifierOutput",
    "AnteHocImageProcessor",
    "AnteHocLandmarkConfig",
    "AnteHocLandmarkModel",
    "AnteHocLandmarkOutput",
    "AnteHocModel",
    "AnteHocModelOutput",
    "AnteHocPreTrainedModel",
    "ContributionMap",
    "ContributionMapConfig",
    "EnergyMap",
    "EnergyMapConfig",
    "Explanation",
    "MapHead",
    "MapHeadConfig",
    "Targets",
    "register_map_head",
]
