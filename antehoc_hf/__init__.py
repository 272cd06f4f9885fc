"""Vision models that explain themselves: any timm backbone predicts and shows what it looked at, in one forward pass.

Importing this package registers the models with transformers' Auto classes and pipelines.
"""

import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from antehoc_hf.lazy import lazy_names

if TYPE_CHECKING:
    from antehoc_hf.attaching import attach
    from antehoc_hf.modeling import (
        AnteHocConfig,
        AnteHocForImageCaptioning,
        AnteHocForImageClassification,
        AnteHocForLandmarkDetection,
        AnteHocImageProcessor,
        AnteHocModel,
        AnteHocPreTrainedModel,
    )
    from antehoc_hf.shapes import load_shapes
    from antehoc_hf.training import AnteHocTrainer, AnteHocTrainingArguments

try:
    __version__ = version("antehoc-hf")
except PackageNotFoundError:  # e.g. a zipped copy
    __version__ = "unknown"

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
    "attach",
    "load_shapes",
]

_HOMES = dict.fromkeys(__all__, "antehoc_hf.modeling") | {
    "AnteHocTrainer": "antehoc_hf.training",
    "AnteHocTrainingArguments": "antehoc_hf.training",
    "attach": "antehoc_hf.attaching",
    "load_shapes": "antehoc_hf.shapes",
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)


def _is_the_command_line() -> bool:
    """Whether this process is `antehoc …` or `python -m antehoc_hf …`. Registering imports torch, and help need not
    wait for that: there `antehoc_hf.cli` registers once a command has understood its options.
    """
    program = Path(sys.argv[0]).stem if sys.argv else ""
    following = dict(zip(sys.orig_argv, sys.orig_argv[1:], strict=False))
    return program == "antehoc" or (program == "-m" and following.get("-m") == "antehoc_hf")


if find_spec("antehoc_hf.modeling") is None:
    raise ImportError(
        "antehoc_hf is being imported from a checkout that is not installed: run `pip install -e .` in it first."
    )
if not _is_the_command_line():
    from antehoc_hf.registration import register

    register()
