"""Makes the models known to transformers, so that Auto classes and pipelines find them without remote code."""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification

from antehoc_hf.modeling import AnteHocConfig, AnteHocForImageClassification, AnteHocImageProcessor, AnteHocModel


def register_auto_classes() -> None:
    """Registers configuration, models and image processor; calling it again does nothing."""
    AutoConfig.register(AnteHocConfig.model_type, AnteHocConfig, exist_ok=True)
    AutoModel.register(AnteHocConfig, AnteHocModel, exist_ok=True)
    AutoModelForImageClassification.register(AnteHocConfig, AnteHocForImageClassification, exist_ok=True)
    # One class serves both of transformers' backends: it is timm's own transform.
    processors: dict[str, type] = {"torchvision": AnteHocImageProcessor, "pil": AnteHocImageProcessor}
    AutoImageProcessor.register(AnteHocConfig, image_processor_classes=processors, exist_ok=True)
