"""The same image in two splits."""

import hashlib
import os
from collections import Counter

from antehoc_hf.training.data.layout import FolderLayout

_MOST = 20_000  # images that are read for it


def note_copies(layout: FolderLayout) -> None:
    """Notes how many files of one split are, byte for byte, in another as well.

    Only files of the same size are read, and none where these are too many for a quick look.
    """
    if len(layout.splits) < 2:
        return
    sizes = {split: {file.path: _size(file.path) for file, _ in rows} for split, rows in layout.splits.items()}
    shared = Counter(size for own in sizes.values() for size in set(own.values()))
    candidates = {split: [path for path, size in own.items() if shared[size] > 1] for split, own in sizes.items()}
    if sum(map(len, candidates.values())) > _MOST:
        return
    digests = {split: {digest for path in paths if (digest := _digest(path))} for split, paths in candidates.items()}
    splits = list(digests)
    for index, split in enumerate(splits):
        for other in splits[index + 1 :]:
            if same := len(digests[split] & digests[other]):
                plural = "s are" if same > 1 else " is"
                layout.notes.append(f"warning: {same} image{plural} in both {split!r} and {other!r}")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _digest(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()
    except OSError:  # said when the image is read
        return None
