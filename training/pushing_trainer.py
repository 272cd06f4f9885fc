"""The stock Trainer, pushing as this project does: our card, all that a model needs, and nothing else."""

import logging
import os
import shutil
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, Trainer
from transformers.trainer_utils import HubStrategy
from transformers.utils import PushInProgress

from antehoc_hf.model_cards import (
    Facts,
    FolderError,
    PushError,
    create_repository,
    explain,
    push_folder,
    write_card,
)
from antehoc_hf.model_cards.publish import Pushed, in_background
from antehoc_hf.training.card import describe_training

logger = logging.getLogger(__name__)

PUSH_FOLDER = "_push-{step}"
_LARGE = (".safetensors", ".pt", ".pth", ".bin")


class PushingTrainer(Trainer):
    """
    Pushes while it trains (`hub_strategy`) and at the end.

    The stock Trainer copies the model out of the checkpoint over the one in `output_dir`, leaves out its code, writes
    a card of its own, and uploads whatever else lies there, with the pickled arguments in which the token is. Here
    a folder of links is made beside it, of what travels and no more, and is pushed while training goes on; a push
    that fails is told, and training goes on.

    Attributes:
        companions: what is saved beside model and image processor, such as a tokenizer.
        facts: what a person told for the card.
    """

    args: Any
    companions: tuple[Any, ...] = ()
    facts: Facts | None = None
    hub_model_id: Any
    push_in_progress: Any

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Our card in `output_dir`, unless a person's is there; arguments for the stock card are not needed."""
        if self.is_world_process_zero():
            self._write_card(Path(str(self.args.output_dir)))

    def _write_card(self, folder: Path) -> None:
        """From what the folder tells; before there are results, from the arguments of this training."""
        results = None if (folder / "results.json").is_file() else {"training": self._progress()}
        write_card(folder, self.facts, self.hub_model_id, results)

    def _progress(self) -> dict[str, Any]:
        described = describe_training(
            self.args,
            has_maps=hasattr(self.model, "map_head"),
            class_conditional=getattr(self.model, "class_conditional", False),
        )
        return {"steps": self.state.global_step, "epochs": self.state.epoch, **described}

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """
        Makes the repository, or finds it made: `hub_model_id`, or the name of `output_dir`.

        Raises:
            PushError: if the Hub refuses or cannot be reached.
        """
        if not self.is_world_process_zero():
            return
        args = self.args
        self.hub_model_id = args.hub_model_id = create_repository(
            args.hub_model_id or Path(str(args.output_dir)).absolute().name,
            private if private is not None else args.hub_private_repo,
            token if token is not None else args.hub_token,
        )
        self.push_in_progress = None

    # -- at the end ---------------------------------------------------------------------------------------------

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """
        Saves the model to `output_dir`, writes its card and pushes both.

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
        folder = Path(str(self.args.output_dir))
        for companion in self.companions:
            companion.save_pretrained(folder)
        self.create_model_card()
        return self.push_output(commit_message or "End of training", blocking, token, revision)

    def push_output(
        self,
        message: str = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
    ) -> Any:
        """As [`push_to_hub`], but of `output_dir` as it is; on the first process alone."""
        self._finish_current_push()
        args = self.args
        options: dict[str, Any] = {
            "revision": revision if revision is not None else args.hub_revision,
            "token": token if token is not None else args.hub_token,
            "message": message,
        }
        folder = Path(str(args.output_dir))
        if blocking:
            return push_folder(folder, str(self.hub_model_id), **options)
        return in_background(lambda: push_folder(folder, str(self.hub_model_id), **options))

    # -- while training -----------------------------------------------------------------------------------------

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """The model of a checkpoint, and with a `hub_strategy` of checkpoints also what resuming needs."""
        strategy, running = self.args.hub_strategy, getattr(self, "push_in_progress", None)
        if not self.is_world_process_zero() or strategy == HubStrategy.END:
            return
        if running is not None and not running.is_done() and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        checkpoint = Path(checkpoint_folder)
        extra = {HubStrategy.CHECKPOINT: "last-checkpoint", HubStrategy.ALL_CHECKPOINTS: checkpoint.name}.get(strategy)
        staged = checkpoint.with_name(PUSH_FOLDER.format(step=self.state.global_step))
        try:
            self._stage(checkpoint, staged, extra)
        except OSError as error:
            shutil.rmtree(staged, ignore_errors=True)
            logger.warning(f"The model of {checkpoint.name} was not pushed: {explain(error)}. Training goes on.")
            return
        message = f"Training in progress, step {self.state.global_step}"
        options: dict[str, Any] = {"revision": self.args.hub_revision, "token": self.args.hub_token}

        def push() -> Pushed | None:
            try:
                return push_folder(staged, str(self.hub_model_id), message=message, extra_folder=extra, **options)
            except (PushError, FolderError) as error:
                logger.warning(f"The model of {checkpoint.name} was not pushed: {error} Training goes on.")
                return None
            finally:
                shutil.rmtree(staged, ignore_errors=True)

        job: Future[Pushed | None] = in_background(push)
        if running is None or running.is_done():
            self.push_in_progress = PushInProgress([job])  # type: ignore[arg-type]
        else:
            running.jobs.append(job)

    def _stage(self, checkpoint: Path, staged: Path, extra: str | None) -> None:
        """Links to a checkpoint's files, which outlive its deletion, with companions and card."""
        shutil.rmtree(staged, ignore_errors=True)
        shutil.copytree(checkpoint, staged, copy_function=_link)
        if extra is not None:
            shutil.copytree(checkpoint, staged / extra, copy_function=_link)
        for companion in self.companions:
            companion.save_pretrained(staged)
        if isinstance(self.model, PreTrainedModel):
            self._write_card(staged)


def _link(source: str, target: str) -> None:
    """Of large files, which nobody writes to, a second name; of small ones, and where there are no links, a copy."""
    try:
        if Path(source).suffix in _LARGE:
            os.link(source, target)
            return
    except OSError:
        pass
    shutil.copy2(source, target)
