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
from typing import IO

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
            content = None if member.isdir() else _content(tar, member)
            yield 0 if content is None else content.seek(0, os.SEEK_END), partial(_write, member.name, content)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    """Of a file, or of the file in the archive that a link names."""
    try:
        content = tar.extractfile(member)
    except KeyError:
        content = None
    if content is None:
        raise tarfile.TarError(f"{member.name!r} is no file, and names none in the archive")
    return content


def _write(name: str, content: IO[bytes] | None, folder: str) -> None:
    """A file, or a folder where there is no content. No link is made, so that none leads elsewhere: the filters of
    `tarfile` see to that as well, but not yet in Python 3.11.2.
    """
    root = Path(folder).resolve()
    place = (root / name.lstrip("/")).resolve()
    if not place.is_relative_to(root):
        raise tarfile.TarError(f"{name!r} would lie outside of the folder")
    if content is None:
        place.mkdir(parents=True, exist_ok=True)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    content.seek(0)
    with content, place.open("wb") as file:
        shutil.copyfileobj(content, file)
