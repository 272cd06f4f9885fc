"""
Facial landmarks and their maps: models of the nose, of the eyes, of the mouth and of all three, beside plain networks.

For every split, group of points and seed two trainings on the same images: ours, and the plain timm network with the
stock Trainer. Both are judged on test images by the normalised mean error; our maps by whether they lie on the part
that the model looks for, beside maps that explain nothing. The paper's Figure 4 is drawn from the first seed.

Splits: `official`, as the data set has it; and `disjoint`, in which nobody is in two splits: with a column of persons
(`--subject_column`), all images are pooled and a fifth of the persons, drawn with seed 0, are kept for testing.

Every training checkpoints and resumes: start the same command again after an interruption; finished parts are not
computed twice. What follows the options below goes to `antehoc train`. For instance:

    python -m benchmarks.landmarks --dataset_name ../shared/data/faces-68 --seeds 0 1 2 --output outputs/landmarks
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import Trainer, TrainingArguments, set_seed

from antehoc_hf import AnteHocForLandmarkDetection
from antehoc_hf.evaluation.landmarks import landmark_metrics
from antehoc_hf.modeling.landmark_detection import landmark_loss
from antehoc_hf.training.checkpoints import last_whole_checkpoint
from antehoc_hf.training.data import ImageData, load_data
from antehoc_hf.training.data.sources import load_source
from antehoc_hf.training.runs.report import measure_options
from antehoc_hf.training.runs.settings import RunSettings, parse_settings
from antehoc_hf.training.runs.train import build_model
from antehoc_hf.training.trainer import AnteHocTrainer
from antehoc_hf.visualization.landmarks import figure_of_parts
from benchmarks.finished import finished

FIGURE_GROUPS = ("nose", "eyes", "mouth")
CONTROLS = ("random", "center", "sobel")


class PlainNetwork(nn.Module):
    """timm's network as the stock Trainer wants it, without any map."""

    def __init__(self, network: nn.Module, loss: str) -> None:
        super().__init__()
        self.network = network
        self.loss = loss

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor, normalizer: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        landmarks = self.network(pixel_values).unflatten(1, (-1, 2))
        return {"loss": landmark_loss(landmarks, labels, self.loss), "landmarks": landmarks}


def load_splits(name: str, split: str, subject_column: str) -> datasets.DatasetDict:
    """The data set as it is, or without anybody in two splits."""
    source = datasets.DatasetDict(load_source(name).splits)
    if split == "official":
        return source
    pooled = datasets.concatenate_datasets(list(source.values()))
    subjects = np.asarray(pooled[subject_column][:])
    order = np.random.default_rng(0).permutation(np.unique(subjects))
    kept = np.isin(subjects, order[: len(order) // 5])
    return datasets.DatasetDict(train=pooled.select(np.flatnonzero(~kept)), test=pooled.select(np.flatnonzero(kept)))


def load(dataset: datasets.DatasetDict, settings: RunSettings) -> ImageData[Any]:
    """All training images are trained on: nothing is chosen here."""
    return load_data(
        dataset, settings.task.read_targets(), **{**settings.data.load_options(), "validation_fraction": 0.0}
    )


def settings_of(options: argparse.Namespace, group: str, seed: int, folder: Path) -> RunSettings:
    """The recipe, with what the benchmark decides."""
    return parse_settings(
        [
            *("--recipe", options.recipe, "--dataset_name", options.dataset_name, "--landmark_group", group),
            *("--seed", str(seed), "--output_dir", str(folder), "--eval_strategy", "no", "--save_total_limit", "1"),
            *("--report_to", "none", "--disable_tqdm", "true", *options.further),
        ]
    )


def train(settings: RunSettings, dataset: datasets.DatasetDict, plain: bool) -> dict[str, Any]:
    """One training, ours or the plain network's from the same start, and what it comes to on the test images."""
    args, folder = settings.training, Path(str(settings.training.output_dir))
    data = load(dataset, settings)
    set_seed(args.seed)
    model: Any
    checkpoint: Any
    model, processor = build_model(settings, data)
    images = data.with_transforms(processor, settings.run.augmentation or settings.task.default_augmentation)
    parts = {"train_dataset": images.train, **settings.task.trainer_parts(data)}
    if plain:
        network = PlainNetwork(copy.deepcopy(model.backbone), model.config.landmark_loss)
        own = {field.name: getattr(args, field.name) for field in fields(TrainingArguments) if field.init}
        trainer = Trainer(network, TrainingArguments(**{**own, "ddp_find_unused_parameters": None}), **parts)
        checkpoint = any(folder.glob("checkpoint-*"))
    else:
        trainer = AnteHocTrainer(model=model, args=args, **parts)
        checkpoint = last_whole_checkpoint(folder) if folder.exists() else None
    start = time.time()
    trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.time() - start
    metrics = trainer.evaluate(images.test, metric_key_prefix="test")  # type: ignore[arg-type]
    trainer.save_model(str(folder))
    result: dict[str, Any] = {"metrics": {key: value for key, value in metrics.items() if "_8" in key or "nme" in key}}
    result |= {"seconds": seconds, "train_images": len(images.train or []), "test_images": len(images.test or [])}
    if not plain:
        processor.save_pretrained(folder)
        assert images.test is not None
        result["maps"] = settings.task.measure(model, images.test, processor, measure_options(settings)).report
        result["mean_points"] = mean_points_error(data, processor, images.test)
    return result


def mean_points_error(data: ImageData[Any], processor: Any, test_images: Any) -> dict[str, float]:
    """What finding the mean points of the training images in every image comes to."""
    mean = data.targets.mean_points(data.train, processor).float()
    items = [test_images[position] for position in range(len(test_images))]
    truth = torch.stack([item["labels"] for item in items])
    normalizer = torch.stack([item["normalizer"] for item in items])
    return landmark_metrics(mean.expand_as(truth), truth, normalizer)


def draw_figure(options: argparse.Namespace, split: str, data: ImageData[Any], images: int = 2) -> None:
    """The paper's Figure 4 from the first seed, once the models of all three parts are there."""
    folders = {part: options.output / split / part / f"seed-{options.seeds[0]}" / "ours" for part in FIGURE_GROUPS}
    if not all((folder / "model.safetensors").exists() for folder in folders.values()):
        return
    models = {part: AnteHocForLandmarkDetection.from_pretrained(folder) for part, folder in folders.items()}
    settings = settings_of(options, "nose", options.seeds[0], options.output)
    _, processor = build_model(settings, data)
    test = data.with_transforms(processor, "none").test
    assert test is not None
    positions = np.random.default_rng(options.figure_seed).permutation(len(test))[:images].tolist()
    pixel_values = torch.stack([test[position]["pixel_values"] for position in positions])
    figure_of_parts(models, pixel_values, path=options.output / f"figure-4-{split}.png")


def summary(options: argparse.Namespace) -> str:
    """Errors of both networks, then the maps, for each split."""
    lines = []
    for split in options.splits:
        results = {group: _finished(options.output / split / group) for group in options.groups}
        results = {group: found for group, found in results.items() if found["ours"]}
        if results:
            counts = next(iter(results.values()))["ours"][0]
            lines += [f"## {split}: {counts['train_images']} training and {counts['test_images']} test images", ""]
            lines += [*_error_table(results, options.output / split), "", *_map_table(results), ""]
    return "\n".join(lines)


def _finished(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        part: [json.loads(path.read_text()) for path in sorted(folder.glob(f"seed-*/{part}.json"))]
        for part in ("ours", "plain")
    }


def _error_table(results: dict[str, dict[str, list[dict[str, Any]]]], folder: Path) -> list[str]:
    names = ("nme_interocular", "nme_box", "auc_8", "failure_rate_8")
    lines = ["| model of | network | " + " | ".join(names) + " | seconds | same to the bit |"]
    lines.append("|---|---|" + "---:|" * (len(names) + 1) + "---|")
    for group, parts in results.items():
        for part, runs in parts.items():
            if runs:
                cells = [spread([run["metrics"].get(f"test_{name}") for run in runs]) for name in names]
                cells.append(spread([run["seconds"] for run in runs], 0))
                same = _identical(folder / group) if part == "ours" else ""
                lines.append(f"| {group} | {part} | " + " | ".join(cells) + f" | {same} |")
        mean = parts["ours"][0]["mean_points"]
        cells = [spread([mean.get(name)]) for name in names]
        lines.append(f"| {group} | mean points | " + " | ".join(cells) + " | | |")
    return lines


def _map_table(results: dict[str, dict[str, list[dict[str, Any]]]]) -> list[str]:
    """Energy inside each part over the part's area (1 is chance), pointing game in percent; controls below."""
    first = next(iter(results.values()))["ours"][0]["maps"]
    parts = list(first["part_areas"])
    columns = [*(f"{part}_energy_share_over_area" for part in parts), *(f"{part}_pointing_game" for part in parts)]
    columns += ["equal_area_nme", "nme", "map_mean"]
    areas = ", ".join(f"{part} {100 * area['value']:.1f} %" for part, area in first["part_areas"].items())
    lines = [f"Share of the image that a part covers: {areas}.", ""]
    lines += ["| map | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for group, found in results.items():
        lines.append(_map_row(f"model of {group}", "antehoc", found["ours"], columns))
    last = list(results)[-1]
    lines += [_map_row(f"{name}, model of {last}", name, results[last]["ours"], columns) for name in CONTROLS]
    return lines


def _map_row(title: str, name: str, runs: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    rows = [next(row for row in run["maps"]["rows"] if row["name"] == name) for run in runs]
    cells = [spread([row["scores"][column]["value"] for row in rows]) for column in columns]
    return f"| {title} | " + " | ".join(cells) + " |"


def _identical(folder: Path) -> str:
    """Whether backbone and head of both trainings are the same to the last bit, for all seeds that have both."""
    equal = []
    for ours in sorted(folder.glob("seed-*/ours/model.safetensors")):
        plain = ours.parent.with_name("plain") / ours.name
        if plain.exists():
            first = load_file(ours)
            second = {name.replace("network.", "backbone.", 1): value for name, value in load_file(plain).items()}
            equal.append(all(torch.equal(first[name], value) for name, value in second.items()))
    return f"{sum(equal)} of {len(equal)}" if equal else ""


def spread(values: Sequence[float | None], decimals: int = 2) -> str:
    """`mean ± standard deviation`."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    deviation = f" ± {statistics.stdev(known):.{decimals}f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.{decimals}f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name", required=True)
    parser.add_argument("--recipe", default="landmarks")
    parser.add_argument("--splits", nargs="+", choices=("official", "disjoint"), default=["official", "disjoint"])
    parser.add_argument("--subject_column", default="subject")
    parser.add_argument("--groups", nargs="+", default=["nose", "eyes", "mouth", "parts"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--parts", nargs="+", choices=("ours", "plain"), default=["ours", "plain"])
    parser.add_argument("--figure_seed", type=int, default=0, help="which test images Figure 4 shows")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    options, further = parser.parse_known_args()
    options.further = further
    torch.set_num_threads(options.threads)
    for split in options.splits:
        dataset = load_splits(options.dataset_name, split, options.subject_column)
        for group in options.groups:
            for seed in options.seeds:
                for part in options.parts:
                    path = options.output / split / group / f"seed-{seed}" / f"{part}.json"
                    settings = settings_of(options, group, seed, path.with_suffix(""))
                    compute = partial(train, settings, dataset, plain=part == "plain")
                    finished(path, {"recipe": options.recipe, "flags": options.further}, compute)
        settings = settings_of(options, options.groups[0], options.seeds[0], options.output)
        draw_figure(options, split, load(dataset, settings))
    text = f"{vars(options)}, torch {torch.__version__}\n\n{summary(options)}"
    (options.output / "summary.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
