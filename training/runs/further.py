"""A saved model of ours whose map learns on, while its network stays as it is."""

from collections.abc import Collection, Mapping
from pathlib import Path

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.commands.options import options_of
from antehoc_hf.model_weights import model_config
from antehoc_hf.modeling.configuration_antehoc import map_head_kinds
from antehoc_hf.training.runs.options import ModelArguments, names_of
from antehoc_hf.training.tasks.base import AnyTask

_STILL_OPEN = {"model_name_or_path", "objective", "model_type"}


def saved_map(task: AnyTask, name: str, flags: Collection[str], values: Mapping[str, object]) -> str:
    """The kind of the saved model's map.

    Args:
        task: of the run.
        name (`str`): the model's folder or its name on the Hub.
        flags: options of the command line, which must not be about a new network.
        values: option → value.

    Raises:
        UsageError: if the network is to be trained as well, or an option asks for another one; or if the model is of
            another task, or its map in closed form.
    """
    if values.get("train_task") is not False:
        raise UsageError("model_name_or_path names a model whose map learns on: add --train_task false.")
    if Path(name).resolve() == Path(str(values.get("output_dir"))).resolve():
        raise UsageError(f"{name} would be overwritten: give the model whose map has learned on another --output_dir.")
    of_heads = {declared.name for kind in map_head_kinds().values() for declared in options_of(kind)}
    for option in sorted((names_of(ModelArguments) - _STILL_OPEN | of_heads) & set(flags)):
        raise UsageError(f"--{option} is about a new model, and {name} is made already: leave it out.")
    config, needed = model_config(name), task.model_class.config_class
    if config.model_type != needed.model_type:
        raise UsageError(
            f"{name} is a model of type {config.model_type!r}, and --task {task.name} needs {needed.model_type!r}."
        )
    if getattr(config.map_head, "closed_form", False):
        raise UsageError(f"The map of {name} is in closed form: antehoc attach fits it, nothing teaches it by steps.")
    return str(config.map_head.kind)
