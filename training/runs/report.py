"""What is known of a run before it trains, what came of it, and how both are written down."""

from pathlib import Path
from typing import Any

from transformers import set_seed

from antehoc_hf.evaluation import familiarity
from antehoc_hf.model_cards import write_card
from antehoc_hf.model_cards.card import weights_digest
from antehoc_hf.modeling import AnteHocImageProcessor
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.card import describe_training, pretrained_name
from antehoc_hf.training.data import ImageData, ImageDataset
from antehoc_hf.training.data.image_data import TransformedData
from antehoc_hf.training.data.targets import TargetSpace
from antehoc_hf.training.resumable_trainer import ResumableTrainer
from antehoc_hf.training.runs.identity import content_digest
from antehoc_hf.training.runs.plain_backbone import read_plain
from antehoc_hf.training.runs.results import (
    RESULTS_FILE,
    Results,
    describe_data,
    describe_model,
    results_table,
    telling_metrics,
    versions,
    warning,
    write_results,
)
from antehoc_hf.training.runs.settings import RunSettings
from antehoc_hf.training.tasks.base import MeasuredMaps, MeasureOptions


def describe(
    settings: RunSettings, trainer: ResumableTrainer, data: ImageData[TargetSpace], images: TransformedData
) -> Results:
    """The part of the results that is known before training; with `--plain_backbone` also what that run reached.

    Raises:
        UsageError: if the run of the plain network is not like this one.
    """
    role, chosen = _evaluated(images)
    augmentation = settings.run.augmentation or settings.task.default_augmentation
    parts = {"train": images.train, role: chosen}
    known: dict[str, Any] = {
        "model": describe_model(trainer.model),
        "task": settings.task.name,
        "data": {
            **describe_data(data, settings.task.describe(data)),
            "content": {name: content_digest(part) for name, part in parts.items() if part is not None},
        },
        "training": describe_training(trainer.args, trainer.objective, augmentation)
        | {"processes": trainer.args.world_size},
        "evaluated_on": role if chosen is not None else None,
        "evaluated_images": len(chosen) if chosen is not None else 0,
        "settings": {name: value for name, value in settings.given.items() if name != "hub_token"},
    }
    if settings.run.plain_backbone is not None and settings.task.has_maps:
        known["plain_backbone"] = read_plain(settings.run.plain_backbone, known)
    return known


def conclude(
    settings: RunSettings,
    trainer: ResumableTrainer,
    processor: AnteHocImageProcessor,
    images: TransformedData,
    known: Results,
    train_metrics: dict[str, float],
) -> Results:
    """Evaluates on the test images, or else on the validation images; writes and prints what came of it."""
    role, chosen = _evaluated(images)
    metrics = {} if chosen is None else trainer.evaluate(chosen, metric_key_prefix=role)  # type: ignore[arg-type]
    results: dict[str, Any] = {
        **known,
        "training": {**_training_summary(trainer, train_metrics), **known["training"]},
        "metrics": telling_metrics(metrics, role),
        "maps": None,
        "versions": versions(),
    }
    if trainer.is_world_process_zero():
        _measure_and_write(settings, trainer.args, processor, images, results)
    trainer.accelerator.wait_for_everyone()
    return results


def _measure_and_write(
    settings: RunSettings,
    args: AnteHocTrainingArguments,
    processor: AnteHocImageProcessor,
    images: TransformedData,
    results: dict[str, Any],
) -> None:
    """On one process, with the model as it is in the folder: what is measured is what others will load."""
    set_seed(args.seed)  # what is drawn from here on does not depend on whether the run was resumed
    folder, measured, files = Path(str(args.output_dir)), MeasuredMaps(), [RESULTS_FILE, "README.md"]
    _, chosen = _evaluated(images)
    (folder / familiarity.FILE).unlink(missing_ok=True)  # an earlier model's
    results["training"] |= {
        "base_model": pretrained_name(results["model"]["backbone"], settings.model.pretrained_source()),
        "weights_sha256": weights_digest(folder),
    }
    if chosen is not None:
        model = settings.task.model_class.from_pretrained(folder).to(args.device).eval()
        measured = settings.task.measure(model, chosen, processor, measure_options(settings))
        results["maps"] = measured.report
        results["metrics"] |= measured.metrics
        sentence = warning(results) or measured.warning
        files += settings.task.save_figures(model, chosen, processor, folder, sentence)
        if sentence:
            results["verdict"] = {"sentence": sentence}  # for the card
        if settings.task.has_maps and images.train is not None and images.validation is not None:
            familiarity.Familiarity.of(model, images.train, images.validation).save(folder)
    write_results(folder / RESULTS_FILE, results)
    write_card(folder, settings.facts, repo_id=args.hub_model_id if args.push_to_hub else None)
    if chosen is not None:
        print(f"\n{results_table(results, measured.lines)}")
    print(f"\nThe model is in {folder}, with {', '.join(files)}.", flush=True)


def measure_options(settings: RunSettings) -> MeasureOptions:
    """How the finished model's maps are measured."""
    run, args = settings.run, settings.training
    return MeasureOptions(
        count=run.map_eval_samples,
        insertion_deletion_images=run.insertion_deletion_images,
        mask_column=run.mask_column,
        batch_size=args.per_device_eval_batch_size,
        workers=args.dataloader_num_workers,
        progress=not args.disable_tqdm,
    )


def _training_summary(trainer: ResumableTrainer, metrics: dict[str, float]) -> Results:
    """Length, time, and the last losses that were logged."""
    logged = [entry for entry in trainer.state.log_history if {"loss", "interpretation_loss"} & entry.keys()]
    last = logged[-1] if logged else {}
    names = ["map_mean", "degenerate_share", "images_per_second"]
    names = [*(name for name in last if name == "loss" or name.endswith("_loss")), *names]
    return {
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "seconds": metrics.get("train_runtime"),
        "device": str(trainer.args.device),
        "last_logged": {name: last[name] for name in names if name in last},
    }


def _evaluated(images: TransformedData) -> tuple[str, ImageDataset | None]:
    """The test images, or else the validation images, if there are any."""
    return ("test", images.test) if images.test is not None else ("validation", images.validation)
