"""The images that a visitor of the page can choose from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from antehoc_hf.commands.inputs import unique_names
from antehoc_hf.demo.analysis import read_photo
from antehoc_hf.modeling.image_input import to_rgb

_SIDE, _LARGEST = 256, 1024


def example_files(folder: str | Path, images: Sequence[str | Path] | None = None) -> list[str]:
    """Copies of the examples, so that the page opens no folder of the user's to its visitors.

    Args:
        folder: where they go.
        images (*optional*): files; None: an image of each class of `shapes`.

    Raises:
        ValueError, OSError: if one cannot be read.
    """
    paths = [Path(path) for path in images or ()]
    names = unique_names([path.stem for path in paths])
    named = {name: to_rgb(read_photo(path)) for name, path in zip(names, paths, strict=True)} if paths else _drawings()
    files = []
    for name, image in named.items():
        image.thumbnail((_LARGEST, _LARGEST))
        path = Path(folder) / f"{name}.png"
        image.save(path)
        files.append(str(path))
    return files


def _drawings() -> dict[str, Any]:
    from antehoc_hf.shapes import load_shapes
    from antehoc_hf.shapes.parts import CLASSES

    rows = load_shapes(image_size=_SIDE, train=0, validation=0, test=len(CLASSES), seed=0)["test"]
    return {list(CLASSES)[row["label"]]: row["image"] for row in rows}
