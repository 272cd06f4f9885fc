"""Insertion and deletion: put the image's pixels in, or take them out, in the order of the map, and watch the
prediction.

Only the order of the pixels counts, so brightness buys nothing: a constant or random map scores 0 on the difference.
Source: Petsiuk, Das, Saenko, "RISE", BMVC 2018, Sec. 4.2 (deletion to a colour, insertion from a blur); here both run
from and to one baseline, so that their difference is centred on 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from antehoc_hf.evaluation.blur import blurred
from antehoc_hf.evaluation.curves import check_curves, curves
from antehoc_hf.evaluation.maps import rank_pixels
from antehoc_hf.evaluation.metric import Metric, register_metric
from antehoc_hf.passes import images_a_pass


@dataclass(frozen=True)
class InsertionDeletion:
    """Curves and their areas, for each image.

    Attributes:
        fractions (`Tensor`): (S + 1,) part of the pixels inserted or deleted, from 0 to 1.
        insertion_curve, deletion_curve (`Tensor`): (B, S + 1) probability of the target class.
    """

    fractions: Tensor
    insertion_curve: Tensor
    deletion_curve: Tensor

    @property
    def insertion(self) -> Tensor:
        """Area under the insertion curve, (B,) in [0, 1]; higher is better."""
        return torch.trapezoid(self.insertion_curve, self.fractions, dim=1)

    @property
    def deletion(self) -> Tensor:
        """Area under the deletion curve, (B,) in [0, 1]; lower is better."""
        return torch.trapezoid(self.deletion_curve, self.fractions, dim=1)

    @property
    def difference(self) -> Tensor:
        """Insertion − deletion, (B,) in [−1, 1]; higher is better, 0 is chance."""
        return self.insertion - self.deletion


@torch.no_grad()
def insertion_deletion(
    predict: Callable[[Tensor], Tensor],
    pixel_values: Tensor,
    maps: Tensor,
    target: Tensor,
    *,
    steps: int = 16,
    patch_size: int = 1,
    baseline: str | Tensor = "mean",
    seed: int = 0,
    first_index: int = 0,
    chunk_size: int = 64,
) -> InsertionDeletion:
    """Insertion and deletion curves of maps.

    Args:
        predict: images (N, 3, H, W), normalised as the model expects them → probabilities (N, K). It is called
            at least `2 · steps · B / chunk_size` times.
        pixel_values (`Tensor`): (B, 3, H, W).
        maps (`Tensor`): (B, 1, H, W), finite.
        target (`Tensor`): (B,) int64, the class whose probability is watched.
        steps (`int`): S, intervals of a curve.
        patch_size (`int`): 1 ranks pixels; p ranks p × p patches by the mean of the map, which leaves shapes and no
            pixel noise. Must divide height and width.
        baseline (`str` or `Tensor`): what stands where the image is missing: `"mean"`, the image's mean colour;
            `"blur"`, the image after a Gaussian of 1/16 of its shorter side; or images (B, 3, H, W).
        seed, first_index (`int`): of the order among equal values, see `rank_pixels`.
        chunk_size (`int`): images a call of `predict`, at most; fewer on a CPU if they are large, which is faster.

    Returns:
        `InsertionDeletion`: on the device of `pixel_values`.

    Raises:
        ValueError: if shapes don't fit, the maps are not finite, or an option makes no sense.
    """
    units = _check(pixel_values, maps, target, steps, patch_size, chunk_size)
    background = _background(pixel_values, baseline)
    ranks = rank_pixels(F.avg_pool2d(maps.float(), patch_size), seed, first_index)
    # True fractions: `units` need not be a multiple of `steps`.
    counts = torch.linspace(0, units, steps + 1, dtype=torch.float64).round().long().to(pixel_values.device)

    # One list of what must be seen: for each image its whole, its background, and both curves between.
    inner = counts[1:-1]
    shown_first = torch.cat([inner, torch.zeros_like(inner), counts[-1:], counts[:1]])
    hidden_first = torch.cat([torch.zeros_like(inner), inner, counts[:1], counts[:1]])

    def version(image: Tensor, point: Tensor) -> Tensor:
        rank = ranks[image]
        # Insertion shows the first ranks; deletion hides them and shows the others.
        show = torch.where(
            (hidden_first[point] > 0)[:, None], rank >= hidden_first[point, None], rank < shown_first[point, None]
        )
        return torch.where(_to_pixels(show, patch_size, maps.shape[-2:]), pixel_values[image], background[image])

    found = curves(predict, target, len(shown_first), version, images_a_pass(pixel_values, chunk_size))
    insertion, deletion, whole, nothing = found.split([steps - 1, steps - 1, 1, 1], dim=1)
    return InsertionDeletion(
        fractions=counts.float() / units,
        insertion_curve=torch.cat([nothing, insertion, whole], dim=1),
        deletion_curve=torch.cat([whole, deletion, nothing], dim=1),
    )


def _background(pixel_values: Tensor, baseline: str | Tensor) -> Tensor:
    """What stands where the image is missing, (B, 3, H, W)."""
    if isinstance(baseline, Tensor):
        if baseline.shape != pixel_values.shape:
            raise ValueError(
                f"A baseline of images must have the shape of pixel_values, {tuple(pixel_values.shape)}, but its is "
                f"{tuple(baseline.shape)}."
            )
        return baseline.to(pixel_values)
    if baseline == "mean":
        return pixel_values.mean(dim=(2, 3), keepdim=True).expand_as(pixel_values)
    if baseline == "blur":
        return blurred(pixel_values)
    raise ValueError(f"baseline={baseline!r} must be 'mean', 'blur' or a tensor of images.")


def _to_pixels(show: Tensor, patch_size: int, size: torch.Size) -> Tensor:
    """(N, patches) bool → (N, 1, H, W) bool."""
    height, width = size
    grid = show.view(-1, 1, height // patch_size, width // patch_size)
    return grid.repeat_interleave(patch_size, dim=2).repeat_interleave(patch_size, dim=3)


def _check(pixel_values: Tensor, maps: Tensor, target: Tensor, steps: int, patch_size: int, chunk_size: int) -> int:
    """Number of patches that are ranked."""
    check_curves(pixel_values, maps, target, chunk_size)
    height, width = pixel_values.shape[-2:]
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise ValueError(f"patch_size={patch_size!r} must be at least 1 and divide height {height} and width {width}.")
    units = (height // patch_size) * (width // patch_size)
    if not 1 <= steps <= units:
        raise ValueError(f"steps={steps!r} must be between 1 and the number of ranked patches, {units}.")
    return units


def _read(name: str) -> Callable[[InsertionDeletion], Tensor]:
    def value(insertion_deletion: InsertionDeletion) -> Tensor:  # a metric's inputs are found by their names
        return getattr(insertion_deletion, name)

    return value


_metric = partial(Metric, decimals=3)
_AREA, _DIFFERENCE = "`insertion_deletion(…).{}`, in [0, 1].", "`insertion_deletion(…).difference`; 0 is chance."
register_metric(
    _metric("insertion", _read("insertion"), "insertion", "higher", _AREA.format("insertion"), columns=()),
    _metric("deletion", _read("deletion"), "deletion", "lower", _AREA.format("deletion"), columns=()),
    _metric("insertion_minus_deletion", _read("difference"), "insertion − deletion", "higher", _DIFFERENCE),
)
