"""The image classifier: timm's network with its own head, and the map."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_antehoc import AnteHocConfig
from .map_head import Explanation, Targets, chosen_class, class_targets, class_worth, map_fields
from .modeling_antehoc import AnteHocPreTrainedModel, PredictionKind
from .phases import Phase
from .scaling import mean_of_known, plain

IGNORED = -100  # the label of an image without one, as torch has it


# The task's own values come first, as transformers has it: as a tuple, an output begins with the loss.
@dataclass
class _Classified(ModelOutput):
    loss: Tensor | None = None
    logits: Tensor | None = None


@dataclass
class AnteHocImageClassifierOutput(Explanation, _Classified):
    """Output of [`AnteHocForImageClassification`], with the map as in [`Explanation`].

    Args:
        loss (`Tensor`, *optional*): the task's loss, a scalar, if labels were given.
        logits (`Tensor`): (B, num_labels).
        hidden_states (`tuple[Tensor, ...]`, *optional*): the activations of the taps, (B, C, h, w) each.
    """

    hidden_states: tuple[Tensor, ...] | None = None


class AnteHocForImageClassification(AnteHocPreTrainedModel):
    """An image classifier that shows what it looked at: timm's network with its own head, and the map."""

    onnx_outputs: ClassVar[tuple[str, ...]] = ("logits", "interpretation_map")

    # How a finished classifier is read; set by the project, and not there where this code travels alone.
    classifier_reader: ClassVar[Callable[..., Any] | None] = None

    def __init__(self, config: AnteHocConfig) -> None:
        super().__init__(config)
        if not config.num_labels:
            raise ValueError("num_labels must be at least 1 for a classifier.")
        self.num_labels = config.num_labels
        self._build(num_outputs=config.num_labels)
        self.post_init()

    @classmethod
    def from_classifier(
        cls,
        source: Any,
        *,
        backbone: str | None = None,
        backbone_kwargs: dict[str, Any] | None = None,
        token: str | None = None,
        **config: Any,
    ) -> "AnteHocForImageClassification":
        """A finished classifier, unchanged to the bit, with a map head that is still to be taught.

        Args:
            source: a network in memory (timm's, torchvision's or transformers'), a timm name, the folder or Hub name
                of a checkpoint, or a file of weights.
            backbone (`str`, *optional*): the timm architecture, where the source does not say.
            backbone_kwargs (`dict`, *optional*): options that timm's network was made with.
            token (`str`, *optional*): for a private repository on the Hub.
            config: options of [`AnteHocConfig`] such as `image_mean`, `image_std`, `id2label`, `map_head`.

        Raises:
            ValueError: if it is not a classifier that can be explained, or something must be said that it does not.
            OSError: if it cannot be read or fetched.
        """
        if cls.classifier_reader is None:
            raise ValueError(
                "from_classifier needs the package antehoc-hf: pip install antehoc-hf, import antehoc_hf."
            )
        found = cls.classifier_reader(source, backbone=backbone, backbone_kwargs=backbone_kwargs, token=token)
        return found.model(**config)  # type: ignore[no-any-return]

    @property
    def prediction_kind(self) -> PredictionKind:
        """Classes, several labels an image, or plain numbers."""
        kinds: dict[str | None, PredictionKind] = {"multi_label_classification": "bernoulli", "regression": "vector"}
        return kinds.get(self.config.problem_type, "vector" if self.num_labels == 1 else "categorical")

    def worth(self, prediction: Tensor, whole: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """See [`class_worth`]: probabilities of classes, or the values of a regression."""
        return class_worth(self.config, prediction)

    def explained_target(self, prediction: Tensor) -> Tensor | None:
        """The predicted class; of a regression all values together."""
        return chosen_class(self.config, prediction)

    def _targets(self, prediction: Any) -> Targets | None:
        """The classes and their probabilities."""
        return class_targets(self, prediction)

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
        """Scores of the classes and the map of the prediction, in one pass.

        Args:
            pixel_values (`Tensor`): normalised images, (B, 3, H, W).
            labels (`Tensor`, *optional*): see [`classification_loss`].
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
            pixel_values, self.backbone, phase, tap_values, output_attention_maps, output_hidden_states
        )
        return AnteHocImageClassifierOutput(
            loss=None if labels is None or logits is None else classification_loss(logits, labels, self.config),
            logits=logits,
            **map_fields(explained, output_attention_maps, training=phase is not None),
            hidden_states=features,
        )


def classification_loss(logits: Tensor, labels: Tensor, config: Any) -> Tensor:
    """Cross-entropy, or what the `problem_type` of the configuration asks for.

    Args:
        logits (`Tensor`): (B, K).
        labels (`Tensor`): (B,) class indices, -100 for images to leave out; (B, K) numbers in [0, 1] for several
            labels an image; (B,) or (B, K) numbers for regression. Where the configuration names no `problem_type`,
            the labels' shape decides, for this call alone; a single output is regression.
        config: names the `problem_type`.

    Returns:
        `Tensor`: a scalar, the mean over the batch; 0 where no label of it counts.

    Raises:
        ValueError: if the labels have a wrong shape or type, or one is none of the classes or not a finite number.
    """
    labels, several = plain(labels, "labels", logits).to(logits.device), logits.shape[1] > 1
    kind = config.problem_type
    if kind is None:
        one_each = several and labels.shape[1:] in ((), (1,)) and not labels.is_floating_point()
        kind = "single_label_classification" if one_each else "multi_label_classification" if several else "regression"
        if kind == "multi_label_classification" and not torch.compiler.is_compiling():
            warnings.warn(
                "The labels name several classes an image, and the configuration has no problem_type: the loss is "
                "that of several classes, probabilities and maps are those of one. Make the model with "
                "problem_type='multi_label_classification'.",
                stacklevel=2,
            )
    if kind == "single_label_classification":
        chosen = _class_indices(labels, logits)
        return mean_of_known(F.cross_entropy(logits, chosen), chosen != IGNORED)
    if labels.shape not in (logits.shape, logits.squeeze(1).shape):
        indices = f", or class indices ({len(logits)},)" if config.problem_type is None and several else ""
        raise ValueError(
            f"labels must be {tuple(logits.shape)}, a number for each image and output{indices}, not "
            f"{tuple(labels.shape)} of {labels.dtype}."
        )
    labels = labels.to(logits.dtype).view_as(logits)
    if _readable(labels) and not bool(labels.isfinite().all()):
        raise ValueError(
            f"labels must be finite numbers, but {int((~labels.isfinite()).sum())} of this batch are NaN or infinite: "
            "leave out the images whose labels are not known."
        )
    if kind == "regression":
        return mean_of_known(F.mse_loss(logits, labels), torch.ones_like(labels, dtype=torch.bool))
    if _readable(labels) and not bool(((labels >= 0) & (labels <= 1)).all()):
        raise ValueError(
            f"labels for several classes an image must lie in 0…1, but this batch has {float(labels.min())}…"
            f"{float(labels.max())}: for other numbers set problem_type='regression'."
        )
    loss = F.binary_cross_entropy_with_logits(logits, labels)
    return mean_of_known(loss, torch.ones_like(labels, dtype=torch.bool))


def _class_indices(labels: Tensor, logits: Tensor) -> Tensor:
    """(B,) int64, from integers of any size, as data sets store them."""
    count, classes = logits.shape
    fits = labels.shape in ((count,), (count, 1))
    if not fits or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"labels must be {count} class indices, one for each image, not {tuple(labels.shape)} of {labels.dtype}; "
            "for several labels an image set problem_type='multi_label_classification'."
        )
    labels = labels.flatten().long()
    if _readable(labels) and bool(((labels < 0) & (labels != IGNORED) | (labels >= classes)).any()):
        raise ValueError(
            f"labels must lie in 0…{classes - 1} (num_labels={classes}), but this batch has "
            f"{int(labels.min())}…{int(labels.max())}."
        )
    return labels


def _readable(labels: Tensor) -> bool:
    """Whether values may be looked at: on a GPU this would wait for the device at every step."""
    return labels.device.type == "cpu" and labels.numel() > 0 and not torch.compiler.is_compiling()


AnteHocForImageClassification.register_for_auto_class("AutoModelForImageClassification")
