"""Visual-TCAV: where a concept is in an image, and how much a class owes to it."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from antehoc_hf.concepts.features import LayerFeatures
from antehoc_hf.concepts.vectors import ConceptVector, mean_difference, projection

_EPSILON = 1e-7


@dataclass(frozen=True)
class LocalExplanation:
    """One concept in a batch of images.

    Attributes:
        concept (`str`), layer (`str`): which, and where it was looked for.
        maps (`Tensor`): (B, h, w) in [0, 1] on the layer's grid: where the concept is, whatever the class.
        attributions (`Tensor`): (B,) in [0, class share]: how much the class owes to it.
        targets (`Tensor`): (B,) the classes.
    """

    concept: str
    layer: str
    maps: Tensor
    attributions: Tensor
    targets: Tensor


@dataclass(frozen=True)
class GlobalExplanation:
    """One concept over many images of a class.

    Attributes:
        concept (`str`), layer (`str`), target (`int`): what was measured, and where.
        mean, std (`float`): of the attributions; std is the population's.
        low, high (`float`): mean ± 2 standard errors, the lower end at least 0.
        count (`int`): images.
    """

    concept: str
    layer: str
    target: int
    mean: float
    std: float
    low: float
    high: float
    count: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class VisualTCAV:
    """Visual-TCAV (De Santis et al., 2024).

    Args:
        model: one of ours, a network of timm or torchvision, or any `…ForImageClassification` of transformers.
        random_images (`Tensor`): (M, 3, H, W) normalised: the negatives of every concept.
        layer (`str`, *optional*): a layer on which all that follows depends; the last with a grid otherwise.
        steps (`int`): of the path from no features to the image's.
        batch_size (`int`): images a pass.
        cache (`str` or `Path`, *optional*): folder that keeps concept vectors, by the content of model and images.

    Raises:
        ValueError: if there is no random image, or the model is not a classifier.
    """

    def __init__(
        self,
        model: Any,
        random_images: Tensor,
        layer: str | None = None,
        steps: int = 50,
        batch_size: int = 64,
        cache: str | Path | None = None,
    ) -> None:
        if not len(random_images):
            raise ValueError("Visual-TCAV needs random images to tell concepts from.")
        self.features = LayerFeatures(model, layer, batch_size)
        self.random_images = random_images
        self.steps = steps
        self.cache = None if cache is None else Path(cache)
        self.concepts: dict[str, ConceptVector] = {}

    @torch.inference_mode(False)
    def add_concept(self, name: str, images: Tensor) -> ConceptVector:
        """Learns a concept from its images (N, 3, H, W).

        Raises:
            ValueError: if there is none.
        """
        if not len(images):
            raise ValueError(f"The concept {name!r} has no image.")
        kept = self._kept(images)
        if kept is not None and kept.exists():
            vector = ConceptVector(**torch.load(kept, weights_only=True))
        else:
            features = self.features
            vector = mean_difference(features.of_images(images), features.of_images(self.random_images))
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                torch.save(vars(vector), kept)
        self.concepts[name] = vector
        return vector

    @torch.inference_mode(False)
    def local(self, images: Tensor, targets: Tensor | int | None = None) -> list[LocalExplanation]:
        """Every concept in each image.

        Args:
            images (`Tensor`): (B, 3, H, W), normalised.
            targets (*optional*): a class for all, (B,) classes, or None for the predicted ones.

        Raises:
            ValueError: if no concept was added, or a class does not exist.
        """
        if not self.concepts:
            raise ValueError("There is no concept: teach one with add_concept(name, images).")
        features = self.features.of_images(images)
        with self.features.tail(images) as tail:
            classes = self._classes(tail, features, targets)
            evidence = class_evidence(tail, features, classes, self.steps, self.features.batch_size)
        layer = self.features.point(images).module
        explained = []
        for name, concept in self.concepts.items():
            maps = concept_maps(features, concept)
            explained.append(
                LocalExplanation(name, layer, maps, attribution(evidence, maps, concept, features), classes)
            )
        return explained

    def global_(self, images: Tensor, target: int) -> list[GlobalExplanation]:
        """Every concept over images of one class, none left out.

        Raises:
            ValueError: as in [`local`], or if there is no image.
        """
        if not len(images):
            raise ValueError("There is no image of the class.")
        parts: dict[str, list[Tensor]] = {name: [] for name in self.concepts}
        for chunk in images.split(self.features.batch_size):
            for one in self.local(chunk, target):
                parts[one.concept].append(one.attributions)
        return [
            _summary(name, self.features.point(images).module, target, torch.cat(values))
            for name, values in parts.items()
        ]

    def _classes(self, tail: Any, features: Tensor, targets: Tensor | int | None) -> Tensor:
        with torch.no_grad():
            outputs = torch.cat([tail(chunk).cpu() for chunk in features.split(self.features.batch_size)])
        found: Any = self.features.network.question(features, targets).target(outputs)
        return found.classes

    def _kept(self, images: Tensor) -> Path | None:
        """Where a concept's vector is kept: the name is a digest of the weights, the layer and all the pixels."""
        if self.cache is None:
            return None
        digest = hashlib.sha256()
        for tensor in (*self.features.network.body.state_dict().values(), images, self.random_images):
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        digest.update(json.dumps([self.features.point(images).module, list(images.shape)]).encode())
        return self.cache / f"concept-{digest.hexdigest()[:32]}.pt"


def concept_maps(features: Tensor, concept: ConceptVector) -> Tensor:
    """Where a concept is: its projection, from the random images' median strength (0) to its own (1).

    Args:
        features (`Tensor`): (B, C, h, w).

    Returns:
        `Tensor`: (B, h, w) in [0, 1]; zero throughout if the concept is no stronger in its own images.
    """
    strength = projection(features, concept.vector)
    if not concept.high > concept.low:
        return torch.zeros_like(strength)
    return ((strength - concept.low) / (concept.high - concept.low)).clamp(0, 1)


def class_evidence(tail: Any, features: Tensor, classes: Tensor, steps: int, batch_size: int) -> Tensor:
    """The share of each feature in its class: integrated gradients from a tensor of zeros, their positive part, scaled
    so that it sums to the class's share among all logits that rise.

    Args:
        tail: features → logits.
        features (`Tensor`): (B, C, h, w).
        classes (`Tensor`): (B,).
        steps (`int`): intervals of the trapezoid rule.
        batch_size (`int`): passes of at most so many.

    Returns:
        `Tensor`: (B, C, h, w), not negative, summing to at most 1 an image.
    """
    evidence = []
    shares = torch.arange(steps + 1) / steps
    weights = torch.full((steps + 1,), 1 / steps)
    weights[[0, -1]] /= 2
    for one, target in zip(features, classes.tolist(), strict=True):
        path = shares[:, None, None, None] * one
        total = torch.zeros_like(one)
        for part, weight in zip(path.split(batch_size), weights.split(batch_size), strict=True):
            part = part.detach().requires_grad_()
            with torch.enable_grad():
                logits = tail(part)[:, target]
            slopes = torch.autograd.grad(logits.sum(), part)[0].cpu()
            total += (weight[:, None, None, None] * slopes).sum(dim=0)
        positive = (total * one).relu()
        evidence.append(_class_share(tail, one, target) * positive / (positive.sum() + _EPSILON))
    return torch.stack(evidence)


@torch.no_grad()
def _class_share(tail: Any, features: Tensor, target: int) -> float:
    """The rise of the class's logit over that of no features, relative to the largest rise; in [0, 1]."""
    both = tail(torch.stack([features, torch.zeros_like(features)])).cpu()
    rise = (both[0] - both[1]).relu()
    largest = float(rise.max())
    return float(rise[target]) / largest if largest > 0 else 0.0


def attribution(evidence: Tensor, maps: Tensor, concept: ConceptVector, features: Tensor) -> Tensor:
    """How much a class owes to a concept: the evidence where the concept is, of the channels that speak for it.

    Args:
        evidence, features (`Tensor`): (B, C, h, w).
        maps (`Tensor`): (B, h, w).

    Returns:
        `Tensor`: (B,).
    """
    within = torch.einsum("bchw,bhw->bc", evidence, maps)
    direction = concept.vector[None].expand(len(features), -1)
    if float(features.min()) < 0:
        # A channel whose features are negative where the concept is speaks for it with the opposite sign.
        negative = torch.einsum("bchw,bhw->bc", features, maps) < 0
        direction = torch.where(negative, -direction, direction)
    weights = direction.relu()
    largest = weights.amax(dim=1, keepdim=True)
    weights = torch.where(largest > 0, weights / largest.clamp_min(torch.finfo(weights.dtype).tiny), weights)
    return (weights * within).sum(dim=1)


def _summary(name: str, layer: str, target: int, values: Tensor) -> GlobalExplanation:
    mean, std = float(values.mean()), float(values.std(correction=0))
    error = std / len(values) ** 0.5
    return GlobalExplanation(name, layer, target, mean, std, max(0.0, mean - 2 * error), mean + 2 * error, len(values))
