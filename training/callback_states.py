"""What a checkpoint knows about callbacks: what they have counted, and whether one of them ended the training."""

from collections.abc import Sequence
from typing import cast

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import ExportableState

_States = dict[str, list[dict[str, dict[str, float]]]]


def restore_callbacks(state: TrainerState, callbacks: Sequence[TrainerCallback]) -> None:
    """What callbacks have counted (the stock Trainer would replace their options, too)."""
    saved = _stored(state)
    for callback in callbacks:
        if isinstance(callback, ExportableState) and saved.get(type(callback).__name__):
            for name, value in saved[type(callback).__name__].pop(0)["attributes"].items():
                setattr(callback, name, value)


def has_ended(state: TrainerState, max_steps: int | None, callbacks: Sequence[TrainerCallback]) -> bool:
    """Whether a checkpoint is the end of its training, be it the last step or a callback's decision, and neither more
    steps nor more patience is asked for now.

    Args:
        state (`TrainerState`): the checkpoint's.
        max_steps (`int`, *optional*): what is planned now.
        callbacks: the trainer's, restored by [`restore_callbacks`].
    """
    if max_steps is not None and state.global_step >= max_steps:
        return True
    stored = _stored(state)
    stopped = any(entry["args"]["should_training_stop"] for entry in stored.get(TrainerControl.__name__, []))
    lost_patience = any(
        entry["attributes"]["early_stopping_patience_counter"] >= entry["args"]["early_stopping_patience"]
        for entry in stored.get(EarlyStoppingCallback.__name__, [])
    )
    still_lost = any(
        callback.early_stopping_patience_counter >= callback.early_stopping_patience
        for callback in callbacks
        if isinstance(callback, EarlyStoppingCallback)
    )
    return stopped and (still_lost or not lost_patience) and (max_steps is None or max_steps <= state.max_steps)


def _stored(state: TrainerState) -> _States:
    """Class of a callback → options ("args") and counts ("attributes") of each that was there."""
    stored = cast("_States", state.stateful_callbacks)
    return {name: [*entries] if isinstance(entries, list) else [entries] for name, entries in stored.items()}
