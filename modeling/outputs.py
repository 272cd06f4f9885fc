"""What the ante-hoc models return."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class AnteHocOutput(ModelOutput):
    """
    The map and what it was made from; every model's output holds these.

    Args:
        interpretation_map (`Tensor`): (B, 1, H, W), float32 in [0, 1], at input size.
        degenerate (`Tensor`): (B,), bool; true where the map shows nothing (constant or not finite).
        soft_attention_maps (`Tensor`, *optional*): (B, η, H, W), float32, each of sum 1.
        weight_maps (`Tensor`, *optional*): (B, η, H, W), float32, summing to 1 over η.
        weight_logits (`Tensor`, *optional*): (B, η, h, w), the weight network's output, on its own grid.
        contributions (`Tensor`, *optional*): (B, K, g, w), of class-conditional maps alone: what each patch
            contributes to the probability of each class.
        tap_features (`Tensor`, *optional*): (B, C, g, w), what such maps are made from.
    """

    interpretation_map: Tensor | None = None
    degenerate: Tensor | None = None
    soft_attention_maps: Tensor | None = None
    weight_maps: Tensor | None = None
    weight_logits: Tensor | None = None
    contributions: Tensor | None = None
    tap_features: Tensor | None = None


# The task's own values come first, as transformers has it: as a tuple, an output begins with the loss. Fields of a
# base class would stand before them, hence no inheritance.
@dataclass
class AnteHocModelOutput(ModelOutput):
    """
    Output of [`AnteHocModel`].

    Args:
        last_hidden_state (`Tensor`): the backbone's features, (B, C, h, w) for most.
        pooler_output (`Tensor`): pooled features, (B, C).
        interpretation_map, degenerate, soft_attention_maps, weight_maps, weight_logits: as in [`AnteHocOutput`].
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    interpretation_map: Tensor | None = None
    degenerate: Tensor | None = None
    soft_attention_maps: Tensor | None = None
    weight_maps: Tensor | None = None
    weight_logits: Tensor | None = None


@dataclass
class AnteHocImageClassifierOutput(ModelOutput):
    """
    Output of [`AnteHocForImageClassification`].

    Args:
        loss (`Tensor`, *optional*): the task's loss, a scalar, if labels were given.
        logits (`Tensor`): (B, num_labels).
        interpretation_map, degenerate, soft_attention_maps, weight_maps, weight_logits, contributions,
            tap_features: as in [`AnteHocOutput`].
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    interpretation_map: Tensor | None = None
    degenerate: Tensor | None = None
    soft_attention_maps: Tensor | None = None
    weight_maps: Tensor | None = None
    weight_logits: Tensor | None = None
    contributions: Tensor | None = None
    tap_features: Tensor | None = None


@dataclass
class AnteHocLandmarkOutput(ModelOutput):
    """
    Output of [`AnteHocForLandmarkDetection`].

    Args:
        loss (`Tensor`, *optional*): mean error of the known coordinates, a scalar, if labels were given.
        landmarks (`Tensor`): (B, K, 2), x and y in units of the image's width and height, (i + 0.5) / W the centre
            of pixel i; a point may be found outside [0, 1].
        interpretation_map, degenerate, soft_attention_maps, weight_maps, weight_logits: as in [`AnteHocOutput`].
    """

    loss: Tensor | None = None
    landmarks: Tensor | None = None
    interpretation_map: Tensor | None = None
    degenerate: Tensor | None = None
    soft_attention_maps: Tensor | None = None
    weight_maps: Tensor | None = None
    weight_logits: Tensor | None = None


@dataclass
class AnteHocImageEncoderOutput(ModelOutput):
    """
    What the image encoder of [`AnteHocForImageCaptioning`] gives: all that captions, and their map, need of an image.

    Args:
        last_hidden_state (`Tensor`): (B, 1, C), the pooled feature, as a sequence of one.
        features (`Tensor`, *optional*): the backbone's features before pooling, if asked for.
        interpretation_map, degenerate, soft_attention_maps, weight_maps: as in [`AnteHocOutput`].
    """

    last_hidden_state: Tensor | None = None
    features: Tensor | None = None
    interpretation_map: Tensor | None = None
    degenerate: Tensor | None = None
    soft_attention_maps: Tensor | None = None
    weight_maps: Tensor | None = None


@dataclass
class AnteHocImageCaptioningOutput(ModelOutput):
    """
    Output of [`AnteHocForImageCaptioning`].

    Args:
        loss (`Tensor`, *optional*): cross-entropy, a mean over the words of the batch, if labels were given.
        logits (`Tensor`): (B, T, V), of the word after each of the words read.
        past_key_values (`DecoderState`, *optional*): the LSTM's state after the last word, if asked for.
        encoder_last_hidden_state (`Tensor`): (B, 1, C), the pooled feature.
        interpretation_map, degenerate, soft_attention_maps, weight_maps, weight_logits: as in [`AnteHocOutput`].
        generated_input_ids, generated_labels, generated_logits (`Tensor`, *optional*): with
            `caption_target="generated"`, the first pass's own caption: words read (B, T'), words to say (B, T'; -100
            after the end) and their logits (B, T', V).
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any = None
    encoder_last_hidden_state: Tensor | None = None
    interpretation_map: Tensor | None = None
    degenerate: Tensor | None = None
    soft_attention_maps: Tensor | None = None
    weight_maps: Tensor | None = None
    weight_logits: Tensor | None = None
    generated_input_ids: Tensor | None = None
    generated_labels: Tensor | None = None
    generated_logits: Tensor | None = None


@dataclass
class AnteHocCaptionOutput(ModelOutput):
    """
    What [`AnteHocForImageCaptioning.caption`] gives.

    Args:
        sequences (`Tensor`): (B, T) token ids, beginning with the start token, padded after the end token.
        log_probabilities (`Tensor`): (B, T - 1), natural logarithms of the probability of each token but the first, 0
            for padding.
        probability (`Tensor`): (B,), of the caption, length-normalised: exp of the mean of those of its tokens.
        interpretation_map (`Tensor`): (B, 1, H, W), float32 in [0, 1], of the whole caption.
        degenerate (`Tensor`): (B,), bool; true where that map shows nothing.
        word_maps (`Tensor`, *optional*): (B, T - 1, 1, H, W), float32 in [0, 1], of each token but the first.
    """

    sequences: Tensor | None = None
    log_probabilities: Tensor | None = None
    probability: Tensor | None = None
    interpretation_map: Tensor | None = None
    degenerate: Tensor | None = None
    word_maps: Tensor | None = None


def shown(explained: AnteHocOutput, attention_maps: bool, logits: bool = False) -> dict[str, Tensor | None]:
    """The fields of an output that tell of the map: what it was made from only where that is asked for."""
    fields = {"interpretation_map": explained.interpretation_map, "degenerate": explained.degenerate}
    if attention_maps:
        fields |= {"soft_attention_maps": explained.soft_attention_maps, "weight_maps": explained.weight_maps}
    return fields | {"weight_logits": explained.weight_logits} if logits else fields


def as_object(return_dict: bool | None, config: Any) -> bool:
    """Whether a forward pass gives an output object and no tuple: as asked for, or else as configured."""
    return bool(config.return_dict if return_dict is None else return_dict)
