"""Maps of finished ImageNet networks at 224 px, beside all other methods, on the same photographs of Imagenette.

The map is attached to the network with the defaults of `antehoc attach` (`--fit_images` photographs of `train`, no
labels), once for each seed; the target is what the network itself predicts among 1,000 classes. Measured in parts:

    maps      insertion − deletion in four forms, and Average Drop with 5 to 50 % of the image kept; methods that take
              hundreds of passes an image on the first `--sampled_images` alone
    fidelity  patches taken out one by one, sums of contributions, accuracy with the best patches shown or hidden
    worth     agreement with the patches' Shapley values, measured by sampling orders
    grid      mosaics of four photographs
    sanity    similarity of the maps after randomising head and last stage, and to the second class's map

`--fastshap_passes 4000 16000` trains FastSHAP explainers with so many passes of the network, and measures them in the
first three parts. They are files of their own: what others scored there is not measured again.

Every batch of every part is a file in OUTPUT/NETWORK-SPLIT and is not computed again: a run that was stopped goes on
where it was, and pretrained.md there is written of what is finished. `--processes 2` halves the time on two cores.
Choose with --split train, report once with --split validation:

    python -m benchmarks.faithfulness.pretrained --network tf_efficientnet_lite0 --weights FOLDER \
        --data ../shared/data/imagenette --output outputs/faithfulness/pretrained
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch import Tensor, nn

from antehoc_hf.evaluation import CONTROLS, EvaluationSettings
from antehoc_hf.evaluation.metric import METRICS
from antehoc_hf.evaluation.scorers import ClassificationScorer
from antehoc_hf.evaluation.settings import FORMS
from antehoc_hf.evaluation.views import measure_maps
from antehoc_hf.explainers import load_explainer
from antehoc_hf.paper.cells import CellStore
from antehoc_hf.training.attach import FitOptions, fit_map
from antehoc_hf.training.attach.judge import Judge
from benchmarks.attach.attach import state_of
from benchmarks.attach.networks import Imagenette, classifier, script_options
from benchmarks.faithfulness import part_fidelity, part_grid, part_sanity
from benchmarks.faithfulness.cells import AREAS, CELLS, OURS
from benchmarks.faithfulness.fastshap import COALITIONS, FASTSHAP, SEES, FastShap, Sees, play
from benchmarks.faithfulness.pretrained_page import page
from benchmarks.faithfulness.subjects import Subject

METHODS = ("grad-cam", "grad-cam++", "layer-cam", "hires-cam", "integrated-grad-cam", "integrated-gradients")
GRID_METHODS = ("grad-cam", "grad-cam++")
SAMPLED = ("rise", "leave-one-out", "shapley-sampling", "kernel-shap", "coalition-regression")
BUDGETS: dict[str, dict[str, Any]] = {"rise": {"masks": 4000}}
PARTS = ("maps", "fidelity", "worth", "grid", "sanity")
CELL_NAMES = [cell.name for cell in CELLS if cell.aim == "margins"]
BATCH, PATCHES, STEPS, TRAIN = 5, 14, 8, 4000

Maps = dict[str, Tensor]
"""Name → (N, 1, H, W)."""
Scores = dict[str, dict[str, list[float]]]
"""Name → measure → one value an image."""


class Fast(nn.Module):
    """The network as it runs fastest here: images (B, 3, H, W) → logs of probabilities (B, K)."""

    def __init__(self, judge: Judge, model: Any) -> None:
        super().__init__()
        self.judge, self.num_classes = judge, model.config.num_labels
        self.pretrained_cfg = {"mean": model.config.image_mean, "std": model.config.image_std}

    def forward(self, images: Tensor) -> Tensor:
        return self.judge(images).clamp_min(1e-30).log()


def _alone(name: str, explainer: FastShap, images: Tensor) -> Maps:
    return {name: explainer(images)}


class Pretrained:
    """One network, its maps by seed, and the images that they are compared on."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.model = classifier(options.network, options.weights)
        self.folder = options.output / f"{options.network}-{options.split}"
        self.cells = CellStore(self.folder, "pretrained")
        self.rows = Imagenette(options.data, options.split, options.images, self.model, first=options.first)
        examples = torch.stack([self.rows[index]["pixel_values"] for index in range(min(8, options.images))])
        self.judge = Judge(self.model, examples, passes=10**6)
        print(self.judge.setting, flush=True)
        start = state_of(self.model)
        self.heads = {"class evidence": start} | {f"{OURS}, seed {seed}": self._fit(seed) for seed in options.seeds}
        self.model.map_head.load_state_dict(self.heads[f"{OURS}, seed {options.seeds[0]}"])
        rivals = [(sees, passes) for passes in options.fastshap_passes for sees in options.fastshap_sees]
        self.explainers = {rival: self.fastshap(*rival) for rival in rivals}

    def _fit(self, seed: int) -> dict[str, Tensor]:
        """The map's numbers, from the file of an earlier run if there is one."""
        path = self.folder / f"map-{seed}.pt"
        if not path.exists():
            images = Imagenette(self.options.data, "train", self.options.fit_images, self.model)
            report = fit_map(self.model, images, FitOptions(pairs=4, seed=seed))
            self.folder.mkdir(parents=True, exist_ok=True)
            torch.save({"head": state_of(self.model), "report": report.to_dict()}, path)
        return dict(torch.load(path, weights_only=True)["head"])

    def subject(self, start: int, count: int) -> Subject:
        """Some of the images."""
        items = [self.rows[index] for index in range(start, min(start + count, len(self.rows)))]
        pixels = torch.stack([item["pixel_values"] for item in items])
        labels, probabilities = torch.tensor([item["label"] for item in items]), self.judge(pixels)
        predicted = probabilities.argmax(dim=1)
        return Subject(0, self.model, None, pixels, labels, predicted, probabilities, None)

    def maps(self, subject: Subject, start: int, sampled: bool) -> Maps:
        """Those of ours with every seed, all methods and the centred blob."""
        found = {}
        chosen = state_of(self.model)
        for name, state in self.heads.items():
            self.model.map_head.load_state_dict(state)
            found[name] = subject.explainer(OURS)(subject.pixel_values, subject.predicted)
        self.model.map_head.load_state_dict(chosen)
        for name in self.options.methods:
            found[name] = subject.explainer(name)(subject.pixel_values, subject.predicted)
        fast = Fast(self.judge, self.model)
        for name in self.options.sampled_methods if sampled else ():
            options = BUDGETS.get(name, {}) | {"image_mean": self.model.config.image_mean}
            options |= {"image_std": self.model.config.image_std}
            found[name] = load_explainer(name, fast, **options)(subject.pixel_values, subject.predicted)
        return found | {"center": CONTROLS["center"](subject.pixel_values, 0, start)}

    def fastshap(self, sees: Sees, passes: int) -> FastShap:
        """Trained on `train`'s first images, 8 coalitions each; on all of them with more, if passes are left."""
        unseen = self.options.first if self.options.split == "train" else TRAIN
        images = Imagenette(self.options.data, "train", min(passes // COALITIONS, unseen), self.model)
        each, path = passes // len(images) // 2 * 2, self.folder / f"fastshap-{sees}-{passes}.pt"
        known = self.folder / f"coalitions-{each}.pt"
        return FastShap(self.model, sees).load(path, images, lambda: play(images, self.judge, each, known))

    def run(self) -> None:
        """All parts; those of single images batch by batch."""
        options = self.options
        counts = {"maps": options.images, "fidelity": options.fidelity_images, "worth": options.worth_images}
        common = {"fit_images": options.fit_images, "seeds": options.seeds, "first": options.first}
        for part in options.parts:
            count, steps = min(counts.get(part, 0), options.images), options.processes * BATCH
            for start in range(options.share * BATCH, count, steps):
                sampled = part == "maps" and start < options.sampled_images
                settings: dict[str, Any] = {"methods": options.methods}
                settings["orders"] = options.worth_orders if part == "worth" else None
                settings["sampled"] = options.sampled_methods if sampled else []
                subject, cell = self.subject(start, BATCH), f"{part}-{start:04d}"
                maps = partial(self.maps, subject, start, sampled)
                self.cells.get(cell, common | settings, partial(self._measured, part, subject, start, maps))
                for (sees, passes), explainer in self.explainers.items():
                    settings = {"first": options.first, "orders": settings["orders"], "sees": sees, "passes": passes}
                    name = f"{FASTSHAP} on {sees}, {passes} passes"
                    maps = partial(_alone, name, explainer, subject.pixel_values)
                    compute = partial(self._measured, part, subject, start, maps)
                    self.cells.get(f"{cell}_{FASTSHAP}-{sees}-{passes}", settings, compute)
            if part == "grid" and options.share == 0:
                drawn_from = {"images": options.images, "mosaics": options.mosaics}
                self.cells.get("grid", common | drawn_from, self._grid)
            if part == "sanity" and options.share == options.processes - 1:
                self.cells.get("sanity", common | {"images": options.sanity_images}, self._sanity)

    def _measured(self, part: str, subject: Subject, start: int, maps: Callable[[], Maps]) -> dict[str, Any]:
        """One batch's cell: the scores of the maps in that part."""
        began = time.perf_counter()
        measures = {"maps": self._maps, "fidelity": self._fidelity, "worth": self._worth}
        scores = measures[part](subject, start, maps())
        right = (subject.predicted == subject.labels).tolist()
        return {"scores": scores, "right": right, "seconds": time.perf_counter() - began}

    def _maps(self, subject: Subject, start: int, maps: Maps) -> Scores:
        settings = EvaluationSettings(
            target="prediction", threshold=None, area=None, areas=AREAS, insertion_deletion=FORMS, steps=STEPS,
            patches=PATCHES, insertion_deletion_images=len(self.rows), chunk_size=16,
        )  # fmt: skip
        scorer = ClassificationScorer(self.model, settings, network=Fast(self.judge, self.model))
        with torch.no_grad():
            seen = scorer.see({"pixel_values": subject.pixel_values, "labels": subject.labels}, start)
        metrics = [metric for metric in METRICS.values() if metric.reported]
        scores = {}
        for name, of_all in maps.items():
            values = measure_maps(scorer, seen, of_all, metrics).values
            scores[name] = {cell: values[cell].tolist() for cell in CELL_NAMES}
        return scores

    def _fidelity(self, subject: Subject, start: int, maps: Maps) -> Scores:
        return part_fidelity.image_values(subject, self.judge, maps)

    def _worth(self, subject: Subject, start: int, maps: Maps) -> Scores:
        orders = self.options.worth_orders

        def compute() -> dict[str, Any]:
            return {"halves": part_fidelity.worth_of_patches(subject, self.judge, orders).tolist()}

        settings = {"first": self.options.first, "orders": orders}
        halves = torch.tensor(self.cells.get(f"truth-{start:04d}", settings, compute)["halves"])
        found = part_fidelity.agreement_with_worth(halves, maps)
        # How well the truth agrees with itself is said once, in the cell of all others.
        return found if "center" in maps else {name: found[name] for name in maps}

    def _grid(self) -> dict[str, Any]:
        options = argparse.Namespace(
            mosaics=self.options.mosaics, confidence=0.9, mosaic_sizes=["twice"], grid_methods=GRID_METHODS
        )
        return part_grid.measure(self.subject(0, self.options.images), options)

    def _sanity(self) -> dict[str, Any]:
        return part_sanity.measure(self.subject(0, self.options.sanity_images), self.options)


def parsed(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    command = script_options(__doc__)
    add = command.add_argument
    add("--output", type=Path, required=True, help="folder of the results; give it again to go on")
    add("--split", choices=("train", "validation"), default="validation", help="train to choose, validation to report")
    add("--first", type=int, default=0, help="place in a random order of the split; of train one that no map saw")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the map")
    add("--fit_images", type=int, default=1000, help="of train, that the map is fitted to")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    add("--images", type=int, default=100)
    add("--methods", nargs="*", default=list(METHODS))
    add("--sampled_methods", nargs="*", default=list(SAMPLED), help="that take hundreds of passes an image")
    add("--sampled_images", type=int, default=10, help="for these")
    add("--fidelity_images", type=int, default=50)
    add("--worth_images", type=int, default=20)
    add("--worth_orders", type=int, default=32, help="in which the patches of an image are shown")
    add("--mosaics", type=int, default=24)
    add("--sanity_images", type=int, default=30)
    add("--fastshap_passes", nargs="*", type=int, default=[], help="of the network, that FastSHAP is trained with")
    add("--fastshap_sees", nargs="+", choices=SEES, default=list(SEES), help="what its network is given of an image")
    add("--threads", type=int, default=1, help="of PyTorch")
    add("--processes", type=int, default=1, help="that take turns with the batches")
    add("--share", type=int, default=0, help=argparse.SUPPRESS)  # which of them this is
    options = command.parse_args(argv)
    unseen = options.first if options.split == "train" else TRAIN
    if options.fastshap_passes and min(unseen, *(passes // COALITIONS for passes in options.fastshap_passes)) < 32:
        command.error(
            "FastSHAP learns from at least 32 images: 256 --fastshap_passes, of `train` those before --first."
        )
    return options


def main(argv: list[str] | None = None) -> None:
    """Computes what is missing, and prints the page."""
    argv = sys.argv[1:] if argv is None else argv
    options = parsed(argv)
    torch.set_num_threads(options.threads)
    pretrained = Pretrained(options)
    command = [sys.executable, "-m", "benchmarks.faithfulness.pretrained", *argv, "--share"]
    shares = range(1, 1 if options.share else options.processes)  # begun when the maps are fitted
    others = [subprocess.Popen([*command, str(share)], stdout=subprocess.DEVNULL) for share in shares]
    with suppress(KeyboardInterrupt):  # what was measured until then counts
        pretrained.run()
        if any(other.wait() for other in others):
            raise SystemExit("One of the processes failed; what it said is above.")
    if options.share == 0:
        print(page(pretrained.folder, options))


if __name__ == "__main__":
    main()
