"""Which kind of model is trained, `--model_type`: ours, or a baseline that has no maps and no second pass."""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib import import_module

from transformers import PreTrainedConfig, TrainingArguments

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.modeling.timm_model import TimmPreTrainedModel
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.runs.maps import map_option_names
from antehoc_hf.training.runs.options import TASK_ARGUMENTS, ModelArguments, names_of

OURS = "antehoc"
# Options of the run and the model that only a model with maps can follow.
_ABOUT_MAPS = {
    *("panel_images", "panel_steps", "map_eval_samples", "insertion_deletion_images", "mask_column"),
    *("plain_backbone", "taps", "num_attention_maps"),
}
# Found by looking at the data or at the backbone.
_FOUND = {
    *("num_labels", "id2label", "label2id", "num_landmarks", "landmark_names", "landmark_flip", "landmark_parts"),
    *("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "tap_points", "tap_channels", "class_token_taps"),
    "fixed_image_size",
}


def baseline_class(model_type: str) -> type[TimmPreTrainedModel]:
    """The model of `antehoc_hf.baselines` by its name on the command line."""
    return import_module("antehoc_hf.baselines").BASELINES[model_type]


def model_type_of(config: PreTrainedConfig) -> str:
    """The `--model_type` that a configuration belongs to; ours unless it is a baseline's."""
    baselines = import_module("antehoc_hf.baselines").BASELINES
    types = {model_class.config_class.model_type: name for name, model_class in baselines.items()}
    return types.get(getattr(config, "model_type", None), OURS)


@cache
def map_options() -> frozenset[str]:
    """Options about maps and the second pass, which mean nothing to a baseline."""
    own = names_of(AnteHocTrainingArguments) - names_of(TrainingArguments) - {"overwrite_run"}
    return frozenset({*own, *map_option_names(), *_ABOUT_MAPS})


def refuse_map_options(flags: Mapping[str, object], model_type: str) -> None:
    """Of the command line alone: those of a recipe are passed over, so that one recipe serves ours and the baselines.

    Raises:
        UsageError: if one of [`map_options`] is among the flags.
    """
    for name in flags:
        if name in map_options():
            raise UsageError(
                f"{name} is about maps or the second pass, which a model of type {model_type} does not have: leave it "
                "out."
            )


def check_model_options(model: ModelArguments, config_class: type[PreTrainedConfig]) -> None:
    """Raises a UsageError if one of `--model_options` is unknown, or an option of its own."""
    elsewhere = {*names_of(ModelArguments, *TASK_ARGUMENTS), *_FOUND}
    own = names_of(config_class) - names_of(PreTrainedConfig) - elsewhere - map_option_names()
    for name in model.model_options or {}:
        if name in elsewhere:
            raise UsageError(
                f"model_options must not hold {name!r}, which is an option of its own or read off the data."
            )
        if model.model_type != OURS:
            continue  # its configuration checks the names
        if name in map_option_names():
            raise UsageError(f"model_options must not hold {name!r}, an option of the map: give it with --map_head.")
        if name not in own:
            near = get_close_matches(name, own, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(own))}."
            raise UsageError(f"model_options has no {name!r}: {hint}")
