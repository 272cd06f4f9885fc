"""
Vision models that explain themselves: any timm backbone predicts and shows what it looked at, in one forward pass.

Importing this package registers the models with transformers' Auto classes and pipelines.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

try:
    from antehoc_hf.modeling import (
        AnteHocConfig,
        AnteHocForImageCaptioning,
        AnteHocForImageClassification,
        AnteHocForLandmarkDetection,
        AnteHocImageProcessor,
        AnteHocModel,
        AnteHocPreTrainedModel,
    )
except ModuleNotFoundError as error:
    if error.name != "antehoc_hf.modeling":
        raise
    raise ImportError(
        "antehoc_hf is being imported from a checkout that is not installed: run `pip install -e .` in it first."
    ) from None

from antehoc_hf.registration import register_auto_classes, register_pipelines, register_push, register_sources

if TYPE_CHECKING:
    from antehoc_hf.shapes import load_shapes
    from antehoc_hf.training import AnteHocTrainer, AnteHocTrainingArguments

try:
    __version__ = version("antehoc-hf")
except PackageNotFoundError:  # e.g. a zipped copy
    __version__ = "unknown"

# Names that cost an import of datasets or the Trainer are looked up on first use.
_LAZY = {
    "AnteHocTrainer": "antehoc_hf.training",
    "AnteHocTrainingArguments": "antehoc_hf.training",
    "load_shapes": "antehoc_hf.shapes",
}

__all__ = [
    "AnteHocConfig",
    "AnteHocForImageCaptioning",
    "AnteHocForImageClassification",
    "AnteHocForLandmarkDetection",
    "AnteHocImageProcessor",
    "AnteHocModel",
    "AnteHocPreTrainedModel",
    "AnteHocTrainer",
    "AnteHocTrainingArguments",
    "load_shapes",
]

register_auto_classes()
register_pipelines()
register_push()
register_sources()


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'antehoc_hf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
