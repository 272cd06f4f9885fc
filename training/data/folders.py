"""Everything below a folder: images, tables, archives, and what is not read, counted by its reason."""

import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from antehoc_hf.training.data.archives import holds_images, name_of_archive, unpacked
from antehoc_hf.training.data.errors import DataError

# Of the formats that are opened, see `antehoc_hf.modeling.image_input`.
IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".ppm",
    ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif",
}  # fmt: skip
TABLE_SUFFIXES = (".parquet", ".arrow", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_NOT_TABLES = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "config.json", "state.json"}
_SYSTEM_FOLDERS = {
    "__MACOSX", "__pycache__", ".git", ".svn", ".hg", ".dvc", ".cache", ".venv", ".ipynb_checkpoints", ".AppleDouble",
    ".Spotlight-V100", ".Trashes", ".fseventsd", ".thumbnails", "@eaDir", "lost+found", "$RECYCLE.BIN",
    "System Volume Information",
}  # fmt: skip
_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini"}
HIDDEN = "hidden or system files"
OTHER_ARCHIVES = "archives of other things than images"
_DEEPEST_ARCHIVE = 3  # an archive may hold itself

Folder = tuple[str, ...]
"""Names of folders, from the data set's own down; () is the data set's folder itself."""

_Entered = dict[tuple[int, int], Folder]  # device and number of a folder → what it counts as


class File(NamedTuple):
    """A file: the folder it counts as lying in, and where it can be opened."""

    folder: Folder
    path: str


@dataclass
class Tree:
    """What lies below a folder.

    Attributes:
        root: the folder, or the archive.
        source: what to call it in a message.
        images, tables: in the order of their paths.
        folders: every folder that was entered.
        skipped: what is not read → how many files.
    """

    root: Path
    source: str
    images: list[File] = field(default_factory=list)
    tables: list[File] = field(default_factory=list)
    folders: set[Folder] = field(default_factory=set)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def metadata(self) -> list[File]:
        """The tables that describe the images next to them, as `datasets` names them."""
        return [table for table in self.tables if os.path.basename(table.path) in METADATA]


def is_image_name(name: str) -> bool:
    """Whether a file is an image by its name; hidden files, such as those of macOS that begin with "._", are not."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def scan(root: Path, name: str | None = None, only: Collection[str] | None = None) -> Tree:
    """Looks through a folder, or an archive of images. Links are followed, archives of images are unpacked.

    A folder is entered once, however many links lead to it, and in its own place rather than by a link. An archive
    counts as a folder of its own name, unless such a folder lies next to it.

    Args:
        root: the folder, or the archive.
        name: what to call it in a message; by default its path.
        only: paths of the files that are read; by default all.

    Raises:
        DataError: a folder can't be read, or an archive can't be unpacked.
    """
    tree = Tree(root, readable(str(root)) if name is None else name)
    entered: _Entered = {}
    archives: list[File] = []
    if root.is_dir():
        _enter(tree, str(root), (), archives, entered)
    else:
        archives.append(File((), str(root)))
    for _ in range(_DEEPEST_ARCHIVE):
        inner: list[File] = []
        for folder, path in archives:
            name = readable(name_of_archive(path) or os.path.basename(path))
            if (*folder, name) in tree.folders:
                tree.skipped["archives unpacked next to them"] += 1
            elif not holds_images(path, is_image_name):
                tree.skipped[OTHER_ARCHIVES] += 1
            else:
                _enter(tree, str(unpacked(path)), (*folder, name), inner, entered)
        archives = inner
    tree.skipped += Counter({"archives within archives": len(archives)})
    for files in (tree.images, tree.tables):
        if only is not None:
            files[:] = [file for file in files if os.path.normpath(file.path) in only]
        files.sort(key=lambda file: ("/".join((*file.folder, os.path.basename(file.path))), file.path))
    return tree


def skipped_in_words(skipped: Counter[str], most: int = 12) -> str:
    """`".heic (3), hidden or system files (2)"`; empty if nothing was skipped."""
    parts = [f"{reason} ({count})" for reason, count in skipped.most_common(most)]
    rest = sum(skipped.values()) - sum(count for _, count in skipped.most_common(most))
    return ", ".join([*parts, *([f"others ({rest})"] if rest else [])])


def quoted(names: Collection[str], most: int = 5) -> str:
    """`"'cat', 'dog', …"`, on one line whatever the names are."""
    listed = [repr(name) for name in list(names)[:most]]
    return ", ".join([*listed, *(["…"] if len(names) > most else [])])


def _enter(tree: Tree, path: str, folder: Folder, archives: list[File], entered: _Entered) -> None:
    """Everything below a folder: first what lies there, then what links lead to."""
    waiting, links = [File(folder, path)], list[File]()
    while waiting or links:
        folder, path = waiting.pop() if waiting else links.pop(0)
        status = os.stat(path)
        identity = (status.st_dev, status.st_ino)
        if identity in entered:
            tree.skipped[f"{_called(folder)}, the same folder as {_called(entered[identity])}"] += 1
            continue
        entered[identity] = folder
        tree.folders.add(folder)
        for entry in _entries(path):
            inner = File((*folder, readable(entry.name)), entry.path)
            if not _is_folder(entry):
                _add(tree, entry, folder, archives)
            elif entry.name in _SYSTEM_FOLDERS or entry.name.startswith(".Trash-"):
                tree.skipped[f"{entry.name}/"] += 1
            else:
                (links if entry.is_symlink() else waiting).append(inner)


def _called(folder: Folder) -> str:
    return repr("/".join(folder) or ".")


def _add(tree: Tree, entry: os.DirEntry[str], folder: Folder, archives: list[File]) -> None:
    """A file, to those of its kind."""
    suffix = os.path.splitext(entry.name)[1].lower()
    if entry.name.startswith(".") or entry.name.lower() in _SYSTEM_FILES:
        tree.skipped[HIDDEN] += 1
    elif not os.path.isfile(entry.path):
        tree.skipped["broken links or special files"] += 1
    elif is_image_name(entry.name):
        tree.images.append(File(folder, entry.path))
    elif suffix in TABLE_SUFFIXES and entry.name not in _NOT_TABLES:
        tree.tables.append(File(folder, entry.path))
    elif name_of_archive(entry.name):
        archives.append(File(folder, entry.path))
    else:
        tree.skipped[readable(suffix) or "without extension"] += 1


def _entries(path: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"Folder {path!r} can't be read ({error.strerror}): make it readable, or remove it.") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def readable(name: str) -> str:
    """A path as text: accents in one form, whichever system wrote them; bytes that are not UTF-8 as `\\xe9`."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))
