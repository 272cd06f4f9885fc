"""What the tests of the models share."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from antehoc_hf.modeling import AnteHocForImageClassification

sys.path.append(str(Path(__file__).parent))  # tests of this folder share helpers


@pytest.fixture(scope="session")
def build() -> Callable[..., Any]:
    """A small classifier in evaluation mode: `build("test_resnet", num_labels=4, image_size=64, …)`.

    `awake=True` moves the map head away from its start, where nothing has been learned.
    """

    def _build(
        backbone: str = "test_resnet", awake: bool = False, seed: int = 0, kind: Any = None, **config: Any
    ) -> Any:
        torch.manual_seed(seed)
        kind = kind or AnteHocForImageClassification
        model = kind.from_backbone(backbone, **{"num_labels": 4, "image_size": 64, **config})
        if awake:
            for parameter in model.map_head.parameters():
                nn.init.normal_(parameter, std=0.2)
        return model.eval()

    return _build


@pytest.fixture(scope="session")
def build_energy(build: Callable[..., Any]) -> Callable[..., Any]:
    """The same with an energy map."""
    return partial(build, map_head="energy")


@pytest.fixture(params=["contributions", "energy"])
def build_each(build: Callable[..., Any], request: pytest.FixtureRequest) -> Callable[..., Any]:
    """The same with each kind of map in turn."""
    return partial(build, map_head=request.param)


@pytest.fixture(scope="session")
def noise() -> Callable[..., Tensor]:
    """Normalised images of noise: `noise(batch, height, width)`, the same at each call."""

    def _noise(batch: int = 2, height: int = 64, width: int | None = None, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, 3, height, width or height, generator=generator)

    return _noise
