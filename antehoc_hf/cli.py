"""The command line `antehoc`. A command is imported when it is called, so that help and mistakes come at once."""

import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from antehoc_hf import __version__
from antehoc_hf.commands import COMMANDS
from antehoc_hf.commands.errors import UsageError, raised_by_us
from antehoc_hf.commands.options import show

USER_ERROR, INTERRUPTED = 2, 130
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    A user's mistake (`ValueError`, `OSError`) and a missing package end in one sentence on stderr; `--traceback` shows
    where it came from. Any other exception is a bug and keeps its traceback.

    Args:
        argv: without the program's name; None: the process's own.

    Returns:
        `int`: the exit status: 0, 2 for a user's mistake, 130 if interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    show_traceback = "--traceback" in arguments
    arguments = [argument for argument in arguments if argument != "--traceback"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        show(usage())
        return 0 if arguments else USER_ERROR
    if arguments[0] == "--version":
        print(f"antehoc {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"antehoc: {_unknown(name)}", file=sys.stderr)
        return USER_ERROR
    before = _terminations_interrupt()
    try:
        run(name, rest)
    except (ValueError, OSError, ImportError) as error:
        if isinstance(error, ImportError) and not _is_missing_package(error):
            raise
        if show_traceback:
            traceback.print_exc()
        print(f"antehoc {name}: {sentence(error)}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt as stop:
        hint = " It goes on from its last checkpoint with --resume_from_checkpoint true." if name == "train" else ""
        print(f"\nantehoc {name}: {str(stop) or f'interrupted.{hint}'}", file=sys.stderr)
        return INTERRUPTED
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    return 0


def _terminations_interrupt() -> Any:
    """SIGTERM ends a command as Ctrl-C does; gives the handler that was there, None where there can be none."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, signal.default_int_handler)


def _end_quietly() -> None:
    """In a worker that a library forks and terminates when it is done: else its last word would be a traceback."""
    if signal.getsignal(signal.SIGTERM) is signal.default_int_handler:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end_quietly)


def run(name: str, argv: Sequence[str]) -> None:
    """Runs a command of [`COMMANDS`]; its errors are raised."""
    command = import_module(f"antehoc_hf.commands.{name}")
    options = command.parse(argv)
    if not _shares_work(name, options) and (rank := _rank_of_several(os.environ)) is not None:
        if rank > 0:
            print(f"antehoc {name}: the first of the processes does it; RANK={rank} ends.", file=sys.stderr)
            return
        # What it calls would wait for the others.
        for variable in _OF_LAUNCHERS:
            os.environ.pop(variable, None)
    # From here on torch is needed.
    from antehoc_hf.registration import register

    register()
    _show_one_bar()
    command.run(options)


# How `torchrun` and `accelerate launch` tell a process that it is one of several.
_OF_LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def _shares_work(name: str, options: Any) -> bool:
    """Whether several processes do a command together; the others would write the same files over each other's."""
    return name == "train" or (name == "explain" and options.output_format == "parquet")


def _rank_of_several(environment: Mapping[str, str]) -> int | None:
    """Of the processes of a launcher; None: there is one."""
    rank, count = environment.get("RANK", ""), environment.get("WORLD_SIZE", "")
    return int(rank) if rank.isdigit() and count.isdigit() and int(rank) < int(count) > 1 else None


def _show_one_bar() -> None:
    """Loading and writing weights are over in a moment; transformers' bars for them would stand within others."""
    from huggingface_hub.constants import HF_HUB_DISABLE_PROGRESS_BARS
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    if not HF_HUB_DISABLE_PROGRESS_BARS:
        enable_progress_bars()  # of downloads


def usage() -> str:
    """What `antehoc --help` prints."""
    lines = [f"  {name:10}{description}" for name, (description, _) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: antehoc COMMAND [options]",
            "",
            "Vision models that predict and show what they looked at, in one forward pass.",
            "",
            *lines,
            "",
            "`antehoc COMMAND --help` lists a command's options; --version prints the version.",
        ]
    )


def sentence(error: Exception) -> str:
    """An error on one line. One that this project did not word says how to see where it came from."""
    ours = type(error).__module__.startswith("antehoc_hf")
    text = None if ours else _about_the_hub(error)
    if text is None and isinstance(error, OSError) and _disk_is_full(error):
        text = f"There is no space left on the disk ({error.strerror}): free some."
    elif text is None and isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
    elif text is None:
        text = str(error) or type(error).__name__
    text = " ".join(text.split())
    return text if ours or raised_by_us(error) else f"{text} [--traceback shows where]"


def _is_missing_package(error: ImportError) -> bool:
    """A package that is not installed, and not a broken import of our own."""
    return raised_by_us(error) or (
        isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("antehoc_hf")
    )


def _disk_is_full(error: OSError) -> bool:
    """By the system's own words, without a file's name: where writing what is downloaded failed."""
    return error.errno in _FULL and not error.filename and error.strerror == os.strerror(error.errno)


def _about_the_hub(error: Exception) -> str | None:
    """If the Hub or the way to it is behind an error that is not ours: what is wrong there, in our words."""
    cause: BaseException | None = error.__cause__ or error.__context__
    if isinstance(error, UsageError) or (cause is None and raised_by_us(error)):
        return None
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    from antehoc_hf.model_cards.errors import explain

    cause = error
    while cause is not None and not isinstance(cause, HTTPError | OfflineModeIsEnabled):
        cause = cause.__cause__ or cause.__context__
    return None if cause is None else f"It could not be had from the Hub: {explain(cause)}."


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the commands are {', '.join(COMMANDS)}."
    return f"there is no command {name!r}: {hint}"
