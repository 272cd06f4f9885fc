"""How a training is pushed: our card, all that a model needs, and nothing else."""

import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from transformers.trainer_utils import HubStrategy
from transformers.utils import PushInProgress

from antehoc_hf.model_cards import FolderError, PushError, push_folder
from antehoc_hf.model_cards.errors import explain
from antehoc_hf.model_cards.publish import Pushed, create_repository, in_background
from antehoc_hf.training.arguments import AnteHocTrainingArguments

logger = logging.getLogger(__name__)

PUSH_FOLDER = "_push-{step}"
_LARGE = (".safetensors", ".pt", ".pth", ".bin")


class Saveable(Protocol):
    """What is saved with a model, such as a tokenizer."""

    def save_pretrained(self, save_directory: Path) -> object:
        """Writes itself into a folder."""
        ...


class HubPusher:
    """Pushes for a trainer, while it trains (`hub_strategy`) and at the end.

    The stock Trainer copies the model out of the checkpoint over the one in `output_dir`, leaves out its code, and
    uploads whatever else lies there, including the pickled arguments that hold the token. Here a folder of links is
    made next to it, of what travels and no more, and is pushed while training goes on; a push that fails is logged,
    and training goes on.

    Args:
        args (`AnteHocTrainingArguments`): the trainer's.
        complete: adds to a folder with a model what belongs to it: companions and card.
    """

    def __init__(self, args: AnteHocTrainingArguments, complete: Callable[[Path], None]) -> None:
        self._args, self._complete = args, complete

    def create(self, token: str | None = None, private: bool | None = None) -> str:
        """Makes the repository, or finds it made: `hub_model_id`, or the name of `output_dir`.

        Returns:
            `str`: its full name.

        Raises:
            PushError: if the Hub refuses or cannot be reached.
        """
        args = self._args
        return create_repository(
            args.hub_model_id or Path(str(args.output_dir)).absolute().name,
            private if private is not None else args.hub_private_repo,
            token if token is not None else args.hub_token,
        )

    def push(
        self, repo_id: str, message: str, blocking: bool = True, token: str | None = None, revision: str | None = None
    ) -> "Pushed | Future[Pushed]":
        """Pushes `output_dir` as it is.

        Raises:
            PushError: if the Hub did not take it.
        """
        args, folder = self._args, Path(str(self._args.output_dir))
        revision = revision if revision is not None else args.hub_revision
        token = token if token is not None else args.hub_token

        def push() -> Pushed:
            return push_folder(folder, repo_id, revision=revision, token=token, message=message)

        return push() if blocking else in_background(push)

    def push_checkpoint(
        self, checkpoint: Path, step: int, repo_id: str, running: PushInProgress | None
    ) -> PushInProgress | None:
        """The model of a checkpoint, and with a `hub_strategy` of checkpoints also what resuming needs.

        Args:
            checkpoint (`Path`): a whole one.
            step (`int`): its optimizer step.
            repo_id (`str`): where to.
            running (`PushInProgress`, *optional*): the push before; unless `hub_always_push`, none is started while it
                lasts.

        Returns:
            `PushInProgress`, *optional*: the push that is running now.
        """
        args, strategy = self._args, HubStrategy(self._args.hub_strategy)
        busy = running is not None and not running.is_done()
        if strategy == HubStrategy.END or (busy and not args.hub_always_push):
            return running
        extra = {HubStrategy.CHECKPOINT: "last-checkpoint", HubStrategy.ALL_CHECKPOINTS: checkpoint.name}.get(strategy)
        staged = checkpoint.with_name(PUSH_FOLDER.format(step=step))
        try:
            self._stage(checkpoint, staged, extra)
        except OSError as error:
            shutil.rmtree(staged, ignore_errors=True)
            logger.warning(f"The model of {checkpoint.name} was not pushed: {explain(error)}. Training goes on.")
            return running

        def push() -> Pushed | None:
            try:
                return push_folder(
                    staged,
                    repo_id,
                    message=f"Training in progress, step {step}",
                    extra_folder=extra,
                    revision=args.hub_revision,
                    token=args.hub_token,
                )
            except (PushError, FolderError) as error:
                logger.warning(f"The model of {checkpoint.name} was not pushed: {error} Training goes on.")
                return None
            finally:
                shutil.rmtree(staged, ignore_errors=True)

        job = in_background(push)
        jobs = running.jobs if busy and running is not None else []
        return PushInProgress([*jobs, job])  # type: ignore[misc, arg-type]

    def _stage(self, checkpoint: Path, staged: Path, extra: str | None) -> None:
        """Links to a checkpoint's files, which outlive its deletion, with companions and card."""
        shutil.rmtree(staged, ignore_errors=True)
        shutil.copytree(checkpoint, staged, copy_function=_link)
        if extra is not None:
            shutil.copytree(checkpoint, staged / extra, copy_function=_link)
        self._complete(staged)


def _link(source: str, target: str) -> None:
    """Of large files, which nobody writes to, a second name; of small ones, and where there are no links, a copy."""
    try:
        if Path(source).suffix in _LARGE:
            os.link(source, target)
            return
    except OSError:
        pass
    shutil.copy2(source, target)
