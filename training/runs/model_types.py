"""Which kind of model is trained, `--model_type`: ours, or a baseline that has no maps and no second pass."""

import dataclasses
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from transformers import TrainingArguments

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.runs.options import ConfigArguments, ModelArguments, read_json

OURS = "antehoc"
# What a baseline takes of the model's flags, and of the run's those that a model with maps alone can follow.
_SHARED = {"image_mean", "image_std"}
_ABOUT_MAPS = {
    *("panel_images", "panel_steps", "map_eval_samples", "insertion_deletion_images", "mask_column"),
    "plain_backbone",
}
# Flags of their own, or read off the data set.
_NOT_IN_JSON = {
    "backbone",
    "pretrained",
    "backbone_kwargs",
    "image_size",
    *_SHARED,
    "num_labels",
    "id2label",
    "label2id",
}


def baseline_class(model_type: str) -> Any:
    """The model of `antehoc_hf.baselines` by its name on the command line."""
    return import_module("antehoc_hf.baselines").BASELINES[model_type]


def model_type_of(config: Any) -> str:
    """The `--model_type` that a configuration belongs to; ours unless it is a baseline's."""
    baselines = import_module("antehoc_hf.baselines").BASELINES
    types = {model_class.config_class.model_type: name for name, model_class in baselines.items()}
    return types.get(getattr(config, "model_type", None), OURS)


@cache
def map_options() -> frozenset[str]:
    """Options about maps and the second pass, which mean nothing to a baseline."""
    stock = {f.name for f in dataclasses.fields(TrainingArguments)}
    own = {f.name for f in dataclasses.fields(AnteHocTrainingArguments)} - stock - {"overwrite_run"}
    of_config = {f.name for f in dataclasses.fields(ConfigArguments)} - _SHARED
    return frozenset({"taps", "interpretation_objective", *own, *of_config, *_ABOUT_MAPS})


def refuse_map_options(flags: Mapping[str, Any], model_type: str) -> None:
    """
    Of the command line alone: those of a recipe are passed over, so that one recipe serves ours and the baselines.

    Raises:
        UsageError: if one of [`map_options`] is among the flags.
    """
    for name in flags:
        if name in map_options():
            raise UsageError(
                f"{name} is about maps or the second pass, which a model of type {model_type} does not have: leave it "
                "out."
            )


def check_baseline_options(model: ModelArguments) -> None:
    """
    Raises:
        UsageError: if there are options for a baseline and no baseline, or one that is a flag of its own.
    """
    options = read_json(model.baseline_options, "baseline_options") or {}
    if options and model.model_type == OURS:
        raise UsageError("baseline_options are for a baseline: name it, --model_type senn or cbah, or leave them out.")
    for name in options:
        if name in _NOT_IN_JSON:
            raise UsageError(
                f"baseline_options must not hold {name!r}, which is a flag of its own or read off the data."
            )
