"""The tasks that one command trains: `--task NAME`."""

from dataclasses import fields

from transformers import PreTrainedConfig

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.training.tasks.base import AnyTask, Task
from antehoc_hf.training.tasks.image_captioning import ImageCaptioning
from antehoc_hf.training.tasks.image_classification import ImageClassification
from antehoc_hf.training.tasks.landmark_detection import LandmarkDetection

TASKS: dict[str, type[AnyTask]] = {
    task.name: task for task in (ImageClassification, LandmarkDetection, ImageCaptioning)
}


def register_task(task: type[AnyTask]) -> type[AnyTask]:
    """Makes a task known under its `name`, to `--task` and to the evaluation of its models; can decorate the class.

    Raises:
        ValueError: if another task, or an option of one, has a name that the new one has.
    """
    options = {option.name: other.name for other in TASKS.values() for option in fields(other.arguments)}
    taken = [option.name for option in fields(task.arguments) if option.name in options]
    if task.name in TASKS or taken:
        what = f"option {taken[0]!r} of task {options[taken[0]]!r}" if taken else f"task {task.name!r}"
        raise ValueError(f"There is already the {what}: choose another name.")
    TASKS[task.name] = task
    return task


def task_named(name: str) -> type[AnyTask]:
    """The task of that name.

    Raises:
        UsageError: if there is none; the sentence lists those there are.
    """
    if name not in TASKS:
        raise UsageError(f"There is no task {name!r}: there are {', '.join(TASKS)}.")
    return TASKS[name]


def task_of(config: PreTrainedConfig) -> type[AnyTask]:
    """The task of a trained model, by its configuration.

    Raises:
        UsageError: if it is not one of ours.
    """
    made_for = getattr(config, "architectures", None)
    made_for = made_for if isinstance(made_for, list) and made_for else ["model of unknown kind"]
    for task in TASKS.values():
        if task.model_class.__name__ in made_for:
            return task
    raise UsageError(f"The model is a {made_for[0]}, which has no interpretation maps to evaluate.")


__all__ = ["TASKS", "Task", "register_task"]
