"""Where a command writes its results: never over what is there, unless it is asked to."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.commands.options import option


def overwrite_option() -> bool:
    """The option `--overwrite`, the same in every command."""
    return option(False, "Let the results replace those of an earlier run.")  # type: ignore[no-any-return]


def check_output_folder(
    folder: Path,
    results: Iterable[str | os.PathLike[str]],
    overwrite: bool,
    name: str = "output_dir",
    flag: str = "overwrite",
) -> None:
    """Whether results may be written into a folder; it is not there afterwards if it was not before.

    Args:
        folder (`Path`): where.
        results: the files that will be written into it.
        overwrite (`bool`): whether they may be there already.
        name (`str`): of the option that names it.
        flag (`str`): of the option that lets results be replaced.

    Raises:
        UsageError: if one is there already, or the folder cannot be written to.
    """
    there = next((folder / result for result in results if (folder / result).exists()), None)
    if there is not None and not overwrite:
        raise UsageError(
            f"{there} is there already, from an earlier run: name another --{name}, or add --{flag} to replace it."
        )
    new = _missing(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "a file is in its way" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
        raise UsageError(f"{folder} cannot be written to ({reason}): name another --{name}.") from None
    finally:
        _remove_empty(new)


def check_apart(folder: Path, images: str) -> None:
    """Raises a UsageError if `folder` is that of the images, which would be read with what is written there."""
    if Path(images).is_dir() and folder.resolve() == Path(images).resolve():
        raise UsageError(f"{images} holds the images, and results would be among them: name another --output_dir.")


@contextmanager
def output_folder(
    folder: Path, results: Iterable[str | os.PathLike[str]], overwrite: bool, alone: bool = True, **names: str
) -> Iterator[None]:
    """A folder for results, checked before any work and made; a failure leaves no empty folders. Takes and raises what
    [`check_output_folder`] does, and a RunFolderError if another process writes into it and this one is to be `alone`.
    """
    from antehoc_hf.training.run_lock import run_lock  # of libraries that take seconds to import

    check_output_folder(folder, results, overwrite, **names)
    new = _missing(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with run_lock(folder) if alone else nullcontext():
            yield
    except BaseException:
        _remove_empty(new)
        raise


def _missing(folder: Path) -> list[Path]:
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove_empty(folders: Iterable[Path]) -> None:
    with suppress(OSError):  # one that holds something is kept
        for path in folders:
            path.rmdir()
