"""The trainer of models without a second pass: stock training in a run folder like that of ours."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.launch import check_launch
from antehoc_hf.training.meters import TrainingMeter
from antehoc_hf.training.resumable_trainer import ResumableTrainer


class OnePassTrainer(ResumableTrainer):
    """
    The stock Trainer with the checkpoints, the resuming and the folder of [`ResumableTrainer`].

    It knows no model: beside the `loss` it logs the scalars of the output whose names end in `_loss`, averaged since
    the last log over micro-batches and processes, and `images_per_second`.

    Args:
        model: an image classifier.
        args (`AnteHocTrainingArguments`): those about the second pass are not looked at.
        kwargs: as for `transformers.Trainer`.
    """

    loss_is_scaled_for_ga = False  # the loss is a mean over a micro-batch
    model: Any

    def __init__(self, model: Any, args: AnteHocTrainingArguments, **kwargs: Any) -> None:
        self._sums: dict[str, Tensor] = {}
        self._batches = 0
        super().__init__(model=model, args=args, **kwargs)
        check_launch(self.args, self.accelerator)
        self.meter = TrainingMeter(self.args.device)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """As in the stock Trainer; images are counted."""
        self.meter.start()
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.meter.add_images(len(inputs[self.model.main_input_name]))
        self.meter.warn_if_not_finite(self.state.global_step + 1, loss, None)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """As in the stock Trainer; in training the parts of the loss are noted."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training:
            self._batches += 1
            for name, value in outputs.items():
                if name.endswith("_loss"):
                    self._sums[name] = self._sums.get(name, 0) + value.detach().float()
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in the stock Trainer; a training log also tells the parts of the loss and the throughput."""
        if "loss" in logs and self.is_in_train:
            logs.update(self._parts())
            logs.update(self.meter.report(self.accelerator))
        super().log(logs, start_time)

    def _parts(self) -> dict[str, float]:
        """The averages since the last log; starts anew. To be called by all processes."""
        if not self._sums or not self._batches:
            return {}
        mean = self.accelerator.reduce(torch.stack(list(self._sums.values())) / self._batches, reduction="mean")
        named = dict(zip(self._sums, mean.tolist(), strict=True))
        self._sums, self._batches = {}, 0
        return named

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As in the stock Trainer; it does not count as training time."""
        with self.meter.paused():
            return super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As in [`ResumableTrainer`]."""
        self.meter.reset()
        self._sums, self._batches = {}, 0
        return super().train(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        with self.meter.paused():
            super()._save_checkpoint(model, trial)
