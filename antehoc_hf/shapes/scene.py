"""One scene from its recipe: the image, its masks, landmarks and captions, and the same scene with parts removed.

A `Recipe` holds all a scene depends on, so any intervention, also of several parts at once, is drawn exactly and at
any time; the columns of the data set hold the common ones.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from antehoc_hf.shapes.clutter import CLUTTER, clutter_layers
from antehoc_hf.shapes.geometry import Array, Point
from antehoc_hf.shapes.parts import (
    CLASSES,
    DECIDING,
    LANDMARK_PARTS,
    LANDMARKS,
    PARTS,
    Bug,
    BugPainter,
    PaintLayer,
    sample_bug,
)
from antehoc_hf.shapes.textures import BACKGROUNDS, background

Bytes = NDArray[np.uint8]

REGIONS: tuple[str, ...] = (*PARTS, CLUTTER)
"""What has a mask and can be removed. Bit k of `part_masks` marks the pixels where REGIONS[k] is to be seen."""

SPLITS: tuple[str, ...] = ("train", "validation", "test", "test_swapped")
BACKGROUND_MODES: tuple[str, ...] = ("independent", "correlated")
HOME_SHARE = 0.95
"""Share of the rows of `background="correlated"` whose background is their class's own."""
SMALLEST_IMAGE = 32

_BUG, _GROUND, _CLUTTER, _SWAPPED_GROUND = range(4)  # independent random streams of one scene


@dataclass(frozen=True)
class Recipe:
    """All that a scene depends on: the data set's seed, the row's split and index, the image side and the background.

    Raises ValueError, in one sentence, for a split or background mode that does not exist, a negative seed or index,
    or images smaller than 32 pixels.
    """

    seed: int
    split: str
    index: int
    image_size: int
    background: str = "independent"

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"There is no split {self.split!r}: choose one of {', '.join(SPLITS)}.")
        check_background(self.background)
        for name, smallest in (("seed", 0), ("index", 0), ("image_size", SMALLEST_IMAGE)):
            check_whole_number(name, getattr(self, name), smallest)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe kept in a row's `scene` column; ValueError when the text is not one."""
        try:
            return cls(**json.loads(text))
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError("A scene's recipe must be the text of the data set's `scene` column.") from error

    def to_json(self) -> str:
        """The recipe as the text of the `scene` column."""
        return json.dumps(asdict(self))

    @property
    def label(self) -> int:
        """Classes take turns, so every run of six rows is balanced."""
        return self.index % len(CLASSES)

    def stream(self, number: int) -> np.random.Generator:
        """An own random stream; `test_swapped` shares the bugs and the clutter of `test`."""
        split = "test" if self.split == "test_swapped" else self.split
        return np.random.default_rng([self.seed, SPLITS.index(split), self.index, number])


@dataclass(frozen=True)
class Scene:
    """A drawn scene, before any quantisation: the bare background and the layers on it, the lowest first."""

    recipe: Recipe
    bug: Bug
    family: int
    ground: Array
    layers: tuple[PaintLayer, ...]

    def image(self, without: Collection[str] = ()) -> Bytes:
        """The image, (H, W, 3) uint8, as it is when the regions named in `without` are not there.

        What lay behind them shows instead: other parts, clutter, the true background. Raises ValueError for a name
        that is not one of REGIONS.
        """
        unknown = sorted(set(without) - set(REGIONS))
        if unknown:
            raise ValueError(f"Cannot remove {unknown[0]!r}: a scene has the regions {', '.join(REGIONS)}.")
        image = self.ground.copy()
        for layer in self.layers:
            if layer.region not in without:
                image[layer.window] += layer.alpha[..., None] * (layer.rgb - image[layer.window])
        return np.round(image * 255.0).astype(np.uint8)

    def part_masks(self) -> Bytes:
        """(H, W) uint8: bit k is set where REGIONS[k] has any part in the colour of the pixel."""
        bits = np.zeros(self.ground.shape[:2], dtype=np.uint8)
        clear = np.ones_like(bits, dtype=np.float64)
        for layer in reversed(self.layers):
            bit = np.uint8(1 << REGIONS.index(layer.region))
            bits[layer.window] |= np.where(layer.alpha * clear[layer.window] > 0.0, bit, np.uint8(0))
            clear[layer.window] *= 1.0 - layer.alpha
        return bits

    def landmarks(self) -> tuple[list[Point], list[bool]]:
        """LANDMARKS in pixels (x right, y down, the first pixel's centre is (0, 0)) and whether each can be seen.

        A landmark whose nominal place is hidden moves to the nearest pixel of its part.
        """
        bits = self.part_masks()
        anchors = BugPainter(self.bug, self.recipe.image_size).anchors()
        places, visible = [], []
        for name, part in zip(LANDMARKS, LANDMARK_PARTS, strict=True):
            rows, columns = np.nonzero(part_mask(bits, part))
            x, y = anchors[name]
            visible.append(rows.size > 0)
            if rows.size:
                near = int(np.argmin((columns - x) ** 2 + (rows - y) ** 2))
                inside = round(x) == columns[near] and round(y) == rows[near]
                x, y = (x, y) if inside else (float(columns[near]), float(rows[near]))
            places.append((x, y))
        return places, visible


def check_whole_number(name: str, value: object, smallest: int) -> None:
    """ValueError with one sentence unless `value` is a whole number of at least `smallest`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < smallest:
        raise ValueError(f"{name} must be a whole number of at least {smallest}, not {value!r}.")


def check_background(mode: object) -> None:
    """ValueError with one sentence unless `mode` is one of BACKGROUND_MODES."""
    if mode not in BACKGROUND_MODES:
        raise ValueError(f"background must be 'independent' or 'correlated', not {mode!r}.")


def draw(recipe: Recipe) -> Scene:
    """The scene of a recipe."""
    bug = sample_bug(recipe.stream(_BUG), recipe.label)
    family, rng = _family(recipe)
    ground = background(BACKGROUNDS[family], rng, recipe.image_size)
    clutter = clutter_layers(recipe.stream(_CLUTTER), recipe.image_size)
    parts = BugPainter(bug, recipe.image_size).layers()
    return Scene(recipe, bug, family, ground, (*clutter, *parts))


def render(scene: str, without: Collection[str] = ()) -> Bytes:
    """The image of a row's `scene` text, (H, W, 3) uint8, without any of REGIONS, also several at once.

    With nothing removed it is the row's image, pixel for pixel. `without` names any of REGIONS; the pixels that change
    all lie in their masks. Raises ValueError for an unknown region or a text that is not a scene.
    """
    if isinstance(without, str):
        raise ValueError(f"without must be a collection of region names, such as [{without!r}], not one text.")
    return draw(Recipe.from_json(scene)).image(without)


def part_mask(part_masks: object, region: str) -> NDArray[np.bool_]:
    """The (H, W) boolean mask of one region from a row's `part_masks` (PIL image or uint8 array).

    `region` is one of REGIONS, or "deciding" (horn, wings and tail together), "bug" (all parts) or "background"
    (neither bug nor clutter). Raises ValueError for any other name.
    """
    bits = np.asarray(part_masks, dtype=np.uint8)
    if region == "background":
        return bits == 0
    names = {"deciding": DECIDING, "bug": PARTS}.get(region, (region,))
    if names[0] not in REGIONS:
        raise ValueError(f"There is no region {region!r}: choose deciding, bug, background, {', '.join(REGIONS)}.")
    return (bits & sum(1 << REGIONS.index(name) for name in names)) != 0


def _family(recipe: Recipe) -> tuple[int, np.random.Generator]:
    """The number of the background family and the stream the background is drawn from."""
    swapped = recipe.split == "test_swapped"
    rng = recipe.stream(_GROUND)
    family = _draw_family(rng, recipe)
    if not swapped:
        return family, rng
    rng = recipe.stream(_SWAPPED_GROUND)
    avoided = {family, recipe.label} if recipe.background == "correlated" else {family}
    return int(rng.choice([k for k in range(len(BACKGROUNDS)) if k not in avoided])), rng


def _draw_family(rng: np.random.Generator, recipe: Recipe) -> int:
    """Independent of the class; or, where correlated, class k's home family k with HOME_SHARE, else any other."""
    chance, other = rng.random(), int(rng.integers(len(BACKGROUNDS) - 1))
    if recipe.background == "independent":
        return int(rng.integers(len(BACKGROUNDS)))
    home = recipe.label
    return home if chance < HOME_SHARE else (other if other < home else other + 1)
