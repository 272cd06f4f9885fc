"""SISE and Ada-SISE: masks from the features of several layers, scored by what the network makes of masked images."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from antehoc_hf.evaluation.maps import minmax_maps
from antehoc_hf.explainers.activations import record
from antehoc_hf.explainers.base import Explainer, RawMaps
from antehoc_hf.explainers.layers import block_ends, named_layers
from antehoc_hf.explainers.masked import masked_confidences
from antehoc_hf.explainers.otsu import otsu
from antehoc_hf.explainers.targets import Ask, Target
from antehoc_hf.modeling.taps import TapPoint

# The authors' rule for Otsu's threshold: where fewer than a tenth of the pixels exceed 1.5 t, 1.5 t is taken.
_TAU, _FEW = 1.5, 0.1


class Sise(Explainer):
    """
    SISE (Sattarzadeh et al., "Explaining Convolutional Neural Networks through Attribution-Based Input Sampling and
    Block-Wise Feature Aggregation", AAAI 2021).

    Of each block's last features those channels are kept whose summed gradient of the class's confidence exceeds
    `threshold` times the largest; each is a mask on the image, scored by the confidence that is left and divided by
    its area; the layers' maps are fused from fine to coarse, each gated by Otsu's threshold of the next.

    Args:
        layer (`list[str]`, *optional*): the layers, fine to coarse; found by themselves otherwise.
        threshold (`float`): μ, in [0, 1).
        mask_space (`str`): masks multiply the `"normalized"` input (the authors) or `"pixel"` values.
        gate (`str`): `"hard"` (Otsu's mask, the paper), `"soft"` (a sigmoid, the authors' code) or `"simple"`.
        otsu_rule (`str`): `"plain"` or `"authors_tau"`.
        batch_size (`int`): masked images a pass.

    Raises:
        ValueError: for an option that makes no sense.
    """

    name = "sise"

    def __init__(
        self,
        model: Any,
        layer: str | list[str] | None = None,
        threshold: float = 0.0,
        mask_space: Literal["normalized", "pixel"] = "normalized",
        gate: Literal["hard", "soft", "simple"] = "hard",
        otsu_rule: Literal["plain", "authors_tau"] = "plain",
        batch_size: int = 64,
    ) -> None:
        super().__init__(model, layer)
        for option, value, allowed in (
            ("mask_space", mask_space, ("normalized", "pixel")),
            ("gate", gate, ("hard", "soft", "simple")),
            ("otsu_rule", otsu_rule, ("plain", "authors_tau")),
        ):
            if value not in allowed:
                raise ValueError(f"{option}={value!r} is not one of {', '.join(map(repr, allowed))}.")
        if not 0 <= threshold < 1 or batch_size < 1:
            raise ValueError(f"threshold={threshold} must lie in [0, 1), and batch_size={batch_size} be at least 1.")
        self.threshold, self.mask_space, self.gate = threshold, mask_space, gate
        self.otsu_rule, self.batch_size = otsu_rule, batch_size
        self._points: list[TapPoint] = []

    def _layers(self) -> tuple[str, ...]:
        return tuple(point.module for point in self._points)

    def _maps(self, pixel_values: Tensor, ask: Ask) -> RawMaps:
        names = [self.layer] if isinstance(self.layer, str) else self.layer
        if not self._points:
            found = named_layers(self.network, pixel_values, names) if names else None
            self._points = found or block_ends(self.network, pixel_values, ask)
        recorded = record(self.network, pixel_values, self._points, lambda out: _Rise(ask(out)), gradients=True)
        maps, passes = [], []
        for position in range(len(pixel_values)):
            at = torch.tensor([position], device=pixel_values.device)
            seen, layers = 0, []
            for features, gradients in zip(recorded.features, recorded.gradients, strict=True):
                masks = self._masks(features[position], gradients[position], pixel_values)
                seen += len(masks)
                if len(masks):
                    layers.append(self._layer_map(pixel_values[position], masks, at, recorded.target))
            maps.append(
                fused(layers, self.gate, self.otsu_rule)
                if layers
                else pixel_values.new_zeros(pixel_values.shape[-2:], dtype=torch.float32)
            )
            passes.append(seen)
        return RawMaps(torch.stack(maps), torch.tensor(passes))

    def _masks(self, features: Tensor, gradients: Tensor, pixel_values: Tensor) -> Tensor:
        """The kept channels (C, h, w) as masks at input size, (N, 1, H, W) in [0, 1]; constant ones are dropped."""
        kept = self._kept(gradients.sum(dim=(1, 2)))
        size = (pixel_values.shape[-2], pixel_values.shape[-1])
        masks = F.interpolate(features[kept][:, None], size=size, mode="bilinear", align_corners=False)
        masks = minmax_maps(masks) if len(masks) else masks
        return masks[masks.flatten(1).amax(dim=1) > 0] if len(masks) else masks

    def _kept(self, slopes: Tensor) -> Tensor:
        """(C,) bool: summed gradients above μ times the largest; none if the largest is not positive."""
        largest = slopes.max()
        return (slopes > self.threshold * largest) & (largest > 0)

    def _layer_map(self, image: Tensor, masks: Tensor, at: Tensor, target: Target) -> Tensor:
        """V = MM(Σ_k s_k m_k / |m_k|), (H, W)."""
        scores = masked_confidences(self.network, image, masks, at, target, self.mask_space, self.batch_size)
        weights = scores / masks.sum(dim=(1, 2, 3))
        return minmax_maps((weights[:, None, None, None] * masks).sum(dim=0, keepdim=True))[0, 0]


class AdaSise(Sise):
    """
    Ada-SISE (Sudhakar et al., "Ada-SISE: Adaptive Semantic Input Sampling for Efficient Explanation of Convolutional
    Neural Networks", ICASSP 2021): SISE whose channels are chosen, image by image and layer by layer, by Otsu's
    threshold of the positive summed gradients, so that fewer masks are tried.

    Args:
        exact_otsu (`bool`): try every split of the gradients, and not 256 bins.
        options: those of [`Sise`], except `threshold`.
    """

    name = "ada-sise"

    def __init__(self, model: Any, layer: str | list[str] | None = None, exact_otsu: bool = False, **options: Any):
        if "threshold" in options:
            raise ValueError("Ada-SISE finds its threshold by itself: leave it out, or use 'sise'.")
        super().__init__(model, layer, **options)
        self.exact_otsu = exact_otsu

    def _kept(self, slopes: Tensor) -> Tensor:
        positive = slopes > 0
        if int(positive.sum()) <= 2:
            return positive
        shares = slopes / slopes.max()
        threshold = otsu(shares[positive], self.exact_otsu)
        return positive if threshold is None else positive & (shares > threshold)


class _Rise(Target):
    """A target whose score is what channels are chosen by."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def score(self, outputs: Tensor) -> Tensor:
        return self._target.rise(outputs)

    def confidence(self, outputs: Tensor) -> Tensor:
        return self._target.confidence(outputs)

    def select(self, positions: Tensor) -> Target:
        return _Rise(self._target.select(positions))


def fused(layers: list[Tensor], gate: str = "hard", otsu_rule: str = "plain") -> Tensor:
    """
    Phase 4: e_1 = V_1, e_l = (e_{l−1} + V_l) ⊙ O(V_l).

    Args:
        layers (`list[Tensor]`): (H, W) maps in [0, 1], fine to coarse; a constant one is skipped.
        gate, otsu_rule (`str`): see [`Sise`].

    Returns:
        `Tensor`: (H, W).
    """
    total = layers[0]
    for layer in layers[1:]:
        threshold = _threshold(layer, otsu_rule)
        if threshold is None:
            continue
        if gate == "simple":
            opening = layer
        elif gate == "soft":
            opening = torch.sigmoid(100 * (layer - threshold))
        else:
            opening = (layer >= threshold).to(layer.dtype)
        total = (total + layer) * opening
    return total


def _threshold(layer: Tensor, rule: str) -> float | None:
    threshold = otsu(layer)
    if threshold is not None and rule == "authors_tau" and (layer >= _TAU * threshold).float().mean() < _FEW:
        return _TAU * threshold
    return threshold
