"""One report: a model's maps, those of other explainers, and controls that explain nothing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import TypeVar

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from antehoc_hf.evaluation.bootstrap import Estimate, bootstrap_means
from antehoc_hf.evaluation.controls import CONTROLS
from antehoc_hf.evaluation.metric import METRICS, Metric
from antehoc_hf.evaluation.networks import evaluation_mode
from antehoc_hf.evaluation.results import MapReport, MapRow
from antehoc_hf.evaluation.scorer import Batch, Explainer, Scorer
from antehoc_hf.evaluation.scorers import scorer_of
from antehoc_hf.evaluation.settings import EvaluationSettings
from antehoc_hf.evaluation.views import Column, measure_maps

MODEL_ROW = "antehoc"
_OF_INCLUDED = ("invalid", "undefined")
T = TypeVar("T")


def evaluate_maps(
    model: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    settings: EvaluationSettings | None = None,
    *,
    explainers: Mapping[str, Explainer] | None = None,
    parts: Sequence[str] = (),
    image_mean: Sequence[float] | None = None,
    image_std: Sequence[float] | None = None,
    metrics: Iterable[Metric] | None = None,
    scorer: Scorer | None = None,
    progress: bool = True,
) -> MapReport:
    """Scores maps of a model's predictions: its own, if it explains itself, other explainers' and the controls'.

    Every map is multiplied into the image and the same network judges it, in evaluation mode without gradients; the
    model is left in the mode it was in. Images keep their identity through the seed, so the result doesn't depend on
    how the data are batched, up to rounding.

    Args:
        model (`nn.Module`): one of ours for classification, landmarks or captions, a network that gives scores (B, K),
            or any `…ForImageClassification` of transformers. It is used on the device it is on.
        batches: of `pixel_values` (B, 3, H, W) and

            - for classification `labels` (B,) and, for localisation, `mask` (B, 1, H, W);
            - for landmarks `labels` (B, K, 2), `normalizer` (B, 2, 2), see
              [`antehoc_hf.evaluation.landmarks.normalizers`], and `part_masks` (B, P, H, W) if parts are named;
            - for captions `labels` (B, T), -100 after the end.
        settings (`EvaluationSettings`, *optional*): how to measure.
        explainers (`dict[str, Callable]`, *optional*): name → `(pixel_values, target) -> maps`. They get a row each.
            The target is classes (B,), captions (B, T), or None for landmarks.
        parts (`Sequence[str]`): for landmarks, names of the parts that maps are compared with.
        image_mean, image_std (*optional*): the normalisation of the images, where a classifier does not know it.
        metrics (*optional*): what is measured; None: all of `METRICS`.
        scorer (`Scorer`, *optional*): of a task of your own.
        progress (`bool`): show a bar with an estimate of the time left.

    Returns:
        `MapReport`: with `to_dict()` for JSON, `to_markdown()` and `to_text()` for reading.

    Raises:
        ValueError: if the model is not a single-label classifier and has no scorer, there is no batch, a batch lacks
            something, shapes or classes don't fit, or an explainer has the name of another row.
    """
    scorer = scorer or scorer_of(model, settings or EvaluationSettings(), parts, image_mean, image_std)
    chosen = [metric for metric in (METRICS.values() if metrics is None else metrics) if metric.reported]
    kinds = row_kinds(explainers or {}, scorer.explains_itself)
    count, columns = 0, dict[str, Column]()
    images, rows = _Collected(), {name: _Collected() for name in kinds}
    with evaluation_mode(model):
        for batch in with_progress(batches, "Evaluating maps", progress):
            with torch.no_grad():
                seen = scorer.see(batch, count)
            for name, maps in maps_of_rows(seen, kinds, explainers or {}, scorer.settings.seed):
                found = measure_maps(scorer, seen, maps, chosen)
                if kinds[name] == "model" and seen.degenerate is not None:  # the model knows best
                    found.flags["degenerate"] = found.flags["degenerate"] | seen.degenerate
                rows[name].add(values=found.values, flags=found.flags)
                columns |= found.columns
            marks = {"valid": seen.valid, "included": seen.included}
            images.add(flags=marks, scores=seen.scores, part_areas=seen.part_areas)
            count += len(seen.pixel_values)
    check_count(count)
    return _summarise(scorer, images, rows, kinds, columns)


def row_kinds(explainers: Mapping[str, Explainer], explains_itself: bool) -> dict[str, str]:
    """Name and kind of every row: the model's own map, explainers, controls.

    Raises:
        ValueError: if an explainer has the name of another row.
    """
    own = {MODEL_ROW: "model"} if explains_itself else {}
    taken = sorted((own.keys() | CONTROLS.keys()) & explainers.keys())
    if taken:
        raise ValueError(f"The name {taken[0]!r} is taken by a row of the report: give the explainer another one.")
    return own | dict.fromkeys(explainers, "explainer") | dict.fromkeys(CONTROLS, "control")


def with_progress(batches: Iterable[T], title: str, progress: bool) -> Iterable[T]:
    """The batches with a bar."""
    length = len(batches) if isinstance(batches, Sized) else None
    return tqdm(batches, total=length, desc=title, unit="batch", disable=not progress)


def check_count(images: int) -> None:
    """Raises a ValueError if there was no image."""
    if not images:
        raise ValueError("There is nothing to evaluate: the batches held no image.")


def maps_of_rows(
    batch: Batch, kinds: Mapping[str, str], explainers: Mapping[str, Explainer], seed: int
) -> Iterator[tuple[str, Tensor]]:
    """The maps of each row, one after the other."""
    for name, kind in kinds.items():
        if kind == "model":
            assert batch.maps is not None
            yield name, batch.maps
        elif kind == "explainer":
            yield name, explainers[name](batch.pixel_values, batch.target)
        else:
            yield name, CONTROLS[name](batch.pixel_values, seed, batch.first_index)


class _Collected:
    """Values of each image by name, batch after batch, on the CPU; in sections, such as scores and flags."""

    def __init__(self) -> None:
        self._batches: dict[str, dict[str, list[Tensor]]] = {}

    def add(self, **sections: Mapping[str, Tensor]) -> None:
        for section, values in sections.items():
            known = self._batches.setdefault(section, {name: [] for name in values})
            if known.keys() != values.keys():
                raise ValueError('Either every batch has a "mask" or none: localisation needs one for each image.')
            for name, value in values.items():
                known[name].append(value.detach().double().cpu())

    def joined(self, section: str) -> dict[str, Tensor]:
        return {name: torch.cat(parts) for name, parts in self._batches[section].items()}

    def flags(self) -> dict[str, Tensor]:
        return {name: flag.bool() for name, flag in self.joined("flags").items()}


def _summarise(
    scorer: Scorer,
    images: _Collected,
    rows: Mapping[str, _Collected],
    kinds: Mapping[str, str],
    columns: dict[str, Column],
) -> MapReport:
    flags, settings = images.flags(), scorer.settings
    included, everywhere = flags["included"], torch.ones_like(flags["included"])
    fair = [name for name, column in columns.items() if column.better and not column.rewards_brightness]

    def estimates(columns: Mapping[str, Tensor], among: Tensor) -> dict[str, Estimate]:
        if not columns:
            return {}
        values = torch.stack(list(columns.values()), dim=1)
        defined = torch.isfinite(values) & among[:, None]
        found = bootstrap_means(values, defined, settings.level, settings.resamples, settings.seed)
        return dict(zip(columns, found, strict=True))

    reported: list[MapRow] = []
    first: dict[str, Tensor] = {}
    for name, row in rows.items():
        values = row.joined("values")
        pairs = {metric: first[metric] - values[metric] for metric in fair} if first else {}
        first = first or values
        counts = {
            mark: int((flag & included if mark in _OF_INCLUDED else flag).sum()) for mark, flag in row.flags().items()
        }
        reported.append(MapRow(name, kinds[name], estimates(values, included), estimates(pairs, included), **counts))
    return MapReport(
        num_images=len(included),
        num_scored=int(included.sum()),
        num_invalid=int((~flags["valid"]).sum()),
        rows=reported,
        columns=columns,
        settings=scorer.used_settings(),
        about=scorer.about(),
        on_images=estimates(images.joined("scores"), everywhere),
        part_areas=estimates(images.joined("part_areas"), everywhere),
    )
