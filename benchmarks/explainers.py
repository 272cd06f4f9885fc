"""What the explanation methods cost on one trained classifier: seconds and passes of each, image by image in turn.

Figures are medians and quartiles over images, after a few of warming up. How good the maps are, `antehoc evaluate
--explainers …` says; figure 1 of `antehoc benchmark paper` draws them. Usage, with a folder of `antehoc train`:

    python -m benchmarks.explainers --model outputs/cifar10 --dataset_name uoft-cs/cifar10 --output outputs/explainers
"""

import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import AutoImageProcessor

from antehoc_hf import AnteHocForImageClassification
from antehoc_hf.explainers import Explainer, load_explainer
from antehoc_hf.explainers.masked import masked_outputs
from antehoc_hf.training.data import load_image_data, sample
from benchmarks.output import parser, report

METHODS = (
    *("antehoc", "grad-cam", "grad-cam++", "score-cam", "integrated-grad-cam", "integrated-gradients"),
    *("sise", "ada-sise"),
)
WARM_UP = 5
Costs = dict[str, list[dict[str, float]]]


@torch.no_grad()
def timed(model: AnteHocForImageClassification, explainers: Mapping[str, Explainer], images: Tensor) -> Costs:
    """Seconds and passes of each method on each image; next to them a plain forward pass and masked passes alone."""
    found: Costs = {name: [] for name in ("plain forward", *explainers)}
    for index, image in enumerate(tqdm(images, desc="Timing", unit="image")):
        one = image[None]
        begun = time.perf_counter()
        target = int(model.backbone(one).argmax())
        rows = {"plain forward": {"seconds": time.perf_counter() - begun, "passes": 0.0}}
        for name, explainer in explainers.items():
            begun = time.perf_counter()
            explained = explainer.explain(one, target)
            rows[name] = {"seconds": time.perf_counter() - begun, "passes": float(explained.passes[0])}
        for name in explainers.keys() & {"sise", "ada-sise"}:
            rows[name]["masked forwards alone"] = masked_alone(explainers[name], one, int(rows[name]["passes"]))
        if index >= WARM_UP:
            for name, row in rows.items():
                found[name].append(row)
    return found


def masked_alone(explainer: Explainer, one: Tensor, count: int) -> float:
    """Seconds that so many masked forward passes take by themselves."""
    masks = torch.rand(max(count, 1), 1, *one.shape[-2:])
    question = explainer.network.question(explainer.network.checked(one))
    target = question.target(question(question.images))
    begun = time.perf_counter()
    for outputs, at in masked_outputs(question, 0, masks, batch_size=64):
        target.select(at).confidence(outputs)
    return time.perf_counter() - begun


def table(found: Costs) -> str:
    """Milliseconds and passes of each method; and Ada-SISE against SISE, image by image."""
    lines = ["| method | ms an image | ÷ plain forward | masked or interpolated images |", "|---|---:|---:|---:|"]
    plain = [row["seconds"] for row in found["plain forward"]]
    for name, rows in found.items():
        low, middle, high = statistics.quantiles([1000 * row["seconds"] for row in rows], n=4)
        ratio = statistics.median(row["seconds"] / base for row, base in zip(rows, plain, strict=True))
        passes = statistics.median(row["passes"] for row in rows)
        lines.append(f"| {name} | {middle:.1f} ({low:.1f}–{high:.1f}) | {ratio:.2f} | {passes:.0f} |")
    pairs = list(zip(found.get("ada-sise", ()), found.get("sise", ()), strict=False))
    for what, ratios in (
        ("Ada-SISE ÷ SISE, time", [ada["seconds"] / sise["seconds"] for ada, sise in pairs]),
        ("Ada-SISE ÷ SISE, masks", [ada["passes"] / max(sise["passes"], 1) for ada, sise in pairs]),
        ("SISE ÷ its masked passes alone", [sise["seconds"] / sise["masked forwards alone"] for _, sise in pairs]),
    ):
        if ratios:
            low, middle, high = statistics.quantiles(ratios, n=4)
            lines.append(f"\n{what}: median {middle:.2f} (quartiles {low:.2f}–{high:.2f})")
    return "\n".join(lines) + "\n"


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--model", required=True)
    command.add_argument("--dataset_name", required=True)
    command.add_argument("--images", type=int, default=50)
    command.add_argument("--methods", nargs="+", default=list(METHODS))
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--output", type=Path, required=True)
    options = command.parse_args()
    torch.set_num_threads(options.threads)
    model = AnteHocForImageClassification.from_pretrained(options.model).eval()
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    data = load_image_data(options.dataset_name, label_names=names, validation_fraction=0.0, seed=0)
    transformed = data.with_transforms(AutoImageProcessor.from_pretrained(options.model))
    test = transformed.test or transformed.validation
    if test is None:
        raise SystemExit(f"{options.dataset_name} has no images to test on.")
    images = torch.stack([test[index]["pixel_values"] for index in sample(test, options.images + WARM_UP)])
    costs = timed(model, {name: load_explainer(name, model) for name in options.methods}, images)
    print(report(options, "explainers", costs, table(costs)))


if __name__ == "__main__":
    main()
