"""Configurations of the baselines: the backbone they share, and the named readings of each."""

from typing import Any, ClassVar

from antehoc_hf.modeling.configuration_antehoc import BackboneConfig
from antehoc_hf.modeling.map_head import is_number, is_whole

PRESETS = ("paper", "released_code")


class BaselineConfig(BackboneConfig):
    r"""What every baseline's configuration holds: a timm backbone and the images it takes.

    Args:
        backbone (`str`, *optional*, defaults to `"resnet18"`):
            Any architecture of `timm.list_models()`, with or without a pretrained tag.
        backbone_kwargs, image_size, image_mean, image_std (*optional*): see [`BackboneConfig`].

    Raises:
        ValueError: for any value that makes no sense, in one sentence.
    """

    # Values of the method authors' released code; of each option the allowed values; and the numbers' lower bounds.
    released: ClassVar[dict[str, Any]] = {}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {}
    least: ClassVar[dict[str, int]] = {}

    backbone: str = "resnet18"

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        for name, values in self.choices.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {', '.join(map(repr, values))}.")
        for name, least in self.least.items():
            value = getattr(self, name)
            if not (is_whole(value) if least > 0 else is_number(value)) or value < least:
                kind = "whole number" if least > 0 else "number"
                raise ValueError(f"{name}={value!r} must be a {kind} of at least {least}.")

    @classmethod
    def released_code(cls, **options: Any) -> Any:
        """The configuration of the method authors' released code, where `options` do not say otherwise."""
        return cls(**{**cls.released, **options})


class PlainConfig(BaselineConfig):
    """Configuration of [`PlainForImageClassification`]; the options are those of [`BaselineConfig`]."""

    model_type = "antehoc_plain"


class SennConfig(BaselineConfig):
    r"""Configuration of [`SennForImageClassification`].

    Source of the method: Alvarez-Melis, Jaakkola, "Towards Robust Interpretability with Self-Explaining Neural
    Networks", NeurIPS 2018. `SennConfig.released_code()` has the values of the authors' code.

    Args:
        num_concepts (`int`, *optional*, defaults to 20): Number k of concepts.
        relevance_activation (`str`, *optional*, defaults to `"tanh"`):
            What bounds the relevances θ: `"tanh"`, `"sigmoid"` (positive ones only) or `"none"`.
        relevance_dropout (`float`, *optional*, defaults to 0.5): Dropout of the backbone's k·K outputs, in [0, 1).
        reconstruction_target (`str`, *optional*, defaults to `"pixels"`):
            What the decoder, which ends in a tanh, is compared with: the `"pixels"` scaled to [-1, 1], or the
            `"normalized"` tensor, whose values a tanh cannot all reach (released code).
        reconstruction_weight (`float`, *optional*, defaults to 1.0): Of the mean squared error of the reconstruction.
        sparsity_weight (`float`, *optional*, defaults to 1e-4): Of the concepts' L1 norm.
        sparsity_reduction (`str`, *optional*, defaults to `"mean"`):
            That norm's `"mean"` over the images of a batch, or its `"sum"` (released code).
        robustness (`str`, *optional*, defaults to `"projected"`):
            How ‖J_x f - J_x h θ‖ is taken: `"projected"` on one random direction of the classes an image and step,
            which is right on average; `"exact"`, class by class, at K times the cost; or `"none"`.
        robustness_weight (`float`, *optional*, defaults to 1e-2): λ, its weight.
        robustness_output (`str`, *optional*, defaults to `"logits"`):
            Which f: the `"logits"` or, as in the released code, `"log_softmax"`.
        robustness_norm (`str`, *optional*, defaults to `"squared"`):
            The `"squared"` Frobenius norm, a mean over the images, or the norm itself of the whole batch's
            (`"frobenius"`, released code), which is not a mean over the images.
        backbone, backbone_kwargs, image_size, image_mean, image_std: as in [`BaselineConfig`].

    Raises:
        ValueError: for any value that makes no sense, in one sentence.
    """

    model_type = "antehoc_senn"
    released: ClassVar[dict[str, Any]] = {
        "reconstruction_target": "normalized",
        "sparsity_reduction": "sum",
        "robustness": "exact",
        "robustness_output": "log_softmax",
        "robustness_norm": "frobenius",
    }
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "relevance_activation": ("tanh", "sigmoid", "none"),
        "reconstruction_target": ("pixels", "normalized"),
        "sparsity_reduction": ("mean", "sum"),
        "robustness": ("projected", "exact", "none"),
        "robustness_output": ("logits", "log_softmax"),
        "robustness_norm": ("squared", "frobenius"),
    }
    least: ClassVar[dict[str, int]] = {
        "num_concepts": 1,
        "relevance_dropout": 0,
        "reconstruction_weight": 0,
        "sparsity_weight": 0,
        "robustness_weight": 0,
    }

    num_concepts: int = 20
    relevance_activation: str = "tanh"
    relevance_dropout: float = 0.5
    reconstruction_target: str = "pixels"
    reconstruction_weight: float = 1.0
    sparsity_weight: float = 1e-4
    sparsity_reduction: str = "mean"
    robustness: str = "projected"
    robustness_weight: float = 1e-2
    robustness_output: str = "logits"
    robustness_norm: str = "squared"

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        # The Trainer would gather these over the whole evaluation set as if they were predictions.
        self.keys_to_ignore_at_inference = [
            *("classification_loss", "reconstruction_loss", "sparsity_loss", "robustness_loss"),
            *("concepts", "relevances", "reconstruction"),
        ]
        if self.relevance_dropout >= 1:
            raise ValueError(f"relevance_dropout={self.relevance_dropout!r} must lie in [0, 1).")


class CbahConfig(BaselineConfig):
    r"""Configuration of [`CbahForImageClassification`].

    Source of the method: Sarkar, Vijaykeerthy, Sarkar, Balasubramanian, "A Framework for Learning Ante-hoc
    Explainable Models via Concepts", CVPR 2022. `CbahConfig.released_code()` has the weights of the authors' code.

    Args:
        num_concepts (`int`, *optional*, defaults to 10): Number k of concepts.
        concept_activation (`str`, *optional*, defaults to `"none"`):
            After the concepts' one linear layer: `"none"` (the paper) or `"relu"` (released code).
        reconstruction_target (`str`, *optional*, defaults to `"pixels"`): See [`SennConfig`].
        reconstruction_weight (`float`, *optional*, defaults to 0.1): a, of the reconstruction's mean squared error.
        fidelity (`str`, *optional*, defaults to `"kl"`):
            How far the concepts' prediction is from the head's, which is a constant in all three: `"kl"`, the
            Kullback-Leibler divergence of the probabilities; `"mse_logits"`, the mean squared error of the logits;
            `"authors_code"`, that of the head's logits and the concepts' *log-probabilities*.
        fidelity_weight (`float`, *optional*, defaults to 0.1): b, its weight.
        sparsity_weight (`float`, *optional*, defaults to 0.0): Of the concepts' L1 norm, a mean over the images.
        rotation_weight (`float`, *optional*, defaults to 0.0):
            γ, of telling from the concepts by which quarter turn an image was rotated; above 0 training makes a
            second forward pass and takes square images only.
        backbone, backbone_kwargs, image_size, image_mean, image_std: as in [`BaselineConfig`].

    Raises:
        ValueError: for any value that makes no sense, in one sentence.
    """

    model_type = "antehoc_cbah"
    released: ClassVar[dict[str, Any]] = {
        "concept_activation": "relu",
        "reconstruction_target": "normalized",
        "reconstruction_weight": 0.0,
        "fidelity": "authors_code",
        "fidelity_weight": 1e-4,
    }
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "concept_activation": ("none", "relu"),
        "reconstruction_target": ("pixels", "normalized"),
        "fidelity": ("kl", "mse_logits", "authors_code"),
    }
    least: ClassVar[dict[str, int]] = {
        "num_concepts": 1,
        "reconstruction_weight": 0,
        "fidelity_weight": 0,
        "sparsity_weight": 0,
        "rotation_weight": 0,
    }

    num_concepts: int = 10
    concept_activation: str = "none"
    reconstruction_target: str = "pixels"
    reconstruction_weight: float = 0.1
    fidelity: str = "kl"
    fidelity_weight: float = 0.1
    sparsity_weight: float = 0.0
    rotation_weight: float = 0.0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.keys_to_ignore_at_inference = [
            *("classification_loss", "reconstruction_loss", "fidelity_loss", "sparsity_loss", "rotation_loss"),
            *("concepts", "reconstruction"),
        ]
        size: Any = self.image_size
        if self.rotation_weight > 0 and size[0] != size[1]:
            raise ValueError(f"rotation_weight needs square images to turn, and image_size is {size}.")
