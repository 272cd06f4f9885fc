"""One report: what a landmark model's maps leave of its points, and whether they lie on the parts it looks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from antehoc_hf.evaluation.bootstrap import Estimate, bootstrap_means
from antehoc_hf.evaluation.controls import CONTROLS
from antehoc_hf.evaluation.landmarks import NORMALIZERS, nme
from antehoc_hf.evaluation.localisation import energy_share, energy_share_over_area, pointing_game
from antehoc_hf.evaluation.maps import binarise_equal_area, degenerate_maps, measurable_maps
from antehoc_hf.evaluation.mode import evaluation_mode
from antehoc_hf.evaluation.results import MapRow

_MODEL_ROW = "antehoc"
Explainer = Callable[[Tensor], Tensor]
"""pixel_values (B, 3, H, W) → maps (B, 1, H, W) in [0, 1]."""


@dataclass(frozen=True)
class LandmarkSettings:
    """
    How the maps are measured.

    Args:
        area (`float`): kept part of the image in masks of equal area.
        normalizer (`str`): a name of `NORMALIZERS`; None: the first whose length is known.
        seed (`int`): of ties, the random control and the bootstrap.
        level, resamples: see `bootstrap_mean`.

    Raises:
        ValueError: for a value that makes no sense.
    """

    area: float = 0.2
    normalizer: str | None = None
    seed: int = 0
    level: float = 0.95
    resamples: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.area < 1:
            raise ValueError(f"area={self.area!r} must be between 0 and 1.")
        if self.normalizer not in (None, *NORMALIZERS):
            raise ValueError(f"normalizer={self.normalizer!r} must be one of {', '.join(NORMALIZERS)}.")


@dataclass(frozen=True)
class LandmarkMapReport:
    """
    The scores of a landmark model's maps beside those of maps that explain nothing.

    Errors are normalised mean errors in percent. Of each row: `nme` on image ⊙ map, `equal_area_nme` with the pixels
    kept that the map puts first, `map_mean`, and of each part `{part}_energy_share` (the map's sum inside the part),
    `{part}_energy_over_area` (the same in units of the part's area; 1 is chance) and `{part}_pointing_game` (percent).

    Attributes:
        num_images (`int`): images seen.
        normalizer (`str`): what the errors are divided by.
        parts (`list[str]`): the parts measured against.
        nme (`Estimate`): on the image itself.
        part_areas (`dict[str, Estimate]`): share of the image that a part covers.
        rows (`list[MapRow]`): the model's own map first, then explainers, then controls.
        settings (`dict`): how it was measured.
    """

    num_images: int
    normalizer: str
    parts: list[str]
    nme: Estimate
    part_areas: dict[str, Estimate]
    rows: list[MapRow]
    settings: dict[str, Any] = field(default_factory=dict)

    def row(self, name: str) -> MapRow:
        """
        The row of that name.

        Raises:
            KeyError: if there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"No row is named {name!r}. There are: {', '.join(row.name for row in self.rows)}.")

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "num_images": self.num_images,
            "normalizer": self.normalizer,
            "nme": self.nme.to_dict(),
            "part_areas": {part: area.to_dict() for part, area in self.part_areas.items()},
            "rows": [row.to_dict() for row in self.rows],
            "settings": self.settings,
        }

    def table(self) -> list[list[str]]:
        """Headings and rows as text, for a terminal or Markdown; where the points are without any map, first."""
        columns = [("equal_area_nme", "NME, equal area ↓", 2)]
        for part in self.parts:
            columns.append((f"{part}_energy_over_area", f"{part}: energy / area ↑", 2))
            columns.append((f"{part}_pointing_game", f"{part}: pointing ↑", 1))
        columns += [("nme", "NME, image ⊙ map ↓", 2), ("map_mean", "mean of map", 2)]
        rows = [["map", *(heading for _, heading, _ in columns)]]
        for row in self.rows:
            rows.append([row.name, *(_told(row.scores.get(name), decimals) for name, _, decimals in columns)])
        return rows


@torch.no_grad()
def evaluate_landmark_maps(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    parts: Sequence[str] = (),
    settings: LandmarkSettings | None = None,
    *,
    explainers: Mapping[str, Explainer] | None = None,
    progress: bool = True,
) -> LandmarkMapReport:
    """
    Scores a landmark model's interpretation maps beside the controls and, if given, other explainers' maps.

    Args:
        model (`AnteHocForLandmarkDetection`): left in the mode it was in, used on the device it is on.
        batches: of `pixel_values` (B, 3, H, W), `labels` (B, K, 2), `normalizer` (B, 2, 2), see
            [`antehoc_hf.evaluation.landmarks.normalizers`], and `part_masks` (B, P, H, W) if parts are named.
        parts: names of the P parts.
        settings (`LandmarkSettings`, *optional*): how to measure.
        explainers (`dict`, *optional*): name → pixel values → maps. They get a row each.
        progress (`bool`): show a bar.

    Raises:
        ValueError: if there is no batch, a batch lacks something, no length to normalise by is known, or an
            explainer has the name of another row.
    """
    settings = settings or LandmarkSettings()
    makers = _makers(explainers or {}, settings.seed)
    images: dict[str, list[Tensor]] = {}
    rows: dict[str, dict[str, list[Tensor]]] = {name: {} for name in (_MODEL_ROW, *makers)}
    seen = 0
    with evaluation_mode(model):
        length = len(batches) if isinstance(batches, Sized) else None
        for batch in tqdm(batches, total=length, desc="Evaluating maps", unit="batch", disable=not progress):
            scorer = _BatchScorer(model, batch, parts, settings, seen)
            _add(images, scorer.image_values())
            for name in rows:
                maps = scorer.own_map if name == _MODEL_ROW else makers[name](scorer.pixel_values, seen)
                _add(rows[name], scorer.map_values(maps))
            seen += len(scorer.pixel_values)
    if not seen:
        raise ValueError("There is nothing to evaluate: the batches held no image.")
    kinds = {_MODEL_ROW: "model", **dict.fromkeys(explainers or {}, "explainer")}
    return _summarise(images, rows, kinds, parts, settings)


class _BatchScorer:
    """One batch: the points found in its images, and what any map of them scores."""

    def __init__(
        self, model: nn.Module, batch: Mapping[str, Any], parts: Sequence[str], settings: LandmarkSettings, first: int
    ) -> None:
        missing = [name for name in ("pixel_values", "labels", "normalizer") if batch.get(name) is None]
        missing += ["part_masks"] if parts and batch.get("part_masks") is None else []
        if missing:
            raise ValueError(f"Every batch needs {missing[0]!r}, but this one holds {', '.join(batch) or 'nothing'}.")
        self._model: Any = model
        self._settings, self._parts, self._first = settings, parts, first
        self.pixel_values = batch["pixel_values"].to(device=self._model.device, dtype=self._model.dtype)
        self._labels, self._normalizer = batch["labels"].cpu(), batch["normalizer"].cpu()
        self._masks = batch["part_masks"].to(self._model.device) if parts else None
        outputs = self._model(pixel_values=self.pixel_values)
        self._found, self.own_map = outputs.landmarks.cpu(), outputs.interpretation_map

    def image_values(self) -> dict[str, Tensor]:
        """The errors on the images by both lengths, and the areas of the parts."""
        values = {name: 100 * error for name, error in self._errors(self._found).items()}
        for index, part in enumerate(self._parts):
            assert self._masks is not None
            area = self._masks[:, index].float().mean(dim=(1, 2))
            values[f"{part}_area"] = torch.where(area > 0, area, torch.nan)
        return values

    def map_values(self, maps: Tensor) -> dict[str, Tensor]:
        """What a map scores, for each image: (B,) by name. NaN where a measure says nothing."""
        index = {"seed": self._settings.seed, "first_index": self._first}
        raw, maps = measurable_maps(maps, self.pixel_values)
        values = {
            "degenerate": degenerate_maps(raw),
            "not_finite": (~torch.isfinite(raw)).flatten(1).any(dim=1),
            "map_mean": maps.mean(dim=(1, 2, 3)),
        }
        for prefix, mask in (("", maps), ("equal_area_", binarise_equal_area(maps, self._settings.area, **index))):
            output = self._model.backbone(self._model.energy_map(self.pixel_values, mask))
            found = output.unflatten(1, (-1, 2)).cpu()
            values |= {f"{prefix}nme_{name}": 100 * error for name, error in self._errors(found).items()}
        for number, part in enumerate(self._parts):
            assert self._masks is not None
            mask = self._masks[:, number : number + 1]
            values[f"{part}_energy_share"] = energy_share(maps, mask)
            values[f"{part}_energy_over_area"] = energy_share_over_area(maps, mask)
            values[f"{part}_pointing_game"] = 100 * pointing_game(maps, mask, **index)
        return values

    def _errors(self, found: Tensor) -> dict[str, Tensor]:
        return {name: nme(found, self._labels, self._normalizer[:, index]) for index, name in enumerate(NORMALIZERS)}


def _summarise(
    images: dict[str, list[Tensor]],
    rows: dict[str, dict[str, list[Tensor]]],
    kinds: Mapping[str, str],
    parts: Sequence[str],
    settings: LandmarkSettings,
) -> LandmarkMapReport:
    of_images = {name: torch.cat(values) for name, values in images.items()}
    length = _chosen_normalizer(of_images, settings)
    on_images = _estimates(of_images, settings)
    reported = []
    for name, columns in rows.items():
        joined = {column: torch.cat(values) for column, values in columns.items()}
        counts = {key: int(joined.pop(key).sum()) for key in ("degenerate", "not_finite")}
        others = tuple(f"nme_{other}" for other in NORMALIZERS if other != length)
        kept = {
            column.replace(f"nme_{length}", "nme"): values
            for column, values in joined.items()
            if not column.endswith(others)
        }
        scores = _estimates(kept, settings)
        reported.append(MapRow(name, kinds.get(name, "control"), scores, counts["degenerate"], counts["not_finite"]))
    return LandmarkMapReport(
        num_images=len(next(iter(of_images.values()))),
        normalizer=length,
        parts=list(parts),
        nme=on_images[length],
        part_areas={part: on_images[f"{part}_area"] for part in parts},
        rows=reported,
        settings=vars(settings) | {"normalizer": length},
    )


def _chosen_normalizer(of_images: Mapping[str, Tensor], settings: LandmarkSettings) -> str:
    for name in (settings.normalizer,) if settings.normalizer is not None else NORMALIZERS:
        if not bool(of_images[name].isnan().all()):
            return name
    raise ValueError("No image has a length to normalise errors by, or none has known points.")


def _estimates(columns: Mapping[str, Tensor], settings: LandmarkSettings) -> dict[str, Estimate]:
    values = torch.stack(list(columns.values()), dim=1)
    found = bootstrap_means(values, torch.isfinite(values), settings.level, settings.resamples, settings.seed)
    return dict(zip(columns, found, strict=True))


def _makers(explainers: Mapping[str, Explainer], seed: int) -> dict[str, Callable[[Tensor, int], Tensor]]:
    taken = sorted({_MODEL_ROW, *CONTROLS} & explainers.keys())
    if taken:
        raise ValueError(f"The name {taken[0]!r} is taken by a row of the report: give the explainer another one.")
    made: dict[str, Callable[[Tensor, int], Tensor]] = {}
    for name, explainer in explainers.items():
        made[name] = lambda pixel_values, first, explainer=explainer: explainer(pixel_values)  # type: ignore[misc]
    for name, control in CONTROLS.items():
        made[name] = lambda pixel_values, first, control=control: control(pixel_values, seed, first)  # type: ignore[misc]
    return made


def _add(columns: dict[str, list[Tensor]], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        columns.setdefault(name, []).append(value.detach().double().cpu())


def _told(estimate: Estimate | None, decimals: int) -> str:
    if estimate is None or math.isnan(estimate.value):
        return "none"
    return f"{estimate.value:.{decimals}f}"
