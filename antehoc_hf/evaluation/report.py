"""One report: a model's maps beside those of other explainers and of controls that explain nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from antehoc_hf.evaluation.bootstrap import Estimate, bootstrap_means
from antehoc_hf.evaluation.controls import CONTROLS
from antehoc_hf.evaluation.faithfulness import (
    avg_drop_terms,
    class_probability,
    drop_terms,
    inc_terms,
    win_terms,
)
from antehoc_hf.evaluation.insertion_deletion import insertion_deletion
from antehoc_hf.evaluation.localisation import energy_share, energy_share_over_area, pointing_game
from antehoc_hf.evaluation.maps import binarise, binarise_equal_area, degenerate_maps, measurable_maps
from antehoc_hf.evaluation.mode import evaluation_mode
from antehoc_hf.evaluation.results import MapReport, MapRow
from antehoc_hf.evaluation.settings import EvaluationSettings

Explainer = Callable[[Tensor, Tensor], Tensor]
"""(pixel_values (B, 3, H, W), target (B,)) → maps (B, 1, H, W) in [0, 1]."""

_MODEL_ROW = "antehoc"


def evaluate_maps(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    settings: EvaluationSettings | None = None,
    *,
    explainers: Mapping[str, Explainer] | None = None,
    progress: bool = True,
) -> MapReport:
    """
    Scores the model's interpretation maps beside controls and, if given, other explainers' maps.

    Every map goes through `model.energy_map` and the same backbone, in evaluation mode without gradients; the model
    is left in the mode it was in. Images keep their identity through the seed, so the result doesn't depend on how the
    data are batched, up to rounding.

    Args:
        model (`AnteHocForImageClassification`): with one class an image. It is used on the device it is on.
        batches: of `{"pixel_values": (B, 3, H, W), "labels": (B,)}` and, for localisation, `"mask": (B, 1, H, W)`.
        settings (`EvaluationSettings`, *optional*): how to measure.
        explainers (`dict[str, Callable]`, *optional*): name → `(pixel_values, target) -> maps`. They get a row each.
        progress (`bool`): show a bar with an estimate of the time left.

    Returns:
        `MapReport`: with `to_dict()` for JSON and `to_markdown()` for reading.

    Raises:
        ValueError: if the model is no single-label classifier, there is no batch, a batch lacks something, shapes or
            classes don't fit, or an explainer has the name of another row.
    """
    settings = settings or EvaluationSettings()
    makers = _makers(explainers or {})
    _check_model(model)
    rows = {name: _RowData() for name in (_MODEL_ROW, *makers)}
    images = _RowData()
    seen = 0
    with evaluation_mode(model):
        length = len(batches) if isinstance(batches, Sized) else None
        for batch in tqdm(batches, total=length, desc="Evaluating maps", unit="batch", disable=not progress):
            scorer = _BatchScorer(model, batch, settings, seen)
            images.add(scorer.image_values())
            rows[_MODEL_ROW].add(scorer.own_values())
            for name, maker in makers.items():
                rows[name].add(scorer.map_values(maker(scorer.pixel_values, scorer.target, settings.seed, seen)))
            seen += len(scorer.pixel_values)
    if not seen:
        raise ValueError("There is nothing to evaluate: the batches held no image.")
    kinds = {_MODEL_ROW: "model", **dict.fromkeys(explainers or {}, "explainer"), **dict.fromkeys(CONTROLS, "control")}
    return _summarise(images.joined(), {name: data.joined() for name, data in rows.items()}, kinds, settings)


class _RowData:
    """Values of each image, batch after batch, on the CPU."""

    def __init__(self) -> None:
        self._batches: dict[str, list[Tensor]] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        if self._batches and self._batches.keys() != values.keys():
            raise ValueError('Either every batch has a "mask" or none: localisation needs one for each image.')
        for name, value in values.items():
            self._batches.setdefault(name, []).append(value.detach().double().cpu())

    def joined(self) -> dict[str, Tensor]:
        return {name: torch.cat(parts) for name, parts in self._batches.items()}


class _BatchScorer:
    """One batch: the prediction on its images, and what any map of them scores."""

    def __init__(self, model: nn.Module, batch: Mapping[str, Any], settings: EvaluationSettings, first_index: int):
        self._model: Any = model
        self._settings = settings
        self._first_index = first_index
        self.pixel_values, self.labels, self.mask = _read(batch, self._model)
        with torch.no_grad():
            outputs = self._model(pixel_values=self.pixel_values)
        self._interpretation_map, self._degenerate = outputs.interpretation_map, outputs.degenerate
        self._predicted = outputs.logits.argmax(dim=1)
        self.target = self.labels if settings.target == "label" else self._predicted
        self._p_image = class_probability(outputs.logits, self.target)

    def image_values(self) -> dict[str, Tensor]:
        """What the model makes of the images."""
        return {"p_image": self._p_image, "correct": self._predicted == self.labels}

    def own_values(self) -> dict[str, Tensor]:
        """What the model's own map scores; the model knows best where it has nothing to show."""
        values = self.map_values(self._interpretation_map)
        return values | {"degenerate": values["degenerate"] | self._degenerate}

    @torch.no_grad()
    def map_values(self, maps: Tensor) -> dict[str, Tensor]:
        """What a map scores, for each image: (B,) by name. NaN where a measure says nothing."""
        settings, index = self._settings, {"seed": self._settings.seed, "first_index": self._first_index}
        raw, maps = measurable_maps(maps, self.pixel_values)
        values = {
            "degenerate": degenerate_maps(raw),
            "not_finite": (~torch.isfinite(raw)).flatten(1).any(dim=1),
            # Rounding is no offence.
            "clipped": ((raw < -1e-4) | (raw > 1 + 1e-4)).flatten(1).any(dim=1),
            "map_mean": maps.mean(dim=(1, 2, 3)),
            **self._masked_prediction("", maps),
        }
        if settings.threshold is not None:
            values |= self._masked_prediction("binarised_", binarise(maps, settings.threshold))
        if settings.area is not None:
            values |= self._masked_prediction("equal_area_", binarise_equal_area(maps, settings.area, **index))
        if settings.insertion_deletion_images:
            values |= self._insertion_deletion(maps)
        if self.mask is not None:
            values["energy_share"] = energy_share(maps, self.mask)
            values["energy_share_over_area"] = energy_share_over_area(maps, self.mask)
            # The top pixel of a map of zeros is nowhere, as far as the reader of the map can see: a random pixel.
            values["pointing_game"] = 100 * pointing_game(maps, self.mask, **index)
        return values

    def _masked_prediction(self, prefix: str, mask: Tensor) -> dict[str, Tensor]:
        logits = self._model.backbone(self._model.energy_map(self.pixel_values, mask))
        return {
            f"{prefix}p_energy": class_probability(logits, self.target),
            f"{prefix}accuracy": 100.0 * (logits.argmax(dim=1) == self.labels),
        }

    def _insertion_deletion(self, maps: Tensor) -> dict[str, Tensor]:
        """NaN beyond the first `insertion_deletion_images`."""
        settings, count = self._settings, len(maps)
        use = min(count, max(0, settings.insertion_deletion_images - self._first_index))
        curves = insertion_deletion(
            lambda images: self._model.backbone(images).float().softmax(dim=1),
            self.pixel_values[:use],
            maps[:use],
            self.target[:use],
            steps=settings.steps,
            patch_size=settings.patch_size,
            baseline=settings.baseline,
            seed=settings.seed,
            first_index=self._first_index,
            chunk_size=settings.chunk_size,
        )
        scores = {
            "insertion": curves.insertion,
            "deletion": curves.deletion,
            "insertion_minus_deletion": curves.difference,
        }
        return {
            name: nn.functional.pad(score.float(), (0, count - use), value=math.nan) for name, score in scores.items()
        }


def _summarise(
    images: dict[str, Tensor], rows: dict[str, dict[str, Tensor]], kinds: dict[str, str], settings: EvaluationSettings
) -> MapReport:
    valid = torch.isfinite(images["p_image"])
    scored = valid & images["correct"].bool() if settings.correct_only else valid

    def estimates(columns: dict[str, Tensor], among: Tensor) -> dict[str, Estimate]:
        values = torch.stack(list(columns.values()), dim=1)
        included = torch.isfinite(values) & among[:, None]
        found = bootstrap_means(values, included, settings.level, settings.resamples, settings.seed)
        return dict(zip(columns, found, strict=True))

    reported = []
    for name, row in rows.items():
        columns, invalid = _measures(images["p_image"], row, scored, settings)
        undefined = torch.isnan(row["energy_share"]) & scored if "energy_share" in row else torch.zeros(1)
        counts = {key: int(row[key].sum()) for key in ("degenerate", "not_finite", "clipped")}
        reported.append(
            MapRow(
                name,
                kinds[name],
                estimates(columns, scored),
                **counts,
                invalid=invalid,
                undefined=int(undefined.sum()),
            )
        )
    return MapReport(
        num_images=len(valid),
        num_scored=int(scored.sum()),
        num_invalid=int((~valid).sum()),
        # A prediction that is not finite is no right one.
        accuracy=estimates({"accuracy": 100 * images["correct"] * valid}, torch.ones_like(valid))["accuracy"],
        rows=reported,
        settings=asdict(settings),
    )


def _measures(
    p_image: Tensor, row: dict[str, Tensor], scored: Tensor, settings: EvaluationSettings
) -> tuple[dict[str, Tensor], int]:
    """The terms of every mean, (N,), NaN where an image is no part of it; and the number of invalid images."""
    counted = ("degenerate", "not_finite", "clipped")
    columns = {name: value for name, value in row.items() if name not in counted and not name.endswith("p_energy")}
    invalid = torch.zeros_like(scored)
    for name in [name for name in row if name.endswith("p_energy")]:
        prefix, p_energy = name.removesuffix("p_energy"), row[name]
        usable = torch.isfinite(p_energy) & torch.isfinite(p_image)
        invalid |= scored & ~usable
        pair = p_image[usable], p_energy[usable]
        terms = {
            "drop_cond": drop_terms(*pair, settings.tolerance),
            "inc_cond": inc_terms(*pair, settings.inc_denominator, settings.tolerance),
            "win": win_terms(*pair, settings.tolerance),
            "avg_drop": avg_drop_terms(*pair, settings.tolerance),
            "inc_conf": win_terms(*pair, settings.tolerance),
        }
        for measure, values in terms.items():
            columns[prefix + measure] = torch.full_like(p_image, math.nan).masked_scatter(usable, values)
        columns[prefix + "accuracy"] = torch.where(torch.isfinite(p_energy), row[prefix + "accuracy"], 0.0)
    if "insertion" in row:
        watched = torch.arange(len(scored)) < settings.insertion_deletion_images
        invalid |= scored & watched & ~torch.isfinite(row["insertion"] + row["deletion"])
    return columns, int(invalid.sum())


_Maker = Callable[[Tensor, Tensor, int, int], Tensor]
"""(pixel_values, target, seed, first_index) → maps: what explainers and controls have in common."""


def _makers(explainers: Mapping[str, Explainer]) -> dict[str, _Maker]:
    taken = sorted({_MODEL_ROW, *CONTROLS} & explainers.keys())
    if taken:
        raise ValueError(f"The name {taken[0]!r} is taken by a row of the report: give the explainer another one.")
    return {
        **{name: _of_explainer(explainer) for name, explainer in explainers.items()},
        **{name: _of_control(control) for name, control in CONTROLS.items()},
    }


def _of_explainer(explainer: Explainer) -> _Maker:
    return lambda pixel_values, target, seed, first_index: explainer(pixel_values, target)


def _of_control(control: Callable[[Tensor, int, int], Tensor]) -> _Maker:
    return lambda pixel_values, target, seed, first_index: control(pixel_values, seed, first_index)


def _read(batch: Mapping[str, Any], model: Any) -> tuple[Tensor, Tensor, Tensor | None]:
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
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < model.config.num_labels:
        raise ValueError(
            f"labels must be in 0 … {model.config.num_labels - 1}, the classes of the model, but they span "
            f"{int(labels.min())} … {int(labels.max())}."
        )
    pixel_values = batch["pixel_values"].to(device=model.device, dtype=model.dtype)
    return pixel_values, labels.long().to(model.device), None if mask is None else mask.to(model.device)


def _check_model(model: Any) -> None:
    if not callable(getattr(model, "energy_map", None)):
        raise ValueError(f"evaluate_maps needs a model with energy maps, and {type(model).__name__} has none.")
    problem = getattr(model.config, "problem_type", None)
    if problem not in (None, "single_label_classification") or model.config.num_labels < 2:
        raise ValueError(
            "evaluate_maps needs a classifier with one of several classes for each image, but this model has "
            f"problem_type {problem!r} and {model.config.num_labels} labels."
        )
