"""One step of training, as an objective sees it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from antehoc_hf.modeling.modeling_antehoc import AnteHocPreTrainedModel


@dataclass(frozen=True)
class TrainingStep:
    """One micro-batch of an optimizer step, and what an objective needs to make its second pass.

    Args:
        model: the bare model.
        call: the model as it is to be called (distributed, compiled, …).
        accelerator (`Accelerator`): makes the backward pass.
        number (`int`): the optimizer step's, counted from 0.
        micro_batch, micro_batches (`int`): the position of this one, and how many make up the optimizer step.
        seed, process (`int`): the run's seed and the index of this process, for [`generator`].
    """

    model: AnteHocPreTrainedModel
    call: Callable[..., Any]
    accelerator: Accelerator
    number: int
    micro_batch: int
    micro_batches: int
    seed: int
    process: int

    def backward(self, loss: Tensor) -> None:
        """Adds this micro-batch's share of the loss to the gradients."""
        self.accelerator.backward(loss / self.micro_batches)

    def mean_over_processes(self, tensor: Tensor) -> Tensor:
        """The mean of a tensor over all processes; to be called by each of them."""
        reduced = self.accelerator.reduce(tensor, "mean")
        assert isinstance(reduced, Tensor)
        return reduced

    def generator(self, stream: int) -> torch.Generator:
        """Random numbers (CPU) of this micro-batch's own: a function of the run's seed, the step, the micro-batch, the
        process and the name `stream`. A resumed run draws what the uninterrupted one did, and nothing is taken from
        the global generators.
        """
        name = [self.seed, self.number, self.micro_batch, self.process, stream]
        seed = int(np.random.SeedSequence(name).generate_state(1, np.uint64)[0])
        return torch.Generator().manual_seed(seed & (2**63 - 1))


@dataclass(frozen=True)
class FirstPassRecord:
    """What is kept of the first pass, for the first n ≤ B samples of the batch.

    Args:
        inputs (`dict`): the model's inputs, without the labels unless the prediction depends on them.
        tap_values (`Tensor`): what the map head reads, (n, …), without gradient.
        prediction (`Tensor`): the prediction on the image, (n, …, K), without gradient.
        mask (`Tensor`, *optional*): (n, …) bool, the positions of the prediction that count (words, not padding).
    """

    inputs: dict[str, Tensor]
    tap_values: Tensor
    prediction: Tensor
    mask: Tensor | None = None

    @classmethod
    def of(
        cls, model: AnteHocPreTrainedModel, inputs: Mapping[str, object], outputs: Any, share: float
    ) -> "FirstPassRecord":
        """Keeps the first ceil(share · B) samples.

        The model's `interpretation_inputs` names the inputs besides `pixel_values` that its second forward pass needs
        (a caption); `interpretation_inputs_from(outputs)` gives those that the first pass itself has made;
        `prediction_mask(inputs)` the positions that count.

        Args:
            model: the bare model.
            inputs: the batch.
            outputs: the first pass's.
            share (`float`): in (0, 1].
        """
        prediction = model.prediction(outputs).detach()
        count = math.ceil(share * len(prediction))
        made = model.interpretation_inputs_from(outputs)
        names = dict.fromkeys(("pixel_values", *model.interpretation_inputs, *made))
        known = {**inputs, **made}
        kept = {name: _first(known[name], count) for name in names if known.get(name) is not None}
        return cls(kept, outputs.tap_values[:count], prediction[:count], model.prediction_mask(kept))


@dataclass(frozen=True)
class SecondPassResult:
    """What a second pass reports, without gradient.

    Args:
        loss (`Tensor`): a scalar.
        map_means (`Tensor`): (n,), the mean of each map.
        degenerate (`Tensor`): (n,) bool, maps that show nothing.
    """

    loss: Tensor
    map_means: Tensor
    degenerate: Tensor


def _first(value: Any, count: int) -> Any:
    if isinstance(value, Mapping):
        return {name: _first(part, count) for name, part in value.items()}
    return value[:count] if isinstance(value, Tensor) and value.ndim > 0 else value
