"""What the options of captioning must be, and whether a tokenizer is the model's own."""

from typing import Any

SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
IGNORED = -100  # a label that is no word, as in transformers
SHORTEST_LIMIT = 3  # start, one word, end


def check_caption_options(config: Any) -> None:
    """
    Looks at the options of captioning in a configuration; without a `vocab_size` there are no words to look at.

    Raises:
        ValueError: for a value that makes no sense, in one sentence.
    """
    for name in ("decoder_embedding_size", "decoder_hidden_size"):
        if not _is_count(getattr(config, name)):
            raise ValueError(f"{name}={getattr(config, name)!r} must be a whole number of at least 1.")
    if not _is_count(config.max_caption_length) or config.max_caption_length < SHORTEST_LIMIT:
        raise ValueError(
            f"max_caption_length={config.max_caption_length!r} must be a whole number of at least {SHORTEST_LIMIT}: "
            "start, one word, end."
        )
    dropout = config.decoder_dropout
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ValueError(f"decoder_dropout={dropout!r} must be a number from 0 to below 1.")
    if config.vocab_size is None:
        return
    if not _is_count(config.vocab_size):
        raise ValueError(f"vocab_size={config.vocab_size!r} must be a whole number of at least 1.")
    ids = [getattr(config, name) for name in SPECIAL_IDS]
    for name, value in zip(SPECIAL_IDS, ids, strict=True):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < config.vocab_size:
            raise ValueError(f"{name}={value!r} must be a token of the vocabulary, 0…{config.vocab_size - 1}.")
    if len(set(ids)) < len(ids):
        raise ValueError(f"{', '.join(SPECIAL_IDS)} must be three different tokens, not {', '.join(map(str, ids))}.")


def check_tokenizer(tokenizer: Any, config: Any) -> None:
    """
    Whether a tokenizer numbers the words as the model does.

    Args:
        tokenizer: of transformers.
        config (`AnteHocConfig`): of the model.

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


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
