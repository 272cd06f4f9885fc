"""The ante-hoc models: a timm backbone and the map head that turns what its layers see into an interpretation map."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import can_return_tuple

from .backbone import check_taps, resolve_taps
from .configuration_antehoc import AnteHocConfig
from .map_head import Explanation, Targets, apply_map, checked_class, class_targets, map_fields, wants_hidden
from .phases import BatchNormMode, Phase, masked_pass_mode, without_gradient
from .scaling import size_of
from .taps import Finish, TapPoint, copies_without_taps, forward_with_taps
from .timm_model import TimmPreTrainedModel

PredictionKind = Literal["categorical", "bernoulli", "vector"]


class AnteHocPreTrainedModel(TimmPreTrainedModel):
    """A timm backbone that explains itself; the task's head is added by subclasses.

    Everything but `map_head` belongs to the task and is what plain timm would train.
    """

    config: Any  # AnteHocConfig; as remote code it may be of that name in another module
    config_class = AnteHocConfig
    base_model_prefix = "antehoc"

    # What an exported graph gives; nothing for a model without a head.
    onnx_outputs: ClassVar[tuple[str, ...]] = ()

    # Inputs beside `pixel_values` that the second pass needs too, such as a caption.
    interpretation_inputs: ClassVar[tuple[str, ...]] = ()

    # How a model is pushed; set by the project, and not there where this code travels alone.
    pusher: ClassVar[Callable[..., str] | None] = None

    # The class of the bare model, which `AutoModel` gives: its file, and its name.
    bare_model: ClassVar[str] = "modeling_antehoc.AnteHocModel"

    map_head: Any  # a MapHead and an nn.Module at once, which Python's types cannot say

    def _build(self, num_outputs: int) -> None:
        """Backbone and map head; to be followed by the head's own parts and `post_init`."""
        self.config.map_head.fit(self.config)  # the configuration may have been changed since
        resolve_taps(self.config)
        self._build_backbone(num_outputs)
        check_taps(self.config, self.backbone)
        copies_without_taps(self.backbone.get_submodule(point["module"]) for point in self.config.all_taps)
        # Apart from the global stream of random numbers: the backbone trains as if the map were not there.
        with torch.random.fork_rng():
            head = self.backbone.get_classifier() if num_outputs else None
            self.map_head = self.config.map_head.build(self.config, head)
        self._masked_pass: BatchNormMode | None = None
        if num_outputs == 0:  # AutoModel of a classifier's checkpoint: the head's weights have no place here
            names = (getattr(self.backbone, "pretrained_cfg", None) or {}).get("classifier") or ()
            heads = [rf"^backbone\.{name}\." for name in ((names,) if isinstance(names, str) else names)]
            self._keys_to_ignore_on_load_unexpected = [*heads, r"^decoder\."]

    @property
    def _takes_one_size(self) -> bool:
        return bool(self.config.fixed_image_size)

    @classmethod
    def from_backbone(cls, backbone: str, pretrained: bool | str = False, **config: Any) -> "AnteHocPreTrainedModel":
        """A new model around a timm backbone.

        Args:
            backbone (`str`): any name of `timm.list_models()`, with or without a pretrained tag.
            pretrained (`bool` or `str`): timm's pretrained weights, from the Hub, or the path of a file of them.
            config: options of the model's configuration, e.g. `num_labels=10`, `image_size=128`, `map_head="energy"`.

        Raises:
            ValueError: for an unknown or unsuitable backbone or a senseless option.
            OSError: if the pretrained weights cannot be had.
        """
        return cls._from_options(cls.config_class, backbone, pretrained, config)  # type: ignore[no-any-return]

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """As in transformers, with the code: the folder loads where this project is not installed."""
        if self._auto_class is not None:
            known = getattr(self.config, "auto_map", None) or {}
            # Saving registers the saved class alone; these are to work for every checkpoint.
            always = {
                "AutoModel": self.bare_model,
                "AutoImageProcessor": "image_processing_antehoc.AnteHocImageProcessor",
            }
            self.config.auto_map = {**always, **known}
        with self._own_class():
            super().save_pretrained(save_directory, *args, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:  # type: ignore[override]
        """As in transformers; where this project is installed, with image processor, tokenizer and our model card."""
        if self.pusher is not None:
            return type(self).pusher(self, repo_id, **kwargs)  # type: ignore[misc]
        return super().push_to_hub(repo_id, **kwargs)  # type: ignore[arg-type]

    @contextmanager
    def _own_class(self) -> Iterator[None]:
        """Sharding (FSDP2) gives the model a class of torch's, whose file would be saved as the model's code."""
        current = type(self)
        self.__class__ = next(kind for kind in current.__mro__ if not kind.__module__.startswith("torch."))
        try:
            yield
        finally:
            self.__class__ = current

    # -- the map ------------------------------------------------------------------------------------------------

    def _run_backbone(
        self, pixel_values: Tensor, call: Callable[[], Any], hidden_states: bool = False
    ) -> tuple[Any, Tensor, tuple[Tensor, ...] | None]:
        """The backbone's result, what the map head keeps of its taps, and, if asked for, the taps (B, C, h, w)."""
        size = size_of(pixel_values)

        def read(features: Tensor, finish: Finish) -> tuple[Tensor, list[Tensor]]:
            kept = self.map_head.keep(features, size)
            return kept if finish is None else finish(kept).detach(), [features] if hidden_states else []

        points = [TapPoint.from_dict(values) for values in self.config.all_taps]
        result, readings = forward_with_taps(self.backbone, points, read, call, size)
        seen = [features for _, kept in readings[: len(self.config.tap_points)] for features in kept]
        combined = self.map_head.combine([kept for kept, _ in readings], size)
        return result, combined, tuple(seen) if hidden_states else None

    def interpretation(self, pixel_values: Tensor, target: Tensor | int | None = None) -> Explanation:
        """The map of normalised images alone, whatever the model's head.

        Args:
            pixel_values (`Tensor`): normalised images, (B, 3, H, W).
            target (`int` or `Tensor`, *optional*): what the map is to explain, one for all images or (B,); None: what
                the model predicts. Only where each target has a map of its own.

        Raises:
            ValueError: if there is no such target, or the model has one map an image.
        """
        self._check_named(target)
        pixel_values = self._checked_pixels(pixel_values)
        prediction, values, _ = self._run_backbone(pixel_values, lambda: self.backbone(pixel_values))
        targets = self._targets(prediction) if self.map_head.per_target else None
        if targets is None and self.map_head.per_target:
            raise ValueError(
                f"{type(self).__name__} says no words, which its maps explain: load it with a task's class, such as "
                "AnteHocForImageCaptioning."
            )
        if target is not None:
            assert targets is not None
            targets.chosen = self._checked_target(target, targets.worth)
        return self.map_head(values, size_of(pixel_values), targets, detailed=True)

    def _check_named(self, target: Any) -> None:
        if target is not None and not self.map_head.per_target:
            raise ValueError(
                f"A map of kind {self.config.map_head.kind!r} is the same for every target: leave target out, or "
                "train a model with map_head='contributions'."
            )

    def _checked_target(self, target: Any, worth: Tensor) -> Tensor:
        """What is explained, as in [`Targets`]; a user's mistake is reported."""
        return checked_class(target, worth)

    def energy_map(self, pixel_values: Tensor, interpretation_map: Tensor) -> Tensor:
        """image ⊙ map, normalised as the backbone expects it (Eq. 2).

        Args:
            pixel_values (`Tensor`): normalised images, (B, 3, H, W).
            interpretation_map (`Tensor`): (B, 1, H, W) in [0, 1].

        Returns:
            `Tensor`: (B, 3, H, W).
        """
        mean = torch.tensor(self.config.image_mean, device=pixel_values.device).view(1, 3, 1, 1)
        std = torch.tensor(self.config.image_std, device=pixel_values.device).view(1, 3, 1, 1)
        return apply_map(pixel_values, interpretation_map, mean, std, self.map_head.mask_space)

    # Whether what a part of an image is worth is a matter of how near its prediction comes to the whole image's.
    worth_is_nearness: ClassVar[bool] = False

    def worth(self, prediction: Tensor, whole: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """What images, or what is left of them, are worth to each of the model's targets: what contributions share
        out.

        Args:
            prediction (`Tensor`): on these images, see [`prediction`].
            whole (`Tensor`, *optional*): that on the whole images, where `worth_is_nearness`.
            labels (`Tensor`, *optional*): (B, T), the words that are explained, of a captioner.

        Returns:
            `Tensor`: (B, K) float32.

        Raises:
            ValueError: if the model has no targets with maps of their own.
        """
        raise ValueError(f"{type(self).__name__} has no targets to which a part of an image is worth something.")

    def explained_target(self, prediction: Tensor) -> Tensor | None:
        """(B,), the target that each image's map explains unless another is named; None: all targets together."""
        return None

    def _targets(self, prediction: Any) -> Targets | None:
        """What is predicted, as targets; of no prediction (None) those of the model; None: it has no targets."""
        return None

    def _run_phase(
        self,
        pixel_values: Tensor,
        predict: Callable[[Tensor], Any],
        phase: Phase | None = None,
        tap_values: Tensor | None = None,
        detailed: bool = False,
        hidden_states: bool | None = False,
        known: Any = None,
    ) -> tuple[Any, Explanation, tuple[Tensor, ...] | None]:
        """One forward pass, with as much of the map as the phase needs.

        Args:
            pixel_values (`Tensor`): normalised images, (B, 3, H, W).
            predict: the backbone (and what the model does before its output) on such images.
            phase (`str`, *optional*): None: prediction and map. `"task"`: prediction and `tap_values`, the first pass
                of training. `"interpretation"`: what the map head makes of the first pass's `tap_values`, the second.
                `"prediction"`: the prediction alone.
            tap_values (`Tensor`, *optional*): of the first pass, for the second.
            detailed: also what the map was made from.
            hidden_states: also the activations of the taps; None: as configured.
            known: what the second pass knows of the first one's prediction, for [`_targets`].

        Returns:
            What `predict` gave, the explanation and the activations.
        """
        pixel_values = self._checked_pixels(pixel_values)
        size = size_of(pixel_values)
        if phase not in (None, "task", "interpretation", "prediction"):
            raise ValueError(f"phase={phase!r} is not one of None, 'task', 'interpretation', 'prediction'.")
        if phase == "prediction":
            return predict(pixel_values), Explanation(), None
        if phase == "interpretation":
            if tap_values is None:
                raise ValueError("phase='interpretation' needs the tap_values of the first pass.")
            self.map_head.check(tap_values)
            prediction, explained = self.map_head.second_pass(
                tap_values, size, self._targets(known), lambda map_: predict(self.energy_map(pixel_values, map_))
            )
            return prediction, explained, None
        hidden_states = wants_hidden(self, hidden_states)
        prediction, values, features = self._run_backbone(pixel_values, partial(predict, pixel_values), hidden_states)
        if phase == "task":
            return prediction, Explanation(tap_values=values), features
        targets = self._targets(prediction) if self.map_head.per_target else None
        return prediction, self.map_head(values, size, targets, detailed), features

    # -- training in two passes ---------------------------------------------------------------------------------

    @contextmanager
    def task_phase(self) -> Iterator[None]:
        """First pass: the task's parameters learn, the map head does not."""
        with without_gradient(self.map_head.parameters()):
            yield

    @contextmanager
    def interpretation_phase(self, batch_norm: BatchNormMode = "eval", train_backbone: bool = False) -> Iterator[None]:
        """Second pass: the map head learns from what the frozen backbone makes of masked images.

        Lasts until after the backward pass, since gradient checkpointing runs the backbone again there. Dropout is
        off.

        Args:
            batch_norm (`str`): `"eval"`: running statistics, not updated, so that they never see a masked image.
                `"batch"`: those of the batch, not stored. `"update"`: those of the batch, stored.
            train_backbone (`bool`): whether the backbone receives gradients as well (joint training).
        """
        own = {id(parameter) for parameter in self.map_head.parameters()}
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
                if name != "map_head":
                    child.eval()
            if mode and self._masked_pass != "eval":
                for module in self.backbone.modules():
                    if isinstance(module, nn.modules.batchnorm._BatchNorm):
                        module.train()
        return self

    def prediction(self, outputs: Any) -> Tensor:
        """What the second pass compares, (B, …, K): here the logits."""
        return outputs.logits

    def prediction_mask(self, inputs: dict[str, Any]) -> Tensor | None:
        """(B, …) bool, the positions of the prediction that count; None: all of them."""
        return None

    def interpretation_inputs_from(self, outputs: Any) -> dict[str, Any]:
        """Inputs of the second pass that the first pass has made itself."""
        return {}

    @property
    def prediction_kind(self) -> PredictionKind:
        """How to read the last axis of [`prediction`]: softmax, sigmoid, or, unless a head says so, plain numbers."""
        return "vector"


@dataclass
class AnteHocModelOutput(Explanation, BaseModelOutputWithPooling):
    """Output of [`AnteHocModel`], with the map as in [`Explanation`].

    Args:
        last_hidden_state (`Tensor`): the backbone's features, (B, C, h, w) for most.
        pooler_output (`Tensor`): pooled features, (B, C).
        hidden_states (`tuple[Tensor, ...]`, *optional*): the activations of the taps, (B, C, h, w) each.
    """


class AnteHocModel(AnteHocPreTrainedModel):
    """The bare model: features and maps. This is what `AutoModel` gives.

    It has no head, unless each target has a map of its own: then it keeps the classifier, and gives the map of what
    that predicts.
    """

    def __init__(self, config: AnteHocConfig) -> None:
        super().__init__(config)
        self._build(num_outputs=config.num_outputs if config.map_head.per_target else 0)
        self.post_init()

    def prediction(self, outputs: Any) -> Tensor:
        """The pooled features, (B, C)."""
        return outputs.pooler_output

    def _targets(self, prediction: Any) -> Targets | None:
        """The classes, where the model has kept its classifier."""
        return class_targets(self, prediction) if self.map_head.per_target else None

    @can_return_tuple
    def forward(
        self, pixel_values: Tensor, output_attention_maps: bool = False, output_hidden_states: bool | None = None
    ) -> AnteHocModelOutput:
        """Features and map of images, in one pass.

        Args:
            pixel_values (`Tensor`): normalised images, (B, 3, H, W).
            output_attention_maps (`bool`): also return what the map was made from: soft attention maps and weight
                maps, or the contributions to every class.
            output_hidden_states (`bool`, *optional*): also return the activations of the taps.
        """
        pixel_values = self._checked_pixels(pixel_values)
        features, values, taps = self._run_backbone(
            pixel_values,
            lambda: self.backbone.forward_features(pixel_values),
            wants_hidden(self, output_hidden_states),
        )
        per_target = self.map_head.per_target
        targets = self._targets(self.backbone.forward_head(features)) if per_target else None
        explained = Explanation()
        if targets is not None or not per_target:
            explained = self.map_head(values, size_of(pixel_values), targets, output_attention_maps)
        return AnteHocModelOutput(
            last_hidden_state=features,
            pooler_output=self.backbone.forward_head(features, **({"pre_logits": True} if targets else {})),
            **map_fields(explained, output_attention_maps),  # type: ignore[arg-type]
            hidden_states=taps,
        )


AnteHocModel.register_for_auto_class("AutoModel")
