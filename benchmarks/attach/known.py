"""How many passes of one image a map saves: regression of its own patches on coalitions, with and without the fitted
map as a start.

    python -m benchmarks.attach.known --weights FOLDER --data ../shared/data/imagenette

The maps that are regressed with twice the passes share their first coalitions. `explained`: of what the last third of
each image's coalitions gain over their complements, which no map has seen.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor
from torch.nn import functional as F

from antehoc_hf.explainers import load_explainer
from antehoc_hf.explainers.coalition_regression import additive_game
from antehoc_hf.training.attach import FitOptions, fit_map
from antehoc_hf.training.attach.judge import Judge
from antehoc_hf.training.objectives.patches import draw_coalitions, draw_sizes
from benchmarks.attach.ceiling import SIDE, Game, table_of
from benchmarks.attach.networks import Imagenette, classifier, script_options


def main() -> None:
    args = _arguments()
    torch.set_num_threads(1)
    model = classifier(args.network, args.weights)
    fit_map(model, Imagenette(args.data, "train", args.images, model), FitOptions(pairs=4))
    rows = Imagenette(args.data, "train", args.count, model, first=3300)
    judge = Judge(
        model, torch.stack([rows[index]["pixel_values"] for index in range(min(8, args.count))]), passes=10**5
    )
    cam = load_explainer("grad-cam", model)
    scores: dict[str, list[Tensor]] = {}
    residues: dict[str, list[Tensor]] = {}
    for index in range(args.count):
        game = Game(judge, rows[index]["pixel_values"])
        with torch.inference_mode():
            output = model(game.image[None])
        game.target = int(output.logits.argmax())
        fitted = F.avg_pool2d(output.interpretation_map.clone(), 16)[0, 0]
        maps = {"grad-cam": F.avg_pool2d(cam(game.image[None], game.target), 16)[0, 0], "fitted map": fitted}
        generator = torch.Generator().manual_seed(index)
        most = max(args.pairs)
        sizes = draw_sizes(most + most // 2, SIDE**2, "contiguous", generator)
        coalitions = draw_coalitions(sizes, (SIDE, SIDE), "contiguous", generator)
        signs, (shown, left) = game.play(coalitions)
        gains = shown - left
        for pairs in args.pairs:
            for start, known in (("nothing", None), ("the fitted map", fitted)):
                found = additive_game(coalitions[:pairs], gains[:pairs], known)
                maps[f"{2 * pairs} passes, from {start}"] = found
        for name, map_ in maps.items():
            scores.setdefault(name, []).append(game.insertion_minus_deletion(map_))
            residues.setdefault(name, []).append(_residue(signs[most:], gains[most:], map_))
        residues.setdefault("all", []).append(_residue(signs[most:], gains[most:], torch.zeros(SIDE, SIDE)))
    whole = torch.stack(residues.pop("all")).sum()
    explained = {name: float(1 - torch.stack(left).sum() / whole) for name, left in residues.items()}
    print(table_of(scores, {"explained": explained}))


def _residue(signs: Tensor, gains: Tensor, map_: Tensor) -> Tensor:
    """What a map leaves of the gains, after sizes and, since maps have scales of their own, its best multiple."""
    size = signs.mean(dim=1)
    columns = torch.stack([size, size**3, signs @ (map_ - map_.mean()).flatten()], dim=1).double()
    columns = columns / columns.norm(dim=0).clamp_min(1e-12)
    solution = torch.linalg.lstsq(columns, gains.double()[:, None], driver="gelsd").solution
    return (gains.double() - (columns @ solution)[:, 0]).square().sum()


def _arguments() -> argparse.Namespace:
    parser = script_options(__doc__)
    parser.add_argument("--images", type=int, default=600, help="the map is fitted to")
    parser.add_argument("--count", type=int, default=40, help="images of train that are compared on")
    parser.add_argument("--pairs", type=int, nargs="+", default=[25, 50, 100, 200], help="coalitions of one image")
    return parser.parse_args()


if __name__ == "__main__":
    main()
