"""Whether the maps of a face's parts lie on these parts, and keep the points of that part.

For a landmark model with a map for each point: of each part (nose, eyes, mouth) its own map, Grad-CAM of the same
points' coordinates, and a blob in the centre, on the test images; of a second model with one map for all (`--energy`),
whose network is the same, that map. Measured are

- the share of a map's energy in the part's convex hull over the hull's share of the image (1 is chance),
- in how many percent of the images the part's own map has more of it there than the maps of the other parts,
- the error of that part's points where a fifth of the image is left, the largest of the map, on black.

Differences from ours are paired by image, with 95 % bootstrap intervals.

    antehoc train --recipe landmarks --dataset_name path/to/faces-68 --landmark_group parts \
        --map_head contributions --output_dir outputs/points
    python -m benchmarks.point_maps outputs/points --dataset_name path/to/faces-68
"""

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
from antehoc_hf.explainers import load_explainer
from antehoc_hf.modeling import AnteHocForLandmarkDetection, AnteHocImageProcessor
from antehoc_hf.training.data import ImageDataset, sample
from antehoc_hf.training.runs.options import DataArguments
from antehoc_hf.training.tasks.landmark_detection import LandmarkDetection
from benchmarks.output import parser, show

AREA = 0.2
OURS = "own map"
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


def methods_of(model: Any, energy: Any) -> dict[str, Maps]:
    """Name → images and the points of a part → maps."""
    grad_cam = load_explainer("grad-cam", model)
    found: dict[str, Maps] = {
        OURS: lambda pixels, points: model.interpretation(pixels, points).interpretation_map,
        "Grad-CAM of its points": grad_cam,
        "centred blob": lambda pixels, _: center_map(pixels),
    }
    if energy is not None:
        found["energy map"] = lambda pixels, _: energy.interpretation(pixels).interpretation_map
    return found


@torch.no_grad()
def measure(model: Any, energy: Any, dataset: Any, parts: dict[str, list[int]], rows: list[str]) -> dict[str, Any]:
    """Part → method → measure → (N,), NaN where a part has no pixel."""
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
                values = {
                    "energy over area": own,
                    "highest on its part": torch.where(own.isnan(), own, 100.0 * (own > best)),
                    "NME, equal area": 100 * nme(points_found[:, points], batch["labels"][:, points], lengths),
                }
                for measured, value in values.items():
                    found[part][name][measured].append(value.double())
    return {
        part: {name: {key: torch.cat(value) for key, value in of.items()} for name, of in by_name.items()}
        for part, by_name in found.items()
    }


def table(found: dict[str, Any]) -> str:
    """Markdown: of each part a row for each method, with the difference from ours in brackets."""
    names = ("energy over area", "highest on its part", "NME, equal area")
    lines = ["| part | map | " + " | ".join(f"{name} [less ours]" for name in names) + " |", "|---|---|" + "---:|" * 3]
    for part, by_name in found.items():
        for name, of in by_name.items():
            cells = []
            for key in names:
                values, ours = of[key], by_name[OURS][key]
                usable = torch.isfinite(values) & torch.isfinite(ours)
                text = f"{values[usable].mean():.2f}"
                if name != OURS:
                    difference = bootstrap_mean((values - ours)[usable])
                    text += f" [{difference.low:+.2f}, {difference.high:+.2f}]"
                cells.append(text)
            lines.append(f"| {part} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    command = parser(__doc__)
    command.add_argument("model", help="folder of a landmark model with map_head='contributions'")
    command.add_argument("--energy", help="folder of the same network with map_head='energy'")
    command.add_argument("--dataset_name", required=True)
    command.add_argument("--images", type=int, default=770)
    command.add_argument("--output", type=Path)
    options = command.parse_args()
    torch.set_num_threads(1)
    model, images, parts, rows = opened(options.model, options.dataset_name, "test")
    energy = AnteHocForLandmarkDetection.from_pretrained(options.energy).eval() if options.energy else None
    subset = Subset(images, sample(images, options.images))
    found = measure(model, energy, subset, parts, rows)
    show(f"{len(subset)} test images of {Path(options.dataset_name).name}\n\n{table(found)}", options.output)


if __name__ == "__main__":
    main()
