"""`antehoc evaluate`: a trained model's accuracy and maps on a data set, as table, JSON and picture."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import AutoConfig, AutoImageProcessor

from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.data import ImageData, ImageDataset
from antehoc_hf.training.recipe import OptionParser, chosen_task, task_arguments
from antehoc_hf.training.results import (
    RESULTS_FILE,
    describe_data,
    describe_model,
    results_table,
    telling_metrics,
    versions,
    write_results,
)
from antehoc_hf.training.run_arguments import DataArguments, UsageError
from antehoc_hf.training.tasks import MeasureOptions, Task, task_of
from antehoc_hf.training.trainer import AnteHocTrainer


@dataclass
class EvaluateArguments:
    """What is evaluated, and how."""

    _argument_group_name: ClassVar[str] = "evaluation"

    model: str = field(metadata={"help": "Folder or Hub name of a trained model."})
    output_dir: str = field(default="evaluation", metadata={"help": "Where results.json and predictions.png go."})
    batch_size: int = field(default=32, metadata={"help": "Images a pass."})
    workers: int = field(default=0, metadata={"help": "Processes that load data."})
    map_eval_samples: int = field(default=1000, metadata={"help": "Images on which the maps are measured."})
    insertion_deletion_images: int = field(
        default=0, metadata={"help": "Of these, how many for insertion and deletion, which are slow."}
    )
    mask_column: str | None = field(
        default=None, metadata={"help": "A column with masks of the true evidence, to measure localisation by."}
    )


def evaluate(argv: Sequence[str]) -> dict[str, Any]:
    """
    Evaluates on the test split, or else on the validation split, or else on all there is.

    Args:
        argv: flags, see `antehoc evaluate --help`. A first word without dashes is the model.

    Returns:
        `dict`: what `results.json` holds.

    Raises:
        ValueError: for options or data that make no sense, in one sentence.
        OSError: if the model cannot be loaded.
    """
    arguments = list(argv)
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--model", *arguments]
    parser = OptionParser((EvaluateArguments, DataArguments, *task_arguments()), prog="antehoc evaluate")
    options, data_options, *of_tasks = parser.parse_options(arguments)
    if data_options.dataset_name is None:
        raise UsageError("There is no data set: pass --dataset_name NAME (on the Hub, a folder, or 'shapes').")
    task_class = task_of(AutoConfig.from_pretrained(options.model))
    task = chosen_task(task_class.name, of_tasks, parser.given_in(arguments))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = task.model_class.from_pretrained(options.model).to(device).eval()
    processor = AutoImageProcessor.from_pretrained(options.model)
    data = task.load_data(data_options, model)
    measuring = MeasureOptions(
        count=options.map_eval_samples,
        insertion_deletion_images=options.insertion_deletion_images,
        mask_column=options.mask_column,
        batch_size=options.batch_size,
        workers=options.workers,
    )
    task.check_data(data, measuring)
    role, images = _evaluated(data, processor)
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    metrics = _metrics(task, model, data, images, options)
    measured = task.measure(model, images, processor, measuring)
    results = {
        "model": {"name": options.model, **describe_model(model)},
        "task": task.name,
        "data": describe_data(data, task.describe(data)),
        "evaluated_on": role,
        "evaluated_images": len(images),
        "metrics": {**metrics, **measured.metrics},
        "maps": measured.report,
        "versions": versions(),
    }
    write_results(folder / RESULTS_FILE, results)
    files = [RESULTS_FILE, *task.save_figures(model, images, folder)]
    print(results_table(results, measured.lines))
    print(f"\nWritten to {folder}: {', '.join(files)}")
    return results


def _evaluated(data: ImageData[Any], processor: Any) -> tuple[str, ImageDataset]:
    """The test split, or else the validation split, or else all there is, without augmentation."""
    role = next(role for role in ("test", "validation", "train") if role in data.splits)
    encode = data.targets.encoder(processor, None)
    return role, ImageDataset(data.splits[role], data.image_column, data.targets, encode)


def _metrics(
    task: Task[Any], model: Any, data: ImageData[Any], images: ImageDataset, options: EvaluateArguments
) -> dict[str, float]:
    """The task's metrics on every image, and the mean of the maps, by the trainer's own evaluation."""
    args = AnteHocTrainingArguments(
        output_dir=options.output_dir,
        per_device_eval_batch_size=options.batch_size,
        dataloader_num_workers=options.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        **task.trainer_arguments(),
    )
    trainer = AnteHocTrainer(model=model, args=args, **task.trainer_parts(data))
    return telling_metrics(trainer.evaluate(images, metric_key_prefix="eval"), "eval")  # type: ignore[arg-type]
