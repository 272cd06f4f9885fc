"""The whole table of costs: each a ratio measured in one run, in turns, in process time, on one thread, with its
target.

    python -m benchmarks.bench --output outputs/bench   # or make bench
    python -m benchmarks.bench --quick --only forward step

Networks have random weights, which cost what trained ones do. A map is the trained head's (`ContributionMap`), not the
closed form's: the head of MobileNetV3 is not linear on its last layer, and the figures are to be of one kind.
`bench.json` holds every single ratio, `bench.md` the table.
"""

import contextlib
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import onnxruntime
import torch
from PIL import Image
from torch.utils.data import DataLoader

from antehoc_hf import AnteHocImageProcessor
from antehoc_hf.commands.explain import parse
from antehoc_hf.commands.explain_table import Images, explain_table
from antehoc_hf.commands.inputs import load_model
from antehoc_hf.export import export_onnx
from antehoc_hf.modeling import AnteHocForImageClassification
from benchmarks import evaluation_cost
from benchmarks.cost import (
    Run,
    arguments,
    classifier,
    forward_variants,
    grad_cam_variants,
    interleaved,
    machine,
    our_step,
    plain_step,
)
from benchmarks.output import parser

# timm's names, with what the forward pass with a map may cost at batch 1.
NETWORKS = {
    "resnet18": 1.10,
    "resnet50": 1.05,
    "tf_efficientnet_lite0": 1.10,
    "mobilenetv3_large_100": 1.10,
    "convnext_tiny": 1.05,
    "vit_small_patch16_224": 1.05,
}


@dataclass(frozen=True)
class Amount:
    """How much is measured."""

    rounds: int
    networks: tuple[str, ...]
    stepped: tuple[str, ...]
    photos: int
    evaluated: tuple[int, int]  # images, and their size in pixels


FULL = Amount(16, tuple(NETWORKS), ("resnet18", "resnet50"), 256, (2, 128))
QUICK = Amount(4, tuple(NETWORKS), ("resnet18",), 48, (2, 64))


@dataclass(frozen=True)
class Row:
    """One line: the median of `ratios`, which is to be at most, or if `least` at least, the target."""

    what: str
    network: str
    ratios: list[float]
    target: float | None = None
    least: bool = False

    def cells(self) -> list[str]:
        """Of the table."""
        middle = statistics.median(self.ratios)
        low, _, high = statistics.quantiles(self.ratios, n=4) if len(self.ratios) > 1 else (middle,) * 3
        met = "–"
        if self.target is not None:
            met = "met" if (middle >= self.target if self.least else middle <= self.target) else "missed"
        target = "–" if self.target is None else f"{'≥' if self.least else '≤'} {self.target:.2f}"
        spread = f"{low:.3f}–{high:.3f} ({len(self.ratios)})"
        return [self.what, self.network, f"{middle:.3f}", spread, target, met]


def ratios(seconds: Mapping[str, list[float]], name: str, base: str = "plain") -> list[float]:
    """Within each round."""
    return [a / b for a, b in zip(seconds[name], seconds[base], strict=True)]


def at_224(backbone: str) -> AnteHocForImageClassification:
    """An untrained classifier of ImageNet's size."""
    return classifier(backbone, num_labels=1000, image_size=224).eval()


def forward(amount: Amount) -> Iterator[Row]:
    """The map in the same pass, and Grad-CAM of two libraries; the median of ours is to be below theirs too."""
    for backbone in amount.networks:
        ours = at_224(backbone)
        for batch, rounds, target in (
            (1, 2 * amount.rounds, NETWORKS[backbone]),
            (8, max(amount.rounds // 2, 2), 1.04),
        ):
            variants = forward_variants(ours, batch)
            for name, run in grad_cam_variants(ours, batch).items():
                try:
                    run()
                except RuntimeError as error:  # a layer that is changed in place, of which torchcam cannot be told
                    print(f"{name} does not run on {backbone}: {str(error).splitlines()[0]}")
                else:
                    variants[name] = run
            seconds = interleaved(variants, rounds, f"forward, {backbone}, {batch}")
            for name in list(variants)[1:]:
                what = f"forward with map ÷ plain ({name}), batch {batch}"
                yield Row(what, backbone, ratios(seconds, name), target if name == "ours" else None)


def all_classes(amount: Amount) -> Iterator[Row]:
    """Contributions to each of 1,000 classes on the grid of patches, against those to one."""
    for backbone in amount.networks[:2]:
        ours, pixels = at_224(backbone), torch.randn(1, 3, 224, 224)
        one = torch.inference_mode()(lambda ours=ours, pixels=pixels: ours(pixels))
        every = torch.inference_mode()(lambda ours=ours, pixels=pixels: ours(pixels, output_attention_maps=True))
        seconds = interleaved({"plain": one, "all": every}, 2 * amount.rounds, f"all classes, {backbone}")
        yield Row("contributions to 1,000 classes ÷ to one, batch 1", backbone, ratios(seconds, "all"), 1.10)


def onnx(amount: Amount) -> Iterator[Row]:
    """Graphs with the map and without it, served by onnxruntime on one thread."""
    choices = onnxruntime.SessionOptions()
    choices.intra_op_num_threads = choices.inter_op_num_threads = 1
    for backbone in amount.networks[:2]:
        ours, pixels = at_224(backbone), torch.randn(1, 3, 224, 224)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            export_onnx(ours, Path(folder) / "ours.onnx", batch_size=1)
            torch.onnx.export(ours.backbone, (pixels,), f"{folder}/plain.onnx", dynamo=True, verbose=False)
            variants: dict[str, Run] = {}
            for name in ("plain", "ours"):
                session = onnxruntime.InferenceSession(f"{folder}/{name}.onnx", choices)
                inputs = {session.get_inputs()[0].name: pixels.numpy()}
                variants[name] = partial(session.run, None, inputs)
            seconds = interleaved(variants, 2 * amount.rounds, f"onnxruntime, {backbone}")
        yield Row("onnxruntime: with map ÷ without, batch 1", backbone, ratios(seconds, "ours"), 1.05)


def compiled(amount: Amount) -> Iterator[Row]:
    """Both under torch.compile."""
    for backbone in amount.networks[: 1 if amount is QUICK else 2]:
        ours, pixels = at_224(backbone), torch.randn(1, 3, 224, 224)
        variants: dict[str, Run] = {}
        for name, network in (("plain", ours.backbone), ("ours", ours)):
            faster = torch.compile(network)
            variants[name] = torch.no_grad()(lambda faster=faster, pixels=pixels: faster(pixels))
        seconds = interleaved(variants, 2 * amount.rounds, f"torch.compile, {backbone}")
        yield Row("torch.compile: forward with map ÷ plain, batch 1", backbone, ratios(seconds, "ours"), 1.05)


def step(amount: Amount) -> Iterator[Row]:
    """Training steps at 128 px, batch 16: what a run takes, since every step of it is alike."""
    for backbone in amount.stepped:
        variants = {"plain": plain_step(backbone)}
        variants["coalitions"] = our_step(classifier(backbone), arguments(1.0))
        variants["energy"] = our_step(classifier(backbone, map_head="energy"), arguments(1.0))
        seconds = interleaved(variants, max(amount.rounds // 2, 2), f"step, {backbone}")
        for name, target in (("coalitions", 1.80), ("energy", 1.70)):
            yield Row(f"two-pass step ({name}) ÷ plain step, batch 16", backbone, ratios(seconds, name), target)


def evaluation(amount: Amount) -> Iterator[Row]:
    """All measures of two methods and the controls, against the passes that they need."""
    images, size = amount.evaluated
    model = AnteHocForImageClassification.from_backbone("resnet18", num_labels=10, image_size=size).eval()
    data = evaluation_cost.batches(images, size, images)
    evaluation_cost.evaluated(model, data)
    found = []
    for _ in range(max(amount.rounds // 4, 2)):
        seconds, calls = evaluation_cost.evaluated(model, data)
        found.append(seconds / evaluation_cost.alone(model, calls, size, share=0.5))
    yield Row(f"whole evaluation ÷ its forward passes, {size} px", "resnet18", found, 1.08)


def folder(amount: Amount) -> Iterator[Row]:
    """`antehoc explain` of a folder, written as Parquet, against classes alone by the same loader, written as CSV."""
    backbone = "resnet50"
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        photos, saved = place / "photos", place / "model"
        photos.mkdir()
        noise = np.random.default_rng(0)
        for index in range(amount.photos):
            coarse = noise.integers(0, 255, (15, 20, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((500, 375)).save(photos / f"{index:05d}.jpg")
        at_224(backbone).save_pretrained(saved)
        AnteHocImageProcessor.from_backbone(backbone, image_size=224).save_pretrained(saved)
        found = []
        for turn in range(3):
            begun = time.process_time()
            classes_alone(saved, sorted(photos.iterdir()), place / "classes.csv")
            plain = time.process_time() - begun
            options = ["--explainers", "antehoc", "--output_format", "parquet", "-o", str(place / f"out{turn}")]
            begun = time.process_time()
            with contextlib.redirect_stdout(io.StringIO()):
                explain_table(parse([str(photos), "--model", str(saved), *options]))
            found.append(plain / (time.process_time() - begun))
    what = f"a folder explained: images a second ÷ classes alone, {amount.photos} photos"
    yield Row(what, backbone, found, 0.90, least=True)


@torch.inference_mode()
def classes_alone(saved: Path, photos: list[Path], path: Path) -> None:
    """As timm's inference.py does it: the five likeliest classes of each image, in a table."""
    model, processor = load_model(str(saved))
    names = [str(photo) for photo in photos]
    loader = DataLoader(Images(names, names, processor), batch_size=8, collate_fn=list)
    lines = []
    for batch in loader:
        pixel_values = torch.stack([pixels for _, pixels, _ in batch if pixels is not None])
        shares, classes = model.backbone(pixel_values).softmax(dim=1).topk(5)
        for row, (index, _, _) in enumerate(batch):
            lines.append(f"{names[index]},{classes[row].tolist()},{shares[row].tolist()}")
    path.write_text("\n".join(lines))


SECTIONS: dict[str, Callable[[Amount], Iterator[Row]]] = {
    "forward": forward,
    "all_classes": all_classes,
    "onnx": onnx,
    "compile": compiled,
    "step": step,
    "evaluation": evaluation,
    "folder": folder,
}


def table(rows: list[Row]) -> str:
    """As Markdown."""
    lines = ["| what | network | ratio | quartiles (rounds) | target | |", "|---|---|---:|---|---:|---|"]
    return "\n".join(lines + [f"| {' | '.join(row.cells())} |" for row in rows])


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--quick", action="store_true", help="a quarter of the rounds, fewer networks")
    command.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    command.add_argument("--output", type=Path, default=Path("outputs/bench"))
    options = command.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for name in options.only:
        rows += SECTIONS[name](QUICK if options.quick else FULL)
        # After every section: what was measured is there even if a later one fails.
        told = {"machine": machine(), "quick": options.quick, "rows": [asdict(row) for row in rows]}
        (options.output / "bench.json").write_text(json.dumps(told, indent=1))
        (options.output / "bench.md").write_text(f"{machine()}\n\n{table(rows)}\n")
    print(f"{machine()}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
