"""The stock Trainer with whole checkpoints, exact resuming, and an output folder that belongs to one run."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate.utils import broadcast_object_list
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from transformers.trainer_utils import TrainOutput

from antehoc_hf.training import checkpoints
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.pushing_trainer import PushingTrainer
from antehoc_hf.training.random_state import ReplayableDataset
from antehoc_hf.training.runs.identity import claim, describe_run

logger = logging.getLogger(__name__)


class ResumableTrainer(PushingTrainer):
    """
    What a long run needs of the stock Trainer; knows nothing of the two passes.

    - A checkpoint is whole or not there, whatever kills the run (see `checkpoints`).
    - A run resumed from a checkpoint goes on bit for bit as if it had not been interrupted (on one kind of machine),
      in the middle of an epoch and with augmentations from the global random generators, too. Data-loading workers
      have generators of their own, which are not saved: with them the augmentations of a resumed epoch differ.
    - `output_dir` is one run's: a folder that holds another is refused.
    """

    args: AnteHocTrainingArguments

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._staging: str | None = None
        self._resuming_from: str | None = None
        self._replayable: ReplayableDataset | None = None
        self._replaying = False
        self._columns_are_removed = False
        super().__init__(*args, **kwargs)

    # -- the run's folder ---------------------------------------------------------------------------------------

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """
        As in the stock Trainer, in a folder that is this run's.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*): a whole checkpoint, or `True` for the last whole one
                of `output_dir`; torn ones are passed over with a warning.
            trial: of a hyperparameter search; its folder is not checked.
            ignore_keys_for_eval (`list[str]`, *optional*): outputs that evaluations during training do not gather.

        Raises:
            RunFolderError: if `output_dir` holds another run, or this one and it is not resumed, or if the
                checkpoint to resume from is torn.
            OSError: if the disk is full when a checkpoint is to be written.
        """
        resume = resume_from_checkpoint or None
        checkpoint = self._claim_folder(resume) if trial is None or resume is True else resume
        self._resuming_from = checkpoint
        return super().train(checkpoint, trial, ignore_keys_for_eval)

    def _claim_folder(self, resume: str | bool | None) -> str | None:
        """The main process decides, so that all of them go on or stop together."""
        identity = describe_run(self.model, self.train_dataset, self.args)
        verdict: list[Any] = [None, None]
        if self.args.process_index == 0:
            try:
                verdict[0] = claim(str(self.args.output_dir), identity, resume, self.args.overwrite_run)
            except checkpoints.RunFolderError as error:
                verdict[1] = str(error)
        checkpoint, refusal = broadcast_object_list(verdict)
        if refusal is not None:
            raise checkpoints.RunFolderError(refusal)
        return checkpoint

    # -- checkpoints --------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return self._staging if self._staging is not None else super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Written aside by the stock Trainer, then sealed and renamed; older ones are deleted only after that."""
        run_dir = self._get_output_dir(trial)
        step = self.state.global_step
        staging = Path(run_dir, checkpoints.PARTIAL_FOLDER)
        staged, final = staging / f"checkpoint-{step}", Path(run_dir, f"checkpoint-{step}")
        self._staging = str(staging)
        try:
            with checkpoints.explained_full_disk(staged, run_dir):
                super()._save_checkpoint(model, trial)
                self._name_best_checkpoint(run_dir, staged)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    checkpoints.seal(staged, step, resumable=not self.args.save_only_model)
                    checkpoints.publish(staged, final)
        finally:
            self._staging = None
        if self.args.should_save:
            checkpoints.rotate(run_dir, self.args.save_total_limit, self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(final))

    def _name_best_checkpoint(self, run_dir: str, staged: Path) -> None:
        """The best checkpoint goes by its final name, not by the one under which it is being written."""
        if not self.state.best_global_step:
            return
        best = os.path.join(run_dir, f"checkpoint-{self.state.best_global_step}")
        if self.state.best_global_step == self.state.global_step or os.path.isdir(best):
            self.state.best_model_checkpoint = best
            if self.args.should_save:
                self.state.save_to_json(str(staged / "trainer_state.json"))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self._staging is None:  # not before the checkpoint has its final place
            super()._push_from_checkpoint(checkpoint_folder)

    # -- resuming with the same random numbers --------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        """As in the stock Trainer; without workers the data set can draw the batch after a checkpoint once more."""
        given: Any = self.train_dataset
        self._replayable = None
        if (
            given is None
            or isinstance(given, IterableDataset | datasets.IterableDataset)
            or self.args.dataloader_num_workers > 0
            or self.args.train_sampling_strategy not in ("random", "sequential")
        ):
            return super().get_train_dataloader()
        self._columns_are_removed = isinstance(given, datasets.Dataset)
        columns_removed = self._remove_unused_columns(given, "Training") if self._columns_are_removed else given
        self._replayable = ReplayableDataset(columns_removed)
        self.train_dataset = self._replayable
        try:
            return super().get_train_dataloader()
        finally:
            self.train_dataset = given
            self._columns_are_removed = False

    def _get_collator_with_removed_columns(self, data_collator: Callable, description: str | None = None) -> Callable:
        if self._columns_are_removed:  # by the data set itself, as for every `datasets.Dataset`
            return data_collator
        return super()._get_collator_with_removed_columns(data_collator, description)

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        epochs, batches = super()._init_training_state(*args, **kwargs)
        if self._resuming_from is not None and batches > 0:
            self._plan_replay(self._resuming_from)
        return epochs, batches

    def _plan_replay(self, checkpoint: str) -> None:
        path = os.path.join(checkpoint, self._data_state_name())
        if self._replayable is not None and os.path.isfile(path):
            state = torch.load(path, weights_only=True)
            self._replayable.replay(state, then=lambda: super(ResumableTrainer, self)._load_rng_state(checkpoint))
            self._replaying = True
        elif self.args.dataloader_num_workers > 0:
            logger.warning(
                "Random augmentations of the resumed epoch are not those of an uninterrupted run, because the state "
                "of data-loading workers is not saved: set dataloader_num_workers=0 if that matters."
            )

    def _data_state_name(self) -> str:
        return f"data_rng_state_{self.args.process_index}.pth"

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self._replayable is not None and self._replayable.before_last_batch is not None:
            torch.save(self._replayable.before_last_batch, os.path.join(output_dir, self._data_state_name()))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self._replaying and self._replayable is not None:  # the data set has restored it at the right moment
            self._replaying = False
            self._replayable.finish_replay()
        else:
            super()._load_rng_state(checkpoint)
