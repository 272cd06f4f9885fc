"""`antehoc evaluate`: a trained model's accuracy and maps on a data set, as table, JSON and picture."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import AutoImageProcessor, AutoModelForImageClassification, EvalPrediction

from antehoc_hf.training.data import ImageDataset, load_image_data
from antehoc_hf.training.metrics import metrics_of
from antehoc_hf.training.recipe import OptionParser
from antehoc_hf.training.results import (
    FIGURE_FILE,
    RESULTS_FILE,
    check_mask_column,
    describe_data,
    describe_model,
    measure_maps,
    results_table,
    save_figure,
    versions,
    write_results,
)
from antehoc_hf.training.run_arguments import DataArguments, UsageError


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
    parser = OptionParser((EvaluateArguments, DataArguments), prog="antehoc evaluate")
    options, data_options = parser.parse_options(arguments)
    if data_options.dataset_name is None:
        raise UsageError("There is no data set: pass --dataset_name NAME (on the Hub, a folder, or 'shapes').")
    model = AutoModelForImageClassification.from_pretrained(options.model)
    if not hasattr(model, "energy_map"):
        raise UsageError(f"{options.model} is a {type(model).__name__}, which has no interpretation maps.")
    processor = AutoImageProcessor.from_pretrained(options.model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).eval()
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    load_options = data_options.load_options()
    if model.config.problem_type != "regression":
        load_options["label_names"] = names
    data = load_image_data(str(data_options.dataset_name), **load_options)
    check_mask_column(data, options.mask_column)
    splits = data.with_transforms(processor, "none")
    role = "test" if splits.test is not None else "validation" if splits.validation is not None else "train"
    images = getattr(splits, role)
    report = measure_maps(
        model,
        images,
        processor,
        count=options.map_eval_samples,
        insertion_deletion_images=options.insertion_deletion_images,
        mask_column=options.mask_column,
        batch_size=options.batch_size,
        workers=options.workers,
    )
    results = {
        "model": {"name": options.model, **describe_model(model)},
        "data": describe_data(data),
        "evaluated_on": role,
        "evaluated_images": len(images),
        "metrics": _metrics(model, images, options),
        "maps": None if report is None else report.to_dict(),
        "versions": versions(),
    }
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_results(folder / RESULTS_FILE, results)
    drawn = save_figure(model, images, folder / FIGURE_FILE)
    print(results_table(results, report))
    print(f"\nWritten to {folder}: {RESULTS_FILE}{f' and {FIGURE_FILE}' if drawn else ''}")
    return results


@torch.inference_mode()
def _metrics(model: Any, images: ImageDataset, options: EvaluateArguments) -> dict[str, float]:
    """The task's metrics on every image, and the mean of the maps."""
    logits, labels, means = [], [], []
    loader: Any = DataLoader(images, batch_size=options.batch_size, num_workers=options.workers)
    for batch in tqdm(loader, desc="Evaluating predictions", unit="batch"):
        outputs = model(batch["pixel_values"].to(model.device))
        logits.append(outputs.logits.float().cpu())
        means.append(outputs.interpretation_map.mean(dim=(1, 2, 3)).cpu())
        labels.append(batch["labels"])
    prediction = EvalPrediction(predictions=torch.cat(logits).numpy(), label_ids=torch.cat(labels).numpy())
    return {**metrics_of(images.labels.problem_type)(prediction), "map_mean": float(torch.cat(means).mean())}
