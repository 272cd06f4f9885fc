"""The captioner: timm's network, an LSTM that puts its pooled feature into words, and the map."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin
from transformers.utils.generic import can_return_tuple

from .caption_decoder import CaptionDecoder, DecoderState
from .caption_outputs import (
    AnteHocCaptionOutput,
    AnteHocImageCaptioningOutput,
    AnteHocImageEncoderOutput,
    ImageEncoder,
    Said,
    blaming,
)
from .configuration_captions import IGNORED, AnteHocCaptionConfig
from .map_head import DETAIL_FIELDS, MAP_FIELDS, Explanation, Size, Targets, check_count, map_fields
from .modeling_antehoc import AnteHocModel, AnteHocPreTrainedModel, PredictionKind
from .phases import Phase
from .scaling import contribution_map, full_precision, mean_of_known, size_of
from .word_maps import checked_token_ids, position_features, word_evidence, word_maps, word_targets, word_worth


class AnteHocCaptionModel(AnteHocModel):
    """The bare model of a captioner's checkpoint: features and, unless each word has its own, the map."""

    config_class = AnteHocCaptionConfig

    def _targets(self, prediction: Any) -> Targets | None:
        """None: it says no words."""
        return None


class AnteHocForImageCaptioning(AnteHocPreTrainedModel, GenerationMixin):
    """An image captioner that shows what it looked at.

    `generate` of transformers writes captions from `pixel_values` alone, greedily, with beams or by sampling;
    [`caption`] gives caption, probability and map from one pass of the backbone.

    With `map_head="contributions"` each word has a map of its own, and that of a caption is of the sum of the
    log-probabilities of its words. [`explain_words`] makes them of any caption.
    """

    config_class = AnteHocCaptionConfig
    bare_model: ClassVar[str] = "image_captioning.AnteHocCaptionModel"
    # The second pass reads the same words as the first.
    interpretation_inputs: ClassVar[tuple[str, ...]] = ("labels", "decoder_input_ids")
    # Of the first of its two graphs.
    onnx_outputs: ClassVar[tuple[str, ...]] = ("hidden", "cell", "interpretation_map")

    def __init__(self, config: AnteHocCaptionConfig) -> None:
        if config.vocab_size is None:
            raise ValueError("vocab_size must be given for a captioner: the number of tokens of its tokenizer.")
        config.is_encoder_decoder = True
        super().__init__(config)
        self._build(num_outputs=0)
        # The pooled features; some networks widen them after pooling.
        width = int(getattr(self.backbone, "head_hidden_size", None) or self.backbone.num_features)
        # After the map head, which draws its numbers apart: the decoder starts as it would without a map.
        self.decoder = CaptionDecoder(config, width)
        self.post_init()
        self.generation_config = GenerationConfig(
            bos_token_id=config.bos_token_id,
            decoder_start_token_id=config.bos_token_id,
            eos_token_id=config.eos_token_id,
            pad_token_id=config.pad_token_id,
            max_length=config.max_caption_length,
            num_beams=1,
            suppress_tokens=[config.bos_token_id, config.pad_token_id],  # they are no words
        )

    @property
    def _word_weights(self) -> Tensor:
        """(V, H), of the layer that makes logits of what the LSTM gives."""
        return self.decoder.output.weight

    @property
    def prediction_kind(self) -> PredictionKind:
        """Distributions over the vocabulary."""
        return "categorical"

    def prediction(self, outputs: Any) -> Tensor:
        """The logits of the words, (B, T, V): of the reference, or of the first pass's own caption."""
        return outputs.logits if outputs.generated_logits is None else outputs.generated_logits

    def prediction_mask(self, inputs: dict[str, Any]) -> Tensor | None:
        """(B, T) bool: words, and not padding."""
        labels = inputs.get("labels")
        return None if labels is None else labels != IGNORED

    def interpretation_inputs_from(self, outputs: Any) -> dict[str, Any]:
        """Inputs of the second pass that the first has made: its own caption, with `caption_target="generated"`; where
        each word has a map, the features that the words are said from.
        """
        made: dict[str, Any] = {}
        if outputs.generated_logits is not None:
            made = {"decoder_input_ids": outputs.generated_input_ids, "labels": outputs.generated_labels}
        if self.map_head.per_target:
            made["encoder_outputs"] = {"last_hidden_state": outputs.encoder_last_hidden_state.detach()}
        return made

    # -- words as targets of maps -------------------------------------------------------------------------------

    def worth(self, prediction: Tensor, whole: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """The log-probability of each word of `labels` (B, T), given those before it, see [`word_worth`]."""
        assert labels is not None
        return word_worth(prediction, labels)

    def _targets(self, prediction: Said | None) -> Targets | None:
        """The words, all of which are explained together unless one is named."""
        if not self.map_head.per_target:
            return None
        assert prediction is not None
        said = prediction
        return word_targets(said.logits, said.labels, said.read, self._word_weights, self.config.pad_token_id)

    def explain_words(
        self,
        encoder_outputs: Any,
        sequences: Tensor,
        size: Size,
        counted: Tensor | None = None,
        detailed: bool = False,
    ) -> Explanation:
        """The map of captions: where each word has its own, of the words that count together; else that of the images.

        Args:
            encoder_outputs (`AnteHocImageEncoderOutput`): of [`encode`]; or a dictionary of its `tap_values` and the
                decoder's `state` before the first word.
            sequences (`Tensor`): (B, T) token ids, beginning with the start token, padded after the end token.
            size (`tuple[int, int]`): height and width of the images.
            counted (`Tensor`, *optional*): (B, T - 1) bool, the words to explain; None: all but padding.
            detailed (`bool`): also the contributions to each word, (B, T - 1, g, w).

        Raises:
            ValueError: if a word is not in the vocabulary.
        """
        sequences = checked_token_ids(sequences, self.config, "sequences", self._word_weights)
        if not self.map_head.per_target:
            return Explanation(**{name: encoder_outputs.get(name) for name in MAP_FIELDS + DETAIL_FIELDS})
        left_out = sequences[:, 1:] == self.config.pad_token_id
        if counted is not None:
            left_out = left_out | ~counted
        labels = sequences[:, 1:].masked_fill(left_out, IGNORED)
        state = encoder_outputs.get("state")
        features = state.hidden if state is not None else encoder_outputs["last_hidden_state"].squeeze(1)
        said = self._say(features, sequences[:, :-1], labels, state)
        return self.map_head(encoder_outputs["tap_values"], size, self._targets(said), detailed)

    def interpretation(self, pixel_values: Tensor, target: Any = None) -> Explanation:
        """The map of normalised images alone.

        Args:
            pixel_values (`Tensor`): normalised images, (B, 3, H, W).
            target (*optional*): where each word has a map: token ids (B, T) of captions, beginning with the start
                token, or a tuple of these and of which words to explain, (B, T - 1) bool; None: the greedy caption.

        Raises:
            ValueError: if these are no ids of the vocabulary, or the model has one map an image.
        """
        self._check_named(target)
        encoded = self.encode(pixel_values, output_attention_maps=True)
        if target is None:
            target = self.generate(pixel_values, encoder_outputs=encoded)  # type: ignore[misc,operator]
        sequences, counted = target if isinstance(target, tuple) else (target, None)
        return self.explain_words(encoded, sequences, size_of(pixel_values), counted, detailed=True)

    def get_encoder(self, modality: str | None = None) -> Any:
        """The image's part, as `generate` calls it once an image."""
        return ImageEncoder(self.encode)

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: DecoderState | None = None,
        use_cache: bool | None = None,
        output_attention_maps: bool = False,
        output_hidden_states: bool | None = None,
        tap_values: Tensor | None = None,
        phase: Phase | None = None,
    ) -> AnteHocImageCaptioningOutput:
        """What comes after the words so far, and their map.

        Args:
            pixel_values (`Tensor`, *optional*): normalised images, (B, 3, H, W); not needed with `encoder_outputs`.
            labels (`Tensor`, *optional*): (B, T) token ids to say, without the start token, with the end token, -100
                where there is none.
            decoder_input_ids (`Tensor`, *optional*): (B, T) token ids to read, beginning with the start token. Made
                from `labels` if not given; without either, the start token alone.
            encoder_outputs (`AnteHocImageEncoderOutput`, *optional*): what [`encode`] gave for the images.
            past_key_values (`DecoderState`, *optional*): of the words before `decoder_input_ids`.
            use_cache (`bool`, *optional*): also return the decoder's state after the last word.
            output_attention_maps, output_hidden_states, tap_values, phase: as in
                [`AnteHocForImageClassification.forward`].

        Raises:
            ValueError: if images or words have a wrong shape, or a word is not in the vocabulary.
        """
        if encoder_outputs is not None:
            count = len(encoder_outputs["last_hidden_state"])
        elif pixel_values is not None:
            count = len(self._checked_pixels(pixel_values))
        else:
            raise ValueError("A captioner needs pixel_values, or the encoder_outputs of an earlier pass.")
        like = self._word_weights
        if labels is not None:
            labels = checked_token_ids(labels, self.config, "labels", like, count)
        if decoder_input_ids is not None:
            decoder_input_ids = checked_token_ids(decoder_input_ids, self.config, "decoder_input_ids", like, count)

        def say(features: Tensor) -> Said:
            return self._say(features, decoder_input_ids, labels, past_key_values)

        known, explained, taps = None, Explanation(), None
        if encoder_outputs is not None:
            known = say(encoder_outputs["last_hidden_state"].squeeze(1))
            explained = Explanation(**{name: encoder_outputs.get(name) for name in MAP_FIELDS + DETAIL_FIELDS})
        said = known
        if encoder_outputs is None or phase == "interpretation":
            assert pixel_values is not None
            said, explained, taps = self._run_phase(
                pixel_values,
                lambda images: say(self.backbone(images)),
                phase,
                tap_values,
                output_attention_maps,
                output_hidden_states,
                known,
            )
        parts: dict[str, Any] = {}
        if said is not None:  # contributions have no prediction of a second pass
            parts = {"logits": said.logits, "encoder_last_hidden_state": said.features.unsqueeze(1)}
            parts["past_key_values"] = said.state if use_cache else None
            # The second pass is compared with the first, not with the labels.
            if labels is not None and phase != "interpretation":
                loss = F.cross_entropy(said.logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
                parts["loss"] = mean_of_known(loss, labels != IGNORED)
            if self.config.caption_target == "generated" and phase == "task" and self._masked_pass is None:
                never = list(self.generation_config.suppress_tokens or ())
                parts |= self.decoder.own_caption(said.features, self.config, never)
        return AnteHocImageCaptioningOutput(
            **parts, **map_fields(explained, output_attention_maps, training=phase is not None), hidden_states=taps
        )

    def _say(
        self, features: Tensor, decoder_input_ids: Tensor | None, labels: Tensor | None, state: DecoderState | None
    ) -> Said:
        """The decoder's pass over the words to read; without labels those count that are likeliest to follow."""
        words = decoder_input_ids
        if words is None and labels is not None:
            words = self.prepare_decoder_input_ids_from_labels(labels)
        elif words is None:
            words = torch.full((len(features), 1), self.config.bos_token_id, device=features.device)
        read, state = self.decoder.read(words, self.decoder.start(features) if state is None else state)
        logits = self.decoder.output(self.decoder.dropout(read))
        return Said(features, logits.detach().argmax(dim=-1) if labels is None else labels, read, logits, state)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """The words to read before those to say: (B, T), shifted by one, beginning with the start token."""
        before = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, self.config.pad_token_id)
        return torch.cat([torch.full_like(labels[:, :1], self.config.bos_token_id), before], dim=1)

    # -- captions -----------------------------------------------------------------------------------------------

    def encode(
        self, pixel_values: Tensor, output_attention_maps: bool = False, output_features: bool = False
    ) -> AnteHocImageEncoderOutput:
        """One pass of the backbone: all that captions of the images, and their map, need.

        Args:
            pixel_values (`Tensor`): normalised images, (B, 3, H, W).
            output_attention_maps (`bool`): also return what the map was made from.
            output_features (`bool`): also return the features before pooling.
        """
        pixel_values = self._checked_pixels(pixel_values)

        def run() -> tuple[Tensor | None, Tensor]:
            if not output_features:
                return None, self.backbone(pixel_values)
            features = self.backbone.forward_features(pixel_values)
            return features, self.backbone.forward_head(features)

        (features, pooled), values, _ = self._run_backbone(pixel_values, run)
        parts: dict[str, Any] = {"tap_values": values}
        if not self.map_head.per_target:
            explained = self.map_head(values, size_of(pixel_values), None, output_attention_maps)
            parts = map_fields(explained, output_attention_maps)
        return AnteHocImageEncoderOutput(last_hidden_state=pooled.unsqueeze(1), features=features, **parts)

    @torch.no_grad()
    def caption(self, pixel_values: Tensor, output_word_maps: bool = False, **options: Any) -> AnteHocCaptionOutput:
        """Captions with their probability and map, from one pass of the backbone.

        Args:
            pixel_values (`Tensor`): normalised images, (B, 3, H, W).
            output_word_maps (`bool`): also return a map for each word, see [`word_maps`].
            options: of `generate`, e.g. `num_beams=3`, `do_sample=True`. With `num_return_sequences=n` the results
                have B·n rows, those of an image in a row.

        Raises:
            ValueError: if the images have a wrong shape, an option makes no sense, or, for maps of words, the
                backbone's features are no grid.
        """
        of_evidence = output_word_maps and not self.map_head.per_target
        encoded = self.encode(pixel_values, output_features=of_evidence)
        pooled = AnteHocImageEncoderOutput(last_hidden_state=encoded.last_hidden_state)
        writer: Any = self  # transformers declares `generate` for a protocol of its own
        options = {name: value for name, value in options.items() if value is not None}
        for name in ("num_beams", "num_return_sequences", "max_length", "max_new_tokens"):
            check_count(name, options.get(name), optional=True)
        if len(pixel_values):
            with blaming(options):
                written = writer.generate(pixel_values=pixel_values, encoder_outputs=pooled, **options)
            sequences = written if isinstance(written, Tensor) else written.sequences
            encoded = encoded.repeated(len(sequences) // len(pixel_values))
        else:  # transformers fails
            sequences = torch.full((0, 2), self.config.pad_token_id, device=self.device)
        said = self.log_probabilities(encoded, sequences)
        words, size = sequences[:, 1:] != self.config.pad_token_id, size_of(pixel_values)
        explained = self.explain_words(encoded, sequences, size)
        return AnteHocCaptionOutput(
            sequences=sequences,
            log_probabilities=said,
            probability=(said.sum(dim=1) / words.sum(dim=1).clamp_min(1)).exp(),
            interpretation_map=explained.interpretation_map,
            degenerate=explained.degenerate,
            word_maps=self.maps_of_words(encoded, sequences, size) if output_word_maps else None,
        )

    def log_probabilities(self, encoder_outputs: Any, sequences: Tensor) -> Tensor:
        """Of the tokens of a caption, each given those before it (teacher forcing).

        Args:
            encoder_outputs (`AnteHocImageEncoderOutput`): of the images.
            sequences (`Tensor`): (B, T) token ids, beginning with the start token, padded after the end token.

        Returns:
            `Tensor`: (B, T - 1) float32, natural logarithms; 0 for padding.
        """
        sequences = checked_token_ids(sequences, self.config, "sequences", self._word_weights)
        state = self.decoder.start(encoder_outputs["last_hidden_state"].squeeze(1))
        logits, _ = self.decoder(sequences[:, :-1], state)
        followers = sequences[:, 1:]
        said = logits.float().log_softmax(dim=-1).gather(2, followers[..., None]).squeeze(2)
        return said.masked_fill(followers == self.config.pad_token_id, 0.0)

    @torch.no_grad()
    def word_maps(self, pixel_values: Tensor, sequences: Tensor) -> Tensor:
        """A map for each word of a caption: what each patch contributes to its log-probability; with one map an image,
        that map, weighted by where the decoder finds the word. An extension of ours; the paper has one map an image.

        Args:
            pixel_values (`Tensor`): normalised images, (B, 3, H, W).
            sequences (`Tensor`): (B, T) token ids, beginning with the start token, as `generate` gives them.

        Returns:
            `Tensor`: (B, T - 1, 1, H, W), float32 in [0, 1], for each token but the first; zeros for padding.

        Raises:
            ValueError: if shapes or words don't fit, or the backbone's features are no grid of positions.
        """
        sequences = checked_token_ids(
            sequences, self.config, "sequences", self._word_weights, len(self._checked_pixels(pixel_values))
        )
        encoded = self.encode(pixel_values, output_features=not self.map_head.per_target)
        return self.maps_of_words(encoded, sequences, size_of(pixel_values))

    def maps_of_words(self, encoded: Any, sequences: Tensor, size: Size) -> Tensor:
        """As [`word_maps`], of what [`encode`] made of images of this height and width."""
        if self.map_head.per_target:
            contributions = self.explain_words(encoded, sequences, size, detailed=True).contributions
            assert contributions is not None
            maps = contribution_map(contributions, size, self.map_head.floor)[0].unsqueeze(2)
        else:
            positions, grid = position_features(self.backbone, encoded.features)
            evidence = word_evidence(self.decoder, encoded.last_hidden_state.squeeze(1), positions, sequences)
            with full_precision(evidence):
                maps = word_maps(evidence, grid, encoded.interpretation_map)
        padding = sequences[:, 1:] == self.config.pad_token_id
        return maps.masked_fill(padding[:, :, None, None, None], 0.0)

    # -- what `generate` asks for -------------------------------------------------------------------------------

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """The first step makes the state that the next ones go on from; there are no keys and values to keep."""
        return False


AnteHocForImageCaptioning.register_for_auto_class("AutoModelForImageTextToText")
