"""What came of a run: one dictionary, written as JSON and printed as a table."""

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from antehoc_hf.evaluation.chance import as_one_answer, as_shuffled, close_to_chance
from antehoc_hf.modeling.timm_model import TimmPreTrainedModel
from antehoc_hf.training.data import ImageData
from antehoc_hf.training.data.targets import TargetSpace
from antehoc_hf.training.objectives.base import has_map

RESULTS_FILE = "results.json"
FIGURE_FILE = "predictions.png"
Results = Mapping[str, Any]
"""What results.json holds, or a part of it."""
_PACKAGES = ("antehoc-hf", "torch", "timm", "transformers", "datasets", "accelerate", "numpy")

# Of metrics whose names do not say it.
_MEANS = {
    "map_mean": "how bright the maps are, 0 to 1",
    "degenerate_share": "of the maps, those that show nothing",
    "token_accuracy": "words right, given those before them",
    "distinct_captions": "of all images",
    "nme_of_mean_points": "of one answer for all images, the mean of the true points",
    "mse_of_mean": "of one answer for all images, the mean of the true numbers",
    "shuffled_average_precision": "with the scores of other images",
}


def describe_model(model: TimmPreTrainedModel) -> Results:
    """Kind, backbone and size; of a model with maps also its taps."""
    config = model.config
    described = {
        "class": type(model).__name__,
        "backbone": config.backbone,
        "image_size": list(config.image_size),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    if not has_map(model):
        return described
    return described | {
        "num_attention_maps": config.num_attention_maps,
        "taps": [point["module"] for point in config.tap_points],
        "map_head_parameters": sum(parameter.numel() for parameter in model.map_head.parameters()),
    }


def describe_data(data: ImageData[TargetSpace], targets: Mapping[str, object]) -> Results:
    """Name, revision, what is learned (`targets`), and how many images of each split."""
    return {
        "name": data.name,
        "revision": data.revision,
        **targets,
        "images": {role: len(split) for role, split in data.splits.items()},
        "validation_held_out_of_train": data.held_out,
        "skipped_images": len(data.skipped),
        "fingerprints": data.fingerprints,
    }


def telling_metrics(metrics: Mapping[str, float], prefix: str) -> dict[str, float]:
    """What the Trainer's evaluation found, without its prefix, its timing and the epoch."""
    timing = ("runtime", "per_second", "preparation_time")
    return {
        name.removeprefix(f"{prefix}_"): value
        for name, value in metrics.items()
        if not name.endswith(timing) and name != "epoch"
    }


def versions() -> dict[str, str]:
    """Of Python and the packages that matter."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_results(path: Path, results: Results) -> None:
    """As JSON; what is not a finite number becomes null. The file is whole or the old one."""
    unfinished = path.with_name(f"{path.name}.tmp")
    text = json.dumps(_plain(results), indent=1, ensure_ascii=False, allow_nan=False, default=str)
    try:
        unfinished.write_text(text + "\n", encoding="utf-8")
        os.replace(unfinished, path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def results_table(results: Results, measured: Sequence[str]) -> str:
    """The results as a person reads them on a terminal; `measured` are the lines about the maps."""
    data, metrics = results["data"], results["metrics"]
    lines = [f"{data['name']}, {results['evaluated_on']} split, {results['evaluated_images']} images"]
    plain = (results.get("plain_backbone") or {}).get("metrics", {})
    for name, value in metrics.items():
        plainly = f" (the plain backbone: {_number(plain[name])})" if name in plain else ""
        means = f" ({_MEANS[name]})" if name in _MEANS else ""
        lines.append(f"  {name.replace('_', ' ')}: {_number(value)}{plainly}{means}")
    if measured:
        lines += ["", *measured]
    sentence = results.get("verdict", {}).get("sentence", "")
    if sentence:
        lines += ["", sentence]
    return "\n".join(lines)


def warning(results: Results) -> str:
    """A sentence if the predictions are such that no map of them can mean anything; empty otherwise."""
    data, metrics, images = results["data"], results["metrics"], results["evaluated_images"]
    error, mean = metrics.get("nme_interocular", metrics.get("nme_box")), metrics.get("nme_of_mean_points")
    if images < 2:
        return ""
    if error is not None and mean is not None:
        return as_one_answer(error, mean)
    if "mse_of_mean" in metrics:
        return as_one_answer(metrics["mse"], metrics["mse_of_mean"], what="numbers", unit="")
    if "shuffled_average_precision" in metrics:
        return as_shuffled(metrics["mean_average_precision"], metrics["shuffled_average_precision"])
    if data.get("problem_type") == "single_label_classification" and "accuracy" in metrics:
        return close_to_chance(metrics["accuracy"], data["num_labels"], images)
    return ""


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
