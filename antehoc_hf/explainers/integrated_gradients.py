"""Integrated gradients, computed by captum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from antehoc_hf.explainers.base import Explainer, RawMaps
from antehoc_hf.explainers.extras import needed
from antehoc_hf.explainers.targets import Ask, Target


class IntegratedGradients(Explainer):
    """
    Integrated gradients (Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017, Eq. 1) of the
    logit, along the straight path from a black image; the absolute value of the sum over colours is the map.

    Args:
        steps (`int`): points of the path.
        batch_size (`int`): interpolated images a pass.
    """

    name = "integrated-gradients"

    def __init__(self, model: Any, steps: int = 50, batch_size: int = 64) -> None:
        super().__init__(model)
        if steps < 1 or batch_size < 1:
            raise ValueError(f"steps={steps} and batch_size={batch_size} must be at least 1.")
        self.steps = steps
        self.batch_size = batch_size

    def _maps(self, pixel_values: Tensor, ask: Ask) -> RawMaps:
        with torch.no_grad():
            target = ask(self.network(pixel_values))
        black = self.network.black(pixel_values)
        method = needed("captum.attr").IntegratedGradients(lambda images, at: self._score(images, at, target))
        with torch.enable_grad():
            at = torch.arange(len(pixel_values), device=pixel_values.device)
            found = method.attribute(
                pixel_values,
                black,
                additional_forward_args=(at,),
                n_steps=self.steps,
                internal_batch_size=max(self.batch_size, len(pixel_values)),
            )
        return RawMaps(found.detach().sum(dim=1).abs(), torch.full((len(pixel_values),), self.steps))

    def _score(self, images: Tensor, at: Tensor, target: Target) -> Tensor:
        return target.select(at).score(self.network(images, at))
