"""The second pass of a training step: image ⊙ map through the frozen network, gradients for the weight network."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.objectives import InterpretationObjective
from antehoc_hf.training.random_state import preserved_random_state


@dataclass
class FirstPass:
    """
    What the second pass needs of the first, for the share of the batch that makes it.

    Args:
        inputs (`dict`): the model's inputs without labels, first dimension n ≤ B.
        soft_attention_maps (`Tensor`): (n, η, H, W), without gradient.
        target (`Tensor`): the prediction on the image, (n, …, K), without gradient.
        mask (`Tensor`, *optional*): (n, …) bool, the positions of the prediction that count.
    """

    inputs: dict[str, Any]
    soft_attention_maps: Tensor
    target: Tensor
    mask: Tensor | None = None


@dataclass
class SecondPassResult:
    """Loss (scalar), map means (n,) and degenerate maps (n,) of one second pass, without gradient."""

    loss: Tensor
    map_means: Tensor
    degenerate: Tensor


class SecondPass:
    """
    Makes the second pass of one micro-batch.

    It reuses the first pass's attention maps and prediction, draws no random numbers, and asks for no gradient of the
    backbone's weights, so it costs one forward pass and the cheaper half of a backward pass.

    The model says what the pass needs: `prediction(outputs)`, `prediction_kind`, and optionally
    `interpretation_inputs` (names of the inputs beside `pixel_values` that its second forward needs, e.g. a caption),
    `interpretation_inputs_from(outputs)` (of these, what the first pass itself has made) and `prediction_mask(inputs)`
    ((B, …) bool, the positions that count, e.g. words and not padding).

    Args:
        model: the bare ante-hoc model.
        args (`AnteHocTrainingArguments`): which reading of the paper to follow.
        accelerator (`Accelerator`): makes the backward pass.
    """

    def __init__(self, model: Any, args: AnteHocTrainingArguments, accelerator: Accelerator) -> None:
        self.args = args
        self.accelerator = accelerator
        self.objective = InterpretationObjective.from_arguments(args, model.prediction_kind)

    def is_due(self, optimizer_step: int) -> bool:
        """Whether the optimizer step with this number, counted from 0, has a second pass."""
        return optimizer_step % self.args.interpretation_interval == 0

    def remember(self, model: Any, wrapped: nn.Module, inputs: dict[str, Any], outputs: Any) -> FirstPass:
        """
        Keeps of the first pass what the second needs; with `target_eval` makes the target anew.

        Args:
            model: the bare ante-hoc model.
            wrapped (`nn.Module`): the model as it is called (distributed, compiled, …).
            inputs (`dict`): the batch.
            outputs: the first pass's.
        """
        prediction = model.prediction(outputs).detach()
        count = math.ceil(self.args.interpretation_batch_share * prediction.shape[0])
        names = ("pixel_values", *getattr(model, "interpretation_inputs", ()))
        known = dict(inputs)
        if hasattr(model, "interpretation_inputs_from"):
            known |= model.interpretation_inputs_from(outputs)
        kept = {name: _first(known[name], count) for name in names if known.get(name) is not None}
        mask = model.prediction_mask(kept) if hasattr(model, "prediction_mask") else None
        target = prediction[:count]
        if self.args.target_eval:
            with torch.no_grad(), preserved_random_state(target.device), model.interpretation_phase("eval"):
                target = model.prediction(wrapped(**kept, phase="task"))
        return FirstPass(kept, outputs.soft_attention_maps[:count], target, mask)

    def run(self, model: Any, wrapped: nn.Module, first: FirstPass, micro_batches: int) -> SecondPassResult:
        """
        Forward and backward pass; adds to the gradients.

        Args:
            model: the bare ante-hoc model.
            wrapped (`nn.Module`): the model as it is called.
            first (`FirstPass`): what the first pass left.
            micro_batches (`int`): how many of them make up the optimizer step.
        """
        weight = self.args.joint_weight
        maps = first.soft_attention_maps
        with (
            preserved_random_state(maps.device),
            model.interpretation_phase(self.args.interpretation_batch_norm, train_backbone=weight > 0),
            scaled_gradients(task_parameters(model) if weight > 0 else [], weight),
        ):
            outputs = wrapped(**first.inputs, soft_attention_maps=maps, phase="interpretation")
            network_input = model.weight_network_input(maps) if self.args.reconstruction_weight else maps
            loss = self.objective(outputs, model.prediction(outputs), first.target, network_input, first.mask)
            self.accelerator.backward(loss / micro_batches)
        map_means = outputs.interpretation_map.detach().float().mean(dim=(1, 2, 3))
        return SecondPassResult(loss.detach(), map_means, outputs.degenerate.detach())


def _first(value: Any, count: int) -> Any:
    return value[:count] if isinstance(value, Tensor) and value.ndim > 0 else value


def weight_parameters(model: Any) -> list[nn.Parameter]:
    """The second pass's parameters: the weight network's."""
    return list(model.weight_network.parameters())


def task_parameters(model: Any) -> list[nn.Parameter]:
    """The first pass's parameters: all but the weight network's, in the model's order."""
    of_weight_network = {id(parameter) for parameter in model.weight_network.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in of_weight_network]


@contextmanager
def scaled_gradients(parameters: list[nn.Parameter], factor: float) -> Iterator[None]:
    """What a backward pass inside adds to these parameters' gradients is multiplied by `factor`."""
    handles = [p.register_hook(lambda gradient: gradient * factor) for p in parameters if p.requires_grad]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
