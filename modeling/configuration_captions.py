"""Configuration of the captioner, and whether a tokenizer is the model's own."""

import math
from typing import Any, ClassVar

from .configuration_antehoc import AnteHocConfig
from .map_head import check_count, is_number, is_whole

SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
IGNORED = -100  # a label to leave out, as in transformers
MOST_CHANNELS = 65_536
SHORTEST_LIMIT = 3  # start, one word, end
CHOICES: dict[str, tuple[str, ...]] = {
    "decoder_image_input": ("state", "token"),
    "caption_target": ("reference", "generated"),
}


class AnteHocCaptionConfig(AnteHocConfig):
    r"""Configuration of [`AnteHocForImageCaptioning`].

    Args:
        backbone, image_size, map_head, num_attention_maps, … (*optional*): see [`AnteHocConfig`].
        vocab_size (`int`, *optional*): Number V of tokens of the tokenizer.
        bos_token_id, eos_token_id, pad_token_id (`int`, *optional*): Ids of the tokenizer's special tokens.
        decoder_embedding_size (`int`, *optional*, defaults to 256): Width of a word's embedding.
        decoder_hidden_size (`int`, *optional*, defaults to 512): Width of the LSTM's state.
        decoder_dropout (`float`, *optional*, defaults to 0.0): Dropout of embeddings and of the LSTM's output.
        decoder_image_input (`str`, *optional*, defaults to `"state"`):
            Where the pooled feature enters the LSTM: as its initial `"state"` or as the first `"token"`.
        max_caption_length (`int`, *optional*, defaults to 34): Longest caption in tokens, start and end included.
        caption_target (`str`, *optional*, defaults to `"reference"`):
            Which words the two passes are compared on: the `"reference"` caption's, or the `"generated"` (greedy)
            caption's of the first pass.

    Raises:
        ValueError: for any value that makes no sense, in one sentence.
    """

    model_type = "antehoc_captioning"

    vocab_size: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None
    decoder_embedding_size: int = 256
    decoder_hidden_size: int = 512
    decoder_dropout: float = 0.0
    decoder_image_input: str = "state"
    max_caption_length: int = 34
    caption_target: str = "reference"

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {', '.join(map(repr, choices))}.")
        check_count("decoder_embedding_size", self.decoder_embedding_size, most=MOST_CHANNELS)
        check_count("decoder_hidden_size", self.decoder_hidden_size, most=MOST_CHANNELS)
        if not is_whole(self.max_caption_length) or self.max_caption_length < SHORTEST_LIMIT:
            raise ValueError(
                f"max_caption_length={self.max_caption_length!r} must be a whole number of at least {SHORTEST_LIMIT}: "
                "start, one word, end."
            )
        if not is_number(self.decoder_dropout) or not 0 <= self.decoder_dropout < 1:
            raise ValueError(f"decoder_dropout={self.decoder_dropout!r} must be a number from 0 to below 1.")
        if self.vocab_size is not None:
            self._check_words()

    map_floor: ClassVar[str] = "zero"

    @property
    def num_targets(self) -> int:
        """The words that there are."""
        return self.vocab_size or 0

    @property
    def num_outputs(self) -> int:
        """0: the pooled feature goes to the decoder."""
        return 0

    @property
    def query_size(self) -> int:
        """The decoder's state before a word, the weights by which it says that word, and its log-probability."""
        return 2 * self.decoder_hidden_size + 1

    @property
    def worth_of_nothing(self) -> float:
        """The log-probability of a word if all are as likely."""
        return -math.log(self.num_targets)

    @property
    def has_classes(self) -> bool:
        """False: an image has as many words as its caption, and another caption has others."""
        return False

    def _check_words(self) -> None:
        assert self.vocab_size is not None
        check_count("vocab_size", self.vocab_size)
        ids = [getattr(self, name) for name in SPECIAL_IDS]
        for name, value in zip(SPECIAL_IDS, ids, strict=True):
            if not is_whole(value) or not 0 <= value < self.vocab_size:
                raise ValueError(f"{name}={value!r} must be a token of the vocabulary, 0…{self.vocab_size - 1}.")
        if len(set(ids)) < len(ids):
            raise ValueError(
                f"{', '.join(SPECIAL_IDS)} must be three different tokens, not {', '.join(map(str, ids))}."
            )


def check_tokenizer(tokenizer: Any, config: Any) -> None:
    """Whether a tokenizer numbers the words as the model does.

    Args:
        tokenizer: of transformers.
        config ([`AnteHocCaptionConfig`]): of the model.

    Raises:
        ValueError: if the number of tokens or one of the special tokens is another.
    """
    if len(tokenizer) != config.vocab_size:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens and the model {config.vocab_size}: they do not belong "
            "together. Load both from the same folder."
        )
    for name in SPECIAL_IDS:
        if getattr(tokenizer, name, None) != getattr(config, name):
            raise ValueError(
                f"The tokenizer has {name}={getattr(tokenizer, name, None)!r} and the model "
                f"{getattr(config, name)!r}: they do not belong together. Load both from the same folder."
            )


AnteHocCaptionConfig.register_for_auto_class()
