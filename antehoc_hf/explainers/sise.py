"""SISE and Ada-SISE: masks from the features of several layers, scored by what the network makes of masked images."""

from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn

from antehoc_hf.evaluation.maps import minmax_maps
from antehoc_hf.explainers.activations import record
from antehoc_hf.explainers.base import Explainer, RawMaps
from antehoc_hf.explainers.layers import block_ends, named_layers
from antehoc_hf.explainers.masked import masked_outputs, upsampled
from antehoc_hf.explainers.network import ModelOptions, Question
from antehoc_hf.explainers.options import at_least_one, one_of
from antehoc_hf.explainers.otsu import otsu
from antehoc_hf.modeling.map_head import is_number
from antehoc_hf.modeling.taps import TapPoint

# The authors' rule for Otsu's threshold: where fewer than a tenth of the pixels exceed 1.5 t, 1.5 t is taken.
_TAU, _FEW = 1.5, 0.1


class Sise(Explainer):
    """SISE (Sattarzadeh et al., "Explaining Convolutional Neural Networks through Attribution-Based Input Sampling and
    Block-Wise Feature Aggregation", AAAI 2021).

    Of each block's last features those channels are kept whose summed gradient of the class's confidence exceeds
    `threshold` times the largest; each is a mask on the image, scored by the confidence that is left and divided by
    its area; the layers' maps are fused from fine to coarse, each gated by Otsu's threshold of the next. Of a
    regression the value that is left counts above that of an image of nothing. A network in half precision is run in
    float32, with its rounded weights; pixels near a hard gate's threshold may still differ from the
    unrounded network's.

    Args:
        layer (`list[str]`, *optional*): the layers, fine to coarse; found by themselves otherwise.
        threshold (`float`): μ, in [0, 1).
        mask_space (`str`): masks multiply the `"normalized"` input (the authors) or `"pixel"` values.
        gate (`str`): `"hard"` (Otsu's mask, the paper), `"soft"` (a sigmoid, the authors' code) or `"simple"`.
        otsu_rule (`str`): `"plain"` or `"authors_tau"`.
        batch_size (`int`): masked images a pass at most; fewer of large images on a CPU.

    Raises:
        ValueError: for an option that makes no sense.
    """

    name = "sise"
    float32 = True  # channels and pixels are chosen by thresholds

    def __init__(
        self,
        model: nn.Module,
        layer: str | list[str] | None = None,
        threshold: float = 0.0,
        mask_space: Literal["normalized", "pixel"] = "normalized",
        gate: Literal["hard", "soft", "simple"] = "hard",
        otsu_rule: Literal["plain", "authors_tau"] = "plain",
        batch_size: int = 64,
        **options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(model, **options)
        one_of(("normalized", "pixel"), mask_space=mask_space)
        one_of(("hard", "soft", "simple"), gate=gate)
        one_of(("plain", "authors_tau"), otsu_rule=otsu_rule)
        if not (is_number(threshold) and 0 <= threshold < 1):
            raise ValueError(f"threshold={threshold!r} must be a number in [0, 1).")
        self.layer = [layer] if isinstance(layer, str) else layer
        self.threshold, self.mask_space, self.gate = threshold, mask_space, gate
        self.otsu_rule, self.batch_size = otsu_rule, at_least_one(batch_size=batch_size)
        self._found: dict[tuple[int, ...], list[TapPoint]] = {}

    def points(self, question: Question) -> list[TapPoint]:
        """The layers, fine to coarse; looked for once for each size of images."""
        size = tuple(question.images.shape[1:])
        if size not in self._found:
            self._found[size] = named_layers(question, self.layer) if self.layer else block_ends(question)
        return self._found[size]

    def raw_maps(self, question: Question) -> RawMaps:
        images = question.images
        baseline = self.network.black(images[:1]) if self.mask_space == "pixel" else None
        points = self.points(question)
        recorded = record(question, images, points, lambda outputs: question.target(outputs).rise(outputs))
        target = question.target(recorded.outputs)
        maps, passes = [], []
        for position in range(len(images)):
            of_layers, seen, floor = [], 0, images.new_zeros(())
            if target.is_value:  # its zero means nothing: what is left counts above that of an image of nothing
                everything = images.new_zeros(1, 1, *images.shape[-2:], dtype=torch.float32)
                outputs, at = next(masked_outputs(question, position, everything, self.batch_size, baseline))
                seen, floor = 1, target.select(at).confidence(outputs)
            for features, gradients in zip(recorded.features, recorded.gradients, strict=True):
                masks = self._masks(features[position], gradients[position], (images.shape[-2], images.shape[-1]))
                if len(masks):
                    seen += len(masks)
                    confidences = [
                        target.select(at).confidence(outputs) - floor
                        for outputs, at in masked_outputs(question, position, masks, self.batch_size, baseline)
                    ]
                    of_layers.append(layer_map(masks, torch.cat(confidences)))
            nothing = images.new_zeros(images.shape[-2:], dtype=torch.float32)
            maps.append(fused(of_layers, self.gate, self.otsu_rule) if of_layers else nothing)
            passes.append(seen)
        return RawMaps(torch.stack(maps), torch.tensor(passes), points)

    def _masks(self, features: Tensor, gradients: Tensor, size: tuple[int, int]) -> Tensor:
        """The kept channels (C, h, w) as masks at input size, (N, 1, H, W) in [0, 1]; constant ones are dropped."""
        kept = features[self._kept(gradients.sum(dim=(1, 2)))]
        masks = minmax_maps(upsampled(kept, size)) if len(kept) else kept.new_zeros(0, 1, *size)
        return masks[masks.flatten(1).amax(dim=1) > 0] if len(masks) else masks

    def _kept(self, slopes: Tensor) -> Tensor:
        """(C,) bool: summed gradients above μ times the largest; none if the largest is not positive."""
        largest = slopes.max()
        return (slopes > self.threshold * largest) & (largest > 0)


class AdaSise(Sise):
    """Ada-SISE (Sudhakar et al., "Ada-SISE: Adaptive Semantic Input Sampling for Efficient Explanation of
    Convolutional Neural Networks", ICASSP 2021): SISE whose channels are chosen, image by image and layer by layer, by
    Otsu's threshold of the positive summed gradients, so that fewer masks are tried.

    Args:
        exact_otsu (`bool`): try every split of the gradients, and not 256 bins.
        options: those of [`Sise`], except `threshold`.
    """

    name = "ada-sise"

    def __init__(
        self, model: nn.Module, layer: str | list[str] | None = None, exact_otsu: bool = False, **options: Any
    ) -> None:
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


def layer_map(masks: Tensor, confidences: Tensor) -> Tensor:
    """Phase 3: V = MM(Σ_k s_k m_k / |m_k|), (H, W), of masks (N, 1, H, W) and what is left under each, (N,)."""
    weights = confidences / masks.sum(dim=(1, 2, 3))
    return minmax_maps((weights[:, None, None, None] * masks).sum(dim=0, keepdim=True))[0, 0]


def fused(layers: list[Tensor], gate: str = "hard", otsu_rule: str = "plain") -> Tensor:
    """Phase 4: e_1 = V_1, e_l = (e_{l−1} + V_l) ⊙ O(V_l).

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
