"""What the baselines have in common: a timm backbone at home in transformers."""

from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from antehoc_hf.baselines.configuration import PRESETS, BaselineConfig
from antehoc_hf.modeling.backbone import create_backbone, supports_gradient_checkpointing
from antehoc_hf.modeling.image_classification import check_labels
from antehoc_hf.modeling.pretrained import (
    forget_fresh_values,
    load_pretrained_backbone,
    pretrained_labels,
    restore_missing,
)


class BaselineForImageClassification(PreTrainedModel):
    """A timm backbone that classifies; what explains, or does not, is added by subclasses."""

    config: Any
    config_class = BaselineConfig
    base_model_prefix = "baseline"
    main_input_name = "pixel_values"
    input_modalities = ["image"]  # noqa: RUF012  as transformers declares it
    # The loss is a mean over the batch: the Trainer must not scale it for gradient accumulation a second time.
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _no_split_modules: list[str] = []  # noqa: RUF012  as transformers declares it

    backbone: Any  # timm's network

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if not config.num_labels:
            raise ValueError("num_labels must be at least 1 for a classifier.")
        self.num_labels: int = config.num_labels

    def _build(self, num_outputs: int) -> None:
        """The backbone, before anything that draws random numbers: with a head of K it starts as the plain network."""
        self.backbone = create_backbone(self.config, num_outputs)
        self._num_outputs = num_outputs
        self.supports_gradient_checkpointing = supports_gradient_checkpointing(self.backbone)

    def _check_one_of_several(self) -> None:
        config = self.config
        if config.problem_type not in (None, "single_label_classification") or config.num_labels < 2:
            raise ValueError(
                f"{type(self).__name__} tells one of several classes, but this configuration has problem_type="
                f"{config.problem_type!r} and num_labels={config.num_labels}: use another model."
            )

    def post_init(self) -> None:
        # timm has initialised its network (or loaded its weights): transformers must not do it again.
        for tensor in (*self.parameters(), *self.buffers()):
            if not tensor.is_meta:
                tensor._is_hf_initialized = True  # type: ignore[attr-defined]
        super().post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """What a checkpoint lacks gets the values of a freshly built model, timm's own for the backbone."""
        restore_missing(self, module, lambda: type(self)(self.config))

    def get_input_embeddings(self) -> Any:
        """None: an image has no embeddings."""
        return None

    def _set_gradient_checkpointing(self, enable: bool = True, *args: Any, **kwargs: Any) -> None:
        self.backbone.set_grad_checkpointing(enable)

    @classmethod
    def from_backbone(
        cls, backbone: str = "resnet18", pretrained: bool | str = False, preset: str = "paper", **config: Any
    ) -> Any:
        """
        A new model around a timm backbone.

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
        if pretrained and not {"num_labels", "id2label"} & set(config):
            config = {**config, **pretrained_labels(backbone, pretrained)}
        fields: dict[str, Any] = kind.__dataclass_fields__
        unknown = [name for name in config if name not in fields and name != "num_labels"]
        if unknown:
            near = get_close_matches(unknown[0], fields, n=1)
            hint = f": did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"{kind.__name__} has no option {unknown[0]!r}{hint}")
        make = kind.released_code if preset == "released_code" else kind
        model = cls(make(backbone=backbone, **config))
        if pretrained:
            load_pretrained_backbone(model.backbone, model.config, model._num_outputs, pretrained)
        return model

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; the weights end up in aligned memory of their own, as in the ante-hoc models."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        forget_fresh_values(model)
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.device.type == "cpu" and tensor.data_ptr() % 64:
                tensor.data = tensor.data.clone()
        return loaded

    def _classification_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """As transformers has it for the configuration's `problem_type`."""
        if not torch.compiler.is_compiling():
            check_labels(labels, self.num_labels)
        several = self.config.problem_type in ("multi_label_classification", "regression")
        floating = several or labels.is_floating_point()
        return self.loss_function(labels.to(logits.dtype) if floating else labels.long(), logits, self.config)

    def _check_pixels(self, pixel_values: Tensor, fixed_size: bool = False) -> None:
        """
        Raises:
            ValueError: if the images have a wrong shape, or another size than that of the concepts' networks.
        """
        if not isinstance(pixel_values, Tensor) or pixel_values.ndim != 4 or pixel_values.shape[1] != 3:
            shape = tuple(pixel_values.shape) if isinstance(pixel_values, Tensor) else repr(pixel_values)
            raise ValueError(f"pixel_values must be a tensor (batch, 3, height, width), not {shape}.")
        if not pixel_values.is_floating_point():
            raise ValueError(
                f"pixel_values must be normalised images in floating point, not {pixel_values.dtype}: use the image "
                "processor."
            )
        size = list(pixel_values.shape[-2:])
        if fixed_size and size != self.config.image_size:
            raise ValueError(
                f"{type(self).__name__} was built for images of {self.config.image_size} pixels and takes no other; "
                f"these have {size}."
            )


def weighted_sum(parts: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """The loss: its parts by name, each times its weight; a part without weight counts once."""
    terms = [part if name not in weights else weights[name] * part for name, part in parts.items()]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
