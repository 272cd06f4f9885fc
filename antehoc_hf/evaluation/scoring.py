"""One batch of classified images: the prediction, and what any map of them scores, image by image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from antehoc_hf.evaluation.complexity import map_entropy, map_gini
from antehoc_hf.evaluation.faithfulness import class_probability
from antehoc_hf.evaluation.insertion_deletion import insertion_deletion
from antehoc_hf.evaluation.judged import JudgedClassifier
from antehoc_hf.evaluation.localisation import energy_share, energy_share_over_area, pointing_game, relevance_rank
from antehoc_hf.evaluation.maps import binarise, degenerate_maps, measurable_maps, rank_pixels
from antehoc_hf.evaluation.road import road
from antehoc_hf.evaluation.settings import EvaluationSettings


class BatchScorer:
    """
    The prediction on a batch of images, and what maps of them score.

    Args:
        judged: the classifier.
        batch: `{"pixel_values": (B, 3, H, W), "labels": (B,)}` and, for localisation, `"mask": (B, 1, H, W)`.
        settings: how to measure.
        first_index: index of the first image in its data set.

    Attributes:
        pixel_values, labels, mask: the batch on the model's device.
        first: what the model makes of it.
        target (`Tensor`): (B,) the class that is watched.

    Raises:
        ValueError: if the batch lacks something, or shapes or classes don't fit.
    """

    def __init__(
        self, judged: JudgedClassifier, batch: Mapping[str, Any], settings: EvaluationSettings, first_index: int
    ) -> None:
        self._judged, self._settings, self._first_index = judged, settings, first_index
        self.pixel_values, self.labels, self.mask = _read(batch, judged)
        with torch.no_grad():
            self.first = judged.see(self.pixel_values)
        self._predicted = self.first.logits.argmax(dim=1)
        self.target = self.labels if settings.target == "label" else self._predicted
        self._p_image = class_probability(self.first.logits, self.target)
        self._of_no_order: dict[str, Tensor] | None = None

    def image_values(self) -> dict[str, Tensor]:
        """What the model makes of the images."""
        return {"p_image": self._p_image, "correct": self._predicted == self.labels}

    def own_values(self) -> dict[str, Tensor]:
        """What the model's own map scores; the model knows best where it has nothing to show."""
        assert self.first.maps is not None
        assert self.first.degenerate is not None
        values = self.map_values(self.first.maps)
        return values | {"degenerate": values["degenerate"] | self.first.degenerate}

    @torch.no_grad()
    def map_values(self, maps: Tensor) -> dict[str, Tensor]:
        """What a map scores, for each image: (B,) by name. NaN where a measure says nothing."""
        raw, maps = measurable_maps(maps, self.pixel_values)
        values = {
            "degenerate": degenerate_maps(raw),
            "not_finite": (~torch.isfinite(raw)).flatten(1).any(dim=1),
            # Rounding is no offence.
            "clipped": ((raw < -1e-4) | (raw > 1 + 1e-4)).flatten(1).any(dim=1),
            "map_mean": maps.mean(dim=(1, 2, 3)),
            "entropy": map_entropy(maps),
            "gini": map_gini(maps),
        }
        values |= self._masked_predictions(maps)
        values |= self._order_values(maps)
        if self.mask is not None:
            values |= self._localisation(maps, self.mask)
        return values

    def _masked_predictions(self, maps: Tensor) -> dict[str, Tensor]:
        """Of the energy map, and of masks cut from the map, by name."""
        settings, masks = self._settings, {"": maps}
        values: dict[str, Tensor] = {}
        if settings.threshold is not None:
            masks["binarised_"] = binarise(maps, settings.threshold)
        if settings.area is not None or settings.areas:
            ranks = rank_pixels(maps, settings.seed, self._first_index).view_as(maps)
            kept = {area: (ranks < round(area * ranks[0].numel())).float() for area in settings.areas}
            if settings.area is not None:
                masks["equal_area_"] = (ranks < round(settings.area * ranks[0].numel())).float()
                values["tied"] = _drawn_at_random(maps, masks["equal_area_"] > 0)
            masks |= {f"keep_{_percent(area)}_": mask for area, mask in kept.items()}
            masks |= {f"remove_{_percent(area)}_": 1 - mask for area, mask in kept.items()}
        for prefix, mask in masks.items():
            logits = self._judged.logits(self._judged.masked(self.pixel_values, mask))
            values[f"{prefix}p_energy"] = class_probability(logits, self.target)
            values[f"{prefix}accuracy"] = 100.0 * (logits.argmax(dim=1) == self.labels)
        return values

    def _order_values(self, maps: Tensor) -> dict[str, Tensor]:
        """What depends on the order of pixels or patches alone. Constant maps all have the one that the seed draws."""
        settings = self._settings
        without_order = bool((maps.amax(dim=(1, 2, 3)) == maps.amin(dim=(1, 2, 3))).all())
        if without_order and self._of_no_order is not None:
            return self._of_no_order
        values: dict[str, Tensor] = {}
        for variant in settings.insertion_deletion if settings.insertion_deletion_images else ():
            values |= self._insertion_deletion(maps, variant)
        if settings.road_images:
            values["road"] = self._on_first(settings.road_images, lambda count: self._road(maps, count))
        if without_order:
            self._of_no_order = values
        return values

    def _insertion_deletion(self, maps: Tensor, variant: str) -> dict[str, Tensor]:
        """NaN beyond the first `insertion_deletion_images`; the plain names are the first variant's."""
        settings = self._settings
        unit, baseline = variant.split("-")
        suffix = "" if variant == settings.insertion_deletion[0] else f"_{unit}_{baseline}"

        def areas(count: int) -> Tensor:
            curves = insertion_deletion(
                self._judged.probabilities,
                self.pixel_values[:count],
                maps[:count],
                self.target[:count],
                steps=settings.steps,
                patch_size=1 if unit == "pixel" else settings.patch_size_of(maps.shape[-2:]),
                baseline=baseline,
                seed=settings.seed,
                first_index=self._first_index,
                chunk_size=settings.chunk_size,
            )
            return torch.stack([curves.insertion, curves.deletion, curves.difference], dim=1)

        found = self._on_first(settings.insertion_deletion_images, areas)
        names = ("insertion", "deletion", "insertion_minus_deletion")
        return {name + suffix: found[:, column] for column, name in enumerate(names)}

    def _road(self, maps: Tensor, count: int) -> Tensor:
        settings = self._settings
        return road(
            self._judged.probabilities,
            self.pixel_values[:count],
            maps[:count],
            self.target[:count],
            seed=settings.seed,
            first_index=self._first_index,
            chunk_size=settings.chunk_size,
        ).combined

    def _on_first(self, images: int, measure: Callable[[int], Tensor]) -> Tensor:
        """What is measured on the first images of the data set alone; NaN for the others of this batch."""
        count = len(self.pixel_values)
        use = min(count, max(0, images - self._first_index))
        scores = measure(use).float()
        return F.pad(scores.movedim(0, -1), (0, count - use), value=math.nan).movedim(-1, 0)

    def _localisation(self, maps: Tensor, mask: Tensor) -> dict[str, Tensor]:
        seeds = {"seed": self._settings.seed, "first_index": self._first_index}
        return {
            "energy_share": energy_share(maps, mask),
            "energy_share_over_area": energy_share_over_area(maps, mask),
            # The top pixel of a map of zeros is nowhere, as far as the reader of the map can see: a random pixel.
            "pointing_game": 100 * pointing_game(maps, mask, **seeds),
            "relevance_rank": relevance_rank(maps, mask, **seeds),
        }


def _drawn_at_random(maps: Tensor, kept: Tensor) -> Tensor:
    """Whether pixels of one value were partly kept and partly not, as the seed had it; (B,) bool."""
    least_kept = maps.masked_fill(~kept, torch.inf).flatten(1).amin(dim=1)
    most_left_out = maps.masked_fill(kept, -torch.inf).flatten(1).amax(dim=1)
    return least_kept == most_left_out


def _percent(area: float) -> str:
    return f"{100 * area:g}"


def _read(batch: Mapping[str, Any], judged: JudgedClassifier) -> tuple[Tensor, Tensor, Tensor | None]:
    """Pixel values, labels and mask on the model's device."""
    for name in ("pixel_values", "labels"):
        if batch.get(name) is None:
            raise ValueError(
                f'Every batch needs "{name}", but this one holds {", ".join(map(repr, batch)) or "nothing"}.'
            )
    labels, mask = torch.as_tensor(batch["labels"]), batch.get("mask")
    if labels.ndim != 1 or labels.is_floating_point() or len(labels) != len(batch["pixel_values"]):
        raise ValueError(
            f"labels must be one class number for each image, (B,), but they are {tuple(labels.shape)} of "
            f"{labels.dtype}."
        )
    classes = judged.num_labels
    if classes and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"labels must be in 0 … {classes - 1}, the classes of the model, but they span "
            f"{int(labels.min())} … {int(labels.max())}."
        )
    pixel_values = batch["pixel_values"].to(device=judged.device, dtype=judged.dtype)
    return pixel_values, labels.long().to(judged.device), None if mask is None else mask.to(judged.device)
