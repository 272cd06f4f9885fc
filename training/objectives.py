"""
The second pass's loss: how far the prediction on the energy map is from the prediction on the image.

The paper's L_interpret is the mean squared error of the two predictions, Y_first and Y_second; the other readings and
the penalties are options, off by default.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from antehoc_hf.training.arguments import AnteHocTrainingArguments, InterpretationTarget

PredictionKind = Literal["categorical", "bernoulli", "vector"]


def prediction_distance(
    second: Tensor,
    first: Tensor,
    kind: PredictionKind,
    target: InterpretationTarget = "probabilities",
    mask: Tensor | None = None,
) -> Tensor:
    """
    L_interpret, a mean over all positions.

    Args:
        second (`Tensor`): the prediction on the energy map, (B, …, K): logits, or numbers if `kind="vector"`.
        first (`Tensor`): the prediction on the image, same shape; a constant, no gradient flows into it.
        kind (`str`): `"categorical"` (softmax over K), `"bernoulli"` (K independent labels) or `"vector"`.
        target (`str`): `"probabilities"`: mean squared error of probabilities. `"logits"`: of logits, centred over K
            if categorical, since a common shift changes no probability. `"kl"`: KL(first ‖ second), summed over K.
        mask (`Tensor`, *optional*): (B, …) bool, the positions that count; all of them if not given.

    Returns:
        `Tensor`: a float32 scalar, at least 0; 0 if no position counts.

    Raises:
        ValueError: for `target="kl"` with a vector, which is no distribution.
    """
    second, first = second.float(), first.detach().float()
    if target == "kl":
        by_position = _divergence(second, first, kind)
    else:
        by_position = (_compared(second, kind, target) - _compared(first, kind, target)).square().mean(dim=-1)
    if mask is None:
        return by_position.mean()
    # `where` and not a product: what stands at a position that does not count may be anything, NaN included.
    counted = torch.where(mask, by_position, torch.zeros_like(by_position))
    return counted.sum() / mask.sum().clamp_min(1)


def _compared(prediction: Tensor, kind: PredictionKind, target: InterpretationTarget) -> Tensor:
    if kind == "vector":
        return prediction
    if target == "probabilities":
        return prediction.softmax(dim=-1) if kind == "categorical" else prediction.sigmoid()
    return prediction - prediction.mean(dim=-1, keepdim=True) if kind == "categorical" else prediction


def _divergence(second: Tensor, first: Tensor, kind: PredictionKind) -> Tensor:
    check_target("kl", kind)
    if kind == "categorical":
        expected = first.log_softmax(dim=-1)
        return (expected.exp() * (expected - second.log_softmax(dim=-1))).sum(dim=-1)
    probability = first.sigmoid()
    yes = probability * (F.logsigmoid(first) - F.logsigmoid(second))
    no = (1 - probability) * (F.logsigmoid(-first) - F.logsigmoid(-second))
    return (yes + no).sum(dim=-1)


def check_target(target: InterpretationTarget, kind: PredictionKind) -> None:
    """
    Raises:
        ValueError: if this kind of prediction cannot be compared so.
    """
    if target == "kl" and kind == "vector":
        raise ValueError(
            "interpretation_target='kl' compares distributions, but this model predicts plain numbers: use "
            "interpretation_target='probabilities', which compares them by their mean squared error."
        )


def total_variation(maps: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, vertical plus horizontal, of (B, 1, H, W) maps; a scalar."""
    vertical = (maps[..., 1:, :] - maps[..., :-1, :]).abs().mean()
    horizontal = (maps[..., :, 1:] - maps[..., :, :-1]).abs().mean()
    return vertical + horizontal


def weight_entropy(weight_maps: Tensor) -> Tensor:
    """
    Mean entropy over the η weights of a pixel, divided by log η: 1 for equal weights, 0 for a single choice.

    Args:
        weight_maps (`Tensor`): (B, η, H, W), summing to 1 over η.

    Returns:
        `Tensor`: a scalar in [0, 1]; 0 for η = 1.
    """
    count = weight_maps.shape[1]
    if count == 1:
        return weight_maps.sum() * 0.0
    logarithm = weight_maps.clamp_min(torch.finfo(weight_maps.dtype).tiny).log()
    return -(weight_maps * logarithm).sum(dim=1).mean() / math.log(count)


def reconstruction_error(weight_logits: Tensor, network_input: Tensor) -> Tensor:
    """
    Mean squared error between the weight network's output and its input, which would make it an autoencoder.

    Args:
        weight_logits (`Tensor`): (B, η, h', w'); if coarser than the input, upsampled bilinearly.
        network_input (`Tensor`): (B, η, h, w).

    Returns:
        `Tensor`: a scalar.
    """
    logits = weight_logits.float()
    if logits.shape[-2:] != network_input.shape[-2:]:
        logits = F.interpolate(logits, size=network_input.shape[-2:], mode="bilinear", align_corners=False)
    return F.mse_loss(logits, network_input)


@dataclass(frozen=True)
class InterpretationObjective:
    """
    L_interpret and the penalties, with their weights.

    Args:
        kind (`str`): the model's `prediction_kind`.
        target, reconstruction_weight, area_weight, tv_weight, entropy_weight:
            as in [`AnteHocTrainingArguments`].
    """

    kind: PredictionKind
    target: InterpretationTarget = "probabilities"
    reconstruction_weight: float = 0.0
    area_weight: float = 0.0
    tv_weight: float = 0.0
    entropy_weight: float = 0.0

    @classmethod
    def from_arguments(cls, args: AnteHocTrainingArguments, kind: PredictionKind) -> "InterpretationObjective":
        """
        The objective that the arguments ask for.

        Raises:
            ValueError: if the target does not fit the kind of prediction.
        """
        check_target(args.interpretation_target, kind)
        return cls(
            kind=kind,
            target=args.interpretation_target,
            reconstruction_weight=args.reconstruction_weight,
            area_weight=args.area_weight,
            tv_weight=args.tv_weight,
            entropy_weight=args.entropy_weight,
        )

    def __call__(
        self, outputs: Any, second: Tensor, first: Tensor, network_input: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """
        The loss of one batch.

        Args:
            outputs: the second pass's: `interpretation_map` (B, 1, H, W), `weight_maps` (B, η, H, W) and
                `weight_logits` (B, η, h', w').
            second, first (`Tensor`): the predictions on the energy map and on the image, (B, …, K).
            network_input (`Tensor`): what the weight network saw, (B, η, h, w).
            mask (`Tensor`, *optional*): (B, …), the positions of the prediction that count.

        Returns:
            `Tensor`: a scalar.
        """
        loss = prediction_distance(second, first, self.kind, self.target, mask)
        if self.reconstruction_weight:
            loss = loss + self.reconstruction_weight * reconstruction_error(outputs.weight_logits, network_input)
        if self.area_weight:
            loss = loss + self.area_weight * outputs.interpretation_map.mean()
        if self.tv_weight:
            loss = loss + self.tv_weight * total_variation(outputs.interpretation_map)
        if self.entropy_weight:
            loss = loss + self.entropy_weight * weight_entropy(outputs.weight_maps)
        return loss
