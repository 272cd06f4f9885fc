"""ROAD: take pixels out in the order of the map, fill the holes in from their surroundings, and watch the prediction.

Only the order of the pixels counts: a constant or random map scores 0. Source: Rong, Leemann, Borisov, Kasneci,
Kasneci, "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from antehoc_hf.evaluation.curves import check_curves, curves
from antehoc_hf.evaluation.imputation import check_noise, image_noise, linear_imputation
from antehoc_hf.evaluation.maps import rank_pixels
from antehoc_hf.evaluation.metric import Metric, register_metric
from antehoc_hf.passes import images_a_pass


@dataclass(frozen=True)
class Road:
    """Probabilities on images with pixels filled in, for each image.

    Attributes:
        percentages (`Tensor`): (P,) how much was taken out.
        most_relevant_first (`Tensor`): (B, P) probability of the target without the pixels of the largest values;
            lower is better.
        least_relevant_first (`Tensor`): (B, P) the same without those of the smallest; higher is better.
    """

    percentages: Tensor
    most_relevant_first: Tensor
    least_relevant_first: Tensor

    @property
    def combined(self) -> Tensor:
        """Mean of `(least − most relevant first) / 2`, (B,) in [−½, ½]; higher is better, 0 is chance."""
        return ((self.least_relevant_first - self.most_relevant_first) / 2).mean(dim=1)


@torch.no_grad()
def road(
    predict: Callable[[Tensor], Tensor],
    pixel_values: Tensor,
    maps: Tensor,
    target: Tensor,
    *,
    percentages: Sequence[float] = (20, 40, 60, 80),
    noise: float = 0.01,
    seed: int = 0,
    first_index: int = 0,
    chunk_size: int = 64,
) -> Road:
    """Remove and debias, without retraining, for every image given.

    Exactly the asked percentage is taken out, whatever the map: among equal values the order is drawn at random. (A
    threshold at the percentile, as elsewhere, takes out nothing or everything of a binary map.)

    Args:
        predict, pixel_values, maps, target, chunk_size: as in [`insertion_deletion`]; `predict` is called at least
            `2 · P · B / chunk_size` times.
        percentages (`Sequence[float]`): P of them, each in (0, 100).
        noise (`float`): see `noisy_linear_imputation`.
        seed, first_index (`int`): of the order among equal values and of the noise, see `rank_pixels`.

    Returns:
        `Road`: on the device of `pixel_values`.

    Raises:
        ValueError: if shapes don't fit, the maps are not finite, or an option makes no sense.
    """
    counts = _check(pixel_values, maps, target, percentages, noise, chunk_size)
    maps, target = maps.to(pixel_values.device), target.to(pixel_values.device)
    ranks = rank_pixels(maps, seed, first_index)
    pixels, points = ranks.shape[1], 2 * len(counts)
    # For each image: ranks [0, count) for the most relevant first, [pixels − count, pixels) for the least.
    starts = torch.tensor([0] * len(counts) + [pixels - count for count in counts], device=maps.device)
    stops = torch.tensor([*counts, *[pixels] * len(counts)], device=maps.device)
    drawn = noise * image_noise(pixel_values, seed, first_index)  # one field an image, for all its versions

    def version(image: Tensor, point: Tensor) -> Tensor:
        rank, whole = ranks[image], pixel_values[image]
        missing = ((rank >= starts[point, None]) & (rank < stops[point, None])).view(-1, 1, *maps.shape[-2:])
        return torch.where(missing, linear_imputation(whole, missing) + drawn[image], whole)

    found = curves(predict, target, points, version, images_a_pass(pixel_values, chunk_size))
    most, least = found.split(len(counts), dim=1)
    return Road(torch.tensor([float(value) for value in percentages], device=found.device), most, least)


def _check(
    pixel_values: Tensor, maps: Tensor, target: Tensor, percentages: Sequence[float], noise: float, chunk_size: int
) -> list[int]:
    """How many pixels each percentage is."""
    check_curves(pixel_values, maps, target, chunk_size)
    check_noise(noise)
    height, width = pixel_values.shape[-2:]
    if not len(percentages) or not all(0 < value < 100 for value in percentages):
        raise ValueError(
            f"percentages={tuple(percentages)!r} must be one or more numbers between 0 and 100: something must be "
            "taken out, and something be left to fill in from."
        )
    counts = [round(value / 100 * height * width) for value in percentages]
    if not 0 < min(counts) <= max(counts) < height * width:
        raise ValueError(
            f"percentages={tuple(percentages)!r} take out none or all of the {height * width} pixels of an image."
        )
    return counts


register_metric(
    Metric("road", lambda road: road.combined, "ROAD", "higher", "`road(…).combined`; 0 is chance.", decimals=3)
)
