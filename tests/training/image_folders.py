"""Folders of images that differ, and what was read of them."""

import hashlib
import os
from pathlib import Path
from typing import Any

import datasets
from PIL import Image

from antehoc_hf.training.data import ImageData, load_image_data


def save_image(path: Path | str) -> None:
    """An image like no other: its colour depends on its path."""
    digest = hashlib.sha256(os.fsencode(path)).digest()
    Image.new("RGB", (8, 9), (digest[0], digest[1], digest[2])).save(path, "PNG")


def images(root: Path, *folders: str, count: int = 3, name: str = "{}.png") -> Path:
    for folder in folders or ("",):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            save_image(root / folder / name.format(number))
    return root


def both(*splits: str) -> list[str]:
    return [f"{split}/{name}" for split in splits for name in ("cat", "dog")]


def load(root: Path | str, said: list[str] | None = None, **options: Any) -> ImageData:
    report = said.append if said is not None else lambda text: None
    return load_image_data(root, validation_fraction=0, report=report, **options)


def counts(data: ImageData) -> dict[str, int]:
    return {role: len(split) for role, split in data.splits.items()}


def truth_of(data: ImageData, role: str = "train") -> set[tuple[str, str]]:
    """(folder that an image lies in, name of the class that it has)."""
    dataset = data.splits[role].dataset
    cells = dataset.cast_column("image", datasets.Image(decode=False))[:]
    names = [data.targets.names[int(index)] for index in data.targets.tensor(cells["label"])]
    return {(Path(cell["path"]).parent.name, name) for cell, name in zip(cells["image"], names, strict=True)}
