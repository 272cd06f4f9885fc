"""Fits the map of a finished ImageNet classifier to Imagenette's training images, then compares it with Grad-CAM on
validation images.

    python -m benchmarks.attach.attach --weights FOLDER --data ../shared/data/imagenette
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from antehoc_hf.evaluation import CONTROLS
from antehoc_hf.evaluation.insertion_deletion import insertion_deletion
from antehoc_hf.explainers import load_explainer
from antehoc_hf.training.attach import FitOptions, fit_map
from antehoc_hf.training.attach.judge import Judge
from benchmarks.attach.networks import Imagenette, classifier, script_options

RESULTS = Path(__file__).parent / "results"
OURS, START = "fitted map", "class evidence"
RIVALS = ("grad-cam", "grad-cam++", "layer-cam", "hires-cam", "leave-one-out")
STEPS, BATCH = 8, 10
BASELINES = ("mean", "blur")


def main() -> None:
    args = _arguments()
    model = classifier(args.network, args.weights, args.grid)
    images = Imagenette(args.data, "train", args.images, model)
    torch.set_num_threads(args.threads)
    heads, fits = {START: state_of(model)}, []
    for seed in args.seeds:
        model.map_head.load_state_dict(heads[START])
        report = fit_map(model, images, FitOptions(pairs=args.pairs, against=args.against, seed=seed))
        print(json.dumps(report.to_dict() | {"curve": None}, indent=1), flush=True)
        heads[OURS if len(args.seeds) == 1 else f"{OURS}, seed {seed}"] = state_of(model)
        fits.append(report.to_dict())
    split = "train" if args.on_train else "validation"
    scores: dict[str, Any] = {}
    if args.validation:
        rows = Imagenette(args.data, split, args.validation, model, first=3000 if args.on_train else 0)
        scores = compare(model, rows, heads, args.patch, args.rivals)
    asked = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
    result = asked | {"split": split, "fits": fits, "threads": torch.get_num_threads()} | scores
    RESULTS.mkdir(exist_ok=True)
    seeds = "-".join(map(str, args.seeds))
    path = RESULTS / f"{args.network}-{args.images}-seed{seeds}{'-train' if args.on_train else ''}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path)


def state_of(model: Any) -> dict[str, Tensor]:
    """The map's numbers as they are now."""
    return {name: value.clone() for name, value in model.map_head.state_dict().items()}


def compare(
    model: Any, rows: Imagenette, heads: dict[str, dict[str, Tensor]], patch: int, rivals: Sequence[str] = RIVALS
) -> dict[str, Any]:
    """Insertion − deletion of every map for the network's own prediction, and the network's accuracy; of maps fitted
    with several seeds their mean as well.
    """
    explainers = {name: load_explainer(name, model) for name in dict.fromkeys(["grad-cam", *rivals])}
    examples = torch.stack([rows[index]["pixel_values"] for index in range(16)])
    maps_each = len(heads) + len(explainers) + 1
    judge = Judge(model, examples, passes=4 * STEPS * maps_each * len(rows))
    found: list[dict[str, dict[str, Tensor]]] = []
    right: list[Tensor] = []
    began = time.perf_counter()
    progress = tqdm(range(0, len(rows), BATCH), desc="Comparing maps", unit="batch")
    with suppress(KeyboardInterrupt):  # what was measured until then counts
        for start in progress:
            batch = [rows[index] for index in range(start, min(start + BATCH, len(rows)))]
            pixels = torch.stack([row["pixel_values"] for row in batch])
            maps, target = _maps(model, pixels, heads)
            maps |= {name: explain(pixels, target) for name, explain in explainers.items()}
            maps["center"] = CONTROLS["center"](pixels, 0, start)
            values = {kind: _differences(judge, pixels, maps, target, kind, patch, start) for kind in BASELINES}
            right.append(target == torch.tensor([row["label"] for row in batch]))
            found.append(values)
    if not found:
        raise KeyboardInterrupt
    scores = {
        kind: {name: torch.cat([part[kind][name] for part in found]) for name in found[0][kind]} for kind in BASELINES
    }
    for of_kind in scores.values():
        if OURS not in of_kind:
            of_kind[OURS] = torch.stack([each for name, each in of_kind.items() if name.startswith(OURS)]).mean(dim=0)
    return {
        "compared": len(torch.cat(right)),
        "accuracy": torch.cat(right).float().mean().item(),
        "judge": vars(judge.setting),
        "seconds_of_comparison": time.perf_counter() - began,
        "insertion_deletion": {
            kind: {name: _interval(each, of_kind["grad-cam"]) for name, each in of_kind.items()}
            for kind, of_kind in scores.items()
        },
    }


def _differences(
    judge: Judge, pixels: Tensor, maps: dict[str, Tensor], target: Tensor, baseline: str, patch: int, first: int
) -> dict[str, Tensor]:
    """Insertion − deletion of each map, (n,)."""
    options: dict[str, Any] = {"steps": STEPS, "patch_size": patch, "baseline": baseline, "first_index": first}
    return {
        name: insertion_deletion(judge, pixels, values, target, **options).difference for name, values in maps.items()
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the maps")
    parser.add_argument("--rivals", nargs="*", default=list(RIVALS), help="methods to compare with; Grad-CAM always")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


if __name__ == "__main__":
    main()
