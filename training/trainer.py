"""The two-pass trainer: a `transformers.Trainer` that also trains the map head."""

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput, TrainOutput
from transformers.utils import ModelOutput

from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.launch import check_launch
from antehoc_hf.training.meters import MapMeter, TrainingMeter
from antehoc_hf.training.objectives.base import Objective, called, has_map, map_parameters, task_parameters
from antehoc_hf.training.objectives.registry import objective_for
from antehoc_hf.training.objectives.step import FirstPassRecord, SecondPassResult, TrainingStep
from antehoc_hf.training.random_state import preserved_random_state
from antehoc_hf.training.resumable_trainer import ResumableTrainer


class AnteHocTrainer(ResumableTrainer):
    """Trains an ante-hoc model in two passes a step, and is the stock Trainer in everything else.

    First pass: the image; the backbone and its head learn their task, exactly as the stock Trainer would train them.
    Second pass: only the map head learns, from what the objective makes of the frozen network: image ⊙ map for energy
    maps, coalitions of patches for contributions. The trainer knows no task and no objective.

    With the default arguments the backbone's and the head's parameters are, bit for bit, those of a training without
    a map: the passes have gradients, clipping and optimizer groups of their own, and the second draws no random
    numbers and stores no batch statistics.

    Logged with the task's `loss`: `interpretation_loss`, `map_mean`, `degenerate_share`, `interpretation_grad_norm`,
    `images_per_second` and those scalars of the model's output whose names end in `_loss`; after an evaluation also
    `eval_map_mean` and `eval_degenerate_share`.

    Of the stock Trainer's private methods it overrides `_clip_grad_norm` and `_get_grad_norm`, since each pass is
    clipped by itself; for those that resuming needs see [`ResumableTrainer`].

    Args:
        model: an ante-hoc model with a task head; with `objective=None` any model of transformers.
        args (`AnteHocTrainingArguments`): its arguments.
        objective (`Objective` or `str`, *optional*, defaults to `"auto"`):
            What the map learns from: an object, a name, or the one that suits the model's map. None: there is no
            second pass, and a map head stays as it is; so it is for models without one.
        kwargs: as for `transformers.Trainer`.

    Raises:
        ValueError: if the model, the objective, the arguments and the way of launching do not fit together.
    """

    # The losses are means over a micro-batch, in both passes.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: Any = None,
        args: AnteHocTrainingArguments | None = None,
        *,
        objective: Objective | str | None = "auto",
        **kwargs: Any,
    ) -> None:
        args = AnteHocTrainingArguments(output_dir="tmp_trainer") if args is None else args
        if not isinstance(args, AnteHocTrainingArguments):
            raise ValueError(f"args must be AnteHocTrainingArguments, not {type(args).__name__}.")
        self._has_labels = True
        self._kept_outputs: list[ModelOutput] | None = None  # a list while a first pass runs
        self._awaiting_step: list[tuple[TrainingStep, FirstPassRecord]] = []
        self._map_gradient_norm: Tensor | None = None
        self._position = (-1, 0)  # optimizer step and micro-batch of the last training step
        self._map_meter = MapMeter()
        super().__init__(model=model, args=args, **kwargs)
        self._has_map = has_map(self.model)
        self.objective = objective_for(self.model, objective)
        self._check_setup()
        self.meter = TrainingMeter(self.args.device)
        self.add_callback(self.meter)
        self.first_pass_change = None
        if self.objective is not None:
            self.first_pass_change = self.objective.first_pass_change(self.model, self.args.partial_image_share)
            if self.args.update_order == "sequential":
                self.add_callback(_AfterOptimizerStep(self._step_map_head))

    def _check_setup(self) -> None:
        args, objective = self.args, self.objective
        if objective is not None:
            objective.check(self.model, args)
            if objective.trains_task and not args.train_task:
                raise ValueError(
                    f"train_task=False leaves backbone and head as they are, and {called(objective)} trains them in "
                    "the second pass: leave one of the two out."
                )
            if objective.trains_task and args.update_order == "sequential":
                raise ValueError(
                    f"{called(objective)} adds to the first pass's gradients, which update_order='sequential' has "
                    "applied by then: use update_order='simultaneous' with it."
                )
        elif not args.train_task or args.partial_image_share > 0:
            raise ValueError(
                "train_task=False and partial_image_share belong to a training with an objective, and this one has "
                "none: leave them out."
            )
        if args.train_task and self._has_map and not any(p.requires_grad for p in task_parameters(self.model)):
            raise ValueError(
                "Every parameter of the backbone and the head is frozen, so that the first pass has nothing to train: "
                "set train_task=False."
            )
        if not args.train_task and getattr(self.model, "has_new_head", False):
            raise ValueError(
                "train_task=False would explain a classifier of random values, since the pretrained weights have "
                "another number of classes: leave num_labels and id2label out, so that the classes are theirs, or "
                "train the task as well (if it has been trained since, set model.has_new_head = False)."
            )
        check_launch(args, self.accelerator, trains_task=objective is not None and objective.trains_task)

    # -- the two passes -----------------------------------------------------------------------------------------

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Both passes of one micro-batch (with `update_order="sequential"` the second waits for the optimizer step).

        Returns:
            `Tensor`: the task's loss, as the stock Trainer has it.
        """
        inputs = self._prepare_inputs(inputs)
        step = self._current_step(model)
        if self.first_pass_change is not None:
            inputs = {**inputs, "pixel_values": self.first_pass_change(inputs["pixel_values"], step)}
        loss, outputs = self._first_pass(model, inputs, num_items_in_batch)
        self.meter.add_first_pass(len(inputs[getattr(self.model, "main_input_name", "pixel_values")]), outputs)
        result = None
        if self.objective is not None and self._second_pass_is_due(step.number):
            record = FirstPassRecord.of(self.model, inputs, outputs, self.args.interpretation_batch_share)
            record = self.objective.remember(step, record)
            if self.args.update_order == "sequential":
                self._awaiting_step.append((step, record))
            else:
                result = self._second_pass(self.objective, step, record)
        self.meter.warn_if_not_finite(step.number + 1, loss, result)
        return loss

    def _current_step(self, model: nn.Module) -> TrainingStep:
        number, args = self.state.global_step, self.args
        self._position = (number, self._position[1] + 1 if self._position[0] == number else 0)
        return TrainingStep(
            model=self.model,
            call=model,
            accelerator=self.accelerator,
            number=number,
            micro_batch=self._position[1],
            micro_batches=self.current_gradient_accumulation_steps,
            seed=args.seed,
            process=args.process_index,
        )

    def _first_pass(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None
    ) -> tuple[Tensor, ModelOutput]:
        """The task's loss, from which backbone and head learn unless `train_task=False`, and the model's outputs."""
        inputs = {**inputs, "phase": "task"} if self._has_map else inputs  # type: ignore[dict-item]
        kept = self._kept_outputs = []
        try:
            if self.args.train_task:
                with self.model.task_phase() if self._has_map else nullcontext():
                    loss = super().training_step(model, inputs, num_items_in_batch)
            else:
                model.eval()
                with torch.no_grad(), self.compute_loss_context_manager():
                    loss = self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
                loss = loss.detach() / self.current_gradient_accumulation_steps
        finally:
            self._kept_outputs = None
        return loss, kept[0]

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """As in the stock Trainer; the first pass's outputs are kept for the second. Where the task is not trained,
        images need no labels.
        """
        if self.args.train_task or any(inputs.get(name) is not None for name in self.label_names):
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        else:
            outputs = model(**inputs)
            loss, self._has_labels = torch.zeros((), device=self.args.device), False
        if self._kept_outputs is not None:
            self._kept_outputs.append(outputs)
        return (loss, outputs) if return_outputs else loss

    def _second_pass_is_due(self, step: int) -> bool:
        """Whether the optimizer step with this number, counted from 0, has a second pass."""
        started = step >= self.args.interpretation_start * self.state.max_steps
        return started and step % self.args.interpretation_interval == 0

    def _second_pass(self, objective: Objective, step: TrainingStep, record: FirstPassRecord) -> SecondPassResult:
        with preserved_random_state(record.tap_values.device):
            result = objective.second_pass(step, record)
        self.meter.add_second_pass(result, 1 / step.micro_batches)
        return result

    def _step_map_head(self) -> None:
        """`update_order="sequential"`: the second pass and step, through the backbone that has just been updated."""
        waiting, self._awaiting_step = self._awaiting_step, []
        if not waiting or self.objective is None:
            return
        for parameter in task_parameters(self.model):
            parameter.grad = None  # applied already; the optimizer leaves parameters without gradient alone
        for position, (step, record) in enumerate(waiting):
            last = position == len(waiting) - 1
            step = dataclasses.replace(step, call=self.model_wrapped, micro_batches=len(waiting))
            with nullcontext() if last else self.accelerator.no_sync(self.model_wrapped):
                result = self._second_pass(self.objective, step, record)
            self.meter.warn_if_not_finite(step.number + 1, None, result)
        self._drop_gradient_unless_finite()
        self._clip_map_head()
        assert self.optimizer is not None
        self.optimizer.step()

    # -- optimizer ----------------------------------------------------------------------------------------------

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The stock optimizer over the first pass's parameters, and the map head's as groups of their own.

        Raises:
            ValueError: if an optimizer was given that does not hold the map head's parameters.
        """
        source: Any = self.model if model is None else model
        if not self._has_map:
            return super().create_optimizer(model)
        own = {id(parameter) for parameter in map_parameters(source)}
        if self.optimizer is not None:
            held = {id(parameter) for group in self.optimizer.param_groups for parameter in group["params"]}
            if self.objective is not None and not own <= held:
                raise ValueError(
                    "The optimizer that was given does not hold the map head's parameters "
                    "(model.map_head.parameters()), so the second pass would train nothing: add them to it."
                )
            return super().create_optimizer(model)
        learning = {name for name, p in source.named_parameters() if p.requires_grad}
        with source.task_phase():
            optimizer = super().create_optimizer(model)
        if self.objective is None:
            return optimizer
        decaying = set(self.get_decay_parameter_names(source))
        for decays in (True, False):
            optimizer.add_param_group(
                {
                    "params": [
                        p
                        for name, p in source.named_parameters()
                        if id(p) in own and name in learning and (name in decaying) is decays
                    ],
                    "lr": self.args.interpretation_learning_rate,
                    "weight_decay": self.args.interpretation_weight_decay if decays else 0.0,
                }
            )
        return optimizer

    def _clip_grad_norm(self, model: nn.Module) -> Tensor | float | None:
        if self.objective is None:
            return super()._clip_grad_norm(model)
        return self._clip_passes(self.args.max_grad_norm)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> float | None:
        """The first pass's gradient norm, comparable with the stock Trainer's."""
        if grad_norm is None and self.objective is not None:
            grad_norm = self._clip_passes(float("inf"))
        return super()._get_grad_norm(model, grad_norm)

    def _clip_passes(self, max_norm: float) -> Tensor:
        """Clips each pass by itself: a large gradient of the classifier must not shrink the map's, nor the reverse."""
        self._drop_gradient_unless_finite()
        self.accelerator.unscale_gradients()  # once: fp16's scaler refuses a second time
        norm = torch.nn.utils.clip_grad_norm_(task_parameters(self.model), max_norm)
        self._clip_map_head()
        return _whole(norm)

    def _clip_map_head(self) -> None:
        parameters = [parameter for parameter in map_parameters(self.model) if parameter.grad is not None]
        if not parameters:
            return
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.args.interpretation_max_grad_norm or float("inf"))
        self._map_gradient_norm = _whole(norm)

    def _drop_gradient_unless_finite(self) -> None:
        """A second pass that overflowed skips its own update; with fp16 it would make the scaler skip both."""
        gradients = [p.grad for p in map_parameters(self.model) if p.grad is not None]
        if not gradients:
            return
        if not torch.isfinite(_whole(torch.nn.utils.get_total_norm(gradients))):
            step = self.state.global_step + 1
            self.meter.warn("gradient", f"Step {step}: the map head's gradient is not finite; not updated.")
            for parameter in map_parameters(self.model):
                parameter.grad = None

    # -- logging and evaluation ---------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in the stock Trainer; a training log also holds what [`TrainingMeter`] has measured, and nothing of a
        first pass that trains nothing.
        """
        if "loss" in logs and self.is_in_train:
            if not self.args.train_task:
                for name in ("grad_norm", "learning_rate", *(() if self._has_labels else ("loss",))):
                    logs.pop(name, None)
            logs.update(self.meter.report(self.accelerator))
            if self._map_gradient_norm is not None:
                logs["interpretation_grad_norm"] = float(self._map_gradient_norm)
        super().log(logs, start_time)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As in the stock Trainer; the metrics also hold `{prefix}_map_mean` and `{prefix}_degenerate_share`."""
        self._map_meter.reset()
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        return output._replace(metrics={**(output.metrics or {}), **self._map_meter.report(metric_key_prefix)})

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """As in the stock Trainer; of the maps two numbers an image are gathered, not the maps."""
        with self._map_meter.watching(model, self.gather_function):
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)

    def _progress(self) -> dict[str, object]:
        return {**super()._progress(), "map_gradient_norm": self._map_gradient_norm}

    def _restore_progress(self) -> None:
        super()._restore_progress()
        self._map_gradient_norm = self._saved_progress().get("map_gradient_norm")

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As in [`ResumableTrainer`]."""
        self.meter.reset()
        self._map_gradient_norm, self._awaiting_step, self._position = None, [], (-1, 0)
        if self.args.train_task and getattr(self.model, "has_new_head", False):
            self.model.has_new_head = False
        return super().train(*args, **kwargs)


class _AfterOptimizerStep(TrainerCallback):
    """Calls `act` after each optimizer step, while gradients and learning rates are still that step's."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._act()


def _whole(norm: Tensor) -> Tensor:
    """A norm as one tensor, also where the parameters are sharded."""
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
