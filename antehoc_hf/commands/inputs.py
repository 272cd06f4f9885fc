"""What the commands on a user's own images have in common: files, models, and what is predicted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.model_weights import load_weights
from antehoc_hf.training.data.errors import BadImageError
from antehoc_hf.training.data.images import decode_image
from antehoc_hf.training.tasks import task_of

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}


def image_files(given: Sequence[str]) -> list[Path]:
    """
    Files, and all images within folders, in order.

    Raises:
        UsageError: if there are none, or one does not exist.
    """
    if not given:
        raise UsageError("There is no image: name files or folders of images before the options.")
    paths: list[Path] = []
    for path in map(Path, given):
        if not path.exists():
            raise UsageError(f"{path} does not exist.")
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"{path} holds no image ({', '.join(sorted(_SUFFIXES))}).")
        paths += inside
    return paths


def unique_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A name for each file's results: its own without suffix, numbered where several files share it."""
    names: dict[Path, str] = {}
    taken: dict[str, int] = {}
    for path in paths:
        if path not in names:
            count = taken[path.stem] = taken.get(path.stem, 0) + 1
            names[path] = path.stem if count == 1 else f"{path.stem}-{count}"
    return names


def model_config(name: str | Path) -> Any:
    """
    The configuration of a model, by its folder or its name on the Hub.

    Raises:
        UsageError: if the folder holds no model, such as that of a training that has not ended.
        OSError: if it cannot be loaded.
    """
    folder = Path(name)
    if folder.is_dir() and not (folder / "config.json").exists():
        steps = sorted(folder.glob("checkpoint-*/config.json"), key=lambda path: path.stat().st_mtime)
        hint = f"its training has not ended; {steps[-1].parent} is its last checkpoint" if steps else "name another"
        raise UsageError(f"{name} holds no model (there is no config.json): {hint}.")
    return AutoConfig.from_pretrained(name)


def load_model(name: str) -> tuple[Any, Any]:
    """
    A model and its image processor: one of ours with its head, or any image classifier of transformers.

    Raises:
        UsageError: if the weights are not the model's, see [`antehoc_hf.model_weights.load_weights`].
        OSError: if they cannot be loaded.
    """
    config = model_config(name)
    ours = config.model_type == "antehoc"
    model_class: Any = task_of(config).model_class if ours else AutoModelForImageClassification
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return load_weights(model_class, name).to(device).eval(), AutoImageProcessor.from_pretrained(name)


def opened_images(paths: Sequence[Path], on_bad_image: str, skipped: list[str]) -> Iterator[tuple[Path, Image.Image]]:
    """
    Files with their images; the reasons of those left out are added to `skipped`.

    Raises:
        BadImageError: if one cannot be read and `on_bad_image` is "stop".
    """
    for path in paths:
        try:
            yield path, decode_image(str(path), path.name)
        except BadImageError as error:
            if on_bad_image == "stop":
                raise
            skipped.append(str(error))


@torch.no_grad()
def predictions(model: Any, pixel_values: Tensor) -> list[str]:
    """What the model says of each image, in words; nothing for landmarks."""
    outputs_of = getattr(model, "onnx_outputs", ("logits",))
    pixel_values = pixel_values.to(device=model.device, dtype=model.dtype)
    if "logits" not in outputs_of:
        return [""] * len(pixel_values)
    if hasattr(model, "generate") and getattr(model.config, "vocab_size", None):
        return [""] * len(pixel_values)
    shares, classes = model(pixel_values).logits.float().softmax(dim=1).max(dim=1)
    labels = model.config.id2label
    return [f"{labels[c]} {100 * p:.0f} %" for p, c in zip(shares.tolist(), classes.tolist(), strict=True)]
