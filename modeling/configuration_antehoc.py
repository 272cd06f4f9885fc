"""Configuration of the ante-hoc models: which backbone, where it is tapped, how the map is made."""

import json
import math
from typing import Any

import timm
from transformers import PreTrainedConfig

from .caption_options import check_caption_options
from .landmark_cnn import NAME as LANDMARK_CNN  # noqa: F401  makes it known to timm
from .landmark_options import check_landmark_options

# One named option for every reading of the paper that changes the result. The first of each is the default; docs say
# why. The degenerate reading (softmax over channels, then their mean, is the constant 1/C) is not offered.
CHOICES: dict[str, tuple[str, ...]] = {
    "tap_point": ("activation", "norm", "conv"),
    "channel_reduction": ("mean", "max", "l2", "sum"),
    "attention_softmax": ("spatial", "per_channel", "joint", "channels"),
    "attention_resize": ("renormalized", "literal", "resize_first"),
    "attention_scaling": ("none", "minmax"),
    "map_scaling": ("minmax", "max", "area", "none"),
    "mask_space": ("pixel", "normalized"),
    "weight_network": ("autoencoder", "scalar", "contributions"),
    "weight_network_input": ("conditioned", "raw"),
}
# The same for the heads' own options.
HEAD_CHOICES: dict[str, tuple[str, ...]] = {
    "landmark_loss": ("mse", "smooth_l1"),
    "decoder_image_input": ("state", "token"),
    "caption_target": ("reference", "generated"),
}

DEFAULT_NUM_ATTENTION_MAPS = 8
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")


class AnteHocConfig(PreTrainedConfig):
    r"""
    Configuration of an ante-hoc model around a timm backbone.

    Source of the method: Guna R T, Benitez, Sikha, "Ante-Hoc Generation of Task-Agnostic Interpretation Maps",
    CVPR workshops (XAI4CV) 2023. Where the paper leaves a choice open, the option names it.

    > Parameters that define the backbone

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

    > Parameters that define the taps, i.e. the layers whose activations become soft attention maps (SAM)

    Args:
        num_attention_maps (`int`, *optional*):
            Number η of taps. Defaults to 8, or to all layers there are when the backbone has fewer.
        taps (`str` or `list[str]`, *optional*, defaults to `"auto"`):
            `"convolutions"`: main-path convolutions at fixed intervals, first and last included (the paper).
            `"stages"`: timm's stages. `"auto"`: convolutions if they reach into the last stage, else stages.
            Or module names of the backbone, e.g. `["layer3", "layer4"]`.
        tap_point (`str`, *optional*, defaults to `"activation"`):
            Where a tapped convolution is read: after the `"activation"` that follows it, after its `"norm"`, or at
            the `"conv"` itself.
        include_shortcuts (`bool`, *optional*, defaults to `False`):
            Whether convolutions of residual shortcuts count as layers (53 instead of 49 in ResNet-50).

    > Parameters that define the soft attention maps

    Args:
        channel_reduction (`str`, *optional*, defaults to `"mean"`):
            `"mean"`, `"max"`, `"l2"` or `"sum"` over channels.
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
            `"contributions"` (not in the paper): a map for each class, of what each patch contributes to the class's
            probability, learned from coalitions of patches. For classifiers; the options of soft attention maps and
            of the other weight networks do not apply.
        weight_network_input (`str`, *optional*, defaults to `"conditioned"`):
            `"conditioned"` stretches every map to [0, 1] for the network; `"raw"` feeds values around 1/(H·W).
        weight_network_depth (`int`, *optional*): Down-sampling steps. Defaults to 3 from 96 pixels up, else 2.
        weight_network_width (`int`, *optional*, defaults to 16): Channels after the first step; doubled each step.
        weight_network_stride (`int`, *optional*, defaults to 2):
            By how much the maps are averaged before they enter the network.
        weight_network_skip (`bool`, *optional*, defaults to `False`): Skip connections, as in a U-Net.
        contribution_grid (`int`, *optional*, defaults to 8):
            Patches along the image's shorter side, with `weight_network="contributions"`.
        contribution_width (`int`, *optional*, defaults to 64): Channels inside that network.
        map_scaling (`str`, *optional*, defaults to `"minmax"`):
            `"minmax"`: to [0, 1] for each image. `"max"`: divide by the maximum. `"area"`: times H·W (mean 1, may
            exceed 1). `"none"`: as it is (about 1/(H·W)).
        mask_space (`str`, *optional*, defaults to `"pixel"`):
            Where image ⊙ map is taken: on `"pixel"` values (0 is black) or on the `"normalized"` tensor (0 is the
            mean colour).

    > Parameters of landmark detection

    Args:
        num_landmarks (`int`, *optional*): Number K of points.
        landmark_names (`list[str]`, *optional*): Their names, in order.
        landmark_flip (`list[int]`, *optional*):
            For each point the index of its mirror image (`[1, 0, 2]`: the first two swap), for flipped images.
        landmark_parts (`dict[str, list[int]]`, *optional*):
            Points that outline one convex part each, e.g. `{"mouth": [48, …]}`, to measure a map against.
        landmark_loss (`str`, *optional*, defaults to `"mse"`):
            `"mse"` on coordinates in [0, 1] (the paper's network) or `"smooth_l1"`.

    > Parameters of captioning

    Args:
        vocab_size (`int`, *optional*): Number V of tokens of the tokenizer.
        bos_token_id, eos_token_id, pad_token_id (`int`, *optional*): Ids of the tokenizer's special tokens.
        decoder_embedding_size (`int`, *optional*, defaults to 256): Width of a word's embedding.
        decoder_hidden_size (`int`, *optional*, defaults to 512): Width of the LSTM's state.
        decoder_dropout (`float`, *optional*, defaults to 0.0): Dropout of embeddings and of the LSTM's output.
        decoder_image_input (`str`, *optional*, defaults to `"state"`):
            Where the pooled feature enters the LSTM: as its initial `"state"` or as the first `"token"`.
        max_caption_length (`int`, *optional*, defaults to 34): Longest caption in tokens, start and end included.
        caption_target (`str`, *optional*, defaults to `"reference"`):
            Which words the two passes are compared on: the `"reference"` caption's, or the `"generated"` (greedy)
            caption's of the first pass.

    Raises:
        ValueError: for any value that makes no sense, in one sentence.
    """

    model_type = "antehoc"

    backbone: str = "resnet50"
    backbone_kwargs: dict[str, Any] | None = None
    image_size: int | list[int] | tuple[int, int] | None = None
    image_mean: list[float] | None = None
    image_std: list[float] | None = None
    num_attention_maps: int | None = None
    taps: str | list[str] = "auto"
    tap_point: str = "activation"
    include_shortcuts: bool = False
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
    contribution_grid: int = 8
    contribution_width: int = 64
    map_scaling: str = "minmax"
    mask_space: str = "pixel"
    num_landmarks: int | None = None
    landmark_names: list[str] | None = None
    landmark_flip: list[int] | None = None
    landmark_parts: dict[str, list[int]] | None = None
    landmark_loss: str = "mse"
    vocab_size: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None
    decoder_embedding_size: int = 256
    decoder_hidden_size: int = 512
    decoder_dropout: float = 0.0
    decoder_image_input: str = "state"
    max_caption_length: int = 34
    caption_target: str = "reference"
    # Found by looking at the backbone once and saved with the checkpoint: [{module, call, layout, ...}, …]
    tap_points: list[dict[str, Any]] | None = None
    fixed_image_size: bool | None = None
    tap_channels: list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        # The Trainer would gather these over the whole evaluation set as if they were predictions.
        self.keys_to_ignore_at_inference = [
            "interpretation_map",
            "degenerate",
            "soft_attention_maps",
            "weight_maps",
            "weight_logits",
            "contributions",
            "tap_features",
            "last_hidden_state",
            "encoder_last_hidden_state",
            "past_key_values",
        ]
        super().__post_init__(**kwargs)
        self._fill_from_backbone()
        self._validate()

    def _fill_from_backbone(self) -> None:
        """Image size and normalisation default to those the backbone was made for."""
        own = backbone_defaults(self.backbone)
        if self.image_size is None:
            self.image_size = list(own["input_size"][1:])
        elif isinstance(self.image_size, int) and not isinstance(self.image_size, bool):
            self.image_size = [self.image_size, self.image_size]
        else:
            self.image_size = _plain(self.image_size)
        self.image_mean = _plain(own["mean"] if self.image_mean is None else self.image_mean)
        self.image_std = _plain(own["std"] if self.image_std is None else self.image_std)

    def _validate(self) -> None:
        for name, choices in {**CHOICES, **HEAD_CHOICES}.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {', '.join(map(repr, choices))}.")
        if self.problem_type not in (None, *PROBLEM_TYPES):
            raise ValueError(
                f"problem_type={self.problem_type!r} is not one of {', '.join(map(repr, PROBLEM_TYPES))}."
            )
        size = self.image_size
        if not (isinstance(size, list) and len(size) == 2 and all(_is_int(side) and side > 0 for side in size)):
            raise ValueError(f"image_size={size!r} must be a positive number of pixels or [height, width].")
        for name in ("image_mean", "image_std"):
            values = getattr(self, name)
            if not (isinstance(values, list) and len(values) == 3 and all(_is_number(v) for v in values)):
                raise ValueError(f"{name}={values!r} must be three numbers, one for each of red, green and blue.")
        if any(value <= 0 for value in self.image_std or []):
            raise ValueError(f"image_std={self.image_std!r} must be positive.")
        counts = (
            *("num_attention_maps", "weight_network_depth", "weight_network_width", "weight_network_stride"),
            *("contribution_grid", "contribution_width"),
        )
        for name in counts:
            value = getattr(self, name)
            may_be_left_out = name in ("num_attention_maps", "weight_network_depth") and value is None
            if not may_be_left_out and not (_is_int(value) and value >= 1):
                raise ValueError(f"{name}={value!r} must be a whole number of at least 1.")
        for name in ("include_shortcuts", "weight_network_skip", "fixed_image_size"):
            value = getattr(self, name)
            if not isinstance(value, bool) and not (name == "fixed_image_size" and value is None):
                raise ValueError(f"{name}={value!r} must be true or false.")
        if self.backbone_kwargs is not None and not isinstance(self.backbone_kwargs, dict):
            raise ValueError(f"backbone_kwargs={self.backbone_kwargs!r} must be a dictionary of timm's options.")
        try:
            json.dumps(self.backbone_kwargs)
        except TypeError as error:
            raise ValueError(f"backbone_kwargs must hold what JSON can hold, to be saved: {error}.") from None
        # A configuration may come from anywhere: it must not name files or addresses that weights are read from.
        sources = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}
        ours = {"num_classes", "features_only", "in_chans", *sources} & set(self.backbone_kwargs or {})
        if ours:
            raise ValueError(f"backbone_kwargs must not hold {sorted(ours)[0]!r}, which the model itself decides.")
        self.taps = _plain(self.taps)
        named = isinstance(self.taps, list) and self.taps and all(isinstance(tap, str) and tap for tap in self.taps)
        if not named and self.taps not in ("auto", "convolutions", "stages"):
            raise ValueError(
                f"taps={self.taps!r} must be 'auto', 'convolutions', 'stages' or a list of the backbone's modules."
            )
        if self.contribution_grid < 2:
            raise ValueError("contribution_grid=1 is a single patch, which tells nothing: use at least 2.")
        self._check_contributions()
        if self.attention_resize == "resize_first" and self.attention_softmax != "spatial":
            raise ValueError("attention_resize='resize_first' is defined for attention_softmax='spatial' only.")
        check_caption_options(self)
        check_landmark_options(self)
        if self.tap_points is not None and self.num_attention_maps != len(self.tap_points):
            raise ValueError(
                f"num_attention_maps={self.num_attention_maps} does not match the {len(self.tap_points)} tap_points "
                "of this configuration: remove tap_points to have them found anew."
            )

    def _check_contributions(self) -> None:
        if self.weight_network != "contributions":
            return
        if self.problem_type == "regression" or self.num_landmarks or self.vocab_size:
            raise ValueError(
                "weight_network='contributions' explains the probabilities of classes, which regression, landmarks "
                "and captions do not have: use weight_network='autoencoder'."
            )
        if self.map_scaling != "minmax":
            raise ValueError(
                f"map_scaling={self.map_scaling!r} does not fit weight_network='contributions', whose values may be "
                "negative: leave it at 'minmax'."
            )


def backbone_defaults(backbone: str) -> dict[str, Any]:
    """
    Input size (C, H, W), mean and std of a timm architecture, without building it.

    Raises:
        ValueError: if timm does not know it; names that come near are offered.
    """
    architecture = str(backbone).split(".", 1)[0]
    if not isinstance(backbone, str) or not timm.is_model(architecture):
        near = _nearest_names(architecture)
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


def _nearest_names(name: str) -> list[str]:
    from difflib import get_close_matches

    return get_close_matches(name, timm.list_models(), n=4, cutoff=0.6)


def _plain(values: Any) -> Any:
    """Tuples, arrays and tensors as lists of Python's own numbers, which JSON can hold; all else as it is."""
    if hasattr(values, "tolist"):
        return values.tolist()
    return list(values) if isinstance(values, tuple) else values


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


AnteHocConfig.register_for_auto_class()
