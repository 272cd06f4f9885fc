"""
Fits the map of a finished ImageNet classifier to Imagenette's training images, then compares it with Grad-CAM on
validation images.

    python -m benchmarks.attach.attach --weights FOLDER --data ../shared/data/imagenette
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from antehoc_hf.evaluation import CONTROLS
from antehoc_hf.evaluation.insertion_deletion import blurred, insertion_deletion
from antehoc_hf.explainers import load_explainer
from antehoc_hf.training.attach import FitOptions, fit_map
from antehoc_hf.training.attach.judge import Judge
from benchmarks.attach.networks import Imagenette, classifier, script_options

RESULTS = Path(__file__).parent / "results"
OURS, START = "fitted map", "class evidence"
RIVALS = ("grad-cam", "grad-cam++", "layer-cam", "hires-cam", "leave-one-out")
STEPS, BATCH = 8, 10


def main() -> None:
    args = _arguments()
    model = classifier(args.network, args.weights, args.grid)
    images = Imagenette(args.data, "train", args.images, model)
    torch.set_num_threads(args.threads)
    unfitted = {name: value.clone() for name, value in model.map_head.state_dict().items()}
    report = fit_map(model, images, FitOptions(pairs=args.pairs, against=args.against, seed=args.seed))
    print(json.dumps(report.to_dict() | {"curve": None}, indent=1))
    fitted = {name: value.clone() for name, value in model.map_head.state_dict().items()}
    split = "train" if args.on_train else "validation"
    scores: dict[str, Any] = {}
    if args.validation:
        rows = Imagenette(args.data, split, args.validation, model, first=3000 if args.on_train else 0)
        scores = compare(model, rows, {OURS: fitted, START: unfitted}, args.patch)
    asked = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
    result = asked | {"split": split, "fit": report.to_dict(), "threads": torch.get_num_threads()} | scores
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{args.network}-{args.images}-seed{args.seed}{'-train' if args.on_train else ''}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path)


def compare(model: Any, rows: Imagenette, heads: dict[str, dict[str, Tensor]], patch: int) -> dict[str, Any]:
    """Insertion − deletion of every map for the network's own prediction, and the network's accuracy."""
    explainers = {name: load_explainer(name, model) for name in RIVALS}
    examples = torch.stack([rows[index]["pixel_values"] for index in range(16)])
    judge = Judge(model, examples)
    found: dict[str, dict[str, list[Tensor]]] = {}
    right, began = 0, time.perf_counter()
    for start in tqdm(range(0, len(rows), BATCH), desc="Comparing maps", unit="batch"):
        batch = [rows[index] for index in range(start, min(start + BATCH, len(rows)))]
        pixels = torch.stack([row["pixel_values"] for row in batch])
        maps, target = _maps(model, pixels, heads)
        right += int((target == torch.tensor([row["label"] for row in batch])).sum())
        maps |= {name: explain(pixels, target) for name, explain in explainers.items()}
        maps["center"] = CONTROLS["center"](pixels, 0, start)
        for kind, background in (("mean", pixels.mean(dim=(2, 3), keepdim=True)), ("blur", blurred(pixels))):
            for name, values in maps.items():
                curves = insertion_deletion(
                    judge, pixels, values, target,
                    steps=STEPS, patch_size=patch, baseline=background.expand_as(pixels), first_index=start,
                )  # fmt: skip
                found.setdefault(kind, {}).setdefault(name, []).append(curves.difference)
    scores = {kind: {name: torch.cat(parts) for name, parts in of_kind.items()} for kind, of_kind in found.items()}
    return {
        "accuracy": right / len(rows),
        "judge": vars(judge.setting),
        "seconds_of_comparison": time.perf_counter() - began,
        "insertion_deletion": {
            kind: {name: _interval(each, of_kind["grad-cam"]) for name, each in of_kind.items()}
            for kind, of_kind in scores.items()
        },
    }


def _maps(model: Any, pixels: Tensor, heads: dict[str, dict[str, Tensor]]) -> tuple[dict[str, Tensor], Tensor]:
    maps = {}
    for name, state in heads.items():
        model.map_head.load_state_dict(state)
        with torch.inference_mode():
            output = model(pixels)
        maps[name] = output.interpretation_map.clone()
    return maps, output.logits.argmax(dim=1).clone()


def _interval(values: Tensor, rival: Tensor) -> dict[str, Any]:
    """Mean; and the mean difference from Grad-CAM on the same images with a 95 % interval of 1,000 bootstrap draws."""
    difference = values - rival
    drawn = torch.randint(len(values), (1000, len(values)), generator=torch.Generator().manual_seed(0))
    low, high = difference[drawn].mean(dim=1).quantile(torch.tensor([0.025, 0.975])).tolist()
    return {
        "mean": values.mean().item(),
        "over_grad_cam": values.mean().item() / rival.mean().item(),
        "difference": [difference.mean().item(), low, high],
    }


def _arguments() -> argparse.Namespace:
    parser = script_options(__doc__)
    parser.add_argument("--images", type=int, default=2000, help="to fit the map to")
    parser.add_argument("--pairs", type=int, default=8, help="of coalitions of each image")
    parser.add_argument("--against", choices=["complement", "drawn"], default="complement", help="see FitOptions")
    parser.add_argument("--validation", type=int, default=500, help="images to compare the maps on; 0: fit only")
    parser.add_argument("--on_train", action="store_true", help="compare on training images: for choosing")
    parser.add_argument("--grid", type=int, default=8)
    parser.add_argument("--patch", type=int, default=16, help="pixels of a patch that is inserted or deleted")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


if __name__ == "__main__":
    main()
