"""How maps are measured."""

from dataclasses import dataclass
from typing import Literal

from antehoc_hf.evaluation.faithfulness import IncDenominator
from antehoc_hf.evaluation.landmarks import NORMALIZERS

FORMS = ("pixel-mean", "pixel-blur", "patch-mean", "patch-blur")
"""Insertion and deletion: what is ranked, and what stands where the image is missing."""

_LEAST = {"insertion_deletion_images": 0, "steps": 1, "patches": 1, "road_images": 0, "chunk_size": 1, "resamples": 1}
_CHOICES = {
    "target": ("label", "prediction"),
    "inc_denominator": ("energy", "image"),
    "normalizer": (None, *NORMALIZERS),
}


@dataclass(frozen=True)
class EvaluationSettings:
    """How maps are measured. Each task uses some of these; a report lists which.

    Args:
        target (`str`): what is watched: the `"label"` (the paper), a class or the words of a caption, or the model's
            own `"prediction"`.
        correct_only (`bool`): average over correctly classified images only.
        threshold (`float`, *optional*): of the binarised maps of classifiers; None leaves them out.
        area (`float`, *optional*): kept part of the image in masks of equal area; None leaves them out.
        areas (`tuple[float]`): further parts of the image, each of which is once kept and once removed
            (`keep_10_avg_drop`, `remove_10_avg_drop`, …).
        inc_denominator (`str`): `"energy"` or `"image"`, see `inc_cond`.
        tolerance (`float`): relative differences of probability up to this are rounding and count as none.
        insertion_deletion_images (`int`): how many images, from the first, insertion and deletion are measured on
            (classification): they cost `2 · steps` passes for each map. 0 leaves them out. Shuffle data that are
            sorted by class.
        insertion_deletion (`tuple[str]`): in which forms, of `"pixel-mean"`, `"pixel-blur"`, `"patch-mean"` and
            `"patch-blur"`: what is ranked and what stands where the image is missing, see `insertion_deletion`. The
            first has the plain names in the report, the others have theirs as a suffix.
        steps: see `insertion_deletion`.
        patches (`int`): patches along the image's shorter side, where patches are ranked.
        road_images (`int`): how many images, from the first, ROAD is measured on (see `road`; classification). 0
            leaves it out.
        chunk_size (`int`): images a pass of insertion, deletion and ROAD, at most.
        normalizer (`str`, *optional*): what errors of landmarks are divided by, of `NORMALIZERS`; None: the first
            whose length is known.
        seed (`int`): of ties, the random control and the bootstrap.
        level, resamples: see `bootstrap_mean`.

    Raises:
        ValueError: for a value that makes no sense, in one sentence.
    """

    target: Literal["label", "prediction"] = "label"
    correct_only: bool = False
    threshold: float | None = 0.8
    area: float | None = 0.2
    areas: tuple[float, ...] = ()
    inc_denominator: IncDenominator = "energy"
    tolerance: float = 1e-5
    insertion_deletion_images: int = 0
    insertion_deletion: tuple[str, ...] = ("pixel-mean",)
    steps: int = 16
    patches: int = 8
    road_images: int = 0
    chunk_size: int = 64
    normalizer: str | None = None
    seed: int = 0
    level: float = 0.95
    resamples: int = 1000

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {', '.join(map(repr, choices))}.")
        for name in ("threshold", "area", "level"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{name}={value!r} must be between 0 and 1.")
        if not 0 <= self.tolerance < 1:
            raise ValueError(
                f"tolerance={self.tolerance!r} must be at least 0 and below 1: it is a relative difference."
            )
        for area in self.areas:
            if not 0 < area < 1:
                raise ValueError(f"areas={self.areas!r} must be between 0 and 1: they are parts of the image.")
        unknown = [form for form in self.insertion_deletion if form not in FORMS]
        if unknown or not self.insertion_deletion:
            raise ValueError(f"insertion_deletion={self.insertion_deletion!r} must be some of {', '.join(FORMS)}.")
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least {least}.")

    def patch_size_of(self, size: tuple[int, ...]) -> int:
        """Side of a ranked patch in pixels, for images of this (height, width).

        Raises:
            ValueError: if the patches do not fill the image.
        """
        side = min(size) // self.patches
        if side < 1 or any(length % side for length in size):
            raise ValueError(
                f"Images of {size[0]}×{size[1]} pixels cannot be cut into {self.patches} patches a side: choose "
                "patches that divide height and width."
            )
        return side
