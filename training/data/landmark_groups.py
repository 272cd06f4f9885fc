"""Which points of a data set are learned, how they are called, and which swap when an image is mirrored."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from antehoc_hf.shapes.parts import LANDMARKS as SHAPES_LANDMARKS
from antehoc_hf.training.data.errors import DataError

# iBUG's 68 points of a face (Sagonas et al., "300 Faces in-the-Wild Challenge", ICCV workshops 2013), counted from 0.
# Left and right are those of the face.
_FACE_GROUPS: dict[str, range] = {
    "jaw": range(0, 17),
    "right_eyebrow": range(17, 22),
    "left_eyebrow": range(22, 27),
    "nose": range(27, 36),
    "right_eye": range(36, 42),
    "left_eye": range(42, 48),
    "mouth": range(48, 68),
}
_FACE_UNIONS: dict[str, tuple[str, ...]] = {
    "eyebrows": ("right_eyebrow", "left_eyebrow"),
    "eyes": ("right_eye", "left_eye"),
    "parts": ("nose", "right_eye", "left_eye", "mouth"),
}
# What a map of a face is measured against: the parts of the paper's Figure 4.
_FACE_PARTS: dict[str, tuple[str, ...]] = {"nose": ("nose",), "eyes": ("right_eye", "left_eye"), "mouth": ("mouth",)}
_FACE_SWAPS = (
    *((point, 16 - point) for point in range(8)),
    *((point, 43 - point) for point in range(17, 22)),
    *((31, 35), (32, 34)),
    *((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),
    *((48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67)),
)
_FACE_EYES = (36, 45)  # the outer corners
_FACE_POINTS = 68
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class LandmarkScheme:
    """What the points of a data set are.

    Attributes:
        names: of all points, in order.
        flip: for each point its mirror image; None if nobody knows.
        groups: name → points, in any order.
        parts: part → the convex pieces that it consists of, by name; empty where points outline nothing.
        eyes: two points whose distance normalises errors; None: there are none.
    """

    names: tuple[str, ...]
    flip: tuple[int, ...] | None
    groups: Mapping[str, tuple[int, ...]]
    parts: Mapping[str, Mapping[str, tuple[int, ...]]]
    eyes: tuple[int, int] | None


def scheme_of(
    count: int, source: str, names: Sequence[str] | None = None, flip: Sequence[int] | None = None
) -> LandmarkScheme:
    """What is known about `count` points of a data set: 68 are a face; those of `shapes` have names of their own.

    Args:
        count: points of an image.
        source: name of the data set.
        names: of the points, where a user gives them.
        flip: mirror image of each point, likewise.

    Raises:
        DataError: if names or mirror images are not one for each point.
    """
    if names is None and source == "shapes" and count == len(SHAPES_LANDMARKS):
        names = SHAPES_LANDMARKS
    face = names is None and count == _FACE_POINTS
    if names is not None and (len(names) != count or len(set(names)) != count):
        raise DataError(f"There are {len(set(names))} different keypoint_names for {count} points: give each its own.")
    if flip is not None and (
        sorted(flip) != list(range(count)) or any(flip[other] != point for point, other in enumerate(flip))
    ):
        raise DataError(
            f"keypoint_flip must give the mirror image of each of the {count} points, mirrored twice the point itself."
        )
    if face:
        return _face_scheme(tuple(flip) if flip is not None else None)
    own = tuple(names) if names is not None else tuple(str(point) for point in range(count))
    mirrored = tuple(flip) if flip is not None else _flip_by_name(own)
    return LandmarkScheme(own, mirrored, {name: (point,) for point, name in enumerate(own)}, {}, None)


def points_of_group(scheme: LandmarkScheme, group: str) -> list[int]:
    """The points of a group, in ascending order.

    Args:
        scheme: of the data set.
        group: "all", names of groups or points, or numbers and ranges of numbers counted from 0, joined by "+" or ",":
            "nose+eyes", "27-35,48".

    Raises:
        DataError: if there is no such group or point; the sentence lists those there are.
    """
    chosen: set[int] = set()
    count = len(scheme.names)
    for word in (word.strip() for word in re.split(r"[+,]", group)):
        numbers = _RANGE.fullmatch(word)
        if word == "all":
            chosen |= set(range(count))
        elif word in scheme.groups:
            chosen |= set(scheme.groups[word])
        elif numbers is not None:
            first, last = int(numbers[1]), int(numbers[2] or numbers[1])
            if not first <= last < count:
                raise DataError(f"landmark_group={group!r}: {word} is not a range of the points 0 … {count - 1}.")
            chosen |= set(range(first, last + 1))
        else:
            known = ", ".join(scheme.groups) if len(scheme.groups) <= 24 else f"0-{count - 1}"
            raise DataError(
                f"landmark_group={group!r}: there is no {word!r}; use all, numbers such as 0-{min(5, count - 1)}, or "
                f"{known}."
            )
    return sorted(chosen)


def flip_within(scheme: LandmarkScheme, points: Sequence[int]) -> list[int] | None:
    """For each of these points the position of its mirror image among them; None if one is not there or not known."""
    if scheme.flip is None:
        return None
    position = {point: index for index, point in enumerate(points)}
    if any(scheme.flip[point] not in position for point in points):
        return None
    return [position[scheme.flip[point]] for point in points]


def parts_within(scheme: LandmarkScheme, points: Sequence[int]) -> dict[str, list[int]]:
    """Convex piece → positions among these points, for those that lie wholly in them."""
    position = {point: index for index, point in enumerate(points)}
    pieces = {name: piece for part in scheme.parts.values() for name, piece in part.items()}
    return {
        name: [position[point] for point in piece]
        for name, piece in pieces.items()
        if all(point in position for point in piece)
    }


def _face_scheme(flip: tuple[int, ...] | None) -> LandmarkScheme:
    names = tuple(f"{group}_{number}" for group, points in _FACE_GROUPS.items() for number in range(len(points)))
    groups = {name: tuple(points) for name, points in _FACE_GROUPS.items()}
    unions = {
        name: tuple(point for member in members for point in groups[member]) for name, members in _FACE_UNIONS.items()
    }
    mirrored = list(range(_FACE_POINTS))
    for one, other in _FACE_SWAPS:
        mirrored[one], mirrored[other] = other, one
    parts = {part: {piece: groups[piece] for piece in pieces} for part, pieces in _FACE_PARTS.items()}
    return LandmarkScheme(names, flip or tuple(mirrored), {**groups, **unions}, parts, _FACE_EYES)


def _flip_by_name(names: tuple[str, ...]) -> tuple[int, ...] | None:
    """Points whose names differ in "left" and "right" alone swap; None if no name says either."""
    position = {name.lower(): index for index, name in enumerate(names)}
    if not any("left" in name or "right" in name for name in position):
        return None
    mirrored = []
    for index, name in enumerate(position):
        other = re.sub("left|right", lambda side: "right" if side[0] == "left" else "left", name)
        mirrored.append(position.get(other, index))
    return tuple(mirrored)
