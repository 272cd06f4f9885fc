"""One batch and one map: in which forms it is measured, and every metric in each of them."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal, TypeGuard

import torch
from torch import Tensor
from torch.nn import functional as F

from antehoc_hf.evaluation.maps import binarise, degenerate_maps, measurable_maps, rank_pixels
from antehoc_hf.evaluation.metric import Metric
from antehoc_hf.evaluation.scorer import Batch, MapForm, Scorer
from antehoc_hf.evaluation.settings import EvaluationSettings

_ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}


@dataclass(frozen=True)
class Column:
    """A column of a report's tables.

    Attributes:
        heading (`str`): with an arrow to where it is better.
        decimals (`int`): to print.
        better (`"higher"`, `"lower"` or None): None describes the map.
        rewards_brightness (`bool`): whether a brighter map scores better, whatever it shows.
    """

    heading: str
    decimals: int = 2
    better: Literal["higher", "lower"] | None = None
    rewards_brightness: bool = False


@dataclass(frozen=True)
class MapValues:
    """What one kind of map scores on a batch.

    Attributes:
        values (`dict[str, Tensor]`): column → (B,) on the CPU; NaN where it is not defined.
        columns (`dict[str, Column]`): of the values that have a column in tables.
        flags (`dict[str, Tensor]`): (B,) bool, what must be counted: `degenerate`, `not_finite`, `clipped`, `tied`,
            `invalid`, `undefined`, see `MapRow`.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    columns: dict[str, Column] = field(default_factory=dict)
    flags: dict[str, Tensor] = field(default_factory=dict)


@torch.no_grad()
def measure_maps(scorer: Scorer, batch: Batch, maps: Tensor, metrics: Iterable[Metric]) -> MapValues:
    """Every metric of one map for each image of a batch, in every form that the settings ask for.

    Args:
        scorer (`Scorer`): of the task.
        batch (`Batch`): what it made of the images.
        maps (`Tensor`): (B, 1, H, W), as an explainer gave them.
        metrics: to compute, as far as the task has what they are computed from.

    Raises:
        ValueError: if the maps' shape is another one, or a metric does not give one value for each image.
    """
    raw, maps = measurable_maps(maps, batch.pixel_values)
    found = MapValues()
    found.flags.update(
        degenerate=degenerate_maps(raw),
        not_finite=(~torch.isfinite(raw)).flatten(1).any(dim=1),
        # Rounding does not count.
        clipped=((raw < -1e-4) | (raw > 1 + 1e-4)).flatten(1).any(dim=1),
        invalid=torch.zeros(len(maps), dtype=torch.bool),
        undefined=torch.zeros(len(maps), dtype=torch.bool),
    )
    shared = {**batch.arrays, "pixel_values": batch.pixel_values, "maps": maps}
    views = chain(
        [MapForm(arrays={"maps": maps})],
        _masked(scorer, batch, maps, found.flags),
        _ranked(scorer, batch, maps),
        _regions(batch, maps, found.flags),
    )
    for view in views:
        if view.finite is not None:
            found.flags["invalid"] |= ~_padded(view.finite.cpu(), len(maps), True)
        for metric in metrics:
            if _applies(metric, view, shared):
                name = view.name.format(metric.name)
                found.values[name] = _compute(metric, {**shared, **view.arrays}, view, batch, scorer.settings)
                if view.columns and (metric.columns is None or view.form in metric.columns):
                    found.columns[name] = column_of(metric, view.heading, view.fair)
    return found


def _masked(scorer: Scorer, batch: Batch, maps: Tensor, flags: dict[str, Tensor]) -> Iterator[MapForm]:
    """What is left of the prediction on the energy map, and under masks cut from the map."""
    settings, pixels = scorer.settings, maps[0].numel()

    def view(mask: Tensor, form: str = "", heading: str = "{}", fair: bool = False, columns: bool = True) -> MapForm:
        seen = scorer.masked(batch, mask)
        name = f"{form}_{{}}" if form else "{}"
        return MapForm(form, name, heading, seen.arrays, seen.options, fair, columns, seen.finite)

    yield view(maps)
    if settings.threshold is not None:
        yield view(binarise(maps, settings.threshold), "binarised", "{}, binarised")
    if settings.area is None and not settings.areas:
        return
    ranks = rank_pixels(maps, settings.seed, batch.first_index).view_as(maps)
    if settings.area is not None:
        kept = (ranks < round(settings.area * pixels)).float()
        flags["tied"] = _drawn_at_random(maps, kept > 0)
        yield view(kept, "equal_area", "{}, equal area", fair=True)
    for area in settings.areas:
        kept, percent = (ranks < round(area * pixels)).float(), f"{100 * area:g}"
        yield view(kept, f"keep_{percent}", f"{{}}, {percent} % kept", fair=True, columns=False)
        yield view(1 - kept, f"remove_{percent}", f"{{}}, {percent} % removed", fair=True, columns=False)


def _ranked(scorer: Scorer, batch: Batch, maps: Tensor) -> list[MapForm]:
    """What depends on the order of pixels or patches alone. Constant maps all have the one that the seed draws."""
    without_order = bool((maps.amax(dim=(1, 2, 3)) == maps.amin(dim=(1, 2, 3))).all())
    if not without_order:
        return scorer.ranked(batch, maps)
    if batch.of_no_order is None:
        batch.of_no_order = scorer.ranked(batch, maps)
    return batch.of_no_order


def _regions(batch: Batch, maps: Tensor, flags: dict[str, Tensor]) -> Iterator[MapForm]:
    """Agreement with each mask of true evidence."""
    nowhere = (maps.sum(dim=(1, 2, 3)) == 0).cpu()
    for region, masks in batch.regions.items():
        flags["undefined"] |= nowhere | ~(masks != 0).flatten(1).any(dim=1).cpu()
        name, heading = (f"{region}_{{}}", f"{region}: {{}}") if region else ("{}", "{}")
        yield MapForm(region, name, heading, {"masks": masks}, fair=True)


def _applies(metric: Metric, view: MapForm, shared: Mapping[str, object]) -> bool:
    needed = set(metric.inputs)
    return bool(needed & view.arrays.keys()) and needed <= shared.keys() | view.arrays.keys()


def column_of(metric: Metric, heading: str = "{}", fair: bool = False) -> Column:
    """A metric's column; `heading` has {} where the metric's own is to stand."""
    text = heading.format(metric.heading) + _ARROWS[metric.better]
    return Column(text, metric.decimals, metric.better, metric.rewards_brightness and not fair)


def _compute(
    metric: Metric, arrays: Mapping[str, object], view: MapForm, batch: Batch, settings: EvaluationSettings
) -> Tensor:
    """(B,) on the CPU; NaN where an input is not finite, and beyond the images that were looked at."""
    count = len(batch.pixel_values)
    inputs = [arrays[name] for name in metric.inputs]
    usable = torch.ones(count, dtype=torch.bool)
    for value in inputs:
        if isinstance(value, Tensor) and value.shape == (count,) and value.is_floating_point():
            usable &= torch.isfinite(value).cpu()
    some = not bool(usable.all())
    if some:
        inputs = [value[usable.to(value.device)] if _is_batch(value, count) else value for value in inputs]
    options = {name: value for name, value in view.options.items() if name in metric.options}
    values = metric.function(*inputs, **options, **metric.place(settings.seed, batch.first_index))
    if not isinstance(values, Tensor) or values.ndim != 1 or len(values) > count:
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"The metric {metric.name!r} must give one value for each image, ({count},), not {shape}.")
    values = metric.scale * values.detach().cpu()
    if some:
        return torch.full((count,), math.nan, dtype=values.dtype).masked_scatter(usable, values)
    return _padded(values, count, math.nan)


def _is_batch(value: object, count: int) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == count


def _padded(values: Tensor, count: int, value: float | bool) -> Tensor:
    return F.pad(values, (0, count - len(values)), value=value) if len(values) < count else values


def _drawn_at_random(maps: Tensor, kept: Tensor) -> Tensor:
    """Whether pixels of one value were partly kept and partly not, as the seed had it; (B,) bool."""
    least_kept = maps.masked_fill(~kept, torch.inf).flatten(1).amin(dim=1)
    most_left_out = maps.masked_fill(kept, -torch.inf).flatten(1).amax(dim=1)
    return least_kept == most_left_out
