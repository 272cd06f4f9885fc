"""Losses of the second pass and penalties on maps, as functions of tensors."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

PredictionKind = Literal["categorical", "bernoulli", "vector"]
Target = Literal["probabilities", "logits", "kl"]


def prediction_distance(
    second: Tensor, first: Tensor, kind: PredictionKind, target: Target = "probabilities", mask: Tensor | None = None
) -> Tensor:
    """L_interpret, a mean over all positions.

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
        ValueError: for `target="kl"` with a vector, which is not a distribution.
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


def _compared(prediction: Tensor, kind: PredictionKind, target: Target) -> Tensor:
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


def check_target(target: Target, kind: PredictionKind) -> None:
    """Raises a ValueError if this kind of prediction cannot be compared so."""
    if target == "kl" and kind == "vector":
        raise ValueError(
            "target='kl' compares distributions, but this model predicts plain numbers: use target='probabilities', "
            "which compares them by their mean squared error."
        )


def total_variation(maps: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, vertical plus horizontal, of (B, 1, H, W) maps; a scalar."""
    vertical = (maps[..., 1:, :] - maps[..., :-1, :]).abs().mean()
    horizontal = (maps[..., :, 1:] - maps[..., :, :-1]).abs().mean()
    return vertical + horizontal


def weight_entropy(weight_maps: Tensor) -> Tensor:
    """Mean entropy over the η weights of a pixel, divided by log η: 1 for equal weights, 0 for a single choice.

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
    """Mean squared error between the weight network's output and its input, which would make it an autoencoder.

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


def coalition_loss(contributions: Tensor, contrasts: Tensor, gains: Tensor) -> Tensor:
    """How far the contributions are from what coalitions have ahead of others of the same size.

    The additive game nearest to v, of given sum, minimises Σ_S k(|S|) (v(S) − φ_0 − φ(S))². What the values of one
    size have in common only says what the mean contribution is, and that is fixed by the sum ([`efficient`]): left are
    the differences within each size. Asking for these alone takes out the noise of the sizes. With the Shapley kernel
    as k, φ are Shapley values.

    Args:
        contributions (`Tensor`): φ, (B, K, g, w).
        contrasts (`Tensor`): (P, B, g, w): 1 where S has a patch and T does not, −1 the other way round, else 0.
        gains (`Tensor`): v(S) − v(T), (P, B, K).

    Returns:
        `Tensor`: a scalar: the squared error, summed over the classes, in the mean over pairs and images.
    """
    signs = contrasts.flatten(2).to(contributions.dtype)
    fitted = torch.einsum("bkd,pbd->pbk", contributions.flatten(2), signs)
    return (fitted - gains).square().sum(dim=-1).mean()
