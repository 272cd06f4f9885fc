"""The truth about `shapes` as numbers and as maps: what parts are worth to a network, and what a map that knew it
would score. No map can be asked for more.
"""

from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from antehoc_hf.evaluation.shapes_parts import removal_effects
from antehoc_hf.modeling.scaling import patch_grid
from antehoc_hf.shapes.scene import REGIONS, Recipe, draw
from benchmarks.faithfulness.coalition_truth import coalitions, on_patches, shapley, spread
from benchmarks.faithfulness.subjects import Subject, predict


def prepared(subject: Subject, images: list[Image.Image]) -> Tensor:
    """Normalised, where the model is."""
    return subject.processor(images, return_tensors="pt")["pixel_values"].to(subject.pixel_values.device)


def removals(subject: Subject, scenes: list[str]) -> Tensor:
    """(N, P): what removing one region alone costs the predicted class, in these scenes."""
    return removal_effects(
        lambda images: predict(subject.model, images),
        scenes,
        subject.predicted,
        lambda images: prepared(subject, images),
    )


def elsewhere(scene: str) -> Recipe:
    """The same bug and distractors on another ground; see `part_shapes`."""
    recipe = Recipe.from_json(scene)
    if recipe.split == "test":
        return replace(recipe, split="test_swapped")
    return replace(recipe, background="correlated" if recipe.background == "independent" else "independent")


def shapley_values(subject: Subject) -> Tensor:
    """(N, P): what each region is worth to the predicted class, computed from all 2^P images of a scene. Removing one
    region alone misses what any two can do.
    """
    found = []
    for index, text in enumerate(tqdm(subject.rows["scene"], desc="Shapley values of parts", leave=False)):
        scene = draw(Recipe.from_json(text))
        removed = [
            [name for name, present in zip(REGIONS, some, strict=True) if not present]
            for some in coalitions(len(REGIONS))
        ]
        images = prepared(subject, [Image.fromarray(scene.image(without)) for without in removed])
        found.append(shapley(predict(subject.model, images)[:, subject.predicted[index]]))
    return torch.stack(found).to(subject.pixel_values.device)


def true_maps(subject: Subject, masks: dict[str, Tensor], shapley: Tensor) -> dict[str, tuple[Tensor, Any]]:
    """Maps that know the truth: energy (N, 1, H, W), and what ranks the parts: (N, 1, H, W), or (N, P) itself.

    `true mask` is on all deciding parts and on nothing else; `true worth` gives each region its Shapley value; `on
    patches`: as much of it as our map's patches can show. `removals on another ground` is a second measurement of what
    the parts' importance is compared with.
    """
    mask = masks["deciding"].float()
    worth = spread(shapley, masks["regions"])
    grid = patch_grid(subject.size, subject.model.config.map_head.grid)
    again = removals(subject, [elsewhere(scene).to_json() for scene in subject.rows["scene"]])
    coarse_mask, coarse_worth = on_patches(mask, grid), on_patches(worth, grid)
    return {
        "true mask": (mask, mask),
        "true mask, on patches": (coarse_mask, coarse_mask),
        "true worth": (worth.clamp(min=0), shapley),
        "true worth, on patches": (coarse_worth.clamp(min=0), coarse_worth),
        "removals on another ground": (spread(again.clamp(min=0), masks["regions"]), again),
    }
