"""The frozen network as a judge of coalitions: in the layout, type and batch in which it is fastest here."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Precision = Literal["auto", "float32", "bfloat16"]
# Of what a faster type may change the worth of coalitions, as a share of how much that varies.
_TOLERANCE = 0.03


@dataclass(frozen=True)
class Setting:
    """How the network is run: images a batch, memory layout, type, and how many images a second that gave."""

    batch_size: int
    channels_last: bool
    dtype: str
    images_per_second: float = 0.0


class Judge:
    """
    What images are worth to each class, by a model whose weights stay as they are: other layouts and types are those
    of a copy.

    Args:
        model: the ante-hoc model, in evaluation mode.
        examples (`Tensor`): (n, 3, H, W), coalitions on which settings are timed and compared.
        batch_size (`int`, *optional*): images a batch; None: chosen.
        channels_last (`bool`, *optional*): None: chosen.
        precision (`str`): `"auto"`: bfloat16 where it is faster and changes what coalitions are worth by less than 3 %
            of their standard deviation.
    """

    def __init__(
        self,
        model: Any,
        examples: Tensor,
        batch_size: int | None = None,
        channels_last: bool | None = None,
        precision: Precision = "auto",
    ) -> None:
        self.model = model
        self.network: nn.Module = model.backbone
        sizes = [batch_size] if batch_size else ([8, 32] if examples.device.type == "cpu" else [256])
        layouts = [channels_last] if channels_last is not None else [False, True]
        types = {"auto": ["float32", "bfloat16"]}.get(precision, [precision])
        settings = [Setting(size, layout, dtype) for dtype in types for layout in layouts for size in sizes]
        self.setting = settings[0]
        if len(settings) > 1:
            settings = [timed for setting in settings if (timed := self._timed(setting, examples)) is not None]
        self.setting = max(settings, key=lambda setting: setting.images_per_second)
        self.network = self._prepared(self.setting)

    def __call__(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, K) float32."""
        return self._worth(self.network, images, self.setting)

    def _worth(self, network: nn.Module, images: Tensor, setting: Setting) -> Tensor:
        layout = torch.channels_last if setting.channels_last else torch.contiguous_format
        dtype = getattr(torch, setting.dtype)
        with torch.inference_mode():
            logits = [
                network(part.to(dtype).contiguous(memory_format=layout)) for part in images.split(setting.batch_size)
            ]
            return self.model._targets(torch.cat(logits)).worth  # type: ignore[no-any-return]

    def _prepared(self, setting: Setting) -> nn.Module:
        if setting.dtype == "float32" and not setting.channels_last:
            return self.model.backbone  # type: ignore[no-any-return]
        network = copy.deepcopy(self.model.backbone).to(getattr(torch, setting.dtype))
        return network.to(memory_format=torch.channels_last) if setting.channels_last else network

    def _timed(self, setting: Setting, examples: Tensor) -> Setting | None:
        """None where the network cannot run so, or says something else then."""
        try:
            network = self._prepared(setting)
            worth, seconds = _measured(lambda: self._worth(network, examples, setting))
        except RuntimeError:
            return None
        if setting.dtype != "float32":
            exact = self._worth(self.model.backbone, examples, Setting(len(examples), False, "float32"))
            spread = exact.std(dim=0).square().sum().sqrt()
            off = (worth - exact).square().mean(dim=0).sum().sqrt()
            if not bool(off <= _TOLERANCE * spread):
                return None
        return Setting(setting.batch_size, setting.channels_last, setting.dtype, len(examples) / seconds)


def _measured(run: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """The second of two runs, and its seconds."""
    run()
    start = time.perf_counter()
    result = run()
    if result.device.type == "cuda":
        torch.cuda.synchronize()
    return result, time.perf_counter() - start
