"""A map for each word of a caption, from the same network: an extension of ours. The paper has one map an image.

Where each word has contributions of its own, words are targets like classes, and what they are worth is the logarithm
of their probability. The rest of this file makes something of a single map an image.

The pooled feature that the decoder reads is an average over positions, so each position has a feature of its own, and
the decoder can be asked what it would say of that position. A word's evidence at a position is how much likelier the
word becomes when that position's feature stands for the pooled one. No gradient and no second network is needed.

It distinguishes the words of a caption, where the decoder has learned them; it does not prove where it looked.
"""

from typing import Any

import torch
from torch import Tensor

from .caption_decoder import CaptionDecoder
from .configuration_captions import IGNORED
from .map_head import Targets
from .scaling import minmax, plain, resize

# Decoder rows (images × positions) at a time: bounds the memory of their logits.
_ROWS = 1024


def checked_token_ids(ids: Any, config: Any, name: str, like: Tensor, count: int | None = None) -> Tensor:
    """Token ids (B, T) int64 of words, on the device of `like`. They are looked at on the CPU alone: on a GPU this
    would wait for the device at every step.

    Args:
        ids: tensor, array or lists of whole numbers.
        config ([`AnteHocCaptionConfig`]): of the model.
        name (`str`): what an error calls them; `"labels"` may hold -100.
        like (`Tensor`): of the model.
        count (`int`, *optional*): number B of the images.

    Raises:
        ValueError: if they are not (B, T), or one is not in the vocabulary.
    """
    ids = plain(ids, name, like)
    rows = "batch" if count is None else str(count)
    fits = ids.ndim == 2 and ids.shape[1] > 0 and (count is None or len(ids) == count)
    if not fits or ids.is_floating_point() or ids.dtype == torch.bool:
        raise ValueError(f"{name} must be token ids ({rows}, words), not {tuple(ids.shape)} of {ids.dtype}.")
    ids = ids.long()
    if ids.device.type == "cpu" and ids.numel() and not torch.compiler.is_compiling():
        known = (ids >= 0) & (ids < config.vocab_size)
        if name == "labels":
            if bool((ids[:, 0] == config.bos_token_id).all()):
                raise ValueError("labels must not begin with the start token: it is put before them by the model.")
            known |= ids == IGNORED
        if not bool(known.all()):
            raise ValueError(
                f"{name} must lie in 0…{config.vocab_size - 1} (vocab_size={config.vocab_size}), but this batch has "
                f"{int(ids.min())}…{int(ids.max())}: is it another model's tokenizer?"
            )
    return ids.to(like.device)


def word_worth(logits: Tensor, labels: Tensor) -> Tensor:
    """The log-probability of each word, given those before it.

    Args:
        logits (`Tensor`): (B, T, V).
        labels (`Tensor`): (B, T), the words; -100 where there is none, which is worth 0.

    Returns:
        `Tensor`: (B, T) float32, natural logarithms, at most 0.
    """
    counted = labels != IGNORED
    words = labels.long().masked_fill(~counted, 0)
    said = logits.detach().float().log_softmax(dim=-1).gather(2, words[..., None]).squeeze(2)
    return said.masked_fill(~counted, 0.0)


def word_targets(logits: Tensor, labels: Tensor, read: Tensor, weight: Tensor, pad_token_id: int) -> Targets:
    """Words as targets of a map, all of which are explained together unless one is named.

    Args:
        logits (`Tensor`): (B, T, V).
        labels (`Tensor`): (B, T), the words; -100 where there is none.
        read (`Tensor`): (B, T, H), what the decoder's LSTM gives before each of them.
        weight (`Tensor`): (V, H), of the layer that makes logits of it.
        pad_token_id (`int`): what stands where there is none.
    """
    counted = labels != IGNORED
    words, worth = labels.long().masked_fill(~counted, pad_token_id), word_worth(logits, labels)
    queries = torch.cat([read.detach().float(), weight.detach().float()[words], worth[..., None]], dim=-1)
    return Targets(worth, None, queries=queries, baseline=words, counted=counted, exclusive=False)


def position_features(backbone: Any, features: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """What the backbone's pooling makes of each position alone.

    Args:
        backbone: timm's network, without classifier.
        features (`Tensor`): of its `forward_features`, (B, C, h, w) or (B, h, w, C).

    Returns:
        (B, h·w, D), row by row, and (h, w).

    Raises:
        ValueError: if the features are no grid of positions.
    """
    channels = getattr(backbone, "num_features", None)
    if features.ndim != 4 or channels not in (features.shape[1], features.shape[-1]):
        raise ValueError(
            "Maps of single words need a backbone whose last features are a grid, but "
            f"{type(backbone).__name__} gives {tuple(features.shape)}."
        )
    first = features.shape[1] == channels
    grid = features if first else features.permute(0, 3, 1, 2)
    batch, height, width = grid.shape[0], grid.shape[-2], grid.shape[-1]
    single = grid.permute(0, 2, 3, 1).reshape(batch * height * width, grid.shape[1], 1, 1)
    pooled = backbone.forward_head(single if first else single.permute(0, 2, 3, 1))
    return pooled.flatten(1).unflatten(0, (batch, height * width)), (height, width)


def word_evidence(decoder: CaptionDecoder, pooled: Tensor, positions: Tensor, sequences: Tensor) -> Tensor:
    """How much likelier each word becomes when the decoder is given a position's feature for the image's.

    Args:
        decoder (`CaptionDecoder`): reads the words before it (teacher forcing).
        pooled (`Tensor`): the image's feature, (B, D).
        positions (`Tensor`): those of its positions, (B, P, D).
        sequences (`Tensor`): (B, T) token ids, beginning with the start token.

    Returns:
        `Tensor`: (B, T - 1, P) float32, differences of log-probabilities.
    """
    count = positions.shape[1]
    both = torch.cat([pooled[:, None], positions], dim=1)  # (B, 1 + P, D)
    rows = max(1, _ROWS // (count + 1))
    parts = []
    for images, words in zip(both.split(rows), sequences.split(rows), strict=True):
        repeated = words.repeat_interleave(count + 1, dim=0)
        logits, _ = decoder(repeated[:, :-1], decoder.start(images.flatten(0, 1)))
        said = logits.float().log_softmax(dim=-1).gather(2, repeated[:, 1:, None]).squeeze(2)
        said = said.unflatten(0, (len(images), count + 1)).transpose(1, 2)  # (b, T - 1, 1 + P)
        parts.append(said[..., 1:] - said[..., :1])
    return torch.cat(parts)


def word_maps(evidence: Tensor, grid: tuple[int, int], interpretation_map: Tensor) -> Tensor:
    """The interpretation map, weighted by each word's evidence.

    Args:
        evidence (`Tensor`): (B, T, h·w).
        grid (`tuple[int, int]`): (h, w).
        interpretation_map (`Tensor`): (B, 1, H, W).

    Returns:
        `Tensor`: (B, T, 1, H, W), float32 in [0, 1].
    """
    size = (interpretation_map.shape[-2], interpretation_map.shape[-1])
    coarse = evidence.unflatten(2, grid)
    relative = coarse - coarse.amin(dim=(2, 3), keepdim=True)
    weighted = resize(relative, size) * interpretation_map
    return minmax(weighted).unsqueeze(2)
