"""ONNX: one graph from pixels to prediction and interpretation map."""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from antehoc_hf import export_captioning as captioning
from antehoc_hf.evaluation.mode import evaluation_mode
from antehoc_hf.modeling import AnteHocForImageCaptioning

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
    Writes a model as ONNX.

    The graph takes `pixel_values` (B, 3, H, W), normalised, of any batch size and the model's own H and W, and gives
    the model's `onnx_outputs`: `logits` (B, num_labels) or `landmarks` (B, K, 2), and `interpretation_map`
    (B, 1, H, W) in [0, 1]. Its metadata hold `image_size`, `image_mean`, `image_std`, `id2label` and `landmark_names`
    as JSON.

    A captioner becomes two graphs, see `antehoc_hf.export_captioning`: from pixels to the decoder's first state and
    the map, and, in a second file (`…-decoder.onnx`), one step of the decoder.

    Args:
        model_or_folder (`AnteHocPreTrainedModel`, `str` or `Path`): a model, left as it was, or the folder or Hub name
            of one.
        path (`str` or `Path`): the file to write; folders are made.

    Returns:
        `Path`: the file (of a captioner, the first).

    Raises:
        ValueError: if it is another model, or the packages that ONNX needs are missing.
        OSError: if the model cannot be loaded or the file not written.
    """
    _check_packages()
    model = loaded_model(model_or_folder)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = model.config.image_size
    # Two images: with one, the batch would be taken for a constant.
    pixels = torch.zeros(2, 3, height, width, device=model.device, dtype=model.dtype)
    metadata = {name: json.dumps(getattr(model.config, name, None)) for name in _METADATA}
    with evaluation_mode(model):
        if isinstance(model, AnteHocForImageCaptioning):
            metadata |= {name: json.dumps(getattr(model.config, name)) for name in captioning.METADATA}
            captioner: Any = captioning.EncoderGraph(model)
            _write(captioner, {"pixel_values": (pixels, 0)}, captioning.ENCODER_OUTPUTS, metadata, path)
            tokens, *state = captioning.decoder_example(model)
            inputs = dict(zip(captioning.DECODER_INPUTS, [(tokens, 0), *((part, 1) for part in state)], strict=True))
            decoder: Any = captioning.DecoderGraph(model)
            _write(decoder, inputs, captioning.DECODER_OUTPUTS, metadata, captioning.decoder_path(path))
        else:
            _write(_PredictionAndMap(model), {"pixel_values": (pixels, 0)}, model.onnx_outputs, metadata, path)
    return path


def _write(
    graph: nn.Module,
    inputs: dict[str, tuple[Tensor, int]],
    outputs: Sequence[str],
    metadata: dict[str, str],
    path: Path,
) -> None:
    """One graph: name of each input → an example and the number of its axis that is the batch."""
    with torch.no_grad(), _quietly():
        program: Any = torch.onnx.export(
            graph.eval(),
            tuple(example for example, _ in inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes={name: {axis: torch.export.Dim("batch")} for name, (_, axis) in inputs.items()},
            verbose=False,
        )
    program.model.metadata_props.update(metadata)
    program.save(str(path), external_data=False)


def loaded_model(model_or_folder: Any) -> Any:
    from antehoc_hf.commands.inputs import model_config
    from antehoc_hf.model_weights import load_weights
    from antehoc_hf.training.tasks import task_of

    if isinstance(model_or_folder, str | Path):
        task = task_of(model_config(model_or_folder))
        model_or_folder = load_weights(task.model_class, model_or_folder)
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
