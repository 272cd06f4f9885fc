"""Captions: how near they come to what people wrote, and how probable they are.

Source: Papineni et al., "BLEU", ACL 2002.
"""

import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Regex, normalizers
from torch import Tensor

from antehoc_hf.modeling.configuration_captions import IGNORED

_LONGEST = 4  # BLEU-1 … BLEU-4
_OFTEN = 10  # times that a word must be said, or images described, before anything is said of them
_NAMED = 6  # words in a sentence
_NEARLY_ALL = 0.9  # of the images
_OTHERS = 10  # images whose references a caption is compared with, next to its own

# Lower case and no punctuation, as captions of Flickr8k are usually trained on and scored; apostrophes within a word
# stay. The tokenizer of a captioner holds these very steps.
CAPTION_NORMALIZER = normalizers.Sequence(
    [
        normalizers.NFKC(),
        normalizers.Lowercase(),
        normalizers.Replace("’", "'"),
        normalizers.Replace(Regex(r"[^\p{L}\p{M}\p{N}']+"), " "),
        normalizers.Replace(Regex(r"(?<![\p{L}\p{M}\p{N}])'+|'+(?![\p{L}\p{M}\p{N}])"), " "),
    ]
)


def normalise_caption(caption: str) -> str:
    """In lower case, without punctuation, words separated by single spaces."""
    return " ".join(CAPTION_NORMALIZER.normalize_str(caption).split())


def bleu(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """BLEU-1 to BLEU-4 of a corpus, against all references of each image.

    Captions and references are normalised by [`normalise_caption`] and split at spaces; n-grams are clipped by the
    reference that has most of them, the brevity penalty takes the reference nearest in length, and nothing is
    smoothed, as is usual for captions. Computed by sacrebleu.

    Args:
        captions: N of them.
        references: for each, one or more.

    Returns:
        `dict`: `bleu_1` … `bleu_4`, in percent.

    Raises:
        ValueError: if the numbers differ, there is no caption, or an image has no reference.
    """
    from sacrebleu.metrics import BLEU

    if not captions or len(captions) != len(references):
        raise ValueError(
            f"There are {len(captions)} captions and references for {len(references)}: give one for each."
        )
    if not all(references):
        raise ValueError("Every caption needs at least one reference.")
    said = [normalise_caption(caption) for caption in captions]
    most = max(map(len, references))
    # One list for each place among the references; None where an image has fewer of them.
    places: Any = [
        [normalise_caption(own[place]) if place < len(own) else None for own in references] for place in range(most)
    ]
    scores = {}
    for longest in range(1, _LONGEST + 1):
        # Without its own tokenisation; `force` silences a warning about captions that end in " ."
        metric = BLEU(tokenize="none", smooth_method="none", max_ngram_order=longest, force=True)
        scores[f"bleu_{longest}"] = float(metric.corpus_score(said, places).score)
    return scores


def unlearned_words(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[str]:
    """Words that are said whatever the image shows: most of the images they are said of have them in no reference, and
    they fit no better (within two standard errors) than they would fit images drawn by chance.

    Args:
        captions: N of them, of images that were not trained on.
        references: for each, one or more.

    Returns:
        `list[str]`: such words that are in at least ten captions, those said most often first.
    """
    said, right, known = Counter[str](), Counter[str](), Counter[str]()
    for caption, own in zip(captions, references, strict=True):
        spoken = set(normalise_caption(caption).split())
        fitting = {word for text in own for word in normalise_caption(text).split()}
        said.update(spoken)
        right.update(spoken & fitting)
        known.update(fitting)
    unlearned = []
    for word, times in said.most_common():
        chance = known[word] / len(captions)
        by_chance = times * chance + 2 * math.sqrt(times * chance * (1 - chance))
        if times >= _OFTEN and right[word] < times / 2 and right[word] <= by_chance:
            unlearned.append(word)
    return unlearned


def not_learned(words: Sequence[str]) -> str:
    """A sentence about the words that [`unlearned_words`] found; empty where there are none."""
    if not words:
        return ""
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    named = ", ".join(words[:_NAMED]) + more
    return f"Words not learned (right no more often than by chance): {named}. Their maps explain nothing."


def as_one_caption(captions: Sequence[str], references: Sequence[Sequence[str]]) -> str:
    """A sentence if the captions say nothing of their images: (nearly) all are the same and mostly not what a person
    wrote, or their words are in the references of their own images no more often (within two standard errors) than in
    those of other images.

    Args:
        captions: N of them, of images that were not trained on.
        references: for each, one or more.

    Returns:
        `str`: empty where they depend on the image, and for a single image, which shows neither.
    """
    said = [normalise_caption(caption) for caption in captions]
    count = len(said)
    if count < 2:
        return ""
    nothing = "these maps explain nothing"
    written = [{normalise_caption(text) for text in own} for own in references]
    most, times = Counter(said).most_common(1)[0]
    named = repr(textwrap.shorten(most, 80, placeholder=" …"))
    fitting = sum(caption == most and most in own for caption, own in zip(said, written, strict=True))
    if times == count:
        return f"Every image gets the same caption ({named}): {nothing}."
    if times >= _NEARLY_ALL * count and fitting < times / 2:
        return f"Nearly every image gets the same caption ({named}, {times} of {count}): {nothing}."
    words = [set(caption.split()) for caption in said]
    known = [{word for text in own for word in text.split()} for own in written]
    own, others, error = _fit_of_words(words, known)
    if count < _OFTEN or own - others > 2 * error:
        return ""
    shares = f"{own:.0%} and {others:.0%} of their words"
    return f"Captions fit their own images hardly better than others ({shares}): {nothing}."


def _fit_of_words(words: Sequence[set[str]], known: Sequence[set[str]]) -> tuple[float, float, float]:
    """The mean share of an image's words that it is known by, that by which others are known, and the standard error
    of their difference.
    """
    count = len(words)

    def share(image: int, other: int) -> float:
        return len(words[image] & known[other]) / max(len(words[image]), 1)

    steps = sorted({max(1, count * step // (_OTHERS + 1)) for step in range(1, _OTHERS + 1)} - {count})
    own = torch.tensor([share(image, image) for image in range(count)], dtype=torch.float64)
    others = torch.tensor(
        [sum(share(image, (image + step) % count) for step in steps) / len(steps) for image in range(count)],
        dtype=torch.float64,
    )
    return float(own.mean()), float(others.mean()), float((own - others).std() / math.sqrt(count))


def caption_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Length-normalised probability of each caption: exp of the mean of its tokens' log-probabilities.

    Args:
        logits (`Tensor`): (B, T, V), of each token given those before it.
        labels (`Tensor`): (B, T) token ids, -100 where there is none.

    Returns:
        `Tensor`: (B,) float32 in [0, 1]; NaN for a caption without tokens.

    Raises:
        ValueError: if the shapes don't fit.
    """
    if logits.ndim != 3 or labels.shape != logits.shape[:2]:
        raise ValueError(
            f"logits must be (B, T, V) and labels (B, T), but they are {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}."
        )
    counted = labels != IGNORED
    chosen = labels.where(counted, torch.zeros_like(labels))
    said = logits.float().log_softmax(dim=-1).gather(2, chosen[..., None]).squeeze(2)
    return (said.masked_fill(~counted, 0.0).sum(dim=1) / counted.sum(dim=1)).exp()
