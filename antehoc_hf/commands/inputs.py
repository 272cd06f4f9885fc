"""What the commands on a user's own images share: files, models, and predictions in words."""

import json
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModelForImageClassification
from transformers.utils import cached_file

from antehoc_hf.commands.errors import UsageError, check_images
from antehoc_hf.commands.output import check_apart
from antehoc_hf.model_weights import load_processor, load_weights, model_config
from antehoc_hf.modeling import (
    AnteHocConfig,
    AnteHocForImageCaptioning,
    AnteHocForImageClassification,
    AnteHocForLandmarkDetection,
)
from antehoc_hf.modeling.backbone import hub_in_one_try
from antehoc_hf.pipelines.images import without_ends
from antehoc_hf.training.data.errors import BadImageError
from antehoc_hf.training.data.folders import IMAGE_SUFFIXES, scan
from antehoc_hf.training.data.images import decode_image

_LONGEST_VERDICT = 300  # characters


def image_files(given: Sequence[str], output_dir: str | None = None) -> list[Path]:
    """Files, and all images within folders but for those in `output_dir`, in order.

    Raises:
        UsageError: if there are none, one does not exist, or one is `output_dir` itself.
    """
    results = None if output_dir is None else Path(output_dir).resolve()
    check_images(given)
    paths: list[Path] = []
    for path in map(Path, given):
        if output_dir is not None:
            check_apart(Path(output_dir), str(path))
        inside = [Path(image.path) for image in scan(path).images] if path.is_dir() else [path]
        if results is not None and path.is_dir():
            inside = [file for file in inside if not file.resolve().is_relative_to(results)]
        if not inside:
            raise UsageError(f"{path} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}).")
        paths += inside
    return list(dict.fromkeys(paths))


def unique_names(names: Sequence[str]) -> list[str]:
    """File names that differ from each other, on file systems that ignore case or how accents are written as well.

    Args:
        names: what the files would be called; the first of several that are equal keeps its name, the others get
            numbers that no other name has.
    """
    wanted = {_compared(name) for name in names}
    used: set[str] = set()
    unique = []
    for name in names:
        candidate, number = name, 1
        while _compared(candidate) in used or (number > 1 and _compared(candidate) in wanted):
            number += 1
            candidate = f"{name}-{number}"
        used.add(_compared(candidate))
        unique.append(candidate)
    return unique


def _compared(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def load_model(name: str) -> tuple[Any, Any]:
    """A model and its image processor: one of ours with its head, or any image classifier of transformers.

    Raises:
        UsageError: if the weights are not the model's, see [`antehoc_hf.model_weights.load_weights`].
        OSError: if they cannot be loaded.
    """
    config = model_config(name)
    model_class = _class_of(config)
    elsewhere = {"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"} & set(
        vars(config).get("model_args") or ()
    )
    if elsewhere:
        raise UsageError(f"config.json of {name} names weights elsewhere (model_args: {min(elsewhere)}): remove that.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    processor = load_processor(name)
    return load_weights(model_class, name).to(device).eval(), processor


def verdict_of(name: str) -> str:
    """The sentence in the model's `results.json`, which anybody may have written: it is shown as plain text."""
    with hub_in_one_try(not Path(name).is_dir()):
        path = cached_file(
            name,
            "results.json",
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    try:
        found = {} if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
        return str(found["verdict"]["sentence"])[:_LONGEST_VERDICT]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # there is none, or the file is damaged
        return ""


def _class_of(config: Any) -> Any:
    """Raises a UsageError if it is one of our models, but without a head."""
    names = getattr(config, "architectures", None)
    names = names if isinstance(names, list) and names else ["model of unknown kind"]
    for model_class in (AnteHocForImageClassification, AnteHocForLandmarkDetection, AnteHocForImageCaptioning):
        if model_class.__name__ in names:
            return model_class
    if isinstance(config, AnteHocConfig):
        raise UsageError(f"The model is a {names[0]}, which predicts nothing that could be explained.")
    return AutoModelForImageClassification


def opened_images(paths: Sequence[Path], on_bad_image: str, skipped: list[str]) -> Iterator[tuple[Path, Image.Image]]:
    """Files with their images; the reasons of those left out are added to `skipped`.

    Raises:
        BadImageError: if one cannot be read and `on_bad_image` is "stop".
    """
    for path in paths:
        try:
            yield path, decode_image(str(path), path.name)
        except BadImageError as error:
            if on_bad_image == "stop":
                raise BadImageError(f"{str(error).rstrip('.')}; --on_bad_image skip leaves such files out.") from error
            skipped.append(str(error))


def batches(
    paths: Sequence[Path], size: int, on_bad_image: str, skipped: list[str], description: str
) -> Iterator[list[tuple[Path, Image.Image]]]:
    """Files with their images, `size` at a time, with a bar; so that only these are in memory. See [`opened_images`].

    Raises:
        BadImageError: if one cannot be read and `on_bad_image` is "stop".
    """
    with tqdm(total=len(paths), desc=description, unit="image") as progress:
        for start in range(0, len(paths), size):
            batch = paths[start : start + size]
            opened = list(opened_images(batch, on_bad_image, skipped))
            if opened:
                yield opened
            progress.update(len(batch))


@torch.no_grad()
def predictions(model: Any, pixel_values: Tensor) -> list[str]:
    """What the model says of each image, in words; nothing for landmarks."""
    outputs_of = getattr(model, "onnx_outputs", ("logits",))
    pixel_values = pixel_values.to(device=model.device, dtype=model.dtype)
    if "logits" not in outputs_of:
        return [""] * len(pixel_values)
    if hasattr(model, "generate") and getattr(model.config, "vocab_size", None):
        return [""] * len(pixel_values)
    return in_words(model, model(pixel_values).logits)


def in_words(model: Any, logits: Tensor) -> list[str]:
    """The likeliest class of each image and its probability, of logits (B, K); raises a UsageError if one is NaN."""
    if bool(logits.isnan().any()):
        raise UsageError("The model predicts NaN of an image: its weights are damaged, or its numbers overflow.")
    shares, classes = logits.float().softmax(dim=1).max(dim=1)
    labels = model.config.id2label
    return [f"{labels[c]} {100 * p:.0f} %" for p, c in zip(shares.tolist(), classes.tolist(), strict=True)]


def pixel_values_of(opened: Sequence[tuple[Path, Image.Image]], processor: Any) -> Tensor:
    """The images as the model takes them, (B, 3, H, W)."""
    images = [without_ends(image, processor) for _, image in opened]
    return processor(images=images, return_tensors="pt").pixel_values  # type: ignore[no-any-return]


def pictures_of(opened: Sequence[tuple[Path, Image.Image]], processor: Any, pixel_values: Tensor) -> Any:
    """To draw maps on, (N, H, W, 3) uint8: the part of each photo that the model sees, or else its input."""
    from antehoc_hf.visualization import denormalise, photo_parts

    if hasattr(processor, "geometry"):
        return photo_parts([image for _, image in opened], processor)
    return denormalise(pixel_values, processor.image_mean, processor.image_std)
