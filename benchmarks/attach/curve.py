"""How many images the map of a finished classifier needs: what it explains, and insertion − deletion on images that
none of the maps has seen, against the number of images it was fitted to and the time that took. All images are of
`train`.

    python -m benchmarks.attach.curve --weights FOLDER --data ../shared/data/imagenette
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from antehoc_hf.training.attach import FitOptions, fit_map
from benchmarks.attach.attach import OURS, START, compare, state_of
from benchmarks.attach.networks import Imagenette, classifier, script_options

TRAIN = 4000


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    model = classifier(args.network, args.weights)
    heads = {START: state_of(model)}
    fits: dict[str, Any] = {}
    for count in args.images:
        model.map_head.load_state_dict(heads[START])
        images = Imagenette(args.data, "train", min(count, TRAIN - args.judged), model)
        report = fit_map(model, images, FitOptions(pairs=args.pairs, seed=args.seed))
        name = f"{OURS}, {len(images):,} images"
        heads[name], fits[name] = state_of(model), report.to_dict()
        print(f"{name}: {report.seconds:.0f} s, explained {report.explained[OURS]:.3f}", flush=True)
    rows = Imagenette(args.data, "train", args.judged, model, first=TRAIN - args.judged)
    scores = compare(model, rows, heads, 16, ["grad-cam"])
    print("| map | seconds | explained | mean | minus Grad-CAM | blur | minus Grad-CAM |")
    print("|---|---:|---:|---:|---|---:|---|")
    for name in (*heads, "grad-cam"):
        fit = fits.get(name)
        how = f"{fit['seconds']:.0f} | {fit['explained'][OURS]:.3f}" if fit else " | "
        print(f"| {name} | {how} | {' | '.join(_cell(of[name]) for of in scores['insertion_deletion'].values())} |")
    if args.output is not None:
        args.output.write_text(json.dumps({"fits": fits, **scores}, indent=1) + "\n")


def _cell(score: dict[str, Any]) -> str:
    difference, low, high = score["difference"]
    return f"{score['mean']:.3f} | {difference:+.3f} [{low:+.3f}, {high:+.3f}]"


def _arguments() -> argparse.Namespace:
    parser = script_options(__doc__, "mobilenetv2_100")
    parser.add_argument("--images", type=int, nargs="+", default=[250, 500, 1000, 2000, TRAIN], help="to fit maps to")
    parser.add_argument("--pairs", type=int, default=4, help="of coalitions of each image")
    parser.add_argument("--judged", type=int, default=100, help="further images, to compare the maps on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="file for all numbers as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
