"""ONNX and `torch.export`: one graph from pixels to prediction and interpretation map."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from antehoc_hf import export_captioning as captioning
from antehoc_hf.commands.errors import in_a_sentence, need_to_export
from antehoc_hf.evaluation.networks import evaluation_mode
from antehoc_hf.graph import quiet_export
from antehoc_hf.modeling import AnteHocForImageCaptioning, AnteHocImageProcessor

_METADATA = ("image_size", "image_mean", "image_std", "id2label", "landmark_names")
_OF_THE_PROCESSOR = ("interpolation", "crop_pct", "crop_mode")


class _PredictionAndMap(nn.Module):
    """What the graph computes."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model(pixel_values)
        return tuple(outputs[name] for name in self.model.onnx_outputs)


def export_onnx(model_or_folder: Any, path: str | Path, batch_size: int | None = None, *, int8: bool = False) -> Path:
    """Writes a model as ONNX, which onnxruntime runs without torch or this project.

    The graph takes `pixel_values` (B, 3, H, W), normalised, of the model's own H and W, and gives the model's
    `onnx_outputs`: `logits` (B, num_labels) or `landmarks` (B, K, 2), and `interpretation_map` (B, 1, H, W) in [0, 1].
    Its metadata hold `image_size`, `image_mean`, `image_std`, `id2label`, `landmark_names` and, of a folder with an
    image processor, `interpolation`, `crop_pct` and `crop_mode`, as JSON.

    A captioner becomes two graphs, see `antehoc_hf.export_captioning`: from pixels to the decoder's first state and
    the map, and, in a second file (`…-decoder.onnx`), one step of the decoder. Where each word has a map of its own, a
    third file (`…-maps.onnx`) makes the maps of a caption's words.

    Args:
        model_or_folder (`AnteHocPreTrainedModel`, `str` or `Path`): a model, left as it was, or the folder or Hub name
            of one.
        path (`str` or `Path`): the file to write; folders are made.
        batch_size (`int`, *optional*): B; None: any.
        int8 (`bool`): weights in eight bits, but those of the first convolution and of depthwise ones, which are few
            and spoil prediction and map the most.

    Returns:
        `Path`: the file (of a captioner, the first).

    Raises:
        ValueError: if it is another model, or the packages that ONNX needs are missing.
        OSError: if the model cannot be loaded or the file not written.
    """
    need_to_export(int8)
    model = loaded_model(model_or_folder)
    metadata = _metadata(model, model_or_folder)
    path = _prepared(path)
    pixels, written = _example(model, batch_size), [path]
    with evaluation_mode(model):
        if isinstance(model, AnteHocForImageCaptioning):
            captioner: Any = captioning.EncoderGraph(model)
            inputs = {"pixel_values": (pixels, 0)}
            _write(captioner, inputs, captioner.outputs, metadata, path, batch_size)
            tokens, *state = captioning.decoder_example(model, len(pixels))
            inputs = dict(zip(captioning.DECODER_INPUTS, [(tokens, 0), *((part, 1) for part in state)], strict=True))
            decoder: Any = captioning.DecoderGraph(model)
            second = captioning.decoder_path(path)
            _write(decoder, inputs, captioning.DECODER_OUTPUTS, metadata, second, batch_size)
            written.append(second)
            if model.map_head.per_target:
                with torch.no_grad():
                    examples = captioning.map_example(model, captioner(pixels)[-1])
                inputs = dict(zip(captioning.MAP_INPUTS, zip(examples, (0, 1, 1, 0), strict=True), strict=True))
                maps: Any = captioning.MapGraph(model)
                third = captioning.map_path(path)
                _write(maps, inputs, captioning.MAP_OUTPUTS, metadata, third, batch_size)
                written.append(third)
        else:
            inputs = {"pixel_values": (pixels, 0)}
            _write(_PredictionAndMap(model), inputs, model.onnx_outputs, metadata, path, batch_size)
    for file in written if int8 else ():
        _store_in_eight_bits(file)
    return path


def export_program(model_or_folder: Any, path: str | Path, batch_size: int | None = None) -> Path:
    """Writes a model as a program of `torch.export`, which `torch.export.load` reads without this project.

    The program takes and gives what the graph of [`export_onnx`] does, the outputs as a tuple; the same metadata are
    in its extra file `metadata.json`.

    Args:
        model_or_folder, path, batch_size: as of [`export_onnx`].

    Returns:
        `Path`: the file.

    Raises:
        ValueError: if it is another model, or a captioner, which is two graphs.
        OSError: if the model cannot be loaded or the file not written.
    """
    model = loaded_model(model_or_folder)
    metadata = _metadata(model, model_or_folder)
    if isinstance(model, AnteHocForImageCaptioning):
        raise ValueError("A captioner is two graphs, which only ONNX can hold: name a file that ends in .onnx.")
    path = _prepared(path)
    batch = None if batch_size else ({0: torch.export.Dim("batch")},)
    with evaluation_mode(model), torch.no_grad():
        graph = _PredictionAndMap(model).eval()
        program = torch.export.export(graph, (_example(model, batch_size),), dynamic_shapes=batch)
    torch.export.save(program, path, extra_files={"metadata.json": json.dumps(metadata)})
    return path


def _prepared(path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _metadata(model: Any, source: Any) -> dict[str, str]:
    """What whoever runs the graph must know, of the model and, where it is a folder's, of its image processor."""
    names = (*_METADATA, *(captioning.METADATA if isinstance(model, AnteHocForImageCaptioning) else ()))
    found = {name: json.dumps(getattr(model.config, name, None)) for name in names}
    if isinstance(source, str | Path):
        file = Path(source) / "preprocessor_config.json"
        with in_a_sentence(f"{file} is damaged") if file.exists() else contextlib.suppress(OSError):
            processor = AnteHocImageProcessor.from_pretrained(source)
            found |= {name: json.dumps(getattr(processor, name)) for name in _OF_THE_PROCESSOR}
    return found


def _example(model: Any, batch_size: int | None) -> Tensor:
    """Two images where the batch is free: with one, it would be taken for a constant."""
    return torch.zeros(batch_size or 2, 3, *model.config.image_size, device=model.device, dtype=model.dtype)


def _write(
    graph: nn.Module,
    inputs: dict[str, tuple[Tensor, int]],
    outputs: Sequence[str],
    metadata: dict[str, str],
    path: Path,
    batch_size: int | None,
) -> None:
    """One graph: name of each input → an example and the number of its axis that is the batch."""
    free = {name: {axis: torch.export.Dim("batch")} for name, (_, axis) in inputs.items()}
    with torch.no_grad(), quiet_export():
        program: Any = torch.onnx.export(
            graph.eval(),
            tuple(example for example, _ in inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=None if batch_size else free,
            verbose=False,
        )
    _as_quantisers_expect(program.model.graph)
    program.model.metadata_props.update(metadata)
    program.save(str(path), external_data=False)


def _store_in_eight_bits(path: Path) -> None:
    """Dynamic quantisation, in place: one scale for each weight, so that a weight whose channels differ in size, as in
    depthwise convolutions, would be rounded to nothing in some of them.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(path).graph
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    depthwise = [node for node in convolutions if any(item.name == "group" and item.i > 1 for item in node.attribute)]
    spared = [node.name for node in convolutions[:1] + depthwise]
    with quiet_export():
        quantize_dynamic(path, path, weight_type=QuantType.QUInt8, nodes_to_exclude=spared)


def _as_quantisers_expect(graph: Any) -> None:
    """Stores weights of linear layers in the order in which a product of matrices takes them: onnxruntime's
    quantisation transposes those of `Gemm(transB=1)` in place, whoever else reads them (the map reads the
    classifier's), and leaves the shape that was noted.
    """
    import onnx_ir

    for node in [node for node in graph if node.op_type == "Gemm" and node.attributes.get_int("transB", 0)]:
        weight = node.inputs[1]
        if weight.const_value is None:
            continue
        others = [use for use in weight.uses() if use.node is not node]
        transposed = onnx_ir.tensor(np.ascontiguousarray(weight.const_value.numpy().T), name=f"{weight.name}.T")
        stored = onnx_ir.Value(
            name=transposed.name,
            type=weight.type,
            shape=onnx_ir.Shape(transposed.numpy().shape),
            const_value=transposed,
        )
        graph.register_initializer(stored)
        node.attributes["transB"] = onnx_ir.AttrInt64("transB", 0)
        node.replace_input_with(1, stored)
        if others:
            back = onnx_ir.node("Transpose", [stored], {"perm": [1, 0]})
            back.outputs[0].type, back.outputs[0].shape = weight.type, weight.shape
            graph.insert_before(graph[0], back)
        for use in others:
            use.node.replace_input_with(use.idx, back.outputs[0])
        del graph.initializers[weight.name]


def loaded_model(model_or_folder: Any) -> Any:
    from antehoc_hf.model_weights import load_weights, model_config
    from antehoc_hf.training.tasks import task_of

    if isinstance(model_or_folder, str | Path):
        task = task_of(model_config(model_or_folder))
        model_or_folder = load_weights(task.model_class, model_or_folder)
    if not getattr(model_or_folder, "onnx_outputs", ()):
        raise ValueError(
            f"Only ante-hoc models with a head are exported with their map, not {type(model_or_folder).__name__}."
        )
    return model_or_folder
