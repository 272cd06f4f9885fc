"""The energy map, the paper's: soft attention maps of the taps, weighted and summed."""

from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .map_head import Explanation, MapHeadConfig, Predict, Size, Targets, check_tap_values
from .scaling import full_precision, has_contrast, minmax, resize, shrink, stretch

if TYPE_CHECKING:
    from .configuration_antehoc import AnteHocConfig

_MAX_DEPTH = 8


class EnergyMapConfig(MapHeadConfig):
    r"""Options of an [`EnergyMap`]: one for every reading of the paper that changes the result. The degenerate reading
    (softmax over channels, then their mean, is the constant 1/C) is not offered.

    > Parameters that define the soft attention maps

    Args:
        channel_reduction (`str`, *optional*, defaults to `"mean"`):
            `"mean"`, `"max"`, `"l2"` or `"sum"` over channels, with `attention_softmax="spatial"`.
        attention_softmax (`str`, *optional*, defaults to `"spatial"`):
            `"spatial"`: reduce channels, softmax over positions. `"per_channel"`: softmax over positions for each
            channel, then mean. `"joint"`: softmax over channels and positions, then sum over channels.
            `"channels"`: softmax over channels, then their maximum.
        attention_resize (`str`, *optional*, defaults to `"renormalized"`):
            `"renormalized"`: softmax on the layer's own grid, resize, divide by the sum. `"literal"`: the same
            without dividing. `"resize_first"`: resize, then softmax (with `"spatial"` only).
        attention_scaling (`str`, *optional*, defaults to `"none"`):
            `"minmax"` stretches each soft attention map to [0, 1] before it is weighted.

    > Parameters that define the weight network and the interpretation map

    Args:
        weight_network (`str`, *optional*, defaults to `"autoencoder"`):
            `"autoencoder"`: one weight for each map and pixel. `"scalar"`: one learned weight a map (ablation).
        weight_network_input (`str`, *optional*, defaults to `"conditioned"`):
            `"conditioned"` stretches every map to [0, 1] for the network; `"raw"` feeds values around 1/(H·W).
        weight_network_depth (`int`, *optional*):
            Down-sampling steps. Defaults to 3 for models of images from 96 pixels up, else 2, and is kept.
        weight_network_width (`int`, *optional*, defaults to 16): Channels after the first step; doubled each step.
        weight_network_stride (`int`, *optional*, defaults to 2):
            By how much the maps are averaged before they enter the network.
        weight_network_skip (`bool`, *optional*, defaults to `False`): Skip connections, as in a U-Net.
        map_scaling (`str`, *optional*, defaults to `"minmax"`):
            `"minmax"`: to [0, 1] for each image. `"max"`: divide by the maximum. `"area"`: times H·W (mean 1, may
            exceed 1). `"none"`: as it is (about 1/(H·W)).
        mask_space (`str`, *optional*, defaults to `"pixel"`):
            Where image ⊙ map is taken: on `"pixel"` values (0 is black) or on the `"normalized"` tensor (0 is the
            mean colour).

    Raises:
        ValueError: for a value that makes no sense.
    """

    model_type = "antehoc_energy_map"
    kind: ClassVar[str] = "energy"
    objective: ClassVar[str] = "energy"
    # Of each option the allowed values, the default first.
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "channel_reduction": ("mean", "max", "l2", "sum"),
        "attention_softmax": ("spatial", "per_channel", "joint", "channels"),
        "attention_resize": ("renormalized", "literal", "resize_first"),
        "attention_scaling": ("none", "minmax"),
        "weight_network": ("autoencoder", "scalar"),
        "weight_network_input": ("conditioned", "raw"),
        "map_scaling": ("minmax", "max", "area", "none"),
        "mask_space": ("pixel", "normalized"),
    }
    counts: ClassVar[tuple[str, ...]] = ("weight_network_width", "weight_network_stride")

    channel_reduction: str = "mean"
    attention_softmax: str = "spatial"
    attention_resize: str = "renormalized"
    attention_scaling: str = "none"
    weight_network: str = "autoencoder"
    weight_network_input: str = "conditioned"
    weight_network_depth: int | None = None
    weight_network_width: int = 16
    weight_network_stride: int = 2
    weight_network_skip: bool = False
    map_scaling: str = "minmax"
    mask_space: str = "pixel"

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        depth = self.weight_network_depth
        if depth is not None and not (isinstance(depth, int) and not isinstance(depth, bool) and depth >= 1):
            raise ValueError(f"weight_network_depth={depth!r} must be a whole number of at least 1.")
        if depth is not None and depth > _MAX_DEPTH:
            raise ValueError(
                f"weight_network_depth={depth} is more than {_MAX_DEPTH}: each step halves the maps and doubles the "
                "channels, so that nothing is left of the maps and the memory runs out."
            )
        if not isinstance(self.weight_network_skip, bool):
            raise ValueError(f"weight_network_skip={self.weight_network_skip!r} must be true or false.")
        if self.attention_resize == "resize_first" and self.attention_softmax != "spatial":
            raise ValueError("attention_resize='resize_first' is defined for attention_softmax='spatial' only.")

    def fit(self, config: "AnteHocConfig") -> None:
        """Settles the depth, which depends on the size that the model is made for and not on later ones."""
        if self.weight_network_depth is None:
            self.weight_network_depth = 3 if max(config.image_size) >= 96 else 2

    def build(self, config: "AnteHocConfig", classifier: nn.Module | None) -> "EnergyMap":
        """A new head."""
        assert config.num_attention_maps is not None
        return EnergyMap(self, config.num_attention_maps)


class EnergyMap(nn.Module):
    """One map an image: I_map = Σ_n WM_n ⊙ SAM_n (Eq. 1), soft attention maps SAM weighted pixel by pixel.

    Source: Guna R T, Benitez, Sikha, "Ante-Hoc Generation of Task-Agnostic Interpretation Maps", CVPR workshops
    (XAI4CV) 2023.

    Args:
        options (`EnergyMapConfig`): with its depth settled, see [`EnergyMapConfig.fit`].
        num_maps (`int`): η.
    """

    per_target = False

    def __init__(self, options: EnergyMapConfig, num_maps: int) -> None:
        super().__init__()
        self.options, self.num_maps = options, num_maps
        self.weight_network: nn.Module
        if options.weight_network == "scalar":
            self.weight_network = ScalarWeightNetwork(num_maps)
        else:
            assert options.weight_network_depth is not None
            self.weight_network = AutoencoderWeightNetwork(
                num_maps, options.weight_network_depth, options.weight_network_width, options.weight_network_skip
            )

    @property
    def mask_space(self) -> str:
        """Where image ⊙ map is taken."""
        return self.options.mask_space

    def keep(self, features: Tensor, size: Size) -> Tensor:
        """The attention of one tap at its own resolution, see [`channel_attention`]."""
        return channel_attention(features.detach(), self.options.channel_reduction, self.options.attention_softmax)

    def combine(self, kept: list[Tensor], size: Size) -> Tensor:
        """The soft attention maps, (B, η, H, W) float32."""
        with torch.no_grad(), full_precision(kept[0]):
            return soft_attention_maps(kept, size, self.options.attention_softmax, self.options.attention_resize)

    def check(self, tap_values: Tensor) -> None:
        """See [`check_tap_values`]."""
        check_tap_values(tap_values, self.num_maps, f"{self.num_maps} soft attention maps an image, ")

    def network_input(self, soft_attention_maps: Tensor) -> Tensor:
        """What the weight network sees of the (B, η, H, W) maps: averaged to 1/`weight_network_stride` of the size,
        and each stretched to [0, 1] or left as it is (`"raw"`).
        """
        maps = shrink(soft_attention_maps, self.options.weight_network_stride)
        return maps if self.options.weight_network_input == "raw" else minmax(maps)

    def forward(
        self, tap_values: Tensor, size: Size, targets: Targets | None = None, detailed: bool = False
    ) -> Explanation:
        """Weights the soft attention maps and sums them to the interpretation map (Eq. 1).

        Args:
            tap_values (`Tensor`): the soft attention maps, (B, η, H, W), float32.
            size, targets, detailed: make no difference here.
        """
        dtype = next(self.weight_network.parameters()).dtype
        logits = self.weight_network(self.network_input(tap_values).to(dtype))
        with full_precision(tap_values):
            weights = weight_maps(logits.float(), (tap_values.shape[-2], tap_values.shape[-1]))
            map_, degenerate = interpretation_map(
                tap_values, weights, self.options.attention_scaling, self.options.map_scaling
            )
        return Explanation(
            interpretation_map=map_,
            degenerate=degenerate,
            soft_attention_maps=tap_values,
            weight_maps=weights,
            weight_logits=logits,
        )

    def second_pass(
        self, tap_values: Tensor, size: Size, targets: Targets | None, predict_masked: Predict
    ) -> tuple[Any, Explanation]:
        """The prediction on the energy map, and the explanation."""
        explained = self(tap_values, size)
        return predict_masked(explained.interpretation_map), explained


class AutoencoderWeightNetwork(nn.Module):
    """Hourglass from η maps to one logit for each map and position ("autoencoder" in the paper describes the shape).

    No batch norm: a map must not depend on what else is in the batch. The last convolution starts at zero, so that
    training starts from equal weights, i.e. from the mean soft attention map. No tap of common backbones is finer than
    half the input, so the network is fed at half resolution, works its way down from there and back up to half of
    that: a sixteenth of the cost of full resolution. Its weights are upsampled afterwards.

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


def channel_attention(features: Tensor, reduction: str, softmax: str) -> Tensor:
    """The channels of one layer as a single map on the layer's own grid.

    The sum of Eq. 1 over layers of different width forces a single map a layer. For `softmax="spatial"` the softmax
    itself is left to [`soft_attention_maps`], so that it can be taken before or after resizing.

    Args:
        features (`Tensor`): activations, (B, C, h, w).
        reduction (`str`): `"mean"`, `"max"`, `"l2"` or `"sum"`, used with `softmax="spatial"`.
        softmax (`str`): reading of the softmax's axis, see `attention_softmax` of [`EnergyMapConfig`].

    Returns:
        `Tensor`: (B, h, w) scores for `"spatial"`, probabilities for the other readings, in float32.
    """
    if softmax == "spatial":
        return _reduce(features, reduction)
    features = features.float()
    if softmax == "per_channel":
        return features.flatten(2).softmax(dim=2).mean(dim=1).unflatten(1, features.shape[2:])
    if softmax == "joint":
        joint = features.flatten(1).softmax(dim=1)
        return joint.unflatten(1, features.shape[1:]).sum(dim=1)
    return features.softmax(dim=1).amax(dim=1)  # "channels"


def _reduce(features: Tensor, reduction: str) -> Tensor:
    # Half-precision features are added up in float32: their sum may exceed float16, and bfloat16 would round the map.
    if reduction == "mean":
        return features.mean(dim=1, dtype=torch.float32)
    if reduction == "sum":
        return features.sum(dim=1, dtype=torch.float32)
    if reduction == "max":
        return features.amax(dim=1).float()
    return features.float().square().sum(dim=1).sqrt()  # "l2"


def soft_attention_maps(
    attentions: list[Tensor], size: tuple[int, int], softmax: str = "spatial", resizing: str = "renormalized"
) -> Tensor:
    """Soft attention maps at input size, SAM_n = Resize(Softmax(F_n)).

    A layer's softmax has mean 1/(h·w): without renormalising after the resize, a 4×4 layer is 256 times as bright as
    a 64×64 one and wins every convex combination by that alone; hence the default.

    Args:
        attentions (`list[Tensor]`): η maps (B, h_n, w_n) of [`channel_attention`].
        size (`tuple[int, int]`): height and width H, W of the input.
        softmax, resizing (`str`): see `attention_softmax` and `attention_resize` of [`EnergyMapConfig`].

    Returns:
        `Tensor`: (B, η, H, W), float32, each map non-negative and, unless `resizing="literal"`, of sum 1.
    """
    maps = []
    for _, same_grid in groupby(attentions, key=lambda attention: attention.shape):
        together = torch.stack(list(same_grid), dim=1)
        if softmax == "spatial" and resizing != "resize_first":
            together = together.flatten(2).softmax(dim=2).unflatten(2, together.shape[2:])
        maps.append(resize(together, size))
    stacked = torch.cat(maps, dim=1)
    del maps  # in training this is where memory peaks: the first pass's graph is still alive
    if resizing == "resize_first":
        return stacked.flatten(2).softmax(dim=2).unflatten(2, size)
    if resizing == "literal":
        return stacked
    mass = stacked.sum(dim=(2, 3), keepdim=True)
    return stacked / mass if stacked.requires_grad else stacked.div_(mass)


def weight_maps(weight_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Softmax over the η maps at each position, upsampled bilinearly: averages of weights still sum to 1 at every
    pixel.

    Args:
        weight_logits (`Tensor`): (B, η, h, w), of the weight network.
        size (`tuple[int, int]`): height and width H, W of the input.

    Returns:
        `Tensor`: (B, η, H, W), non-negative, summing to 1 over η.
    """
    weights = weight_logits.softmax(dim=1)
    if weights.shape[-2:] == (1, 1):
        return weights.expand(-1, -1, *size)
    return resize(weights, size)


def interpretation_map(
    soft_attention_maps: Tensor, weight_maps: Tensor, attention_scaling: str = "none", map_scaling: str = "minmax"
) -> tuple[Tensor, Tensor]:
    """I_map = Σ_n WM_n ⊙ SAM_n (Eq. 1), scaled.

    Without rescaling the map's mean is 1/(H·W): the energy map would be black and the paper's threshold of 0.8 could
    not be reached. `"max"` and `"area"` admit the trivial near-constant map; min-max forces full contrast.

    Args:
        soft_attention_maps (`Tensor`): (B, η, H, W), each of sum 1.
        weight_maps (`Tensor`): (B, η, H, W), summing to 1 over η.
        attention_scaling, map_scaling (`str`): see [`EnergyMapConfig`].

    Returns:
        `tuple[Tensor, Tensor]`: the map (B, 1, H, W) float32 in [0, 1] (with `map_scaling="area"` its mean is 1), and
        (B,) bool, true where a map shows nothing: constant or not finite, in which case it is set to zero.
    """
    maps = minmax(soft_attention_maps) if attention_scaling == "minmax" else soft_attention_maps
    area = maps.shape[-2] * maps.shape[-1]
    combined = (weight_maps * maps).sum(dim=1, keepdim=True)
    low = combined.amin(dim=(2, 3), keepdim=True)
    high = combined.amax(dim=(2, 3), keepdim=True)
    shows_something = has_contrast(low, high)
    if map_scaling == "minmax":
        scaled = stretch(combined, low, high)
    elif map_scaling == "max":
        scaled = combined / high.clamp_min(torch.finfo(combined.dtype).tiny)
    elif map_scaling == "area":
        scaled = combined * area
    else:
        scaled = combined
    # `where` and not a product, since 0 · NaN is NaN.
    keep = shows_something if map_scaling == "minmax" else torch.isfinite(high)
    return torch.where(keep, scaled, torch.zeros_like(scaled)), ~shows_something.flatten()
