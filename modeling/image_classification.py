"""The image classifier: timm's network with its own head, and the map."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_antehoc import AnteHocConfig
from .map_head import Targets
from .modeling_antehoc import AnteHocPreTrainedModel, PredictionKind, class_targets, map_fields, wants_hidden
from .phases import Phase


# The task's own values come first, as transformers has it: as a tuple, an output begins with the loss.
@dataclass
class AnteHocImageClassifierOutput(ModelOutput):
    """
    Output of [`AnteHocForImageClassification`].

    Args:
        loss (`Tensor`, *optional*): the task's loss, a scalar, if labels were given.
        logits (`Tensor`): (B, num_labels).
        interpretation_map, degenerate, soft_attention_maps, weight_maps, weight_logits, contributions, tap_values:
            as in [`Explanation`].
        hidden_states (`tuple[Tensor, ...]`, *optional*): the activations of the taps, (B, C, h, w) each.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    interpretation_map: Tensor | None = None
    degenerate: Tensor | None = None
    soft_attention_maps: Tensor | None = None
    weight_maps: Tensor | None = None
    weight_logits: Tensor | None = None
    contributions: Tensor | None = None
    tap_values: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class AnteHocForImageClassification(AnteHocPreTrainedModel):
    """An image classifier that shows what it looked at: timm's network with its own head, and the map."""

    onnx_outputs: ClassVar[tuple[str, ...]] = ("logits", "interpretation_map")

    def __init__(self, config: AnteHocConfig) -> None:
        super().__init__(config)
        if not config.num_labels:
            raise ValueError("num_labels must be at least 1 for a classifier.")
        self.num_labels = config.num_labels
        self._build(num_outputs=config.num_labels)
        self.post_init()

    @property
    def prediction_kind(self) -> PredictionKind:
        """Classes, several labels an image, or plain numbers."""
        kinds: dict[str | None, PredictionKind] = {
            "multi_label_classification": "bernoulli",
            "regression": "vector",
        }
        return kinds.get(self.config.problem_type, "vector" if self.num_labels == 1 else "categorical")

    def _targets(self, prediction: Tensor | None) -> Targets | None:
        """The classes and their probabilities."""
        return class_targets(self, prediction) if self.config.has_classes else None

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_attention_maps: bool = False,
        output_hidden_states: bool | None = None,
        tap_values: Tensor | None = None,
        phase: Phase | None = None,
    ) -> AnteHocImageClassifierOutput:
        """
        Args:
            pixel_values (`Tensor`): normalised images, (B, 3, H, W).
            labels (`Tensor`, *optional*): (B,) class indices; (B, num_labels) of 0 and 1 for several labels an image;
                (B,) or (B, num_labels) numbers for regression.
            output_attention_maps (`bool`): also return what the map was made from: soft attention maps and weight
                maps, or the contributions to every class.
            output_hidden_states (`bool`, *optional*): also return the activations of the taps.
            tap_values (`Tensor`, *optional*): those of the first pass, for the second.
            phase (`str`, *optional*): `"task"`: the first pass of training (no map). `"interpretation"`: the second,
                what the map head makes of `tap_values`. `"prediction"`: logits, nothing else.

        Raises:
            ValueError: if the images have a wrong shape or a label is none of the classes.
        """
        logits, explained, features = self._run_phase(
            pixel_values,
            self.backbone,
            phase,
            tap_values,
            detailed=output_attention_maps,
            hidden_states=wants_hidden(self, output_hidden_states),
        )
        return AnteHocImageClassifierOutput(
            loss=self._loss(logits, labels),
            logits=logits,
            **map_fields(explained, output_attention_maps, training=phase is not None),
            hidden_states=features,
        )

    def _loss(self, logits: Tensor | None, labels: Tensor | None) -> Tensor | None:
        if labels is None or logits is None:
            return None
        if not torch.compiler.is_compiling():
            check_labels(labels, self.num_labels)
        several = self.config.problem_type in ("multi_label_classification", "regression")
        if several or labels.is_floating_point():
            labels = labels.to(logits.dtype)
        else:
            labels = labels.long()  # int32 and uint8, as some data sets store them
        return self.loss_function(labels, logits, self.config)


def check_labels(labels: Tensor, num_labels: int) -> None:
    """
    Looks at class indices on the CPU; on a GPU this would wait for the device at every step.

    Raises:
        ValueError: if one is none of the classes.
    """
    if labels.device.type != "cpu" or labels.is_floating_point() or labels.ndim != 1 or num_labels < 2:
        return
    if bool(((labels < 0) & (labels != -100) | (labels >= num_labels)).any()):
        raise ValueError(
            f"labels must lie in 0…{num_labels - 1} (num_labels={num_labels}), but this batch has "
            f"{int(labels.min())}…{int(labels.max())}."
        )


AnteHocForImageClassification.register_for_auto_class("AutoModelForImageClassification")
