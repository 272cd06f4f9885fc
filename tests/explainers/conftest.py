"""What the explainers' tests share."""

import pytest
import timm
import torch
from torch import nn

from antehoc_hf import AnteHocForImageClassification


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=4).eval()


@pytest.fixture(scope="module")
def ours() -> nn.Module:
    torch.manual_seed(0)
    return AnteHocForImageClassification.from_backbone("test_resnet", num_labels=4, image_size=64).eval()
