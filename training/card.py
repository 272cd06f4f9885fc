"""What a run tells of itself for the model card, which lies beside the model at its end."""

import platform
from typing import Any

import timm
import torch

from antehoc_hf.training.arguments import AnteHocTrainingArguments

_TASK_PASS = (
    *("learning_rate", "weight_decay", "lr_scheduler_type", "warmup_steps", "per_device_train_batch_size"),
    *("gradient_accumulation_steps", "max_grad_norm", "num_train_epochs", "max_steps", "label_smoothing_factor"),
    "partial_image_share",
)
_SECOND_PASS = (
    *("train_task", "interpretation_learning_rate", "interpretation_weight_decay", "interpretation_max_grad_norm"),
    *("interpretation_batch_share", "interpretation_interval", "interpretation_start", "update_order"),
)
_ENERGY_MAPS = (
    *("interpretation_target", "joint_weight", "interpretation_batch_norm", "target_eval"),
    *("reconstruction_weight", "area_weight", "tv_weight", "entropy_weight"),
)
_COALITIONS = ("coalitions_per_image", "coalition_sampling", "coalition_background")
# What is off is not told.
_OFF = {
    "label_smoothing_factor": 0.0,
    "max_steps": -1,
    "gradient_accumulation_steps": 1,
    "partial_image_share": 0.0,
    "train_task": True,
    "interpretation_start": 0.0,
}


def describe_training(
    args: AnteHocTrainingArguments,
    has_maps: bool = True,
    augmentation: str | None = None,
    class_conditional: bool = False,
) -> dict[str, Any]:
    """
    Seed, precision, hardware, and the hyper-parameters of each pass, for `results.json`.

    Args:
        args: the trainer's.
        has_maps: whether there is a second pass.
        augmentation: of the training images.
        class_conditional: whether the second pass compares coalitions of patches, and not energy maps.
    """
    passes = {"task": {"optimizer": _plain(args.optim), **_values(args, _TASK_PASS)}}
    if augmentation is not None:
        passes["task"]["augmentation"] = augmentation
    if has_maps:
        passes["interpretation"] = _values(
            args, (*_SECOND_PASS, *(_COALITIONS if class_conditional else _ENERGY_MAPS))
        )
    return {
        "seed": args.seed,
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        "hardware": hardware(args.device),
        "passes": passes,
    }


def hardware(device: torch.device) -> str:
    """The accelerator's name, or the processor's kind; never the machine's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()})"


def pretrained_name(backbone: str, source: bool | str) -> str | None:
    """The name on the Hub of the pretrained weights that a training started from; None without any, or from a file."""
    cfg = timm.get_pretrained_cfg(backbone, allow_unregistered=True) if source is True else None
    return cfg.hf_hub_id if cfg is not None and cfg.hf_hub_id else None


def _values(args: AnteHocTrainingArguments, names: tuple[str, ...]) -> dict[str, Any]:
    values = {name: getattr(args, name) for name in names}
    return {name: _plain(value) for name, value in values.items() if value != _OFF.get(name)}


def _plain(value: Any) -> Any:
    """An enumeration by its value."""
    return getattr(value, "value", value)
