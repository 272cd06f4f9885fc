"""What is logged next to the task's loss: the second pass's loss, the maps, the parts of the loss, the throughput."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypedDict

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from antehoc_hf.training.objectives.step import SecondPassResult

logger = logging.getLogger(__name__)


class MeterState(TypedDict):
    """A [`TrainingMeter`] in a checkpoint."""

    sums: Tensor
    steps: float
    maps: int
    parts: dict[str, Tensor]
    batches: int


class TrainingMeter(TrainerCallback):
    """Averages since the last report, over micro-batches and processes; as a callback it knows when training pauses.

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
        self._parts: dict[str, Tensor] = {}
        self._batches = 0
        self._images = 0
        self._since: float | None = None
        self._work_ended: float | None = None
        self._paused = 0.0
        self._warned: set[str] = set()

    # -- the clock: evaluation and saving do not count as training time -------------------------------------------

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Starts the clock, if it is not running."""
        if self._since is None:
            self._since = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """From here on an evaluation or a checkpoint may follow."""
        self._work_ended = time.perf_counter()

    on_epoch_end = on_step_end

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Takes the time out that has passed since the last step."""
        now = time.perf_counter()
        if self._since is not None and self._work_ended is not None:
            self._paused += now - max(self._work_ended, self._since)
        self._work_ended = now

    on_save = on_evaluate

    # -- what is added up -----------------------------------------------------------------------------------------

    def add_first_pass(self, images: int, outputs: Mapping[str, object]) -> None:
        """Counts the images on this process, and notes those scalars of the output whose names end in `_loss`."""
        self._images += images
        self._batches += 1
        for name, value in outputs.items():
            if name.endswith("_loss") and isinstance(value, Tensor):
                self._parts[name] = self._parts.get(name, 0) + value.detach().float()

    def add_second_pass(self, result: SecondPassResult, share: float) -> None:
        """Adds a second pass.

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
        """The averages since the last report; starts anew. To be called by all processes.

        Returns:
            `dict`: the parts of the task's loss; `interpretation_loss`, `map_mean` in [0, 1] and `degenerate_share` in
            [0, 1], unless no second pass was made; and `images_per_second` over all processes.
        """
        seconds = 0.0 if self._since is None else time.perf_counter() - self._since - self._paused
        values: dict[str, float] = {}
        if self._parts:
            parts = accelerator.reduce(torch.stack(list(self._parts.values())) / self._batches, reduction="mean")
            values |= dict(zip(self._parts, parts.tolist(), strict=True))
        counts = torch.tensor([self._steps, self._maps, self._images], dtype=torch.float32, device=self._device)
        loss, means, degenerate, steps, maps, seen = accelerator.reduce(torch.cat([self._sums, counts])).tolist()
        self.reset()
        self._since = time.perf_counter()
        if maps > 0:
            values["interpretation_loss"] = loss / steps
            values["map_mean"] = means / maps
            values["degenerate_share"] = degenerate / maps
        if seconds > 0:
            values["images_per_second"] = round(seen / seconds, 2)
        return values

    # -- for checkpoints ------------------------------------------------------------------------------------------

    def state_dict(self) -> MeterState:
        """What the next report needs of the time before a checkpoint."""
        return {
            "sums": self._sums,
            "steps": self._steps,
            "maps": self._maps,
            "parts": self._parts,
            "batches": self._batches,
        }

    def load_state_dict(self, state: MeterState) -> None:
        """Goes on from what [`state_dict`] returned."""
        self._sums = state["sums"].to(self._device)
        self._parts = {name: value.to(self._device) for name, value in state["parts"].items()}
        self._steps, self._maps, self._batches = state["steps"], state["maps"], state["batches"]


class MapMeter:
    """Mean of the maps and share of degenerate ones over an evaluation; holds two numbers an image, not the maps."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []

    def reset(self) -> None:
        """Forgets everything."""
        self._rows = []

    @contextmanager
    def watching(self, model: nn.Module, gather: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Reads the maps off the model's outputs within.

        Args:
            model: whatever is called.
            gather: from a tensor of this process to that of all of them.
        """
        rows: list[Tensor] = []

        def read(module: nn.Module, args: object, outputs: Any) -> None:
            if getattr(outputs, "interpretation_map", None) is not None:
                means = outputs.interpretation_map.float().mean(dim=(1, 2, 3))
                rows.append(torch.stack([means, outputs.degenerate.float()], dim=1))

        handle = model.register_forward_hook(read)
        try:
            yield
        finally:
            handle.remove()
        self._rows += [gather(row).cpu() for row in rows]

    def report(self, prefix: str) -> dict[str, float]:
        """`{prefix}_map_mean` and `{prefix}_degenerate_share`; empty if no map was seen."""
        if not self._rows:
            return {}
        mean, share = torch.cat(self._rows).double().mean(dim=0).tolist()
        return {f"{prefix}_map_mean": mean, f"{prefix}_degenerate_share": share}
