"""Pictures of the maps of a few fixed images, drawn while the model learns."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, default_data_collator

from antehoc_hf.evaluation.networks import evaluation_mode

PANEL_FOLDER = "panels"
Draw = Callable[[nn.Module, Mapping[str, Tensor]], Callable[[str], Figure]]
"""(model, batch) → (title → figure): the model runs at the first call, the figure is drawn at the second."""


class PanelCallback(TrainerCallback):
    """Saves a picture of what the model makes of fixed images to `output_dir/panels/step-000123.png`.

    Args:
        batch (`dict`): as the data loader gives it, with `pixel_values` (N, 3, H, W), normalised.
        draw: (model, batch) → (title → figure).
        every_steps (`int`, *optional*): how often; None: at every evaluation.
    """

    def __init__(self, batch: Mapping[str, Tensor], draw: Draw, every_steps: int | None = None) -> None:
        self.batch = batch
        self.draw = draw
        self.every_steps = every_steps
        self._drawn_at = -1

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Draws, unless a number of steps was given."""
        if self.every_steps is None:
            self._draw(args, state, kwargs["model"])

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Draws after every `every_steps` steps."""
        if self.every_steps is not None and state.global_step % self.every_steps == 0:
            self._draw(args, state, kwargs["model"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Draws the trained model."""
        self._draw(args, state, kwargs["model"])

    def _draw(self, args: TrainingArguments, state: TrainerState, model: object) -> None:
        assert isinstance(model, nn.Module)
        if state.global_step == self._drawn_at:
            return
        self._drawn_at = state.global_step
        batch = {
            name: value.to(args.device) if isinstance(value, Tensor) else value for name, value in self.batch.items()
        }
        # By every process: a model whose parameters are sharded runs on all of them or on none.
        with torch.no_grad(), evaluation_mode(model):
            draw = self.draw(model, batch)
        if not state.is_world_process_zero:
            return
        figure = draw(f"Step {state.global_step}")
        path = Path(str(args.output_dir), PANEL_FOLDER, f"step-{state.global_step:06d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def panel_callback(
    dataset: Dataset | None,
    count: int,
    every_steps: int | None,
    draw: Draw,
    collate: Callable[[list[dict[str, Tensor]]], Mapping[str, Tensor]] = default_data_collator,
) -> PanelCallback | None:
    """A callback for `count` images spread over a data set; None if there is nothing to draw."""
    length = len(dataset) if dataset is not None else 0  # type: ignore[arg-type]
    if dataset is None or count == 0 or length == 0:
        return None
    # Not the first ones: many data sets are sorted by class.
    positions = torch.linspace(0, length - 1, min(count, length)).round().long().tolist()
    return PanelCallback(collate([dataset[position] for position in positions]), draw, every_steps)
