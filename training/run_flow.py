"""The course of a training: what is saved when, and how it ends when it is asked to stop."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

logger = logging.getLogger(__name__)

HANG_UP = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()  # none on Windows


class RunFlow(TrainerCallback):
    """When a run saves, and when it stops; the last of its callbacks, so that it sees what the others decide.

    Whoever ends a training early, its last checkpoint says so, and knows the end by it when it is resumed.

    Args:
        at_start: called when a training begins.
        save: writes a checkpoint.
    """

    def __init__(self, at_start: Callable[[], None], save: Callable[[], None]) -> None:
        self._at_start, self._save = at_start, save
        self._stop_asked = self._stops_at_once = False
        self._training = self._in_epoch = self._evaluating = False
        self._save_at_epoch_end = False
        self.planned_epochs = 0
        self.saved_end = False  # whether the last checkpoint was written after the training's end was decided

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """A resumed run takes up its sums; a finished one has been planned without epochs."""
        self._evaluating = self._save_at_epoch_end = self.saved_end = False
        self._training, self._stops_at_once = True, args.world_size > 1
        state.num_train_epochs = self.planned_epochs
        self._at_start()

    def on_train_end(self, *arguments: object, **kwargs: object) -> None:
        """Nothing is left to be stopped after its step."""
        self._training = False

    def on_epoch_begin(self, *arguments: object, **kwargs: object) -> None:
        """Until its end, what is to be saved last can wait."""
        self._in_epoch = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """A checkpoint at the end of an epoch is saved after what else is done there, since a resumed run begins with
        the next epoch.
        """
        if self._stop_asked:
            if args.save_strategy == SaveStrategy.NO:
                raise KeyboardInterrupt(f"interrupted after step {state.global_step}, without a checkpoint.")
            control.should_save = True
        ends = control.should_training_stop or (state.epoch is not None and float(state.epoch).is_integer())
        if ends and control.should_save:
            control.should_save, self._save_at_epoch_end = False, True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Saves what [`on_step_end`] has put off."""
        self._in_epoch = self.saved_end = False
        control.should_save |= self._save_at_epoch_end or self._ends(args, control)
        self._save_at_epoch_end = False

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Stops, if that was asked for."""
        if self._ends(args, control):  # a callback has just ended it, after the checkpoint
            self._save()
        if self._stop_asked:
            raise KeyboardInterrupt(
                f"interrupted after step {state.global_step}. It goes on from checkpoint-{state.global_step} with "
                "--resume_from_checkpoint true."
            )

    def on_prediction_step(self, *arguments: object, **kwargs: object) -> None:
        """An evaluation is not waited for when the run is to stop."""
        self._evaluating = True

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """The end of a training is saved after it, too."""
        self._evaluating = False
        control.should_save |= self._ends(args, control)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Likewise."""
        control.should_save |= self._ends(args, control)

    def _ends(self, args: TrainingArguments, control: TrainerControl) -> bool:
        """Whether this is the training's end, out of the epoch, and it is still to be saved that it is."""
        regularly = args.save_strategy in (SaveStrategy.STEPS, SaveStrategy.EPOCH)
        return (
            self._training and not self._in_epoch and control.should_training_stop and regularly and not self.saved_end
        )

    @contextmanager
    def catching_signals(self) -> Iterator[None]:
        """SIGTERM, SIGHUP and Ctrl-C ask the run to stop after its step, unless somebody else handles them."""
        self._stop_asked = False
        usual = (signal.SIG_DFL, signal.default_int_handler)
        in_main_thread = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGTERM, signal.SIGINT, *HANG_UP) if in_main_thread else ()
        before = {number: signal.getsignal(number) for number in numbers}
        before = {number: handler for number, handler in before.items() if handler in usual}
        for number in before:
            signal.signal(number, self._ask_to_stop)
        try:
            yield
            if self._stop_asked:  # too late for the last step
                raise KeyboardInterrupt
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        if self._stop_asked or self._stops_at_once or self._evaluating or not self._training:
            raise KeyboardInterrupt
        self._stop_asked = True
        logger.warning("Stopping after this step, with a checkpoint; once more stops at once.")
