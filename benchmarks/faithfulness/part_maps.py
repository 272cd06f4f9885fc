"""Insertion and deletion, masks of equal area and the paper's measures, for every method on the same images."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from antehoc_hf.evaluation import CONTROLS, EvaluationSettings
from antehoc_hf.evaluation.metric import METRICS
from antehoc_hf.evaluation.scorers import ClassificationScorer
from antehoc_hf.evaluation.settings import FORMS
from antehoc_hf.evaluation.views import measure_maps
from benchmarks.faithfulness.cells import AREAS, CELLS, OURS, interval, verdict
from benchmarks.faithfulness.subjects import BATCH, Subject

Values = dict[str, dict[str, Tensor]]
"""Name of a map → name of a cell → (N,) one value an image, NaN where the measure says nothing."""


def image_values(subject: Subject, methods: list[str], known: Mapping[str, Tensor] | None = None) -> Values:
    """What every method's map of every image scores; the target is the model's own prediction.

    Args:
        known: further maps that are there already, (N, 1, H, W).
    """
    known = known or {}
    settings = EvaluationSettings(
        target="prediction",
        area=0.2,
        areas=AREAS,
        insertion_deletion_images=len(subject.labels),
        insertion_deletion=FORMS,
    )
    scorer = ClassificationScorer(subject.model, settings)
    explainers = {name: subject.explainer(name) for name in (OURS, *methods)}
    metrics = [metric for metric in METRICS.values() if metric.reported]
    found: dict[str, dict[str, list[Tensor]]] = {name: {} for name in (*explainers, *known, *CONTROLS)}
    starts = range(0, len(subject.labels), BATCH)
    with tqdm(total=len(starts) * len(found), desc=f"Maps, seed {subject.seed}", unit="batch") as bar:
        for start in starts:
            part = slice(start, start + BATCH)
            batch = {"pixel_values": subject.pixel_values[part], "labels": subject.labels[part]}
            with torch.no_grad():
                seen = scorer.see(batch, start)
            for name in found:
                bar.set_postfix_str(name)
                if name in CONTROLS:
                    maps = CONTROLS[name](seen.pixel_values, settings.seed, start)
                elif name in known:
                    maps = known[name][part]
                else:
                    assert seen.target is not None
                    maps = explainers[name](seen.pixel_values, seen.target)
                values = measure_maps(scorer, seen, maps, metrics).values
                for cell in CELLS:
                    found[name].setdefault(cell.name, []).append(values[cell.name].double())
                bar.update()
    return {name: {cell: torch.cat(parts) for cell, parts in of_map.items()} for name, of_map in found.items()}


def stacked(seeds: list[Values]) -> dict[str, dict[str, Tensor]]:
    """Cell → map → (N, S), of the seeds' values of the same images."""
    names = [name for name in seeds[0] if all(name in values for values in seeds)]
    return {
        cell.name: {name: torch.stack([values[name][cell.name] for values in seeds], dim=1) for name in names}
        for cell in CELLS
    }


def verdicts(seeds: list[Values]) -> list[dict[str, Any]]:
    """One row a cell, over the images of all seeds given."""
    table = stacked(seeds)
    others = [name for name in seeds[0] if name != OURS and name not in CONTROLS]
    return [verdict(cell, table[cell.name], others, list(CONTROLS)) for cell in CELLS]


def scores(seeds: list[Values]) -> dict[str, dict[str, Any]]:
    """Map → cell → mean with its interval."""
    table = stacked(seeds)
    names = list(next(iter(table.values())))
    return {name: {cell: interval(of_cell[name]).to_dict() for cell, of_cell in table.items()} for name in names}
