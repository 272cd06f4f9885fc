"""Integrated Grad-CAM: Grad-CAM maps along the way from a baseline to the image."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from antehoc_hf.explainers.activations import record
from antehoc_hf.explainers.base import RawMaps
from antehoc_hf.explainers.cam import LayerExplainer
from antehoc_hf.explainers.targets import Ask, Target

Rule = Literal["left", "right", "midpoint", "trapezoid"]
Baseline = Literal["black", "zero_input", "mean", "blur"]


class IntegratedGradCam(LayerExplainer):
    """
    Integrated Grad-CAM (Sattarzadeh et al., "Integrated Grad-CAM: Sensitivity-Aware Visual Explanation of Deep
    Convolutional Networks via Integrated Gradient-Based Scoring", ICASSP 2021).

    On the straight path x' + a (x − x') a Grad-CAM map is formed at each point and the maps are averaged:
    M = mean_a ReLU(Σ_k w_k(a) D_k(a)), with w_k the mean gradient of channel k and D_k its features, or their
    difference from the baseline's.

    Args:
        layer (`str`, *optional*): the layer that is read.
        steps (`int`): points of the path.
        rule (`str`): `"left"` (the authors: the baseline counts, the image does not), `"right"`, `"midpoint"` or
            `"trapezoid"`.
        baseline (`str` or `Tensor`): `"black"`, `"zero_input"` (the authors: a tensor of zeros, which is grey for
            normalised images), `"mean"` (the image's mean colour), `"blur"`, or images (B, 3, H, W).
        delta (`str`): `"zero"` (the authors): D is the features; `"baseline_activation"`: their difference.
        relu (`str`): `"per_step"` (the authors) or `"final"`.
        batch_size (`int`): interpolated images a pass.

    Raises:
        ValueError: for an unknown option.
    """

    name = "integrated-grad-cam"

    def __init__(
        self,
        model: Any,
        layer: str | None = None,
        steps: int = 50,
        rule: Rule = "left",
        baseline: Baseline | Tensor = "black",
        delta: Literal["zero", "baseline_activation"] = "zero",
        relu: Literal["per_step", "final"] = "per_step",
        batch_size: int = 64,
    ) -> None:
        super().__init__(model, layer)
        choices: dict[str, tuple[str, tuple[str, ...]]] = {
            "rule": (rule, ("left", "right", "midpoint", "trapezoid")),
            "delta": (delta, ("zero", "baseline_activation")),
            "relu": (relu, ("per_step", "final")),
        }
        if not isinstance(baseline, Tensor):
            choices["baseline"] = (baseline, ("black", "zero_input", "mean", "blur"))
        for option, (value, allowed) in choices.items():
            if value not in allowed:
                raise ValueError(f"{option}={value!r} is not one of {', '.join(map(repr, allowed))}.")
        if steps < 1 or batch_size < 1:
            raise ValueError(f"steps={steps} and batch_size={batch_size} must be at least 1.")
        self.steps, self.rule, self.delta, self.relu = steps, rule, delta, relu
        self.baseline, self.batch_size = baseline, batch_size

    def _maps(self, pixel_values: Tensor, ask: Ask) -> RawMaps:
        point = self.point(pixel_values, ask)
        with torch.no_grad():
            target = ask(self.network(pixel_values))
        baseline = self._baseline_images(pixel_values)
        reference: Tensor | None = None
        if self.delta == "baseline_activation":
            reference = record(self.network, baseline, [point], lambda outputs: target).features[0]
        positions, weights = path(self.steps, self.rule, pixel_values.device)
        count, total = len(pixel_values), None
        # Every point of the path for every image, in passes of at most `batch_size` images.
        image = torch.arange(count, device=pixel_values.device).repeat(len(positions))
        step = torch.arange(len(positions), device=pixel_values.device).repeat_interleave(count)
        for chosen in torch.arange(len(image), device=pixel_values.device).split(self.batch_size):
            of_image, share = image[chosen], positions[step[chosen]]
            images = torch.lerp(
                baseline[of_image].float(), pixel_values[of_image].float(), share[:, None, None, None]
            ).to(pixel_values.dtype)
            maps = self._grad_cam(images, of_image, target.select(of_image), point, reference)
            maps = maps * weights[step[chosen]][:, None, None]
            total = maps.new_zeros(count, *maps.shape[1:]) if total is None else total
            total.index_add_(0, of_image, maps)
        assert total is not None
        return RawMaps(total.relu(), torch.full((count,), len(positions)))

    def _grad_cam(
        self, images: Tensor, of_image: Tensor, target: Target, point: Any, reference: Tensor | None
    ) -> Tensor:
        """The (unscaled) Grad-CAM map of each interpolated image, (N, h, w)."""
        recorded = record(self.network, images, [point], lambda outputs: target, True, of_image)
        features, gradients = recorded.features[0], recorded.gradients[0]
        if reference is not None:
            features = features - reference[of_image]
        maps = (gradients.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1)
        return maps.relu() if self.relu == "per_step" else maps

    def _baseline_images(self, pixel_values: Tensor) -> Tensor:
        if isinstance(self.baseline, Tensor):
            if self.baseline.shape[-3:] != pixel_values.shape[-3:]:
                raise ValueError(
                    f"baseline must have the images' shape {tuple(pixel_values.shape[-3:])}, not "
                    f"{tuple(self.baseline.shape[-3:])}."
                )
            return self.baseline.to(pixel_values).expand_as(pixel_values)
        if self.baseline == "zero_input":
            return torch.zeros_like(pixel_values)
        if self.baseline == "mean":
            return pixel_values.mean(dim=(2, 3), keepdim=True).expand_as(pixel_values)
        if self.baseline == "blur":
            return _blurred(pixel_values)
        return self.network.black(pixel_values)


def path(steps: int, rule: Rule, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """
    Points a in [0, 1] and weights, summing to 1, of a quadrature.

    Returns:
        `tuple[Tensor, Tensor]`: `steps` of each; `"trapezoid"` has one more.
    """
    if rule == "trapezoid":
        points = torch.arange(steps + 1, device=device) / steps
        weights = torch.full((steps + 1,), 1 / steps, device=device)
        weights[[0, -1]] /= 2
        return points, weights
    offset = {"left": 0.0, "midpoint": 0.5, "right": 1.0}[rule]
    return (torch.arange(steps, device=device) + offset) / steps, torch.full((steps,), 1 / steps, device=device)


def _blurred(images: Tensor) -> Tensor:
    """Averaged over windows of an eighth of the image."""
    height, width = images.shape[-2:]
    half = max(height // 16, 1), max(width // 16, 1)
    padded = F.pad(images, (half[1], half[1], half[0], half[0]), mode="replicate")
    return F.avg_pool2d(padded, (2 * half[0] + 1, 2 * half[1] + 1), stride=1)
