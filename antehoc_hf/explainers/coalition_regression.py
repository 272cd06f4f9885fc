"""What each patch of one image contributes, by regression on coalitions of its patches and the patches they leave."""

from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antehoc_hf.evaluation.blur import blurred
from antehoc_hf.explainers.base import Explainer, RawMaps
from antehoc_hf.explainers.masked import masked_outputs
from antehoc_hf.explainers.network import ModelOptions, Question, own_maps
from antehoc_hf.explainers.options import at_least_one
from antehoc_hf.explainers.targets import Target
from antehoc_hf.modeling.scaling import patch_grid

# Of the Gaussian process: how far patches are alike, in parts of the grid's shorter side, and how much of the gains'
# variance the patches explain over what they leave. The likeliest are taken, image by image.
_WIDTHS = (1 / 14, 1 / 8, 3 / 14)
_SIGNALS = (0.1, 0.3, 1.0, 3.0, 30.0)
# Of the exponential prior on that: a handful of coalitions can always be explained whole, by chance.
_RATE = 2.0


class CoalitionRegression(Explainer):
    """The additive game nearest to what the network makes of this one image: a coalition of patches plays against the
    patches that it leaves, and a Gaussian process (Rasmussen, Williams, "Gaussian Processes for Machine Learning",
    2006, Eq. 2.25 and 2.30) says what each patch adds to the difference in confidence.

    Coalitions are neighbours that go together, of every size; their own effect of size is set aside. What is left out
    shows the image's mean colour and the blurred image in turns. Playing against the complement cancels what pairs of
    patches make together (Covert, Lee, "Improving KernelSHAP", AISTATS 2021, Sec. 3.2).

    Args:
        grid (`int`): patches along the shorter side.
        pairs (`int`): coalitions; each costs two passes.
        batch_size (`int`): versions of an image a pass at most; fewer of large images on a CPU.
        seed (`int`): of the coalitions, the same for every image.
        own_map (`bool`): whether a model that has a map starts from it; False: as for any other network.
    """

    name = "coalition-regression"
    float32 = True  # small differences count

    def __init__(
        self,
        model: nn.Module,
        grid: int = 14,
        pairs: int = 300,
        batch_size: int = 64,
        seed: int = 0,
        own_map: bool = True,
        **options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(model, **options)
        self.grid, self.pairs = at_least_one(grid=grid), at_least_one(pairs=pairs)
        self.batch_size, self.seed, self.own_map = at_least_one(batch_size=batch_size), seed, own_map

    def raw_maps(self, question: Question) -> RawMaps:
        images = question.images
        target = question.target(question(images))
        grid = patch_grid((images.shape[-2], images.shape[-1]), self.grid)
        coalitions = _neighbours(self.pairs, grid, torch.Generator().manual_seed(self.seed))
        own = own_maps(question, target) if self.own_map else None
        maps = []
        for position in range(len(images)):
            known = None if own is None else F.adaptive_avg_pool2d(own[position].float().cpu(), grid)[0]
            maps.append(additive_game(coalitions, self._gains(question, target, position, coalitions), known))
        at_size = F.interpolate(torch.stack(maps)[:, None], size=images.shape[-2:], mode="nearest-exact")
        passes = 2 * self.pairs + (own is not None)
        return RawMaps(at_size.to(images.device), torch.full((len(images),), passes))

    def _gains(self, question: Question, target: Target, position: int, coalitions: Tensor) -> Tensor:
        """How much more confident each coalition makes the network than its complement, (N,) on the CPU."""
        image = question.images[position : position + 1].float()
        baselines = (image.mean(dim=(2, 3), keepdim=True).expand_as(image), blurred(image))
        gains = torch.zeros(len(coalitions))
        for turn, baseline in enumerate(baselines):
            own = coalitions[turn :: len(baselines)]
            both = torch.cat([own, ~own])[:, None].float()
            masks = F.interpolate(both, size=image.shape[-2:], mode="nearest-exact").to(image.device)
            answers = masked_outputs(question, position, masks, self.batch_size, baseline)
            confidence = torch.cat([target.select(at).confidence(outputs).float().cpu() for outputs, at in answers])
            shown, left = confidence.view(2, -1)
            gains[turn :: len(baselines)] = shown - left
        return gains


def _neighbours(count: int, grid: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Coalitions (N, g, w) bool of 1 to d − 1 of d patches: where a smooth random field is highest."""
    rows, columns = grid
    coarse = torch.rand(count, 1, -(-rows // 2), -(-columns // 2), generator=generator)
    field = F.interpolate(coarse, size=grid, mode="bicubic", align_corners=False)
    field = field + 1e-4 * torch.rand(field.shape, generator=generator)  # settles ties
    sizes = torch.randint(1, max(rows * columns, 2), (count, 1), generator=generator)
    ranks = field.flatten(1).argsort(dim=1, descending=True).argsort(dim=1)
    return (ranks < sizes).view(count, rows, columns)


def additive_game(coalitions: Tensor, gains: Tensor, known: Tensor | None = None) -> Tensor:
    """What each patch contributes, given what coalitions gain over their complements.

    Args:
        coalitions (`Tensor`): (N, g, w) bool.
        gains (`Tensor`): (N,).
        known (`Tensor`, *optional*): (g, w), a map that may be right up to its scale and sign: a coefficient of a
            linear model beside the process (Rasmussen, Williams, Sec. 2.7).

    Returns:
        `Tensor`: (g, w) float32 with mean 0; 0 throughout where all coalitions gain the same.
    """
    rows, columns = coalitions.shape[1:]
    if float(gains.amax() - gains.amin()) < 1e-6:
        return torch.zeros(rows, columns)
    signs, gains = 2 * coalitions.flatten(1).double() - 1, gains.double()
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).double()
    places = places.view(-1, 2) / min(rows, columns)
    size = signs.mean(dim=1)
    aside = 3 * (torch.outer(size, size) + torch.outer(size**3, size**3)) + torch.eye(len(gains), dtype=torch.float64)
    expected, along = _along(signs, known)
    aside = aside + torch.outer(along, along)
    likeliest, found = -torch.inf, torch.zeros(rows * columns, dtype=torch.float64)
    for width in _WIDTHS:
        alike = torch.exp(-torch.cdist(places, places).square() / 2 / width**2)
        between = signs @ alike @ signs.T
        scale = between.diagonal().mean()
        for signal in _SIGNALS:
            root = torch.linalg.cholesky(signal / scale * between + aside)
            weights = torch.cholesky_solve(gains[:, None], root)[:, 0]
            # With the variance of the noise at its best: Eq. 2.30 up to constants.
            evidence = -len(gains) / 2 * (gains @ weights).log() - root.diagonal().log().sum()
            likelihood = float(evidence) - _RATE * signal
            if likelihood > likeliest:
                likeliest = likelihood
                found = signal / scale * alike @ (signs.T @ weights) + expected * (along @ weights)
    return (found - found.mean()).float().view(rows, columns)


def _along(signs: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor]:
    """A map (d,), in units in which the coalitions' gains (N,) by it alone have a mean square of 1; those gains."""
    expected = signs.new_zeros(signs.shape[1]) if known is None else known.flatten().double()
    expected = expected - expected.mean()
    along = signs @ expected
    scale = along.square().mean().sqrt()
    return (expected / scale, along / scale) if scale > 1e-9 else (0 * expected, 0 * along)
