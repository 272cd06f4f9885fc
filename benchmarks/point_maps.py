"""Whether the maps of a face's parts lie on these parts, and keep the points of that part.

For every seed two trainings by the recipe `landmarks` for nose, eyes and mouth; finished ones are not repeated. One
has a map for each point, the other the energy objective's one map for all (with the price on its area that served it
best, see README.md), and their networks are the same to the bit. Of each part then its own map, Grad-CAM of the same
points' coordinates, the energy map, and a blob in the centre, on the test images:

- the share of a map's energy in the part's convex hull over the hull's share of the image (1 is chance),
- in how many percent of the images the part's own map has more of it there than the maps of the other parts,
- the error of that part's points where a fifth of the image is left, the largest of the map, on black.

Means over the seeds, in brackets those of each; differences from ours are paired by image, with 95 % bootstrap
intervals.

    python -m benchmarks.point_maps --seeds 0 1 2 --dataset_name path/to/faces-68 --output outputs/points

`--subject_column COLUMN` pools the splits and keeps a fifth of the persons, drawn with seed 0, for testing.
"""

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from antehoc_hf.evaluation import bootstrap_mean
from antehoc_hf.evaluation.controls import center_map
from antehoc_hf.evaluation.landmarks import nme
from antehoc_hf.evaluation.localisation import energy_share_over_area
from antehoc_hf.evaluation.maps import binarise_equal_area
from antehoc_hf.evaluation.results import markdown_table
from antehoc_hf.explainers import load_explainer
from antehoc_hf.modeling import AnteHocForLandmarkDetection, AnteHocImageProcessor
from antehoc_hf.training.data import ImageDataset, sample
from antehoc_hf.training.runs.options import DataArguments
from antehoc_hf.training.runs.results import RESULTS_FILE
from antehoc_hf.training.tasks.landmark_detection import LandmarkDetection
from benchmarks.output import parser, show
from benchmarks.plain import train_ours, without_shared_subjects

AREA = 0.2
OURS = "own map"
MEASURES = ("energy over area", "highest on its part", "NME, equal area")
KINDS: dict[str, list[str]] = {"own": [], "energy": ["--map_head", "energy", "--area_weight", "0.01"]}
Maps = Callable[[Tensor, list[int]], Tensor]


def opened(folder: str, dataset_name: str, split: str) -> tuple[Any, ImageDataset, dict[str, list[int]], list[str]]:
    """A landmark model, the images of a split with the masks of the face's parts, the points of each part that the
    model knows, and the parts in the order of their masks.
    """
    model = AnteHocForLandmarkDetection.from_pretrained(folder).eval()
    data = LandmarkDetection().load_data(DataArguments(dataset_name=dataset_name), model)
    targets, known = data.targets, model.config.landmark_parts or {}
    encode = targets.encoder(AnteHocImageProcessor.from_pretrained(folder), None, part_masks=True)
    parts = {
        part: [point for piece in pieces for point in known[piece]]
        for part, pieces in targets.scheme.parts.items()
        if all(piece in known for piece in pieces)
    }
    return model, ImageDataset(data.splits[split], data.image_column, targets, encode), parts, [*targets.scheme.parts]


def weights(model: Any) -> list[Tensor]:
    """Of what predicts."""
    return [value for name, value in model.state_dict().items() if not name.startswith("map_head.")]


def methods_of(model: Any, energy: Any) -> dict[str, Maps]:
    """Name → images and the points of a part → maps."""
    grad_cam = load_explainer("grad-cam", model)
    return {
        OURS: lambda pixels, points: model.interpretation(pixels, points).interpretation_map,
        "Grad-CAM of its points": grad_cam,
        "energy map": lambda pixels, _: energy.interpretation(pixels).interpretation_map,
        "centred blob": lambda pixels, _: center_map(pixels),
    }


@torch.no_grad()
def measure(model: Any, energy: Any, dataset: Any, parts: dict[str, list[int]], rows: list[str]) -> dict[str, Any]:
    """Part → method → measure → (N,), NaN where a part has no pixel, or one map is that of all parts."""
    methods = methods_of(model, energy)
    found: dict[str, Any] = {part: defaultdict(lambda: defaultdict(list)) for part in parts}
    for batch in DataLoader(dataset, batch_size=50):
        pixels, lengths = batch["pixel_values"], batch["normalizer"][:, 0]
        for name, make in methods.items():
            maps = {part: make(pixels, points) for part, points in parts.items()}
            for part, points in parts.items():
                mask = batch["part_masks"][:, rows.index(part)][:, None].float()
                shares = {other: energy_share_over_area(map_, mask) for other, map_ in maps.items()}
                best = torch.stack([shares[other] for other in parts if other != part]).amax(dim=0)
                own = shares[part]
                kept = model.energy_map(pixels, binarise_equal_area(maps[part], AREA))
                points_found = model(kept, phase="prediction").landmarks
                alike = all(torch.equal(maps[part], other) for other in maps.values())
                values = {
                    "energy over area": own,
                    "highest on its part": torch.where(own.isnan() | alike, torch.nan, 100.0 * (own > best)),
                    "NME, equal area": 100 * nme(points_found[:, points], batch["labels"][:, points], lengths),
                }
                for measured, value in values.items():
                    found[part][name][measured].append(value.double())
    return {
        part: {name: {key: torch.cat(value) for key, value in of.items()} for name, of in by_name.items()}
        for part, by_name in found.items()
    }


def mean_of_seeds(found: list[dict[str, Any]]) -> dict[str, Any]:
    """As `measure` gives it, with each image's mean over the seeds."""
    return {
        part: {
            name: {key: torch.stack([of_seed[part][name][key] for of_seed in found]).mean(dim=0) for key in measures}
            for name, measures in by_name.items()
        }
        for part, by_name in found[0].items()
    }


def table(found: list[dict[str, Any]]) -> str:
    """Markdown of what `measure` gave for each seed: of each part a row for each method."""
    lines = [["part", "map", *(f"{name} [less ours]" for name in MEASURES)]]
    for part, by_name in mean_of_seeds(found).items():
        for name, of in by_name.items():
            cells = []
            for key in MEASURES:
                values, ours = of[key], by_name[OURS][key]
                usable = torch.isfinite(values) & torch.isfinite(ours)
                if not usable.any():  # one map for all parts is the highest on none
                    cells.append("–")
                    continue
                each = (of_seed[part][name][key][usable].mean() for of_seed in found)
                text = f"{values[usable].mean():.2f} ({', '.join(f'{mean:.2f}' for mean in each)})"
                if name != OURS:
                    difference = bootstrap_mean((values - ours)[usable])
                    text += f" [{difference.low:+.2f}, {difference.high:+.2f}]"
                cells.append(text)
            lines.append([part, name, *cells])
    return "\n".join(markdown_table(lines)) + "\n"


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--dataset_name", required=True)
    command.add_argument("--output", type=Path, required=True, help="folder of the models and of the table")
    command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    command.add_argument("--subject_column")
    command.add_argument("--num_train_epochs", type=int, default=12)
    command.add_argument("--images", type=int, default=1000, help="at most so many test images")
    options = command.parse_args()
    torch.set_num_threads(1)
    name = options.dataset_name
    if options.subject_column is not None:
        name = without_shared_subjects(name, options.subject_column, options.output / "data")
    flags = ["--recipe", "landmarks", "--landmark_group", "parts", "--validation_fraction", "0", "--report_to", "none"]
    flags += ["--dataset_name", name, "--num_train_epochs", str(options.num_train_epochs)]
    found, errors = [], []
    for seed in options.seeds:
        folders = {kind: options.output / f"seed-{seed}" / kind for kind in KINDS}
        for kind, folder in folders.items():
            if not (folder / RESULTS_FILE).exists():
                train_ours([*flags, *KINDS[kind], "--seed", str(seed)], folder)
        model, images, parts, rows = opened(str(folders["own"]), name, "test")
        energy = AnteHocForLandmarkDetection.from_pretrained(folders["energy"]).eval()
        if any(not torch.equal(own, other) for own, other in zip(weights(model), weights(energy), strict=True)):
            raise SystemExit(f"The two networks of seed {seed} differ: {options.output} holds other trainings.")
        errors.append(json.loads((folders["own"] / RESULTS_FILE).read_text())["metrics"]["nme_interocular"])
        subset = Subset(images, sample(images, options.images))
        found.append(measure(model, energy, subset, parts, rows))
    heading = f"{len(subset)} test images of {Path(options.dataset_name).name}, seeds {options.seeds}, "
    heading += (
        f"{options.num_train_epochs} epochs; NME of the points {', '.join(f'{error:.2f}' for error in errors)} %"
    )
    show(f"{heading}\n\n{table(found)}", options.output / "point-maps.md")


if __name__ == "__main__":
    main()
