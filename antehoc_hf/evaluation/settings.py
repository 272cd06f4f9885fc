"""How maps are measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from antehoc_hf.evaluation.faithfulness import IncDenominator


@dataclass(frozen=True)
class EvaluationSettings:
    """
    How maps are measured.

    Args:
        target (`str`): the class watched: the `"label"` (the paper) or the model's own `"prediction"`.
        correct_only (`bool`): average over correctly classified images only.
        threshold (`float`, *optional*): of the binarised maps; None leaves them out.
        area (`float`, *optional*): kept part of the image in masks of equal area; None leaves them out.
        inc_denominator (`str`): `"energy"` or `"image"`, see `inc_cond`.
        tolerance (`float`): relative differences of probability up to this are rounding and count as none.
        insertion_deletion_images (`int`): how many images, from the first, insertion and deletion are measured on:
            they cost `2 · steps` passes for each map. 0 leaves them out. Shuffle data that are sorted by class.
        steps, patch_size, baseline: see `insertion_deletion`.
        chunk_size (`int`): images a pass of insertion and deletion.
        seed (`int`): of ties, the random control and the bootstrap.
        level, resamples: see `bootstrap_mean`.

    Raises:
        ValueError: for a value that makes no sense, in one sentence.
    """

    target: Literal["label", "prediction"] = "label"
    correct_only: bool = False
    threshold: float | None = 0.8
    area: float | None = 0.2
    inc_denominator: IncDenominator = "energy"
    tolerance: float = 1e-5
    insertion_deletion_images: int = 0
    steps: int = 16
    patch_size: int = 1
    baseline: Literal["mean", "blur"] = "mean"
    chunk_size: int = 64
    seed: int = 0
    level: float = 0.95
    resamples: int = 1000

    def __post_init__(self) -> None:
        for name, choices in (
            ("target", ("label", "prediction")),
            ("inc_denominator", ("energy", "image")),
            ("baseline", ("mean", "blur")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} must be {choices[0]!r} or {choices[1]!r}.")
        for name in ("threshold", "area", "level"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{name}={value!r} must be between 0 and 1.")
        if not 0 <= self.tolerance < 1:
            raise ValueError(
                f"tolerance={self.tolerance!r} must be at least 0 and below 1: it is a relative difference."
            )
        for name, least in (("insertion_deletion_images", 0), ("steps", 1), ("patch_size", 1), ("chunk_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least {least}.")
        if self.resamples < 1:
            raise ValueError(f"resamples={self.resamples!r} must be at least 1.")
