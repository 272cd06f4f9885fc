"""What a map would score that knew what each patch is worth to the network, and how near the methods come to knowing
it.

A patch's worth is its Shapley value, of the game in which patches are shown one after the other and the network's
probability of the predicted class is what they win. For 64 patches it takes thousands of passes an image to measure it
by sampling orders; no map of a forward pass or two can do more than predict it.

Source: Castro, Gómez, Tejada, "Polynomial calculation of the Shapley value based on sampling", Computers & Operations
Research 2009, Sec. 3; each order also backwards: Mitchell, Cooper, Frank, Holmes, "Sampling Permutations for Shapley
Value Estimation", JMLR 2022, Sec. 2.3.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from antehoc_hf.evaluation.rank_correlation import spearman
from antehoc_hf.modeling.scaling import patch_grid
from antehoc_hf.training.objectives.patches import background_images, black_of, shown_images
from benchmarks.faithfulness.cells import CELLS, OURS, defined_mean, interval
from benchmarks.faithfulness.part_maps import image_values
from benchmarks.faithfulness.subjects import Subject, maps_of, predict, signed_map

MISSING = {"mean colour": "mean", "black": "black"}
"""What stands for patches that are not shown, in the measures too, by its name in training."""


def sampled_shapley(
    value: Callable[[Tensor], Tensor], players: int, orders: int, generator: torch.Generator
) -> Tensor:
    """What each player is worth: the mean of what is won when it comes, over random orders, each also taken backwards.

    Args:
        value: coalitions (M, P) bool → what they win, (M,).
        players: P.
        orders: a multiple of 4: two halves, of pairs.
        generator: of the orders.

    Returns:
        (2, P) float64, of the first and the second half of the orders. Their mean sums exactly to what all win
        together, less what nobody does.

    Raises:
        ValueError: for another number of orders.
    """
    if orders < 4 or orders % 4:
        raise ValueError(f"worth_orders={orders} must be a multiple of 4: two halves of orders, each also backwards.")
    halves = torch.zeros(2, players, dtype=torch.float64)
    for half in range(2):
        for _ in range(orders // 4):
            order = torch.randperm(players, generator=generator)
            for sequence in (order, order.flip(0)):
                place = sequence.argsort()
                shown = place < torch.arange(players + 1)[:, None]
                halves[half] += value(shown).double().cpu().diff()[place]
    return halves / (orders // 2)


def patch_worth(subject: Subject, missing: str, orders: int) -> Tensor:
    """What every patch is worth to the predicted class.

    Args:
        subject: N images.
        missing: what stands for patches that are not shown, one of `MISSING`.
        orders: of each image, see `sampled_shapley`.

    Returns:
        (2, N, 1, g, w) float32, by two halves of the orders, in units of probability.
    """
    config = subject.model.config
    grid = patch_grid(subject.size, config.map_head.grid)
    backgrounds = background_images(subject.pixel_values, MISSING[missing], black_of(config))
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in tqdm(range(len(subject.predicted)), desc=f"Worth of patches, {missing}", unit="image", leave=False):
        image, background = subject.pixel_values[index : index + 1], backgrounds[index : index + 1]
        target = subject.predicted[index]

        def value(
            shown: Tensor, image: Tensor = image, background: Tensor = background, target: Tensor = target
        ) -> Tensor:
            images = shown_images(image, shown.to(image.device).unflatten(1, grid), background)
            return predict(subject.model, images)[:, target]

        found.append(sampled_shapley(value, grid[0] * grid[1], orders, generator))
    return torch.stack(found, dim=1).float().unflatten(2, (1, *grid))


def measure(subject: Subject, options: argparse.Namespace) -> dict[str, Any]:
    """The cells with margins, for maps of measured worth, ours and others; and all maps' agreement with it."""
    count = min(options.worth_images, len(subject.predicted))
    few = replace(
        subject,
        **{name: getattr(subject, name)[:count] for name in ("pixel_values", "labels", "predicted", "probabilities")},
    )
    device = few.pixel_values.device
    worth = {missing: patch_worth(few, missing, options.worth_orders).to(device) for missing in MISSING}
    # As our map shows its contributions: bilinear between patches.
    known = {
        f"worth, {missing}": F.interpolate(halves.mean(dim=0), size=few.size, mode="bilinear", align_corners=False)
        for missing, halves in worth.items()
    }
    values = image_values(few, options.worth_methods, known)
    names = (*known, OURS, *options.worth_methods)
    found: dict[str, dict[str, Any]] = {
        name: {
            cell.heading: interval(values[name][cell.name][:, None]).to_dict()
            for cell in CELLS
            if cell.aim == "margins"
        }
        for name in names
    }
    maps = known | {
        name: maps_of(few.explainer(name), few.pixel_values, few.predicted, name) for name in names[len(known) :]
    }
    maps[OURS] = maps_of(
        lambda pixels, classes: signed_map(few.model, pixels, classes), few.pixel_values, few.predicted
    )
    for missing, halves in worth.items():
        truth = halves.mean(dim=0)
        for name in names:
            found[name][f"rank correlation with worth, {missing}"] = _agreement(maps[name], truth)
        found[f"worth, {missing}"][f"rank correlation with worth, {missing}"] = _agreement(halves[0], halves[1])
    return {"scores": found}


def _agreement(maps: Tensor, truth: Tensor) -> dict[str, Any]:
    """Rank correlation over the patches, a mean over images."""
    coarse = F.adaptive_avg_pool2d(maps, (truth.shape[-2], truth.shape[-1]))
    return defined_mean(spearman(coarse.flatten(1), truth.flatten(1)))
