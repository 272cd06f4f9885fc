"""The weight network: from η soft attention maps to η weight maps that sum to 1 at every pixel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AutoencoderWeightNetwork(nn.Module):
    """
    Hourglass from η maps to one logit for each map and pixel ("autoencoder" in the paper describes the shape).

    No batch norm: a map must not depend on what else is in the batch. The last convolution starts at zero, so that
    training starts from equal weights, i.e. from the mean soft attention map. It works at half resolution, where
    the finest taps of common backbones are, and the logits are upsampled bilinearly: a quarter of the cost.

    Args:
        num_maps (`int`): η.
        depth (`int`): down-sampling steps.
        width (`int`): channels after the first step, doubled at each further step.
        skip (`bool`): skip connections from the encoder, as in a U-Net.
    """

    def __init__(self, num_maps: int, depth: int, width: int = 16, skip: bool = False) -> None:
        super().__init__()
        self.skip = skip
        widths = [num_maps] + [width * 2**step for step in range(depth)]
        self.encoder = nn.ModuleList(
            nn.Conv2d(narrow, wide, kernel_size=3, stride=2, padding=1)
            for narrow, wide in zip(widths[:-1], widths[1:], strict=True)
        )
        self.decoder = nn.ModuleList(
            nn.Conv2d(wide, narrow, kernel_size=3, padding=1)
            for wide, narrow in zip(widths[:1:-1], widths[-2:0:-1], strict=True)
        )
        self.head = nn.Conv2d(width, num_maps, kernel_size=3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, η, H, W) maps to (B, η, H, W) logits, for any H and W."""
        encoded = [maps]
        for convolution in self.encoder:
            encoded.append(F.relu(convolution(encoded[-1])))
        features = encoded.pop()
        for convolution in self.decoder:
            finer = encoded.pop()
            features = F.interpolate(F.relu(convolution(features)), size=finer.shape[-2:], mode="nearest")
            if self.skip:
                features = features + finer
        return F.interpolate(self.head(features), size=maps.shape[-2:], mode="bilinear", align_corners=False)


class ScalarWeightNetwork(nn.Module):
    """The paper's ablation: one learned logit a map, the same for every image and pixel."""

    def __init__(self, num_maps: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_maps))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, η, H, W) maps to (B, η, H, W) logits."""
        return self.logits.view(1, -1, 1, 1).expand_as(maps)


def build_weight_network(kind: str, num_maps: int, depth: int, width: int, skip: bool) -> nn.Module:
    """The weight network named by `AnteHocConfig.weight_network`."""
    if kind == "scalar":
        return ScalarWeightNetwork(num_maps)
    return AutoencoderWeightNetwork(num_maps, depth=depth, width=width, skip=skip)
