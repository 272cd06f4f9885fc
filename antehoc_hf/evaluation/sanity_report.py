"""One report: do the maps depend on what the network has learned, and on the class that is asked about?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from antehoc_hf.evaluation.bootstrap import bootstrap_mean
from antehoc_hf.evaluation.controls import center_map, random_map, sobel_map
from antehoc_hf.evaluation.maps import degenerate_maps
from antehoc_hf.evaluation.sanity import (
    Explain,
    MakeExplainer,
    prediction,
    randomisation_similarity,
    target_similarity,
)
from antehoc_hf.evaluation.score_table import ScoreTable
from antehoc_hf.evaluation.stability import max_sensitivity

_CONTROLS: dict[str, MakeExplainer] = {
    "random": lambda model: lambda images, target: random_map(images),
    "center": lambda model: lambda images, target: center_map(images),
    "sobel": lambda model: lambda images, target: sobel_map(images),
}


def evaluate_sanity(
    model: nn.Module,
    pixel_values: Tensor,
    make_explainers: Mapping[str, MakeExplainer],
    *,
    seed: int = 0,
    progress: bool = True,
) -> ScoreTable:
    """
    Rank correlation of maps before and after each step of randomising the network from the head down, and of the maps
    of the likeliest and the second likeliest class; and the largest relative change of a map in a small box around
    the image.

    A map that explains this network's prediction changes when the network forgets; a map of the image alone (edges)
    does not. A map that depends on no class scores 1 for another class: that is its design, and must be known.

    Args:
        model (`nn.Module`): a classifier; it is not touched.
        pixel_values (`Tensor`): (B, 3, H, W), one batch: some dozens of images tell enough.
        make_explainers (`dict[str, Callable]`): name → function that gives the explainer of a model.
        seed (`int`): of randomisation, draws and intervals.
        progress (`bool`): show a bar.

    Returns:
        `ScoreTable`: measures `"after head"`, …, `"another class"`, `"max. sensitivity"`; controls in the last rows.

    Raises:
        ValueError: if there is no image or explainer, or the model gives no logits.
    """
    if not len(pixel_values) or not make_explainers:
        raise ValueError("Sanity needs at least one image and one explainer.")
    device = next((parameter.device for parameter in model.parameters()), pixel_values.device)
    pixel_values = pixel_values.to(device)
    target, other = _two_classes(model, pixel_values)
    makers = {**make_explainers, **{name: make for name, make in _CONTROLS.items() if name not in make_explainers}}
    scores, notes = {}, []
    for name, make in tqdm(makers.items(), desc="Evaluating sanity", unit="method", disable=not progress):
        found = {
            f"after {step}": values
            for step, values in randomisation_similarity(model, make, pixel_values, target, seed).items()
        }
        explain = make(model)
        found["another class"] = target_similarity(explain, pixel_values, target, other)
        found["max. sensitivity"] = max_sensitivity(_of(explain, target), pixel_values, seed=seed)
        scores[name] = {measure: _estimate(values, seed) for measure, values in found.items()}
        empty = int(degenerate_maps(explain(pixel_values, target)).sum())
        if empty:
            notes.append(f"{name}: {empty} of {len(pixel_values)} maps show nothing.")
    title = "Rank correlation with the trained network's maps, and the largest relative change in a box of ±0.02."
    return ScoreTable(
        title, len(pixel_values), scores, settings={"seed": seed, "controls": list(_CONTROLS)}, notes=notes
    )


def _estimate(values: Tensor, seed: int) -> Any:
    values = values.double().cpu()
    return bootstrap_mean(values[torch.isfinite(values)], seed=seed)


def _of(explain: Explain, target: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda images: explain(images, target)


@torch.no_grad()
def _two_classes(model: nn.Module, pixel_values: Tensor) -> Sequence[Tensor]:
    """The likeliest class of each image, and the second likeliest."""
    first = prediction(model, pixel_values)
    outputs = model(pixel_values)
    logits = getattr(outputs, "logits", outputs)
    return first, logits.scatter(1, first[:, None], -torch.inf).argmax(dim=1)
