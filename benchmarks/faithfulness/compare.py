"""The honest comparison: our maps for each class against all other methods, on the same classifiers and images.

For every seed one classifier is trained (or taken from OUTPUT/seed-N), and measured in parts:

    maps       insertion − deletion in four forms, Average Drop on equal areas, the paper's Drop, Inc and Win
    worth      what a map scores that knows the patches' Shapley values, and how near the methods' maps are to these
    grid       the grid pointing game on mosaics of four images
    sanity     similarity of the maps after randomising head and last stage, and to the second class's map
    stability  similarity of the maps, and change of Drop and Inc, under salt and pepper
    shapes     agreement with parts that can truly be removed, and with the ground (for --dataset_name shapes alone)
    cost       forward pass and training step against the plain network (once, whatever the seeds)

The target is always the model's own prediction. Each part of each seed has a file in OUTPUT/SPLIT and is not computed
again; summary.md, summary.json and summary.png there are made of all files of the seeds given. Make choices with
--split validation, and report once with --split test. For instance:

    python -m benchmarks.faithfulness.compare --dataset_name uoft-cs/cifar10 --image_size 32 --train_images 20000 \
        --epochs 8 --seeds 0 1 2 --split validation --output outputs/faithfulness/cifar10
"""

import argparse
import json
import os
import platform
import time
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.paper.cells import CellStore
from antehoc_hf.training.runs.results import write_results
from benchmarks.faithfulness import (
    part_cost,
    part_grid,
    part_maps,
    part_sanity,
    part_shapes,
    part_stability,
    part_worth,
)
from benchmarks.faithfulness.subjects import SHAPES, Subject, load_subject, training_settings
from benchmarks.faithfulness.summary import maps_lines, part_lines, picture
from benchmarks.output import parser

METHODS = (*("grad-cam", "grad-cam++", "score-cam", "integrated-grad-cam", "sise", "ada-sise"), "integrated-gradients")
WORTH_METHODS = ("grad-cam", "score-cam", "sise")
GRID_METHODS = ("grad-cam", "grad-cam++", "integrated-grad-cam", "integrated-gradients")
MEASURES = {
    "worth": part_worth.measure,
    "grid": part_grid.measure,
    "sanity": part_sanity.measure,
    "stability": part_stability.measure,
    "shapes": part_shapes.measure,
}
PARTS = ("maps", *MEASURES, "cost")
# Four by four positions in the last stage at 32 pixels, eight by eight at 64.
BACKBONE_KWARGS = {"channels": [32, 64, 96, 128], "stem_width": 16, "output_stride": 8}


def settings_of(part: str, options: argparse.Namespace) -> dict[str, Any]:
    """What a part's numbers depend on."""
    names = {
        "maps": ("split", "images", "methods"),
        "worth": ("split", "images", "worth_images", "worth_orders", "worth_methods"),
        "grid": ("split", "images", "mosaics", "confidence", "grid_methods", "mosaic_sizes"),
        "sanity": ("split", "images"),
        "stability": ("split", "images"),
        "shapes": ("split", "images", "methods"),
        "cost": ("rounds", "cost_backbones", "recipe", "training_flags"),
    }[part]
    training = {} if part == "cost" else training_settings(options)
    return training | {name: getattr(options, name) for name in names}


def name_of(part: str, seed: int, options: argparse.Namespace) -> str:
    """Of the cell that holds a part's numbers."""
    return "cost" if part == "cost" else f"{options.split}/{part}-seed-{seed}"


def values_file(seed: int, options: argparse.Namespace) -> Path:
    """Where what every map of every image scores is."""
    return options.output / options.split / f"maps-seed-{seed}.pt"


class Comparison:
    """Computes what is not there yet; one classifier is in memory at a time."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.cells = options, CellStore(options.output, "faithfulness")
        self._subject: Subject | None = None

    def run(self) -> None:
        """All parts seed by seed; the cost, which has no seed, at the end."""
        options = self.options
        parts = [part for part in options.parts if part != "shapes" or options.dataset_name == SHAPES]
        jobs = [(part, seed) for seed in options.seeds for part in parts if part != "cost"]
        for part, seed in [*jobs, *[("cost", options.seeds[0])] * ("cost" in parts)]:
            compute = partial(self.computed, part, seed)
            try:
                self.cells.get(name_of(part, seed, options), settings_of(part, options), compute)
            except part_grid.TooFewClassesError as error:
                print(f"Left out: {error}", flush=True)

    def computed(self, part: str, seed: int) -> dict[str, Any]:
        """The numbers of one part of one seed, and how long they took."""
        found: dict[str, Any] = {"seed": seed}
        if part != "cost":
            subject = self._subject_of(seed)
            found["accuracy"] = subject.accuracy
        start = time.perf_counter()
        if part == "cost":
            found |= part_cost.measure(self.options)
        elif part == "maps":
            values = part_maps.image_values(subject, self.options.methods)
            path = values_file(seed, self.options)
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(values, path)
            found |= {"scores": part_maps.scores([values]), "verdicts": part_maps.verdicts([values])}
        else:
            found |= MEASURES[part](subject, self.options)
        return found | {"seconds": round(time.perf_counter() - start, 1)}

    def _subject_of(self, seed: int) -> Subject:
        if self._subject is None or self._subject.seed != seed:
            self._subject = load_subject(self.options, seed)
            right = f"accuracy {self._subject.accuracy:.1f} %"
            print(f"{len(self._subject.labels)} {self.options.split} images, {right}", flush=True)
        return self._subject


def summarise(options: argparse.Namespace) -> str:
    """Writes the page, the numbers and the picture of all files of the seeds."""
    folder = options.output / options.split
    folder.mkdir(parents=True, exist_ok=True)
    settings = training_settings(options) | {"split": options.split, "images": options.images}
    settings["machine"] = f"{platform.machine()}, torch {torch.__version__}"
    found: dict[str, Any] = {"settings": settings, "seeds": options.seeds, "parts": {}}
    lines: list[str] = []
    accuracies: dict[int, float] = {}
    for part in PARTS:
        seeds = options.seeds[:1] if part == "cost" else options.seeds
        files = [options.output / f"{name_of(part, seed, options)}.json" for seed in seeds]
        results = [json.loads(path.read_text())["value"] for path in files if path.exists()]
        if not results:
            continue
        accuracies |= {result["seed"]: result["accuracy"] for result in results if "accuracy" in result}
        minutes = sum(result["seconds"] for result in results) / 60
        of = "" if part == "cost" else f", seeds {', '.join(str(result['seed']) for result in results)}"
        lines += ["", f"## {part.capitalize()}", "", f"{minutes:.1f} min{of}.", ""]
        if part == "maps":
            values = [torch.load(values_file(result["seed"], options), weights_only=True) for result in results]
            lines += maps_lines(values, found)
            picture(values, folder / "summary.png")
            lines += ["", "![main measures](summary.png)"]
        else:
            lines += part_lines(part, results)
        found["parts"][part] = results
    accuracy = ", ".join(f"{value:.1f} % (seed {seed})" for seed, value in sorted(accuracies.items()))
    head = [
        f"# {settings['dataset_name']}: {options.images} {options.split} images, seeds {options.seeds}",
        "",
        f"The class is the model's own prediction. Accuracy on these images: {accuracy or 'not measured'}.",
        "",
        f"Settings: `{json.dumps(settings)}`",
    ]
    text = "\n".join([*head, *lines]) + "\n"
    (folder / "summary.md").write_text(text)
    write_results(folder / "summary.json", found)
    return text


def parsed(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    command = parser(__doc__)
    add = command.add_argument
    add("--dataset_name", required=True, help="a data set of the Hub, a folder, or shapes")
    add("--dataset_options", default="", metavar="JSON", help='such as \'{"background": "correlated"}\' of shapes')
    add("--output", type=Path, required=True, help="folder of classifiers and results; give it again to go on")
    add("--seeds", nargs="+", type=int, default=[0], help="of training, one classifier each")
    add("--split", choices=("validation", "test"), default="test", help="validation to choose, test to report")
    add("--images", type=int, default=400, help="how many of the split, the same for all seeds")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    add("--methods", nargs="*", default=list(METHODS), help="that ours is compared with, and the controls")
    add("--threads", type=int, default=1, help="of PyTorch")
    training = command.add_argument_group("training of the classifiers")
    add = training.add_argument
    add("--recipe", default="cpu")
    add("--image_size", type=int, default=64)
    add("--train_images", type=int, help="a random subset of the training split")
    add("--epochs", type=float, default=8)
    add("--learning_rate", type=float, default=0.004)
    add("--backbone", help="of timm; the recipe's if left out")
    add("--backbone_kwargs", default=json.dumps(BACKBONE_KWARGS), metavar="JSON", help="{} for another backbone")
    add("--training_flags", default="", help="further flags of `antehoc train`, as one text")
    worth = command.add_argument_group("worth of patches")
    add = worth.add_argument
    add("--worth_images", type=int, default=100, help="the first of the images")
    add("--worth_orders", type=int, default=128, help="in which the patches of an image are shown")
    add("--worth_methods", nargs="*", default=list(WORTH_METHODS))
    grid = command.add_argument_group("grid pointing game")
    add = grid.add_argument
    add("--mosaics", type=int, default=100)
    add("--confidence", type=float, default=0.9, help="least probability of the images' predicted class")
    add("--mosaic_sizes", nargs="+", choices=("twice", "same"), default=["twice"], help="of the image's size")
    add("--grid_methods", nargs="*", default=list(GRID_METHODS))
    cost = command.add_argument_group("cost")
    add = cost.add_argument
    add("--rounds", type=int, default=12)
    add("--cost_backbones", nargs="+", default=["resnet18", "resnet50"])
    options = command.parse_args(argv)
    if options.worth_orders < 4 or options.worth_orders % 4:
        command.error(
            f"--worth_orders {options.worth_orders} must be a multiple of 4: two halves, each also backwards."
        )
    return options


def main(argv: list[str] | None = None) -> None:
    """Computes what is missing, and prints the summary."""
    options = parsed(argv)
    torch.set_num_threads(options.threads)
    try:
        Comparison(options).run()
        print(summarise(options))
    except UsageError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
