"""Which split and which class a folder of images stands for. The rule is written down in docs/data.md."""

import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from antehoc_hf.training.data.errors import DataError
from antehoc_hf.training.data.folders import File, Folder, Tree, quoted

ROLES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}
# Words that say nothing about which split it is: "train_images", "Test set", "val2017", "annotations-train".
_FILLERS = {
    *("set", "sets", "split", "data", "dataset", "folder", "part", "image", "images", "img", "imgs"),
    *("picture", "pictures", "photo", "photos", "v", "version"),
}
_TABLE_FILLERS = {
    *("label", "labels", "annotation", "annotations", "caption", "captions", "metadata", "info", "list", "of")
}
_HINTS = {"trainval": "train", "testdev": "test", "minival": "validation"}  # of parts of what is called so elsewhere
_CLASSES = ("innermost", "outermost")


def role_of(name: str) -> str | None:
    """The split that a name stands for: "train", "validation" or "test"; None for "test_tube" and "trainval"."""
    words = [word for word in re.split(r"[\W\d_]+", name.lower()) if word]
    telling = [word for word in words if word not in _FILLERS | _TABLE_FILLERS]
    if len(telling) != 1:
        return None
    for role, aliases in ROLES.items():
        if any(telling[0] in (alias, *(alias + filler for filler in _FILLERS)) for alias in aliases):
            return role
    return None


@dataclass
class FolderLayout:
    """Images by split, each with its class.

    Attributes:
        splits: the name of the split's folder → its files with their classes, None where there is no class.
        notes: what a person should know about how the folders were read.
        skipped: why images were left out → how many.
    """

    splits: dict[str, list[tuple[File, str | None]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def arrange(tree: Tree, named: Mapping[str, str], classes: str | None = None) -> FolderLayout:
    """Reads splits and classes off the folders of images.

    Args:
        tree: with images in it.
        named: role → the split's folder, relative to the root ("." for the root), where the user names it.
        classes: "innermost": an image's class is the folder that it lies in; "outermost": the first folder below the
            split's. None: the one of these that is clear.

    Raises:
        DataError: a folder may be read in several ways, with the option that says which; a folder that was named does
            not exist; or a class folder holds no image.
    """
    if classes not in (None, *_CLASSES):
        raise DataError(f"classes={classes!r} is unknown: use {' or '.join(map(repr, _CLASSES))}.")
    layout, source = FolderLayout(), tree.source
    placed = place(tree.images, named, source, layout)
    training = training_split([split for split, _ in placed.values()], named)
    stripped, front = _without_common_parts({rest for _, rest in placed.values()})
    class_of = _classes({stripped[rest] for _, rest in placed.values()} - {()}, classes, source)
    for image in tree.images:
        if image.folder not in placed:
            layout.skipped["images outside of the splits' folders"] += 1
            continue
        split, rest = placed[image.folder]
        path = class_of.get(stripped[rest])
        layout.splits.setdefault(split, []).append((image, path[-1] if path else None))
    _leave_out_strays(layout, training)
    _note_classes(layout, class_of)
    parents = {  # where the class folders of the training split lie
        folder[: len(folder) - len(rest) + front + len(class_of[stripped[rest]]) - 1]
        for folder, (split, rest) in placed.items()
        if split == training and stripped[rest] in class_of and folder[len(folder) - len(rest) :] == rest
    }
    _check_empty_folders(tree, layout, parents)
    return layout


def training_split(splits: Iterable[str], named: Mapping[str, str]) -> str | None:
    """The one that is called so, or was named; None if there is none."""
    return next((split for split in splits if split == named.get("train") or role_of(split) == "train"), None)


def place(
    files: Iterable[File], named: Mapping[str, str], source: str, layout: FolderLayout
) -> dict[Folder, tuple[str, Folder]]:
    """Folder → the split that it belongs to, and the folders below it, which say the class.

    A split level is the first at which every image lies in a folder with a split's name. Without one, and without
    folders that were named, all is one training split. Folders that belong to no split are left out.

    Raises:
        DataError: some folders have a split's name and others do not; or a folder that was named does not exist.
    """
    folders = sorted({file.folder for file in files})
    placed = _placed_by_name(folders, named, source)
    left = [folder for folder in folders if folder not in placed]
    level = split_level(left)
    if level is not None:
        _check_roles({folder[level] for folder in left if len(folder) > level}, named, source)
    elif named:
        if any(folder and role_of(folder[0]) for folder in left):
            level = 0
        elif "train" not in named:
            placed |= {folder: ("train", folder) for folder in left}
    else:
        _check_one_split(left, source, layout)
        _check_hints(left, source)
        placed = {folder: ("train", folder) for folder in left}
    if level is not None:
        for folder in left:
            if len(folder) > level and role_of(folder[level]):
                placed[folder] = (folder[level], folder[:level] + folder[level + 1 :])
    return placed


def split_level(folders: Collection[Folder]) -> int | None:
    """The first level at which all folders have a split's name, with several splits if there is one such level."""
    found = None
    for level in range(max(map(len, folders), default=0)):
        deep = [folder for folder in folders if len(folder) > level]
        shared = _common_start(deep)
        if any(len(folder) <= level and folder != shared[: len(folder)] for folder in folders):
            continue  # images lie above this level on one way and below it on another
        roles = {role_of(folder[level]) for folder in deep}
        if None not in roles:
            found = level if found is None else found
            if len(roles) > 1:
                return level
    return found


def _placed_by_name(folders: list[Folder], named: Mapping[str, str], source: str) -> dict[Folder, tuple[str, Folder]]:
    wanted: list[tuple[Folder, str]] = []
    for role, name in named.items():
        start = tuple(part for part in re.split(r"[/\\]", name) if part not in ("", "."))
        if not any(folder[: len(start)] == start for folder in folders):
            there = sorted({folder[0] for folder in folders if folder})
            known = f"there are {quoted(there)}" if there else "it holds no folders of images"
            raise DataError(f"{role}_split={name!r} is not a folder of images in {source}: {known}.")
        wanted.append((start, name))
    placed: dict[Folder, tuple[str, Folder]] = {}
    for start, name in sorted(wanted, key=lambda pair: len(pair[0])):  # the closest folder that was named counts
        placed |= {folder: (name, folder[len(start) :]) for folder in folders if folder[: len(start)] == start}
    return placed


def _check_roles(names: Collection[str], named: Mapping[str, str], source: str) -> None:
    by_role: dict[str, list[str]] = {}
    for name in sorted(names):
        by_role.setdefault(str(role_of(name)), []).append(name)
    for role, same in by_role.items():
        if len(same) > 1 and role not in named:
            raise DataError(
                f"Folders {quoted(same)} of {source} may all hold the {role} images: say which with --{role}_split "
                f"{shlex.quote(same[0])}."
            )


def _check_one_split(folders: list[Folder], source: str, layout: FolderLayout) -> None:
    """No folder may look like a split where there is none, but for a class called "train" among others."""
    suspects = sorted({folder[: end + 1] for folder in folders for end, part in enumerate(folder) if role_of(part)})
    if not suspects:
        return
    others = [folder for folder in folders if folder and not any(map(role_of, folder))]
    if all(suspect in folders and role_of(suspect[-1]) == "train" for suspect in suspects) and len(others) > 1:
        layout.notes.append(f"folder {suspects[0][-1]!r} is read as a class, like those next to it")
        return
    options = {role_of(suspect[-1]): "/".join(suspect) for suspect in suspects}
    apart = " ".join(f"--{role}_split {shlex.quote(path)}" for role, path in ({"train": "."} | options).items())
    these = f"say {apart} to read these as splits, or " if len(options) == len(suspects) else ""
    like_splits, rest = (quoted(["/".join(path) for path in paths], 3) for paths in (suspects, others))
    raise DataError(
        f"{source} has folders with the name of a split ({like_splits}) and others ({rest}): {these}--train_split . "
        "if all are classes."
    )


def _check_hints(folders: list[Folder], source: str) -> None:
    """No folders of classes may be told apart by the word of a split alone, as in "pets_train" and "pets_test"."""
    levels: dict[Folder, dict[str, str]] = {}
    twins: dict[tuple[Folder, str], dict[str, str]] = {}  # such as the folders "cat_train" and "cat_test" themselves
    for folder in folders:
        for end, name in enumerate(folder):
            words = re.findall(r"[^\W\d_]+", name.lower())
            hints = {word: role for word in words if (role := _HINTS.get(word) or role_of(word))}
            rest = " ".join(word for word in words if word not in hints)
            above = end < len(folder) - 1
            found = levels.setdefault(folder[:end], {}) if above else twins.setdefault((folder[:end], rest), {})
            for role in set(hints.values()):
                found.setdefault(role, "/".join(folder[: end + 1]))
    for found in levels.values():
        if len(found) > 1:
            flags = " ".join(f"--{role}_split {shlex.quote(path)}" for role, path in found.items())
            raise DataError(
                f"{source} has folders of classes with the word of a split in their names ({quoted(found.values())}): "
                f"say {flags} to read these as splits, or --train_split . if all are training images."
            )
    pairs = [sorted(found.values()) for found in twins.values() if len(found) > 1]
    if len(pairs) > 1:  # of a single one, such as "test_tube" and "train_tube", splits would have one class
        raise DataError(
            f"{source} has classes that differ by the word of a split alone ({quoted(pairs[0] + pairs[1])}): say "
            "--train_split . if each is a class, or move the images into folders of splits, as train/cat and test/cat."
        )


def _without_common_parts(rests: set[Folder]) -> tuple[dict[Folder, Folder], int]:
    """Folders without what they all begin or end with, such as "animals/…" and "…/images"; how much at the front."""
    stripped, front = {rest: rest for rest in rests}, 0
    for first in (True, False):
        while True:
            filled = {rest for rest in stripped.values() if rest}
            shared = {rest[0] if first else rest[-1] for rest in filled}
            if len(shared) != 1 or len(filled) < 2 or (not first and len({r[:-1] for r in filled} - {()}) < 2):
                break
            stripped = {rest: (own[1:] if first else own[:-1]) for rest, own in stripped.items()}
            front += first
    return stripped, front


def _classes(folders: set[Folder], classes: str | None, source: str) -> dict[Folder, Folder]:
    """Folder → the class folder that it is, or lies in."""
    if classes == "outermost":
        return {folder: folder[:1] for folder in folders}
    if classes == "innermost":
        return {folder: folder for folder in folders}
    found = {
        folder: next(folder[:end] for end in range(1, len(folder) + 1) if folder[:end] in folders)
        for folder in folders
    }
    by_depth = {len(folder): folder for folder in sorted(found.values(), reverse=True)}
    if len(by_depth) > 1:
        examples = quoted(["/".join(folder) for _, folder in sorted(by_depth.items())])
        raise DataError(
            f"Class folders of {source} lie at different depths ({examples}): say which are the classes with "
            '--dataset_options \'{"classes": "outermost"}\', or "innermost".'
        )
    return found


def _leave_out_strays(layout: FolderLayout, training: str | None) -> None:
    """Images next to class folders have no class; nor do those of a split whose only folder is not a class."""
    first = {name for _, name in layout.splits.get(training or "", ()) if name is not None}
    for split, rows in layout.splits.items():
        own = {name for _, name in rows if name is not None}
        if len(own) == 1 and len(first) > 1 and not {name.lower() for name in own} & {name.lower() for name in first}:
            layout.notes.append(f"split {split!r} has no classes: its one folder, {own.pop()!r}, is not one of them")
            layout.splits[split] = [(file, None) for file, _ in rows]
        elif own and any(name is None for _, name in rows):
            layout.splits[split] = [row for row in rows if row[1] is not None]
            layout.skipped["images outside of the class folders"] += len(rows) - len(layout.splits[split])


def _note_classes(layout: FolderLayout, class_of: Mapping[Folder, Folder]) -> None:
    by_name: dict[str, set[str]] = {}
    for folder in class_of.values():
        by_name.setdefault(folder[-1], set()).add("/".join(folder))
    for name, paths in sorted(by_name.items()):
        if len(paths) > 1:
            layout.notes.append(f"class {name!r} unites {quoted(sorted(paths))}")
    if any(len(folder) > 1 for folder in class_of.values()) and len(by_name) > 1:
        layout.notes.append("classes are the folders that images lie in, not those above them")


def _check_empty_folders(tree: Tree, layout: FolderLayout, parents: Collection[Folder]) -> None:
    """A folder without an image next to the class folders of the training split is a class that would be lost."""
    with_images = {image.folder[:end] for image in tree.images for end in range(len(image.folder) + 1)}
    with_tables = {table.folder[:end] for table in tree.tables for end in range(len(table.folder) + 1)}
    for folder in sorted(tree.folders - with_images - with_tables):
        if not folder or folder[-1].startswith((".", "_")):
            continue
        if folder[:-1] in parents:
            raise DataError(
                f"Folder {'/'.join(folder)!r} in {tree.source!r} holds no image that can be read, though the "
                "folders next to it do: put images into it, or remove it."
            )
        if folder[:-1] in with_images:
            layout.notes.append(f"folder {'/'.join(folder)!r} holds no image")


def _common_start(folders: Collection[Folder]) -> Folder:
    low, high = min(folders), max(folders)
    same = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[:same]
