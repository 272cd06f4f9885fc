"""Pictures of the maps while a model learns: always the same images, so that they can be compared."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import TrainerCallback

from antehoc_hf.evaluation.mode import evaluation_mode
from antehoc_hf.visualization import Caption, denormalise, panel

logger = logging.getLogger(__name__)

PANEL_FOLDER = "panels"


class PanelCallback(TrainerCallback):
    """
    Saves a panel (image, map, overlay, energy map) of fixed images to `output_dir/panels/step-000123.png`.

    Args:
        pixel_values (`Tensor`): (N, 3, H, W), normalised.
        labels (`Tensor`): (N,) classes, (N, K) zeros and ones, or numbers of a regression.
        every_steps (`int`, *optional*): how often; None: at every evaluation.
    """

    def __init__(self, pixel_values: Tensor, labels: Tensor, every_steps: int | None = None) -> None:
        self.pixel_values = pixel_values
        self.labels = labels
        self.every_steps = every_steps
        self._drawn_at = -1

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draws, unless a number of steps was given."""
        if self.every_steps is None:
            self._draw(args, state, kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draws after every `every_steps` steps."""
        if self.every_steps is not None and state.global_step % self.every_steps == 0:
            self._draw(args, state, kwargs["model"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draws the trained model."""
        self._draw(args, state, kwargs["model"])

    def _draw(self, args: Any, state: Any, model: Any) -> None:
        if state.global_step == self._drawn_at:
            return
        self._drawn_at = state.global_step
        pixel_values = self.pixel_values.to(args.device)
        # By every process: a model whose parameters are sharded runs on all of them or on none.
        with torch.no_grad(), evaluation_mode(model):
            outputs = model(pixel_values=pixel_values.to(model.dtype))
            energy = model.energy_map(pixel_values, outputs.interpretation_map)
        if not state.is_world_process_zero:
            return
        mean, std = model.config.image_mean, model.config.image_std
        figure = panel(
            denormalise(pixel_values, mean, std),
            outputs.interpretation_map.cpu(),
            captions(outputs.logits, self.labels, model.config),
            energy_images=denormalise(energy, mean, std),
            degenerate=outputs.degenerate.cpu(),
            title=f"Step {state.global_step}",
            columns=2 if len(pixel_values) > 4 else 1,
        )
        path = Path(args.output_dir, PANEL_FOLDER, f"step-{state.global_step:06d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def panel_callback(dataset: Dataset | None, count: int, every_steps: int | None) -> PanelCallback | None:
    """A callback for `count` images spread over a data set; None if there is nothing to draw."""
    length = len(dataset) if dataset is not None else 0  # type: ignore[arg-type]
    if dataset is None or count == 0 or length == 0:
        return None
    # Not the first ones: many data sets are sorted by class.
    positions = torch.linspace(0, length - 1, min(count, length)).round().long().tolist()
    items = [dataset[position] for position in positions]
    return PanelCallback(
        torch.stack([item["pixel_values"] for item in items]),
        torch.stack([torch.as_tensor(item["labels"]) for item in items]),
        every_steps,
    )


def captions(logits: Tensor, labels: Tensor, config: Any) -> list[Caption]:
    """
    What is predicted, and what is true, in words.

    Args:
        logits (`Tensor`): (N, K).
        labels (`Tensor`): (N,) classes, (N, K) zeros and ones, or numbers of a regression, (N,) or (N, K).
        config: the model's, with `problem_type` and `id2label`.
    """
    logits, labels, names = logits.detach().float().cpu(), labels.cpu(), config.id2label
    if config.problem_type == "multi_label_classification":
        return [_several(row, true, names) for row, true in zip(logits > 0, labels > 0.5, strict=True)]
    if config.problem_type == "regression" or labels.is_floating_point():
        rows = zip(logits, labels.reshape(len(labels), -1), strict=True)
        return [Caption(_numbers(row), f"is {_numbers(true)}") for row, true in rows]
    probabilities, predicted = logits.softmax(dim=1).max(dim=1)
    told = []
    for share, said, true in zip(probabilities.tolist(), predicted.tolist(), labels.tolist(), strict=True):
        right = said == true
        detail = "" if right else f"is {_short(names[true])}"
        told.append(Caption(f"{_short(names[said])}  {100 * share:.0f} %", detail, right=right))
    return told


def _several(said: Tensor, true: Tensor, names: Any) -> Caption:
    right = bool((said == true).all())
    return Caption(_listed(said, names), "" if right else f"is {_listed(true, names)}", right=right)


def _listed(chosen: Tensor, names: Any) -> str:
    listed = [_short(names[index], 12) for index in chosen.nonzero().flatten().tolist()]
    return ", ".join(listed[:3]) + (" …" if len(listed) > 3 else "") if listed else "none"


def _numbers(row: Tensor) -> str:
    return " ".join(f"{value:.3g}" for value in row[:4].tolist()) + (" …" if len(row) > 4 else "")


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
