"""
The second pass of a training step: gradients for the weight network, from masked images through the frozen network.

The paper's: image ⊙ map. With class-conditional maps: coalitions of patches.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from antehoc_hf.modeling.contribution_map import contribution_map, of_target
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.coalitions import CoalitionGame, black_of, coalition_loss
from antehoc_hf.training.objectives import InterpretationObjective
from antehoc_hf.training.random_state import preserved_random_state


@dataclass
class FirstPass:
    """
    What the second pass needs of the first, for the share of the batch that makes it.

    Args:
        inputs (`dict`): the model's inputs without labels, first dimension n ≤ B.
        kept (`Tensor`): what the map is made from, without gradient: soft attention maps (n, η, H, W), or tap features
            (n, C, g, w) for class-conditional maps.
        target (`Tensor`): the prediction on the image, (n, …, K), without gradient.
        mask (`Tensor`, *optional*): (n, …) bool, the positions of the prediction that count.
    """

    inputs: dict[str, Any]
    kept: Tensor
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
    backbone's weights, so it costs one forward pass and the cheaper half of a backward pass. With class-conditional
    maps it costs a forward pass for each coalition, and its random numbers are its own.

    The model says what the pass needs: `prediction(outputs)`, `prediction_kind`, and optionally
    `interpretation_inputs` (names of the inputs beside `pixel_values` that its second forward needs, e.g. a caption),
    `interpretation_inputs_from(outputs)` (of these, what the first pass itself has made) and `prediction_mask(inputs)`
    ((B, …) bool, the positions that count, e.g. words and not padding).

    Args:
        model: the bare ante-hoc model.
        args (`AnteHocTrainingArguments`): which reading of the paper to follow.
        accelerator (`Accelerator`): makes the backward pass.

    Raises:
        ValueError: if the arguments do not fit the model's kind of map.
    """

    def __init__(self, model: Any, args: AnteHocTrainingArguments, accelerator: Accelerator) -> None:
        self.args = args
        self.accelerator = accelerator
        self.objective = InterpretationObjective.from_arguments(args, model.prediction_kind)
        self.game: CoalitionGame | None = None
        if model.config.map_head.objective == "coalitions":
            _check_coalition_arguments(args)
            self.game = CoalitionGame(args, black_of(model.config))

    def is_due(self, optimizer_step: int, all_steps: int) -> bool:
        """Whether the optimizer step with this number, counted from 0, has a second pass."""
        started = optimizer_step >= self.args.interpretation_start * all_steps
        return started and optimizer_step % self.args.interpretation_interval == 0

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
        return FirstPass(kept, outputs.tap_values[:count], target, mask)

    def run(
        self, model: Any, wrapped: nn.Module, first: FirstPass, micro_batches: int, step: int = 0
    ) -> SecondPassResult:
        """
        Forward and backward pass; adds to the gradients.

        Args:
            model: the bare ante-hoc model.
            wrapped (`nn.Module`): the model as it is called.
            first (`FirstPass`): what the first pass left.
            micro_batches (`int`): how many of them make up the optimizer step.
            step (`int`): that step's number, counted from 0.
        """
        if self.game is not None:
            return self._run_game(self.game, model, wrapped, first, micro_batches, step)
        weight = self.args.joint_weight
        maps = first.kept
        with (
            preserved_random_state(maps.device),
            model.interpretation_phase(self.args.interpretation_batch_norm, train_backbone=weight > 0),
            scaled_gradients(task_parameters(model) if weight > 0 else [], weight),
        ):
            outputs = wrapped(**first.inputs, tap_values=maps, phase="interpretation")
            network_input = model.map_head.network_input(maps) if self.args.reconstruction_weight else maps
            loss = self.objective(outputs, model.prediction(outputs), first.target, network_input, first.mask)
            self.accelerator.backward(loss / micro_batches)
        map_means = outputs.interpretation_map.detach().float().mean(dim=(1, 2, 3))
        return SecondPassResult(loss.detach(), map_means, outputs.degenerate.detach())

    def _run_game(
        self, game: CoalitionGame, model: Any, wrapped: nn.Module, first: FirstPass, micro_batches: int, step: int
    ) -> SecondPassResult:
        """Coalitions of patches through the frozen network, without gradient; then the weight network alone."""

        def judge(images: Tensor) -> Tensor:
            return model.worth(wrapped(pixel_values=images, phase="prediction"))

        pixel_values = first.inputs["pixel_values"]
        size = (pixel_values.shape[-2], pixel_values.shape[-1])
        grid = (first.kept.shape[-2], first.kept.shape[-1])
        predicted = first.target.argmax(dim=-1)

        def contributions() -> Tensor:
            return wrapped(**first.inputs, tap_values=first.kept, phase="interpretation").contributions

        with preserved_random_state(first.kept.device), model.interpretation_phase("eval"):
            with torch.no_grad():
                ranking = of_target(contributions(), predicted)[:, 0] if game.needs_ranking else None
                outcome = game.play(pixel_values, grid, judge, step, ranking)
            of_classes = contributions()
            loss = coalition_loss(of_classes, outcome.contrasts, outcome.gains)
            self.accelerator.backward(loss / micro_batches)
        with torch.no_grad():
            nothing: Any = self.accelerator.reduce(outcome.nothing, "mean")
            model.map_head.baseline_worth.lerp_(nothing.to(model.map_head.baseline_worth), _MEMORY / micro_batches)
            maps, degenerate = contribution_map(of_target(of_classes, predicted), size)
        return SecondPassResult(loss.detach(), maps.mean(dim=(1, 2, 3)), degenerate)


# Of the running mean of what the network says where nothing is left of the image: about the last fifty steps count.
_MEMORY = 0.02


def _check_coalition_arguments(args: AnteHocTrainingArguments) -> None:
    unfit = {
        "interpretation_target": "probabilities",
        "joint_weight": 0.0,
        "interpretation_batch_norm": "eval",
        "target_eval": False,
        **dict.fromkeys(("reconstruction_weight", "area_weight", "tv_weight", "entropy_weight"), 0.0),
    }
    for name, default in unfit.items():
        if getattr(args, name) != default:
            raise ValueError(
                f"{name}={getattr(args, name)!r} belongs to the second pass on energy maps, and a model with "
                "weight_network='contributions' learns from coalitions: leave it out, or train with "
                "--interpretation_objective energy."
            )


def _first(value: Any, count: int) -> Any:
    return value[:count] if isinstance(value, Tensor) and value.ndim > 0 else value


def weight_parameters(model: Any) -> list[nn.Parameter]:
    """The second pass's parameters: the weight network's."""
    return list(model.map_head.parameters())


def task_parameters(model: Any) -> list[nn.Parameter]:
    """The first pass's parameters: all but the weight network's, in the model's order."""
    of_weight_network = {id(parameter) for parameter in model.map_head.parameters()}
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
