"""Configuration of the ante-hoc models: which backbone, where it is tapped, and the map head's own options."""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from numbers import Number
from typing import Any, ClassVar

import timm
from transformers import PreTrainedConfig

from .contribution_map import ContributionMapConfig
from .energy_map import EnergyMapConfig
from .image_geometry import height_and_width
from .map_head import MOST, MapHeadConfig, as_list, check_count, is_number, is_whole
from .other_network import check_other_network, is_other_network

DEFAULT_NUM_ATTENTION_MAPS = 8
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
MOST_LAYERS = 300  # by one option; the 420 layers of timm's ResNet-RS-420 are 139 blocks
TAP_POINTS = ("activation", "norm", "conv")

_MAP_HEADS: dict[str, type[MapHeadConfig]] = {
    config.kind: config for config in (ContributionMapConfig, EnergyMapConfig)
}


def register_map_head(config_class: type[MapHeadConfig]) -> type[MapHeadConfig]:
    """Makes a kind of map known by its `kind`; may stand as a decorator. The code of it stays the caller's."""
    _MAP_HEADS[config_class.kind] = config_class
    return config_class


def map_head_kinds() -> dict[str, type[MapHeadConfig]]:
    """The kinds of map there are: name → class of its options."""
    return dict(_MAP_HEADS)


class BackboneConfig(PreTrainedConfig):
    r"""What every model around a timm backbone has: the network and the images it takes.

    Args:
        backbone (`str`, *optional*, defaults to `"resnet50"`):
            Any architecture of `timm.list_models()`, with or without a pretrained tag (`"resnet50.a1_in1k"`).
        backbone_kwargs (`dict`, *optional*):
            Passed on to `timm.create_model`, e.g. `{"drop_path_rate": 0.1}` or `{"output_stride": 16}`.
        image_size (`int` or `list[int]`, *optional*):
            Side, or `[height, width]`, in pixels. Defaults to the backbone's own. Convolutional backbones accept
            other sizes at run time.
        image_mean, image_std (`list[float]`, *optional*):
            Normalisation of the three channels (pixels in [0, 1]). Default to the backbone's own.

    Raises:
        ValueError: for any value that makes no sense, in one sentence.
    """

    backbone: str = "resnet50"
    backbone_kwargs: dict[str, Any] | None = None
    image_size: Any = None
    image_mean: list[float] | None = None
    image_std: list[float] | None = None

    def __setattr__(self, key: str, value: Any) -> None:
        # Sizes may also be set after the fact, by `from_pretrained(..., image_size=96)` among others.
        if key == "image_size":
            value = self.__dict__.get(key) if value is None else height_and_width(value)
        super().__setattr__(key, value)

    def __post_init__(self, **kwargs: Any) -> None:
        if (count := kwargs.get("num_labels")) is None:
            kwargs.pop("num_labels", None)  # None is as good as not given
        elif not (is_whole(count) and count >= 1):
            raise ValueError(f"num_labels must be at least 1 and a whole number, not {count!r}.")
        check_count("num_labels", count, optional=True)  # before transformers names a billion of them
        self.id2label = _class_names(self.id2label, self.label2id)
        if self.id2label is not None:
            self.label2id = {name: index for index, name in self.id2label.items()}
        super().__post_init__(**kwargs)
        check_backbone_kwargs(self.backbone_kwargs)
        if is_other_network(self.backbone):
            check_other_network(self.backbone, self.backbone_kwargs)
        own = backbone_defaults(self.backbone)
        for name in ("mean", "std"):
            if getattr(self, f"image_{name}") is None and name not in own:
                raise ValueError(
                    f"image_{name} must be given: how images are normalised is not known of {self.backbone!r}."
                )
        if self.image_size is None:
            self.image_size = own["input_size"][1:]
        self.image_mean = as_list(own["mean"] if self.image_mean is None else self.image_mean)
        self.image_std = as_list(own["std"] if self.image_std is None else self.image_std)
        self._check_backbone()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers.

        Raises:
            ValueError: if these are the values of another type of model.
        """
        kind = config_dict.get("model_type")
        if kind not in (None, "", cls.model_type):
            raise ValueError(
                f"This is the configuration of a model of type {kind!r}, not {cls.model_type!r}: load it with "
                "transformers' Auto classes, or put a map on a finished classifier with "
                "AnteHocForImageClassification.from_classifier."
            )
        return super().from_dict(config_dict, **kwargs)

    def _check_backbone(self) -> None:
        for name in ("image_mean", "image_std"):
            values = getattr(self, name)
            if not (isinstance(values, list) and len(values) == 3 and all(map(is_number, values))):
                raise ValueError(f"{name}={values!r} must be three numbers, one for each of red, green and blue.")
        if min(self.image_std or [1]) <= 0:
            raise ValueError(f"image_std={self.image_std!r} must be positive.")
        if self.problem_type not in (None, *PROBLEM_TYPES):
            raise ValueError(
                f"problem_type={self.problem_type!r} is not one of {', '.join(map(repr, PROBLEM_TYPES))}."
            )
        try:
            json.dumps(self.backbone_kwargs)
        except TypeError as error:
            raise ValueError(f"backbone_kwargs must hold what JSON can hold, to be saved: {error}.") from None
        for name, value in (self.backbone_kwargs or {}).items():
            numbers = [abs(number) for number in _numbers(value)]
            deep = any(word in name for word in ("depth", "layer", "block", "repeat"))
            if max(numbers, default=0) > MOST or (deep and sum(numbers) > MOST_LAYERS):
                raise ValueError(f"backbone_kwargs={{{name!r}: {str(value)[:60]}}} makes a network larger than any.")
            if "drop" in name and max(numbers, default=0) > 1:
                raise ValueError(f"backbone_kwargs={{{name!r}: {str(value)[:60]}}} must be a share from 0 to 1.")


class AnteHocConfig(BackboneConfig):
    r"""Configuration of an ante-hoc model around a timm backbone.

    Source of the method: Guna R T, Benitez, Sikha, "Ante-Hoc Generation of Task-Agnostic Interpretation Maps",
    CVPR workshops (XAI4CV) 2023. Where the paper leaves a choice open, an option names it.

    Args:
        backbone, backbone_kwargs, image_size, image_mean, image_std (*optional*): see [`BackboneConfig`].
        map_head (`str`, `dict` or [`MapHeadConfig`], *optional*):
            The kind of map and its options: `"contributions"` ([`ContributionMapConfig`]: a map for each class,
            learned from coalitions of patches), `"energy"` ([`EnergyMapConfig`]: one map an image, the paper's), or a
            dictionary such as `{"kind": "contributions", "grid": 16}`. Defaults to contributions where the model
            predicts two or more classes, or points, else to energy.
        num_attention_maps (`int`, *optional*):
            Number η of taps, the layers that the map head reads. Defaults to 8, or to as many as the backbone and the
            image size allow.
        taps (`str` or `list[str]`, *optional*, defaults to `"auto"`):
            `"convolutions"`: main-path convolutions at fixed intervals, first and last included (the paper).
            `"stages"`: timm's stages. `"auto"`: convolutions if they reach into the last stage, else stages.
            Or module names of the backbone, e.g. `["layer3", "layer4"]`.
        tap_point (`str`, *optional*, defaults to `"activation"`):
            Where a tapped convolution is read: after the `"activation"` that follows it, after its `"norm"`, or at
            the `"conv"` itself.
        include_shortcuts (`bool`, *optional*, defaults to `False`):
            Whether convolutions of residual shortcuts count as layers (53 instead of 49 in ResNet-50).

    Raises:
        ValueError: for any value that makes no sense, in one sentence.
    """

    model_type = "antehoc"
    sub_configs: ClassVar[dict[str, type[PreTrainedConfig]]] = {"map_head": MapHeadConfig}

    map_head: Any = None
    num_attention_maps: int | None = None
    taps: str | list[str] = "auto"
    tap_point: str = "activation"
    include_shortcuts: bool = False
    # Found by looking at the backbone once and saved with the checkpoint: [{module, call, layout, ...}, …]
    tap_points: list[dict[str, Any]] | None = None
    tap_channels: list[int] | None = None
    class_token_taps: list[dict[str, Any]] | None = None
    fixed_image_size: bool | None = None

    def __setattr__(self, key: str, value: Any) -> None:
        if key == "map_head" and value is not None:
            known = self.__dict__.get("map_head")
            value = map_head_options(value, known)
            if known is not None:  # set after the fact, as `from_pretrained` may
                value.fit(self)
        super().__setattr__(key, value)

    def __post_init__(self, **kwargs: Any) -> None:
        # The Trainer would gather these over the whole evaluation set as if they were predictions.
        self.keys_to_ignore_at_inference = [
            *("interpretation_map", "degenerate", "soft_attention_maps", "weight_maps", "weight_logits"),
            *("contributions", "tap_values", "hidden_states", "last_hidden_state", "encoder_last_hidden_state"),
            "past_key_values",
        ]
        for kind, options in _MAP_HEADS.items():
            misplaced = [name for name in options.option_names() if name in kwargs]
            if misplaced:
                name, value = misplaced[0], kwargs[misplaced[0]]
                raise ValueError(
                    f"{name!r} is an option of the map head: write map_head={{'kind': {kind!r}, {name!r}: {value!r}}}."
                )
        super().__post_init__(**kwargs)
        self._check_taps()
        if self.map_head is None:
            self.map_head = self.default_map
        self.map_head.fit(self)

    map_floor: ClassVar[str] = "least"  # of contributions, unless named

    @property
    def num_targets(self) -> int:
        """Number K of the targets that can have maps of their own: here classes, or values of a regression."""
        return self.num_labels or 0

    @property
    def num_outputs(self) -> int:
        """Width of the backbone's own classifier; 0 where it has none."""
        return self.num_labels or 0

    @property
    def worth_of_nothing(self) -> float:
        """What an image of which nothing is left is taken to be worth to a target, before training has met some."""
        return 1 / self.num_targets if self.has_classes else 0.0

    @property
    def default_map(self) -> str:
        """The kind of map where none is named."""
        return "contributions" if self.has_classes and self.num_labels != 1 else "energy"

    @property
    def query_size(self) -> int:
        """Numbers that describe a target, where each image has targets of its own; 0: they are the same for all."""
        return 0

    @property
    def has_classes(self) -> bool:
        """Whether the model predicts probabilities of classes; a single output is a number unless named otherwise."""
        return self.problem_type != "regression" and not (self.problem_type is None and self.num_labels == 1)

    @property
    def all_taps(self) -> list[dict[str, Any]]:
        """Where the map head reads the backbone: its layers, then, in closed form, what a class token takes."""
        return [*(self.tap_points or []), *(self.class_token_taps or [] if self.map_head.reads_classifier else [])]

    def to_diff_dict(self) -> dict[str, Any]:
        """As in transformers, with all options of the map head: what they mean depends on its kind."""
        head = self.map_head.to_dict()
        head.pop("transformers_version")
        return super().to_diff_dict() | {"map_head": head}

    def _check_taps(self) -> None:
        check_count("num_attention_maps", self.num_attention_maps, optional=True)
        if self.tap_point not in TAP_POINTS:
            raise ValueError(f"tap_point={self.tap_point!r} is not one of {', '.join(map(repr, TAP_POINTS))}.")
        if not isinstance(self.include_shortcuts, bool):
            raise ValueError(f"include_shortcuts={self.include_shortcuts!r} must be true or false.")
        if self.fixed_image_size is not None and not isinstance(self.fixed_image_size, bool):
            raise ValueError(f"fixed_image_size={self.fixed_image_size!r} must be true or false.")
        self.taps = as_list(self.taps)
        named = isinstance(self.taps, list) and self.taps and all(isinstance(tap, str) and tap for tap in self.taps)
        if not named and self.taps not in ("auto", "convolutions", "stages"):
            raise ValueError(
                f"taps={self.taps!r} must be 'auto', 'convolutions', 'stages' or a list of the backbone's modules."
            )
        if self.tap_points is not None and self.num_attention_maps != len(self.tap_points):
            raise ValueError(
                f"num_attention_maps={self.num_attention_maps} does not match the {len(self.tap_points)} tap_points "
                "of this configuration: remove tap_points to have them found anew."
            )
        if not isinstance(self.class_token_taps, list | None):
            raise ValueError(
                f"class_token_taps={str(self.class_token_taps)[:60]} must be a list: remove tap_points and "
                "class_token_taps to have them found anew."
            )
        if self.tap_points is not None and self.tap_channels is not None:
            channels = self.tap_channels = as_list(self.tap_channels)
            if not (
                isinstance(channels, list)
                and len(channels) == len(self.tap_points)
                and all(is_whole(number) and 0 < number <= MOST for number in channels)
            ):
                raise ValueError(
                    f"tap_channels={str(channels)[:60]} must be a whole number of channels for each of the "
                    f"{len(self.tap_points)} tap_points: remove tap_channels to have them counted anew."
                )


def map_head_options(value: Any, known: MapHeadConfig | None = None) -> MapHeadConfig:
    """The options of a map head, however they are given.

    Args:
        value (`str`, `dict` or [`MapHeadConfig`]): kind, options with or without `"kind"`, or both in one object.
        known ([`MapHeadConfig`], *optional*): what options without a kind change.

    Raises:
        ValueError: if there is no such kind, or it has no such option.
    """
    if isinstance(value, PreTrainedConfig):
        return value  # type: ignore[return-value]  # as remote code it may be of that name in another module
    options = dict(value) if isinstance(value, Mapping) else {"kind": value}
    options.pop("transformers_version", None)
    kind = options.pop("kind", None) or (known.kind if known is not None else None)
    if not (isinstance(kind, str) and kind in _MAP_HEADS):
        names = ", ".join(map(repr, _MAP_HEADS))
        if kind is None:
            raise ValueError(f"map_head={value!r} names no kind of map: add 'kind', one of {names}.")
        raise ValueError(f"map_head={kind!r} is not a kind of map; there are {names}.")
    if known is not None and known.kind == kind:
        options = {name: getattr(known, name) for name in known.option_names()} | options
    return _MAP_HEADS[kind](**options)


# What a backbone's options must not name: files and addresses that weights or code are read from (a configuration may
# come from anywhere), and what the model itself decides.
_OF_THE_MODEL = frozenset(
    (
        *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "hf_hub_id"),
        *("weights", "weights_backbone", "transformers_weights", "quantization_config", "auto_map", "name_or_path"),
        *("use_pretrained_backbone", "use_timm_backbone", "backbone", "backbone_config", "_attn_implementation"),
        *("num_classes", "num_labels", "features_only", "in_chans"),
    )
)


def check_backbone_kwargs(options: Any) -> None:
    """Raises a ValueError if a backbone's options are not a dictionary, or name what they must not."""
    if options is not None and not isinstance(options, dict):
        raise ValueError(f"backbone_kwargs={options!r} must be a dictionary of the backbone's options.")
    refused = _OF_THE_MODEL & set(options or {})
    if refused:
        raise ValueError(f"backbone_kwargs must not hold {min(refused)!r}, which the model itself decides.")
    if (options or {}).get("num_channels", 3) != 3:
        raise ValueError("backbone_kwargs: num_channels must be 3, since images are red, green and blue.")
    if (options or {}).get("attn_implementation") not in (None, "eager", "sdpa"):
        raise ValueError("backbone_kwargs: attn_implementation must be 'eager' or 'sdpa'.")


def _class_names(id2label: Any, label2id: Any) -> dict[int, str] | None:
    """The class names by index, of the one dictionary or the other; numbers as text. `id2label` counts where both do.

    Raises:
        ValueError: if they are no dictionaries of names and of the indices 0…K − 1.
    """
    for name, value in (("id2label", id2label), ("label2id", label2id)):
        if value is not None and not isinstance(value, Mapping):
            raise ValueError(f"{name}={value!r} must be a dictionary, as {{0: 'cat', 1: 'dog'}} or its inverse.")
    if id2label is None and not label2id:
        return None
    pairs = list(id2label.items() if id2label is not None else ((index, name) for name, index in label2id.items()))
    if sorted(str(index) for index, _ in pairs) != sorted(map(str, range(len(pairs)))):
        called = "id2label" if id2label is not None else "label2id"
        raise ValueError(f"{called}={dict(pairs)!r} must name the classes 0…K − 1, each once, by whole numbers.")
    for index, name in pairs:
        if not isinstance(name, (str, Number)):
            raise ValueError(f"The name of class {index} must be text, not {name!r}.")
    return {int(index): str(name) for index, name in pairs}


def backbone_defaults(backbone: str) -> dict[str, Any]:
    """Input size (C, H, W), mean and std of a timm architecture, without building it.

    Of a network that is not timm's the size alone, a guess.

    Raises:
        ValueError: if timm does not know it; names that come near are offered.
    """
    if is_other_network(backbone):
        return {"input_size": (3, 224, 224)}
    architecture = str(backbone).split(".", 1)[0]
    if not isinstance(backbone, str) or not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(), n=4, cutoff=0.6)
        hint = f"Did you mean {', '.join(near)}?" if near else "See timm.list_models()."
        raise ValueError(f"timm {timm.__version__} has no architecture named {backbone!r}. {hint}")
    try:
        cfg = timm.get_pretrained_cfg(backbone, allow_unregistered=True) or timm.get_pretrained_cfg(architecture)
    except RuntimeError:  # the architecture is known, the tag is not
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*")[:4]) or "none"
        raise ValueError(
            f"timm {timm.__version__} has no pretrained weights {backbone!r}; of this architecture: {tags}."
        ) from None
    known = cfg.to_dict() if cfg is not None else {}
    defaults = {"input_size": (3, 224, 224), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    return {key: known.get(key) or value for key, value in defaults.items()}


def _numbers(value: Any) -> list[float]:
    """All numbers in what JSON can hold."""
    if isinstance(value, (list, tuple, dict)):
        return [n for part in (value.values() if isinstance(value, dict) else value) for n in _numbers(part)]
    return [value] if isinstance(value, (int, float)) else []


AnteHocConfig.register_for_auto_class()
