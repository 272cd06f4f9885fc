"""Any model as explainers see it: what is known of it, and one question about a batch of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from antehoc_hf.evaluation.networks import body_of, is_ante_hoc, normalisation_of, normalised_black, unwrapped
from antehoc_hf.explainers.replica import replica
from antehoc_hf.explainers.targets import (
    AllValues,
    CaptionTarget,
    ClassTarget,
    PointTarget,
    Target,
    activation_of,
    chosen_caption,
    chosen_classes,
    chosen_points,
    class_names,
)
from antehoc_hf.modeling.scaling import plain

Kind = Literal["classes", "landmarks", "captions"]


class ModelOptions(TypedDict, total=False):
    """What every explainer can be told about a model that does not say so itself.

    Keys:
        image_mean, image_std (`Sequence[float]`): the normalisation of its images, a number for each channel.
        problem_type (`str`): `"single_label_classification"`, `"multi_label_classification"` or `"regression"`.
    """

    image_mean: Sequence[float] | None
    image_std: Sequence[float] | None
    problem_type: str | None


class Network:
    """What explainers need to know of a model. Nothing here changes while it explains.

    Args:
        model: one of ours, a network of timm or torchvision, any `…ForImageClassification` of transformers, or one of
            these compiled or inside `DataParallel`.
        image_mean, image_std, problem_type (*optional*): see [`ModelOptions`]; what the model says otherwise.

    Raises:
        ValueError: if it is no such model, or an option does not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        problem_type: str | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ValueError(f"An explainer needs a model, not {type(model).__name__}.")
        self.model = unwrapped(model)
        self.config: Any = getattr(self.model, "config", None)
        self.kind = _kind(self.model)
        known = (None, "single_label_classification", "multi_label_classification", "regression")
        if problem_type not in known:
            raise ValueError(f"problem_type={problem_type!r} is not one of {', '.join(map(repr, known[1:]))}.")
        if (image_mean is None) != (image_std is None):
            raise ValueError("image_mean and image_std belong together: give both or neither.")
        self.problem_type = problem_type or getattr(self.config, "problem_type", None)
        given = None if image_mean is None or image_std is None else (image_mean, image_std)
        if given is not None:
            normalised_black(*given)  # for its error
        self._normalisation = given or normalisation_of(self.model)

    @property
    def body(self) -> nn.Module:
        """The module whose layers are read: the map of an ante-hoc model is not part of what it predicts."""
        return body_of(self.model)

    def checked(self, pixel_values: Tensor, float32: bool = False) -> Tensor:
        """A copy of the images on the model's device and in its type, or in float32.

        Raises:
            ValueError: if they are not a batch of normalised images.
        """
        if isinstance(pixel_values, list | tuple):
            raise ValueError("pixel_values must be one tensor (B, C, H, W): images of different sizes go one by one.")
        if not isinstance(pixel_values, Tensor) or pixel_values.ndim != 4 or not pixel_values.is_floating_point():
            found = type(pixel_values).__name__
            if isinstance(pixel_values, Tensor):
                found = f"{tuple(pixel_values.shape)} of {pixel_values.dtype}"
            raise ValueError(f"pixel_values must be normalised images (B, C, H, W) in floating point, not {found}.")
        if pixel_values.shape[3] in (1, 3, 4) and pixel_values.shape[1] not in (1, 3, 4):
            shape = tuple(pixel_values.shape)
            raise ValueError(f"pixel_values {shape} have their channels last: use pixel_values.permute(0, 3, 1, 2).")
        if 0 in pixel_values.shape[1:]:
            raise ValueError(f"pixel_values {tuple(pixel_values.shape)} hold images without pixels.")
        weights = next((weight for weight in self.model.parameters() if weight.is_floating_point()), pixel_values)
        with torch.inference_mode(False), torch.no_grad():
            dtype = torch.float32 if float32 and weights.dtype.itemsize < 4 else weights.dtype
            values = plain(pixel_values, "pixel_values", weights)
            return values.to(device=weights.device, dtype=dtype, copy=True).detach()

    def black(self, pixel_values: Tensor) -> Tensor:
        """Black images of the same shape, normalised as the model expects it.

        Raises:
            ValueError: if the normalisation of the model's images is not known.
        """
        channels = pixel_values.shape[1]
        black = None if self._normalisation is None else normalised_black(*self._normalisation)
        if black is None or len(black) != channels:
            found = "" if black is None else f" for {channels} channels"
            raise ValueError(
                f"{type(self.model).__name__} does not say how its images are normalised{found}, so that black is not "
                "known: give image_mean=… and image_std=…, as in its image processor."
            )
        return black.view(1, -1, 1, 1).to(pixel_values).expand_as(pixel_values)

    def question(self, pixel_values: Tensor, target: object = None, float32: bool = False) -> Question:
        """What a user asks about these images (of [`checked`]), with a copy of the model in its precision or in
        float32.

        Raises:
            ValueError: if the model has no such class, landmark or word.
        """
        return Question(self, pixel_values, target, float32)


class Question:
    """One call of an explainer: the images, what is asked about them, and a private copy of the model to run.

    `question(images)` gives what targets are read from: logits (N, K), coordinates (N, 2K) or, of captions, logits
    (N, T, V).

    Attributes:
        images (`Tensor`): (B, C, H, W).
        model, body (`nn.Module`): the copy, and the part of it whose layers are read. Hooks on it disturb nobody.
    """

    def __init__(self, network: Network, images: Tensor, target: object, float32: bool = False) -> None:
        self.network, self.images, self._float32 = network, images, float32
        with torch.inference_mode(False):
            self.model = replica(network.model, float32)
        self.body = body_of(self.model)
        self.asked = target
        self._caption: CaptionTarget | None = None

    def __call__(self, images: Tensor, positions: Tensor | None = None) -> Tensor:
        """One forward pass.

        Args:
            images (`Tensor`): (N, C, H, W).
            positions (`Tensor`, *optional*): (N,) which image of the batch each is a version of; None: all in order.

        Raises:
            ValueError: if the model cannot take them.
        """
        images = images.clone()  # a network may work in place on what it is given
        words = self._caption_target().sequences[:, :-1] if self.network.kind == "captions" else None
        try:
            if words is not None:
                words = words if positions is None else words[positions]
                return self.model(images, decoder_input_ids=words, phase="task").logits
            return _scores(self.body(images))
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, LookupError) as error:
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            name, shape = type(self.network.model).__name__, tuple(images.shape)
            raise ValueError(f"{name} cannot take images of shape {shape}: {reason}") from error

    def target(self, outputs: Tensor) -> Target:
        """What is explained, given the outputs for the images themselves.

        Raises:
            ValueError: if the outputs are not one score for each class, or there is no such class or landmark.
        """
        if self.network.kind == "captions":
            return self._caption_target()
        outputs = outputs.detach()
        if outputs.ndim != 2:
            name, shape = type(self.network.model).__name__, tuple(outputs.shape)
            raise ValueError(
                f"{name} gives {shape} where explainers need one score for each class, (B, K): wrap it so that its "
                "forward pass does."
            )
        if self.network.kind == "landmarks":
            landmarks = outputs.unflatten(1, (-1, 2))
            config = self.network.config
            names = {name: index for index, name in enumerate(config.landmark_names or ())}
            points = chosen_points(self.asked, landmarks.shape[1], names, dict(config.landmark_parts or {}))
            return PointTarget(points.to(outputs.device), landmarks)
        return self._class_target(outputs)

    def own_score(self, outputs: Tensor) -> Tensor:
        """The score, (B,), of what is asked about in the outputs for the images themselves."""
        return self.target(outputs).score(outputs)

    def target_of_outputs(self, num_outputs: int) -> Target:
        """A target that is named and not the model's own prediction, before there are outputs (B, `num_outputs`)."""
        return self.target(self.images.new_zeros(len(self.images), num_outputs))

    def _class_target(self, outputs: Tensor) -> Target:
        count, num_outputs = outputs.shape
        activation = activation_of(self.network.problem_type, num_outputs)
        num_classes = 2 if activation == "binary" else num_outputs
        classes = chosen_classes(self.asked, count, num_classes, class_names(self.network.config))
        if classes is None and activation == "identity" and num_outputs > 1:
            return AllValues()
        if classes is None:
            classes = (outputs[:, 0] < 0).long() if activation == "binary" else outputs.argmax(dim=1)
        return ClassTarget(classes.to(outputs.device), activation)

    def _caption_target(self) -> CaptionTarget:
        """The model's own captions, captions of ids, or one word of them."""
        if self._caption is None:
            config, asked = self.network.config, self.asked
            ids, word = asked if isinstance(asked, tuple) and len(asked) == 2 else (asked, None)
            if ids is None:
                model: Any = replica(self.network.model, self._float32)  # on which nothing is hooked
                with torch.no_grad():
                    ids = model.generate(self.images)
            given = ids if word is None else (ids, word)
            caption = chosen_caption(given, len(self.images), config.vocab_size, config.pad_token_id)
            device = self.images.device
            self._caption = CaptionTarget(caption.sequences.to(device), caption.counted.to(device))
        return self._caption


def has_map_per_target(model: nn.Module) -> bool:
    """Whether an ante-hoc model has a map for each target, and not one for all."""
    return bool(getattr(getattr(model, "map_head", None), "per_target", False))


def own_maps(question: Question, target: Target | None) -> Tensor | None:
    """What an ante-hoc model shows by itself, (B, 1, H, W) in [0, 1], 0 where it has nothing to show: of the target,
    where each target has a map, or else of what it predicts. None: it is not such a model.
    """
    if not is_ante_hoc(question.network.model):
        return None
    model: Any = question.model
    named = target.named if target is not None and has_map_per_target(model) else None
    explained = model.interpretation(question.images, named)
    maps: Tensor = explained.interpretation_map * ~explained.degenerate[:, None, None, None]
    return maps


def _scores(outputs: object) -> Tensor:
    """The scores in whatever a classifier returns."""
    if isinstance(outputs, Tensor):
        return outputs
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if logits is None:
        # A plain tuple, or an output of transformers that has another name for them.
        items = (
            outputs.values() if isinstance(outputs, Mapping) else outputs if isinstance(outputs, tuple | list) else ()
        )
        logits = next((item for item in items if isinstance(item, Tensor) and item.ndim == 2), None)
    if not isinstance(logits, Tensor):
        raise TypeError(f"it returns {type(outputs).__name__}, in which there are no logits.")
    return logits


def _kind(model: Any) -> Kind:
    if is_ante_hoc(model):
        if getattr(model.config, "vocab_size", None) and hasattr(model, "generate"):
            return "captions"
        if getattr(model.config, "num_landmarks", None) and "landmarks" in model.onnx_outputs:
            return "landmarks"
        if "logits" in model.onnx_outputs:
            return "classes"
        raise ValueError(f"{type(model).__name__} has no head and predicts nothing that could be explained.")
    if isinstance(model, PreTrainedModel) and not hasattr(model, "num_labels"):
        raise ValueError(f"{type(model).__name__} is not an image classifier.")
    return "classes"
