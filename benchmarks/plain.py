"""What the explanation costs in quality: a model with a map, and the same network without one, for several seeds.

For every seed two trainings on the same images: ours, by `antehoc train`, and timm's network (with the captioner's
LSTM) by the stock Trainer, from the same start. Both are judged on the test images, their weights compared bit by bit,
and our maps set against maps that explain nothing. Finished trainings are not repeated and interrupted ones go on,
with the same command. All flags but the three of this script are those of `antehoc train`, whatever the task:

    python -m benchmarks.plain --seeds 0 1 --output outputs/cifar10 --recipe cpu --dataset_name uoft-cs/cifar10

`--subject_column COLUMN` pools the splits and keeps a fifth of the persons, drawn with seed 0, for testing.
"""

import json
import platform
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments, set_seed

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.modeling.landmark_detection import landmark_loss
from antehoc_hf.paper.cells import CellStore
from antehoc_hf.training.checkpoints import last_whole_checkpoint
from antehoc_hf.training.data.sources import load_source
from antehoc_hf.training.runs.report import measure_options
from antehoc_hf.training.runs.results import RESULTS_FILE, telling_metrics
from antehoc_hf.training.runs.settings import RunSettings, parse_settings
from antehoc_hf.training.runs.train import build_model, build_trainer, train
from benchmarks.faithfulness.summary import score_table
from benchmarks.output import parser


class PlainNetwork(nn.Module):
    """What predicts, as the stock Trainer wants it; no map and no second pass."""

    def __init__(self, backbone: nn.Module, decoder: Any, point_loss: str) -> None:
        super().__init__()
        self.backbone, self.decoder, self.point_loss = backbone, decoder, point_loss

    def forward(
        self, pixel_values: Tensor, labels: Tensor, decoder_input_ids: Tensor | None = None, **_: Any
    ) -> dict[str, Tensor]:
        outputs = self.backbone(pixel_values)
        if decoder_input_ids is not None:
            words, _ = self.decoder(decoder_input_ids, self.decoder.start(outputs))
            return {"loss": nn.functional.cross_entropy(words.flatten(0, 1), labels.flatten())}
        if labels.is_floating_point():
            return {"loss": landmark_loss(outputs.unflatten(1, (-1, 2)), labels, self.point_loss)}
        return {"loss": nn.functional.cross_entropy(outputs, labels)}


def train_ours(flags: list[str], folder: Path) -> dict[str, Any]:
    """By the command; what it wrote is the result."""
    resume = ["--resume_from_checkpoint", "last"] if last_whole_checkpoint(folder) is not None else []
    train([*flags, "--output_dir", str(folder), *resume])
    results = json.loads((folder / RESULTS_FILE).read_text())
    return {name: results[name] for name in ("metrics", "maps", "evaluated_on", "evaluated_images")}


def train_plain(flags: list[str], folder: Path) -> dict[str, Any]:
    """The same start and the same batches, by the stock Trainer."""
    settings = parse_settings([*flags, "--output_dir", str(folder), "--map_eval_samples", "0"])
    settings.training.dataloader_pin_memory = torch.cuda.is_available()
    set_seed(settings.training.seed)
    data = settings.task.load_data(settings.data)
    model, processor = build_model(settings, data)
    images = data.with_transforms(processor, settings.run.augmentation or settings.task.default_augmentation)
    network = PlainNetwork(model.backbone, getattr(model, "decoder", None), getattr(model.config, "landmark_loss", ""))
    parts = {name: part for name, part in settings.task.trainer_parts(data).items() if name == "data_collator"}
    splits = {"train_dataset": images.train, "eval_dataset": images.validation}
    trainer = Trainer(network, stock_arguments(settings), **splits, **parts)
    trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))
    trainer.save_model(str(folder))
    # The network predicts through the model that it was taken from, whose map is not looked at.
    test = images.test or images.validation
    assert test is not None
    judge = build_trainer(settings, model, processor, data, images)
    metrics = telling_metrics(judge.evaluate(test, metric_key_prefix="test"), "test")  # type: ignore[arg-type]
    further = settings.task.measure(model, test, processor, measure_options(settings)).metrics
    return {"metrics": {**metrics, **further}}


def stock_arguments(settings: RunSettings) -> TrainingArguments:
    """The stock Trainer's part of the arguments. It evaluates as often as ours: every evaluation takes a random
    number, and what dropout then drops depends on it.
    """
    given = {f.name: getattr(settings.training, f.name) for f in fields(TrainingArguments) if f.init}
    own = {
        "ddp_find_unused_parameters": None,
        "prediction_loss_only": True,
        "remove_unused_columns": False,
        "load_best_model_at_end": False,
        "push_to_hub": False,
    }
    return TrainingArguments(**{**given, **own})


def without_shared_subjects(name: str, column: str, folder: Path) -> str:
    """A copy of the data set in which nobody is in two splits."""
    if not folder.exists():
        pooled = datasets.concatenate_datasets(list(load_source(name).splits.values()))
        subjects = np.asarray(pooled[column][:])
        order = np.random.default_rng(0).permutation(np.unique(subjects))
        tested = np.isin(subjects, order[: len(order) // 5])
        splits = {"train": pooled.select(np.flatnonzero(~tested)), "test": pooled.select(np.flatnonzero(tested))}
        datasets.DatasetDict(splits).save_to_disk(folder)
    return str(folder)


def same_weights(folder: Path) -> str:
    """Whether what predicts is the same to the last bit in both trainings; empty where one is missing."""
    paths = [folder / part / "model.safetensors" for part in ("ours", "plain")]
    if not all(path.exists() for path in paths):
        return ""
    ours, plain = map(load_file, paths)
    return "yes" if all(torch.equal(ours[name], value) for name, value in plain.items()) else "no"


def summarise(output: Path, flags: Sequence[str]) -> str:
    """The metrics of both, seed by seed; then our maps as mean ± standard deviation over the seeds."""
    found = {
        folder: {path.stem: json.loads(path.read_text())["value"] for path in folder.glob("*.json")}
        for folder in sorted(output.glob("seed-*"))
    }
    ours = [parts["ours"] for parts in found.values() if "ours" in parts]
    names = [name for name in ours[0]["metrics"] if name not in ("loss", "map_mean", "degenerate_share")]
    lines = ["| seed | network | " + " | ".join(names) + " | same weights |"]
    lines.append("|---|---|" + "---:|" * len(names) + "---|")
    for folder, parts in found.items():
        for part, result in sorted(parts.items(), reverse=True):
            cells = [f"{result['metrics'].get(name, float('nan')):.4g}" for name in names]
            lines.append(f"| {folder.name[5:]} | {part} | " + " | ".join(cells) + f" | {same_weights(folder)} |")
    reports = [result["maps"] for result in ours if result["maps"]]
    if reports:
        measures = reports[0]["columns"]
        lines += ["", f"Maps on {reports[0]['num_images']} test images, {len(reports)} seeds:", ""]
        lines += score_table(
            [
                {row["name"]: {name: row["scores"][name] for name in measures} for row in report["rows"]}
                for report in reports
            ]
        )
    return "\n".join([f"{' '.join(flags)}; {platform.machine()}, torch {torch.__version__}", "", *lines]) + "\n"


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    command.add_argument("--subject_column")
    command.add_argument("--output", type=Path, required=True)
    options, flags = command.parse_known_args()
    flags += ["--report_to", "none"]
    if options.subject_column is not None:
        place = flags.index("--dataset_name") + 1
        flags[place] = without_shared_subjects(flags[place], options.subject_column, options.output / "data")
    cells = CellStore(options.output, "plain")
    for seed in options.seeds:
        for part, run in (("ours", train_ours), ("plain", train_plain)):
            folder = options.output / f"seed-{seed}" / part
            compute = partial(run, [*flags, "--seed", str(seed)], folder)
            try:
                cells.get(f"seed-{seed}/{part}", {"flags": flags}, compute)
            except UsageError as error:
                command.error(str(error))
    text = summarise(options.output, flags)
    (options.output / "summary.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
