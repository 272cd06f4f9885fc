"""What the captioner returns, and what its parts hand to each other."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

from .caption_decoder import DecoderState
from .map_head import Explanation


@dataclass
class AnteHocImageEncoderOutput(Explanation, BaseModelOutput):
    """What the image encoder of [`AnteHocForImageCaptioning`] gives: all that captions, and their map, need of an
    image. It has the map where there is one an image, and else `tap_values`: the words are still to come.

    Args:
        last_hidden_state (`Tensor`): (B, 1, C), the pooled feature, as a sequence of one.
        features (`Tensor`, *optional*): the backbone's features before pooling, if asked for.
    """

    features: Tensor | None = None

    def repeated(self, times: int) -> "AnteHocImageEncoderOutput":
        """Each image as often as it has captions."""
        if times == 1:
            return self
        return type(self)(**{name: value.repeat_interleave(times, dim=0) for name, value in self.items()})


@dataclass
class _Captioned(ModelOutput):
    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any = None
    encoder_last_hidden_state: Tensor | None = None


@dataclass
class AnteHocImageCaptioningOutput(Explanation, _Captioned):
    """Output of [`AnteHocForImageCaptioning`], with the map as in [`Explanation`].

    Args:
        loss (`Tensor`, *optional*): cross-entropy, a mean over the words of the batch, if labels were given.
        logits (`Tensor`): (B, T, V), of the word after each of the words read.
        past_key_values (`DecoderState`, *optional*): the LSTM's state after the last word, if asked for.
        encoder_last_hidden_state (`Tensor`): (B, 1, C), the pooled feature.
        hidden_states (`tuple[Tensor, ...]`, *optional*): the activations of the taps, (B, C, h, w) each.
        generated_input_ids, generated_labels, generated_logits (`Tensor`, *optional*): with
            `caption_target="generated"`, the first pass's own caption: words read (B, T'), words to say (B, T'; -100
            after the end) and their logits (B, T', V).
    """

    hidden_states: tuple[Tensor, ...] | None = None
    generated_input_ids: Tensor | None = None
    generated_labels: Tensor | None = None
    generated_logits: Tensor | None = None


@dataclass
class AnteHocCaptionOutput(ModelOutput):
    """What [`AnteHocForImageCaptioning.caption`] gives.

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


class Said(NamedTuple):
    """What the decoder made of images: their pooled feature, and of each word read its output, logits and follower."""

    features: Tensor
    labels: Tensor  # (B, T), -100 where there is none
    read: Tensor
    logits: Tensor
    state: DecoderState


class ImageEncoder:
    """The captioner without its words, under the name and with the arguments that `generate` uses."""

    main_input_name = "pixel_values"

    def __init__(self, encode: Callable[[Tensor, bool], AnteHocImageEncoderOutput]) -> None:
        self._encode = encode

    def forward(
        self, pixel_values: Tensor, output_attention_maps: bool = False, **_of_transformers: Any
    ) -> AnteHocImageEncoderOutput:
        return self._encode(pixel_values, output_attention_maps)

    __call__ = forward


@contextmanager
def blaming(options: Mapping[str, Any]) -> Iterator[None]:
    """Where `generate` stumbles over an option's type, one sentence that names the options."""
    try:
        yield
    except (TypeError, AttributeError, LookupError, AssertionError) as error:
        if not options:
            raise
        given = ", ".join(f"{name}={str(value)[:40]!r}" for name, value in options.items())
        raise ValueError(f"Captions cannot be written with {given}: {error}.") from error
