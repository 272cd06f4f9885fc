"""What is explained: a class, a landmark, a caption or one of its words, as a score and a confidence of each image."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Activation = Literal["softmax", "sigmoid", "binary", "identity"]
"""How a classifier's outputs become confidences, see [`activation_of`]."""

# A point that moves by a tenth of the image costs e^-1 of the confidence.
_POINT_SCALE = 0.1


class Target(ABC):
    """One thing to be explained for each image of a batch."""

    @property
    def named(self) -> object:
        """The same as `interpretation` of our models takes it; None: what they explain by themselves."""
        return None

    @property
    def is_value(self) -> bool:
        """Whether it is a value of a regression, whose zero means nothing, and not a confidence."""
        return False

    @abstractmethod
    def score(self, outputs: Tensor) -> Tensor:
        """What gradients are taken of: outputs of the network for the B images → (B,)."""

    @abstractmethod
    def confidence(self, outputs: Tensor) -> Tensor:
        """What masked images are judged by: (B,), in [0, 1] unless it is a value of a regression."""

    def rise(self, outputs: Tensor) -> Tensor:
        """What channels are chosen by, (B,): the logarithm of the confidence, whose gradient has the same signs and
        the same order within an image, and does not underflow.
        """
        return self.score(outputs)

    @abstractmethod
    def select(self, positions: Tensor) -> Target:
        """The targets of these images, (N,) positions in the batch, in any order, repeated or not."""


def activation_of(problem_type: str | None, num_outputs: int) -> Activation:
    """How confident a classifier is, for every method: softmax over its classes; a sigmoid of each output where an
    image has several labels; with a single output a sigmoid of it (class 0) or of its negative (class 1, that it is
    not so); the values themselves where it is a regression.

    Args:
        problem_type: as in the configurations of transformers.
        num_outputs: K of the outputs (B, K).
    """
    if problem_type == "regression":
        return "identity"
    if problem_type == "multi_label_classification":
        return "sigmoid" if num_outputs > 1 else "binary"
    return "softmax" if num_outputs > 1 else "binary"


@dataclass(frozen=True)
class ClassTarget(Target):
    """A class, or a value of a regression, for each image.

    Args:
        classes (`Tensor`): (B,) indices.
        activation: how outputs become confidences.
    """

    classes: Tensor
    activation: Activation = "softmax"

    @property
    def named(self) -> Tensor:
        """(B,) indices."""
        return self.classes

    @property
    def is_value(self) -> bool:
        """Of a regression."""
        return self.activation == "identity"

    def score(self, outputs: Tensor) -> Tensor:
        """The logit of the class, or the value."""
        outputs = outputs.float()
        if self.activation == "binary":
            return outputs[:, 0] * (1 - 2 * self.classes)
        return outputs.gather(1, self.classes[:, None]).squeeze(1)

    def confidence(self, outputs: Tensor) -> Tensor:
        """The probability of the class, or the value."""
        return self.rise(outputs) if self.activation == "identity" else self.rise(outputs).exp()

    def rise(self, outputs: Tensor) -> Tensor:
        """The logarithm of the probability, or the value."""
        if self.activation == "softmax":
            return outputs.float().log_softmax(dim=1).gather(1, self.classes[:, None]).squeeze(1)
        return self.score(outputs) if self.activation == "identity" else F.logsigmoid(self.score(outputs))

    def select(self, positions: Tensor) -> ClassTarget:
        """The classes of these images."""
        return ClassTarget(self.classes[positions], self.activation)


class AllValues(Target):
    """Every value of a regression at once: their sum."""

    is_value = True

    def score(self, outputs: Tensor) -> Tensor:
        """The sum of the values."""
        return outputs.float().sum(dim=1)

    def confidence(self, outputs: Tensor) -> Tensor:
        """The sum of the values."""
        return self.score(outputs)

    def select(self, positions: Tensor) -> AllValues:
        """The same for every image."""
        return self


@dataclass(frozen=True)
class PointTarget(Target):
    """Landmarks, the same for all images.

    A regression has no class whose score could rise: gradients are taken of the sum of the points' coordinates, masked
    images are judged by how near the points stay to where they were, as exp(−mean distance / a tenth of the image).

    Args:
        points (`Tensor`): (N,) indices of landmarks.
        predicted (`Tensor`): (B, K, 2) landmarks of the unmasked images, in [0, 1].
    """

    points: Tensor
    predicted: Tensor

    @property
    def named(self) -> list[int]:
        """Their indices."""
        return [int(point) for point in self.points]

    def _chosen(self, outputs: Tensor) -> Tensor:
        return outputs.float().unflatten(1, (-1, 2))[:, self.points]

    def score(self, outputs: Tensor) -> Tensor:
        """The sum of the coordinates; the confidence has its maximum at the unmasked image, and no slope there."""
        return self._chosen(outputs).sum(dim=(1, 2))

    def confidence(self, outputs: Tensor) -> Tensor:
        """How near the points stay."""
        moved = self._chosen(outputs) - self.predicted[:, self.points].float()
        return torch.exp(-moved.norm(dim=2).mean(dim=1) / _POINT_SCALE)

    def select(self, positions: Tensor) -> PointTarget:
        """The landmarks of these images."""
        return PointTarget(self.points, self.predicted[positions])


@dataclass(frozen=True)
class CaptionTarget(Target):
    """A caption an image, or one of its words, given the words before it.

    Args:
        sequences (`Tensor`): (B, 1 + T) ids, the start token first.
        counted (`Tensor`): (B, T) bool, the words that count: all but padding, or a single one.
    """

    sequences: Tensor
    counted: Tensor

    @property
    def named(self) -> tuple[Tensor, Tensor]:
        """Both."""
        return self.sequences, self.counted

    def _log_probabilities(self, outputs: Tensor) -> Tensor:
        chosen = outputs.float().log_softmax(dim=-1).gather(2, self.sequences[:, 1:, None]).squeeze(2)
        return torch.where(self.counted, chosen, torch.zeros_like(chosen))

    def score(self, outputs: Tensor) -> Tensor:
        """Σ log p of the words that count; outputs are logits (B, T, V)."""
        return self._log_probabilities(outputs).sum(dim=1)

    def confidence(self, outputs: Tensor) -> Tensor:
        """exp(mean log p): the probability of the caption, normalised for its length."""
        return self.rise(outputs).exp()

    def rise(self, outputs: Tensor) -> Tensor:
        """The mean of log p."""
        return self.score(outputs) / self.counted.sum(dim=1).clamp_min(1)

    def select(self, positions: Tensor) -> CaptionTarget:
        """The captions of these images."""
        return CaptionTarget(self.sequences[positions], self.counted[positions])


_SEVERAL = -2  # in place of an index


def class_names(config: object) -> dict[str, int]:
    """Name → index of a classifier's classes; a negative number where several have that name (ImageNet's "crane")."""
    found: dict[str, int] = {}
    for index, name in (getattr(config, "id2label", None) or {}).items():
        found[str(name)] = _SEVERAL if str(name) in found else int(index)
    return {str(name): int(index) for name, index in (getattr(config, "label2id", None) or {}).items()} | found


def chosen_classes(target: object, count: int, num_classes: int, names: Mapping[str, int]) -> Tensor | None:
    """Class indices from what a user calls a target.

    Args:
        target: None, one class or one for each image, as indices or names.
        count: number of images.
        num_classes: number of classes.
        names: class name → index.

    Returns:
        `Tensor` or `None`: (count,) indices; None where the model's own predictions are meant.

    Raises:
        ValueError: if there is no such class, or there is not one for each image.
    """
    if target is None:
        return None
    given = _listed(target)
    given = [target] * count if given is None else given
    classes = [_index(one, target, num_classes, names, "class") for one in given]
    if len(classes) != count:
        raise ValueError(f"target holds {len(classes)} classes for {count} images: give one, or one for each image.")
    return torch.tensor(classes, dtype=torch.long)


def chosen_points(target: object, count: int, names: Mapping[str, int], groups: Mapping[str, Sequence[int]]) -> Tensor:
    """Indices of landmarks from what a user calls a target.

    Args:
        target: None (all), an index, a name, a list of these, or the name of a group.
        count: number of landmarks.
        names: landmark's name → index.
        groups: group's name → indices.

    Returns:
        `Tensor`: (N,) indices.

    Raises:
        ValueError: if there is no such landmark.
    """
    if target is None:
        return torch.arange(count)
    if isinstance(target, str) and target in groups:
        return torch.tensor(list(groups[target]), dtype=torch.long)
    given = _listed(target)
    given = [target] if given is None else given
    if not given:
        raise ValueError("target is an empty list: name one landmark or more.")
    known = {**dict.fromkeys(groups, -1), **names}
    return torch.tensor([_index(one, target, count, known, "landmark") for one in given], dtype=torch.long)


def chosen_caption(target: object, count: int, vocab_size: int, pad_token_id: int) -> CaptionTarget:
    """Captions, or one word of each, from what a user calls a target.

    Args:
        target: ids of one caption or of one for each image, start token first, or `(ids, position of a word)`.
        count: number of images.
        vocab_size: ids are below it.
        pad_token_id: what does not count.

    Raises:
        ValueError: if these are no ids of the vocabulary, or a caption has no such word.
    """
    ids, word = target if isinstance(target, tuple) and len(target) == 2 else (target, None)
    try:
        sequences = torch.as_tensor(ids).cpu().clone()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        sequences = torch.empty(0)
    if sequences.dtype not in _INTEGERS or sequences.ndim not in (1, 2) or sequences.shape[-1] < 2:
        raise ValueError(
            "target must be the ids of a caption, (1 + T,) or (B, 1 + T) with the start token first, or "
            f"(ids, position of a word), not {_short(target)}."
        )
    sequences = sequences.long().expand(count, -1) if sequences.ndim == 1 else sequences.long()
    if len(sequences) != count:
        raise ValueError(f"target holds {len(sequences)} captions for {count} images: give one, or one for each.")
    wrong = sequences[(sequences < 0) | (sequences >= vocab_size)]
    if len(wrong):
        raise ValueError(f"target holds the id {int(wrong[0])}, but the vocabulary has the ids 0…{vocab_size - 1}.")
    counted = sequences[:, 1:] != pad_token_id
    if word is not None:
        position = _whole(word)
        if position is None or not 0 <= position < counted.shape[1]:
            raise ValueError(f"There is no word {_short(word)} in a caption of {counted.shape[1]} words.")
        counted = counted & (torch.arange(counted.shape[1]) == position)
    without = [image for image, words in enumerate(counted.any(dim=1).tolist()) if not words]
    if without:
        found = "no word" if word is None else f"no word {_short(word)}"
        raise ValueError(f"The caption of image {without[0]} has {found}, only padding there.")
    return CaptionTarget(sequences, counted)


_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _listed(target: object) -> list[object] | None:
    """The entries of a list, tuple, array or tensor; None for anything else."""
    if isinstance(target, Tensor | np.ndarray):
        target = target.tolist()
    return list(target) if isinstance(target, list | tuple) else None


def _index(one: object, target: object, count: int, names: Mapping[str, int], kind: str) -> int:
    """An index from an index or a name."""
    if isinstance(one, str):
        if names.get(one) == _SEVERAL:
            raise ValueError(f"target {one!r} is the name of several {_PLURALS[kind]}: give the index of one.")
        if names.get(one, -1) < 0:
            known = f"there are {', '.join(list(names)[:8])}" if names else f"use an index, 0…{count - 1}"
            raise ValueError(f"target {one!r} is none of the model's {_PLURALS[kind]}: {known}.")
        return names[one]
    index = _whole(one)
    if index is None:
        raise ValueError(f"target must be the index or name of a {kind}, or a list of them, not {_short(target)}.")
    if not 0 <= index < count:
        raise ValueError(f"target {index} is none of the model's {count} {_PLURALS[kind]}, 0…{count - 1}.")
    return index


_PLURALS = {"class": "classes", "landmark": "landmarks"}


def _whole(value: object) -> int | None:
    """A whole number of any type, or None: 1.7 is not rounded and True is not 1."""
    try:
        return None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        return None


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
