"""Pairs of coalitions for images, one stream of random numbers an image: the same whatever the batches are."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from antehoc_hf.training.objectives.patches import (
    Background,
    Sampling,
    background_images,
    draw_coalitions,
    draw_sizes,
    shown_images,
)

Against = Literal["complement", "drawn"]
_BACKGROUNDS = ("mean", "blur", "black")


class Pairs:
    """Plays with images: `pairs` pairs of coalitions each, the two of a pair on one background.

    Args:
        pairs (`int`): of each image.
        against (`str`): `"complement"`: a coalition plays against the patches that it leaves, as insertion does
            against deletion, and what pairs of patches make together cancels (Covert, Lee, "Improving KernelSHAP",
            AISTATS 2021); `"drawn"`: against another of its size.
        sampling, background (`str`): as in [`CoalitionOptions`].
        black (`Tensor`): (1, 3, 1, 1), black after the normalisation.
        seed (`int`): of the random numbers.
    """

    def __init__(
        self, pairs: int, against: Against, sampling: Sampling, background: Background, black: Tensor, seed: int
    ) -> None:
        self.pairs, self.against, self.sampling, self.background = pairs, against, sampling, background
        self.black, self.seed = black, seed

    def generator(self, index: int) -> torch.Generator:
        """The random numbers of the image with this index."""
        seed = np.random.SeedSequence([self.seed, index]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed) & (2**63 - 1))

    def draw(self, image: Tensor, index: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Of one image (3, H, W): the pairs, (P, 2, g, w) bool, and what is left of the image, (2P, 3, H, W)."""
        generator = self.generator(index)
        sizes = draw_sizes(self.pairs, grid[0] * grid[1], self.sampling, generator)
        first, second = (draw_coalitions(sizes, grid, self.sampling, generator) for _ in range(2))
        drawn = torch.stack([first, ~first if self.against == "complement" else second], dim=1)
        kinds = torch.randint(len(_BACKGROUNDS), (self.pairs,), generator=generator).tolist()
        backgrounds = {kind: self._replacement(image, kind) for kind in set(self._kinds(kinds))}
        behind = torch.stack([backgrounds[kind] for kind in self._kinds(kinds)])
        shown = drawn.flatten(0, 1).to(image.device)
        images = shown_images(image.expand(len(shown), -1, -1, -1), shown, behind.repeat_interleave(2, dim=0))
        return drawn, images

    def play(
        self, images: Tensor, indices: list[int], grid: tuple[int, int], judge: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One round with images (n, 3, H, W).

        Returns:
            `tuple[Tensor, Tensor, Tensor]`: in which patches the two of a pair differ, (n, P, g, w) float32; how much
                more the first is worth, (n, P, K); what nothing is worth, (1, K), as seen on the first image.
        """
        played = [self.draw(image, index, grid) for image, index in zip(images, indices, strict=True)]
        drawn, shown = zip(*played, strict=True)
        empty = self._replacement(images[0], self._kinds([0])[0])[None]
        worth = judge(torch.cat([*shown, empty]))
        pairs = worth[:-1].unflatten(0, (len(images), self.pairs, 2))
        contrasts = torch.stack([pair[:, 0].float() - pair[:, 1].float() for pair in drawn])
        return contrasts.to(images.device), pairs[:, :, 0] - pairs[:, :, 1], worth[-1:]

    def _kinds(self, numbers: list[int]) -> list[str]:
        return [_BACKGROUNDS[number] if self.background == "mixed" else self.background for number in numbers]

    def _replacement(self, image: Tensor, kind: str) -> Tensor:
        return background_images(image[None], kind, self.black)[0]
