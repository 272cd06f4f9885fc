"""`antehoc push`: a trained model's folder to the Hub, with its card."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from antehoc_hf.commands.errors import in_a_sentence
from antehoc_hf.commands.options import OptionParser, option
from antehoc_hf.model_cards import Facts, PushError, push_folder, read_card, write_card
from antehoc_hf.model_cards.collect import default_name
from antehoc_hf.model_cards.publish import create_repository
from antehoc_hf.model_cards.travel import travelling_files
from antehoc_hf.training.runs.options import CardArguments


@dataclass
class PushArguments:
    """What is pushed, and where to."""

    group: ClassVar[str] = "push"

    folder: str = option(
        help="Output folder of a training, or any folder that a model was saved in.", positional="FOLDER"
    )
    repo_id: str | None = option(
        None, "NAME or NAMESPACE/NAME. By default antehoc-BACKBONE-DATASET in your own namespace."
    )
    private: bool = option(False, "If the repository is new, only you can see it.")
    revision: str | None = option(None, "Branch; made if it is not there.")
    commit_message: str = option("Upload model", "Message of the commit.")


@dataclass(frozen=True)
class PushOptions:
    """All options of the command, and the words that gave them."""

    push: PushArguments
    facts: Facts
    words: tuple[str, ...]


def parse(argv: Sequence[str]) -> PushOptions:
    """The options.

    Raises:
        UsageError: if no folder is named, or the file of the citation cannot be read; see [`OptionParser`] for others.
        OSError: if the folder holds no whole model.
    """
    parser = OptionParser(PushArguments, CardArguments, prog="antehoc push")
    values = parser.read(argv)
    facts = Facts(**parser.build(CardArguments, values).facts())
    options = parser.build(PushArguments, values)
    with in_a_sentence(f"{options.folder} cannot be pushed, its files are damaged"):
        travelling_files(Path(options.folder))  # for its errors
    return PushOptions(options, facts, tuple(argv))


def run(given: PushOptions) -> None:
    """Writes the card and pushes what others need to load the model. Nothing in the folder is changed but the card.

    Raises:
        ValueError: if the weights are not the model's, in one sentence.
        OSError: if they cannot be read; `PushError` if the Hub does not take it, which says what to run
            again.
    """
    from antehoc_hf.commands.inputs import load_model

    options, folder = given.push, Path(given.push.folder)
    load_model(str(folder))  # for its errors, before anything is written or asked
    try:
        name = create_repository(options.repo_id or _default_name(folder), options.private or None)
        if not write_card(folder, given.facts, name):
            print(f"{folder / 'README.md'} was written by a person and is pushed as it is.")
        pushed = push_folder(folder, name, revision=options.revision, message=options.commit_message)
    except PushError as error:
        again = shlex.join(["antehoc", "push", *given.words])
        raise PushError(f"{error} Nothing is lost in {folder}; to try again: `{again}`.") from error
    print(pushed.message())


def _default_name(folder: Path) -> str:
    card = read_card(folder)
    return default_name(card.backbone, card.data.name if card.data else None)
