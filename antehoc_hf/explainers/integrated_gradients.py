"""Integrated gradients, computed by captum."""

from typing import Unpack

import torch
from torch import Tensor, nn

from antehoc_hf.explainers.base import Explainer, RawMaps
from antehoc_hf.explainers.extras import needed
from antehoc_hf.explainers.network import ModelOptions, Question
from antehoc_hf.explainers.options import at_least_one
from antehoc_hf.passes import images_a_pass


class IntegratedGradients(Explainer):
    """Integrated gradients (Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017, Eq. 1) of the
    logit, along the straight path from a black image; the absolute value of the sum over colours is the map.

    Args:
        steps (`int`): points of the path.
        batch_size (`int`): interpolated images a pass at most; fewer of large images on a CPU.
    """

    name = "integrated-gradients"

    def __init__(
        self, model: nn.Module, steps: int = 50, batch_size: int = 64, **options: Unpack[ModelOptions]
    ) -> None:
        super().__init__(model, **options)
        self.steps = at_least_one(steps=steps)
        self.batch_size = at_least_one(batch_size=batch_size)

    def raw_maps(self, question: Question) -> RawMaps:
        images = question.images
        target = question.target(question(images))
        black = self.network.black(images)

        def score(versions: Tensor, at: Tensor) -> Tensor:
            outputs = question(versions, at)
            if not outputs.requires_grad:
                raise ValueError(
                    "The network's outputs have no gradient with respect to its images (torch.no_grad in its forward "
                    "pass?): use a method without gradients such as 'rise'."
                )
            return target.select(at).score(outputs)

        method = needed("captum.attr").IntegratedGradients(score)
        with torch.enable_grad():
            found = method.attribute(
                images,
                black,
                additional_forward_args=(torch.arange(len(images), device=images.device),),
                n_steps=self.steps,
                internal_batch_size=max(images_a_pass(images, self.batch_size), len(images)),
            )
        maps = found.detach().float().sum(dim=1).abs()
        return RawMaps(maps, torch.full((len(images),), self.steps))
