"""ONNX: one graph from pixels to logits and interpretation map."""

import argparse
import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from antehoc_hf.evaluation.mode import evaluation_mode

OUTPUTS = ("logits", "interpretation_map")


class _LogitsAndMap(nn.Module):
    """What the graph computes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.model(pixel_values)
        return outputs.logits, outputs.interpretation_map


def export_onnx(model_or_folder: Any, path: str | Path) -> Path:
    """
    Writes a classifier as ONNX.

    The graph takes `pixel_values` (B, 3, H, W), normalised, of any batch size and the model's own H and W, and gives
    `logits` (B, num_labels) and `interpretation_map` (B, 1, H, W) in [0, 1]. Its metadata hold `image_size`,
    `image_mean`, `image_std` and `id2label` as JSON.

    Args:
        model_or_folder (`AnteHocForImageClassification`, `str` or `Path`): a model, left as it was, or the folder or
            Hub name of one.
        path (`str` or `Path`): the file to write; folders are made.

    Returns:
        `Path`: the file.

    Raises:
        ValueError: if it is no classifier, or the packages that ONNX needs are missing.
        OSError: if the model cannot be loaded or the file not written.
    """
    _check_packages()
    model = _loaded(model_or_folder)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = model.config.image_size
    # Two images: with one, the batch would be taken for a constant.
    example = torch.zeros(2, 3, height, width, device=model.device, dtype=model.dtype)
    with evaluation_mode(model), torch.no_grad(), _quietly():
        program: Any = torch.onnx.export(
            _LogitsAndMap(model).eval(),
            (example,),
            dynamo=True,
            input_names=["pixel_values"],
            output_names=list(OUTPUTS),
            dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    names = ("image_size", "image_mean", "image_std", "id2label")
    program.model.metadata_props.update({name: json.dumps(getattr(model.config, name)) for name in names})
    program.save(str(path), external_data=False)
    return path


def export_command(argv: Sequence[str]) -> None:
    """`antehoc export MODEL --output model.onnx`."""
    parser = argparse.ArgumentParser("antehoc export", description="Writes a model as ONNX.")
    parser.add_argument("model", help="folder or Hub name of a trained model")
    parser.add_argument("--output", type=Path, help="the file to write; model.onnx in the folder if left out")
    options = parser.parse_args(list(argv))
    folder = Path(options.model)
    output = options.output or (folder / "model.onnx" if folder.is_dir() else Path("model.onnx"))
    path = export_onnx(options.model, output)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB): pixel_values → {', '.join(OUTPUTS)}")


def _loaded(model_or_folder: Any) -> Any:
    from transformers import AutoModelForImageClassification

    if isinstance(model_or_folder, str | Path):
        model_or_folder = AutoModelForImageClassification.from_pretrained(model_or_folder)
    if not hasattr(model_or_folder, "interpret") or not hasattr(model_or_folder, "num_labels"):
        raise ValueError(
            f"Only ante-hoc image classifiers are exported with their map, not {type(model_or_folder).__name__}."
        )
    return model_or_folder


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"Exporting needs the package {error.name!r}: install it with `pip install 'antehoc-hf[onnx]'`."
        ) from None


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The exporter speaks of opset versions and of its own deprecations; nothing a user could act on."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
