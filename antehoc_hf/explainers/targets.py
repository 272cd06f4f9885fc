"""What is explained: a class, a landmark, a caption or one of its words, as a score and a confidence of each image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# A point that moves by a tenth of the image costs e^-1 of the confidence.
_POINT_SCALE = 0.1
_UNDERFLOW = 1e-20


class Target(ABC):
    """One thing to be explained for each image of a batch."""

    @abstractmethod
    def score(self, outputs: Tensor) -> Tensor:
        """What gradients are taken of: outputs of the network for the B images → (B,)."""

    @abstractmethod
    def confidence(self, outputs: Tensor) -> Tensor:
        """What masked images are judged by: (B,) in [0, 1]."""

    def rise(self, outputs: Tensor) -> Tensor:
        """What channels are chosen by, (B,): the logarithm of the confidence, whose gradient does not underflow."""
        # d log p = dp / p: the same signs, and the same order within an image, which is all that is compared.
        return self.confidence(outputs).clamp_min(_UNDERFLOW).log()

    @abstractmethod
    def select(self, positions: Tensor) -> Target:
        """The targets of these images, (N,) positions in the batch, in any order, repeated or not."""


Ask = Callable[[Tensor], Target]
"""The network's outputs for the images themselves → what is to be explained, such as the most likely class."""


@dataclass(frozen=True)
class ClassTarget(Target):
    """
    A class an image: its logit, and its probability.

    Args:
        classes (`Tensor`): (B,) indices.
        independent (`bool`): sigmoid and not softmax, for several labels an image.
    """

    classes: Tensor
    independent: bool = False

    def score(self, outputs: Tensor) -> Tensor:
        """The logit of the class."""
        return outputs.float().gather(1, self.classes[:, None]).squeeze(1)

    def confidence(self, outputs: Tensor) -> Tensor:
        """The probability of the class."""
        outputs = outputs.float()
        probabilities = outputs.sigmoid() if self.independent else outputs.softmax(dim=1)
        return probabilities.gather(1, self.classes[:, None]).squeeze(1)

    def select(self, positions: Tensor) -> ClassTarget:
        """The classes of these images."""
        return ClassTarget(self.classes[positions], self.independent)


@dataclass(frozen=True)
class PointTarget(Target):
    """
    Landmarks, the same for all images.

    A regression has no class whose score could rise: gradients are taken of the sum of the points' coordinates, masked
    images are judged by how near the points stay to where they were, as exp(−mean distance / a tenth of the image).

    Args:
        points (`Tensor`): (N,) indices of landmarks.
        predicted (`Tensor`): (B, K, 2) landmarks of the unmasked images, in [0, 1].
    """

    points: Tensor
    predicted: Tensor

    def _chosen(self, outputs: Tensor) -> Tensor:
        return outputs.float().unflatten(1, (-1, 2))[:, self.points]

    def score(self, outputs: Tensor) -> Tensor:
        """The sum of the coordinates."""
        return self._chosen(outputs).sum(dim=(1, 2))

    def confidence(self, outputs: Tensor) -> Tensor:
        """How near the points stay."""
        moved = self._chosen(outputs) - self.predicted[:, self.points].float()
        return torch.exp(-moved.norm(dim=2).mean(dim=1) / _POINT_SCALE)

    def rise(self, outputs: Tensor) -> Tensor:
        """The sum of the coordinates: where nothing is masked the confidence has its maximum, and no slope."""
        return self.score(outputs)

    def select(self, positions: Tensor) -> PointTarget:
        """The landmarks of these images."""
        return PointTarget(self.points, self.predicted[positions])


@dataclass(frozen=True)
class CaptionTarget(Target):
    """
    A caption an image, or one of its words, given the words before it.

    Args:
        tokens (`Tensor`): (B, T) ids of the words that are predicted.
        counted (`Tensor`): (B, T) bool, those that count: all but padding, or a single one.
    """

    tokens: Tensor
    counted: Tensor

    def _log_probabilities(self, outputs: Tensor) -> Tensor:
        chosen = outputs.float().log_softmax(dim=-1).gather(2, self.tokens[..., None]).squeeze(2)
        return torch.where(self.counted, chosen, torch.zeros_like(chosen))

    def score(self, outputs: Tensor) -> Tensor:
        """Σ log p of the words that count; outputs are logits (B, T, V)."""
        return self._log_probabilities(outputs).sum(dim=1)

    def confidence(self, outputs: Tensor) -> Tensor:
        """exp(mean log p): the probability of the caption, normalised for its length."""
        count = self.counted.sum(dim=1).clamp_min(1)
        return torch.exp(self._log_probabilities(outputs).sum(dim=1) / count)

    def select(self, positions: Tensor) -> CaptionTarget:
        """The captions of these images."""
        return CaptionTarget(self.tokens[positions], self.counted[positions])


def class_target(target: Any, outputs: Tensor, independent: bool = False) -> ClassTarget:
    """
    Class indices from what a user calls a target.

    Args:
        target: None (the largest logit), one index, or a list or tensor of one an image.
        outputs (`Tensor`): (B, K) logits.
        independent (`bool`): whether there are several labels an image.

    Raises:
        ValueError: if an index is none of the classes, or there is not one for each image.
    """
    count, classes = outputs.shape
    if target is None:
        return ClassTarget(outputs.argmax(dim=1), independent)
    chosen = torch.as_tensor(target)
    if chosen.is_floating_point() or chosen.dtype == torch.bool or chosen.ndim > 1:
        raise ValueError(f"target must be a class index or one for each image, not {target!r}.")
    chosen = chosen.expand(count) if chosen.ndim == 0 else chosen
    if len(chosen) != count:
        raise ValueError(f"target holds {len(chosen)} classes for {count} images: give one, or one for each image.")
    wrong = chosen[(chosen < 0) | (chosen >= classes)]
    if len(wrong):
        raise ValueError(f"target {int(wrong[0])} is none of the model's {classes} classes, 0…{classes - 1}.")
    return ClassTarget(chosen.to(outputs.device).long(), independent)


def point_target(
    target: Any, outputs: Tensor, names: Sequence[str] | None, groups: dict[str, list[int]]
) -> PointTarget:
    """
    Landmarks from what a user calls a target.

    Args:
        target: None (all), an index, a list of indices, a name, or the name of a group.
        outputs (`Tensor`): (B, 2K) coordinates.
        names: of the landmarks.
        groups: name → indices.

    Raises:
        ValueError: if there is no such landmark.
    """
    landmarks = outputs.unflatten(1, (-1, 2))
    count = landmarks.shape[1]
    if target is None:
        chosen = list(range(count))
    elif isinstance(target, str):
        by_name = {name: [index] for index, name in enumerate(names or ())} | groups
        if target not in by_name:
            known = ", ".join([*groups, *(names or ())][:8]) or f"indices 0…{count - 1}"
            raise ValueError(f"target {target!r} is no landmark of this model: there are {known}.")
        chosen = by_name[target]
    else:
        chosen = [int(index) for index in (target if isinstance(target, Sequence | Tensor) else [target])]
    wrong = [index for index in chosen if not 0 <= index < count]
    if wrong or not chosen:
        raise ValueError(f"target {wrong[0] if wrong else target!r} is none of the model's {count} landmarks.")
    return PointTarget(torch.tensor(chosen, device=outputs.device), landmarks.detach())
