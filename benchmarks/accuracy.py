"""
Accuracy and maps on a data set of images, beside the plain network, for several seeds.

For every seed two trainings on the same images: ours, and the plain timm network with the stock Trainer.
Both are then judged on the test split: accuracy; the paper's Drop, Inc and Win beside control maps; insertion −
deletion. Every training checkpoints and resumes: start the same command again after an interruption; finished parts
are not computed twice. Usage, for instance:

    python -m benchmarks.accuracy --dataset_name uoft-cs/cifar10 --backbone resnet10t --image_size 64 \
        --train_images 20000 --epochs 6 --seeds 0 1 --output outputs/cifar10
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import nn
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import EvalPrediction

from antehoc_hf import AnteHocForImageClassification, AnteHocImageProcessor
from antehoc_hf.evaluation import EvaluationSettings, evaluate_maps
from antehoc_hf.paper.plots import plot_rows
from antehoc_hf.paper.tables import Value
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.checkpoints import last_whole_checkpoint
from antehoc_hf.training.data import ImageData, TransformedData, load_image_data
from antehoc_hf.training.data.labels import LabelSpace
from antehoc_hf.training.trainer import AnteHocTrainer
from antehoc_hf.visualization import figure_of_predictions
from benchmarks.finished import finished

# Measures of the table and of the picture, with the picture's headings.
METRICS = {
    "map_mean": "mean of map",
    "drop_cond": "Drop ↓",
    "inc_cond": "Inc ↑",
    "win": "Win ↑",
    "binarised_drop_cond": "Drop, binarised ↓",
    "binarised_inc_cond": "Inc, binarised ↑",
    "binarised_win": "Win, binarised ↑",
    "equal_area_avg_drop": "Avg. Drop, equal area ↓",
    "insertion_minus_deletion": "insertion − deletion ↑",
}


class PlainNetwork(nn.Module):
    """timm's network as the stock Trainer wants it; nothing of ours."""

    def __init__(self, backbone: str, classes: int) -> None:
        super().__init__()
        self.network = timm.create_model(backbone, num_classes=classes)

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.network(pixel_values)
        loss = nn.functional.cross_entropy(logits, labels) if labels is not None else logits.sum() * 0
        return {"loss": loss, "logits": logits}


def accuracy_of(prediction: EvalPrediction) -> dict[str, float]:
    """Share of right classes, percent."""
    return {"accuracy": 100 * float((np.asarray(prediction.predictions).argmax(-1) == prediction.label_ids).mean())}


def arguments(options: argparse.Namespace, seed: int, folder: Path) -> dict[str, Any]:
    """What both trainings share."""
    return {
        "output_dir": str(folder),
        "seed": seed,
        "num_train_epochs": options.epochs,
        "per_device_train_batch_size": options.batch_size,
        "per_device_eval_batch_size": 250,
        "learning_rate": options.learning_rate,
        "weight_decay": options.weight_decay,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "logging_steps": 50,
        "report_to": "none",
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_num_workers": options.workers,
        "remove_unused_columns": False,
    }


def train_ours(options: argparse.Namespace, seed: int, data: ImageData[LabelSpace], folder: Path) -> dict[str, Any]:
    """Trains the ante-hoc model, saves it, and measures its maps."""
    set_seed(seed)
    names = data.targets.names
    model = AnteHocForImageClassification.from_backbone(
        options.backbone, image_size=options.image_size, id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )  # fmt: skip
    processor = processor_of(options)
    splits = data.with_transforms(processor, options.augmentation)
    trainer = AnteHocTrainer(
        model=model, args=AnteHocTrainingArguments(**arguments(options, seed, folder)), train_dataset=splits.train,
        compute_metrics=accuracy_of,
    )  # fmt: skip
    start = time.time()
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder) if folder.exists() else None)
    seconds = time.time() - start
    trainer.save_model(str(folder))
    processor.save_pretrained(folder)
    metrics = trainer.evaluate(splits.test)
    report = evaluate_maps(model, batches(splits, options.map_images), settings(options))
    (folder / "maps.md").write_text(report.to_markdown())
    draw(model, splits, names, folder / "predictions.png")
    return {"accuracy": metrics["eval_accuracy"], "seconds": seconds, "maps": report.to_dict()}


def train_plain(options: argparse.Namespace, seed: int, data: ImageData[LabelSpace], folder: Path) -> dict[str, Any]:
    """Trains the plain network with the stock Trainer on the same images."""
    set_seed(seed)
    model = PlainNetwork(options.backbone, len(data.targets.names))
    splits = data.with_transforms(processor_of(options), options.augmentation)
    trainer = Trainer(
        model=model, args=TrainingArguments(**arguments(options, seed, folder)), train_dataset=splits.train,
        compute_metrics=accuracy_of,
    )  # fmt: skip
    start = time.time()
    trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")) if folder.exists() else None)
    seconds = time.time() - start
    metrics = trainer.evaluate(splits.test)
    trainer.save_model(str(folder))
    return {"accuracy": metrics["eval_accuracy"], "seconds": seconds}


def processor_of(options: argparse.Namespace) -> AnteHocImageProcessor:
    """The whole image, resized: small images have no border to crop away."""
    return AnteHocImageProcessor.from_backbone(options.backbone, image_size=options.image_size, crop_pct=1.0)


def settings(options: argparse.Namespace) -> EvaluationSettings:
    """The paper's: target is the label, threshold 0.8."""
    return EvaluationSettings(insertion_deletion_images=options.insertion_images, seed=0)


def batches(splits: TransformedData, count: int) -> Iterator[dict[str, torch.Tensor]]:
    """The first `count` of a seeded shuffle of the test images."""
    assert splits.test is not None
    order = np.random.default_rng(0).permutation(len(splits.test))[:count].tolist()
    for start in range(0, len(order), 100):
        items = splits.test.__getitems__(order[start : start + 100])
        yield {key: torch.stack([item[key] for item in items]) for key in items[0]}


def draw(model: AnteHocForImageClassification, splits: TransformedData, names: list[str], path: Path) -> None:
    """Right and wrong predictions on test images, with their maps."""
    batch = next(batches(splits, 40))
    figure_of_predictions(model, batch["pixel_values"], batch["labels"], path=path, label_names=names)


def backbones_are_equal(ours: Path, plain: Path) -> bool | None:
    """Whether backbone and head of the two trainings are the same to the last bit; None where a file is missing."""
    from safetensors.torch import load_file

    paths = (ours / "model.safetensors", plain / "model.safetensors")
    if not all(path.exists() for path in paths):
        return None
    first, second = (load_file(path) for path in paths)
    expected = {name.replace("network.", "backbone.", 1): value for name, value in second.items()}
    return all(torch.equal(first[name], value) for name, value in expected.items())


def table(results: dict[str, dict[str, dict[str, Any]]], folder: Path) -> str:
    """Accuracy of both, seed by seed, then mean and spread; the maps' measures as mean and spread over seeds."""
    lines = ["| seed | plain accuracy | ours | backbone and head bit-identical |", "|---|---:|---:|---|"]
    for seed, parts in results.items():
        plain = f"{parts['plain']['accuracy']:.2f}" if "plain" in parts else "–"
        equal = backbones_are_equal(folder / f"seed-{seed}" / "ours", folder / f"seed-{seed}" / "plain")
        lines.append(f"| {seed} | {plain} | {parts['ours']['accuracy']:.2f} | {equal} |")
    reports = [parts["ours"]["maps"] for parts in results.values()]
    lines += ["", f"Mean ± standard deviation over {len(reports)} seeds, {reports[0]['num_images']} test images each:"]
    lines += ["", "| map | " + " | ".join(METRICS) + " |", "|---|" + "---:|" * len(METRICS)]
    for name, row in rows_of_maps(reports).items():
        lines.append(f"| {name} | " + " | ".join(shown(row[metric]) for metric in METRICS) + " |")
    return "\n".join(lines) + "\n"


def rows_of_maps(reports: list[dict[str, Any]]) -> dict[str, dict[str, Value]]:
    """Map → measure → mean and standard deviation over the seeds' reports."""
    rows: dict[str, dict[str, Value]] = {}
    for of_seeds in zip(*(report["rows"] for report in reports), strict=True):
        scores = {metric: [row["scores"].get(metric, {}).get("value") for row in of_seeds] for metric in METRICS}
        rows[of_seeds[0]["name"]] = {metric: spread(values) for metric, values in scores.items()}
    return rows


def spread(values: list[float | None]) -> Value:
    """Mean and standard deviation of those that are known."""
    known = [value for value in values if value is not None]
    if not known:
        return Value(None)
    return Value(statistics.mean(known), statistics.stdev(known) if len(known) > 1 else None)


def shown(value: Value) -> str:
    """`mean ± standard deviation`."""
    if value.mean is None:
        return "–"
    return f"{value.mean:.2f}" + (f" ± {value.deviation:.2f}" if value.deviation is not None else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name", required=True)
    parser.add_argument("--backbone", default="resnet10t")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--train_images", type=int)
    parser.add_argument("--epochs", type=float, default=6)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--weight_decay", type=float, default=0.05)
    parser.add_argument("--augmentation", default="crop-flip")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--map_images", type=int, default=2000)
    parser.add_argument("--insertion_images", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--parts", nargs="+", choices=("ours", "plain"), default=["ours", "plain"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = load_image_data(
        options.dataset_name, max_train_samples=options.train_images, validation_fraction=0.0, seed=0
    )
    for seed in options.seeds:
        for part in options.parts:
            folder = options.output / f"seed-{seed}" / part
            train = train_ours if part == "ours" else train_plain
            finished(folder.with_suffix(".json"), chosen(options), partial(train, options, seed, data, folder))
    summarise(options)


def chosen(options: argparse.Namespace) -> dict[str, Any]:
    """What a result depends on, beside its seed."""
    aside = ("output", "dataset_name", "seeds", "parts", "threads")
    return {name: value for name, value in vars(options).items() if name not in aside}


def summarise(options: argparse.Namespace) -> None:
    """Writes the table over all seeds that are finished."""
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for path in sorted(options.output.glob("seed-*/*.json")):
        results.setdefault(path.parent.name.removeprefix("seed-"), {})[path.stem] = json.loads(path.read_text())
    results = {seed: parts for seed, parts in results.items() if "ours" in parts}
    if not results:
        return
    name = os.path.basename(os.path.normpath(options.dataset_name))
    heading = f"{name}, {chosen(options)}, {platform.machine()}, torch {torch.__version__}"
    text = f"{heading}\n\n{table(results, options.output)}"
    (options.output / "summary.md").write_text(text)
    maps = rows_of_maps([parts["ours"]["maps"] for parts in results.values()])
    title = f"{name}: the map beside maps that explain nothing, {len(results)} seeds"
    plot_rows(maps, METRICS, title, "bar: standard deviation over seeds; grey: explains nothing").savefig(
        options.output / "summary.png", bbox_inches="tight"
    )
    print(text)


if __name__ == "__main__":
    main()
