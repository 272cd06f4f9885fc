"""Captions of a data set: their columns, the words in them, and how both become tensors."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import datasets
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import EvalPrediction, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from antehoc_hf.evaluation.captions import CAPTION_NORMALIZER, normalise_caption
from antehoc_hf.modeling.configuration_captions import IGNORED
from antehoc_hf.training.data.augmentation import ImageProcessor, Transform, evaluation_transform, train_transform
from antehoc_hf.training.data.columns import column_values, find_column
from antehoc_hf.training.data.errors import DataError
from antehoc_hf.training.data.targets import Encode

logger = logging.getLogger(__name__)

PAD, BOS, EOS, UNKNOWN = "<pad>", "<bos>", "<eos>", "<unk>"
SPECIAL = (PAD, BOS, EOS, UNKNOWN)

_NAMES = ({"caption", "captions"}, {"sentence", "sentences", "text", "texts", "description", "descriptions", "raw"})


# -- columns ----------------------------------------------------------------------------------------------------------


def find_caption_columns(
    features: datasets.Features, override: Sequence[str] | None = None, *, source: str = "the data set"
) -> list[str]:
    """The columns that hold the captions: one of text or of lists of texts, or several that are numbered (`caption_0`
    …).

    Args:
        features: the features of the data set.
        override: the columns the user named, which are only checked to hold text.
        source: how to call the data set in an error.

    Raises:
        DataError: no such column, or several kinds which are equally likely; the sentence names the columns there are.
    """
    if override:
        for name in override:
            if name not in features:
                raise DataError(
                    f"caption_column={name!r} is not a column of {source} (columns: {', '.join(features)})."
                )
            if not _holds_text(features[name]):
                raise DataError(f"Column {name!r} of {source} does not hold text, so it can't be the captions.")
        return list(override)
    numbered = _numbered(features)
    # Numbered columns stand for one under the name they share.
    candidates = {
        **{name: feature for name, feature in features.items() if not any(name in own for own in numbered.values())},
        **{stem: features[own[0]] for stem, own in numbered.items()},
    }
    found = find_column(datasets.Features(candidates), "caption", _NAMES, _holds_text, source=source)
    return numbered.get(found, [found])


def _numbered(features: datasets.Features) -> dict[str, list[str]]:
    """Name that numbered columns share, such as "caption" → those columns in order; not where the name is taken."""
    known = set.union(*_NAMES)
    stems: dict[str, list[tuple[int, str]]] = {}
    for name, feature in features.items():
        match = re.fullmatch(r"(.*?)[ _.-]?(\d+)", name)
        if match and match[1].lower() in known and _holds_text(feature):
            stems.setdefault(match[1], []).append((int(match[2]), name))
    return {stem: [name for _, name in sorted(own)] for stem, own in stems.items() if stem not in features}


def _holds_text(feature: object) -> bool:
    inner = feature.feature if isinstance(feature, datasets.List | datasets.LargeList) else feature
    return isinstance(inner, datasets.Value) and inner.dtype in ("string", "large_string")


# -- words ------------------------------------------------------------------------------------------------------------


def build_tokenizer(captions: Sequence[str], min_word_count: int, max_caption_length: int) -> PreTrainedTokenizerBase:
    """A word-level tokenizer of the words that occur often enough; the rest become `<unk>`.

    It puts captions into lower case, drops punctuation and ends them with `<eos>`; `<bos>` is put before them by the
    model. It needs no code of ours: `AutoTokenizer` loads it.

    Args:
        captions: of the training images.
        min_word_count (`int`): how often a word must occur.
        max_caption_length (`int`): of the model, in tokens, start and end included.

    Raises:
        DataError: if no word is left.
    """
    counts = Counter(word for caption in captions for word in normalise_caption(caption).split())
    # Frequent words first; equally frequent ones in the alphabet's order, so that one data set gives one vocabulary.
    words = sorted((word for word, count in counts.items() if count >= min_word_count), key=lambda w: (-counts[w], w))
    if not words:
        raise DataError(
            f"No word occurs {min_word_count} times in the {len(captions)} training captions: lower min_word_count."
        )
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = CAPTION_NORMALIZER
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, vocabulary[EOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        model_max_length=max_caption_length - 1,  # the model adds the start
        clean_up_tokenization_spaces=False,
    )


# -- what a model learns from -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CaptionSpace:
    """The captions of a data set, as `antehoc_hf.training.data.targets.Targets`.

    Attributes:
        columns: those of the captions.
        tokenizer: None until the training split is known, see [`with_vocabulary`].
    """

    columns: list[str]
    tokenizer: PreTrainedTokenizerBase | None = field(default=None, repr=False)

    def references(self, row: Mapping[str, str | list[str | None] | None]) -> list[str]:
        """All captions of an image, as they are written, without empty ones."""
        texts: list[str | None] = []
        for column in self.columns:
            value = row[column]
            texts += [value] if isinstance(value, str) else (value or [])
        return [text for text in texts if text is not None and normalise_caption(text)]

    def all_references(self, dataset: datasets.Dataset) -> list[list[str]]:
        """Those of every image of a split."""
        values = [column_values(dataset, column) for column in self.columns]
        return [self.references(dict(zip(self.columns, row, strict=True))) for row in zip(*values, strict=True)]

    def check(self, dataset: datasets.Dataset, split: str) -> None:
        """Every image has a caption with a word in it.

        Raises:
            DataError: naming the row and the split.
        """
        for position, texts in enumerate(self.all_references(dataset)):
            if not texts:
                named = ", ".join(map(repr, self.columns))
                raise DataError(
                    f"Row {position} of split {split!r} has no caption with a word in it ({named}): write one or "
                    "remove the row."
                )

    def unlabelled(self, dataset: datasets.Dataset) -> list[int]:
        """The rows without a caption."""
        return [row for row, texts in enumerate(self.all_references(dataset)) if not texts]

    def strata(self, dataset: datasets.Dataset) -> list[int] | None:
        """None: captions have no classes."""
        return None

    def with_vocabulary(self, dataset: datasets.Dataset, min_word_count: int, max_caption_length: int) -> CaptionSpace:
        """The same with a tokenizer of the words of a split."""
        captions = [text for texts in self.all_references(dataset) for text in texts]
        return replace(self, tokenizer=build_tokenizer(captions, min_word_count, max_caption_length))

    def known_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, which is known once the data are loaded."""
        assert self.tokenizer is not None, "the data set was loaded without a tokenizer"
        return self.tokenizer

    def warn_of_losses(self, dataset: datasets.Dataset, split: str) -> None:
        """Says how many captions of a split are cut off, and how many of its words are unknown."""
        tokenizer = self.known_tokenizer()
        captions = [text for texts in self.all_references(dataset) for text in texts]
        ids = tokenizer(captions, truncation=False, verbose=False)["input_ids"]
        longest = int(tokenizer.model_max_length)
        cut = sum(len(own) > longest for own in ids)
        words = sum(len(own) - 1 for own in ids)
        unknown = sum(own.count(tokenizer.unk_token_id) for own in ids)
        if cut:
            logger.warning(
                "%d of the %d captions of split %r are longer than %d words and are cut off there "
                "(max_caption_length=%d).", cut, len(captions), split, longest - 1, longest + 1,
            )  # fmt: skip
        if unknown:
            logger.warning(
                "%d of the %d words in the captions of split %r (%.1f %%) are not in the vocabulary and become %s.",
                unknown, words, split, 100 * unknown / words, UNKNOWN,
            )  # fmt: skip

    def encoder(self, processor: ImageProcessor, augmentation: str | None) -> Encode:
        """Items are {"pixel_values": (3, H, W) float32, "labels": (T,) int64}, one caption an image: in training one
        drawn at random whenever the image is read, else its first.
        """
        transform = train_transform(processor, augmentation) if augmentation else evaluation_transform(processor)
        return _Encoder(self, transform, draws=augmentation is not None)


@dataclass(frozen=True)
class _Encoder:
    """A class, so that data-loader workers can be sent it."""

    space: CaptionSpace
    transform: Transform
    draws: bool

    def __call__(self, images: list[Image.Image], values: Mapping[str, Sequence[object]]) -> list[dict[str, Tensor]]:
        columns = self.space.columns
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*(values[name] for name in columns), strict=True)]
        captions = [self._one(self.space.references(row)) for row in rows]
        # Cut off here: the tokenizer's own truncation would stay switched on in it, and be saved with it.
        tokenizer = self.space.known_tokenizer()
        longest = int(tokenizer.model_max_length)
        ids = tokenizer(captions, truncation=False, verbose=False)["input_ids"]
        ids = [own if len(own) <= longest else [*own[: longest - 1], own[-1]] for own in ids]
        return [
            {"pixel_values": pixels, "labels": torch.tensor(own)}
            for pixels, own in zip(self.transform(images), ids, strict=True)
        ]

    def _one(self, captions: list[str]) -> str:
        # torch's global generator, as the augmentation: seeded, and restored when a run is resumed.
        return captions[int(torch.randint(len(captions), ()))] if self.draws and len(captions) > 1 else captions[0]


@dataclass(frozen=True)
class CaptionCollator:
    """Items of different length as one batch: `pixel_values` (B, 3, H, W), `labels` (B, T) with -100 after the end,
    and `decoder_input_ids` (B, T), the words before them.

    Args:
        pad_token_id, bos_token_id (`int`): of the tokenizer.
    """

    pad_token_id: int
    bos_token_id: int

    def __call__(self, items: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        labels = [item["labels"] for item in items]
        padded = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=IGNORED)
        before = padded[:, :-1].masked_fill(padded[:, :-1] == IGNORED, self.pad_token_id)
        return {
            "pixel_values": torch.stack([item["pixel_values"] for item in items]),
            "labels": padded,
            "decoder_input_ids": torch.cat([torch.full_like(padded[:, :1], self.bos_token_id), before], dim=1),
        }


def said_words(predictions: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """The likeliest word at each place, (B, T): what the Trainer gathers instead of (B, T, V) logits."""
    logits = predictions[0] if isinstance(predictions, tuple) else predictions
    return logits.argmax(dim=-1)


def token_accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """`token_accuracy`: share in [0, 1] of the words that are likeliest given the words before them."""
    labels = prediction.label_ids
    said = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    counted = labels != IGNORED
    return {"token_accuracy": float((said == labels)[counted].mean())}
