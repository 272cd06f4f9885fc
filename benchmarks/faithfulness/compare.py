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
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

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
from benchmarks.faithfulness.subjects import SHAPES, Subject, check_same, load_subject, trained_with
from benchmarks.faithfulness.summary import maps_lines, part_lines, picture

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
    return {name: getattr(options, name) for name in names}


def computed(part: str, subject: Subject | None, options: argparse.Namespace) -> dict[str, Any]:
    """The numbers of one part of one seed."""
    if part == "cost":
        return part_cost.measure(options)
    assert subject is not None
    found: dict[str, Any] = {"accuracy": subject.accuracy}
    if part == "maps":
        values = part_maps.image_values(subject, options.methods)
        torch.save(values, file_of("maps", subject.seed, options).with_suffix(".pt"))
        return found | {"scores": part_maps.scores([values]), "verdicts": part_maps.verdicts([values])}
    return found | MEASURES[part](subject, options)


def file_of(part: str, seed: int, options: argparse.Namespace) -> Path:
    """Where a part's numbers are."""
    if part == "cost":
        return options.output / "cost.json"
    return options.output / options.split / f"{part}-seed-{seed}.json"


def jobs(options: argparse.Namespace) -> list[tuple[int, str]]:
    """(seed, part) in the order in which they are computed."""
    parts = [part for part in options.parts if part != "shapes" or options.dataset_name == SHAPES]
    found = [(seed, part) for seed in options.seeds for part in parts if part != "cost"]
    return found + [(options.seeds[0], "cost")] * ("cost" in parts)


def left(todo: list[tuple[int, str]], seconds: dict[str, float]) -> str:
    """How long the rest takes, as far as parts have been timed; training comes on top."""
    unknown = [part for part in PARTS if any(part == other for _, other in todo) and part not in seconds]
    known = f"about {sum(seconds.get(part, 0.0) for _, part in todo) / 60:.0f} min left"
    return f"{known}; not timed yet: {', '.join(unknown)}" if unknown else known


def run(options: argparse.Namespace) -> None:
    """Computes what is not there yet."""
    todo, seconds = [], {}
    for seed, part in jobs(options):
        path = file_of(part, seed, options)
        if path.exists():
            kept = json.loads(path.read_text())
            check_same(kept["settings"], settings_of(part, options), path)
            seconds[part] = kept["seconds"]
        else:
            todo.append((seed, part))
    subject: Subject | None = None
    while todo:
        seed, part = todo[0]
        print(f"== Seed {seed}, {part}: {left(todo, seconds)}", flush=True)
        if part != "cost" and (subject is None or subject.seed != seed):
            subject = load_subject(options, seed)
            print(f"{len(subject.labels)} {options.split} images, accuracy {subject.accuracy:.1f} %", flush=True)
        start = time.perf_counter()
        path = file_of(part, seed, options)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            found = computed(part, subject, options)
        except part_grid.TooFewClassesError as error:
            print(f"Left out: {error}", flush=True)
            todo.pop(0)
            continue
        seconds[part] = time.perf_counter() - start
        found |= {"settings": settings_of(part, options), "seconds": round(seconds[part], 1), "part": part}
        write_results(path, {**found, "seed": seed})
        todo.pop(0)


def summarise(options: argparse.Namespace) -> str:
    """Writes the page, the numbers and the picture of all files of the seeds."""
    folder = options.output / options.split
    folder.mkdir(parents=True, exist_ok=True)
    settings = trained_with(options, options.seeds[0]) | {"split": options.split, "images": options.images}
    settings["machine"] = f"{platform.machine()}, torch {torch.__version__}"
    found: dict[str, Any] = {"settings": settings, "seeds": options.seeds, "parts": {}}
    lines: list[str] = []
    accuracies: dict[int, float] = {}
    for part in PARTS:
        seeds = options.seeds[:1] if part == "cost" else options.seeds
        files = [file_of(part, seed, options) for seed in seeds]
        files = [path for path in files if path.exists()]
        if not files:
            continue
        results = [json.loads(path.read_text()) for path in files]
        accuracies |= {result["seed"]: result["accuracy"] for result in results if "accuracy" in result}
        minutes = sum(result["seconds"] for result in results) / 60
        of = "" if part == "cost" else f", seeds {', '.join(str(result['seed']) for result in results)}"
        lines += ["", f"## {part.capitalize()}", "", f"{minutes:.1f} min{of}.", ""]
        if part == "maps":
            values = [torch.load(path.with_suffix(".pt"), weights_only=True) for path in files]
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset_name", required=True, help="a data set of the Hub, a folder, or shapes")
    add("--dataset_options", default="", metavar="JSON", help='such as \'{"background": "correlated"}\' of shapes')
    add("--output", type=Path, required=True, help="folder of classifiers and results; give it again to go on")
    add("--seeds", nargs="+", type=int, default=[0], help="of training, one classifier each")
    add("--split", choices=("validation", "test"), default="test", help="validation to choose, test to report")
    add("--images", type=int, default=400, help="how many of the split, the same for all seeds")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    add("--methods", nargs="*", default=list(METHODS), help="that ours is compared with, and the controls")
    add("--threads", type=int, default=1, help="of PyTorch")
    training = parser.add_argument_group("training of the classifiers")
    add = training.add_argument
    add("--recipe", default="cpu")
    add("--image_size", type=int, default=64)
    add("--train_images", type=int, help="a random subset of the training split")
    add("--epochs", type=float, default=8)
    add("--learning_rate", type=float, default=0.004)
    add("--backbone", help="of timm; the recipe's if left out")
    add("--backbone_kwargs", default=json.dumps(BACKBONE_KWARGS), metavar="JSON", help="{} for another backbone")
    add("--training_flags", default="", help="further flags of `antehoc train`, as one text")
    worth = parser.add_argument_group("worth of patches")
    add = worth.add_argument
    add("--worth_images", type=int, default=100, help="the first of the images")
    add("--worth_orders", type=int, default=128, help="in which the patches of an image are shown")
    add("--worth_methods", nargs="*", default=list(WORTH_METHODS))
    grid = parser.add_argument_group("grid pointing game")
    add = grid.add_argument
    add("--mosaics", type=int, default=100)
    add("--confidence", type=float, default=0.9, help="least probability of the images' predicted class")
    add("--mosaic_sizes", nargs="+", choices=("twice", "same"), default=["twice"], help="of the image's size")
    add("--grid_methods", nargs="*", default=list(GRID_METHODS))
    cost = parser.add_argument_group("cost")
    add = cost.add_argument
    add("--rounds", type=int, default=12)
    add("--cost_backbones", nargs="+", default=["resnet18", "resnet50"])
    options = parser.parse_args(argv)
    if options.worth_orders < 4 or options.worth_orders % 4:
        parser.error(
            f"--worth_orders {options.worth_orders} must be a multiple of 4: two halves, each also backwards."
        )
    return options


def main(argv: list[str] | None = None) -> None:
    """Computes what is missing, and prints the summary."""
    options = parsed(argv)
    torch.set_num_threads(options.threads)
    run(options)
    print(summarise(options))


if __name__ == "__main__":
    main()
