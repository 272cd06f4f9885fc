"""What the baselines have in common: a timm backbone that classifies."""

import operator
from functools import reduce
from typing import Any, ClassVar

from torch import Tensor

from antehoc_hf.baselines.concept_autoencoder import concept_grid
from antehoc_hf.baselines.configuration import PRESETS, BaselineConfig
from antehoc_hf.model_push import push_model
from antehoc_hf.modeling.timm_model import TimmPreTrainedModel


class BaselineForImageClassification(TimmPreTrainedModel):
    """A timm backbone that classifies; what explains, or does not, is added by subclasses."""

    config_class = BaselineConfig
    base_model_prefix = "baseline"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if not config.num_labels:
            raise ValueError("num_labels must be at least 1 for a classifier.")
        self.num_labels: int = config.num_labels

    @classmethod
    def from_backbone(
        cls, backbone: str = "resnet18", pretrained: bool | str = False, preset: str = "paper", **config: Any
    ) -> Any:
        """A new model around a timm backbone.

        Args:
            backbone (`str`): any name of `timm.list_models()`, with or without a pretrained tag.
            pretrained (`bool` or `str`): timm's pretrained weights, from the Hub, or the path of a file of them.
            preset (`str`): `"paper"`: the configuration's defaults; `"released_code"`: those of the method authors'
                released code. Options in `config` go first.
            config: options of the configuration, e.g. `num_labels=10`, `image_size=128`.

        Raises:
            ValueError: for an unknown or unsuitable backbone or a senseless option.
            OSError: if the pretrained weights cannot be had.
        """
        kind: type[BaselineConfig] = cls.config_class
        if preset not in PRESETS:
            raise ValueError(f"preset={preset!r} is not one of {', '.join(map(repr, PRESETS))}.")
        make = kind.released_code if preset == "released_code" else kind
        return cls._from_options(make, backbone, pretrained, config)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:  # type: ignore[override]
        """As the ante-hoc models: with image processor and our card; see [`push_model`]."""
        return push_model(self, repo_id, **kwargs)


class ConceptModel(BaselineForImageClassification):
    """What SENN and CBAH share: concepts read off images of one size, and a loss of several weighted parts."""

    weighted: ClassVar[tuple[str, ...]]  # parts of the loss whose weights the configuration holds

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        concept_grid(config.image_size)
        self._check_one_of_several()

    def _check_one_of_several(self) -> None:
        config = self.config
        if config.problem_type not in (None, "single_label_classification") or config.num_labels < 2:
            raise ValueError(
                f"{type(self).__name__} tells one of several classes, but this configuration has problem_type="
                f"{config.problem_type!r} and num_labels={config.num_labels}: use another model."
            )

    @property
    def _takes_one_size(self) -> bool:
        return True  # the concepts' networks end in layers of a fixed width

    def _total(self, parts: dict[str, Tensor]) -> Tensor | None:
        """The loss: each part times its weight, or as it is without one; None without parts."""
        weights = {f"{name}_loss": getattr(self.config, f"{name}_weight") for name in self.weighted}
        terms = [part if name not in weights else weights[name] * part for name, part in parts.items()]
        return reduce(operator.add, terms) if terms else None
