"""A timm network at home in transformers: what every model of this project shares, whatever it explains."""

from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .backbone import check_classifier, create_backbone, supports_gradient_checkpointing
from .pretrained import (
    explained_damage,
    forget_fresh_values,
    load_pretrained_backbone,
    mismatch_sentence,
    pretrained_labels,
    restore_missing,
)
from .taps import without_taps


class TimmPreTrainedModel(PreTrainedModel):
    """A timm backbone with its own weights, initial values and head; the rest is added by subclasses."""

    config: Any
    main_input_name = "pixel_values"
    input_modalities = ["image"]  # noqa: RUF012  as transformers declares it
    # The loss is a mean over the batch: the Trainer must not scale it for gradient accumulation a second time.
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _no_split_modules: list[str] = []  # noqa: RUF012  as transformers declares it

    backbone: Any  # timm's network

    def _build_backbone(self, num_outputs: int) -> None:
        """The backbone, before anything else that draws random numbers: it starts as timm's network of that seed."""
        self.backbone = create_backbone(self.config, num_outputs)
        check_classifier(self.config, self.backbone)
        self._num_outputs = num_outputs
        self.supports_gradient_checkpointing = supports_gradient_checkpointing(self.backbone)

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
    def _from_options(cls, make_config: Any, backbone: str, pretrained: bool | str, options: dict[str, Any]) -> Any:
        """
        A new model.

        Args:
            make_config: the configuration's class, or what makes one of the same options.
            backbone (`str`): any name of `timm.list_models()`, with or without a pretrained tag.
            pretrained (`bool` or `str`): timm's pretrained weights, from the Hub, or the path of a file of them.
            options (`dict`): of the configuration.

        Raises:
            ValueError: for an unknown or unsuitable backbone or a senseless option.
            OSError: if the pretrained weights cannot be had.
        """
        if pretrained and not {"num_labels", "id2label"} & set(options):
            options = {**options, **pretrained_labels(backbone, pretrained)}
        config = make_config(backbone=backbone, **options)
        fields: dict[str, Any] = cls.config_class.__dataclass_fields__  # type: ignore[union-attr]
        unknown = [name for name in options if name not in fields and name != "num_labels"]
        if unknown:
            near = get_close_matches(unknown[0], fields, n=1)
            hint = f": did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"{cls.config_class.__name__} has no option {unknown[0]!r}{hint}")  # type: ignore[union-attr]
        model = cls(config)
        if pretrained:
            load_pretrained_backbone(model.backbone, model.config, model._num_outputs, pretrained)
        return model

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """
        As in transformers, from safetensors unless `use_safetensors=False` is given (a pickle can run code when it is
        loaded); weights that do not fit are an error, and they end up in aligned memory of their own.

        Weights that stay mapped from the file lie at odd addresses, where the CPU's matrix kernels round otherwise
        (1e-8): a reloaded model would not give the very same numbers.

        Raises:
            ValueError: if the options given do not fit the weights.
            OSError: if the weights are damaged.
        """
        kwargs.setdefault("use_safetensors", True)
        folder = args[0] if args else kwargs.get("pretrained_model_name_or_path")
        with_report, tolerant = kwargs.pop("output_loading_info", False), kwargs.pop("ignore_mismatched_sizes", False)
        with explained_damage(folder):
            model, report = super().from_pretrained(
                *args, **kwargs, output_loading_info=True, ignore_mismatched_sizes=True
            )
        if report["mismatched_keys"] and not tolerant:
            raise ValueError(mismatch_sentence(str(folder), report["mismatched_keys"]))
        forget_fresh_values(model)
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.device.type == "cpu" and tensor.data_ptr() % 64:
                tensor.data = tensor.data.clone()
        return (model, report) if with_report else model

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles, also while another thread runs the model."""
        return without_taps(self).__dict__

    def __copy__(self) -> Any:
        """Shallow: the very same modules."""
        twin = object.__new__(type(self))
        twin.__dict__ = self.__dict__.copy()
        return twin

    @property
    def _takes_one_size(self) -> bool:
        """Whether images must have the size that the model was built for."""
        return False

    def _checked_pixels(self, pixel_values: Tensor) -> Tensor:
        """
        The images as the kind of number that the backbone's weights are.

        Raises:
            ValueError: unless the images are (B, 3, H, W) in floating point, and of the size that the model takes
                where it takes only one.
        """
        if not isinstance(pixel_values, Tensor):
            raise ValueError(f"pixel_values must be a tensor (batch, 3, height, width), not {pixel_values!r}.")
        if not pixel_values.is_floating_point():
            raise ValueError(
                f"pixel_values must be normalised images in floating point, not {pixel_values.dtype}: use the image "
                "processor."
            )
        shape = tuple(pixel_values.shape)
        if len(shape) != 4 or shape[1] != 3:
            hint = ""
            if len(shape) == 4 and shape[1] == 1:
                hint = ": a grey image has three equal channels, pixel_values.expand(-1, 3, -1, -1)"
            elif len(shape) == 4 and shape[3] == 3:
                hint = ": bring the channels to the front, pixel_values.permute(0, 3, 1, 2)"
            elif shape[:1] == (3,) and len(shape) == 3:
                hint = ": one image is a batch of one, pixel_values[None]"
            raise ValueError(f"pixel_values must be (batch, 3, height, width), not {shape}{hint}.")
        if self._takes_one_size and list(pixel_values.shape[-2:]) != list(self.config.image_size):
            raise ValueError(
                f"{type(self).__name__} around {self.config.backbone!r} was built for images of "
                f"{self.config.image_size} pixels and takes no other; these have {list(pixel_values.shape[-2:])}."
            )
        weights = next((weight for weight in self.backbone.parameters() if weight.is_floating_point()), pixel_values)
        return pixel_values.to(weights.dtype)
