"""The image classifier: timm's network with its own head, and the map."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .attention_maps import full_precision
from .configuration_antehoc import AnteHocConfig
from .contributions import class_map, contribution_features, efficient
from .modeling_antehoc import AnteHocPreTrainedModel, Phase
from .outputs import AnteHocImageClassifierOutput, AnteHocOutput, as_object, shown


class AnteHocForImageClassification(AnteHocPreTrainedModel):
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
            logits, explained = self._run_class_phase(pixel_values, phase, tap_features)
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

    # -- maps of every class ------------------------------------------------------------------------------------

    def interpretation(self, pixel_values: Tensor, target: Tensor | int | None = None) -> AnteHocOutput:
        """
        The map of normalised images (B, 3, H, W) alone.

        Args:
            pixel_values (`Tensor`): normalised images, (B, 3, H, W).
            target (`int` or `Tensor`, *optional*): the class that is explained, one for all images or (B,); None: the
                most likely one. With class-conditional maps only.

        Raises:
            ValueError: if there is no such class, or the model's map depends on none.
        """
        if not self.class_conditional:
            if target is not None:
                raise ValueError(
                    f"The map of weight_network={self.config.weight_network!r} depends on no class: leave target out, "
                    "or train a model with weight_network='contributions'."
                )
            return super().interpretation(pixel_values)
        logits, explained = self._run_class_phase(pixel_values)
        if target is None:
            return explained
        assert explained.contributions is not None
        classes = torch.as_tensor(target, device=logits.device)
        known = not classes.is_floating_point() and classes.shape in (torch.Size(), logits.shape[:1])
        if not known or bool(((classes < 0) | (classes >= self.num_labels)).any()):
            raise ValueError(
                f"target must be a class, 0…{self.num_labels - 1}, or one for each of the {len(logits)} images, not "
                f"{target!r}."
            )
        return self._explained(explained.contributions, classes.long().expand(len(logits)), pixel_values)

    def _run_class_phase(
        self, pixel_values: Tensor, phase: Phase | None = None, tap_features: Tensor | None = None
    ) -> tuple[Any, AnteHocOutput]:
        """Logits, and as much of the maps as the phase needs."""
        self._check_pixels(pixel_values, bool(self.config.fixed_image_size))
        if phase not in (None, "task", "interpretation", "prediction"):
            raise ValueError(f"phase={phase!r} is not one of None, 'task', 'interpretation', 'prediction'.")
        if phase == "prediction":
            return self.backbone(pixel_values), AnteHocOutput()
        if phase == "interpretation":
            if tap_features is None:
                raise ValueError("phase='interpretation' needs the tap_features of the first pass.")
            return None, AnteHocOutput(contributions=self._contributions(tap_features))
        logits, taps = self._run_backbone(pixel_values, lambda: self.backbone(pixel_values))
        with torch.no_grad(), full_precision(pixel_values):
            features = contribution_features(taps, self.backbone.get_classifier(), self.num_labels)
        if phase == "task":
            return logits, AnteHocOutput(tap_features=features)
        contributions = self._contributions(features)
        with full_precision(pixel_values):
            to_share = self.class_probabilities(logits.detach()) - self.weight_network.nothing.float()  # type: ignore[operator]
            contributions = efficient(contributions, to_share)
            return logits, self._explained(contributions, logits.argmax(dim=1), pixel_values)

    def _contributions(self, features: Tensor) -> Tensor:
        dtype = next(self.weight_network.parameters()).dtype
        return self.weight_network(features.to(dtype)).float()

    def class_probabilities(self, logits: Tensor) -> Tensor:
        """(B, K) float32: softmax of the logits, or sigmoid for several labels an image."""
        return logits.float().sigmoid() if self.prediction_kind == "bernoulli" else logits.float().softmax(dim=1)

    def _explained(self, contributions: Tensor, classes: Tensor, pixel_values: Tensor) -> AnteHocOutput:
        map_, degenerate = class_map(contributions, classes, (pixel_values.shape[-2], pixel_values.shape[-1]))
        return AnteHocOutput(interpretation_map=map_, degenerate=degenerate, contributions=contributions)

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
