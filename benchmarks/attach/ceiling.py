"""How far ahead of Grad-CAM a map can be: regressions of each image's own patches on coalitions of that image.

python -m benchmarks.attach.ceiling --weights FOLDER --data ../shared/data/imagenette
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from antehoc_hf.evaluation.blur import blurred
from antehoc_hf.evaluation.maps import rank_pixels
from antehoc_hf.evaluation.results import markdown_table
from antehoc_hf.explainers import load_explainer
from antehoc_hf.training.attach import FitOptions, fit_map
from antehoc_hf.training.attach.judge import Judge
from antehoc_hf.training.objectives.patches import draw_coalitions, draw_sizes, shown_images
from benchmarks.attach.networks import Imagenette, classifier, script_options

SIDE, PATCHES, STEPS = 14, 196, 8


def main() -> None:
    args = _arguments()
    model = classifier(args.network, args.weights)
    start = model.map_head.coefficients.clone()
    fit_map(model, Imagenette(args.data, "train", args.images, model), FitOptions(pairs=3, against="drawn"))
    heads = {"class evidence": start, "fitted map": model.map_head.coefficients.clone()}
    rows = Imagenette(args.data, "train", args.count, model, first=3400)
    judge = Judge(model, torch.stack([rows[index]["pixel_values"] for index in range(8)]))
    cam = load_explainer("grad-cam", model)
    generator = torch.Generator().manual_seed(0)
    found: dict[str, list[Tensor]] = {}
    for index in range(args.count):
        game = Game(judge, rows[index]["pixel_values"])
        maps = {}
        for name, coefficients in heads.items():
            model.map_head.coefficients.copy_(coefficients)
            with torch.inference_mode():
                output = model(game.image[None])
            maps[name] = F.avg_pool2d(output.interpretation_map.clone(), 16)[0, 0]
        game.target = int(output.logits.argmax())
        maps["grad-cam"] = F.avg_pool2d(cam(game.image[None], torch.tensor([game.target])), 16)[0, 0]
        maps |= _of_this_image(game, maps["fitted map"], generator)
        for name, values in maps.items():
            found.setdefault(name, []).append(game.insertion_minus_deletion(values))
        print(f"\n{table_of(found)}", flush=True)


class Game:
    """What coalitions of one image's patches are worth to its predicted class, before mean colour and blur."""

    target = 0

    def __init__(self, judge: Judge, image: Tensor) -> None:
        self.judge, self.image = judge, image
        mean = image.mean(dim=(1, 2), keepdim=True).expand_as(image)
        self.backgrounds = torch.stack([mean, blurred(image[None])[0]])

    def worth(self, shown: Tensor, backgrounds: Tensor) -> Tensor:
        """Of coalitions (N, g, w), and then of the patches that they leave, on (N, 3, H, W): (2, N)."""
        both = torch.cat([shown, ~shown])
        images = shown_images(self.image.expand(len(both), -1, -1, -1), both, backgrounds.repeat(2, 1, 1, 1))
        return self.judge(images)[:, self.target].view(2, -1)

    def play(self, shown: Tensor) -> tuple[Tensor, Tensor]:
        """±1 for each of the 14×14 patches, (N, 196), and the worth, (2, N); the backgrounds take turns."""
        worth = self.worth(shown, self.backgrounds[torch.arange(len(shown)) % 2])
        whole = F.interpolate(shown[:, None].float(), size=self.image.shape[-2:], mode="nearest")
        return 2 * F.avg_pool2d(whole, 16).flatten(1) - 1, worth

    def insertion_minus_deletion(self, values: Tensor) -> Tensor:
        """On both backgrounds, (2,); the ends of the two curves are the same and cancel."""
        ranks = rank_pixels(values.view(1, 1, SIDE, SIDE), 0, 0)[0]
        counts = torch.linspace(0, PATCHES, STEPS + 1).round().long()[1:-1]
        shown = torch.stack([(ranks < count).view(SIDE, SIDE) for count in counts]).repeat(2, 1, 1)
        insertion, deletion = self.worth(shown, self.backgrounds.repeat_interleave(len(counts), dim=0))
        return (insertion - deletion).view(2, -1).sum(dim=1) / STEPS


def _of_this_image(game: Game, fitted: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    played = {}
    for grid in (8, SIDE):
        sizes = draw_sizes(300, grid**2, "contiguous", generator)
        played[grid] = game.play(draw_coalitions(sizes, (grid, grid), "contiguous", generator))
    (coarse, of_coarse), (fine, of_fine) = played[8], played[SIDE]
    odds = torch.logit(of_coarse.clamp(1e-6, 1 - 1e-6))
    maps = {
        "8×8, 300 passes": regression(coarse[:150], of_coarse[0, :150] - of_coarse[1, :150]),
        "8×8, 600 passes": regression(coarse, of_coarse[0] - of_coarse[1]),
        "8×8, 600 passes, log-odds": regression(coarse, odds[0] - odds[1]),
        "14×14, 600 passes": regression(fine, of_fine[0] - of_fine[1]),
    }
    both = torch.cat([coarse, fine]), torch.cat([of_coarse, of_fine], dim=1)
    maps["both, 1,200 passes"] = regression(both[0], both[1][0] - both[1][1])
    for origin, values in (("both", maps["both, 1,200 passes"]), ("fitted map", fitted)):
        for number in range(3):
            sizes = draw_sizes(100, PATCHES, "contiguous", generator)
            ranking = values.expand(len(sizes), -1, -1)
            signs, worth = game.play(draw_coalitions(sizes, (SIDE, SIDE), "ranked", generator, ranking))
            values = regression(signs, worth[0] - worth[1], values)
            maps[f"{origin}, then {number + 1} × 200 passes ranked by the map"] = values
    return maps


def regression(signs: Tensor, gains: Tensor, before: Tensor | None = None) -> Tensor:
    """The map (14, 14) of a Gaussian process on the patches, its width and share of noise by marginal likelihood;
    sizes of coalitions have an effect of their own, a map from before may keep its part.
    """
    signs, gains = signs.double(), gains.double()
    place = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE)).double()
    size, variance = signs.mean(dim=1), gains.var() + 1e-12
    common = 3 * torch.outer(size, size) + 3 * torch.outer(size**3, size**3)
    known, along = torch.zeros(PATCHES).double(), torch.zeros_like(gains)
    if before is not None:
        known = before.double().flatten()
        known = (known - known.mean()) / known.std()
        known = known / (signs @ known).std()
        along = signs @ known
        common = common + 3 * torch.outer(along, along)
    best: tuple[float, Tensor] | None = None
    for width in (1.0, 1.75, 3.0):
        smooth = torch.exp(-torch.cdist(place, place).square() / 2 / width**2)
        between = signs @ smooth @ signs.T
        scale = between.diagonal().mean()
        for share in (0.1, 0.3, 1.0, 3.0):
            covariance = share / scale * between + common + torch.eye(len(gains), dtype=torch.float64)
            root = torch.linalg.cholesky(covariance)
            weights = torch.cholesky_solve(gains[:, None], root)[:, 0]
            likelihood = -len(gains) / 2 * (gains @ weights / variance).log() - root.diagonal().log().sum()
            if best is None or likelihood > best[0]:
                best = float(likelihood), share / scale * smooth @ (signs.T @ weights) + 3 * known * (along @ weights)
    assert best is not None
    return best[1].float().view(SIDE, SIDE)


def table_of(scores: dict[str, list[Tensor]], further: dict[str, dict[str, float]] | None = None) -> str:
    """Markdown of insertion − deletion, and of what it exceeds Grad-CAM by, with 1.96 standard errors.

    Args:
        scores: map → of each image (2,), before mean colour and blur; `grad-cam` among them.
        further: heading → map → a number that stands before them.
    """
    rival, further = torch.stack(scores["grad-cam"]), further or {}
    rows = [["map", *further, "mean", "blur", "over Grad-CAM", "difference"]]
    for name, of_map in scores.items():
        both = torch.stack(of_map)
        off = (both - rival).mean(dim=1)
        numbers = [*(of[name] for of in further.values()), *both.mean(dim=0).tolist()]
        ratio, error = both.mean() / rival.mean(), 1.96 * off.std().item() / len(off) ** 0.5
        cells = [f"{number:.3f}" for number in numbers]
        rows.append([name, *cells, f"{ratio:.2f}", f"{off.mean():+.3f} ± {error:.3f}"])
    return "\n".join([f"{len(rival)} images", *markdown_table(rows)])


def _arguments() -> Any:
    parser = script_options(__doc__)
    parser.add_argument("--images", type=int, default=600, help="the map is fitted to")
    parser.add_argument("--count", type=int, default=20, help="images of train that are compared on")
    return parser.parse_args()


if __name__ == "__main__":
    main()
