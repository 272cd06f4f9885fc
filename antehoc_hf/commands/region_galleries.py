"""The dominant regions of a folder of images, and a gallery of the strongest for each class."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.commands.explain_images import explainer_named
from antehoc_hf.commands.inputs import batches, image_files, load_model, pictures_of, pixel_values_of, unique_names
from antehoc_hf.commands.output import output_folder
from antehoc_hf.concepts import dominant_regions
from antehoc_hf.concepts.regions import Region
from antehoc_hf.explainers import Explainer
from antehoc_hf.model_weights import model_config
from antehoc_hf.training.runs.results import write_results
from antehoc_hf.visualization.gallery import gallery

if TYPE_CHECKING:
    from antehoc_hf.commands.regions import RegionArguments

REGIONS_FILE = "regions.json"


def region_galleries(options: RegionArguments) -> dict[str, Any]:
    """Finds the connected parts of each image where its map is high, by the class that is predicted.

    Writes `CLASS.png`, a gallery of the strongest regions, and `regions.json`: for each image its file, class and
    boxes (left, top, right, bottom, in pixels of the model's input). Only the galleries' crops stay in memory.
    Returns what `regions.json` holds.

    Raises:
        ValueError: for options or images that make no sense, in one sentence.
        OSError: if the model cannot be loaded.
    """
    folder = Path(options.output_dir)
    paths = image_files(options.images, options.output_dir)
    labels = getattr(model_config(options.model), "id2label", None) or {}
    files = dict(zip(labels, _file_names(list(labels.values())), strict=True))
    with output_folder(folder, [REGIONS_FILE, *files.values()], options.overwrite):
        return _galleries(options, paths, files, folder)


def _galleries(options: RegionArguments, paths: Sequence[Path], files: dict[int, str], folder: Path) -> dict[str, Any]:
    """Everything is computed and written; `files` are the classes' galleries."""
    model, processor = load_model(options.model)
    labels = model.config.id2label
    if "logits" not in getattr(model, "onnx_outputs", ("logits",)) or not labels:
        raise UsageError(f"{options.model} is not a classifier: a gallery needs classes.")
    explainer = explainer_named(options.explainer, model, processor)
    best: dict[int, list[tuple[float, int, Any]]] = {}
    found: list[dict[str, Any]] = []
    skipped: list[str] = []
    for opened in batches(paths, options.batch_size, options.on_bad_image, skipped, "Looking for regions"):
        pixel_values = pixel_values_of(opened, processor)
        pictures = pictures_of(opened, processor, pixel_values)
        classes, parts = _regions_of(model, explainer, pixel_values, options)
        for (path, _), picture, class_, own in zip(opened, pictures, classes, parts, strict=True):
            found.append({"file": str(path), "class": labels[class_], "regions": [_as_entry(r) for r in own]})
            for region in own:
                _keep(best.setdefault(class_, []), region, region.crop(picture, least=0.25), options.per_class)
    results = {"model": options.model, "explainer": options.explainer, "threshold": options.threshold}
    results |= {"images": found, "skipped": skipped}
    _write(results, best, labels, files, folder)
    return results


def _regions_of(
    model: Any, explainer: Explainer, pixel_values: torch.Tensor, options: RegionArguments
) -> tuple[list[int], list[list[Region]]]:
    """The predicted classes, and the regions of their maps."""
    with torch.no_grad():
        logits = model(pixel_values.to(device=model.device, dtype=model.dtype)).logits
    classes = logits.argmax(dim=1)
    maps = explainer(pixel_values, classes)
    return classes.tolist(), dominant_regions(maps, options.threshold, options.least_area)


def _keep(best: list[tuple[float, int, Any]], region: Region, crop: Any, most: int) -> None:
    """The strongest regions of a class; of equals the one that came first."""
    entry = (region.strength * region.area**0.5, -len(best), crop)
    (heapq.heappush if len(best) < most else heapq.heappushpop)(best, entry)  # type: ignore[operator]


def _as_entry(region: Region) -> dict[str, Any]:
    return {"box": list(region.box), "area": region.area, "strength": round(region.strength, 4)}


def _file_names(labels: Sequence[object]) -> list[str]:
    """A file name for each class, whatever its name holds."""
    safe = [
        "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in str(label)) for label in labels
    ]
    return [f"{name}.png" for name in unique_names(safe)]


def _write(
    results: dict[str, Any], best: dict[int, list[Any]], labels: Any, files: dict[int, str], folder: Path
) -> None:
    write_results(folder / REGIONS_FILE, results)
    for class_, kept in sorted(best.items()):
        crops = [crop for _, _, crop in sorted(kept, key=lambda entry: (-entry[0], -entry[1]))]
        gallery(crops, title=f"{labels[class_]}: where the model looked").savefig(folder / files[class_])
    for class_ in sorted(best):
        count = sum(len(one["regions"]) for one in results["images"] if one["class"] == labels[class_])
        print(f"  {labels[class_]}: {count} region{'' if count == 1 else 's'}")
    for reason in results["skipped"]:
        print(f"  left out: {reason}")
    print(f"\nWritten to {folder}: {REGIONS_FILE} and a gallery for each of {len(best)} classes")
