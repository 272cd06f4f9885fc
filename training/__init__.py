"""Training in two passes: the trainer and its arguments, data sets by name, and whole runs by recipe."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antehoc_hf.training.arguments import AnteHocTrainingArguments
    from antehoc_hf.training.checkpoints import RunFolderError, last_whole_checkpoint
    from antehoc_hf.training.data import ImageData, load_image_data
    from antehoc_hf.training.data.augmentation import AUGMENTATIONS
    from antehoc_hf.training.data.errors import BadImageError, DataError, LabelError
    from antehoc_hf.training.metrics import metrics_of
    from antehoc_hf.training.panels import PanelCallback
    from antehoc_hf.training.runs.recipes import read_recipe, recipe_names
    from antehoc_hf.training.trainer import AnteHocTrainer

# Looked up on first use: the data loading needs no trainer, and neither needs matplotlib.
_HOMES = {
    "AUGMENTATIONS": "data.augmentation",
    "AnteHocTrainer": "trainer",
    "AnteHocTrainingArguments": "arguments",
    "BadImageError": "data.errors",
    "DataError": "data.errors",
    "ImageData": "data",
    "LabelError": "data.errors",
    "PanelCallback": "panels",
    "RunFolderError": "checkpoints",
    "last_whole_checkpoint": "checkpoints",
    "load_image_data": "data",
    "metrics_of": "metrics",
    "read_recipe": "runs.recipes",
    "recipe_names": "runs.recipes",
}

__all__ = [
    "AUGMENTATIONS",
    "AnteHocTrainer",
    "AnteHocTrainingArguments",
    "BadImageError",
    "DataError",
    "ImageData",
    "LabelError",
    "PanelCallback",
    "RunFolderError",
    "last_whole_checkpoint",
    "load_image_data",
    "metrics_of",
    "read_recipe",
    "recipe_names",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"antehoc_hf.training.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'antehoc_hf.training' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
