"""
Checkpoints that are whole or not there.

A checkpoint is written into `_partial/`, flushed to the disk, given a list of its files, and only then renamed to
`checkpoint-N`. Whatever kills the run, a folder of that name with all the files on its list is whole; everything else
is ignored when resuming.
"""

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger(__name__)

COMPLETE_FILE = "checkpoint_complete.json"
PARTIAL_FOLDER = "_partial"
_NAME = re.compile(r"^(?:_replaced-)?checkpoint-(\d+)$")
_LEFTOVER = re.compile(r"^(?:_partial|_replaced-checkpoint-\d+|_deleted-checkpoint-\d+|_push-\d+)$")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_WORDS = re.compile(r"no space left|disk quota exceeded|file too large|os error (28|122|27)\b", re.IGNORECASE)


class RunFolderError(ValueError):
    """The output folder, or a checkpoint in it, cannot be used as asked."""


def seal(folder: Path, step: int, resumable: bool = True) -> None:
    """
    Flushes every file of `folder` to the disk and writes the list that makes it a whole checkpoint.

    Args:
        folder (`Path`): the checkpoint.
        step (`int`): the optimizer step it belongs to.
        resumable (`bool`): false if it holds the model only.
    """
    sizes: dict[str, int] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != COMPLETE_FILE:
            _flush(path)
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            _flush(path)
    listing = folder / COMPLETE_FILE
    listing.write_text(json.dumps({"step": step, "resumable": resumable, "files": sizes}, indent=1), encoding="utf-8")
    _flush(listing)
    _flush(folder)


def missing_files(folder: str | Path) -> list[str]:
    """What keeps `folder` from being a whole checkpoint: files absent or of another size; empty if it is whole."""
    folder = Path(folder)
    listing = folder / COMPLETE_FILE
    try:
        expected: dict[str, int] = json.loads(listing.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return [COMPLETE_FILE]
    return [name for name, size in expected.items() if _size(folder / name) != size]


def check_whole(folder: str | Path) -> None:
    """
    Raises:
        RunFolderError: if `folder` is no whole checkpoint of this trainer, or holds a model only.
    """
    folder = Path(folder)
    missing = missing_files(folder)
    if missing:
        raise RunFolderError(
            f"{folder} is not a whole checkpoint (absent or cut short: {', '.join(missing[:3])}): resume from another "
            "one, or pass resume_from_checkpoint=True for the last whole one of output_dir."
        )
    if not json.loads((folder / COMPLETE_FILE).read_text(encoding="utf-8")).get("resumable", True):
        raise RunFolderError(
            f"{folder} holds the model only (save_only_model=True), so training cannot resume from it: load it with "
            "from_pretrained and start a new run."
        )


def last_whole_checkpoint(output_dir: str | Path) -> str | None:
    """
    The whole checkpoint of the highest step in `output_dir`; torn ones are passed over with a warning that names them.

    Returns:
        `str` or `None`: its path, or `None` if there is none.
    """
    whole: list[tuple[int, bool, Path]] = []
    for path in _folders(output_dir):
        match = _NAME.match(path.name)
        if match is None:
            if path.name == PARTIAL_FOLDER:
                for unfinished in sorted(path.iterdir()):
                    logger.warning(f"Ignoring the unfinished checkpoint {unfinished}.")
            continue
        missing = missing_files(path)
        if missing:
            logger.warning(f"Ignoring the torn checkpoint {path} (absent or cut short: {', '.join(missing[:3])}).")
        else:
            whole.append((int(match.group(1)), path.name.startswith("checkpoint-"), path))
    return str(max(whole)[2]) if whole else None


def remove_leftovers(output_dir: str | Path) -> None:
    """Removes what interrupted saves and deletions left, but nothing that [`last_whole_checkpoint`] returns."""
    keep = last_whole_checkpoint(output_dir)
    for path in _folders(output_dir):
        if _LEFTOVER.match(path.name) and str(path) != keep:
            shutil.rmtree(path, ignore_errors=True)


def remove_checkpoints(output_dir: str | Path) -> None:
    """Removes every checkpoint, whole or torn, of `output_dir`, and what interrupted saves left."""
    for path in _folders(output_dir):
        if _NAME.match(path.name) or _LEFTOVER.match(path.name):
            shutil.rmtree(path)


def publish(staged: Path, final: Path) -> None:
    """Renames a sealed folder to its final name; a folder of that name is kept until the new one stands."""
    replaced = final.with_name(f"_replaced-{final.name}")
    if final.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        os.replace(final, replaced)
    os.replace(staged, final)
    _flush(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)
    with suppress(OSError):
        staged.parent.rmdir()


def rotate(output_dir: str | Path, limit: int | None, best: str | None) -> None:
    """
    Deletes the oldest whole checkpoints beyond `limit`, never the newest nor the best.

    Args:
        output_dir (`str`): where they are.
        limit (`int`, *optional*): how many to keep; all if `None` or not positive.
        best (`str`, *optional*): path of the one that is to be kept anyway.
    """
    if limit is None or limit <= 0:
        return
    whole = [path for path in _folders(output_dir) if path.name.startswith("checkpoint-") and not missing_files(path)]
    whole.sort(key=lambda path: ((path / COMPLETE_FILE).stat().st_mtime_ns, int(path.name.rsplit("-", 1)[1])))
    protected = {path.name for path in whole[-1:]} | ({Path(best).name} if best else set())
    surplus = len(whole) - max(limit, len(protected))
    for path in [path for path in whole if path.name not in protected][: max(surplus, 0)]:
        # Renamed first: a deletion that is interrupted must not leave half a checkpoint under a checkpoint's name.
        deleted = path.with_name(f"_deleted-{path.name}")
        os.replace(path, deleted)
        shutil.rmtree(deleted, ignore_errors=True)


@contextmanager
def explained_full_disk(staged: Path, output_dir: str | Path) -> Iterator[None]:
    """
    Turns "no space left" while saving into one sentence; the unfinished folder is removed, older ones stay.

    Raises:
        OSError: with the errno of the failure, if the disk (or a quota) is full.
    """
    try:
        yield
    except Exception as error:
        code = _full_disk(error, output_dir)
        if code is None:
            raise
        shutil.rmtree(staged, ignore_errors=True)
        with suppress(OSError):
            staged.parent.rmdir()
        last = last_whole_checkpoint(output_dir)
        resume = f"then resume from {last}" if last else "then start again"
        raise OSError(
            code,
            f"There is no space left for {staged.name} in {output_dir}: free some or lower save_total_limit, "
            f"{resume}.",
        ) from error


def _full_disk(error: BaseException, folder: str | Path) -> int | None:
    """The errno if this failure means a full disk. torch and safetensors report it in words of their own."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return error.errno
    if _FULL_WORDS.search(str(error)):
        return errno.ENOSPC
    written_by_torch = isinstance(error, RuntimeError) and "PytorchStreamWriter" in str(error)
    if written_by_torch or (isinstance(error, RuntimeError) and "inline_container" in str(error)):
        return errno.ENOSPC
    return None


def _folders(output_dir: str | Path) -> list[Path]:
    folder = Path(output_dir)
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _flush(path: Path) -> None:
    """fsync; what the file system does not offer (some refuse it for folders) is not insisted upon."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise
    finally:
        os.close(descriptor)
