"""Configuration of landmark detection."""

from typing import Any, ClassVar

from .configuration_antehoc import AnteHocConfig
from .landmark_cnn import NAME as LANDMARK_CNN  # noqa: F401  makes it known to timm
from .map_head import check_count, is_whole

LOSSES = ("mse", "smooth_l1")


class AnteHocLandmarkConfig(AnteHocConfig):
    r"""Configuration of [`AnteHocForLandmarkDetection`].

    Args:
        backbone, image_size, map_head, num_attention_maps, … (*optional*): see [`AnteHocConfig`].
        num_landmarks (`int`, *optional*): Number K of points.
        landmark_names (`list[str]`, *optional*): Their names, in order.
        landmark_flip (`list[int]`, *optional*):
            For each point the index of its mirror image (`[1, 0, 2]`: the first two swap), for flipped images.
        landmark_parts (`dict[str, list[int]]`, *optional*):
            Points that outline one convex part each, e.g. `{"mouth": [48, …]}`, to measure a map against.
        landmark_loss (`str`, *optional*, defaults to `"mse"`):
            `"mse"` on coordinates in [0, 1] (the paper's network) or `"smooth_l1"`.

    Raises:
        ValueError: for any value that makes no sense, in one sentence.
    """

    model_type = "antehoc_landmarks"

    num_landmarks: int | None = None
    landmark_names: list[str] | None = None
    landmark_flip: list[int] | None = None
    landmark_parts: dict[str, list[int]] | None = None
    landmark_loss: str = "mse"

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.landmark_loss not in LOSSES:
            raise ValueError(f"landmark_loss={self.landmark_loss!r} is not one of {', '.join(map(repr, LOSSES))}.")
        described = [name for name in ("landmark_names", "landmark_flip", "landmark_parts") if getattr(self, name)]
        if self.num_landmarks is not None:
            check_count("num_landmarks", self.num_landmarks)
            self._check_points(self.num_landmarks)
        elif described:
            raise ValueError(f"{described[0]} says something about points, but num_landmarks is not given.")

    map_floor: ClassVar[str] = "zero"

    @property
    def num_targets(self) -> int:
        """Each point can have a map."""
        return self.num_landmarks or 0

    @property
    def num_outputs(self) -> int:
        """x and y of each point."""
        return 2 * (self.num_landmarks or 0)

    @property
    def default_map(self) -> str:
        """Contributions."""
        return "contributions"

    @property
    def has_classes(self) -> bool:
        """False: points have coordinates and no probabilities."""
        return False

    def _check_points(self, count: int) -> None:
        """Names, mirror images and parts against each other."""
        names, flip, parts = self.landmark_names, self.landmark_flip, self.landmark_parts
        if parts is not None and not isinstance(parts, dict):
            raise ValueError(f"landmark_parts={parts!r} must be a dictionary, from a part's name to its points.")
        if names is not None and not (_is_list(names, str) and len(names) == count == len(set(names))):
            raise ValueError(f"landmark_names={names!r} must be {count} different names, one for each point.")
        if flip is not None and not (_is_list(flip, int) and sorted(flip) == list(range(count))):
            raise ValueError(f"landmark_flip={flip!r} must hold each of 0…{count - 1} once: every point's mirror.")
        if flip is not None and any(flip[flip[point]] != point for point in range(count)):
            raise ValueError(f"landmark_flip={flip!r} must swap points in pairs: mirrored twice, each is itself.")
        for part, points in (parts or {}).items():
            if not (_is_list(points, int) and points and all(0 <= point < count for point in points)):
                raise ValueError(f"landmark_parts[{part!r}]={points!r} must be a list of points in 0…{count - 1}.")


def _is_list(values: Any, kind: type) -> bool:
    return isinstance(values, (list, tuple)) and all(
        is_whole(value) if kind is int else isinstance(value, kind) for value in values
    )


AnteHocLandmarkConfig.register_for_auto_class()
