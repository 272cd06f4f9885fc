"""One trained classifier a seed, and the images on which all maps are compared."""

import argparse
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import AutoImageProcessor

from antehoc_hf import AnteHocForImageClassification
from antehoc_hf.explainers import load_explainer
from antehoc_hf.modeling.map_head import of_target
from antehoc_hf.paper.cells import CellStore
from antehoc_hf.training.data import ImageDataset, load_image_data, sample
from antehoc_hf.training.runs.train import train

SHAPES = "shapes"
BATCH = 50

Explain = Callable[[Tensor, Tensor], Tensor]
"""(pixel_values (B, 3, H, W), target (B,)) → maps (B, 1, H, W)."""


@dataclass(frozen=True)
class Subject:
    """A classifier and the N images it is asked about.

    Attributes:
        seed: of its training.
        model, processor: as saved.
        pixel_values (`Tensor`): (N, 3, H, W), normalised, on the model's device.
        labels, predicted (`Tensor`): (N,) true classes, and the likeliest ones, the target of every map.
        probabilities (`Tensor`): (N, K).
        rows: the rows of the data set itself, with all columns.
    """

    seed: int
    model: Any
    processor: Any
    pixel_values: Tensor
    labels: Tensor
    predicted: Tensor
    probabilities: Tensor
    rows: Any

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.pixel_values.shape[-2], self.pixel_values.shape[-1]

    @property
    def accuracy(self) -> float:
        """Percent of the images."""
        return 100 * float((self.predicted == self.labels).float().mean())

    def explainer(self, name: str) -> Explain:
        """A method by name, of this model."""
        return load_explainer(name, self.model)


def dataset_options(options: argparse.Namespace) -> dict[str, Any]:
    """Further options of the data set; `shapes` is drawn in the size that is trained on."""
    given = json.loads(options.dataset_options or "{}")
    return {"image_size": options.image_size, **given} if options.dataset_name == SHAPES else given


def training_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What a classifier depends on, except its seed."""
    names = ("recipe", "image_size", "train_images", "epochs", "learning_rate", "backbone", "training_flags")
    settings = {name: getattr(options, name) for name in names}
    return settings | {
        "dataset_name": Path(options.dataset_name).name,
        "dataset_options": dataset_options(options),
        "backbone_kwargs": json.loads(options.backbone_kwargs),
    }


def trained(options: argparse.Namespace, seed: int) -> Path:
    """The folder of this seed's classifier, which is trained if it is not there yet."""
    folder = options.output / f"seed-{seed}"
    flags: dict[str, Any] = {
        "recipe": options.recipe,
        "dataset_name": options.dataset_name,
        "image_size": options.image_size,
        "num_train_epochs": options.epochs,
        "learning_rate": options.learning_rate,
        "map_eval_samples": 0,
        "seed": seed,
        "output_dir": folder,
        "report_to": "none",
        "backbone_kwargs": options.backbone_kwargs,
        "backbone": options.backbone,
        "max_train_samples": options.train_images,
        "dataset_options": json.dumps(dataset_options(options)) if dataset_options(options) else None,
    }
    words = [word for name, value in flags.items() if value is not None for word in (f"--{name}", str(value))]

    def compute() -> dict[str, Any]:
        if not (folder / "model.safetensors").exists():
            train([*words, *shlex.split(options.training_flags)])
        return {}

    CellStore(options.output, "faithfulness").get(f"seed-{seed}/trained_with", training_settings(options), compute)
    return folder


def images_of(options: argparse.Namespace, processor: Any, names: list[str]) -> ImageDataset:
    """The images of the split that was asked for, none of them trained on.

    `validation` is a part of the training split, the one that training holds out; of a data set with a validation
    split of its own it is that one. Where that is all there is besides the training images, one half of it, chosen at
    random, serves as validation and the other as test.
    """
    extra = dataset_options(options)
    if options.dataset_name == SHAPES:  # what is not looked at need not be drawn
        extra |= {"train": 0, "test" if options.split == "validation" else "validation": 0}
    data = load_image_data(options.dataset_name, label_names=names, options=extra)
    transformed = data.with_transforms(processor)
    if options.dataset_name == SHAPES or (transformed.test is not None and transformed.validation is not None):
        return getattr(transformed, options.split)
    whole = transformed.validation
    if data.held_out or whole is None:
        raise SystemExit(f"{options.dataset_name} has no images to test on except its training split.")
    order = sample(whole, len(whole), seed=1)
    half = order[: len(order) // 2] if options.split == "test" else order[len(order) // 2 :]
    split = whole.split.select(torch.tensor(sorted(half)).numpy())
    return ImageDataset(split, whole.image_column, whole.targets, whole.encode)


def load_subject(options: argparse.Namespace, seed: int) -> Subject:
    """The classifier of this seed, trained if need be, and what it makes of the images."""
    folder = trained(options, seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = AnteHocForImageClassification.from_pretrained(folder).to(device).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    images = images_of(options, processor, names)
    positions = sample(images, options.images)  # the same for every seed
    items = images.__getitems__(positions)
    pixel_values = torch.stack([item["pixel_values"] for item in items]).to(device)
    labels = torch.stack([torch.as_tensor(item["labels"]) for item in items]).to(device)
    probabilities = predict(model, pixel_values)
    rows = images.split.dataset.select(positions)
    return Subject(seed, model, processor, pixel_values, labels, probabilities.argmax(dim=1), probabilities, rows)


@torch.no_grad()
def predict(model: Any, pixel_values: Tensor) -> Tensor:
    """Probabilities of normalised images, (N, K), without any map."""
    device = next(model.parameters()).device
    return torch.cat([model.backbone(part.to(device)).float().softmax(dim=1) for part in pixel_values.split(BATCH)])


def maps_of(explain: Explain, pixel_values: Tensor, target: Tensor, title: str | None = None) -> Tensor:
    """Maps of many images, (N, 1, H, W), a batch at a time; with a title a progress bar."""
    pairs = list(zip(pixel_values.split(BATCH), target.split(BATCH), strict=True))
    bar = tqdm(pairs, desc=title, unit="batch", leave=False, disable=title is None)
    return torch.cat([explain(images, classes).detach() for images, classes in bar])


@torch.no_grad()
def signed_map(model: Any, pixel_values: Tensor, target: Tensor) -> Tensor:
    """Our contributions to one class an image with their sign, (B, 1, H, W): bilinear to the input's size, as the map
    is, but not stretched, so that 0 is a patch that changes nothing.
    """
    contributions = model.interpretation(pixel_values, target=target).contributions
    size = (pixel_values.shape[-2], pixel_values.shape[-1])
    return F.interpolate(of_target(contributions.float(), target), size=size, mode="bilinear", align_corners=False)
