"""`antehoc push`: a trained model's folder to the Hub, with its card."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from antehoc_hf.model_cards import (
    Facts,
    Pushed,
    PushError,
    create_repository,
    default_name,
    push_folder,
    read_card,
    travelling_files,
    write_card,
)
from antehoc_hf.training.runs.options import CardArguments
from antehoc_hf.training.runs.settings import OptionParser


@dataclass
class PushArguments:
    """What is pushed, and where to."""

    _argument_group_name: ClassVar[str] = "push"

    folder: str = field(metadata={"help": "Output folder of a training, or any folder a model was saved in."})
    repo_id: str | None = field(
        default=None,
        metadata={"help": "NAME or NAMESPACE/NAME. None: antehoc-BACKBONE-DATASET in your own namespace."},
    )
    private: bool = field(default=False, metadata={"help": "If the repository is new, only you can see it."})
    revision: str | None = field(default=None, metadata={"help": "Branch; made if it is not there."})
    commit_message: str = field(default="Upload model", metadata={"help": "Of the commit."})


def push(argv: Sequence[str]) -> Pushed:
    """
    Writes the card and pushes what others need to load the model. Nothing in the folder is changed but the card.

    Args:
        argv: flags, see `antehoc push --help`. A first word without dashes is the folder.

    Returns:
        `Pushed`: where the model is now.

    Raises:
        ValueError: for options that make no sense, in one sentence.
        OSError: if the folder holds no whole model; `PushError` if the Hub does not take it, which says what to run
            again.
    """
    arguments = list(argv)
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--folder", *arguments]
    options, told = OptionParser((PushArguments, CardArguments), prog="antehoc push").parse_options(arguments)
    folder, facts = Path(options.folder), Facts(**told.facts())
    travelling_files(folder)  # for its errors, before anything is written or asked
    try:
        name = create_repository(options.repo_id or _default_name(folder), options.private or None)
        if not write_card(folder, facts, name):
            print(f"{folder / 'README.md'} was written by a person and is pushed as it is.")
        pushed = push_folder(folder, name, revision=options.revision, message=options.commit_message)
    except PushError as error:
        again = shlex.join(["antehoc", "push", *argv])
        raise PushError(f"{error} Nothing is lost in {folder}; to try again: `{again}`.") from error
    print(pushed.told())
    return pushed


def _default_name(folder: Path) -> str:
    card = read_card(folder)
    return default_name(card.backbone, card.data.name if card.data else None)
