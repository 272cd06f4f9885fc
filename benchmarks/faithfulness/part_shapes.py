"""On `shapes`, where a part can truly be removed and the ground be exchanged: does the map show what the network uses?

The background is exchanged by drawing the same bug and distractors on another family of ground: in the test split as
in `test_swapped`; in the validation split, which has no such twin, by drawing the ground in the other mode
(independent ↔ correlated), where only rows whose family changes are counted.
"""

import argparse
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from antehoc_hf.evaluation import energy_share, pointing_game
from antehoc_hf.evaluation.localisation import energy_share_over_area
from antehoc_hf.evaluation.parts import importance_correlation, part_importance
from antehoc_hf.evaluation.rank_correlation import spearman
from antehoc_hf.evaluation.shapes_parts import region_masks
from antehoc_hf.shapes.scene import REGIONS, Recipe, draw
from benchmarks.faithfulness.cells import OURS, defined_mean
from benchmarks.faithfulness.shape_truth import elsewhere, prepared, removals, shapley_values, true_maps
from benchmarks.faithfulness.subjects import Subject, maps_of, predict, signed_map


def on_another_ground(scene: str) -> tuple[Image.Image, bool]:
    """The scene of this text with another ground behind it, and whether the ground is of another family."""
    drawn = draw(elsewhere(scene))
    return Image.fromarray(drawn.image()), drawn.family != draw(Recipe.from_json(scene)).family


def background_use(subject: Subject) -> tuple[dict[str, Any], Tensor, Tensor]:
    """How much the prediction depends on the ground, by intervention.

    Returns:
        Scores; the loss of the predicted class's probability on another ground, (N,); and which images count, (N,).
    """
    drawn = [on_another_ground(scene) for scene in tqdm(subject.rows["scene"], desc="Other grounds", leave=False)]
    probabilities = predict(subject.model, prepared(subject, [image for image, _ in drawn]))
    counted = torch.tensor([changed for _, changed in drawn], device=probabilities.device)
    at = subject.predicted[:, None]
    lost = (subject.probabilities.gather(1, at) - probabilities.gather(1, at)).squeeze(1)
    found = probabilities.argmax(dim=1)
    columns = {
        "predictions that flip": 100.0 * (found != subject.predicted),
        "probability lost": lost,
        "accuracy here": 100.0 * (subject.labels == subject.predicted),
        "accuracy on another ground": 100.0 * (subject.labels == found),
    }
    return {name: defined_mean(values[counted]) for name, values in columns.items()}, lost, counted


def map_scores(energy: Tensor, signed: Tensor, truth: dict[str, Tensor]) -> dict[str, Any]:
    """What one kind of map scores.

    Args:
        energy: (N, 1, H, W), not negative: what is summed.
        signed: (N, 1, H, W): what ranks the parts; or the parts' importance itself, (N, P).
        truth: `"regions"` (N, P, H, W), `"deciding"` and `"background"` (N, 1, H, W): masks; `"effects"` of removing
            each region and their `"shapley"` values, (N, P); `"lost"` on another ground, (N,), and whether it
            `"counted"`.
    """
    lost, counted = truth["lost"], truth["counted"]
    if signed.ndim == 4:
        importance = part_importance(signed, truth["regions"])
        of_ground = part_importance(signed, truth["background"], dilation=0)
    else:  # what can't be seen does not count, as for maps
        importance = torch.where(truth["regions"].flatten(2).any(dim=2), signed, torch.nan)
        of_ground = torch.full_like(lost[:, None], torch.nan)
    # Where the ground is of the same family nothing was measured: it does not count there.
    of_ground = torch.where(counted[:, None], of_ground, torch.nan)
    with_ground = importance_correlation(
        torch.cat([importance, of_ground], dim=1), torch.cat([truth["effects"], lost[:, None]], dim=1)
    )
    on_ground = energy_share(energy, truth["background"])
    usable = counted & torch.isfinite(on_ground)
    link = float(spearman(on_ground[usable][None], lost[usable][None])) if int(usable.sum()) > 2 else float("nan")
    return {
        "energy in the mask": defined_mean(energy_share(energy, truth["deciding"])),
        "energy / area": defined_mean(energy_share_over_area(energy, truth["deciding"])),
        "pointing game": defined_mean(pointing_game(energy, truth["deciding"])),
        "part importance": defined_mean(importance_correlation(importance, truth["effects"]).correlation),
        "part importance, Shapley": defined_mean(importance_correlation(importance, truth["shapley"]).correlation),
        "the same with the ground": defined_mean(with_ground.correlation),
        "energy on the ground": defined_mean(on_ground),
        "energy on the ground / area": defined_mean(energy_share_over_area(energy, truth["background"])),
        "ground: energy and use": {
            "value": None if link != link else link,
            "low": None,
            "high": None,
            "count": int(usable.sum()),
        },
    }


def measure(subject: Subject, options: argparse.Namespace) -> dict[str, Any]:
    """Energy in the mask of the deciding parts, agreement of part importance with removal, and the ground.

    `antehoc` is the map as it is shown; `antehoc, contributions` takes the positive part of the contributions as
    energy, and ranks parts by the contributions with their sign.
    """
    device, target = subject.pixel_values.device, subject.predicted
    parts = subject.rows["part_masks"]
    masks = {
        "regions": region_masks(parts).to(device),
        "deciding": region_masks(parts, ("deciding",)).to(device),
        "background": region_masks(parts, ("background",)).to(device),
    }
    if masks["regions"].shape[-2:] != subject.size:
        raise SystemExit(
            f"Masks are {tuple(masks['regions'].shape[-2:])} and images {subject.size}: leave image_size out of "
            "--dataset_options."
        )
    use, lost, counted = background_use(subject)
    truth = masks | {"lost": lost, "counted": counted, "shapley": shapley_values(subject)}
    truth["effects"] = removals(subject, list(subject.rows["scene"]))
    found: dict[str, Any] = {}
    signed = maps_of(lambda images, classes: signed_map(subject.model, images, classes), subject.pixel_values, target)
    found[f"{OURS}, contributions"] = map_scores(signed.clamp(min=0), signed, truth)
    for name in (OURS, *options.methods, "constant", "center"):
        maps = maps_of(subject.explainer(name), subject.pixel_values, target, f"Shapes, {name}")
        found[name] = map_scores(maps, maps, truth)
    for name, (energy, ranking) in true_maps(subject, masks, truth["shapley"]).items():
        found[name] = map_scores(energy, ranking, truth)
    worth = {
        measured: {region: defined_mean(truth[key][:, index]) for index, region in enumerate(REGIONS)}
        for measured, key in (("probability lost", "effects"), ("Shapley value", "shapley"))
    }
    return {"scores": found, "background": {"the network": use}, "removals": worth}
