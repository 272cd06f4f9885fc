"""ONNX: one graph from pixels to prediction and interpretation map."""

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

_METADATA = ("image_size", "image_mean", "image_std", "id2label", "landmark_names")


class _PredictionAndMap(nn.Module):
    """What the graph computes."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model(pixel_values)
        return tuple(outputs[name] for name in self.model.onnx_outputs)


def export_onnx(model_or_folder: Any, path: str | Path) -> Path:
    """
    Writes a classifier or landmark detector as ONNX.

    The graph takes `pixel_values` (B, 3, H, W), normalised, of any batch size and the model's own H and W, and gives
    the model's `onnx_outputs`: `logits` (B, num_labels) or `landmarks` (B, K, 2), and `interpretation_map`
    (B, 1, H, W) in [0, 1]. Its metadata hold `image_size`, `image_mean`, `image_std`, `id2label` and `landmark_names`
    as JSON.

    Args:
        model_or_folder (`AnteHocPreTrainedModel`, `str` or `Path`): a model, left as it was, or the folder or Hub name
            of one.
        path (`str` or `Path`): the file to write; folders are made.

    Returns:
        `Path`: the file.

    Raises:
        ValueError: if it is no such model, or the packages that ONNX needs are missing.
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
            _PredictionAndMap(model).eval(),
            (example,),
            dynamo=True,
            input_names=["pixel_values"],
            output_names=list(model.onnx_outputs),
            dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    program.model.metadata_props.update({name: json.dumps(getattr(model.config, name)) for name in _METADATA})
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
    model = _loaded(options.model)
    path = export_onnx(model, output)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB): pixel_values → {', '.join(model.onnx_outputs)}")


def _loaded(model_or_folder: Any) -> Any:
    from transformers import AutoConfig

    from antehoc_hf.training.tasks import task_of

    if isinstance(model_or_folder, str | Path):
        task = task_of(AutoConfig.from_pretrained(model_or_folder))
        model_or_folder = task.model_class.from_pretrained(model_or_folder)
    if not getattr(model_or_folder, "onnx_outputs", ()):
        raise ValueError(
            f"Only ante-hoc models with a head are exported with their map, not {type(model_or_folder).__name__}."
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
