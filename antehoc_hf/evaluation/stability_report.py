"""One report: how much maps and their scores change when salt and pepper is thrown on the images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from antehoc_hf.evaluation.bootstrap import Estimate, bootstrap_mean, mean_change
from antehoc_hf.evaluation.controls import CONTROLS
from antehoc_hf.evaluation.faithfulness import class_probability, drop_terms, inc_terms
from antehoc_hf.evaluation.judged import JudgedClassifier
from antehoc_hf.evaluation.maps import measurable_maps
from antehoc_hf.evaluation.mode import evaluation_mode
from antehoc_hf.evaluation.score_table import ScoreTable
from antehoc_hf.evaluation.stability import map_similarity, salt_and_pepper

Explainer = Callable[[Tensor, Tensor], Tensor]
"""(pixel_values (B, 3, H, W), target (B,)) → maps (B, 1, H, W) in [0, 1]."""

MODEL_ROW = "antehoc"
_RESAMPLES, _LEVEL = 1000, 0.95


def evaluate_stability(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    *,
    image_mean: Sequence[float],
    image_std: Sequence[float],
    shares: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5),
    explainers: Mapping[str, Explainer] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> ScoreTable:
    """
    The paper's CD and CI, and the rank correlation of the maps with and without noise, for each share of noisy pixels.

    CD and CI are absolute changes of Drop and Inc (percent). The noise comes first: map and probabilities are those of
    the noisy image, and the class watched is the label. A map that never changes has rank correlation 1 and explains
    nothing: the controls are printed beside.

    Args:
        model, batches, explainers, progress: see `evaluate_maps`.
        image_mean, image_std: normalisation of the images; the noise is black and white pixels.
        shares (`Sequence[float]`): of the pixels that are hit, in (0, 1].
        seed (`int`): of noise, random maps and intervals.

    Returns:
        `ScoreTable`: measures `"CD 0.1"`, `"CI 0.1"`, `"similarity 0.1"`, …

    Raises:
        ValueError: see `evaluate_maps`; or if a share makes no sense.
    """
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"shares={tuple(shares)!r} must be parts of the pixels above 0 and up to 1.")
    judged = JudgedClassifier(model, image_mean, image_std)
    found: dict[str, dict[float, list[Tensor]]] = {}
    similar: dict[str, dict[float, list[Tensor]]] = {}
    seen = 0
    with evaluation_mode(model):
        length = len(batches) if isinstance(batches, Sized) else None
        for batch in tqdm(batches, total=length, desc="Evaluating stability", unit="batch", disable=not progress):
            images = batch["pixel_values"].to(device=judged.device, dtype=judged.dtype)
            labels = torch.as_tensor(batch["labels"]).to(judged.device)
            clean: dict[str, Tensor] = {}
            for share in (0.0, *shares):
                noisy = salt_and_pepper(images, share, image_mean, image_std, seed, seen)
                p_image, maps = _look(judged, noisy, labels, explainers or {}, seed, seen)
                for name, of_name in maps.items():
                    pair = torch.stack([p_image, _probability(judged, noisy, of_name, labels)], dim=1)
                    found.setdefault(name, {}).setdefault(share, []).append(pair.double().cpu())
                    if share:
                        similar.setdefault(name, {}).setdefault(share, []).append(map_similarity(clean[name], of_name))
                clean = clean or maps
            seen += len(images)
    if not seen:
        raise ValueError("There is nothing to evaluate: the batches held no image.")
    scores = {name: _scores(pairs, similar[name], shares, seed) for name, pairs in found.items()}
    settings = {"shares": list(shares), "seed": seed, "level": _LEVEL, "resamples": _RESAMPLES, "target": "label"}
    decimals = {f"{kind} {share:g}": 1 for share in shares for kind in ("CD", "CI")}
    title = "Change of Drop (CD) and Inc (CI) under salt and pepper, and rank correlation of the maps."
    return ScoreTable(title, seen, scores, decimals, settings)


@torch.no_grad()
def _look(
    judged: JudgedClassifier,
    images: Tensor,
    labels: Tensor,
    explainers: Mapping[str, Explainer],
    seed: int,
    first_index: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The labels' probabilities, and every method's maps of these images."""
    first = judged.see(images)
    maps = {} if first.maps is None else {MODEL_ROW: first.maps}
    with torch.enable_grad():
        maps |= {name: explainer(images, labels) for name, explainer in explainers.items()}
    maps |= {name: control(images, seed, first_index) for name, control in CONTROLS.items()}
    usable = {name: measurable_maps(of_name, images)[1] for name, of_name in maps.items()}
    return class_probability(first.logits, labels), usable


@torch.no_grad()
def _probability(judged: JudgedClassifier, images: Tensor, maps: Tensor, labels: Tensor) -> Tensor:
    return class_probability(judged.logits(judged.masked(images, maps)), labels)


def _scores(
    pairs: Mapping[float, list[Tensor]], similar: Mapping[float, list[Tensor]], shares: Sequence[float], seed: int
) -> dict[str, Estimate]:
    p_image, p_energy = torch.cat(pairs[0.0]).unbind(dim=1)
    scores = {}
    for share in shares:
        noisy_image, noisy_energy = torch.cat(pairs[share]).unbind(dim=1)
        for name, terms in (("CD", drop_terms), ("CI", inc_terms)):
            clean, noisy = terms(p_image, p_energy), terms(noisy_image, noisy_energy)
            both = torch.stack([clean, noisy], dim=1)
            scores[f"{name} {share:g}"] = mean_change(both, torch.isfinite(both), _LEVEL, _RESAMPLES, seed)
        values = torch.cat(similar[share]).double().cpu()
        scores[f"similarity {share:g}"] = bootstrap_mean(values, _LEVEL, _RESAMPLES, seed)
    return scores
