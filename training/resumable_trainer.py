"""The stock Trainer with whole checkpoints, exact resuming, and an output folder that belongs to one run."""

import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import TrainOutput
from transformers.utils import PushInProgress

from antehoc_hf.model_cards import Facts, write_card
from antehoc_hf.model_cards.in_memory import note_results
from antehoc_hf.model_cards.publish import Pushed
from antehoc_hf.model_push import processor_of
from antehoc_hf.modeling.timm_model import TimmPreTrainedModel
from antehoc_hf.training import checkpoints
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.callback_states import has_ended, restore_callbacks
from antehoc_hf.training.card import RunRecord
from antehoc_hf.training.meters import TrainingMeter
from antehoc_hf.training.objectives.base import Objective
from antehoc_hf.training.pushing import HubPusher, Saveable
from antehoc_hf.training.random_state import ReplayableDataset
from antehoc_hf.training.run_flow import RunFlow
from antehoc_hf.training.run_lock import decided_by_main_process, locked_by_main_process
from antehoc_hf.training.runs.identity import claim, copy_record, describe_run

logger = logging.getLogger(__name__)


class ResumableTrainer(Trainer):
    """What a long run needs of the stock Trainer; knows nothing of the two passes.

    - A checkpoint is whole or not there, whatever kills the run (see `checkpoints`).
    - A run resumed from a checkpoint goes on bit for bit as if it had not been interrupted (on one kind of machine),
      in the middle of an epoch and with augmentations from the global random generators, too, and logs what it would
      have logged. One that has reached its end, or was stopped early, trains no further. Data-loading workers have
      generators of their own, which are not saved: with them the augmentations of a resumed epoch differ.
    - `output_dir` is one run's, and one process's at a time: a folder that holds another run is refused.
    - On SIGTERM, SIGHUP or Ctrl-C it finishes the step, writes a checkpoint and raises `KeyboardInterrupt`; a second
      one stops at once. So does a first one on several processes.
    - What is pushed is our card, all that a model needs, and nothing else (see [`HubPusher`]).

    Of the stock Trainer's private methods it overrides

    - `_save_checkpoint` and `_get_output_dir`, so that a checkpoint is written elsewhere, sealed and then renamed;
    - `_push_from_checkpoint`, so that it is pushed after that;
    - `_load_best_model`, which compares that checkpoint with its digests first;
    - `_finalize_training`, which would delete the last checkpoint, that knows the end, if `save_total_limit` is 1;
    - `_load_rng_state`, which knows the moment at which a resumed epoch goes on.

    It also reads and sets the sums of the loss since the last log, which the stock Trainer does not save.

    Attributes:
        companions: what is saved with model and image processor, such as a tokenizer.
        facts: what a person has said for the card.
        record: what this training knows about the model, for its card.
    """

    args: AnteHocTrainingArguments
    model: Any
    hub_model_id: str | None  # type: ignore[assignment]
    push_in_progress: PushInProgress | None  # type: ignore[assignment]
    meter: TrainingMeter
    objective: Objective | None = None

    def __init__(self, model: Any, args: AnteHocTrainingArguments, **kwargs: Any) -> None:
        self._staging: str | None = None
        self._resumed_from: str | None = None
        self._replayable: ReplayableDataset | None = None
        self.companions: tuple[Saveable, ...] = ()
        self.facts: Facts | None = None
        self.record = RunRecord()
        self._pusher = HubPusher(args, self._complete_folder)
        super().__init__(model=model, args=args, **kwargs)
        self._flow = RunFlow(self._restore_progress, lambda: self._save_checkpoint(self.model, trial=None))
        self.add_callback(self._flow)

    def add_callback(self, callback: type[TrainerCallback] | TrainerCallback) -> None:
        """As in the stock Trainer; what decides on saving comes after it."""
        flow = getattr(self, "_flow", None)
        if flow is not None and flow is not callback:
            self.remove_callback(flow)
            super().add_callback(callback)
        super().add_callback(callback if flow is None else flow)

    # -- the run's folder ---------------------------------------------------------------------------------------

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: object = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """As in the stock Trainer, in a folder that is this run's.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*): a whole checkpoint, or `True` for the last whole one
                of `output_dir`; damaged ones are passed over with a warning.
            trial: of a hyperparameter search; its folder is not checked.
            ignore_keys_for_eval (`list[str]`, *optional*): outputs that evaluations during training do not gather.

        Raises:
            RunFolderError: if `output_dir` holds another run, or this one and it is not resumed, if another process
                uses it, or if the checkpoint to resume from is damaged.
            OSError: if the disk is full when a checkpoint is to be written.
            KeyboardInterrupt: after SIGTERM, SIGHUP or Ctrl-C, saying from where the run can go on.
        """
        resume = resume_from_checkpoint or None
        with self.folder_lock(), self._flow.catching_signals():
            checkpoint = self._claim_folder(resume) if trial is None or resume is True else resume
            self._resumed_from = checkpoint if isinstance(checkpoint, str) else None
            with _changed(self.args, eval_on_start=self.args.eval_on_start and not checkpoint):
                output = super().train(checkpoint, trial, ignore_keys_for_eval)
            self._note_on_model()
        return output._replace(training_loss=output.metrics["train_loss"])

    def folder_lock(self) -> AbstractContextManager[None]:
        """Holds `output_dir` for this process; what else writes a run's results into it should hold it as well."""
        return locked_by_main_process(self.args)

    def _claim_folder(self, resume: str | bool | None) -> str | None:
        """The main process decides, so that all of them go on or stop together."""
        identity = describe_run(self.model, self.train_dataset, self.args, self.objective)

        def decide() -> str | None:
            return claim(str(self.args.output_dir), identity, resume, self.args.overwrite_run)

        return decided_by_main_process(self.args, decide)

    # -- checkpoints --------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: object) -> str:
        return self._staging if self._staging is not None else super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """Written aside by the stock Trainer, then sealed and renamed; older ones are deleted only after that."""
        run_dir = self._get_output_dir(trial)
        step = self.state.global_step
        staging = Path(run_dir, checkpoints.PARTIAL_FOLDER)
        staged, final = staging / f"checkpoint-{step}", Path(run_dir, f"checkpoint-{step}")
        self._staging = str(staging)
        parts = [*self.callback_handler.callbacks, self.control]
        # Lists: the stock Trainer appends to them, and stumbles over a callback that a resumed run has added.
        counts: Any = {type(part).__name__: [] for part in parts if isinstance(part, ExportableState)}
        self.state.stateful_callbacks = counts
        try:
            with checkpoints.explained_full_disk(staged, run_dir):
                super()._save_checkpoint(model, trial)
                if not self.args.save_only_model:
                    torch.save(self._progress(), staged / self._progress_name())
                self._flow.saved_end = self.control.should_training_stop
                self._name_best_checkpoint(run_dir, staged)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    copy_record(run_dir, staged)
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

    # -- what the stock Trainer does not save ---------------------------------------------------------------------

    def _progress_name(self) -> str:
        return f"progress_{self.args.process_index}.pth"

    def _progress(self) -> dict[str, object]:
        """Of this process: the losses since the last log, and the random state before the batch read last."""
        return {
            "loss": self._tr_loss,
            "total_loss": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
            "meter": self.meter.state_dict(),
            "before_last_batch": self._replayable.before_last_batch if self._replayable is not None else None,
        }

    def _saved_progress(self) -> Mapping[str, Any]:
        path = os.path.join(self._resumed_from or "", self._progress_name())
        there = self._resumed_from and os.path.isfile(path)
        return torch.load(path, map_location="cpu", weights_only=True) if there else {}

    def _saved_state(self) -> TrainerState | None:
        if self._resumed_from is None:
            return None
        return TrainerState.load_from_json(os.path.join(self._resumed_from, "trainer_state.json"))

    def _restore_progress(self) -> None:
        """At the beginning of a resumed training: the next log is what it would have been."""
        progress, state = self._saved_progress(), self._saved_state()
        if progress:
            self._tr_loss += progress["loss"].to(self._tr_loss.device)
            self._total_loss_scalar = progress["total_loss"]
            self._globalstep_last_logged = progress["last_logged"]
            self.meter.load_state_dict(progress["meter"])
        if state is not None and state.best_model_checkpoint is not None:
            # Next to this one, whatever folder is recorded: it may have moved, or be a copy of a run that went on.
            best = Path(str(self._resumed_from)).with_name(Path(state.best_model_checkpoint).name)
            self.state.best_model_checkpoint = str(best)
            if self.args.load_best_model_at_end:
                checkpoints.check_best(str(self.state.best_model_checkpoint))

    def _load_best_model(self) -> None:
        checkpoints.check_best(str(self.state.best_model_checkpoint))
        super()._load_best_model()

    def _finalize_training(self, *args: object) -> TrainOutput:
        with _changed(self.args, save_total_limit=None):
            return super()._finalize_training(*args)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in the stock Trainer; `train_loss` is the mean over the whole training, not since it was resumed."""
        if "train_loss" in logs:
            logs["train_loss"] = self._total_loss_scalar / max(self.state.global_step, 0.001)
        super().log(logs, start_time)

    def set_initial_training_values(self, args: TrainingArguments, dataloader: DataLoader) -> tuple[Any, ...]:
        """As in the stock Trainer; a run that has reached its end has no epochs left to train."""
        epochs, updates_per_epoch, *others, max_steps = super().set_initial_training_values(args, dataloader)
        self._flow.planned_epochs = epochs
        state = self._saved_state()
        if state is not None:
            callbacks = self.callback_handler.callbacks
            restore_callbacks(state, callbacks)
            if has_ended(state, max_steps, callbacks):
                epochs = state.global_step // updates_per_epoch
        return epochs, updates_per_epoch, *others, max_steps

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
        used = self._remove_unused_columns(given, "Training") if isinstance(given, datasets.Dataset) else given
        self._replayable = ReplayableDataset(used)
        state = self._saved_progress().get("before_last_batch")
        if state is not None:
            checkpoint = self._resumed_from
            self._replayable.replay(state, then=lambda: super(ResumableTrainer, self)._load_rng_state(checkpoint))
        self.train_dataset = self._replayable
        try:
            return super().get_train_dataloader()
        finally:
            self.train_dataset = given

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Called before a resumed run reads its first batch, or after that where an epoch was left in its middle."""
        if self._replayable is not None and self._replayable.has_replayed:
            self._replayable.finish_replay()
            return
        if self._replayable is not None:
            self._replayable.forget_replay()
        super()._load_rng_state(checkpoint)
        in_the_middle = self.state.epoch is not None and not float(self.state.epoch).is_integer()
        if in_the_middle and self.args.dataloader_num_workers > 0:
            logger.warning(
                "Random augmentations of the resumed epoch are not those of an uninterrupted run, because the state "
                "of data-loading workers is not saved: set dataloader_num_workers=0 if that matters."
            )

    # -- the Hub --------------------------------------------------------------------------------------------------

    def evaluate(
        self,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """As in the stock Trainer; what comes out is remembered for the card."""
        metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        chosen = self.eval_dataset if eval_dataset is None else eval_dataset
        if not isinstance(chosen, dict):  # several data sets: this is called once more for each
            self.record.evaluated(self, metrics, chosen, metric_key_prefix)
        if not self.is_in_train:
            self._note_on_model()
        return metrics

    def _note_on_model(self) -> None:
        """So that `model.push_to_hub()` knows it too, for as long as the weights stay as they are."""
        if self.is_world_process_zero() and not self.is_fsdp_enabled:
            note_results(self.model, self.record.results(self))

    def create_model_card(self, *args: object, **kwargs: object) -> None:
        """Our card in `output_dir`, unless a person's is there; arguments for the stock card are not needed."""
        if self.is_world_process_zero():
            self._write_card(Path(str(self.args.output_dir)))

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """As in the stock Trainer; raises `PushError` if the Hub refuses or cannot be reached."""
        if self.is_world_process_zero():
            self.hub_model_id = self.args.hub_model_id = self._pusher.create(token, private)
            self.push_in_progress = None

    def push_to_hub(  # type: ignore[override]
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: object,
    ) -> "Pushed | Future[Pushed] | None":
        """Saves the model to `output_dir`, writes its card and pushes both.

        Args:
            commit_message (`str`, *optional*): of the commit.
            blocking (`bool`): False returns a future at once.
            token, revision, private: instead of the arguments' `hub_token`, `hub_revision` and `hub_private_repo`.
            kwargs: as for the stock Trainer; not needed for our card.

        Returns:
            `Pushed`, or a `Future` of it; None on all processes but the first.

        Raises:
            PushError: if the Hub did not take it; `output_dir` is complete.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self._complete_folder(Path(str(self.args.output_dir)))
        return self.push_output(commit_message or "End of training", blocking, token, revision)

    def push_output(
        self,
        message: str = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
    ) -> "Pushed | Future[Pushed]":
        """As [`push_to_hub`], but of `output_dir` as it is; on the first process alone."""
        self._finish_current_push()
        return self._pusher.push(str(self.hub_model_id), message, blocking, token, revision)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self._staging is not None or not self.is_world_process_zero():
            return  # not before the checkpoint has its final place
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.push_in_progress = self._pusher.push_checkpoint(
            Path(checkpoint_folder), self.state.global_step, str(self.hub_model_id), self.push_in_progress
        )

    def _complete_folder(self, folder: Path) -> None:
        if self.processing_class is None and isinstance(self.model, TimmPreTrainedModel):
            processor_of(self.model).save_pretrained(folder)
        for companion in self.companions:
            companion.save_pretrained(folder)
        if isinstance(self.model, PreTrainedModel):
            self._write_card(folder)

    def _write_card(self, folder: Path) -> None:
        """From what the folder says; without results there, from what this training knows."""
        results = None if (folder / "results.json").is_file() else self.record.results(self)
        write_card(folder, self.facts, self.hub_model_id, results)


@contextmanager
def _changed(args: TrainingArguments, **options: bool | None) -> Iterator[None]:
    """With other options, for a while."""
    before = {name: getattr(args, name) for name in options}
    vars(args).update(options)
    try:
        yield
    finally:
        vars(args).update(before)
