"""From the command line and a YAML recipe to the settings of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import SGD
from transformers import SchedulerType, Trainer, get_scheduler
from transformers.integrations import get_available_reporting_integrations
from transformers.training_args import OptimizerNames

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.commands.options import OptionParser, as_words
from antehoc_hf.model_cards import Facts
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.runs.further import saved_map
from antehoc_hf.training.runs.maps import MapChoice, choose_map, map_arguments
from antehoc_hf.training.runs.model_types import OURS, check_model_options, map_options, refuse_map_options
from antehoc_hf.training.runs.options import (
    NO_DATA_SET,
    CardArguments,
    DataArguments,
    ModelArguments,
    RunArguments,
    names_of,
)
from antehoc_hf.training.runs.parser import train_parser
from antehoc_hf.training.runs.recipes import default_options, read_layers
from antehoc_hf.training.tasks import TASKS, task_named
from antehoc_hf.training.tasks.base import AnyTask
from antehoc_hf.training.tasks.baseline_classification import baseline_task


@dataclass(frozen=True)
class RunSettings:
    """Everything that a run was asked for.

    Attributes:
        task: what is learned, with the task's own options.
        model, data, run: their groups of options.
        config: options of the model's configuration, without those of its map.
        map: the kind of map, what teaches it, and the options of both.
        training: the trainer's arguments.
        given: option → value as in the recipe and on the command line, without defaults; for the record.
        facts: what a person says about the model, for the card.
    """

    task: AnyTask
    model: ModelArguments
    config: dict[str, object]
    map: MapChoice
    data: DataArguments
    run: RunArguments
    training: AnteHocTrainingArguments
    given: dict[str, object]
    facts: Facts


def parse_settings(argv: Sequence[str]) -> RunSettings:
    """Reads the command line and the recipe.

    The package's own defaults (`recipes/defaults.yaml`) come first, then `--recipe`, then `--config`, then the flags.

    Raises:
        UsageError: for an unknown option or recipe key, or a value of the wrong type.
        ValueError: for values that make no sense together.
    """
    parser = train_parser(*map_arguments(), AnteHocTrainingArguments)
    flags = parser.read(argv)
    layers = (default_options(), read_layers(flags.get("recipe"), flags.get("config"), parser.options))
    # As the command line has them: the same parser checks them all.
    defaults, chosen = (parser.read([word for item in layer.items() for word in as_words(*item)]) for layer in layers)
    given = {**chosen, **flags}
    values = {**defaults, **given}
    data, model = parser.build(DataArguments, values), parser.build(ModelArguments, values)
    run = parser.build(RunArguments, values)
    if data.dataset_name is None:
        raise UsageError(NO_DATA_SET)
    task = chosen_task(run.task, parser, values, given, model.model_type)
    check_model_options(model, task.model_class.config_class)
    map_choice = MapChoice()
    if task.has_maps:
        saved, default, about_map = model.model_name_or_path, task.default_map, given
        if saved is not None:  # what the recipe says of a new map does not count
            default = saved_map(task, saved, flags, values)
            about_map = {name: value for name, value in given.items() if name in flags}
        map_choice = choose_map(about_map, flags, default)
    else:
        if model.model_name_or_path is not None:
            raise UsageError(f"--model_name_or_path is for maps that learn on, and {model.model_type} has none.")
        refuse_map_options(flags, model.model_type)
        given = {name: value for name, value in given.items() if name not in map_options()}
    if flags.keys() & {"num_train_epochs", "max_steps", "per_device_train_batch_size"}:
        run.least_steps = 0
    training = _training_arguments(parser, values)
    task.check_training(training)
    for name, value in task.trainer_arguments().items():
        setattr(training, name, value)
    facts = Facts(**parser.build(CardArguments, values).facts())
    return RunSettings(task, model, model.config_options(), map_choice, data, run, training, given, facts)


def chosen_task(
    name: str, parser: OptionParser, values: Mapping[str, object], given: Mapping[str, object], model_type: str = OURS
) -> AnyTask:
    """The task of that name with its options.

    Args:
        name (`str`): a key of `TASKS`.
        parser: of the command.
        values: option → value.
        given: the options the user gave, without defaults.
        model_type (`str`): ours, or a baseline.

    Raises:
        UsageError: if there is no such task, or an option that only another one has was given, or if the baseline
            has no such task.
    """
    task = task_named(name)
    own = names_of(task.arguments)
    for other, of_other in TASKS.items():
        for option in names_of(of_other.arguments) - own:
            if option in given:
                raise UsageError(f"{option} is an option of --task {other}, and this run's task is {name}.")
    options = parser.build(task.arguments, values)
    return task(options) if model_type == OURS else baseline_task(task, options, model_type)


def _training_arguments(parser: OptionParser, values: Mapping[str, object]) -> AnteHocTrainingArguments:
    """The trainer's arguments.

    Raises:
        UsageError: if one is out of range, or does not go with another or with this machine; or if a service that is
            to be reported to is unknown or its package is not installed.
    """
    try:
        training = parser.build(AnteHocTrainingArguments, values)
    except (ValueError, ImportError, RuntimeError) as error:
        raise UsageError(" ".join(str(error).split())) from error
    except OSError as error:
        raise UsageError(f"accelerator_config={error.filename!r} cannot be read: {error.strerror}.") from None
    if values.get("output_dir") == "":
        raise UsageError("output_dir is empty: name a folder, or leave the option out.")
    _check_schedule(training)
    try:
        Trainer.get_optimizer_cls_and_kwargs(training, nn.Linear(1, 1))  # type: ignore[arg-type]
    except (ImportError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"optim={OptimizerNames(training.optim).value!r} cannot be had here: {' '.join(str(error).split())}"
        ) from error
    available = get_available_reporting_integrations()
    for name in training.report_to or ():
        if name not in available:
            raise UsageError(
                f"report_to={name!r} is unknown, or its package is not installed: choose one of "
                f"{', '.join(['none', *available])}, or install it."
            )
    return training


def _check_schedule(training: AnteHocTrainingArguments) -> None:
    """Raises a UsageError if the schedule does not take its options, or lacks one."""
    options = training.lr_scheduler_kwargs or {}
    if not isinstance(options, dict):
        raise UsageError(f'lr_scheduler_kwargs must be a JSON object such as {{"num_cycles": 2}}, not {options}.')
    name = SchedulerType(training.lr_scheduler_type).value
    optimizer = SGD([torch.zeros(1)], lr=1.0)
    try:
        get_scheduler(name, optimizer, num_warmup_steps=0, num_training_steps=1, scheduler_specific_kwargs=options)
    except (TypeError, ValueError) as error:
        reason = str(error).rpartition("() ")[2].rstrip(".")
        raise UsageError(
            f"lr_scheduler_type {name} does not go with lr_scheduler_kwargs={options}: {reason}."
        ) from None
