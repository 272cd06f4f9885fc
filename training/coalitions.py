"""
The game behind class-conditional maps: patches are the players, a coalition is what is left of the image.

What a coalition is worth to a class is the probability the network gives it on that image. The contributions φ of the
patches are the additive approximation of the game, fitted to pairs of coalitions of one size, for all images by one
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

from antehoc_hf.modeling.contribution_map import patch_grid
from antehoc_hf.training.arguments import AnteHocTrainingArguments, CoalitionBackground, CoalitionSampling

_BACKGROUNDS = ("mean", "blur", "black")
# How far "ranked" coalitions stray: the random field's standard deviation over the ranking's.
_NOISE = 0.5


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


def draw_sizes(count: int, patches: int, sampling: CoalitionSampling, generator: torch.Generator) -> Tensor:
    """
    How many of d patches `count` coalitions have.

    Args:
        count (`int`): how many.
        patches (`int`): d, at least 2.
        sampling (`str`): `"shapley"`: by the Shapley kernel; otherwise every size is as likely.
        generator (`torch.Generator`): on the CPU.

    Returns:
        `Tensor`: (count,), from 1 to d − 1.
    """
    if sampling == "shapley":
        return torch.multinomial(kernel_sizes(patches), count, replacement=True, generator=generator) + 1
    return torch.randint(1, patches, (count,), generator=generator)


def draw_coalitions(
    sizes: Tensor,
    grid: tuple[int, int],
    sampling: CoalitionSampling,
    generator: torch.Generator,
    ranking: Tensor | None = None,
) -> Tensor:
    """
    Random coalitions of patches.

    Args:
        sizes (`Tensor`): (N,), how many patches each has.
        grid (`tuple[int, int]`): rows and columns of patches.
        sampling (`str`): `"shapley"`: patches independent of each other. `"contiguous"`: neighbours tend to go
            together (the top of a smooth random field), as what is left of a real image does. `"ranked"`: the patches
            that a ranking puts first, give or take such a field.
        generator (`torch.Generator`): on the CPU.
        ranking (`Tensor`, *optional*): (N, g, w), for `"ranked"`.

    Returns:
        `Tensor`: (N, g, w) bool.
    """
    rows, columns = grid
    height = torch.rand(len(sizes), 1, rows, columns, generator=generator)
    if sampling != "shapley":
        coarse = torch.rand(len(sizes), 1, -(-rows // 2), -(-columns // 2), generator=generator)
        # What is left of the fine field settles ties alone.
        height = F.interpolate(coarse, size=grid, mode="bicubic", align_corners=False) + 1e-4 * height
    if sampling == "ranked":
        assert ranking is not None
        # Uniform numbers have a standard deviation of 1/√12. The lowest are taken: the ranking counts downwards.
        height = _NOISE * 12**0.5 * height - _standardised(ranking.float().cpu()).view_as(height)
    rank = height.flatten(1).argsort(dim=1).argsort(dim=1)
    return (rank < sizes[:, None]).view(len(sizes), rows, columns)


def _standardised(values: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 for each of (N, g, w); constant ones become 0."""
    spread, mean = torch.std_mean(values, dim=(1, 2), keepdim=True)
    return (values - mean) / spread.clamp_min(1e-12)


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


def black_of(config: Any) -> Tensor:
    """Black after the normalisation of a model's configuration, (1, 3, 1, 1)."""
    mean, std = torch.tensor(config.image_mean), torch.tensor(config.image_std)
    return (-mean / std).view(1, 3, 1, 1)


def shown_images(pixel_values: Tensor, coalitions: Tensor, background: Tensor) -> Tensor:
    """The images (B, 3, H, W) where only the patches of the coalitions (B, g, w) are shown."""
    rows, columns = (
        torch.arange(size, device=coalitions.device) * patches // size
        for size, patches in zip(pixel_values.shape[-2:], coalitions.shape[-2:], strict=True)
    )
    mask = coalitions[:, rows[:, None], columns[None, :]]
    return torch.where(mask[:, None], pixel_values, background)


def coalition_loss(contributions: Tensor, contrasts: Tensor, gains: Tensor) -> Tensor:
    """
    How far the contributions are from what coalitions have ahead of others of the same size.

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


@dataclass(frozen=True)
class Outcome:
    """
    What one round of the game gave, without gradient.

    Args:
        contrasts (`Tensor`): (P, B, g, w), in which patches the two coalitions of each pair differ.
        gains (`Tensor`): (P, B, K), how much more the first is worth than the second.
        nothing (`Tensor`): (K,), what is given to each class where nothing is left, in the mean.
    """

    contrasts: Tensor
    gains: Tensor
    nothing: Tensor


class RandomCoalitions:
    """
    Coalitions of the patches of a batch's images, and what stands where the others are missing.

    Random numbers are a function of the run's seed, a name, the optimizer step, the micro-batch and the process: a
    resumed run draws what the uninterrupted one did, and nothing is taken from the generators of anything else.

    Args:
        args (`AnteHocTrainingArguments`): how they are drawn, what replaces the patches.
        black (`Tensor`): (1, 3, 1, 1), black after the normalisation.
        stream (`int`): name of this sequence of random numbers.
    """

    def __init__(self, args: AnteHocTrainingArguments, black: Tensor, stream: int) -> None:
        self.sampling: CoalitionSampling = args.coalition_sampling
        self.kind: CoalitionBackground = args.coalition_background
        self.seed, self.process, self.stream = args.seed, args.process_index, stream
        self._black = black
        self._last = (-1, 0)

    def start(self, step: int) -> torch.Generator:
        """The random numbers of the next micro-batch of the optimizer step with this number, counted from 0."""
        self._last = (step, self._last[1] + 1 if self._last[0] == step else 0)
        name = [self.seed, *self._last, self.process, self.stream]
        seed: Any = np.random.SeedSequence(name).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed) & (2**63 - 1))

    def draw(
        self,
        pixel_values: Tensor,
        grid: tuple[int, int],
        generator: torch.Generator,
        count: int = 1,
        ranking: Tensor | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """
        `count` coalitions of each image, (B, g, w) bool, all of one size and on one background; and that background,
        (B, 3, H, W). `"ranked"` ones follow `ranking`, (B, g, w); where there is none, they are `"contiguous"`.
        """
        sampling = "contiguous" if self.sampling == "ranked" and ranking is None else self.sampling
        background = self._background(pixel_values, generator)
        sizes = draw_sizes(len(pixel_values), grid[0] * grid[1], sampling, generator)
        drawn = [draw_coalitions(sizes, grid, sampling, generator, ranking) for _ in range(count)]
        return [coalition.to(pixel_values.device) for coalition in drawn], background

    def _background(self, pixel_values: Tensor, generator: torch.Generator) -> Tensor:
        if self.kind != "mixed":
            return background_images(pixel_values, self.kind, self._black)
        kinds = torch.randint(len(_BACKGROUNDS), (len(pixel_values), 1, 1, 1), generator=generator)
        kinds = kinds.to(pixel_values.device)
        images = torch.zeros_like(pixel_values)
        for index, kind in enumerate(_BACKGROUNDS):
            images = torch.where(kinds == index, background_images(pixel_values, kind, self._black), images)
        return images


class CoalitionGame:
    """
    Plays with the images of a batch: P pairs of coalitions for each, the two of a pair of one size.

    Args:
        args (`AnteHocTrainingArguments`): how many coalitions, how they are drawn, what replaces the patches.
        black (`Tensor`): (1, 3, 1, 1), black after the normalisation.
    """

    def __init__(self, args: AnteHocTrainingArguments, black: Tensor) -> None:
        self.pairs = args.coalitions_per_image // 2
        self.needs_ranking = args.coalition_sampling == "ranked"
        self.coalitions = RandomCoalitions(args, black, stream=0)

    def play(
        self,
        pixel_values: Tensor,
        grid: tuple[int, int],
        judge: Callable[[Tensor], Tensor],
        step: int,
        ranking: Tensor | None = None,
    ) -> Outcome:
        """
        One round.

        Args:
            pixel_values (`Tensor`): (B, 3, H, W), normalised.
            grid (`tuple[int, int]`): rows and columns of patches.
            judge: images → what they are worth to each class, (N, K), without gradient.
            step (`int`): the optimizer step, counted from 0.
            ranking (`Tensor`, *optional*): (B, g, w), what the map says of the patches, where `needs_ranking`.
        """
        generator = self.coalitions.start(step)
        count = len(pixel_values)
        contrasts, gains, nothing = [], [], []
        for _ in range(self.pairs):
            (first, second), background = self.coalitions.draw(pixel_values, grid, generator, 2, ranking)
            images = [shown_images(pixel_values, drawn, background) for drawn in (first, second)]
            # In the mean over the batch it is enough to see a few images without any patch.
            empty = background[: -(-count // (2 * self.pairs))]
            worth, other, left = judge(torch.cat([*images, empty])).split([count, count, len(empty)])
            contrasts.append(first.to(torch.int8) - second.to(torch.int8))
            gains.append(worth - other)
            nothing.append(left)
        return Outcome(torch.stack(contrasts), torch.stack(gains), torch.cat(nothing).mean(dim=0))


class PartialImages:
    """
    Shows the first pass a part of its images as random coalitions of patches, so that the network knows what to make
    of an image of which something is missing.

    Args:
        args (`AnteHocTrainingArguments`): on what share of each batch, how they are drawn, what replaces the patches.
        black (`Tensor`): (1, 3, 1, 1), black after the normalisation.
        patches (`int`): along an image's shorter side.
    """

    def __init__(self, args: AnteHocTrainingArguments, black: Tensor, patches: int) -> None:
        self.share, self.patches = args.partial_image_share, patches
        self.coalitions = RandomCoalitions(args, black, stream=1)

    def of(self, pixel_values: Tensor, step: int) -> Tensor:
        """
        The batch (B, 3, H, W) with its last round(share · B) images in part: the first ones are those that the second
        pass explains.
        """
        count = round(self.share * len(pixel_values))
        if count == 0:
            return pixel_values
        whole, chosen = pixel_values[: len(pixel_values) - count], pixel_values[len(pixel_values) - count :]
        grid = patch_grid((chosen.shape[-2], chosen.shape[-1]), self.patches)
        (drawn,), background = self.coalitions.draw(chosen, grid, self.coalitions.start(step))
        return torch.cat([whole, shown_images(chosen, drawn, background)])
