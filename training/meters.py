"""What is logged beside the task's loss: the second pass's loss, the maps, the throughput."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import Tensor

from antehoc_hf.training.second_pass import SecondPassResult

logger = logging.getLogger(__name__)


class TrainingMeter:
    """
    Averages since the last report, over micro-batches and processes.

    Sums stay on the device; the only wait for it is the one with which the stock Trainer inspects its loss, too.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.reset()

    def reset(self) -> None:
        """Forgets everything; the clock starts with the next training step."""
        self._sums = torch.zeros(3, device=self._device)  # loss · share of a step, map means, degenerate maps
        self._steps = 0.0
        self._maps = 0
        self._images = 0
        self._since: float | None = None
        self._paused = 0.0
        self._warned: set[str] = set()

    def start(self) -> None:
        """Starts the clock, if it is not running."""
        if self._since is None:
            self._since = time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Evaluation and saving do not count as training time."""
        began = time.perf_counter()
        try:
            yield
        finally:
            if self._since is not None:
                self._paused += time.perf_counter() - began

    def add_images(self, count: int) -> None:
        """Counts the images of a first pass on this process."""
        self._images += count

    def add(self, result: SecondPassResult, share: float) -> None:
        """
        Adds a second pass.

        Args:
            result (`SecondPassResult`): of one micro-batch.
            share (`float`): which part of an optimizer step it is, 1/(micro-batches).
        """
        self._steps += share
        self._maps += result.map_means.numel()
        self._sums += torch.stack(
            [result.loss.float() * share, result.map_means.sum(), result.degenerate.sum().float()]
        )

    def warn_if_not_finite(self, step: int, task_loss: Tensor | None, result: SecondPassResult | None) -> None:
        """Names the optimizer step in which a loss or a map is NaN or infinite; once a report and kind."""
        values: dict[str, Tensor] = {}
        if task_loss is not None:
            values["the task's loss"] = task_loss
        if result is not None:
            values["the interpretation loss"] = result.loss
            values["an interpretation map"] = result.map_means.sum()
        if not values:
            return
        finite = torch.stack([value.detach().float() for value in values.values()]).isfinite().tolist()
        for name, fine in zip(values, finite, strict=True):
            if not fine:
                self.warn(name, f"Step {step}: {name} is not finite (NaN or infinite).")

    def warn(self, key: str, message: str) -> None:
        """Warns, but only once for each key until the next report."""
        if key not in self._warned:
            self._warned.add(key)
            logger.warning(message)

    def report(self, accelerator: Accelerator) -> dict[str, float]:
        """
        The averages since the last report; starts anew. To be called by all processes.

        Returns:
            `dict`: `interpretation_loss`, `map_mean` in [0, 1] and `degenerate_share` in [0, 1], unless no second
            pass was made, and `images_per_second` over all processes.
        """
        seconds = 0.0 if self._since is None else time.perf_counter() - self._since - self._paused
        counts = torch.tensor([self._steps, self._maps, self._images], dtype=torch.float32, device=self._device)
        loss, means, degenerate, steps, maps, seen = accelerator.reduce(torch.cat([self._sums, counts])).tolist()
        self.reset()
        self.start()
        values: dict[str, float] = {}
        if maps > 0:
            values["interpretation_loss"] = loss / steps
            values["map_mean"] = means / maps
            values["degenerate_share"] = degenerate / maps
        if seconds > 0:
            values["images_per_second"] = round(seen / seconds, 2)
        return values


class MapMeter:
    """Mean of the maps and share of degenerate ones over an evaluation; holds two numbers an image, not the maps."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        """Adds (B, 2): each map's mean, and 1 where it is degenerate."""
        self._rows.append(rows.cpu())

    def report(self, prefix: str) -> dict[str, float]:
        """`{prefix}_map_mean` and `{prefix}_degenerate_share`; empty if no map was seen."""
        if not self._rows:
            return {}
        mean, share = torch.cat(self._rows).double().mean(dim=0).tolist()
        return {f"{prefix}_map_mean": mean, f"{prefix}_degenerate_share": share}
