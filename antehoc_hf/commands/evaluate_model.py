"""A trained model's accuracy and maps on a data set, as table, JSON and picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from antehoc_hf.commands.errors import UsageError, check_data
from antehoc_hf.commands.output import check_apart, output_folder
from antehoc_hf.evaluation import evaluate_sanity, evaluate_stability
from antehoc_hf.evaluation.networks import is_ante_hoc
from antehoc_hf.evaluation.results import MapReport
from antehoc_hf.explainers import EXPLAINERS, load_explainer, measured_explainers
from antehoc_hf.model_cards.measured import add_measures, check_measurable
from antehoc_hf.model_weights import load_processor, load_weights, model_config
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.data import ImageData, ImageDataset, sample
from antehoc_hf.training.runs.model_types import OURS, model_type_of, refuse_map_options
from antehoc_hf.training.runs.results import (
    FIGURE_FILE,
    RESULTS_FILE,
    describe_data,
    describe_model,
    results_table,
    telling_metrics,
    versions,
    warning,
    write_results,
)
from antehoc_hf.training.runs.settings import chosen_task
from antehoc_hf.training.tasks import task_of
from antehoc_hf.training.tasks.base import AnyTask, MeasureOptions
from antehoc_hf.training.tasks.image_classification import ImageClassification
from antehoc_hf.training.trainer import AnteHocTrainer

if TYPE_CHECKING:
    from antehoc_hf.commands.evaluate import EvaluateArguments, EvaluateOptions


def evaluate_model(given: EvaluateOptions) -> dict[str, Any]:
    """Evaluates on the test split, or else on the validation split, or else on all there is. Returns what
    `results.json` holds.

    Raises:
        ValueError: for options or data that make no sense, in one sentence.
        OSError: if the model cannot be loaded.
    """
    options = given.evaluation
    folder = Path(options.output_dir)
    if (folder / "config.json").exists():
        raise UsageError(f"{folder} holds a model, and its {RESULTS_FILE} would be lost: name another --output_dir.")
    check_apart(folder, str(given.data.dataset_name))
    check_data(given.data.dataset_name)
    with output_folder(folder, (RESULTS_FILE, FIGURE_FILE), options.overwrite):
        return _evaluate(given, folder)


def _evaluate(given: EvaluateOptions, folder: Path) -> dict[str, Any]:
    """Everything is computed and written."""
    options, data_options = given.evaluation, given.data
    config = model_config(options.model)
    if options.update_card:
        check_measurable(Path(options.model), str(data_options.dataset_name))
    model_type = model_type_of(config)
    name = task_of(config).name if model_type == OURS else ImageClassification.name
    task = chosen_task(name, given.parser, given.values, given.values, model_type)
    if not (task.has_maps or options.explainers):
        refuse_map_options(given.values, model_type)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_weights(task.model_class, options.model).to(device).eval()
    processor = load_processor(options.model)
    data = task.load_data(data_options, model)
    _check_robustness(options, task, model)
    measuring = MeasureOptions(
        explainers=_explainers(options.explainers, model, processor),
        target=options.target,
        thorough=options.thorough,
        count=options.map_eval_samples,
        insertion_deletion_images=options.insertion_deletion_images,
        mask_column=options.mask_column,
        batch_size=options.batch_size,
        workers=options.workers,
    )
    task.check_data(data, measuring)
    role, images = _evaluated(data, processor)
    metrics = _metrics(task, model, data, images, options)
    measured = task.measure(model, images, processor, measuring)
    robustness = _robustness(model, images, processor, options)
    results = {
        "model": {"name": options.model, **describe_model(model)},
        "task": task.name,
        "data": describe_data(data, task.describe(data)),
        "evaluated_on": role,
        "evaluated_images": len(images),
        "metrics": {**metrics, **measured.metrics},
        "maps": measured.report,
        **{name: table.to_dict() for name, table in robustness.items()},
        "versions": versions(),
    }
    sentence = warning(results) or measured.warning
    if sentence:
        results["verdict"] = {"sentence": sentence}
    write_results(folder / RESULTS_FILE, results)
    files = [RESULTS_FILE, *task.save_figures(model, images, processor, folder, sentence)]
    print(results_table(results, measured.lines))
    for table in robustness.values():
        print(f"\n{table.to_markdown()}", end="")
    print(f"\nWritten to {folder}: {', '.join(files)}")
    if options.update_card:
        written = add_measures(Path(options.model), results)
        said = "has these numbers now" if written else "was written by a person and stays"
        print(f"The card in {options.model} {said}.")
    return results


def _explainers(names: Sequence[str], model: Any, processor: Any) -> dict[str, Callable[..., Tensor]]:
    try:
        return measured_explainers(names, model, **_normalisation(processor))
    except ImportError as error:
        raise UsageError(str(error)) from error


def _normalisation(processor: Any) -> dict[str, Any]:
    return {"image_mean": processor.image_mean, "image_std": processor.image_std}


def _check_robustness(options: EvaluateArguments, task: AnyTask, model: Any) -> None:
    """Raises a UsageError if stability or sanity is asked for where it is not defined, or of no map."""
    asked = options.noise_shares or options.sanity_images
    regression = getattr(model.config, "problem_type", None) == "regression"
    if asked and (regression or task.name != ImageClassification.name):
        raise UsageError("noise_shares and sanity_images need a classifier: leave them out.")
    if asked and not (options.explainers or is_ante_hoc(model)):
        raise UsageError(f"{options.model} has no map of its own: name --explainers whose maps are measured.")


def _robustness(model: Any, images: ImageDataset, processor: Any, options: EvaluateArguments) -> dict[str, MapReport]:
    """Stability under noise and sanity, where asked for; on one process and a seeded choice of the images."""
    tables: dict[str, MapReport] = {}
    chosen: Any = Subset(images, sample(images, options.map_eval_samples))  # type: ignore[arg-type, var-annotated]
    if options.noise_shares:
        tables["stability"] = evaluate_stability(
            model,
            DataLoader(chosen, batch_size=options.batch_size, num_workers=options.workers),
            image_mean=processor.image_mean,
            image_std=processor.image_std,
            shares=options.noise_shares,
            explainers=_explainers(options.explainers, model, processor),
        )
    if options.sanity_images:
        own = ["antehoc"] if is_ante_hoc(model) else []
        names = dict.fromkeys([*own, *(name for name in options.explainers if name in EXPLAINERS)])
        few = [chosen[position]["pixel_values"] for position in range(min(options.sanity_images, len(chosen)))]
        makers = {name: partial(load_explainer, name, **_normalisation(processor)) for name in names}
        tables["sanity"] = evaluate_sanity(model, torch.stack(few), makers)
    return tables


def _evaluated(data: ImageData[Any], processor: Any) -> tuple[str, ImageDataset]:
    """The test split, or else the validation split, or else all there is, without augmentation."""
    role = next(role for role in ("test", "validation", "train") if role in data.splits)
    encode = data.targets.encoder(processor, None)
    return role, ImageDataset(data.splits[role], data.image_column, data.targets, encode)


def _metrics(
    task: AnyTask, model: Any, data: ImageData[Any], images: ImageDataset, options: EvaluateArguments
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
