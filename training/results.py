"""What came of a run: one dictionary, written as JSON, shown as a table, and a figure."""

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data import Subset as TorchSubset

from antehoc_hf.evaluation import EvaluationSettings, MapReport, evaluate_maps
from antehoc_hf.modeling import AnteHocImageProcessor
from antehoc_hf.training.data import ImageData, ImageDataset
from antehoc_hf.training.images import decode_image
from antehoc_hf.training.run_arguments import UsageError
from antehoc_hf.visualization import figure_of_predictions

RESULTS_FILE = "results.json"
FIGURE_FILE = "predictions.png"
_PACKAGES = ("antehoc-hf", "torch", "timm", "transformers", "datasets", "accelerate", "numpy")
# Heading, metric, decimals: two tables, first what brightness can't buy.
_Columns = tuple[tuple[str, str, int], ...]
_HONEST: _Columns = (
    ("Avg. Drop ↓", "equal_area_avg_drop", 1),
    ("accuracy ↑", "equal_area_accuracy", 1),
    ("insertion − deletion ↑", "insertion_minus_deletion", 3),
    ("energy / area ↑", "energy_share_over_area", 2),
    ("pointing game ↑", "pointing_game", 1),
)
_PAPER: _Columns = (
    ("Drop ↓", "drop_cond", 1),
    ("Inc ↑", "inc_cond", 1),
    ("Win ↑", "win", 1),
    ("Avg. Drop ↓", "avg_drop", 1),
    ("mean of map", "map_mean", 2),
)


class _WithMasks(Dataset):
    """Adds `mask` (1, H, W): the evidence a data set knows, seen through the same resizing and cropping."""

    def __init__(self, images: ImageDataset, column: str, processor: AnteHocImageProcessor) -> None:
        self.images = images
        self.masks = images.split.dataset.with_format(None).select_columns([column])
        self.column = column
        self.processor = AnteHocImageProcessor(
            image_size=list(processor.image_size),
            image_mean=[0.0, 0.0, 0.0],
            image_std=[1.0, 1.0, 1.0],
            interpolation="nearest",
            crop_pct=processor.crop_pct,
            crop_mode=processor.crop_mode,
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> dict[str, Any]:
        where = f"The mask of {self.images.split.where(position)}"
        mask = decode_image(self.masks[position][self.column], where)
        pixels = self.processor(mask, return_tensors="pt")["pixel_values"][0, :1]
        return {**self.images[position], "mask": (pixels > 0.5).float()}


def sample(images: ImageDataset, count: int, seed: int = 0) -> list[int]:
    """Positions of at most `count` images, at random but the same for a seed: data are often sorted by class."""
    order = np.random.default_rng(seed).permutation(len(images))
    return [int(position) for position in order[:count]]


def check_mask_column(data: ImageData, mask_column: str | None) -> None:
    """
    Raises:
        UsageError: if a split that may be evaluated has no such column.
    """
    for split in data.splits.values():
        columns = split.dataset.column_names
        if mask_column is not None and mask_column not in columns:
            raise UsageError(
                f"mask_column={mask_column!r} is no column of {data.name}, split {split.name!r}: it has "
                f"{', '.join(columns)}."
            )


def measure_maps(
    model: Any,
    images: ImageDataset,
    processor: AnteHocImageProcessor,
    *,
    count: int,
    insertion_deletion_images: int = 0,
    mask_column: str | None = None,
    batch_size: int = 32,
    workers: int = 0,
    progress: bool = True,
) -> MapReport | None:
    """
    The model's maps beside controls that explain nothing, on a sample of the images.

    Returns:
        `MapReport` or `None`: `None` if there is nothing to measure: the measures are defined for one of several
        classes an image.
    """
    one_of_several = images.labels.problem_type == "single_label_classification" and model.config.num_labels > 1
    if not one_of_several or count < 1:
        return None
    dataset: Any = images if mask_column is None else _WithMasks(images, mask_column, processor)
    subset: Any = TorchSubset(dataset, sample(images, count))
    loader: Any = DataLoader(subset, batch_size=batch_size, num_workers=workers)
    settings = EvaluationSettings(insertion_deletion_images=min(insertion_deletion_images, count))
    return evaluate_maps(model, loader, settings, progress=progress)


def save_figure(model: Any, images: ImageDataset, path: Path, count: int = 64, shown: int = 8) -> bool:
    """
    Right and wrong predictions with their maps, of a sample of the images.

    Returns:
        `bool`: whether there is a figure; only for one of several classes an image.
    """
    if images.labels.problem_type != "single_label_classification":
        return False
    items = [images[position] for position in sample(images, count)]
    pixel_values = torch.stack([item["pixel_values"] for item in items])
    labels = torch.stack([item["labels"] for item in items])
    figure_of_predictions(model, pixel_values, labels, path=path, max_images=shown, columns=2)
    return True


def describe_model(model: Any) -> dict[str, Any]:
    """Backbone, size and taps."""
    config = model.config
    own = sum(parameter.numel() for parameter in model.weight_network.parameters())
    return {
        "backbone": config.backbone,
        "image_size": list(config.image_size),
        "num_attention_maps": config.num_attention_maps,
        "taps": [point["module"] for point in config.tap_points],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weight_network_parameters": own,
    }


def describe_data(data: ImageData) -> dict[str, Any]:
    """Name, revision, classes, and how many images of each split."""
    return {
        "name": data.name,
        "revision": data.revision,
        "problem_type": data.problem_type,
        "num_labels": len(data.label_names),
        "images": {role: len(split) for role, split in data.splits.items()},
        "validation_held_out_of_train": data.held_out,
        "skipped_images": len(data.skipped),
        "fingerprints": data.fingerprints,
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


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """As JSON; what is no finite number becomes null. The file is whole or the old one."""
    unfinished = path.with_name(f"{path.name}.tmp")
    text = json.dumps(_plain(results), indent=1, ensure_ascii=False, allow_nan=False, default=str)
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def results_table(results: Mapping[str, Any], report: MapReport | None) -> str:
    """The results as a person reads them on a terminal."""
    data, metrics = results["data"], results["metrics"]
    lines = [f"{data['name']}, {results['evaluated_on']} split, {results['evaluated_images']} images"]
    lines += [f"  {name.replace('_', ' ')}: {_number(value)}" for name, value in metrics.items()]
    if report is not None:
        kept = f"{100 * report.settings['area']:.0f} %"
        lines += [
            "",
            f"The maps on {report.num_images} images, beside maps that explain nothing (percent, where not a share).",
            "",
            f"What brightness can't buy; the first two with the {kept} of the image kept that a map puts first:",
            *_map_table(report, _HONEST),
            "",
            "The paper's measures of image ⊙ map, which reward bright maps:",
            *_map_table(report, _PAPER),
        ]
    return "\n".join(lines)


def _map_table(report: MapReport, columns: _Columns) -> list[str]:
    used = [column for column in columns if any(column[1] in row.scores for row in report.rows)]
    table = [["map", *(heading for heading, _, _ in used)]]
    for row in report.rows:
        cells = [
            _cell(row.scores[metric].value, decimals) if metric in row.scores else "" for _, metric, decimals in used
        ]
        table.append([row.name, *cells])
    return aligned(table)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of a table with its columns in line: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def _cell(value: float, decimals: int) -> str:
    return "none" if math.isnan(value) else f"{value:.{decimals}f}"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
