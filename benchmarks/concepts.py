"""Concepts with a known truth: networks trained on images with a coloured tag whose reliability is known.

Three classes of a data set; on every training image a square of the class's colour is pasted in a random corner, and
agrees with the label with probability 1 − p. A network that can trust the tag reads the tag: how far is measured by
swapping the tags of test images (the share of predictions that follow the tag). Visual-TCAV's attribution of the tag
to its class must rise with that truth; TCAV's score is given as well. Usage:

    python -m benchmarks.concepts --dataset_name uoft-cs/cifar10 --output outputs/concepts
"""

from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from tqdm import tqdm

from antehoc_hf import AnteHocImageProcessor
from antehoc_hf.concepts import TCAV, VisualTCAV
from antehoc_hf.training.data import load_image_data, sample
from benchmarks.output import parser, report

COLOURS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
# Share of training images whose tag is another class's; None: no tag at all.
UNRELIABLE: tuple[float | None, ...] = (None, 1.0, 0.3, 0.0)


def pasted(images: Tensor, tags: Tensor, black: Tensor, white: Tensor, generator: torch.Generator) -> Tensor:
    """Images (N, 3, H, W), normalised, with a square of an eighth of the area in the colour of `tags` in a corner."""
    images = images.clone()
    side = round(images.shape[-1] * 0.125**0.5)
    corners = torch.randint(4, (len(images),), generator=generator)
    for image, tag, corner in zip(images, tags.tolist(), corners.tolist(), strict=True):
        colour = black + COLOURS[tag].view(3, 1, 1) * (white - black)
        rows = slice(0, side) if corner % 2 == 0 else slice(-side, None)
        columns = slice(0, side) if corner < 2 else slice(-side, None)
        image[:, rows, columns] = colour
    return images


def unreliable_tags(labels: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """Tags that agree with the labels except for a share p, which is another class's."""
    wrong = torch.rand(len(labels), generator=generator) < p
    shift = torch.randint(1, 3, (len(labels),), generator=generator)
    return torch.where(wrong, (labels + shift) % 3, labels)


def train(images: Tensor, labels: Tensor, backbone: str, epochs: int, seed: int) -> nn.Module:
    """A plain timm network, AdamW, cosine schedule, mirrored images."""
    torch.manual_seed(seed)
    model = timm.create_model(backbone, num_classes=3)
    steps = epochs * (len(images) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps, pct_start=0.1)
    model.train()
    with tqdm(total=steps, desc="Training", leave=False) as progress:
        for _ in range(epochs):
            order = torch.randperm(len(images))
            for batch in order[: len(order) // 64 * 64].split(64):
                pixels = images[batch]
                mirrored = torch.rand(len(batch)) < 0.5
                pixels[mirrored] = pixels[mirrored].flip(-1)
                nn.functional.cross_entropy(model(pixels), labels[batch]).backward()
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                progress.update()
    return model.eval()


@torch.no_grad()
def predicted(model: nn.Module, images: Tensor) -> Tensor:
    """Classes."""
    return torch.cat([model(chunk).argmax(dim=1) for chunk in images.split(250)])


def measure(model: nn.Module, test: Tensor, labels: Tensor, others: Tensor, paint: Any, seed: int) -> dict[str, Any]:
    """Truth and what the two methods say, for the tag of each class on images of that class."""
    generator = torch.Generator().manual_seed(seed)
    shift = torch.randint(1, 3, (len(labels),), generator=generator)
    swapped = (labels + shift) % 3
    on_swapped = predicted(model, paint(test, swapped))
    truth = float((on_swapped == swapped).float().mean())
    accuracy = float((predicted(model, test) == labels).float().mean())
    # Concept: the tag on images of other classes; random: such images without it.
    visual = VisualTCAV(model, others[:100], steps=30)
    random_sets = [others[100 + 50 * index : 150 + 50 * index] for index in range(6)]
    attributions, scores, p_values = [], [], []
    tcav = TCAV(model, pool=True, seed=seed)
    for tag in range(3):
        concept = paint(others[400:460], torch.full((60,), tag))
        visual.add_concept(f"tag {tag}", concept)
        of_class = paint(test[labels == tag][:60], torch.full((int((labels == tag).sum()),), tag)[:60])
        own = next(one for one in visual.global_(of_class, tag) if one.concept == f"tag {tag}")
        attributions.append(own.mean)
        (result,) = tcav(of_class, tag, {f"tag {tag}": concept}, random_sets)
        scores.append(result.score)
        p_values.append(result.p_value)
    return {
        "accuracy without tags": accuracy,
        "follows swapped tag": truth,
        "Visual-TCAV attribution": sum(attributions) / 3,
        "TCAV score": sum(scores) / 3,
        "TCAV p": p_values,
    }


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--dataset_name", required=True)
    command.add_argument("--classes", nargs=3, default=["airplane", "automobile", "frog"])
    command.add_argument("--backbone", default="resnet10t")
    command.add_argument("--image_size", type=int, default=64)
    command.add_argument("--train_images", type=int, default=6000)
    command.add_argument("--epochs", type=int, default=5)
    command.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--output", type=Path, required=True)
    options = command.parse_args()
    torch.set_num_threads(options.threads)
    processor = AnteHocImageProcessor.from_backbone(options.backbone, image_size=options.image_size, crop_pct=1.0)
    data = load_image_data(options.dataset_name, validation_fraction=0.0, seed=0)
    splits = data.with_transforms(processor, "none")
    wanted = [data.targets.names.index(name) for name in options.classes]
    train_images, train_labels = chosen(splits.train, wanted, options.train_images)
    test_images, test_labels = chosen(splits.test, wanted, 600)
    others = chosen(splits.train, [i for i in range(len(data.targets.names)) if i not in wanted], 500)[0]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    black, white = (0 - mean) / std, (1 - mean) / std
    rows: list[dict[str, Any]] = []
    text = ""
    for seed in options.seeds:
        for p in UNRELIABLE:
            generator = torch.Generator().manual_seed(1000 + seed)

            def paint(images: Tensor, tags: Tensor, generator: torch.Generator = generator) -> Tensor:
                return pasted(images, tags, black, white, generator)

            images = train_images
            if p is not None:
                images = paint(train_images, unreliable_tags(train_labels, p, generator))
            model = train(images, train_labels, options.backbone, options.epochs, seed)
            rows.append({"seed": seed, "p": p, **measure(model, test_images, test_labels, others, paint, seed)})
            text = report(options, "concepts", rows, table(rows))  # an interrupted run keeps its finished networks
    print(text)


def chosen(split: Any, classes: list[int], count: int) -> tuple[Tensor, Tensor]:
    """A seeded choice of images of these classes, and their places among them."""
    labels = split.targets.tensor(split.split.dataset[split.targets.column])
    among = [index for index in sample(split, len(split)) if int(labels[index]) in classes][:count]
    items = [item for start in range(0, len(among), 256) for item in split.__getitems__(among[start : start + 256])]
    places = torch.tensor([classes.index(int(item["labels"])) for item in items])
    return torch.stack([item["pixel_values"] for item in items]), places


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each seed and reliability."""
    lines = [
        "| seed | wrong tags | accuracy | follows tag | attribution | TCAV | p |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        tags = "no tags" if row["p"] is None else f"{100 * row['p']:.0f} %"
        p_values = " ".join(f"{value:.2g}" for value in row["TCAV p"])
        lines.append(
            f"| {row['seed']} | {tags} | {100 * row['accuracy without tags']:.1f} | "
            f"{row['follows swapped tag']:.3f} | "
            f"{row['Visual-TCAV attribution']:.3f} | {row['TCAV score']:.3f} | {p_values} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
