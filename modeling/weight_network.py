"""The weight network: from η soft attention maps to logits, whose softmax over η gives the weight maps."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_antehoc import AnteHocConfig
from .contributions import ContributionNetwork

_MAX_DEPTH = 8


class AutoencoderWeightNetwork(nn.Module):
    """
    Hourglass from η maps to one logit for each map and position ("autoencoder" in the paper describes the shape).

    No batch norm: a map must not depend on what else is in the batch. The last convolution starts at zero, so that
    training starts from equal weights, i.e. from the mean soft attention map. No tap of common backbones is finer than
    half the input, so the network is fed at half resolution, works its way down from there and back up to half of
    that: a sixteenth of the cost of full resolution. Its weights are upsampled afterwards.

    Args:
        num_maps (`int`): η.
        depth (`int`): down-sampling steps.
        width (`int`): channels after the first step, doubled at each further step.
        skip (`bool`): skip connections from the encoder, as in a U-Net.

    Raises:
        ValueError: if `depth` is more than 8.
    """

    def __init__(self, num_maps: int, depth: int, width: int = 16, skip: bool = False) -> None:
        super().__init__()
        if depth > _MAX_DEPTH:
            raise ValueError(
                f"weight_network_depth={depth} is more than {_MAX_DEPTH}: each step halves the maps and doubles the "
                "channels, so that nothing is left of the maps and the memory runs out."
            )
        self.skip = skip
        widths = [num_maps] + [width * 2**step for step in range(depth)]
        self.encoder = nn.ModuleList(
            nn.Conv2d(narrow, wide, kernel_size=3, stride=2, padding=1) for narrow, wide in pairwise(widths)
        )
        self.decoder = nn.ModuleList(
            nn.Conv2d(wide, narrow, kernel_size=3, padding=1) for wide, narrow in pairwise(widths[:0:-1])
        )
        self.head = nn.Conv2d(width, num_maps, kernel_size=3, padding=1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, η, H, W) maps to (B, η, h, w) logits at half their size, for any H and W."""
        if maps.device.type == "cpu":  # convolutions of few channels are faster there with channels side by side
            maps = maps.contiguous(memory_format=torch.channels_last)
        encoded = [maps]
        for convolution in self.encoder:
            encoded.append(F.relu(convolution(encoded[-1])))
        features = encoded.pop()
        for convolution in self.decoder:
            finer = encoded.pop()
            features = F.interpolate(F.relu(convolution(features)), size=finer.shape[-2:], mode="nearest")
            if self.skip:
                features = features + finer
        return self.head(features)


class ScalarWeightNetwork(nn.Module):
    """The paper's ablation: one learned logit a map, the same for every image and pixel."""

    def __init__(self, num_maps: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_maps))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, η, H, W) maps to (B, η, 1, 1) logits."""
        return self.logits.view(1, -1, 1, 1).expand(len(maps), -1, 1, 1)


def build_weight_network(config: AnteHocConfig, head: nn.Module | None) -> nn.Module:
    """
    The weight network named by `AnteHocConfig.weight_network`.

    Args:
        config: of the model.
        head (`nn.Module`, *optional*): the backbone's classifier.
    """
    if config.weight_network == "contributions":
        assert config.tap_channels is not None
        num_classes, weight = config.num_labels or 0, getattr(head, "weight", None)
        linear = isinstance(weight, Tensor) and weight.flatten(1).shape == (num_classes, config.tap_channels[-1])
        return ContributionNetwork(config.tap_channels, num_classes, config.contribution_width, own_classes=not linear)
    assert config.num_attention_maps is not None
    assert isinstance(config.image_size, list)
    if config.weight_network == "scalar":
        return ScalarWeightNetwork(config.num_attention_maps)
    return AutoencoderWeightNetwork(
        config.num_attention_maps,
        depth=config.weight_network_depth or (3 if max(config.image_size) >= 96 else 2),
        width=config.weight_network_width,
        skip=config.weight_network_skip,
    )
