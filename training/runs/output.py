"""The folder of a run: the model saved into it, and pushed from it."""

import os
import shlex
import shutil
from pathlib import Path

from antehoc_hf.commands.output import check_output_folder
from antehoc_hf.model_cards import FolderError, PushError
from antehoc_hf.model_cards.errors import explain
from antehoc_hf.model_cards.publish import Pushed
from antehoc_hf.modeling import AnteHocImageProcessor
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.checkpoints import PARTIAL_FOLDER, explained_full_disk
from antehoc_hf.training.pushing import Saveable
from antehoc_hf.training.resumable_trainer import ResumableTrainer
from antehoc_hf.training.runs.identity import read_run
from antehoc_hf.training.runs.results import FIGURE_FILE, RESULTS_FILE


def check_folder(args: AnteHocTrainingArguments) -> None:
    """Before any work: `output_dir` can be written to, and holds no results but a training's.

    Raises:
        UsageError: otherwise.
    """
    folder = Path(str(args.output_dir))
    own = args.overwrite_run or bool(args.resume_from_checkpoint) or read_run(str(folder)) is not None
    if args.process_index == 0:  # two at once would see each other's traces
        check_output_folder(folder, (RESULTS_FILE, FIGURE_FILE, "config.json"), overwrite=own, flag="overwrite_run")


def save_model(trainer: ResumableTrainer, processor: AnteHocImageProcessor, *companions: Saveable) -> None:
    """Model, configuration, code, image processor and what the task adds (a tokenizer) into `output_dir`; written
    aside and moved, so that a model that was there stays whole until the new one is.

    Raises:
        OSError: if the disk is full.
    """
    args = trainer.args
    folder = Path(str(args.output_dir))
    staged = folder / PARTIAL_FOLDER / "model"
    with explained_full_disk(staged, folder):
        trainer.save_model(str(staged), _internal_call=True)
        if args.should_save:
            for part in (processor, *companions):
                part.save_pretrained(staged)
            for path in sorted(staged.iterdir()):
                os.replace(path, folder / path.name)
            shutil.rmtree(staged.parent)
            trainer.save_state()
    trainer.accelerator.wait_for_everyone()


def push(trainer: ResumableTrainer) -> None:
    """Pushes the model in `output_dir` to the Hub: what travels of it, and neither checkpoints nor logs.

    Raises:
        PushError: if the Hub did not take it; the folder is complete, and the sentence says what to run again.
    """
    if not trainer.is_world_process_zero():
        return
    args = trainer.args
    try:
        pushed = trainer.push_output()
    except (PushError, FolderError, KeyboardInterrupt) as error:
        again = ["antehoc", "push", str(args.output_dir), "--repo_id", str(trainer.hub_model_id)]
        again += ["--revision", args.hub_revision] if args.hub_revision else []
        raise PushError(
            f"The model is complete in {args.output_dir}, but pushing it failed ({explain(error)}): run "
            f"`{shlex.join(again)}` to try again."
        ) from error
    assert isinstance(pushed, Pushed)  # it waits
    print(pushed.message(), flush=True)
