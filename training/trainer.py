"""The two-pass trainer: a `transformers.Trainer` that also trains the weight network."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.coalitions import PartialImages, black_of
from antehoc_hf.training.launch import check_launch
from antehoc_hf.training.meters import MapMeter, TrainingMeter
from antehoc_hf.training.resumable_trainer import ResumableTrainer
from antehoc_hf.training.second_pass import FirstPass, SecondPass, task_parameters, weight_parameters


class _AfterOptimizerStep(TrainerCallback):
    """Calls `act` after each optimizer step, while gradients and learning rates are still that step's."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._act()


class AnteHocTrainer(ResumableTrainer):
    """
    Trains an ante-hoc model in two passes a step, and is the stock Trainer in everything else.

    First pass: the image; the backbone and its head learn their task, exactly as the stock Trainer would train them.
    Second pass: image ⊙ map, the energy map (Eq. 2); only the weight network learns, to keep the prediction. With
    class-conditional maps (`weight_network="contributions"`) it learns from coalitions of patches instead. The trainer
    knows no task: it asks the model for its `prediction`.

    With the default arguments the backbone's and the head's parameters are, bit for bit, those of a training without
    a map: the passes have gradients, clipping and optimizer groups of their own, and the second draws no random
    numbers and stores no batch statistics.

    Logged beside the task's `loss`: `interpretation_loss`, `map_mean`, `degenerate_share`, `interpretation_grad_norm`
    and `images_per_second`; after an evaluation also `eval_map_mean` and `eval_degenerate_share`.

    Checkpoints are whole or not there (see `checkpoints`), and `output_dir` is one run's: a folder that holds another
    is refused.

    Args:
        model: an ante-hoc model with a head.
        args (`AnteHocTrainingArguments`): its arguments.
        kwargs: as for `transformers.Trainer`.

    Raises:
        ValueError: if the model, the arguments and the way of launching do not fit together.
    """

    # The losses are means over a micro-batch, in both passes.
    loss_is_scaled_for_ga = False
    model: Any
    optimizer: Any

    def __init__(self, model: Any = None, args: AnteHocTrainingArguments | None = None, **kwargs: Any) -> None:
        args = AnteHocTrainingArguments(output_dir="tmp_trainer") if args is None else args
        if not isinstance(args, AnteHocTrainingArguments):
            raise ValueError(f"args must be AnteHocTrainingArguments, not {type(args).__name__}.")
        self._task_outputs: Any = None
        self._keep_task_outputs = False
        self._awaiting_step: list[FirstPass] = []
        self._weight_gradient_norm: Tensor | None = None
        self._map_meter = MapMeter()
        super().__init__(model=model, args=args, **kwargs)
        self._check_setup()
        self.meter = TrainingMeter(self.args.device)
        self.second_pass = SecondPass(self.model, self.args, self.accelerator)
        self.partial_images: PartialImages | None = None
        if self.args.partial_image_share > 0:
            config = self.model.config
            self.partial_images = PartialImages(self.args, black_of(config), config.map_head.grid)
        if self.args.update_order == "sequential":
            self.add_callback(_AfterOptimizerStep(self._step_weight_network))

    def _check_setup(self) -> None:
        if not hasattr(self.model, "map_head") or not hasattr(self.model, "interpretation_phase"):
            raise ValueError(
                f"AnteHocTrainer trains ante-hoc models such as AnteHocForImageClassification, and "
                f"{type(self.model).__name__} has no weight network: use transformers.Trainer for it."
            )
        if self.args.train_task and not any(p.requires_grad for p in task_parameters(self.model)):
            raise ValueError(
                "Every parameter of the backbone and the head is frozen, so that the first pass has nothing to train: "
                "set train_task=False."
            )
        check_launch(self.args, self.accelerator)

    # -- the two passes -----------------------------------------------------------------------------------------

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """
        Both passes of one micro-batch (with `update_order="sequential"` the second waits for the optimizer step).

        Returns:
            `Tensor`: the task's loss, as the stock Trainer has it.
        """
        self.meter.start()
        inputs = self._prepare_inputs(inputs)
        if self.partial_images is not None:
            shown = self.partial_images.of(inputs["pixel_values"], self.state.global_step)
            inputs = {**inputs, "pixel_values": shown}
        self._keep_task_outputs = True
        try:
            if self.args.train_task:
                with self.model.task_phase():
                    loss = super().training_step(model, {**inputs, "phase": "task"}, num_items_in_batch)
            else:
                loss = self._task_loss(model, inputs, num_items_in_batch)
        finally:
            outputs, self._task_outputs, self._keep_task_outputs = self._task_outputs, None, False
        self.meter.add_images(len(inputs[self.model.main_input_name]))
        result = None
        if self.second_pass.is_due(self.state.global_step, self.state.max_steps):
            first = self.second_pass.remember(self.model, model, inputs, outputs)
            if self.args.update_order == "sequential":
                self._awaiting_step.append(first)
            else:
                micro_batches = self.current_gradient_accumulation_steps
                result = self.second_pass.run(self.model, model, first, micro_batches, self.state.global_step)
                self.meter.add(result, 1 / micro_batches)
        self.meter.warn_if_not_finite(self.state.global_step + 1, loss, result)
        return loss

    def _task_loss(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None) -> Tensor:
        """`train_task=False`: the first pass in evaluation mode, from which nothing learns."""
        model.eval()
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, {**inputs, "phase": "task"}, num_items_in_batch=num_items_in_batch)
        return loss.detach() / self.current_gradient_accumulation_steps

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """As in the stock Trainer; the first pass's outputs are kept for the second."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if self._keep_task_outputs:
            self._task_outputs = outputs
        return (loss, outputs) if return_outputs else loss

    def _step_weight_network(self) -> None:
        """`update_order="sequential"`: the second pass and step, through the backbone that has just been updated."""
        firsts, self._awaiting_step = self._awaiting_step, []
        if not firsts:
            return
        for parameter in task_parameters(self.model):
            parameter.grad = None  # applied already; the optimizer leaves parameters without gradient alone
        for position, first in enumerate(firsts):
            last = position == len(firsts) - 1
            with self.accelerator.no_sync(self.model_wrapped) if not last else nullcontext():
                step = self.state.global_step
                result = self.second_pass.run(self.model, self.model_wrapped, first, len(firsts), step)
            self.meter.add(result, 1 / len(firsts))
            self.meter.warn_if_not_finite(self.state.global_step + 1, None, result)
        self._drop_gradient_unless_finite()
        self._clip_weight_network()
        self.optimizer.step()

    # -- optimizer ----------------------------------------------------------------------------------------------

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """
        The stock optimizer over the first pass's parameters, and the weight network's as groups of their own.

        Raises:
            ValueError: if an optimizer was given that does not hold the weight network's parameters.
        """
        source: Any = self.model if model is None else model
        learning = {name for name, p in source.named_parameters() if p.requires_grad}
        own = {id(parameter) for parameter in weight_parameters(source)}
        if self.optimizer is not None:
            held = {id(parameter) for group in self.optimizer.param_groups for parameter in group["params"]}
            if not own <= held:
                raise ValueError(
                    "The optimizer that was given does not hold the weight network's parameters "
                    "(model.map_head.parameters()), so the second pass would train nothing: add them to it."
                )
            return super().create_optimizer(model)
        with source.task_phase():
            optimizer = super().create_optimizer(model)
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

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        return self._clip_passes(self.args.max_grad_norm)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The first pass's gradient norm, comparable with the stock Trainer's."""
        return self._clip_passes(float("inf")) if grad_norm is None else grad_norm

    def _clip_passes(self, max_norm: float) -> Tensor:
        """Clips each pass by itself: a large gradient of the classifier must not shrink the map's, nor the reverse."""
        self._drop_gradient_unless_finite()
        self.accelerator.unscale_gradients()  # once: fp16's scaler refuses a second time
        norm = torch.nn.utils.clip_grad_norm_(task_parameters(self.model), max_norm)
        self._clip_weight_network()
        return _whole(norm)

    def _clip_weight_network(self) -> None:
        parameters = [parameter for parameter in weight_parameters(self.model) if parameter.grad is not None]
        if not parameters:
            return
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.args.interpretation_max_grad_norm or float("inf"))
        self._weight_gradient_norm = _whole(norm)

    def _drop_gradient_unless_finite(self) -> None:
        """A second pass that overflowed skips its own update; with fp16 it would make the scaler skip both."""
        gradients = [p.grad for p in weight_parameters(self.model) if p.grad is not None]
        if not gradients:
            return
        if not torch.isfinite(_whole(torch.nn.utils.get_total_norm(gradients))):
            step = self.state.global_step + 1
            self.meter.warn("gradient", f"Step {step}: the weight network's gradient is not finite; not updated.")
            for parameter in weight_parameters(self.model):
                parameter.grad = None

    # -- logging and evaluation ---------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in the stock Trainer; a training log also tells of the second pass and the throughput."""
        if "loss" in logs and self.is_in_train:
            logs.update(self.meter.report(self.accelerator))
            if self._weight_gradient_norm is not None:
                logs["interpretation_grad_norm"] = float(self._weight_gradient_norm)
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
        self._map_meter = MapMeter()
        with self.meter.paused():
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        metrics = {**(output.metrics or {}), **self._map_meter.report(metric_key_prefix)}
        return output._replace(metrics=metrics)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """As in the stock Trainer; of the maps two numbers an image are gathered, not the maps."""
        rows: list[Tensor] = []

        def read(module: nn.Module, args: Any, outputs: Any) -> None:
            if getattr(outputs, "interpretation_map", None) is not None:
                means = outputs.interpretation_map.float().mean(dim=(1, 2, 3))
                rows.append(torch.stack([means, outputs.degenerate.float()], dim=1))

        handle = model.register_forward_hook(read)
        try:
            result = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        finally:
            handle.remove()
        for row in rows:
            self._map_meter.add(self.gather_function(row))
        return result

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As in [`ResumableTrainer`]."""
        self.meter.reset()
        self._weight_gradient_norm = None
        self._awaiting_step = []
        return super().train(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        with self.meter.paused():
            super()._save_checkpoint(model, trial)


def _whole(norm: Any) -> Tensor:
    """A norm as a plain tensor, also where the parameters are sharded."""
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
