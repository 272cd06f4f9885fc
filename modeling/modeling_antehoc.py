"""The ante-hoc models: a timm backbone and the weight network that turns its attention into an interpretation map."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from .attention_maps import channel_attention, full_precision, minmax, shrink, soft_attention_maps
from .backbone import resolve_taps
from .class_maps import ClassMaps
from .configuration_antehoc import AnteHocConfig
from .contributions import on_grid, patch_grid
from .interpretation import energy_map, interpretation_map, weight_maps
from .outputs import AnteHocModelOutput, AnteHocOutput, as_object, shown
from .phases import BatchNormMode, Phase, masked_pass_mode, without_gradient
from .tap_layout import TapPoint
from .taps import forward_with_taps
from .timm_model import TimmPreTrainedModel
from .weight_network import build_weight_network


class AnteHocPreTrainedModel(TimmPreTrainedModel):
    """
    A timm backbone that explains itself; the task's head is added by subclasses.

    Everything but `weight_network` belongs to the task and is what plain timm would train.
    """

    config: Any  # AnteHocConfig; as remote code it may be of that name in another module
    config_class = AnteHocConfig
    base_model_prefix = "antehoc"

    # What an exported graph gives; nothing for a model without a head.
    onnx_outputs: ClassVar[tuple[str, ...]] = ()

    # How a model is pushed; set by the project, and not there where this code travels alone.
    pusher: ClassVar[Callable[..., str] | None] = None

    weight_network: nn.Module

    def _build(self, num_outputs: int) -> None:
        """Backbone and weight network; to be followed by the head's own parts and `post_init`."""
        resolve_taps(self.config)
        self._build_backbone(num_outputs)
        self._check_taps()
        # Apart from the global stream of random numbers: the backbone trains as if the map were not there.
        with torch.random.fork_rng():
            head = self.backbone.get_classifier() if num_outputs else None
            self.weight_network = build_weight_network(self.config, head)
        self._masked_pass: BatchNormMode | None = None
        classifier = (getattr(self.backbone, "pretrained_cfg", None) or {}).get("classifier") or ()
        names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        if num_outputs == 0:  # AutoModel of a classifier's checkpoint: the head's weights have no place here
            heads = [rf"^backbone\.{name}\." for name in names]
            self._keys_to_ignore_on_load_unexpected = [*heads, r"^decoder\."]

    @property
    def _takes_one_size(self) -> bool:
        return bool(self.config.fixed_image_size)

    def _check_taps(self) -> None:
        modules = dict(self.backbone.named_modules())
        for point in self.config.tap_points:
            if point["module"] not in modules:
                raise ValueError(
                    f"tap_points of the configuration names {point['module']!r}, which {self.config.backbone!r} does "
                    "not have: remove tap_points from the configuration to have them found anew."
                )

    @classmethod
    def from_backbone(cls, backbone: str, pretrained: bool | str = False, **config: Any) -> "AnteHocPreTrainedModel":
        """
        A new model around a timm backbone.

        Args:
            backbone (`str`): any name of `timm.list_models()`, with or without a pretrained tag.
            pretrained (`bool` or `str`): timm's pretrained weights, from the Hub, or the path of a file of them.
            config: options of [`AnteHocConfig`], e.g. `num_labels=10`, `image_size=128`.

        Raises:
            ValueError: for an unknown or unsuitable backbone or a senseless option.
            OSError: if the pretrained weights cannot be had.
        """
        return cls._from_options(AnteHocConfig, backbone, pretrained, config)  # type: ignore[no-any-return]

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """As in transformers, with the code: the folder loads where this project is not installed."""
        if self._auto_class is not None:
            known = getattr(self.config, "auto_map", None) or {}
            # Saving registers the saved class alone; these are to work for every checkpoint.
            always = {
                "AutoModel": f"{AnteHocModel.__module__.split('.')[-1]}.AnteHocModel",
                "AutoImageProcessor": "image_processing_antehoc.AnteHocImageProcessor",
            }
            self.config.auto_map = {**always, **known}
        with self._own_class():
            super().save_pretrained(save_directory, *args, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:  # type: ignore[override]
        """As in transformers; where this project is installed, with image processor, tokenizer and our model card."""
        pusher = type(self).pusher
        if pusher is not None:
            return pusher(self, repo_id, **kwargs)
        return super().push_to_hub(repo_id, **kwargs)  # type: ignore[arg-type]

    @contextmanager
    def _own_class(self) -> Iterator[None]:
        """Sharding (FSDP2) gives the model a class of torch's, whose file would be saved as the model's code."""
        shown = type(self)
        self.__class__ = next(kind for kind in shown.__mro__ if not kind.__module__.startswith("torch."))
        try:
            yield
        finally:
            self.__class__ = shown

    # -- the map ------------------------------------------------------------------------------------------------

    @property
    def class_conditional(self) -> bool:
        """Whether every class has a map of its own (`weight_network="contributions"`)."""
        return bool(self.config.weight_network == "contributions")

    def _run_backbone(self, pixel_values: Tensor, call: Callable[[], Any]) -> tuple[Any, list[Tensor]]:
        """
        The backbone's result and, without gradient, what is kept of its taps: their attention at native resolution,
        or, for class-conditional maps, their activations on the grid of patches.
        """
        config = self.config

        size = (pixel_values.shape[-2], pixel_values.shape[-1])

        def read(features: Tensor) -> Tensor:
            if self.class_conditional:
                return on_grid(features.detach(), patch_grid(size, config.contribution_grid))
            return channel_attention(features.detach(), config.channel_reduction, config.attention_softmax)

        points = [TapPoint.from_dict(values) for values in config.tap_points]
        return forward_with_taps(self.backbone, points, read, call, size)

    def _soft_attention_maps(self, attentions: list[Tensor], pixel_values: Tensor) -> Tensor:
        size = (pixel_values.shape[-2], pixel_values.shape[-1])
        with torch.no_grad(), full_precision(pixel_values):
            return soft_attention_maps(attentions, size, self.config.attention_softmax, self.config.attention_resize)

    def weight_network_input(self, soft_attention_maps: Tensor) -> Tensor:
        """
        What the weight network sees of the (B, η, H, W) maps: averaged to 1/`weight_network_stride` of the size, and
        each stretched to [0, 1] or left as it is (`"raw"`).
        """
        maps = shrink(soft_attention_maps, self.config.weight_network_stride)
        return maps if self.config.weight_network_input == "raw" else minmax(maps)

    def interpret(self, soft_attention_maps: Tensor) -> AnteHocOutput:
        """
        Weights the soft attention maps and sums them to the interpretation map (Eq. 1).

        Args:
            soft_attention_maps (`Tensor`): (B, η, H, W), float32.
        """
        dtype = next(self.weight_network.parameters()).dtype
        logits = self.weight_network(self.weight_network_input(soft_attention_maps).to(dtype))
        with full_precision(soft_attention_maps):
            weights = weight_maps(logits.float(), (soft_attention_maps.shape[-2], soft_attention_maps.shape[-1]))
            map_, degenerate = interpretation_map(
                soft_attention_maps, weights, self.config.attention_scaling, self.config.map_scaling
            )
        return AnteHocOutput(
            interpretation_map=map_,
            degenerate=degenerate,
            soft_attention_maps=soft_attention_maps,
            weight_maps=weights,
            weight_logits=logits,
        )

    def interpretation(self, pixel_values: Tensor) -> AnteHocOutput:
        """The map of normalised images (B, 3, H, W) alone, whatever the head."""
        return self._run_phase(pixel_values, self.backbone)[1]

    def energy_map(self, pixel_values: Tensor, interpretation_map: Tensor) -> Tensor:
        """
        image ⊙ map, normalised as the backbone expects it (Eq. 2).

        Args:
            pixel_values (`Tensor`): normalised images, (B, 3, H, W).
            interpretation_map (`Tensor`): (B, 1, H, W) in [0, 1].

        Returns:
            `Tensor`: (B, 3, H, W).
        """
        mean = torch.tensor(self.config.image_mean, device=pixel_values.device).view(1, 3, 1, 1)
        std = torch.tensor(self.config.image_std, device=pixel_values.device).view(1, 3, 1, 1)
        return energy_map(pixel_values, interpretation_map, mean, std, self.config.mask_space)

    def _run_phase(
        self,
        pixel_values: Tensor,
        run: Callable[[Tensor], Any],
        phase: Phase | None = None,
        soft_attention_maps: Tensor | None = None,
    ) -> tuple[Any, AnteHocOutput]:
        """
        One forward pass of a head, with as much of the map as the phase needs.

        Args:
            pixel_values (`Tensor`): normalised images, (B, 3, H, W).
            run: the backbone (and what the head does before its output) on such images.
            phase (`str`, *optional*): None: prediction and map. `"task"`: prediction and soft attention maps, the
                first pass of training. `"interpretation"`: the map of the first pass's soft attention maps, and the
                prediction on the energy map, the second.
            soft_attention_maps (`Tensor`, *optional*): (B, η, H, W), for the second pass.

        Returns:
            What `run` gave, and the map.

        Raises:
            ValueError: if the images have a wrong shape, or phase and maps do not fit.
        """
        self._check_pixels(pixel_values)
        if phase not in (None, "task", "interpretation"):
            raise ValueError(f"phase={phase!r} is not one of None, 'task', 'interpretation'.")
        if phase == "interpretation":
            explained = self.interpret(self._checked_maps(soft_attention_maps))
            assert explained.interpretation_map is not None
            return run(self.energy_map(pixel_values, explained.interpretation_map)), explained
        result, attentions = self._run_backbone(pixel_values, lambda: run(pixel_values))
        maps = self._soft_attention_maps(attentions, pixel_values)
        return result, AnteHocOutput(soft_attention_maps=maps) if phase == "task" else self.interpret(maps)

    def _checked_maps(self, soft_attention_maps: Tensor | None) -> Tensor:
        if soft_attention_maps is None:
            raise ValueError("phase='interpretation' needs the soft_attention_maps of the first pass.")
        if soft_attention_maps.shape[1] != self.config.num_attention_maps:
            raise ValueError(
                f"soft_attention_maps must be {self.config.num_attention_maps} maps an image, not "
                f"{soft_attention_maps.shape[1]}."
            )
        return soft_attention_maps

    # -- training in two passes ---------------------------------------------------------------------------------

    @contextmanager
    def task_phase(self) -> Iterator[None]:
        """First pass: the task's parameters learn, the weight network does not."""
        with without_gradient(self.weight_network.parameters()):
            yield

    @contextmanager
    def interpretation_phase(self, batch_norm: BatchNormMode = "eval", train_backbone: bool = False) -> Iterator[None]:
        """
        Second pass: the weight network learns from what the frozen backbone makes of the energy map.

        Lasts until after the backward pass, since gradient checkpointing runs the backbone again there. Dropout is
        off.

        Args:
            batch_norm (`str`): `"eval"`: running statistics, not updated, so that they never see a masked image.
                `"batch"`: those of the batch, not stored. `"update"`: those of the batch, stored.
            train_backbone (`bool`): whether the backbone receives gradients as well (joint training).
        """
        own = {id(parameter) for parameter in self.weight_network.parameters()}
        frozen = [] if train_backbone else [p for p in self.parameters() if id(p) not in own]
        modes = [(module, module.training) for module in self.modules()]
        with without_gradient(frozen), masked_pass_mode(self.backbone, batch_norm):
            try:
                self._masked_pass = batch_norm
                self.train(self.training)
                yield
            finally:
                self._masked_pass = None
                for module, mode in modes:  # one by one: a user may keep some batch norms frozen
                    module.training = mode

    def train(self, mode: bool = True) -> "AnteHocPreTrainedModel":
        """Training or evaluation mode; during the second pass the backbone keeps the mode of that pass."""
        super().train(mode)
        if self._masked_pass is not None:
            for name, child in self.named_children():
                if name != "weight_network":
                    child.eval()
            if mode and self._masked_pass != "eval":
                for module in self.backbone.modules():
                    if isinstance(module, nn.modules.batchnorm._BatchNorm):
                        module.train()
        return self

    def prediction(self, outputs: Any) -> Tensor:
        """What the second pass compares, (B, …, K): here the logits."""
        return outputs.logits

    @property
    def prediction_kind(self) -> Literal["categorical", "bernoulli", "vector"]:
        """How to read the last axis of [`prediction`]: softmax, sigmoid, or, unless a head says so, plain numbers."""
        return "vector"


class AnteHocModel(ClassMaps, AnteHocPreTrainedModel):
    """
    The bare model: features and maps. This is what `AutoModel` gives.

    It has no head, unless the map depends on the class: then it keeps the classifier, and shows the map of the most
    likely class.
    """

    def __init__(self, config: AnteHocConfig) -> None:
        super().__init__(config)
        self._build(num_outputs=(config.num_labels or 0) if config.weight_network == "contributions" else 0)
        self.post_init()

    def prediction(self, outputs: Any) -> Tensor:
        """The pooled features, (B, C)."""
        return outputs.pooler_output

    def forward(
        self,
        pixel_values: Tensor,
        output_attention_maps: bool = False,
        return_dict: bool | None = None,
    ) -> AnteHocModelOutput | tuple[Any, ...]:
        """
        Args:
            pixel_values (`Tensor`): normalised images, (B, 3, H, W).
            output_attention_maps (`bool`): also return soft attention maps and weight maps.
            return_dict (`bool`, *optional*): whether to return an output object (default) or a tuple.
        """
        self._check_pixels(pixel_values)
        features, taps = self._run_backbone(pixel_values, lambda: self.backbone.forward_features(pixel_values))
        if self.class_conditional:
            pooled = self.backbone.forward_head(features, pre_logits=True)
            logits = self.backbone.forward_head(features)
            explained = self._class_maps(logits, torch.cat(taps, dim=1), pixel_values, of_all_classes=False)
        else:
            pooled = self.backbone.forward_head(features)
            explained = self.interpret(self._soft_attention_maps(taps, pixel_values))
        output = AnteHocModelOutput(
            last_hidden_state=features,
            pooler_output=pooled,
            **shown(explained, output_attention_maps),
        )
        return output if as_object(return_dict, self.config) else output.to_tuple()


AnteHocModel.register_for_auto_class("AutoModel")
