"""`antehoc explain`: what several methods say a model looked at, as figures, arrays and JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from antehoc_hf.explainers import EXPLAINERS, Explainer, Explanation, load_explainer
from antehoc_hf.training.errors import BadImageError
from antehoc_hf.training.images import decode_image
from antehoc_hf.training.recipe import OptionParser
from antehoc_hf.training.results import write_results
from antehoc_hf.training.run_arguments import UsageError
from antehoc_hf.training.tasks import task_of
from antehoc_hf.visualization import comparison, denormalise

EXPLANATIONS_FILE = "explanations.json"
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}


@dataclass
class ExplainArguments:
    """What is explained, and how."""

    _argument_group_name: ClassVar[str] = "explanation"

    model: str = field(metadata={"help": "Folder or Hub name of a model: one of ours, or any image classifier."})
    images: list[str] = field(default_factory=list, metadata={"help": "Image files, and folders of them."})
    explainers: list[str] = field(
        default_factory=lambda: ["antehoc", "grad-cam"], metadata={"help": f"Of {', '.join(EXPLAINERS)}."}
    )
    target: str | None = field(
        default=None,
        metadata={"help": "Class (index or name), landmark or group. None: the model's own prediction of each image."},
    )
    layer: str | None = field(default=None, metadata={"help": "Module that methods of one layer read. None: found."})
    output_dir: str = field(default="explanations", metadata={"help": "Where figures, maps and JSON go."})
    batch_size: int = field(default=8, metadata={"help": "Images at a time."})
    figures: bool = field(default=True, metadata={"help": "Draw one figure an image."})
    on_bad_image: Literal["stop", "skip"] = field(
        default="stop", metadata={"help": "'skip': name images that cannot be read and go on."}
    )


def explain(argv: Sequence[str]) -> dict[str, Any]:
    """
    Explains images one batch at a time: however many there are, only a batch of them is in memory.

    Writes `figures/NAME.png`, `maps/NAME.npz` (an array (H, W) float32 in [0, 1] for each method) and
    `explanations.json` (for each image its file, prediction and, for each method, seconds, passes and whether it found
    evidence).

    Args:
        argv: flags, see `antehoc explain --help`. First words without dashes are images.

    Returns:
        `dict`: what `explanations.json` holds.

    Raises:
        ValueError: for options or images that make no sense, in one sentence.
        OSError: if the model cannot be loaded.
    """
    options = _parsed(argv)
    paths = image_files(options.images)
    model, processor = load_model(options.model)
    explainers = {name: _explainer(name, model, options.layer) for name in dict.fromkeys(options.explainers)}
    target = _target(model, options.target)
    folder = Path(options.output_dir)
    for part in ("maps", *(["figures"] if options.figures else [])):
        (folder / part).mkdir(parents=True, exist_ok=True)
    names = unique_names(paths)
    found: list[dict[str, Any]] = []
    skipped: list[str] = []
    with tqdm(total=len(paths), desc="Explaining", unit="image") as progress:
        for start in range(0, len(paths), options.batch_size):
            batch = paths[start : start + options.batch_size]
            opened = list(_opened(batch, options.on_bad_image, skipped))
            if opened:
                found += _explain_batch(model, processor, explainers, target, opened, names, folder, options.figures)
            progress.update(len(batch))
    results = {
        "model": options.model,
        "target": options.target or "the model's own prediction",
        "explainers": list(explainers),
        "images": found,
        "skipped": skipped,
    }
    write_results(folder / EXPLANATIONS_FILE, results)
    _tell(results, folder)
    return results


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


def load_model(name: str) -> tuple[Any, Any]:
    """
    A model and its image processor: one of ours with its head, or any image classifier of transformers.

    Raises:
        OSError: if they cannot be loaded.
    """
    config = AutoConfig.from_pretrained(name)
    ours = config.model_type == "antehoc"
    model_class: Any = task_of(config).model_class if ours else AutoModelForImageClassification
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return model_class.from_pretrained(name).to(device).eval(), AutoImageProcessor.from_pretrained(name)


def _parsed(argv: Sequence[str]) -> ExplainArguments:
    arguments = list(argv)
    first = next((i for i, argument in enumerate(arguments) if argument.startswith("-")), len(arguments))
    if first:
        arguments = [*arguments[first:], "--images", *arguments[:first]]
    parser = OptionParser((ExplainArguments,), prog="antehoc explain")
    (options,) = parser.parse_options(["--output_dir" if a == "-o" else a for a in arguments])
    if options.batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {options.batch_size}.")
    if not options.explainers:
        raise UsageError(f"There is no explainer: name some of {', '.join(EXPLAINERS)}.")
    return options


def _explainer(name: str, model: Any, layer: str | None) -> Explainer:
    one_layer = ("grad-cam", "grad-cam++", "score-cam", "integrated-grad-cam")
    try:
        return load_explainer(name, model, **({"layer": layer} if layer and name in one_layer else {}))
    except ImportError as error:
        raise UsageError(str(error)) from error


def _target(model: Any, given: str | None) -> Any:
    """A class index from an index or a name; landmarks and groups go by name."""
    if given is None:
        return None
    if given.lstrip("-").isdigit():
        return int(given)
    label2id = getattr(model.config, "label2id", None) or {}
    if hasattr(model, "onnx_outputs") and "logits" not in model.onnx_outputs:
        return given
    if given not in label2id:
        raise UsageError(f"target {given!r} is no class of the model: there are {', '.join(list(label2id)[:6])} ….")
    return int(label2id[given])


def _opened(paths: Sequence[Path], on_bad_image: str, skipped: list[str]) -> Iterator[tuple[Path, Image.Image]]:
    for path in paths:
        try:
            yield path, decode_image(str(path), path.name)
        except BadImageError as error:
            if on_bad_image == "stop":
                raise
            skipped.append(str(error))


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
    pixel_values = processor(images=[image for _, image in opened], return_tensors="pt")["pixel_values"]
    explained: dict[str, Explanation] = {}
    seconds: dict[str, float] = {}
    for name, explainer in explainers.items():
        begun = time.perf_counter()
        explained[name] = explainer.explain(pixel_values, target)
        seconds[name] = (time.perf_counter() - begun) / len(opened)
    told = predictions(model, pixel_values)
    pictures = denormalise(pixel_values, processor.image_mean, processor.image_std)
    entries = []
    for index, (path, _) in enumerate(opened):
        maps = {name: result.maps[index, 0].cpu().numpy() for name, result in explained.items()}
        np.savez_compressed(
            folder / "maps" / f"{names[path]}.npz", **{n: m.astype(np.float32) for n, m in maps.items()}
        )
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
        if figures:
            figure = comparison(
                pictures[index],
                maps,
                notes={name: f"{1000 * seconds[name]:.0f} ms" for name in maps},
                without_evidence=[name for name, result in explained.items() if bool(result.degenerate[index])],
                title=f"{path.name}: {told[index]}" if told[index] else path.name,
            )
            figure.savefig(folder / "figures" / f"{names[path]}.png")
    return entries


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


def _tell(results: dict[str, Any], folder: Path) -> None:
    """A table for the terminal."""
    entries = results["images"]
    print(f"\n{len(entries)} images, {results['model']}, target: {results['target']}")
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
    print(f"\nWritten to {folder}: {EXPLANATIONS_FILE}, maps/, figures/")
