"""One report: how much maps and their scores change when salt and pepper is thrown on the images."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from antehoc_hf.evaluation.bootstrap import Estimate, bootstrap_mean, mean_change
from antehoc_hf.evaluation.maps import measurable_maps
from antehoc_hf.evaluation.metric import metric_named
from antehoc_hf.evaluation.networks import evaluation_mode
from antehoc_hf.evaluation.report import check_count, maps_of_rows, row_kinds, with_progress
from antehoc_hf.evaluation.results import MapReport, MapRow
from antehoc_hf.evaluation.scorer import Explainer
from antehoc_hf.evaluation.scorers import ClassificationScorer
from antehoc_hf.evaluation.settings import EvaluationSettings
from antehoc_hf.evaluation.stability import map_similarity, salt_and_pepper
from antehoc_hf.evaluation.views import Column, column_of

_MEASURED = ("drop_change", "inc_change", "map_similarity")


def evaluate_stability(
    model: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    image_mean: Sequence[float],
    image_std: Sequence[float],
    shares: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5),
    explainers: Mapping[str, Explainer] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> MapReport:
    """The paper's CD and CI, and the rank correlation of the maps with and without noise, for each share of noisy
    pixels.

    CD and CI are absolute changes of Drop and Inc (percent). The noise comes first: map and probabilities are those of
    the noisy image, and the class watched is the label, of several the likeliest. A map that never changes has rank
    correlation 1 and explains nothing: read every row next to the controls.

    Args:
        model, batches, explainers, progress: see `evaluate_maps`; for classification.
        image_mean, image_std: normalisation of the images; the noise is black and white pixels.
        shares (`Sequence[float]`): of the pixels that are hit, in (0, 1].
        seed (`int`): of noise, random maps and intervals.

    Returns:
        `MapReport`: columns `"CD 0.1"`, `"CI 0.1"`, `"similarity 0.1"`, …

    Raises:
        ValueError: see `evaluate_maps`; or if a share makes no sense.
    """
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"shares={tuple(shares)!r} must be parts of the pixels above 0 and up to 1.")
    settings = EvaluationSettings(seed=seed, tolerance=0.0)
    scorer = ClassificationScorer(model, settings, image_mean, image_std)
    kinds = row_kinds(explainers or {}, scorer.explains_itself)
    pairs: dict[str, dict[float, list[Tensor]]] = {name: {share: [] for share in (0.0, *shares)} for name in kinds}
    alike: dict[str, dict[float, list[Tensor]]] = {name: {share: [] for share in shares} for name in kinds}
    count = 0
    with evaluation_mode(model):
        for batch in with_progress(batches, "Evaluating stability", progress):
            clean: dict[str, Tensor] = {}
            for share in (0.0, *shares):
                pixels = batch["pixel_values"].to(device=scorer.device, dtype=scorer.dtype)
                noisy = salt_and_pepper(pixels, share, image_mean, image_std, seed, count)
                with torch.no_grad():
                    seen = scorer.see({"pixel_values": noisy, "labels": batch["labels"]}, count)
                watched = seen.included | ~seen.valid  # all but images without a label
                for name, raw in maps_of_rows(seen, kinds, explainers or {}, seed):
                    maps = measurable_maps(raw, noisy)[1]
                    with torch.no_grad():
                        p_energy = scorer.masked(seen, maps).arrays["p_energy"]
                    pairs[name][share].append(torch.stack([seen.arrays["p_image"], p_energy], dim=1)[watched])
                    if share:
                        alike[name][share].append(map_similarity(clean[name], maps).double().cpu()[watched])
                    else:
                        clean[name] = maps
            count += len(pixels)
    check_count(count)
    rows = [MapRow(name, kind, _scores(pairs[name], alike[name], settings)) for name, kind in kinds.items()]
    about = "Change of Drop (CD) and Inc (CI) under salt and pepper, and rank correlation of the maps."
    used = {"shares": list(shares), "target": "label"} | {name: getattr(settings, name) for name in _SETTINGS}
    return MapReport(count, count, 0, rows, _columns(shares), used, about, in_one_table=True)


_SETTINGS = ("seed", "level", "resamples")


def _columns(shares: Sequence[float]) -> dict[str, Column]:
    found = {}
    for share in shares:
        for metric in map(metric_named, _MEASURED):
            found[f"{metric.heading} {share:g}"] = column_of(metric, f"{{}} {share:g}")
    return found


def _scores(
    pairs: Mapping[float, list[Tensor]], alike: Mapping[float, list[Tensor]], settings: EvaluationSettings
) -> dict[str, Estimate]:
    draws = (settings.level, settings.resamples, settings.seed)
    clean = torch.cat(pairs[0.0]).unbind(dim=1)
    scores = {}
    for share, values in alike.items():
        for metric in map(metric_named, _MEASURED[:2]):
            both = metric.function(*clean, *torch.cat(pairs[share]).unbind(dim=1))
            scores[f"{metric.heading} {share:g}"] = mean_change(both, torch.isfinite(both), *draws)
        scores[f"{metric_named('map_similarity').heading} {share:g}"] = bootstrap_mean(torch.cat(values), *draws)
    return scores
