"""The paper's figures, drawn from the networks of the first seed."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from antehoc_hf.concepts import dominant_regions
from antehoc_hf.explainers import load_explainer
from antehoc_hf.paper.cells import Bench
from antehoc_hf.paper.landmarks import part_networks
from antehoc_hf.paper.protocols import CAPTIONS, CLASSIFICATION, LANDMARKS, DataSource
from antehoc_hf.paper.workshop import TrainedNetwork
from antehoc_hf.training.data import sample
from antehoc_hf.visualization import comparison, photo_parts
from antehoc_hf.visualization.gallery import gallery
from antehoc_hf.visualization.landmarks import figure_of_parts

_COMPARED, _GALLERY_IMAGES, _GALLERY_CLASSES, _OF_EACH = 4, 200, 4, 8


def draw(bench: Bench, number: int, key: str, source: DataSource, seed: int, folder: Path) -> list[str]:
    """One of the paper's figures.

    Args:
        bench: networks; what is missing is trained.
        number (`int`): 1, methods side by side; 3, dominant regions of some classes; 4, maps of the models of nose,
            eyes and mouth; 5, captions with their maps.
        key, source: the data set.
        seed (`int`): of the network.
        folder (`Path`): where pictures go.

    Returns:
        `list[str]`: names of the files; none if the figure is not about such data.
    """
    for wanted, about, make in (
        (1, CLASSIFICATION, _methods),
        (3, CLASSIFICATION, _regions),
        (4, LANDMARKS, _parts),
        (5, CAPTIONS, _captions),
    ):
        if wanted == number and key in about:
            folder.mkdir(parents=True, exist_ok=True)
            return make(bench, key, source, seed, folder)
    return []


def _methods(bench: Bench, key: str, source: DataSource, seed: int, folder: Path) -> list[str]:
    network = TrainedNetwork("classifier", key, source, seed)
    model, pictures, pixel_values, labels = _opened(bench, network, _COMPARED)
    names = ["antehoc", *bench.explainers]
    predicted = _predicted(model, pixel_values)
    maps = {name: load_explainer(name, model)(pixel_values, predicted) for name in names}
    files = []
    for index, picture in enumerate(pictures):
        said, true = int(predicted[index]), int(labels[index])
        title = model.config.id2label[said] + ("" if said == true else f" (is {model.config.id2label[true]})")
        figure = comparison(picture, {name: found[index].cpu() for name, found in maps.items()}, title=title)
        files.append(f"figure-1-{key}-{index}.png")
        figure.savefig(folder / files[-1])
    return files


def _regions(bench: Bench, key: str, source: DataSource, seed: int, folder: Path) -> list[str]:
    network = TrainedNetwork("classifier", key, source, seed)
    model, pictures, pixel_values, _ = _opened(bench, network, _GALLERY_IMAGES)
    with torch.no_grad():
        maps = model.interpretation(pixel_values).interpretation_map
    predicted, found = _predicted(model, pixel_values).tolist(), dominant_regions(maps, most=1)
    of_class: dict[int, list[Any]] = {}
    for picture, class_, regions in zip(pictures, predicted, found, strict=True):
        for region in regions:
            of_class.setdefault(class_, []).append(
                (region.strength * region.area**0.5, region.crop(picture, least=0.25))
            )
    fullest = sorted(of_class, key=lambda class_: -len(of_class[class_]))[:_GALLERY_CLASSES]
    files = []
    for class_ in fullest:
        kept = sorted(of_class[class_], key=lambda entry: -entry[0])[:_OF_EACH]
        files.append(f"figure-3-{key}-{class_}.png")
        title = f"{model.config.id2label[class_]}: where the model looked"
        gallery([crop for _, crop in kept], title=title).savefig(folder / files[-1])
    return files


def _parts(bench: Bench, key: str, source: DataSource, seed: int, folder: Path) -> list[str]:
    networks = part_networks(key, source, seed)
    models = {part: bench.workshop.model(network) for part, network in networks.items()}
    first = next(iter(networks.values()))
    images = bench.workshop.test_images(first)
    pixel_values = torch.stack([images[position]["pixel_values"] for position in sample(images, 2)])
    name = f"figure-4-{key}.png"
    figure_of_parts(models, pixel_values, path=folder / name)
    return [name]


def _captions(bench: Bench, key: str, source: DataSource, seed: int, folder: Path) -> list[str]:
    network = TrainedNetwork("captioner", key, source, seed)
    task = bench.workshop.settings(network).task
    shop = bench.workshop
    drawn = task.save_figures(shop.model(network), shop.test_images(network), shop.processor(network), folder)
    files = [f"figure-5-{key}-{name}" for name in drawn]
    for name, file in zip(drawn, files, strict=True):
        (folder / name).replace(folder / file)
    return files


def _opened(bench: Bench, network: TrainedNetwork, count: int) -> tuple[Any, Any, Tensor, Tensor]:
    """Model, pictures, what the model is given, and labels of a seeded choice of test images."""
    model, processor = bench.workshop.model(network), bench.workshop.processor(network)
    batch = next(iter(bench.workshop.batches(network, count, size=count)))
    pixel_values = batch["pixel_values"].to(device=model.device, dtype=model.dtype)
    images = bench.workshop.test_images(network)
    pictures = photo_parts(images.photos(sample(images, count)), processor)
    return model, pictures, pixel_values, batch["labels"]


@torch.no_grad()
def _predicted(model: Any, pixel_values: Tensor) -> Tensor:
    classes: Tensor = model(pixel_values).logits.argmax(dim=1)
    return classes
