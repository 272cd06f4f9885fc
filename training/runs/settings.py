"""From the command line and a YAML recipe to the settings of a run."""

import argparse
import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NoReturn

from transformers import HfArgumentParser

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.model_cards import Facts
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.runs.model_types import OURS, check_baseline_options, map_options, refuse_map_options
from antehoc_hf.training.runs.objective_choice import chosen_objective
from antehoc_hf.training.runs.options import (
    CardArguments,
    ConfigArguments,
    DataArguments,
    ModelArguments,
    RunArguments,
)
from antehoc_hf.training.runs.recipes import DEFAULTS, read_recipe, recipe_names
from antehoc_hf.training.tasks import TASKS, Task, baseline_task, task_named

_DESCRIPTION = """
Trains a model that predicts and shows what it looked at, and writes model, image processor, panels and results.json
into --output_dir. Options come from these flags or from a YAML recipe (--recipe NAME or a path); flags go first.
"""


@dataclass(frozen=True)
class RunSettings:
    """All that a run was told.

    Attributes:
        task: what is learned, with the task's own options.
        model, data, run: their groups of options.
        config: options of AnteHocConfig.
        training: the trainer's arguments.
        given: option → value as in the recipe and the flags, without what is default; for the record.
        facts: what a person told for the card.
    """

    task: Task[Any]
    model: ModelArguments
    config: dict[str, Any]
    data: DataArguments
    run: RunArguments
    training: AnteHocTrainingArguments
    given: dict[str, Any]
    facts: Facts


def parse_settings(argv: Sequence[str]) -> RunSettings:
    """
    Reads flags and recipe.

    The package's own defaults (`recipes/defaults.yaml`) come first, then the recipe, then the flags.

    Raises:
        UsageError: for an unknown option or recipe key, or a value of the wrong type.
        ValueError: for values that make no sense together.
    """
    parser = OptionParser(
        (
            *(ModelArguments, ConfigArguments, DataArguments, RunArguments, CardArguments, AnteHocTrainingArguments),
            *task_arguments(),
        ),
        prog="antehoc train",
        description=_DESCRIPTION,
        epilog=f"Recipes: {', '.join(recipe_names())}.",
    )
    recipe = parser.recipe_of(argv)
    chosen = _known(read_recipe(recipe), recipe, parser.names) if recipe is not None else {}
    defaults = {"report_to": "tensorboard" if _tensorboard_is_there() else "none", **read_recipe(DEFAULTS)}
    parser.show_defaults(defaults)
    # As flags before the user's own: the same parser checks them all, and the last one counts.
    as_flags = [flag for layer in (defaults, chosen) for key, value in layer.items() for flag in _flag(key, value)]
    model, config, data, run, card, training, *of_tasks = parser.parse_options([*as_flags, *argv])
    if data.dataset_name is None:
        raise UsageError(
            "There is no data set: pass --dataset_name NAME, where NAME is a data set on the Hub, a folder, or "
            "'shapes', which needs no download."
        )
    flags = parser.given_in(argv)
    given = {**chosen, **flags}
    task = chosen_task(run.task, of_tasks, given, model.model_type)
    check_baseline_options(model)
    model.interpretation_objective = chosen_objective(model.interpretation_objective, given)
    task.check_objective(model.interpretation_objective)
    if not task.has_maps:
        refuse_map_options(flags, model.model_type)
        given = {name: value for name, value in given.items() if name not in map_options()}
    task.check_training(training)
    for name, value in task.trainer_arguments().items():
        setattr(training, name, value)
    facts = Facts(**card.facts())
    return RunSettings(task, model, {**vars(config), **model.config_options()}, data, run, training, given, facts)


def task_arguments() -> tuple[Any, ...]:
    """The flags that only one task has, a dataclass for each task."""
    return tuple(task.arguments for task in TASKS.values())


def chosen_task(name: str, options: Sequence[Any], given: Mapping[str, Any], model_type: str = OURS) -> Task[Any]:
    """
    The task of that name with its options.

    Args:
        name (`str`): a key of `TASKS`.
        options: an instance of each of [`task_arguments`], in their order.
        given: the options the user gave.
        model_type (`str`): ours, or a baseline.

    Raises:
        UsageError: if there is no such task, or an option that only another one has was given, or if the baseline
            has no such task.
    """
    task = task_named(name)
    of_each = dict(zip(TASKS, options, strict=True))
    own = {f.name for f in dataclasses.fields(task.arguments)}
    for other, instance in of_each.items():
        for option in (f.name for f in dataclasses.fields(instance)):
            if option in given and option not in own:
                raise UsageError(f"{option} is an option of --task {other}, and this run's task is {name}.")
    return task(of_each[name]) if model_type == OURS else baseline_task(task, of_each[name], model_type)


class OptionParser(HfArgumentParser):
    """Dataclasses as flags; errors are raised in one sentence, not printed below the usage of 150 flags."""

    def __init__(self, dataclass_types: tuple[Any, ...], **kwargs: Any) -> None:
        super().__init__(dataclass_types, allow_abbrev=False, **kwargs)

    def parse_options(self, argv: Sequence[str]) -> list[Any]:
        """
        One instance of each dataclass.

        Raises:
            UsageError: for an unknown option or a value of the wrong type.
        """
        *parts, unknown = self.parse_args_into_dataclasses(
            list(argv), return_remaining_strings=True, look_for_args_file=False
        )
        if unknown:
            raise UsageError(_unknown_flag(unknown[0], self.names, str(self.prog)))
        return parts

    def error(self, message: str) -> NoReturn:
        option, _, rest = message.removeprefix("argument ").partition(": ")
        if message.startswith("argument ") and rest:
            raise UsageError(f"{option.split('/')[0]}: {rest}.")
        raise UsageError(f"{message[:1].upper()}{message[1:]}.")

    @property
    def names(self) -> list[str]:
        """Every option, as in a recipe."""
        return [action.dest for action in self._actions if action.dest != "help"]

    def recipe_of(self, argv: Sequence[str]) -> str | None:
        """The recipe that the flags name, before anything else is read."""
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        first.add_argument("--recipe")
        try:
            return first.parse_known_args(argv)[0].recipe
        except argparse.ArgumentError:
            raise UsageError(f"--recipe needs a name ({', '.join(recipe_names())}) or the path of a file.") from None

    def show_defaults(self, defaults: Mapping[str, Any]) -> None:
        """Lets `--help` tell what holds where nothing is given."""
        for action in self._actions:
            action.default = defaults.get(action.dest, action.default)

    def given_in(self, argv: Sequence[str]) -> dict[str, Any]:
        """Options of the command line alone, without defaults."""
        for action in self._actions:
            action.default = argparse.SUPPRESS
        return vars(self.parse_known_args(list(argv))[0])


def _known(values: dict[str, Any], recipe: str, names: Sequence[str]) -> dict[str, Any]:
    for key in values:
        if key not in names or key == "recipe":
            raise UsageError(f"Recipe {recipe!r} has a key {key!r}, which is no option: {_near(key, names)}")
    return values


def _flag(key: str, value: Any) -> list[str]:
    """A value of a recipe as the command line has it."""
    if value is None or value == []:
        return []
    if isinstance(value, bool):
        return [f"--{key}={str(value).lower()}"]
    if isinstance(value, Mapping):
        return [f"--{key}={json.dumps(value)}"]
    if isinstance(value, list):
        return [f"--{key}", *(str(item) for item in value)]
    return [f"--{key}={value}"]


def _unknown_flag(flag: str, names: Sequence[str], program: str) -> str:
    if not flag.startswith("-"):
        return f"{flag!r} belongs to no option: options are written --name value."
    name = flag.lstrip("-").split("=")[0].replace("-", "_")
    return f"There is no option {flag.split('=')[0]!r}: {_near(name, names, '--', program)}"


def _near(name: str, names: Sequence[str], prefix: str = "", program: str = "antehoc train") -> str:
    near = list(dict.fromkeys(difflib.get_close_matches(name, names, n=3)))
    if not near:
        return f"`{program} --help` lists those there are."
    return f"did you mean {' or '.join(prefix + option for option in near)}?"


def _tensorboard_is_there() -> bool:
    return find_spec("tensorboard") is not None or find_spec("tensorboardX") is not None
