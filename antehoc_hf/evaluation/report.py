"""One report: a model's maps beside those of other explainers and of controls that explain nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from antehoc_hf.evaluation.bootstrap import Estimate, bootstrap_means
from antehoc_hf.evaluation.controls import CONTROLS
from antehoc_hf.evaluation.faithfulness import avg_drop_terms, drop_terms, inc_terms, win_terms
from antehoc_hf.evaluation.judged import JudgedClassifier
from antehoc_hf.evaluation.mode import evaluation_mode
from antehoc_hf.evaluation.results import HONEST_METRICS, MapReport, MapRow
from antehoc_hf.evaluation.scoring import BatchScorer
from antehoc_hf.evaluation.settings import EvaluationSettings

Explainer = Callable[[Tensor, Tensor], Tensor]
"""(pixel_values (B, 3, H, W), target (B,)) → maps (B, 1, H, W) in [0, 1]."""

MODEL_ROW = "antehoc"
_COUNTED = ("degenerate", "not_finite", "clipped", "tied")


def evaluate_maps(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    settings: EvaluationSettings | None = None,
    *,
    explainers: Mapping[str, Explainer] | None = None,
    image_mean: Sequence[float] | None = None,
    image_std: Sequence[float] | None = None,
    progress: bool = True,
) -> MapReport:
    """
    Scores maps of a classifier's predictions: its own, if it explains itself, other explainers' and the controls'.

    Every map is multiplied into the image and the same network judges it, in evaluation mode without gradients; the
    model is left in the mode it was in. Images keep their identity through the seed, so the result doesn't depend on
    how the data are batched, up to rounding.

    Args:
        model (`nn.Module`): `AnteHocForImageClassification`, a network that gives scores (B, K), or any
            `…ForImageClassification` of transformers. It is used on the device it is on.
        batches: of `{"pixel_values": (B, 3, H, W), "labels": (B,)}` and, for localisation, `"mask": (B, 1, H, W)`.
        settings (`EvaluationSettings`, *optional*): how to measure.
        explainers (`dict[str, Callable]`, *optional*): name → `(pixel_values, target) -> maps`. They get a row each.
        image_mean, image_std (*optional*): the normalisation of the images, where the model does not know it itself.
        progress (`bool`): show a bar with an estimate of the time left.

    Returns:
        `MapReport`: with `to_dict()` for JSON and `to_markdown()` for reading.

    Raises:
        ValueError: if the model is no single-label classifier, there is no batch, a batch lacks something, shapes or
            classes don't fit, or an explainer has the name of another row.
    """
    settings = settings or EvaluationSettings()
    judged = JudgedClassifier(model, image_mean, image_std)
    own = [MODEL_ROW] if judged.explains_itself else []
    makers = _makers(explainers or {}, own)
    rows = {name: _RowData() for name in (*own, *makers)}
    images = _RowData()
    seen = 0
    with evaluation_mode(model):
        length = len(batches) if isinstance(batches, Sized) else None
        for batch in tqdm(batches, total=length, desc="Evaluating maps", unit="batch", disable=not progress):
            scorer = BatchScorer(judged, batch, settings, seen)
            images.add(scorer.image_values())
            for name in own:
                rows[name].add(scorer.own_values())
            for name, maker in makers.items():
                rows[name].add(scorer.map_values(maker(scorer.pixel_values, scorer.target, settings.seed, seen)))
            seen += len(scorer.pixel_values)
    if not seen:
        raise ValueError("There is nothing to evaluate: the batches held no image.")
    kinds = dict.fromkeys(rows, "explainer") | dict.fromkeys(own, "model") | dict.fromkeys(CONTROLS, "control")
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

    reported: list[MapRow] = []
    reference: dict[str, Tensor] = {}
    for name, row in rows.items():
        columns, invalid = _measures(images["p_image"], row, scored, settings)
        pairs = {metric: reference[metric] - columns[metric] for metric in HONEST_METRICS if metric in reference}
        reference = reference or columns
        undefined = torch.isnan(row["energy_share"]) & scored if "energy_share" in row else torch.zeros(1)
        counts = {key: int(row[key].sum()) for key in _COUNTED if key in row}
        reported.append(
            MapRow(
                name,
                kinds[name],
                estimates(columns, scored),
                **counts,
                invalid=invalid,
                undefined=int(undefined.sum()),
                behind_first=estimates(pairs, scored) if pairs else {},
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
    columns = {name: value for name, value in row.items() if name not in _COUNTED and not name.endswith("p_energy")}
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
    for images, measures in (
        (settings.insertion_deletion_images, [name for name in row if name.startswith("insertion_minus_deletion")]),
        (settings.road_images, [name for name in row if name == "road"]),
    ):
        watched = scored & (torch.arange(len(scored)) < images)
        for name in measures:
            invalid |= watched & ~torch.isfinite(row[name])
    return columns, int(invalid.sum())


_Maker = Callable[[Tensor, Tensor, int, int], Tensor]
"""(pixel_values, target, seed, first_index) → maps: what explainers and controls have in common."""


def _makers(explainers: Mapping[str, Explainer], own: Sequence[str]) -> dict[str, _Maker]:
    taken = sorted({*own, *CONTROLS} & explainers.keys())
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
