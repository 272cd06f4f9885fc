"""The seam between tasks and metrics: what a model makes of images, and of what a map leaves of them.

Metrics know arrays alone (`Metric`); a scorer gives them those of its task. `evaluate_maps` has one for classifiers,
landmark models and captioners, and takes any other.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from antehoc_hf.evaluation.settings import EvaluationSettings


@dataclass(frozen=True)
class MapForm:
    """One form in which a map is measured.

    Attributes:
        form (`str`): its name in `Metric.columns`.
        name, heading (`str`): what a metric's name and heading become, with {} in their place.
        arrays (`dict`): what metrics can take here, in addition to that of the batch.
        options (`dict`): of the metrics' functions, where they have them.
        fair (`bool`): whether a brighter map gains nothing here.
        columns (`bool`): whether its metrics have columns in tables.
        finite (`Tensor`, *optional*): (B,) bool, where the predictions were; fewer than B: for the first ones alone.
    """

    form: str = ""
    name: str = "{}"
    heading: str = "{}"
    arrays: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    fair: bool = False
    columns: bool = True
    finite: Tensor | None = None


@dataclass(frozen=True)
class Masked:
    """What a model makes of masked images.

    Attributes:
        arrays (`dict[str, Tensor]`): (B,) each, by the names of metrics' inputs.
        finite (`Tensor`): (B,) bool, whether the prediction is.
        options (`dict`): see `MapForm`.
    """

    arrays: Mapping[str, Tensor]
    finite: Tensor
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Batch:
    """What a model makes of a batch of images.

    Attributes:
        pixel_values (`Tensor`): (B, 3, H, W) on the model's device.
        first_index (`int`): place of the first image in its data set.
        target (`Tensor`, *optional*): what explainers are asked about: classes (B,), captions (B, T), or nothing.
        valid (`Tensor`): (B,) bool, whether the prediction is finite.
        included (`Tensor`): (B,) bool, which of the images are to be averaged over.
        scores (`dict[str, Tensor]`): (B,) each, how well the task itself is done; NaN where unknown.
        part_areas (`dict[str, Tensor]`): (B,) each, the part of an image that a region covers; NaN where it is not.
        maps, degenerate (`Tensor`, *optional*): the model's own (B, 1, H, W), and (B,) where it has nothing to show.
        arrays (`dict`): what metrics can take whatever the map: `p_image`, `target`, `predict`.
        regions (`dict[str, Tensor]`): masks of the true evidence by name, (B, 1, H, W); "" if there is one alone.
    """

    pixel_values: Tensor
    first_index: int
    target: Tensor | None
    valid: Tensor
    included: Tensor
    scores: dict[str, Tensor] = field(default_factory=dict)
    part_areas: dict[str, Tensor] = field(default_factory=dict)
    maps: Tensor | None = None
    degenerate: Tensor | None = None
    arrays: dict[str, Any] = field(default_factory=dict)
    regions: dict[str, Tensor] = field(default_factory=dict)
    of_no_order: list[MapForm] | None = None


class Scorer(ABC):
    """How one task is scored.

    Args:
        settings (`EvaluationSettings`): how to measure; what the task does not use is switched off.
    """

    uses: ClassVar[tuple[str, ...]] = ("area", "areas", "seed", "level", "resamples")
    """The settings that matter here."""
    explains_itself = True
    """Whether the model has a map of its own."""

    def __init__(self, settings: EvaluationSettings) -> None:
        off: dict[str, Any] = {"threshold": None, "area": None, "insertion_deletion_images": 0, "road_images": 0}
        self.settings = replace(settings, **{name: value for name, value in off.items() if name not in self.uses})

    @abstractmethod
    def see(self, batch: Mapping[str, Tensor], first_index: int) -> Batch:
        """The model's prediction on a batch.

        Raises:
            ValueError: if the batch lacks something, or shapes don't fit.
        """

    @abstractmethod
    def masked(self, batch: Batch, mask: Tensor) -> Masked:
        """The same images with a mask (B, 1, H, W) multiplied in."""

    def ranked(self, batch: Batch, maps: Tensor) -> list[MapForm]:
        """What the order of the maps' pixels is worth."""
        return []

    def about(self) -> str:
        """What a reader of the report must know, in a sentence or two."""
        return ""

    def used_settings(self) -> dict[str, Any]:
        """The settings that matter here, for the report."""
        return {name: value for name, value in asdict(self.settings).items() if name in self.uses}


def require(batch: Mapping[str, Tensor], *names: str) -> None:
    """Raises a ValueError if the batch lacks one of them."""
    for name in names:
        if batch.get(name) is None:
            held = ", ".join(map(repr, batch)) or "nothing"
            raise ValueError(f'Every batch needs "{name}", but this one holds {held}.')


def masked_probability(p_energy: Tensor, settings: EvaluationSettings) -> Masked:
    """What metrics of the probability of masked images, (B,), take."""
    p_energy = p_energy.double().cpu()
    options = {"tolerance": settings.tolerance, "denominator": settings.inc_denominator}
    return Masked({"p_energy": p_energy}, torch.isfinite(p_energy), options)


Explainer = Callable[[Tensor, Any], Tensor]
"""(pixel_values (B, 3, H, W), target) → maps (B, 1, H, W) in [0, 1]; the target is classes (B,), captions (B, T), or
None for landmarks."""
