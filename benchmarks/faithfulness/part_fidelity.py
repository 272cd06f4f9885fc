"""Are the numbers of a map what the network loses? Four protocols of the literature, on any map.

`deletion`: rank correlation with what each of 4×4 blocks costs when it alone is taken out (Hesse, Schaub-Meyer, Roth,
"Benchmarking the Attribution Quality of Vision Models", NeurIPS 2024). `sensitivity`: Pearson's correlation of the
summed map of random patches with what the network loses without them, by how many there are (Covert, Kim, Lee,
"Learning to Estimate Shapley Values with Vision Transformers", ICLR 2023, Sec. 5). `top-1, shown` and `top-1, hidden`:
area under the accuracy over the part of the patches that is shown or hidden, best first (Jethani et al., "FastSHAP",
ICLR 2022, Sec. 5). `Pearson` and `Spearman` with the patches' Shapley values.

What is taken out shows the image's mean colour.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from antehoc_hf.evaluation.maps import rank_pixels
from antehoc_hf.evaluation.rank_correlation import spearman
from antehoc_hf.training.objectives.patches import shown_images
from benchmarks.faithfulness.part_worth import sampled_shapley
from benchmarks.faithfulness.subjects import Subject

Judge = Callable[[Tensor], Tensor]
"""Images (N, 3, H, W) → probabilities (N, K)."""
GRID, BLOCKS = 8, 4
REMOVED = (4, 8, 16, 32)
SUBSETS = 16
STEPS = 8


def image_values(subject: Subject, judge: Judge, maps: Mapping[str, Tensor]) -> dict[str, dict[str, list[float]]]:
    """Map → measure → one value an image; of `top-1` one an image, which is right or wrong at each step.

    Args:
        subject: N images.
        judge: their network.
        maps: (N, 1, H, W) by name.
    """
    found: dict[str, dict[str, list[float]]] = {name: {} for name in maps}
    for position, image in enumerate(subject.pixel_values):
        target, label = int(subject.predicted[position]), int(subject.labels[position])
        whole = float(subject.probabilities[position, target])
        blocks = ~torch.eye(BLOCKS**2, dtype=torch.bool)
        cost = whole - _seen(judge, image, blocks)[:, target]
        generator = torch.Generator().manual_seed(position)
        removed = torch.cat([_random_subsets(count, generator) for count in REMOVED])
        lost = whole - _seen(judge, image, ~removed)[:, target]
        for name, of_all in maps.items():
            map_ = of_all[position : position + 1]
            on_grid = F.adaptive_avg_pool2d(map_, GRID)
            values = {"deletion": spearman(F.adaptive_avg_pool2d(map_, BLOCKS).flatten(1), cost[None])}
            sums = removed.float() @ on_grid.flatten()
            pairs = zip(sums.split(SUBSETS), lost.split(SUBSETS), strict=True)
            values |= {f"sensitivity, {count}": pearson(*pair) for count, pair in zip(REMOVED, pairs, strict=True)}
            right = _seen(judge, image, _by_rank(on_grid)).argmax(dim=1) == label
            shown, hidden = right.float().view(2, -1)
            steps = torch.linspace(0, 1, STEPS + 1)
            values |= {"top-1, shown": torch.trapezoid(shown, steps), "top-1, hidden": torch.trapezoid(hidden, steps)}
            for measure, value in values.items():
                found[name].setdefault(measure, []).append(float(value))
    return found


def worth_of_patches(subject: Subject, judge: Judge, orders: int) -> Tensor:
    """Shapley values (N, 2, GRID²) of the predicted class, by two halves of the orders; see `sampled_shapley`."""
    found = []
    for position, image in enumerate(subject.pixel_values):
        target = int(subject.predicted[position])

        def value(shown: Tensor, image: Tensor = image, target: int = target) -> Tensor:
            return _seen(judge, image, shown)[:, target]

        found.append(sampled_shapley(value, GRID**2, orders, torch.Generator().manual_seed(position)))
    return torch.stack(found).float()


def agreement_with_worth(worth: Tensor, maps: Mapping[str, Tensor]) -> dict[str, dict[str, list[float]]]:
    """Map → measure → one value an image; `worth itself` is how well two halves of the orders agree."""
    found: dict[str, dict[str, list[float]]] = {}
    for position, halves in enumerate(worth):
        truth = halves.mean(dim=0)
        on_grid = {name: F.adaptive_avg_pool2d(of_all[position], GRID).flatten() for name, of_all in maps.items()}
        pairs: dict[str, tuple[Any, Any]] = {name: (values, truth) for name, values in on_grid.items()}
        for name, (first, second) in ({"worth itself": (halves[0], halves[1])} | pairs).items():
            of_map = found.setdefault(name, {"Pearson": [], "Spearman": []})
            of_map["Pearson"].append(float(pearson(first, second)))
            of_map["Spearman"].append(float(spearman(first[None], second[None])))
    return found


def pearson(first: Tensor, second: Tensor) -> Tensor:
    """Of two rows of numbers, (P,) each: a number in [−1, 1]; NaN where one of them is constant."""
    return torch.corrcoef(torch.stack([first.double(), second.double()]))[0, 1]


def _seen(judge: Judge, image: Tensor, shown: Tensor) -> Tensor:
    """Probabilities (N, K) of an image of which some patches are shown: (N, side²) bool."""
    side = round(shown.shape[1] ** 0.5)
    images = image.expand(len(shown), -1, -1, -1)
    mean = image.mean(dim=(1, 2), keepdim=True).expand_as(images)
    parts = zip(images.split(64), shown.unflatten(1, (side, side)).split(64), mean.split(64), strict=True)
    return torch.cat([judge(shown_images(*part)) for part in parts])


def _random_subsets(count: int, generator: torch.Generator) -> Tensor:
    """(SUBSETS, GRID²) bool, each of so many patches."""
    ranks = torch.rand(SUBSETS, GRID**2, generator=generator).argsort(dim=1).argsort(dim=1)
    return ranks < count


def _by_rank(on_grid: Tensor) -> Tensor:
    """(2 · (STEPS + 1), GRID²) bool: first the best patches, ever more of them, then all but these."""
    ranks = rank_pixels(on_grid)[0]
    best = ranks < torch.linspace(0, GRID**2, STEPS + 1).round().long()[:, None]
    return torch.cat([best, ~best])
