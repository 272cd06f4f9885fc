"""What the tests of cards, pushing and loading share: a Hub on this machine, clients of it, and a trained folder."""

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from client import Client
from PIL import Image

from antehoc_hf.modeling import AnteHocForImageClassification, AnteHocImageProcessor

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from local_hub import LocalHub  # noqa: E402

CLASSES = ["ant", "bee", "cat"]
RESULTS: dict[str, Any] = {
    "model": {"backbone": "test_resnet", "parameters": 1000, "map_head_parameters": 100},
    "task": "image-classification",
    "data": {"name": "jane/insects", "revision": "c0ffee", "images": {"train": 80, "test": 20}},
    "training": {
        "steps": 30,
        "epochs": 3.0,
        "seconds": 61.0,
        "hardware": "cpu (x86_64)",
        "seed": 7,
        "passes": {"task": {"learning_rate": 0.01}, "interpretation": {"interpretation_learning_rate": 0.001}},
    },
    "evaluated_on": "test",
    "evaluated_images": 20,
    "metrics": {"loss": 0.5, "accuracy": 0.85, "map_mean": 0.4},
    "maps": {
        "about": "The class watched in an image is its label.",
        "num_images": 20,
        "num_scored": 18,
        "columns": {
            "map_mean": {"heading": "mean of map", "decimals": 2, "better": None, "rewards_brightness": False},
            "drop_cond": {"heading": "Drop ↓", "decimals": 1, "better": "lower", "rewards_brightness": True},
            "equal_area_avg_drop": {
                "heading": "Avg. Drop, equal area ↓", "decimals": 1, "better": "lower", "rewards_brightness": False,
            },
            "pointing_game": {
                "heading": "pointing game ↑", "decimals": 1, "better": "higher", "rewards_brightness": False,
            },
        },
        "rows": [
            {"name": "antehoc", "kind": "model", "scores": {
                "equal_area_avg_drop": {"value": 30.04, "low": 20.0, "high": 40.0, "count": 18},
                "drop_cond": {"value": 12.0, "low": 10.0, "high": 14.0, "count": 18},
                "pointing_game": {"value": None, "low": None, "high": None, "count": 0},
                "map_mean": {"value": 0.4, "low": 0.3, "high": 0.5, "count": 18},
            }},
            {"name": "random", "kind": "control", "scores": {
                "equal_area_avg_drop": {"value": 55.0, "low": 50.0, "high": 60.0, "count": 18},
                "drop_cond": {"value": 2.0, "low": 1.0, "high": 3.0, "count": 18},
                "map_mean": {"value": 0.5, "low": 0.5, "high": 0.5, "count": 18},
            }},
        ],
        "settings": {"area": 0.2, "seed": 3, "level": 0.95},
    },
    "settings": {"output_dir": "/home/jane/outputs", "seed": 7},
    "versions": {"python": "3.11", "torch": "2.15.0"},
}  # fmt: skip


@pytest.fixture(scope="session")
def hub() -> Iterator[LocalHub]:
    """One Hub and one process of each kind for all tests here; repositories differ by name."""
    with LocalHub() as served:
        yield served


@pytest.fixture(scope="session")
def client(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Where the project is installed."""
    home = tmp_path_factory.mktemp("client") / "home"
    made = Client(home, hub.environment(home / "hf"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def stranger(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Where the project is not installed."""
    home = tmp_path_factory.mktemp("stranger") / "home"
    made = Client(home, hub.environment(home / "hf"), "stranger")
    yield made
    made.close()


def save_trained(folder: Path, seed: int = 0) -> Path:
    """What a training leaves behind, with things in it that are nobody's business."""
    torch.manual_seed(seed)
    names = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: index for index, name in enumerate(CLASSES)}}
    model = AnteHocForImageClassification.from_backbone(
        "test_resnet", image_size=64, num_attention_maps=3, map_head="energy", **names
    )
    torch.nn.init.normal_(model.map_head.weight_network.head.weight, std=0.3)  # type: ignore[union-attr,arg-type]
    model.save_pretrained(folder)
    AnteHocImageProcessor.from_backbone("test_resnet", image_size=64).save_pretrained(folder)
    (folder / "results.json").write_text(json.dumps(RESULTS))
    Image.new("RGB", (8, 8)).save(folder / "predictions.png")
    (folder / "checkpoint-3").mkdir()
    for name in ("training_args.bin", "notes.txt", "scratch.py", "checkpoint-3/optimizer.pt", ".env"):
        (folder / name).write_text("hf_secret")
    return folder


_seeds = itertools.count(100)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A trained folder of the test's own, with weights that no Hub has seen."""
    return save_trained(tmp_path / "trained", seed=next(_seeds))
