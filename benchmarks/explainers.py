"""
All explanation methods on the same images of one trained classifier: faithfulness beside controls, seconds, masks.

Times are taken image by image, the methods in turn, after a few images of warming up; figures are medians and
quartiles over images. Usage, for instance, with a model that `antehoc train --recipe cpu …` has left in a folder:

    python -m benchmarks.explainers --model outputs/cifar10 --dataset_name uoft-cs/cifar10 --output outputs/explainers
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm
from transformers import AutoImageProcessor

from antehoc_hf import AnteHocForImageClassification
from antehoc_hf.evaluation import EvaluationSettings, evaluate_maps
from antehoc_hf.explainers import Explainer, load_explainer
from antehoc_hf.explainers.masked import masked_outputs
from antehoc_hf.training.data import load_image_data, sample
from antehoc_hf.visualization import comparison, denormalise

METHODS = (
    *("antehoc", "grad-cam", "grad-cam++", "score-cam", "integrated-grad-cam", "integrated-gradients"),
    *("sise", "ada-sise"),
)
WARM_UP = 5


def explainers_of(model: Any, names: list[str]) -> dict[str, Explainer]:
    """Each method with its defaults."""
    return {name: load_explainer(name, model) for name in names}


@torch.no_grad()
def timed(model: Any, explainers: dict[str, Explainer], images: torch.Tensor) -> dict[str, list[dict[str, float]]]:
    """Seconds and passes of each method on each image; beside them a plain forward pass and masked passes alone."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ("plain forward", *explainers)}
    for index, image in enumerate(tqdm(images, desc="Timing", unit="image")):
        one = image[None]
        begun = time.perf_counter()
        target = int(model.backbone(one).argmax())
        rows = {"plain forward": {"seconds": time.perf_counter() - begun, "passes": 0.0}}
        for name, explainer in explainers.items():
            begun = time.perf_counter()
            explained = explainer.explain(one, target)
            rows[name] = {"seconds": time.perf_counter() - begun, "passes": float(explained.passes[0])}
        for name in ("sise", "ada-sise"):
            if name in explainers:
                rows[name]["masked forwards alone"] = masked_alone(explainers[name], one, int(rows[name]["passes"]))
        if index >= WARM_UP:
            for name, row in rows.items():
                found[name].append(row)
    return found


def masked_alone(explainer: Explainer, one: torch.Tensor, count: int) -> float:
    """Seconds that so many masked forward passes take by themselves."""
    masks = torch.rand(max(count, 1), 1, *one.shape[-2:])
    question = explainer.network.question(explainer.network.checked(one))
    target = question.target(question(question.images))
    begun = time.perf_counter()
    for outputs, at in masked_outputs(question, 0, masks, batch_size=64):
        target.select(at).confidence(outputs)
    return time.perf_counter() - begun


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4)
    return low, middle, high


def cost_table(found: dict[str, list[dict[str, float]]]) -> str:
    """Milliseconds and passes of each method; and Ada-SISE beside SISE, image by image."""
    lines = ["| method | ms an image | ÷ plain forward | masked or interpolated images |", "|---|---:|---:|---:|"]
    plain = [row["seconds"] for row in found["plain forward"]]
    for name, rows in found.items():
        low, middle, high = quartiles([1000 * row["seconds"] for row in rows])
        ratio = statistics.median(row["seconds"] / base for row, base in zip(rows, plain, strict=True))
        passes = statistics.median(row["passes"] for row in rows)
        lines.append(f"| {name} | {middle:.1f} ({low:.1f}–{high:.1f}) | {ratio:.2f} | {passes:.0f} |")
    if "sise" in found and "ada-sise" in found:
        pairs = list(zip(found["ada-sise"], found["sise"], strict=True))
        times = quartiles([ada["seconds"] / sise["seconds"] for ada, sise in pairs])
        masks = quartiles([ada["passes"] / max(sise["passes"], 1) for ada, sise in pairs])
        alone = quartiles([sise["seconds"] / sise["masked forwards alone"] for _, sise in pairs])
        for what, (low, middle, high) in (
            ("Ada-SISE ÷ SISE, time", times),
            ("Ada-SISE ÷ SISE, masks", masks),
            ("SISE ÷ its masked forward passes alone", alone),
        ):
            lines.append(f"\n{what}: median {middle:.2f} (quartiles {low:.2f}–{high:.2f})")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset_name", required=True)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--insertion_images", type=int, default=100)
    parser.add_argument("--timed_images", type=int, default=50)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = AnteHocForImageClassification.from_pretrained(options.model).eval()
    processor = AutoImageProcessor.from_pretrained(options.model)
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    data = load_image_data(options.dataset_name, label_names=names, validation_fraction=0.0, seed=0)
    transformed = data.with_transforms(processor)
    test = transformed.test or transformed.validation
    chosen: Any = Subset(test, sample(test, options.images))  # type: ignore[arg-type]
    options.output.mkdir(parents=True, exist_ok=True)
    explainers = explainers_of(model, options.methods)
    draw(model, processor, explainers, chosen, options.output)
    images = torch.stack([chosen[index]["pixel_values"] for index in range(options.timed_images + WARM_UP)])
    costs = timed(model, explainers, images)
    report = evaluate_maps(
        model,
        DataLoader(chosen, batch_size=25),
        EvaluationSettings(target="prediction", insertion_deletion_images=options.insertion_images),
        explainers={name: explainer for name, explainer in explainers.items() if name != "antehoc"},
    )
    settings = {key: str(value) for key, value in vars(options).items() if key not in ("output", "model")}
    settings["dataset_name"] = Path(options.dataset_name).name
    (options.output / "explainers.json").write_text(
        json.dumps({"settings": settings, "costs": costs, "maps": report.to_dict()}, indent=1)
    )
    text = (
        f"{settings}, {platform.machine()}, torch {torch.__version__}\n\n{cost_table(costs)}\n\n{report.to_markdown()}"
    )
    (options.output / "explainers.md").write_text(text)
    print(text)


def draw(model: Any, processor: Any, explainers: dict[str, Explainer], chosen: Any, folder: Path) -> None:
    """The first images with every method's map."""
    pixel_values = torch.stack([chosen[index]["pixel_values"] for index in range(4)])
    with torch.no_grad():
        predicted = model(pixel_values).logits.argmax(dim=1)
    pictures = denormalise(pixel_values, processor.image_mean, processor.image_std)
    maps = {name: explainer(pixel_values, predicted) for name, explainer in explainers.items()}
    for index, picture in enumerate(pictures):
        said, true = int(predicted[index]), int(chosen[index]["labels"])
        title = f"{model.config.id2label[said]} (is {model.config.id2label[true]})"
        of_image = {name: found[index] for name, found in maps.items()}
        comparison(picture, of_image, title=title).savefig(folder / f"image-{index}.png")


if __name__ == "__main__":
    main()
