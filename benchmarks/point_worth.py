"""What should be shared out among the patches for a landmark model? For each image the contributions are solved by
least squares on coalitions of its own, the network's truth for that worth, and compared: how much of the held-out
quarter of the gains a sum over patches explains, and where the energy of each part's map lies. Choose on training
images: `python -m benchmarks.point_worth outputs/points --dataset_name path/to/faces-68 --split train`.
"""

import math
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from antehoc_hf.evaluation.results import markdown_table
from antehoc_hf.modeling import AnteHocForLandmarkDetection
from antehoc_hf.modeling.scaling import resize
from antehoc_hf.training.data import sample
from antehoc_hf.training.objectives.patches import black_of, draw_partial_images, shown_images
from benchmarks.output import parser
from benchmarks.point_maps import opened

AT_ONCE = 32
RIDGE = 0.02

WORTHS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp(−‖Δ‖²/2σ²), σ = 0.02": lambda distance: torch.exp(-(distance**2) / (2 * 0.02**2)),
    "exp(−‖Δ‖²/2σ²), σ = 0.05": lambda distance: torch.exp(-(distance**2) / (2 * 0.05**2)),
    "exp(−‖Δ‖²/2σ²), σ = 0.1": lambda distance: torch.exp(-(distance**2) / (2 * 0.1**2)),
    "−‖Δ‖": lambda distance: -distance,
    "−‖Δ‖²": lambda distance: -(distance**2),
}
"""Worth of a coalition to a point, by the distance from the whole image's prediction; 1 is the image's side."""


@torch.no_grad()
def play(
    model: AnteHocForLandmarkDetection, image: Tensor, grid: int, pairs: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs of coalitions of one image (3, H, W).

    Returns:
        contrasts (P, grid²), distances of all points (P, K) for the first and the second of each pair, and (N, K)
        where no patch is left.
    """
    images = image.expand(AT_ONCE, -1, -1, -1)
    whole = model(image[None]).landmarks
    black = black_of(model.config)
    contrasts, distances, empty = [], [], []
    for _ in range(pairs // AT_ONCE):
        (first, second), background = draw_partial_images(
            images, (grid, grid), "contiguous", "mixed", black, generator, 2
        )
        partial = [shown_images(images, first, background), shown_images(images, second, background), background[:4]]
        found = model(pixel_values=torch.cat(partial), phase="prediction").landmarks
        distance = (found - whole).norm(dim=2)
        contrasts.append((first.float() - second.float()).flatten(1))
        distances.append(distance[: 2 * AT_ONCE].unflatten(0, (2, AT_ONCE)))
        empty.append(distance[2 * AT_ONCE :])
    both = torch.cat(distances, dim=1)
    return torch.cat(contrasts), both[0], both[1], torch.cat(empty)


def solve(contrasts: Tensor, gains: Tensor) -> Tensor:
    """Contributions (grid², K) of the patches to gains (P, K), with a little ridge."""
    eye = torch.eye(contrasts.shape[1])
    return torch.linalg.solve(contrasts.T @ contrasts + RIDGE * len(contrasts) / len(eye) * eye, contrasts.T @ gains)


def over_area(map_: Tensor, mask: Tensor) -> float:
    """The share of a map's energy in a mask, over the mask's share of the area; both (1, H, W). NaN without a mask."""
    return float((map_ * mask).sum() / map_.sum().clamp_min(1e-12) / mask.mean())


def judged(
    worth: Callable[[Tensor], Tensor],
    played: tuple[Tensor, Tensor, Tensor, Tensor],
    parts: dict[str, list[int]],
    masks: Tensor,
    grid: int,
) -> dict[str, float]:
    """One image by one worth.

    Args:
        worth: one of [`WORTHS`].
        played: from [`play`].
        parts: the points of each part.
        masks (`Tensor`): (parts, H, W), where each part is.
        grid (`int`): patches along a side.
    """
    contrasts, first, second, empty = played
    gains, learned = worth(first) - worth(second), len(contrasts) * 3 // 4
    guess = contrasts[learned:] @ solve(contrasts[:learned], gains[:learned])
    left = (guess - gains[learned:]).square().sum() / gains[learned:].square().sum()
    found = {"explained": 1 - float(left)}
    contributions = solve(contrasts, gains)
    to_share = float(worth(torch.zeros(1))) - worth(empty).mean(dim=0)
    contributions += (to_share - contributions.sum(dim=0)) / len(contributions)
    energy = []
    for index, (part, points) in enumerate(parts.items()):
        own = contributions[:, points].mean(dim=1).view(1, 1, grid, grid)
        least, zero = (resize(map_, masks.shape[1:])[0] for map_ in (own - own.min(), own.clamp_min(0)))
        energy.append([over_area(zero, mask[None]) for mask in masks])
        found |= {f"{part}, least": over_area(least, masks[index : index + 1]), f"{part}, zero": energy[-1][index]}
    highest = torch.tensor(energy).argmax(dim=0)
    for index, part in enumerate(parts):
        found[f"{part}, own highest"] = float(highest[index] == index) if masks[index].any() else math.nan
    return found


def main() -> None:
    command = parser(__doc__)
    command.add_argument("model", help="folder of a landmark model")
    command.add_argument("--dataset_name", required=True)
    command.add_argument("--split", default="train")
    command.add_argument("--images", type=int, default=24)
    command.add_argument("--pairs", type=int, default=1280)
    command.add_argument("--grid", type=int, default=8)
    options = command.parse_args()
    torch.set_num_threads(1)
    model, images, parts, rows = opened(options.model, options.dataset_name, options.split)
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    generator = torch.Generator().manual_seed(0)
    for position in sample(images, options.images):
        item = images[position]
        masks = item["part_masks"][[rows.index(part) for part in parts]].float()
        played = play(model, item["pixel_values"], options.grid, options.pairs, generator)
        for name, worth in WORTHS.items():
            for column, value in judged(worth, played, parts, masks, options.grid).items():
                found[name, column].append(value)
    columns = [key for name, key in found if name == next(iter(WORTHS))]
    print(f"{options.images} {options.split} images, {options.pairs} pairs each, grid {options.grid}\n")
    lines = [["worth", *columns]]
    for name in WORTHS:
        means = [torch.tensor(found[name, column]).nanmean() for column in columns]
        lines.append([name, *(f"{float(mean):.2f}" for mean in means)])
    print("\n".join(markdown_table(lines)))


if __name__ == "__main__":
    main()
