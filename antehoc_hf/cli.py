"""The command line `antehoc`. Each command is imported when it is called, so that help comes at once."""

import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence

USER_ERROR, INTERRUPTED = 2, 130
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _train(argv: Sequence[str]) -> None:
    from antehoc_hf.training.runs.train import train

    train(argv)


def _evaluate(argv: Sequence[str]) -> None:
    from antehoc_hf.commands.evaluate import evaluate

    evaluate(argv)


def _explain(argv: Sequence[str]) -> None:
    from antehoc_hf.commands.explain import explain

    explain(argv)


def _regions(argv: Sequence[str]) -> None:
    from antehoc_hf.commands.regions import regions

    regions(argv)


def _benchmark(argv: Sequence[str]) -> None:
    from antehoc_hf.commands.benchmark import benchmark

    benchmark(argv)


def _export(argv: Sequence[str]) -> None:
    from antehoc_hf.commands.export import export

    export(argv)


def _push(argv: Sequence[str]) -> None:
    from antehoc_hf.commands.push import push

    push(argv)


def _demo(argv: Sequence[str]) -> None:
    from antehoc_hf.commands.demo import demo

    demo(argv)


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {
    "train": (_train, "train a model on a data set, by flags or a recipe"),
    "evaluate": (_evaluate, "measure a model's maps beside maps that explain nothing"),
    "benchmark": (_benchmark, "compute the paper's tables and figures again"),
    "explain": (_explain, "show what a model looked at in images, by several methods side by side"),
    "regions": (_regions, "cut out what a model looked at in a folder of images, a gallery for each class"),
    "demo": (_demo, "open a page on which images are dropped and looked at, or write it as a Space"),
    "push": (_push, "put a trained model on the Hub, with its code and its card"),
    "export": (_export, "write a model as ONNX, with logits and map as outputs"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """
    Runs one command.

    A user's mistake (`ValueError`, `OSError`) ends in one sentence on stderr; `--traceback` shows where it came from.
    Any other exception is a bug and keeps its traceback.

    Args:
        argv: without the program's name; None: the process's own.

    Returns:
        `int`: the exit status: 0, 2 for a user's mistake, 130 if interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    show_traceback = "--traceback" in arguments
    arguments = [argument for argument in arguments if argument != "--traceback"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else USER_ERROR
    if arguments[0] == "--version":
        from antehoc_hf import __version__

        print(__version__)
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"antehoc: {_unknown(name)}", file=sys.stderr)
        return USER_ERROR
    try:
        COMMANDS[name][0](rest)
    except (ValueError, OSError) as error:
        if show_traceback:
            traceback.print_exc()
        print(f"antehoc {name}: {sentence(error)}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        hint = " It goes on from its last checkpoint with --resume_from_checkpoint true." if name == "train" else ""
        print(f"\nantehoc {name}: interrupted.{hint}", file=sys.stderr)
        return INTERRUPTED
    return 0


def usage() -> str:
    """What `antehoc --help` prints."""
    lines = [f"  {name:10}{description}" for name, (_, description) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: antehoc COMMAND [options]",
            "",
            "Vision models that predict and show what they looked at, in one forward pass.",
            "",
            *lines,
            "",
            "`antehoc COMMAND --help` lists a command's options; --traceback shows where an error came from.",
        ]
    )


def sentence(error: Exception) -> str:
    """An error on one line. One that this project did not word says how to see where it came from."""
    if isinstance(error, OSError) and _disk_is_full(error):
        text = f"There is no space left on the disk ({error.strerror}): free some."
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
    else:
        text = _about_the_hub(error) or str(error) or type(error).__name__
    text = " ".join(text.split())
    ours = type(error).__module__.startswith("antehoc_hf")
    return text if ours else f"{text} [--traceback shows where]"


def _disk_is_full(error: OSError) -> bool:
    """By the system's own words, without a file's name: where writing what is downloaded failed."""
    return error.errno in _FULL and not error.filename and error.strerror == os.strerror(error.errno)


def _about_the_hub(error: Exception) -> str | None:
    """If the Hub or the way to it is behind an error that is not ours: what is wrong there, in our words."""
    if type(error).__module__.startswith("antehoc_hf"):
        return None
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    from antehoc_hf.model_cards import explain

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HTTPError | OfflineModeIsEnabled):
        cause = cause.__cause__ or cause.__context__
    return None if cause is None else f"It could not be had from the Hub: {explain(cause)}."


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}."
    return f"there is no command {name!r}: {hint}"
