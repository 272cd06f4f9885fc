"""The class-conditional map: what each patch of the image contributes to the probability of each class."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention_maps import full_precision, has_contrast, stretch
from .resize import block_mean, resize, resize_small


class ContributionNetwork(nn.Module):
    """
    From the activations of the taps to φ, one number for each class and patch: what the patch contributes.

    φ of class k is what the head reads at the patch, weighted as the head weighs it for that class, each feature
    gated by what the layers before say of the patch: φ_k = w_k · (f ⊙ (γ + s)). With one gate γ for all it is class
    activation mapping (Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, Eq. 2); the
    gates s start at 0 and are learned. All evidence passes through the last layer's features and the head's weights:
    where these know nothing, the map says nothing. What a patch contributes depends on all the others, so each layer
    also sees the mean over all patches. No batch norm: a map must not depend on what else is in the batch.

    Args:
        tap_channels (`list[int]`): channels C_n of the η taps, the one that the head pools last.
        num_classes (`int`): K.
        width (`int`): channels inside.
        own_classes (`bool`): learn the vectors w_k, for heads of which there are none.
        depth (`int`): 3×3 convolutions.
    """

    nothing: Tensor

    def __init__(
        self, tap_channels: list[int], num_classes: int, width: int = 64, own_classes: bool = False, depth: int = 2
    ) -> None:
        super().__init__()
        self.entry = nn.Conv2d(sum(tap_channels), width, kernel_size=1)
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, kernel_size=3, padding=1) for _ in range(depth))
        self.context = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.gates = nn.Conv2d(width, tap_channels[-1], kernel_size=1)
        for parameter in self.gates.parameters():
            nn.init.zeros_(parameter)
        self.gain = nn.Parameter(torch.full((1,), 0.3))
        vectors = torch.randn(num_classes, tap_channels[-1]) / tap_channels[-1] ** 0.5
        self.class_vectors = nn.Parameter(vectors) if own_classes else None
        # Mean probability of each class where nothing is left of the image, as met in training.
        self.register_buffer("nothing", torch.full((num_classes,), 1 / num_classes))

    def forward(self, features: Tensor, vectors: Tensor) -> Tensor:
        """
        Args:
            features (`Tensor`): (B, Σ C_n, g, w), the taps on the grid of patches, see [`on_grid`].
            vectors (`Tensor`): w of all classes, (K, C_η), or of the one class of each image to tell of,
                (B, 1, C_η): of [`scaled_vectors`], or its own.

        Returns:
            `Tensor`: (B, K, g, w), or (B, 1, g, w), float32, in units of probability, before [`efficient`] fixes
                their sum.
        """
        hidden = F.relu(self.entry(features))
        for convolution, context in zip(self.convolutions, self.context, strict=True):
            hidden = hidden + context(hidden.mean(dim=(2, 3)))[:, :, None, None]
            hidden = hidden + F.relu(convolution(hidden))
        assert self.gates.bias is not None
        read = features[:, -vectors.shape[-1] :]
        evidence = read * F.conv2d(hidden, self.gates.weight, self.gates.bias + self.gain)
        patches = features.shape[-2:]
        # A product of matrices: a 1×1 convolution takes several times as long on a CPU. In float32, since what all
        # patches have in common cancels in the end.
        with full_precision(evidence):
            contributions = vectors.float() @ evidence.flatten(2).float()
        return contributions.unflatten(2, patches) / patches.numel()


def scaled_vectors(weight: Tensor, exclusive: bool, classes: Tensor | None = None) -> Tensor:
    """
    The head's weights as the contribution network takes them.

    Args:
        weight (`Tensor`): (K, C).
        exclusive (`bool`): the classes share one probability (softmax), which what they have in common does not
            change: it is taken out, and so φ sums to 0 over the classes.
        classes (`Tensor`, *optional*): (B,), those asked for; None: all.

    Returns:
        `Tensor`: (K, C) or (B, C) float32; the rows of all K classes have length 1 in the root mean square.
    """
    weight = weight.float()
    common = weight.mean(dim=0) if exclusive else weight.new_zeros(())
    # Σ|w_k − w̄|² = Σ|w_k|² − K|w̄|²: the head of many classes is read, and not copied for the one that is asked for.
    squared_length = torch.linalg.vector_norm(weight).square() - len(weight) * common.square().sum()
    wanted = weight if classes is None else weight[classes]
    return (wanted - common) * torch.rsqrt((squared_length / len(weight)).clamp_min(0) + 1e-12)


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
        return _scaled(block_mean(features, (height // grid[0], width // grid[1])))
    if height > grid[0] and width > grid[1]:
        return _scaled(F.interpolate(features, size=grid, mode="bilinear", align_corners=False, antialias=True))
    return resize_small(_scaled(features), grid)


def _scaled(features: Tensor) -> Tensor:
    features = features.float()
    norm = torch.linalg.vector_norm(features, dim=(1, 2, 3), keepdim=True)
    numbers = features.shape[1] * features.shape[2] * features.shape[3]
    return features * (numbers**0.5 / norm.clamp_min(1e-6))


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


def class_map(contributions: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """
    The map of one class an image.

    Args:
        contributions (`Tensor`): (B, 1, g, w), to that class.
        size (`tuple[int, int]`): height and width H, W of the input.

    Returns:
        `tuple[Tensor, Tensor]`: the contributions, (B, 1, H, W) float32 stretched to [0, 1] (0: the patch that speaks
            most against the class), and (B,) bool, true where a map shows nothing.
    """
    maps = resize(contributions.float(), size)
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    shows_something = has_contrast(low, high)
    return torch.where(shows_something, stretch(maps, low, high), torch.zeros_like(maps)), ~shows_something.flatten()


def of_class(contributions: Tensor, classes: Tensor) -> Tensor:
    """Of contributions (B, K, g, w) those to one class an image, (B,): (B, 1, g, w)."""
    return contributions.gather(1, classes.view(-1, 1, 1, 1).expand(-1, 1, *contributions.shape[-2:]))
