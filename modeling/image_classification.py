"""The image classifier: timm's network with its own head, and the map."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .class_maps import ClassMaps
from .configuration_antehoc import AnteHocConfig
from .modeling_antehoc import AnteHocPreTrainedModel
from .outputs import AnteHocImageClassifierOutput, AnteHocOutput, as_object, shown
from .phases import Phase


class AnteHocForImageClassification(ClassMaps, AnteHocPreTrainedModel):
    """An image classifier that shows what it looked at: timm's network with its own head, and the map."""

    onnx_outputs: ClassVar[tuple[str, ...]] = ("logits", "interpretation_map")

    def __init__(self, config: AnteHocConfig) -> None:
        super().__init__(config)
        if not config.num_labels:
            raise ValueError("num_labels must be at least 1 for a classifier.")
        if config.weight_network == "contributions" and config.num_labels == 1:
            raise ValueError("weight_network='contributions' explains classes: num_labels must be at least 2.")
        self.num_labels = config.num_labels
        self._build(num_outputs=config.num_labels)
        self.post_init()

    @property
    def prediction_kind(self) -> Literal["categorical", "bernoulli", "vector"]:
        kinds: dict[str | None, Literal["categorical", "bernoulli", "vector"]] = {
            "multi_label_classification": "bernoulli",
            "regression": "vector",
        }
        return kinds.get(self.config.problem_type, "vector" if self.num_labels == 1 else "categorical")

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_attention_maps: bool = False,
        soft_attention_maps: Tensor | None = None,
        phase: Phase | None = None,
        return_dict: bool | None = None,
        tap_features: Tensor | None = None,
    ) -> AnteHocImageClassifierOutput | tuple[Any, ...]:
        """
        Args:
            pixel_values (`Tensor`): normalised images, (B, 3, H, W).
            labels (`Tensor`, *optional*): (B,) class indices; (B, num_labels) of 0 and 1 for several labels an image;
                (B,) or (B, num_labels) numbers for regression.
            output_attention_maps (`bool`): also return soft attention maps and weight maps; of a model with
                class-conditional maps the `contributions` of every class.
            soft_attention_maps (`Tensor`, *optional*): those of the first pass, for the second.
            phase (`str`, *optional*): `"task"`: the first pass of training (no map). `"interpretation"`: the second:
                the map of `soft_attention_maps`, and the logits of the energy map; of a model with class-conditional
                maps the contributions that follow from `tap_features`, before their sum is fixed, and no logits.
                `"prediction"` (of the latter alone): logits, nothing else.
            return_dict (`bool`, *optional*): whether to return an output object (default) or a tuple.
            tap_features (`Tensor`, *optional*): those of the first pass, for the second.

        Raises:
            ValueError: if the images have a wrong shape or a label is none of the classes.
        """
        if self.class_conditional:
            logits, explained = self._run_class_phase(pixel_values, phase, tap_features, output_attention_maps)
        else:
            logits, explained = self._run_phase(pixel_values, self.backbone, phase, soft_attention_maps)
        asked = output_attention_maps or phase is not None
        output = AnteHocImageClassifierOutput(
            loss=self._loss(logits, labels),
            logits=logits,
            **shown(explained, asked, logits=phase is not None),
            contributions=explained.contributions if asked else None,
            tap_features=explained.tap_features,
        )
        return output if as_object(return_dict, self.config) else output.to_tuple()

    def _run_class_phase(
        self, pixel_values: Tensor, phase: Phase | None, tap_features: Tensor | None, of_all_classes: bool
    ) -> tuple[Tensor | None, AnteHocOutput]:
        """Of a model with a map for each class: logits, and as much of the maps as the phase needs."""
        if phase not in (None, "task", "interpretation", "prediction"):
            raise ValueError(f"phase={phase!r} is not one of None, 'task', 'interpretation', 'prediction'.")
        if phase == "prediction":
            return self.backbone(pixel_values), AnteHocOutput()
        if phase == "interpretation":
            if tap_features is None:
                raise ValueError("phase='interpretation' needs the tap_features of the first pass.")
            return None, AnteHocOutput(contributions=self._contributions(tap_features))
        logits, features = self._logits_and_features(pixel_values)
        if phase == "task":
            return logits, AnteHocOutput(tap_features=features)
        return logits, self._class_maps(logits, features, pixel_values, of_all_classes=of_all_classes)

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
