"""The seam between a model and its map: what a map head reads at the taps, what it is given, what it returns."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers import __version__ as transformers_version
from transformers.utils import ModelOutput

from .scaling import contribution_map, full_precision

if TYPE_CHECKING:
    from .configuration_antehoc import AnteHocConfig


@dataclass
class Explanation(ModelOutput):
    """A map and what it was made from. Every head fills the first two; the others are extras of some heads.

    Args:
        interpretation_map (`Tensor`): (B, 1, H, W), float32 in [0, 1], at input size.
        degenerate (`Tensor`): (B,), bool; true where the map shows nothing (constant or not finite).
        soft_attention_maps (`Tensor`, *optional*): (B, η, H, W), float32, each of sum 1.
        weight_maps (`Tensor`, *optional*): (B, η, H, W), float32, summing to 1 over η.
        weight_logits (`Tensor`, *optional*): (B, η, h, w), the weight network's output, on its own grid.
        contributions (`Tensor`, *optional*): (B, K, g, w), what each patch contributes to each target.
        tap_values (`Tensor`, *optional*): what the head has kept of the taps; from the first pass of training.
    """

    interpretation_map: Tensor | None = None
    degenerate: Tensor | None = None
    soft_attention_maps: Tensor | None = None
    weight_maps: Tensor | None = None
    weight_logits: Tensor | None = None
    contributions: Tensor | None = None
    tap_values: Tensor | None = None


MOST = 1_000_000  # classes, words or points, beyond which a number is a slip and memory runs out
MOST_CHANNELS = 4096  # of a map head; also of its patches
# What an output always says of its map, what it says on request, and what the passes of training hand to each other.
MAP_FIELDS = ("interpretation_map", "degenerate")
DETAIL_FIELDS = ("soft_attention_maps", "weight_maps", "contributions")
PASS_FIELDS = ("weight_logits", "tap_values")


@dataclass
class Targets:
    """What a map of one target needs to know of the prediction; a head with one map an image takes no notice of it.

    Args:
        worth (`Tensor`): (B, K) float32, what each image is worth to each target, see
            [`AnteHocPreTrainedModel.worth`].
        chosen (`Tensor`, *optional*): (B,) int64, the target that each image's map is to explain; (B, M): several,
            whose worths are added up, and so are their contributions; None: all of them.
        vectors (`Tensor`, *optional*): (K, C), the weights with which the model's own linear head reads the last tap.
        queries (`Tensor`, *optional*): (B, K, D), what the model knows of each target of each image, where they
            differ from image to image, as words do.
        baseline (`Tensor`, *optional*): (B, K) int64, which of the remembered worths of nothing belongs to each
            target; None: they are the same K targets for all images.
        counted (`Tensor`, *optional*): (B, K) bool, false where an image has fewer targets (padding).
        exclusive (`bool`): the targets share one probability (softmax).
    """

    worth: Tensor
    chosen: Tensor | None
    vectors: Tensor | None = None
    queries: Tensor | None = None
    baseline: Tensor | None = None
    counted: Tensor | None = None
    exclusive: bool = True


def of_target(values: Tensor, targets: Tensor | None) -> Tensor:
    """Of values (B, K, …) those of one target an image, (B,), or the sum over several, (B, M), or all: (B, 1, …)."""
    if targets is None:
        return values.sum(dim=1, keepdim=True)
    targets = targets[:, None] if targets.ndim == 1 else targets
    index = targets[(..., *[None] * (values.ndim - 2))].expand(-1, -1, *values.shape[2:])
    picked = values.gather(1, index)
    return picked if index.shape[1] == 1 else picked.sum(dim=1, keepdim=True)


def worth_to_share(targets: Targets, baseline_worth: Tensor) -> Tensor:
    """v(image) − v(nothing), (B, K) float32; `baseline_worth` holds what nothing is worth, as met in training."""
    nothing = baseline_worth.float()
    to_share = targets.worth - (nothing if targets.baseline is None else nothing[targets.baseline])
    return to_share if targets.counted is None else to_share * targets.counted


def with_total(contributions: Tensor, total: Tensor) -> Tensor:
    """Contributions that sum to what there is to share, the same correction for every patch.

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


Size = tuple[int, int]
Predict = Callable[[Tensor], Any]
"""Pixels (B, 3, H, W) → the model's prediction."""


class MapHead(Protocol):
    """What a model expects of its `map_head`, an `nn.Module`.

    The backbone is read without gradient, so nothing that a map head learns reaches it.
    """

    # Whether each target has a map of its own; where image ⊙ map is taken ("pixel" or "normalized").
    per_target: bool
    mask_space: str

    def keep(self, features: Tensor, size: Size) -> Tensor:
        """What is kept of one tap: (B, C, h, w) activations of images of `size` to anything that starts with B."""
        ...

    def combine(self, kept: list[Tensor], size: Size) -> Tensor:
        """What was kept of all taps as one tensor, the `tap_values`."""
        ...

    def check(self, tap_values: Tensor) -> None:
        """Raises `ValueError` if these `tap_values` are not of this head."""
        ...

    def __call__(
        self, tap_values: Tensor, size: Size, targets: Targets | None = None, detailed: bool = False
    ) -> Explanation:
        """The map, and with `detailed` what it was made from."""
        ...

    def second_pass(
        self, tap_values: Tensor, size: Size, targets: Targets | None, predict_masked: Predict
    ) -> tuple[Any, Explanation]:
        """What the objective compares in training.

        Args:
            tap_values (`Tensor`): of the first pass.
            size: height and width of the images.
            targets (`Targets`, *optional*): of the first pass, without `worth`.
            predict_masked: an interpretation map (B, 1, H, W) → the prediction on the energy map.

        Returns:
            That prediction, None where the head has no use for it, and the explanation.
        """
        ...


class ContributionHead(nn.Module):
    """What makes a map of contributions, the same for both heads that give them."""

    per_target = True
    mask_space = "pixel"
    baseline_worth: Tensor
    grid: int
    floor: str
    read_channels: int  # of the `tap_values`

    def contributions(self, tap_values: Tensor, targets: Targets, of_all: bool) -> Tensor:
        """φ before [`with_total`] fixes its sum, of all targets or of the chosen one: (B, K, g, w) or (B, 1, g, w)."""
        raise NotImplementedError

    def check(self, tap_values: Tensor) -> None:
        """See [`check_tap_values`]."""
        check_tap_values(tap_values, self.read_channels)

    def forward(
        self, tap_values: Tensor, size: Size, targets: Targets | None = None, detailed: bool = False
    ) -> Explanation:
        """The map of the chosen target of each image; with `detailed` also the contributions to all targets."""
        assert targets is not None
        contributions = self.contributions(tap_values, targets, of_all=detailed)
        with full_precision(tap_values):
            to_share = worth_to_share(targets, self.baseline_worth)
            contributions = with_total(contributions, to_share if detailed else of_target(to_share, targets.chosen))
            of_chosen = of_target(contributions, targets.chosen) if detailed else contributions
            map_, degenerate = contribution_map(of_chosen, size, self.floor)
        return Explanation(
            interpretation_map=map_, degenerate=degenerate, contributions=contributions if detailed else None
        )


class MapHeadConfig(PreTrainedConfig):
    """Options of one kind of map head; a model's configuration holds one of these as `map_head`.

    Raises:
        ValueError: for an option that this kind of map does not have.
    """

    kind: ClassVar[str]
    objective: ClassVar[str]  # the objective that teaches such a map unless another is named
    per_target: ClassVar[bool] = False
    choices: ClassVar[Mapping[str, tuple[str | None, ...]]] = {}
    counts: ClassVar[tuple[str, ...]] = ()

    @property
    def reads_classifier(self) -> bool:
        """Whether the last tap has to have the width that the network's classifier reads."""
        return False

    def __post_init__(self, **kwargs: Any) -> None:
        kind = kwargs.pop("kind", self.kind)
        if kind != self.kind:
            raise ValueError(
                f"These are the options of a map of kind {self.kind!r}, not {kind!r}: name the kind alone for a new "
                f"map of it, map_head={kind!r}."
            )
        unknown = [name for name in kwargs if name not in _OF_TRANSFORMERS]
        if unknown:
            own = ", ".join(self.option_names())
            raise ValueError(f"A map of kind {kind!r} has no option {unknown[0]!r}; its options are {own}.")
        super().__post_init__(**kwargs)
        for name, allowed in self.choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {', '.join(map(repr, allowed))}.")
        for name in self.counts:
            check_count(name, getattr(self, name), most=MOST_CHANNELS)

    @classmethod
    def option_names(cls) -> list[str]:
        """Names of this kind's own options."""
        inherited = {field.name for field in fields(PreTrainedConfig)}
        return [field.name for field in fields(cls) if field.name not in inherited]

    def to_dict(self) -> dict[str, Any]:
        """Kind and options alone: what else transformers keeps for whole models says nothing here."""
        options = {name: getattr(self, name) for name in self.option_names()}
        return {"kind": self.kind, **options, "transformers_version": transformers_version}

    def fit(self, config: "AnteHocConfig") -> None:
        """Checks the options against the model's configuration and fills those that depend on it.

        Raises:
            ValueError: if they don't fit.
        """

    def build(self, config: "AnteHocConfig", classifier: nn.Module | None) -> nn.Module:
        """The [`MapHead`] of these options; `classifier` is the backbone's own head, if it has one."""
        raise NotImplementedError(f"{type(self).__name__} must say how its map head is built.")


# Keywords that transformers itself passes to every configuration.
_OF_TRANSFORMERS = frozenset(
    ("model_type", "_name_or_path", "transformers_version", "output_attentions", "dtype", "torch_dtype")
)


def apply_map(
    pixel_values: Tensor, interpretation_map: Tensor, mean: Tensor, std: Tensor, mask_space: str = "pixel"
) -> Tensor:
    """The energy map I_second = I_first ⊙ I_map (Eq. 2), normalised as the backbone expects it.

    In pixel space, with x the normalised image: ν(pixels ⊙ M) = M·x + (M − 1)·mean/std, so 0 in the map is black.

    Args:
        pixel_values (`Tensor`): normalised images, (B, 3, H, W).
        interpretation_map (`Tensor`): (B, 1, H, W) in [0, 1].
        mean, std (`Tensor`): (1, 3, 1, 1), of pixels in [0, 1].
        mask_space (`str`): `"pixel"` or `"normalized"` (0 in the map is then the mean colour).

    Returns:
        `Tensor`: (B, 3, H, W), of the type of `pixel_values`.
    """
    mask = interpretation_map.to(pixel_values.dtype)
    if mask_space == "normalized":
        return pixel_values * mask
    black = (-mean / std).to(pixel_values.dtype)
    return torch.lerp(black.expand_as(pixel_values), pixel_values, mask.expand_as(pixel_values))


def map_fields(explained: Explanation, detailed: bool, training: bool = False) -> dict[str, Tensor | None]:
    """The fields of an output that are about the map: what it was made from only on request."""
    names = MAP_FIELDS + (DETAIL_FIELDS if detailed or training else ()) + (PASS_FIELDS if training else ())
    return {name: explained.get(name) for name in names}


def wants_hidden(model: Any, asked: bool | None) -> bool:
    """Whether an output shall hold the taps' activations: as asked for, or else as configured."""
    return bool(model.config.output_hidden_states if asked is None else asked)


def class_targets(model: Any, logits: Tensor | None) -> Targets:
    """The outputs of a model whose backbone has its classifier, as targets of a map.

    Args:
        model: with the classifier of timm's network, and a configuration that names the kind of problem.
        logits (`Tensor`, *optional*): (B, K); None where nothing has been predicted.
    """
    config = model.config
    exclusive = config.has_classes and config.problem_type != "multi_label_classification"
    weight = getattr(model.backbone.get_classifier(), "weight", None)
    if callable(weight):  # a layer that torch has quantised keeps its weights packed
        weight = weight().dequantize()
    if logits is None:
        nothing = torch.empty(0)
        return Targets(nothing, nothing.long(), weight, exclusive=exclusive)
    return Targets(class_worth(config, logits), chosen_class(config, logits), weight, exclusive=exclusive)


def class_worth(config: Any, logits: Tensor) -> Tensor:
    """What images are worth to each output of a classifier.

    Args:
        config: names the kind of problem.
        logits (`Tensor`): (B, K).

    Returns:
        `Tensor`: (B, K) float32: the probability of each class; of a regression the values themselves.
    """
    logits = logits.detach().float()
    if not config.has_classes:
        return logits
    return logits.sigmoid() if config.problem_type == "multi_label_classification" else logits.softmax(dim=1)


def chosen_class(config: Any, logits: Tensor) -> Tensor | None:
    """(B,), the class that is predicted; None for a regression: all its values together."""
    return logits.argmax(dim=1) if config.has_classes else None


_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def checked_class(target: Tensor | int, worth: Tensor) -> Tensor:
    """(B,) int64; a user's mistake is reported."""
    try:
        chosen = torch.as_tensor(target, device=worth.device)
        fits = chosen.dtype in _INTEGERS and chosen.shape in (torch.Size(), worth.shape[:1])
    except (TypeError, ValueError, RuntimeError):  # text, None or a dictionary
        fits = False
    if not fits or bool(((chosen < 0) | (chosen >= worth.shape[1])).any()):
        raise ValueError(
            f"target must be a class, 0…{worth.shape[1] - 1}, or one for each of the {len(worth)} images, not "
            f"{target!r}."
        )
    return chosen.long().expand(len(worth))


def as_list(values: Any) -> Any:
    """Tuples, arrays and tensors as lists of Python's own numbers, which JSON can hold; all else as it is."""
    if hasattr(values, "tolist"):
        return values.tolist()
    return list(values) if isinstance(values, tuple) else values


def is_whole(value: Any) -> bool:
    """Whether it is an integer, and not a truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and not a truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_channels(there: list[int], channels: list[int]) -> None:
    """Raises a ValueError if the taps have other channels than the map head was made for."""
    if there != channels:
        raise ValueError(
            f"tap_channels of the configuration are {str(channels)[:60]}, but its tap_points have {there}: remove "
            "tap_channels from the configuration to have them counted anew."
        )


def check_tap_values(tap_values: Tensor, channels: int, what: str = "") -> None:
    """Raises a ValueError unless `tap_values` are of (B, channels, rows, columns)."""
    if tap_values.ndim != 4 or tap_values.shape[1] != channels:
        raise ValueError(
            f"tap_values must be {what}(batch, {channels}, rows, columns), not {tuple(tap_values.shape)}."
        )


def check_count(name: str, value: Any, optional: bool = False, least: int = 1, most: int = MOST) -> None:
    """Raises a ValueError unless the value is a whole number from `least` to `most`, or None where that is allowed."""
    if value is None and optional:
        return
    if not is_whole(value) or value < least:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {least}.")
    if value > most:
        raise ValueError(f"{name}={value!r} is more than {most}, the most that there can be.")
