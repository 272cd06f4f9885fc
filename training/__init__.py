"""Training in two passes: the trainer and its arguments, data sets by name, and whole runs by recipe."""

from typing import TYPE_CHECKING

from antehoc_hf.lazy import lazy_names

if TYPE_CHECKING:
    from antehoc_hf.training.arguments import AnteHocTrainingArguments
    from antehoc_hf.training.data import load_image_data
    from antehoc_hf.training.trainer import AnteHocTrainer

__all__ = ["AnteHocTrainer", "AnteHocTrainingArguments", "load_image_data"]

# Looked up on first use: the data loading needs no trainer.
_HOMES = {"AnteHocTrainer": "trainer", "AnteHocTrainingArguments": "arguments", "load_image_data": "data"}
__getattr__, __dir__ = lazy_names(__name__, {name: f"{__name__}.{home}" for name, home in _HOMES.items()})
