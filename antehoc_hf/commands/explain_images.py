"""What several methods say a model looked at in images, as figures, arrays and JSON."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from antehoc_hf import example
from antehoc_hf.commands.errors import UsageError
from antehoc_hf.commands.inputs import (
    batches,
    image_files,
    load_model,
    pictures_of,
    pixel_values_of,
    predictions,
    unique_names,
    verdict_of,
)
from antehoc_hf.commands.output import output_folder
from antehoc_hf.explainers import Explainer, load_explainer
from antehoc_hf.explainers.base import Attribution
from antehoc_hf.explainers.targets import class_names
from antehoc_hf.training.runs.results import write_results
from antehoc_hf.visualization import comparison

if TYPE_CHECKING:
    from antehoc_hf.commands.explain import ExplainArguments

logger = logging.getLogger(__name__)

EXPLANATIONS_FILE = "explanations.json"


def explain_images(options: ExplainArguments) -> dict[str, Any]:
    """Explains images one batch at a time: however many there are, only a batch of them is in memory.

    Writes `figures/NAME.png`, `maps/NAME.npz` (an array (H, W) float32 in [0, 1] for each method) and
    `explanations.json` (for each image its file, prediction and, for each method, seconds, passes and whether it found
    evidence).

    Args:
        options: see `antehoc explain --help`.

    Returns:
        `dict`: what `explanations.json` holds.

    Raises:
        ValueError: for options or images that make no sense, in one sentence.
        OSError: if the model cannot be loaded.
    """
    folder = Path(options.output_dir)
    paths = image_files(options.images or example.IMAGES, options.output_dir)
    names = dict(zip(paths, unique_names([path.stem for path in paths]), strict=True))
    written = [EXPLANATIONS_FILE, *(f"maps/{name}.npz" for name in names.values())]
    written += [f"figures/{name}.png" for name in names.values()] if options.figures else []
    with output_folder(folder, written, options.overwrite):
        return _explain_files(options, names, folder)


def _explain_files(options: ExplainArguments, names: dict[Path, str], folder: Path) -> dict[str, Any]:
    """File → what its map and its figure are called; everything is computed and written."""
    model, processor = load_model(options.model or example.MODEL)
    explainers = {
        name: explainer_named(name, model, processor, options.layer) for name in dict.fromkeys(options.explainers)
    }
    target = target_named(model, options.target)
    for part in ("maps", *(["figures"] if options.figures else [])):
        (folder / part).mkdir(exist_ok=True)
    found: list[dict[str, Any]] = []
    skipped: list[str] = []
    for opened in batches(list(names), options.batch_size, options.on_bad_image, skipped, "Explaining"):
        found += _explain_batch(model, processor, explainers, target, opened, names, folder, options.figures)
    results = {
        "model": options.model or "the example, which knows six drawn bugs and nothing else",
        "target": options.target or "the model's own prediction",
        "explainers": list(explainers),
        "images": found,
        "skipped": skipped,
    }
    write_results(folder / EXPLANATIONS_FILE, results)
    _report(results, folder, options.figures, verdict_of(options.model or example.MODEL))
    return results


def explainer_named(name: str, model: Any, processor: Any, layer: str | None = None) -> Explainer:
    """Raises a UsageError if a package that it needs is missing."""
    one_layer = ("grad-cam", "grad-cam++", "layer-cam", "hires-cam", "score-cam", "integrated-grad-cam")
    try:
        chosen = {"layer": layer} if layer and name in one_layer else {}
        return load_explainer(name, model, image_mean=processor.image_mean, image_std=processor.image_std, **chosen)
    except ImportError as error:
        raise UsageError(str(error)) from error


def target_named(model: Any, given: str | None) -> Any:
    """A class index from an index or a name; landmarks and groups go by name."""
    if given is None:
        return None
    number = int(given) if re.fullmatch(r"-?[0-9]+", given) else None
    if hasattr(model, "onnx_outputs") and "logits" not in model.onnx_outputs:
        return given if number is None else number
    names = class_names(model.config)
    if given in names:
        if names[given] < 0:
            raise UsageError(f"target {given!r} is the name of several classes: give the position of one.")
        if number is not None and 0 <= number < len(names) and names[given] != number:
            logger.warning("Target %s is read as the name of class %d, not as a position.", given, names[given])
        return names[given]
    if number is None:
        raise UsageError(f"target {given!r} is no class of the model: there are {', '.join(list(names)[:6])} ….")
    return number


def _explain_batch(
    model: Any,
    processor: Any,
    explainers: dict[str, Explainer],
    target: Any,
    opened: list[tuple[Path, Image.Image]],
    names: dict[Path, str],
    folder: Path,
    figures: bool,
) -> list[dict[str, Any]]:
    """Every method on one batch; maps and figures are written, what is told of each image is returned."""
    pixel_values = pixel_values_of(opened, processor)
    told = predictions(model, pixel_values)  # before any time is taken: a model's first pass is slower
    explained: dict[str, Attribution] = {}
    seconds: dict[str, float] = {}
    for name, explainer in explainers.items():
        begun = time.perf_counter()
        explained[name] = explainer.explain(pixel_values, target)
        seconds[name] = (time.perf_counter() - begun) / len(opened)
    pictures = pictures_of(opened, processor, pixel_values) if figures else None
    entries = []
    for index, (path, _) in enumerate(opened):
        maps = {name: result.maps[index, 0].cpu().numpy() for name, result in explained.items()}
        arrays: dict[str, Any] = {name: map_.astype(np.float32) for name, map_ in maps.items()}
        np.savez_compressed(folder / "maps" / f"{names[path]}.npz", **arrays)
        entry = {
            "file": str(path),
            "name": names[path],
            "prediction": told[index],
            "explainers": {
                name: {
                    "seconds": seconds[name],
                    "passes": int(result.passes[index]),
                    "degenerate": bool(result.degenerate[index]),
                    "layers": list(result.layers),
                }
                for name, result in explained.items()
            },
        }
        entries.append(entry)
        if pictures is not None:
            figure = comparison(
                pictures[index],
                maps,
                notes={name: f"{1000 * seconds[name]:.0f} ms" for name in maps},
                without_evidence=[name for name, result in explained.items() if bool(result.degenerate[index])],
                title=f"{path.name}: {told[index]}" if told[index] else path.name,
            )
            figure.savefig(folder / "figures" / f"{names[path]}.png")
    return entries


def _report(results: dict[str, Any], folder: Path, figures: bool, verdict: str) -> None:
    """A table for the terminal, and what is known of the model's maps."""
    entries = results["images"]
    count = "1 image" if len(entries) == 1 else f"{len(entries)} images"
    print(f"\n{count}, {results['model']}, target: {results['target']}")
    for name in results["explainers"]:
        of_each = [entry["explainers"][name] for entry in entries]
        if of_each:
            mean = 1000 * sum(one["seconds"] for one in of_each) / len(of_each)
            passes = sum(one["passes"] for one in of_each) / len(of_each)
            nothing = sum(one["degenerate"] for one in of_each)
            line = f"  {name:22}{mean:9.1f} ms an image{passes:9.0f} masked images"
            print(line + (f", no evidence in {nothing}" if nothing else ""))
    for reason in results["skipped"]:
        print(f"  left out: {reason}")
    if verdict:
        print(f"\n{verdict} Measured on held-out images.")
    print(f"\nWritten to {folder}: {EXPLANATIONS_FILE}, maps/{', figures/' if figures else ''}")
