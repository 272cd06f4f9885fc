"""TCAV with its significance test."""

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from antehoc_hf.concepts.features import LayerFeatures
from antehoc_hf.concepts.vectors import linear_direction
from antehoc_hf.explainers.extras import needed


@dataclass(frozen=True)
class TcavResult:
    """How a class depends on a concept.

    Attributes:
        concept (`str`), target (`int`), layer (`str`): what was measured, and where.
        scores (`list[float]`): share in [0, 1] of the class's images whose logit rises with the concept, for each set
            of random images.
        random_scores (`list[float]`): the same for random sets against each other.
        accuracies (`list[float]`): of the concept's classifiers on images held out; near 0.5 nothing was learned.
        p_value (`float`): two-sided t-test of the two lists, corrected by Bonferroni for the number of hypotheses;
            NaN if undefined.
        flat (`bool`): whether all gradients are zero, so that the score says nothing.
    """

    concept: str
    target: int
    layer: str
    scores: list[float]
    random_scores: list[float]
    accuracies: list[float]
    p_value: float
    flat: bool = False

    @property
    def score(self) -> float:
        """Mean of the scores."""
        return sum(self.scores) / len(self.scores)

    def is_significant(self, level: float = 0.05) -> bool:
        """Whether the concept's scores differ from random ones."""
        return self.p_value <= level


class TCAV:
    """Testing with concept activation vectors (Kim et al., ICML 2018).

    Every concept is classified against each of several sets of random images, and each random set against the others:
    a score counts only if it differs from what random sets give.

    Args:
        model: one of ours, a network of timm or torchvision, or any `…ForImageClassification` of transformers.
        layer (`str`, *optional*): the layer; the last with a grid otherwise.
        pool (`bool`): average features over positions first; without it the vectors of early layers are huge.
        seed (`int`): of the classifiers.
        batch_size (`int`): images a pass.
    """

    def __init__(
        self, model: Any, layer: str | None = None, pool: bool = False, seed: int = 0, batch_size: int = 64
    ) -> None:
        self.features = LayerFeatures(model, layer, batch_size)
        self.pool = pool
        self.seed = seed

    @torch.inference_mode(False)  # gradients exist even if the caller has switched them off
    def __call__(
        self, images: Tensor, target: int, concepts: Mapping[str, Tensor], random_sets: Sequence[Tensor]
    ) -> list[TcavResult]:
        """The score of each concept for one class, and whether it differs from that of random images.

        Args:
            images (`Tensor`): (N, 3, H, W) images of the class, normalised.
            target (`int`): the class.
            concepts (`dict`): name → images (M, 3, H, W).
            random_sets: two or more sets of random images.

        Raises:
            ValueError: if there is no concept, fewer than two random sets, or too few images.
        """
        if not concepts:
            raise ValueError("There is no concept: give at least one, as a name and its images.")
        if len(random_sets) < 2:
            raise ValueError(
                f"The significance test needs at least two sets of random images, and there are {len(random_sets)}."
            )
        slopes = self._flat(self.features.gradients(images, target))
        of_random = [self._flat(self.features.of_images(each)) for each in random_sets]
        pairs = list(itertools.permutations(range(len(of_random)), 2))
        random_scores = [self._score(slopes, of_random[a], of_random[b])[0] for a, b in pairs]
        layer = self.features.point(images).module
        results = []
        for name, concept in concepts.items():
            own = self._flat(self.features.of_images(concept))
            scored = [self._score(slopes, own, other) for other in of_random]
            scores = [score for score, _ in scored]
            p_value = p_of_difference(scores, random_scores, hypotheses=len(concepts))
            accuracies = [accuracy for _, accuracy in scored]
            flat = not bool(slopes.any())
            results.append(TcavResult(name, target, layer, scores, random_scores, accuracies, p_value, flat))
        return results

    def _flat(self, features: Tensor) -> Tensor:
        return features.mean(dim=(2, 3)) if self.pool else features.flatten(1)

    def _score(self, slopes: Tensor, positive: Tensor, negative: Tensor) -> tuple[float, float]:
        direction, accuracy = linear_direction(positive, negative, self.seed)
        return float((slopes @ direction > 0).float().mean()), accuracy


def p_of_difference(scores: Sequence[float], random_scores: Sequence[float], hypotheses: int = 1) -> float:
    """Two-sided t-test of two samples, times the number of hypotheses (Bonferroni), at most 1; NaN if neither varies
    and they are equal, 0 if neither varies and they differ.
    """
    if len(set(scores)) == 1 and len(set(random_scores)) == 1:
        return math.nan if scores[0] == random_scores[0] else 0.0
    with warnings.catch_warnings():
        # Scores that are all alike in one of the samples: the test still distinguishes it from the other.
        warnings.simplefilter("ignore", RuntimeWarning)
        test = needed("scipy.stats", extra="concepts").ttest_ind(scores, random_scores)
    return min(1.0, float(test.pvalue) * hypotheses)
