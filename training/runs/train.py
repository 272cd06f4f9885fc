"""From a command line to a trained model in a folder."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from transformers import default_data_collator, enable_full_determinism, set_seed

from antehoc_hf.commands.errors import UsageError, check_data
from antehoc_hf.commands.output import check_apart
from antehoc_hf.model_cards import PushError
from antehoc_hf.model_cards.collect import default_name
from antehoc_hf.model_cards.errors import explain
from antehoc_hf.model_weights import check_finite, fetch_backbone, load_processor
from antehoc_hf.modeling import AnteHocImageProcessor
from antehoc_hf.modeling.timm_model import TimmPreTrainedModel
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.data import ImageData
from antehoc_hf.training.data.image_data import TransformedData
from antehoc_hf.training.data.targets import TargetSpace
from antehoc_hf.training.objectives import OBJECTIVES, Objective
from antehoc_hf.training.panels import panel_callback
from antehoc_hf.training.progress import calm
from antehoc_hf.training.runs.output import check_folder, push, save_model
from antehoc_hf.training.runs.report import conclude, describe, measure_options
from antehoc_hf.training.runs.results import Results, describe_model
from antehoc_hf.training.runs.settings import RunSettings, parse_settings
from antehoc_hf.training.trainer import AnteHocTrainer

_FEW_STEPS = 100


def train(argv: Sequence[str]) -> Results:
    """A whole run: data, model, training, evaluation, and the folder that holds them.

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
    check_apart(Path(str(args.output_dir)), str(settings.data.dataset_name))
    check_folder(args)
    if args.device.type == "cpu":
        args.dataloader_pin_memory = False  # there is no accelerator to copy to, which PyTorch would warn about
    if settings.model.model_name_or_path is None:
        settings.task.check_model(settings.model, settings.config, settings.map)
    check_data(settings.data.dataset_name)
    if settings.model.pretrained_source() is True:  # before data are drawn or downloaded
        with args.main_process_first(local=False, desc="fetching the weights"):
            fetch_backbone(settings.model.backbone)
    _seed(args)
    finished = None
    if settings.task.has_maps and not args.train_task:
        finished = settings.task.finished_model(settings.model, settings.config, settings.map)
    with args.main_process_first(local=False, desc="loading the data"):
        data = settings.task.load_data(settings.data, finished)
    if "train" not in data.splits:
        raise UsageError(f"{data.name} has no training images ({', '.join(data.splits)} only): name its train_split.")
    settings.task.check_data(data, measure_options(settings))
    follow_size(args, len(data.splits["train"]), settings.run.least_steps)
    model, processor = build_model(settings, data, finished)
    images = data.with_transforms(processor, settings.run.augmentation or settings.task.default_augmentation)
    trainer = build_trainer(settings, model, processor, data, images)
    if args.process_index == 0:
        print(_announcement(settings, model, data), flush=True)
    known = describe(settings, trainer, data, images)
    with trainer.folder_lock():
        outcome = trainer.train(resume_from_checkpoint=_checkpoint(args.resume_from_checkpoint))
        save_model(trainer, processor, *settings.task.companions(data))
        results = conclude(settings, trainer, processor, images, known, outcome.metrics)
        if args.push_to_hub:
            push(trainer)
    return results


def follow_size(args: AnteHocTrainingArguments, images: int, least_steps: int) -> None:
    """Halves the batches, down to eight images, and then adds epochs, until there are at least so many steps."""

    def steps_an_epoch() -> int:
        return math.ceil(images / (args.train_batch_size * args.gradient_accumulation_steps * args.world_size))

    while args.per_device_train_batch_size >= 16 and steps_an_epoch() * args.num_train_epochs < least_steps:
        args.per_device_train_batch_size //= 2
    args.num_train_epochs = max(args.num_train_epochs, math.ceil(least_steps / steps_an_epoch()))


def build_model(
    settings: RunSettings, data: ImageData[TargetSpace], finished: TimmPreTrainedModel | None = None
) -> tuple[TimmPreTrainedModel, AnteHocImageProcessor]:
    """The model for the data, unless it is finished already, and the image processor that fits it."""
    model = finished or settings.task.build_model(settings.model, settings.config, settings.map, data)
    config = model.config
    if settings.model.model_name_or_path is not None:
        return model, load_processor(settings.model.model_name_or_path)
    check_finite(model, settings.model.pretrained_file or config.backbone)
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
    model: TimmPreTrainedModel,
    processor: AnteHocImageProcessor,
    data: ImageData[TargetSpace],
    images: TransformedData,
) -> AnteHocTrainer:
    """The trainer with metrics and panels.

    Raises:
        PushError: if the model is to be pushed and the Hub cannot be reached or refuses: before training, not after.
    """
    args = settings.training
    if images.validation is None:
        if args.load_best_model_at_end:
            raise UsageError("load_best_model_at_end needs validation images: set validation_fraction above 0.")
        args.eval_strategy = type(args.eval_strategy)("no")
    _check_best_metric(args, settings.task.metric_names(data))
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
        trainer = AnteHocTrainer(
            model=model,
            args=args,
            objective=_objective(settings, model),
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
    calm(trainer)
    trainer.companions, trainer.facts = tuple(settings.task.companions(data)), settings.facts
    return trainer


def _objective(settings: RunSettings, model: TimmPreTrainedModel) -> Objective | None:
    """What teaches the map; None for models without one.

    Raises:
        UsageError: if the options say nothing that the data allow.
    """
    if not settings.task.has_maps:
        return None
    choice = settings.map.settled(model.config.map_head.kind)
    return OBJECTIVES[choice.objective](**choice.objective_options)


def _seed(args: AnteHocTrainingArguments) -> None:
    """Before the model is made; the Trainer does so only after."""
    enable_full_determinism(args.seed) if args.full_determinism else set_seed(args.seed)


def _check_best_metric(args: AnteHocTrainingArguments, names: set[str]) -> None:
    """Raises a UsageError if the metric that chooses the best checkpoint is not one of those that an evaluation
    reports.
    """
    if args.metric_for_best_model is None:
        return
    if args.metric_for_best_model.removeprefix("eval_") not in names:
        raise UsageError(
            f"metric_for_best_model={args.metric_for_best_model!r} is not a metric of this run: choose one of "
            f"{', '.join(sorted(names))}."
        )


def _checkpoint(value: str | None) -> str | bool | None:
    """`--resume_from_checkpoint true` or `last`: the last whole checkpoint of `output_dir`."""
    if value is None or value.lower() in ("", "false", "no", "0"):
        return None
    return True if value.lower() in ("true", "last", "yes", "1") else value


def _announcement(settings: RunSettings, model: TimmPreTrainedModel, data: ImageData[TargetSpace]) -> str:
    described = describe_model(model)
    counts = ", ".join(f"{len(split)} {role}" for role, split in data.splits.items())
    height, width = described["image_size"]
    maps = f"{described['num_attention_maps']} attention maps" if settings.task.has_maps else "no maps"
    return (
        f"{described['backbone']} ({described['parameters'] / 1e6:.1f} M parameters, {height}×{width} pixels, "
        f"{maps}) on {data.name} ({counts}; "
        f"{settings.task.summary(data)}) into {settings.training.output_dir}{_hint(settings.training, data)}"
    )


def _hint(args: AnteHocTrainingArguments, data: ImageData[TargetSpace]) -> str:
    """Few images in large batches are few steps, in which nothing is learned; empty where there are enough."""
    batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    steps = math.ceil(math.ceil(len(data.splits["train"]) / batch) * args.num_train_epochs)
    if args.max_steps > 0 or steps >= _FEW_STEPS:
        return ""
    return f"\nThat is {steps} steps: if too little is learned, lower --per_device_train_batch_size (now {batch})."
