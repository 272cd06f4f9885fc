"""What becomes of a network with ImageNet weights on its way through `antehoc attach`, `antehoc export` and eight
bits: its accuracy on Imagenette's `validation` before and after, and the order of its map. All else is of `train`.

    python -m benchmarks.attach.shipped --weights FOLDER --data ../shared/data/imagenette --output_dir FOLDER
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.torch import save_file
from scipy.stats import spearmanr
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModelForImageClassification

from antehoc_hf.cli import main as antehoc
from benchmarks.attach.networks import Imagenette, classifier, script_options

EIGHT_BITS: dict[str, dict[str, Any]] = {
    "everything": {},
    "MatMul, Gemm": {"op_types_to_quantize": ["MatMul", "Gemm"]},
}


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    made = classifier(args.network, args.weights)
    weights, folder, graph = (args.output_dir / name for name in ("weights.safetensors", "attached", "model.onnx"))
    save_file(made.backbone.state_dict(), weights)
    known = ["--image_size", "224"]
    for name in ("image_mean", "image_std"):
        known += [f"--{name}", *map(str, getattr(made.config, name))]
    images = ["--images", str(args.data), "--split", "train"]
    images += ["--max_images", str(args.images), "--held_out", str(args.held_out)]
    command = ["attach", str(weights), "--backbone", args.network, *images, "--pairs", str(args.pairs), *known]
    exported = ["export", str(folder), "--output", str(graph), "--overwrite"]
    if antehoc([*command, "--overwrite", "-o", str(folder)]) or antehoc(exported):
        raise SystemExit(1)

    rows = Imagenette(args.data, "validation", args.validation, made)
    after = AutoModelForImageClassification.from_pretrained(folder).eval()
    source, ours = _logits(made.backbone, rows), _logits(lambda pixels: after(pixels).logits, rows)
    labels = torch.tensor([row["label"] for row in rows])  # type: ignore[attr-defined]
    right = [int((logits.argmax(dim=1) == labels).sum()) for logits in (source, ours)]
    print(f"{args.network}: {right[0]} of {len(rows)} right before, {right[1]} after", end="; ")
    print("the logits are the same to the bit." if torch.equal(source, ours) else "the logits differ.")

    fit = json.loads((folder / "results.json").read_text())["fit"]
    print(f"Explained of the gains: {fit['explained']}; penalty {fit['penalty']}.")
    taken = Imagenette(args.data, "train", 40, made, first=3960)
    pixels = torch.stack([taken[index]["pixel_values"] for index in range(40)])
    with torch.no_grad():
        expected = after(pixels)
        exact_logits = copy.deepcopy(made.backbone).double()(pixels.double()).numpy()
    maps, classes = expected.interpretation_map.flatten(1).numpy(), expected.logits.argmax(dim=1).numpy()
    logits, found = _run(graph, pixels)
    print(f"ONNX: logits within {np.abs(logits - expected.logits.numpy()).max():.1e}, ", end="")
    print(f"maps within {np.abs(found.reshape(40, -1) - maps).max():.1e} of torch's, {_mb(graph)} MB.")
    # Both round in float32: which of them is nearer to the network itself?
    for name, rounded in (("torch", expected.logits.numpy()), ("ONNX", logits)):
        print(f"Logits by {name} are within {np.abs(rounded - exact_logits).max():.1e} of those in float64.")
    sizes = {name: args.output_dir / f"int8-{number}.onnx" for number, name in enumerate(("--int8", *EIGHT_BITS))}
    if antehoc(["export", str(folder), "--output", str(sizes["--int8"]), "--int8", "--overwrite"]):
        raise SystemExit(1)
    for name, options in EIGHT_BITS.items():
        quantize_dynamic(graph, sizes[name], weight_type=QuantType.QUInt8, **options)
    for name, path in sizes.items():
        logits, found = _run(path, pixels)
        orders = np.array([spearmanr(a, b)[0] for a, b in zip(found.reshape(40, -1), maps, strict=True)])
        same = logits.argmax(axis=1) == classes
        print(f"int8, {name}: rank correlation {orders.mean():.3f} (min {orders.min():.3f}), ", end="")
        print(f"{int(same.sum())} of 40 predict the same class ({orders[same].mean():.3f}), {_mb(path)} MB")


@torch.no_grad()
def _logits(network: Any, rows: Dataset[Any]) -> Tensor:
    return torch.cat([network(batch["pixel_values"]) for batch in DataLoader(rows, batch_size=4)])


def _run(graph: Path, pixels: Tensor) -> tuple[Any, Any]:
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    parts = [session.run(["logits", "interpretation_map"], {"pixel_values": part.numpy()}) for part in pixels.split(4)]
    logits, maps = zip(*parts, strict=True)
    return np.concatenate(logits), np.concatenate(maps)


def _mb(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.0f}"


def _arguments() -> argparse.Namespace:
    parser = script_options(__doc__)
    parser.add_argument("--output_dir", type=Path, required=True, help="for the model, its graph and that in 8 bits")
    parser.add_argument("--images", type=int, default=1000, help="to fit the map to")
    parser.add_argument("--pairs", type=int, default=4, help="of coalitions of each image")
    parser.add_argument("--held_out", type=int, default=40, help="images that `antehoc attach` judges the map on")
    parser.add_argument("--validation", type=int, default=1000, help="images that accuracy is measured on")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
