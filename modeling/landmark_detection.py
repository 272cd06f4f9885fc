"""Landmark detection: timm's network gives two coordinates for each point, and the map what they were read from."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_landmarks import AnteHocLandmarkConfig
from .map_head import Explanation, Targets, checked_class, map_fields
from .modeling_antehoc import AnteHocModel, AnteHocPreTrainedModel, PredictionKind
from .phases import Phase
from .scaling import mean_of_known, plain

# Where smooth L1 turns from square to straight: a pixel of an image of 100. At PyTorch's 1 it would be half the mean
# squared error, as coordinates lie in [0, 1].
SMOOTH_L1_BETA = 0.01

# How far a point may move before it is worth less than e^-½ of a point that stays, as a share of the image's sides.
TOLERANCE = 0.05

# A label that lies more than this many images beside the image is none of an image: it is in pixels.
FARTHEST = 10.0


@dataclass
class _Found(ModelOutput):
    loss: Tensor | None = None
    landmarks: Tensor | None = None


@dataclass
class AnteHocLandmarkOutput(Explanation, _Found):
    """Output of [`AnteHocForLandmarkDetection`], with the map as in [`Explanation`].

    Args:
        loss (`Tensor`, *optional*): mean error of the known coordinates, a scalar, if labels were given.
        landmarks (`Tensor`): (B, K, 2), x and y in units of the image's width and height, (i + 0.5) / W the centre
            of pixel i; a point may be found outside [0, 1].
        hidden_states (`tuple[Tensor, ...]`, *optional*): the activations of the taps, (B, C, h, w) each.
    """

    hidden_states: tuple[Tensor, ...] | None = None


class AnteHocLandmarkModel(AnteHocModel):
    """The bare model of a landmark checkpoint: features and maps."""

    config_class = AnteHocLandmarkConfig

    def _targets(self, prediction: Any) -> Targets | None:
        """The points, where the model has kept its head."""
        return point_targets(prediction) if self.map_head.per_target else None

    def _checked_target(self, target: Any, worth: Tensor) -> Tensor:
        return named_points(self.config, target, worth)


class AnteHocForLandmarkDetection(AnteHocPreTrainedModel):
    """A network that finds K points in an image and shows what it looked at.

    The backbone's own classifier, with 2·K outputs, is the head: direct regression, as in the paper's landmark models.

    With `map_head="contributions"` each point has a map of its own, and the map of several is that of the sum of what
    they are worth: of all points, unless `interpretation(pixel_values, target="mouth")` names a part of
    `config.landmark_parts`, a point by its name or number, or a list of points.
    """

    config_class = AnteHocLandmarkConfig
    bare_model: ClassVar[str] = "landmark_detection.AnteHocLandmarkModel"
    worth_is_nearness: ClassVar[bool] = True
    onnx_outputs: ClassVar[tuple[str, ...]] = ("landmarks", "interpretation_map")

    def __init__(self, config: AnteHocLandmarkConfig) -> None:
        super().__init__(config)
        if not config.num_landmarks:
            raise ValueError("num_landmarks is missing: say how many points the model finds, e.g. num_landmarks=68.")
        self.num_landmarks = config.num_landmarks
        self._build(num_outputs=2 * config.num_landmarks)
        self.post_init()

    def prediction(self, outputs: Any) -> Tensor:
        """All coordinates, (B, 2·K)."""
        return outputs.landmarks.flatten(1)

    @property
    def prediction_kind(self) -> PredictionKind:
        """Plain numbers."""
        return "vector"

    def worth(self, prediction: Tensor, whole: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """See [`landmark_worth`]."""
        assert whole is not None
        return landmark_worth(prediction, whole)

    def _targets(self, prediction: Any) -> Targets | None:
        return point_targets(prediction)

    def _checked_target(self, target: Any, worth: Tensor) -> Tensor:
        return named_points(self.config, target, worth)

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_attention_maps: bool = False,
        output_hidden_states: bool | None = None,
        tap_values: Tensor | None = None,
        phase: Phase | None = None,
        normalizer: Tensor | None = None,
    ) -> AnteHocLandmarkOutput:
        """Points and their map, in one pass.

        Args:
            pixel_values (`Tensor`): normalised images, (B, 3, H, W).
            labels (`Tensor`, *optional*): (B, K, 2) x and y in units of the image's width and height: 0 is the left
                (upper) edge, 1 the right (lower) one, (i + 0.5) / W the centre of pixel i. Points outside the image
                lie outside [0, 1]. NaN marks a missing point, which the loss leaves out.
            output_attention_maps, output_hidden_states, tap_values, phase: as in
                [`AnteHocForImageClassification.forward`].
            normalizer (`Tensor`, *optional*): not used. It may stand in a batch, since the Trainer hands to the
                metrics only what the model takes as well.

        Raises:
            ValueError: if the images or the labels have a wrong shape.
        """
        flat, explained, features = self._run_phase(
            pixel_values, self.backbone, phase, tap_values, output_attention_maps, output_hidden_states
        )
        landmarks, loss = None if flat is None else flat.unflatten(1, (self.num_landmarks, 2)), None
        if labels is not None and landmarks is not None:
            loss = landmark_loss(landmarks, labels, self.config.landmark_loss)
        return AnteHocLandmarkOutput(
            loss=loss,
            landmarks=landmarks,
            **map_fields(explained, output_attention_maps, training=phase is not None),
            hidden_states=features,
        )


def landmark_worth(found: Tensor, whole: Tensor) -> Tensor:
    """How near points stay to where the whole image has them: exp(−‖Δ‖² / 2σ²) with σ = 0.05 of the image's sides.

    Args:
        found (`Tensor`): (B, 2·K), the points that are found in what is left of the images.
        whole (`Tensor`): (B, 2·K), those of the whole images.

    Returns:
        `Tensor`: (B, K) float32, without unit, in [0, 1]; 1 for a point that has not moved.
    """
    moved = (found.detach().float() - whole.detach().float()).unflatten(1, (-1, 2))
    return torch.exp(moved.square().sum(dim=2) / (-2 * TOLERANCE**2))


def point_targets(prediction: Tensor | None) -> Targets:
    """The points, all of which are explained together unless some are named. The map head learns a vector for each.

    Args:
        prediction (`Tensor`, *optional*): (B, 2·K); None where nothing has been found.
    """
    worth = torch.empty(0) if prediction is None else landmark_worth(prediction, prediction)
    return Targets(worth, None, exclusive=False)


def named_points(config: Any, target: Any, worth: Tensor) -> Tensor:
    """Points by name or number.

    Args:
        config ([`AnteHocLandmarkConfig`]): names points and parts.
        target: a part, a point or a list of these, for all images; or a tensor, (B,), of a point for each image.
        worth (`Tensor`): (B, K).

    Returns:
        `Tensor`: (B, M) int64, or (B,).

    Raises:
        ValueError: if there is no such point.
    """
    if isinstance(target, Tensor):
        return checked_class(target, worth)
    names = {name: [index] for index, name in enumerate(config.landmark_names or [])}
    known: dict[Any, list[int]] = {**names, **(config.landmark_parts or {})}
    found: list[Any] = []
    for wanted in target if isinstance(target, (list, tuple)) else [target]:
        found += known.get(wanted, [wanted]) if isinstance(wanted, str) else [wanted]
    if not found or not all(type(point) is int and 0 <= point < config.num_landmarks for point in found):
        called = f" or one of {', '.join([*(config.landmark_parts or {}), *names][:6])} …" if known else ""
        raise ValueError(
            f"target must be a point, 0…{config.num_landmarks - 1},{called} or a list of these, not {target!r}."
        )
    return torch.tensor(found, device=worth.device).expand(len(worth), -1)


def landmark_loss(landmarks: Tensor, labels: Tensor, kind: str = "mse") -> Tensor:
    """The mean error of the coordinates that are known: over each image first, then over the images.

    An image counts as much as any other however many of its points are known (none: its loss is 0), so that the loss
    of a batch is the mean of the losses of its parts, on several processes and with accumulated gradients alike.

    Args:
        landmarks (`Tensor`): (B, K, 2), predicted.
        labels (`Tensor`): (B, K, 2), in the same units; a point with NaN in it is missing.
        kind (`str`): `"mse"` or `"smooth_l1"`.

    Returns:
        `Tensor`: a scalar, float32.

    Raises:
        ValueError: if the shapes differ, or the labels are no coordinates.
    """
    labels = plain(labels, "labels", landmarks)
    if labels.shape != landmarks.shape or labels.dtype == torch.bool:
        raise ValueError(
            f"labels must be (batch, points, 2) = {tuple(landmarks.shape)}, x and y of each point, but they are "
            f"{tuple(labels.shape)} of {labels.dtype}."
        )
    readable = labels.device.type == "cpu" and not torch.compiler.is_compiling()  # a GPU would be waited for
    if readable and bool((labels.float().nan_to_num(0, 0, 0).abs() > FARTHEST).any()):
        raise ValueError(
            "labels must be in units of the image's width and height, where 1 is the right or lower edge, but this "
            f"batch has {float(labels.float().nan_to_num(0, 0, 0).abs().max()):g}: divide pixels by the image's sides."
        )
    labels = labels.to(device=landmarks.device, dtype=torch.float32)
    known = torch.isfinite(labels).all(dim=2, keepdim=True)
    # Not multiplied by 0 afterwards: the gradient of NaN · 0 is NaN.
    target = torch.where(known, labels, torch.zeros_like(labels))
    found = landmarks.float()
    if kind == "mse":
        errors = F.mse_loss(found, target, reduction="none")
    else:
        errors = F.smooth_l1_loss(found, target, reduction="none", beta=SMOOTH_L1_BETA)
    errors = torch.where(known, errors, torch.zeros_like(errors))
    numbers = 2 * known.sum(dim=(1, 2)).clamp(min=1)
    return mean_of_known((errors.sum(dim=(1, 2)) / numbers).mean(), torch.ones_like(known))


AnteHocLandmarkModel.register_for_auto_class("AutoModel")
AnteHocForLandmarkDetection.register_for_auto_class("AutoModelForKeypointDetection")
