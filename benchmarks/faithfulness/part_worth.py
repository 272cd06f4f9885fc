"""
What a map would score that knew what each patch is worth to the network, and how near the methods come to knowing it.

A patch's worth is its Shapley value, of the game in which patches are shown one after the other and the network's
probability of the predicted class is what they win. For 64 patches it takes thousands of passes an image to measure it
by sampling orders; no map of a forward pass or two can do more than predict it.

Source: Castro, Gómez, Tejada, "Polynomial calculation of the Shapley value based on sampling", Computers & Operations
Research 2009, Sec. 3; each order also backwards: Mitchell, Cooper, Frank, Holmes, "Sampling Permutations for Shapley
Value Estimation", JMLR 2022, Sec. 2.3.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from cells import CELLS, OURS, interval
from part_maps import image_values
from subjects import Subject, maps_of, predict, signed_map
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from antehoc_hf.evaluation import bootstrap_mean
from antehoc_hf.evaluation.rank_correlation import spearman
from antehoc_hf.modeling.contributions import patch_grid


def missing_colours(subject: Subject) -> dict[str, Tensor]:
    """What stands for patches that are not shown, normalised, (N, 3, 1, 1): as in the measures."""
    images, config = subject.pixel_values, subject.model.config
    mean = torch.tensor(config.image_mean, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(config.image_std, device=images.device).view(1, 3, 1, 1)
    return {
        "mean colour": images.mean(dim=(2, 3), keepdim=True),
        "black": (-mean / std).expand(len(images), -1, -1, -1),
    }


def sampled_shapley(
    value: Callable[[Tensor], Tensor], players: int, orders: int, generator: torch.Generator
) -> Tensor:
    """
    What each player is worth: the mean of what is won when it comes, over random orders, each also taken backwards.

    Args:
        value: coalitions (M, P) bool → what they win, (M,).
        players: P.
        orders: at least 4; as many as a multiple of 4 holds.
        generator: of the orders.

    Returns:
        (2, P) float64, of the first and the second half of the orders. Their mean sums exactly to what all win
        together, less what nobody does.
    """
    halves = torch.zeros(2, players, dtype=torch.float64)
    pairs = orders // 4
    for half in range(2):
        for _ in range(pairs):
            order = torch.randperm(players, generator=generator)
            for sequence in (order, order.flip(0)):
                place = sequence.argsort()
                shown = place < torch.arange(players + 1)[:, None]
                halves[half] += value(shown).double().cpu().diff()[place]
    return halves / (2 * pairs)


def patch_worth(subject: Subject, missing: Tensor, orders: int, title: str) -> Tensor:
    """(2, N, 1, g, w) float32: of all patches of all images, by two halves of the orders."""
    size = subject.size
    grid = patch_grid(size, subject.model.config.contribution_grid)
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in tqdm(range(len(subject.predicted)), desc=title, unit="image", leave=False):
        image, colour, target = subject.pixel_values[index], missing[index], subject.predicted[index]

        def value(shown: Tensor, image: Tensor = image, colour: Tensor = colour, target: Tensor = target) -> Tensor:
            coarse = shown.to(image.device).view(-1, 1, *grid).float()
            mask = F.interpolate(coarse, size=size, mode="nearest").bool()
            return predict(subject.model, torch.where(mask, image, colour))[:, target]

        found.append(sampled_shapley(value, grid[0] * grid[1], orders, generator))
    return torch.stack(found, dim=1).float().unflatten(2, (1, *grid))


def measure(subject: Subject, options: argparse.Namespace) -> dict[str, Any]:
    """The cells with margins, for maps of measured worth beside ours and others; and all maps' agreement with it."""
    count = min(options.worth_images, len(subject.predicted))
    few = replace(
        subject,
        **{name: getattr(subject, name)[:count] for name in ("pixel_values", "labels", "predicted", "probabilities")},
    )
    device = few.pixel_values.device
    worth = {
        colour: patch_worth(few, missing, options.worth_orders, f"Worth of patches, {colour}").to(device)
        for colour, missing in missing_colours(few).items()
    }
    # As our map shows its contributions: bilinear between patches.
    known = {
        f"worth, {colour}": F.interpolate(halves.mean(dim=0), size=few.size, mode="bilinear", align_corners=False)
        for colour, halves in worth.items()
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
    for colour, halves in worth.items():
        truth = halves.mean(dim=0)
        for name in names:
            found[name][f"rank correlation with worth, {colour}"] = _agreement(maps[name], truth)
        found[f"worth, {colour}"][f"rank correlation with worth, {colour}"] = _agreement(halves[0], halves[1])
    return {"scores": found}


def _agreement(maps: Tensor, truth: Tensor) -> dict[str, Any]:
    """Rank correlation over the patches, a mean over images."""
    coarse = F.adaptive_avg_pool2d(maps, (truth.shape[-2], truth.shape[-1]))
    values = spearman(coarse.flatten(1), truth.flatten(1)).double().cpu()
    return bootstrap_mean(values[torch.isfinite(values)]).to_dict()
