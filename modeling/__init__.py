"""What travels with every checkpoint: configuration, models, maps and image processor. Imports nothing of ours."""

from .configuration_antehoc import AnteHocConfig
from .image_classification import AnteHocForImageClassification
from .image_processing_antehoc import AnteHocImageProcessor
from .modeling_antehoc import AnteHocModel, AnteHocPreTrainedModel
from .outputs import AnteHocImageClassifierOutput, AnteHocModelOutput, AnteHocOutput

__all__ = [
    "AnteHocConfig",
    "AnteHocForImageClassification",
    "AnteHocImageClassifierOutput",
    "AnteHocImageProcessor",
    "AnteHocModel",
    "AnteHocModelOutput",
    "AnteHocOutput",
    "AnteHocPreTrainedModel",
]
