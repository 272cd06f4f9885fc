"""The frozen network as a judge of coalitions: in the layout, type, batch and runtime in which it is fastest here."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from antehoc_hf.graph import graph_of
from antehoc_hf.modeling.modeling_antehoc import AnteHocPreTrainedModel

Precision = Literal["auto", "float32", "bfloat16"]
# How far a faster type may put the worth of coalitions off, in units of its standard deviation: 1 % of the variance,
# of which the patches leave more than half unexplained anyway.
_TOLERANCE = 0.1
# Writing a network as a graph takes some ten seconds, which must be won back.
_LEAST_SECONDS_FOR_A_GRAPH = 60.0


@dataclass(frozen=True)
class Setting:
    """How the network is run: images a batch, memory layout, type, runtime, and how many images a second that gave."""

    batch_size: int
    channels_last: bool
    dtype: str
    images_per_second: float = 0.0
    runtime: Literal["torch", "onnxruntime"] = "torch"


class Judge:
    """What images are worth to each class, by a model whose weights stay as they are: other layouts, types and
    runtimes are those of a copy.

    Args:
        model: the ante-hoc model, in evaluation mode.
        examples (`Tensor`): (n, 3, H, W), coalitions on which settings are timed and compared.
        batch_size (`int`, *optional*): images a batch; None: chosen.
        channels_last (`bool`, *optional*): None: chosen.
        precision (`str`): `"auto"`: bfloat16 where it is faster and changes what coalitions are worth by less than a
            tenth of their standard deviation.
        passes (`int`): images that it will be asked about, as far as known. Where they take long on a CPU, and
            onnxruntime and what writes its graphs are installed, it is tried as well, in float32, unless a layout or
            bfloat16 was asked for.
    """

    def __init__(
        self,
        model: AnteHocPreTrainedModel,
        examples: Tensor,
        batch_size: int | None = None,
        channels_last: bool | None = None,
        precision: Precision = "auto",
        passes: int = 0,
    ) -> None:
        self.model = model
        sizes = [batch_size] if batch_size else ([4, 16] if examples.device.type == "cpu" else [256])
        layouts = [channels_last] if channels_last is not None else [False, True]
        types = {"auto": ["float32", "bfloat16"]}.get(precision, [precision])
        self.setting = Setting(sizes[0], layouts[0], types[0])
        if len(sizes) * len(layouts) * len(types) > 1:
            self._choose(examples, sizes, layouts, types)
        self.network: Callable[[Tensor], Tensor] = self._prepared(self.setting)
        if channels_last is None and precision != "bfloat16":
            self._try_a_graph(examples, passes)

    def _choose(self, examples: Tensor, sizes: list[int], layouts: list[bool], types: list[str]) -> None:
        """One after the other: layout, batch, type; each time the fastest that says the same."""
        exact = self._worth(self.model.backbone, examples, Setting(sizes[0], False, "float32"))
        choices: list[tuple[str, list[Any]]] = [("channels_last", layouts), ("batch_size", sizes), ("dtype", types)]
        for name, values in choices:
            settings = [replace(self.setting, **{name: value}) for value in values]
            timed = [self._timed(self._prepared(setting), setting, examples, exact) for setting in settings]
            fit = [setting for setting in timed if setting is not None]
            self.setting = max(fit or settings, key=lambda setting: setting.images_per_second)

    def _try_a_graph(self, examples: Tensor, passes: int) -> None:
        """Where the passes take long enough, the network as a graph, if that is faster and says the same."""
        if not (0 < self.setting.images_per_second < passes / _LEAST_SECONDS_FOR_A_GRAPH):
            return
        size = self.setting.batch_size
        exact = self._worth(self.model.backbone, examples, Setting(size, False, "float32"))
        graph = graph_of(self.model.backbone, examples[:1].expand(size, -1, -1, -1).contiguous())
        if graph is None:
            return
        found = self._timed(graph, Setting(size, False, "float32", runtime="onnxruntime"), examples, exact)
        if found is not None and found.images_per_second > self.setting.images_per_second:
            self.network, self.setting = graph, found

    def __call__(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, K) float32."""
        return self._worth(self.network, images, self.setting)

    def _worth(self, network: Callable[[Tensor], Tensor], images: Tensor, setting: Setting) -> Tensor:
        layout = torch.channels_last if setting.channels_last else torch.contiguous_format
        dtype = getattr(torch, setting.dtype)
        with torch.inference_mode():
            logits = [
                network(part.to(dtype).contiguous(memory_format=layout)) for part in images.split(setting.batch_size)
            ]
            targets = self.model._targets(torch.cat(logits))
            assert targets is not None
            return targets.worth

    def _prepared(self, setting: Setting) -> nn.Module:
        if setting.dtype == "float32" and not setting.channels_last:
            return self.model.backbone  # type: ignore[no-any-return]
        backbone: nn.Module = self.model.backbone
        network = copy.deepcopy(backbone).to(getattr(torch, setting.dtype))
        return network.to(memory_format=torch.channels_last) if setting.channels_last else network

    def _timed(
        self, network: Callable[[Tensor], Tensor], setting: Setting, examples: Tensor, exact: Tensor
    ) -> Setting | None:
        """None where the network cannot run so, or says something else then."""
        try:
            worth, seconds = _measured(lambda: self._worth(network, examples, setting))
        except RuntimeError:
            return None
        off, spread = (worth - exact).square().sum(), (exact - exact.mean(dim=0)).square().sum()
        if not bool(off.sqrt() <= _TOLERANCE * spread.sqrt()):
            return None
        return replace(setting, images_per_second=len(examples) / seconds)


def _measured(run: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """The second of two runs, and its seconds."""
    run()
    start = time.perf_counter()
    result = run()
    if result.device.type == "cuda":
        torch.cuda.synchronize()
    return result, time.perf_counter() - start
