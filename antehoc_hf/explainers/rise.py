"""RISE: the mean of random masks, weighted by what the network makes of the masked image."""

from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antehoc_hf.explainers.base import Explainer, RawMaps
from antehoc_hf.explainers.masked import masked_outputs
from antehoc_hf.explainers.network import ModelOptions, Question
from antehoc_hf.explainers.options import at_least_one

_DRAWN = 64  # masks at a time, whatever a pass takes: the same masks for every batch size


class Rise(Explainer):
    """RISE (Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018,
    Eq. 6 and Sec. 3.2): Σ_i confidence(image ⊙ M_i) · M_i, divided by their number and the expected mask. Of a
    regression, the value less its mean under all masks.

    Args:
        masks (`int`): how many; the authors take 4,000 to 8,000.
        cells (`int`): of a small mask, along each side.
        kept (`float`): how likely a cell is kept.
        batch_size (`int`): masked images a pass at most; fewer of large images on a CPU.
        seed (`int`): of the masks, the same for every image.
    """

    name = "rise"

    def __init__(
        self,
        model: nn.Module,
        masks: int = 4000,
        cells: int = 7,
        kept: float = 0.5,
        batch_size: int = 64,
        seed: int = 0,
        **options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(model, **options)
        self.masks, self.cells = at_least_one(masks=masks), at_least_one(cells=cells)
        if not 0 < kept < 1:
            raise ValueError(f"kept={kept!r} must be between 0 and 1.")
        self.kept, self.batch_size, self.seed = kept, at_least_one(batch_size=batch_size), seed

    def raw_maps(self, question: Question) -> RawMaps:
        images = question.images
        target = question.target(question(images))
        maps = torch.zeros(len(images), *images.shape[-2:], device=images.device)
        shown, total = torch.zeros_like(maps), torch.zeros(len(images), device=images.device)
        for position in range(len(images)):
            generator = torch.Generator().manual_seed(self.seed)
            for start in range(0, self.masks, _DRAWN):
                count = min(_DRAWN, self.masks - start)
                masks = self._drawn(count, (images.shape[-2], images.shape[-1]), generator).to(images.device)
                answers = masked_outputs(question, position, masks, self.batch_size)
                confidence = torch.cat([target.select(at).confidence(outputs) for outputs, at in answers])
                maps[position] += torch.einsum("n,nhw->hw", confidence, masks[:, 0])
                shown[position] += masks[:, 0].sum(dim=0)
                total[position] += confidence.sum()
        if target.is_value:  # what a value is above its mean: a number added to all of them says nothing
            maps -= total[:, None, None] / self.masks * shown
        return RawMaps(maps / self.masks / self.kept, torch.full((len(images),), self.masks))

    def _drawn(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Small masks of kept cells, enlarged by one cell more than the image, of which a random part is cut."""
        cells = (torch.rand(count, 1, self.cells, self.cells, generator=generator) < self.kept).float()
        step = [-(-side // self.cells) for side in size]
        large = F.interpolate(cells, size=[(self.cells + 1) * length for length in step], mode="bilinear")
        tops, lefts = (torch.randint(length, (count,), generator=generator).tolist() for length in step)
        cut = [
            mask[:, top : top + size[0], left : left + size[1]]
            for mask, top, left in zip(large, tops, lefts, strict=True)
        ]
        return torch.stack(cut)
