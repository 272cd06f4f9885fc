"""ZIP archives of images, unpacked once."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import datasets

from antehoc_hf.training.data.errors import DataError


def holds_images(path: str, suffixes: Collection[str]) -> bool:
    """Whether a file in the archive has one of these endings.

    Raises:
        DataError: it is damaged, or not a ZIP archive.
    """
    with _opened(path) as archive:
        return any(os.path.splitext(name)[1].lower() in suffixes for name in archive.namelist())


def unpacked(path: str) -> Path:
    """The folder with the archive's files, in the cache of `datasets`: made anew when the archive changes.

    Raises:
        DataError: it is damaged or encrypted, or there is no room for it.
    """
    status = os.stat(path)
    key = repr((os.path.realpath(path), status.st_size, status.st_mtime_ns)).encode("utf-8", "surrogateescape")
    folder = Path(datasets.config.HF_DATASETS_CACHE, "antehoc-archives", hashlib.sha256(key).hexdigest()[:32])
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _opened(path) as archive, tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
            needed, free = sum(file.file_size for file in archive.infolist()), shutil.disk_usage(folder.parent).free
            if needed > free:
                raise DataError(
                    f"{path!r} takes {needed / 1e9:.1f} GB unpacked, and {str(folder.parent)!r} has room for "
                    f"{free / 1e9:.1f}: make room there, or set HF_DATASETS_CACHE to another folder."
                )
            files = os.path.join(unfinished, "files")
            archive.extractall(files)  # never outside of the folder, whatever names the archive holds
            os.rename(files, folder)
    except (RuntimeError, NotImplementedError, OSError, zipfile.BadZipFile, zlib.error) as error:
        if not folder.is_dir():  # else another process was faster
            raise DataError(f"{path!r} can't be unpacked ({error}): unpack it by hand and name the folder.") from None
    return folder


def _opened(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path!r} can't be read as a ZIP archive ({error}): repair or remove it.") from None
