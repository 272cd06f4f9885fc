"""`antehoc train`: a model trained on a data set."""

from collections.abc import Sequence

from antehoc_hf.training.runs.parser import check_early


def parse(argv: Sequence[str]) -> Sequence[str]:
    """Finds the mistakes that can be found without torch; the trainer's own options are read in [`run`]."""
    if "--help-all" not in argv:
        check_early(argv)
    return argv


def run(argv: Sequence[str]) -> None:
    """Trains; see `antehoc_hf.training.runs.train` for what comes of it.

    Raises:
        ValueError: for options or data that make no sense, in one sentence.
        OSError: if something cannot be read or written.
    """
    from antehoc_hf.training.runs.train import train

    train(argv)
