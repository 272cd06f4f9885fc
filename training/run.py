"""
From a command line to a trained model in a folder: `accelerate launch training/run.py …`, `python training/run.py …`
and `antehoc train …` are one and the same.
"""

import math
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Run as a script, Python looks for modules here first; `data` or `images` are names of others, too.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

from transformers import default_data_collator, enable_full_determinism, set_seed

from antehoc_hf.model_cards import FolderError, PushError, default_name, explain, weights_digest, write_card
from antehoc_hf.modeling import AnteHocImageProcessor
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.card import describe_training, pretrained_name
from antehoc_hf.training.checkpoints import PARTIAL_FOLDER, explained_full_disk
from antehoc_hf.training.data import ImageData, ImageDataset, TransformedData
from antehoc_hf.training.panels import panel_callback
from antehoc_hf.training.plain_backbone import read_plain
from antehoc_hf.training.recipe import RunSettings, parse_settings
from antehoc_hf.training.results import (
    RESULTS_FILE,
    describe_data,
    describe_model,
    results_table,
    telling_metrics,
    versions,
    write_results,
)
from antehoc_hf.training.resumable_trainer import ResumableTrainer
from antehoc_hf.training.run_arguments import UsageError
from antehoc_hf.training.run_identity import content_digest
from antehoc_hf.training.tasks import Measured, MeasureOptions

_FEW_STEPS = 100


def train(argv: Sequence[str]) -> dict[str, Any]:
    """
    A whole run: data, model, training, evaluation, and the folder that holds them.

    `output_dir` then holds model, image processor and configuration (loadable by the Auto classes), `checkpoint-N/`,
    `panels/`, `results.json`, `predictions.png` and the model card, `README.md`.

    Args:
        argv: flags, see `antehoc train --help`.

    Returns:
        `dict`: what `results.json` holds.

    Raises:
        ValueError: for options or data that make no sense, in one sentence.
        OSError: if something cannot be read or written; `PushError` if the Hub did not take the model, which is
            saved by then.
    """
    settings = parse_settings(argv)
    args = settings.training
    if args.device.type == "cpu":
        args.dataloader_pin_memory = False  # there is no accelerator to copy to, which PyTorch would warn about
    settings.task.check_model(settings.model, settings.config)
    _seed(args)
    with args.main_process_first(local=False, desc="loading the data"):
        data = settings.task.load_data(settings.data)
    if "train" not in data.splits:
        raise UsageError(f"{data.name} has no training images ({', '.join(data.splits)} only): name its train_split.")
    settings.task.check_data(data, measure_options(settings))
    model, processor = build_model(settings, data)
    images = data.with_transforms(processor, settings.run.augmentation or settings.task.default_augmentation)
    trainer = build_trainer(settings, model, processor, data, images)
    if args.process_index == 0:
        print(_announcement(settings, model, data), flush=True)
    known = describe(settings, trainer, data, images)
    outcome = trainer.train(resume_from_checkpoint=_checkpoint(args.resume_from_checkpoint))
    save_model(trainer, processor, *settings.task.companions(data))
    results = conclude(settings, trainer, processor, images, known, outcome.metrics)
    if args.push_to_hub:
        push(trainer)
    return results


def build_model(settings: RunSettings, data: ImageData[Any]) -> tuple[Any, AnteHocImageProcessor]:
    """The model for the data, and the image processor that fits it."""
    model = settings.task.build_model(settings.model, settings.config, data)
    config = model.config
    options = {} if settings.model.crop_pct is None else {"crop_pct": settings.model.crop_pct}
    processor = AnteHocImageProcessor.from_backbone(
        config.backbone,
        image_size=config.image_size,
        image_mean=config.image_mean,
        image_std=config.image_std,
        **options,
    )
    return model, processor


def build_trainer(
    settings: RunSettings,
    model: Any,
    processor: AnteHocImageProcessor,
    data: ImageData[Any],
    images: TransformedData,
) -> ResumableTrainer:
    """
    The trainer with metrics and panels.

    Raises:
        PushError: if the model is to be pushed and the Hub cannot be reached or refuses: before training, not after.
    """
    args = settings.training
    if images.validation is None:
        if args.load_best_model_at_end:
            raise UsageError("load_best_model_at_end needs validation images: set validation_fraction above 0.")
        args.eval_strategy = type(args.eval_strategy)("no")
    parts = settings.task.trainer_parts(data)
    panels = panel_callback(
        images.validation or images.test,
        settings.run.panel_images if settings.task.has_maps else 0,
        settings.run.panel_steps,
        settings.task.panel,
        parts.get("data_collator", default_data_collator),
    )
    if args.push_to_hub:
        args.hub_model_id = args.hub_model_id or default_name(model.config.backbone, data.name)
    try:
        trainer = settings.task.trainer_class()(
            model=model,
            args=args,
            train_dataset=images.train,
            eval_dataset=images.validation,
            processing_class=processor,
            callbacks=[panels] if panels is not None else None,
            **parts,
        )
    except PushError as error:
        raise PushError(
            f"The Hub will not take the model ({explain(error)}); or leave out --push_to_hub and run `antehoc push "
            f"{shlex.quote(str(args.output_dir))}` later."
        ) from error
    trainer.companions, trainer.facts = tuple(settings.task.companions(data)), settings.facts
    return trainer


def save_model(trainer: ResumableTrainer, processor: AnteHocImageProcessor, *companions: Any) -> None:
    """
    Model, configuration, code, image processor and what the task adds (a tokenizer) into `output_dir`; written aside
    and moved, so that a model that was there stays whole until the new one is.

    Raises:
        OSError: if the disk is full.
    """
    args = trainer.args
    folder = Path(str(args.output_dir))
    staged = folder / PARTIAL_FOLDER / "model"
    with explained_full_disk(staged, folder):
        trainer.save_model(str(staged), _internal_call=True)
        if args.should_save:
            for part in (processor, *companions):
                part.save_pretrained(staged)
            for path in sorted(staged.iterdir()):
                os.replace(path, folder / path.name)
            shutil.rmtree(staged.parent)
            trainer.save_state()
    trainer.accelerator.wait_for_everyone()


def describe(
    settings: RunSettings, trainer: ResumableTrainer, data: ImageData[Any], images: TransformedData
) -> dict[str, Any]:
    """
    The part of the results that is known before training; with `--plain_backbone` also what that run reached.

    Raises:
        UsageError: if the run of the plain network is not like this one.
    """
    role, chosen = _evaluated(images)
    augmentation = settings.run.augmentation or settings.task.default_augmentation
    of_each_class = getattr(trainer.model, "class_conditional", False)
    parts = {"train": images.train, role: chosen}
    known: dict[str, Any] = {
        "model": describe_model(trainer.model),
        "task": settings.task.name,
        "data": {
            **describe_data(data, settings.task.describe(data)),
            "content": {name: content_digest(part) for name, part in parts.items() if part is not None},
        },
        "training": describe_training(trainer.args, settings.task.has_maps, augmentation, of_each_class)
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
    known: dict[str, Any],
    train_metrics: dict[str, float],
) -> dict[str, Any]:
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
        _measure_and_write(settings, trainer.args, processor, chosen, results)
    trainer.accelerator.wait_for_everyone()
    return results


def _measure_and_write(
    settings: RunSettings,
    args: AnteHocTrainingArguments,
    processor: AnteHocImageProcessor,
    chosen: ImageDataset | None,
    results: dict[str, Any],
) -> None:
    """On one process, with the model as it is in the folder: what is measured is what others will load."""
    folder, measured, files = Path(str(args.output_dir)), Measured(), [RESULTS_FILE, "README.md"]
    results["training"] |= {
        "base_model": pretrained_name(results["model"]["backbone"], settings.model.pretrained_source()),
        "weights_sha256": weights_digest(folder),
    }
    if chosen is not None:
        model = settings.task.model_class.from_pretrained(folder).to(args.device).eval()
        measured = settings.task.measure(model, chosen, processor, measure_options(settings))
        results["maps"] = measured.report
        results["metrics"] |= measured.metrics
        files += settings.task.save_figures(model, chosen, folder)
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


def push(trainer: ResumableTrainer) -> None:
    """
    Pushes the model in `output_dir` to the Hub: what travels of it, and neither checkpoints nor logs.

    Raises:
        PushError: if the Hub did not take it; the folder is complete, and the sentence says what to run again.
    """
    if not trainer.is_world_process_zero():
        return
    args = trainer.args
    try:
        pushed = trainer.push_output()
    except (PushError, FolderError, KeyboardInterrupt) as error:
        again = ["antehoc", "push", str(args.output_dir), "--repo_id", str(trainer.hub_model_id)]
        again += ["--revision", args.hub_revision] if args.hub_revision else []
        raise PushError(
            f"The model is complete in {args.output_dir}, but pushing it failed ({explain(error)}): run "
            f"`{shlex.join(again)}` to try again."
        ) from error
    print(pushed.told(), flush=True)


def _seed(args: AnteHocTrainingArguments) -> None:
    """Before the model is made; the Trainer does so only after."""
    enable_full_determinism(args.seed) if args.full_determinism else set_seed(args.seed)


def _checkpoint(value: str | None) -> str | bool | None:
    """`--resume_from_checkpoint true` or `last`: the last whole checkpoint of `output_dir`."""
    if value is None or value.lower() in ("", "false", "no", "0"):
        return None
    return True if value.lower() in ("true", "last", "yes", "1") else value


def _training_summary(trainer: ResumableTrainer, metrics: dict[str, float]) -> dict[str, Any]:
    """Length, time, and the last losses that were logged."""
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
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


def _announcement(settings: RunSettings, model: Any, data: ImageData[Any]) -> str:
    described = describe_model(model)
    counts = ", ".join(f"{len(split)} {role}" for role, split in data.splits.items())
    height, width = described["image_size"]
    maps = f"{described['num_attention_maps']} attention maps" if settings.task.has_maps else "no maps"
    return (
        f"{described['backbone']} ({described['parameters'] / 1e6:.1f} M parameters, {height}×{width} pixels, "
        f"{maps}) on {data.name} ({counts}; "
        f"{settings.task.summary(data)}) into {settings.training.output_dir}{_hint(settings.training, data)}"
    )


def _hint(args: AnteHocTrainingArguments, data: ImageData[Any]) -> str:
    """Few images in large batches are few steps, in which nothing is learned; empty where there are enough."""
    batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    steps = math.ceil(math.ceil(len(data.splits["train"]) / batch) * args.num_train_epochs)
    if args.max_steps > 0 or steps >= _FEW_STEPS:
        return ""
    return f"\nThat is {steps} steps: if too little is learned, lower --per_device_train_batch_size (now {batch})."


if __name__ == "__main__":
    from antehoc_hf.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
