"""ZIP and tar archives of images, unpacked once."""

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from lzma import LZMAError
from pathlib import Path

import datasets

from antehoc_hf.training.data.errors import DataError

_SUFFIX = re.compile(r"(.+?)\.(?:zip|(?:tar|tgz|tbz2?|txz)|tar\.(?:gz|bz2|xz))$", re.IGNORECASE)
_LOOKED_AT = 200  # files at a tar archive's beginning, which has no list of its files
_DAMAGE = (
    RuntimeError,
    NotImplementedError,
    OSError,
    EOFError,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    LZMAError,
)


def name_of_archive(path: str) -> str | None:
    """The file's name without its ending; None if that is not one of an archive."""
    match = _SUFFIX.match(os.path.basename(path))
    return None if match is None else match.group(1)


def holds_images(path: str, is_image: Callable[[str], bool]) -> bool:
    """Whether the archive holds images, and is not one of samples of several files each (`0.png`, `0.cls`), which
    `datasets` reads as a WebDataset.

    Args:
        path: of the archive.
        is_image: whether a file of that name is an image.

    Raises:
        DataError: it is damaged, or not an archive.
    """
    is_zip = path.lower().endswith(".zip")
    try:
        with zipfile.ZipFile(path) if is_zip else tarfile.open(path) as archive:
            if isinstance(archive, zipfile.ZipFile):
                names = archive.namelist()
            else:
                names = [member.name for member in islice(archive, _LOOKED_AT) if member.isfile()]
    except _DAMAGE as error:
        kind = "ZIP" if is_zip else "tar"
        raise DataError(f"{path!r} can't be read as a {kind} archive ({error}): repair or remove it.") from None
    images = {os.path.splitext(name)[0] for name in names if is_image(os.path.basename(name))}
    others = {os.path.splitext(name)[0] for name in names if not is_image(os.path.basename(name))}
    holds_archives = any(map(name_of_archive, names))
    return holds_archives or (bool(images) and (is_zip or not images <= others))


def unpacked(path: str) -> Path:
    """The folder with the archive's files, in the cache of `datasets`: made anew when the archive changes.

    Raises:
        DataError: it is damaged or encrypted, holds links to elsewhere, or there is no room for it.
    """
    status = os.stat(path)
    key = repr((os.path.realpath(path), status.st_size, status.st_mtime_ns)).encode("utf-8", "surrogateescape")
    folder = Path(datasets.config.HF_DATASETS_CACHE, "antehoc-archives", hashlib.sha256(key).hexdigest()[:32])
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
            files, needed, free = os.path.join(unfinished, "files"), 0, shutil.disk_usage(folder.parent).free
            os.mkdir(files)
            for size, extract in _members(path):
                needed += size
                if needed > free:
                    raise DataError(
                        f"{path!r} takes {needed / 1e9:.1f} GB unpacked or more, and {str(folder.parent)!r} has "
                        f"room for {free / 1e9:.1f}: make room there, or set HF_DATASETS_CACHE to another folder."
                    )
                extract(files)
            os.rename(files, folder)
    except _DAMAGE as error:
        if not folder.is_dir():  # else another process was faster
            raise DataError(f"{path!r} can't be unpacked ({error}): unpack it by hand and name the folder.") from None
    return folder


def _members(path: str) -> Iterator[tuple[int, Callable[[str], object]]]:
    """Size of each file, and what extracts it into a folder: never outside of it, whatever its name."""
    if path.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            yield sum(file.file_size for file in archive.infolist()), archive.extractall
        return
    with tarfile.open(path) as tar:
        for member in tar:
            yield member.size, partial(tar.extract, member, filter="data")
