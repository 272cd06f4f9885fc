"""What `antehoc train` shows while it trains: one bar, and a line of words for each report."""

from collections.abc import Mapping

from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

# Report → what it is called; the others are in trainer_state.json and in TensorBoard.
_SHOWN = {
    "loss": "loss",
    "interpretation_loss": "map's loss",
    "accuracy": "accuracy",
    "mean_average_precision": "mean average precision",
    "mae": "mean error",
    "auc_8": "AUC of the points' errors",
    "token_accuracy": "words right",
    "map_mean": "map's mean",
    "images_per_second": "images a second",
}


class _Lines(TrainerCallback):
    """A line of words for each report."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **known: object,
    ) -> None:
        """Writes the line."""
        if state.is_world_process_zero and (line := line_of(logs or {}, state.global_step, state.max_steps)):
            bar = getattr(self, "training_bar", None)
            print(line, flush=True) if bar is None else bar.write(line)


class CalmProgress(_Lines, ProgressCallback):
    """The stock bar of the steps with the lines above it; no second bar for evaluations, and no dictionaries."""

    def on_prediction_step(self, *arguments: object, **known: object) -> None:
        """Draws nothing."""


class CalmPrinter(_Lines, PrinterCallback):
    """The same where no bar is wanted."""


def line_of(logs: Mapping[str, float], step: int, steps: int) -> str:
    """A report in words, such as `step 50 of 378: loss 1.23, map's mean 0.41`; empty for a summary of all."""
    if "train_runtime" in logs:
        return ""
    evaluated = next((name.partition("_")[0] for name in logs if name.endswith("_runtime")), "")
    prefix = f"{evaluated}_" if evaluated else ""
    said = [f"{words} {float(logs[prefix + name]):.4g}" for name, words in _SHOWN.items() if prefix + name in logs]
    return f"step {step} of {steps}{', held-out images' if evaluated else ''}: {', '.join(said)}"


def calm(trainer: Trainer) -> None:
    """Puts these in place of the stock callbacks."""
    for stock, ours in ((ProgressCallback, CalmProgress), (PrinterCallback, CalmPrinter)):
        if trainer.pop_callback(stock) is not None:
            trainer.add_callback(ours)
