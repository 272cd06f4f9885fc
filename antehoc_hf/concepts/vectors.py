"""Concept activation vectors: the direction in a layer's features that separates a concept from random images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from antehoc_hf.explainers.extras import needed

_EPSILON = 1e-7


@dataclass(frozen=True)
class ConceptVector:
    """A concept's direction and the range of its strength (Visual-TCAV: "emblems").

    Attributes:
        vector (`Tensor`): (C,), the mean of the concept's pooled features less that of the random images'; of any
            length.
        high, low (`float`): median strength of the concept in its own images and in the random ones; what shows as 1
            and as 0 in a concept map.
        positives, negatives (`int`): how many images there were.
    """

    vector: Tensor
    high: float
    low: float
    positives: int
    negatives: int


def mean_difference(positive: Tensor, negative: Tensor) -> ConceptVector:
    """Visual-TCAV's vector (De Santis et al., "Visual-TCAV: Concept-based Attribution and Saliency Maps for Post-hoc
    Explainability in Image Classification", 2024): v = mean of pooled features of the concept − that of random images,
    not normalised; emblems are medians over images of the contraharmonic mean of the projections.

    Args:
        positive, negative (`Tensor`): (N, C, h, w) and (M, C, h, w) features.

    Raises:
        ValueError: if one of them holds no image.
    """
    if not len(positive) or not len(negative):
        raise ValueError("A concept needs images, and random images to tell it from.")
    vector = positive.mean(dim=(0, 2, 3)) - negative.mean(dim=(0, 2, 3))
    high, low = (_median(contraharmonic(projection(features, vector))) for features in (positive, negative))
    return ConceptVector(vector, high, low, len(positive), len(negative))


def projection(features: Tensor, vector: Tensor) -> Tensor:
    """ReLU(Σ_c v_c F_c): (N, C, h, w) → (N, h, w)."""
    return torch.einsum("nchw,c->nhw", features, vector.to(features)).relu()


def contraharmonic(maps: Tensor) -> Tensor:
    """Σ q² / Σ q over the positions of each map, (N, h, w) → (N,); 0 for a map of zeros."""
    return maps.square().sum(dim=(1, 2)) / (maps.sum(dim=(1, 2)) + _EPSILON)


def _median(values: Tensor) -> float:
    """The value at the rank nearest to the middle, halves to the even rank, as the authors' code has it."""
    return float(values.sort().values[round((len(values) - 1) / 2)])


def linear_direction(positive: Tensor, negative: Tensor, seed: int = 0) -> tuple[Tensor, float]:
    """TCAV's vector (Kim et al., "Interpretability Beyond Feature Attribution: Quantitative Testing with Concept
    Activation Vectors", ICML 2018): the normal of a linear classifier, with captum's settings (hinge loss, alpha 0.01,
    at most 1,000 epochs, a third of the images held out). scikit-learn is called directly: captum takes no seed.

    Args:
        positive, negative (`Tensor`): (N, D) and (M, D) flat features; the longer one is cut to equal counts.
        seed (`int`): of the hold-out and the classifier.

    Returns:
        `tuple[Tensor, float]`: (D,) pointing to the concept, and the accuracy on the images held out.

    Raises:
        ValueError: with fewer than three images on a side.
        ImportError: if scikit-learn is not installed.
    """
    count = min(len(positive), len(negative))
    if count < 3:
        raise ValueError(
            f"A concept vector needs at least 3 images of the concept and 3 random ones; there are {len(positive)} "
            f"and {len(negative)}."
        )
    classifier = needed("sklearn.linear_model", extra="concepts").SGDClassifier(
        alpha=0.01, max_iter=1000, tol=1e-3, random_state=seed
    )
    split = needed("sklearn.model_selection", extra="concepts").train_test_split
    features = torch.cat([positive[:count], negative[:count]]).double().numpy()
    labels = [1] * count + [0] * count
    train, test, train_labels, test_labels = split(
        features, labels, test_size=0.33, stratify=labels, random_state=seed
    )
    classifier.fit(train, train_labels)
    accuracy = float((classifier.predict(test) == test_labels).mean())
    return torch.from_numpy(classifier.coef_[0]).float(), accuracy
