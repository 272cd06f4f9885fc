"""Makes the models known to transformers, so that Auto classes and pipelines find them without remote code."""

from typing import Any

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForImageTextToText,
    AutoModelForKeypointDetection,
)
from transformers.pipelines import PIPELINE_REGISTRY

from antehoc_hf.baselines import BASELINES
from antehoc_hf.model_push import push_model
from antehoc_hf.modeling import (
    AnteHocCaptionModel,
    AnteHocForImageCaptioning,
    AnteHocForImageClassification,
    AnteHocForLandmarkDetection,
    AnteHocImageProcessor,
    AnteHocLandmarkModel,
    AnteHocModel,
    AnteHocPreTrainedModel,
)
from antehoc_hf.pipelines import (
    AnteHocImageCaptioningPipeline,
    AnteHocImageClassificationPipeline,
    AnteHocLandmarkDetectionPipeline,
)


def register() -> None:
    """Registers everything; calling it again does nothing."""
    register_auto_classes()
    register_pipelines()
    # `push_to_hub` brings image processor, tokenizer and card; `from_classifier` reads finished classifiers.
    AnteHocPreTrainedModel.pusher = staticmethod(push_model)
    AnteHocForImageClassification.classifier_reader = staticmethod(_read_classifier)


def register_auto_classes() -> None:
    """Registers configuration, models and image processor; calling it again does nothing."""
    # One class serves both of transformers' backends: it is timm's own transform.
    processors: dict[str, type] = {"torchvision": AnteHocImageProcessor, "pil": AnteHocImageProcessor}
    for auto_class, task_class, bare_class in (
        (AutoModelForImageClassification, AnteHocForImageClassification, AnteHocModel),
        (AutoModelForImageTextToText, AnteHocForImageCaptioning, AnteHocCaptionModel),
        (AutoModelForKeypointDetection, AnteHocForLandmarkDetection, AnteHocLandmarkModel),
    ):
        own_config: Any = task_class.config_class
        AutoConfig.register(own_config.model_type, own_config, exist_ok=True)
        AutoModel.register(own_config, bare_class, exist_ok=True)
        auto_class.register(own_config, task_class, exist_ok=True)
        AutoImageProcessor.register(own_config, image_processor_classes=processors, exist_ok=True)
    for model_class in BASELINES.values():
        config_class: Any = model_class.config_class
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        AutoModelForImageClassification.register(config_class, model_class, exist_ok=True)
        AutoImageProcessor.register(config_class, image_processor_classes=processors, exist_ok=True)


def _read_classifier(source: Any, **options: Any) -> Any:
    from antehoc_hf.sources import read_classifier  # only needed here

    return read_classifier(source, **options)


def register_pipelines() -> None:
    """Registers our pipelines with `transformers.pipeline`; calling it again does nothing."""
    pipelines: dict[str, tuple[type, Any]] = {
        "antehoc-image-classification": (AnteHocImageClassificationPipeline, AutoModelForImageClassification),
        "antehoc-image-captioning": (AnteHocImageCaptioningPipeline, AutoModelForImageTextToText),
        "antehoc-landmark-detection": (AnteHocLandmarkDetectionPipeline, AutoModelForKeypointDetection),
    }
    for task, (pipeline_class, auto_class) in pipelines.items():
        if task not in PIPELINE_REGISTRY.get_supported_tasks():
            PIPELINE_REGISTRY.register_pipeline(task, pipeline_class=pipeline_class, pt_model=auto_class)
