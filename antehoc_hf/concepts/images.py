"""Images of a concept, from a folder or a data set."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.commands.inputs import image_files
from antehoc_hf.pipelines.images import without_ends
from antehoc_hf.training.data.columns import find_image_column
from antehoc_hf.training.data.images import decode_image, raw_images
from antehoc_hf.training.data.sources import load_source


def concept_images(
    source: str | Path, processor: Any, *, count: int | None = None, seed: int = 0, split: str = "train"
) -> Tensor:
    """Images that show a concept, or random ones to tell it from, as the model sees them.

    Args:
        source (`str` or `Path`): a folder of images (also within folders of it), or the name of a data set.
        processor: the model's image processor.
        count (`int`, *optional*): so many of them, chosen at random; None: all.
        seed (`int`): of the choice.
        split (`str`): of a data set.

    Returns:
        `Tensor`: (N, 3, H, W), normalised.

    Raises:
        ValueError: if there are fewer images than asked for, or none, or one cannot be read.
    """
    folder = Path(source)
    opened = _of_folder(folder) if folder.is_dir() and not _is_data_set(folder) else _of_data_set(str(source), split)
    found = len(opened)
    if count is not None and not 1 <= count <= found:
        raise UsageError(f"{source} holds {found} images, and {count} were asked for.")
    chosen = torch.randperm(found, generator=torch.Generator().manual_seed(seed))[: count or found].sort().values
    images = [decode_image(opened.value(position), opened.name(position)) for position in chosen.tolist()]
    images = [without_ends(image, processor) for image in images]
    pixel_values: Tensor = processor(images=images, return_tensors="pt")["pixel_values"]
    return pixel_values


@dataclass(frozen=True)
class _Opened:
    """So many images, each of which is read when it is asked for."""

    count: int
    value: Callable[[int], Any]
    name: Callable[[int], str]

    def __len__(self) -> int:
        return self.count


def _of_folder(folder: Path) -> _Opened:
    paths = image_files([str(folder)])
    return _Opened(len(paths), lambda position: str(paths[position]), lambda position: paths[position].name)


def _is_data_set(folder: Path) -> bool:
    """A folder of tables, or one that `save_to_disk` wrote."""
    return any(path.suffix in (".parquet", ".arrow") for path in folder.rglob("*.*"))


def _of_data_set(name: str, split: str) -> _Opened:
    splits = load_source(name).splits
    if split not in splits:
        raise UsageError(f"{name} has no split {split!r}: there are {', '.join(splits)}.")
    column = find_image_column(splits[split].features, source=name)
    dataset = raw_images(splits[split], column)
    return _Opened(
        len(dataset),
        lambda position: dataset[position][column],
        lambda position: f"Image {position} of {name}, split {split!r}",
    )
