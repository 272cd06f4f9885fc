"""The class-conditional map: what each patch of the image contributes to the probability of each class."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention_maps import has_contrast, stretch
from .resize import resize, resize_small


class ContributionNetwork(nn.Module):
    """
    From the activations of the taps to φ, one number for each class and patch: what the patch contributes.

    It starts from the evidence of the head at each patch (class activation mapping: Zhou et al., "Learning Deep
    Features for Discriminative Localization", CVPR 2016, Eq. 2) and learns what to add to it. What a patch contributes
    depends on all the others, so each layer also sees the mean over all patches. No batch norm: a map must not depend
    on what else is in the batch. The last convolution starts at zero, so that training starts from the evidence alone.

    Args:
        num_channels (`int`): channels of all taps together.
        num_classes (`int`): K.
        width (`int`): channels inside.
        depth (`int`): 3×3 convolutions.
    """

    nothing: Tensor

    def __init__(self, num_channels: int, num_classes: int, width: int = 64, depth: int = 2) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.entry = nn.Conv2d(num_channels, width, kernel_size=1)
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, kernel_size=3, padding=1) for _ in range(depth))
        self.context = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.head = nn.Conv2d(width, num_classes, kernel_size=1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        self.gain = nn.Parameter(torch.full((1,), 0.3))
        # Mean probability of each class where nothing is left of the image, as met in training.
        self.register_buffer("nothing", torch.full((num_classes,), 1 / num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """
        Args:
            features (`Tensor`): (B, C + K, g, w) of [`contribution_features`]: the taps, and the head's evidence.

        Returns:
            `Tensor`: (B, K, g, w), in units of probability, before [`efficient`] fixes their sum.
        """
        channels = features.shape[1] - self.num_classes
        activations, evidence = features[:, :channels], features[:, channels:]
        hidden = F.relu(self.entry(activations))
        for convolution, context in zip(self.convolutions, self.context, strict=True):
            hidden = hidden + context(hidden.mean(dim=(2, 3)))[:, :, None, None]
            hidden = hidden + F.relu(convolution(hidden))
        patches = features.shape[-2] * features.shape[-1]
        return (self.gain.view(1, 1, 1, 1) * evidence + self.head(hidden)) / patches


def patch_grid(size: tuple[int, int], patches: int) -> tuple[int, int]:
    """Rows and columns of an image of this height and width with so many patches along its shorter side."""
    shorter = min(size)
    return round(patches * size[0] / shorter), round(patches * size[1] / shorter)


def on_grid(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """
    A layer's activations (B, C, h, w) on the grid of patches, (B, C, g, w) float32: the mean over each patch, or
    interpolated bilinearly; divided by their root mean square over the image.
    """
    height, width = features.shape[-2:]
    if (height, width) == grid:
        return _scaled(features)
    if height % grid[0] == 0 and width % grid[1] == 0:
        return _scaled(F.avg_pool2d(features, (height // grid[0], width // grid[1])))
    if height > grid[0] and width > grid[1]:
        return _scaled(F.interpolate(features, size=grid, mode="bilinear", align_corners=False, antialias=True))
    return resize_small(_scaled(features), grid)


def _scaled(features: Tensor) -> Tensor:
    features = features.float()
    norm = torch.linalg.vector_norm(features, dim=(1, 2, 3), keepdim=True)
    numbers = features.shape[1] * features.shape[2] * features.shape[3]
    return features * (numbers**0.5 / norm.clamp_min(1e-6))


def contribution_features(taps: list[Tensor], head: nn.Module | None, num_classes: int) -> Tensor:
    """
    What the contribution network sees of an image.

    Args:
        taps (`list[Tensor]`): η activations of [`on_grid`], (B, C_n, g, w); the last one is what the head pools, where
            it is a linear layer of as many channels.
        head (`nn.Module`, *optional*): the backbone's classifier.
        num_classes (`int`): K.

    Returns:
        `Tensor`: (B, Σ C_n + K, g, w), float32: the taps, and the head's evidence for each class at each patch,
            centred over the patches and divided by its standard deviation over classes and patches; zeros where the
            head is of another kind.
    """
    weight = getattr(head, "weight", None)
    if isinstance(weight, Tensor) and weight.flatten(1).shape == (num_classes, taps[-1].shape[1]):
        evidence = F.conv2d(taps[-1], weight.detach().float().flatten(1)[:, :, None, None])
        evidence = evidence - evidence.mean(dim=(2, 3), keepdim=True)
        evidence = evidence * torch.rsqrt(evidence.square().mean(dim=(1, 2, 3), keepdim=True) + 1e-12)
    else:
        evidence = taps[0].new_zeros(taps[0].shape[0], num_classes, *taps[0].shape[-2:])
    return torch.cat([*taps, evidence], dim=1)


def efficient(contributions: Tensor, total: Tensor) -> Tensor:
    """
    Contributions that sum to what there is to share, the same correction for every patch.

    Source: Ruiz, Valenciano, Zarzuelo, "The family of least square values for transferable utility games", Games and
    Economic Behavior, 1998; used for networks by Jethani et al., "FastSHAP", ICLR 2022, Eq. 5.

    Args:
        contributions (`Tensor`): (B, K, g, w).
        total (`Tensor`): (B, K), v(image) − v(nothing).

    Returns:
        `Tensor`: (B, K, g, w), of sum `total` over the patches.
    """
    patches = contributions.shape[-2] * contributions.shape[-1]
    missing = total - contributions.sum(dim=(2, 3))
    return contributions + (missing / patches)[:, :, None, None]


def class_map(contributions: Tensor, classes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """
    The map of one class an image.

    Args:
        contributions (`Tensor`): (B, K, g, w).
        classes (`Tensor`): (B,) indices.
        size (`tuple[int, int]`): height and width H, W of the input.

    Returns:
        `tuple[Tensor, Tensor]`: the contributions to that class, (B, 1, H, W) float32 stretched to [0, 1] (0: the
            patch that speaks most against the class), and (B,) bool, true where a map shows nothing.
    """
    index = classes.view(-1, 1, 1, 1).expand(-1, 1, *contributions.shape[-2:])
    maps = resize(contributions.float().gather(1, index), size)
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    shows_something = has_contrast(low, high)
    return torch.where(shows_something, stretch(maps, low, high), torch.zeros_like(maps)), ~shows_something.flatten()
