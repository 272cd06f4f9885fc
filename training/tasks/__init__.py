"""The tasks that one command trains: `--task NAME`."""

from typing import Any

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.training.tasks.base import Measured, MeasureOptions, Task
from antehoc_hf.training.tasks.baseline_classification import baseline_task
from antehoc_hf.training.tasks.image_captioning import ImageCaptioning
from antehoc_hf.training.tasks.image_classification import ImageClassification
from antehoc_hf.training.tasks.landmark_detection import LandmarkDetection

TASKS: dict[str, type[Task[Any]]] = {
    task.name: task for task in (ImageClassification, LandmarkDetection, ImageCaptioning)
}


def task_named(name: str) -> type[Task[Any]]:
    """
    The task of that name.

    Raises:
        UsageError: if there is none; those there are are named.
    """
    if name not in TASKS:
        raise UsageError(f"There is no task {name!r}: there are {', '.join(TASKS)}.")
    return TASKS[name]


def task_of(config: Any) -> type[Task[Any]]:
    """
    The task of a trained model, by its configuration.

    Raises:
        UsageError: if it is none of ours.
    """
    made_for = getattr(config, "architectures", None) or ["a model of unknown kind"]
    for task in TASKS.values():
        if task.model_class.__name__ in made_for:
            return task
    raise UsageError(f"The model is a {made_for[0]}, which has no interpretation maps to evaluate.")


__all__ = ["TASKS", "MeasureOptions", "Measured", "Task", "baseline_task", "task_named", "task_of"]
