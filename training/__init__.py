"""Training in two passes: the trainer and its arguments, data sets by name, and whole runs by recipe."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antehoc_hf.training.arguments import AnteHocTrainingArguments
    from antehoc_hf.training.data import load_image_data
    from antehoc_hf.training.trainer import AnteHocTrainer

# Looked up on first use: the data loading needs no trainer.
_HOMES = {"AnteHocTrainer": "trainer", "AnteHocTrainingArguments": "arguments", "load_image_data": "data"}

__all__ = ["AnteHocTrainer", "AnteHocTrainingArguments", "load_image_data"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"antehoc_hf.training.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'antehoc_hf.training' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
