"""One process at a time in a run's folder. A run that died holds nothing: the system lets its locks go."""

import json
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from accelerate.utils import broadcast_object_list
from transformers import TrainingArguments

from antehoc_hf.training.checkpoints import RunFolderError

try:
    import fcntl
except ImportError:  # Windows: no lock there
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")

LOCK_FILE = ".antehoc_run.lock"
_held: dict[Path, int] = {}
"""Folder → how often this process has taken it: locks of a process do not shut out the process itself."""


@contextmanager
def run_lock(folder: str | Path) -> Iterator[None]:
    """Holds `folder` for this process. May be nested. Does nothing on file systems without locks.

    Args:
        folder: must exist.

    Raises:
        RunFolderError: if another process holds it, naming host, process and time.
    """
    key = Path(folder).resolve()
    descriptor = None if _held.get(key) else _acquire(key)
    _held[key] = _held.get(key, 0) + 1
    try:
        yield
    finally:
        _held[key] -= 1
        if not _held[key]:
            del _held[key]
        if descriptor is not None:
            with suppress(OSError):
                (key / LOCK_FILE).unlink()  # before it is let go: see _acquire
            os.close(descriptor)


def _acquire(folder: Path) -> int | None:
    path = folder / LOCK_FILE
    while fcntl is not None:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except PermissionError:
            if not os.path.lexists(path):  # claiming the folder will say what is wrong with it
                return None
            raise RunFolderError(
                f"{folder} is held by a run of another user, or was ({path.name} cannot be opened): remove that file "
                "if the run has ended, or choose another output_dir."
            ) from None
        except OSError:  # claiming the folder will say what is wrong with it
            return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # whoever put a pipe there has not locked it
            os.close(descriptor)
            return None
        try:
            # A lock of the process, not of the open file: data-loading workers must not inherit it.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            holder = os.read(descriptor, 4096)
            os.close(descriptor)
            raise RunFolderError(_in_use(folder, holder)) from None
        except OSError:
            os.close(descriptor)
            return None
        if _is_the_same(path, descriptor):
            entry = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            with suppress(OSError):  # a full disk: the lock holds without a name
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(entry).encode(), 0)
            return descriptor
        os.close(descriptor)  # its holder has just removed it: try the new one
    return None


def _is_the_same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _in_use(folder: Path, holder: bytes) -> str:
    try:
        entry = json.loads(holder)
        who = f"process {entry['process']} on {entry['host']} since {entry['since']}"
    except (ValueError, KeyError, TypeError):
        who = "another process"
    return f"{folder} is in use by {who}: wait until that run has ended, stop it, or choose another output_dir."


@contextmanager
def locked_by_main_process(args: TrainingArguments) -> Iterator[None]:
    """The run's folder, held by the main process for all of them; that it is held elsewhere stops them all."""
    with ExitStack() as stack:

        def lock() -> None:
            stack.enter_context(run_lock(str(args.output_dir)))

        decided_by_main_process(args, lock)
        yield


def decided_by_main_process(args: TrainingArguments, decide: Callable[[], T]) -> T:
    """What the main process decides, or refuses, holds for all."""
    verdict: list[T | RunFolderError | None] = [None]
    if args.process_index == 0:
        try:
            verdict = [decide()]
        except RunFolderError as error:
            verdict = [error]
    (decision,) = broadcast_object_list(verdict)
    if isinstance(decision, RunFolderError):
        raise decision
    return decision
