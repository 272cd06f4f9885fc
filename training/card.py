"""What a training knows about its model, for results.json and for the card."""

import dataclasses
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import timm
import torch

from antehoc_hf.model_cards.in_memory import base_model_of
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.objectives.base import Objective
from antehoc_hf.training.options import flags_of
from antehoc_hf.training.runs.results import telling_metrics

if TYPE_CHECKING:
    from antehoc_hf.training.resumable_trainer import ResumableTrainer

_TASK_PASS = (
    *("learning_rate", "weight_decay", "lr_scheduler_type", "warmup_steps", "per_device_train_batch_size"),
    *("gradient_accumulation_steps", "max_grad_norm", "num_train_epochs", "max_steps", "label_smoothing_factor"),
    "partial_image_share",
)
_SECOND_PASS = (
    *("train_task", "interpretation_learning_rate", "interpretation_weight_decay", "interpretation_max_grad_norm"),
    *("interpretation_batch_share", "interpretation_interval", "interpretation_start", "update_order"),
)
# What is off is not mentioned.
_OFF = {
    "label_smoothing_factor": 0.0,
    "max_steps": -1,
    "gradient_accumulation_steps": 1,
    "partial_image_share": 0.0,
    "train_task": True,
    "interpretation_start": 0.0,
}
_HUB_FILE = re.compile(r"hf://datasets/([^@]+)@([0-9a-f]{40})/")


def describe_training(
    args: AnteHocTrainingArguments, objective: Objective | None, augmentation: str | None = None
) -> dict[str, object]:
    """Seed, precision, hardware, the hyperparameters of each pass, and what the objective says of itself.

    Args:
        args: the trainer's.
        objective: the trainer's; None: there is no second pass.
        augmentation: of the training images.
    """
    passes = {"task": {"optimizer": _value(args.optim), **_values(args, _TASK_PASS)}}
    if augmentation is not None:
        passes["task"]["augmentation"] = augmentation
    described: dict[str, object] = {
        "seed": args.seed,
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        "hardware": hardware(args.device),
        "passes": passes,
    }
    if objective is not None:
        flags = flags_of(type(objective.options))
        options = {flags[name]: value for name, value in dataclasses.asdict(objective.options).items()}
        passes["interpretation"] = {**_values(args, _SECOND_PASS), **options}
        described["objective"] = {"name": objective.name, **dataclasses.asdict(objective.describe())}
    return described


def hardware(device: torch.device) -> str:
    """The accelerator's name, or the processor's kind; never the machine's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()})"


def pretrained_name(backbone: str, source: bool | str) -> str | None:
    """The name on the Hub of the pretrained weights that a training started from; None without any, or from a file."""
    cfg = timm.get_pretrained_cfg(backbone, allow_unregistered=True) if source is True else None
    return cfg.hf_hub_id if cfg is not None and cfg.hf_hub_id else None


@dataclass(frozen=True)
class _Evaluation:
    """Metrics without their prefix, of the model after a number of steps, on a split of so many images."""

    step: int
    split: str
    images: int
    metrics: dict[str, float]


class RunRecord:
    """What a training that nobody else describes knows for the card: what a command's results.json holds."""

    def __init__(self) -> None:
        self._evaluations: dict[int, _Evaluation] = {}

    def evaluated(
        self, trainer: "ResumableTrainer", metrics: Mapping[str, float], dataset: object, prefix: str
    ) -> None:
        """To be called after an evaluation."""
        step, best = _step_of_weights(trainer), trainer.state.best_global_step
        images = len(dataset) if hasattr(dataset, "__len__") else 0
        split = "validation" if prefix == "eval" else prefix
        kept = {number: entry for number, entry in self._evaluations.items() if number == best}
        self._evaluations = {**kept, step: _Evaluation(step, split, images, telling_metrics(metrics, prefix))}

    def results(self, trainer: "ResumableTrainer") -> dict[str, object]:
        """As results.json has it; metrics only if they are those of the model as it is."""
        model, state, args = trainer.model, trainer.state, trainer.args
        evaluation = self._evaluations.get(_step_of_weights(trainer))
        described: dict[str, object] = {
            "training": {
                "steps": state.global_step,
                "epochs": state.epoch,
                "base_model": base_model_of(model),
                "processes": args.world_size,
                **describe_training(args, trainer.objective, getattr(trainer.train_dataset, "augmentation", None)),
            },
            "data": describe_provenance(trainer.train_dataset),
        }
        if evaluation is not None:
            described |= {
                "metrics": evaluation.metrics,
                "evaluated_on": evaluation.split,
                "evaluated_images": evaluation.images,
            }
        return described


def describe_provenance(dataset: object) -> dict[str, object]:
    """Name and revision of a data set on the Hub, and how many images are used, as far as the data set knows them.

    Args:
        dataset: a `datasets.Dataset`, one of [`load_image_data`], or any other with `info`.
    """
    info = getattr(dataset, "info", None)
    described: dict[str, object] = {"name": getattr(info, "dataset_name", None), "revision": None}
    for address in getattr(info, "download_checksums", None) or {}:
        match = _HUB_FILE.match(str(address))
        if match:
            described |= {"name": match[1], "revision": match[2]}
            break
    for name in ("name", "revision"):
        described[name] = getattr(dataset, f"source_{name}", None) or described[name]
    if hasattr(dataset, "__len__"):
        described["images"] = {"train": len(dataset)}
    return described


def _step_of_weights(trainer: "ResumableTrainer") -> int:
    """The optimizer step at which the model's weights were what they are now."""
    state, args = trainer.state, trainer.args
    if args.load_best_model_at_end and not trainer.is_in_train and state.best_global_step:
        return state.best_global_step
    return state.global_step


def _values(args: AnteHocTrainingArguments, names: tuple[str, ...]) -> dict[str, object]:
    values = {name: getattr(args, name) for name in names}
    return {name: _value(value) for name, value in values.items() if value != _OFF.get(name)}


def _value(value: object) -> object:
    """That of an enumeration; others as they are."""
    return getattr(value, "value", value)
