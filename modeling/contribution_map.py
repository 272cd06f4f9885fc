"""The contribution map: what each patch of the image contributes to the worth of each target."""

from dataclasses import field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .map_head import Explanation, MapHeadConfig, Predict, Size, Targets
from .scaling import block_mean, full_precision, has_contrast, resize, resize_small, stretch

if TYPE_CHECKING:
    from .configuration_antehoc import AnteHocConfig


class ContributionMapConfig(MapHeadConfig):
    r"""
    Options of a [`ContributionMap`].

    Args:
        grid (`int`, *optional*, defaults to 8): Patches along the image's shorter side.
        width (`int`, *optional*, defaults to 64): Channels inside the network.

    Raises:
        ValueError: for a value that makes no sense, or a task that this kind of map cannot explain.
    """

    model_type = "antehoc_contribution_map"
    kind: ClassVar[str] = "contributions"
    objective: ClassVar[str] = "coalitions"
    per_target: ClassVar[bool] = True
    counts: ClassVar[tuple[str, ...]] = ("grid", "width")

    grid: int = field(
        default=8, metadata={"help": "Patches along the image's shorter side.", "flag": "contribution_grid"}
    )
    width: int = 64

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.grid < 2:
            raise ValueError("grid=1 is a single patch, which says nothing about where: use at least 2.")

    def fit(self, config: "AnteHocConfig") -> None:
        """Only the probabilities of two or more classes can be shared out among patches."""
        if not config.has_classes:
            raise ValueError(
                "map_head='contributions' explains the probabilities of classes, which regression (num_labels=1 is "
                "one), landmarks and captions do not have: use map_head='energy'."
            )
        if config.num_labels == 1:
            raise ValueError("map_head='contributions' explains classes: num_labels must be at least 2.")

    def build(self, config: "AnteHocConfig", classifier: nn.Module | None) -> "ContributionMap":
        """A new head; it learns the classes' vectors itself where the classifier is not linear on the last tap."""
        assert config.tap_channels is not None
        num_targets, weight = config.num_labels or 0, getattr(classifier, "weight", None)
        linear = isinstance(weight, Tensor) and weight.flatten(1).shape == (num_targets, config.tap_channels[-1])
        return ContributionMap(config.tap_channels, num_targets, self.width, own_vectors=not linear, grid=self.grid)


class ContributionMap(nn.Module):
    """
    From the activations of the taps to φ, one number for each target and patch: what the patch contributes.

    φ of target k is what the head reads at the patch, weighted as the head weighs it for that target, each feature
    gated by what the earlier layers say of the patch: φ_k = w_k · (f ⊙ (γ + s)). With one gate γ for all it is class
    activation mapping (Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, Eq. 2); the
    gates s start at 0 and are learned. All evidence passes through the last layer's features and the head's weights:
    where these know nothing, the map says nothing. What a patch contributes depends on all the others, so each layer
    also sees the mean over all patches. No batch norm: a map must not depend on what else is in the batch.

    Args:
        tap_channels (`list[int]`): channels C_n of the η taps, the one that the head pools last.
        num_targets (`int`): K.
        width (`int`): channels inside.
        own_vectors (`bool`): learn the vectors w_k, for networks whose head has none.
        depth (`int`): 3×3 convolutions.
        grid (`int`): patches along the image's shorter side.
    """

    per_target = True
    mask_space = "pixel"
    baseline_worth: Tensor

    def __init__(
        self,
        tap_channels: list[int],
        num_targets: int,
        width: int = 64,
        own_vectors: bool = False,
        depth: int = 2,
        grid: int = 8,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.entry = nn.Conv2d(sum(tap_channels), width, kernel_size=1)
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, kernel_size=3, padding=1) for _ in range(depth))
        self.context = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.gates = nn.Conv2d(width, tap_channels[-1], kernel_size=1)
        for parameter in self.gates.parameters():
            nn.init.zeros_(parameter)
        self.gain = nn.Parameter(torch.full((1,), 0.3))
        vectors = torch.randn(num_targets, tap_channels[-1]) / tap_channels[-1] ** 0.5
        self.own_vectors = nn.Parameter(vectors) if own_vectors else None
        # Mean worth to each target of images of which nothing is left, as met in training.
        self.register_buffer("baseline_worth", torch.full((num_targets,), 1 / num_targets))

    def keep(self, features: Tensor, size: Size) -> Tensor:
        """One tap's activations (B, C, h, w) on the grid of patches, (B, C, g, w) float32."""
        return on_grid(features.detach(), patch_grid(size, self.grid))

    def combine(self, kept: list[Tensor], size: Size) -> Tensor:
        """(B, Σ C_n, g, w) float32."""
        return torch.cat(kept, dim=1)

    def check(self, tap_values: Tensor) -> None:
        """
        Raises:
            ValueError: if they have another number of channels.
        """
        if tap_values.ndim != 4 or tap_values.shape[1] != self.entry.in_channels:
            raise ValueError(
                f"tap_values must be (batch, {self.entry.in_channels}, rows, columns), not {tuple(tap_values.shape)}."
            )

    def forward(
        self, tap_values: Tensor, size: Size, targets: Targets | None = None, detailed: bool = False
    ) -> Explanation:
        """
        The map of the chosen target of each image; with `detailed` also the contributions to all targets.

        Args:
            tap_values (`Tensor`): (B, Σ C_n, g, w), see [`combine`].
            size (`tuple[int, int]`): height and width H, W of the images.
            targets (`Targets`): of the prediction.
        """
        assert targets is not None
        chosen, to_share = targets.chosen, targets.worth
        contributions = self.contributions(tap_values, targets, of_all=detailed)
        with full_precision(tap_values):
            to_share = to_share - self.baseline_worth.float()
            if not detailed:
                to_share = to_share.gather(1, chosen[:, None])
            contributions = with_total(contributions, to_share)
            of_chosen = of_target(contributions, chosen) if detailed else contributions
            map_, degenerate = contribution_map(of_chosen, size)
        return Explanation(
            interpretation_map=map_, degenerate=degenerate, contributions=contributions if detailed else None
        )

    def second_pass(
        self, tap_values: Tensor, size: Size, targets: Targets | None, predict_masked: Predict
    ) -> tuple[None, Explanation]:
        """No prediction; the contributions to all targets, before their sum is fixed."""
        assert targets is not None
        return None, Explanation(contributions=self.contributions(tap_values, targets, of_all=True))

    def contributions(self, tap_values: Tensor, targets: Targets, of_all: bool) -> Tensor:
        """
        φ before [`with_total`] fixes its sum, in units of worth.

        Returns:
            `Tensor`: (B, K, g, w), or with `of_all=False` of the chosen target alone, (B, 1, g, w), float32.
        """
        dtype = self.entry.weight.dtype
        chosen = None if of_all else targets.chosen
        if self.own_vectors is not None:
            vectors = self.own_vectors if chosen is None else self.own_vectors[chosen]
        else:  # the model's own head, which learns nothing here
            assert targets.vectors is not None
            vectors = scaled_vectors(targets.vectors.detach().flatten(1), targets.exclusive, chosen).to(dtype)
        return self._gated_evidence(tap_values.to(dtype), vectors if chosen is None else vectors.unsqueeze(1))

    def _gated_evidence(self, features: Tensor, vectors: Tensor) -> Tensor:
        """φ of vectors (K, C_η), or (B, 1, C_η) for one target an image."""
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
        classes (`Tensor`, *optional*): (B,), the ones asked for; None: all.

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


def with_total(contributions: Tensor, total: Tensor) -> Tensor:
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


def contribution_map(contributions: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """
    The map of one target an image.

    Args:
        contributions (`Tensor`): (B, 1, g, w), to that target.
        size (`tuple[int, int]`): height and width H, W of the input.

    Returns:
        `tuple[Tensor, Tensor]`: the contributions, (B, 1, H, W) float32 stretched to [0, 1] (0: the patch that speaks
            most against the target), and (B,) bool, true where a map shows nothing.
    """
    maps = resize(contributions.float(), size)
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    shows_something = has_contrast(low, high)
    return torch.where(shows_something, stretch(maps, low, high), torch.zeros_like(maps)), ~shows_something.flatten()


def of_target(contributions: Tensor, targets: Tensor) -> Tensor:
    """Of contributions (B, K, g, w) those to one target an image, (B,): (B, 1, g, w)."""
    return contributions.gather(1, targets.view(-1, 1, 1, 1).expand(-1, 1, *contributions.shape[-2:]))
