"""Insertion and deletion, masks of equal area and the paper's measures, for every method on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from antehoc_hf.evaluation import CONTROLS, EvaluationSettings
from antehoc_hf.evaluation.faithfulness import avg_drop_terms, drop_terms, inc_terms, win_terms
from antehoc_hf.evaluation.judged import JudgedClassifier
from antehoc_hf.evaluation.scoring import BatchScorer
from antehoc_hf.evaluation.settings import FORMS
from benchmarks.faithfulness.cells import AREAS, CELLS, OURS, interval, verdict
from benchmarks.faithfulness.subjects import BATCH, Subject

Values = dict[str, dict[str, Tensor]]
"""Name of a map → name of a cell → (N,) one value an image, NaN where the measure says nothing."""


def image_values(subject: Subject, methods: list[str], known: Mapping[str, Tensor] | None = None) -> Values:
    """
    What every method's map of every image scores; the target is the model's own prediction.

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
    judged = JudgedClassifier(subject.model)
    explainers = {name: subject.explainer(name) for name in (OURS, *methods)}
    found: dict[str, dict[str, list[Tensor]]] = {name: {} for name in (*explainers, *known, *CONTROLS)}
    starts = range(0, len(subject.labels), BATCH)
    with tqdm(total=len(starts) * len(found), desc=f"Maps, seed {subject.seed}", unit="batch") as bar:
        for start in starts:
            part = slice(start, start + BATCH)
            batch = {"pixel_values": subject.pixel_values[part], "labels": subject.labels[part]}
            scorer = BatchScorer(judged, batch, settings, start)
            p_image = subject.probabilities[part].gather(1, scorer.target[:, None]).squeeze(1)
            for name in found:
                bar.set_postfix_str(name)
                if name in CONTROLS:
                    maps = CONTROLS[name](scorer.pixel_values, settings.seed, start)
                elif name in known:
                    maps = known[name][part]
                else:
                    maps = explainers[name](scorer.pixel_values, scorer.target)
                for cell, values in _cells(p_image, scorer.map_values(maps), settings.tolerance).items():
                    found[name].setdefault(cell, []).append(values.double().cpu())
                bar.update()
    return {name: {cell: torch.cat(parts) for cell, parts in of_map.items()} for name, of_map in found.items()}


def _cells(p_image: Tensor, values: dict[str, Tensor], tolerance: float) -> dict[str, Tensor]:
    """The cells of the table from what a map scores."""
    terms = {"drop_cond": drop_terms, "inc_cond": inc_terms, "win": win_terms, "avg_drop": avg_drop_terms}
    found = {}
    for cell in CELLS:
        if cell.name in values:
            found[cell.name] = values[cell.name]
            continue
        measure = next(name for name in terms if cell.name.endswith(name))
        p_energy = values[cell.name.removesuffix(measure) + "p_energy"]
        if measure == "inc_cond":
            found[cell.name] = inc_terms(p_image, p_energy, "energy", tolerance)
        else:
            found[cell.name] = terms[measure](p_image, p_energy, tolerance)  # type: ignore[operator]
    return found


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
