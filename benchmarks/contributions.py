"""
Class-conditional maps beside all other methods on the same trained classifiers, for several seeds.

For every seed one training with the recipe `contributions`, then every method on the same test images with the model's
own prediction as target: insertion − deletion in all four forms, and Average Drop on masks of equal area, with
intervals of the difference to ours, paired by image. Usage, for instance:

    python benchmarks/contributions.py --dataset_name uoft-cs/cifar10 --image_size 32 --train_images 20000 --epochs 8 \
        --seeds 0 1 2 --output outputs/contributions
"""

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch.utils.data import DataLoader, Subset
from transformers import AutoImageProcessor

from antehoc_hf import AnteHocForImageClassification
from antehoc_hf.evaluation import EvaluationSettings, evaluate_maps
from antehoc_hf.evaluation.settings import FORMS
from antehoc_hf.explainers import measured_explainers
from antehoc_hf.training.data import load_image_data, sample
from antehoc_hf.training.run import train

METHODS = (
    *("grad-cam", "grad-cam++", "score-cam", "integrated-grad-cam", "integrated-gradients"),
    *("sise", "ada-sise"),
)
# Four by four positions in the last stage at 32 pixels, eight by eight at 64.
BACKBONE = {"channels": [32, 64, 96, 128], "stem_width": 16, "output_stride": 8}


def trained(options: argparse.Namespace, seed: int) -> AnteHocForImageClassification:
    """The classifier of this seed, from its folder where it is there already."""
    folder = options.output / f"seed-{seed}"
    if not (folder / "model.safetensors").exists():
        flags = {
            "recipe": "contributions",
            "dataset_name": options.dataset_name,
            "image_size": options.image_size,
            "backbone_kwargs": json.dumps(BACKBONE),
            "num_train_epochs": options.epochs,
            "learning_rate": options.learning_rate,
            "map_eval_samples": 32,
            "seed": seed,
            "output_dir": folder,
            "report_to": "none",
        }
        if options.train_images:
            flags["max_train_samples"] = options.train_images
        train([word for name, value in flags.items() for word in (f"--{name}", str(value))])
    return AnteHocForImageClassification.from_pretrained(folder).eval()


def measured(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The report of one seed; its table is printed."""
    model = trained(options, seed)
    processor = AutoImageProcessor.from_pretrained(options.output / f"seed-{seed}")
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    data = load_image_data(options.dataset_name, label_names=names, validation_fraction=0.0, seed=0)
    transformed = data.with_transforms(processor)
    test = transformed.test or transformed.validation
    chosen: Any = Subset(test, sample(test, options.images))  # type: ignore[arg-type]
    report = evaluate_maps(
        model,
        DataLoader(chosen, batch_size=50),
        EvaluationSettings(target="prediction", insertion_deletion_images=options.images, insertion_deletion=FORMS),
        explainers=measured_explainers(options.methods, model),
    )
    text = f"## Seed {seed}\n\n{report.to_markdown()}"
    print(text, flush=True)
    (options.output / f"seed-{seed}.md").write_text(text)
    return report.to_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name", required=True)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--train_images", type=int)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=0.004)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    reports = {seed: measured(options, seed) for seed in options.seeds}
    settings = {key: str(value) for key, value in vars(options).items() if key not in ("output", "dataset_name")}
    settings |= {"dataset_name": Path(options.dataset_name).name, "machine": platform.machine()}
    (options.output / "contributions.json").write_text(json.dumps({"settings": settings, "seeds": reports}, indent=1))


if __name__ == "__main__":
    main()
