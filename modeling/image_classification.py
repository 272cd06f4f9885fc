"""The image classifier: timm's network with its own head, and the map."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .configuration_antehoc import AnteHocConfig
from .modeling_antehoc import AnteHocPreTrainedModel, Phase
from .outputs import AnteHocImageClassifierOutput, as_object, shown


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
    ) -> AnteHocImageClassifierOutput | tuple[Any, ...]:
        """
        Args:
            pixel_values (`Tensor`): normalised images, (B, 3, H, W).
            labels (`Tensor`, *optional*): (B,) class indices; (B, num_labels) of 0 and 1 for several labels an image;
                (B,) or (B, num_labels) numbers for regression.
            output_attention_maps (`bool`): also return soft attention maps and weight maps.
            soft_attention_maps (`Tensor`, *optional*): those of the first pass, for the second.
            phase (`str`, *optional*): `"task"`: the first pass of training (no map). `"interpretation"`: the second:
                the map of `soft_attention_maps`, and the logits of the energy map.
            return_dict (`bool`, *optional*): whether to return an output object (default) or a tuple.

        Raises:
            ValueError: if the images have a wrong shape or a label is none of the classes.
        """
        logits, explained = self._run_phase(pixel_values, self.backbone, phase, soft_attention_maps)
        output = AnteHocImageClassifierOutput(
            loss=self._loss(logits, labels),
            logits=logits,
            **shown(explained, output_attention_maps or phase is not None, logits=phase is not None),
        )
        return output if as_object(return_dict, self.config) else output.to_tuple()

    def _loss(self, logits: Tensor, labels: Tensor | None) -> Tensor | None:
        if labels is None:
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
