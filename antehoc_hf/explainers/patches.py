"""What patches are worth, computed by captum: patches taken out one by one, permuted, or in coalitions."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from threading import Lock
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from antehoc_hf.explainers.base import Explainer, RawMaps
from antehoc_hf.explainers.extras import needed
from antehoc_hf.explainers.network import ModelOptions, Question
from antehoc_hf.explainers.options import at_least_one
from antehoc_hf.modeling.scaling import patch_grid
from antehoc_hf.passes import images_a_pass


class _PatchExplainer(Explainer):
    """A value for each patch; patches that are taken out show the image's mean colour, and the confidence is what
    counts. Methods that draw hold a lock meanwhile: captum uses the process's generator, from which a thread that
    draws by itself, such as one that trains, would take numbers.

    Args:
        grid (`int`): patches along the shorter side.
        samples (`int`, *optional*): how often is drawn, see `drawn`; None: the method's default.
        batch_size (`int`): versions of an image a pass at most; fewer of large images on a CPU.
        seed (`int`): of what is drawn, the same for every image.
    """

    float32 = True  # small differences count
    default_samples = 1
    draws: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        grid: int = 8,
        samples: int | None = None,
        batch_size: int = 64,
        seed: int = 0,
        **options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(model, **options)
        self.grid = at_least_one(grid=grid)
        self.samples = at_least_one(samples=self.default_samples if samples is None else samples)
        self.batch_size, self.seed = at_least_one(batch_size=batch_size), seed

    def raw_maps(self, question: Question) -> RawMaps:
        images = question.images
        target = question.target(question(images))
        rows, columns = patch_grid((images.shape[-2], images.shape[-1]), self.grid)
        row, column = (
            torch.arange(side, device=images.device) * patches // side
            for side, patches in zip(images.shape[-2:], (rows, columns), strict=True)
        )
        patch = (columns * row[:, None] + column)[None, None]

        def worth(versions: Tensor, position: int) -> Tensor:
            at = torch.full((len(versions),), position, device=images.device)
            return target.select(at).confidence(question(versions, at))

        maps = []
        for position, image in enumerate(images.split(1)):
            with _drawing(self.seed, image.device) if self.draws else nullcontext():
                found = self._attributed(
                    worth,
                    inputs=image,
                    baselines=image.mean(dim=(2, 3), keepdim=True).expand_as(image),
                    additional_forward_args=(position,),
                    feature_mask=patch,
                    perturbations_per_eval=images_a_pass(image, self.batch_size),
                )
            # A regression on worth that is the same throughout leaves its rounding.
            maps.append(torch.where(found.abs() < 1e-6, 0.0, found)[:, 0])
        return RawMaps(torch.cat(maps), torch.full((len(images),), self._passes(rows * columns)))

    @abstractmethod
    def _attributed(self, worth: Callable[[Tensor, int], Tensor], **arguments: Any) -> Tensor:
        """What captum says of one image, (1, C, H, W), the same at all pixels of a patch."""

    def _passes(self, patches: int) -> int:
        return self.samples * patches


_GENERATOR = Lock()


@contextmanager
def _drawing(seed: int, device: torch.device) -> Iterator[None]:
    """Captum draws from the generator that all threads of a process share: one at a time, and put back afterwards."""
    with _GENERATOR, torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class LeaveOneOut(_PatchExplainer):
    """Occlusion (Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, Sec. 4.2): what
    the confidence loses when one patch is taken out. Nothing is drawn.
    """

    name = "leave-one-out"
    draws = False

    def _attributed(self, worth: Callable[[Tensor, int], Tensor], **arguments: Any) -> Tensor:
        found: Tensor = needed("captum.attr").FeatureAblation(worth).attribute(**arguments)
        return found

    def _passes(self, patches: int) -> int:
        return patches


class ShapleySampling(_PatchExplainer):
    """Shapley values of the patches from `samples` permutations (Castro et al., "Polynomial calculation of the Shapley
    value based on sampling", Computers & Operations Research, 2009), a pass for each patch of each.
    """

    name = "shapley-sampling"
    default_samples = 8

    def _attributed(self, worth: Callable[[Tensor, int], Tensor], **arguments: Any) -> Tensor:
        method = needed("captum.attr").ShapleyValueSampling(worth)
        found: Tensor = method.attribute(**arguments, n_samples=self.samples)
        return found


class KernelShap(_PatchExplainer):
    """KernelSHAP (Lundberg, Lee, "A Unified Approach to Interpreting Model Predictions", NeurIPS 2017, Sec. 4.1) with
    `samples` coalitions.
    """

    name = "kernel-shap"
    default_samples = 500

    def _attributed(self, worth: Callable[[Tensor, int], Tensor], **arguments: Any) -> Tensor:
        needed("sklearn", "concepts")  # of captum's regression
        found: Tensor = needed("captum.attr").KernelShap(worth).attribute(**arguments, n_samples=self.samples)
        return found

    def _passes(self, patches: int) -> int:
        return self.samples
