"""Integrated Grad-CAM: Grad-CAM maps along the way from a baseline to the image."""

from typing import Literal, Unpack, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antehoc_hf.explainers.activations import record
from antehoc_hf.explainers.base import RawMaps
from antehoc_hf.explainers.cam import LayerExplainer
from antehoc_hf.explainers.network import ModelOptions, Question
from antehoc_hf.explainers.options import at_least_one, one_of
from antehoc_hf.explainers.targets import Target
from antehoc_hf.modeling.taps import TapPoint
from antehoc_hf.passes import images_a_pass

Rule = Literal["left", "right", "midpoint", "trapezoid"]
Baseline = Literal["black", "zero_input", "mean", "blur"]


class IntegratedGradCam(LayerExplainer):
    """Integrated Grad-CAM (Sattarzadeh et al., "Integrated Grad-CAM: Sensitivity-Aware Visual Explanation of Deep
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
        batch_size (`int`): interpolated images a pass at most; fewer of large images on a CPU.

    Raises:
        ValueError: for an unknown option.
    """

    name = "integrated-grad-cam"

    def __init__(
        self,
        model: nn.Module,
        layer: str | None = None,
        steps: int = 50,
        rule: Rule = "left",
        baseline: Baseline | Tensor = "black",
        delta: Literal["zero", "baseline_activation"] = "zero",
        relu: Literal["per_step", "final"] = "per_step",
        batch_size: int = 64,
        **options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(model, layer, **options)
        one_of(get_args(Rule), rule=rule)
        one_of(("zero", "baseline_activation"), delta=delta)
        one_of(("per_step", "final"), relu=relu)
        if not isinstance(baseline, Tensor):
            one_of(get_args(Baseline), baseline=baseline)
        self.steps, self.batch_size = at_least_one(steps=steps), at_least_one(batch_size=batch_size)
        self.rule, self.delta, self.relu, self.baseline = rule, delta, relu, baseline

    def raw_maps(self, question: Question) -> RawMaps:
        images = question.images
        target = question.target(question(images))
        baseline = self._baseline_images(images)
        point = self.point(question)
        reference: Tensor | None = None
        if self.delta == "baseline_activation":
            reference = record(question, baseline, [point]).features[0]
        shares, weights = path(self.steps, self.rule, images.device)
        count, total = len(images), None
        # Every point of the path for every image, in passes of at most `batch_size` images.
        image = torch.arange(count, device=images.device).repeat(len(shares))
        step = torch.arange(len(shares), device=images.device).repeat_interleave(count)
        for chosen in torch.arange(len(image), device=images.device).split(images_a_pass(images, self.batch_size)):
            of_image, share = image[chosen], shares[step[chosen]][:, None, None, None]
            between = torch.lerp(baseline[of_image].float(), images[of_image].float(), share).to(images.dtype)
            maps = self._grad_cam(question, between, of_image, target, point, reference)
            maps = maps * weights[step[chosen]][:, None, None]
            total = maps.new_zeros(count, *maps.shape[1:]) if total is None else total
            total.index_add_(0, of_image, maps)
        assert total is not None
        return RawMaps(total.relu(), torch.full((count,), len(shares)), [point])

    def _grad_cam(
        self,
        question: Question,
        between: Tensor,
        of_image: Tensor,
        target: Target,
        point: TapPoint,
        reference: Tensor | None,
    ) -> Tensor:
        """The (unscaled) Grad-CAM map of each interpolated image, (N, h, w)."""
        recorded = record(question, between, [point], target.select(of_image).score, of_image)
        features, gradients = recorded.features[0], recorded.gradients[0]
        if reference is not None:
            features = features - reference[of_image]
        maps = (gradients.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1)
        return maps.relu() if self.relu == "per_step" else maps

    def _baseline_images(self, images: Tensor) -> Tensor:
        if isinstance(self.baseline, Tensor):
            if self.baseline.shape[-3:] != images.shape[-3:] or self.baseline.shape[:-3] not in _batches(len(images)):
                raise ValueError(
                    f"baseline must have the images' shape {tuple(images.shape)}, or that of one, not "
                    f"{tuple(self.baseline.shape)}."
                )
            return self.baseline.to(images, copy=True).expand_as(images)
        if self.baseline == "zero_input":
            return torch.zeros_like(images)
        if self.baseline == "mean":
            return images.float().mean(dim=(2, 3), keepdim=True).to(images.dtype).expand_as(images)
        return _blurred(images) if self.baseline == "blur" else self.network.black(images)


def _batches(count: int) -> tuple[torch.Size, ...]:
    return torch.Size(()), torch.Size((1,)), torch.Size((count,))


def path(steps: int, rule: Rule, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Points a in [0, 1] and weights, summing to 1, of a quadrature.

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
