"""What the landmark head's options must fulfil."""

from typing import Any


def check_landmark_options(config: Any) -> None:
    """
    Checks number, names, mirror images and parts of the points against each other.

    Raises:
        ValueError: for the first that makes no sense, in one sentence.
    """
    count = config.num_landmarks
    described = [name for name in ("landmark_names", "landmark_flip", "landmark_parts") if getattr(config, name)]
    if count is None:
        if described:
            raise ValueError(f"{described[0]} says something about points, but num_landmarks is not given.")
        return
    if not _is_int(count) or count < 1:
        raise ValueError(f"num_landmarks={count!r} must be a whole number of at least 1.")
    names, flip, parts = config.landmark_names, config.landmark_flip, config.landmark_parts
    if names is not None and not (_is_list(names, str) and len(names) == count == len(set(names))):
        raise ValueError(f"landmark_names={names!r} must be {count} different names, one for each point.")
    if flip is not None and not (_is_list(flip, int) and sorted(flip) == list(range(count))):
        raise ValueError(f"landmark_flip={flip!r} must hold each of 0…{count - 1} once: each point's mirror image.")
    if flip is not None and any(flip[flip[point]] != point for point in range(count)):
        raise ValueError(f"landmark_flip={flip!r} must swap points in pairs: mirrored twice, each is itself.")
    for part, points in (parts or {}).items():
        if not (_is_list(points, int) and points and all(0 <= point < count for point in points)):
            raise ValueError(f"landmark_parts[{part!r}]={points!r} must be a list of points in 0…{count - 1}.")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list(values: Any, kind: type) -> bool:
    return isinstance(values, (list, tuple)) and all(
        _is_int(value) if kind is int else isinstance(value, kind) for value in values
    )
