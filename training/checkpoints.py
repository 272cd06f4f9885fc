"""Checkpoints that are whole or not there.

A checkpoint is written into `_partial/`, flushed to the disk, given a list of its files with their digests, and only
then renamed to `checkpoint-N`. Whatever kills the run, a folder of that name with all the files on its list is whole;
everything else is ignored when resuming, and so is a checkpoint of which a file has changed since.
"""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

COMPLETE_FILE = "checkpoint_complete.json"
PARTIAL_FOLDER = "_partial"
# What the stock Trainer reads when it resumes, if it is there.
_READ = re.compile(
    r"^(scaler|optimizer|scheduler|rng_state|progress|pytorch_model|model|adapter).*\.(pt|pth|bin|safetensors|index\.json)$"
)
_NAME = re.compile(r"^(?:_replaced-)?checkpoint-(\d+)$")
_LEFTOVER = re.compile(r"^(?:_partial|_replaced-checkpoint-\d+|_deleted-checkpoint-\d+|_push-\d+)$")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_WORDS = re.compile(r"no space left|disk quota exceeded|file too large|os error (28|122|27)\b", re.IGNORECASE)


class RunFolderError(ValueError):
    """The output folder, or a checkpoint in it, cannot be used as asked."""


@dataclass(frozen=True)
class _Marker:
    """What [`seal`] has written down: step, whether training can resume, and file → (size, digest)."""

    step: int
    resumable: bool
    files: dict[str, tuple[int, str]]

    @classmethod
    def read(cls, folder: Path) -> "_Marker | None":
        """None if there is none, or it is not as it was written."""
        try:
            content = json.loads((folder / COMPLETE_FILE).read_text(encoding="utf-8"))
            if content.pop("digest") != _digest_of(content) or not content["files"]:
                return None
            if any(Path(name).is_absolute() or ".." in Path(name).parts for name in content["files"]):
                return None
            files = {str(name): (int(entry["size"]), str(entry["sha256"])) for name, entry in content["files"].items()}
            return cls(int(content["step"]), bool(content["resumable"]), files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def seal(folder: Path, step: int, resumable: bool = True) -> None:
    """Flushes every file of `folder` to the disk and writes the list that makes it a whole checkpoint.

    Args:
        folder (`Path`): the checkpoint.
        step (`int`): the optimizer step it belongs to.
        resumable (`bool`): false if it holds the model only.
    """
    files: dict[str, dict[str, object]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != COMPLETE_FILE:
            _flush(path)
            files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": _digest_of_file(path)}
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            _flush(path)
    content = {"step": step, "resumable": resumable, "files": files}
    marker = folder / COMPLETE_FILE
    marker.write_text(json.dumps({**content, "digest": _digest_of(content)}, indent=1), encoding="utf-8")
    _flush(marker)
    _flush(folder)


def damaged_files(folder: str | Path, thorough: bool = True) -> list[str]:
    """What keeps `folder` from being a whole checkpoint.

    Args:
        folder: the checkpoint.
        thorough (`bool`): compare the content of the files with their digests, and not only their sizes.

    Returns:
        `list[str]`: names of files that are absent, changed or were added where training would read them; the list
            itself if it is missing, malformed or of another step; empty if the checkpoint is whole.
    """
    folder = Path(folder)
    marker = _Marker.read(folder)
    named = _NAME.match(folder.name)
    if marker is None or (named is not None and int(named.group(1)) != marker.step):
        return [COMPLETE_FILE]
    damaged = []
    for name, (size, digest) in marker.files.items():
        path = folder / name
        if _size(path) != size or (thorough and _digest_of_file(path) != digest):
            damaged.append(name)
    there = sorted(path.name for path in folder.iterdir())
    return damaged + [name for name in there if _READ.match(name) and name not in marker.files]


def check_whole(folder: str | Path) -> None:
    """Raises a RunFolderError if `folder` is not a whole checkpoint of this trainer, or holds a model only."""
    folder = Path(folder)
    damaged = damaged_files(folder)
    if damaged:
        raise RunFolderError(
            f"{folder} is not a whole checkpoint (absent, changed, added: {', '.join(damaged[:3])}): resume from "
            "another one, or pass resume_from_checkpoint=True for the last whole one of output_dir."
        )
    marker = _Marker.read(folder)
    if marker is not None and not marker.resumable:
        raise RunFolderError(
            f"{folder} holds the model only (save_only_model=True), so training cannot resume from it: load it with "
            "from_pretrained and start a new run."
        )


def check_best(folder: str | Path) -> None:
    """Raises a RunFolderError if `folder`, the best checkpoint of a run, is not whole."""
    damaged = damaged_files(folder)
    if damaged:
        raise RunFolderError(
            f"{folder}, the run's best checkpoint, is damaged (absent, changed, added: {', '.join(damaged[:3])}):"
            " resume with load_best_model_at_end=False to keep the last weights, or train with overwrite_run=True."
        )


def last_whole_checkpoint(output_dir: str | Path, objection: Callable[[Path], str] | None = None) -> str | None:
    """The whole checkpoint of the highest step in `output_dir`; damaged ones of higher steps are passed over with a
    warning that names them and their files.

    Args:
        output_dir: where they are.
        objection (`Callable`, *optional*): says of a whole one why it is to be passed over as well, if it is.

    Returns:
        `str` or `None`: its path, or `None` if there is none.
    """
    for path in _folders(output_dir):
        if path.name == PARTIAL_FOLDER:
            for unfinished in sorted(path.iterdir()):
                logger.warning(f"Ignoring the unfinished checkpoint {unfinished}.")
    for path in reversed(_checkpoints(output_dir)):
        damaged = damaged_files(path)
        other = objection(path) if objection and not damaged else ""
        if damaged:
            logger.warning(
                f"Ignoring the damaged checkpoint {path} (absent, changed, added: {', '.join(damaged[:3])})."
            )
        elif other:
            logger.warning(f"Ignoring {path}, a checkpoint of another run ({other}).")
        else:
            return str(path)
    return None


def _checkpoints(output_dir: str | Path) -> list[Path]:
    """Whole or not, by step; of one step the one that is about to be replaced first."""
    found = [(match, path) for path in _folders(output_dir) if (match := _NAME.match(path.name))]
    found.sort(key=lambda entry: (int(entry[0].group(1)), entry[1].name.startswith("checkpoint-")))
    return [path for _, path in found]


def remove_leftovers(output_dir: str | Path, keep: str | None = None) -> None:
    """Removes what interrupted saves and deletions left, but not the checkpoint `keep`, nor what holds it."""
    for path in _folders(output_dir):
        kept = keep is not None and Path(keep).resolve().is_relative_to(path.resolve())
        if _LEFTOVER.match(path.name) and not kept:
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
    """Deletes the oldest whole checkpoints beyond `limit`, never the newest nor the best.

    Args:
        output_dir (`str`): where they are.
        limit (`int`, *optional*): how many to keep; all if `None` or not positive.
        best (`str`, *optional*): path of the one that is to be kept anyway.
    """
    if limit is None or limit <= 0:
        return
    named = [path for path in _checkpoints(output_dir) if path.name.startswith("checkpoint-")]
    whole = [path for path in named if not damaged_files(path, thorough=False)]
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
    """Turns "no space left" while saving into one sentence; the unfinished folder is removed, older ones stay.

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


def _digest_of(content: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest_of_file(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
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
