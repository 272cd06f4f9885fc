"""A frozen network as a graph that onnxruntime runs: on a CPU often twice as fast as torch, the same to rounding."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Graph:
    """A network that gives one tensor for images (B, 3, H, W) of one size, on the CPU, in float32, without gradients.

    It is written for the batch it is made with: fewer images are filled up with black ones, more are taken in parts.

    Args:
        network (`nn.Module`): in evaluation mode; what becomes of its weights later is not seen here.
        pixel_values (`Tensor`): (B, 3, H, W) of zeros or images.

    Raises:
        Exception: of any kind, from torch's exporter or onnxruntime, if the network cannot be written or run so.
    """

    def __init__(self, network: nn.Module, pixel_values: Tensor) -> None:
        import onnxruntime

        self.batch_size = len(pixel_values)
        with torch.no_grad(), quiet_export():
            program = torch.onnx.export(
                network,
                (pixel_values,),
                dynamo=True,
                input_names=["pixel_values"],
                output_names=["scores"],
                verbose=False,
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others may need the cores
        content = program.model_proto.SerializeToString()  # type: ignore[union-attr]
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def __call__(self, pixel_values: Tensor) -> Tensor:
        """(N, 3, H, W) → what the network gives, (N, …)."""
        return torch.cat([self._run(part) for part in pixel_values.split(self.batch_size)])

    def _run(self, part: Tensor) -> Tensor:
        missing = self.batch_size - len(part)
        filled = F.pad(part, (0, 0, 0, 0, 0, 0, 0, missing)).contiguous()
        (found,) = self._session.run(None, {"pixel_values": filled.detach().numpy()})
        return torch.from_numpy(found)[: len(part)]


def graph_of(network: nn.Module, pixel_values: Tensor) -> Graph | None:
    """The network as a [`Graph`]; None where it cannot be one: not on a CPU in float32, without the packages (the
    extra `onnx`), or because torch's exporter does not know what it does.
    """
    installed = all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
    if not installed or pixel_values.device.type != "cpu" or pixel_values.dtype != torch.float32:
        return None
    try:
        return Graph(network, pixel_values)
    except Exception:  # whatever the exporter raises means that torch has to do it
        return None


@contextlib.contextmanager
def quiet_export() -> Iterator[None]:
    """The exporter speaks of opset versions and of its own deprecations, the quantiser (by the root logger) of
    steps before it; nothing a user could act on.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", None)]
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
