"""The grid pointing game: four images of four classes in one mosaic. Does the map of each class find its own image?

Source: Böhle, Fritz, Schiele, "Convolutional Dynamic Alignment Networks for Interpretable Classifications", CVPR 2021,
Sec. 5. Chance, and any map that depends on no class, is 0.25.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from antehoc_hf.evaluation import energy_share, pointing_game
from antehoc_hf.modeling.scaling import patch_grid
from benchmarks.faithfulness.cells import OURS, defined_mean
from benchmarks.faithfulness.coalition_truth import coalitions, on_patches, shapley, spread
from benchmarks.faithfulness.subjects import Explain, Subject, maps_of, predict, signed_map

_SIDE = 2


class TooFewClassesError(ValueError):
    """The model predicts fewer classes than a mosaic needs."""


def mosaics(subject: Subject, count: int, confidence: float) -> tuple[Tensor, Tensor, float]:
    """Mosaics of images that the model is sure of.

    Args:
        count: B, how many.
        confidence: least probability of the predicted class; lowered where fewer than four classes are left.

    Returns:
        (B, 3, 2H, 2W), the (B, 4) predicted classes of their quadrants, row by row, and the probability asked for.

    Raises:
        TooFewClassesError: if the model predicts fewer than four classes.
    """
    sure = subject.probabilities.amax(dim=1).cpu()
    predicted = subject.predicted.cpu()
    while confidence > 0 and len(predicted[sure >= confidence].unique()) < _SIDE**2:
        confidence = round(confidence - 0.1, 6)
    members = {int(k): ((predicted == k) & (sure >= confidence)).nonzero().flatten() for k in predicted.unique()}
    members = {k: images for k, images in members.items() if len(images)}
    if len(members) < _SIDE**2:
        raise TooFewClassesError(
            f"Mosaics need {_SIDE**2} predicted classes, and there are {len(members)}: train longer."
        )
    generator = torch.Generator().manual_seed(0)
    images, classes = [], []
    for _ in range(count):
        four = [list(members)[i] for i in torch.randperm(len(members), generator=generator)[: _SIDE**2].tolist()]
        at = [int(members[k][int(torch.randint(len(members[k]), (1,), generator=generator))]) for k in four]
        tiles = subject.pixel_values[at]
        images.append(torch.cat([torch.cat(list(pair), dim=2) for pair in tiles.split(_SIDE)], dim=1))
        classes.append(torch.tensor(four))
    return torch.stack(images), torch.stack(classes).to(subject.predicted.device), confidence


def quadrants(count: int, size: tuple[int, int]) -> Tensor:
    """(4, count, 1, H, W) bool, row by row."""
    height, width = size
    masks = torch.zeros(_SIDE**2, count, 1, height, width, dtype=torch.bool)
    for place in range(_SIDE**2):
        row, column = divmod(place, _SIDE)
        rows = slice(row * height // _SIDE, (row + 1) * height // _SIDE)
        columns = slice(column * width // _SIDE, (column + 1) * width // _SIDE)
        masks[place, :, :, rows, columns] = True
    return masks


def play(maps: Sequence[Tensor]) -> dict[str, Any]:
    """The share of the positive energy in the right quadrant, and whether the maximum lies there, in [0, 1].

    Args:
        maps: (B, 1, H, W) of the class in each of the four quadrants, row by row.
    """
    masks = quadrants(len(maps[0]), (maps[0].shape[-2], maps[0].shape[-1])).to(maps[0].device)
    positive = [of_class.clamp(min=0) for of_class in maps]
    shares = [energy_share(energy, masks[place]) for place, energy in enumerate(positive)]
    hits = [
        pointing_game(energy, masks[place], first_index=place * len(energy)) for place, energy in enumerate(positive)
    ]
    # The four maps of a mosaic belong together: the mosaics are what is drawn for the interval.
    share, hit = torch.stack(shares, dim=1).cpu(), torch.stack(hits, dim=1).cpu()
    return {
        "energy in the quadrant": defined_mean(share.nanmean(dim=1)),
        "maximum in the quadrant": defined_mean(hit.float().mean(dim=1)),
        "empty maps": {"value": int(torch.isnan(share).sum()), "low": None, "high": None, "count": share.numel()},
    }


def quadrant_worth(model: Any, images: Tensor, classes: Tensor) -> Tensor:
    """What each quadrant is worth to each of the four classes, from all 16 images that show some of the quadrants and
    the mosaic's mean colour elsewhere.

    Returns:
        (4, B, 4): class, mosaic, quadrant.
    """
    masks = quadrants(len(images), (images.shape[-2], images.shape[-1])).to(images.device)
    mean = images.mean(dim=(2, 3), keepdim=True)
    worth = []
    for some in coalitions(len(masks)):
        shown = masks[torch.tensor(some)].any(dim=0)
        worth.append(predict(model, torch.where(shown, images, mean)).gather(1, classes))
    return shapley(torch.stack(worth)).permute(2, 1, 0)


def true_maps(model: Any, images: Tensor, classes: Tensor) -> dict[str, list[Tensor]]:
    """Maps that know the truth, of the class in each quadrant: `right quadrant` is on it and on nothing else, whatever
    the network looks at; `quadrants' worth` gives each quadrant its Shapley value; `on patches`: as much of it as our
    map's patches can show.
    """
    size = (images.shape[-2], images.shape[-1])
    masks = quadrants(len(images), size).to(images.device)
    worth = [spread(of_class, masks.squeeze(2).transpose(0, 1)) for of_class in quadrant_worth(model, images, classes)]
    found = {"right quadrant": [mask.float() for mask in masks], "quadrants' worth": worth}
    grid = patch_grid(size, model.config.map_head.grid)
    coarse = {f"{name}, on patches": [on_patches(of_class, grid) for of_class in maps] for name, maps in found.items()}
    return found | coarse


def measure(subject: Subject, options: argparse.Namespace) -> dict[str, Any]:
    """Scores by size and method."""
    images, classes, confidence = mosaics(subject, options.mosaics, options.confidence)
    explainers: dict[str, Explain] = {
        f"{OURS}, contributions": lambda pixels, target: signed_map(subject.model, pixels, target),
        OURS: subject.explainer(OURS),
        **{name: subject.explainer(name) for name in options.grid_methods},
        "constant": subject.explainer("constant"),
    }
    found: dict[str, Any] = {"confidence": confidence, "scores": {}}
    for size in options.mosaic_sizes:
        if size == "twice" and subject.model.config.fixed_image_size:
            continue  # the network takes one size only
        shown = images if size == "twice" else F.interpolate(images, size=subject.size, mode="area")
        for name, explain in explainers.items():
            maps = [
                maps_of(explain, shown, of_quadrant, f"Grid, {name}, quadrant {place} of {_SIDE**2}")
                for place, of_quadrant in enumerate(classes.T, start=1)
            ]
            found["scores"][f"{name} ({size} size)"] = play(maps)
        for name, truth in true_maps(subject.model, shown, classes).items():
            found["scores"][f"{name} ({size} size)"] = play(truth)
    return found
