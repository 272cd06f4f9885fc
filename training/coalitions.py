"""
The game behind class-conditional maps: patches are the players, a coalition is what is left of the image.

What a coalition is worth to a class is the probability the network gives it on that image. The contributions φ of the
patches are the additive approximation of the game, fitted to coalitions and their complements, for all images by one
network: Jethani et al., "FastSHAP", ICLR 2022, Eq. 6; Covert, Kim, Lee, "Learning to estimate Shapley values with
vision transformers", ICLR 2023. With coalitions drawn by the Shapley kernel they are Shapley values (Lundberg, Lee,
"A unified approach to interpreting model predictions", NeurIPS 2017, Theorem 2).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from antehoc_hf.training.arguments import AnteHocTrainingArguments, CoalitionBackground, CoalitionSampling

_BACKGROUNDS = ("mean", "blur", "black")


def kernel_sizes(patches: int) -> Tensor:
    """
    How often a coalition of 1 … d − 1 of d patches is drawn by the Shapley kernel.

    The kernel weighs a coalition of s patches by (d − 1) / (C(d, s) · s · (d − s)), and there are C(d, s) of them:
    together they weigh 1 / (s · (d − s)), up to a factor.

    Args:
        patches (`int`): d, at least 2.

    Returns:
        `Tensor`: (d − 1,), summing to 1.
    """
    sizes = torch.arange(1, patches, dtype=torch.float64)
    weights = 1 / (sizes * (patches - sizes))
    return weights / weights.sum()


def draw_coalitions(
    count: int, grid: tuple[int, int], sampling: CoalitionSampling, generator: torch.Generator
) -> Tensor:
    """
    Random coalitions of patches.

    Args:
        count (`int`): how many.
        grid (`tuple[int, int]`): rows and columns of patches.
        sampling (`str`): `"shapley"`: sizes by the Shapley kernel, patches independent of each other.
            `"contiguous"`: every size is as likely, and neighbours tend to go together (the top of a smooth random
            field), as what is left of a real image does.
        generator (`torch.Generator`): on the CPU.

    Returns:
        `Tensor`: (count, g, w) bool, none of them empty or whole.
    """
    rows, columns = grid
    patches = rows * columns
    height = torch.rand(count, 1, rows, columns, generator=generator)
    if sampling == "shapley":
        sizes = torch.multinomial(kernel_sizes(patches), count, replacement=True, generator=generator) + 1
    else:
        coarse = torch.rand(count, 1, -(-rows // 2), -(-columns // 2), generator=generator)
        # What is left of the fine field settles ties alone.
        height = F.interpolate(coarse, size=grid, mode="bicubic", align_corners=False) + 1e-4 * height
        sizes = torch.randint(1, patches, (count,), generator=generator)
    rank = height.flatten(1).argsort(dim=1).argsort(dim=1)
    return (rank < sizes[:, None]).view(count, rows, columns)


def background_images(pixel_values: Tensor, kind: str, black: Tensor) -> Tensor:
    """
    What stands where a patch is taken out.

    Args:
        pixel_values (`Tensor`): (B, 3, H, W), normalised.
        kind (`str`): `"mean"`, the image's mean colour; `"blur"`, the image after a Gaussian of 1/16 of its shorter
            side; `"black"`.
        black (`Tensor`): (1, 3, 1, 1), black after the normalisation.

    Returns:
        `Tensor`: (B, 3, H, W).
    """
    if kind == "mean":
        return pixel_values.mean(dim=(2, 3), keepdim=True).expand_as(pixel_values)
    if kind == "black":
        return black.to(pixel_values).expand_as(pixel_values)
    sigma = min(pixel_values.shape[-2:]) / 16
    return gaussian_blur(pixel_values, kernel_size=[2 * max(1, int(3 * sigma)) + 1] * 2, sigma=[sigma] * 2)


def shown_images(pixel_values: Tensor, coalitions: Tensor, background: Tensor) -> Tensor:
    """The images (B, 3, H, W) where only the patches of the coalitions (B, g, w) are shown."""
    rows, columns = (
        torch.arange(size, device=coalitions.device) * patches // size
        for size, patches in zip(pixel_values.shape[-2:], coalitions.shape[-2:], strict=True)
    )
    mask = coalitions[:, rows[:, None], columns[None, :]]
    return torch.where(mask[:, None], pixel_values, background)


def coalition_loss(contributions: Tensor, coalitions: Tensor, gains: Tensor) -> Tensor:
    """
    How far the contributions are from what coalitions have ahead of their complements.

    For an additive game v(S) − v(N∖S) = Σ_S φ − Σ_{N∖S} φ. In this difference whatever is symmetric between a
    coalition and its complement cancels, which leaves less noise than either alone: Covert, Lee, "Improving
    KernelSHAP", AISTATS 2021, Sec. 4.

    Args:
        contributions (`Tensor`): φ, (B, K, g, w).
        coalitions (`Tensor`): (P, B, g, w) bool.
        gains (`Tensor`): v(S) − v(N∖S), (P, B, K).

    Returns:
        `Tensor`: a scalar: the squared error, summed over the classes, in the mean over pairs and images.
    """
    signs = 2 * coalitions.flatten(2).to(contributions.dtype) - 1
    fitted = torch.einsum("bkd,pbd->pbk", contributions.flatten(2), signs)
    return (fitted - gains).square().sum(dim=-1).mean()


@dataclass(frozen=True)
class Outcome:
    """
    What one round of the game gave, without gradient.

    Args:
        coalitions (`Tensor`): (P, B, g, w) bool.
        gains (`Tensor`): (P, B, K), how much more they are worth than their complements.
        nothing (`Tensor`): (K,), what is given to each class where nothing is left, in the mean.
    """

    coalitions: Tensor
    gains: Tensor
    nothing: Tensor


class CoalitionGame:
    """
    Plays with the images of a batch: P coalitions for each, and their complements.

    Random numbers are a function of the run's seed, the optimizer step, the micro-batch and the process: a resumed run
    draws what the uninterrupted one did, and nothing is taken from the generators that the first pass uses.

    Args:
        args (`AnteHocTrainingArguments`): how many coalitions, how they are drawn, what replaces the patches.
        black (`Tensor`): (1, 3, 1, 1), black after the normalisation.
    """

    def __init__(self, args: AnteHocTrainingArguments, black: Tensor) -> None:
        self.pairs = args.coalitions_per_image // 2
        self.sampling: CoalitionSampling = args.coalition_sampling
        self.background: CoalitionBackground = args.coalition_background
        self.seed, self.process = args.seed, args.process_index
        self._black = black
        self._last = (-1, 0)

    def play(
        self, pixel_values: Tensor, grid: tuple[int, int], judge: Callable[[Tensor], Tensor], step: int
    ) -> Outcome:
        """
        One round.

        Args:
            pixel_values (`Tensor`): (B, 3, H, W), normalised.
            grid (`tuple[int, int]`): rows and columns of patches.
            judge: images → what they are worth to each class, (N, K), without gradient.
            step (`int`): the optimizer step, counted from 0.
        """
        generator = self._generator(step)
        coalitions, gains, nothing = [], [], []
        for _ in range(self.pairs):
            background = self._background(pixel_values, generator)
            drawn = draw_coalitions(len(pixel_values), grid, self.sampling, generator).to(pixel_values.device)
            images = [shown_images(pixel_values, drawn, background), shown_images(pixel_values, ~drawn, background)]
            # In the mean over the batch it is enough to see a few images without any patch.
            empty = background[: -(-len(drawn) // (2 * self.pairs))]
            with_it, without, left = judge(torch.cat([*images, empty])).split([len(drawn), len(drawn), len(empty)])
            coalitions.append(drawn)
            gains.append(with_it - without)
            nothing.append(left)
        return Outcome(torch.stack(coalitions), torch.stack(gains), torch.cat(nothing).mean(dim=0))

    def _generator(self, step: int) -> torch.Generator:
        self._last = (step, self._last[1] + 1 if self._last[0] == step else 0)
        seed: Any = np.random.SeedSequence([self.seed, *self._last, self.process]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed) & (2**63 - 1))

    def _background(self, pixel_values: Tensor, generator: torch.Generator) -> Tensor:
        if self.background != "mixed":
            return background_images(pixel_values, self.background, self._black)
        kinds = torch.randint(len(_BACKGROUNDS), (len(pixel_values), 1, 1, 1), generator=generator)
        kinds = kinds.to(pixel_values.device)
        images = torch.zeros_like(pixel_values)
        for index, kind in enumerate(_BACKGROUNDS):
            images = torch.where(kinds == index, background_images(pixel_values, kind, self._black), images)
        return images
